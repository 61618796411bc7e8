"""Motion watch: has the target bone left the place where it was registered?  Asked of every frame.

Absorption adds up along a ray.  If only the bone moved by d, a frame differs from the first one that was checked by
``a (B(x - d) - B(x))``, where B is the bone's own DRR and ``a`` the grey scale; everything that stayed cancels, and what
else moves (breathing soft tissue, contrast agent, a needle) does not look like the bone's derivative.  d is found by
robust least squares on that model.  The DRR also tells whether the picture still shows what was registered (``lost``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply
from .align2d import shrink
from .needle import NeedleFinding

REACH_MM = 45.0
"""The part of the picture around the target that is watched."""
PIXEL_MM = 0.45
SEARCH_MM, SEARCH_STEP_MM = 9.0, 1.5
"""Shifts that a frame may jump by, and the grid on which they are tried."""
REFERENCE_FRAMES = 10


@dataclass(frozen=True)
class MotionOptions:
    """Thresholds.

    Attributes
    ----------
    threshold_mm
        Shift at the target from which it counts as moved.
    confirm, of
        So many of the last ``of`` frames must say so.
    breathing_mm
        Amplitude (half peak to peak) by which the target itself may move with breathing around its middle position.
    breathing_seconds
        At least one breath: the middle position is taken over it.
    lost_share
        Part of the first frame's score with the DRR below which the picture no longer shows the bone.
    """

    threshold_mm: float = 1.0
    confirm: int = 2
    of: int = 3
    breathing_mm: float = 0.0
    breathing_seconds: float = 6.0
    lost_share: float = 0.4


@dataclass(frozen=True)
class MotionReading:
    """One frame's answer: ``state`` is ``ok``, ``moved`` or ``lost``.

    ``shift_mm`` is (column, row) in the plane through the target parallel to the detector: depth is not seen.
    ``explained``: part of the change in the picture that the shift explains; ``match``: correlation with the bone's DRR.
    """

    state: str
    shift_mm: tuple[float, float]
    explained: float
    match: float
    sigma_mm: float

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return float(np.hypot(*self.shift_mm))


class MotionWatch:
    """Watches one view.

    Parameters
    ----------
    view, pose
        Isocentre view and the registration's pose (4x4, volume -> isocentre).
    target_lps_mm
        (3,), volume LPS.
    bone_drr
        Line integrals (rows, columns) of the target bone alone at that pose, any resolution of the same detector area.
    """

    def __init__(
        self, view: CArmView, pose: np.ndarray, target_lps_mm: np.ndarray, bone_drr: np.ndarray, options: MotionOptions | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        self.view, self.options = view, options or MotionOptions()
        target = apply(pose, target_lps_mm)
        self.mm_per_px, self.target_px = view.mm_per_pixel_at(target), view.project(target)[0]
        self.factor = max(1, round(PIXEL_MM / self.mm_per_px))
        reach = int(np.ceil(REACH_MM / self.mm_per_px))
        low = np.clip(np.floor(self.target_px - reach), 0, None).astype(int)
        high = np.clip(np.ceil(self.target_px + reach), None, (view.columns, view.rows)).astype(int)
        if (high - low).min() < 16 * self.factor:
            raise FluoroGuideError("The target is not in the picture: its motion cannot be watched", np.round(self.target_px).tolist(), "Centre it")
        self._part = (slice(low[1], high[1]), slice(low[0], high[0]))
        self._low = low
        drr = shrink(_to_size(bone_drr, view)[self._part], self.factor)
        known = np.ones_like(drr) if mask is None else shrink(mask[self._part].astype(np.float32), self.factor)
        self._inside = (known > 0.9).astype(np.float32)
        self._weight = edge_weight(drr) * self._inside
        if self._weight.max() <= 0:
            raise FluoroGuideError("The target bone has no edge in the picture", None, "Check the target, or watch another bone")
        self._bone = _smooth(drr)
        self._model = _ShiftModel(self._bone, self._weight, self.factor * self.mm_per_px)
        self.restart()

    def restart(self) -> None:
        """Take the next frame as the new reference (after a registration)."""
        self._reference: np.ndarray | None = None
        self._averaged, self._first_match = 0, 0.0
        self._recent: deque = deque(maxlen=self.options.of)
        self._path: deque = deque()

    def check(self, pixels: np.ndarray, now: float = 0.0, needle: NeedleFinding | None = None) -> MotionReading:
        """Judge one frame (rows, columns), bone bright; ``now`` in seconds; a known needle is left out."""
        small = _smooth(shrink(np.asarray(pixels, np.float32)[self._part], self.factor))
        if self._reference is None:
            self._reference, self._averaged = small.copy(), 1
            self._first_match, gain = self._match(small, np.zeros(2))
            self._model.gain = gain
            return MotionReading("ok", (0.0, 0.0), 1.0, self._first_match, 0.0)
        weight = self._weight * self._without(needle)
        shift_px, explained, sigma_px = self._model.find(small - self._reference, weight)
        scale = self.factor * self.mm_per_px
        shift = shift_px * scale
        match, gain = self._match(small, shift_px)
        self._recent.append(self._judge(shift, match, now))
        state = next((k for k in ("lost", "moved") if self._recent.count(k) >= self.options.confirm), "ok")
        if state == "ok" and len(self._recent) - self._recent.count("ok") >= self.options.confirm:
            state = "moved"
        if state == "ok" and self._averaged < REFERENCE_FRAMES and np.hypot(*shift) < 0.3 * self.options.threshold_mm:
            # a less noisy reference; stopped early, so that a slow drift is not averaged in
            self._averaged += 1
            self._reference += (small - self._reference) / self._averaged
            self._model.gain += (gain - self._model.gain) / self._averaged
        return MotionReading(state, (float(shift[0]), float(shift[1])), explained, match, float(sigma_px * scale))

    def _judge(self, shift: np.ndarray, match: float, now: float) -> str:
        o = self.options
        if match < o.lost_share * self._first_match:
            return "lost"
        if o.breathing_mm <= 0:
            return "moved" if np.hypot(*shift) > o.threshold_mm else "ok"
        self._path.append((now, shift))
        while now - self._path[0][0] > o.breathing_seconds:
            self._path.popleft()
        if np.hypot(*shift) > o.threshold_mm + 2 * o.breathing_mm:
            return "moved"
        if now - self._path[0][0] > 0.8 * o.breathing_seconds:  # a breath was seen: where is its middle?
            path = np.array([s for _, s in self._path])
            middle, swing = 0.5 * (path.max(0) + path.min(0)), 0.5 * np.hypot(*np.ptp(path, axis=0))
            if np.hypot(*middle) > o.threshold_mm + o.breathing_mm or swing > o.breathing_mm + o.threshold_mm:
                return "moved"
        return "ok"

    def _without(self, needle: NeedleFinding | None) -> np.ndarray:
        """1 where the picture counts: not within 2 mm of a known needle."""
        if needle is None or not needle.found:
            return np.ones_like(self._inside)
        rows, columns = np.mgrid[: self._inside.shape[0], : self._inside.shape[1]]
        tip, shaft = ((p - self._low + 0.5) / self.factor - 0.5 for p in (needle.tip_px, needle.shaft_px))
        along = (tip - shaft) / max(np.linalg.norm(tip - shaft), 1e-9)
        t = (columns - shaft[0]) * along[0] + (rows - shaft[1]) * along[1]
        s = np.abs((columns - shaft[0]) * along[1] - (rows - shaft[1]) * along[0])
        near = 2.0 / (self.factor * self.mm_per_px)
        return ~((s < near) & (t > -near) & (t < np.linalg.norm(tip - shaft) + near)) + np.float32(0)

    def _match(self, small: np.ndarray, shift_px: np.ndarray) -> tuple[float, float]:
        """Correlation of a frame with the bone's DRR along its edges, and the frame's grey values per unit of the DRR."""
        from scipy.ndimage import shift as moved

        drr = moved(self._bone, shift_px[::-1], order=1, mode="nearest")
        w = moved(self._weight, shift_px[::-1], order=1, mode="constant") * self._inside
        total = max(float(w.sum()), 1e-9)
        a, b = small - (w * small).sum() / total, drr - (w * drr).sum() / total
        ab, aa, bb = ((w * x * y).sum() for x, y in ((a, b), (a, a), (b, b)))
        return float(ab / np.sqrt(aa * bb + 1e-12)), float(max(ab / (bb + 1e-12), 1e-6))


class _ShiftModel:
    """Finds the shift of one bone in the difference of two frames."""

    def __init__(self, bone: np.ndarray, weight: np.ndarray, mm_per_px: float) -> None:
        self.bone, self.gain = np.ascontiguousarray(bone, np.float32), 1.0
        self._use = np.nonzero(self._reach(weight, SEARCH_MM / mm_per_px))
        steps = np.arange(-SEARCH_MM, SEARCH_MM + 0.1, SEARCH_STEP_MM) / mm_per_px
        self._shifts = np.array([(c, r) for r in steps for c in steps])
        # The search may thin the pixels out: it only has to find the right valley.
        thin = slice(None, None, 5)
        self._thin = tuple(i[thin] for i in self._use)
        self._stack = np.array([self._change(d, self._thin) for d in self._shifts], np.float32)
        near = np.abs(np.hypot(*self._shifts.T) * mm_per_px - 2.0) < 1.0
        self._typical = float(np.percentile(np.abs(self._stack[near]), 90))  # a 2 mm shift's own changes are no outliers

    @staticmethod
    def _reach(weight: np.ndarray, pixels: float) -> np.ndarray:
        """Pixels that the bone's edges can come to lie on."""
        from scipy.ndimage import binary_dilation

        return binary_dilation(weight > 0, iterations=max(1, round(0.4 * pixels)))

    def _change(self, shift_px: np.ndarray, where: tuple) -> np.ndarray:
        from scipy.ndimage import map_coordinates

        at = [where[0] - shift_px[1], where[1] - shift_px[0]]  # linear: the picture was smoothed by more than a pixel
        return map_coordinates(self.bone, at, order=1, mode="nearest", prefilter=False) - self.bone[where]

    def find(self, difference: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Shift (column, row) in pixels, the part of the difference it explains (0..1), and the shift's standard deviation."""
        w_all = np.where(weight > 0, weight, 0.15) * (weight >= 0)
        d, w = difference[self._thin], w_all[self._thin]
        scale = max(1.4826 * float(np.median(np.abs(difference[self._use]))), self.gain * self._typical) + 1e-9
        w = w / (1 + (d / (3 * scale)) ** 2)
        d = d - (w * d).sum() / w.sum()
        cost = -2 * self.gain * (self._stack @ (w * d)) + self.gain**2 * ((self._stack**2) @ w)
        start = self._shifts[int(np.argmin(cost))]
        return self._refined(difference[self._use], w_all[self._use], start)

    def _refined(self, d: np.ndarray, w0: np.ndarray, shift_px: np.ndarray) -> tuple[np.ndarray, float, float]:
        shift_px = np.array(shift_px, float)
        sigma, explained, gain = 0.0, 0.0, self.gain
        for _ in range(6):
            change = self._change(shift_px, self._use)
            # The grey scale was guessed from one picture with more than this bone in it; a large shift measures it.
            prior = 0.5 * w0.sum() * self._typical**2 / 4
            gain = float(np.clip((w0 @ (d * change) + prior * self.gain) / (w0 @ change**2 + prior), 0.4 * self.gain, 1.5 * self.gain))
            here = gain * change
            slope = np.stack([gain * self._change(shift_px + h, self._use) - here for h in np.eye(2) * 0.5]) / 0.5
            residual = d - here
            residual -= np.median(residual)
            scale = max(1.4826 * float(np.median(np.abs(residual))), 0.5 * self.gain * self._typical) + 1e-9
            w = w0 / (1 + (residual / (2.4 * scale)) ** 2)
            hessian = (slope * w) @ slope.T
            hessian[np.diag_indices(2)] += 1e-4 * np.trace(hessian) + 1e-12
            step = np.linalg.solve(hessian, slope @ (w * residual))
            shift_px += np.clip(step, -3, 3)
            # neighbouring pixels share their noise (smoothing): about one in nine is independent
            sigma = float(3.0 * np.sqrt(np.trace(np.linalg.inv(hessian)) * (w * residual**2).sum() / max(w.sum(), 1e-9) * np.mean(w0)))
            explained = float(1 - (w * residual**2).sum() / max((w * (d - np.median(d)) ** 2).sum(), 1e-12))
            if np.abs(step).max() < 0.02:
                break
        return shift_px, float(np.clip(explained, 0, 1)), sigma


def _smooth(image: np.ndarray) -> np.ndarray:
    """Without what is broader than about 10 mm and finer than a pixel: exposure, thickness and noise."""
    from scipy.ndimage import gaussian_filter

    fine = gaussian_filter(np.asarray(image, np.float32), 1.2)
    return fine - gaussian_filter(fine, 12.0)


def edge_weight(drr: np.ndarray) -> np.ndarray:
    """How much of a bone's edge each pixel shows, 0..1: the DRR's gradient, its strongest tenth saturated, widened by two pixels."""
    from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

    gradient = gaussian_gradient_magnitude(np.asarray(drr, np.float32), 1.5)
    high = np.percentile(gradient, 95)
    if high <= 0:
        return np.zeros_like(gradient)
    weight = gaussian_filter(np.minimum(gradient / high, 1.0), 1.0)
    return np.where(weight > 0.15, weight, 0).astype(np.float32)


def bone_drr(volume: object, view: CArmView, pose: np.ndarray, target_lps_mm: np.ndarray, weight: object | None = None) -> np.ndarray:
    """Line integrals of the bone at a target alone (rows, columns), at about 0.8 mm per pixel at the target.

    Parameters
    ----------
    volume
        :class:`AttenuationVolume`.
    weight
        Volume of interest (``anatomy.bones.bone_weight`` or ``label_weight``); the bone around the target by default.
    """
    from ..anatomy.bones import bone_weight, part_volume
    from ..projection.joseph import Projector

    weight = bone_weight(volume, target_lps_mm) if weight is None else weight
    factor = max(1, round(0.8 / view.mm_per_pixel_at(apply(pose, target_lps_mm))))
    small = view.resampled(max(16, view.rows // factor), max(16, view.columns // factor))
    return Projector(part_volume(volume, weight).image).project(small, pose)


def _to_size(image: np.ndarray, view: CArmView) -> np.ndarray:
    """A picture of the same detector area in the view's own pixels."""
    if image.shape == (view.rows, view.columns):
        return np.asarray(image, np.float32)
    from scipy.ndimage import zoom

    scale = (view.rows / image.shape[0], view.columns / image.shape[1])
    out = zoom(np.asarray(image, np.float32), scale, order=1, mode="nearest", grid_mode=True)
    return out[: view.rows, : view.columns]


def view_change(old: CArmView, new: CArmView, told: bool) -> str:
    """``same``, ``follows`` (the new geometry is known, table included) or ``moved`` (it is not) for two views by their tags.

    Parameters
    ----------
    told
        The tags say angles, distances *and* the table's position, so that the new view lies in the old isocentre frame.
    """
    if (old.rows, old.columns) == (new.rows, new.columns):
        corners = [(0, 0), (old.columns - 1, old.rows - 1)]
        gap = max(np.abs(old.source_mm - new.source_mm).max(), np.abs(old.pixel_mm(corners) - new.pixel_mm(corners)).max())
        if gap < 1.0:  # mm at source or detector; tags are rounded to 0.1 degrees
            return "same"
    return "follows" if told else "moved"


