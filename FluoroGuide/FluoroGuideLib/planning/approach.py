"""C-arm angles for a needle: bull's-eye, progress views, and the pair of views that locates its tip best.

All points are in the planning volume's LPS frame, mm.  Angles belong to the isocentre frame; ``pose`` (volume ->
isocentre) says how the patient lies on the table, and without one the patient is taken to lie as scanned.  Solved views
are :class:`CArmView` objects **in the volume's frame**, so that plan and DRR are drawn with them directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, angles_of_beam, beam_axes
from ..geometry.frames import lps_from_ijk
from ..geometry.rigid import apply, inverse
from .carms import CArmCard, gantry_angles
from .plan import Trajectory

STEP_DEG = 1.0
"""Step between the perpendicular directions that are compared; each is exactly perpendicular."""


@dataclass(frozen=True, eq=False)
class SolvedView:
    """A C-arm position for a plan.

    Attributes
    ----------
    name
        ``bull's-eye``, ``progress 1``, ...
    primary_deg, secondary_deg
        Patient angles, LAO and CRA positive.
    isocenter_lps_mm
        The point (3,) of the volume that the table brings to the isocentre.
    table_shift_mm
        How far the patient moves for it, (3,) in patient L, P, S.
    view
        The view in the volume's frame.
    off_deg
        Degrees between this view and the one wanted; 0 when it is reached.
    bone_mm
        Mean length of bone in front of and behind the needle along the rays; None when not computed.
    text
        The position in words, console included.
    reasons
        Why this one, one sentence each.
    """

    name: str
    primary_deg: float
    secondary_deg: float
    isocenter_lps_mm: np.ndarray
    table_shift_mm: np.ndarray
    view: CArmView
    off_deg: float = 0.0
    bone_mm: float | None = None
    text: str = ""
    reasons: tuple[str, ...] = field(default_factory=tuple)

    @property
    def reachable(self) -> bool:
        """Whether the C-arm reaches the view wanted."""
        return self.off_deg < 1e-6

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {
            "name": self.name, "primary_deg": self.primary_deg, "secondary_deg": self.secondary_deg, "text": self.text,
            "isocenter_lps_mm": self.isocenter_lps_mm.tolist(), "table_shift_mm": self.table_shift_mm.tolist(), "off_deg": self.off_deg,
            "reachable": self.reachable, "bone_mm": self.bone_mm, "reasons": list(self.reasons), "view": self.view.to_dict()}


@dataclass(frozen=True)
class Room:
    """The C-arm and how the patient lies.

    Attributes
    ----------
    card
        Limits and geometry.
    patient_position
        HFS, HFP, FFS or FFP.
    pose
        4x4, volume LPS -> isocentre LPS, where the table stands now; identity by default.
    """

    card: CArmCard
    patient_position: str = "HFS"
    pose: np.ndarray = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        gantry_angles(0.0, 0.0, self.patient_position)  # raises for an unknown position

    def angles(self, direction_lps: np.ndarray) -> tuple[float, float]:
        """Patient angles of a beam direction (3,) given in the volume's frame."""
        return angles_of_beam(self.pose[:3, :3] @ np.asarray(direction_lps, float))

    def direction(self, primary_deg: float, secondary_deg: float) -> np.ndarray:
        """Unit beam direction (3,), isocentre to detector, in the volume's frame."""
        return self.pose[:3, :3].T @ beam_axes(primary_deg, secondary_deg)[2]

    def view(self, primary_deg: float, secondary_deg: float, isocenter_lps_mm: np.ndarray) -> CArmView:
        """The view in the volume's frame with a point of the volume at the isocentre."""
        centered = self.pose.copy()
        centered[:3, 3] = -self.pose[:3, :3] @ np.asarray(isocenter_lps_mm, float)
        return self.card.view(primary_deg, secondary_deg).moved(inverse(centered))

    def table(self, wanted_lps_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(point at the isocentre, table shift in L, P, S): the wanted point, or what the table's travel allows."""
        shift = -apply(self.pose, wanted_lps_mm)
        if self.card.table_range_mm is not None:
            shift = np.clip(shift, -np.array(self.card.table_range_mm), self.card.table_range_mm)
        return apply(inverse(self.pose), -shift), shift


def nearest_angles(direction: np.ndarray, room: Room) -> tuple[float, float, float]:
    """The reachable patient angles nearest to a beam direction (3,) in the volume's frame, and the degrees between.

    On the edge of a range of one gantry angle the best other angle is known in closed form, so the result is exact.
    """
    a, b = room.angles(direction)
    if room.card.reaches(a, b, room.patient_position):
        return a, b, 0.0
    a, b = np.radians(gantry_angles(a, b, room.patient_position))
    sign = -1.0 if room.card.tube_over_table else 1.0
    (a0, a1), (b0, b1) = np.radians(room.card.primary_range_deg), np.radians(room.card.secondary_range_deg)
    edges = [e for e in (a, a0, a1, -np.pi / 2, np.pi / 2) if a0 - 1e-12 <= e <= a1 + 1e-12 and sign * np.cos(e) > -1e-9]
    best = (np.inf, 0.0, 0.0)
    for primary in edges:
        free = np.arctan2(np.sin(b), np.cos(b) * np.cos(primary - a))
        for secondary in (free, b0, b1):
            if b0 - 1e-12 <= secondary <= b1 + 1e-12:
                cosine = np.cos(secondary) * np.cos(b) * np.cos(primary - a) + np.sin(secondary) * np.sin(b)
                best = min(best, (float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), primary, secondary))
    if not np.isfinite(best[0]):
        raise FluoroGuideError("The C-arm card leaves no angle at all", room.card.name, "Check its ranges and tube_over_table")
    a, b = np.degrees(best[1:])
    return *_from_gantry(a, b, room.patient_position), best[0]


def _from_gantry(primary_deg: float, secondary_deg: float, patient_position: str) -> tuple[float, float]:
    from ..geometry.carm import patient_angles

    a, b, _ = patient_angles(float(primary_deg), float(secondary_deg), patient_position)
    return a, b


def bulls_eye(trajectory: Trajectory, room: Room) -> SolvedView:
    """The view that sees the needle as a dot: the source on the needle's line.

    Of the two beam directions along the needle the reachable one is taken (the tube on its side of the table).  The
    target is brought to the isocentre; where the table's travel does not allow it, the beam is turned so that the
    source lies on the needle's line nevertheless.
    """
    center, shift = room.table(trajectory.target_lps_mm)
    options = []
    for sign in (-1.0, 1.0):  # the detector on the entry's side first: the needle's hub faces it
        wanted = _through_source(trajectory, center, sign * trajectory.axis, room.card.sod_mm)
        options.append((*nearest_angles(wanted, room), sign))
    a, b, off, sign = min(options, key=lambda o: o[2])
    side = "detector on the needle's hub side" if sign < 0 else "detector on the needle's tip side"
    reasons = [f"Beam along the needle, {side}."]
    if off > 1e-6:
        reasons.append(f"The C-arm does not reach the needle's direction: this is the nearest view, {off:.1f} deg off.")
    if np.linalg.norm(center - trajectory.target_lps_mm) > 0.5:
        reasons.append("The table does not bring the target to the isocentre: the dot is off the image centre.")
    return _solved("bull's-eye", a, b, center, shift, room, off, reasons)


def _through_source(trajectory: Trajectory, center: np.ndarray, direction: np.ndarray, sod_mm: float) -> np.ndarray:
    """Beam direction with the source on the needle's line, ``sod_mm`` from ``center`` and behind it along ``direction``."""
    offset = center - trajectory.target_lps_mm
    across = offset - (offset @ direction) * direction
    if np.linalg.norm(across) >= sod_mm:
        return direction
    source = center - across - np.sqrt(sod_mm**2 - across @ across) * direction
    return (center - source) / sod_mm


def _solved(name: str, a: float, b: float, center: np.ndarray, shift: np.ndarray, room: Room, off: float, reasons: Sequence[str],
            bone_mm: float | None = None) -> SolvedView:
    text = room.card.describe(a, b, room.patient_position)
    return SolvedView(name, a, b, center, shift, room.view(a, b, center), off, bone_mm, text, tuple(reasons))


def progress_views(trajectory: Trajectory, room: Room, bone: object | None = None, count: int = 2, apart_deg: float = 30.0) -> list[SolvedView]:
    """Views from the side, to see how deep the needle is: perpendicular to it, with the least bone over it.

    Parameters
    ----------
    bone
        SimpleITK image, 1 (or more) in bone and 0 elsewhere, or None: then the views nearest to the table's plane win.
    count, apart_deg
        How many, at least this far apart.
    """
    center, shift = room.table((trajectory.entry_lps_mm + trajectory.target_lps_mm) / 2)
    e1 = np.cross(trajectory.axis, np.eye(3)[np.argmin(np.abs(trajectory.axis))])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(trajectory.axis, e1)
    turn = np.radians(np.arange(0, 360, STEP_DEG))[:, None]
    directions = np.cos(turn) * e1 + np.sin(turn) * e2
    solved = [nearest_angles(d, room) for d in directions]
    off = np.array([s[2] for s in solved])
    tilt = np.array([abs(90 - np.degrees(np.arccos(np.clip(trajectory.axis @ room.direction(s[0], s[1]), -1, 1)))) for s in solved])
    reached = np.where(tilt < 1e-6)[0] if (tilt < 1e-6).any() else np.array([int(np.argmin(tilt))])
    seen = np.array([room.direction(*solved[n][:2]) for n in reached])
    overlap = bone_overlap_mm(bone, trajectory, seen) if bone is not None else np.abs(seen[:, 2]) * 100
    result: list[SolvedView] = []
    for n in np.argsort(overlap, kind="stable"):
        d = seen[n]
        if len(result) < count and all(abs(d @ room.direction(r.primary_deg, r.secondary_deg)) < np.cos(np.radians(apart_deg)) for r in result):
            a, b, _ = solved[reached[n]]
            reasons = ["Perpendicular to the needle." if tilt[reached[n]] < 1e-6 else
                       f"No perpendicular view is in reach: this one is {tilt[reached[n]]:.1f} deg off perpendicular."]
            if bone is not None:
                reasons.append(f"On average {overlap[n]:.0f} mm of bone along the rays through the needle.")
            value = float(overlap[n]) if bone is not None else None
            missed = 0.0 if tilt[reached[n]] < 1e-6 else float(off[reached[n]])
            result.append(_solved(f"progress {len(result) + 1}", a, b, center, shift, room, missed, reasons, value))
    return result


def bone_overlap_mm(bone: object, trajectory: Trajectory, directions: np.ndarray, reach_mm: float = 200.0, step_mm: float = 2.0) -> np.ndarray:
    """Mean length of bone (mm) met by rays along ``directions`` (N, 3) through 12 points of the needle; shape (N,)."""
    import SimpleITK as sitk

    mask = sitk.GetArrayViewFromImage(bone)
    matrix = np.linalg.inv(lps_from_ijk(bone))
    points = trajectory.entry_lps_mm + np.linspace(0, 1, 12)[:, None] * (trajectory.target_lps_mm - trajectory.entry_lps_mm)
    along = np.arange(-reach_mm, reach_mm, step_mm)
    result = np.empty(len(directions))
    for n, d in enumerate(directions):
        places = (points[:, None] + along[:, None] * d).reshape(-1, 3)
        i, j, k = np.round(places @ matrix[:3, :3].T + matrix[:3, 3]).astype(int).T
        inside = (i >= 0) & (j >= 0) & (k >= 0) & (i < mask.shape[2]) & (j < mask.shape[1]) & (k < mask.shape[0])
        result[n] = np.count_nonzero(mask[k[inside], j[inside], i[inside]]) * step_mm / len(points)
    return result


@dataclass(frozen=True, eq=False)
class ViewPair:
    """Two views for confirmation, with the 3-D error (root mean square, mm) that they promise at the tip."""

    first: SolvedView
    second: SolvedView
    error_mm: float
    angle_deg: float


def best_pair(point_lps_mm: np.ndarray, room: Room, first: Sequence[SolvedView] = (), second: Sequence[SolvedView] = (), sigma_px: float = 1.0,
              step_deg: float = 10.0) -> ViewPair:
    """The two reachable views that locate a point best, for a click error of ``sigma_px`` in each.

    Parameters
    ----------
    first, second
        Views to choose from (a procedure's required ones); all reachable angles in ``step_deg`` steps when empty.

    Raises
    ------
    FluoroGuideError
        Fewer than two different views to choose from.
    """
    grid = _grid(point_lps_mm, room, step_deg) if not (first and second) else []
    first, second = list(first) or grid, list(second) or grid
    point = np.asarray(point_lps_mm, float)
    jacobians = [np.array([v.view.project_jacobian(point)[0] for v in views]) for views in (first, second)]
    one, two = (np.einsum("nij,nik->njk", j, j) / sigma_px**2 for j in jacobians)
    both = one[:, None] + two[None, :]
    good = np.linalg.cond(both) < 1e12
    errors = np.full(good.shape, np.inf)
    errors[good] = np.sqrt(np.trace(np.linalg.inv(both[good]), axis1=1, axis2=2))
    if not np.isfinite(errors).any():
        raise FluoroGuideError("There are no two different views to choose from", f"{len(first)} and {len(second)}", "Widen the C-arm's ranges")
    n, m = np.unravel_index(np.argmin(errors), errors.shape)
    a, b = first[n], second[m]
    cosine = abs(room.direction(a.primary_deg, a.secondary_deg) @ room.direction(b.primary_deg, b.secondary_deg))
    return ViewPair(a, b, float(errors[n, m]), float(np.degrees(np.arccos(np.clip(cosine, 0, 1)))))


def _grid(point_lps_mm: np.ndarray, room: Room, step_deg: float) -> list[SolvedView]:
    center, shift = room.table(np.asarray(point_lps_mm, float))
    (a0, a1), (b0, b1) = room.card.primary_range_deg, room.card.secondary_range_deg
    views = []
    for ga in np.arange(a0, a1 + 1e-9, step_deg):
        for gb in np.arange(b0, b1 + 1e-9, step_deg):
            a, b = _from_gantry(ga, gb, room.patient_position)
            if room.card.reaches(a, b, room.patient_position):
                views.append(_solved(f"view {len(views) + 1}", a, b, center, shift, room, 0.0, ()))
    return views
