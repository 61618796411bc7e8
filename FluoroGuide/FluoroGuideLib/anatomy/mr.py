"""MR as the attenuation X-rays would meet: classes of tissue, refined by bone labels, and how sure each voxel is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from .attenuation import WATER_ATTENUATION_PER_MM as WATER
from .attenuation import AttenuationVolume, check_volume
from .mr_series import MIN_SLICES, MrSeries
from .mr_tissue import AIR_LEVEL, AIR_LEVEL_T2, GRID_MM, LUNG_MM3, Tissue, classify, isotropic

AIR, FAT, SOFT, FLUID, MARROW, CORTEX = (WATER * f for f in (0.0, 0.91, 1.04, 1.01, 1.14, 1.75))
"""Attenuation of the classes, 1/mm: HU -1000, -90, 40, 10, 140 and 750 by the definition of HU."""
LUNG = WATER * 0.14
"""Of lung: HU -860."""
SHELL_PER_MM = WATER * 1.4
"""Attenuation of the shell put around labelled bone: thinner than a voxel, so less than cortex itself."""
SHELL_MM = 1.2
"""Thickness of the cortex put around labelled bone."""
DISC = WATER * 1.08
"""Of a disc: HU 80."""
DISC_MM = 12.0
"""Half the height of the widest gap between two labelled bones that is taken for a disc."""
FRONT_MM, FRONT_BESIDE_MM, FRONT_DEPTH_MM = 60.0, 12.0, 10.0
"""How far in front of labelled vertebrae there is no bone; how far beside a body's front that holds; and what counts as its front."""
GAS_MOST = 0.6 * WATER
UNLABELLED = 0.3
"""How much unlabelled bone counts beside labelled lumbar vertebrae."""
PITCH_MM = (15.0, 55.0)
"""Distance between the middles of neighbouring vertebrae."""
SUPPRESSED = ("STIR", "T2 fat-suppressed", "PD fat-suppressed", "T1 fat-suppressed", "Dixon water")
"""Contrasts in which fat, and with it marrow, is dark."""


@dataclass(frozen=True, eq=False)
class MrVolume(AttenuationVolume):
    """Pseudo-attenuation of an MR volume.

    Attributes
    ----------
    uncertainty
        SimpleITK float32 image on the grid of ``image``: standard deviation of the attenuation, 1/mm.
    contrast
        Contrast type, for people and for the classes.
    caveats
        Sentences on what MR does not show well here.
    """

    uncertainty: object = None
    contrast: str = ""
    caveats: tuple[str, ...] = ()


def attenuation_from_mr(
    image: object, contrast: str = "", name: str = "", *, labels: object | None = None, part_names: dict[int, str] | None = None,
    caveats: tuple[str, ...] = (), grid_mm: float = GRID_MM,
) -> MrVolume:
    """Pseudo-attenuation of an MR volume by tissue classes.

    Parameters
    ----------
    image
        3-D SimpleITK image, any scale, any orientation.
    contrast
        ``"T1"``, ``"T2"``, ``"PD"``, ``"STIR"``, ``"Dixon water"``, ... (:func:`mr_series.read_mr`); unknown counts as a contrast
        in which fat is bright.
    labels
        SimpleITK label image of bones in the same space (0 elsewhere); whole vertebrae, or their bodies alone.
    part_names
        Label value -> name.

    Raises
    ------
    FluoroGuideError
        Not a usable volume, fewer than :data:`MIN_SLICES` slices, or labels that lie elsewhere.
    """
    import SimpleITK as sitk

    check_volume(image, name or "MR volume")
    if min(image.GetSize()) < MIN_SLICES:
        what = f"{name or 'MR volume'}, {min(image.GetSize())} slices"
        raise FluoroGuideError("The MR series has too few slices to register: it is a localizer", what, "Choose the planning series")
    grid = isotropic(image, grid_mm)
    tissue = classify(grid, AIR_LEVEL_T2 if contrast == "T2" else AIR_LEVEL, contrast in SUPPRESSED)
    attenuation, uncertainty = _attenuation(tissue, contrast)
    made, spread = (sitk.GetImageFromArray(np.ascontiguousarray(a, np.float32)) for a in (attenuation, uncertainty))
    made.CopyInformation(grid)
    spread.CopyInformation(grid)
    volume = MrVolume(made, "MR", name, None, {}, spread, contrast, caveats)
    return volume if labels is None else with_labels(volume, labels, part_names)


def attenuation_of_series(series: MrSeries, name: str = "", note: str = "") -> MrVolume:
    """:func:`attenuation_from_mr` of a series; ``note``: how it was recognised, told first among its caveats."""
    return attenuation_from_mr(series.image, series.contrast, name, caveats=(*([note] if note else []), *series.caveats))


def with_labels(volume: MrVolume, labels: object, part_names: dict[int, str] | None = None) -> MrVolume:
    """The same MR refined by a bone segmentation that came later (SimpleITK label image in the same space).

    Raises
    ------
    FluoroGuideError
        Labels that lie elsewhere.
    """
    import SimpleITK as sitk

    attenuation, uncertainty = (sitk.GetArrayFromImage(image) for image in (volume.image, volume.uncertainty))
    own, moved = sitk.Cast(labels, sitk.sitkInt16), sitk.Resample(labels, volume.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkInt16)
    if not sitk.GetArrayViewFromImage(moved).any():
        raise FluoroGuideError("The bone labels lie outside the MR volume", volume.name or None, "Give labels drawn on this series")
    _refine_by_labels(attenuation, uncertainty, own, volume.image)
    if volume.contrast in SUPPRESSED:
        _less_unlabelled(attenuation, own, volume.image, 0.0)
    images = [sitk.GetImageFromArray(a) for a in (attenuation, uncertainty)]
    for image in images:
        image.CopyInformation(volume.image)
    return dataclasses.replace(volume, image=images[0], uncertainty=images[1], parts=moved, part_names=dict(part_names or {}))


def _attenuation(tissue: Tissue, contrast: str) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation and its standard deviation, 1/mm, [k, j, i]."""
    values = _values(tissue)
    base = _soft_scale(values, tissue, contrast)
    thin, bony = tissue.thin_dark, tissue.bony
    # cortex comes in sheets around marrow: single dark lines (vessels, fascia) have fewer dark neighbours, and stay what they are
    mu = base + thin * bony * (CORTEX - base)
    suppressed = contrast in SUPPRESSED
    air = _air(values, tissue) if suppressed else tissue.air
    marrow = bony * (1 - thin) * (1 - (tissue.wide_dark if suppressed else air))
    mu += 0.5 * marrow * np.maximum(MARROW - base, 0)
    spread = 0.0006 + 0.004 * thin * (1 - bony) + 0.0015 * marrow
    mu += air * (np.where(tissue.lung, LUNG, AIR) - mu)
    spread = spread + 0.012 * (0.3 * tissue.wide_dark + air * (1 - air) if suppressed else air * (1 - air))
    inside = np.clip(tissue.depth_mm / 1.5 + 0.5, 0, 1)
    return (mu * inside * tissue.body).astype(np.float32), (spread * tissue.body).astype(np.float32)


def _air(values: np.ndarray, tissue: Tissue) -> np.ndarray:
    """Air (0..1) where fat is dark too: wide, deep, and darker than the fat below the skin by more than noise."""
    from scipy.ndimage import uniform_filter

    voxel = tissue.image.GetSpacing()[0]
    size = max(3, round(9.0 / voxel))
    mean = uniform_filter(values, size, mode="nearest")
    deep = np.clip((tissue.depth_mm - 10.0) / 5.0, 0, 1)
    dark = np.clip((0.7 * tissue.fat_level - mean) / (0.2 * tissue.fat_level), 0, 1) * deep
    # the mean is taken over a neighbourhood: what it calls air reaches to the next voxel that is not dark
    core = np.clip(uniform_filter(dark, size, mode="nearest") * 2 - 0.2, 0, 1)
    return np.maximum(dark, core * (values < 0.8 * tissue.fat_level))


def _values(tissue: Tissue) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(tissue.image)


def _soft_scale(values: np.ndarray, tissue: Tissue, contrast: str) -> np.ndarray:
    """Attenuation of what is not dark: fat, muscle, fluid by signal."""
    dark = tissue.wide_dark if contrast in SUPPRESSED else tissue.air
    level = values[tissue.body & (dark < 0.2) & (tissue.thin_dark < 0.2)]
    low, middle, high = np.percentile(level, [15, 50, 90])
    if contrast in SUPPRESSED:  # dark is fat or fat marrow, bright is fluid
        return np.interp(values, [0.0, low, middle, high], [FAT, FAT, SOFT, FLUID]).astype(np.float32)
    if contrast == "T2":  # fat and fluid both bright
        return np.interp(values, [low, middle, high, 1.6 * high], [SOFT, SOFT, FAT, FLUID]).astype(np.float32)
    return np.interp(values, [low, middle, high], [SOFT, SOFT, FAT]).astype(np.float32)


def _refine_by_labels(attenuation: np.ndarray, uncertainty: np.ndarray, labels: object, grid: object) -> None:
    """Marrow inside every label, a cortical shell around it; each label for itself, so that neighbours keep their surfaces."""
    import SimpleITK as sitk

    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputePerimeterOff()
    statistics.Execute(labels)
    for value in statistics.GetLabels():
        box, pad = statistics.GetBoundingBox(value), np.ceil(5.0 / np.asarray(labels.GetSpacing())).astype(int)
        low = np.maximum(np.array(box[:3]) - pad, 0)
        high = np.minimum(np.array(box[:3]) + box[3:] + pad, labels.GetSize())
        own = sitk.RegionOfInterest(labels, (high - low).tolist(), low.tolist()) == int(value)
        inside = sitk.SignedMaurerDistanceMap(own, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
        # between thick slices the surface is interpolated, not a staircase; half a voxel: Maurer measures from voxel centres
        place, depth = _near_part(inside, grid)
        shell = np.clip(1.5 - np.abs(depth - 0.3) / SHELL_MM, 0, 1) * (depth > -1.5)
        bone = np.clip(depth + 0.5, 0, 1)
        mu, spread = attenuation[place], uncertainty[place]
        mu += (bone * (MARROW - mu)).astype(np.float32)
        mu += (shell * np.maximum(SHELL_PER_MM - mu, 0)).astype(np.float32)
        spread[bone > 0.5] = 0.001
    if len(statistics.GetLabels()) > 1:
        place, between = _between_bones(labels, grid)
        attenuation[place] -= (between * np.maximum(attenuation[place] - DISC, 0)).astype(np.float32)
    front = _in_front_of_spine(labels, grid)
    if front is not None:
        place, mask = front
        attenuation[place] = np.where(mask, np.minimum(attenuation[place], SOFT), attenuation[place])
        if not _shows_lung(attenuation, grid):
            _plain_abdomen(attenuation, uncertainty > 0, labels, grid)


def _shows_lung(attenuation: np.ndarray, grid: object) -> bool:
    from scipy.ndimage import binary_opening

    voxel_mm3 = float(np.prod(grid.GetSpacing()))
    return bool(binary_opening(np.abs(attenuation - LUNG) < 0.1 * LUNG).sum() * voxel_mm3 > 0.3 * LUNG_MM3)


def _plain_abdomen(attenuation: np.ndarray, body: np.ndarray, labels: object, grid: object) -> None:
    """Around labelled lumbar vertebrae: gas filled, for it lies elsewhere on another day, and what is not labelled counts less as bone.

    Thin dark layers are there as often ligaments, fascia, vessels and walls of bowel as cortex.
    """
    import SimpleITK as sitk

    outline = sitk.GetImageFromArray(body.astype(np.uint8))
    outline.CopyInformation(grid)
    deep = sitk.SignedMaurerDistanceMap(outline, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    attenuation[(sitk.GetArrayViewFromImage(deep) > 4.0) & (attenuation < GAS_MOST)] = SOFT
    _less_unlabelled(attenuation, labels, grid)


def _less_unlabelled(attenuation: np.ndarray, labels: object, grid: object, share: float = UNLABELLED) -> None:
    """What looks like bone but is not labelled counts only by a share: of thin dark layers many are none.

    In the abdomen they are ligaments, vessels and walls of bowel; where fat is suppressed every sheet of fat between muscles is one, as thin
    and as dark as cortex.
    """
    import SimpleITK as sitk

    near = sitk.SignedMaurerDistanceMap(labels > 0, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    away = sitk.GetArrayFromImage(sitk.Resample(near, grid, sitk.Transform(), sitk.sitkLinear, 99.0, sitk.sitkFloat32))
    attenuation -= ((1 - share) * np.clip(away - SHELL_MM, 0, 1) * np.maximum(attenuation - SOFT, 0)).astype(np.float32)


def _in_front_of_spine(labels: object, grid: object) -> tuple[tuple[slice, ...], np.ndarray] | None:
    """Where the grid lies in front of labelled vertebrae, as slices and mask [k, j, i]; None where the labels are no row of vertebrae.

    No bone is there: what is thin and dark are vessels, ligaments and walls of bowel.
    """
    points = _label_points(labels)
    middles = np.array([p.mean(0) for p in points])
    middles = middles[np.argsort(middles[:, 2])]
    steps = np.linalg.norm(np.diff(middles, axis=0), axis=1)
    if len(middles) < 3 or steps.min() < PITCH_MM[0] or steps.max() > PITCH_MM[1]:
        return None
    rows = []  # z, front, right and left side of each body's front every 4 mm
    for p in points:
        for z in np.arange(p[:, 2].min(), p[:, 2].max() + 4.0, 4.0):
            some = p[np.abs(p[:, 2] - z) <= 4.0]
            front = np.percentile(some[:, 1], 2)
            near = some[some[:, 1] < front + FRONT_DEPTH_MM, 0]
            rows.append((z, front, near.min() - FRONT_BESIDE_MM, near.max() + FRONT_BESIDE_MM))
    z, front, right, left = np.array(sorted(rows)).T
    low, high = np.array([right.min(), front.min() - FRONT_MM, z.min()]), np.array([left.max(), front.max(), z.max()])
    place, (px, py, pz) = _coordinates(grid, low, high)
    at = [np.interp(pz, z, v) for v in (front, right, left)]
    return place, (py < at[0] - SHELL_MM) & (py > at[0] - FRONT_MM) & (px > at[1]) & (px < at[2]) & (pz >= z.min()) & (pz <= z.max())


def _label_points(labels: object) -> list[np.ndarray]:
    """Voxels of each label, (N, 3) LPS mm."""
    import SimpleITK as sitk

    from ..geometry.frames import lps_from_ijk

    array, matrix = sitk.GetArrayViewFromImage(labels), lps_from_ijk(labels)
    index = np.argwhere(array > 0)
    values, points = array[tuple(index.T)], index[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
    return [points[values == v] for v in np.unique(values)]


def _coordinates(grid: object, low: np.ndarray, high: np.ndarray) -> tuple[tuple[slice, ...], list[np.ndarray]]:
    """The part of a grid that holds a box along LPS, as slices [k, j, i], and x, y, z (float32) of its voxels."""
    from ..geometry.frames import lps_from_ijk

    matrix, size = lps_from_ijk(grid), np.array(grid.GetSize())
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    index = (corners - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    first = np.clip(np.floor(index.min(0)).astype(int), 0, size - 1)
    last = np.clip(np.ceil(index.max(0)).astype(int) + 1, first + 1, size)
    k, j, i = (np.arange(first[n], last[n], dtype=np.float32) for n in (2, 1, 0))
    m = matrix.astype(np.float32)
    axes = [m[n, 3] + m[n, 0] * i + m[n, 1] * j[:, None] + m[n, 2] * k[:, None, None] for n in range(3)]
    return tuple(slice(int(a), int(b)) for a, b in zip(first[::-1], last[::-1], strict=True)), axes


def _between_bones(labels: object, grid: object) -> tuple[tuple[slice, ...], np.ndarray]:
    """Where the grid lies in gaps between labelled bones, as slices [k, j, i], and how far (0..1).

    A disc and the endplates beside it are thin and dark in MR, as cortex is: without this they would be the densest of the spine, whose
    projection then fits best half a vertebra off.  Gaps are what a closing of the labels by a ball of :data:`DISC_MM` adds.
    """
    import SimpleITK as sitk

    mask = sitk.Cast(labels > 0, sitk.sitkUInt8)
    box = _box(mask, 2.5 * DISC_MM)
    inside = sitk.SignedMaurerDistanceMap(sitk.RegionOfInterest(mask, *box), insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    grown = sitk.SignedMaurerDistanceMap(inside > -DISC_MM, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    place, closed = _near_part(grown, grid)
    return place, np.clip(closed - DISC_MM + 1.0, 0, 1) * np.clip(-_near_part(inside, grid)[1] - SHELL_MM, 0, 1)


def _box(mask: object, margin_mm: float) -> tuple[list[int], list[int]]:
    """(size, index) of the box around the voxels above 0, ``margin_mm`` wider, within the image."""
    import SimpleITK as sitk

    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOff()
    shape.Execute(mask)
    first, size = np.array(shape.GetBoundingBox(1)).reshape(2, 3)
    pad = np.ceil(margin_mm / np.array(mask.GetSpacing())).astype(int)
    low, high = np.maximum(first - pad, 0), np.minimum(first + size + pad, mask.GetSize())
    return [int(n) for n in high - low], [int(n) for n in low]


def _near_part(distance: object, grid: object) -> tuple[tuple[slice, ...], np.ndarray]:
    """Where a distance map lies on another grid, as slices [k, j, i], and its values there (far outside it: -99)."""
    import SimpleITK as sitk

    from ..geometry.frames import corners_lps_mm

    index = np.array([grid.TransformPhysicalPointToContinuousIndex(c.tolist()) for c in corners_lps_mm(distance)])
    low = np.clip(np.floor(index.min(0)).astype(int), 0, np.array(grid.GetSize()) - 1)
    high = np.clip(np.ceil(index.max(0)).astype(int) + 1, low + 1, grid.GetSize())
    region = sitk.RegionOfInterest(grid, (high - low).tolist(), low.tolist())
    values = sitk.Resample(distance, region, sitk.Transform(), sitk.sitkLinear, -99.0, sitk.sitkFloat32)
    return tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True)), sitk.GetArrayFromImage(values)
