"""Similarity measures along lines through the true pose: how wide each one's valley is, and how near the truth its bottom."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cases import Case
from harness import table
from scipy import ndimage

from FluoroGuideLib.geometry.rigid import apply, perturb
from FluoroGuideLib.registration.register import MovingVolume, Options
from FluoroGuideLib.registration.similarity import FixedView, Level

SEEDS = range(100, 102)
AXES = ("rotation x", "rotation y", "rotation z", "shift x", "shift y", "shift z")
DIRECTIONS = 6
"""Random lines on which rotation and shift change together."""
WIDE = np.linspace(-40, 40, 27)
"""Steps of 3 mm (shifts) or half as many degrees (rotations) at 3 mm pixels: the valley's width."""
NARROW = np.linspace(-3, 3, 13)
"""Steps of 0.5 mm or half as many degrees at 1.5 mm pixels: the bottom's place."""
MOVED_MM, MOVED = 8.0, np.linspace(-10, 10, 21)
"""The surroundings have moved; steps of 1 mm along the three shifts at 1.5 mm pixels."""
DEGREES_PER_STEP_MM = 0.5
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


# ---- the measures: costs of (moving, fixed, votes), lower is better ---------------------------------------------------------
def _correlation(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    a, b, w = a[weight > 0], b[weight > 0], weight[weight > 0]
    a, b = a - np.average(a, weights=w), b - np.average(b, weights=w)
    return float((w * a * b).sum() / np.sqrt((w * a * a).sum() * (w * b * b).sum() + 1e-20))


def _gradients(image: np.ndarray, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    return tuple(ndimage.gaussian_filter(image.astype(float), sigma, order=o) for o in ((0, 1), (1, 0)))


def global_correlation(moving: np.ndarray, fixed: np.ndarray, votes: np.ndarray) -> float:
    """1 - normalised correlation of grey values."""
    return 1 - _correlation(moving, fixed, votes)


def gradient_correlation(moving: np.ndarray, fixed: np.ndarray, votes: np.ndarray) -> float:
    """1 - mean correlation of the two gradient components (Penney et al., IEEE TMI 17:586, 1998)."""
    pairs = zip(_gradients(moving), _gradients(fixed), strict=True)
    return 1 - float(np.mean([_correlation(m, f, votes) for m, f in pairs]))


def patch_gradient_correlation(moving: np.ndarray, fixed: np.ndarray, votes: np.ndarray, radius: int = 6) -> float:
    """1 - correlation of gradient components in windows, averaged with the fixed picture's local gradient energy as weight."""
    size, inside = 2 * radius + 1, (votes > 0).astype(float)
    n = np.maximum(ndimage.uniform_filter(inside, size), 1e-6)
    total, weights = 0.0, 0.0
    for m, f in zip(_gradients(moving), _gradients(fixed), strict=True):
        mean = [ndimage.uniform_filter(x * inside, size) / n for x in (m, f, m * m, f * f, m * f)]
        vm, vf = np.maximum(mean[2] - mean[0] ** 2, 0), np.maximum(mean[3] - mean[1] ** 2, 0)
        local = (mean[4] - mean[0] * mean[1]) / np.sqrt(vm * vf + (1e-2 * vm[inside > 0].mean()) * (1e-2 * vf[inside > 0].mean()) + 1e-20)
        weight = np.sqrt(vf) * inside
        total, weights = total + (weight * local).sum(), weights + weight.sum()
    return 1 - float(total / max(weights, 1e-12))


def gradient_fields(moving: np.ndarray, fixed: np.ndarray, votes: np.ndarray) -> float:
    """1 - normalised gradient fields (Haber & Modersitzki, MICCAI 2006); the edge parameter is the mean gradient."""
    (mx, my), (fx, fy), on = _gradients(moving), _gradients(fixed), votes > 0
    m2, f2 = mx**2 + my**2, fx**2 + fy**2
    cosine2 = (mx * fx + my * fy) ** 2 / ((m2 + m2[on].mean()) * (f2 + f2[on].mean()))
    return 1 - float(cosine2[on].mean())


def gradient_orientation(moving: np.ndarray, fixed: np.ndarray, votes: np.ndarray) -> float:
    """Negative gradient orientation, over pixels whose gradients exceed both medians (De Silva et al., PMB 61:3009, 2016)."""
    (mx, my), (fx, fy), on = _gradients(moving), _gradients(fixed), votes > 0
    m, f = np.hypot(mx, my), np.hypot(fx, fy)
    both = on & (m > np.median(m[on])) & (f > np.median(f[on]))
    angle = np.arccos(np.clip((mx * fx + my * fy)[both] / (m * f)[both], -1, 1))
    return float(-((2 - np.log(angle + 1)) / 2).sum() / max(both.sum(), 0.5 * on.sum() / 2))


def mutual_information(moving: np.ndarray, fixed: np.ndarray, votes: np.ndarray, bins: int = 32) -> float:
    """Negative mutual information of grey values, 32 x 32 bins."""
    on = votes > 0
    joint = np.histogram2d(moving[on], fixed[on], bins)[0]
    joint = ndimage.gaussian_filter(joint, 0.7, mode="constant") + 1e-12
    joint /= joint.sum()
    return float(-(joint * np.log(joint / (joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)))).sum())


METRICS: dict[str, Metric | None] = {
    "locally normalised residual, Cauchy (ours)": None, "gradient correlation": gradient_correlation,
    "patch gradient correlation": patch_gradient_correlation, "normalised gradient fields": gradient_fields,
    "gradient orientation": gradient_orientation, "mutual information": mutual_information, "correlation": global_correlation,
}


# ---- curves -------------------------------------------------------------------------------------------------------------
def _ours(level: Level, fixed: FixedView, moving: np.ndarray) -> float:
    residual = (fixed.normalize(moving)[0] - fixed.fixed).astype(float)
    return float((fixed.weight * np.log1p(residual**2 / level.cauchy2)).sum() / max(fixed.weight.sum(), 1e-9))


def axes() -> np.ndarray:
    """The six axes (6, 6): one millimetre of shift, or half a degree."""
    return np.diag([np.radians(DEGREES_PER_STEP_MM)] * 3 + [1.0] * 3)


def random_directions(rng: np.random.Generator) -> np.ndarray:
    """Random unit shifts, each with half a degree about a random axis, (N, 6)."""
    turn, shift = rng.normal(size=(2, DIRECTIONS, 3))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (turn, shift)]
    return np.hstack([np.radians(DEGREES_PER_STEP_MM) * unit[0], unit[1]])


def curves(level: Level, truth: np.ndarray, center_mm: np.ndarray, lines: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
    """Metric -> costs (lines, steps), the mean of the views; all measures see the same pixels and the same DRRs."""
    result = {name: np.zeros((len(lines), len(steps))) for name in METRICS}
    for row, line in enumerate(lines):
        for number, step in enumerate(steps):
            pose = perturb(truth, step * line, center_mm)
            for fixed in level.views:
                moving = level.projector.project(fixed.view, pose, fixed.rays, fixed.distances)
                for name, metric in METRICS.items():
                    cost = _ours(level, fixed, moving) if metric is None else metric(moving, fixed.pixels, fixed.weight)
                    result[name][row, number] += cost / len(level.views)
    return result


def width(costs: np.ndarray, steps: np.ndarray) -> float:
    """Half-width of the valley around 0: how far from the truth the cost still falls all the way to the minimum near it, on the worse side."""
    near = np.abs(steps) <= 6.0
    bottom = int(np.flatnonzero(near)[np.argmin(costs[near])])
    if np.any(costs[max(0, bottom - 1) : bottom + 2] < costs[bottom]):
        return 0.0  # the cost falls on, away from the truth
    left = right = bottom
    while left > 0 and costs[left - 1] > costs[left]:
        left -= 1
    while right < len(costs) - 1 and costs[right + 1] > costs[right]:
        right += 1
    return float(max(0.0, min(-steps[left], steps[right])))


def bottom(costs: np.ndarray, steps: np.ndarray) -> float:
    """Distance of the lowest point from the truth, with a parabola through it and its neighbours."""
    i = int(np.argmin(costs))
    if i in (0, len(costs) - 1):
        return float(abs(steps[i]))
    a, b, c = costs[i - 1 : i + 2]
    return float(abs(steps[i] + (steps[1] - steps[0]) * 0.5 * (a - c) / max(a - 2 * b + c, 1e-20)))


def _level(moving: MovingVolume, case: Case, number: int) -> tuple[Level, np.ndarray]:
    """A level of the default pyramid on the pixels that the scan covers at the true pose, and the centre of rotation."""
    spec, center = Options().levels[number], apply(case.truth, case.target)
    level = Level(moving.projector(spec.pixel_mm), case.images, center, spec.pixel_mm, spec.radius)
    return level.without_unknown(moving.beyond(), case.truth), center


def run(quick: bool = False) -> dict:
    """All cases: metric -> kind -> one list of figures per case."""
    found: dict[str, dict[str, list]] = {name: {"width": [], "joint": [], "bottom": [], "moved": []} for name in METRICS}
    moving = None
    for seed in list(SEEDS)[:1] if quick else SEEDS:
        still, disturbed = Case(seed), Case(seed, moved_mm=MOVED_MM)
        moving = moving or MovingVolume(still.volume)
        for kind, case, number, lines, steps, measure in (
            ("width", still, 1, axes(), WIDE, width), ("joint", still, 1, random_directions(np.random.default_rng(seed)), WIDE, width),
            ("bottom", still, 2, axes(), NARROW, bottom), ("moved", disturbed, 2, axes()[3:], MOVED, bottom),
        ):
            level, center = _level(moving, case, number)
            for name, costs in curves(level, case.truth, center, lines, steps).items():
                found[name][kind].append([measure(c, steps) for c in costs])
        print(f"case {seed} done", flush=True)
    return found


def markdown(result: dict) -> str:
    """The section of ``Docs/benchmarks.md``."""
    units = np.array([DEGREES_PER_STEP_MM] * 3 + [1.0] * 3)
    rows, by_axis = [], []
    for name in METRICS:
        wide, joint, deep, moved = (np.array(result[name][k]) for k in ("width", "joint", "bottom", "moved"))
        deep = deep * units
        rows.append([
            name, *[float(f(joint)) for f in (np.median, np.min)], *[float(np.median(deep[:, i])) for i in (slice(0, 3), slice(3, 6))],
            float(deep[:, 3:].max()), *[float(f(moved)) for f in (np.median, np.max)],
        ])
        by_axis.append([name, *[float(v) for v in np.median(wide * units, 0)]])
    cases = len(result["correlation"]["width"])
    header = ["measure", "width mm", "least", "bottom °", "bottom mm", "worst", "moved: bottom mm", "worst"]
    return "\n\n".join([
        "## Measures of similarity",
        f"Costs along lines through the true pose; {cases} simulated cases on the thorax CT (AP and lateral, as above), the same DRRs and pixels "
        "for all. *width*: from how far off the cost falls all the way down to the minimum near the truth, on the worse side, on "
        f"{DIRECTIONS} random lines per case with half a degree of rotation to each mm (3 mm pixels, up to 40 mm). *bottom*: how far the lowest "
        "point is from the truth along each axis (1.5 mm pixels). *moved*: the same, along the three shifts, when everything but the vertebra "
        f"has moved by {MOVED_MM:g} mm in a random direction and the whole volume is projected. Medians, and the worst line.",
        table(header, rows),
        "Median width per axis (degrees, then mm; 20° and 40 mm are the ends of the curves):", table(["measure", *AXES], by_axis),
    ])
