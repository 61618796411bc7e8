"""The skin of a CT: which voxels are the body, and where a straight line leaves it."""

from __future__ import annotations

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk

BODY_HU = -300.0
"""Half-way between air (-1000) and soft tissue, a little on the tissue's side: sheets and foam stay outside."""
OPENING_MM = 4.0
"""Table tops, lines and skin folds thinner than twice this do not join the body to what lies beside it."""


def body_mask(image: object, spacing_mm: float = 2.0) -> object:
    """The largest body in a CT with its air-filled organs: SimpleITK uint8 image on a coarser grid.

    Parameters
    ----------
    image
        3-D SimpleITK image in HU.
    spacing_mm
        Voxel size of the result; finer axes of the CT are thinned to about this.

    Raises
    ------
    FluoroGuideError
        Nothing in the volume is body (not HU, or an empty scan).
    """
    import SimpleITK as sitk

    coarse = coarser(image, spacing_mm)
    tissue = sitk.BinaryThreshold(coarse, BODY_HU, 1e5)
    radius = [max(1, round(OPENING_MM / s)) for s in coarse.GetSpacing()]
    opened = sitk.BinaryMorphologicalOpening(sitk.ConstantPad(tissue, radius, radius), radius)
    opened = sitk.Crop(opened, radius, radius)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(opened, False), 100)
    if sitk.GetArrayViewFromImage(parts).max() == 0:
        raise FluoroGuideError("No skin was found: nothing in the volume is body", f"above {BODY_HU:g} HU", "Check that the volume is a CT in HU")
    body = sitk.BinaryDilate(parts == 1, radius) & tissue  # the opening's rounded edges come back
    filled = sitk.GetArrayFromImage(body)
    for k, layer in enumerate(filled):
        filled[k] = _filled(layer)
    result = sitk.GetImageFromArray(filled)
    result.CopyInformation(coarse)
    return result


def coarser(image: object, spacing_mm: float) -> object:
    """Every n-th voxel's mean along each axis, so that its spacing is about ``spacing_mm`` (never finer than it was)."""
    import SimpleITK as sitk

    factor = [max(1, round(spacing_mm / s)) for s in image.GetSpacing()]
    return sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factor)


def _filled(layer: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    return binary_fill_holes(layer).astype(np.uint8)


def exits_lps_mm(body: object, start_lps_mm: np.ndarray, directions: np.ndarray, reach_mm: float = 400.0, step_mm: float = 0.5) -> np.ndarray:
    """Where straight lines from a point leave the body for good: points (N, 3), LPS mm, NaN where the scan ends first.

    Parameters
    ----------
    body
        Mask of :func:`body_mask`.
    start_lps_mm
        (3,), inside the body.
    directions
        Unit vectors (N, 3).
    """
    mask = _view(body)
    matrix = np.linalg.inv(lps_from_ijk(body))
    steps = np.arange(0.0, reach_mm, step_mm)
    result = np.full((len(directions), 3), np.nan)
    start = matrix[:3, :3] @ np.asarray(start_lps_mm, float) + matrix[:3, 3]
    size = np.array(mask.shape[::-1])
    for n, direction in enumerate(np.asarray(directions, float)):
        ijk = np.round(start + steps[:, None] * (matrix[:3, :3] @ direction)).astype(int)
        inside = ((ijk >= 0) & (ijk < size)).all(axis=1)
        last = len(steps) if inside.all() else int(np.argmin(inside))
        ijk = ijk[:last]
        values = mask[ijk[:, 2], ijk[:, 1], ijk[:, 0]] > 0
        # The last body voxel before air that lasts to the scan's border; a line that ends inside has no skin point.
        if len(values) and values.any() and not values[-1]:
            out = len(values) - 1 - int(np.argmax(values[::-1]))
            result[n] = np.asarray(start_lps_mm, float) + (steps[out] + step_mm) * direction
    return result


def skin_point_lps_mm(body: object, start_lps_mm: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Skin point (3,) on the line from a point inside the body along ``direction``.

    Raises
    ------
    FluoroGuideError
        The scan ends before the skin in that direction.
    """
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    point = exits_lps_mm(body, start_lps_mm, direction[None])[0]
    if np.isnan(point).any():
        raise FluoroGuideError("No skin lies on the needle's line within the volume", None, "Choose another direction or a larger volume")
    return point


def _view(image: object) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image)
