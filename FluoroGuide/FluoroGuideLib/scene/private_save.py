"""The scene as a ``.mrb`` file without identifiers.

What FluoroGuide made leaves, under neutral names and with its texts cleaned; everything else that a user loaded stays at home,
and so do DICOM attributes, subject-hierarchy attributes and names of patients and studies.  X-rays lose what lies outside their masks, and text
burned into them.  The scene itself is as before when the file is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..record.compatibility import RECORD_FORMAT
from ..record.privacy import Scrubber, masked_picture, text_mask, without_identifiers
from .case import save_mrb
from .host import Host
from .nodes import KEY, ROLE, find

STAYS_AT_HOME = (
    "vtkMRMLStorableNode", "vtkMRMLScriptedModuleNode", "vtkMRMLSequenceBrowserNode", "vtkMRMLSceneViewNode", "vtkMRMLCommandLineModuleNode",
)
NEUTRAL = {"volume": "Volume", "xray": "X-ray", "xray-mask": "X-ray mask", "xray-facts": "X-ray facts", "key-image": "Key image", "bone": "Bone"}
"""Roles whose nodes may carry a name that came from a file or a DICOM browser."""


def save_without_identifiers(host: Host, path: str | Path, words: Iterable[str] = ()) -> Path:
    """Write the scene's FluoroGuide case to ``path`` (``.mrb``) without identifiers.

    Parameters
    ----------
    words
        Known identifiers to take out of texts; those of the scene's subject hierarchy and DICOM attributes are known already.

    Raises
    ------
    FluoroGuideError
        See :func:`~FluoroGuideLib.scene.case.save_mrb`.
    """
    scrubber = Scrubber([*words, *scene_identifiers(host)])
    with ExitStack() as undo:
        undo.callback(host.scene.EndState, host.scene.BatchProcessState)
        host.scene.StartState(host.scene.BatchProcessState)
        for node in list(_nodes(host)):
            _hide(host, node, scrubber, undo)
        _hide_hierarchy(host, scrubber, undo)
        return save_mrb(host, path)


def scene_identifiers(host: Host) -> set[str]:
    """What the scene itself knows of patients: values of DICOM attributes of nodes and of the subject hierarchy, names of patient items."""
    words: set[str] = set()
    for node in _nodes(host):
        for name in node.GetAttributeNames() or ():
            if name.startswith("DICOM."):
                words |= set((node.GetAttribute(name) or "").split())
    tree, items = _items(host)
    for item in items:
        words |= {tree.GetItemAttribute(item, name) for name in _attribute_names(tree, item) if name.startswith("DICOM.")}
        if tree.GetItemLevel(item) in ("Patient", "Study"):
            words.add(tree.GetItemName(item))
    return {w for w in words if w and len(w) > 2}


def _nodes(host: Host) -> Iterator[Any]:
    for i in range(host.scene.GetNumberOfNodes()):
        yield host.scene.GetNthNode(i)


# ---- nodes ------------------------------------------------------------------------------------------------------------
def _hide(host: Host, node: Any, scrubber: Scrubber, undo: ExitStack) -> None:
    """Take one node out of the file, or its identifiers out of it."""
    role = node.GetAttribute(ROLE)
    for name in list(node.GetAttributeNames() or ()):
        if name.startswith("DICOM."):
            _change(
                undo, node.GetAttribute(name), lambda value,
                n=name: node.SetAttribute(n, value) if value is not None else node.RemoveAttribute(n), None,
            )
        elif name.startswith("FluoroGuide.") and name not in (ROLE, KEY):
            _change(undo, node.GetAttribute(name), lambda value, n=name: node.SetAttribute(n, value), scrubber.text(node.GetAttribute(name) or ""))
    if not role:
        if node.GetSaveWithScene() and any(node.IsA(name) for name in STAYS_AT_HOME) and not node.GetSingletonTag():
            _change(undo, 1, node.SetSaveWithScene, 0)
            if node.IsA("vtkMRMLStorableNode") and node.GetStorageNode() is not None:
                _change(undo, node.GetStorageNode().GetSaveWithScene(), node.GetStorageNode().SetSaveWithScene, 0)
        return
    key = node.GetAttribute(KEY) or ""
    _change(undo, node.GetName(), node.SetName, f"{NEUTRAL[role]} {key}".strip() if role in NEUTRAL else scrubber.text(node.GetName() or ""))
    if node.GetDescription():
        _change(undo, node.GetDescription(), node.SetDescription, "")
    if node.IsA("vtkMRMLStorableNode") and node.GetStorageNode() is not None:
        _forget_file(node.GetStorageNode(), undo)
    if node.IsA("vtkMRMLTextNode"):
        _change(undo, node.GetText(), node.SetText, clean_text(node.GetText(), scrubber))
    elif role == "xray":
        _mask_pixels(host, node, undo)
    elif node.IsA("vtkMRMLTableNode"):
        _clean_table(node, scrubber, undo)
    elif node.IsA("vtkMRMLMarkupsNode"):
        for i in range(node.GetNumberOfControlPoints()):
            _change(
                undo, node.GetNthControlPointLabel(i), lambda value, k=i: node.SetNthControlPointLabel(k, value),
                scrubber.text(node.GetNthControlPointLabel(i) or ""),
            )


def _forget_file(storage: Any, undo: ExitStack) -> None:
    """The file that a node was loaded from names folders and patients."""
    _change(undo, storage.GetFileName() or "", storage.SetFileName, "")
    others = [storage.GetNthFileName(i) for i in range(storage.GetNumberOfFileNames())]
    if others:
        undo.callback(lambda: [storage.AddFileName(name) for name in others])
        storage.ResetFileNameList()


def _change(undo: ExitStack, old: Any, setter: Callable[[Any], Any], new: Any) -> None:
    """Set a new value now and the old one when the file is written."""
    if new != old:
        undo.callback(setter, old)
        setter(new)


def clean_text(text: str, scrubber: Scrubber) -> str:
    """A text node's content without identifiers: JSON as JSON, records by their own rules."""
    import json

    try:
        data = json.loads(text)
    except (TypeError, ValueError):
        return scrubber.text(text or "")
    if isinstance(data, dict) and data.get("format") == RECORD_FORMAT:
        data = scrubber_record(data, scrubber)
    else:
        data = scrubber.data(data)
        for event in data.get("events", []) if isinstance(data, dict) else []:
            if isinstance(event, dict) and "uid" in event:
                event["uid"] = None
        if isinstance(data, dict) and data.get("volume_name"):
            data["volume_name"] = "Volume"
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def scrubber_record(data: dict, scrubber: Scrubber) -> dict:
    """A record without identifiers, also without those that the scene knows."""
    cleaned = without_identifiers(data)
    pictures = cleaned.pop("key_images")
    kept = {k: cleaned[k] for k in ("record_id", "created_utc", "patient_key", "notice") if k in cleaned}
    words = [{k: v if k in ("png_base64", "sha256", "image_id") else scrubber.data(v) for k, v in p.items()} for p in pictures]
    result = scrubber.data(cleaned) | kept
    return {key: words if key == "key_images" else result.get(key) for key in data}


def _clean_table(node: Any, scrubber: Scrubber, undo: ExitStack) -> None:
    for row in range(node.GetNumberOfRows()):
        for column in range(node.GetNumberOfColumns()):
            old = node.GetCellText(row, column)
            _change(undo, old, lambda value, r=row, c=column: node.SetCellText(r, c, value), scrubber.text(old))


def _mask_pixels(host: Host, node: Any, undo: ExitStack) -> None:
    """Border and text of an X-ray go: outside its mask 0, thin strokes of high contrast replaced by their surroundings."""
    import slicer

    pixels = slicer.util.arrayFromVolume(node)
    mask_node = find(host, "xray-mask", node.GetAttribute(KEY) or "")
    inside = slicer.util.arrayFromVolume(mask_node)[0] > 0 if mask_node is not None else np.ones(pixels.shape[1:], bool)
    old = pixels.copy()
    low, high = (float(v) for v in (old[0][inside].min(), old[0][inside].max())) if inside.any() else (0.0, 1.0)
    grey = np.clip((old[0] - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    size = max(5, round(7 * max(grey.shape) / 1024)) | 1
    hole = text_mask(grey, inside, size)
    cleaned = masked_picture(grey, inside).astype(np.float64) / 255 * (high - low) + low
    changed = np.where(inside & ~_near(hole), old[0], np.where(inside, cleaned, 0)).astype(old.dtype)

    def put(array: np.ndarray) -> None:
        slicer.util.arrayFromVolume(node)[:] = array
        slicer.util.arrayFromVolumeModified(node)

    undo.callback(put, old)
    put(changed[None])


def _near(hole: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_dilation(hole, iterations=2)


# ---- subject hierarchy --------------------------------------------------------------------------------------------------
def _items(host: Host) -> tuple[Any, list[int]]:
    import slicer
    import vtk

    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    ids = vtk.vtkIdList()
    tree.GetItemChildren(tree.GetSceneItemID(), ids, True)
    return tree, [ids.GetId(i) for i in range(ids.GetNumberOfIds())]


def _attribute_names(tree: Any, item: int) -> list[str]:
    return list(tree.GetItemAttributeNames(item) or ())


def _hide_hierarchy(host: Host, scrubber: Scrubber, undo: ExitStack) -> None:
    tree, items = _items(host)
    for item in items:
        for name in _attribute_names(tree, item):
            if name.startswith("DICOM."):
                value = tree.GetItemAttribute(item, name)
                undo.callback(tree.SetItemAttribute, item, name, value)
                tree.RemoveItemAttribute(item, name)
        for name in ("DICOM", "DICOMInstance"):
            value = tree.GetItemUID(item, name)
            if value:
                undo.callback(tree.SetItemUID, item, name, value)
                tree.SetItemUID(item, name, "")
        level, node = tree.GetItemLevel(item), tree.GetItemDataNode(item)
        neutral = level if level in ("Patient", "Study") else "Folder" if node is None and tree.GetItemAttribute(item, ROLE) != "case" else None
        if neutral is not None:
            _change(undo, tree.GetItemName(item), lambda value, i=item: tree.SetItemName(i, value), neutral)
        elif node is None:
            _change(undo, tree.GetItemName(item), lambda value, i=item: tree.SetItemName(i, value), scrubber.text(tree.GetItemName(item)))
