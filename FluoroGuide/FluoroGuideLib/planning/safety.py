"""What a needle passes: clearance of structures, bone on its way, skin, its own length, and the corridor left for error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        SimpleITK image, 1 inside.
    clearance_mm
        The distance wanted between needle wall and structure.
    """

    name: str
    mask: object
    clearance_mm: float = 2.0


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
    """One structure per label value that occurs."""
    import SimpleITK as sitk

    values = set(np.unique(sitk.GetArrayViewFromImage(labels)).tolist())
    wanted = clearance_mm if isinstance(clearance_mm, Mapping) else {}
    default = 2.0 if wanted else float(clearance_mm)
    return [Structure(n, labels == v, float(wanted.get(n, default))) for v, n in names.items() if v in values]


def clearance(structure: Structure, trajectory: Trajectory, radius_mm: float = 0.0) -> Clearance:
    """Exact distance between the needle's wall and the voxels of a structure, by two steps.

    A signed distance map (SimpleITK, C. R. Maurer et al., PAMI 25, 2003) on the structure's grid around the needle finds
    where it is near; there the distance to the voxels' boxes is taken, every 0.25 mm along the needle, so that neither
    voxel size nor slice thickness adds to it.  0 where the needle is inside; its wall is ``radius_mm`` from its axis.
    """
    import SimpleITK as sitk

    depth = np.linspace(0, trajectory.length_mm, int(np.ceil(trajectory.length_mm / CHECK_STEP_MM)) + 1)
    points = trajectory.entry_lps_mm + depth[:, None] * trajectory.axis
    crop = around(structure.mask, points, REACH_MM)
    if crop is None or not sitk.GetArrayViewFromImage(crop).any():
        return Clearance(structure.name, REACH_MM, 0.0, structure.clearance_mm)
    distance = sitk.SignedMaurerDistanceMap(sitk.Cast(crop > 0, sitk.sitkUInt8), insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    matrix = lps_from_ijk(crop)
    ijk = (points - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    size = np.array(crop.GetSize())
    nearest = np.clip(np.round(ijk), 0, size - 1).astype(int)
    values = sitk.GetArrayViewFromImage(distance)[nearest[:, 2], nearest[:, 1], nearest[:, 0]]
    away = np.linalg.norm((ijk - nearest) * crop.GetSpacing(), axis=1)
    # The map is off by at most a voxel's diagonal (and by how far outside the crop a point lies): look closely there.
    slack = np.linalg.norm(crop.GetSpacing()) + away
    bound = float((values + slack).min())
    close = np.nonzero(values - slack <= bound)[0]
    best, where = np.inf, 0
    kji = np.argwhere(sitk.GetArrayViewFromImage(crop) > 0)
    lower, upper = kji[:, ::-1].min(axis=0), kji[:, ::-1].max(axis=0)
    boxes = kji[:, ::-1].astype(float)
    spacing = np.asarray(crop.GetSpacing())
    for n in close:
        far = np.linalg.norm(np.maximum(np.maximum(lower - 0.5 - ijk[n], ijk[n] - upper - 0.5), 0) * spacing)
        if far < best:
            near = boxes[(np.abs(boxes - ijk[n]) * spacing <= min(best, bound) + spacing).all(axis=1)]
            if len(near):
                value = float(np.sqrt((np.maximum((np.abs(near - ijk[n]) - 0.5) * spacing, 0) ** 2).sum(axis=1).min()))
                best, where = (value, n) if value < best else (best, where)
    return Clearance(structure.name, max(0.0, best - radius_mm), float(depth[where]), structure.clearance_mm)


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
    point = exits_lps_mm(body, trajectory.target_lps_mm, -trajectory.axis[None])[0]
    if np.isnan(point).any():
        return None, ["No skin lies on the needle's line within the volume, so its depth from the skin is not known."]
    depth = float(np.linalg.norm(point - trajectory.target_lps_mm))
    gap = trajectory.length_mm - depth
    text = f"{depth:.0f} mm from skin to target."
    return depth, [text + (f" The entry lies {abs(gap):.0f} mm {'above' if gap > 0 else 'below'} the skin." if abs(gap) > 5 else "")]
