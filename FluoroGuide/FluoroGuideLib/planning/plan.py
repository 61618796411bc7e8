"""The plan: targets, needle trajectories and outlines in the volume's frame (LPS mm), stored as versioned JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .jsonfile import check_header, read_json, take, write_json

PLAN_FORMAT = "fluoroguide-plan"
PLAN_VERSION = 0
LATERALITIES = ("left", "right", "bilateral", "midline")
LARGEST_MM = 1e6
MINIMUM_LENGTH_MM = 1.0
"""Shorter trajectories have no direction worth the name: 0.1 mm of click noise would turn them by 6 degrees."""


def point_lps_mm(value: object, what: str) -> np.ndarray:
    """``value`` as a read-only float64 point (3,), LPS mm; ``what`` names it in the error."""
    try:
        point = np.array(value, float)
    except (TypeError, ValueError, OverflowError):
        point = np.empty(0)
    if point.shape != (3,) or not (np.abs(point) < LARGEST_MM).all():
        raise FluoroGuideError(f"{what} is not three finite numbers", value, "Give x, y, z in LPS mm")
    point.setflags(write=False)
    return point


def _positive(value: object, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LARGEST_MM:
        raise FluoroGuideError(f"{what} is not a positive number", value)
    return float(value)


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise FluoroGuideError(f"{what} has no name", value, "Give it a name")
    return value


@dataclass(frozen=True, eq=False)
class Target:
    """A point to reach.

    Attributes
    ----------
    name
        For people; unique in a plan.
    position_lps_mm
        (3,), volume LPS mm.
    tolerance_mm
        Radius around the point that still counts as in the target; None when nobody decided it.
    region_lps_mm
        Where the target is a joint or area: its polyline (N, 3), closed when the last point repeats the first; else None.
    """

    name: str
    position_lps_mm: np.ndarray
    tolerance_mm: float | None = None
    region_lps_mm: np.ndarray | None = None

    def __post_init__(self) -> None:
        _name(self.name, "A target")
        object.__setattr__(self, "position_lps_mm", point_lps_mm(self.position_lps_mm, f"The position of target '{self.name}'"))
        object.__setattr__(self, "tolerance_mm", _positive(self.tolerance_mm, f"The tolerance of target '{self.name}'"))
        if self.region_lps_mm is not None:
            object.__setattr__(self, "region_lps_mm", _outline(f"region of {self.name}", self.region_lps_mm))

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        data = {"name": self.name, "position_lps_mm": self.position_lps_mm.tolist()}
        data |= {} if self.tolerance_mm is None else {"tolerance_mm": self.tolerance_mm}
        return data if self.region_lps_mm is None else {**data, "region_lps_mm": self.region_lps_mm.tolist()}

    @classmethod
    def from_dict(cls, data: dict) -> Target:
        """The target written by :meth:`to_dict`."""
        return cls(take(data, "name", "target"), take(data, "position_lps_mm", "target"), data.get("tolerance_mm"), data.get("region_lps_mm"))


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A straight needle path.

    Attributes
    ----------
    name
        For people; unique in a plan.
    entry_lps_mm, target_lps_mm
        Where the needle goes in and where its tip shall rest, (3,), volume LPS mm.
    gauge
        Needle gauge (22 for 22G), or None.
    needle_length_mm
        Length of the needle that will be used, or None; the path's own length is :attr:`length_mm`.
    """

    name: str
    entry_lps_mm: np.ndarray
    target_lps_mm: np.ndarray
    gauge: float | None = None
    needle_length_mm: float | None = None

    def __post_init__(self) -> None:
        _name(self.name, "A trajectory")
        for key, word in (("entry_lps_mm", "entry"), ("target_lps_mm", "target")):
            object.__setattr__(self, key, point_lps_mm(getattr(self, key), f"The {word} of trajectory '{self.name}'"))
        object.__setattr__(self, "gauge", _positive(self.gauge, f"The gauge of trajectory '{self.name}'"))
        object.__setattr__(self, "needle_length_mm", _positive(self.needle_length_mm, f"The needle length of trajectory '{self.name}'"))
        if self.length_mm < MINIMUM_LENGTH_MM:
            raise FluoroGuideError(
                f"Entry and target of trajectory '{self.name}' are the same point", f"{self.length_mm:.3g} mm apart", "Move one of them",
            )

    @property
    def length_mm(self) -> float:
        """Distance from entry to target."""
        return float(np.linalg.norm(self.target_lps_mm - self.entry_lps_mm))

    @property
    def axis(self) -> np.ndarray:
        """Unit vector (3,) from entry to target, LPS."""
        return (self.target_lps_mm - self.entry_lps_mm) / self.length_mm

    @property
    def angle_to_axial_deg(self) -> float:
        """Angle between the path and the axial plane: positive when the needle heads cranially."""
        return float(np.degrees(np.arcsin(np.clip(self.axis[2], -1, 1))))

    @property
    def angle_to_sagittal_deg(self) -> float:
        """Angle between the path and the sagittal plane: positive when the needle heads to the patient's left."""
        return float(np.degrees(np.arcsin(np.clip(self.axis[0], -1, 1))))

    def point_at(self, depth_mm: float) -> np.ndarray:
        """Point (3,) of the path ``depth_mm`` beyond the entry, LPS mm."""
        return self.entry_lps_mm + depth_mm * self.axis

    def to_dict(self) -> dict:
        """Plain numbers for JSON; length and angles are told for people and recomputed when read."""
        return {
            "name": self.name, "entry_lps_mm": self.entry_lps_mm.tolist(), "target_lps_mm": self.target_lps_mm.tolist(),
            "gauge": self.gauge, "needle_length_mm": self.needle_length_mm, "length_mm": self.length_mm,
            "angle_to_axial_deg": self.angle_to_axial_deg, "angle_to_sagittal_deg": self.angle_to_sagittal_deg,
        }

    @classmethod
    def from_dict(cls, data: dict) -> Trajectory:
        """The trajectory written by :meth:`to_dict`."""
        entry, target = take(data, "entry_lps_mm", "trajectory"), take(data, "target_lps_mm", "trajectory")
        return cls(take(data, "name", "trajectory"), entry, target, data.get("gauge"), data.get("needle_length_mm"))


@dataclass(frozen=True)
class RequiredView:
    """A view the procedure wants for start or confirmation: a name, and patient angles (LAO, CRA positive) when decided."""

    name: str
    primary_deg: float | None = None
    secondary_deg: float | None = None

    def __post_init__(self) -> None:
        _name(self.name, "A required view")
        for angle in (self.primary_deg, self.secondary_deg):
            if angle is not None and (isinstance(angle, bool) or not isinstance(angle, (int, float)) or not abs(angle) < 1e4):
                raise FluoroGuideError(f"An angle of the required view '{self.name}' is not a number", angle)

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {"name": self.name, "primary_deg": self.primary_deg, "secondary_deg": self.secondary_deg}

    @classmethod
    def from_dict(cls, data: dict) -> RequiredView:
        """The view written by :meth:`to_dict`."""
        return cls(take(data, "name", "required view"), data.get("primary_deg"), data.get("secondary_deg"))


@dataclass(frozen=True, eq=False)
class Plan:
    """What shall be done: all positions in the planning volume's LPS frame, mm.

    Attributes
    ----------
    procedure
        Key of the procedure library (``"vertebroplasty_transpedicular"``), or free text.
    targets, trajectories
        See :class:`Target`, :class:`Trajectory`; names are unique within each.
    laterality
        ``left``, ``right``, ``bilateral``, ``midline`` or None: not told.
    level
        ``"L4/L5"``, ``"T12"`` or None.
    volume_name
        Name of the planning volume; no patient identifiers.
    outlines
        Joint or bone outlines: name -> polyline (N, 3); closed when its last point repeats the first.
    required_views
        Start and confirmation views; plain strings become :class:`RequiredView`.
    notes
        Free text.
    extra
        Keys of the file that this version does not know: kept and written back, never lost.
    """

    procedure: str
    targets: tuple[Target, ...] = ()
    trajectories: tuple[Trajectory, ...] = ()
    laterality: str | None = None
    level: str | None = None
    volume_name: str = ""
    outlines: Mapping[str, np.ndarray] = field(default_factory=dict)
    required_views: tuple[RequiredView, ...] = ()
    notes: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _name(self.procedure, "The plan's procedure")
        if self.laterality is not None and self.laterality not in LATERALITIES:
            raise FluoroGuideError("The plan's laterality is unknown", self.laterality, "Use one of " + ", ".join(LATERALITIES))
        views = tuple(RequiredView(v) if isinstance(v, str) else v for v in self.required_views)
        for key, value in (("targets", tuple(self.targets)), ("trajectories", tuple(self.trajectories)), ("required_views", views)):
            object.__setattr__(self, key, value)
        for items, word in ((self.targets, "targets"), (self.trajectories, "trajectories")):
            names = [item.name for item in items]
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise FluoroGuideError(f"Two {word} of the plan have the same name", twice[0], "Rename one")
        object.__setattr__(self, "outlines", {name: _outline(name, line) for name, line in self.outlines.items()})

    def trajectory(self, name: str | None = None) -> Trajectory:
        """The trajectory of that name; without a name the first one.

        Raises
        ------
        FluoroGuideError
            There is none.
        """
        for item in self.trajectories:
            if name is None or item.name == name:
                return item
        raise FluoroGuideError("The plan has no such trajectory", name, "Names: " + (", ".join(t.name for t in self.trajectories) or "none"))

    def target_points(self) -> dict[str, np.ndarray]:
        """Name -> point (3,) of everything whose error matters: the targets, and tips of trajectories that end elsewhere."""
        points = {t.name: t.position_lps_mm for t in self.targets}
        for item in self.trajectories:
            if not any(np.allclose(item.target_lps_mm, p, atol=1e-6) for p in points.values()):
                points[item.name if item.name not in points else f"{item.name} (tip)"] = item.target_lps_mm
        return points

    def tolerance_mm(self, trajectory: Trajectory) -> float | None:
        """Tolerance of the target at which a trajectory ends (within 1e-6 mm), or None."""
        near = (t.tolerance_mm for t in self.targets if np.allclose(t.position_lps_mm, trajectory.target_lps_mm, atol=1e-6))
        return next(near, None)

    def to_dict(self) -> dict:
        """The contents of ``plan.json``."""
        return {
            **self.extra, "format": PLAN_FORMAT, "version": PLAN_VERSION, "procedure": self.procedure, "laterality": self.laterality,
            "level": self.level, "volume_name": self.volume_name, "targets": [t.to_dict() for t in self.targets],
            "trajectories": [t.to_dict() for t in self.trajectories], "outlines": {n: p.tolist() for n, p in self.outlines.items()},
            "required_views": [v.to_dict() for v in self.required_views], "notes": self.notes,
        }

    @classmethod
    def from_dict(cls, data: dict) -> Plan:
        """The plan written by :meth:`to_dict`.

        Raises
        ------
        FluoroGuideError
            A missing key (named), a wrong format or version, or values that make no plan.
        """
        data = check_header(data, "plan", PLAN_FORMAT, PLAN_VERSION)
        known = set(cls("known").to_dict())
        outlines = data.get("outlines", {})
        if not isinstance(outlines, dict):
            raise FluoroGuideError("The plan's outlines are not an object of name and points", type(outlines).__name__)
        for key in ("level", "volume_name", "notes"):
            if not isinstance(data.get(key), (str, type(None))):
                raise FluoroGuideError(f"The plan's '{key}' is not text", data[key])
        return cls(
            take(data, "procedure", "plan"), tuple(map(Target.from_dict, _list(data, "targets"))),
            tuple(map(Trajectory.from_dict, _list(data, "trajectories"))), data.get("laterality"), data.get("level"),
            data.get("volume_name", ""), outlines, tuple(map(RequiredView.from_dict, _list({"required_views": [], **data}, "required_views"))),
            data.get("notes", ""), {k: v for k, v in data.items() if k not in known},
        )


def _list(data: dict, key: str) -> list:
    value = take(data, key, "plan")
    if not isinstance(value, list):
        raise FluoroGuideError(f"The plan's '{key}' is not a list", type(value).__name__)
    return value


def _outline(name: str, points: object) -> np.ndarray:
    try:
        line = np.array(points, float)
    except (TypeError, ValueError, OverflowError):
        line = np.empty(0)
    if line.ndim != 2 or line.shape[1] != 3 or len(line) < 2 or not np.isfinite(line).all():
        raise FluoroGuideError(f"The outline '{name}' is not a list of at least two finite points", line.shape, "Give [[x, y, z], ...] in LPS mm")
    line.setflags(write=False)
    return line


def read_plan(path: str | Path) -> Plan:
    """Read ``plan.json``.

    Raises
    ------
    FluoroGuideError
        Missing file, no JSON, missing key, wrong format or version, or impossible values: one sentence each.
    """
    return Plan.from_dict(read_json(path, "plan"))


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write ``plan.json``; the old file stays until the new one is complete."""
    write_json(path, plan.to_dict())


def read_targets(path: str | Path) -> list[Target]:
    """Read ``targets.json``: ``[{"name", "position_lps_mm": [x, y, z]}]`` in the volume's frame; a plan's file is accepted too.

    Raises
    ------
    FluoroGuideError
        Missing file, no JSON, not such a list, an empty list, or two targets of one name.
    """
    data = read_json(path, "targets file")
    if isinstance(data, dict) and data.get("format") == PLAN_FORMAT:
        plan = Plan.from_dict(data)
        tolerances = {t.name: t.tolerance_mm for t in plan.targets}
        return [Target(name, point, tolerances.get(name)) for name, point in plan.target_points().items()]
    if not isinstance(data, list) or not data:
        raise FluoroGuideError("The targets file is not a list of targets", Path(path).name, 'Write [{"name": "...", "position_lps_mm": [x, y, z]}]')
    return list(Plan("targets", tuple(map(Target.from_dict, data))).targets)


def check_plan_against_volume(plan: Plan, image: object) -> list[str]:
    """Compare a plan with the volume it is used on.

    Parameters
    ----------
    plan
        The plan.
    image
        3-D SimpleITK image; only its geometry is used.

    Returns
    -------
    list of str
        Warnings, one sentence each: entries or outlines outside (a needle may well start above the scanned skin).

    Raises
    ------
    FluoroGuideError
        A target outside the volume: the plan belongs to another volume, or its coordinates are RAS or flipped.
    """
    for name, point in plan.target_points().items():
        if not inside(image, point[None])[0]:
            raise FluoroGuideError(
                f"The target '{name}' lies outside the volume", f"{np.round(point, 1).tolist()} LPS mm",
                "Check that plan and volume belong together (LPS, not RAS)",
            )
    warnings = [
        f"The entry of trajectory '{t.name}' lies outside the volume, so the first part of its path cannot be checked."
        for t in plan.trajectories if not inside(image, t.entry_lps_mm[None])[0]
    ]
    for name, line in plan.outlines.items():
        missing = np.count_nonzero(~inside(image, line))
        if missing:
            warnings.append(f"{missing} of {len(line)} points of the outline '{name}' lie outside the volume.")
    return warnings


def inside(image: object, points_lps_mm: np.ndarray) -> np.ndarray:
    """Whether points (N, 3), LPS mm, lie in the voxels of a 3-D SimpleITK image; bool (N,)."""
    from ..geometry.frames import lps_from_ijk

    matrix = lps_from_ijk(image)
    ijk = (np.atleast_2d(points_lps_mm) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    return ((ijk >= -0.5) & (ijk <= np.asarray(image.GetSize()) - 0.5)).all(axis=1)
