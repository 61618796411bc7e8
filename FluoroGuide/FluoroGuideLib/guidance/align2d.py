"""Small in-plane motions between two frames: shift and rotation by robust Gauss-Newton, from coarse to fine.

Images are compared after local normalisation, so that exposure and grey mapping do not matter, and with Cauchy
weights, so that a needle or contrast agent that only one frame shows is left out.  B. Lucas, T. Kanade (IJCAI 1981);
S. Baker, I. Matthews, IJCV 56:221 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the first frame's content lies in the second.

    Attributes
    ----------
    shift_px
        (column, row): content at ``x`` in the first frame is at ``x + shift`` (plus the rotation) in the second.
    rotation_rad
        About :attr:`center_px`; positive from the column axis to the row axis.
    center_px
        (column, row).
    score
        Weighted correlation of the normalised frames after alignment, -1..1.
    sigma_px
        Standard deviation of the shift from the residuals, both directions together.
    """

    shift_px: np.ndarray
    rotation_rad: float
    center_px: np.ndarray
    score: float
    sigma_px: float = 0.0

    def at(self, pixels: np.ndarray) -> np.ndarray:
        """Where points (N, 2) of the first frame lie in the second."""
        c, s = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        away = np.atleast_2d(pixels) - self.center_px
        return self.center_px + self.shift_px + away @ np.array([[c, s], [-s, c]])


def normalized(pixels: np.ndarray, weight: np.ndarray, window: float, smooth: float = 1.0) -> np.ndarray:
    """Locally normalised image, float32: difference from the local mean over the local deviation, Gaussian windows, masked."""
    from scipy.ndimage import gaussian_filter

    w = np.asarray(weight, np.float32)
    count = gaussian_filter(w, window) + 1e-6
    values = gaussian_filter(np.asarray(pixels, np.float32) * w, smooth) / (gaussian_filter(w, smooth) + 1e-6)
    mean = gaussian_filter(values * w, window) / count
    high = (values - mean) * w
    variance = gaussian_filter(high * high, window) / count
    floor = 0.15 * float(np.sqrt((variance * w).sum() / max(float(w.sum()), 1e-6)))
    return high / (np.sqrt(variance) + floor + 1e-9)


class Template:
    """A frame (or part of one) prepared to find again.

    Parameters
    ----------
    pixels
        float (rows, columns).
    weight
        (rows, columns), 0..1: how much each pixel matters; 0 outside the mask.
    levels
        Shrink factors from coarse to fine.
    rotate
        Look for a rotation as well.
    center_px
        Point whose motion is told; the middle by default.
    """

    def __init__(
        self, pixels: np.ndarray, weight: np.ndarray | None = None, *, levels: tuple[int, ...] = (8, 4, 2), rotate: bool = True,
        center_px: np.ndarray | None = None, window: float = 6.0, mask: np.ndarray | None = None,
    ) -> None:
        pixels = np.asarray(pixels, np.float32)
        weight = np.ones(pixels.shape, np.float32) if weight is None else np.asarray(weight, np.float32)
        if weight.shape != pixels.shape or not weight.any():
            raise FluoroGuideError("There is nothing to align", f"{pixels.shape}, weight {weight.shape}", "Check the mask and the region")
        self.shape, self.rotate, self.window = pixels.shape, rotate, window
        self.center_px = np.array([(pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2]) if center_px is None else np.asarray(center_px, float)
        inside = (weight > 0) if mask is None else mask
        self.levels = [self._level(pixels, weight, inside, f) for f in levels if min(pixels.shape) // f >= 12]

    def _level(self, pixels: np.ndarray, weight: np.ndarray, inside: np.ndarray, factor: int) -> tuple:
        fixed = normalized(shrink(np.where(inside, pixels, 0), factor) / np.maximum(shrink(inside.astype(np.float32), factor), 1e-6),
                           shrink(inside.astype(np.float32), factor), self.window)
        w = shrink(weight, factor)
        gy, gx = np.gradient(fixed)
        rows, columns = np.mgrid[: fixed.shape[0], : fixed.shape[1]]
        center = (self.center_px + 0.5) / factor - 0.5
        turn = -gx * (rows - center[1]) + gy * (columns - center[0])
        return factor, fixed, w, np.stack([gx, gy, turn] if self.rotate else [gx, gy]), center, rows, columns

    def find(self, pixels: np.ndarray, start: Alignment | None = None, *, mask: np.ndarray | None = None, iterations: int = 8) -> Alignment:
        """Where the template lies in another frame of the same size."""
        if np.shape(pixels) != self.shape:
            raise FluoroGuideError("The frames differ in size", f"{np.shape(pixels)}, {self.shape}", "Use frames of one run")
        p = np.zeros(3) if start is None else np.r_[start.shift_px, start.rotation_rad]
        inside = np.ones(self.shape, np.float32) if mask is None else np.asarray(mask, np.float32)
        score = sigma = 0.0
        for number, (factor, fixed, w, gradient, center, rows, columns) in enumerate(self.levels):
            small = shrink(inside, factor)
            moving = normalized(shrink(np.where(inside > 0, pixels, 0), factor) / np.maximum(small, 1e-6), small, self.window)
            if number == 0 and start is None:
                p[:2] = _coarse(fixed, moving, w) * factor
            p, score, sigma = _refine(fixed, moving, w, small, gradient, center, rows, columns, p, factor, iterations, self.rotate)
        return Alignment(p[:2].copy(), float(p[2]), self.center_px, score, sigma)


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Block means, float32."""
    if factor == 1:
        return np.asarray(image, np.float32)
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    # rows first, where memory is contiguous: three times as fast as a mean over both axes
    down = np.asarray(image, np.float32)[: rows * factor, : columns * factor].reshape(rows, factor, columns * factor).sum(axis=1)
    across = down[:, ::factor].copy()  # column by column of a block: a sum over so short an axis is slow
    for k in range(1, factor):
        across += down[:, k::factor]
    across /= np.float32(factor * factor)
    return across


def translated(image: np.ndarray, shift_px: np.ndarray, outside: str = "nearest") -> np.ndarray:
    """The picture moved by (column, row) pixels, linear between pixels; beyond its border its nearest pixel, or 0 (``outside="zero"``).

    What ``scipy.ndimage.shift`` of order 1 gives, several times faster: the same four weights serve every pixel.
    """
    for axis, by in ((0, -float(shift_px[1])), (1, -float(shift_px[0]))):
        size = image.shape[axis]
        whole = int(np.floor(by))
        part = image.dtype.type(by - whole)
        places = np.arange(whole, whole + size)
        low, high = (np.take(image, np.clip(places + k, 0, size - 1), axis=axis) for k in (0, 1))
        high -= low
        high *= part
        low += high
        if outside == "zero":
            gone = (np.arange(size) + by < 0) | (np.arange(size) + by > size - 1)
            low[(gone, slice(None)) if axis == 0 else (slice(None), gone)] = 0
        image = low
    return image


def _coarse(fixed: np.ndarray, moving: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Whole-pixel shift (column, row) of the highest weighted correlation, at most a quarter of the picture."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    shape = [next_fast_len(2 * n, real=True) for n in fixed.shape]
    a, b = rfft2(fixed * weight, shape), rfft2(moving, shape)
    energy = irfft2(np.conj(rfft2(weight, shape)) * rfft2(moving * moving, shape), shape)
    correlation = irfft2(np.conj(a) * b, shape) / np.sqrt(np.maximum(energy, 0.05 * energy.max()) + 1e-9)
    reach = [max(1, n // 4) for n in fixed.shape]
    rows, columns = (np.r_[0 : r + 1, -r:0] for r in reach)
    part = correlation[np.ix_(rows, columns)]
    r, c = np.unravel_index(int(np.argmax(part)), part.shape)
    return np.array([columns[c], rows[r]], float)


def _refine(
    fixed: np.ndarray, moving: np.ndarray, weight: np.ndarray, inside: np.ndarray, gradient: np.ndarray, center: np.ndarray, rows: np.ndarray,
    columns: np.ndarray, p: np.ndarray, factor: int, iterations: int, rotate: bool,
) -> tuple[np.ndarray, float, float]:
    from scipy.ndimage import map_coordinates

    p = p.copy()
    use = weight > 0.02 * weight.max()
    f, g = fixed[use], gradient[:, use].reshape(len(gradient), -1)
    w0, r, c = weight[use], rows[use] - center[1], columns[use] - center[0]
    score = sigma = 0.0
    for _ in range(iterations):
        cos, sin = np.cos(p[2]), np.sin(p[2])
        at = [center[1] + p[1] / factor + sin * c + cos * r, center[0] + p[0] / factor + cos * c - sin * r]
        value = map_coordinates(moving, at, order=1, mode="constant", cval=np.nan, prefilter=False)
        known = np.isfinite(value)
        residual = np.where(known, value - f, 0)
        w = w0 * known / (1 + residual**2)
        h = (g * w) @ g.T
        h[np.diag_indices(len(h))] += 1e-6 * np.trace(h) + 1e-9
        # Inverse-compositional step with the template's gradient: the content has moved by the negative of it.
        step = -np.linalg.solve(h, g @ (w * residual))
        p[:2] += step[:2] * factor
        if rotate:
            p[2] += step[2]
        value = np.where(known, value, 0)
        score = float((w * value * f).sum() / np.sqrt((w * value**2).sum() * (w * f**2).sum() + 1e-12))
        sigma = float(factor * np.sqrt(np.trace(np.linalg.inv(h)[:2, :2]) * (w * residual**2).sum() / max(w.sum(), 1e-9) * 4))
        if np.abs(step[:2]).max() * factor < 0.01:
            break
    return p, score, sigma
