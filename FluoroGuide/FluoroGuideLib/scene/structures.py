"""The structures of a segmentation as one label image for the worker."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..engine.volumes import RawLabels
from ..errors import FluoroGuideError
from .nodes import array_of
from .raw_volumes import _between, _geometry

BINARY = "Binary labelmap"


class Structures:
    """Segments of a segmentation node, by name, in the frame of a volume; made again only when they changed."""

    def __init__(self) -> None:
        self._kept: tuple[tuple, RawLabels | None] | None = None

    def forget(self) -> None:
        """The scene is being closed."""
        self._kept = None

    def labels(self, node: Any | None, volume: Any, wanted: Collection[str]) -> RawLabels | None:
        """The wanted segments as one label image; None without a node, or when it has none of them.

        Raises
        ------
        FluoroGuideError
            The segmentation hangs under a transform that bends or stretches, or its segments lie on different grids.
        """
        if node is None:
            return None
        segmentation = node.GetSegmentation()
        ids = [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]
        found = {key: segmentation.GetSegment(key) for key in ids if segmentation.GetSegment(key).GetName() in wanted}
        layers = {key: segment.GetRepresentation(BINARY) for key, segment in found.items()}
        between = _between(node, volume)
        state = (node.GetID(), volume.GetID(), between.tobytes(),
                 *((k, s.GetName(), layers[k].GetMTime() if layers[k] is not None else 0) for k, s in found.items()))
        if self._kept is None or self._kept[0] != state:
            usable = {k: s for k, s in found.items() if layers[k] is not None and layers[k].GetNumberOfPoints()}
            self._kept = state, _joined(usable, layers, between) if usable else None
        return self._kept[1]


def _joined(segments: dict[str, Any], layers: dict[str, Any], between: np.ndarray) -> RawLabels:
    from vtk.util.numpy_support import vtk_to_numpy

    pieces = []
    for key, segment in segments.items():
        layer, extent = layers[key], layers[key].GetExtent()
        shape = [extent[2 * a + 1] - extent[2 * a] + 1 for a in (2, 1, 0)]
        voxels = vtk_to_numpy(layer.GetPointData().GetScalars()).reshape(shape)
        pieces.append((voxels, segment.GetLabelValue(), segment.GetName(), _to_ras(layer), layer))
    first = pieces[0]
    if all(piece[4] is first[4] for piece in pieces):  # one shared layer, as segmentations usually are: no copy
        return RawLabels(first[0], *_geometry(between @ first[3]), name="Structures", names={value: name for _, value, name, _, _ in pieces})
    if not all(piece[0].shape == first[0].shape and np.allclose(piece[3], first[3], atol=1e-4) for piece in pieces):
        return _on_one_grid(pieces, between)
    voxels = np.zeros(first[0].shape, np.uint8)
    for number, (array, value, _, _, _) in enumerate(pieces, 1):
        voxels[array == value] = number
    return RawLabels(voxels, *_geometry(between @ first[3]), name="Structures", names={n: p[2] for n, p in enumerate(pieces, 1)})


def _on_one_grid(pieces: list[tuple], between: np.ndarray) -> RawLabels:
    """Pieces of one grid but different extents, in the box that holds all of them."""
    base = np.linalg.inv(pieces[0][3])
    offsets = []
    for array, _, name, matrix, _ in pieces:
        step = base @ matrix
        if not np.allclose(step[:3, :3], np.eye(3), atol=1e-4):
            raise FluoroGuideError("The structures lie on different grids", name, "Resample the segmentation to one geometry")
        start = np.round(step[:3, 3]).astype(int)
        offsets.append((start, start + np.array(array.shape[::-1])))
    low, high = np.min([o[0] for o in offsets], axis=0), np.max([o[1] for o in offsets], axis=0)
    voxels = np.zeros((high - low)[::-1], np.uint8)
    for number, ((array, value, _, _, _), (start, end)) in enumerate(zip(pieces, offsets, strict=True), 1):
        i, j, k = (slice(s, e) for s, e in zip(start - low, end - low, strict=True))
        voxels[k, j, i][array == value] = number
    matrix = pieces[0][3].copy()
    matrix[:3, 3] += matrix[:3, :3] @ low
    return RawLabels(voxels, *_geometry(between @ matrix), name="Structures", names={n: p[2] for n, p in enumerate(pieces, 1)})


def _to_ras(layer: Any) -> np.ndarray:
    import vtk

    matrix, extent = vtk.vtkMatrix4x4(), layer.GetExtent()
    layer.GetImageToWorldMatrix(matrix)
    result = array_of(matrix)
    result[:3, 3] += result[:3, :3] @ np.array(extent[0::2], float)
    return result
