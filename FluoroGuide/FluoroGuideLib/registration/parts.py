"""One bone registered on its own while everything around it may have moved: two bodies and what stretches between them.

A whole-volume metric follows whatever fills the picture.  Projecting the bone alone does not help either: most of what
the X-ray shows is then unexplained, and wrong poses explain it just as well (measured: the cost at the true pose is
higher than at the best wrong one).  So everything is projected, cut into shells by its distance from the bone: the inner
shell moves with the bone (pose T1), the outer one with the surroundings (pose T2), those between in proportion.  Both
poses are estimated together; the last levels look at the bone's own outline through small windows, where the tissue that
stretches in an unknown way counts least.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, difference, perturb
from ..imaging.xray import XrayImage
from ..projection.joseph import Projector
from .prior import PosePrior
from .refine import Refined, levenberg_marquardt, pose_distance_mm
from .shells import Part, bone_distance, label_distance
from .similarity import Evaluation, FixedView, Level, add_cost, summed
from .volume import MovingVolume

LINEAR_MM = 0.7
"""The surroundings' projection is updated by its derivative while their pose stays within this distance, then made anew."""
MEMORY = 0.3
"""Power with which a candidate's cost on one level, as a part of the best one's, counts on the next: small windows alone take noise for bone."""
SETTLED = 1e-4
"""A refinement stops when two steps in turn lowered the cost by less than this part of it."""
ROI_SHARE = 0.05
"""Pixels where the inner shell contributes less than this part of its maximum do not belong to the bone's shadow."""
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


@dataclass(frozen=True)
class PartOptions:
    """How a part is registered; ``reach_mm`` and ``step_mm`` are the translations tried between bone and surroundings.

    ``candidates`` of them, ``apart_mm`` from each other, are refined by ``first`` iterations.  Which of them is right only the last level's
    small windows tell (a bone that is left among its surroundings fits well through large ones), so until then up to ``keep_first`` go on
    that put the bone ``elsewhere_mm`` from each other and cost at most ``worth`` times the best; on the last level ``close`` times.
    """

    levels: tuple[PartLevel, ...] = (
        PartLevel(2.0, 3, 1.0, 6.0, 8, 7), PartLevel(1.0, 3, 0.7, 4.0, 24, 2, 50.0),
    )
    reach_mm: float = 18.0
    step_mm: float = 3.0
    apart_mm: float = 5.0
    candidates: int = 14
    first: int = 3
    keep_first: int = 7
    elsewhere_mm: float = 4.0
    close: float = 1.06
    worth: float = 1.3


class BodiesLevel:
    """X-rays at one level against the shells of a part; a state is (pose of the bone, pose of the surroundings)."""

    def __init__(self, part: Part, level: Level, spec: PartLevel, seen_at: np.ndarray | Sequence[np.ndarray], center_mm: np.ndarray) -> None:
        """``seen_at``: pose of the bone, or several (N, 4, 4), whose shadows in the X-rays are looked at."""
        self.projectors, self.fractions, self.center_mm = part.projectors(spec.pixel_mm), part.fractions, center_mm
        self.cauchy2, self.kernels = spec.cauchy**2, self.projectors[0].kernels
        border = max(1, round(spec.border_mm / spec.pixel_mm))
        poses = np.reshape(seen_at, (-1, 4, 4))
        views = [_focused(v, self.projectors[0], poses, border, part.center_lps_mm, spec.look_mm / spec.pixel_mm) for v in level.views]
        self.views = [v for v in views if v is not None]
        self._outer: tuple[np.ndarray | None, list[np.ndarray]] = (None, [])
        self._tangent: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def own(self) -> BodiesLevel:
        """A copy for one candidate, so that threads do not share the kept projection of the surroundings; it begins with the present one."""
        other = copy.copy(self)
        other._outer, other._tangent = (None, []), dict(self._tangent)
        return other

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
        shells, similarity = self._between(poses), []
        for n, view in enumerate(self.views):
            before = sums.copy()
            if derivatives:
                moving, jacobian = self._with_jacobian(view, shells)
                self.kernels.normal_equations(jacobian, moving, view.fixed, view.weight, self.cauchy2, hessian, gradient, sums)
            else:
                add_cost(view, self._image(n, view, shells, poses[1]), self.cauchy2, sums)
            _, mf, mm, ff, _ = sums - before
            similarity.append(float(mf / np.sqrt(mm * ff + 1e-12)))
        return summed(self.views, sums, hessian if derivatives else None, gradient, tuple(similarity))

    def _with_jacobian(self, view: FixedView, shells: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        image, jacobian = np.zeros(view.mask.shape, np.float32), np.zeros((12, *view.mask.shape), np.float32)
        for projector, pose, fraction in zip(self.projectors[:-1], shells[:-1], self.fractions[:-1], strict=True):
            one, d = projector.project_with_jacobian(view.view, pose, self.center_mm, view.rays, view.distances)
            image += one
            jacobian[:6] += np.float32(1 - fraction) * d
            if fraction > 0:
                jacobian[6:] += np.float32(fraction) * d
        one, d = self._outer_tangent(view, shells[-1])
        image += one
        jacobian[6:] += d
        moving, inverse_std, mean = view.normalize(image)
        self.kernels.local_normalize_jacobian(jacobian, view.mask, view.inverse_count, view.radius, moving, inverse_std, mean)
        return moving, jacobian

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
        """Cost (n, n) with the bone's projection shifted by every second pixel, rows first, up to ``reach_px`` (even).

        The shells are projected once and their pictures shifted, each as far as it goes with the bone.
        """
        outer, weight = self._surroundings(whole)[number], np.maximum(view.weight.sum(), 1.0)
        v, rows, columns = view.view, *view.mask.shape
        corner = v.pixel_mm((-reach_px, -reach_px))[0]
        large = CArmView(rows + 2 * reach_px, columns + 2 * reach_px, v.source_mm, corner, v.column_step_mm, v.row_step_mm)
        pictures = [p.project(large, whole) for p in self.projectors[:-1]]
        steps = range(-reach_px, reach_px + 1, 2)
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
    view: FixedView, projector: Projector, poses: np.ndarray, border: int, center_lps_mm: np.ndarray, reach_px: float,
) -> FixedView | None:
    """The view cropped to the bone's shadows and ``border`` pixels around them; None where it is not in the picture."""
    from scipy.ndimage import binary_dilation

    region = np.zeros(view.mask.shape, bool)
    for pose in poses:
        region |= _shadow(view, projector, pose, border, center_lps_mm, reach_px)
    rows, columns = np.nonzero(region & (view.mask > 0))
    if len(rows) < 50:
        return None
    reach = view.radius + 1
    r = slice(max(0, int(rows.min()) - reach), min(view.mask.shape[0], int(rows.max()) + reach + 1))
    c = slice(max(0, int(columns.min()) - reach), min(view.mask.shape[1], int(columns.max()) + reach + 1))
    cropped = view.cropped(r, c, region.astype(np.float32))
    needed = binary_dilation(region[r, c], np.ones((3, 3), bool), iterations=view.radius)  # the windows of those that vote
    cropped.set_mask(needed & (cropped.mask > 0), region[r, c].astype(np.float32))
    return cropped


def _shadow(view: FixedView, projector: Projector, pose: np.ndarray, border: int, center_lps_mm: np.ndarray, reach_px: float) -> np.ndarray:
    """Where the bone's shadow lies (rows, columns), bool, ``border`` pixels wider, and no farther than ``reach_px`` from its centre's."""
    from scipy.ndimage import binary_dilation

    picture = projector.project(view.view, pose, None, view.distances)
    if picture.max() <= 0:
        return np.zeros(picture.shape, bool)
    region = binary_dilation(picture > ROI_SHARE * picture.max(), iterations=border)
    column, row = view.view.project(apply(pose, center_lps_mm))[0]
    r, c = np.ogrid[: region.shape[0], : region.shape[1]]
    near = region & ((r - row) ** 2 + (c - column) ** 2 < reach_px**2)
    return near if near.any() else region


class _Candidate(NamedTuple):
    """Poses of bone and surroundings, their evaluation, and a factor of its cost from the level before."""

    poses: Poses
    evaluation: Evaluation | None
    before: float = 1.0

    @property
    def rank(self) -> float:
        """What candidates are compared by; low is good."""
        return self.evaluation.cost * self.before


@dataclass(frozen=True, eq=False)
class PartResult:
    """Pose of the bone with its evaluation, pose of the surroundings, runners-up, the level it was found on, its centre."""

    best: Refined
    surroundings: np.ndarray
    rivals: list[Refined]
    level: BodiesLevel
    center_mm: np.ndarray


def register_part(
    part: Part, images: list[XrayImage], whole: np.ndarray, options: PartOptions | None = None, *, threads: int = 1,
    cancelled: Callable[[], bool] | None = None, prior: PosePrior | None = None,
) -> PartResult | None:
    """Find the bone's own pose, starting from the whole volume's.

    Parameters
    ----------
    part
        The bone.
    images
        X-rays.
    whole
        Pose of the whole volume (4x4); the surroundings start there, the bone on a grid of translations around it.
    prior
        What is known of the bone's pose beforehand.

    Returns
    -------
    None where the bone is in no picture.
    """

    def refined(level: BodiesLevel, candidates: list[_Candidate], iterations: int) -> list[_Candidate]:
        def one(candidate: _Candidate) -> _Candidate:
            own = level.own()
            poses, evaluation, _ = levenberg_marquardt(
                lambda state: _with_prior(own.evaluate(state), state[0], prior, center), own.move, candidate.poses, iterations,
                cancelled=cancelled, settled=SETTLED,
            )
            return _Candidate(poses, evaluation, candidate.before)

        with ThreadPoolExecutor(max(1, threads)) as workers:
            return sorted(workers.map(one, candidates), key=lambda c: c.rank)

    options = options or PartOptions()
    center = apply(whole, part.center_lps_mm)
    pool: list[_Candidate] = []
    level = None
    for number, spec in enumerate(options.levels):
        start = pool[0][0] if pool else (whole, whole)
        level = bodies_level(part, images, spec, [p[0][0] for p in pool] or whole, center)
        if not level.views:
            return None
        level.keep_surroundings(start[1])
        if not pool:
            pool = _grid(level, whole, center, options, prior)

        last = number == len(options.levels) - 1
        if len(pool) > 1:
            several, pool = len(pool), refined(level, pool, options.first)
            pool = _close(_distinct(pool, center, 1.0, spec.keep), options.close) if last else _elsewhere(pool, center, options)
            if last and several > 1:  # the others' shadows are not looked at any more
                level = bodies_level(part, images, spec, pool[0][0][0], center)
        pool = refined(level, pool, spec.iterations)
        pool = _close(_distinct(pool, center, 1.0, spec.keep), options.close) if last else _elsewhere(pool, center, options)
        pool = [p._replace(before=(p.rank / pool[0].rank) ** MEMORY) for p in pool]
    (poses, evaluation, _), *others = pool
    best = Refined(poses[0], evaluation, 0)
    return PartResult(best, poses[1], [Refined(o.poses[0], o.evaluation, 0) for o in others], level, center)


def make_part(moving: MovingVolume, wanted: object, point_lps_mm: np.ndarray) -> Part:
    """A part from what a caller may say: a :class:`Part`, ``"auto"`` (bone around the point), or label values of the volume's parts.

    Raises
    ------
    FluoroGuideError
        Labels without a label image, a label that is not there, or no bone near the point.
    """
    if isinstance(wanted, Part):
        return wanted
    if wanted == "auto":
        return Part(moving, bone_distance(moving.volume, point_lps_mm), point_lps_mm, "bone at the target")
    if moving.volume.parts is None:
        raise FluoroGuideError("A bone label was given but the volume has no label image", wanted, "Give the labels as well, or choose 'auto'")
    values = [int(v) for v in np.atleast_1d(wanted)]
    names = ", ".join(moving.volume.part_names.get(v, f"label {v}") for v in values)
    return Part(moving, label_distance(moving.volume.parts, values), point_lps_mm, names)


def bodies_level(
    part: Part, images: list[XrayImage], spec: PartLevel, seen_at: np.ndarray | Sequence[np.ndarray], center_mm: np.ndarray,
) -> BodiesLevel:
    """A part's level, looking where the bone is seen at one or several poses, without rays that leave a truncated scan at the (first) pose."""
    base = Level(part.projectors(spec.pixel_mm)[0], images, center_mm, spec.pixel_mm, spec.radius, spec.cauchy)
    return BodiesLevel(part, base.without_unknown(part.moving.beyond(), np.reshape(seen_at, (-1, 4, 4))[0]), spec, seen_at, center_mm)


def _with_prior(evaluation: Evaluation, bone: np.ndarray, prior: PosePrior | None, center_mm: np.ndarray) -> Evaluation:
    """The evaluation of bone and surroundings with what is known of the bone's pose (4x4) beforehand."""
    if prior is None:
        return evaluation
    own = prior.add(bone, center_mm, replace(evaluation, hessian=evaluation.hessian[:6, :6], gradient=evaluation.gradient[:6]))
    hessian, gradient = evaluation.hessian.copy(), evaluation.gradient.copy()
    hessian[:6, :6], gradient[:6] = own.hessian, own.gradient
    return replace(own, hessian=hessian, gradient=gradient)


def _grid(
    level: BodiesLevel, whole: np.ndarray, center_mm: np.ndarray, options: PartOptions, prior: PosePrior | None = None,
) -> list[_Candidate]:
    """The best distinct translations of the bone against its surroundings, from cost maps over the shifts in each view."""
    from scipy.ndimage import map_coordinates

    steps = np.arange(-options.reach_mm, options.reach_mm + 1e-6, options.step_mm)
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    shifts = shifts[np.linalg.norm(shifts, axis=1) <= options.reach_mm + 1e-6]
    cost = np.zeros(len(shifts))
    for number, view in enumerate(level.views):
        jacobian = view.view.project_jacobian(center_mm)[0]  # pixels (column, row) per mm
        reach = 2 * int(np.ceil(options.reach_mm * np.linalg.norm(jacobian, axis=1).max() / 2))
        costs = level.shift_costs(view, number, whole, reach)
        cost += map_coordinates(costs, ((shifts @ jacobian.T)[:, ::-1].T + reach) / 2, order=1, mode="nearest")
    kept: list[np.ndarray] = []
    if prior is not None:  # costs of the views are added up, not averaged
        cost = cost / max(1, len(level.views)) + [
            prior.add(perturb(whole, np.r_[0, 0, 0, s], center_mm), center_mm, Evaluation(0.0, 0.0, None, None, ())).cost for s in shifts]
        kept.append(np.zeros(3))
    for shift in shifts[np.argsort(cost, kind="stable")]:
        if all(np.linalg.norm(shift - k) >= options.apart_mm for k in kept):
            kept.append(shift)
        if len(kept) == options.candidates:
            break
    return [_Candidate((perturb(whole, np.r_[0, 0, 0, shift], center_mm), whole), None) for shift in kept]


def _distinct(pool: list[_Candidate], center_mm: np.ndarray, apart_mm: float, keep: int) -> list[_Candidate]:
    kept: list[_Candidate] = []
    for candidate in pool:
        if all(pose_distance_mm(candidate[0][0], k[0][0], center_mm) >= apart_mm for k in kept):
            kept.append(candidate)
    return kept[:keep]


def _elsewhere(pool: list[_Candidate], center_mm: np.ndarray, options: PartOptions) -> list[_Candidate]:
    """The best ones (best first) whose bones lie at different places, whichever way they are turned."""
    places = [apply(p[0][0] @ np.linalg.inv(pool[0][0][0]), center_mm) for p in pool]
    kept: list[int] = []
    for n, place in enumerate(places):
        if all(np.linalg.norm(place - places[k]) >= options.elsewhere_mm for k in kept):
            kept.append(n)
    return _close([pool[n] for n in kept[: options.keep_first]], options.worth)


def _close(pool: list[_Candidate], factor: float) -> list[_Candidate]:
    """Those (best first) whose cost is at most so many times the best one's."""
    return [p for p in pool if p.rank <= factor * pool[0].rank]
