"""Which parts of a projected contour lie in the bone's own shadow: exact winding numbers along scan lines.

A ray passes as many layers of bone as the contour's loops wind around its pixel (A. Appel, "The notion of quantitative
invisibility", 1967).  Along a scan line that number only changes where the contour crosses it, so sorting the
crossings gives it on both sides of every crossing without any grid: a crossing belongs to the shadow's border when
there is nothing on one side.  Scan lines run in both directions, a pixel apart, so no edge longer than that is missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPACING_PX = 1.0
STEADY_PX = 2.0
"""Shorter stretches take their neighbours' side: two crossings of one pixel decide nothing."""
TOUCH_PX = 0.5
"""The contour of a mesh runs zigzag along a smooth rim and hides itself by hundredths of a pixel: that is the rim, too."""
FAR_PX = 1e6
MARGIN_PX = 96.0
"""Looked at beyond the image, so that a small motion does not bring in what was never judged."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of a loop: ``places`` (N,) count along its vertices (2.25: a quarter of the way from vertex 2 to 3)."""

    loop: int
    places: np.ndarray
    hidden: bool


def split_hidden(loops_px: list[np.ndarray], size_px: tuple[int, int], drawn: np.ndarray, shortest_px: float) -> list[Piece]:
    """Cut closed loops (N, 2), first point repeated, into pieces on the shadow's border and pieces inside it.

    Parameters
    ----------
    size_px
        (columns, rows) of the image.
    drawn
        (L,) bool: loops that give pieces; the others only count as layers.
    shortest_px
        Pieces inside the shadow that are shorter are left out.
    """
    finite = [k for k, p in enumerate(loops_px) if len(p) > 3 and np.isfinite(p).all()]
    if not finite:
        return []
    first = np.cumsum([0] + [len(loops_px[k]) - 1 for k in finite])
    a, b = np.vstack([loops_px[k][:-1] for k in finite]), np.vstack([loops_px[k][1:] for k in finite])
    parts = [_crossings(a, b, axis, size_px[1 - axis]) for axis in (0, 1)]
    place, outer = (np.concatenate([p[n] for p in parts]) for n in (0, 1))
    order = np.argsort(place)
    place, outer = place[order], outer[order]
    bounds = np.searchsorted(place, first)
    result: list[Piece] = []
    for n, k in enumerate(finite):
        here = slice(bounds[n], bounds[n + 1])
        if drawn[k] and here.stop > here.start:
            length = np.hypot(*np.diff(loops_px[k], axis=0).T)
            result += _pieces(k, place[here] - first[n], outer[here], np.concatenate(([0.0], np.cumsum(length))), shortest_px)
    return result


def _crossings(a: np.ndarray, b: np.ndarray, axis: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    """Where edges a-b cross lines of constant coordinate 1 - ``axis``: (edge + fraction, whether nothing lies on one side)."""
    u, v = (a[:, 1 - axis] + MARGIN_PX) / SPACING_PX, (b[:, 1 - axis] + MARGIN_PX) / SPACING_PX
    last_line = int((across + 2 * MARGIN_PX) / SPACING_PX)
    low, high = (np.clip(np.ceil(f(u, v)), 0, last_line).astype(np.int64) for f in (np.minimum, np.maximum))
    count = high - low  # half open: a vertex on a line counts once
    edge = np.repeat(np.arange(len(a)), count)
    line = np.repeat(low, count) + (np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count))
    fraction = (line - u[edge]) / (v[edge] - u[edge])
    at = a[edge, axis] + fraction * (b[edge, axis] - a[edge, axis])
    sign = np.where(v[edge] > u[edge], 1, -1)
    order = np.lexsort((at, line))
    after = np.cumsum(sign[order])  # every line's signs add up to zero: one running sum serves all
    border = (after == 0) | (after == sign[order])
    outer = np.empty(len(edge), bool)
    outer[order] = border | _touches(at[order] + line[order] * FAR_PX, border)
    return edge + np.clip(fraction, 0, 1 - 1e-9), outer


def _touches(at: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Whether sorted places lie within :data:`TOUCH_PX` of one of the border."""
    places = at[border]
    if not len(places):
        return np.zeros(len(at), bool)
    k = np.clip(np.searchsorted(places, at), 1, max(len(places) - 1, 1))
    return np.minimum(np.abs(at - places[k - 1]), np.abs(at - places[np.minimum(k, len(places) - 1)])) < TOUCH_PX


def _pieces(loop: int, place: np.ndarray, outer: np.ndarray, arc: np.ndarray, shortest_px: float) -> list[Piece]:
    total, edges = arc[-1], len(arc) - 1
    at = np.interp(place, np.arange(edges + 1), arc)
    outer = _steady(outer, at, total)
    change = np.flatnonzero(outer != np.roll(outer, 1))  # sample k differs from the one before it
    if not len(change):
        if not outer[0] and total < shortest_px:
            return []
        return [Piece(loop, np.arange(edges + 1.0), not bool(outer[0]))]
    before = np.where(change > 0, at[change - 1], at[-1] - total)
    borders = 0.5 * (before + at[change])  # may be negative: the loop closes there
    result = []
    for n, k in enumerate(change):
        begin = borders[n]
        end = borders[n + 1] if n + 1 < len(change) else borders[0] + total
        if outer[k] or end - begin >= shortest_px:
            result.append(Piece(loop, _places(begin, end, arc), not bool(outer[k])))
    return result


def _steady(outer: np.ndarray, at: np.ndarray, total: float) -> np.ndarray:
    """Without runs shorter than :data:`STEADY_PX` along the closed line."""
    outer = outer.copy()
    change = np.flatnonzero(outer != np.roll(outer, 1))
    if len(change) < 2:
        return outer
    length = np.roll(at[change], -1) - at[change]
    length[-1] += total
    for n in np.flatnonzero(length < STEADY_PX):
        index = np.arange(change[n], change[(n + 1) % len(change)] + (len(outer) if n + 1 == len(change) else 0)) % len(outer)
        outer[index] = ~outer[index]
    return outer


def _places(begin: float, end: float, arc: np.ndarray) -> np.ndarray:
    """Vertex counts from arc length ``begin`` (may be negative) to ``end`` (may exceed the loop), in order."""
    total, edges = arc[-1], len(arc) - 1
    numbers = np.arange(edges + 1)
    first = np.interp(begin % total, arc, numbers) + edges * (begin // total)
    last = np.interp(end % total, arc, numbers) + edges * (end // total)
    inner = np.arange(np.floor(first) + 1, np.ceil(last))
    return np.mod(np.concatenate(([first], inner, [last])), edges)

