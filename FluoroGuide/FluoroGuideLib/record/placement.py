"""One achieved needle against its plan, with how far the measurement itself may be wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..guidance.deviation import Deviation, deviation
from ..guidance.triangulation import NeedlePose
from ..planning.jsonfile import plain, take
from ..planning.plan import Plan, Trajectory, point_lps_mm
from ..registration.result import radius_95

METHODS = ("manual", "automatic")


@dataclass(frozen=True, eq=False)
class Placement:
    """Achieved against planned; positions in volume LPS mm.

    Attributes
    ----------
    trajectory
        The planned path, as it was then (a later change of the plan does not change what was recorded).
    tip_lps_mm, axis_lps
        Achieved tip (3,) and unit direction (3,) from hub to tip; the direction is None when it was not measured.
    deviation
        See :class:`~FluoroGuideLib.guidance.deviation.Deviation`.
    tip_covariance_mm2
        (3, 3) or None when the uncertainty is not known.
    axis_sigma_deg
        Standard deviation of the direction, or None.
    views
        The views it was measured from, in words (``"LAO 30.0 CRA 10.0"``).
    method
        ``"manual"`` (a person marked the needle) or ``"automatic"``.
    approved_by
        Who confirmed it; None until somebody does.
    registration_verdict
        Verdict of the registration used, or None.
    utc
        When it was measured, ISO text.
    warnings
        Sentences that go with the measurement.
    """

    trajectory: Trajectory
    tip_lps_mm: np.ndarray
    axis_lps: np.ndarray | None
    deviation: Deviation
    tip_covariance_mm2: np.ndarray | None = None
    axis_sigma_deg: float | None = None
    views: tuple[str, ...] = ()
    method: str = "manual"
    approved_by: str | None = None
    registration_verdict: str | None = None
    utc: str | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise FluoroGuideError("The way the placement was measured is unknown", self.method, "Use one of " + ", ".join(METHODS))
        object.__setattr__(self, "tip_lps_mm", point_lps_mm(self.tip_lps_mm, "The achieved tip"))
        if self.axis_lps is not None:
            object.__setattr__(self, "axis_lps", point_lps_mm(self.axis_lps, "The achieved direction"))
        if self.tip_covariance_mm2 is not None:
            object.__setattr__(self, "tip_covariance_mm2", np.array(self.tip_covariance_mm2, float).reshape(3, 3))
        object.__setattr__(self, "views", tuple(self.views))
        object.__setattr__(self, "warnings", tuple(self.warnings))

    @property
    def tip_error_95_mm(self) -> float | None:
        """Radius around the tip that holds the true one with 95 % probability, or None."""
        return None if self.tip_covariance_mm2 is None else radius_95(self.tip_covariance_mm2)

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        parts = {"trajectory": self.trajectory.to_dict(), "deviation": self.deviation.to_dict()}
        return plain({**data, **parts, "tip_error_95_mm": self.tip_error_95_mm})

    @classmethod
    def from_dict(cls, data: dict) -> Placement:
        """The placement written by :meth:`to_dict`."""
        required = {key: take(data, key, "placement") for key in ("trajectory", "tip_lps_mm", "axis_lps", "deviation")}
        others = {f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data and f.name not in required}
        return cls(
            Trajectory.from_dict(required["trajectory"]), required["tip_lps_mm"], required["axis_lps"],
            Deviation.from_dict(required["deviation"]), **others,
        )


def placement_of(
    plan: Plan, needle: NeedlePose, trajectory: Trajectory | None = None, *, views: Sequence[str] = (), method: str = "manual",
    registration_verdict: str | None = None, utc: str | None = None,
) -> Placement:
    """The placement of a needle in the *volume's* frame (:func:`~FluoroGuideLib.guidance.triangulation.needle_in_volume`).

    Parameters
    ----------
    plan
        Gives the target's tolerance, and the first trajectory when none is named.
    needle
        Located needle; its covariance should include the registration's.
    trajectory, views, method, registration_verdict, utc
        See :class:`Placement`.

    Raises
    ------
    FluoroGuideError
        The needle is still in the isocentre frame, or the plan has no trajectory.
    """
    if needle.frame != "volume":
        raise FluoroGuideError("The needle is not in the volume's frame", needle.frame, "Apply the registration first (needle_in_volume)")
    path = trajectory or plan.trajectory()
    found = deviation(path, needle.tip_mm, needle.axis, needle.tip_covariance_mm2, plan.tolerance_mm(path))
    return Placement(
        path, needle.tip_mm, needle.axis, found, needle.tip_covariance_mm2, needle.axis_sigma_deg, tuple(views), method,
        registration_verdict=registration_verdict, utc=utc, warnings=needle.warnings,
    )
