"""A transpedicular path found from a vertebra's label: for demos, tests and evaluation, not a planner."""

from __future__ import annotations

import numpy as np

from ..errors import FluoroGuideError

TOTALSEGMENTATOR_LABELS = {
    name: 27 + n for n, name in enumerate(("L5", "L4", "L3", "L2", "L1", *(f"T{i}" for i in range(12, 0, -1)), *(f"C{i}" for i in range(7, 0, -1))))
}
"""Labels of the vertebrae in the sample CT's mask (``structures.csv``)."""
_GRID_MM = 0.8
_MARGIN_MM = 4.0


def transpedicular_plan_points(
    ct: object, labels: object, level: str = "L1", side: str = "left", label: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Entry at the bone behind a pedicle and target in the anterior third of the body, each (3,) in LPS mm.

    The pedicle is the narrowest coronal cross-section between body and articular mass on its side; among the lines
    through its centre into the anterior third of the body the one is taken that keeps furthest from the pedicle's walls.

    Parameters
    ----------
    ct
        The CT of the labels (only its space is compared).
    labels
        SimpleITK label image, head-first axes near LPS.
    level, label
        ``"L1"`` in the numbering of the sample CT, or the label's value itself.
    side
        ``"left"`` or ``"right"`` of the patient.

    Raises
    ------
    FluoroGuideError
        An unknown level or side, a level that is absent or cut by the scan's end, or a shape without a pedicle.
    """
    if side not in ("left", "right"):
        raise FluoroGuideError("The side must be left or right", side)
    if label is None and level not in TOTALSEGMENTATOR_LABELS:
        raise FluoroGuideError("The vertebral level is not known", level, "Use C1 to L5, or give the label's value")
    if labels.GetSize() != ct.GetSize():
        raise FluoroGuideError("The labels and the CT differ in size", f"{labels.GetSize()} and {ct.GetSize()}")
    bone = _Bone(labels, TOTALSEGMENTATOR_LABELS[level] if label is None else label, level)
    pedicle = bone.pedicle_center(1 if side == "left" else -1)
    target = bone.best_target(pedicle)
    return bone.surface_behind(pedicle, target), target


class _Bone:
    """One vertebra on a fine grid with axes L, P, S."""

    def __init__(self, labels: object, label: int, level: str) -> None:
        import SimpleITK as sitk
        from scipy.ndimage import distance_transform_edt

        labels = sitk.DICOMOrient(labels, "LPS")
        statistics = sitk.LabelShapeStatisticsImageFilter()
        statistics.Execute(labels == label)
        if not statistics.HasLabel(1):
            raise FluoroGuideError("The volume does not show the vertebra", level, "Choose another level")
        x, y, z, *size = statistics.GetBoundingBox(1)
        if z == 0 or z + size[2] == labels.GetSize()[2]:
            raise FluoroGuideError("The vertebra is cut by the end of the scan", level, "Choose a level that is complete")
        self.level = level
        # A smoothed label, resampled finer than the slices: thick slices would make stairs of a pedicle.
        low = [max(0, v - 4) for v in (x, y, z)]
        high = [min(n, v + s + 4) for n, v, s in zip(labels.GetSize(), (x, y, z), size, strict=True)]
        part = sitk.Cast((labels == label)[low[0] : high[0], low[1] : high[1], low[2] : high[2]], sitk.sitkFloat32)
        count = [int(np.ceil((n - 1) * s / _GRID_MM)) + 1 for n, s in zip(part.GetSize(), part.GetSpacing(), strict=True)]
        direction = part.GetDirection()
        fine = sitk.Resample(part, count, sitk.Transform(), sitk.sitkLinear, part.GetOrigin(), [_GRID_MM] * 3, direction, 0.0)
        self.image = sitk.SmoothingRecursiveGaussian(fine, 0.6)
        self.mask = sitk.GetArrayFromImage(self.image).transpose(2, 1, 0) > 0.5
        self.depth_mm = distance_transform_edt(self.mask, sampling=_GRID_MM)
        # The deepest point lies in the body, the only thick part of a vertebra.
        self.body = np.array(np.unravel_index(np.argmax(self.depth_mm), self.mask.shape))

    def lps(self, index: np.ndarray) -> np.ndarray:
        """Point (3,), LPS mm, of a continuous index (x, y, z)."""
        return np.array(self.image.TransformContinuousIndexToPhysicalPoint(np.asarray(index, float).tolist()))

    def index(self, point_lps_mm: np.ndarray) -> np.ndarray:
        """Continuous index (x, y, z) of a point (3,)."""
        return np.array(self.image.TransformPhysicalPointToContinuousIndex(np.asarray(point_lps_mm, float).tolist()))

    def depth_at(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Depth (N,) below the bone's surface, mm; 0 outside."""
        from scipy.ndimage import map_coordinates

        return map_coordinates(self.depth_mm, np.array([self.index(p) for p in points_lps_mm]).T, order=1, cval=0.0)

    def body_walls(self) -> tuple[float, float]:
        """First and last row index of the body, front to back, along the line through its centre."""
        line = self.mask[self.body[0], :, self.body[2]]
        front = back = int(self.body[1])
        while front > 0 and line[front - 1]:
            front -= 1
        while back < len(line) - 1 and line[back + 1]:
            back += 1
        return front, back

    def pedicle_center(self, side: int) -> np.ndarray:
        """Centre (3,), LPS mm, of the narrowest coronal cross-section of the bridge between body and arch."""
        from scipy.ndimage import label

        _, back = self.body_walls()
        reach = int(16 / _GRID_MM)
        best = None
        for y in range(back - int(2 / _GRID_MM), min(back + reach, self.mask.shape[1])):
            section = self.mask[:, y, :].copy()
            off = np.arange(section.shape[0]) - self.body[0]
            section[(side * off < 3 / _GRID_MM) | (side * off > 28 / _GRID_MM)] = False
            pieces, count = label(section)
            if not count:
                continue
            sizes = np.bincount(pieces.ravel())[1:]
            piece = pieces == np.argmax(sizes) + 1
            area = sizes.max() * _GRID_MM**2
            if best is not None and area > 1.3 * best[0]:
                break  # the valley is passed: what follows is the articular mass
            if area >= 15.0 and (best is None or area < best[0]):
                x, z = np.argwhere(piece).mean(0)
                best = (area, np.array([x, y, z]))
        if best is None:
            raise FluoroGuideError("No pedicle was found in the vertebra's label", self.level, "Check the label")
        return self.lps(best[1])

    def best_target(self, pedicle_lps_mm: np.ndarray) -> np.ndarray:
        """Point in the anterior third of the body whose line through the pedicle's centre runs deepest inside the pedicle."""
        front, back = self.body_walls()
        pedicle = self.index(pedicle_lps_mm)
        best = (-1.0, None)
        for lateral in np.linspace(0.05, 0.6, 12):
            for up in np.arange(-6.0, 6.1, 1.5) / _GRID_MM:
                x = self.body[0] + lateral * (pedicle[0] - self.body[0])
                target = self.lps([x, front + 0.28 * (back - front), self.body[2] + up])
                axis = (target - pedicle_lps_mm) / np.linalg.norm(target - pedicle_lps_mm)
                neck = self.depth_at(pedicle_lps_mm + np.arange(-8, 8.1, 1.0)[:, None] * axis)
                tip = float(self.depth_at(target[None])[0])
                score = neck.min() + 0.1 * neck.mean() - 0.02 * abs(up * _GRID_MM) if tip >= _MARGIN_MM else -1.0
                if score > best[0]:
                    best = (score, target)
        if best[1] is None:
            raise FluoroGuideError("No straight path through the pedicle stays inside the vertebra", self.level, "Check the label")
        return best[1]

    def surface_behind(self, pedicle_lps_mm: np.ndarray, target_lps_mm: np.ndarray) -> np.ndarray:
        """Where the line from the target through the pedicle leaves the bone behind it."""
        axis = (pedicle_lps_mm - target_lps_mm) / np.linalg.norm(pedicle_lps_mm - target_lps_mm)
        points = pedicle_lps_mm + np.arange(0.0, 50.0, 0.25)[:, None] * axis
        outside = np.flatnonzero(self.depth_at(points) <= 0)
        return points[outside[0] if len(outside) else -1]
