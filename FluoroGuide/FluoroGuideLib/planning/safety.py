"""What a needle passes: clearance of structures, bone on its way, skin, its own length, and the corridor left for error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk
from .plan import Trajectory, inside

NEEDLE_DIAMETER_MM = {
    10: 3.4, 11: 3.0, 12: 2.7, 13: 2.4, 14: 2.1, 15: 1.8, 16: 1.6, 17: 1.4, 18: 1.2, 19: 1.1, 20: 0.9, 21: 0.8, 22: 0.7, 23: 0.6, 24: 0.55,
    25: 0.5, 26: 0.45, 27: 0.4,
}
"""Gauge -> nominal outer diameter, mm: the designated metric sizes of ISO 9626 (stainless steel needle tubing)."""
BONE_HU = 250.0
CHECK_STEP_MM = 0.25
REACH_MM = 60.0
"""Structures farther away than this are reported as "more than"."""


def needle_radius_mm(gauge: float | None) -> float:
    """Outer radius of a needle; 0 (its axis alone) without a gauge or for one that is not in the table."""
    return NEEDLE_DIAMETER_MM.get(round(gauge), 0.0) / 2 if gauge else 0.0


@dataclass(frozen=True, eq=False)
class Structure:
    """Something to keep away from, or to stay in.

    Attributes
    ----------
    name
        As its segment is called.
    mask
        SimpleITK image, 1 inside; it may be cropped to the structure.
    clearance_mm
        The distance wanted between needle wall and structure.
    """

    name: str
    mask: object
    clearance_mm: float = 2.0

    @cached_property
    def surface_ijk(self) -> np.ndarray:
        """Indices (N, 3) of the voxels that have a neighbour outside."""
        import SimpleITK as sitk

        inner = np.pad(sitk.GetArrayViewFromImage(self.mask) > 0, 1)
        deep = inner.copy()
        for axis in range(3):
            deep &= np.roll(inner, 1, axis) & np.roll(inner, -1, axis)
        return (np.argwhere(inner & ~deep) - 1)[:, ::-1]

    @cached_property
    def tree(self) -> object:
        """k-d tree of the surface voxels' centres, LPS mm; None for an empty structure."""
        from scipy.spatial import cKDTree

        matrix = lps_from_ijk(self.mask)
        return cKDTree(self.surface_ijk @ matrix[:3, :3].T + matrix[:3, 3]) if len(self.surface_ijk) else None

    def ijk(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Continuous voxel indices (N, 3) of points (N, 3)."""
        matrix = lps_from_ijk(self.mask)
        return (points_lps_mm - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T

    def contains(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Whether points (N, 3) lie in its voxels, bool (N,)."""
        import SimpleITK as sitk

        index = np.round(self.ijk(points_lps_mm)).astype(int)
        good = ((index >= 0) & (index < self.mask.GetSize())).all(axis=1)
        result = np.zeros(len(index), bool)
        result[good] = sitk.GetArrayViewFromImage(self.mask)[index[good, 2], index[good, 1], index[good, 0]] > 0
        return result


@dataclass(frozen=True)
class Clearance:
    """Distance (mm) between the needle's wall and a structure, and how deep along the needle (mm from its entry) it is least."""

    name: str
    distance_mm: float
    at_depth_mm: float
    wanted_mm: float

    @property
    def ok(self) -> bool:
        """Whether the wanted clearance is kept."""
        return self.distance_mm >= self.wanted_mm


@dataclass(frozen=True, eq=False)
class SafetyReport:
    """What was checked of one trajectory.

    Attributes
    ----------
    clearances
        Nearest first.
    bone_mm
        Length of the path in bone before the allowance around the target; None without a CT.
    skin_depth_mm
        Way from the skin to the target along the needle; None where the scan holds no skin on it.
    problems, warnings, notes
        Sentences: against the plan, worth a look, good to know.
    """

    clearances: tuple[Clearance, ...] = ()
    bone_mm: float | None = None
    skin_depth_mm: float | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {
            "clearances": [{"name": c.name, "distance_mm": c.distance_mm, "at_depth_mm": c.at_depth_mm, "wanted_mm": c.wanted_mm, "ok": c.ok}
                           for c in self.clearances],
            "bone_mm": self.bone_mm, "skin_depth_mm": self.skin_depth_mm, "problems": list(self.problems), "warnings": list(self.warnings),
            "notes": list(self.notes)}


def structures_from_labels(labels: object, names: Mapping[int, str], clearance_mm: float | Mapping[str, float] = 2.0) -> list[Structure]:
    """One structure per label value that occurs; with a mapping only the names in it.  Masks are cropped to their label."""
    import SimpleITK as sitk
    from scipy.ndimage import find_objects

    array = sitk.GetArrayViewFromImage(labels)
    boxes = find_objects(array if np.issubdtype(array.dtype, np.integer) else array.astype(np.int32))
    result = []
    for value, name in names.items():
        box = boxes[value - 1] if 0 < value <= len(boxes) else None
        if box is not None and (not isinstance(clearance_mm, Mapping) or name in clearance_mm):
            low, size = [b.start for b in box[::-1]], [b.stop - b.start for b in box[::-1]]
            wanted = clearance_mm[name] if isinstance(clearance_mm, Mapping) else clearance_mm
            result.append(Structure(name, sitk.RegionOfInterest(labels, size, low) == value, float(wanted)))
    return result


def clearance(structure: Structure, trajectory: Trajectory, radius_mm: float = 0.0) -> Clearance:
    """Exact distance between the needle's wall and the voxels of a structure.

    The centres of the surface voxels tell where it is near (k-d tree); there the distance to the voxels' boxes is taken,
    every 0.25 mm along the needle, so that neither voxel size nor slice thickness adds to it.  0 where the needle is
    inside; its wall is ``radius_mm`` from its axis.  Beyond :data:`REACH_MM` that distance is reported.
    """
    depth = np.linspace(0, trajectory.length_mm, int(np.ceil(trajectory.length_mm / CHECK_STEP_MM)) + 1)
    points = trajectory.entry_lps_mm + depth[:, None] * trajectory.axis
    within = structure.contains(points)
    if within.any():
        return Clearance(structure.name, 0.0, float(depth[np.argmax(within)]), structure.clearance_mm)
    half = float(np.linalg.norm(structure.mask.GetSpacing())) / 2
    centers = np.full(len(points), np.inf) if structure.tree is None else structure.tree.query(points, distance_upper_bound=REACH_MM + half)[0]
    nearest = float(centers.min())
    if not np.isfinite(nearest):
        return Clearance(structure.name, REACH_MM, 0.0, structure.clearance_mm)
    close = np.nonzero(centers - half <= nearest)[0]  # a box is at most half a diagonal nearer than its centre
    best, where = np.inf, 0
    spacing, ijk = np.asarray(structure.mask.GetSpacing()), structure.ijk(points[close])
    for n, found in enumerate(structure.tree.query_ball_point(points[close], nearest + half + 1e-9)):
        if found:
            gaps = np.maximum(np.abs(structure.surface_ijk[found] - ijk[n]) - 0.5, 0) * spacing
            value = float(np.sqrt((gaps**2).sum(axis=1).min()))
            best, where = (value, close[n]) if value < best else (best, where)
    return Clearance(structure.name, float(min(max(0.0, best - radius_mm), REACH_MM)), float(depth[where]), structure.clearance_mm)


def around(mask: object, points_lps_mm: np.ndarray, reach_mm: float) -> object | None:
    """The part of an image within ``reach_mm`` of points (N, 3); None when there is none."""
    import SimpleITK as sitk

    matrix = lps_from_ijk(mask)
    ijk = (points_lps_mm - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    reach = reach_mm / np.asarray(mask.GetSpacing())
    low = np.maximum(np.floor(ijk.min(axis=0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(ijk.max(axis=0) + reach) + 1, mask.GetSize()).astype(int)
    return sitk.RegionOfInterest(mask, (high - low).tolist(), low.tolist()) if (high > low).all() else None


def bone_on_path_mm(image: object, trajectory: Trajectory, allow_mm: float = 0.0, bone_hu: float = BONE_HU) -> float:
    """Length (mm) of the path above ``bone_hu`` (trilinear), leaving out the last ``allow_mm`` before the target."""
    from scipy.ndimage import map_coordinates

    length = max(trajectory.length_mm - allow_mm, 0.0)
    depth = np.arange(0, length, CHECK_STEP_MM)
    crop = around(image, np.array([trajectory.entry_lps_mm, trajectory.target_lps_mm]), 2.0)
    if crop is None or not len(depth):
        return 0.0
    import SimpleITK as sitk

    matrix = np.linalg.inv(lps_from_ijk(crop))
    ijk = (trajectory.entry_lps_mm + depth[:, None] * trajectory.axis) @ matrix[:3, :3].T + matrix[:3, 3]
    values = map_coordinates(sitk.GetArrayViewFromImage(crop), ijk[:, ::-1].T, order=1, mode="constant", cval=-1000.0, output=float)
    return float(np.count_nonzero(values > bone_hu) * CHECK_STEP_MM)


def corridor(clearances: tuple[Clearance, ...], sigma_lateral_mm: tuple[float, float], sigma_depth_mm: float) -> list[str]:
    """Whether structures stay out of the needle's 95 % corridor, as sentences.

    Parameters
    ----------
    sigma_lateral_mm
        Standard deviations of the placement across the needle, along the ellipse's two axes.
    sigma_depth_mm
        Standard deviation along the needle.

    The ellipse that holds 95 % of a 2-D normal distribution has half-axes 2.448 sigma (chi-squared, 2 degrees of
    freedom); along the needle 1.960 sigma hold 95 %.
    """
    wide, narrow = max(sigma_lateral_mm) * 2.448, min(sigma_lateral_mm) * 2.448
    text = [f"95 % of placements lie within {wide:.1f} x {narrow:.1f} mm across and {1.96 * sigma_depth_mm:.1f} mm along the needle."]
    near = (c for c in clearances if c.distance_mm < wide)
    return text + [f"'{c.name}' lies within that corridor ({c.distance_mm:.1f} mm away at {c.at_depth_mm:.0f} mm depth)." for c in near]


def check_trajectory(
    trajectory: Trajectory, image: object | None = None, structures: list[Structure] | None = None, body: object | None = None, *,
    bone_allowed: bool = False, bone_allow_mm: float = 5.0,
) -> SafetyReport:
    """All checks of one trajectory.

    Parameters
    ----------
    image
        CT in HU, for bone; None leaves it out.
    structures
        What to keep away from.
    body
        Mask of :func:`anatomy.skin.body_mask`, for skin; None leaves it out.
    bone_allowed
        The procedure goes through bone.
    bone_allow_mm
        Bone in the last millimetres before the target is the joint's own.

    Raises
    ------
    FluoroGuideError
        The target lies outside the CT, or the entry lies inside bone.
    """
    problems, warnings, notes, bone, skin = [], [], [], None, None
    if image is not None:
        _refuse(trajectory, image)
        bone = bone_on_path_mm(image, trajectory, 0.0 if bone_allowed else bone_allow_mm)
        if bone >= 0.5 and not bone_allowed:
            problems.append(f"The path crosses {bone:.1f} mm of bone before its last {bone_allow_mm:g} mm; this procedure does not go through bone.")
    radius = needle_radius_mm(trajectory.gauge)
    found = tuple(sorted((clearance(s, trajectory, radius) for s in structures or []), key=lambda c: c.distance_mm))
    problems += [f"'{c.name}' is {c.distance_mm:.1f} mm from the needle's wall at {c.at_depth_mm:.0f} mm depth; {c.wanted_mm:g} mm are wanted."
                 for c in found if not c.ok]
    if body is not None:
        skin, text = _skin(trajectory, body)
        (warnings if skin is None else notes).extend(text)
    if trajectory.needle_length_mm is not None:
        needed = max(trajectory.length_mm, skin or 0.0)
        if trajectory.needle_length_mm < needed:
            problems.append(f"The needle is too short: {trajectory.needle_length_mm:g} mm for a way of {needed:.1f} mm.")
    if trajectory.gauge is not None and radius == 0:
        warnings.append(f"No diameter is known for {trajectory.gauge:g} gauge: clearances are those of the needle's axis.")
    return SafetyReport(found, bone, skin, tuple(problems), tuple(warnings), tuple(notes))


def _refuse(trajectory: Trajectory, image: object) -> None:
    if not inside(image, trajectory.target_lps_mm[None])[0]:
        place = np.round(trajectory.target_lps_mm, 1).tolist()
        raise FluoroGuideError("The target lies outside the volume", f"{place} LPS mm", "Check that plan and volume belong together (LPS, not RAS)")
    if inside(image, trajectory.entry_lps_mm[None])[0]:
        value = image[image.TransformPhysicalPointToIndex(trajectory.entry_lps_mm.tolist())]
        if value > BONE_HU:
            where = f"{value:g} HU at {np.round(trajectory.entry_lps_mm, 1).tolist()} LPS mm"
            swapped = image[image.TransformPhysicalPointToIndex(trajectory.target_lps_mm.tolist())] < -300
            raise FluoroGuideError(
                "The entry lies inside bone", where, "Entry and target seem to be swapped" if swapped else "Put the entry on the skin")


def _skin(trajectory: Trajectory, body: object) -> tuple[float | None, list[str]]:
    from ..anatomy.skin import exits_lps_mm

    if not inside(body, trajectory.target_lps_mm[None])[0]:
        return None, ["The target lies outside the volume that the skin was sought in."]
    in_body = Structure("body", body).contains(np.array([trajectory.entry_lps_mm, trajectory.target_lps_mm]))
    if in_body[0] and not in_body[1]:
        raise FluoroGuideError("The target lies outside the body and the entry inside it", trajectory.name, "Entry and target seem to be swapped")
    point = exits_lps_mm(body, trajectory.target_lps_mm, -trajectory.axis[None])[0]
    if np.isnan(point).any():
        return None, ["No skin lies on the needle's line within the volume, so its depth from the skin is not known."]
    depth = float(np.linalg.norm(point - trajectory.target_lps_mm))
    gap = trajectory.length_mm - depth
    text = f"{depth:.0f} mm from skin to target."
    return depth, [text + (f" The entry lies {abs(gap):.0f} mm {'above' if gap > 0 else 'below'} the skin." if abs(gap) > 5 else "")]
