"""RAS, LPS, voxel indices: the only file that converts between them.

* **LPS** (DICOM, ITK, the whole core): x to the patient's left, y to posterior, z to superior, in mm.
* **RAS** (Slicer scenes): x to the right, y to anterior, z to superior, in mm.
* **IJK**: voxel index (column, row, slice), the centre of the first voxel is (0, 0, 0).
* numpy volumes are indexed ``[k, j, i]``.
"""

from __future__ import annotations

import numpy as np

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""4x4 matrix that turns RAS into LPS; it is its own inverse."""


def lps_from_ras(points_ras_mm: np.ndarray) -> np.ndarray:
    """Points or vectors (..., 3), RAS mm to LPS mm."""
    return np.asarray(points_ras_mm, float) * (-1.0, -1.0, 1.0)


def ras_from_lps(points_lps_mm: np.ndarray) -> np.ndarray:
    """Points or vectors (..., 3), LPS mm to RAS mm."""
    return np.asarray(points_lps_mm, float) * (-1.0, -1.0, 1.0)


def ras_matrix_from_lps(lps_to_lps: np.ndarray) -> np.ndarray:
    """A 4x4 transform between two LPS frames, written for the same two frames in RAS."""
    return LPS_FROM_RAS @ np.asarray(lps_to_lps, float) @ LPS_FROM_RAS


def lps_matrix_from_ras(ras_to_ras: np.ndarray) -> np.ndarray:
    """A 4x4 transform between two RAS frames, written for the same two frames in LPS."""
    return LPS_FROM_RAS @ np.asarray(ras_to_ras, float) @ LPS_FROM_RAS


def lps_from_ijk(image: object) -> np.ndarray:
    """4x4 matrix from voxel index (i, j, k) to LPS mm of a 3-D SimpleITK image.

    Parameters
    ----------
    image
        Anything with ``GetOrigin``, ``GetSpacing`` and ``GetDirection`` in three dimensions.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def ras_from_ijk(image: object) -> np.ndarray:
    """4x4 matrix from voxel index (i, j, k) to RAS mm of a 3-D SimpleITK image (Slicer's IJKToRAS)."""
    return LPS_FROM_RAS @ lps_from_ijk(image)


def corners_lps_mm(image: object) -> np.ndarray:
    """The eight outer corners (8, 3) of a 3-D SimpleITK image, LPS mm (voxel borders, not centres)."""
    size = np.asarray(image.GetSize(), float)
    ijk = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * size - 0.5
    matrix = lps_from_ijk(image)
    return ijk @ matrix[:3, :3].T + matrix[:3, 3]


def center_lps_mm(image: object) -> np.ndarray:
    """Centre (3,) of a 3-D SimpleITK image, LPS mm."""
    return corners_lps_mm(image).mean(axis=0)
