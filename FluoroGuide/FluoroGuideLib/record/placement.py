"""One achieved needle against its plan, with how far the measurement itself may be wrong."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import FluoroGuideError
from ..guidance.deviation import Deviation, deviation
from ..guidance.triangulation import NeedlePose
from ..planning.jsonfile import plain, take
from ..planning.plan import Plan, Trajectory, point_lps_mm
from ..registration.result import radius_95
from .compatibility import merged, stable_id, unknown

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
    placement_id
        Random UUID: the placement's name in journals, exports and structured reports.
    approved_utc
        When it was approved, ISO text.
    extra
        Keys of the file that this version does not know: kept and written back.
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
    placement_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    approved_utc: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

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
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        parts = {"trajectory": self.trajectory.to_dict(), "deviation": self.deviation.to_dict()}
        return merged(plain({**data, **parts, "tip_error_95_mm": self.tip_error_95_mm}), self.extra)

    @classmethod
    def from_dict(cls, data: dict) -> Placement:
        """The placement written by :meth:`to_dict`."""
        required = {key: take(data, key, "placement") for key in ("trajectory", "tip_lps_mm", "axis_lps", "deviation")}
        others = {f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data and f.name not in (*required, "extra")}
        others.setdefault("placement_id", stable_id(data))
        made = cls(
            Trajectory.from_dict(required["trajectory"]), required["tip_lps_mm"], required["axis_lps"], _deviation(required["deviation"]), **others,
        )
        return dataclasses.replace(made, extra=unknown(data, made.to_dict()))


def _deviation(data: object) -> Deviation:
    """The deviation, whatever else a later version wrote into it."""
    needed = [f.name for f in dataclasses.fields(Deviation) if f.default is dataclasses.MISSING]
    for key in needed:
        take(data, key, "deviation")
    names = {f.name for f in dataclasses.fields(Deviation)}
    return Deviation.from_dict({k: v for k, v in data.items() if k in names})


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
