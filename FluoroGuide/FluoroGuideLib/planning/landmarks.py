"""Target suggestions where bones are labelled: joint lines, facets, pedicles, the hip.  Always to be confirmed by the user.

Positions and directions are in volume LPS; ``outward`` is where the needle usually comes from.  Labels follow
TotalSegmentator's names (``sacrum``, ``hip_left``, ``vertebrae_L5``, ``femur_right``).  Confidence is a plain score from
0 to 1 of how well the labels fit the rule; it is no probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk

POSTERIOR = np.array([0.0, 1.0, 0.0])
JOINT_MM = 5.0
"""Bones nearer than this to each other form a joint."""


@dataclass(frozen=True, eq=False)
class TargetSuggestion:
    """A proposed target.

    Attributes
    ----------
    name, kind
        For people; ``joint``, ``pedicle`` or ``hip``.
    position_lps_mm, outward_lps
        Target (3,) and preferred direction (3,) from it to the skin.
    confidence
        0..1, see the module.
    text
        How it was found, and what to look at.
    outline_lps_mm
        Polyline (N, 3) that shows the joint line or the axis.
    entry_lps_mm
        For pedicles: where the axis enters the bone.
    area_mm2
        For pedicles: the narrowest cross-section.
    """

    name: str
    kind: str
    position_lps_mm: np.ndarray
    outward_lps: np.ndarray
    confidence: float
    text: str
    outline_lps_mm: np.ndarray
    entry_lps_mm: np.ndarray | None = None
    area_mm2: float | None = None


class _Labels:
    """Points of labelled bones."""

    def __init__(self, labels: object, names: Mapping[int, str]) -> None:
        import SimpleITK as sitk

        self.image, self.array = labels, sitk.GetArrayViewFromImage(labels)
        self.matrix = lps_from_ijk(labels)
        self.values = {n: v for v, n in names.items()}
        self.spacing = np.asarray(labels.GetSpacing())

    def points(self, name: str) -> np.ndarray:
        """Voxel centres (N, 3) of a bone, LPS mm."""
        if name not in self.values or not (found := np.argwhere(self.array == self.values[name])).size:
            raise FluoroGuideError("The label needed for this target is not in the segmentation", name, "Add it, or place the target by hand")
        return found[:, ::-1] @ self.matrix[:3, :3].T + self.matrix[:3, 3]


def _sign(side: str) -> float:
    if side not in ("left", "right"):
        raise FluoroGuideError("A target of a paired joint needs its side", side, "Choose left or right")
    return 1.0 if side == "left" else -1.0


def _joint(one: np.ndarray, other: np.ndarray, reach_mm: float = JOINT_MM) -> tuple[np.ndarray, np.ndarray]:
    """Middles (N, 3) between each voxel of ``one`` and its nearest of ``other``, where nearer than ``reach_mm``; the widths (N,)."""
    from scipy.spatial import cKDTree

    low, high = other.min(axis=0) - reach_mm, other.max(axis=0) + reach_mm
    one = one[((one >= low) & (one <= high)).all(axis=1)]
    distance, nearest = cKDTree(other).query(one, distance_upper_bound=reach_mm)
    near = np.isfinite(distance)
    return (one[near] + other[nearest[near]]) / 2, distance[near]


def _line(points: np.ndarray, along: np.ndarray, parts: int = 12) -> np.ndarray:
    """Polyline (M, 3) through means of slabs of points along an axis."""
    order = points @ along
    edges = np.linspace(order.min(), order.max() + 1e-6, parts + 1)
    means = [points[(order >= a) & (order < b)] for a, b in pairwise(edges)]
    return np.array([m.mean(axis=0) for m in means if len(m)])


def si_joint(labels: object, names: Mapping[int, str], side: str) -> TargetSuggestion:
    """Inferior posterior sacroiliac joint, 1-2 cm above its caudal end, from sacrum and hip labels."""
    bones = _Labels(labels, names)
    middle, width = _joint(bones.points(f"hip_{side}"), bones.points("sacrum"))
    if len(middle) < 200:
        raise FluoroGuideError("Sacrum and hip bone do not meet in the segmentation", f"{side}, {len(middle)} voxels", "Check the labels")
    edge = _posterior_line(middle)
    bottom = edge[:, 2].min()
    near = edge[(edge[:, 2] >= bottom + 8) & (edge[:, 2] <= bottom + 22)]
    position = near[np.argmin(np.abs(near[:, 2] - bottom - 15))] if len(near) else edge[0]
    local = middle[np.linalg.norm(middle - position, axis=1) < 12]
    outward = _in_plane(local, POSTERIOR)
    confidence = float(np.clip(len(middle) / 4000, 0, 1) * np.clip(1.3 - np.median(width) / JOINT_MM, 0.2, 1))
    text = (f"Posterior edge of the {side} joint between the labels, {position[2] - bottom:.0f} mm above its caudal end; "
            f"median distance of the bones {np.median(width):.1f} mm. Confirm it in three planes.")
    return TargetSuggestion(f"SI joint {side}", "joint", position, outward, confidence, text, edge)


def _posterior_line(points: np.ndarray, slab_mm: float = 3.0) -> np.ndarray:
    """Per axial slab the middle of its most posterior points: polyline (N, 3) from caudal to cranial."""
    line = []
    for z in np.arange(points[:, 2].min(), points[:, 2].max() + 1e-6, slab_mm):
        layer = points[(points[:, 2] >= z) & (points[:, 2] < z + slab_mm)]
        if len(layer) >= 10:
            line.append(layer[layer[:, 1] >= np.quantile(layer[:, 1], 0.9)].mean(axis=0))
    return np.array(line)


def _in_plane(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The direction in the plane of a sheet of points that is nearest to ``wanted``: along the joint space."""
    normal = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][2]
    direction = wanted - (wanted @ normal) * normal
    return direction / np.linalg.norm(direction)


def facet(labels: object, names: Mapping[int, str], upper: str, lower: str, side: str) -> TargetSuggestion:
    """Inferior part of the facet joint between two neighbouring vertebra labels (or L5 and the sacrum)."""
    from scipy.ndimage import label

    bones, sign = _Labels(labels, names), _sign(side)
    one, other = bones.points(upper), bones.points(lower)
    middle, width = _joint(one, other, 4.0)
    center = one.mean(axis=0)
    behind = (middle[:, 1] > np.quantile(one[:, 1], 0.45)) & (sign * (middle[:, 0] - center[0]) > 6) & (width < 4)
    middle, width = middle[behind], width[behind]
    if len(middle) < 30:
        raise FluoroGuideError("The two labels do not meet in a facet joint", f"{upper}/{lower} {side}, {len(middle)} voxels", "Check the labels")
    cells = np.floor((middle - middle.min(axis=0)) / 3).astype(int)
    grid = np.zeros(cells.max(axis=0) + 1, bool)
    grid[tuple(cells.T)] = True
    groups = label(grid, np.ones((3, 3, 3)))[0][tuple(cells.T)]
    middle, width = (v[groups == np.bincount(groups).argmax()] for v in (middle, width))
    low = middle[middle[:, 2] <= np.quantile(middle[:, 2], 0.35)]
    position = low[low[:, 1] >= np.quantile(low[:, 1], 0.6)].mean(axis=0)
    outward = _in_plane(middle, POSTERIOR)
    confidence = float(np.clip(len(middle) / 300, 0, 1) * np.clip(1.3 - np.median(width) / 4, 0.2, 1))
    text = f"Inferior part of the {side} joint between {upper} and {lower}, median distance of the bones {np.median(width):.1f} mm."
    line = _line(middle, np.array([0, 0, 1.0]), 8)
    return TargetSuggestion(f"facet {upper}/{lower} {side}", "joint", position, outward, confidence, text + " Confirm it in three planes.", line)


def hip(labels: object, names: Mapping[int, str], side: str) -> TargetSuggestion:
    """Lateral head-neck junction of the femur: a ball fitted to the head that faces the socket, and the neck beyond it.

    Where the scan ends before the neck, the front of the head is proposed instead, with little confidence.
    """
    bones = _Labels(labels, names)
    femur, pelvis = bones.points(f"femur_{side}"), bones.points(f"hip_{side}")
    surface, _ = _joint(femur, pelvis, 8.0)
    if len(surface) < 100:
        raise FluoroGuideError("Femur and hip bone do not meet in the segmentation", f"{side}, {len(surface)} voxels", "Check the labels")
    center, radius, residual = _robust_ball(surface)
    distance = np.linalg.norm(femur - center, axis=1)
    neck = (femur - center)[(distance > 1.15 * radius) & (distance < 1.6 * radius) & (femur[:, 2] < center[2] + radius / 2)]
    plausible = 17 < radius < 33 and residual < 2.5
    if len(neck) > 300:
        axis = neck.mean(axis=0) / np.linalg.norm(neck.mean(axis=0))
        position = center + 0.9 * radius * axis + np.array([0, -0.5 * radius, 0])
        confidence, text = (0.8 if plausible else 0.3), f"Front of the head-neck junction (ball of {radius:.0f} mm radius)."
    else:
        height = max(0.0, femur[:, 2].min() + 3 - center[2])  # the scan ends above the neck: stay in it
        ring = np.sqrt(max(radius**2 - height**2, 0.0))
        toward = np.array([0.35 * _sign(side), -1.0, 0.0])
        position = center + ring * toward / np.linalg.norm(toward) + np.array([0, 0, height])
        confidence = 0.4 if plausible else 0.15
        text = f"The femoral neck is not in the scan: front of the joint space at the head instead (ball of {radius:.0f} mm radius)."
    turn = np.linspace(0, 2 * np.pi, 73)[:, None]
    line = center + radius * (np.cos(turn) * [0, 1, 0] + np.sin(turn) * [0, 0, 1])
    return TargetSuggestion(f"hip {side}", "hip", position, np.array([0, -1.0, 0]), confidence, text + " Confirm it in three planes.", line)


def _robust_ball(points: np.ndarray, tries: int = 600, near_mm: float = 1.2) -> tuple[np.ndarray, float, float]:
    """As :func:`_ball` of the points that agree on one ball of a femoral head's size (M. A. Fischler and R. C. Bolles, 1981)."""
    rng, best = np.random.default_rng(0), None
    for _ in range(tries):
        four = points[rng.choice(len(points), 4, replace=False)]
        center = np.linalg.lstsq(2 * (four[1:] - four[0]), (four[1:] ** 2).sum(axis=1) - (four[0] ** 2).sum(), rcond=None)[0]
        radius = float(np.linalg.norm(four[0] - center))
        if 17 < radius < 33:
            agree = np.abs(np.linalg.norm(points - center, axis=1) - radius) < near_mm
            if best is None or agree.sum() > best.sum():
                best = agree
    return _ball(points if best is None or best.sum() < 50 else points[best])


def _ball(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre, radius and RMS residual of the least-squares ball through points (N, 3) (linear fit, then one Gauss-Newton loop)."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    center, radius = solution[:3], np.sqrt(max(solution[3] + solution[:3] @ solution[:3], 1e-6))
    for _ in range(20):
        away = points - center
        distance = np.linalg.norm(away, axis=1)
        step = np.linalg.lstsq(np.column_stack([-away / distance[:, None], -np.ones(len(points))]), radius - distance, rcond=None)[0]
        center, radius = center + step[:3], radius + step[3]
    residual = np.linalg.norm(points - center, axis=1) - radius
    return center, float(radius), float(np.sqrt((residual**2).mean()))


def pedicle(labels: object, names: Mapping[int, str], vertebra: str, side: str) -> TargetSuggestion:
    """Axis of a pedicle, its narrowest cross-section, its entry in the back of the bone, and a target in the body.

    The pedicle is where coronal sections of one half of the vertebra are smallest between body and arch.  Its axis is the
    line through that section's middle, within 35 degrees of straight forward, that stays deepest inside the bone.
    """
    bones, sign = _Labels(labels, names), _sign(side)
    points = bones.points(vertebra)
    crop, depth = _depth(labels, bones.values[vertebra], points)
    body = points[points[:, 1] < np.quantile(points[:, 1], 0.5)]
    middle = float(np.median(body[:, 0]))
    half = points[(sign * (points[:, 0] - middle) > 7) & (points[:, 2] > np.quantile(body[:, 2], 0.35))]
    isthmus = _isthmus(half, body, bones.spacing)
    axis, start = _deepest_axis(crop, depth, isthmus, sign)
    reach = np.arange(-60, 60, 0.5)
    inside = _at(crop, depth, isthmus + reach[:, None] * axis) > 0
    zero = int(np.argmin(np.abs(reach)))
    out = zero - int(np.argmax(~inside[zero::-1])) if (~inside[:zero + 1]).any() else 0
    entry = isthmus + reach[out] * axis
    across = (isthmus - np.median(body, axis=0)) @ np.array([1.0, 0, 0])
    forward = min(30.0, 0.55 * float(np.ptp(body[:, 1])), abs(across / axis[0]) if abs(axis[0]) > 0.05 else 30.0)
    target = isthmus + forward * axis
    area = _section_mm2(crop, depth, isthmus, axis)
    wide = float(_at(crop, depth, isthmus[None])[0])
    confidence = float(np.clip(wide / 4, 0.1, 1) * (0.9 if 20 < area < 250 else 0.3) * (1.0 if start > 1.0 else 0.5))
    text = (f"Axis of the {side} pedicle of {vertebra}: narrowest cross-section {area:.0f} mm2, half-width {wide:.1f} mm, "
            f"{np.degrees(np.arcsin(abs(axis[0]))):.0f} deg towards the midline. Confirm it in three planes.")
    return TargetSuggestion(f"pedicle {vertebra} {side}", "pedicle", target, -axis, confidence, text, np.array([entry, isthmus, target]), entry, area)


def _depth(labels: object, value: int, points: np.ndarray) -> tuple[object, np.ndarray]:
    """A crop around one bone on a grid of at most 1 mm, and how deep (mm) each of its voxels lies inside the bone."""
    import SimpleITK as sitk

    low = points.min(axis=0) - 6
    size = np.ceil(np.ptp(points, axis=0) + 12).astype(int)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetOrigin(low.tolist())
    soft = sitk.Resample(sitk.Cast(labels == value, sitk.sitkFloat32), grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    mask = sitk.Cast(soft >= 0.5, sitk.sitkUInt8)
    return mask, sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True))


def _at(crop: object, depth: np.ndarray, points: np.ndarray) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    ijk = (points - np.array(crop.GetOrigin())) / np.array(crop.GetSpacing())
    return map_coordinates(depth, ijk[:, ::-1].T, order=1, mode="constant", cval=-10.0)


def _isthmus(half: np.ndarray, body: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Middle (3,) of the smallest coronal section of one half of a vertebra, between its body and its arch."""
    back = float(np.quantile(body[:, 1], 0.98))
    best, place = np.inf, None
    for y in np.arange(back - 4, back + 12, max(0.7, float(spacing[1]))):
        layer = half[np.abs(half[:, 1] - y) <= spacing[1]]
        if len(layer) >= 6 and len(layer) < best:
            best, place = len(layer), layer.mean(axis=0)
    if place is None:
        raise FluoroGuideError("No pedicle was found in the vertebra's label", None, "Place the target by hand")
    return place


def _deepest_axis(crop: object, depth: np.ndarray, isthmus: np.ndarray, sign: float) -> tuple[np.ndarray, float]:
    """Forward direction (3,) through the isthmus, towards the midline, whose way through the pedicle stays deepest; that depth."""
    steps = np.arange(-4, 18, 1.0)[:, None]
    best, chosen = -np.inf, np.array([0, -1.0, 0])
    for inward in np.radians(np.arange(0, 36, 2)):
        for up in np.radians(np.arange(-24, 25, 2)):
            d = np.array([-sign * np.sin(inward) * np.cos(up), -np.cos(inward) * np.cos(up), np.sin(up)])
            values = _at(crop, depth, isthmus + steps * d)
            # Where depth is equal: a level needle that converges.
            score = float(values.min() + 0.2 * values.mean() - 0.03 * abs(np.degrees(up)) + 0.02 * min(np.degrees(inward), 20))
            if score > best:
                best, chosen = score, d
    return chosen, best


def _section_mm2(crop: object, depth: np.ndarray, center: np.ndarray, axis: np.ndarray) -> float:
    """Smallest area of the bone's sections across an axis within 5 mm of a point, connected to the axis."""
    from scipy.ndimage import label

    e1 = np.cross(axis, [0, 0, 1.0])
    e1 /= np.linalg.norm(e1)
    e2, side = np.cross(axis, e1), np.arange(-12, 12.01, 0.5)
    plane = side[:, None, None] * e1 + side[None, :, None] * e2
    areas = []
    for t in np.arange(-5, 5.01, 0.5):
        groups = label(_at(crop, depth, (center + t * axis + plane).reshape(-1, 3)).reshape(plane.shape[:2]) >= 0)[0]
        here = groups[len(side) // 2, len(side) // 2]
        areas += [float((groups == here).sum() * 0.25)] if here else []
    return min(areas) if areas else 0.0
