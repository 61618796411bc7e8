"""A whole procedure record as nodes: tables, JSON, one line per achieved needle, key images as one-slice volumes, folder.

What the record holds beyond the case (:mod:`.case`) lives here, so that a record recovered from its journal makes a scene.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..geometry.frames import ras_from_lps
from ..record.key_images import KeyImage
from ..record.placement import Placement
from ..record.record import ProcedureRecord
from .case import CASE_VERSION, save_mrb
from .host import Host
from .nodes import ROLE, find, find_all, obtain, plain, remove, text_node
from .plan_nodes import build_plan, set_markups
from .record_nodes import DEFAULT_NEEDLE_MM, FOLDER, NEEDLE_COLOR, build_folder, build_pose, build_table, read_object

KEY_IMAGE_MM = 0.5
"""Drawn size of a key image's pixel; the picture has no place in the patient."""
_PICTURE = "\x00picture\x00"
"""Stands for a picture while the rest is encoded; a NUL cannot be typed, nor come out of the JSON of a record."""


def build_record(host: Host, record: ProcedureRecord) -> dict[str, list[Any]]:
    """Make or update the nodes of a record; those of placements and pictures that are gone are removed.

    Returns
    -------
    dict
        ``record`` (text), ``placement`` and ``dose`` (tables), ``achieved`` (lines), ``key-image`` (volumes).
    """
    node = obtain(host, "vtkMRMLTextNode", "record", "Procedure record")
    node.SetText(record_text(plain(record)))
    made: dict[str, list[Any]] = {"record": [node]}
    if record.placements:
        made["placement"] = [build_table(host, "placement", "Placement", record.placements)["table"]]
    if record.dose is not None:
        made["dose"] = [build_table(host, "dose", "Dose", record.dose)["table"]]
    pose = find(host, "pose")
    made["achieved"] = [_achieved(host, p, k, pose) for k, p in enumerate(record.placements)]
    made["key-image"] = [_picture(host, image, k) for k, image in enumerate(record.key_images)]
    for role, value in (("placement", record.placements), ("dose", record.dose)):
        if not value:  # all of it was withdrawn
            remove(host, role)
            remove(host, role + "-table")
    for role, count in (("achieved", len(record.placements)), ("key-image", len(record.key_images))):
        remove(host, role, lambda key, count=count: int(key) < count)
    text_node(host, "case", FOLDER, {"format": "fluoroguide-case", "version": CASE_VERSION, "name": FOLDER})
    scene = host.scene
    nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
    build_folder(host, FOLDER, [n for n in nodes if n.GetAttribute(ROLE)])
    return made


def record_text(data: dict) -> str:
    """A record's plain data as JSON.  Pictures, nearly all of its characters, go in as they are: base64 needs no escapes."""
    pictures: list[str] = []

    def without(image: dict) -> dict:
        if "png_base64" not in image:  # withdrawn, and read from a copy without pictures
            return image
        pictures.append(image["png_base64"])
        return {**image, "png_base64": _PICTURE}

    slim = {**data, "key_images": [without(image) for image in data["key_images"]]}
    if "withdrawn" in data:
        slim["withdrawn"] = [{**w, "item": without(w["item"])} if w.get("kind") == "key_images" else w for w in data["withdrawn"]]
    first, *rest = json.dumps(slim, ensure_ascii=False, allow_nan=False).split(json.dumps(_PICTURE))
    return "".join([first, *(piece for picture, after in zip(pictures, rest, strict=True) for piece in ('"', picture, '"', after))])


def _achieved(host: Host, placement: Placement, index: int, pose: Any | None) -> Any:
    """A locked line from hub to tip under the pose; without a measured direction a line of the planned one is not drawn: a point is."""
    tip = placement.tip_lps_mm
    name = f"{placement.trajectory.name} achieved"
    if placement.axis_lps is None:
        node = obtain(host, "vtkMRMLMarkupsFiducialNode", "achieved", name, str(index))
        set_markups(node, tip.reshape(1, 3), ["tip"], NEEDLE_COLOR)
    else:
        node = obtain(host, "vtkMRMLMarkupsLineNode", "achieved", name, str(index))
        axis = placement.axis_lps / np.linalg.norm(placement.axis_lps)
        length = placement.trajectory.needle_length_mm or DEFAULT_NEEDLE_MM
        set_markups(node, np.array([tip - length * axis, tip]), ["hub", "tip"], NEEDLE_COLOR)
    node.SetLocked(True)
    node.SetAttribute("FluoroGuide.placement", placement.placement_id)
    node.SetAndObserveTransformNodeID(pose.GetID() if pose is not None else None)
    return node


def _picture(host: Host, image: KeyImage, index: int) -> Any:
    """A key image as a one-slice volume, row 0 on top in the coronal view; it lies at the origin and is hidden until chosen."""
    import slicer

    from .nodes import vtk_matrix

    there = find(host, "key-image", str(index))
    if there is not None and there.GetAttribute("FluoroGuide.image_id") == image.image_id:
        return there  # a picture never changes, and opening it takes time
    pixels = image.pixels()
    class_name = "vtkMRMLScalarVolumeNode" if pixels.ndim == 2 else "vtkMRMLVectorVolumeNode"
    node = obtain(host, class_name, "key-image", f"Key image {index + 1}", str(index))
    slicer.util.updateVolumeFromArray(node, pixels[None])
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = ras_from_lps(np.array([KEY_IMAGE_MM, 0, 0])), ras_from_lps(np.array([0, 0, -KEY_IMAGE_MM]))
    matrix[:3, 2] = np.cross(matrix[:3, 0], matrix[:3, 1]) / KEY_IMAGE_MM**2
    node.SetIJKToRASMatrix(vtk_matrix(matrix))
    node.CreateDefaultDisplayNodes()
    node.SetAttribute("FluoroGuide.image_id", image.image_id)
    return node


def read_record(host: Host) -> ProcedureRecord | None:
    """The record that the scene holds, or None."""
    return read_object(host, "record", "..record.record", "ProcedureRecord")


def restore_record(host: Host, record: ProcedureRecord) -> None:
    """Bring a recovered record into the scene: pose of its last registration, plan, and all of :func:`build_record`.

    Volume and X-rays are not in a record: the user loads them again, and they take their place under the pose.
    """
    pose = None
    if record.registrations:
        pose = build_pose(host, np.array(record.registrations[-1]["pose_matrix"], float))
        for volume in find_all(host, "volume"):
            volume.SetAndObserveTransformNodeID(pose.GetID())
    if record.plan is not None:
        build_plan(host, record.plan, pose, locked=pose is not None)
    build_record(host, record)


def recover_scene(host: Host, record: ProcedureRecord, path: str | Path) -> Path:
    """A new scene with a recovered record, written to a ``.mrb`` file."""
    host.scene.Clear(0)
    restore_record(host, record)
    return save_mrb(host, path)
