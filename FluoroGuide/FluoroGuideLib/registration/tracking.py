"""Following the target from frame to frame: a warm start, a fixed number of Gauss-Newton steps, and an honest "lost".

Everything that does not change with the frame (crop, masks, ray lengths, window counts) is made once; a frame costs a
block mean and the steps.  Nothing grows with the length of the session.  Not thread-safe: one tracker, one thread.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, check_rigid, difference, motion
from ..imaging.xray import XrayImage
from .prior import PosePrior
from .refine import LEVER_MM
from .similarity import Evaluation, Level
from .tracked import TrackResult, findings_of
from .volume import MovingVolume

_TO_XI = np.diag([1 / LEVER_MM] * 3 + [1.0] * 3)
DAMPING = 1e-3
UNKNOWN_AGAIN_MM = 8.0
"""Motion after which it is asked again which rays pass through body beyond the scan."""


@dataclass(frozen=True)
class Stage:
    """Some Gauss-Newton steps at one resolution: pixel size at the target, window half-width in pixels, steps, half-width of the crop."""

    pixel_mm: float
    radius: int
    steps: int
    reach_mm: float


FAST = (Stage(6.0, 4, 2, 100.0), Stage(3.0, 5, 2, 100.0), Stage(1.5, 8, 1, 45.0))
FINE = (Stage(6.0, 4, 2, 100.0), Stage(3.0, 5, 2, 100.0), Stage(1.5, 8, 2, 60.0))
SINGLE = (Stage(6.0, 4, 3, 100.0), Stage(3.0, 5, 1, 100.0), Stage(1.5, 8, 1, 45.0))
"""``FAST`` and ``SINGLE`` aim at 50 ms for two views and 25 ms for one, ``FINE`` at 150 ms (figures: Docs/verification/tracking.json)."""
LEAST_SIMILARITY = 0.2
"""Below this a view shows something else, whatever is usual."""


@dataclass(frozen=True)
class TrackerOptions:
    """How to track.

    Attributes
    ----------
    stages
        From coarse to fine; None takes ``FAST`` for two or more views and ``SINGLE`` for one.
    region_mm
        Half-width of the square around the target that has a say, at the target's depth; None takes each stage's own.  Small
        regions follow the target bone where its surroundings move on their own.
    jump_mm, jump_deg
        A frame that asks for more motion than this is not believed.
    lost_share
        Part of the usual similarity (worst view) below which the target is lost.
    again_share
        Part that a pose found again must reach.
    search_mm
        How far around the last good place a lost target is looked for.
    depth_sigma_mm
        Single view: how much depth may drift from one frame to the next (it is hardly seen).
    """

    stages: tuple[Stage, ...] | None = None
    region_mm: float | None = None
    jump_mm: float = 12.0
    jump_deg: float = 8.0
    lost_share: float = 0.6
    again_share: float = 0.75
    search_mm: float = 20.0
    depth_sigma_mm: float = 1.5


class _Frames:
    """Crop of one view and its reduction to the finest pixel size; fills the stages' fixed images from a frame."""

    def __init__(self, image: XrayImage, target_mm: np.ndarray, reach_mm: float, pixel_mm: float) -> None:
        self.view, self.mask = image.view, image.mask
        size = image.view.mm_per_pixel_at(target_mm)
        self.factor = max(1, round(pixel_mm / size))
        self.box = _crop(image.view, target_mm, reach_mm / size, 4 * self.factor)
        rows, columns = (s.stop - s.start for s in self.box)
        self.shape = rows // self.factor, columns // self.factor
        self.inside = np.ascontiguousarray(image.mask[self.box], np.float32)
        counts = _block_sums(self.inside, self.factor)
        self.small_mask = counts > 0.9 * self.factor**2
        self.weight = (self.small_mask / np.maximum(counts, 1)).astype(np.float32)
        part = image.view.cropped(self.box[1].start, self.box[0].start, columns, rows)
        self.small_view = part.resampled(*self.shape)

    def reduced(self, pixels: np.ndarray) -> np.ndarray:
        """Block means (rows, columns) of the crop; masked blocks are 0."""
        return _block_sums(pixels[self.box] * self.inside, self.factor) * self.weight


def _crop(view: CArmView, target_mm: np.ndarray, reach_px: float, unit: int) -> tuple[slice, slice]:
    """Rows and columns of the square around the target, within the picture, in whole units."""
    column, row = view.project(target_mm)[0]
    slices = []
    for middle, count in ((row, view.rows), (column, view.columns)):
        first = int(np.clip(np.floor(middle - reach_px), 0, count))
        last = int(np.clip(np.ceil(middle + reach_px), 0, count))
        if last - first < 8 * unit:
            raise FluoroGuideError("Too little of the X-ray lies around the target to follow it", view_text(view), "Centre the target in the picture")
        slices.append(slice(first, first + (last - first) // unit * unit))
    return slices[0], slices[1]


def view_text(view: CArmView) -> str:
    """A view for a message: its size and angles."""
    primary, secondary = view.angles_deg
    return f"{view.columns} x {view.rows} pixels at {primary:.0f}, {secondary:.0f} degrees"


def _block_sums(image: np.ndarray, factor: int) -> np.ndarray:
    """Sums over factor x factor blocks; rows first, where memory is contiguous."""
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    if factor == 1:
        return image
    down = image[: rows * factor, : columns * factor].reshape(rows, factor, columns * factor).sum(axis=1)
    return down.reshape(rows, columns, factor).sum(axis=2)


@dataclass(eq=False)
class _Layer:
    """One stage made ready: its level (without rays through unknown body) and where each view's pixels are in the reduced frame."""

    stage: Stage
    level: Level
    crops: list[tuple[slice, slice]]
    factors: list[int]

    def of(self, seen: np.ndarray) -> _Layer:
        """The layer with only the views (N,), bool, that see the target."""
        level = copy.copy(self.level)
        level.views, crops, factors = ([x for x, s in zip(some, seen, strict=True) if s] for some in (level.views, self.crops, self.factors))
        return _Layer(self.stage, level, crops, factors)

    def fill(self, reduced: list[np.ndarray]) -> None:
        for fixed, image, crop, factor in zip(self.level.views, reduced, self.crops, self.factors, strict=True):
            # the weight of masked pixels is 0, so plain means do; blocks that touch the mask have no vote (FixedView erodes it)
            fixed.pixels = np.ascontiguousarray(_block_sums(image[crop], factor) / np.float32(factor * factor))
            fixed.fixed = fixed.normalize(fixed.pixels)[0]


class Tracker:
    """Follows a target through live frames.

    Parameters
    ----------
    moving
        The volume, prepared (the registration's own, so that its pyramid is shared).
    images
        One X-ray per view: geometry and mask count, and later frames without geometry of their own are taken as seen so.
    pose
        Registered pose, 4x4 volume LPS -> isocentre LPS.
    target_lps_mm
        (3,), volume LPS: what must be followed.

    Raises
    ------
    FluoroGuideError
        No view, a pose that is not rigid, or a target that is not in the pictures.
    """

    def __init__(
        self, moving: MovingVolume, images: Sequence[XrayImage], pose: np.ndarray, target_lps_mm: np.ndarray, options: TrackerOptions | None = None,
    ) -> None:
        if not images:
            raise FluoroGuideError("There is no X-ray view to track in", None, "Give one or two X-ray images")
        self.moving, self.options, self.target = moving, options or TrackerOptions(), np.asarray(target_lps_mm, float)
        self.stages = self.options.stages or (SINGLE if len(images) == 1 else FAST)
        self.restart(pose, images)

    def restart(self, pose: np.ndarray, images: Sequence[XrayImage] | None = None) -> None:
        """Begin again from a newly registered pose, with other views or masks when ``images`` are given."""
        if images is not None:
            self._images = list(images)
        self.pose = self.start = check_rigid(pose, "registered pose")
        self._lost = 0
        self._prepare()
        self._usual = self._similarity_now()

    def update(self, images: Sequence[XrayImage | np.ndarray]) -> TrackResult:
        """The pose in new frames, one per view in the same order: X-rays, or just pixels (rows, columns) with bone bright.

        Raises
        ------
        FluoroGuideError
            Another number or size of pictures than the tracker was made for.
        """
        cpu, wall = time.thread_time(), time.perf_counter()
        pixels = self._pixels(images)
        seen, state, similarity = self._seen.copy(), "lost", self._per_view(np.zeros(self._seen.sum()))
        if seen.any() and self._fill(pixels):
            pose, found = self._search() if self._lost else self._follow(self.pose, self._layers)
            similarity = self._per_view(found)
            state = self._judge(pose, similarity)
        else:
            self._lost += 1
        shift = apply(self.pose, self.target) - apply(self.start, self.target)
        if seen.sum() == 1:
            ray = self._ray(int(np.argmax(seen)))
            shift = shift - ray * (ray @ shift)
        spent = time.thread_time() - cpu, time.perf_counter() - wall
        told = tuple(bool(s) for s in seen)
        return TrackResult(self.pose.copy(), tuple(similarity.tolist()), state, shift, *spent, told, findings_of(told))

    # ---- set-up -----------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        center = apply(self.pose, self.target)
        finest = min(s.pixel_mm for s in self.stages)
        reach = max(self._reach(s) for s in self.stages)
        self._frames = [_Frames(image, center, reach, finest) for image in self._images]
        self._layers = [self._layer(stage, center) for stage in self.stages]
        self._seen = np.array([view.speaks for view in self._layers[-1].level.views])
        if self._seen.any():
            self._layers = [layer.of(self._seen) for layer in self._layers]
        self._unknown_at = self.pose

    def _per_view(self, of_seen: Sequence[float]) -> np.ndarray:
        """One value per view (N,) from those of the views that see the target; NaN for the others."""
        values = np.full(len(self._seen), np.nan)
        values[self._seen] = of_seen
        return values

    def _reach(self, stage: Stage) -> float:
        return stage.reach_mm if self.options.region_mm is None else min(self.options.region_mm, stage.reach_mm)

    def _layer(self, stage: Stage, center_mm: np.ndarray) -> _Layer:
        crops, parts, factors = [], [], []
        for frames in self._frames:
            view = frames.small_view
            size = view.mm_per_pixel_at(center_mm)
            factor = max(1, round(stage.pixel_mm / size))
            crop = _crop(view, center_mm, self._reach(stage) / size, factor)
            rows, columns = (s.stop - s.start for s in crop)
            part = view.cropped(crop[1].start, crop[0].start, columns, rows)
            parts.append(XrayImage(np.zeros((rows, columns), np.float32), frames.small_mask[crop], part))
            crops.append(crop)
            factors.append(factor)
        projector = self.moving.projector(stage.pixel_mm)
        level = Level(projector, parts, center_mm, stage.pixel_mm, stage.radius)
        if any(v.pixels.shape != ((c[0].stop - c[0].start) // f, (c[1].stop - c[1].start) // f) for v, c, f in zip(level.views, crops, factors)):
            raise AssertionError("the level's pixels are not the tracker's blocks")
        return _Layer(stage, level.without_unknown(self.moving.beyond(), self.pose), crops, factors)

    def _pixels(self, images: Sequence[XrayImage | np.ndarray]) -> list[np.ndarray]:
        """The frames' pixels; a changed geometry or mask is taken over first."""
        if len(images) != len(self._images):
            raise FluoroGuideError("The tracker follows another number of views", f"{len(images)} given, {len(self._images)} expected")
        changed = False
        for i, (image, known) in enumerate(zip(images, self._images, strict=True)):
            if not isinstance(image, XrayImage):
                if np.shape(image) != known.pixels.shape:
                    raise FluoroGuideError("The live frame has another size than the view", f"{np.shape(image)}, {known.pixels.shape}")
                continue
            if not _same_view(image.view, known.view) or (image.mask is not known.mask and not np.array_equal(image.mask, known.mask)):
                self._images[i], changed = image, True
        if changed:
            self._prepare()
        return [image.pixels if isinstance(image, XrayImage) else np.asarray(image, np.float32) for image in images]

    def _fill(self, pixels: list[np.ndarray]) -> bool:
        """Put a frame into every stage; False when a picture that sees the target is blank (beam off) or broken."""
        frames = [(f, p) for f, p, s in zip(self._frames, pixels, self._seen, strict=True) if s]
        reduced = [f.reduced(p) for f, p in frames]
        if not all(np.isfinite(r).all() and np.ptp(r[f.small_mask]) > 0 for r, (f, _) in zip(reduced, frames, strict=True)):
            return False
        for layer in self._layers:
            layer.fill(reduced)
        return True

    def _similarity_now(self) -> np.ndarray | None:
        """What the pictures that the tracker was made with reach at the registered pose: the first idea of what is usual."""
        if not self._seen.any() or not self._fill([image.pixels for image in self._images]):
            return None
        return self._per_view(self._layers[-1].level.evaluate(self.pose, apply(self.pose, self.target), derivatives=False).similarity)

    # ---- one frame --------------------------------------------------------------------------------------------------
    def _ray(self, number: int) -> np.ndarray:
        """Direction (3,) from a view's source to the target, isocentre frame."""
        ray = apply(self.pose, self.target) - self._images[number].view.source_mm
        return ray / np.linalg.norm(ray)

    def _prior(self, pose: np.ndarray, center_mm: np.ndarray) -> PosePrior | None:
        """One view that sees the target: what its picture hardly shows stays where it was."""
        if self._seen.sum() > 1:
            return None
        ray = self._ray(int(np.argmax(self._seen)))
        along = np.outer(ray, ray)
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = np.eye(3) * np.radians(5.0) ** 2
        covariance[3:, 3:] = (np.eye(3) - along) * 20.0**2 + along * self.options.depth_sigma_mm**2
        return PosePrior(pose, covariance, center_mm)

    def _follow(self, pose: np.ndarray, layers: Sequence[_Layer]) -> tuple[np.ndarray, tuple[float, ...]]:
        """Gauss-Newton through the stages: a step that made the fit worse is taken back and halved."""
        center = apply(pose, self.target)
        prior = self._prior(pose, center)
        evaluation: Evaluation | None = None
        for layer in layers:
            best, damping = None, DAMPING
            for _ in range(layer.stage.steps):
                evaluation = layer.level.evaluate(pose, center)
                if prior is not None:
                    evaluation = prior.add(pose, center, evaluation)
                if best is not None and evaluation.cost > best[1].cost:
                    pose, evaluation, damping = *best, 10 * damping + 0.3
                best = (pose, evaluation)
                pose = motion(_step(evaluation, damping), center) @ pose
        return pose, evaluation.similarity

    def _judge(self, pose: np.ndarray, similarity: np.ndarray) -> str:
        """Take the pose over, or not, and say which."""
        options = self.options
        usual = similarity if self._usual is None else np.where(np.isnan(self._usual), similarity, self._usual)
        jump = difference(self.pose, pose, apply(self.pose, self.target))
        reach = np.inf if self._lost else options.jump_mm
        share = options.again_share if self._lost else options.lost_share
        far = np.linalg.norm(jump[3:]) > reach or np.degrees(np.linalg.norm(jump[:3])) > options.jump_deg
        if not np.isfinite(pose).all() or far or (similarity < np.maximum(share * usual, LEAST_SIMILARITY)).any():  # NaN is no less
            self._lost += 1
            return "lost"
        state, self._lost = ("reacquired" if self._lost else "ok"), 0
        self.pose = pose
        self._usual = usual + np.where(similarity > usual, 0.2, 0.05) * (similarity - usual)
        self._look_beyond_again()
        return state

    def _look_beyond_again(self) -> None:
        """Every so often the target has left the middle of the crop, and other rays leave the scan."""
        moved = difference(self._unknown_at, self.pose, apply(self._unknown_at, self.target))
        if np.linalg.norm(moved[3:]) + LEVER_MM * np.linalg.norm(moved[:3]) > UNKNOWN_AGAIN_MM:
            self._prepare()

    def _search(self) -> tuple[np.ndarray, tuple[float, ...]]:
        """A lost target: shifts on a grid around the last good place at the coarsest stage, the best three followed from there."""
        coarse, center = self._layers[0], apply(self.pose, self.target)
        grid = [motion(np.r_[0, 0, 0, t], center) @ self.pose for t in self._shifts()]
        ranked = sorted(grid, key=lambda pose: coarse.level.evaluate(pose, center, derivatives=False).rank)
        longer = dataclasses.replace(coarse, stage=dataclasses.replace(coarse.stage, steps=6))
        tried = [self._follow(pose, [longer]) for pose in ranked[:3]]
        best = max(tried, key=lambda found: min(found[1]))[0]
        return self._follow(best, self._layers[1:] or self._layers)

    def _shifts(self) -> np.ndarray:
        """(N, 3) shifts in mm: a cubic grid for two views, a square one across the ray where one view sees the target."""
        several = self._seen.sum() > 1
        steps = np.linspace(-self.options.search_mm, self.options.search_mm, 3 if several else 5)
        if several:
            return np.array([[x, y, z] for x in steps for y in steps for z in steps])
        view = self._images[int(np.argmax(self._seen))].view
        u, v = view.column_step_mm / np.linalg.norm(view.column_step_mm), view.row_step_mm / np.linalg.norm(view.row_step_mm)
        return np.array([x * u + y * v for x in steps for y in steps])


def _step(evaluation: Evaluation, damping: float) -> np.ndarray:
    """Gauss-Newton step as a perturbation (6,), barely damped."""
    hessian, gradient = _TO_XI @ evaluation.hessian @ _TO_XI, _TO_XI @ evaluation.gradient
    ridge = np.diag(damping * np.diag(hessian) + 1e-6 * np.trace(hessian) + 1e-12)
    return -_TO_XI @ np.linalg.solve(hessian + ridge, gradient)


def _same_view(a: CArmView, b: CArmView) -> bool:
    names = ("source_mm", "first_pixel_mm", "column_step_mm", "row_step_mm")
    return a is b or ((a.rows, a.columns) == (b.rows, b.columns) and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names))
