"""Bull's-eye and progress views in Slicer: two slice views of the CT, across and along the planned path, with marks.

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
from .nodes import vtk_matrix
from .overlay_nodes import STALE_RGBA, Colors, Labels, Lines
from .xray_view import slice_nodes

BULLSEYE, PROGRESS = "BullsEye", "Progress"
BULLSEYE_MM = 18.0
"""Field of view of the bull's-eye, in which the rings lie; it grows when the needle lies farther off."""
MOST_MM = 100.0
PROGRESS_MARGIN_MM = 12.0


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
        self.stale, self._shown_mm = False, BULLSEYE_MM
        colors = Colors(host)
        self._slices, self._lines, self._labels = {}, {}, {}
        self._colors, self._drawn = colors, ()
        for name in (BULLSEYE, PROGRESS):
            node, composite = slice_nodes(host, name)
            composite.SetDoPropagateVolumeSelection(False)
            composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
            self._slices[name] = node
            self._lines[name] = Lines(host, "guide-view", name, f"{name} marks", 2, node.GetID(), colors)
            self._labels[name] = Labels(host, "guide-view-labels", name, f"{name} labels", node.GetID())
        self._fit()
        self.update()

    def update(
        self, tip_lps_mm: np.ndarray | None = None, axis_lps: np.ndarray | None = None, covariance_mm2: np.ndarray | None = None,
    ) -> tuple[BullsEye, Progress]:
        """Show an achieved needle (volume LPS), or none."""
        self._drawn = (tip_lps_mm, axis_lps, covariance_mm2)
        eye = bulls_eye(self.trajectory, tip_lps_mm, axis_lps, covariance_mm2, self.tolerance_mm)
        way = progress(self.trajectory, tip_lps_mm, self.tolerance_mm)
        target, entry = self.trajectory.target_lps_mm, self.trajectory.entry_lps_mm
        needed = 2.6 * max(eye.lateral_mm or 0.0, min(eye.aim_mm or 0.0, MOST_MM / 2.6))
        if needed > self._shown_mm:
            self._shown_mm = min(needed, MOST_MM)
            self._fit()
        self._place(BULLSEYE, target, eye.right_lps, eye.up_lps, eye.into_lps)
        self._draw(BULLSEYE, eye.marks, target, eye.right_lps, eye.up_lps)
        side = self._side(eye, tip_lps_mm)
        self._place(PROGRESS, 0.5 * (entry + target), eye.into_lps, side, np.cross(eye.into_lps, side))
        self._draw(PROGRESS, way.marks, entry, eye.into_lps, side)
        return eye, way

    def set_stale(self, stale: bool) -> None:
        """Grey while the registration or the needle may no longer hold; the marks' own colours again otherwise."""
        if stale != self.stale:
            self.stale = stale
            self.update(*self._drawn)

    def clear(self) -> None:
        """Show no marks: those of the last patient must not stay."""
        for name in self._slices:
            self._lines[name].update([], [])
            self._labels[name].update(np.empty((0, 3)), [])

    def _fit(self) -> None:
        """Fields of view: rings in the bull's-eye, the whole path in the progress view, whatever the windows' shapes."""
        for name, size in ((BULLSEYE, self._shown_mm), (PROGRESS, self.trajectory.length_mm + 2 * PROGRESS_MARGIN_MM)):
            node = self._slices[name]
            width, height, depth = node.GetFieldOfView()
            ratio = height / width if width > 0 and height > 0 else 1.0
            across = size / min(1.0, ratio) if name == BULLSEYE else size
            node.SetFieldOfView(across, across * ratio, depth)

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
        """All marks of a view in its slice's plane: one model of lines and one node of texts, in place."""
        def placed(points_mm: np.ndarray) -> np.ndarray:
            return self._ras(origin + points_mm[:, :1] * right + points_mm[:, 1:] * up)

        lines = [mark for mark in marks if len(mark.points_mm) > 1]
        colors = [self._colors.index(STALE_RGBA if self.stale else mark.color) for mark in lines]
        self._lines[name].update([placed(mark.points_mm) for mark in lines], colors)
        texts = [mark for mark in marks if mark.text]
        places = [placed(mark.label_mm[None]) for mark in texts]
        self._labels[name].update(np.vstack(places) if places else np.empty((0, 3)), [mark.text for mark in texts], self.stale)
