"""The overlay on an X-ray: guidance shapes as one model node per line width, and one node of labels.

A model in projection mode costs a fiftieth of markups curves (SLICER_FACTS 3).  Its points lie on the detector plane,
at the pixels the guidance computed: the cone beam is in the pixels, Slicer projects nothing.  While the number of
points stays, an update only overwrites coordinates and colours.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..geometry.carm import CArmView
from .host import Host
from .nodes import obtain, remove
from .xray_view import pixels_to_ras, slice_nodes, view_name

RIM_RGBA, RIM_WIDTH = (0, 0, 0, 255), 4
STALE_RGBA = (150, 150, 150, 255)
"""Stale overlays turn grey: opacity would still look alive (SLICER_FACTS 3.1)."""
TOP_MARGIN = 0.03
"""Part of the image's height kept free of label points at the top."""


def _runs(pixels: np.ndarray) -> list[np.ndarray]:
    """Unbroken stretches (two points or more) of a polyline (N, 2): NaN marks points that cannot be projected."""
    pixels = np.asarray(pixels, float).reshape(-1, 2)
    if np.isfinite(pixels.sum()):  # the usual case: nothing to cut
        return [pixels] if len(pixels) > 1 else []
    good = np.isfinite(pixels).all(axis=1)
    edges = np.flatnonzero(np.diff(np.r_[False, good, False].astype(int)))
    return [pixels[a:b] for a, b in zip(edges[::2], edges[1::2]) if b - a > 1]


def _label_pixel(pixels: np.ndarray, role: str = "") -> np.ndarray | None:
    """Where a shape's text is written: its first point that is a number; at a target its outermost, so that the mark stays free."""
    pixels = np.asarray(pixels, float).reshape(-1, 2)
    good = pixels[np.isfinite(pixels).all(axis=1)]
    if role == "target" and len(good):
        return good[np.argmax(good[:, 0])]
    return good[0] if len(good) else None


class Colors:
    """The overlay's colour table, shared by all views: each RGBA asked for gets an entry, entry 0 is stale grey.

    Colours written directly into the cells would do as well, but then VTK reports "Bad table range" at every update.
    """

    SIZE = 256

    def __init__(self, host: Host) -> None:
        self.node = obtain(host, "vtkMRMLColorTableNode", "overlay-colors", "FluoroGuide overlay colors")
        if self.node.GetNumberOfColors() != self.SIZE:
            self.node.SetTypeToUser()
            self.node.SetNumberOfColors(self.SIZE)
            for i in range(self.SIZE):
                self._set(i, f"free-{i}", STALE_RGBA)
            self._set(0, self._name(STALE_RGBA), STALE_RGBA)
        names = [self.node.GetColorName(i) for i in range(self.SIZE)]
        self._indices = {name: i for i, name in enumerate(names) if not name.startswith("free-")}

    @staticmethod
    def _name(rgba: tuple[int, ...]) -> str:
        return "rgba-" + "-".join(str(int(c)) for c in rgba)

    def _set(self, index: int, name: str, rgba: tuple[int, ...]) -> None:
        self.node.SetColor(index, name, *(c / 255 for c in rgba))

    def index(self, rgba: tuple[int, ...]) -> int:
        """The entry of a colour; grey once the table is full (255 different colours)."""
        name = self._name(rgba)
        if name not in self._indices:
            taken = set(self._indices.values())
            free = next((i for i in range(self.SIZE) if i not in taken), None)
            if free is None:
                return 0
            self._set(free, name, rgba)
            self._indices[name] = free
        return self._indices[name]


class Lines:
    """One model node of a role: polylines of one width, a colour per line, shown in one slice view only."""

    def __init__(self, host: Host, role: str, key: str, name: str, width: int, slice_id: str, colors: Colors) -> None:
        import vtk

        self._points, self._cells = vtk.vtkPoints(), vtk.vtkCellArray()
        self._points.SetDataType(vtk.VTK_DOUBLE)
        self._color = vtk.vtkUnsignedCharArray()
        self._color.SetName("color")
        self._poly_data = vtk.vtkPolyData()
        self._poly_data.SetPoints(self._points)
        self._poly_data.SetLines(self._cells)
        self._poly_data.GetCellData().AddArray(self._color)
        self._shape: tuple[int, ...] = ()
        self.node = obtain(host, "vtkMRMLModelNode", role, name, key)
        self.node.SetAndObservePolyData(self._poly_data)
        self.node.CreateDefaultDisplayNodes()
        display = self.node.GetDisplayNode()
        display.RemoveAllViewNodeIDs()
        display.AddViewNodeID(slice_id)  # this view only; also keeps it out of 3-D
        display.SetVisibility2D(True)
        display.SetSliceDisplayMode(display.SliceDisplayProjection)
        display.SetSliceIntersectionThickness(width)
        display.SetAndObserveColorNodeID(colors.node.GetID())
        display.SetActiveScalar("color", vtk.vtkAssignAttribute.CELL_DATA)
        display.SetScalarRangeFlag(display.UseManualScalarRange)
        display.SetScalarRange(0, Colors.SIZE - 1)
        display.SetScalarVisibility(True)

    def update(self, lines_ras: list[np.ndarray], colors: list[int]) -> None:
        """New polylines (N, 3) and the entry of each in the colour table."""
        from vtk.util.numpy_support import vtk_to_numpy

        shape = tuple(map(len, lines_ras))
        if shape != self._shape:
            self._points.SetNumberOfPoints(sum(shape))
            self._color.SetNumberOfTuples(len(shape))
            self._cells.Reset()
            first = 0
            for count in shape:
                self._cells.InsertNextCell(count)
                for i in range(first, first + count):
                    self._cells.InsertCellPoint(i)
                first += count
            self._cells.Modified()
            self._shape = shape
        if shape:
            vtk_to_numpy(self._points.GetData())[:] = np.vstack(lines_ras)
            vtk_to_numpy(self._color)[:] = colors
        self._points.GetData().Modified()
        self._points.Modified()
        self._color.Modified()
        self._poly_data.Modified()


class Labels:
    """One node of white texts, shown in one slice view only."""

    def __init__(self, host: Host, role: str, key: str, name: str, slice_id: str) -> None:
        self.node = obtain(host, "vtkMRMLMarkupsFiducialNode", role, name, key)
        self.node.CreateDefaultDisplayNodes()
        self.node.SetLocked(True)
        display = self.node.GetDisplayNode()
        display.RemoveAllViewNodeIDs()
        display.AddViewNodeID(slice_id)
        display.SetTextScale(2.2)
        display.SetUseGlyphScale(True)
        display.SetGlyphScale(0.4)
        display.SetPointLabelsVisibility(True)
        text = display.GetTextProperty()
        text.SetFontFamilyToArial()
        text.SetBold(False)
        text.SetShadow(True)
        text.SetBackgroundColor(0, 0, 0)
        text.SetBackgroundOpacity(0.45)

    def update(self, points_ras: np.ndarray, texts: list[str], grey: bool = False) -> None:
        """Texts at points (N, 3), in place while their number stays."""
        import slicer

        node, shade = self.node, 0.6 if grey else 1.0
        with slicer.util.NodeModify(node):
            if node.GetNumberOfControlPoints() != len(points_ras):
                node.RemoveAllControlPoints()
                for _ in points_ras:
                    node.AddControlPoint(0.0, 0.0, 0.0)
            for i, (point, text) in enumerate(zip(points_ras, texts)):
                node.SetNthControlPointPosition(i, *point)
                if node.GetNthControlPointLabel(i) != text:
                    node.SetNthControlPointLabel(i, text)
            display = node.GetDisplayNode()
            display.SetColor(shade, shade, shade)
            display.SetSelectedColor(shade, shade, shade)


class XrayOverlay:
    """The overlay of one X-ray view.

    Parameters
    ----------
    view
        The geometry of the image shown; :attr:`view` may be replaced when the C-arm moves.
    index
        0 for ``XRayA``, 1 for ``XRayB``, ...
    """

    def __init__(self, host: Host, view: CArmView, index: int) -> None:
        self.host, self.view, self.index = host, view, index
        self._slice_id = slice_nodes(host, view_name(index))[0].GetID()
        self._lines: dict[int, Lines] = {}
        # line models of an earlier overlay of this view (another session's, loaded) would never be updated again
        remove(host, "overlay", lambda key: not key.startswith(f"{index}/"))
        self._colors = Colors(host)
        # made first, so that it lies below: bright lines have to be seen on a bright picture as well
        self._rim = Lines(host, "overlay", f"{index}/rim", f"{view_name(index)} overlay rim", RIM_WIDTH, self._slice_id, self._colors)
        self._shapes: list[Any] = []
        self.stale = False
        self._texts = Labels(host, "overlay-labels", str(index), f"{view_name(index)} labels", self._slice_id)

    @property
    def nodes(self) -> list[Any]:
        """The model nodes (the dark rim, then thinnest first) and the label node."""
        return [self._rim.node] + [self._lines[w].node for w in sorted(self._lines)] + [self.labels]

    @property
    def labels(self) -> Any:
        """The label node."""
        return self._texts.node

    def update(self, shapes: list[Any]) -> None:
        """Show guidance shapes (``Shape(role, name, pixels (N, 2), color RGBA 0-255, width, text)``), in place.

        A stale overlay stays grey until :meth:`set_stale` says otherwise.
        """
        self._shapes = list(shapes)
        groups: dict[int, list[tuple[np.ndarray, tuple]]] = {width: [] for width in self._lines}
        rims: list[np.ndarray] = []
        for shape in self._shapes:
            runs = _runs(shape.pixels)
            groups.setdefault(max(1, round(float(shape.width))), []).extend((run, tuple(shape.color)) for run in runs)
            if shape.role != "hidden":
                rims += runs
        for width, lines in groups.items():
            if width not in self._lines:
                name = f"{view_name(self.index)} overlay {width}"
                self._lines[width] = Lines(self.host, "overlay", f"{self.index}/{width}", name, width, self._slice_id, self._colors)
            self._lines[width].update(self._ras([run for run, _ in lines]), [0 if self.stale else self._colors.index(color) for _, color in lines])
        self._rim.update(self._ras(rims), [self._colors.index(RIM_RGBA)] * len(rims))
        self._update_labels()

    def set_stale(self, stale: bool) -> None:
        """Grey while the overlay may no longer fit the image; the guidance's colours again otherwise."""
        if stale != self.stale:
            self.stale = stale
            self.update(self._shapes)
        for node in self.nodes:
            node.SetAttribute("FluoroGuide.stale", "1" if stale else None)

    def clear(self) -> None:
        """Show nothing."""
        self.update([])

    def _ras(self, runs: list[np.ndarray]) -> list[np.ndarray]:
        """Pixels of every run to RAS in one go."""
        if not runs:
            return []
        points = pixels_to_ras(self.view, np.vstack(runs))
        ends = np.cumsum([0] + [len(run) for run in runs]).tolist()
        return [points[a:b] for a, b in itertools.pairwise(ends)]

    def _update_labels(self) -> None:
        places = [(_label_pixel(s.pixels, s.role), s.text) for s in self._shapes if s.text]
        # Slicer writes a label above its point: points at the upper border move down so that their text is not cut.
        highest = TOP_MARGIN * self.view.rows
        places = [((pixel[0], max(pixel[1], highest)), text) for pixel, text in places if pixel is not None]
        points = pixels_to_ras(self.view, np.array([p for p, _ in places])) if places else np.empty((0, 3))
        self._texts.update(points, [text for _, text in places], self.stale)
