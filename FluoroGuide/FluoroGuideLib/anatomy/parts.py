"""Bone parts without a trained model: sacrum, hips, femora and the lowest vertebrae of a pelvis CT, or any parts from seeds.

The way there: threshold -> solid bone (marrow filled) -> cores (deep inside the solid, away from joint spaces) name
the parts -> every other bone voxel goes to the part it is nearest to along the bone, where crossing a joint space is
dear.  All of it is deterministic.  The result is a starting point to look at, not a diagnosis: a joint bridged by
osteophytes can leak, which one seed on either side repairs, and levels are counted from the sacrum upward, so a
transitional vertebra is named wrongly unless the user says so.

Joint spaces are dark gaps narrower than the structuring ball, found by a grey-value closing (black top-hat; J. Serra,
Image Analysis and Mathematical Morphology, 1982); the nearest part is found by E. W. Dijkstra's algorithm (1959).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk

BONE_HU, MARROW_HU = 150.0, 100.0
GAP_RADIUS_MM = 2.0
"""Half-width of the widest joint space that is seen as a gap."""
CLOSE_MM, BRIDGE_MM = 1.5, 3.0
GAP_NOISE_HU, GAP_SCALE_HU = 100.0, 50.0
SOFT_HU, SOFT_COST_PER_HU = 130.0, 0.5
BASE_COST_PER_MM = 0.03
PAD_MM = 12.0
COARSE_MM = 2.0
"""Voxel size at which the bone's whereabouts are sought first."""

PELVIS_LABELS = {1: "sacrum", 2: "hip_left", 3: "hip_right", 4: "vertebrae_L4", 5: "vertebrae_L5", 6: "femur_left", 7: "femur_right"}
"""Label values of :func:`pelvis_parts`; the names are those of TotalSegmentator."""


@dataclass(frozen=True, eq=False)
class BoneParts:
    """Labelled bone.

    Attributes
    ----------
    labels
        SimpleITK uint8 label image on the grid of the CT; 0 is background.
    names
        Label value -> name.
    notes
        What was found or missing, one sentence each.
    """

    labels: object
    names: Mapping[int, str]
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class _Solid:
    """A crop around the largest bone with what both steps need; arrays are [k, j, i]."""

    image: object
    low: np.ndarray
    bone: np.ndarray
    cost: np.ndarray
    depth: np.ndarray
    seeds: np.ndarray = field(default=None)

    def __post_init__(self) -> None:
        self.seeds = np.zeros(self.bone.shape, np.uint8)

    def index(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Continuous (i, j, k) in the crop of points (N, 3)."""
        matrix = lps_from_ijk(self.image)
        return (np.atleast_2d(points_lps_mm) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T


def pelvis_parts(image: object, extra_seeds: Mapping[str, Sequence[Sequence[float]]] | None = None) -> BoneParts:
    """Sacrum, hips, femora and up to two lumbar vertebrae of a pelvis CT.

    Parameters
    ----------
    image
        3-D SimpleITK image in HU with its superior axis within 20 degrees of an image axis; patient roughly straight.
    extra_seeds
        Name of :data:`PELVIS_LABELS` -> points (N, 3), LPS mm, that surely belong to it: for bridged joints.

    Raises
    ------
    FluoroGuideError
        No bone, or no two hips with a sacrum between them.
    """
    solid = _solid(image)
    notes = _seed_pelvis(solid)
    _add_seeds(solid, PELVIS_LABELS, extra_seeds or {})
    labels = _grow(solid)
    _fill_marrow(labels, (2, 3, 6, 7))
    missing = [n for v, n in PELVIS_LABELS.items() if not (labels == v).any()]
    notes += [f"Not found in the volume: {', '.join(missing)}."] if missing else []
    return BoneParts(_uncropped(labels, solid, image), dict(PELVIS_LABELS), tuple(notes))


def parts_from_seeds(image: object, seeds: Mapping[str, Sequence[Sequence[float]]]) -> BoneParts:
    """Bone parts grown from the user's seeds alone: name -> points (N, 3), LPS mm, that surely lie in the part.

    Raises
    ------
    FluoroGuideError
        No bone, fewer than two parts, or a seed that is not on bone.
    """
    if len(seeds) < 2:
        raise FluoroGuideError("Separating bones needs seeds in at least two of them", f"{len(seeds)} given", "Place a point in each bone")
    solid, names = _solid(image), dict(enumerate(seeds, 1))
    _add_seeds(solid, names, seeds)
    return BoneParts(_uncropped(_grow(solid), solid, image), names)


# ---- solid bone ---------------------------------------------------------------------------------------------------------
def _outside_mm(mask: object) -> object:
    """Distance (mm) of each voxel to a mask, 0 or less inside; beyond the image its border voxels go on."""
    import SimpleITK as sitk

    pad = [int(np.ceil(PAD_MM / s)) for s in mask.GetSpacing()]
    padded = sitk.ZeroFluxNeumannPad(mask, pad, pad)
    distance = sitk.SignedMaurerDistanceMap(padded, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return sitk.Crop(distance, pad, pad)


def _closed(mask: object, radius_mm: float) -> object:
    grown = _outside_mm(mask) <= radius_mm
    return (1 - (_outside_mm(1 - grown) <= radius_mm)) | mask


def _largest(mask: object) -> object:
    import SimpleITK as sitk

    return sitk.RelabelComponent(sitk.ConnectedComponent(mask, False), 100) == 1


def _solid(image: object) -> _Solid:
    """The largest connected bone with its marrow, the cost of walking through it, and the depth of its cores."""
    import SimpleITK as sitk

    crop, low = _around_bone(image)
    smooth = sitk.SmoothingRecursiveGaussian
    bone = _largest(sitk.BinaryThreshold(smooth(crop, 0.7), BONE_HU, 1e5))
    marrow = 1 - (_outside_mm(1 - sitk.BinaryThreshold(smooth(crop, 1.5), MARROW_HU, 1e5)) <= 1.5)
    solid = _largest(_closed(bone | marrow, CLOSE_MM))
    bridged = _closed(solid, BRIDGE_MM)
    holes = sitk.Crop(sitk.BinaryFillhole(sitk.ZeroFluxNeumannPad(bridged, [1] * 3, [1] * 3)), [1] * 3, [1] * 3) & (1 - bridged)
    array = sitk.GetArrayFromImage
    if array(holes).any():
        solid = solid | holes | ((_outside_mm(holes) <= BRIDGE_MM + 1) & bridged)
    mask = array(solid) > 0
    fine = _gap(sitk.Clamp(smooth(crop, 0.6), sitk.sitkFloat32, -100, 2000))
    soft = np.clip(SOFT_HU - array(smooth(crop, 1.0)), 0, 600)
    cost = BASE_COST_PER_MM + (np.clip(fine - GAP_NOISE_HU, 0, None) / GAP_SCALE_HU) ** 2 + SOFT_COST_PER_HU * soft
    rough = _gap(sitk.Clamp(smooth(crop, 1.0), sitk.sitkFloat32, -100, 500))
    inner = sitk.GetImageFromArray((~(mask & (rough < GAP_NOISE_HU))).astype(np.uint8))
    inner.CopyInformation(crop)
    return _Solid(crop, low, mask, cost.astype(np.float32), array(_outside_mm(inner)))


def _gap(image: object) -> np.ndarray:
    """How much darker (HU) a voxel is than both sides of a gap it lies in."""
    import SimpleITK as sitk

    radius = [max(1, round(GAP_RADIUS_MM / s)) for s in image.GetSpacing()]
    return sitk.GetArrayFromImage(sitk.GrayscaleMorphologicalClosing(image, radius, sitk.sitkBall) - image)


def _around_bone(image: object) -> tuple[object, np.ndarray]:
    """float32 crop around the largest bone with a margin of 10 mm, and its first index."""
    import SimpleITK as sitk

    factor = [max(1, round(COARSE_MM / s)) for s in image.GetSpacing()]
    coarse = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factor)
    bone = sitk.GetArrayFromImage(_largest(sitk.BinaryThreshold(coarse, BONE_HU, 1e5)))
    if bone.sum() * np.prod(coarse.GetSpacing()) < 1000.0:
        raise FluoroGuideError("There is no bone in the volume", f"above {BONE_HU:g} HU", "Bone parts need a CT in Hounsfield units")
    used = [np.nonzero(bone.any(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in (2, 1, 0)]
    pad = np.ceil(10.0 / np.asarray(image.GetSpacing())).astype(int)
    low = np.array([max(0, u[0] * f - p) for u, f, p in zip(used, factor, pad)])
    high = np.array([min(n, (u[-1] + 1) * f + p) for u, f, p, n in zip(used, factor, pad, image.GetSize())])
    return sitk.Cast(sitk.RegionOfInterest(image, (high - low).tolist(), low.tolist()), sitk.sitkFloat32), low


# ---- seeds --------------------------------------------------------------------------------------------------------------
def _cores(solid: _Solid, depth_mm: float, least_mm3: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Connected cores deeper than ``depth_mm``, largest first: voxel mask indices (3, N), mean and lowest LPS corner."""
    import SimpleITK as sitk

    mask = sitk.GetImageFromArray((solid.depth > depth_mm).astype(np.uint8))
    voxel = float(np.prod(solid.image.GetSpacing()))
    labels = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(mask, False), max(1, int(least_mm3 / voxel))))
    matrix, result = lps_from_ijk(solid.image), []
    for value in range(1, int(labels.max()) + 1):
        kji = np.array(np.nonzero(labels == value))
        points = kji[::-1].T @ matrix[:3, :3].T + matrix[:3, 3]
        result.append((kji, points.mean(axis=0), points.min(axis=0)))
    return result


def _mark(solid: _Solid, kji: np.ndarray, value: int) -> None:
    solid.seeds[tuple(kji)] = value


def _seed_pelvis(solid: _Solid) -> list[str]:
    """Seeds of the parts in :data:`PELVIS_LABELS` from the cores; notes on what was doubtful."""
    matrix = lps_from_ijk(solid.image)
    kji = np.array(np.nonzero(solid.bone))
    lps = kji[::-1].T @ matrix[:3, :3].T + matrix[:3, 3]
    middle, bottom = float(lps[:, 0].mean()), float(lps[:, 2].min())
    hips = [c for c in _cores(solid, 9.0, 60.0) if abs(c[1][0] - middle) > 40]
    if not any(c[1][0] > middle for c in hips) or not any(c[1][0] < middle for c in hips):
        raise FluoroGuideError("No pelvis with two hip bones was found", None, "Use parts_from_seeds with a point in each bone")
    for core in hips:
        _mark(solid, core[0], 2 if core[1][0] > middle else 3)
    notes = []
    for core in _cores(solid, 7.0, 100.0):  # femoral heads that the scan cuts off, or whole proximal femora
        if abs(core[1][0] - middle) > 40 and core[2][2] < bottom + 2 and core[1][2] < bottom + 10:
            _mark(solid, core[0], 6 if core[1][0] > middle else 7)
    column = sorted((c for c in _cores(solid, 6.0, 1000.0) if abs(c[1][0] - middle) < 15), key=lambda c: c[1][2])
    if not column:
        raise FluoroGuideError("No sacrum was found between the hip bones", None, "Use parts_from_seeds with a point in each bone")
    _mark(solid, column[0][0], 1)
    below = (lps[:, 2] < column[0][1][2] - 15) & (np.abs(lps[:, 0] - middle) < 20) & (solid.depth[tuple(kji)] > 1.5)
    _mark(solid, kji[:, below], 1)
    if len(column) > 1:
        l5 = column[1][1]
        _mark(solid, column[1][0], 5)
        for core in _cores(solid, 4.0, 60.0):
            if abs(core[1][0] - middle) < 20 and 20 < core[1][2] - l5[2] < 45:
                _mark(solid, core[0], 4)
        notes.append("Levels are counted upward from the sacrum, as if there were five lumbar vertebrae: confirm them.")
    return notes


def _add_seeds(solid: _Solid, names: Mapping[int, str], seeds: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Balls of 2 mm around the user's points, where there is bone."""
    values = {name: value for value, name in names.items()}
    k, j, i = np.nonzero(solid.bone)
    matrix = lps_from_ijk(solid.image)
    lps = np.column_stack([i, j, k]) @ matrix[:3, :3].T + matrix[:3, 3]
    for name, points in seeds.items():
        if name not in values:
            raise FluoroGuideError("Seeds were given for an unknown bone part", name, "Names: " + ", ".join(values))
        for point in np.atleast_2d(np.asarray(points, float)):
            near = ((lps - point) ** 2).sum(axis=1) <= 4.0
            if not near.any():
                raise FluoroGuideError(f"A seed of '{name}' is not on bone", np.round(point, 1).tolist(), "Move it into the bone")
            solid.seeds[k[near], j[near], i[near]] = values[name]


# ---- growth -------------------------------------------------------------------------------------------------------------
def _grow(solid: _Solid) -> np.ndarray:
    """Labels [k, j, i], uint8: each bone voxel gets the label of the seed that is nearest along the bone."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    mask, count = solid.bone, int(solid.bone.sum())
    index = np.full(mask.shape, -1, np.int64)
    index[mask] = np.arange(count)
    source = index[(solid.seeds > 0) & mask]
    rows, columns = [np.full(len(source), count)], [source]
    weights = [np.full(len(source), 1e-6)]
    for axis, spacing in enumerate(solid.image.GetSpacing()[::-1]):
        a = tuple(slice(0, -1) if n == axis else slice(None) for n in range(3))
        b = tuple(slice(1, None) if n == axis else slice(None) for n in range(3))
        both = mask[a] & mask[b]
        step = np.maximum(solid.cost[a], solid.cost[b])[both].astype(float) * spacing
        rows += [index[a][both], index[b][both]]
        columns += [index[b][both], index[a][both]]
        weights += [step, step]
    graph = coo_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(count + 1, count + 1)).tocsr()
    distance, before = dijkstra(graph, indices=count, return_predecessors=True)  # one more node touches all seeds
    root = np.where((before[:count] < 0) | (before[:count] == count), np.arange(count), before[:count])
    while not np.array_equal(root, root[root]):
        root = root[root]
    result = np.zeros(mask.shape, np.uint8)
    result[mask] = np.where(np.isfinite(distance[:count]), solid.seeds[mask][root], 0)
    return result


def _fill_marrow(labels: np.ndarray, values: tuple[int, ...]) -> None:
    """Fill, slice by slice, what a bone encloses: marrow too fatty for any threshold.  For bones without a canal only.

    A hole with another bone in it (the femoral head in its socket) stays.
    """
    from scipy.ndimage import binary_fill_holes, label

    for layer in labels:
        for value in values:
            bone = layer == value
            if bone.any():
                holes, count = label(binary_fill_holes(bone) & ~bone)
                for n in range(1, count + 1):
                    if not layer[holes == n].any():
                        layer[holes == n] = value


def _uncropped(labels: np.ndarray, solid: _Solid, image: object) -> object:
    import SimpleITK as sitk

    whole = np.zeros(image.GetSize()[::-1], np.uint8)
    i, j, k = solid.low
    n = labels.shape
    whole[k:k + n[0], j:j + n[1], i:i + n[2]] = labels
    result = sitk.GetImageFromArray(whole)
    result.CopyInformation(image)
    return result
