"""Registration of a narrow field of view (CBCT, a reconstruction zoomed in), of whose X-rays it explains a part.

What the field shows is a band in the X-ray, beside and under shadows of what was cut off.  On coarse levels chance explains as much of the
picture as the right pose does, and a refinement walks away from it (from the truth itself, tens of millimetres); so the search is the only
step there, and what it found is refined on finer levels, in short rounds, each of which knows the rays that are known at its start.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from .refine import TOLERANCE, Refined, refine
from .search import center_in_isocenter
from .similarity import Level

if TYPE_CHECKING:
    from .register import LevelOptions, Options
    from .register import _Task as Task

COARSE_MM = 4.0
"""Pixels of the coarsest level of an MR: large windows find no room in a band."""
FIRST_MM, FIRST_RADIUS, FIRST_KEEP = 3.0, 5, 10
"""Pixels and window of the level on which a CT or CBCT is searched and first refined, and poses kept of the search."""
ROUND = 3
"""Iterations until the rays that are known are looked at again."""
LOST_MOST = 1.1
"""A round is taken back when the best explained more than this many times as much."""


def for_narrow_fields(options: Options, shows_a_part: bool) -> Options:
    """Levels for a narrow field; ``shows_a_part`` as in :class:`.volume.MovingVolume`."""
    first, *rest = options.levels
    if first.pixel_mm <= COARSE_MM or not options.search:
        return options
    finer = [level for level in rest if level.pixel_mm < FIRST_MM]
    if not shows_a_part or not finer:
        return dataclasses.replace(options, levels=(dataclasses.replace(first, pixel_mm=COARSE_MM), *rest))
    start = dataclasses.replace(first, pixel_mm=FIRST_MM, radius=FIRST_RADIUS)
    return dataclasses.replace(options, levels=(start, *finer), search_keep=max(options.search_keep, FIRST_KEEP))


def in_rounds(task: Task, level: Level, spec: LevelOptions, pose: np.ndarray) -> Refined:
    """A pose (4x4) refined on a level, a few iterations at a time, as long as no less is explained."""

    def known_at(at: np.ndarray) -> tuple[Level, Refined]:
        masked, center = level.without_unknown(task.moving.beyond(), at), center_in_isocenter(at, task.point_lps_mm)
        found = masked.evaluate(at, center, derivatives=False)
        return masked, Refined(at, found if task.prior is None else task.prior.add(at, center, found), 0)

    (masked, here), used = known_at(pose), 0
    best = here.evaluation
    while used < spec.iterations:
        center = center_in_isocenter(here.pose, task.point_lps_mm)
        steps = min(ROUND, spec.iterations - used)
        now = refine(masked, here.pose, center, steps, tolerance_mm=TOLERANCE * spec.pixel_mm, cancelled=task.cancelled, prior=task.prior)
        used += max(1, now.iterations)
        masked, there = known_at(now.pose)
        if there.evaluation.worse(best) > LOST_MOST:
            break
        here, best = there, min(best, there.evaluation, key=lambda e: e.rank)
        if now.iterations < steps:
            break
    return dataclasses.replace(here, iterations=used)
