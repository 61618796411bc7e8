"""A whole case in one scene: data to nodes, nodes to data, ``.mrb`` files.

The world of the scene is **isocentre RAS** once there is a registration: the volume and the plan hang under the pose
transform; X-rays, overlays, C-arms and a needle located in the X-rays are there directly.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FluoroGuideError
from ..guidance.triangulation import NeedlePose
from ..imaging.xray import XrayImage
from ..planning.plan import Plan
from ..record.bundle import check_bundle
from ..registration.result import Registration
from .host import Host
from .models import build_carm
from .nodes import find, find_all, obtain, plain, remove, set_reference, set_volume, text_node, text_value, volume_image
from .overlay_nodes import XrayOverlay
from .plan_nodes import build_plan, read_plan_nodes
from .record_nodes import (
    FOLDER,
    build_folder,
    build_needle,
    build_pose,
    build_registration,
    build_table,
    find_folder,
    read_needle,
    read_object,
    read_pose,
    read_registration,
)
from .xray_view import build_xray, read_xray_node, show_all_upright

CASE_VERSION = 1


@dataclass
class CaseData:
    """Everything a case may hold; what is not there yet is None or empty.

    Attributes
    ----------
    volume
        3-D SimpleITK image in HU, with its LPS geometry.
    images
        X-ray images; the first two are shown in ``XRayA`` and ``XRayB``.
    registration, plan, needle
        See their classes; the needle is in the isocentre frame unless its ``frame`` says ``volume``.
    overlays
        Image index -> guidance shapes to draw on it.
    placement
        One ``record.placement.Placement`` or a list of them.
    dose
        ``record.dose.DoseSummary``.
    record
        ``record.record.ProcedureRecord``.
    name
        Title of the case's folder; no patient identifiers.
    """

    volume: Any | None = None
    images: Sequence[XrayImage] = ()
    registration: Registration | None = None
    plan: Plan | None = None
    needle: NeedlePose | None = None
    overlays: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    placement: Any | None = None
    dose: Any | None = None
    record: Any | None = None
    name: str = FOLDER


@dataclass
class CaseNodes:
    """The nodes of a case; ``case`` is the text node that refers to all of them."""

    case: Any
    folder: int
    volume: Any | None = None
    pose: Any | None = None
    xrays: list[Any] = field(default_factory=list)
    overlays: list[XrayOverlay] = field(default_factory=list)
    carms: list[Any] = field(default_factory=list)
    trajectories: list[Any] = field(default_factory=list)
    targets: Any | None = None
    outlines: list[Any] = field(default_factory=list)
    needle: Any | None = None
    placement_table: Any | None = None
    dose_table: Any | None = None
    texts: dict[str, Any] = field(default_factory=dict)


def build(host: Host, data: CaseData) -> CaseNodes:
    """Make the nodes of a case, or bring those of the scene up to date: one case per scene, nothing doubled.

    Nodes of what ``data`` no longer holds are removed, so that nothing stale stays beside new results.
    """
    case = text_node(host, "case", data.name, {"format": "fluoroguide-case", "version": CASE_VERSION, "name": data.name})
    nodes = CaseNodes(case, 0)
    if data.registration is not None:
        nodes.pose = build_pose(host, data.registration.pose)
        nodes.texts["registration"] = build_registration(host, data.registration)
    if data.volume is not None:
        nodes.volume = _build_volume(host, data, nodes.pose)
    if data.plan is not None:
        made = build_plan(host, data.plan, nodes.pose, locked=data.registration is not None)
        nodes.trajectories, nodes.targets, nodes.outlines = made["trajectories"], made["targets"][0], made["outlines"]
        nodes.texts["plan"] = made["text"][0]
    for i, image in enumerate(data.images):
        nodes.xrays.append(build_xray(host, image, i))
        nodes.carms.append(build_carm(host, image.view, i))
        overlay = XrayOverlay(host, image.view, i)
        overlay.update(list(data.overlays.get(i, ())))
        nodes.overlays.append(overlay)
    _build_results(host, data, nodes)
    _remove_leftovers(host, data)
    nodes.folder = build_folder(host, data.name, _link(host, nodes))
    return nodes


def _build_volume(host: Host, data: CaseData, pose: Any | None) -> Any:
    name = data.plan.volume_name if data.plan is not None and data.plan.volume_name else "Volume"
    node = obtain(host, "vtkMRMLScalarVolumeNode", "volume", name)
    set_volume(node, data.volume)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(pose.GetID() if pose is not None else None)
    return node


def _build_results(host: Host, data: CaseData, nodes: CaseNodes) -> None:
    if data.needle is not None:
        lengths = [t.needle_length_mm for t in data.plan.trajectories] if data.plan is not None else []
        made = build_needle(host, data.needle, next(filter(None, lengths), None), nodes.pose)
        nodes.needle, nodes.texts["needle"] = made["line"], made["text"]
    for role, title, value in (("placement", "Placement", data.placement), ("dose", "Dose", data.dose)):
        if value is not None:
            made = build_table(host, role, title, value)
            setattr(nodes, role + "_table", made["table"])
            nodes.texts[role] = made["text"]
    if data.record is not None:
        nodes.texts["record"] = text_node(host, "record", "Procedure record", plain(data.record))


def _remove_leftovers(host: Host, data: CaseData) -> None:
    """Remove nodes of things the case no longer has."""
    gone = {
        "volume": data.volume is None, "pose": data.registration is None, "registration": data.registration is None,
        "needle": data.needle is None, "needle-numbers": data.needle is None, "placement": data.placement is None,
        "placement-table": data.placement is None, "dose": data.dose is None, "dose-table": data.dose is None, "record": data.record is None,
        "bone": data.volume is None,
    }
    gone |= dict.fromkeys(("plan", "trajectory", "targets", "outline"), data.plan is None)
    for role, missing in gone.items():
        if missing:
            remove(host, role)
    for role in ("xray", "xray-mask", "xray-facts", "carm", "overlay-labels"):
        remove(host, role, lambda key: int(key) < len(data.images))
    remove(host, "overlay", lambda key: int(key.split("/")[0]) < len(data.images))


def _link(host: Host, nodes: CaseNodes) -> list[Any]:
    """References from the case node to all others; returns all of them in the order of the folder."""
    groups = {
        "volume": [nodes.volume], "pose": [nodes.pose], "trajectory": nodes.trajectories, "targets": [nodes.targets], "outline": nodes.outlines,
        "xray": nodes.xrays, "xray-mask": find_all(host, "xray-mask"), "xray-facts": find_all(host, "xray-facts"),
        "overlay": find_all(host, "overlay"), "overlay-labels": find_all(host, "overlay-labels"), "carm": nodes.carms, "bone": find_all(host, "bone"),
        "needle": [nodes.needle], "placement-table": [nodes.placement_table], "dose-table": [nodes.dose_table], "text": list(nodes.texts.values()),
    }
    everything = [nodes.case]
    for role, found in groups.items():
        present = [node for node in found if node is not None]
        set_reference(nodes.case, role, present)
        everything += present
    return everything


# ---- reading back -------------------------------------------------------------------------------------------------
def read_case(host: Host) -> dict:
    """The data of the scene's case, rebuilt from its nodes by role; what is absent is None or empty.

    Keys: ``name``, ``plan`` (with markups where they are now), ``pose`` (what the transform node shows),
    ``registration``, ``images``, ``needle``, ``placement``, ``dose``, ``record``, ``folder``.  The volume is read
    by :func:`read_volume_image`, which copies it.

    Raises
    ------
    FluoroGuideError
        The scene has no case, or one of a newer version.
    """
    head = text_value(host, "case")
    if head is None:
        raise FluoroGuideError("The scene holds no FluoroGuide case", None, "Load a case file, or start a new case")
    if head.get("version", 0) > CASE_VERSION:
        raise FluoroGuideError("The case was saved by a newer FluoroGuide", f"version {head['version']}", "Update FluoroGuide")
    return {
        "name": head["name"], "plan": read_plan_nodes(host), "pose": read_pose(host), "registration": read_registration(host),
        "images": [read_xray_node(n) for n in sorted(find_all(host, "xray"), key=lambda n: int(n.GetAttribute("FluoroGuide.key")))],
        "needle": read_needle(host), "placement": read_object(host, "placement", "..record.placement", "Placement"),
        "dose": read_object(host, "dose", "..record.dose", "DoseSummary"),
        "record": read_object(host, "record", "..record.record", "ProcedureRecord"), "folder": find_folder(host),
    }


def find_nodes(host: Host) -> CaseNodes:
    """The nodes of the scene's case, after a load for instance.

    ``overlays`` is empty: what a saved overlay was computed from is not stored; compute it anew and make an
    :class:`~FluoroGuideLib.scene.overlay_nodes.XrayOverlay`, which takes over its view's nodes.

    Raises
    ------
    FluoroGuideError
        The scene has no case.
    """
    case = find(host, "case")
    if case is None:
        raise FluoroGuideError("The scene holds no FluoroGuide case", None, "Load a case file, or start a new case")

    def in_order(role: str) -> list[Any]:
        return sorted(find_all(host, role), key=lambda n: int(n.GetAttribute("FluoroGuide.key")))

    texts = {r: find(host, r) for r in ("registration", "plan", "placement", "dose", "record")} | {"needle": find(host, "needle-numbers")}
    return CaseNodes(
        case, find_folder(host), find(host, "volume"), find(host, "pose"), in_order("xray"), [], in_order("carm"), in_order("trajectory"),
        find(host, "targets"), find_all(host, "outline"), find(host, "needle"), find(host, "placement-table"), find(host, "dose-table"),
        {role: node for role, node in texts.items() if node is not None},
    )


def read_volume_image(host: Host) -> Any | None:
    """A SimpleITK copy of the case's volume in its own LPS frame (the pose is not applied), or None."""
    node = find(host, "volume")
    return None if node is None else volume_image(node)


# ---- files --------------------------------------------------------------------------------------------------------
def save_mrb(host: Host, path: str | Path) -> Path:
    """Write the whole scene to a ``.mrb`` file; an older file of that name stays until the new one is complete.

    Raises
    ------
    FluoroGuideError
        The name does not end in ``.mrb``, the folder does not exist, or writing failed.
    """
    path = Path(path).absolute()
    if path.suffix.lower() != ".mrb":
        raise FluoroGuideError("A scene file's name must end in .mrb", path.name)
    if not path.parent.is_dir():
        raise FluoroGuideError("The folder for the scene file does not exist", path.parent, "Make it or choose another")
    try:
        folder = tempfile.mkdtemp(prefix=".saving-", dir=path.parent)
    except OSError as error:
        raise FluoroGuideError("The scene file cannot be written", error.strerror, "Choose a folder you may write to") from None
    try:
        part = Path(folder) / path.name
        if host.headless:
            done = host.scene.WriteToMRB(str(part))
        else:
            import slicer

            done = slicer.util.saveScene(str(part))
        if not done or not part.is_file():
            raise FluoroGuideError("The scene file could not be written", path.name, "Check the free space of the disk")
        os.replace(part, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def load_mrb(host: Host, path: str | Path) -> dict:
    """Replace the scene by that of a ``.mrb`` file, its X-ray views upright, and read its case (:func:`read_case`).

    Raises
    ------
    FluoroGuideError
        The file is missing or is no scene; the scene is then empty, or holds no case.
    """
    import zipfile

    path = Path(path)
    if not path.is_file():
        raise FluoroGuideError("The scene file does not exist", path, "Check the path")
    if not zipfile.is_zipfile(path):  # asked first, so that a wrong file does not cost the user the open scene
        raise FluoroGuideError("The file is not a Slicer scene bundle (.mrb)", path.name)
    check_bundle(path)
    import slicer

    if host.headless:
        done = host.scene.ReadFromMRB(str(path.absolute()), True, slicer.vtkMRMLMessageCollection())
    else:
        host.scene.Clear(0)
        done = bool(slicer.util.loadScene(str(path.absolute())))
    if not done:
        raise FluoroGuideError("The scene file could not be loaded", path.name, "It may be damaged: choose another copy")
    show_all_upright(host)
    return read_case(host)
