"""The picture resampled along one straight line, so that costs do not depend on the picture's size.

Coordinates: ``t`` along the line in pixels, ``s`` across it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HALF_WIDTH_PX = 16
"""Reach of a strip to both sides of its line."""
STEP_S = 0.5


@dataclass(frozen=True, eq=False)
class Line:
    """``point_px`` + t * ``direction`` (unit, (column, row))."""

    point_px: np.ndarray
    direction: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across."""
        return np.array([-self.direction[1], self.direction[0]])

    def at(self, t: np.ndarray, s: np.ndarray | float = 0.0) -> np.ndarray:
        """Pixels (N, 2)."""
        return self.point_px + np.asarray(t)[..., None] * self.direction + np.asarray(s)[..., None] * self.normal


class Strip:
    """The picture along a line: ``values`` (T, S), NaN outside the mask."""

    def __init__(
        self, pixels: np.ndarray, valid: np.ndarray, line: Line, half: float = HALF_WIDTH_PX, part: tuple[float, float] | None = None,
    ) -> None:
        self.line = line
        low, high = _span(line, pixels.shape)
        if part is not None:
            low, high = max(low, part[0]), min(high, part[1])
        self.t = np.arange(np.ceil(low), np.floor(high) + 1)
        self.s = np.arange(-half, half + STEP_S / 2, STEP_S)
        # rows and columns are sums of a part along the line and a part across it
        where = [line.point_px[k] + self.t[:, None] * line.direction[k] + self.s * line.normal[k] for k in (1, 0)]
        self.values, self.known = sampled(pixels, where), known_at(valid, where)
        known = self.known
        middle = known[:, np.abs(self.s) <= 4].all(1)
        self.usable = middle & (known.mean(1) > 0.8)


def sampled(pixels: np.ndarray, where: list[np.ndarray]) -> np.ndarray:
    """The picture at places (row, column), linear between pixels, its nearest pixel outside.

    What ``scipy.ndimage.map_coordinates`` of order 1 gives, in half the time.
    """
    flat, columns = pixels.ravel(), pixels.shape[1]
    steps, parts, index = [], [], 0
    for at, size, stride in zip(where, pixels.shape, (columns, 1), strict=True):
        inside = np.clip(at, 0, size - 1)
        low = inside.astype(np.int32)
        np.minimum(low, size - 2, out=low)  # the last pixel is the far end of the last step
        parts.append((inside - low).astype(pixels.dtype))
        index = index + low * np.int32(stride)
        steps.append(stride)
    a, b, c, d = (flat.take(index + by) for by in (0, 1, steps[0], steps[0] + 1))
    b -= a
    b *= parts[1]
    a += b
    d -= c
    d *= parts[1]
    c += d
    c -= a
    c *= parts[0]
    a += c
    return a


def known_at(valid: np.ndarray, where: list[np.ndarray]) -> np.ndarray:
    """Whether the nearest pixels of places (row, column) are valid; False outside the picture."""
    if valid.all() and all(w.min() > -0.5 and w.max() < n - 0.5 for w, n in zip(where, valid.shape, strict=True)):
        return np.ones(where[0].shape, bool)
    r, c = np.rint(where[0]).astype(np.int32), np.rint(where[1]).astype(np.int32)
    inside = (r >= 0) & (c >= 0) & (r < valid.shape[0]) & (c < valid.shape[1])
    return inside & valid[np.clip(r, 0, valid.shape[0] - 1), np.clip(c, 0, valid.shape[1] - 1)]


def _span(line: Line, shape: tuple[int, int]) -> tuple[float, float]:
    low, high = -1e9, 1e9
    for p, d, size in ((line.point_px[0], line.direction[0], shape[1]), (line.point_px[1], line.direction[1], shape[0])):
        if abs(d) > 1e-9:
            a, b = sorted((-p / d, (size - 1 - p) / d))
            low, high = max(low, a), min(high, b)
    return (low, high) if high > low else (0.0, 0.0)


def response(values: np.ndarray, width_px: float) -> np.ndarray:
    """Contrast (T, S) of a line of ``width_px`` centred at each s: inside minus the mean of both flanks (a slope cancels)."""
    from scipy.ndimage import convolve1d

    inner = max(1, round(width_px / STEP_S))
    inner += 1 - inner % 2
    gap, flank = max(1, round(0.5 * width_px / STEP_S)), max(3, round(3.0 / STEP_S))
    half = inner // 2 + gap + flank
    kernel = np.zeros(2 * half + 1)
    kernel[half - inner // 2 : half + inner // 2 + 1] = 1 / inner
    kernel[:flank] = kernel[-flank:] = -0.5 / flank
    return convolve1d(values, kernel, axis=1, mode="nearest")


def contrast_along(strip: Strip, r: np.ndarray, offset: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Response (..., T) along s = offset(t), for many ``offset`` (..., T) at once; ``rows``: at these t alone."""
    k = np.clip((offset - strip.s[0]) / STEP_S, 0, len(strip.s) - 1.001)
    low = k.astype(int)
    rows = np.arange(len(strip.t)) if rows is None else rows
    return (1 - (k - low)) * r[rows, low] + (k - low) * r[rows, low + 1]


def noise_beside(strip: Strip, r: np.ndarray, width: float) -> np.ndarray:
    """Standard deviation (T,) of the response beside the line, clutter included, smoothed along it."""
    from scipy.ndimage import gaussian_filter1d

    beside = (np.abs(strip.s) > min(1.2 * width + 2, 9.0)) & (np.abs(strip.s) < HALF_WIDTH_PX - 3)
    deviation = np.where(strip.known[:, beside], r[:, beside], 0)
    power = np.minimum(deviation**2, np.percentile(deviation**2, 98)).mean(1)
    return np.sqrt(gaussian_filter1d(power, 20.0, mode="nearest")) + 1e-6
