"""A spine that bends between CT and fluoroscopy: every vertebra keeps its shape and turns against the next by a given angle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.rigid import apply, inverse, perturb
from .motion import _distance, _points, _warped

_SHARPNESS_MM = 0.05
"""Distance from a bone at which its say in the blend has fallen to an eighth of what it is inside: bones that touch stay rigid."""


def bend_spine(
    hu_image: object, labels: object, order: Sequence[int], degrees_per_level: np.ndarray, axis_lps: np.ndarray = (1.0, 0.0, 0.0), *, fixed: int = 0,
) -> tuple[object, dict[int, np.ndarray]]:
    """The CT with its vertebrae turned against each other about the discs between them.

    Parameters
    ----------
    hu_image, labels
        SimpleITK CT and label image in the same space.
    order
        Labels of the vertebrae from one end to the other.
    degrees_per_level
        Turn of each vertebra against the one before it in ``order`` (len(order) - 1).
    axis_lps
        Axis of the turns, (3,): the first axis flexes, the second bends sideways.
    fixed
        Number in ``order`` of the vertebra that stays.

    Returns
    -------
    (bent CT, label -> 4x4 motion in volume LPS): the true pose of a vertebra is ``pose @ motion``.  Tissue between follows the bones near it.

    Raises
    ------
    FluoroGuideError
        A label that is not there, or another number of angles than gaps.
    """
    import SimpleITK as sitk

    if len(degrees_per_level) != len(order) - 1:
        raise FluoroGuideError("There must be one angle for each gap between vertebrae", f"{len(degrees_per_level)} for {len(order)} vertebrae")
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.Cast(labels, sitk.sitkUInt16))
    missing = [n for n in order if not statistics.HasLabel(int(n))]
    if missing:
        raise FluoroGuideError("The label to bend is not in the label image", missing, "Check its number")
    middle = [np.array(statistics.GetCentroid(int(n))) for n in order]
    axis, motions = np.asarray(axis_lps, float) / np.linalg.norm(axis_lps), [np.eye(4)]
    for n, degrees in enumerate(degrees_per_level):
        disc = apply(motions[-1], (middle[n] + middle[n + 1]) / 2)
        motions.append(perturb(motions[-1], np.r_[np.radians(degrees) * axis, 0, 0, 0], disc))
    motions = [inverse(motions[fixed]) @ m for m in motions]
    numerator = denominator = grid = None
    for label, motion in zip(order, motions, strict=True):
        back = inverse(motion)
        transform = sitk.AffineTransform(back[:3, :3].ravel().tolist(), back[:3, 3].tolist())
        distance, grid = _distance(sitk.Resample(labels == int(label), labels, transform, sitk.sitkNearestNeighbor, 0), hu_image, 2.0)
        points = _points(grid)
        weight = 1 / (np.maximum(distance, 0) + _SHARPNESS_MM) ** 3
        numerator = (0 if numerator is None else numerator) + weight[..., None] * (apply(back, points) - points)
        denominator = (0 if denominator is None else denominator) + weight
    field = sitk.GetImageFromArray(numerator / denominator[..., None], isVector=True)
    field.CopyInformation(grid)
    return _warped(hu_image, field), {int(n): m for n, m in zip(order, motions, strict=True)}
