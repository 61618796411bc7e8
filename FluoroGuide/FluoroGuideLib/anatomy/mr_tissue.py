"""Tissue classes of an MR volume: body, air, thin dark layers (cortex), and where signal alone cannot tell.

MR shows neither air nor cortical bone: both are dark.  What tells them apart is shape: cortex is a thin dark layer between brighter
tissues, and many of them come together; air is a dark space, small ones (gas) only where no cortex is near.  A black top-hat (grey-value
closing minus image) shows the first, an opening of the dark voxels the second (J. Serra, Image Analysis and Mathematical Morphology, 1982).

Where air ends matters most: with true air in place of the air found, four design cases of a thorax went from 1.1 to 0.3 mm, with true bone
only to 0.6 mm.  So voxels at its border are divided by their signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError

GRID_MM = 1.5
"""Voxel size at which classes are made: what registration uses at its finest whole-volume level."""
THIN_MM = 4.0
"""A dark layer thicker than about twice this is not cortex."""
OFFSET_SHARE = 0.02
"""What the darkest voxels show above this share of the brightest is an offset: somewhere every MR shows nothing."""
BIAS_GRID_MM = 7.0
AIR_LEVEL, AIR_LEVEL_T2 = 0.33, 0.22
"""Signal below which a voxel is dark, in units of muscle; in T2 flowing blood is nearly as dark as air: the limit is then lower."""
WIDE_LEVEL = 0.25
CORTEX_REACH_MM, CORTEX_LEAST, CORTEX_RANGE = 8.0, 0.03, 0.12
"""Share of thin dark layers around a voxel, smoothed over the first, from which on (second) and over which range they count as cortex."""
LUNG_MM3 = 150e3
"""Dark spaces larger than this are lung."""
ABOVE_AIR, CALM_MM = 1.6, 1.5
"""Where fat is dark: part by which smoothed tissue exceeds smoothed air (noise alone has one mean, Rayleigh's), and how far it is smoothed."""
SKIN_MM = 6.0
"""Dark layers closer to the skin than this are skin, not bone."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """What is known of each voxel; arrays are float32 ``[k, j, i]`` on the grid of ``image``.

    Attributes
    ----------
    image
        SimpleITK image: shading removed, 1 = the bright tissues' level (75th percentile of the body).
    body
        bool: the patient, cavities included.
    thin_dark
        0..1: how much of the voxel is a thin dark layer.
    wide_dark
        0..1: how much of it is a dark space too wide for cortex (air, gas, or fat where fat is suppressed).
    depth_mm
        Depth below the skin.
    fat_level
        Signal of the tissue just below the skin: fat.
    air
        0..1: how much of the voxel is air or lung, where fat is bright.
    bony
        0..1: how far the thin dark layers around are many enough to be cortex.
    lung
        bool: dark spaces large enough to be lung, with their border.
    """

    image: object
    body: np.ndarray
    thin_dark: np.ndarray
    wide_dark: np.ndarray
    depth_mm: np.ndarray
    fat_level: float
    air: np.ndarray
    bony: np.ndarray
    lung: np.ndarray


def isotropic(image: object, spacing_mm: float = GRID_MM) -> object:
    """The MR on an isotropic grid, float32; an offset that an export added to all values is taken off."""
    import SimpleITK as sitk

    size, spacing = np.asarray(image.GetSize()), np.asarray(image.GetSpacing())
    count = np.maximum(2, np.floor((size - 1) * spacing / spacing_mm).astype(int) + 1)
    smooth = sitk.Cast(image, sitk.sitkFloat32)
    lowest, brightest = np.percentile(sitk.GetArrayViewFromImage(smooth)[::2, ::2, ::2], [1, 99])
    if lowest > OFFSET_SHARE * brightest:
        smooth = sitk.Clamp(smooth - float(lowest), sitk.sitkFloat32, 0.0)
    for axis in range(3):
        if spacing[axis] < 0.8 * spacing_mm and size[axis] > 4:
            smooth = sitk.RecursiveGaussian(smooth, 0.42 * spacing_mm, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    return sitk.Resample(
        smooth, [int(n) for n in count], sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [spacing_mm] * 3, image.GetDirection(), 0.0,
        sitk.sitkFloat32,
    )


def noise_floor(values: np.ndarray) -> float:
    """Signal below which a voxel may be noise alone.

    The darkest fifth of all voxels, where it is air, is Rayleigh distributed; where the whole volume is body, a share of its median.
    """
    dark = values[values <= np.percentile(values, 20)]
    bright = float(np.percentile(values, 95))
    mean = float(dark.mean())
    return min(mean + 4.0 * max(float(dark.std()), 0.5 * mean), 0.25 * bright)


def dark_floor(smooth: np.ndarray) -> float:
    """The same where fat is dark, in an image smoothed so far that noise no longer scatters but stays at its mean: that of air, which tissue
    exceeds by :data:`ABOVE_AIR`, however dark."""
    air, bright = np.percentile(smooth, [5, 95])
    return float(np.clip(ABOVE_AIR * air, 0.02 * bright, 0.12 * bright))


def body_mask(image: object, fat_is_dark: bool = False) -> np.ndarray:
    """The patient with all cavities, bool [k, j, i].

    ``fat_is_dark``: the fat below the skin, suppressed, is hardly brighter than noise; single voxels do not tell it from air.

    Raises
    ------
    FluoroGuideError
        Nothing brighter than noise.
    """
    import SimpleITK as sitk

    values = sitk.GetArrayViewFromImage(image)
    shrink = [max(1, int(3.0 / s)) for s in image.GetSpacing()]
    small = sitk.BinShrink(image, shrink)
    if fat_is_dark:
        calm = sitk.SmoothingRecursiveGaussian(small, CALM_MM)
        bright = calm > dark_floor(sitk.GetArrayViewFromImage(calm))
    else:
        bright = small > noise_floor(values)
    radius = [max(1, round(5.0 / s)) for s in small.GetSpacing()]
    opened = sitk.BinaryMorphologicalOpening(bright, [1, 1, 1], sitk.sitkBall)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(opened), 50)
    if int(sitk.GetArrayViewFromImage(parts).max()) == 0:
        raise FluoroGuideError("The MR volume shows no body", "nothing is brighter than noise", "Choose another series")
    pad = [2 * r for r in radius]
    closed = sitk.BinaryMorphologicalClosing(sitk.ConstantPad(parts == 1, pad, pad), radius, sitk.sitkBall)
    mask = _filled_by_slices(sitk.GetArrayFromImage(sitk.Crop(closed, pad, pad)) > 0, small)
    result = sitk.GetImageFromArray(mask.astype(np.float32))
    result.CopyInformation(small)
    # shrinking leaves out the last voxels where it does not divide evenly: there the mask goes on, for the scan's end is not the skin
    return sitk.GetArrayFromImage(sitk.Resample(result, image, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32, True)) > 0.5


def _filled_by_slices(mask: np.ndarray, image: object) -> np.ndarray:
    """Holes closed in every slice across the superior axis: lungs and gas belong to the body even where a scan cuts them."""
    from scipy.ndimage import binary_fill_holes

    axis = 2 - int(np.argmax(np.abs(np.reshape(image.GetDirection(), (3, 3))[2])))
    return np.moveaxis(np.stack([binary_fill_holes(s) for s in np.moveaxis(mask, axis, 0)]), 0, axis)


def without_shading(image: object, body: np.ndarray) -> object:
    """The image divided by its coil shading (N4; Tustison et al., IEEE TMI 29:1310, 2010), estimated on a shrunk volume; 1 = 75th percentile."""
    import SimpleITK as sitk

    mask = sitk.GetImageFromArray((body & (sitk.GetArrayViewFromImage(image) > noise_floor(sitk.GetArrayViewFromImage(image)))).astype(np.uint8))
    mask.CopyInformation(image)
    shrink = [max(1, min(round(BIAS_GRID_MM / s), n // 6)) for s, n in zip(image.GetSpacing(), image.GetSize(), strict=True)]
    small, small_mask = sitk.BinShrink(image, shrink), sitk.Shrink(mask, shrink)
    small_mask = sitk.Resample(small_mask, small, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([25, 20])
    corrector.SetNumberOfControlPoints([4, 4, 4])
    if sitk.GetArrayViewFromImage(small_mask).sum() < 500:
        return _scaled(image, body)
    try:
        corrector.Execute(sitk.Clamp(small, sitk.sitkFloat32, 1e-3, 1e9), small_mask)
    except RuntimeError:  # too few voxels for its splines: shading is then left in, which class limits tolerate
        return _scaled(image, body)
    field = sitk.Exp(sitk.Clamp(sitk.Cast(corrector.GetLogBiasFieldAsImage(image), sitk.sitkFloat32), sitk.sitkFloat32, -2.0, 2.0))
    return _scaled(image / field, body)


def _scaled(image: object, body: np.ndarray) -> object:
    values = sitk_values(image)[body]
    return image / max(float(np.percentile(values, 75)), 1e-6)


def sitk_values(image: object) -> np.ndarray:
    """The image's values, read only."""
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image)


def classify(image: object, air_level: float = AIR_LEVEL, fat_is_dark: bool = False) -> Tissue:
    """Body, dark layers and dark spaces of an MR on an isotropic grid (:func:`isotropic`).

    ``air_level``: signal below which a voxel is dark, in units of muscle; ``fat_is_dark``: what is dark may be fat, so no air is claimed.
    """
    import SimpleITK as sitk

    body = body_mask(image, fat_is_dark)
    flat = without_shading(image, body)
    values, spacing = sitk.GetArrayFromImage(flat), min(image.GetSpacing())
    depth_mm = _depth(image, body)
    closed = _closed(values, round(THIN_MM / spacing * 0.75))
    level = max(float(np.percentile(values[body], 40)), 1e-3)
    thin = np.clip((closed - values) / np.maximum(closed, 0.35 * level), 0, 1)
    thin = np.where(body & (depth_mm > SKIN_MM), np.clip((thin - 0.25) / 0.5, 0, 1), 0).astype(np.float32)
    wide = np.where(body, np.clip(1.6 - closed / (WIDE_LEVEL * level), 0, 1), 1)
    ring = body & (depth_mm > 4.0) & (depth_mm < 9.0)
    fat = float(np.median(values[ring])) if ring.any() else 1.0
    if fat_is_dark:
        air, near, bony, lung = np.zeros_like(thin), np.zeros(body.shape, bool), _bony(thin, depth_mm, 0.0, spacing), np.zeros(body.shape, bool)
    else:
        air, near, bony, lung = _air_and_cortex(values, body, depth_mm, thin, air_level, spacing)
    return Tissue(flat, body, thin * ~near, wide.astype(np.float32), depth_mm, fat, air, bony, lung)


def _depth(image: object, body: np.ndarray) -> np.ndarray:
    """Depth below the skin, mm, float32; where the scan ends is not the skin."""
    import SimpleITK as sitk

    mask = sitk.GetImageFromArray(body.astype(np.uint8))
    mask.CopyInformation(image)
    padded = sitk.ZeroFluxNeumannPad(mask, [2] * 3, [2] * 3)
    depth = sitk.SignedMaurerDistanceMap(padded, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(sitk.Crop(depth, [2] * 3, [2] * 3)).astype(np.float32)


def _air_and_cortex(
    values: np.ndarray, body: np.ndarray, depth_mm: np.ndarray, thin: np.ndarray, air_level: float, spacing_mm: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(share of air, bool air and its border, share of cortex, bool lung), [k, j, i].

    Fixed steps of whole voxels on the standard grid of 1.5 mm: an opening by 2 finds lung and bowel, one by 1 smaller gas.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter

    bright = values[body & (values > 0.22)]
    muscle = float(np.percentile(bright, 20)) if bright.size else 1.0
    limit = air_level * muscle
    dark, surely = gaussian_filter(values, 0.7) < limit, values < 1.2 * limit
    wide = _opened(dark, 2) & surely
    bony = _bony(thin * ~_dilated(wide, 2), depth_mm, CORTEX_LEAST, spacing_mm)
    air = wide | (_opened(dark, 1) & surely & (bony < 0.5))
    near = _dilated(air, 2)
    inside = values[air & body]
    lowest = float(np.median(inside)) if inside.size else 0.0
    beside = np.maximum(maximum_filter(values, 5), muscle)
    share = np.where(near, np.clip(1 - (values - lowest) / np.maximum(beside - lowest, 1e-3), 0, 1), 0)
    return share.astype(np.float32), near, bony, _lung(air & body & (depth_mm > 4.0), spacing_mm)


def _bony(thin: np.ndarray, depth_mm: np.ndarray, least: float, spacing_mm: float) -> np.ndarray:
    """How far the thin dark layers around each voxel are many enough to be cortex, 0..1, float32."""
    from scipy.ndimage import gaussian_filter

    density = gaussian_filter(thin, CORTEX_REACH_MM / spacing_mm)
    return (np.clip((density - least) / CORTEX_RANGE, 0, 1) * (depth_mm > 0)).astype(np.float32)


def _lung(air: np.ndarray, spacing_mm: float) -> np.ndarray:
    import SimpleITK as sitk

    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(air.astype(np.uint8)))
    return _dilated(sitk.GetArrayFromImage(sitk.RelabelComponent(parts, max(1, int(LUNG_MM3 / spacing_mm**3)))) > 0, 2)


def _opened(mask: np.ndarray, radius: int) -> np.ndarray:
    """What a ball of ``radius`` voxels fits into, and one voxel more around it; beyond the border the mask goes on."""
    import SimpleITK as sitk

    pad = radius + 2
    image = sitk.GetImageFromArray(np.pad(mask, pad, mode="edge").astype(np.uint8))
    core = sitk.BinaryErode(image, [radius] * 3, sitk.sitkBall, 0, 1, False)
    grown = sitk.GetArrayViewFromImage(sitk.BinaryDilate(core, [radius + 1] * 3, sitk.sitkBall))
    return grown[pad:-pad, pad:-pad, pad:-pad] > 0


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.GetImageFromArray(mask.astype(np.uint8)), [radius] * 3, sitk.sitkBall)) > 0


def _closed(values: np.ndarray, radius: int) -> np.ndarray:
    """Grey-value closing by a cube of half-width ``radius`` voxels (separable, so fast); beyond the border its voxels go on."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    size, result = 2 * radius + 1, np.pad(values, radius, mode="edge")
    for run in (maximum_filter1d, minimum_filter1d):
        for axis in range(3):
            result = run(result, size, axis, mode="nearest")
    return result[radius:-radius, radius:-radius, radius:-radius]
