"""Guidance of a case: overlays on the X-rays, the needle's marks, its place and its distance from the plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ras
from ..guidance.deviation import Deviation, deviation
from ..guidance.overlay import plan_overlay
from ..guidance.triangulation import NeedlePose, locate_needle, needle_in_volume
from .guide_views import GuideViews
from .live_session import LiveGuidance
from .nodes import KEY, find, find_all, obtain, remove, vtk_matrix
from .overlay_nodes import XrayOverlay
from .plan_nodes import read_plan_nodes
from .planner import TRAJECTORY
from .record_nodes import build_needle, read_needle
from .text import translator
from .xray_view import ijk_to_ras, pixels_to_ras, read_xray_node, slice_nodes, view_name

if TYPE_CHECKING:
    from .session import CaseSession

_ = translator(__name__)
ROLE_SUBTRACTION = "subtraction"
MARK_STEPS = 20
"""Changes of the needle's marks that can be taken back."""
MARK_OFF_PLANE_MM = 1.0
"""A needle mark farther from the detector plane was not placed in the X-ray view."""


class Guidance:
    """Overlays and needle of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._overlays: dict[int, XrayOverlay] = {}
        self.live = LiveGuidance(session)
        self.method = "manual"
        """How the marks of now came about: ``manual`` or ``automatic``."""
        self._mark_steps: list[tuple] = []

    def forget(self, index: int | None = None) -> None:
        """Drop the overlay of an X-ray, or of all before their scene is closed; marks of another picture do not come back."""
        self._mark_steps = []
        if index is None:
            self.live.forget()
            self._overlays.clear()
            self.method = "manual"
        else:
            self._overlays.pop(index, None)

    def update_overlays(self, xrays: Sequence[Any], stale: bool = False) -> None:
        """Draw plan, predicted error and located needle on the X-rays; nothing without a registration."""
        registration, plan = self._session.registrar.registration, read_plan_nodes(self._session.host)
        for index, node in enumerate(xrays):
            if node is None or not self._session.xrays.has_geometry(node):
                continue
            view = read_xray_node(node).view
            if registration is None or plan is None:
                shapes = []
            else:
                needle, status = read_needle(self._session.host), "stale" if stale else None
                shapes = plan_overlay(view, registration.pose, plan, registration, needle=needle, status=status)
            if index not in self._overlays:
                self._overlays[index] = XrayOverlay(self._session.host, view, index)
            self._overlays[index].view = view
            self._overlays[index].update(shapes)

    def mark_node(self, index: int) -> Any:
        """The line (tip, then shaft) that marks the needle in X-ray ``index``; it can only be placed in that X-ray's view."""
        node = obtain(self._session.host, "vtkMRMLMarkupsLineNode", "needle-mark", f"Needle in X-ray {view_name(index)[-1]}", str(index))
        node.SetHideFromEditors(True)  # not a line to plan with
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        view_id = slice_nodes(self._session.host, view_name(index))[0].GetID()
        if not display.IsDisplayableInView(view_id) or display.GetNumberOfViewNodeIDs() != 1:
            display.RemoveAllViewNodeIDs()
            display.AddViewNodeID(view_id)
        display.SetPropertiesLabelVisibility(False)
        return node

    def set_marks(self, index: int, xray: Any, pixels: np.ndarray) -> None:
        """Mark the needle in X-ray ``index`` at pixels (2, 2): tip and shaft as (column, row)."""
        node = self.mark_node(index)
        node.RemoveAllControlPoints()
        for point in pixels_to_ras(self._session.xrays.view(xray), pixels):
            node.AddControlPointWorld(*point)

    def existing_mark_node(self, index: int) -> Any | None:
        """The line of :meth:`mark_node` when it is there."""
        return find(self._session.host, "needle-mark", str(index))

    def marks(self, index: int, xray: Any) -> np.ndarray | None:
        """Pixels (2, 2) as (column, row) of tip and shaft in an X-ray, or None while they are not both placed.

        Raises
        ------
        FluoroGuideError
            A mark does not lie on the X-ray.
        """
        node = self.existing_mark_node(index)
        if node is None or node.GetNumberOfDefinedControlPoints() != 2:
            return None
        view = self._session.xrays.view(xray)
        points = lps_from_ras(np.array([node.GetNthControlPointPositionWorld(i) for i in range(2)], float))
        if np.abs((points - view.detector_center_mm) @ view.beam).max() > MARK_OFF_PLANE_MM:
            raise FluoroGuideError("A needle mark does not lie on the X-ray", node.GetName(), "Mark the needle again in the X-ray view")
        return view.project(points)

    # ---- going back ---------------------------------------------------------------------------------------------------
    def _marked(self) -> tuple:
        """Where the marks are now, RAS: per X-ray a tuple of points."""
        nodes = [self.existing_mark_node(index) for index in (0, 1)]
        return tuple(() if node is None else tuple(
            tuple(node.GetNthControlPointPositionWorld(i)) for i in range(node.GetNumberOfDefinedControlPoints())) for node in nodes)

    def remember_marks(self) -> None:
        """Keep the marks as they are now, so that :meth:`undo_marks` comes back to them."""
        now = self._marked()
        if not self._mark_steps or self._mark_steps[-1] != now:
            self._mark_steps = [*self._mark_steps, now][-MARK_STEPS:]

    @property
    def can_undo_marks(self) -> bool:
        """Whether there were other marks before."""
        now = self._marked()
        return any(step != now for step in self._mark_steps)

    def undo_marks(self) -> None:
        """The marks as they were before the last change of them."""
        now = self._marked()
        while self._mark_steps and self._mark_steps[-1] == now:
            self._mark_steps.pop()
        before = self._mark_steps[-1] if self._mark_steps else ((), ())
        for index, points in enumerate(before):
            node = self.existing_mark_node(index)
            if node is not None and points != now[index]:
                node.RemoveAllControlPoints()
                for point in points:
                    node.AddControlPointWorld(*point)
        self.method = "manual"

    def locate(self, xrays: Sequence[Any]) -> NeedlePose | None:
        """The needle from its marks in both X-rays, stored in the scene; None while marks are missing."""
        marks = [self.marks(index, node) for index, node in enumerate(xrays)]
        if len(marks) < 2 or any(m is None for m in marks):
            return None
        pixels = np.array(marks)
        needle = locate_needle([self._session.xrays.view(node) for node in xrays], pixels[:, 0], pixels[:, 1])
        build_needle(self._session.host, needle, None, find(self._session.host, "pose"))
        self._session.refresh_folder()
        return needle

    def show_views(self, volume: Any, line: Any) -> None:
        """The bull's-eye and the progress view of a planned line, with the located needle on them; nothing without a registration."""
        registration, plan = self._session.registrar.registration, read_plan_nodes(self._session.host)
        name = line.GetAttribute(TRAJECTORY) if line is not None else None
        if registration is None or volume is None or plan is None or name not in [t.name for t in plan.trajectories] or self.live.running:
            return
        item = plan.trajectory(name)
        views = GuideViews(self._session.host, item, volume, registration.pose, plan.tolerance_mm(item))
        if self.needle is not None:
            inside = needle_in_volume(self.needle, registration.pose, registration)
            views.update(inside.tip_mm, inside.axis, inside.tip_covariance_mm2)

    def show_subtraction(self, index: int, xray: Any, difference: np.ndarray) -> None:
        """A contrast subtraction (rows, columns) over an X-ray's view, until :meth:`hide_subtractions`; never saved."""
        import slicer

        host = self._session.host
        node = obtain(host, "vtkMRMLScalarVolumeNode", ROLE_SUBTRACTION, f"Subtraction in X-ray {view_name(index)[-1]}", str(index))
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(difference, np.float32)[None])
        matrix = vtk_matrix(ijk_to_ras(self._session.xrays.view(xray)))
        node.SetIJKToRASMatrix(matrix)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        low, high = np.quantile(difference, (0.02, 0.998))
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(float(low), float(max(high, low + 1e-6)))
        composite = slice_nodes(host, view_name(index))[1]
        composite.SetForegroundVolumeID(node.GetID())
        composite.SetForegroundOpacity(1.0)

    def hide_subtractions(self) -> None:
        """Take the subtractions off the views."""
        for node in find_all(self._session.host, ROLE_SUBTRACTION):
            composite = slice_nodes(self._session.host, view_name(int(node.GetAttribute(KEY))))[1]
            if composite.GetForegroundVolumeID() == node.GetID():
                composite.SetForegroundVolumeID(None)
                composite.SetForegroundOpacity(0.0)
        remove(self._session.host, ROLE_SUBTRACTION)

    def keep(self, needle: NeedlePose) -> None:
        """Store a needle that was located live (isocentre frame), for its placement."""
        build_needle(self._session.host, needle, None, find(self._session.host, "pose"))
        self.method = "automatic"
        self._session.refresh_folder()

    def find_job(self, xrays: Sequence[Any], line: Any) -> Any:
        """Let the engine look for the needle in the X-rays, near the planned ``line``; its result goes to :meth:`use_findings`."""
        registration, plan = self._session.registrar.registration, read_plan_nodes(self._session.host)
        name = line.GetAttribute(TRAJECTORY) if line is not None else None
        path = plan.trajectory(name) if plan is not None and name in [t.name for t in plan.trajectories] else None
        images = bone_bright_images(self._session, xrays, registration)
        return self._session.engine.run("find_needle", images=images, pose=None if registration is None else registration.pose, path=path)

    def use_findings(self, findings: Sequence[Any], xrays: Sequence[Any]) -> list[str]:
        """Mark what was found, so that the user sees it and may drag it; sentences on what was not found."""
        told = []
        for index, (finding, xray) in enumerate(zip(findings, xrays, strict=True)):
            if finding.found:
                self.set_marks(index, xray, np.array([finding.tip_px, finding.shaft_px]))
            else:
                told.append(_("Not found in X-ray {side}. {reason}").format(side=view_name(index)[-1], reason=finding.reason))
        self.method = "automatic"
        return told

    @property
    def needle(self) -> NeedlePose | None:
        """The located needle that the scene holds, isocentre frame."""
        return read_needle(self._session.host)

    def deviation(self, line: Any) -> Deviation | None:
        """How far the located needle is from the planned ``line``; None without registration, needle or plan."""
        registration, needle, plan = self._session.registrar.registration, self.needle, read_plan_nodes(self._session.host)
        name = line.GetAttribute(TRAJECTORY)
        if registration is None or needle is None or plan is None or name not in [t.name for t in plan.trajectories]:
            return None
        item = plan.trajectory(name)
        inside = needle_in_volume(needle, registration.pose, registration)
        return deviation(item, inside.tip_mm, inside.axis, inside.tip_covariance_mm2, plan.tolerance_mm(item))


def bone_bright_images(session: CaseSession, xrays: Sequence[Any], registration: Any | None) -> list[Any]:
    """The X-rays as images, turned over where the registration found them inverted."""
    images = [session.xrays.image(node) for node in xrays]
    if registration is None or len(registration.views) != len(images):
        return images
    from ..registration.register import bone_bright

    return bone_bright(images, registration)
