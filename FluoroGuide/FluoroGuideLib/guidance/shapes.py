"""The things drawn on an X-ray view: polylines and texts in pixels, cut at the image's border.

Colours are those of M. Okabe and K. Ito ("Color Universal Design", 2008): told apart by colour-blind people.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..geometry.carm import CArmView

SKY_BLUE, BLUISH_GREEN, YELLOW, ORANGE = (86, 180, 233, 255), (0, 158, 115, 255), (240, 228, 66, 255), (230, 159, 0, 255)
VERMILLION, REDDISH_PURPLE, WHITE, GREY = (213, 94, 0, 255), (204, 121, 167, 255), (255, 255, 255, 255), (150, 150, 150, 255)
ROLE_COLORS = {
    "needle": SKY_BLUE, "tick": SKY_BLUE, "entry": SKY_BLUE, "target": YELLOW, "tolerance": YELLOW, "outline": BLUISH_GREEN,
    "bone": BLUISH_GREEN,
    "hidden": (0, 158, 115, 110), "joint": YELLOW, "safety": VERMILLION, "level": WHITE, "error": REDDISH_PURPLE, "achieved": ORANGE,
    "orientation": WHITE, "status": WHITE,
}
NEAR_MM = 1.0
"""Nearest distance from the source that is drawn; nothing of a patient is there."""


@dataclass(frozen=True, eq=False)
class Shape:
    """One thing to draw.

    Attributes
    ----------
    role
        A key of :data:`ROLE_COLORS`.
    name
        The planned thing it belongs to; a line cut by the image border gives several shapes of one name.
    pixels
        (N, 2) finite (column, row).  N >= 2: a polyline, closed when the last point repeats the first.  N = 1: text only.
    color
        (red, green, blue, alpha), 0-255.
    width
        Line width in screen pixels.
    text
        Written at the first point; empty for none.
    """

    role: str
    name: str
    pixels: np.ndarray
    color: tuple[int, int, int, int]
    width: float = 1.5
    text: str = ""


class DrawnView:
    """A view with its projection worked out once, for many small projections; otherwise as :class:`CArmView`."""

    def __init__(self, view: CArmView) -> None:
        self.view, self.matrix = view, view.projection_matrix
        self.columns, self.rows = view.columns, view.rows
        self.column_step_mm, self.row_step_mm, self.source_mm = view.column_step_mm, view.row_step_mm, view.source_mm
        self._beam = view.beam

    def depth_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """See :meth:`CArmView.depth_mm`."""
        return (np.atleast_2d(points_mm) - self.source_mm) @ self._beam

    def project(self, points_mm: np.ndarray) -> np.ndarray:
        """See :meth:`CArmView.project`."""
        h = np.atleast_2d(points_mm) @ self.matrix[:, :3].T + self.matrix[:, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = h[:, :2] / h[:, 2:]
        pixels[h[:, 2] <= 0] = np.nan
        return pixels

    def project_jacobian(self, points_mm: np.ndarray) -> np.ndarray:
        """See :meth:`CArmView.project_jacobian`."""
        h = np.atleast_2d(points_mm) @ self.matrix[:, :3].T + self.matrix[:, 3]
        pixels = h[:, :2] / h[:, 2:]
        return (self.matrix[None, :2, :3] - pixels[:, :, None] * self.matrix[None, 2:, :3]) / h[:, 2, None, None]


def lines(role: str, name: str, view: DrawnView | CArmView, points_mm: np.ndarray, width: float, text: str) -> list[Shape]:
    """A 3-D polyline (N, 3), isocentre mm, cut where it comes behind the source and at the image's border."""
    depth = view.depth_mm(points_mm)
    if depth.min() > NEAR_MM:  # the usual case, in one projection
        return cut(role, name, view, view.project(points_mm), width, text)
    pieces: list[np.ndarray] = []
    for a, b, da, db in zip(points_mm[:-1], points_mm[1:], depth[:-1], depth[1:], strict=True):
        if max(da, db) <= NEAR_MM:
            continue
        # Cut in space first: behind the source the projection jumps to the other side of the image.
        near = a + (b - a) * (NEAR_MM - da) / (db - da) if min(da, db) < NEAR_MM else a
        pieces.append(view.project(np.array([near if da < NEAR_MM else a, near if db < NEAR_MM else b])))
    if not pieces:
        return []
    return runs_as_shapes(role, name, _clipped(np.array(pieces)[:, 0], np.array(pieces)[:, 1], view), width, text)


def cut(role: str, name: str, view: DrawnView | CArmView, pixels: np.ndarray, width: float, text: str) -> list[Shape]:
    """A polyline in pixels (N, 2), cut at the image's border; nothing when it is not finite (behind the source)."""
    if pixels.min() >= -0.5 and pixels.max() <= min(view.columns, view.rows) - 0.5:  # the usual case, with little work
        return runs_as_shapes(role, name, [pixels], width, text)
    if not np.isfinite(pixels).all():
        return []
    low, high = pixels.min(0), pixels.max(0)
    if low.min() >= -0.5 and high[0] <= view.columns - 0.5 and high[1] <= view.rows - 0.5:
        return runs_as_shapes(role, name, [pixels], width, text)
    return runs_as_shapes(role, name, _clipped(pixels[:-1], pixels[1:], view), width, text)


def runs_as_shapes(role: str, name: str, runs: list[np.ndarray], width: float, text: str) -> list[Shape]:
    """One shape per run; the text is written at the first."""
    return [Shape(role, name, run, ROLE_COLORS[role], width, text if k == 0 else "") for k, run in enumerate(runs)]


def _clipped(a: np.ndarray, b: np.ndarray, view: DrawnView | CArmView) -> list[np.ndarray]:
    """Segments (N, 2), (N, 2) in order, clipped to the image (Liang and Barsky, ACM TOG 3:1, 1984) and joined where they touch."""
    step = b - a
    first, last, out = np.zeros(len(a)), np.ones(len(a)), np.zeros(len(a), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis, high in ((0, view.columns - 0.5), (1, view.rows - 0.5)):
            for direction, room in ((-step[:, axis], a[:, axis] + 0.5), (step[:, axis], high - a[:, axis])):
                t = room / direction
                out |= (direction == 0) & (room < 0)
                first = np.where(direction < 0, np.maximum(first, t), first)
                last = np.where(direction > 0, np.minimum(last, t), last)
    keep = np.flatnonzero(~out & (first <= last))
    if not len(keep):
        return []
    first, last, a, b, step = first[keep], last[keep], a[keep], b[keep], step[keep]
    start = np.where(first[:, None] == 0, a, a + first[:, None] * step)
    end = np.where(last[:, None] == 1, b, a + last[:, None] * step)
    breaks = np.flatnonzero(np.abs(start[1:] - end[:-1]).max(1) > 1e-9) + 1 if len(keep) > 1 else np.empty(0, int)
    bounds = [0, *breaks.tolist(), len(keep)]
    runs = [np.vstack([start[i:i + 1], end[i:j]]) for i, j in itertools.pairwise(bounds)]
    if len(runs) > 1 and np.abs(runs[-1][-1] - runs[0][0]).max() <= 1e-9:  # a closed line that was entered in the middle
        runs[0] = np.vstack([runs.pop(), runs[0][1:]])
    return runs


def clip_segment(a: np.ndarray, b: np.ndarray, columns: int, rows: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The part of a segment inside the image (outer borders of its pixels), or None (Liang and Barsky, ACM TOG 3:1, 1984)."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    first, last, step = 0.0, 1.0, b - a
    for axis, high in ((0, columns - 0.5), (1, rows - 0.5)):
        for direction, room in ((-step[axis], a[axis] + 0.5), (step[axis], high - a[axis])):
            if direction == 0:
                if room < 0:
                    return None
            elif direction < 0:
                first = max(first, room / direction)
            else:
                last = min(last, room / direction)
    if first > last:
        return None
    return (a if first == 0 else a + first * step), (b if last == 1 else a + last * step)
