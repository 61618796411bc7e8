"""The DRR over the X-ray, in the X-ray's own view: edges, blend, flicker or checkerboard.  For the eye only, never saved.

The DRR is a one-slice volume on the same detector plane, shown as the view's foreground; its edges are a label map in the
label layer.  The X-ray itself, its window and the overlay stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..geometry.carm import CArmView
from ..imaging.xray import XrayImage
from .host import Host
from .nodes import find, obtain, remove, vtk_matrix
from .xray_view import ijk_to_ras, slice_nodes, view_name

MODES = ("off", "edges", "blend", "flicker", "checkerboard")
EDGE_RGB = (0.94, 0.89, 0.26)
"""Yellow of Okabe and Ito's palette: not among the overlay's needle and bone colours."""
FIELDS = 8
"""Checkerboard fields along the longer side."""
SHARES = (0.02, 0.98)
_DRR, _EDGES, _COLORS = "compare", "compare-edges", "compare-colors"


def matched(drr: np.ndarray, xray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The DRR with brightness and contrast of the X-ray: their 2 and 98 percentiles inside the mask become the same.

    ``drr`` (rows, columns) may have another number of pixels over the same detector area than ``xray`` and ``mask``.
    """
    inside = xray[mask] if mask.any() else xray.ravel()
    shown = drr[drr > 0] if (drr > 0).any() else drr.ravel()
    (low, high), (a, b) = np.quantile(inside, SHARES), np.quantile(shown, SHARES)
    scale = (high - low) / (b - a) if b > a else 1.0
    return ((drr - a) * scale + low).astype(np.float32)


def sampled(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The picture on another number of pixels over the same area, nearest neighbours."""
    rows = np.minimum(((np.arange(shape[0]) + 0.5) * pixels.shape[0] / shape[0]).astype(int), pixels.shape[0] - 1)
    columns = np.minimum(((np.arange(shape[1]) + 0.5) * pixels.shape[1] / shape[1]).astype(int), pixels.shape[1] - 1)
    return pixels[np.ix_(rows, columns)]


def checkerboard(first: np.ndarray, second: np.ndarray, fields: int = FIELDS) -> np.ndarray:
    """Fields of two pictures of one shape in turn; the first one is in the upper left corner."""
    size = max(1, round(max(first.shape) / fields))
    rows, columns = np.indices(first.shape) // size
    return np.where((rows + columns) % 2 == 0, first, second)


class Comparison:
    """Shows DRRs over the X-rays of the scene; ``mode`` is one of :data:`MODES`."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self._pictures: dict[int, tuple[CArmView, np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]] = {}
        self._xray_ids: dict[int, str] = {}
        self.mode, self._on = "edges", True

    @property
    def host(self) -> Host:
        """The scene of now."""
        return self._host()

    @property
    def shown(self) -> tuple[int, ...]:
        """The X-rays (0: A, 1: B) that have a DRR."""
        return tuple(sorted(self._pictures))

    def set(self, index: int, xray_node: Any, image: XrayImage, found: dict) -> None:
        """The engine's ``drr`` of an X-ray: ``view``, ``drr`` and ``edges``."""
        drr = matched(found["drr"], image.pixels, image.mask)
        under = sampled(np.where(image.mask, image.pixels, image.pixels[image.mask].min() if image.mask.any() else 0.0), drr.shape)
        display = xray_node.GetDisplayNode()
        window = (display.GetWindowLevelMin(), display.GetWindowLevelMax())
        self._pictures[index] = found["view"], drr, np.asarray(found["edges"], bool), under.astype(np.float32), window
        self._xray_ids[index] = xray_node.GetID()
        self._show(index)

    def set_mode(self, mode: str) -> None:
        """Another way to look."""
        if mode not in MODES:
            raise ValueError(mode)
        self.mode, self._on = mode, True
        for index in self.shown:
            self._show(index)

    def flick(self) -> None:
        """The next half of the flicker; call it from a timer.  Does nothing in other modes."""
        if self.mode == "flicker":
            self._on = not self._on
            for index in self.shown:
                slice_nodes(self.host, view_name(index))[1].SetForegroundOpacity(1.0 if self._on else 0.0)

    def clear(self) -> None:
        """Take the DRRs off the views and forget them."""
        for index in self.shown:
            composite = slice_nodes(self.host, view_name(index))[1]
            for layer, role in (("Foreground", _DRR), ("Label", _EDGES)):
                node = find(self.host, role, str(index))
                if node is not None and getattr(composite, f"Get{layer}VolumeID")() == node.GetID():
                    getattr(composite, f"Set{layer}VolumeID")(None)
            composite.SetForegroundOpacity(0.0)
        for role in (_DRR, _EDGES, _COLORS):
            remove(self.host, role)
        self.forget()

    def forget(self) -> None:
        """The scene is being closed: its nodes go by themselves."""
        self._pictures.clear()
        self._xray_ids.clear()

    # ---- nodes ----------------------------------------------------------------------------------------------------
    def _show(self, index: int) -> None:
        view, drr, edge, under, window = self._pictures[index]
        composite = slice_nodes(self.host, view_name(index))[1]
        if composite.GetBackgroundVolumeID() != self._xray_ids[index]:  # another picture is in the view
            return
        wanted = {"blend": drr, "flicker": drr, "checkerboard": checkerboard(under, drr)}.get(self.mode)
        opacity = {"blend": 0.5, "flicker": 1.0, "checkerboard": 1.0}.get(self.mode, 0.0)
        if wanted is not None:
            node = self._volume("vtkMRMLScalarVolumeNode", _DRR, index, wanted, view)
            node.GetDisplayNode().AutoWindowLevelOff()
            node.GetDisplayNode().SetWindowLevelMinMax(*window)
            composite.SetForegroundVolumeID(node.GetID())
        elif find(self.host, _DRR, str(index)) is not None:
            composite.SetForegroundVolumeID(None)
        composite.SetForegroundOpacity(opacity)
        if self.mode == "edges":
            node = self._volume("vtkMRMLLabelMapVolumeNode", _EDGES, index, edge.astype(np.uint8), view)
            node.GetDisplayNode().SetAndObserveColorNodeID(self._colors().GetID())
            composite.SetLabelVolumeID(node.GetID())
            composite.SetLabelOpacity(1.0)
        elif find(self.host, _EDGES, str(index)) is not None:
            composite.SetLabelVolumeID(None)

    def _volume(self, class_name: str, role: str, index: int, pixels: np.ndarray, view: CArmView) -> Any:
        import slicer

        node = obtain(self.host, class_name, role, f"DRR on X-ray {view_name(index)[-1]}", str(index))
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(pixels)[None])
        node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras(view)))
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetSaveWithScene(False)
        return node

    def _colors(self) -> Any:
        node = obtain(self.host, "vtkMRMLColorTableNode", _COLORS, "FluoroGuide DRR edges")
        if node.GetNumberOfColors() != 2:
            node.SetTypeToUser()
            node.SetNumberOfColors(2)
            node.SetColor(0, "none", 0.0, 0.0, 0.0, 0.0)
            node.SetColor(1, "edge", *EDGE_RGB, 1.0)
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
        return node
