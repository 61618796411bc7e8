"""A straight needle or wire (18-25 G) in one frame: shaft and tip to sub-pixel, with a confidence, or 'not found'.

Ridges at two scales (largest curvature of the Hessian; T. Lindeberg, IJCV 30:117, 1998) vote for lines (R. Duda,
P. Hart, CACM 15:11, 1972) near the planned path if there is one, anywhere otherwise; each of the best lines is
straightened to sub-pixel, cut where steady metal begins and ends (``needle_line``), and judged by a logistic model
of ten features.  What remains below the model's threshold is not reported: no guess.

Pixels are (column, row); pictures are line-integral-like, **metal bright**.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ..errors import FluoroGuideError
from .align2d import shrink
from .needle_candidates import CANDIDATES, PLAN_ANGLE_DEG, PLAN_REACH_MM, field_mask, line_steps
from .needle_line import Segment, measure, straighten, with_hubs
from .needle_model import THRESHOLD, USUAL_WIDTH_MM, confidence, side_confidence, vector
from .needle_strip import Line

MIN_LENGTH_MM = 12.0
CLICK_REACH_PX = 12.0
FREE_BLUR_PX = 1.3
SURE = 0.97
"""Confidence from which a search in steps looks no further."""
THICK_PX, USUAL_PX = 7.0, 4.5


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
    candidates: int = CANDIDATES, width_mm: float | None = None,
) -> NeedleFinding:
    """Find one needle.

    Parameters
    ----------
    pixels
        (rows, columns), metal bright.
    mask
        bool: pixels that show the patient.  Masked metal is given back (:func:`.needle_candidates.field_mask`).
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
    width_mm
        Outer diameter when it is known (``needle_model.width_of_gauge``); needles of 18-25 G by default.
        Thicker ones (8-16 G) are only found when it is given.

    Raises
    ------
    FluoroGuideError
        Pictures that do not fit together, or a pixel size that is not positive.
    """
    # only following: the caller's mask has been through it when the needle was searched
    pixels, valid = _checked(pixels, field_mask(mask) if mask is not None and candidates else mask, mm_per_px)
    factor = _reduction(width_mm, mm_per_px)
    if factor > 1:
        return _in_reduced(factor, pixels, valid, mm_per_px, planned_px, free, near, threshold, candidates, width_mm)
    if free is not None:
        pixels, valid = subtracted(pixels, valid, np.asarray(free, np.float32))
    scene = _Scene(pixels, valid, mm_per_px, planned_px, free is not None, threshold, width_mm)
    if near is not None and near.found:
        finding = scene.followed(near)
        if finding is not None:
            return finding
    *_, found = scene.search(candidates)
    return found


def search_needle(
    pixels: np.ndarray, mask: np.ndarray | None = None, mm_per_px: float = 0.2, *, planned_px: np.ndarray | None = None,
    around_px: np.ndarray | None = None, candidates: int = CANDIDATES, width_mm: float | None = None,
) -> Iterator[NeedleFinding | None]:
    """The search of :func:`find_needle` in steps of bounded work, for a live loop: yields None after each, and the finding at last.

    It ends with the first line that is surely a needle: the next frame is asked whether it is there.
    The mask is that of the field (:func:`.needle_candidates.field_mask`).  ``around_px`` (2,): without a plan, only the
    40 mm around this point are searched.
    """
    pixels, valid = _checked(pixels, mask, mm_per_px)
    factor = _reduction(width_mm, mm_per_px)
    if factor > 1:
        pixels, valid, mm_per_px = shrink(pixels, factor), shrink(valid.astype(np.float32), factor) > 0.99, mm_per_px * factor
        planned_px, around_px = (None if p is None else (np.asarray(p, float) + 0.5) / factor - 0.5 for p in (planned_px, around_px))
    yield None
    for found in _Scene(pixels, valid, mm_per_px, planned_px, False, None, width_mm).search(candidates, around_px, SURE):
        yield found if found is None else _enlarged(found, factor)


def at_once(steps: Generator[None, None, object]) -> object:
    """The result of work that is made in steps, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class _Scene:
    """One picture and what is known of the needle in it."""

    def __init__(
        self, pixels: np.ndarray, valid: np.ndarray, mm_per_px: float, planned_px: np.ndarray | None, subtracted: bool, threshold: float | None,
        width_mm: float | None,
    ) -> None:
        self.pixels, self.valid, self.mm_per_px, self.subtracted = pixels, valid, mm_per_px, subtracted
        self.planned_px = None if planned_px is None else np.asarray(planned_px, float)
        self.direction = None if planned_px is None else self.planned_px[1] - self.planned_px[0]
        self.threshold = THRESHOLD if threshold is None else threshold
        self.width_mm = USUAL_WIDTH_MM if width_mm is None else width_mm

    def followed(self, near: NeedleFinding) -> NeedleFinding | None:
        """The needle of the frame before, when it is still there."""
        # t counts from the last tip: the shaft lies behind it, and a needle advances by millimetres
        part = (-90.0 / self.mm_per_px, 25.0 / self.mm_per_px)
        segment = _followed(self.pixels, self.valid, Line(near.tip_px, near.direction), self.mm_per_px, part)
        finding = None if segment is None else self._judged(segment, near.direction)
        return finding if finding is not None and finding.found else None

    def search(self, candidates: int, around_px: np.ndarray | None = None, enough: float = 1.0) -> Iterator[NeedleFinding | None]:
        """None after each step; the best finding at last, or the first whose confidence is above ``enough``."""
        best = NeedleFinding(False, reason="No line in the picture looks like a needle.")
        lines: list[Line] = []
        if candidates:
            lines = yield from line_steps(self.pixels, self.valid, self.mm_per_px, self.planned_px, around_px, candidates)
        seen: list[Segment] = []
        for line in lines:
            yield None
            segment = yield from _segment_steps(self.pixels, self.valid, line, self.mm_per_px, 7.0)
            if segment is None or any(_same(segment, other) for other in seen):
                continue
            seen.append(segment)
            if not any(segment.cut) and not _told_by_plan(segment, self.direction):
                yield None
                segment = with_hubs(segment, self.pixels, self.valid, self.mm_per_px)
            finding = self._judged(segment, self.direction)
            if (finding.found, finding.confidence) > (best.found, best.confidence):
                best = finding
            if best.found and best.confidence > enough:
                break
        yield best

    def _judged(self, segment: Segment, direction: np.ndarray | None) -> NeedleFinding:
        """The segment as a finding: which end is the tip, and is it a needle at all."""
        prior = None if self.planned_px is None else plan_distance(segment, self.planned_px, self.mm_per_px)
        if prior is not None and (prior[0] > PLAN_REACH_MM or prior[1] > PLAN_ANGLE_DEG):
            return NeedleFinding(False, confidence=0.0, reason="No needle near the planned path.")
        away = [float(np.linalg.norm(segment.end_px(k) - field_middle(self.valid)) * self.mm_per_px) for k in (0, 1)]
        which, side, why = tip_end(segment, direction, away)
        if which is None:
            return NeedleFinding(False, confidence=0.0, reason=why)
        line = confidence(vector(
            segment.features, which, segment.sigma[which], segment.cut[1 - which], self.mm_per_px, prior, subtracted=self.subtracted,
            width_mm=self.width_mm,
        ))
        if line * side < self.threshold:
            doubt = "A line was seen, but it is not surely a needle."
            if line >= self.threshold:
                doubt = "Both ends of a needle are seen and neither is surely the tip; click the tip."
            return NeedleFinding(False, confidence=line * side, reason=doubt)
        return _as_finding(segment, which, line * side, why)


def _reduction(width_mm: float | None, mm_per_px: float) -> int:
    """Whole factor by which a picture is made smaller so that a thick needle is as wide as the thin ones the measures are made for."""
    width_px = 0.0 if width_mm is None else width_mm / mm_per_px
    return max(2, round(width_px / USUAL_PX)) if width_px > THICK_PX else 1


def _in_reduced(
    factor: int, pixels: np.ndarray, valid: np.ndarray, mm_per_px: float, planned_px: np.ndarray | None, free: np.ndarray | None,
    near: NeedleFinding | None, threshold: float | None, candidates: int, width_mm: float | None,
) -> NeedleFinding:
    def down(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else (np.asarray(points, float) + 0.5) / factor - 0.5

    if near is not None and near.found:
        near = replace(near, tip_px=down(near.tip_px), shaft_px=down(near.shaft_px))
    found = find_needle(
        shrink(pixels, factor), shrink(valid.astype(np.float32), factor) > 0.99, mm_per_px * factor, planned_px=down(planned_px),
        free=None if free is None else shrink(np.asarray(free, np.float32), factor), near=near, threshold=threshold, candidates=candidates,
        width_mm=width_mm,
    )
    return _enlarged(found, factor)


def _enlarged(found: NeedleFinding, factor: int) -> NeedleFinding:
    if factor == 1 or not found.found:
        return found
    return replace(
        found, tip_px=(found.tip_px + 0.5) * factor - 0.5, shaft_px=(found.shaft_px + 0.5) * factor - 0.5,
        tip_sigma_px=found.tip_sigma_px * factor, width_px=found.width_px * factor, length_px=found.length_px * factor,
    )


def refine_click(
    pixels: np.ndarray, tip_px: np.ndarray, mask: np.ndarray | None = None, mm_per_px: float = 0.2, *, shaft_px: np.ndarray | None = None,
) -> NeedleFinding:
    """The needle whose tip the user clicked; when none is found there the click itself is the tip (and the reason says so)."""
    pixels, valid = _checked(pixels, None if mask is None else field_mask(mask), mm_per_px)
    tip_px = np.asarray(tip_px, float)
    options: list[tuple[float, Segment, int]] = []
    if shaft_px is not None:
        toward = tip_px - np.asarray(shaft_px, float)
        lines = [Line(tip_px, toward / max(np.linalg.norm(toward), 1e-9))]
    else:
        near = at_once(line_steps(pixels, valid, mm_per_px, None, tip_px))
        lines = [line for line in near if abs((tip_px - line.point_px) @ line.normal) < CLICK_REACH_PX]
    for line in lines:
        segment = at_once(_segment_steps(pixels, valid, line, mm_per_px, 8.0))
        for which in (0, 1) if segment else ():
            gap = float(np.linalg.norm(segment.end_px(which) - tip_px))
            if gap < CLICK_REACH_PX:
                sure = confidence(vector(segment.features, which, segment.sigma[which], segment.cut[1 - which], mm_per_px, None))
                options.append((gap - 4 * sure, segment, which))
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
    from scipy.ndimage import gaussian_filter

    from .subtraction import subtract

    # Anatomy has little as fine as a needle, noise has: the free frame without its noise costs nothing of the needle.
    difference, known, _ = subtract(pixels, gaussian_filter(free, FREE_BLUR_PX), valid)
    return difference, known


def field_middle(valid: np.ndarray) -> np.ndarray:
    """Middle (column, row) of what is visible."""
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    return np.array([0.5 * (columns[0] + columns[-1]), 0.5 * (rows[0] + rows[-1])]) if len(rows) else np.zeros(2)


# ---- candidates -------------------------------------------------------------------------------------------------
def segments(
    pixels: np.ndarray, valid: np.ndarray, mm_per_px: float, planned_px: np.ndarray | None = None, candidates: int = CANDIDATES,
) -> list[Segment]:
    """The measured lines of a frame, the strongest first: what the model is trained on."""
    result: list[Segment] = []
    for line in at_once(line_steps(pixels, valid, mm_per_px, planned_px, candidates=candidates)):
        segment = at_once(_segment_steps(pixels, valid, line, mm_per_px, 7.0))
        if segment is not None and not any(_same(segment, other) for other in result):
            result.append(segment)
    return result


def _segment_steps(
    pixels: np.ndarray, valid: np.ndarray, line: Line, mm_per_px: float, reach_px: float,
) -> Generator[None, None, Segment | None]:
    """A rough line looked at closely, in two steps of equal work; None when it is none."""
    rough = straighten(pixels, valid, line, reach_px)
    segment = None if rough is None else measure(pixels, valid, rough[0], mm_per_px)
    if segment is None:
        return None
    yield
    fine = straighten(pixels, valid, rough[0], 3.0, _without_bends(segment.ends, mm_per_px))
    again = measure(pixels, valid, fine[0], mm_per_px) if fine is not None else None
    if again is None or again.ends[1] - again.ends[0] < MIN_LENGTH_MM / mm_per_px:
        return None
    again.features["rms_px"] = fine[1]
    return again


def _followed(pixels: np.ndarray, valid: np.ndarray, line: Line, mm_per_px: float, part: tuple[float, float]) -> Segment | None:
    """A line followed from the frame before: one close look at this part of it is enough, and its ends are known apart."""
    rough = straighten(pixels, valid, line, 5.0, part)
    segment = None if rough is None else measure(pixels, valid, rough[0], mm_per_px, part)
    if segment is not None:
        segment.features["rms_px"] = rough[1]
    return segment


def _without_bends(near: tuple[float, float], mm_per_px: float) -> tuple[float, float]:
    """The middle of a segment: its ends may be bent, and decide nothing about the shaft."""
    trim = min(10.0 / mm_per_px, 0.2 * (near[1] - near[0]))
    return near[0] + trim, near[1] - trim


def _same(a: Segment, b: Segment) -> bool:
    if abs(a.line.direction @ b.line.direction) < np.cos(np.radians(2)):
        return False
    middle = a.line.at(np.array(0.5 * (a.ends[0] + a.ends[1])))
    return abs((middle - b.line.point_px) @ b.line.normal) < 5


# ---- judgement --------------------------------------------------------------------------------------------------
def plan_distance(segment: Segment, planned_px: np.ndarray, mm_per_px: float) -> tuple[float, float]:
    """Distance in mm and angle in degrees of a segment's tip end from the planned line."""
    along = planned_px[1] - planned_px[0]
    if np.linalg.norm(along) * mm_per_px < 5:
        return float(np.linalg.norm(segment.end_px(1) - planned_px[1]) * mm_per_px), 0.0
    along = along / np.linalg.norm(along)
    middle = 0.5 * (segment.end_px(0) + segment.end_px(1))
    across = abs((middle - planned_px[0]) @ np.array([-along[1], along[0]])) * mm_per_px
    return float(across), float(np.degrees(np.arccos(np.clip(abs(segment.line.direction @ along), 0, 1))))


def tip_end(segment: Segment, direction: np.ndarray | None, away_mm: Sequence[float]) -> tuple[int | None, float, str]:
    """Which end is the tip, how probable that is (0..1), and why; None when neither can be.

    Told in this order: by the plan, by the shaft leaving the picture, by a hub at one end together with the picture's
    middle (``away_mm``: distances of both ends from it), where people keep the tip.
    """
    if segment.cut[0] and segment.cut[1]:
        return None, 0.0, "A line crosses the whole picture: its tip is not in view."
    if _told_by_plan(segment, direction):
        which = 1 if segment.line.direction @ direction > 0 else 0
        if segment.cut[which]:
            return None, 0.0, "The needle leaves the picture where its tip should be."
        return which, 1.0, "The tip is the end that the plan points to."
    if segment.cut[0] != segment.cut[1]:
        return (1 if segment.cut[0] else 0), 1.0, "The shaft comes from the picture's border."
    second = side_confidence(segment.hub, away_mm, 1)
    which = 1 if second > 0.5 else 0
    return which, max(second, 1 - second), "The other end carries the hub or lies far from the middle."


def _told_by_plan(segment: Segment, direction: np.ndarray | None) -> bool:
    """Whether the planned direction tells the segment's tip; its hubs need not be looked at then."""
    return direction is not None and bool(abs(segment.line.direction @ direction) > 0.5 * np.linalg.norm(direction))


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
