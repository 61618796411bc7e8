"""Bone and surroundings as two bodies at one resolution: what both explain of the X-rays, and what the bone explains alone (see :mod:`.parts`)."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.rigid import apply, difference, perturb
from ..imaging.xray import XrayImage
from .refine import pose_distance_mm
from .shells import Part
from .similarity import Evaluation, FixedView, Level, add_cost, summed

LINEAR_MM = 0.7
"""The surroundings' projection is updated by its derivative while their pose stays within this distance, then made anew."""
ROI_SHARE = 0.05
"""Pixels where the inner shell contributes less than this part of its maximum do not belong to the bone's shadow."""
SEEN = 8
"""States whose pictures are kept: those of a refinement's steps, of which the last accepted one is looked at once more."""
Poses = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PartLevel:
    """One level: voxel and pixel size, window half-width in pixels, residual scale, border around the bone's shadow, iterations, poses kept.

    A long bone is looked at as far as ``look_mm`` from its centre: enough to hold its rotation, and as much work as for a short one.
    """

    pixel_mm: float
    radius: int
    cauchy: float
    border_mm: float
    iterations: int
    keep: int
    look_mm: float = np.inf


class BodiesLevel:
    """X-rays at one level against the shells of a part; a state is (pose of the bone, pose of the surroundings)."""

    def __init__(self, part: Part, level: Level, spec: PartLevel, seen_at: np.ndarray | Sequence[np.ndarray], center_mm: np.ndarray) -> None:
        """``seen_at``: pose of the bone, or several (N, 4, 4), whose shadows in the X-rays are looked at."""
        self.projectors, self.fractions, self.center_mm = part.projectors(spec.pixel_mm), part.fractions, center_mm
        self.cauchy2, self.kernels = spec.cauchy**2, self.projectors[0].kernels
        border = max(1, round(spec.border_mm / spec.pixel_mm))
        poses = np.reshape(seen_at, (-1, 4, 4))
        self._look = (border, part.center_lps_mm, spec.look_mm / spec.pixel_mm)
        self._outer: tuple[np.ndarray | None, list[np.ndarray]] = (None, [])
        self._tangent: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._shells_seen: deque[tuple[Poses, list[list[np.ndarray]]]] = deque(maxlen=SEEN)
        self._bone_seen: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.views = []
        for view in level.views:
            pictures = [self.projectors[0].project(view.view, pose, None, view.distances) for pose in poses]
            found = _focused(view, pictures, poses, *self._look)
            if found is not None:
                self.views.append(found[0])
                self._bone_seen[id(found[0])] = [(p, picture[found[1], found[2]]) for p, picture in zip(poses, pictures, strict=True)]
        self.asked = len(self.views)  # views that have a say, also at poses where the bone is not in all of them

    def own(self) -> BodiesLevel:
        """A copy for one candidate, so that threads do not share the kept projection of the surroundings; it begins with the present one."""
        other = copy.copy(self)
        other._outer, other._tangent, other._shells_seen = (None, []), dict(self._tangent), deque(maxlen=SEEN)
        return other

    def at(self, pose: np.ndarray) -> BodiesLevel:
        """A copy for one candidate (see :meth:`own`) that looks only where the bone's shadow lies at its pose, without views that it left."""
        other, views = self.own(), []
        for view in self.views:
            found = _focused(view, [self._bone(view, pose)], pose[None], *self._look)
            if found is None:
                continue
            views.append(found[0])
            kept = self._tangent.get(id(view))
            if kept is not None:
                other._tangent[id(found[0])] = (kept[0], *(np.ascontiguousarray(a[..., found[1], found[2]]) for a in kept[1:]))
        other.views, other._bone_seen = views, {}  # keyed by the whole views
        return other

    def _bone(self, view: FixedView, pose: np.ndarray) -> np.ndarray:
        """The bone's picture in a view of this level, all of it; from when the level was made where that looked at this pose."""
        for seen, picture in self._bone_seen.get(id(view), ()):
            if np.array_equal(seen, pose):
                return picture
        return self.projectors[0].project(view.view, pose, None, view.distances)

    def keep_surroundings(self, pose: np.ndarray) -> None:
        """Project the surroundings at a pose from which several candidates start."""
        for view in self.views:
            self._outer_tangent(view, pose)

    def _between(self, poses: Poses) -> list[np.ndarray]:
        way = difference(poses[0], poses[1], self.center_mm)
        return [perturb(poses[0], f * way, self.center_mm) for f in self.fractions]

    def evaluate(self, poses: Poses, derivatives: bool = True) -> Evaluation:
        """Cost and, on request, the equations of 12 parameters (bone, surroundings)."""
        hessian, gradient, sums = np.zeros((12, 12)), np.zeros(12), np.zeros(5)
        shells, similarity, seen = self._between(poses), [], []
        for n, view in enumerate(self.views):
            before = sums.copy()
            if derivatives:
                pictures, jacobian = self._projected(view, shells)
                moving = self._normalized(view, pictures, jacobian)
                seen.append(pictures)
                self.kernels.normal_equations(jacobian, moving, view.fixed, view.weight, self.cauchy2, hessian, gradient, sums)
            else:
                add_cost(view, self._image(n, view, shells, poses[1]), self.cauchy2, sums)
            _, mf, mm, ff, _ = sums - before
            similarity.append(float(mf / np.sqrt(mm * ff + 1e-12)))
        if derivatives:
            self._shells_seen.append((poses, seen))
        return summed(self.views, sums, hessian if derivatives else None, gradient, tuple(similarity))

    def explained(self, poses: Poses) -> tuple[float, ...]:
        """Per view of the level: how much of the X-ray the bone's own shadow explains at its pose beyond what the rest does, 0..1.

        In a picture that the bone left (see :meth:`at`) it explains nothing, which comes last here: a candidate must not win by leaving one
        that speaks against it.

        The squared partial correlation of the X-ray with the bone's shadow, given everything else, where that shadow lies; 0 where the
        shadow is there with the wrong sign.  All of it is seen through the level's windows.
        """
        seen = next((pictures for state, pictures in self._shells_seen if state is poses), None)
        if seen is None:
            shells = self._between(poses)
            seen = [self._pictures(view, shells) for view in self.views]
        return (*(self._explained(view, p) for view, p in zip(self.views, seen, strict=True)), *[0.0] * (self.asked - len(self.views)))

    def _pictures(self, view: FixedView, shells: list[np.ndarray]) -> list[np.ndarray]:
        """Every shell's own picture, the inner one first."""
        inner = [p.project(view.view, pose, view.rays, view.distances) for p, pose in zip(self.projectors[:-1], shells[:-1], strict=True)]
        return [*inner, self._outer_tangent(view, shells[-1])[0]]

    def _explained(self, view: FixedView, pictures: list[np.ndarray]) -> float:
        total, inverse_std, _ = view.normalize(np.sum(pictures, axis=0))
        mean = np.empty_like(total)
        self.kernels.box_sum(np.ascontiguousarray(pictures[0] * view.mask), view.radius, mean)
        bone = (pictures[0] - mean * view.inverse_count) * inverse_std
        votes = view.weight > 0
        y, x, rest = (a[votes].astype(float) for a in (view.fixed, bone, total - bone))
        x, y = (a - rest * (a @ rest) / (rest @ rest + 1e-9) for a in (x, y))
        return float(max(x @ y, 0.0) ** 2 / ((x @ x) * (y @ y) + 1e-9))

    def _with_jacobian(self, view: FixedView, shells: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What the poses of all shells show of a view, normalised (rows, columns), and its derivative (12, rows, columns)."""
        pictures, jacobian = self._projected(view, shells)
        return self._normalized(view, pictures, jacobian), jacobian

    def _projected(self, view: FixedView, shells: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Every shell's own picture, the inner one first, and the derivative (12, rows, columns) of their sum."""
        jacobian, pictures = np.empty((12, *view.mask.shape), np.float32), []
        outer, jacobian[6:] = self._outer_tangent(view, shells[-1])
        for projector, pose, fraction in zip(self.projectors[:-1], shells[:-1], self.fractions[:-1], strict=True):
            picture, d = projector.project_with_jacobian(view.view, pose, self.center_mm, view.rays, view.distances)
            if not pictures:  # the inner shell, all of which goes with the bone
                jacobian[:6] = d
            else:
                jacobian[:6] += np.float32(1 - fraction) * d
                jacobian[6:] += np.float32(fraction) * d
            pictures.append(picture)
        return [*pictures, outer], jacobian

    def _normalized(self, view: FixedView, pictures: list[np.ndarray], jacobian: np.ndarray) -> np.ndarray:
        """The sum of the pictures normalised, and in place its derivative."""
        moving, inverse_std, mean = view.normalize(np.sum(pictures, axis=0))
        self.kernels.local_normalize_jacobian(jacobian, view.mask, view.inverse_count, view.radius, moving, inverse_std, mean)
        return moving

    def _outer_tangent(self, view: FixedView, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outermost shell's projection and derivative: the largest and slowest body, and the one that moves least."""
        kept = self._tangent.get(id(view))
        if kept is None or pose_distance_mm(kept[0], pose, self.center_mm) > LINEAR_MM:
            made = self.projectors[-1].project_with_jacobian(view.view, pose, self.center_mm, view.rays, view.distances)
            kept = self._tangent[id(view)] = (pose, *made)
        way = difference(kept[0], pose, self.center_mm).astype(np.float32)
        return kept[1] + np.tensordot(way, kept[2], 1), kept[2]

    def _image(self, number: int, view: FixedView, shells: list[np.ndarray], surroundings: np.ndarray) -> np.ndarray:
        """All shells' projection in one view."""
        image = self._surroundings(surroundings)[number].copy()
        for projector, pose in zip(self.projectors[:-1], shells[:-1], strict=True):
            image += projector.project(view.view, pose, view.rays, view.distances)
        return image

    def shift_costs(self, view: FixedView, number: int, whole: np.ndarray, reach_px: int) -> np.ndarray:
        """Cost (n, n) with the bone's projection shifted by every pixel, rows first, up to ``reach_px``.

        The shells are projected once and their pictures shifted, each as far as it goes with the bone.
        """
        outer, weight = self._surroundings(whole)[number], np.maximum(view.weight.sum(), 1.0)
        v, rows, columns = view.view, *view.mask.shape
        corner = v.pixel_mm((-reach_px, -reach_px))[0]
        large = CArmView(rows + 2 * reach_px, columns + 2 * reach_px, v.source_mm, corner, v.column_step_mm, v.row_step_mm)
        pictures = [p.project(large, whole) for p in self.projectors[:-1]]
        steps = range(-reach_px, reach_px + 1)
        costs = np.empty((len(steps), len(steps)))
        for i, j in itertools.product(range(len(steps)), repeat=2):
            image = outer.copy()
            for picture, fraction in zip(pictures, self.fractions[:-1], strict=True):
                r, c = (reach_px - round((1 - fraction) * steps[n]) for n in (i, j))
                image += picture[r : r + rows, c : c + columns]
            sums = np.zeros(5)
            add_cost(view, image, self.cauchy2, sums)
            costs[i, j] = sums[0] / weight
        return costs

    def _surroundings(self, pose: np.ndarray) -> list[np.ndarray]:
        """Projections of the outermost shell, kept while its pose object stays the same."""
        if self._outer[0] is not pose:
            self._outer = (pose, [self.projectors[-1].project(v.view, pose, v.rays, v.distances) for v in self.views])
        return self._outer[1]

    def move(self, poses: Poses, xi: np.ndarray) -> Poses:
        """State after a perturbation (12,)."""
        return perturb(poses[0], xi[:6], self.center_mm), perturb(poses[1], xi[6:], self.center_mm)


def _focused(
    view: FixedView, pictures: list[np.ndarray], poses: np.ndarray, border: int, center_lps_mm: np.ndarray, reach_px: float,
) -> tuple[FixedView, slice, slice] | None:
    """The view cropped to the bone's shadows and ``border`` pixels around them, and its rows and columns; None where it is not in the picture.

    ``pictures`` show the bone alone in this view at ``poses`` (N, 4, 4).
    """
    from scipy.ndimage import binary_dilation

    region = np.zeros(view.mask.shape, bool)
    for picture, pose in zip(pictures, poses, strict=True):
        region |= _shadow(view, picture, pose, border, center_lps_mm, reach_px)
    rows, columns = np.nonzero(region & (view.mask > 0))
    if len(rows) < 50:
        return None
    reach = view.radius + 1
    r = slice(max(0, int(rows.min()) - reach), min(view.mask.shape[0], int(rows.max()) + reach + 1))
    c = slice(max(0, int(columns.min()) - reach), min(view.mask.shape[1], int(columns.max()) + reach + 1))
    cropped = view.cropped(r, c, region.astype(np.float32))
    needed = binary_dilation(region[r, c], np.ones((3, 3), bool), iterations=view.radius)  # the windows of those that vote
    cropped.set_mask(needed & (cropped.mask > 0), region[r, c].astype(np.float32))
    return cropped, r, c


def _shadow(view: FixedView, picture: np.ndarray, pose: np.ndarray, border: int, center_lps_mm: np.ndarray, reach_px: float) -> np.ndarray:
    """Where the bone's shadow lies in its picture (rows, columns), bool, ``border`` pixels wider, no farther than ``reach_px`` from its centre's."""
    from scipy.ndimage import binary_dilation

    if picture.max() <= 0:
        return np.zeros(picture.shape, bool)
    region = binary_dilation(picture > ROI_SHARE * picture.max(), iterations=border)
    column, row = view.view.project(apply(pose, center_lps_mm))[0]
    r, c = np.ogrid[: region.shape[0], : region.shape[1]]
    near = region & ((r - row) ** 2 + (c - column) ** 2 < reach_px**2)
    return near if near.any() else region


def bodies_level(
    part: Part, images: list[XrayImage], spec: PartLevel, seen_at: np.ndarray | Sequence[np.ndarray], center_mm: np.ndarray,
    base: Level | None = None,
) -> BodiesLevel:
    """A part's level, looking where the bone is seen at one or several poses, without rays that leave a truncated scan at the (first) pose.

    ``base``: the whole pictures at this level where they were made before.
    """
    base = base or whole_pictures(part, images, spec, center_mm)
    return BodiesLevel(part, base.without_unknown(part.moving.beyond(), np.reshape(seen_at, (-1, 4, 4))[0]), spec, seen_at, center_mm)


def whole_pictures(part: Part, images: list[XrayImage], spec: PartLevel, center_mm: np.ndarray) -> Level:
    """The whole pictures at a level of a part: the bone is looked for in them more than once."""
    return Level(part.projectors(spec.pixel_mm)[0], images, center_mm, spec.pixel_mm, spec.radius, spec.cauchy)
