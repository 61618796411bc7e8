"""Model nodes: polylines, the C-arm drawn in 3-D, and a bone surface."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.frames import ras_from_lps
from .host import Host
from .nodes import find, obtain, set_volume
from .xray_view import view_name

BONE_HU = 200.0
"""Threshold of the display surface: above soft tissue (below 100 HU), low enough that thin cortex of old bone stays closed."""
BONE_TRIANGLES = 200_000
CARM_COLORS = ((0.29, 0.56, 0.85), (0.85, 0.60, 0.29), (0.45, 0.75, 0.45), (0.75, 0.45, 0.70))


def polylines(lines: list[np.ndarray]) -> Any:
    """``vtkPolyData`` (double points) with one cell per polyline (N, 3)."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    points = vtk.vtkPoints()
    points.SetDataType(vtk.VTK_DOUBLE)
    data = np.ascontiguousarray(np.vstack(lines) if lines else np.empty((0, 3)), float)
    points.SetData(numpy_to_vtk(data, deep=True, array_type=vtk.VTK_DOUBLE))
    cells, first = vtk.vtkCellArray(), 0
    for line in lines:
        cells.InsertNextCell(len(line))
        for i in range(len(line)):
            cells.InsertCellPoint(first + i)
        first += len(line)
    result = vtk.vtkPolyData()
    result.SetPoints(points)
    result.SetLines(cells)
    return result


def set_model(host: Host, role: str, key: str, name: str, poly_data: Any, color: tuple[float, float, float], opacity: float = 1.0) -> Any:
    """The model node of a role and key with new geometry and colour (0..1)."""
    node = obtain(host, "vtkMRMLModelNode", role, name, key)
    node.SetAndObservePolyData(poly_data)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*color)
    display.SetOpacity(opacity)
    return node


def build_carm(host: Host, view: CArmView, index: int) -> Any:
    """The C-arm of X-ray ``index`` in 3-D, isocentre RAS: focal spot, beam edges, detector border, principal ray.

    An arrow head on the detector's upper border marks row 0, so that a turned image is seen at once.
    """
    import vtk

    last_column, last_row = view.columns - 0.5, view.rows - 0.5
    corners = view.pixel_mm([(-0.5, -0.5), (last_column, -0.5), (last_column, last_row), (-0.5, last_row)])
    middle, top = view.detector_center_mm, 0.5 * (corners[0] + corners[1])
    size = np.linalg.norm(corners[1] - corners[0])
    along, up = (corners[1] - corners[0]) / size, (corners[0] - corners[3]) / np.linalg.norm(corners[0] - corners[3])
    head = top + 0.04 * size * np.array([-along, 1.5 * up, along])
    lines = [np.array([view.source_mm, c]) for c in corners] + [np.vstack([corners, corners[:1]]), np.array([view.source_mm, middle]), head]
    append = vtk.vtkAppendPolyData()
    append.AddInputData(polylines([ras_from_lps(line) for line in lines]))
    focus = vtk.vtkSphereSource()
    focus.SetCenter(*ras_from_lps(view.source_mm))
    focus.SetRadius(0.02 * view.sid_mm)
    focus.SetThetaResolution(24)
    focus.SetPhiResolution(16)
    append.AddInputConnection(focus.GetOutputPort())
    append.Update()
    node = set_model(host, "carm", str(index), f"C-arm {view_name(index)[-1]}", append.GetOutput(), CARM_COLORS[index % len(CARM_COLORS)])
    display = node.GetDisplayNode()
    display.SetLineWidth(2)
    display.SetAmbient(0.4)
    display.SetVisibility2D(False)
    return node


def bone_surface(image: Any, threshold_hu: float = BONE_HU, step_mm: float = 1.5, triangles: int = BONE_TRIANGLES) -> Any:
    """A surface (``vtkPolyData``, volume RAS mm) of everything above a threshold, for looking at only.

    The volume is thinned to about ``step_mm`` and the surface to about ``triangles`` triangles.
    """
    import SimpleITK as sitk
    import slicer
    import vtk

    factors = [max(1, round(step_mm / s)) for s in image.GetSpacing()]
    thin = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)
    # A border of air closes the surface where the scan is cut.
    thin = sitk.ConstantPad(thin, [1] * 3, [1] * 3, -1000.0)
    holder = slicer.vtkMRMLScalarVolumeNode()
    set_volume(holder, thin)
    surface = vtk.vtkFlyingEdges3D()
    surface.SetInputData(holder.GetImageData())
    surface.SetValue(0, threshold_hu)
    surface.ComputeNormalsOff()
    surface.ComputeScalarsOff()  # else Slicer colours the surface by its threshold
    matrix = vtk.vtkMatrix4x4()
    holder.GetIJKToRASMatrix(matrix)
    to_ras = vtk.vtkTransform()
    to_ras.SetMatrix(matrix)
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetTransform(to_ras)
    placed.SetInputConnection(surface.GetOutputPort())
    placed.Update()
    result = _decimated(placed.GetOutput(), triangles)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(result)
    normals.SplittingOff()
    normals.ConsistencyOff()
    # index axes that mirror (LPS files usually do) turn the triangles inside out
    normals.SetFlipNormals(matrix.Determinant() < 0)
    normals.Update()
    return normals.GetOutput()


def _decimated(poly_data: Any, triangles: int) -> Any:
    """The surface with about ``triangles`` triangles at most."""
    import vtk

    count = poly_data.GetNumberOfPolys()
    if count <= triangles:
        return poly_data
    thinner = vtk.vtkDecimatePro()
    thinner.SetInputData(poly_data)
    thinner.SetTargetReduction(1 - triangles / count)
    thinner.PreserveTopologyOff()
    thinner.Update()
    return thinner.GetOutput()


def build_bone(host: Host, image: Any, pose_node: Any | None, threshold_hu: float = BONE_HU) -> Any:
    """The bone surface's model node under the pose; made once per case (kept when it is there)."""
    node = find(host, "bone")
    if node is None or node.GetAttribute("FluoroGuide.threshold") != repr(threshold_hu):
        node = set_model(host, "bone", "", "Bone surface", bone_surface(image, threshold_hu), (0.91, 0.86, 0.74))
        node.SetAttribute("FluoroGuide.threshold", repr(threshold_hu))
        node.GetDisplayNode().SetVisibility2D(False)
        node.GetDisplayNode().SetSpecular(0.15)
    node.SetAndObserveTransformNodeID(pose_node.GetID() if pose_node else None)
    return node

