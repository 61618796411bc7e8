"""Motion watch: has the target bone left the place where it was registered?  Asked of every frame.

Absorption adds up along a ray.  If only the bone moved by d, a frame differs from the first one that was checked by
``a (B(x - d) - B(x))``, where B is the bone's own DRR and ``a`` the grey scale; everything that stayed cancels, and what
else moves (breathing soft tissue, contrast agent, a needle) does not look like the bone's derivative.  d is found by
robust least squares on that model.  The DRR also tells whether the picture still shows what was registered (``lost``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply
from .align2d import shrink, translated
from .motion_model import ShiftModel
from .needle import NeedleFinding

REACH_MM = 45.0
"""The part of the picture around the target that is watched."""
PIXEL_MM = 0.45
REFERENCE_FRAMES = 10
STILL_ALIKE = 0.5
"""Correlation with the first frame from which a picture still shows the same thing."""
SEEN_SHARE = 0.3
"""Part of the bone's edges that must be free of contrast agent and needle before the bone can be called lost."""
SURE_SIGMAS = 3.0
"""A shift of fewer standard deviations is as much as was seen without any motion."""
FOLLOW_MM = 15.0
"""Shift of a tracked pose up to which the bone's DRR is moved along; farther away it would look different."""


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
    ``watched``: False while the bone is too faint here for a shift of the threshold to be told from what else moves.
    """

    state: str
    shift_mm: tuple[float, float]
    explained: float
    match: float
    sigma_mm: float
    watched: bool = True

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
        self._bone = self._first_bone = _smooth(drr)
        self._first_weight, self._target_lps_mm = self._weight, np.asarray(target_lps_mm, float)
        self._model = ShiftModel(self._bone, self._weight, self.factor * self.mm_per_px)
        self.restart()

    def restart(self) -> None:
        """Take the next frame as the new reference (after a registration)."""
        self._reference: np.ndarray | None = None
        self._averaged, self._first_match = 0, 0.0
        self._recent: deque = deque(maxlen=self.options.of)
        self._path: deque = deque()
        self._sigmas: deque = deque(maxlen=15)

    def follow(self, pose: np.ndarray) -> bool:
        """Watch the bone at a pose near the one it was made for: its DRR is shifted along.  False when that is too far; then make a new watch."""
        from scipy.ndimage import shift

        away = (self.view.project(apply(pose, self._target_lps_mm))[0] - self.target_px) / self.factor
        if not np.hypot(*away) * self.factor * self.mm_per_px < FOLLOW_MM:
            return False
        self._bone = shift(self._first_bone, away[::-1], order=1, mode="nearest")
        self._weight = shift(self._first_weight, away[::-1], order=1, mode="constant") * self._inside
        self._model = ShiftModel(self._bone, self._weight, self.factor * self.mm_per_px)
        self.restart()
        return True

    def check(self, pixels: np.ndarray, now: float = 0.0, needle: NeedleFinding | None = None) -> MotionReading:
        """Judge one frame (rows, columns), bone bright; ``now`` in seconds; a known needle is left out."""
        small = _smooth(shrink(np.asarray(pixels, np.float32)[self._part], self.factor))
        if self._reference is None:
            self._reference, self._averaged = small.copy(), 1
            self._first_match, gain = self._match(small, np.zeros(2), self._inside)
            self._model.forget()
            self._model.set_reference(small, gain)
            return MotionReading("ok", (0.0, 0.0), 1.0, self._first_match, 0.0)
        difference = small - self._reference
        counts = self._without(needle) * ~self._model.foreign(difference) + np.float32(0)
        shift_px, explained, sigma_px = self._model.find(difference, self._weight * counts, counts)
        scale = self.factor * self.mm_per_px
        shift = shift_px * scale
        match, gain = self._match(small, shift_px, self._inside * counts)
        sigma = float(sigma_px * scale)
        self._sigmas.append(sigma)
        self._recent.append(self._judge(shift, sigma, self._lost(small, shift_px, match, counts), now))
        if self._recent[-1] == "ok":
            self._model.learn(difference, shift_px)
        state = next((k for k in ("lost", "moved") if self._recent.count(k) >= self.options.confirm), "ok")
        if state == "ok" and len(self._recent) - self._recent.count("ok") >= self.options.confirm:
            state = "moved"
        if state == "ok" and self._averaged < REFERENCE_FRAMES and np.hypot(*shift) < 0.3 * self.options.threshold_mm:
            # a less noisy reference; stopped early, so that a slow drift is not averaged in
            self._averaged += 1
            self._reference += (small - self._reference) / self._averaged
            self._model.set_reference(self._reference, self._model.gain + (gain - self._model.gain) / self._averaged)
        watched = float(np.median(self._sigmas)) < self.options.threshold_mm / 2
        return MotionReading(state, (float(shift[0]), float(shift[1])), explained, match, sigma, watched)

    def _lost(self, small: np.ndarray, shift_px: np.ndarray, match: float, counts: np.ndarray) -> bool:
        """Neither the bone's DRR nor the first frame is seen any more along the bone's edges, where nothing foreign covers them."""
        if match >= self.options.lost_share * self._first_match:
            return False
        if (self._weight * counts).sum() < SEEN_SHARE * self._weight.sum():
            return False  # covered: nothing can be said, and nothing is claimed
        return self._likeness(self._reference, small, shift_px, self._inside * counts)[0] < STILL_ALIKE

    def _judge(self, shift: np.ndarray, sigma_mm: float, lost: bool, now: float) -> str:
        o = self.options
        if lost:
            return "lost"
        if np.hypot(*shift) < SURE_SIGMAS * sigma_mm:
            return "ok"  # as much as this was seen without any motion
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

    def _match(self, small: np.ndarray, shift_px: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
        """Correlation of a frame with the bone's DRR along its edges, and the frame's grey values per unit of the DRR."""
        return self._likeness(self._bone, small, shift_px, inside)

    def _likeness(self, template: np.ndarray, small: np.ndarray, shift_px: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
        use = self._model.pixels
        w = (translated(self._weight, shift_px, "zero") * inside)[use]
        b, a = translated(template, shift_px)[use], small[use]
        total = max(float(w.sum()), 1e-9)
        a, b = a - (w @ a) / total, b - (w @ b) / total
        ab, aa, bb = w @ (a * b), w @ (a * a), w @ (b * b)
        return float(ab / np.sqrt(aa * bb + 1e-12)), float(max(ab / (bb + 1e-12), 1e-6))


def _smooth(image: np.ndarray) -> np.ndarray:
    """Without what is broader than about 10 mm and finer than a pixel: exposure, thickness and noise."""
    from scipy.ndimage import gaussian_filter

    fine = gaussian_filter(np.asarray(image, np.float32), 1.2)
    return fine - _broad(fine)


def _broad(image: np.ndarray) -> np.ndarray:
    """Gaussian of 12 pixels, worked out on a quarter of the resolution: nothing finer is left in it."""
    rows, columns = image.shape
    padded = np.pad(image, ((0, -rows % 4), (0, -columns % 4)), mode="edge")
    down, across = padded.shape[0] // 4, padded.shape[1] // 4
    small = shrink(padded, 4)
    return (_broadened(down) @ small @ _broadened(across).T)[:rows, :columns]


@lru_cache(maxsize=8)
def _broadened(size: int) -> np.ndarray:
    """(4 size, size): a Gaussian of 3 and linear enlarging by 4 along one axis as a matrix; frames of one size share it."""
    from scipy.ndimage import gaussian_filter1d, zoom

    return zoom(gaussian_filter1d(np.eye(size, dtype=np.float32), 3.0, axis=0), (4, 1), order=1, grid_mode=True, mode="nearest")


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


