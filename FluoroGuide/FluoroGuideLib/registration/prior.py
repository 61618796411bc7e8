"""A Gaussian prior on the pose: from landmarks, from an earlier registration, or from what is known of the patient's position."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.rigid import check_rigid, difference, left_jacobian, skew
from .similarity import Evaluation

DEFAULT_WEIGHT = 0.005
"""One over the number of independent samples that the images count for: neighbouring pixels err together, so 200, not their number."""


@dataclass(frozen=True, eq=False)
class PosePrior:
    """Normal distribution of the pose.

    With ``d = difference(mean, pose, center_mm)`` it adds ``weight * d' covariance^-1 d`` to the mean cost per pixel.

    Attributes
    ----------
    mean
        4x4, volume LPS -> isocentre LPS.
    covariance
        6x6 of (rx, ry, rz in rad, tx, ty, tz in mm), left perturbation in isocentre axes about ``center_mm``.
    center_mm
        (3,), isocentre frame.
    weight
        0 switches it off; see :data:`DEFAULT_WEIGHT`.

    Raises
    ------
    FluoroGuideError
        A mean that is not rigid, a covariance that is not 6x6, symmetric and positive definite, or a negative weight.
    """

    mean: np.ndarray
    covariance: np.ndarray
    center_mm: np.ndarray
    weight: float = DEFAULT_WEIGHT

    def __post_init__(self) -> None:
        covariance = np.asarray(self.covariance, float)
        hint = "Give standard deviations in rad and mm, squared, on its diagonal"
        if covariance.shape != (6, 6) or not np.isfinite(covariance).all() or not np.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-12):
            raise FluoroGuideError("The prior's covariance is not a finite symmetric 6x6 matrix", covariance.shape, hint)
        sigma = np.sqrt(np.clip(np.diag(covariance), 1e-300, None))
        if np.linalg.eigvalsh(covariance / np.outer(sigma, sigma))[0] < 1e-12:
            raise FluoroGuideError("The prior's covariance is not positive definite", None, hint)
        if not np.isfinite(self.weight) or self.weight < 0:
            raise FluoroGuideError("The prior's weight must be zero or positive", self.weight, "Use 0 to switch it off")
        information = np.linalg.inv(covariance / np.outer(sigma, sigma)) / np.outer(sigma, sigma)
        values = {"mean": check_rigid(self.mean, "prior's mean pose"), "covariance": covariance, "center_mm": np.asarray(self.center_mm, float)}
        for name, value in {**values, "_information": information}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def around(
        cls, pose: np.ndarray, center_mm: np.ndarray, *, rotation_deg: float = 3.0, translation_mm: float = 5.0, weight: float = DEFAULT_WEIGHT,
    ) -> PosePrior:
        """A prior around a previous pose with the same standard deviation about every axis (degrees) and along it (mm)."""
        if not (rotation_deg > 0 and translation_mm > 0):
            raise FluoroGuideError("The prior's standard deviations must be positive", f"{rotation_deg} degrees, {translation_mm} mm")
        return cls(pose, np.diag([np.radians(rotation_deg) ** 2] * 3 + [translation_mm**2] * 3), center_mm, weight)

    @classmethod
    def from_result(
        cls, result: object, *, moved_deg: float = 0.0, moved_mm: float = 0.0, weight: float = DEFAULT_WEIGHT,
    ) -> PosePrior:
        """A prior from a registration or a landmark start (anything with ``pose``, ``covariance`` and ``center_mm``).

        ``moved_deg`` and ``moved_mm`` widen it by what the patient may have moved since (standard deviations).
        """
        widened = np.asarray(result.covariance, float) + np.diag([np.radians(moved_deg) ** 2] * 3 + [moved_mm**2] * 3)
        return cls(result.pose, widened, result.center_mm, weight)

    def add(self, pose: np.ndarray, center_mm: np.ndarray, evaluation: Evaluation) -> Evaluation:
        """The evaluation with the prior's share in cost, rank, gradient and Hessian, for a perturbation about ``center_mm``.

        Like :class:`Evaluation` itself: gradient and Hessian are half the derivatives of the cost. The gradient is exact, the
        Hessian Gauss-Newton.
        """
        if self.weight == 0:
            return evaluation
        d = difference(self.mean, pose, self.center_mm)
        pull = self.weight * (self._information @ d)
        cost = float(d @ pull)
        changes = {"cost": evaluation.cost + cost, "rank": evaluation.rank + cost}
        if evaluation.gradient is not None:
            # log(exp(dr) exp(w)) = w + J_l(w)^-1 dr;  the prior's centre, moved to c + t, moves on by dr x (c + t - center) + dt
            jacobian = np.eye(6)
            jacobian[:3, :3] = np.linalg.inv(left_jacobian(d[:3]))
            jacobian[3:, :3] = -skew(self.center_mm + d[3:] - np.asarray(center_mm, float))
            changes["gradient"] = evaluation.gradient + jacobian.T @ pull
            changes["hessian"] = evaluation.hessian + self.weight * jacobian.T @ self._information @ jacobian
        return dataclasses.replace(evaluation, **changes)
