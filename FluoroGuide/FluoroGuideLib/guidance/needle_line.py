"""One straight line in a frame, looked at closely: its exact course, where metal begins and ends on it, and how sure that is.

Coordinates: ``t`` along the line in pixels, ``s`` across it.  Everything works on a *strip*, the picture resampled along
the line, so that costs do not depend on the picture's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HALF_WIDTH_PX = 16
"""Reach of a strip to both sides of its line."""
STEP_S = 0.5
BEND_MM = 12.0
"""Length before the tip over which a needle may be bent."""
NEAR_BORDER_MM = 4.0
"""An end this near to the border of what is visible counts as leaving the picture."""


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


@dataclass(frozen=True, eq=False)
class Segment:
    """Metal found on a line.

    Attributes
    ----------
    line
        Runs from ``ends[0]`` to ``ends[1]``.
    ends, sigma
        t of both ends, and their standard deviations, pixels.
    offsets
        s of both ends: not 0 where the needle is bent.
    cut
        Whether each end lies at the border of what is visible.
    hub
        How many sigmas of broad shadow (a hub) follow beyond each end.
    features
        Numbers that tell needles from other lines (see ``needle.FEATURES``).
    """

    line: Line
    ends: tuple[float, float]
    sigma: tuple[float, float]
    offsets: tuple[float, float]
    cut: tuple[bool, bool]
    hub: tuple[float, float]
    width_px: float
    contrast: float
    features: dict

    def end_px(self, which: int) -> np.ndarray:
        """Pixel (2,) of an end."""
        return self.line.at(np.array(self.ends[which]), self.offsets[which])


class Strip:
    """The picture along a line: ``values`` (T, S), NaN outside the mask."""

    def __init__(
        self, pixels: np.ndarray, valid: np.ndarray, line: Line, half: float = HALF_WIDTH_PX, part: tuple[float, float] | None = None,
    ) -> None:
        from scipy.ndimage import map_coordinates

        self.line = line
        low, high = _span(line, pixels.shape)
        if part is not None:
            low, high = max(low, part[0]), min(high, part[1])
        self.t = np.arange(np.ceil(low), np.floor(high) + 1)
        self.s = np.arange(-half, half + STEP_S / 2, STEP_S)
        at = line.at(self.t[:, None] + 0 * self.s, 0 * self.t[:, None] + self.s)
        where = [at[..., 1], at[..., 0]]
        values = map_coordinates(pixels, where, order=1, mode="nearest", prefilter=False)
        known = _known(valid, where)
        self.values, self.known = values, known
        middle = known[:, np.abs(self.s) <= 4].all(1)
        self.usable = middle & (known.mean(1) > 0.8)


def _known(valid: np.ndarray, where: list[np.ndarray]) -> np.ndarray:
    """Whether the nearest pixels of places (row, column) are valid; False outside the picture."""
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


def straighten(
    pixels: np.ndarray, valid: np.ndarray, line: Line, reach_px: float, near: tuple[float, float] | None = None,
) -> tuple[Line, float] | None:
    """The line through the ridge centres near a rough line, and their rms distance from it; None when there are none."""
    from scipy.ndimage import gaussian_filter1d

    strip = Strip(pixels, valid, line, max(reach_px + 8.0, 10.0), near)
    part = strip.usable if near is None else strip.usable & (strip.t >= near[0]) & (strip.t <= near[1])
    if part.sum() < 30:
        return None
    r = gaussian_filter1d(response(strip.values, 4.0)[part], 5.0, axis=0, mode="nearest")[::5]
    t = strip.t[part][::5]
    inside = np.abs(strip.s) <= reach_px
    r, s = r[:, inside], strip.s[inside]
    best = np.argmax(r, 1)
    height = r[np.arange(len(t)), best]
    weight = np.clip(height, 0, np.percentile(height, 80))
    offset = s[best]
    # Robust line through the centres: the mode of the offsets first, then reweighted least squares.
    fit = _mode_line(t, offset, weight, reach_px)
    scale = max(2.0, reach_px / 4)
    for _ in range(12):
        residual = offset - np.polyval(fit, t)
        w = weight * np.clip(1 - (residual / (3 * scale)) ** 2, 0, 1) ** 2
        if w.sum() <= 0:
            return None
        fit = np.polyfit(t, offset, 1, w=np.sqrt(w))
        scale = max(0.5, 0.8 * scale)
    residual = offset - np.polyval(fit, t)
    rms = float(np.sqrt((w * residual**2).sum() / max(w.sum(), 1e-12)))
    a, b = line.at(np.array([t[0], t[-1]]), np.polyval(fit, [t[0], t[-1]]))
    direction = (b - a) / np.linalg.norm(b - a)
    return Line(a + direction * ((line.point_px - a) @ direction), direction), rms


def _mode_line(t: np.ndarray, offset: np.ndarray, weight: np.ndarray, reach: float) -> np.ndarray:
    """Slope and offset that gather most weight, on a small grid."""
    span = max(np.ptp(t), 1.0)
    middle = 0.5 * (t[0] + t[-1])
    best, fit = -1.0, np.zeros(2)
    for slope in np.linspace(-reach, reach, 13) / span:
        level = offset - slope * (t - middle)
        counts, edges = np.histogram(level, np.arange(-reach - 1, reach + 1.5, 1.0), weights=weight)
        smooth = np.convolve(counts, [0.5, 1, 0.5], "same")
        k = int(np.argmax(smooth))
        if smooth[k] > best:
            center = 0.5 * (edges[k] + edges[k + 1])
            best, fit = smooth[k], np.array([slope, center - slope * middle])
    return fit


def measure(pixels: np.ndarray, valid: np.ndarray, line: Line, mm_per_px: float, part: tuple[float, float] | None = None) -> Segment | None:
    """Find where metal begins and ends on a straightened line (within ``part``); None when nothing there looks like metal."""
    strip = Strip(pixels, valid, line, part=part)
    if strip.usable.sum() < 40:
        return None
    width = _width(strip)
    r = response(strip.values, width)
    core = _contrast_along(strip, r, np.zeros(len(strip.t)))
    noise = _noise(strip, r, width)
    found = _interval(core, noise, strip.usable)
    if found is None:
        return None
    for _ in range(2):
        width = _width(strip, found)
        r = response(strip.values, width)
        core, noise = _contrast_along(strip, r, np.zeros(len(strip.t))), _noise(strip, r, width)
        found = _interval(core, noise, strip.usable) or found
    ends, sigmas, offsets, cut, hubs = [], [], [], [], []
    level = float(np.median(core[found[0] : found[1] + 1]))
    usable = np.flatnonzero(strip.usable)
    for side in (0, 1):
        end, sigma, offset = _end(strip, r, noise, found, side, width, mm_per_px)
        slack = NEAR_BORDER_MM / mm_per_px
        at_border = end <= strip.t[usable[0]] + slack if side == 0 else end >= strip.t[usable[-1]] - slack
        ends.append(end)
        sigmas.append(sigma)
        offsets.append(offset)
        cut.append(bool(at_border))
        hubs.append(0.0 if at_border else _hub(pixels, valid, line, end, 1 if side else -1, mm_per_px))
    features = _features(strip, r, core, noise, found, level, width, mm_per_px)
    return Segment(line, tuple(ends), tuple(sigmas), tuple(offsets), tuple(cut), tuple(hubs), width, level, features)


def _contrast_along(strip: Strip, r: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Response (T,) along s = offset(t)."""
    k = np.clip((offset - strip.s[0]) / STEP_S, 0, len(strip.s) - 1.001)
    low = k.astype(int)
    rows = np.arange(len(strip.t))
    return (1 - (k - low)) * r[rows, low] + (k - low) * r[rows, low + 1]


def _width(strip: Strip, found: tuple[int, int] | None = None) -> float:
    """Full width of the mean profile at half its height, pixels, 2..9."""
    part = strip.usable.copy()
    if found is not None:
        part[: found[0]] = part[found[1] + 1 :] = False
    else:
        r = response(strip.values, 4.0)[:, len(strip.s) // 2]
        part &= r >= np.percentile(r[part], 70)
    profile = np.median(strip.values[part], axis=0)
    outer = np.abs(strip.s) >= 7
    base = np.polyval(np.polyfit(strip.s[outer], profile[outer], 1), strip.s)
    high = profile - base
    middle = np.abs(strip.s) <= 5
    top = high[np.abs(strip.s) <= 1].max()
    if top <= 0:
        return 4.0
    area = float(np.clip(high[middle], 0, None).sum() * STEP_S)
    return float(np.clip(area / top, 2.0, 9.0))


def _noise(strip: Strip, r: np.ndarray, width: float) -> np.ndarray:
    """Standard deviation (T,) of the response beside the line, clutter included, smoothed along it."""
    from scipy.ndimage import gaussian_filter1d

    beside = (np.abs(strip.s) > min(1.2 * width + 2, 9.0)) & (np.abs(strip.s) < HALF_WIDTH_PX - 3)
    deviation = np.where(strip.known[:, beside], r[:, beside], 0)
    power = np.minimum(deviation**2, np.percentile(deviation**2, 98)).mean(1)
    return np.sqrt(gaussian_filter1d(power, 20.0, mode="nearest")) + 1e-6


def _interval(core: np.ndarray, noise: np.ndarray, usable: np.ndarray) -> tuple[int, int] | None:
    """Indices of the stretch whose log likelihood ratio, metal of steady contrast against background, is highest."""
    from scipy.ndimage import gaussian_filter1d

    level = float(np.percentile(gaussian_filter1d(core, 10.0)[usable], 85))
    found = None
    for _ in range(3):
        if level <= 0:
            return None
        # Clutter is correlated over several pixels: the ratio of one pixel is bounded.
        gain = np.clip((core - 0.5 * level) * level / (noise**2 + (0.35 * level) ** 2), -1.0, 1.0)
        gain[~usable] = -1.0
        total = np.r_[0.0, np.cumsum(gain)]
        low = np.minimum.accumulate(total)
        last = int(np.argmax(total - low))
        first = int(np.argmin(total[: last + 1]))
        if last - first < 30:
            return None
        found = (first, last - 1)
        level = float(np.median(core[first:last]))
    return found


def _end(
    strip: Strip, r: np.ndarray, noise: np.ndarray, found: tuple[int, int], side: int, width: float, mm_per_px: float,
) -> tuple[float, float, float]:
    """t of one end, its standard deviation, and its offset across (a bend).

    The end is where a contrast that falls to zero over the bevel fits best; all bevel lengths that fit share the answer.
    """
    sign = 1 if side == 1 else -1
    rough = strip.t[found[side]]
    bend_px = BEND_MM / mm_per_px
    start = rough - sign * bend_px
    u = np.clip(sign * (strip.t - start), 0, None)  # distance beyond the start of the bend
    reach = (u > 0) & (u < bend_px + 6 / mm_per_px) & strip.usable
    if reach.sum() < 12:
        return float(rough), 3.0, 0.0
    straight, reach_px = _contrast_along(strip, r, 0 * u)[found[0] : found[1]], int(40 / mm_per_px)
    level = max(float(np.median(straight[-reach_px:] if side else straight[:reach_px])), 1e-9)
    best, curve = -np.inf, 0 * u
    top = min(9.0, 0.12 * bend_px)
    for amount in np.linspace(-top, top, 19):
        candidate = amount * (u / bend_px) ** 2
        core = _contrast_along(strip, r, np.clip(candidate, -12, 12))[reach]
        gain = np.clip((core - 0.5 * level) * level / (noise[reach] ** 2 + (0.35 * level) ** 2), -1, 1)
        total = np.cumsum(gain if sign > 0 else gain[::-1]).max() - 0.25 * abs(amount)  # straight unless the picture says otherwise
        if total > best:
            best, curve = total, candidate
    core = _contrast_along(strip, r, np.clip(curve, -12, 12))
    end, sigma = _edge(strip, core, noise, found, side, level, width, mm_per_px)
    k = int(np.clip(np.searchsorted(strip.t, end), 0, len(curve) - 1))
    return end, sigma, float(curve[k])


def _edge(
    strip: Strip, core: np.ndarray, noise: np.ndarray, found: tuple[int, int], side: int, level: float, width: float, mm_per_px: float,
) -> tuple[float, float]:
    sign = 1 if side == 1 else -1
    rough = strip.t[found[side]]
    window = (np.abs(strip.t - rough) < 10 / mm_per_px) & strip.usable
    if window.sum() < 10:
        return float(rough), 3.0
    t, c, n = sign * strip.t[window], core[window], noise[window]
    ends = np.arange(-6 / mm_per_px, 6 / mm_per_px, 0.25) + sign * rough
    cost, places = [], []
    for bevel in (0.8, 1.4, 2.0, 2.8):  # lengths of usual bevels in needle widths
        ramp = np.clip((ends[:, None] - t[None, :]) / (bevel * width), 0, 1)
        ramp = ramp * level
        # One sample in about three is independent (detector and resampling blur).
        cost.append((np.minimum(((c[None, :] - ramp) / n) ** 2, 9.0)).sum(1) / 3.0)
        places.append(ends)
    cost, places = np.array(cost), np.array(places)
    weight = np.exp(-0.5 * (cost - cost.min()))
    weight /= weight.sum()
    mean = float((weight * places).sum())
    sigma = float(np.sqrt((weight * (places - mean) ** 2).sum() + 0.25))
    return sign * mean, sigma


def _hub(pixels: np.ndarray, valid: np.ndarray, line: Line, end: float, sign: int, mm_per_px: float) -> float:
    """Sigmas of a shadow about 5 mm wide that goes on for 15 mm beyond an end (negative: a light band)."""
    from scipy.ndimage import map_coordinates

    step = max(1.0, 0.4 / mm_per_px)
    t = end + sign * np.arange(4.0 / mm_per_px, 20.0 / mm_per_px, step)
    s = np.arange(-9.0 / mm_per_px, 9.0 / mm_per_px + step / 2, step)
    at = line.at(t[:, None] + 0 * s, 0 * t[:, None] + s)
    where = [at[..., 1], at[..., 0]]
    known = _known(valid, where).all(1)
    if known.sum() < 0.5 * len(t):
        return 0.0
    values = map_coordinates(pixels, where, order=1, mode="nearest", prefilter=False)[known]
    across = np.abs(s) * mm_per_px
    rise = values[:, across < 2.6].mean(1) - values[:, (across > 3.6) & (across < 8)].mean(1)
    return float(np.mean(rise) / (np.std(rise) / np.sqrt(max(len(rise) / 4, 1)) + 0.004))


def _features(
    strip: Strip, r: np.ndarray, core: np.ndarray, noise: np.ndarray, found: tuple[int, int], level: float, width: float, mm_per_px: float,
) -> dict:
    """What tells a needle from a rib, a wire or a shutter."""
    part = slice(found[0], found[1] + 1)
    length = (found[1] - found[0]) * mm_per_px
    chunk = max(4, int(2 / mm_per_px))
    count = max(1, (found[1] + 1 - found[0]) // chunk)
    means = core[part][: count * chunk].reshape(count, chunk).mean(1)
    rows = response(strip.values, width)[part][: count * chunk].reshape(count, chunk, -1).mean(1)
    near = np.abs(strip.s) <= 5
    center = strip.s[near][np.argmax(rows[:, near], 1)]
    rim = min(1.2 * width + 2, 12.0)
    left, right = strip.s < -rim, strip.s > rim
    step = np.median(strip.values[part][:, left].mean(1) - strip.values[part][:, right].mean(1))
    t = np.arange(count) - (count - 1) / 2
    bow = np.polyfit(t / max(count / 2, 1), center, 2)[0] if count >= 5 else 0.0
    return {
        "snr": float(level / np.median(noise[part])), "length_mm": float(length), "filled": float((means > 0.45 * level).mean()),
        "steadiness": float(np.std(means) / max(level, 1e-9)), "wander_px": float(np.median(np.abs(center - np.median(center)))),
        "centred": float((np.abs(center) <= 1.5).mean()), "bow_px": float(abs(bow)), "width_mm": float(width * mm_per_px),
        "step": float(abs(step) / max(level, 1e-9)), "contrast": float(level),
    }
