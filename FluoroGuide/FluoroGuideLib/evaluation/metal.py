"""Needles and wires in the beam: exact path lengths in steel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .shapes import Shape, path_length

OUTER_DIAMETER_MM = {
    8: 4.191, 9: 3.759, 10: 3.404, 11: 3.048, 12: 2.769, 13: 2.413, 14: 2.108, 15: 1.829, 16: 1.651, 17: 1.473, 18: 1.270, 19: 1.067,
    20: 0.908, 21: 0.819, 22: 0.718, 23: 0.642, 24: 0.566, 25: 0.515, 26: 0.464, 27: 0.413,
}
"""Nominal outer diameter of hypodermic needle tubing by gauge (Stubs wire gauge; ISO 9626 rounds to the same tenths)."""
FINER = 3
"""Sub-pixels per pixel side: a 25 G shaft is about as wide as a pixel."""


@dataclass(frozen=True, eq=False)
class Needle:
    """A straight steel needle with its stylet in: a solid cylinder from tip to hub.

    Attributes
    ----------
    tip_lps_mm, hub_lps_mm
        (3,) in the volume's LPS.
    gauge
        8 to 27.
    """

    tip_lps_mm: np.ndarray
    hub_lps_mm: np.ndarray
    gauge: int = 22

    def __post_init__(self) -> None:
        for name in ("tip_lps_mm", "hub_lps_mm"):
            point = np.array(getattr(self, name), float)
            if point.shape != (3,) or not np.isfinite(point).all():
                raise FluoroGuideError(f"The needle's {name.split('_')[0]} is not three finite numbers", getattr(self, name))
            object.__setattr__(self, name, point)
        if self.gauge not in OUTER_DIAMETER_MM:
            raise FluoroGuideError("The needle's gauge is not known", self.gauge, f"Use {min(OUTER_DIAMETER_MM)} to {max(OUTER_DIAMETER_MM)}")
        if np.linalg.norm(self.hub_lps_mm - self.tip_lps_mm) < 1.0:
            raise FluoroGuideError("The needle is shorter than 1 mm", None, "Give a tip and a hub that are apart")

    @property
    def diameter_mm(self) -> float:
        """Outer diameter."""
        return OUTER_DIAMETER_MM[self.gauge]

    def shapes(self) -> list[Shape]:
        """The cylinder."""
        return [_rod(self.tip_lps_mm, self.hub_lps_mm, self.diameter_mm)]

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {"tip_lps_mm": self.tip_lps_mm.tolist(), "hub_lps_mm": self.hub_lps_mm.tolist(), "gauge": self.gauge}


@dataclass(frozen=True, eq=False)
class Wire:
    """A bent steel wire (guide wire, ECG lead): a polyline (N, 3) in the volume's LPS with a diameter."""

    points_lps_mm: np.ndarray
    diameter_mm: float = 0.9

    def shapes(self) -> list[Shape]:
        """One cylinder per stretch."""
        points = np.asarray(self.points_lps_mm, float)
        return [_rod(a, b, self.diameter_mm) for a, b in pairwise(points) if np.linalg.norm(b - a) > 1e-6]

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {"points_lps_mm": np.asarray(self.points_lps_mm, float).tolist(), "diameter_mm": self.diameter_mm}


def _rod(start: np.ndarray, end: np.ndarray, diameter: float) -> Shape:
    axis = (end - start) / np.linalg.norm(end - start)
    side = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    side /= np.linalg.norm(side)
    semi = np.array([diameter / 2, diameter / 2, np.linalg.norm(end - start) / 2])
    return Shape("cylinder", (start + end) / 2, np.column_stack([np.cross(side, axis), side, axis]), semi, soft=1.0)


def steel_path_mm(things: Iterable[Needle | Wire], view: CArmView, pose: np.ndarray) -> np.ndarray:
    """Mean path in steel per pixel, mm, float32 (rows, columns)."""
    fine = view.in_volume(pose).resampled(view.rows * FINER, view.columns * FINER)
    total = np.zeros((view.rows, view.columns), np.float32)
    for thing in things:
        for shape in thing.shapes():
            found = path_length(shape, fine)
            if found is not None:
                _add_binned(total, *found)
    return total


def _add_binned(total: np.ndarray, lengths: np.ndarray, rows: slice, columns: slice) -> None:
    """Add sub-pixels (a block of the fine grid) to the pixels that hold them, as means."""
    r0, c0 = rows.start // FINER, columns.start // FINER
    r1, c1 = -(-rows.stop // FINER), -(-columns.stop // FINER)
    before = rows.start - r0 * FINER, columns.start - c0 * FINER
    after = r1 * FINER - rows.stop, c1 * FINER - columns.stop
    padded = np.pad(lengths, ((before[0], after[0]), (before[1], after[1])))
    total[r0:r1, c0:c1] += padded.reshape(r1 - r0, FINER, c1 - c0, FINER).mean((1, 3))
