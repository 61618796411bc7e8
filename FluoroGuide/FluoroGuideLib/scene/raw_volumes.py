"""Volumes, label maps and segmentations of the scene as the engine takes them: views of their memory, nothing converted here."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.volumes import RawLabels, RawVolume
from ..errors import FluoroGuideError
from ..geometry.frames import LPS_FROM_RAS
from .nodes import array_of

MODALITY = "FluoroGuide.modality"
"""Attribute of a volume node: what the user said that it is (``CT``, ``CBCT`` or ``MR``), where it is not recognised rightly."""
LEAST_DET = 0.5
"""A grid whose axes are this far from perpendicular cannot be told to the engine."""


def raw_volume(node: Any, name: str = "Volume") -> RawVolume:
    """The voxels of a scalar volume in its own frame; ``name`` carries no identifiers.

    Raises
    ------
    FluoroGuideError
        The node holds no voxels, or is no three-dimensional volume.
    """
    import slicer
    import vtk

    if node.GetImageData() is None or not node.GetImageData().GetNumberOfPoints():
        raise FluoroGuideError("The volume holds no voxels", node.GetName(), "Choose another volume")
    voxels = slicer.util.arrayFromVolume(node)
    if voxels.ndim != 3 or min(voxels.shape) < 2:
        raise FluoroGuideError("The volume is not three-dimensional", f"{node.GetName()}: {voxels.shape}", "Choose a CT volume")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    modality, contrast, facts = told_by_tags(node)
    return RawVolume(voxels, *_geometry(array_of(matrix)), modality, name, contrast, facts)


def told_by_tags(node: Any) -> tuple[str, str, dict]:
    """(modality, MR contrast, tags without free text) of a volume node: what a person set, else what its DICOM file says; else empty."""
    from ..anatomy.mr_series import PRIVATE, contrast_of

    facts = _tags(node)
    modality = said_modality(node) or str(facts.get("modality", ""))
    return modality, contrast_of(facts) if modality == "MR" else "", {k: v for k, v in facts.items() if k not in PRIVATE}


def _tags(node: Any) -> dict:
    """Tags of the DICOM file that a volume node was loaded from; empty where it is not known."""
    from ..anatomy.mr_series import read_facts
    from .dicom_database import UIDS, database

    found, uids = database(), (node.GetAttribute(UIDS) or "").split()
    path = found.fileForInstance(uids[0]) if found is not None and uids else ""
    return read_facts(path) if path else {}


def said_modality(node: Any) -> str:
    """What the user said that a volume is: ``CT``, ``CBCT`` or ``MR``; empty: to be recognised."""
    return node.GetAttribute(MODALITY) or ""


def say_modality(node: Any, modality: str) -> None:
    """Remember what a volume is, whatever its tags and values say; empty: recognise it again."""
    if modality:
        node.SetAttribute(MODALITY, modality)
    else:
        node.RemoveAttribute(MODALITY)


def seen_modality(node: Any) -> str:
    """What a volume's tags say that it is, or where there are none its values; empty without voxels."""
    from ..anatomy.mr_series import modality_of_lowest

    told = str(_tags(node).get("modality", ""))
    if told or node.GetImageData() is None:
        return told
    return modality_of_lowest(node.GetImageData().GetScalarRange()[0])[0]


def content_key(node: Any) -> tuple:
    """Changes whenever voxels or geometry of a volume node do, or what the user says that it is."""
    image = node.GetImageData()
    key = None if image is None else (image.GetAddressAsString(""), image.GetMTime())
    return (node.GetID(), said_modality(node), key, *node.GetSpacing(), *node.GetOrigin())


def bones_of(node: Any | None) -> list[tuple[str, str]]:
    """(key, name) of what can be registered on its own: segments of a segmentation, values of a label map."""
    if node is None:
        return []
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        ids = [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]
        return [(key, segmentation.GetSegment(key).GetName()) for key in ids]
    if node.IsA("vtkMRMLLabelMapVolumeNode") and node.GetImageData() is not None:
        import slicer

        # every third voxel: a bone is larger, and a whole CT would take a second
        values = np.unique(slicer.util.arrayFromVolume(node)[::3, ::3, ::3])
        return [(str(int(v)), _label_name(node, int(v))) for v in values if v > 0]
    return []


def _label_name(node: Any, value: int) -> str:
    colors = node.GetDisplayNode().GetColorNode() if node.GetDisplayNode() is not None else None
    name = colors.GetColorName(value) if colors is not None and value < colors.GetNumberOfColors() else ""
    return name if name and not name.isdigit() else f"label {value}"


def raw_labels(node: Any, key: str, volume: Any) -> tuple[RawLabels, int]:
    """(label image in the frame of ``volume``, label value) of one bone: see :func:`bones_of`.

    Raises
    ------
    FluoroGuideError
        The bone is not there, is empty, or lies under a transform that bends or stretches.
    """
    names = dict(bones_of(node))
    if key not in names:
        raise FluoroGuideError("The bone is not in the segmentation", key or "none chosen", "Choose another bone")
    if node.IsA("vtkMRMLSegmentationNode"):
        voxels, matrix, value = _segment(node, key)
    else:
        import slicer
        import vtk

        grid = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(grid)
        voxels, matrix, value = slicer.util.arrayFromVolume(node), array_of(grid), int(key)
    if voxels is None or not voxels.size:
        raise FluoroGuideError("The bone's segment is empty", names[key], "Choose another bone")
    return RawLabels(voxels, *_geometry(_between(node, volume) @ matrix), name="Bones", names={value: names[key]}), value


def _segment(node: Any, key: str) -> tuple[np.ndarray | None, np.ndarray, int]:
    """One segment on its own grid, no larger than it needs: voxels, IJK to RAS, 1."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    if not node.GetBinaryLabelmapRepresentation(key, image) or not image.GetNumberOfPoints():
        return None, np.eye(4), 1
    matrix, extent = vtk.vtkMatrix4x4(), image.GetExtent()
    image.GetImageToWorldMatrix(matrix)
    shape = [extent[2 * a + 1] - extent[2 * a] + 1 for a in (2, 1, 0)]
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    to_ras = array_of(matrix)
    to_ras[:3, 3] += to_ras[:3, :3] @ np.array(extent[0::2], float)
    return voxels.copy(), to_ras, 1


def _between(node: Any, volume: Any) -> np.ndarray:
    """4x4 RAS from a node's own frame to that of the volume, whatever transforms both hang under.

    Raises
    ------
    FluoroGuideError
        A transform between them is not rigid.
    """
    import slicer
    import vtk

    first, second = node.GetParentTransformNode(), volume.GetParentTransformNode()
    if first is second:
        return np.eye(4)
    for one in (first, second):
        if one is not None and not one.IsTransformToWorldLinear():
            raise FluoroGuideError("The bones lie under a transform that bends", one.GetName(), "Harden it, or move the bones out of it")
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(first, second, matrix)
    result = array_of(matrix)
    if not np.allclose(result[:3, :3] @ result[:3, :3].T, np.eye(3), atol=1e-3):
        raise FluoroGuideError("The bones lie under a transform that stretches", node.GetName(), "Harden it, or move the bones out of it")
    return result


def _geometry(ras_from_ijk: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """(spacing, origin, direction), LPS, of an IJK-to-RAS matrix."""
    matrix = LPS_FROM_RAS @ ras_from_ijk
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    direction = matrix[:3, :3] / spacing
    if abs(np.linalg.det(direction)) < LEAST_DET:
        raise FluoroGuideError("The volume's axes are not perpendicular", None, "Resample it first")
    return tuple(map(float, spacing)), tuple(map(float, matrix[:3, 3])), tuple(map(float, direction.ravel()))
