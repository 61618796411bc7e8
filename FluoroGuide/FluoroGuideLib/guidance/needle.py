"""A straight needle or wire (18-25 G) in one frame: shaft and tip to sub-pixel, with a confidence, or 'not found'.

Ridges at two scales (largest curvature of the Hessian; T. Lindeberg, IJCV 30:117, 1998) vote for lines (R. Duda,
P. Hart, CACM 15:11, 1972) near the planned path if there is one, anywhere otherwise; each of the best lines is
straightened to sub-pixel, cut where steady metal begins and ends (``needle_line``), and judged by a logistic model
of ten features.  What remains below the model's threshold is not reported: no guess.

Pixels are (column, row); pictures are line-integral-like, **metal bright**.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..errors import FluoroGuideError
from .align2d import shrink
from .needle_line import Line, Segment, measure, straighten
from .needle_model import THRESHOLD, confidence

PLAN_REACH_MM, PLAN_ANGLE_DEG = 18.0, 15.0
"""How far from its planned path, sideways and in angle, a needle is looked for."""
MIN_LENGTH_MM = 12.0
CANDIDATES = 8
TIP_LOG_ODDS = 2.0
CLICK_REACH_PX = 12.0


@dataclass(frozen=True, eq=False)
class NeedleFinding:
    """What one frame says about the needle.

    Attributes
    ----------
    found
        False: nothing is claimed, and :attr:`reason` says why.
    tip_px, shaft_px
        (2,) pixels: the tip, and the other end of what is seen of the shaft; None when not found.
    direction
        Unit vector (2,) of the straight shaft, towards the tip.
    tip_sigma_px
        Standard deviation of the tip (along the shaft; across it is far better).
    angle_sigma_deg
        Of the direction.
    confidence
        0..1: probability that this is a needle with its tip there, by the model.
    width_px, length_px
        Apparent width and the length seen.
    hub_seen
        The far end lies in the picture: the whole needle is seen.
    reason
        One sentence.
    """

    found: bool
    tip_px: np.ndarray | None = None
    shaft_px: np.ndarray | None = None
    direction: np.ndarray | None = None
    tip_sigma_px: float = 0.0
    angle_sigma_deg: float = 0.0
    confidence: float = 0.0
    width_px: float = 0.0
    length_px: float = 0.0
    hub_seen: bool = False
    reason: str = ""

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


def find_needle(
    pixels: np.ndarray, mask: np.ndarray | None = None, mm_per_px: float = 0.2, *, planned_px: np.ndarray | None = None,
    free: np.ndarray | None = None, near: NeedleFinding | None = None, threshold: float | None = None,
    candidates: int = CANDIDATES,
) -> NeedleFinding:
    """Find one needle.

    Parameters
    ----------
    pixels
        (rows, columns), metal bright.
    mask
        bool: pixels that show the patient.
    mm_per_px
        Object-plane size of a pixel at the needle's depth (``view.mm_per_pixel_at``).
    planned_px
        (2, 2): planned entry and target; the needle is then looked for near this line, and its tip is the end that
        points from entry to target.
    free
        An earlier frame of the same view without the needle: it is aligned and subtracted.
    near
        The finding of the frame before: looked for there first.
    candidates
        How many lines are looked at closely; 0: only ``near``.  Bounds the work per frame.
    threshold
        Confidence from which a needle is claimed; the model's own by default.

    Raises
    ------
    FluoroGuideError
        Pictures that do not fit together, or a pixel size that is not positive.
    """
    pixels, valid = _checked(pixels, mask, mm_per_px)
    if free is not None:
        pixels, valid = subtracted(pixels, valid, np.asarray(free, np.float32))
    threshold = THRESHOLD if threshold is None else threshold
    direction, middle_px = None, field_middle(valid)
    if planned_px is not None:
        planned_px = np.asarray(planned_px, float)
        direction = planned_px[1] - planned_px[0]
    if near is not None and near.found:
        # t counts from the last tip: the shaft lies behind it, and a needle advances by millimetres
        segment = _segment(pixels, valid, Line(near.tip_px, near.direction), mm_per_px, 5.0, (-90.0 / mm_per_px, 25.0 / mm_per_px))
        finding = _finding(segment, mm_per_px, near.direction, threshold, planned_px, middle_px) if segment else None
        if finding is not None and finding.found:
            return finding
    best = NeedleFinding(False, reason="No line in the picture looks like a needle.")
    for segment in segments(pixels, valid, mm_per_px, planned_px, candidates):
        finding = _finding(segment, mm_per_px, direction, threshold, planned_px, middle_px)
        if (finding.found, finding.confidence) > (best.found, best.confidence):
            best = finding
    return best


def refine_click(
    pixels: np.ndarray, tip_px: np.ndarray, mask: np.ndarray | None = None, mm_per_px: float = 0.2, *, shaft_px: np.ndarray | None = None,
) -> NeedleFinding:
    """The needle whose tip the user clicked; when none is found there the click itself is the tip (and the reason says so)."""
    pixels, valid = _checked(pixels, mask, mm_per_px)
    tip_px = np.asarray(tip_px, float)
    options: list[tuple[float, Segment, int]] = []
    if shaft_px is not None:
        toward = tip_px - np.asarray(shaft_px, float)
        lines = [Line(tip_px, toward / max(np.linalg.norm(toward), 1e-9))]
    else:
        near = rough_lines(pixels, valid, mm_per_px, None, around=tip_px)
        lines = [line for line in near if abs((tip_px - line.point_px) @ line.normal) < CLICK_REACH_PX]
    for line in lines:
        segment = _segment(pixels, valid, line, mm_per_px, 8.0)
        for which in (0, 1) if segment else ():
            gap = float(np.linalg.norm(segment.end_px(which) - tip_px))
            if gap < CLICK_REACH_PX:
                options.append((gap - 4 * confidence(segment.features, mm_per_px, None)[0], segment, which))
    if options:
        _, segment, which = min(options, key=lambda o: o[0])
        return _as_finding(segment, which, 1.0, "Refined from the user's click.")
    if shaft_px is None:
        why = "Only the clicked tip is known; click a second point of the shaft."
        return NeedleFinding(False, tip_px, confidence=1.0, tip_sigma_px=2.0, reason=why)
    toward = tip_px - np.asarray(shaft_px, float)
    return NeedleFinding(
        True, tip_px, np.asarray(shaft_px, float), toward / np.linalg.norm(toward), 2.0, float(np.degrees(2.0 / np.linalg.norm(toward))), 1.0, 0.0,
        float(np.linalg.norm(toward)), False, "As clicked by the user: no line was found to refine it.",
    )


def subtracted(pixels: np.ndarray, valid: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frame minus an aligned needle-free one, and where both are known."""
    from .subtraction import subtract

    difference, known, _ = subtract(pixels, free, valid)
    return difference, known


def field_middle(valid: np.ndarray) -> np.ndarray:
    """Middle (column, row) of what is visible."""
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    return np.array([0.5 * (columns[0] + columns[-1]), 0.5 * (rows[0] + rows[-1])]) if len(rows) else np.zeros(2)


# ---- candidates -------------------------------------------------------------------------------------------------
def segments(
    pixels: np.ndarray, valid: np.ndarray, mm_per_px: float, planned_px: np.ndarray | None = None, candidates: int = CANDIDATES,
) -> list[Segment]:
    """The measured lines of a frame, the strongest first; for :func:`find_needle` and for the model's training."""
    result: list[Segment] = []
    for line in rough_lines(pixels, valid, mm_per_px, planned_px, candidates=candidates) if candidates else ():
        segment = _segment(pixels, valid, line, mm_per_px, 7.0)
        if segment is not None and not any(_same(segment, other) for other in result):
            result.append(segment)
    return result


def _segment(
    pixels: np.ndarray, valid: np.ndarray, line: Line, mm_per_px: float, reach_px: float, part: tuple[float, float] | None = None,
) -> Segment | None:
    rough = straighten(pixels, valid, line, reach_px, part)
    if rough is None:
        return None
    if part is not None:  # followed from frame to frame: one close look is enough
        again = measure(pixels, valid, rough[0], mm_per_px, part)
        if again is not None:
            again.features["rms_px"] = rough[1]
        return again
    segment = measure(pixels, valid, rough[0], mm_per_px)
    if segment is None:
        return None
    near = (segment.ends[0], segment.ends[1])
    fine = straighten(pixels, valid, rough[0], 3.0, _without_bends(near, mm_per_px))
    again = measure(pixels, valid, fine[0], mm_per_px) if fine is not None else None
    if again is None or again.ends[1] - again.ends[0] < MIN_LENGTH_MM / mm_per_px:
        return None
    again.features["rms_px"] = fine[1]
    return again


def _without_bends(near: tuple[float, float], mm_per_px: float) -> tuple[float, float]:
    """The middle of a segment: its ends may be bent, and decide nothing about the shaft."""
    trim = min(10.0 / mm_per_px, 0.2 * (near[1] - near[0]))
    return near[0] + trim, near[1] - trim


def _same(a: Segment, b: Segment) -> bool:
    if abs(a.line.direction @ b.line.direction) < np.cos(np.radians(2)):
        return False
    middle = a.line.at(np.array(0.5 * (a.ends[0] + a.ends[1])))
    return abs((middle - b.line.point_px) @ b.line.normal) < 5


def rough_lines(
    pixels: np.ndarray, valid: np.ndarray, mm_per_px: float, planned_px: np.ndarray | None, around: np.ndarray | None = None,
    candidates: int = CANDIDATES,
) -> list[Line]:
    """Lines by votes of ridge pixels, in full-resolution pixels, the strongest first."""
    factor = 2 if mm_per_px < 0.3 else 1
    low, high = _box(pixels.shape, mm_per_px, planned_px, around)
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    small = shrink(pixels[part], factor)
    inside = shrink(valid[part].astype(np.float32), factor) > 0.99
    strength, angle = ridges(small, inside)
    rows, columns = np.nonzero(strength > 0.8)
    weight, angle = strength[rows, columns], angle[rows, columns]
    if planned_px is not None:
        keep = _near_plan(columns, rows, angle, low, factor, planned_px, mm_per_px)
        rows, columns, weight, angle = rows[keep], columns[keep], weight[keep], angle[keep]
    lines = _vote(columns.astype(float), rows.astype(float), weight, angle, small.shape, candidates)
    return [Line(np.asarray(low) + (p + 0.5) * factor - 0.5, d) for p, d in lines]


def _box(shape: tuple[int, int], mm_per_px: float, planned_px: np.ndarray | None, around: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel (column, row) of the part looked at."""
    size = np.array([shape[1], shape[0]])
    if planned_px is not None:
        points, reach = planned_px, (PLAN_REACH_MM + 12) / mm_per_px
    elif around is not None:
        points, reach = np.atleast_2d(around), 40 / mm_per_px
    else:
        return np.zeros(2, int), size
    low = np.clip(np.floor(points.min(0) - reach), 0, size - 64).astype(int)
    high = np.clip(np.ceil(points.max(0) + reach), low + 64, size).astype(int)
    return np.maximum(low, 0), high


def ridges(small: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strength of bright ridges in units of its local spread (capped at 4), and their direction in radians, 0..pi."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    filled = np.where(inside, small, np.median(small[inside]) if inside.any() else 0.0).astype(np.float32)
    strength, xx, xy = (np.zeros_like(filled) for _ in range(3))
    for sigma in (1.0, 1.8):
        rr, cc, rc = (sigma**2 * gaussian_filter(filled, sigma, order) for order in ((2, 0), (0, 2), (1, 1)))
        root = np.sqrt(0.25 * (rr - cc) ** 2 + rc**2)
        here = np.maximum(0, root - 0.5 * (rr + cc) - np.abs(0.5 * (rr + cc) + root))
        strength = np.maximum(strength, here)
        # the larger eigenvalue of [[cc, rc], [rc, rr]] belongs to the direction along the ridge
        xx, xy = xx + here * (cc - rr), xy + here * 2 * rc
    safe = binary_erosion(inside, np.ones((3, 3), bool), iterations=4)
    strength *= safe
    # The direction of one pixel is noise at low dose: neighbours along the ridge agree.  Doubled angles average well.
    angle = 0.5 * np.arctan2(gaussian_filter(xy, 2.0), gaussian_filter(xx, 2.0))
    spread = np.sqrt(gaussian_filter(strength**2 * safe, 24.0) / (gaussian_filter(safe.astype(np.float32), 24.0) + 1e-3)) + 1e-9
    return np.minimum(strength / spread, 4.0), np.mod(angle, np.pi)


def _near_plan(
    columns: np.ndarray, rows: np.ndarray, angle: np.ndarray, low: np.ndarray, factor: int, planned_px: np.ndarray, mm_per_px: float,
) -> np.ndarray:
    along = planned_px[1] - planned_px[0]
    if np.linalg.norm(along) * mm_per_px < 5:  # seen end on: the plan gives a place, no direction
        return np.ones(len(columns), bool)
    along = along / np.linalg.norm(along)
    at = np.column_stack([columns, rows]) * factor + low
    across = np.abs((at - planned_px[0]) @ np.array([-along[1], along[0]])) * mm_per_px
    turn = np.abs(np.mod(angle - np.arctan2(along[1], along[0]) + np.pi / 2, np.pi) - np.pi / 2)
    return (across < PLAN_REACH_MM) & (turn < np.radians(PLAN_ANGLE_DEG + 10))


def _vote(x: np.ndarray, y: np.ndarray, weight: np.ndarray, angle: np.ndarray, shape: tuple[int, int], candidates: int) -> list[tuple]:
    """(point, direction) of the strongest lines: Hough transform where a pixel votes for directions near its own."""
    from scipy.ndimage import gaussian_filter

    lines: list[tuple[np.ndarray, np.ndarray]] = []
    if len(x) < 20:
        return lines
    radius = float(np.hypot(*shape)) / 2
    cx, cy = shape[1] / 2, shape[0] / 2
    bins = 2 * int(radius) + 3
    steps = np.arange(-9, 10)
    bell = np.exp(-0.5 * (steps / 4.5) ** 2)
    k = np.mod(np.round(np.degrees(angle)).astype(int)[:, None] + 90 + steps, 180)  # direction of the normal, degrees
    phi = np.radians(k)
    rho = np.round((x - cx)[:, None] * np.cos(phi) + (y - cy)[:, None] * np.sin(phi)).astype(int) + bins // 2
    index, votes_of = k * bins + np.clip(rho, 0, bins - 1), weight[:, None] * bell
    alive = np.ones(len(x), bool)
    for _ in range(candidates):
        votes = np.bincount(index[alive].ravel(), votes_of[alive].ravel(), 180 * bins).reshape(180, bins)
        smooth = gaussian_filter(votes, (0.7, 0.8), mode=("wrap", "constant"))
        score = smooth - gaussian_filter(votes, (0, 12), mode="constant")
        top, place = np.unravel_index(int(np.argmax(score)), score.shape)
        if score[top, place] <= 4:
            break
        normal = np.array([np.cos(np.radians(top)), np.sin(np.radians(top))])
        point = np.array([cx, cy]) + (place - bins // 2) * normal
        lines.append((point, np.array([-normal[1], normal[0]])))
        alive &= np.abs((x - point[0]) * normal[0] + (y - point[1]) * normal[1]) > 3
        if alive.sum() < 20:
            break
    return lines


# ---- judgement --------------------------------------------------------------------------------------------------
def _finding(
    segment: Segment, mm_per_px: float, direction: np.ndarray | None, threshold: float, planned_px: np.ndarray | None, middle_px: np.ndarray,
) -> NeedleFinding:
    """The segment as a finding: which end is the tip, and is it a needle at all."""
    prior = None if planned_px is None else plan_distance(segment, planned_px, mm_per_px)
    if prior is not None and (prior[0] > PLAN_REACH_MM or prior[1] > PLAN_ANGLE_DEG):
        return NeedleFinding(False, confidence=0.0, reason="No needle near the planned path.")
    which, why = tip_end(segment, direction, middle_px, mm_per_px)
    if which is None:
        return NeedleFinding(False, confidence=0.0, reason=why)
    sure, _ = confidence(segment.features | {"tip_sigma_px": segment.sigma[which]}, mm_per_px, prior)
    if sure < threshold:
        return NeedleFinding(False, confidence=sure, reason="A line was seen, but it is not surely a needle.")
    return _as_finding(segment, which, sure, why)


def plan_distance(segment: Segment, planned_px: np.ndarray, mm_per_px: float) -> tuple[float, float]:
    """Distance in mm and angle in degrees of a segment's tip end from the planned line."""
    along = planned_px[1] - planned_px[0]
    if np.linalg.norm(along) * mm_per_px < 5:
        return float(np.linalg.norm(segment.end_px(1) - planned_px[1]) * mm_per_px), 0.0
    along = along / np.linalg.norm(along)
    middle = 0.5 * (segment.end_px(0) + segment.end_px(1))
    across = abs((middle - planned_px[0]) @ np.array([-along[1], along[0]])) * mm_per_px
    return float(across), float(np.degrees(np.arccos(np.clip(abs(segment.line.direction @ along), 0, 1))))


def tip_end(segment: Segment, direction: np.ndarray | None, middle_px: np.ndarray, mm_per_px: float) -> tuple[int | None, str]:
    """Which end is the tip, and why; None when nothing tells.

    Told in this order: by the plan, by the shaft leaving the picture, by a hub at one end together with the picture's
    middle (``middle_px``), where people keep the tip.
    """
    if segment.cut[0] and segment.cut[1]:
        return None, "A line crosses the whole picture: its tip is not in view."
    if direction is not None and abs(segment.line.direction @ direction) > 0.5 * np.linalg.norm(direction):
        which = 1 if segment.line.direction @ direction > 0 else 0
        if segment.cut[which]:
            return None, "The needle leaves the picture where its tip should be."
        return which, "The tip is the end that the plan points to."
    if segment.cut[0] != segment.cut[1]:
        return (1 if segment.cut[0] else 0), "The shaft comes from the picture's border."
    away = [np.linalg.norm(segment.end_px(k) - middle_px) * mm_per_px for k in (0, 1)]
    odds = 0.5 * np.clip(segment.hub[0] - segment.hub[1], -6, 6) + 0.06 * np.clip(away[0] - away[1], -60, 60)
    if abs(odds) > TIP_LOG_ODDS:
        return (1 if odds > 0 else 0), "The other end carries the hub or lies far from the middle."
    return None, "Both ends of a line are seen and neither is surely the tip; click the tip."


def _as_finding(segment: Segment, which: int, sure: float, why: str) -> NeedleFinding:
    sign = 1 if which == 1 else -1
    length = segment.ends[1] - segment.ends[0]
    rms = max(segment.features.get("rms_px", 0.5), 0.2)
    angle = float(np.degrees(rms * np.sqrt(12.0 / max(length / 5, 1.0)) / length))
    return NeedleFinding(
        True, segment.end_px(which), segment.end_px(1 - which), sign * segment.line.direction, segment.sigma[which], angle, sure, segment.width_px,
        float(length), not segment.cut[1 - which], why,
    )


def _checked(pixels: np.ndarray, mask: np.ndarray | None, mm_per_px: float) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(pixels, np.float32)
    if pixels.ndim != 2 or min(pixels.shape) < 64:
        raise FluoroGuideError("The picture is too small to look for a needle in", pixels.shape, "Give a frame of at least 64 x 64 pixels")
    if not np.isfinite(mm_per_px) or mm_per_px <= 0:
        raise FluoroGuideError("The pixel size must be a positive number of mm", mm_per_px)
    if mask is not None and np.shape(mask) != pixels.shape:
        raise FluoroGuideError("The mask and the picture differ in size", f"{np.shape(mask)}, {pixels.shape}")
    valid = np.isfinite(pixels) if mask is None else np.asarray(mask, bool) & np.isfinite(pixels)
    if not valid.all():
        # Outside the field the nearest known value is as good as any: it makes no edge.
        from scipy.ndimage import distance_transform_edt

        at = distance_transform_edt(~valid, return_distances=False, return_indices=True)
        pixels = pixels[tuple(at)]
    return np.ascontiguousarray(pixels), valid
