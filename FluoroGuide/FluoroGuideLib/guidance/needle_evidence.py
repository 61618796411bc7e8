"""What tells a needle from a rib, a wire or a shutter, and its tip from its hub: numbers for ``needle_model``."""

from __future__ import annotations

import numpy as np

from .needle_strip import HALF_WIDTH_PX, Line, Strip, known_at, sampled


def hub_sigmas(pixels: np.ndarray, valid: np.ndarray, line: Line, end: float, sign: int, mm_per_px: float) -> float:
    """Sigmas by which a band 4-8 mm wide, darker than both its sides, begins at an end: a hub (negative: a light band).

    The steps at both its edges, beyond the end, less the same steps beside the shaft (a rib alongside has those, too); the
    weaker edge counts.  Medians along the band: a wire or a rib that crosses it decides nothing.
    """
    step = 1.0 if mm_per_px < 0.35 else 0.5
    t = sign * np.arange(-14.0 / mm_per_px, 18.0 / mm_per_px, step)
    s = np.arange(-6.0 / mm_per_px, 6.0 / mm_per_px + step / 2, step)
    at = line.at(end + t[:, None] + 0 * s, 0 * t[:, None] + s)
    where = [at[..., 1], at[..., 0]]
    known = known_at(valid, where).all(1)
    along, across = sign * t * mm_per_px, s * mm_per_px
    beyond, before = known & (along > 1.0) & (along < 16.0), known & (along < -4.5)
    if beyond.sum() * step * mm_per_px < 4.0:
        return 0.0
    values = sampled(pixels, where)
    best = -np.inf
    for half in (2.2, 2.7, 3.2, 3.8):
        sides = []
        for side in (across, -across):
            inner, outer = (side > half - 1.2) & (side < half - 0.15), (side > half + 0.15) & (side < half + 1.2)
            rise = values[:, inner].mean(1) - values[:, outer].mean(1)
            base, spread = (0.0, 0.0) if before.sum() < 8 else _middle(rise[before], step)
            height, error = _middle(rise[beyond], step)
            sides.append((height - base) / (np.hypot(error, spread) + 1e-6))
        best = max(best, min(sides))
    return float(best)


def _middle(values: np.ndarray, step_px: float) -> tuple[float, float]:
    """Median, and its standard deviation when about every third pixel is independent."""
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return middle, 1.25 * spread / np.sqrt(max(len(values) * step_px / 3.0, 1.0))


def line_features(
    strip: Strip, r: np.ndarray, core: np.ndarray, noise: np.ndarray, found: tuple[int, int], level: float, width: float, mm_per_px: float,
) -> dict:
    """What tells a needle from a rib, a wire or a shutter."""
    part = slice(found[0], found[1] + 1)
    length = (found[1] - found[0]) * mm_per_px
    chunk = max(4, int(2 / mm_per_px))
    count = max(1, (found[1] + 1 - found[0]) // chunk)
    means = core[part][: count * chunk].reshape(count, chunk).mean(1)
    rows = r[part][: count * chunk].reshape(count, chunk, -1).mean(1)
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
        "step": float(abs(step) / max(level, 1e-9)), "contrast": float(level), **_evidence(strip, r, noise, found, width, mm_per_px),
    }


def _evidence(strip: Strip, r: np.ndarray, noise: np.ndarray, found: tuple[int, int], width: float, mm_per_px: float) -> dict:
    """How far the line stands out of what runs parallel to it, as a whole and in its weakest quarter.

    Averaged along the line, noise goes and parallel structure (ribs, cortex, a grid) stays: that is what a needle must beat.
    """
    beside = (np.abs(strip.s) > 1.2 * width + 2) & (np.abs(strip.s) < HALF_WIDTH_PX - 2)
    middle = np.abs(strip.s) <= 0.5
    rows = np.where(strip.known, r, 0.0)[found[0] : found[1] + 1]

    def stands_out(part: np.ndarray) -> float:
        mean = part.mean(0)
        return float(mean[middle].max() / (np.sqrt(np.mean(mean[beside] ** 2)) + 1e-9))

    quarters = [stands_out(q) for q in np.array_split(rows, 4)]
    beyond = max(6, int(5 / mm_per_px))
    core = r[:, middle].mean(1)
    level = max(float(np.median(core[found[0] : found[1] + 1])), 1e-9)
    steps = []
    for inside, outside in (
        (slice(found[0], found[0] + beyond), slice(max(0, found[0] - beyond), found[0])),
        (slice(max(0, found[1] - beyond), found[1]), slice(found[1], found[1] + beyond)),
    ):
        out = core[outside]
        gap = core[inside].mean() - (out.mean() if len(out) > 3 else 0.0)
        steps.append(float(gap / (np.median(noise[inside]) / np.sqrt(beyond / 3.0) + 0.1 * level)))
    return {"line_snr": stands_out(rows), "weakest": float(min(quarters)), "drop": tuple(steps)}
