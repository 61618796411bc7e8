"""MR made from a CT, for proofs: the same anatomy in another contrast, with what MR adds of its own.

Signals are relative to subcutaneous fat (T1, T2, PD) or to fluid (STIR, Dixon water); they follow what the contrasts look like, not a
signal equation.  Added: slices of several mm with a box profile, smooth coil shading, Rician noise, a smooth geometric distortion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError

CONTRASTS = {
    # air, lung, fat, muscle, fluid, marrow, cortex, vessel
    "T1": (0.0, 0.06, 1.00, 0.42, 0.22, 0.72, 0.05, 0.15),
    "T2": (0.0, 0.06, 0.80, 0.26, 1.00, 0.50, 0.05, 0.10),
    "PD": (0.0, 0.08, 0.95, 0.62, 0.80, 0.60, 0.07, 0.25),
    "STIR": (0.0, 0.05, 0.09, 0.36, 1.00, 0.17, 0.04, 0.20),
    "DIXON_W": (0.0, 0.06, 0.08, 0.65, 0.85, 0.24, 0.05, 0.40),
}
"""Relative signal of air, lung, fat, muscle, fluid, marrow, cortex and flowing blood."""
MARROW_HU, CORTEX_HU = 120.0, 420.0


@dataclass(frozen=True)
class PseudoMrOptions:
    """What the simulated scanner does.

    Attributes
    ----------
    contrast
        A key of :data:`CONTRASTS`.
    plane
        ``"axial"``, ``"sagittal"`` or ``"coronal"``: how the thick slices lie.
    pixel_mm, slice_mm
        Voxel size in and across the slices.
    bias
        Standard deviation of the logarithm of the coil shading.
    noise
        Standard deviation of the noise in each channel, in units of the brightest tissue.
    distortion_mm
        Largest displacement by gradient non-linearity.
    """

    contrast: str = "T1"
    plane: str = "axial"
    pixel_mm: float = 1.0
    slice_mm: float = 4.0
    bias: float = 0.2
    noise: float = 0.025
    distortion_mm: float = 1.0


def pseudo_mr(ct: object, options: PseudoMrOptions, rng: np.random.Generator, bones: object | None = None) -> tuple[object, object, object]:
    """MR-like image of a CT, and the bones on its grid.

    Parameters
    ----------
    ct
        SimpleITK image in HU, LPS axes.
    options
        The scanner.
    rng
        Decides shading, noise and distortion.
    bones
        SimpleITK label image of bones on the CT's grid (0 elsewhere); without it bone is what is dense, with its cavities closed.

    Returns
    -------
    (MR, float32; label image uint8 on the MR's grid; SimpleITK transform from points of the MR to the CT: the distortion).

    Raises
    ------
    FluoroGuideError
        Unknown contrast or plane.
    """
    import SimpleITK as sitk

    if options.contrast not in CONTRASTS:
        raise FluoroGuideError("Unknown MR contrast", options.contrast, f"Choose one of {', '.join(CONTRASTS)}")
    labels = bones if bones is not None else _dense_bone(ct)
    signal = _signal(ct, labels, CONTRASTS[options.contrast])
    grid = _grid(ct, options)
    field = _distortion(grid, options.distortion_mm, rng)
    smooth = sitk.SmoothingRecursiveGaussian(signal, [0.42 * min(2.0, max(s, n)) for s, n in zip(ct.GetSpacing(), grid.GetSpacing(), strict=True)])
    image = _slices(smooth, grid, field, options)
    values = sitk.GetArrayFromImage(image)
    values *= np.exp(options.bias * _smooth_noise(image, 140.0, rng))
    real = values + rng.normal(0, options.noise, values.shape)
    result = sitk.GetImageFromArray((1000 * np.hypot(real, rng.normal(0, options.noise, values.shape))).astype(np.float32))
    result.CopyInformation(image)
    return result, sitk.Resample(labels, image, field, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8), field


def _dense_bone(ct: object) -> object:
    """Bone of a CT without contrast medium: dense voxels, closed over their marrow."""
    import SimpleITK as sitk

    dense = ct > 180.0
    closed = sitk.BinaryMorphologicalClosing(dense, [max(1, round(5.0 / s)) for s in ct.GetSpacing()], sitk.sitkBall)
    filled = sitk.BinaryFillhole(closed)
    return sitk.RelabelComponent(sitk.ConnectedComponent(filled), max(1, int(2000.0 / np.prod(ct.GetSpacing())))) > 0


def _signal(ct: object, labels: object, table: tuple[float, ...]) -> object:
    """Signal on the CT's grid, float32: tissues by HU, marrow and cortex only within bone, contrast medium as vessel."""
    import SimpleITK as sitk

    air, lung, fat, muscle, fluid, marrow, cortex, vessel = table
    hu, bone = sitk.GetArrayFromImage(ct).astype(np.float32), sitk.GetArrayViewFromImage(labels) > 0
    soft = np.interp(hu, [-950, -800, -350, -200, -130, -60, 45, 90, 160, 400], [air, lung, lung, fat, fat, fat, muscle, muscle, vessel, vessel])
    soft += _fluid(hu) * (fluid - soft)
    soft = np.where(_beside_air(hu), _mixed_with_air(hu, soft, lung), soft)
    hard = np.interp(hu, [-130, 0, MARROW_HU, 280, CORTEX_HU, 700], [fat, marrow, marrow, 0.8 * marrow, 0.25 * marrow + 0.75 * cortex, cortex])
    result = sitk.GetImageFromArray(np.where(bone, hard, soft).astype(np.float32))
    result.CopyInformation(ct)
    return result


def _fluid(hu: np.ndarray) -> np.ndarray:
    """Share of fluid by HU, 0..1: not at borders of fat, where half fat, half muscle has the HU of fluid, nor by noise of single voxels."""
    from scipy.ndimage import gaussian_filter, minimum_filter

    calm = gaussian_filter(hu, 0.8)
    return np.where(minimum_filter(calm, 5) > -50.0, np.interp(calm, [-15.0, -5.0, 12.0, 32.0], [0.0, 1.0, 1.0, 0.0]), 0.0)


def _beside_air(hu: np.ndarray) -> np.ndarray:
    """Voxels that air or lung and something else share: between the two by HU, with lung or air among their neighbours; bool."""
    from scipy.ndimage import minimum_filter

    return (hu > -800.0) & (hu < -60.0) & (minimum_filter(hu, 3) < -700.0)


def _mixed_with_air(hu: np.ndarray, soft: np.ndarray, lung: float) -> np.ndarray:
    """Signal in proportion to the share of tissue: by HU alone half lung, half muscle would pass for fat."""
    from scipy.ndimage import maximum_filter

    full = np.clip(maximum_filter(hu, 3), -60.0, 60.0)
    share = np.clip((hu + 800.0) / (full + 800.0), 0, 1)
    near = maximum_filter(np.where(hu > -130.0, soft, 0.0), 3)
    return lung + share * (np.where(near > 0, near, soft) - lung)


def _grid(ct: object, options: PseudoMrOptions) -> object:
    """Empty image with the MR's voxels over the CT's extent."""
    import SimpleITK as sitk

    across = {"sagittal": 0, "coronal": 1, "axial": 2}.get(options.plane)
    if across is None:
        raise FluoroGuideError("Unknown plane of the MR slices", options.plane, "Choose axial, sagittal or coronal")
    spacing = np.full(3, options.pixel_mm)
    spacing[across] = options.slice_mm
    size = np.floor((np.array(ct.GetSize()) - 1) * ct.GetSpacing() / spacing).astype(int) + 1
    grid = sitk.Image([int(n) for n in size], sitk.sitkFloat32)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(ct.GetDirection())
    grid.SetOrigin(ct.GetOrigin())
    return grid


def _smooth_noise(image: object, scale_mm: float, rng: np.random.Generator, components: int = 1) -> np.ndarray:
    """Smooth random field of unit deviation on the image's grid, [k, j, i] (or [k, j, i, components])."""
    import SimpleITK as sitk

    extent = np.array(image.GetSize()) * image.GetSpacing()
    nodes = np.maximum(2, np.ceil(extent / scale_mm).astype(int) + 1)
    made = []
    for _ in range(components):
        coarse = sitk.GetImageFromArray(rng.standard_normal(nodes[::-1]).astype(np.float32))
        coarse.SetSpacing((extent / (nodes - 1)).tolist())
        coarse.SetDirection(image.GetDirection())
        coarse.SetOrigin(image.GetOrigin())
        made.append(sitk.GetArrayFromImage(sitk.Resample(coarse, image, sitk.Transform(), sitk.sitkLinear, 0.0)))
    return made[0] if components == 1 else np.stack(made, -1)


def _distortion(grid: object, largest_mm: float, rng: np.random.Generator) -> object:
    """Smooth displacement that grows with the distance from the middle of the scan, up to ``largest_mm``."""
    import SimpleITK as sitk

    coarse_spacing = np.full(3, 20.0)
    size = np.ceil(np.array(grid.GetSize()) * grid.GetSpacing() / coarse_spacing).astype(int) + 2
    coarse = sitk.Image([int(n) for n in size], sitk.sitkFloat32)
    coarse.SetSpacing(coarse_spacing.tolist())
    coarse.SetDirection(grid.GetDirection())
    coarse.SetOrigin(grid.GetOrigin())
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in size[::-1]), indexing="ij")
    vectors = _smooth_noise(coarse, 160.0, rng, 3) * (0.3 + 0.7 * (i**2 + j**2 + k**2))[..., None]
    vectors *= largest_mm / max(float(np.linalg.norm(vectors, axis=-1).max()), 1e-9)
    image = sitk.GetImageFromArray(vectors.astype(np.float64), isVector=True)
    image.CopyInformation(coarse)
    return sitk.DisplacementFieldTransform(image)


def _slices(signal: object, grid: object, field: object, options: PseudoMrOptions) -> object:
    """The signal on the grid, each slice the mean of samples over its thickness."""
    import SimpleITK as sitk

    across = int(np.argmax(grid.GetSpacing()))
    samples = max(1, round(options.slice_mm / 1.3)) if options.slice_mm > 1.3 * options.pixel_mm else 1
    direction = np.reshape(grid.GetDirection(), (3, 3))[:, across]
    total = None
    for n in range(samples):
        shifted = sitk.Image(grid)
        offset = ((n + 0.5) / samples - 0.5) * options.slice_mm
        shifted.SetOrigin((np.array(grid.GetOrigin()) + offset * direction).tolist())
        values = sitk.GetArrayFromImage(sitk.Resample(signal, shifted, field, sitk.sitkLinear, 0.0, sitk.sitkFloat32))
        total = values if total is None else total + values
    result = sitk.GetImageFromArray(total / samples)
    result.CopyInformation(grid)
    return result
