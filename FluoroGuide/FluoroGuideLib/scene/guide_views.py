"""Bull's-eye and progress views in Slicer: two slice views of the CT, across and along the planned path, with line models.

The bull's-eye is the slice across the path at the target's depth, the progress view a slice that holds the path.  Both
planes and all marks are in the volume's frame, moved by the pose like the CT itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..geometry.frames import ras_from_lps
from ..guidance.views import BullsEye, Mark, Progress, bulls_eye, progress
from ..planning.plan import Trajectory
from .host import Host
from .models import polylines, set_model
from .nodes import vtk_matrix
from .xray_view import slice_nodes

BULLSEYE, PROGRESS = "BullsEye", "Progress"


class GuideViews:
    """The two views of one trajectory.

    Parameters
    ----------
    volume, pose_node
        The CT's node and the transform node of its pose (None: the volume's own frame).
    pose
        4x4, volume LPS -> isocentre LPS, of ``pose_node``.
    """

    def __init__(self, host: Host, trajectory: Trajectory, volume: Any, pose: np.ndarray, tolerance_mm: float | None = None) -> None:
        self.host, self.trajectory, self.pose, self.tolerance_mm = host, trajectory, np.asarray(pose, float), tolerance_mm
        self._slices = {}
        for name in (BULLSEYE, PROGRESS):
            node, composite = slice_nodes(host, name)
            composite.SetDoPropagateVolumeSelection(False)
            composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
            self._slices[name] = node
        self.update()

    def update(
        self, tip_lps_mm: np.ndarray | None = None, axis_lps: np.ndarray | None = None, covariance_mm2: np.ndarray | None = None,
    ) -> tuple[BullsEye, Progress]:
        """Show an achieved needle (volume LPS), or none."""
        eye = bulls_eye(self.trajectory, tip_lps_mm, axis_lps, covariance_mm2, self.tolerance_mm)
        way = progress(self.trajectory, tip_lps_mm, self.tolerance_mm)
        target, entry = self.trajectory.target_lps_mm, self.trajectory.entry_lps_mm
        self._place(BULLSEYE, target, eye.right_lps, eye.up_lps, eye.into_lps)
        self._draw(BULLSEYE, eye.marks, target, eye.right_lps, eye.up_lps)
        side = self._side(eye, tip_lps_mm)
        self._place(PROGRESS, 0.5 * (entry + target), eye.into_lps, side, np.cross(eye.into_lps, side))
        self._draw(PROGRESS, way.marks, entry, eye.into_lps, side)
        return eye, way

    def _side(self, eye: BullsEye, tip_lps_mm: np.ndarray | None) -> np.ndarray:
        """The direction in which the needle lies beside its path, so that the progress view holds both; else up."""
        if tip_lps_mm is not None:
            offset = np.asarray(tip_lps_mm, float) - self.trajectory.target_lps_mm
            offset = offset - (offset @ eye.into_lps) * eye.into_lps
            if np.linalg.norm(offset) > 0.2:
                return offset / np.linalg.norm(offset)
        return eye.up_lps

    def _ras(self, points_lps_mm: np.ndarray) -> np.ndarray:
        return ras_from_lps(np.atleast_2d(points_lps_mm) @ self.pose[:3, :3].T + self.pose[:3, 3])

    def _place(self, name: str, center: np.ndarray, right: np.ndarray, up: np.ndarray, normal: np.ndarray) -> None:
        """Slice ``name`` through ``center`` (volume LPS) with these axes."""
        turn = self.pose[:3, :3]
        matrix = np.eye(4)
        matrix[:3, :3] = np.column_stack([ras_from_lps(turn @ v) for v in (right, up, normal)])
        matrix[:3, 3] = self._ras(center)[0]
        node = self._slices[name]
        node.GetSliceToRAS().DeepCopy(vtk_matrix(matrix))
        node.UpdateMatrices()

    def _draw(self, name: str, marks: tuple[Mark, ...], origin: np.ndarray, right: np.ndarray, up: np.ndarray) -> None:
        """One model per colour: the marks in the slice's plane, shown in this view only."""
        groups: dict[tuple, list[np.ndarray]] = {}
        for mark in marks:
            if len(mark.points_mm) > 1:
                groups.setdefault(mark.color, []).append(self._ras(origin + mark.points_mm[:, :1] * right + mark.points_mm[:, 1:] * up))
        for color, lines in groups.items():
            key = f"{name}/{'-'.join(map(str, color))}"
            node = set_model(self.host, "guide-view", key, f"{name} marks", polylines(lines), tuple(c / 255 for c in color[:3]))
            display = node.GetDisplayNode()
            display.RemoveAllViewNodeIDs()
            display.AddViewNodeID(self._slices[name].GetID())
            display.SetVisibility2D(True)
            display.SetSliceDisplayMode(display.SliceDisplayProjection)
            display.SetSliceIntersectionThickness(2)
