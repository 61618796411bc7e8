"""Bone around a target, found without any segmentation, and volumes of interest made of bone."""

from __future__ import annotations

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk
from .attenuation import WATER_ATTENUATION_PER_MM, AttenuationVolume

BONE_PER_MM = WATER_ATTENUATION_PER_MM * 1.15
"""Attenuation of the softest bone that counts, 1/mm (150 HU for CT)."""
SOFT_PER_MM = WATER_ATTENUATION_PER_MM * 1.04
"""Attenuation taken off inside a volume of interest (40 HU for CT), so that soft tissue adds nothing to it."""


def _cropped(image: object, center_lps_mm: np.ndarray, reach_mm: float) -> object:
    """The part of a SimpleITK image within ``reach_mm`` of a point along its axes."""
    import SimpleITK as sitk

    matrix = lps_from_ijk(image)
    middle = np.linalg.inv(matrix[:3, :3]) @ (np.asarray(center_lps_mm, float) - matrix[:3, 3])
    reach = reach_mm / np.asarray(image.GetSpacing())
    low = np.clip(np.floor(middle - reach), 0, np.asarray(image.GetSize()) - 1).astype(int)
    high = np.clip(np.ceil(middle + reach) + 1, low + 1, np.asarray(image.GetSize())).astype(int)
    return sitk.RegionOfInterest(image, (high - low).tolist(), low.tolist())


def bone_weight(volume: AttenuationVolume, point_lps_mm: np.ndarray, radius_mm: float = 40.0, fade_mm: float = 10.0) -> object:
    """How much each voxel belongs to the bone around a point: SimpleITK float32 image, 0..1, cropped to what is not 0.

    Bone is what attenuates more than 150 HU would, within ``radius_mm`` of the point (fading over the last ``fade_mm``),
    joined to the bone nearest to the point; it is widened by 3 mm so that its edges are inside.

    Raises
    ------
    FluoroGuideError
        No bone within ``radius_mm`` of the point.
    """
    import SimpleITK as sitk

    box = _cropped(volume.image, point_lps_mm, radius_mm + 5)
    spacing = np.asarray(box.GetSpacing())
    bone = sitk.BinaryThreshold(box, BONE_PER_MM, 1e3)
    matrix = lps_from_ijk(box)
    k, j, i = np.mgrid[tuple(slice(0, n) for n in box.GetSize()[::-1])]
    points = np.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]
    distance = np.linalg.norm(points - np.asarray(point_lps_mm, float), axis=-1)
    near = (sitk.GetArrayFromImage(bone) > 0) & (distance <= radius_mm)
    if not near.any():
        raise FluoroGuideError("There is no bone near the target", f"within {radius_mm:g} mm", "Register with the whole volume, or check the target.")
    labels = np.where(near, sitk.GetArrayFromImage(sitk.ConnectedComponent(bone)), 0)
    sizes = np.bincount(labels.ravel())[1:] * spacing.prod()
    big = np.nonzero(sizes > 100.0)[0] + 1  # smaller specks (calcifications) are no bone
    if len(big) == 0:
        raise FluoroGuideError("There is no bone near the target, only specks", f"within {radius_mm:g} mm", "Check the target.")
    nearest = min(big, key=lambda label: distance[labels == label].min())
    mask = sitk.GetImageFromArray((labels == nearest).astype(np.uint8))
    mask.CopyInformation(box)
    outside = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True))
    weight = np.clip((4.0 - outside) / 3.0, 0, 1) * np.clip((radius_mm - distance) / fade_mm, 0, 1)
    result = sitk.GetImageFromArray(weight.astype(np.float32))
    result.CopyInformation(box)
    return result


def label_weight(labels: object, values: list[int], widen_mm: float = 3.0) -> object:
    """The same for labelled bone parts: 1 inside, fading to 0 over ``widen_mm`` outside, cropped.

    Raises
    ------
    FluoroGuideError
        None of the labels is in the image.
    """
    import SimpleITK as sitk

    array = np.isin(sitk.GetArrayViewFromImage(labels), list(values))
    if not array.any():
        raise FluoroGuideError("The bone label is not in the label image", values, "Check the label's value.")
    pad = np.ceil((widen_mm + 2) / np.asarray(labels.GetSpacing())).astype(int)
    used = [np.nonzero(array.any(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in (2, 1, 0)]
    low = np.array([max(0, u[0] - p) for u, p in zip(used, pad, strict=True)])
    high = np.array([min(n, u[-1] + p + 1) for u, p, n in zip(used, pad, labels.GetSize(), strict=True)])
    mask = sitk.GetImageFromArray(array.astype(np.uint8))
    mask.CopyInformation(labels)
    mask = sitk.RegionOfInterest(mask, (high - low).tolist(), low.tolist())
    outside = sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    weight = sitk.GetImageFromArray(np.clip((widen_mm + 1 - sitk.GetArrayFromImage(outside)) / widen_mm, 0, 1).astype(np.float32))
    weight.CopyInformation(mask)
    return weight


def part_volume(volume: AttenuationVolume, weight: object, name: str = "part") -> AttenuationVolume:
    """The part of a volume that ``weight`` (0..1) selects, as attenuation above soft tissue, on the weight's grid."""
    import SimpleITK as sitk

    image = sitk.Resample(volume.image, weight, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    above = sitk.Clamp(image - SOFT_PER_MM, sitk.sitkFloat32, 0.0, 1e3)
    return AttenuationVolume(above * weight, volume.modality, name)
