"""Where to start: a search over rotations and translations that needs nothing but rough C-arm angles.

For each rotation of a grid the volume is projected once per view onto an enlarged detector; the masked correlation with
the X-ray at *every* shift follows from a few FFTs (D. Padfield, "Masked object registration in the Fourier domain",
IEEE TIP 21:2706, 2012); the best shifts of the views together give a translation in space.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..errors import CancelledError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, motion
from ..projection.joseph import Projector, pixel_distances
from .refine import distinct
from .similarity import FixedView, Level

MIN_OVERLAP = 0.3
"""Part of the X-ray's mask, or of what the volume shows where that is less, that must lie on the other for a shift to count."""

MIN_PIXELS = 40
"""Fewer pixels than these correlate by chance."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A start pose and its score (mean correlation over the views)."""

    pose: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class Found:
    """Result of a search.

    Attributes
    ----------
    candidates
        The best distinct poses, best first.
    correlation, inverted_correlation, mirrored_correlation
        Per view: the best correlation at any pose, with the X-ray as it is, with its grey values inverted, and mirrored.
    mirrored_starts
        Per view: the poses (4x4) at which its mirror image correlates best, best first.
    """

    candidates: list[Candidate]
    correlation: tuple[float, ...]
    inverted_correlation: tuple[float, ...]
    mirrored_correlation: tuple[float, ...]
    mirrored_starts: tuple[list[np.ndarray], ...] = ()


def rotation_grid(limit_deg: float, step_deg: float) -> np.ndarray:
    """Rotation vectors (N, 3) in radians on a cubic grid, no longer than ``limit_deg`` (+5 %); zero comes first."""
    n = int(np.floor(limit_deg / step_deg))
    axis = np.radians(step_deg) * np.arange(-n, n + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(grid, axis=1)
    keep = length <= np.radians(limit_deg) * 1.05
    return grid[keep][np.argsort(length[keep], kind="stable")]


class ShiftMaps:
    """Correlation of one X-ray with a DRR at every shift up to ``margin`` pixels."""

    def __init__(self, fixed: FixedView, projector: Projector, beyond: Projector | None, margin: int) -> None:
        import scipy.fft

        self.fixed, self.projector, self.beyond, self.margin, self.fft = fixed, projector, beyond, margin, scipy.fft
        v = fixed.view
        rows, columns = v.rows + 2 * margin, v.columns + 2 * margin
        self.view = CArmView(rows, columns, v.source_mm, v.pixel_mm((-margin, -margin))[0], v.column_step_mm, v.row_step_mm)
        self.distances = pixel_distances(self.view)
        self.shape = (scipy.fft.next_fast_len(rows, real=True), scipy.fft.next_fast_len(columns, real=True))
        weight = (fixed.weight > 0).astype(np.float32)
        template = fixed.fixed * weight
        self.count = max(1.0, float(weight.sum()))
        self._template, self._mirrored = (
            [np.conj(scipy.fft.rfft2(x, self.shape)) for x in (w, t, t * t)] for w, t in ((weight, template), (weight[:, ::-1], template[:, ::-1]))
        )

    def _moving(self, pose: np.ndarray) -> FixedView:
        """The DRR on the enlarged detector, normalised as the X-ray is, with its own mask (beyond the scan is unknown)."""
        image = self.projector.project(self.view, pose, None, self.distances)
        mask = np.ones(image.shape, bool)
        if self.beyond is not None:
            mask = self.beyond.project(self.view, pose, None, self.distances) <= 0
        return FixedView(image, mask, self.view, self.fixed.radius, self.fixed.kernels)

    def correlation(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masked correlation (2 margin + 1, 2 margin + 1); index (row, column) = margin means no shift.

        The second array is that of the X-ray's mirror image.

        Scaled by the root of the overlap: its square is the part of the *whole* X-ray's variance that is explained, so
        that a shift that explains few pixels well does not beat one that explains all of them.
        """
        moving = self._moving(pose)
        g, m = moving.fixed, (moving.weight > 0).astype(np.float32)
        spectra = [self.fft.rfft2(x, self.shape) for x in (m, g * m, g * g * m)]
        least = MIN_OVERLAP * min(self.count, float(m.sum()))
        return self._masked(spectra, self._template, least), self._masked(spectra, self._mirrored, least)

    def _masked(self, spectra: list[np.ndarray], template: list[np.ndarray], least: float) -> np.ndarray:
        (fm, fg, fgg), (tm, tf, tff) = spectra, template
        k = 2 * self.margin + 1
        n, sg, sgg, sf, sff, sfg = (self.fft.irfft2(x, self.shape)[:k, :k] for x in (fm * tm, fg * tm, fgg * tm, fm * tf, fm * tff, fg * tf))
        n = np.maximum(n, 1e-3)
        spread = np.maximum(sgg - sg * sg / n, 1e-3) * np.maximum(sff - sf * sf / n, 1e-3)
        overlap = np.sqrt(np.minimum(n / self.count, 1.0))
        return np.where(n > max(least, MIN_PIXELS), overlap * (sfg - sg * sf / n) / np.sqrt(spread), 0.0)


def _peaks(correlation: np.ndarray, number: int) -> list[tuple[int, int]]:
    """The ``number`` highest separate maxima as (row, column)."""
    left, found = correlation.copy(), []
    for _ in range(number):
        r, c = np.unravel_index(np.argmax(left), left.shape)
        found.append((int(r), int(c)))
        left[max(0, r - 2) : r + 3, max(0, c - 2) : c + 3] = -2
    return found


def _bilinear(values: np.ndarray, row: float, column: float) -> float:
    row, column = np.clip(row, 0, values.shape[0] - 1.001), np.clip(column, 0, values.shape[1] - 1.001)
    r, c = int(row), int(column)
    fr, fc = row - r, column - c
    return float(
        (values[r, c] * (1 - fc) + values[r, c + 1] * fc) * (1 - fr) + (values[r + 1, c] * (1 - fc) + values[r + 1, c + 1] * fc) * fr
    )


def search(
    level: Level, beyond: Projector | None, start: np.ndarray, center_mm: np.ndarray, rotations: np.ndarray, *, reach_mm: float = 70.0,
    keep: int = 6, peaks: int = 3, threads: int = 1, cancelled: Callable[[], bool] | None = None,
) -> Found:
    """The best distinct poses around ``start``.

    Parameters
    ----------
    level
        Coarsest level of the pyramid.
    beyond
        Projector of the unknown body beyond a truncated scan, or None.
    center_mm
        Centre of rotation, isocentre frame; also the point whose shifts are triangulated.
    rotations
        Rotation vectors (N, 3) in radians to try.
    reach_mm
        Translation covered in each view's plane.
    keep, peaks
        Number of poses returned; number of shifts per view that are combined.
    """
    margin = max(2, int(np.ceil(reach_mm / level.pixel_mm)))
    maps = [ShiftMaps(fixed, level.projector, beyond, margin) for fixed in level.views]
    level.projector.prepare()

    def one_rotation(rotation: np.ndarray) -> tuple[list[Candidate], np.ndarray, list[Candidate]]:
        if cancelled is not None and cancelled():
            raise CancelledError()
        turned = motion(np.r_[rotation, 0, 0, 0], center_mm) @ start
        results = [m.correlation(turned) for m in maps]
        extremes = np.array([(c.max(), -c.min(), mirrored.max()) for c, mirrored in results])
        mirrored = [_translations([m], [c], turned, center_mm, margin, 1)[0] for m, (_, c) in zip(maps, results, strict=True)]
        return _translations(maps, [c for c, _ in results], turned, center_mm, margin, peaks), extremes, mirrored

    with ThreadPoolExecutor(max(1, threads)) as pool:
        results = list(pool.map(one_rotation, rotations))
    found = sorted((c for group, _, _ in results for c in group), key=lambda c: -c.score)
    best = np.max([extremes for _, extremes, _ in results], axis=0)
    flipped = [sorted((m[n] for _, _, m in results), key=lambda c: -c.score)[:2] for n in range(len(maps))]
    return Found(
        distinct(found, center_mm, 4.0, keep), *(tuple(column) for column in best.T.tolist()), tuple([c.pose for c in f] for f in flipped),
    )


def _translations(
    maps: list[ShiftMaps], correlations: list[np.ndarray], pose: np.ndarray, center_mm: np.ndarray, margin: int, peaks: int,
) -> list[Candidate]:
    """Poses that explain combinations of the best shifts of each view by one translation."""
    jacobian = np.vstack([m.fixed.view.project_jacobian(center_mm)[0] for m in maps])  # (2 views, 3) pixels per mm
    normal = jacobian.T @ jacobian
    normal += 1e-4 * np.trace(normal) * np.eye(3)  # depth is free with one view: keep it where it is
    result = []
    for shifts in itertools.product(*[_peaks(c, peaks) for c in correlations]):
        # a template found at (row, column) of the enlarged DRR asks the DRR to move by margin - index
        wanted = np.array([(margin - c, margin - r) for r, c in shifts], float).ravel()
        t = np.linalg.solve(normal, jacobian.T @ wanted)
        reached = (jacobian @ t).reshape(-1, 2)
        score = np.mean([_bilinear(m, margin - dr, margin - dc) for m, (dc, dr) in zip(correlations, reached, strict=True)])
        result.append(Candidate(motion(np.r_[0, 0, 0, t], center_mm) @ pose, float(score)))
    return result


def start_at_isocenter(point_lps_mm: np.ndarray) -> np.ndarray:
    """Pose that puts a volume point (3,) at the isocentre with axes aligned: the start when nothing else is known."""
    pose = np.eye(4)
    pose[:3, 3] = -np.asarray(point_lps_mm, float)
    return pose


def center_in_isocenter(pose: np.ndarray, point_lps_mm: np.ndarray) -> np.ndarray:
    """Where a volume point is in the isocentre frame: the natural centre of rotation."""
    return apply(pose, np.asarray(point_lps_mm, float))
