"""What was done, in the scene: pose, achieved needle, placement and dose tables, record, and the folder that holds a case.

Numbers are kept twice on purpose: JSON text nodes are the lossless truth that is read back; lines, tables and the
transform are what people see and other modules use.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.frames import lps_matrix_from_ras, ras_matrix_from_lps
from ..guidance.triangulation import NeedlePose
from ..registration.result import Registration
from .host import Host
from .nodes import array_of, find, obtain, plain, text_node, text_value, vtk_matrix
from .plan_nodes import set_markups

NEEDLE_COLOR = (0.90, 0.62, 0.0)
"""Orange of Okabe and Ito's palette, as in the overlay."""
DEFAULT_NEEDLE_MM = 90.0
"""Drawn length of a needle of unknown length: the usual spinal needle (3.5 inch)."""
UNITS = (
    ("_gy_m2", "Gy.m2"), ("_gy", "Gy"), ("_seconds", "s"), ("_mm2", "mm2"), ("_mm", "mm"), ("_deg", "deg"), ("_ml", "ml"), ("_px", "px"),
    ("_ms", "ms"), ("_kvp", "kV"), ("_s", "s"),
)
FOLDER = "FluoroGuide case"


# ---- pose and registration ------------------------------------------------------------------------------------------
def build_pose(host: Host, pose: np.ndarray) -> Any:
    """The linear transform node that moves what hangs under it from volume RAS to isocentre RAS.

    ``pose`` (4x4) maps volume LPS to isocentre LPS.  The node's matrix is set here, *to parent*: a ``.tfm`` file
    would be read as *from parent* and put the volume at the inverse pose.
    """
    node = obtain(host, "vtkMRMLLinearTransformNode", "pose", "Pose (volume to isocentre)")
    node.SetMatrixTransformToParent(vtk_matrix(ras_matrix_from_lps(pose)))
    return node


def read_pose(host: Host) -> np.ndarray | None:
    """The pose (4x4, volume LPS to isocentre LPS) that the scene shows now, or None."""
    import vtk

    node = find(host, "pose")
    if node is None:
        return None
    matrix = vtk.vtkMatrix4x4()
    node.GetMatrixTransformToParent(matrix)
    return lps_matrix_from_ras(array_of(matrix))


def build_registration(host: Host, registration: Registration) -> Any:
    """The registration's text node (the pose itself is :func:`build_pose`'s)."""
    data = registration.to_dict()
    data["facts"] = registration.facts
    return text_node(host, "registration", "Registration", plain(data))


def read_registration(host: Host) -> Registration | None:
    """The registration as it was stored, or None."""
    data = text_value(host, "registration")
    return None if data is None else registration_of(data)


def registration_of(data: dict) -> Registration:
    """The registration of the plain data that :func:`build_registration` writes."""
    return Registration(
        pose=np.array(data["pose_matrix"], float), verdict=data["verdict"], reasons=tuple(data["reasons"]), similarity=tuple(data["similarity"]),
        covariance=np.array(data["covariance"], float), center_mm=np.array(data["covariance_center_iso_lps_mm"], float),
        views=tuple(map(CArmView.from_dict, data["views"])), history=tuple(data["history"]), seconds=data["seconds"],
        projections_rendered=data["projections_rendered"], facts=data["facts"],
    )


# ---- needle -----------------------------------------------------------------------------------------------------------
def build_needle(host: Host, needle: NeedlePose, length_mm: float | None, pose_node: Any | None) -> dict[str, Any]:
    """The achieved needle as a locked line from hub to tip, in the frame it was measured in, and its numbers as text."""
    length = length_mm or DEFAULT_NEEDLE_MM
    tip, axis = np.asarray(needle.tip_mm, float), np.asarray(needle.axis, float)
    node = obtain(host, "vtkMRMLMarkupsLineNode", "needle", "Needle achieved")
    set_markups(node, np.array([tip - length * axis, tip]), ["hub", "tip"], NEEDLE_COLOR)
    node.SetLocked(True)
    in_volume = needle.frame == "volume"
    node.SetAndObserveTransformNodeID(pose_node.GetID() if in_volume and pose_node is not None else None)
    return {"line": node, "text": text_node(host, "needle-numbers", "Needle numbers", plain(needle))}


def read_needle(host: Host) -> NeedlePose | None:
    """The achieved needle as it was stored, or None."""
    data = text_value(host, "needle-numbers")
    if data is None:
        return None
    arrays = {k: np.array(data[k], float) for k in ("tip_mm", "axis", "tip_covariance_mm2", "residual_px")}
    return NeedlePose(**{**data, **arrays, "warnings": tuple(data["warnings"])})


# ---- tables and texts ---------------------------------------------------------------------------------------------------
def unit_of(name: str) -> str:
    """The unit that a quantity's name carries at its end (``tip_mm`` -> ``mm``), or nothing."""
    return next((unit for suffix, unit in UNITS if name.endswith(suffix)), "")


def rows_of(value: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    """(quantity, value, unit) rows of nested plain data; lists of numbers in one row, None said in words."""
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in rows_of(v, f"{prefix}.{k}" if prefix else k)]
    if isinstance(value, list):
        if all(isinstance(v, (int, float)) for v in value) and value:
            return [(prefix, ", ".join(_written(v) for v in value), unit_of(prefix))]
        if all(isinstance(v, str) for v in value):
            return [(prefix, "; ".join(value) or "none", "")]
        return [row for i, v in enumerate(value) for row in rows_of(v, f"{prefix}[{i + 1}]")]
    return [(prefix, _written(value), unit_of(prefix) if value is not None else "")]


def _written(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def for_people(data: Any) -> Any:
    """The data without what nobody reads in a table: covariances, single irradiation events, the planned path's points."""
    if isinstance(data, list):
        return [for_people(v) for v in data]
    if not isinstance(data, dict):
        return data
    short = {k: for_people(v) for k, v in data.items() if "covariance" not in k}
    if isinstance(data.get("trajectory"), dict):
        short["trajectory"] = data["trajectory"].get("name")
    if isinstance(data.get("events"), list):
        short["events"] = len(data["events"])
    return short


def build_table(host: Host, role: str, name: str, value: Any) -> dict[str, Any]:
    """A table (quantity, value, unit) for people and a text node with all of the data, lossless."""
    import vtk

    data = plain(value)
    node = obtain(host, "vtkMRMLTableNode", role + "-table", name)
    node.RemoveAllColumns()
    rows = rows_of(for_people(data))

    for i, title in enumerate(("quantity", "value", "unit")):
        column = vtk.vtkStringArray()
        column.SetName(title)
        for row in rows:
            column.InsertNextValue(row[i])
        node.AddColumn(column)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    return {"table": node, "text": text_node(host, role, name + " data", data)}


def read_object(host: Host, role: str, module: str, class_name: str) -> Any | None:
    """The object of a role's text node, rebuilt by ``class_name.from_dict`` of a core module; lists of them as a list."""
    data = text_value(host, role)
    if data is None:
        return None
    owner = getattr(importlib.import_module(module, __package__), class_name)
    return [owner.from_dict(d) for d in data] if isinstance(data, list) else owner.from_dict(data)


# ---- subject hierarchy ------------------------------------------------------------------------------------------------
def build_folder(host: Host, name: str, nodes: list[Any]) -> int:
    """Put nodes into the case's one folder of the subject hierarchy; returns the folder's item."""
    import slicer

    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    folder = find_folder(host)
    if not folder:
        folder = tree.CreateFolderItem(tree.GetSceneItemID(), name)
        tree.SetItemAttribute(folder, "FluoroGuide.role", "case")
    tree.SetItemName(folder, name)
    for node in nodes:
        tree.CreateItem(folder, node)  # moves the item that the application already made
    return folder


def find_folder(host: Host) -> int:
    """The case's folder in the subject hierarchy, found by its attribute; 0 when there is none."""
    import slicer
    import vtk

    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    items = vtk.vtkIdList()
    tree.GetItemChildren(tree.GetSceneItemID(), items, True)
    ids = [items.GetId(i) for i in range(items.GetNumberOfIds())]
    return next((i for i in ids if tree.GetItemAttribute(i, "FluoroGuide.role") == "case"), 0)
