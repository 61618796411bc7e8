"""Dragging the DRR: a line in each X-ray view whose first point carries the volume and whose second turns it.

The first point lies where the target is seen; dragging it moves the volume parallel to the detector, at the target's depth.
The second point turns the volume about the axis through the target that is perpendicular to the detector.  What is dragged
is a draft: pose and registration in the scene stay until it was registered from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.frames import lps_from_ras
from ..geometry.rigid import apply, motion
from .host import Host
from .nodes import find, obtain, remove
from .xray_view import pixels_to_ras, slice_nodes, view_name

ROLE_GRIP = "pose-grip"
COLOR = (0.80, 0.47, 0.65)
"""Reddish purple of Okabe and Ito's palette."""
ARM_SHARE = 0.18
"""Length of the arm as a part of the picture's width."""


def moved_pose(
    view: CArmView, pose: np.ndarray, target_lps_mm: np.ndarray, to_px: np.ndarray, turn_rad: float = 0.0,
) -> np.ndarray:
    """The pose (4x4) after the target was dragged to a pixel (column, row) and the picture turned.

    Parameters
    ----------
    view, pose
        Isocentre view; volume LPS -> isocentre LPS.
    target_lps_mm
        The point (3,) that is dragged, volume LPS.
    to_px
        Where it is seen afterwards; its depth stays.
    turn_rad
        Angle from the direction of growing columns towards that of growing rows.
    """
    at = apply(pose, np.asarray(target_lps_mm, float))
    ray = view.pixel_mm(to_px)[0] - view.source_mm
    new = view.source_mm + ray * (view.depth_mm(at)[0] / (ray @ view.beam))
    across = np.cross(view.column_step_mm, view.row_step_mm)
    turned = motion(np.r_[turn_rad * across / np.linalg.norm(across), 0.0, 0.0, 0.0], at)
    shift = np.eye(4)
    shift[:3, 3] = new - at
    return shift @ turned @ pose


class PoseGrip:
    """The lines that drag a draft pose.

    Parameters
    ----------
    host
        Gives the scene of now.
    views
        Index of the X-ray (0: A, 1: B) -> its isocentre view.
    pose, target_lps_mm
        Draft to begin with, and the point that is dragged.
    """

    def __init__(self, host: Any, views: dict[int, CArmView], pose: np.ndarray, target_lps_mm: np.ndarray) -> None:
        self._host, self.views, self.pose, self.target_lps_mm = host, dict(views), np.array(pose, float), np.asarray(target_lps_mm, float)
        self._angles = dict.fromkeys(views, 0.0)
        for index in self.views:
            self._make(index)

    @property
    def host(self) -> Host:
        """The scene of now."""
        return self._host()

    def node(self, index: int) -> Any | None:
        """The line in an X-ray's view."""
        return find(self.host, ROLE_GRIP, str(index))

    def pixels(self, index: int) -> np.ndarray | None:
        """Where its points are now, (2, 2) as (column, row); None when one is missing."""
        node = self.node(index)
        if node is None or node.GetNumberOfDefinedControlPoints() != 2:
            return None
        points = lps_from_ras(np.array([node.GetNthControlPointPositionWorld(i) for i in range(2)], float))
        return self.views[index].project(points)

    def dragged(self, index: int) -> bool:
        """Take over what the user did in one view; the other views' lines follow.  True when the draft changed."""
        pixels = self.pixels(index)
        if pixels is None:
            self._place(index)
            return False
        view = self.views[index]
        arm = (pixels[1] - pixels[0]) * (np.linalg.norm(view.column_step_mm), np.linalg.norm(view.row_step_mm))
        angle = float(np.arctan2(arm[1], arm[0])) if np.linalg.norm(arm) > 0 else self._angles[index]
        turn = (angle - self._angles[index] + np.pi) % (2 * np.pi) - np.pi
        now = view.project(apply(self.pose, self.target_lps_mm))[0]
        if np.linalg.norm(pixels[0] - now) < 1e-3 and abs(turn) < 1e-6:
            return False
        self.pose = moved_pose(view, self.pose, self.target_lps_mm, pixels[0], turn)
        self._angles[index] = angle
        for other in self.views:
            if other != index:
                self._place(other)
        return True

    def set_pose(self, pose: np.ndarray) -> None:
        """Another draft; the lines follow."""
        self.pose = np.array(pose, float)
        for index in self.views:
            self._place(index)

    def close(self) -> None:
        """Remove the lines."""
        remove(self.host, ROLE_GRIP)

    # ---- nodes ----------------------------------------------------------------------------------------------------
    def _make(self, index: int) -> None:
        node = obtain(self.host, "vtkMRMLMarkupsLineNode", ROLE_GRIP, f"Drag X-ray {view_name(index)[-1]}", str(index))
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.RemoveAllViewNodeIDs()
        display.AddViewNodeID(slice_nodes(self.host, view_name(index))[0].GetID())
        display.SetColor(*COLOR)
        display.SetSelectedColor(*COLOR)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(True)
        self._place(index)

    def _place(self, index: int) -> None:
        import slicer

        node, view = self.node(index), self.views[index]
        if node is None:
            return
        center, angle = view.project(apply(self.pose, self.target_lps_mm))[0], self._angles[index]
        spacing = np.array([np.linalg.norm(view.column_step_mm), np.linalg.norm(view.row_step_mm)])
        arm = ARM_SHARE * view.columns * spacing[0] * np.array([np.cos(angle), np.sin(angle)]) / spacing
        points = pixels_to_ras(view, np.array([center, center + arm]))
        with slicer.util.NodeModify(node):
            if node.GetNumberOfControlPoints() != 2:
                node.RemoveAllControlPoints()
                for _ in range(2):
                    node.AddControlPoint(0.0, 0.0, 0.0)
            for i, (point, label) in enumerate(zip(points, ("move", "turn"), strict=True)):
                node.SetNthControlPointPositionWorld(i, *point)
                node.SetNthControlPointLabel(i, label)


def target_of(points: Sequence[np.ndarray], fallback: np.ndarray) -> np.ndarray:
    """The mean of targets (3,), or the fallback when there are none."""
    return np.mean(np.asarray(points, float), axis=0) if len(points) else np.asarray(fallback, float)
