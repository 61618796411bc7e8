"""What a C-arm CBCT (or a truncated CT) of the same patient would look like, made from a CT; and vessels filled with contrast."""

from __future__ import annotations

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk


def cbct_from_ct(
    hu_image: object, center_lps_mm: np.ndarray, rng: np.random.Generator, *, field_mm: float = 180.0, offset_hu: float = 0.0,
    cupping_hu: float = 150.0, streaks_hu: float = 300.0, noise_hu: float = 40.0,
) -> object:
    """A cylindrical CBCT field cut out of a CT: wrong HU, darker in the middle, streaks from metal, noise.

    Parameters
    ----------
    hu_image
        SimpleITK CT with axes along LPS.
    center_lps_mm
        Middle (3,) of the field.
    field_mm
        Diameter and height; outside the cylinder the volume is air, as C-arms write it.
    offset_hu
        Added to everything in the field.
    cupping_hu
        How much darker the middle is than the border (parabola).
    streaks_hu
        Amplitude of bright and dark streaks at 10 mm from a metal rod 15 to 50 mm from the centre; they fall off with the distance.

    Raises
    ------
    FluoroGuideError
        The field misses the volume.
    """
    import SimpleITK as sitk

    box = _filled(cropped(hu_image, center_lps_mm, [field_mm / 2] * 3), center_lps_mm, field_mm / 2)
    x, y, z = (_axis(box, n) - center_lps_mm[n] for n in range(3))
    values = sitk.GetArrayFromImage(box).astype(np.float32)
    r2 = y[:, None] ** 2 + x[None, :] ** 2
    values += np.float32(offset_hu) - np.float32(cupping_hu) * np.clip(1 - r2 / (field_mm / 2) ** 2, 0, 1).astype(np.float32)
    if streaks_hu > 0:
        angle, away, height = rng.uniform(0, 2 * np.pi), rng.uniform(15, 50), rng.uniform(-30, 30)
        values += streaks_hu * _streaks(x - away * np.cos(angle), y - away * np.sin(angle), z - height, rng)
    values += noise_hu * rng.standard_normal(values.shape, np.float32)
    values[:, r2 > (field_mm / 2) ** 2] = -1000.0
    result = sitk.GetImageFromArray(np.clip(np.rint(values), -1000, 3000).astype(np.int16))
    result.CopyInformation(box)
    return result


def _filled(box: object, center_lps_mm: np.ndarray, half_mm: float) -> object:
    """The box with air where the CT ended inside the field: a C-arm writes the whole square around its cylinder."""
    import SimpleITK as sitk

    spacing = np.asarray(box.GetSpacing())
    low = np.asarray(box.GetOrigin())
    high = low + (np.asarray(box.GetSize()) - 1) * spacing
    before, after = (np.maximum(np.floor(gap / spacing + 1e-6), 0)[:2] for gap in (low - center_lps_mm + half_mm, center_lps_mm + half_mm - high))
    return sitk.ConstantPad(box, [int(n) for n in (*before, 0)], [int(n) for n in (*after, 0)], -1000.0)


def _streaks(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rays from a rod along z, 30 mm long: random in angle, alike in neighbouring slices; 1 at 10 mm, with a 2.5 mm rod of +10."""
    radius, angle = np.hypot(x[None, :], y[:, None]), np.arctan2(y[:, None], x[None, :])
    pattern = sum(rng.normal() * np.cos(n * (angle - rng.uniform(0, 2 * np.pi))) for n in (2, 3, 5, 8, 13, 21)) / np.sqrt(3)
    plane = pattern * np.minimum(1.0, 10.0 / np.maximum(radius, 1.0)) + 10.0 * (radius < 2.5)
    return (np.clip((20.0 - np.abs(z)) / 5.0, 0, 1)[:, None, None] * plane).astype(np.float32)


def cropped(image: object, center_lps_mm: np.ndarray, half_mm: list[float]) -> object:
    """The part of an image with axes along LPS within ``half_mm`` (x, y, z) of a point; ``numpy.inf`` keeps an axis whole."""
    import SimpleITK as sitk

    spacing, size = np.asarray(image.GetSpacing()), np.asarray(image.GetSize())
    middle = np.linalg.inv(lps_from_ijk(image)) @ np.r_[np.asarray(center_lps_mm, float), 1.0]
    reach = np.asarray(half_mm, float) / spacing
    low = np.clip(np.ceil(np.where(np.isinf(reach), 0, middle[:3] - reach)), 0, size).astype(int)
    high = np.clip(np.floor(np.where(np.isinf(reach), size, middle[:3] + reach)) + 1, 0, size).astype(int)
    if (high - low < 2).any():
        raise FluoroGuideError("The field lies outside the volume", np.round(center_lps_mm, 1).tolist(), "Choose a centre inside the body")
    return sitk.RegionOfInterest(image, (high - low).tolist(), low.tolist())


def with_contrast(hu_image: object, near_lps_mm: np.ndarray, rng: np.random.Generator, vessels: int = 4) -> object:
    """The CT with bent vessels, 3 to 8 mm wide and 300 to 600 HU above blood, within 60 mm of a point."""
    import SimpleITK as sitk
    from scipy.spatial import cKDTree

    values = sitk.GetArrayFromImage(hu_image).astype(np.float32)
    matrix = lps_from_ijk(hu_image)
    for _ in range(vessels):
        direction = rng.normal(size=3)
        steps = np.cumsum(rng.normal(0, 0.25, (60, 3)), axis=0) + direction / np.linalg.norm(direction)
        path = np.cumsum(steps / np.linalg.norm(steps, axis=1, keepdims=True) * 2.0, axis=0)
        path += near_lps_mm - path.mean(0) + rng.uniform(-40, 40, 3)
        radius, more = rng.uniform(1.5, 4.0), rng.uniform(300, 600)
        index = (path - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
        reach = radius / np.asarray(hu_image.GetSpacing()) + 1
        low = np.clip(np.floor(index.min(0) - reach), 0, np.array(values.shape[::-1]) - 1).astype(int)
        high = np.clip(np.ceil(index.max(0) + reach) + 1, low + 1, values.shape[::-1]).astype(int)
        k, j, i = np.meshgrid(*(np.arange(a, b) for a, b in zip(low[::-1], high[::-1], strict=True)), indexing="ij")
        points = np.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]
        distance = cKDTree(path).query(points, distance_upper_bound=radius + 2)[0]
        block = values[low[2]:high[2], low[1]:high[1], low[0]:high[0]]
        block += more * np.clip(radius + 0.5 - distance, 0, 1)
    result = sitk.GetImageFromArray(np.clip(values, -1024, 3071).astype(np.int16))
    result.CopyInformation(hu_image)
    return result


def _axis(image: object, axis: int) -> np.ndarray:
    """Coordinates (n,) in LPS mm along one axis of an image with axes along LPS."""
    return image.GetOrigin()[axis] + np.arange(image.GetSize()[axis]) * image.GetSpacing()[axis]
