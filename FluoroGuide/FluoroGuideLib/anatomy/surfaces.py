"""Surfaces of labelled structures, for looking at: closed, outward-facing, in the volume's frame."""

from __future__ import annotations

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk

SMOOTHING_ITERATIONS = 15
PASS_BAND = 0.08
"""Of the windowed-sinc filter (G. Taubin et al., ECCV 1996): takes the voxels' steps off and keeps the volume."""


def structure_surface(mask: object, smooth: bool = True, triangles: int = 60_000) -> tuple[np.ndarray, np.ndarray]:
    """Surface of a binary mask: points (N, 3), LPS mm, and triangles (M, 3) as indices, normals outward.

    Parameters
    ----------
    mask
        SimpleITK image, 1 inside.
    smooth
        Smooth the steps between voxels.
    triangles
        About how many at most.

    Raises
    ------
    FluoroGuideError
        The mask is empty.
    """
    import SimpleITK as sitk
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    array = np.pad((sitk.GetArrayViewFromImage(mask) > 0).astype(np.uint8), 1)  # a border closes the surface where the scan ends
    if not array.any():
        raise FluoroGuideError("The structure is empty, so it has no surface", None, "Choose a segment with voxels")
    grid = vtk.vtkImageData()
    grid.SetDimensions(*array.shape[::-1])
    grid.SetOrigin(-1, -1, -1)
    grid.SetSpacing(1, 1, 1)
    grid.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    surface = vtk.vtkFlyingEdges3D()
    surface.SetInputData(grid)
    surface.SetValue(0, 0.5)
    surface.ComputeNormalsOff()
    surface.ComputeScalarsOff()
    last = surface
    if smooth:
        last = vtk.vtkWindowedSincPolyDataFilter()
        last.SetInputConnection(surface.GetOutputPort())
        last.SetNumberOfIterations(SMOOTHING_ITERATIONS)
        last.SetPassBand(PASS_BAND)
        last.NonManifoldSmoothingOn()
        last.NormalizeCoordinatesOn()
        last.BoundarySmoothingOff()
    last.Update()
    if (count := last.GetOutput().GetNumberOfPolys()) > triangles:
        thin = vtk.vtkQuadricDecimation()
        thin.SetInputConnection(last.GetOutputPort())
        thin.SetTargetReduction(1 - triangles / count)
        thin.Update()
        last = thin
    output, matrix = last.GetOutput(), lps_from_ijk(mask)
    points = vtk_to_numpy(output.GetPoints().GetData()).astype(float) @ matrix[:3, :3].T + matrix[:3, 3]
    faces = vtk_to_numpy(output.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    if _volume(points, faces) < 0:  # index axes that mirror turn the triangles inside out
        faces = faces[:, ::-1]
    return points, np.ascontiguousarray(faces)


def _volume(points: np.ndarray, faces: np.ndarray) -> float:
    """Signed volume, mm3, inside a closed surface; positive when its normals face outward."""
    a, b, c = (points[faces[:, n]] - points.mean(axis=0) for n in range(3))
    return float((a * np.cross(b, c)).sum() / 6)
