"""One bone registered on its own while everything around it may have moved: two bodies and what stretches between them.

A whole-volume metric follows whatever fills the picture.  Projecting the bone alone does not help either: most of what
the X-ray shows is then unexplained, and wrong poses explain it just as well (measured: the cost at the true pose is
higher than at the best wrong one).  So everything is projected, cut into shells by its distance from the bone: the inner
shell moves with the bone (pose T1), the outer one with the surroundings (pose T2), those between in proportion.  Both
poses are estimated together; the last levels look at the bone's own outline through small windows, where the tissue that
stretches in an unknown way counts least.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.rigid import apply, perturb
from ..imaging.xray import XrayImage
from .bodies import BodiesLevel, PartLevel, Poses, bodies_level, whole_pictures
from .prior import PosePrior
from .refine import Refined, levenberg_marquardt, pose_distance_mm
from .shells import Part, bone_distance, label_distance
from .similarity import Evaluation
from .volume import MovingVolume

SETTLED = 1e-4
"""A refinement stops when two steps in turn lowered the cost by less than this part of it."""


@dataclass(frozen=True)
class PartOptions:
    """How a part is registered; ``reach_mm`` and ``step_mm`` are the translations tried between bone and surroundings.

    ``candidates`` of them, ``apart_mm`` from each other, are refined by ``first`` iterations.  They are compared by how much of the X-rays the
    bone's own shadow explains where each puts it (:meth:`BodiesLevel.explained`), for the cost also falls where a bone is laid over what the
    surroundings explain badly.  Up to ``keep_first`` go on that put the bone ``elsewhere_mm`` from each other and explain at least ``worth``
    times what the best one does; on the last level ``close`` times.
    """

    levels: tuple[PartLevel, ...] = (
        PartLevel(2.0, 2, 1.0, 6.0, 8, 5, 60.0), PartLevel(1.0, 3, 0.7, 4.0, 24, 2, 50.0),
    )
    reach_mm: float = 18.0
    step_mm: float = 3.0
    apart_mm: float = 5.0
    candidates: int = 14
    first: int = 3
    keep_first: int = 5
    elsewhere_mm: float = 4.0
    close: float = 0.75
    worth: float = 0.25


class _Candidate(NamedTuple):
    """Poses of bone and surroundings, their evaluation, and per view how much of the X-ray the bone's own shadow explains there."""

    poses: Poses
    evaluation: Evaluation | None
    views: tuple[float, ...] = ()

    @property
    def explained(self) -> float:
        """Mean over the views."""
        return sum(self.views) / max(1, len(self.views))


@dataclass(frozen=True, eq=False)
class PartResult:
    """Pose of the bone with its evaluation, pose of the surroundings, runners-up, the level it was found on, its centre.

    ``explained``: per view, how much of the X-ray the bone's own shadow explains beyond all else, 0..1 (:meth:`BodiesLevel.explained`).
    """

    best: Refined
    surroundings: np.ndarray
    rivals: list[Refined]
    level: BodiesLevel
    center_mm: np.ndarray
    explained: tuple[float, ...]


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
            own = level.at(candidate.poses[0])
            poses, evaluation, _ = levenberg_marquardt(
                lambda state: _with_prior(own.evaluate(state), state[0], prior, center), own.move, candidate.poses, iterations,
                cancelled=cancelled, settled=SETTLED,
            )
            return _Candidate(poses, evaluation, own.explained(poses))

        with ThreadPoolExecutor(max(1, threads)) as workers:
            return sorted(workers.map(one, candidates), key=lambda c: -c.explained)

    options = options or PartOptions()
    center = apply(whole, part.center_lps_mm)
    bases = [whole_pictures(part, images, spec, center) for spec in options.levels]
    level = bodies_level(part, images, options.levels[0], whole, center, bases[0])
    if not level.views:
        return None
    pool = _grid(level, whole, center, options, prior)
    for number, spec in enumerate(options.levels):
        last = number == len(options.levels) - 1
        level = bodies_level(part, images, spec, [p.poses[0] for p in pool], center, bases[number])
        if not level.views:
            return None
        level.keep_surroundings(pool[0].poses[1])
        for iterations in (options.first, spec.iterations):
            pool = refined(level, pool, iterations)
            pool = _distinct(pool, center, spec.keep, options.close) if last else _elsewhere(pool, center, options)
    best, *others = pool
    level = bodies_level(part, images, spec, best.poses[0], center, bases[-1])
    if not level.views:
        return None
    rivals = [_rival(o, best) for o in others]
    return PartResult(Refined(best.poses[0], best.evaluation, 0), best.poses[1], rivals, level, center, best.views)


def _rival(other: _Candidate, best: _Candidate) -> Refined:
    """Another candidate, ranked against the best one by what is left unexplained."""
    rank = best.evaluation.rank * (1 - other.explained) / (1 - best.explained)
    return Refined(other.poses[0], replace(other.evaluation, rank=rank), 0)


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
        reach = int(np.ceil(options.reach_mm * np.linalg.norm(jacobian, axis=1).max()))
        costs = level.shift_costs(view, number, whole, reach)
        cost += map_coordinates(costs, (shifts @ jacobian.T)[:, ::-1].T + reach, order=1, mode="nearest")
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


def _distinct(pool: list[_Candidate], center_mm: np.ndarray, keep: int, share: float, apart_mm: float = 1.0) -> list[_Candidate]:
    """The best ones (best first) whose bones lie in different poses."""
    kept: list[_Candidate] = []
    for candidate in pool:
        if all(pose_distance_mm(candidate.poses[0], k.poses[0], center_mm) >= apart_mm for k in kept):
            kept.append(candidate)
    return _close(kept[:keep], share)


def _elsewhere(pool: list[_Candidate], center_mm: np.ndarray, options: PartOptions) -> list[_Candidate]:
    """The best ones (best first) whose bones lie at different places, whichever way they are turned."""
    places = [apply(p.poses[0] @ np.linalg.inv(pool[0].poses[0]), center_mm) for p in pool]
    kept: list[int] = []
    for n, place in enumerate(places):
        if all(np.linalg.norm(place - places[k]) >= options.elsewhere_mm for k in kept):
            kept.append(n)
    return _close([pool[n] for n in kept[: options.keep_first]], options.worth)


def _close(pool: list[_Candidate], share: float) -> list[_Candidate]:
    """Those (best first) that explain at least this share of what the best one does."""
    return [p for p in pool if p.explained >= share * pool[0].explained]
