"""Line integrals the slow, obvious way: many trilinear samples along every ray."""

from __future__ import annotations

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.frames import lps_from_ijk


def line_integrals(image: object, view: CArmView, pose: np.ndarray, step_mm: float = 0.5) -> np.ndarray:
    """Line integrals (rows, columns), float64, by the midpoint rule on trilinear samples.

    Parameters
    ----------
    image
        3-D SimpleITK image of attenuation, 1/mm; zero outside.
    view, pose
        View in the isocentre frame, pose volume LPS -> isocentre LPS.
    step_mm
        Distance between samples.
    """
    import SimpleITK as sitk
    from scipy.ndimage import map_coordinates

    values = sitk.GetArrayFromImage(image).astype(float)
    index_from_lps = np.linalg.inv(lps_from_ijk(image))
    seen = view.in_volume(pose)
    rows, columns = np.mgrid[: view.rows, : view.columns]
    ends = seen.pixel_mm(np.column_stack([columns.ravel(), rows.ravel()]))
    lengths = np.linalg.norm(ends - seen.source_mm, axis=1)
    steps = int(np.ceil(lengths.max() / step_mm))
    total = np.zeros(len(ends))
    for n in range(steps):
        points = seen.source_mm + (n + 0.5) / steps * (ends - seen.source_mm)
        ijk = points @ index_from_lps[:3, :3].T + index_from_lps[:3, 3]
        total += map_coordinates(values, ijk[:, ::-1].T, order=1, mode="constant", cval=0.0)
    return (total * lengths / steps).reshape(view.rows, view.columns)
