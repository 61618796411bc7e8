"""From a rough pose to the best one: a search on the coarsest level, ever fewer candidates on ever finer ones."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from .narrow_field import in_rounds
from .refine import TOLERANCE, Refined, distinct, pose_distance_mm, refine
from .search import Candidate, Found, center_in_isocenter, rotation_grid, search
from .similarity import Level

if TYPE_CHECKING:
    from .register import LevelOptions
    from .register import _Task as Task

POLARITY_RATIO = 1.2
"""An X-ray counts as inverted when it correlates this much better so, at the best pose of the search."""
CLEARLY_WORSE = 1.3
"""A candidate whose cost, on a level after the first, is this much above the best one's is not refined further."""
ROUNDS = 4
"""How often a refinement goes on with new masks: which rays leave a truncated scan depends on the pose."""
TOO_FAR = 2.0
"""A candidate that ends farther from the first one than this many times the search's reach is given up."""
SETTLED = 0.3
"""A pose rests when a refinement moved it by less than this part of a pixel."""


def make_level(task: Task, spec: LevelOptions, center_mm: np.ndarray) -> Level:
    """All views of a task on one level of the pyramid."""
    return Level(task.moving.projector(spec.pixel_mm), task.images, center_mm, spec.pixel_mm, spec.radius, partial=task.moving.shows_a_part)


def coarse_to_fine(task: Task, start: np.ndarray) -> tuple[Refined, list[Refined], Level]:
    """The best pose (the start is a 4x4 pose), its rivals, and the finest level."""
    center = center_in_isocenter(start, task.point_lps_mm)
    pool: list[Candidate | Refined] = [Candidate(start, 0.0)]
    if task.options.search:
        pool += searched(task, start, center)
    return refine_pool(task, pool)


def refine_pool(task: Task, pool: list) -> tuple[Refined, list[Refined], Level]:
    """The best of a pool of candidates (each with ``.pose``) after all levels, the runners-up of the last, and that level."""
    refined, level, levels = [], None, task.options.levels
    for number, spec in enumerate(levels):
        task.progress(0.3 + 0.6 * number / len(levels), f"refining at {spec.pixel_mm:g} mm")
        center = center_in_isocenter(pool[0].pose, task.point_lps_mm)
        level = make_level(task, spec, center)
        refined = refine_all(task, level, spec, pool)
        task.history.append({
            "stage": f"{spec.pixel_mm:g} mm", "candidates": len(pool), "cost": refined[0].evaluation.cost, "rank": refined[0].evaluation.rank,
            "similarity": list(refined[0].evaluation.similarity), "iterations": sum(r.iterations for r in refined),
        })
        pool = distinct(_within_reach(task, refined, pool[0].pose), center, 1.5, spec.keep)
        if number > 0:
            pool = [r for r in pool if r.evaluation.worse(pool[0].evaluation) <= CLEARLY_WORSE]
    return pool[0], [r for r in refined if r is not pool[0]], level


def _within_reach(task: Task, refined: list[Refined], start: np.ndarray) -> list[Refined]:
    """Those whose target has not left the region of the search: where a volume leaves the picture nothing contradicts it any more."""
    reach = TOO_FAR * task.options.search_reach_mm
    here = center_in_isocenter(start, task.point_lps_mm)
    near = [r for r in refined if np.linalg.norm(center_in_isocenter(r.pose, task.point_lps_mm) - here) <= reach]
    return near or refined[:1]


def searched(task: Task, start: np.ndarray, center_mm: np.ndarray) -> list[Candidate]:
    """Poses found around the start (4x4) on the coarsest level, in pictures whose grey values are turned over where only that fits."""
    task.progress(0.05, "searching")
    first = task.options.levels[0]
    found = _search(task, make_level(task, first, center_mm), start, center_mm)
    if _correct_polarity(task, found):
        found = _search(task, make_level(task, first, center_mm), start, center_mm)
    task.mirrored_starts = list(found.mirrored_starts)
    return list(found.candidates)


def _search(task: Task, level: Level, start: np.ndarray, center_mm: np.ndarray) -> Found:
    options = task.options
    rotations = rotation_grid(options.search_limit_deg, options.search_step_deg)
    found = search(
        level, task.moving.beyond(), start, center_mm, rotations, reach_mm=options.search_reach_mm, keep=options.search_keep,
        threads=options.threads, cancelled=task.cancelled,
    )
    task.history.append({
        "stage": "search", "rotations": len(rotations), "best_score": max((c.score for c in found.candidates), default=0.0),
        "correlation": list(found.correlation), "inverted_correlation": list(found.inverted_correlation),
        "mirrored_correlation": list(found.mirrored_correlation),
    })
    return found


def _correct_polarity(task: Task, found: Found) -> bool:
    """Turn over the grey values of X-rays that fit the volume much better inverted; says so in the result's reasons.

    Whether bone is bright cannot always be seen in the picture alone; against the volume it is plain, and costs nothing:
    the correlation of the inverted picture is the negative one.
    """
    changed = False
    for i, (straight, inverted) in enumerate(zip(found.correlation, found.inverted_correlation, strict=True)):
        if inverted > POLARITY_RATIO * max(straight, 0.0) and inverted > 0.3:
            image = task.images[i]
            task.images[i] = dataclasses.replace(image, pixels=-image.pixels)
            task.inverted ^= {i}
            name = image.source or "an X-ray"
            task.note("polarity", f"The grey values of {name} were inverted: they fit the volume only so; check its polarity.")
            changed = True
    return changed


def refine_all(task: Task, level: Level, spec: LevelOptions, pool: list) -> list[Refined]:
    """Every candidate refined on this level, best (lowest rank) first; those that go on until they rest.

    A refinement works with the rays that are known at its start.  Where a scan ends in the picture it stops early, held by pixels that
    its start knew and its end does not; the few best go on with new masks.
    """
    beyond, cancelled = task.moving.beyond(), task.cancelled

    def one(candidate: Candidate | Refined) -> Refined:
        if task.moving.shows_a_part:
            return in_rounds(task, level, spec, candidate.pose)
        center = center_in_isocenter(candidate.pose, task.point_lps_mm)
        masked = level.without_unknown(beyond, candidate.pose)
        return refine(masked, candidate.pose, center, spec.iterations, tolerance_mm=TOLERANCE * spec.pixel_mm, cancelled=cancelled, prior=task.prior)

    def settled(pair: tuple[Candidate | Refined, Refined]) -> Refined:
        before, now = pair
        for _ in range(ROUNDS):
            gone = pose_distance_mm(before.pose, now.pose, center_in_isocenter(now.pose, task.point_lps_mm))
            if now.iterations < spec.iterations and (beyond is None or gone < SETTLED * spec.pixel_mm):
                break
            before, now = now, one(now)
        return now

    with ThreadPoolExecutor(max(1, task.options.threads)) as threads:
        refined = sorted(zip(pool, threads.map(one, pool), strict=True), key=lambda pair: pair[1].evaluation.rank)
        going = _going_on([now for _, now in refined], level, spec, task)
        chosen = [pair for pair in refined if any(pair[1] is g for g in going)]
        rest = [now for _, now in refined if not any(now is g for g in going)]
        done = list(threads.map(settled, chosen))
    return sorted([*done, *rest], key=lambda r: r.evaluation.rank)


def _going_on(refined: list[Refined], level: Level, spec: LevelOptions, task: Task) -> list[Refined]:
    """The few that are worth settling."""
    center = center_in_isocenter(refined[0].pose, task.point_lps_mm)
    return [r for r in distinct(refined, center, 1.5, spec.keep) if r.evaluation.worse(refined[0].evaluation) <= CLEARLY_WORSE]
