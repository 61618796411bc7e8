"""Planning in the scene: the procedure's text, structures as models, solved and rehearsed views, suggestions as lines.

The plan itself (trajectories, targets, outlines) is in :mod:`scene.plan_nodes`; what is here is derived from it and may be
removed without loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..anatomy.surfaces import structure_surface
from ..geometry.frames import ras_from_lps
from ..planning.approach import SolvedView
from ..planning.plan import Trajectory
from ..planning.procedures import Procedure
from ..planning.safety import Structure
from ..planning.suggest import Candidate
from .host import Host
from .models import set_model
from .nodes import obtain, plain, remove, text_node, text_value
from .plan_nodes import markups_lps_mm, set_markups

SUGGESTION_COLOR = (0.80, 0.47, 0.65)
STRUCTURE_COLORS = ((0.84, 0.37, 0.0), (0.0, 0.45, 0.70), (0.90, 0.62, 0.0), (0.34, 0.71, 0.91))
"""Okabe and Ito's palette, less what plan and overlay use."""


def build_procedure(host: Host, procedure: Procedure) -> Any:
    """A text node with the procedure for people: views, needle, contrast, checklist, after care, sources."""
    node = obtain(host, "vtkMRMLTextNode", "procedure", f"Procedure: {procedure.title}")
    node.SetText("\n".join(procedure.text()))
    node.SetAttribute("FluoroGuide.procedure", procedure.key)
    return node


def build_structures(host: Host, structures: Sequence[Structure], pose_node: Any | None) -> list[Any]:
    """A half-transparent model per structure to keep away from; those that are gone are removed."""
    nodes = []
    for n, item in enumerate(structures):
        points, faces = structure_surface(item.mask)
        node = set_model(host, "structure", item.name, item.name, _poly_data(points, faces), STRUCTURE_COLORS[n % len(STRUCTURE_COLORS)], 0.4)
        node.SetAttribute("FluoroGuide.clearance_mm", repr(float(item.clearance_mm)))
        node.SetAndObserveTransformNodeID(pose_node.GetID() if pose_node else None)
        node.GetDisplayNode().SetVisibility2D(True)
        nodes.append(node)
    names = {item.name for item in structures}
    remove(host, "structure", lambda key: key in names)
    return nodes


def _poly_data(points_lps_mm: np.ndarray, faces: np.ndarray) -> Any:
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(ras_from_lps(points_lps_mm)), deep=True))
    cells = vtk.vtkCellArray()
    # LPS to RAS is half a turn about z, no mirror: triangles keep their sense.
    cells.SetData(3, numpy_to_vtkIdTypeArray(np.ascontiguousarray(faces, np.int64).ravel(), deep=True))
    surface = vtk.vtkPolyData()
    surface.SetPoints(points)
    surface.SetPolys(cells)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(surface)
    normals.SplittingOff()
    normals.ConsistencyOff()
    normals.Update()
    return normals.GetOutput()


def build_suggestions(host: Host, candidates: Sequence[Candidate], pose_node: Any | None) -> list[Any]:
    """A locked line (entry, target) per suggestion, best first, with its reasons as an attribute; the rest is removed."""
    nodes = []
    for n, item in enumerate(candidates):
        node = obtain(host, "vtkMRMLMarkupsLineNode", "suggestion", f"{item.trajectory.name} ({item.score:.2f})", str(n))
        path = item.trajectory
        set_markups(node, np.array([path.entry_lps_mm, path.target_lps_mm]), ["entry", "target"], SUGGESTION_COLOR)
        node.SetLocked(True)
        node.SetAttribute("FluoroGuide.reasons", " ".join(item.reasons))  # Slicer writes the length into the description
        node.GetDisplayNode().SetOpacity(0.9 if n == 0 else 0.4)
        node.SetAndObserveTransformNodeID(pose_node.GetID() if pose_node else None)
        nodes.append(node)
    remove(host, "suggestion", lambda key: int(key) < len(nodes))
    return nodes


def accepted(node: Any, name: str, gauge: float | None = None, needle_length_mm: float | None = None) -> Trajectory:
    """The trajectory of a suggestion's line (or of any line of two points: entry, then target)."""
    points = markups_lps_mm(node)
    return Trajectory(name, points[0], points[1], gauge, needle_length_mm)


def build_views(host: Host, views: Sequence[SolvedView]) -> Any:
    """The solved views as JSON in a text node, for the panel and the record."""
    return text_node(host, "views", "C-arm views", plain([v.to_dict() for v in views]))


def read_views(host: Host) -> list[dict]:
    """What :func:`build_views` stored; empty when there is none."""
    return text_value(host, "views") or []
