"""What planning shows of a needle: its clearance as colours along it, and its picture in virtual fluoroscopy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..geometry.frames import ras_from_lps
from ..planning.plan import Plan, Trajectory
from ..projection.drr import drawn
from .host import Host
from .models import polylines, set_model
from .nodes import find, remove

ENOUGH_MM = 3.0
"""So far beyond the wanted clearance, and more, is shown as good."""
COLORS = {"bad": (179, 38, 30), "near": (230, 159, 0), "good": (0, 158, 115)}
DRAWN = {"needle": (86, 180, 233), "other": (150, 150, 150), "target": (240, 228, 66)}


def clearance_kinds(spare_mm: np.ndarray) -> list[str]:
    """``bad``, ``near`` or ``good`` per value of the distance beyond the wanted clearance (N,), mm."""
    return ["bad" if s < 0 else "near" if s < ENOUGH_MM else "good" for s in spare_mm]


def build_clearances(host: Host, paths: Mapping[str, tuple[Trajectory, np.ndarray]]) -> list[Any]:
    """A thick line per needle, coloured by what it passes; ``paths``: name -> (trajectory, profile (N, 2) of depth and spare mm)."""
    import vtk

    pose, nodes = find(host, "pose"), []
    shown = {name: item for name, item in paths.items() if item[1] is not None and len(item[1]) > 1}
    for name, (path, profile) in shown.items():
        depth, spare = np.asarray(profile).T
        points = ras_from_lps(path.entry_lps_mm + depth[:, None] * path.axis)
        data = polylines([points[i:i + 2] for i in range(len(points) - 1)])
        colors = vtk.vtkUnsignedCharArray()
        colors.SetName("rgba")
        colors.SetNumberOfComponents(4)
        for kind in clearance_kinds(np.minimum(spare[:-1], spare[1:])):
            colors.InsertNextTuple4(*COLORS[kind], 255)
        data.GetCellData().AddArray(colors)
        node = set_model(host, "clearance", name, f"{name} clearance", data, (1, 1, 1))
        node.SetSaveWithScene(False)
        display = node.GetDisplayNode()
        display.SetActiveScalar("rgba", vtk.vtkAssignAttribute.CELL_DATA)
        display.SetScalarRangeFlag(display.UseDirectMapping)
        display.SetScalarVisibility(True)
        display.SetLineWidth(6)
        display.SetLighting(False)
        node.SetAndObserveTransformNodeID(pose.GetID() if pose is not None else None)
        nodes.append(node)
    remove(host, "clearance", lambda key: key in shown)
    return nodes


def picture_with_plan(picture: np.ndarray, view: Any, plan: Plan | None, chosen: str | None = None) -> np.ndarray:
    """RGB (rows, columns, 3), uint8, of a picture of virtual fluoroscopy with needles and targets on it, the chosen needle in colour."""
    lines = {}
    for item in plan.trajectories if plan is not None else ():
        color = DRAWN["needle"] if chosen in (None, item.name) else DRAWN["other"]
        lines[item.name] = (np.array([item.entry_lps_mm, item.target_lps_mm]), color)
    for name, point in (plan.target_points() if plan is not None else {}).items():
        lines[f"target {name}"] = (point[None], DRAWN["target"])
    return drawn(picture, view, lines)
