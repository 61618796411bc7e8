"""Find, make and link the nodes of a case.

A node of FluoroGuide is known by its attributes ``FluoroGuide.role`` (what it is) and ``FluoroGuide.key`` (which one
of several), never by its name: names are the user's, and Slicer changes them on load.  Links are node references,
which Slicer keeps valid through save and load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..geometry.frames import ras_from_ijk, ras_from_lps
from .host import Host

PREFIX = "FluoroGuide."
ROLE = PREFIX + "role"
KEY = PREFIX + "key"


_looked_up: list[dict[str, list[Any]]] = []
"""While something is only looked at (:func:`looking`): role -> nodes, found in one pass; empty until then."""


@contextlib.contextmanager
def looking(host: Host) -> Iterator[None]:
    """For code that reads much and changes nothing: the scene's nodes are gone through once instead of for every question."""
    _looked_up.append({})
    try:
        yield
    finally:
        _looked_up.pop()


def _look_again() -> None:
    for n in range(len(_looked_up)):
        _looked_up[n] = {}


def _by_role(host: Host) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in host.scene.GetNodes():
        found.setdefault(node.GetAttribute(ROLE) or "", []).append(node)
    return found


def find_all(host: Host, role: str) -> list[Any]:
    """Nodes with a role, in the order they were made."""
    if not _looked_up:
        return [node for node in host.scene.GetNodes() if node.GetAttribute(ROLE) == role]
    if not _looked_up[-1]:
        _looked_up[-1] = _by_role(host)
    return list(_looked_up[-1].get(role, ()))


def find(host: Host, role: str, key: str = "") -> Any | None:
    """The node with a role and key, or None."""
    return next((node for node in find_all(host, role) if (node.GetAttribute(KEY) or "") == key), None)


def obtain(host: Host, class_name: str, role: str, name: str, key: str = "") -> Any:
    """The node with a role and key; made when missing, renamed when it has another name."""
    node = find(host, role, key)
    if node is not None and not node.IsA(class_name):
        host.scene.RemoveNode(node)
        node = None
    if node is None:
        node = host.scene.AddNewNodeByClass(class_name, name)
        node.SetAttribute(ROLE, role)
        node.SetAttribute(KEY, key)
        _look_again()
    if node.GetName() != name:
        node.SetName(name)
    return node


def remove(host: Host, role: str, keep: Callable[[str], bool] | None = None) -> None:
    """Remove the nodes of a role with their display and storage nodes, except those whose key ``keep`` accepts."""
    for node in find_all(host, role):
        if keep is None or not keep(node.GetAttribute(KEY) or ""):
            extra = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())] if node.IsA("vtkMRMLDisplayableNode") else []
            if node.IsA("vtkMRMLStorableNode"):
                extra.append(node.GetStorageNode())
            _forget_item(host, node)
            host.scene.RemoveNode(node)
            for other in filter(None, extra):
                host.scene.RemoveNode(other)
    _look_again()


def _forget_item(host: Host, node: Any) -> None:
    """Take a node's item out of the subject hierarchy, which the application does by itself and a plain scene does not."""
    tree = host.scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")  # Slicer's own getter would make one
    item = tree.GetItemByDataNode(node) if tree is not None else 0
    if item:
        tree.RemoveItem(item, False, False)


def set_reference(owner: Any, role: str, nodes: list[Any]) -> None:
    """Let ``owner`` point at ``nodes`` under ``FluoroGuide.<role>``, replacing what it pointed at."""
    owner.RemoveNodeReferenceIDs(PREFIX + role)
    for node in nodes:
        owner.AddNodeReferenceID(PREFIX + role, node.GetID())


def references(owner: Any, role: str) -> list[Any]:
    """The nodes that ``owner`` points at under ``FluoroGuide.<role>``."""
    found = [owner.GetNthNodeReference(PREFIX + role, i) for i in range(owner.GetNumberOfNodeReferences(PREFIX + role))]
    return [node for node in found if node is not None]


# ---- numbers in and out -------------------------------------------------------------------------------------------
def vtk_matrix(matrix: np.ndarray) -> Any:
    """A ``vtkMatrix4x4`` with the numbers of a 4x4 array."""
    import vtk

    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    return result


def array_of(matrix: Any) -> np.ndarray:
    """The 4x4 array of a ``vtkMatrix4x4``."""
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def set_volume(node: Any, image: Any) -> None:
    """Fill a volume node with a copy of a 3-D SimpleITK image and its geometry."""
    import SimpleITK as sitk
    import slicer

    slicer.util.updateVolumeFromArray(node, sitk.GetArrayViewFromImage(image))
    node.SetIJKToRASMatrix(vtk_matrix(ras_from_ijk(image)))


def volume_image(node: Any) -> Any:
    """A SimpleITK copy (LPS) of a volume node, in the volume's own frame (parent transforms are not applied)."""
    import SimpleITK as sitk
    import slicer
    import vtk

    image = sitk.GetImageFromArray(slicer.util.arrayFromVolume(node))
    directions = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(directions)
    image.SetSpacing(node.GetSpacing())
    image.SetOrigin(ras_from_lps(node.GetOrigin()).tolist())
    image.SetDirection(ras_from_lps(array_of(directions)[:3, :3].T).T.ravel().tolist())
    return image


def text_node(host: Host, role: str, name: str, value: Any, key: str = "") -> Any:
    """A text node that holds JSON."""
    node = obtain(host, "vtkMRMLTextNode", role, name, key)
    node.SetText(json.dumps(value, ensure_ascii=False, allow_nan=False))
    return node


def text_value(host: Host, role: str, key: str = "") -> Any | None:
    """The JSON value of a text node, or None when there is no such node."""
    node = find(host, role, key)
    return None if node is None or not node.GetText() else json.loads(node.GetText())

def plain(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses and arrays unfolded, numpy numbers plain, NaN as None."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
