"""One straight line in a frame, looked at closely: its exact course, where metal begins and ends on it, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .needle_evidence import hub_sigmas, line_features
from .needle_strip import STEP_S, Line, Strip, contrast_along, noise_beside, response

BEND_MM = 12.0
"""Length before the tip over which a needle may be bent."""
LEVEL_MM = 20.0
"""Length before an end over which its contrast is taken."""
EXTEND_MM, EXTEND_SIGMAS = 6.0, 2.5
NEAR_BORDER_MM = 4.0
"""An end this near to the border of what is visible counts as leaving the picture."""


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
    """Find where metal begins and ends on a straightened line (within ``part``); None when nothing there looks like metal.

    Hubs are not looked for: see :func:`with_hubs`.
    """
    strip = Strip(pixels, valid, line, part=part)
    if strip.usable.sum() < 40:
        return None
    width = _width(strip)
    r = response(strip.values, width)
    core = contrast_along(strip, r, np.zeros(len(strip.t)))
    noise = noise_beside(strip, r, width)
    found = _interval(core, noise, strip.usable)
    if found is None:
        return None
    for _ in range(2):
        before, width = (width, found), _width(strip, found)
        r = response(strip.values, width)
        core, noise = contrast_along(strip, r, np.zeros(len(strip.t))), noise_beside(strip, r, width)
        found = _interval(core, noise, strip.usable) or found
        if (width, found) == before:
            break
    found = _extended(core, noise, strip.usable, found, mm_per_px)
    ends, sigmas, offsets, cut = [], [], [], []
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
    features = line_features(strip, r, core, noise, found, level, width, mm_per_px)
    return Segment(line, tuple(ends), tuple(sigmas), tuple(offsets), tuple(cut), (0.0, 0.0), width, level, features)


def with_hubs(segment: Segment, pixels: np.ndarray, valid: np.ndarray, mm_per_px: float) -> Segment:
    """The segment with what follows beyond those of its ends that do not leave the picture."""
    hubs = [
        0.0 if cut else hub_sigmas(pixels, valid, segment.line, end, sign, mm_per_px)
        for cut, end, sign in zip(segment.cut, segment.ends, (-1, 1), strict=True)
    ]
    return replace(segment, hub=tuple(hubs))


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


def _extended(core: np.ndarray, noise: np.ndarray, usable: np.ndarray, found: tuple[int, int], mm_per_px: float) -> tuple[int, int]:
    """The stretch with what goes on behind its ends at a lower contrast: scatter takes contrast where the patient is thick."""
    size = max(8, int(EXTEND_MM / mm_per_px))
    level = float(np.median(core[found[0] : found[1] + 1]))
    ends = list(found)
    for side, sign in ((0, -1), (1, 1)):
        while True:
            nearest = ends[side] + sign * np.arange(1, size + 1)
            nearest = nearest[(nearest >= 0) & (nearest < len(core))]
            if len(nearest) < size or not usable[nearest].all():
                break
            here = core[nearest]
            halves = here[: size // 2].mean(), here[size // 2 :].mean()
            error = float(np.median(noise[nearest])) / np.sqrt(size / 3.0)
            # Both halves of the next stretch must show it: one bright spot is no needle.
            if here.mean() < max(EXTEND_SIGMAS * error, 0.15 * level) or min(halves) < EXTEND_SIGMAS * error:
                break
            ends[side] += sign * (size // 2)
    return ends[0], ends[1]


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
    straight, reach_px = contrast_along(strip, r, 0 * u)[found[0] : found[1]], int(LEVEL_MM / mm_per_px)
    level = max(float(np.median(straight[-reach_px:] if side else straight[:reach_px])), 1e-9)
    top = min(9.0, 0.12 * bend_px)
    amounts, rows = np.linspace(-top, top, 19), np.flatnonzero(reach)
    core = contrast_along(strip, r, np.clip(amounts[:, None] * (u[rows] / bend_px) ** 2, -12, 12), rows)
    gain = np.clip((core - 0.5 * level) * level / (noise[rows] ** 2 + (0.35 * level) ** 2), -1, 1)
    total = np.cumsum(gain[:, ::sign], axis=1).max(1) - 0.25 * np.abs(amounts)  # straight unless the picture says otherwise
    curve = amounts[int(np.argmax(total))] * (u / bend_px) ** 2
    core = contrast_along(strip, r, np.clip(curve, -12, 12))
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
