"""True projected silhouettes of bone surfaces: where a ray from the source just touches the bone.

A surface is a closed triangle mesh.  Its contour is every edge between a triangle that faces the source and one that
does not; the contour's closed loops are followed by sorting alone.  Parts inside the bone's own shadow are *hidden*
(drawn dimmed): the number of layers under a pixel is the winding number of the projected loops around it (A. Appel,
"The notion of quantitative invisibility", 1967).

Meshes come from a threshold by surface nets (S. Gibson, MICCAI 1998), one vertex per cell that the surface passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.frames import lps_from_ijk
from ..geometry.rigid import apply, inverse
from .hidden import split_hidden
from .shapes import DrawnView

FOLLOW_DEG = 1.0
"""The rim of a round bone moves by R (1 - cos) when the beam turns over it: below 0.01 mm for R = 60 mm and 1 degree."""
SHORTEST_HIDDEN_MM = 20.0
"""Shorter loops inside the shadow are bumps of the surface, no anatomy."""
SMALLEST_MM = 6.0
"""Loops that span less than this are not drawn at all."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface.

    Attributes
    ----------
    name
        For people.
    vertices_lps_mm
        (V, 3), volume LPS.
    triangles
        (T, 3) indices, counter-clockwise seen from outside.
    """

    name: str
    vertices_lps_mm: np.ndarray
    triangles: np.ndarray
    _normals: np.ndarray = field(init=False, repr=False)
    _offsets: np.ndarray = field(init=False, repr=False)
    _edges: tuple = field(init=False, repr=False)

    def __post_init__(self) -> None:
        v, t = np.asarray(self.vertices_lps_mm, float), np.asarray(self.triangles, np.int64)
        shapes = v.ndim == t.ndim == 2 and v.shape[1] == t.shape[1] == 3 and len(t) >= 4
        if not shapes or not np.isfinite(v).all() or t.min() < 0 or t.max() >= len(v):
            raise FluoroGuideError("The surface is not a list of finite points and triangles", f"{v.shape}, {t.shape}")
        object.__setattr__(self, "vertices_lps_mm", v)
        object.__setattr__(self, "triangles", t)
        normals = np.cross(v[t[:, 1]] - v[t[:, 0]], v[t[:, 2]] - v[t[:, 0]])
        object.__setattr__(self, "_normals", normals)
        object.__setattr__(self, "_offsets", np.einsum("ij,ij->i", normals, v[t[:, 0]]))
        object.__setattr__(self, "_edges", _paired_edges(t, len(v)))

    @property
    def center_lps_mm(self) -> np.ndarray:
        """Mean vertex (3,)."""
        return self.vertices_lps_mm.mean(0)

    def contour(self, source_lps_mm: np.ndarray) -> list[np.ndarray]:
        """Closed loops of vertex indices (first repeated at the end) where the surface turns away from a point (3,)."""
        facing = self._normals @ np.asarray(source_lps_mm, float) > self._offsets
        a, b, forward, backward = self._edges
        rim = facing[forward] != facing[backward]
        front = facing[forward[rim]]
        start, end = np.where(front, a[rim], b[rim]), np.where(front, b[rim], a[rim])
        return _loops(start, end)


def _paired_edges(triangles: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(start, end, triangle that runs start to end, triangle that runs end to start) of every edge of a closed mesh."""
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    owner = np.repeat(np.arange(len(triangles)), 3)
    up = start < end
    key = np.where(up, start * count + end, end * count + start)
    one, other = np.flatnonzero(up), np.flatnonzero(~up)
    one, other = one[np.argsort(key[one], kind="stable")], other[np.argsort(key[other], kind="stable")]
    if len(one) != len(other) or (key[one] != key[other]).any():
        raise FluoroGuideError("The surface is not closed", None, "Close it, for example by a border of air around the volume")
    return start[one], end[one], owner[one], owner[other]


def _loops(start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    """Closed loops of directed edges: every vertex has as many edges that arrive as edges that leave."""
    if not len(start):
        return []
    follows = np.empty(len(start), np.int64)
    follows[np.argsort(end, kind="stable")] = np.argsort(start, kind="stable")
    follows_list, seen, loops = follows.tolist(), bytearray(len(start)), []
    for first in range(len(start)):
        if seen[first]:
            continue
        path, here = [], first
        while not seen[here]:
            seen[here] = 1
            path.append(here)
            here = follows_list[here]
        loops.append(np.append(start[path], start[path[0]]))
    return loops


class Silhouette:
    """The silhouette of one surface in one view, updated with as little work as the motion asks for."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self._points = np.empty((0, 3))
        self._bounds: list[tuple[int, int, bool]] = []
        self._seen_from: np.ndarray | None = None
        self.extractions = 0

    def update(self, view: CArmView | DrawnView, pose: np.ndarray) -> list[tuple[np.ndarray, bool]]:
        """Polylines (N, 2) in pixels, each with ``hidden``, at a pose volume -> isocentre (4x4)."""
        drawn = view if isinstance(view, DrawnView) else DrawnView(view)
        source = apply(inverse(pose), drawn.source_mm)
        away = source - self.surface.center_lps_mm
        if self._seen_from is None or not _alike(away, self._seen_from):
            self._extract(drawn, pose, source)
            self._seen_from = away
        if not len(self._points):
            return []
        pixels = drawn.project(apply(pose, self._points))
        return [(pixels[a:b], hidden) for a, b, hidden in self._bounds]

    def _extract(self, view: DrawnView, pose: np.ndarray, source: np.ndarray) -> None:
        self.extractions += 1
        loops = self.surface.contour(source)
        self._points, self._bounds = np.empty((0, 3)), []
        if not loops:
            return
        ends = np.cumsum([0] + [len(loop) for loop in loops])
        vertices = self.surface.vertices_lps_mm[np.concatenate(loops)]
        span = np.maximum.reduceat(vertices, ends[:-1]) - np.minimum.reduceat(vertices, ends[:-1])
        pixels = np.split(view.project(apply(pose, vertices)), ends[1:-1])
        shortest = SHORTEST_HIDDEN_MM / _mm_per_px(view, apply(pose, self.surface.center_lps_mm))
        pieces = split_hidden(pixels, (view.columns, view.rows), span.sum(1) > SMALLEST_MM, shortest)
        if not pieces:
            return
        places = np.concatenate([ends[p.loop] + p.places for p in pieces])
        k = np.minimum(places.astype(np.int64), len(vertices) - 2)
        part = (places - k)[:, None]
        self._points = (1 - part) * vertices[k] + part * vertices[k + 1]
        stops = np.cumsum([0] + [len(p.places) for p in pieces]).tolist()
        self._bounds = [(a, b, p.hidden) for a, b, p in zip(stops[:-1], stops[1:], pieces, strict=True)]


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    la, lb = np.linalg.norm(a), np.linalg.norm(b)
    return abs(la / lb - 1) < 0.02 and a @ b > np.cos(np.radians(FOLLOW_DEG)) * la * lb


def _mm_per_px(view: DrawnView, point_mm: np.ndarray) -> float:
    step = np.linalg.norm(view.project_jacobian(point_mm)[0], axis=0).max()
    return float(1 / max(step, 1e-9))


# ---- meshes -----------------------------------------------------------------------------------------------------
def surface_from_image(image: object, level: float, name: str, step_mm: float = 1.5) -> Surface:
    """The outer surface of the bone above ``level`` in a SimpleITK image (attenuation, HU, or a 0..1 weight or label).

    Marrow is filled (its inner surface draws no outline), specks are left out, and the mask is smoothed by about a cell.

    Parameters
    ----------
    step_mm
        Size of the cells.

    Raises
    ------
    FluoroGuideError
        Nothing lies above the level.
    """
    import SimpleITK as sitk

    old, size = np.asarray(image.GetSpacing()), np.asarray(image.GetSize())
    count = np.maximum(2, np.ceil((size - 1) * old / step_mm).astype(int) + 1)
    small = sitk.Cast(image, sitk.sitkFloat32)
    if step_mm > 1.2 * old.min():
        small = sitk.SmoothingRecursiveGaussian(small, [float(0.42 * max(step_mm, s)) for s in old])
    small = sitk.Resample(
        small, [int(n) for n in count], sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), ((size - 1) * old / (count - 1)).tolist(),
        image.GetDirection(), 0.0, sitk.sitkFloat32,
    )
    solid = _solid(sitk.GetArrayFromImage(small) > level, step_mm)
    if not solid.any():
        raise FluoroGuideError("There is no bone to outline", f"{name}, nothing above {level:g}", "Check the volume or the label")
    from scipy.ndimage import gaussian_filter

    padded = gaussian_filter(np.pad(solid, 3).astype(np.float32), 0.8)
    ijk, triangles = surface_net(padded, 0.5)
    if not len(triangles):
        raise FluoroGuideError("There is no bone to outline", f"{name}, only specks", "Check the volume or the label")
    points = apply(lps_from_ijk(small), ijk - 3.0)
    if np.linalg.det(lps_from_ijk(small)[:3, :3]) < 0:  # index axes that mirror turn the triangles inside out
        triangles = triangles[:, ::-1]
    return Surface(name, points, triangles)


def _solid(bone: np.ndarray, step_mm: float) -> np.ndarray:
    """A mask [k, j, i] without marrow and specks."""
    from scipy.ndimage import binary_closing, binary_fill_holes, label

    reach = max(1, round(2.0 / step_mm))
    bone = binary_closing(np.pad(bone, reach), iterations=reach)[reach:-reach, reach:-reach, reach:-reach]
    for k in range(len(bone)):
        bone[k] = binary_fill_holes(bone[k])
    labels, _ = label(bone)
    sizes = np.bincount(labels.ravel()) * step_mm**3
    sizes[0] = 0
    return (sizes > min(500.0, 0.5 * sizes.max(initial=0.0)))[labels]


def surface_net(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) as (i, j, k) and triangles (T, 3), outward, of ``values`` [k, j, i] at a level; the border must lie below it."""
    inside = values > level
    corner = [inside[k : k + inside.shape[0] - 1, j : j + inside.shape[1] - 1, i : i + inside.shape[2] - 1]
              for k in (0, 1) for j in (0, 1) for i in (0, 1)]
    total = np.sum(corner, axis=0, dtype=np.int8)
    cells = np.argwhere((total > 0) & (total < 8))
    if not len(cells):
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    number = np.full(total.shape, -1, np.int64)
    number[tuple(cells.T)] = np.arange(len(cells))
    summed, count = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for u in (0, 1):
            for v in (0, 1):
                at = cells.copy()
                at[:, others[0]] += u
                at[:, others[1]] += v
                to = at.copy()
                to[:, axis] += 1
                a, b = values[tuple(at.T)], values[tuple(to.T)]
                crosses = (a > level) != (b > level)
                place = at.astype(float)
                place[crosses, axis] += ((level - a) / (b - a + (a == b)))[crosses]
                summed[crosses] += place[crosses]
                count += crosses
    vertices = (summed / count[:, None])[:, ::-1]
    return vertices, _quads(inside, number)


def _quads(inside: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Two triangles for every grid edge that the surface crosses, from the four cells around it."""
    triangles = []
    for axis in range(3):
        first = np.moveaxis(inside, axis, 0)[:-1]
        second = np.moveaxis(inside, axis, 0)[1:]
        edge = np.argwhere(np.moveaxis(first != second, 0, axis))
        leaving = inside[tuple(edge.T)]  # the surface's outside lies in +axis
        b, c = [a for a in range(3) if a != axis]
        ring = []
        for db, dc in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
            at = edge.copy()
            at[:, b] += db
            at[:, c] += dc
            ring.append(number[tuple(at.T)])
        quad = np.stack(ring, 1)
        # b, c and axis are right-handed in (k, j, i) for axis 0 and 2; (i, j, k) reverses all of them.
        flip = leaving if axis != 1 else ~leaving
        quad = np.where(flip[:, None], quad[:, ::-1], quad)
        triangles += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]
    return np.vstack(triangles)
