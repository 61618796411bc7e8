"""Registration with a C-arm whose geometry is estimated too: fixed C-arms together, mobile ones view by view first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .geometry_error import CARM_WEIGHT, estimate_carm
from .prior import PosePrior
from .refine import Refined
from .search import center_in_isocenter

Found = tuple[Refined, list[Refined]]
MOBILE_WEIGHT = 3e-4
"""Weight of the prior on a mobile C-arm's motion: single views that show their depth badly wander off with less (set on design cases)."""
FIRST_DEPTH_MM = 30.0
"""How far off in depth the first view's own pose may be (limit, as a tolerance)."""


def register_with_carm(task: object, start: np.ndarray, coarse_to_fine: Callable, make_level: Callable) -> tuple[Refined, list[Refined], object]:
    """The best pose, its rivals and the finest level with the corrected views; ``task`` goes on with those views.

    Parameters
    ----------
    task
        The registration at work (``register._Task``); its options hold the tolerance.
    start
        Pose (4x4).
    coarse_to_fine, make_level
        ``register``'s own: (task, start) -> (best, rivals, level), and (task, level options, centre) -> level.
    """
    options, nominal = task.options, list(task.images)
    if len(nominal) < 2:
        task.note("C-arm", "One view alone does not show errors of the C-arm's geometry: it was taken as given, and widens the predicted error.")
    if options.carm.shift_mm > 0 and len(nominal) > 1:
        found = _each_view(task, start, coarse_to_fine)
    else:
        best, others, _ = coarse_to_fine(task, start)
        found = [(best, others)] * len(nominal)
    task.progress(0.9, "estimating the C-arm")
    views, center = [x.view for x in nominal], center_in_isocenter(found[0][0].pose, task.point_lps_mm)
    # every view's unknown body is where its own pose puts it
    level = make_level(task, options.levels[-1], center)
    level = _without_unknown(level, task.moving.beyond(), [f[0].pose for f in found])
    weight = MOBILE_WEIGHT if options.carm.shift_mm > 0 else CARM_WEIGHT
    best, task.carm, others = estimate_carm(
        level, views, found, center, options.carm, iterations=20 if len(nominal) > 1 else 0, weight=weight, prior=task.prior,
        cancelled=task.cancelled,
    )
    task.images = [x.with_view(v) for x, v in zip(task.images, task.carm.views, strict=True)]
    fit = best.evaluation
    task.history.append({"stage": "C-arm", "cost": fit.cost, "similarity": list(fit.similarity), "iterations": best.iterations})
    return best, others, make_level(task, options.levels[-1], center)


def _without_unknown(level: object, beyond: object, poses: list[np.ndarray]) -> object:
    if beyond is None:
        return level
    masked = [level.without_unknown(beyond, pose).views[n] for n, pose in enumerate(poses)]
    return level.with_views(masked)


def _each_view(task: object, start: np.ndarray, coarse_to_fine: Callable) -> list[Found]:
    """Every view's own pose and rivals, in the frame of its stated geometry.

    The view that fits best is sought from ``start`` alone; the others again from its pose, where only the C-arm's motion lies between: a
    single view says so little about its depth that it may wander far off without it.
    """
    found = [_one_view(task, number, start, coarse_to_fine, task.prior) for number in range(len(task.images))]
    first = int(np.argmax([f[0].evaluation.similarity[0] for f in found]))
    pose, tolerance = found[first][0].pose, task.options.carm
    prior = PosePrior.around(
        pose, center_in_isocenter(pose, task.point_lps_mm), rotation_deg=max(1.0, tolerance.angle_deg),
        translation_mm=float(np.hypot(tolerance.shift_mm, FIRST_DEPTH_MM) / np.sqrt(3)), weight=MOBILE_WEIGHT,
    )
    return [f if number == first else _one_view(task, number, pose, coarse_to_fine, prior) for number, f in enumerate(found)]


def _one_view(task: object, number: int, start: np.ndarray, coarse_to_fine: Callable, prior: PosePrior | None) -> Found:
    """One view's own pose and its rivals; what was found about its grey values is kept."""
    alone = dataclasses.replace(task, images=[task.images[number]], inverted=set(), mirrored_starts=[], prior=prior)
    best, others, _ = coarse_to_fine(alone, start)
    task.images = [alone.images[0] if n == number else x for n, x in enumerate(task.images)]
    task.inverted ^= {number} if alone.inverted else set()
    task.mirrored_starts = [*task.mirrored_starts[:number], *alone.mirrored_starts, *task.mirrored_starts[number + 1 :]]
    return best, others
