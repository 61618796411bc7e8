"""When the best pose explains the X-rays badly: look again, from each view alone and with a finer search.

Two views that are searched together mislead each other where one of them shows the volume badly on the coarsest level (a dark lateral
pelvis, a scan that covers a strip of the picture).  One view alone finds its pose in its plane all the same; the depth it leaves open is
then read from the others.  Costs a few registrations, and is done only when the first answer is weak.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CancelledError
from ..geometry.rigid import motion
from .coarse_to_fine import coarse_to_fine, make_level, refine_pool
from .refine import Refined, distinct
from .search import Candidate, center_in_isocenter
from .similarity import Level

if TYPE_CHECKING:
    from .register import _Task as Task

Answer = tuple[Refined, list[Refined], Level]
"""Best pose, rivals, finest level."""
WEAK_SIMILARITY = 0.5
"""An answer whose worst view is less similar than this is looked at again."""
WEAK_EXPLAINED = 0.15
"""The same for a volume that shows a part: how much it explains where it is known.  Of 47 right answers of design cases two explain less; the
wrong first answers about 0.05."""
DEPTH_REACH_MM, DEPTH_STEP_MM = 60.0, 4.0
"""Depths along a view's ray that are tried with the other views."""
DEPTHS_KEPT = 4
"""Depths per view that are refined."""
ROTATION_STEP_DEG, ROTATION_LIMIT_DEG = 7.0, 21.0
"""The second search's grid of rotations."""
FINER_KEEP = 6
"""Candidates of the second search that are refined on finer levels."""


def is_weak(best: Refined, limit: float = WEAK_SIMILARITY) -> bool:
    """Whether a pose explains one of the views so badly that it may be in the wrong basin."""
    if best.evaluation.nothing:
        return limit > 0 and best.evaluation.explained_there < WEAK_EXPLAINED
    return min(best.evaluation.similarity, default=0.0) < limit


def look_again(task: Task, start: np.ndarray, found: Answer) -> Answer:
    """The better of ``found`` and what a second look finds, with the rivals of both: first from each view, then by a finer search."""
    ways = [_from_finer_search]
    if len(task.images) > 1:
        ways.insert(0, _from_each_view)
    for way in ways:
        if not is_weak(found[0], task.options.weak_similarity):
            break
        task.progress(0.85, "looking again")
        found = _better(task, found, way(task, start))
    return found


def _better(task: Task, found: Answer, candidates: list) -> Answer:
    """The better of an answer and what the candidates lead to on the finer levels."""
    levels = task.options.levels
    candidates = distinct([found[0], *candidates], center_in_isocenter(found[0].pose, task.point_lps_mm), 2.0, len(candidates) + 1)
    again = refine_pool(_variant(task, task.images, levels[1:] or levels), candidates)
    better = again[0].evaluation.rank < found[0].evaluation.rank
    task.history.append({"stage": "second look", "candidates": len(candidates), "better": better, "rank": again[0].evaluation.rank})
    first, second = (again, found) if better else (found, again)
    rivals = sorted([*first[1], second[0], *second[1]], key=lambda r: r.evaluation.rank)
    return first[0], rivals, first[2]


def _variant(task: Task, images: list, levels: tuple, **changes: object) -> Task:
    """A task of its own on some X-rays and levels; what it finds out about grey values stays its own, and its progress is not told."""
    options = dataclasses.replace(task.options, levels=levels, **changes)
    return dataclasses.replace(
        task, images=list(images), options=options, inverted=set(), mirrored_starts=[], notes=[], history=[], progress=lambda *_: None,
    )


def _from_finer_search(task: Task, start: np.ndarray) -> list[Refined]:
    """Candidates of a search with smaller steps, refined on the coarsest level."""
    first = dataclasses.replace(task.options.levels[0], keep=FINER_KEEP)
    finer = _variant(task, task.images, (first,), search_step_deg=ROTATION_STEP_DEG, search_limit_deg=ROTATION_LIMIT_DEG, search_keep=2 * FINER_KEEP)
    best, others, _ = coarse_to_fine(finer, start)
    return [best, *others][:FINER_KEEP]


def _from_each_view(task: Task, start: np.ndarray) -> list[Candidate]:
    """What every view's own registration says."""
    return [c for number in range(len(task.images)) for c in _from_one_view(task, number, start)]


def _from_one_view(task: Task, number: int, start: np.ndarray) -> list[Candidate]:
    """Poses of one view's own registration, at the depths along its ray that suit all views best."""
    levels = task.options.levels[:2]
    alone, *_ = coarse_to_fine(_variant(task, [task.images[number]], levels), start)
    center = center_in_isocenter(alone.pose, task.point_lps_mm)
    along = center - task.images[number].view.source_mm
    along /= np.linalg.norm(along)
    level = make_level(task, levels[-1], center)
    steps = np.arange(-DEPTH_REACH_MM, DEPTH_REACH_MM + 1e-6, DEPTH_STEP_MM)
    tried = []
    for step in steps:
        if task.cancelled():
            raise CancelledError()
        pose = motion(np.r_[0, 0, 0, step * along], center) @ alone.pose
        seen = level.without_unknown(task.moving.beyond(), pose)
        tried.append(Candidate(pose, -seen.evaluate(pose, center_in_isocenter(pose, task.point_lps_mm), derivatives=False).rank))
    return distinct(sorted(tried, key=lambda c: -c.score), center, 2.1 * DEPTH_STEP_MM, DEPTHS_KEPT)
