"""How far an achieved needle is from its plan, in the volume's LPS frame and in words."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..planning.plan import Trajectory, point_lps_mm

SAID_FROM_MM = 0.05
"""Parts of a deviation below this are not spoken: they would round to 0.0 mm."""


@dataclass(frozen=True)
class Deviation:
    """Achieved against planned.

    Attributes
    ----------
    tip_mm
        Distance of the tip from the planned target.
    lateral_mm, along_mm
        Its parts across (never negative) and along the planned path (positive: past the target).
    angle_deg
        Angle between planned and achieved direction, or None without an achieved direction.
    entry_mm
        Distance of the planned entry from the achieved needle's line, or None without a direction.
    direction_text
        ``"2.1 mm cranial, 1.0 mm left, 0.4 mm posterior"``: where the tip is, seen from the target.
    offset_lps_mm
        Tip minus target (x left, y posterior, z cranial).
    in_target
        Whether the tip is within the tolerance; None when no tolerance was given.
    probability_in_target
        Probability of that, given the tip's covariance; None without tolerance or covariance.
    """

    tip_mm: float
    lateral_mm: float
    along_mm: float
    angle_deg: float | None
    entry_mm: float | None
    direction_text: str
    offset_lps_mm: tuple[float, float, float]
    in_target: bool | None = None
    probability_in_target: float | None = None

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {**asdict(self), "offset_lps_mm": list(self.offset_lps_mm)}

    @classmethod
    def from_dict(cls, data: dict) -> Deviation:
        """The deviation written by :meth:`to_dict`."""
        return cls(**{**data, "offset_lps_mm": tuple(data["offset_lps_mm"])})


def deviation(
    trajectory: Trajectory, tip_lps_mm: np.ndarray, axis_lps: np.ndarray | None = None,
    tip_covariance: np.ndarray | None = None, tolerance_mm: float | None = None,
) -> Deviation:
    """Deviation of an achieved needle from a planned trajectory.

    Parameters
    ----------
    trajectory
        The plan, volume LPS mm.
    tip_lps_mm
        Achieved tip (3,), volume LPS mm.
    axis_lps
        Achieved direction (3,) from hub to tip, volume LPS; any length.
    tip_covariance
        (3, 3), mm^2, volume LPS.
    tolerance_mm
        Radius around the target that counts as in it (``plan.tolerance_mm(trajectory)``).

    Raises
    ------
    FluoroGuideError
        A tip, direction or covariance that is not finite.
    """
    tip = point_lps_mm(tip_lps_mm, "The needle tip")
    offset = tip - trajectory.target_lps_mm
    along = float(offset @ trajectory.axis)
    # Not sqrt(total^2 - along^2): that loses all digits when the needle is on its path.
    lateral = float(np.linalg.norm(offset - along * trajectory.axis))
    angle = entry = None
    if axis_lps is not None:
        axis = point_lps_mm(axis_lps, "The needle direction")
        if np.linalg.norm(axis) < 1e-9:
            raise FluoroGuideError("The needle direction has no length", axis)
        axis = axis / np.linalg.norm(axis)
        angle = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(trajectory.axis, axis)), trajectory.axis @ axis)))
        entry = float(np.linalg.norm(np.cross(axis, trajectory.entry_lps_mm - tip)))
    total = float(np.linalg.norm(offset))
    in_target = None if tolerance_mm is None else bool(total <= tolerance_mm)
    probability = None if tolerance_mm is None or tip_covariance is None else probability_in_ball(offset, tip_covariance, tolerance_mm)
    return Deviation(total, lateral, along, angle, entry, direction_text(offset), tuple(map(float, offset)), in_target, probability)


def direction_text(offset_lps_mm: np.ndarray) -> str:
    """An offset (3,), LPS mm, as a person says it, the largest part first; ``"on the target"`` when nothing is left to say."""
    words = (("left", "right"), ("posterior", "anterior"), ("cranial", "caudal"))
    parts = sorted(zip(np.asarray(offset_lps_mm, float), words, strict=True), key=lambda part: -abs(part[0]))
    said = [f"{abs(value):.1f} mm {names[0] if value > 0 else names[1]}" for value, names in parts if abs(value) >= SAID_FROM_MM]
    return ", ".join(said) or "on the target"


@functools.cache
def _legendre_96() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on -1..1; making them costs a hundred times what using them does."""
    return np.polynomial.legendre.leggauss(96)


def probability_in_ball(mean_mm: np.ndarray, covariance_mm2: np.ndarray, radius_mm: float) -> float:
    """Probability that a normal variable (mean (3,), covariance (3, 3)) lies within ``radius_mm`` of the origin.

    In the covariance's own axes the inner integral is an error function; the two outer ones are Gauss-Legendre sums
    over the part of the ball where the density is not negligible.  Error below 1e-6 (tested against closed forms).

    Raises
    ------
    FluoroGuideError
        The covariance is not a finite symmetric 3x3 matrix, or is negative.
    """
    from scipy.special import ndtr

    covariance = np.asarray(covariance_mm2, float)
    if covariance.shape != (3, 3) or not np.isfinite(covariance).all() or not np.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-9):
        raise FluoroGuideError("The tip's covariance is not a symmetric finite 3x3 matrix", covariance.shape)
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-9 * max(1.0, values[-1]):
        raise FluoroGuideError("The tip's covariance is negative in one direction", values[0])
    sigma = np.maximum(np.sqrt(np.clip(values, 0, None)), 1e-7 * radius_mm)
    mean = vectors.T @ np.asarray(mean_mm, float)

    def nodes(half: float, axis: int) -> tuple[np.ndarray, np.ndarray]:
        low, high = max(-half, mean[axis] - 9 * sigma[axis]), min(half, mean[axis] + 9 * sigma[axis])
        if low >= high:
            return np.zeros(1), np.zeros(1)
        # x = r sin(t) removes the square-root edge of the ball that would slow the sum down.
        t, weight = _legendre_96()
        a, b = np.arcsin(low / half), np.arcsin(high / half)
        t, weight = (a + b) / 2 + (b - a) / 2 * t, weight * (b - a) / 2
        x = half * np.sin(t)
        density = np.exp(-0.5 * ((x - mean[axis]) / sigma[axis]) ** 2) / (sigma[axis] * np.sqrt(2 * np.pi))
        return x, weight * half * np.cos(t) * density

    total = 0.0
    for x, weight in zip(*nodes(radius_mm, 0), strict=True):
        y, inner = nodes(np.sqrt(max(radius_mm**2 - x * x, 1e-30)), 1)
        z = np.sqrt(np.maximum(radius_mm**2 - x * x - y * y, 0))
        total += weight * float(inner @ (ndtr((z - mean[2]) / sigma[2]) - ndtr((-z - mean[2]) / sigma[2])))
    return float(np.clip(total, 0.0, 1.0))
