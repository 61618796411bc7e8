"""Anatomy that moves between CT and fluoroscopy: surroundings against a bone, and bones against each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.rigid import apply, inverse, perturb

_GRID_MM = 3.0


def move_surroundings(
    hu_image: object, fixed_labels_mask: object, rng: np.random.Generator, amplitude_mm: float, ramp_from_mm: float = 8.0, ramp_to_mm: float = 35.0,
    direction_lps: np.ndarray | None = None,
) -> tuple[object, np.ndarray]:
    """The CT with everything away from a bone displaced; the bone itself and ``ramp_from_mm`` around it stay.

    The displacement grows linearly with the distance from the bone up to ``amplitude_mm`` at ``ramp_to_mm`` and
    beyond.  It has one direction, random over the sphere unless given.

    Parameters
    ----------
    hu_image
        SimpleITK CT.
    fixed_labels_mask
        SimpleITK label image in the same space, not 0 where the anatomy stays.

    Returns
    -------
    (moved CT, displacement (3,) in LPS mm of what lies far away)

    Raises
    ------
    FluoroGuideError
        An empty mask, or an amplitude so large that tissue would fold over itself.
    """
    import SimpleITK as sitk

    if not 0 <= amplitude_mm < 0.9 * (ramp_to_mm - ramp_from_mm):
        raise FluoroGuideError("The surroundings cannot move that far", f"{amplitude_mm} mm over {ramp_to_mm - ramp_from_mm} mm", "Use less")
    direction = rng.normal(size=3) if direction_lps is None else np.asarray(direction_lps, float)
    shift = amplitude_mm * direction / np.linalg.norm(direction)
    distance, grid = _distance(fixed_labels_mask != 0, hu_image)
    weight = np.clip((distance - ramp_from_mm) / (ramp_to_mm - ramp_from_mm), 0.0, 1.0)
    # Resampling asks where a point comes from: against the displacement.
    field = sitk.GetImageFromArray(-weight[..., None] * shift, isVector=True)
    field.CopyInformation(grid)
    return _warped(hu_image, field), shift


def move_parts(
    hu_image: object, labels: object, parts: Iterable[int], rng: np.random.Generator, translation_mm: float = 1.5, rotation_deg: float = 2.0,
    fade_from_mm: float = 10.0, fade_to_mm: float = 60.0,
) -> tuple[object, dict[int, np.ndarray]]:
    """The CT with every bone part moved rigidly by a small motion of its own; tissue between follows smoothly.

    ``translation_mm`` and ``rotation_deg`` are standard deviations per axis of the motions, about each part's centre.

    Returns
    -------
    (moved CT, label -> 4x4 motion in volume LPS): the true pose of a part is ``pose @ motion``.
    """
    import SimpleITK as sitk

    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.Cast(labels, sitk.sitkUInt16))
    motions: dict[int, np.ndarray] = {}
    numerator = denominator = nearest = grid = None
    for part in parts:
        if not statistics.HasLabel(int(part)):
            raise FluoroGuideError("The label to move is not in the label image", part, "Check its number")
        xi = np.r_[np.radians(rng.normal(0, rotation_deg, 3)), rng.normal(0, translation_mm, 3)]
        motions[int(part)] = perturb(np.eye(4), xi, np.array(statistics.GetCentroid(int(part))))
        back = inverse(motions[int(part)])
        transform = sitk.AffineTransform(back[:3, :3].ravel().tolist(), back[:3, 3].tolist())
        moved = sitk.Resample(labels == int(part), labels, transform, sitk.sitkNearestNeighbor, 0)
        distance, grid = _distance(moved, hu_image, 2.0)
        weight = 1.0 / (np.maximum(distance, 0.0) + 0.05) ** 2
        points = _points(grid)
        pull = (apply(back, points) - points) * weight[..., None]
        numerator = pull if numerator is None else numerator + pull
        denominator = weight if denominator is None else denominator + weight
        nearest = distance if nearest is None else np.minimum(nearest, distance)
    if grid is None:
        return hu_image, motions
    fade = 1.0 - np.clip((nearest - fade_from_mm) / (fade_to_mm - fade_from_mm), 0.0, 1.0)
    field = sitk.GetImageFromArray(numerator / denominator[..., None] * fade[..., None], isVector=True)
    field.CopyInformation(grid)
    return _warped(hu_image, field), motions


def _distance(mask: object, reference: object, grid_mm: float = _GRID_MM) -> tuple[np.ndarray, object]:
    """Distance in mm from a mask (negative inside) on a coarse grid over the reference image, and that grid."""
    import SimpleITK as sitk

    spacing, size = np.array(reference.GetSpacing()), np.array(reference.GetSize())
    count = np.ceil((size - 1) * spacing / grid_mm).astype(int) + 1
    coarse = sitk.Resample(
        mask, [int(n) for n in count], sitk.Transform(), sitk.sitkNearestNeighbor, reference.GetOrigin(), [grid_mm] * 3, reference.GetDirection(), 0,
    )
    if not sitk.GetArrayViewFromImage(coarse).any():
        raise FluoroGuideError("The mask of what stays is empty within the volume", None, "Check its labels")
    distance = sitk.SignedMaurerDistanceMap(coarse, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(distance).astype(float), coarse


def _points(grid: object) -> np.ndarray:
    """Voxel centres (k, j, i, 3) of an image, LPS mm."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.GetSize()[::-1]), indexing="ij")
    matrix = np.array(grid.GetDirection()).reshape(3, 3) * np.array(grid.GetSpacing())
    return np.stack([i, j, k], -1) @ matrix.T + np.array(grid.GetOrigin())


def _warped(image: object, field: object) -> object:
    """The image resampled through a displacement field; beyond its border the nearest voxel continues it."""
    import SimpleITK as sitk

    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(image)
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return resampler.Execute(image)
