"""What a registration answers: the pose, how far it may be wrong, and a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.rigid import apply, point_jacobian, recentered
from .findings import Finding
from .geometry_error import CArmEstimate

VERDICTS = ("pass", "warn", "fail")
CHI_95_1 = 1.959964
"""95 % half-width of a normal distribution, in sigmas."""


@dataclass(frozen=True)
class TargetError:
    """Predicted error of one target, mm.

    Attributes
    ----------
    name
        The target's name.
    predicted_error_mm
        Radius that holds the 3-D error with 95 % probability.
    in_plane_mm, depth_mm
        95 % half-widths per view: the largest direction in the plane through the target parallel to the detector,
        and along the beam.
    covariance_mm2
        3x3, isocentre LPS axes.
    """

    name: str
    predicted_error_mm: float
    in_plane_mm: tuple[float, ...]
    depth_mm: tuple[float, ...]
    covariance_mm2: np.ndarray

    def to_dict(self) -> dict:
        """Plain numbers for ``result.json``."""
        return {
            "name": self.name, "predicted_error_mm": self.predicted_error_mm, "in_plane_mm": list(self.in_plane_mm),
            "depth_mm": list(self.depth_mm), "covariance_mm2": self.covariance_mm2.tolist(),
        }


def radius_95(covariance: np.ndarray) -> float:
    """Radius of the sphere that holds 95 % of a zero-mean normal distribution with this 3x3 covariance.

    Uses the three-moment chi-square approximation of a weighted sum of squares (Imhof 1961; Pearson's fit as in
    H. Liu et al., Comput. Stat. Data Anal. 53:853, 2009); its error is below 2 % for every shape (tested by sampling).
    """
    from scipy.special import gammaincinv  # what scipy.stats.chi2.ppf computes, without its 0.7 s of import

    weights = np.clip(np.linalg.eigvalsh(covariance), 0, None)
    c1, c2, c3 = (float((weights**k).sum()) for k in (1, 2, 3))
    if c2 <= 0:
        return 0.0
    dof = c2**3 / c3**2
    return float(np.sqrt(max(0.0, c1 + (2 * gammaincinv(dof / 2, 0.95) - dof) * np.sqrt(c2 / dof))))


@dataclass(frozen=True, eq=False)
class Registration:
    """Result of a 2D/3D registration.

    Attributes
    ----------
    pose
        4x4, volume LPS -> isocentre LPS, mm.
    verdict
        ``"pass"``, ``"warn"`` or ``"fail"``.
    reasons
        Sentences that explain the verdict; never empty unless the verdict is a plain pass.
    similarity
        Per view, -1..1 (weighted local correlation).
    covariance
        6x6 of (rx, ry, rz in rad, tx, ty, tz in mm), left perturbation in isocentre axes about ``center_mm``.
    center_mm
        Centre (3,) of the perturbation, isocentre LPS.
    views
        The views used.
    history
        One dictionary per stage (level, cost, number of candidates, ...).
    seconds
        Wall time of the registration alone, after loading and compilation.
    projections_rendered
        Number of DRRs.
    carm
        What was found about the C-arm's geometry when that was estimated too; ``views`` are then the corrected ones.
    findings
        What ``verdict`` and ``reasons`` were made of, in the same order; empty where only those are known (a result read from a file).
    """

    pose: np.ndarray
    verdict: str
    reasons: tuple[str, ...]
    similarity: tuple[float, ...]
    covariance: np.ndarray
    center_mm: np.ndarray
    views: tuple[CArmView, ...]
    history: tuple[dict, ...] = ()
    seconds: float = 0.0
    projections_rendered: int = 0
    facts: dict = field(default_factory=dict)
    carm: CArmEstimate | None = None
    findings: tuple[Finding, ...] = ()

    def point_covariance(self, point_lps_mm: np.ndarray) -> np.ndarray:
        """Covariance (3, 3), mm^2 in isocentre axes, of where a volume point (3,) ends up."""
        if not np.isfinite(self.covariance).all():
            return np.diag([np.inf] * 3)
        jacobian = point_jacobian(apply(self.pose, point_lps_mm), self.center_mm)[0]
        return jacobian @ self.covariance @ jacobian.T

    def target_error(self, points: dict[str, np.ndarray]) -> list[TargetError]:
        """Predicted errors of named volume points (3,), LPS mm, for the views used."""
        return [self._one_error(name, np.asarray(p, float)) for name, p in points.items()]

    def _one_error(self, name: str, point: np.ndarray) -> TargetError:
        covariance = self.point_covariance(point)
        if not np.isfinite(covariance).all():  # the images do not determine the pose
            unknown = (np.inf,) * len(self.views)
            return TargetError(name, np.inf, unknown, unknown, np.diag([np.inf] * 3))
        in_plane, depth = [], []
        for number, view in enumerate(self.views):
            # An error along the ray through the target is invisible in the view; the rest is what the image shows.
            ray = apply(self.pose, point) - view.source_mm
            ray /= np.linalg.norm(ray)
            across = np.eye(3) - np.outer(ray, ray)
            seen = covariance if self.carm is None else self._seen(number, point)
            in_plane.append(float(CHI_95_1 * np.sqrt(max(0.0, np.linalg.eigvalsh(across @ seen @ across)[-1]))))
            depth.append(float(CHI_95_1 * np.sqrt(max(0.0, ray @ covariance @ ray))))
        return TargetError(name, radius_95(covariance), tuple(in_plane), tuple(depth), covariance)

    def _seen(self, number: int, point: np.ndarray) -> np.ndarray:
        """Covariance (3, 3) of where a volume point appears in a view whose geometry was estimated with the pose."""
        given = self.covariance - recentered(self.carm.pose_covariance(), self.carm.center_mm, self.center_mm)
        return self.carm.seen_covariance(number, apply(self.pose, point), recentered(given, self.center_mm, self.carm.center_mm))

    def to_dict(self, targets: dict[str, np.ndarray] | None = None) -> dict:
        """The contents of ``result.json`` (DESIGN 5)."""
        from .. import __version__

        return {
            "verdict": self.verdict, "reasons": list(self.reasons), "pose_matrix": self.pose.tolist(),
            "similarity": list(self.similarity), "covariance": self.covariance.tolist(),
            "covariance_center_iso_lps_mm": np.asarray(self.center_mm).tolist(),
            "targets": [e.to_dict() for e in self.target_error(targets or {})], "seconds": self.seconds,
            "projections_rendered": self.projections_rendered, "version": __version__,
            "views": [v.to_dict() for v in self.views], "history": list(self.history), **self.facts,
            **({} if self.carm is None else {"carm": self.carm.to_dict()}),
        }
