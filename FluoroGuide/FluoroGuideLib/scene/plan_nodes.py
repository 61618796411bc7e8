"""The plan in the scene: a line per trajectory, one fiducial list of targets, a model per outline.

All of it is in volume RAS, under the pose transform.  The whole plan also lies in a JSON text node; when it is read
back, positions of the markups win over the text, because the user may have dragged them; a locked plan is what its text
says, wherever its markups were moved.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..geometry.frames import lps_from_ras, ras_from_lps
from ..planning.history import is_locked
from ..planning.plan import Plan
from .host import Host
from .models import polylines, set_model
from .nodes import find, find_all, obtain, plain, remove, text_node, text_value

COLORS = {"plan": (0.34, 0.71, 0.91), "target": (0.94, 0.89, 0.26), "outline": (0.0, 0.62, 0.45)}
"""As the overlay: sky blue, yellow, bluish green of Okabe and Ito's colour-blind safe palette."""
MOVED_MM = 1e-6
HELD = "FluoroGuide.held"
"""``"1"`` on a trajectory's line that the user locked by itself."""


def build_plan(host: Host, plan: Plan, pose_node: Any | None, *, locked: bool = False) -> dict[str, list[Any]]:
    """Make or update the plan's nodes; those of trajectories and outlines that are gone are removed.

    Lines that are there keep the colour that the user gave them.  ``locked``: none of them can be dragged; so it is, too,
    for a plan that is locked itself.

    Returns
    -------
    dict
        ``trajectories``, ``targets``, ``outlines`` (lists of nodes) and ``text``.
    """
    lines, locked = [], locked or is_locked(plan)
    for i, item in enumerate(plan.trajectories):
        known = find(host, "trajectory", str(i)) is not None  # a new node already has a display node, in Slicer's own colour
        node = obtain(host, "vtkMRMLMarkupsLineNode", "trajectory", f"{item.name} planned", str(i))
        set_markups(node, np.array([item.entry_lps_mm, item.target_lps_mm]), ["entry", "target"], None if known else COLORS["plan"])
        node.SetAttribute("FluoroGuide.trajectory", item.name)
        node.SetLocked(locked or node.GetAttribute(HELD) == "1")
        lines.append(node)
    targets = obtain(host, "vtkMRMLMarkupsFiducialNode", "targets", "Targets")
    set_markups(targets, np.array([t.position_lps_mm for t in plan.targets]).reshape(-1, 3), [t.name for t in plan.targets], COLORS["target"])
    targets.SetLocked(locked)
    outlines = [_outline(host, name, points) for name, points in plan.outlines.items()]
    remove(host, "trajectory", lambda key: int(key) < len(lines))
    remove(host, "outline", lambda key: key in plan.outlines)
    for node in [*lines, targets, *outlines]:
        node.SetAndObserveTransformNodeID(pose_node.GetID() if pose_node else None)
    return {"trajectories": lines, "targets": [targets], "outlines": outlines, "text": [text_node(host, "plan", "Plan", plain(plan))]}


def _outline(host: Host, name: str, points_lps_mm: np.ndarray) -> Any:
    node = set_model(host, "outline", name, name, polylines([ras_from_lps(points_lps_mm)]), COLORS["outline"])
    display = node.GetDisplayNode()
    display.SetLineWidth(3)
    display.SetLighting(False)
    display.SetVisibility2D(True)
    display.SetSliceDisplayMode(display.SliceDisplayProjection)
    display.SetSliceIntersectionThickness(2)
    # A projection would also draw on the X-ray views, by a parallel beam; there the overlay draws it rightly.
    display.RemoveAllViewNodeIDs()
    for view in ("vtkMRMLSliceNodeRed", "vtkMRMLSliceNodeGreen", "vtkMRMLSliceNodeYellow", "vtkMRMLViewNode1"):
        display.AddViewNodeID(view)
    return node


def set_markups(node: Any, points_lps_mm: np.ndarray, labels: list[str], color: tuple[float, float, float] | None) -> None:
    """Set a markups node's points (N, 3), in its own frame, their labels and its colour (None: as it is)."""
    import slicer

    with slicer.util.NodeModify(node):
        if node.GetNumberOfControlPoints() != len(labels):
            node.RemoveAllControlPoints()
            for _ in labels:
                node.AddControlPoint(0.0, 0.0, 0.0)
        for i, (point, label) in enumerate(zip(ras_from_lps(points_lps_mm), labels)):
            node.SetNthControlPointPosition(i, *point)
            node.SetNthControlPointLabel(i, label)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if color is not None:
        display.SetColor(*color)
        display.SetSelectedColor(*color)
    display.SetTextScale(2.5)
    display.SetCurveLineSizeMode(display.UseLineDiameter)
    display.SetLineDiameter(1.3)
    display.SetPropertiesLabelVisibility(False)  # no "L4/5 planned: 83mm" over the anatomy


def markups_lps_mm(node: Any) -> np.ndarray:
    """Points (N, 3) of a markups node in its own frame, LPS mm."""
    points = [node.GetNthControlPointPosition(i) for i in range(node.GetNumberOfControlPoints())]
    return lps_from_ras(np.array(points, float).reshape(-1, 3))


def read_plan_nodes(host: Host) -> Plan | None:
    """The plan in the scene, with trajectories and targets where their markups are now; None when there is none.

    Trajectories are matched by the name they were planned under (an attribute of the node, not its display name).
    """
    data = text_value(host, "plan")
    if data is None:
        return None
    plan = Plan.from_dict(data)
    if is_locked(plan):
        return plan
    lines = {n.GetAttribute("FluoroGuide.trajectory"): markups_lps_mm(n) for n in find_all(host, "trajectory")}
    trajectories = tuple(_moved_trajectory(item, lines.get(item.name)) for item in plan.trajectories)
    node = find(host, "targets")
    points = markups_lps_mm(node) if node is not None else np.empty((0, 3))
    targets = plan.targets
    if len(points) == len(targets):
        targets = tuple(
            dataclasses.replace(t, position_lps_mm=p) if _differs(t.position_lps_mm, p) else t for t, p in zip(targets, points)
        )
    return dataclasses.replace(plan, trajectories=trajectories, targets=targets)


def _moved_trajectory(item: Any, points: np.ndarray | None) -> Any:
    if points is None or len(points) != 2 or not _differs(points, np.array([item.entry_lps_mm, item.target_lps_mm])):
        return item
    return dataclasses.replace(item, entry_lps_mm=points[0], target_lps_mm=points[1])


def _differs(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(np.asarray(a) - np.asarray(b)).max() > MOVED_MM)
