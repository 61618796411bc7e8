"""What the panels and the logic do with a case, step by step, on nodes of one scene.  No Qt here.

The scene is the only memory: registration, needle and placements are read back from it, so closing, loading or
importing a scene needs no special care.  Kept aside are only what can be made again: the converted volume, the
overlays and the locks of the X-ray views.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import describe_angles
from ..geometry.frames import lps_from_ras
from ..guidance.deviation import Deviation, deviation
from ..guidance.overlay import plan_overlay
from ..guidance.triangulation import NeedlePose, locate_needle, needle_in_volume
from ..imaging.xray import XrayImage
from ..planning.plan import Plan, Trajectory
from ..record.record import utc_now
from ..registration.result import Registration
from ..scene.case import CASE_VERSION
from ..scene.host import Host
from ..scene.nodes import KEY, ROLE, find, find_all, obtain, references, text_node, volume_image
from ..scene.overlay_nodes import XrayOverlay
from ..scene.plan_nodes import build_plan, read_plan_nodes
from ..scene.record_nodes import (
    FOLDER,
    build_folder,
    build_needle,
    build_pose,
    build_registration,
    read_needle,
    read_pose,
    read_registration,
)
from ..scene.xray_view import UprightLock, build_xray, pixels_to_ras, read_xray_node, show_upright, slice_nodes, view_name
from .recorder import Recorder

TRAJECTORY = "FluoroGuide.trajectory"
STAMP = "FluoroGuide.registered"
"""When the registration was made that a node was used in: another stamp than the registration's means it is stale."""
MARK_OFF_PLANE_MM = 1.0
"""A needle mark farther from the detector plane was not placed in the X-ray view."""


class CaseSession:
    """One case in one scene.

    Parameters
    ----------
    host
        Gives the scene of now each time it is called (the application may change it).
    make_engine
        Makes the ``EngineClient`` when it is first needed.
    """

    def __init__(self, host: Callable[[], Host], make_engine: Callable[[], Any]) -> None:
        self._host, self._make_engine, self._engine = host, make_engine, None
        self._volume: tuple[tuple, Any] | None = None
        self._overlays: dict[int, XrayOverlay] = {}
        self._locks: list[UprightLock] = []
        self.recorder = Recorder(self)

    @property
    def host(self) -> Host:
        """The scene and its application logic."""
        return self._host()

    @property
    def engine(self) -> Any:
        """The registration process's client; made on first use."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def warm_up(self) -> None:
        """Let the registration process start and compile while the user plans."""
        self.engine.warm_up()

    def close(self) -> None:
        """End the registration process and let go of the views."""
        self.forget()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def forget(self) -> None:
        """Drop what belongs to the nodes of the scene of now (before it is closed)."""
        self.release_views()
        self._overlays.clear()
        self._volume = None
        self.recorder.forget()

    # ---- X-rays ---------------------------------------------------------------------------------------------------
    def load_xray(self, path: str | Path, index: int, card: dict | None = None) -> Any:
        """Read a file into X-ray slot ``index`` (0 = A, 1 = B) and return its volume node.

        Raises
        ------
        FluoroGuideError
            The file cannot be read, or geometry is missing in it and in ``card``.
        """
        from ..imaging.sources import read_xray

        return self.add_xray(read_xray(path, card or None), index)

    def add_xray(self, image: XrayImage, index: int) -> Any:
        """Put an X-ray that is in memory into a slot and return its node."""
        node = build_xray(self.host, image, index)
        node.RemoveAttribute(STAMP)
        self._overlays.pop(index, None)
        self.refresh_folder()
        return node

    @staticmethod
    def has_geometry(node: Any) -> bool:
        """Whether FluoroGuide knows the C-arm geometry of a volume node."""
        return bool(references(node, "facts"))

    def xray_image(self, node: Any) -> XrayImage:
        """The image and geometry of an X-ray node.

        Raises
        ------
        FluoroGuideError
            The node has none: it was not loaded by FluoroGuide.
        """
        if not self.has_geometry(node):
            raise FluoroGuideError("The X-ray has no C-arm geometry", node.GetName(), "Load its file with the Load button of the X-ray section")
        return read_xray_node(node)

    def describe_xray(self, node: Any) -> str:
        """``"LAO 30.0, SID 1100 mm, 512 x 512 pixels of 0.300 mm"`` and what was assumed."""
        image = self.xray_image(node)
        view = image.view
        size = f"{view.columns} x {view.rows} pixels of {view.pixel_spacing_mm[1]:.3f} mm"
        return " ".join([f"{describe_angles(*view.angles_deg)}, SID {view.sid_mm:.0f} mm, {size}.", *image.assumptions])

    # ---- views ----------------------------------------------------------------------------------------------------
    def show_xrays(self, nodes: Sequence[Any]) -> None:
        """Show the X-rays upright in their views and keep them so until :meth:`release_views`."""
        self.release_views()
        for index, node in enumerate(nodes):
            if node is not None and self.has_geometry(node):
                view = read_xray_node(node).view
                self._locks.append(UprightLock(show_upright(self.host, view, node, index), view))

    def release_views(self) -> None:
        """Stop holding the X-ray views; harmless when repeated."""
        while self._locks:
            self._locks.pop().release()

    # ---- plan -----------------------------------------------------------------------------------------------------
    def plan(self, volume: Any, line: Any, procedure: str) -> Plan:
        """The plan of the scene, with ``line`` (entry, then target) as one of its trajectories.

        The line becomes part of the plan's nodes; trajectories whose line was deleted leave the plan.

        Raises
        ------
        FluoroGuideError
            The line has not two points.
        """
        self._check_transform(volume)
        if line.GetAttribute(ROLE) in ("needle", "needle-mark"):
            raise FluoroGuideError("This line is a located needle, not a plan", line.GetName(), "Choose or place another line")
        if line.GetNumberOfDefinedControlPoints() != 2:
            raise FluoroGuideError("The planned needle needs an entry and a target", f"{line.GetNumberOfDefinedControlPoints()} points", "Place both")
        points = self._points_in_volume(volume, line)
        plan = read_plan_nodes(self.host)
        kept = [node for node in find_all(self.host, "trajectory") if node is not line]
        known = {t.name: t for t in plan.trajectories} if plan is not None else {}
        name = line.GetAttribute(TRAJECTORY) or self._free_name(line.GetName(), {n.GetAttribute(TRAJECTORY) for n in kept})
        own = dataclasses.replace(known[name], entry_lps_mm=points[0], target_lps_mm=points[1]) if name in known else Trajectory(name, *points)
        kept = [node for node in kept if node.GetAttribute(TRAJECTORY) in known]
        for key, node in enumerate([*kept, line]):
            node.SetAttribute(ROLE, "trajectory")
            node.SetAttribute(KEY, str(key))
        line.SetAttribute(TRAJECTORY, name)
        trajectories = (*(known[n.GetAttribute(TRAJECTORY)] for n in kept), own)
        title = procedure.strip() or "not told"
        base = plan or Plan(title)
        return dataclasses.replace(base, procedure=title, trajectories=trajectories, volume_name=base.volume_name or "Volume")

    def line_path(self, volume: Any, line: Any) -> Trajectory:
        """The path of a line with two points in the volume's frame, without changing the plan."""
        return Trajectory(line.GetName() or "needle", *self._points_in_volume(volume, line))

    def targets(self) -> dict[str, np.ndarray]:
        """Name -> point (3,), volume LPS mm, of everything whose error matters in the scene's plan."""
        plan = read_plan_nodes(self.host)
        return {} if plan is None else plan.target_points()

    @staticmethod
    def _free_name(wanted: str, taken: set[str]) -> str:
        names = (wanted if n == 1 else f"{wanted} {n}" for n in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    @staticmethod
    def _points_in_volume(volume: Any, line: Any) -> np.ndarray:
        """Control points (N, 3) of a line in the volume's own LPS frame, whatever transforms both hang under."""
        points = []
        for i in range(line.GetNumberOfControlPoints()):
            local = [0.0, 0.0, 0.0]
            volume.TransformPointFromWorld(list(line.GetNthControlPointPositionWorld(i)), local)
            points.append(local)
        return lps_from_ras(np.array(points, float).reshape(-1, 3))

    def _check_transform(self, volume: Any) -> None:
        parent = volume.GetParentTransformNode()
        if parent is not None and parent.GetAttribute(ROLE) != "pose":
            raise FluoroGuideError("The volume hangs under a transform of its own", parent.GetName(), "Harden or remove that transform first")

    # ---- registration -----------------------------------------------------------------------------------------------
    def attenuation(self, volume: Any) -> Any:
        """The volume as attenuation; converted once, and again after its voxels changed.

        Raises
        ------
        FluoroGuideError
            The node holds no voxels, or they cannot be a CT.
        """
        from ..anatomy.attenuation import attenuation_from_hu

        if volume.GetImageData() is None:
            raise FluoroGuideError("The volume holds no voxels", volume.GetName(), "Choose another volume")
        key = (volume.GetID(), volume.GetImageData().GetMTime(), *volume.GetSpacing(), *volume.GetOrigin())
        if self._volume is None or self._volume[0] != key:
            self._volume = key, attenuation_from_hu(volume_image(volume), name="Volume")
        return self._volume[1]

    def registration_arguments(self, volume: Any, xrays: Sequence[Any], plan: Plan, from_present: bool) -> dict:
        """Arguments of ``registration.register.register`` for these nodes."""
        images = [self.xray_image(node) for node in xrays]
        initial = read_pose(self.host) if from_present else None
        return {"volume": self.attenuation(volume), "images": images, "initial": initial, "targets": plan.target_points()}

    def submit(self, volume: Any, xrays: Sequence[Any], plan: Plan, from_present: bool = False) -> Any:
        """Start a registration in the engine's process; returns its ``Job`` at once."""
        arguments = self.registration_arguments(volume, xrays, plan, from_present)
        return self.engine.submit(arguments["volume"], arguments["images"], arguments["initial"], targets=arguments["targets"])

    def accept(self, registration: Registration, volume: Any, xrays: Sequence[Any], plan: Plan) -> None:
        """Put a registration of these nodes into the scene: volume and plan hang under the new pose."""
        pose = build_pose(self.host, registration.pose)
        stamp = utc_now()
        for node in (build_registration(self.host, registration), volume, *xrays):
            node.SetAttribute(STAMP, stamp)
        volume.SetAttribute(ROLE, "volume")
        volume.SetAttribute(KEY, "")
        for other in find_all(self.host, "volume"):
            if other is not volume:
                other.RemoveAttribute(ROLE)
        volume.SetAndObserveTransformNodeID(pose.GetID())
        build_plan(self.host, plan, pose)
        self.refresh_folder()

    @property
    def registration(self) -> Registration | None:
        """The registration that the scene holds."""
        return read_registration(self.host)

    def stale(self, volume: Any, xrays: Sequence[Any]) -> bool:
        """Whether the registration was made from other nodes, or from other pixels, than these."""
        stored = find(self.host, "registration")
        return stored is not None and any(n is None or n.GetAttribute(STAMP) != stored.GetAttribute(STAMP) for n in (volume, *xrays))

    # ---- overlay, needle, deviation -----------------------------------------------------------------------------------
    def update_overlays(self, xrays: Sequence[Any], stale: bool = False) -> None:
        """Draw plan, predicted error and located needle on the X-rays; nothing without a registration."""
        registration, plan = self.registration, read_plan_nodes(self.host)
        for index, node in enumerate(xrays):
            if node is None or not self.has_geometry(node):
                continue
            view = read_xray_node(node).view
            if registration is None or plan is None:
                shapes = []
            else:
                shapes = plan_overlay(view, registration.pose, plan, registration, needle=read_needle(self.host), status="stale" if stale else None)
            if index not in self._overlays:
                self._overlays[index] = XrayOverlay(self.host, view, index)
            self._overlays[index].view = view
            self._overlays[index].update(shapes)

    def mark_node(self, index: int) -> Any:
        """The line (tip, then shaft) that marks the needle in X-ray ``index``; it can only be placed in that X-ray's view."""
        node = obtain(self.host, "vtkMRMLMarkupsLineNode", "needle-mark", f"Needle in X-ray {view_name(index)[-1]}", str(index))
        node.SetHideFromEditors(True)  # not a line to plan with
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        view_id = slice_nodes(self.host, view_name(index))[0].GetID()
        if not display.IsDisplayableInView(view_id) or display.GetNumberOfViewNodeIDs() != 1:
            display.RemoveAllViewNodeIDs()
            display.AddViewNodeID(view_id)
        display.SetPropertiesLabelVisibility(False)
        return node

    def set_marks(self, index: int, xray: Any, pixels: np.ndarray) -> None:
        """Mark the needle in X-ray ``index`` at pixels (2, 2): tip and shaft as (column, row)."""
        node = self.mark_node(index)
        node.RemoveAllControlPoints()
        for point in pixels_to_ras(self.xray_image(xray).view, pixels):
            node.AddControlPointWorld(*point)

    def existing_mark_node(self, index: int) -> Any | None:
        """The line of :meth:`mark_node` when it is there."""
        return find(self.host, "needle-mark", str(index))

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
        view = self.xray_image(xray).view
        points = lps_from_ras(np.array([node.GetNthControlPointPositionWorld(i) for i in range(2)], float))
        if np.abs((points - view.detector_center_mm) @ view.beam).max() > MARK_OFF_PLANE_MM:
            raise FluoroGuideError("A needle mark does not lie on the X-ray", node.GetName(), "Mark the needle again in the X-ray view")
        return view.project(points)

    def locate(self, xrays: Sequence[Any]) -> NeedlePose | None:
        """The needle from its marks in both X-rays, stored in the scene; None while marks are missing."""
        marks = [self.marks(index, node) for index, node in enumerate(xrays)]
        if len(marks) < 2 or any(m is None for m in marks):
            return None
        pixels = np.array(marks)
        needle = locate_needle([self.xray_image(node).view for node in xrays], pixels[:, 0], pixels[:, 1])
        build_needle(self.host, needle, None, find(self.host, "pose"))
        self.refresh_folder()
        return needle

    @property
    def needle(self) -> NeedlePose | None:
        """The located needle that the scene holds, isocentre frame."""
        return read_needle(self.host)

    def deviation(self, line: Any) -> Deviation | None:
        """How far the located needle is from the planned ``line``; None without registration, needle or plan."""
        registration, needle, plan = self.registration, self.needle, read_plan_nodes(self.host)
        name = line.GetAttribute(TRAJECTORY)
        if registration is None or needle is None or plan is None or name not in [t.name for t in plan.trajectories]:
            return None
        item = plan.trajectory(name)
        inside = needle_in_volume(needle, registration.pose, registration)
        return deviation(item, inside.tip_mm, inside.axis, inside.tip_covariance_mm2, plan.tolerance_mm(item))

    # ---- folder -----------------------------------------------------------------------------------------------------
    def refresh_folder(self) -> None:
        """Keep every node of the case in one folder of the subject hierarchy."""
        text_node(self.host, "case", FOLDER, {"format": "fluoroguide-case", "version": CASE_VERSION, "name": FOLDER})
        scene = self.host.scene
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        build_folder(self.host, FOLDER, [n for n in nodes if n.GetAttribute(ROLE)])
