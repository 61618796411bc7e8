"""The search on MR with labelled bone: many poses around the start, told apart by small windows near labelled bone.

MR explains an X-ray so loosely that a pose turned by 12 degrees or half a vertebra off fits as well as the right one through the engine's
large windows, and on coarse levels often better; the few poses that the engine keeps are then all wrong.  So more poses begin (the start itself
moved along the spine and turned, besides the search's best), different ones go on, not the best one's neighbours, and where bone is labelled
only rays near it vote on the finer levels: what lies elsewhere (gas, walls of bowel, unlabelled bone) MR shows wrongly or as on another day.
Through windows of 1 cm the right pose then is the best one (four of four lumbar design cases with 13 basins each; of all rays, two of four).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from ..anatomy.mr import MrVolume
from ..errors import CancelledError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, motion
from ..projection.joseph import Projector
from .coarse_to_fine import make_level, refine_all, searched
from .parts import PartOptions
from .prior import PosePrior
from .refine import Refined, distinct
from .search import Candidate, center_in_isocenter, rotation_grid, search
from .similarity import Level
from .volume import MovingVolume, resampled

if TYPE_CHECKING:
    from .register import _Task as Task

ALONG_MM = np.arange(-20.0, 20.1, 5.0)
"""Shifts along the patient's long axis: steps well below half a vertebra."""
TURN_DEG = 8.0
"""Turns about each axis, both ways."""
NEAR_REACH_MM = 24.0
"""Shifts that are searched by rays near bone."""
AROUND, APART_MM = 8, 8.0
"""Poses around the start that go on, and how far all that go on must be from each other (rotations at the lever of refinement)."""
SEARCHED = 8
"""Poses that the search by correlation hands on."""
KEPT = (10, 9, 3, 1)
"""Poses that go on after each step: the engine's coarsest level, its middle one, few iterations on its finest through small windows, the rest."""
SETTLED = (1, 1, 1, 3)
"""Poses of each step that go on until they rest."""
FIRST = 5
"""Iterations on the finest level before most poses are given up."""
SMALL_PX = 4
"""Half-width of the small windows, in pixels of the finest level."""
NEAR_BONE_MM = 8.0
"""Rays that pass labelled bone within this vote on the finer levels."""
THROUGH_MM = 6.0
"""Way of a ray within that distance from which on it does."""
PART = PartOptions(elsewhere_mm=2.0)
"""A bone is searched for with places nearer to each other going on: the last level's basins are narrow, and its choice is the one that counts."""
BONE_MM, BONE_DEG = 8.0, 4.0
"""Standard deviation of a bone's motion against its surroundings.  What MR shows of a bone's outline is weak, and half a vertebra off the noise
of small windows fits as well; bones move by a few millimetres and turn by a few degrees between positions of the patient."""

BONE_SEEN = 0.12
"""Similarity, in the worst view, of a bone's outline from which on its own pose is believed (design cases that are right: 0.13 to 0.29)."""


class AwayFromBone:
    """Rays that pass no labelled bone, and those that must not vote anyway.  Stands in for the projector of the body beyond."""

    def __init__(self, others: object | None, near: Projector) -> None:
        self.others, self.near = others, near

    @property
    def count(self) -> int:
        """Projections made."""
        return self.near.count + (self.others.count if self.others is not None else 0)

    def project(self, view: CArmView, pose: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None) -> np.ndarray:
        """Above 0 where the ray must not vote, float32 (rows, columns)."""
        image = np.maximum(np.float32(THROUGH_MM) - self.near.project(view, pose, mask, distances), 0)
        return image if self.others is None else image + self.others.project(view, pose, mask, distances)


class NearBone:
    """A moving volume of which only rays near labelled bone are known."""

    shows_a_part = False

    def __init__(self, moving: MovingVolume) -> None:
        import SimpleITK as sitk

        bone = sitk.Cast(moving.volume.parts > 0, sitk.sitkUInt8)
        away = sitk.SignedMaurerDistanceMap(bone, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
        near = resampled(sitk.Cast(away < NEAR_BONE_MM, sitk.sitkFloat32), 4.0)
        self.moving, self._unknown = moving, AwayFromBone(moving.beyond(), Projector(near, moving.backend))

    def projector(self, spacing_mm: float) -> Projector:
        """As the volume's."""
        return self.moving.projector(spacing_mm)

    def beyond(self) -> AwayFromBone:
        """As the volume's, and rays away from bone."""
        return self._unknown


def mr_coarse_to_fine(task: Task, start: np.ndarray) -> tuple[Refined, list[Refined], Level]:
    """The best pose (the start is a 4x4 pose), its rivals, and the finest level, whose windows are small."""
    coarse, middle, fine = task.options.levels
    center = center_in_isocenter(start, task.point_lps_mm)
    pool: list[Candidate | Refined] = [Candidate(start, 0.0)]
    if task.options.search:
        pool += searched(task, start, center) + starts_around(task, make_level(task, coarse, center), start)
    small = dataclasses.replace(fine, radius=SMALL_PX)
    near = dataclasses.replace(task, moving=NearBone(task.moving))
    steps = ((task, coarse), (near, middle), (near, dataclasses.replace(small, iterations=FIRST)), (near, dataclasses.replace(small, iterations=16)))
    rivals: list[Refined] = []
    for number, ((seen, spec), keep) in enumerate(zip(steps, KEPT, strict=True)):
        task.progress(0.3 + 0.15 * number, f"refining at {spec.pixel_mm:g} mm")
        center = center_in_isocenter(pool[0].pose, task.point_lps_mm)
        level = make_level(seen, spec, center)
        rivals = refine_all(seen, level, dataclasses.replace(spec, keep=SETTLED[number]), pool)
        task.history.append({
            "stage": f"{spec.pixel_mm:g} mm", "candidates": len(pool), "cost": rivals[0].evaluation.cost, "rank": rivals[0].evaluation.rank,
            "similarity": list(rivals[0].evaluation.similarity), "iterations": sum(r.iterations for r in rivals),
        })
        pool = distinct(rivals, center, APART_MM if number < 2 else 1.5, keep)
        if number == 0 and task.options.search:
            pool += _near_bone(near, make_level(near, middle, center), start)
    return pool[0], [r for r in rivals if r is not pool[0]], level


def bone_is_seen(moving: MovingVolume, similarity: tuple[float, ...]) -> bool:
    """Whether a bone's own pose is worth more than the whole volume's: not in MR where its outline is hardly recognised.

    Small windows then found noise (five of six lumbar design cases: 3 to 15 mm off, where rays near all labelled bone gave 0.6 to 2.5 mm).
    """
    return not isinstance(moving.volume, MrVolume) or min(similarity, default=0.0) >= BONE_SEEN


def _near_bone(task: Task, level: Level, start: np.ndarray) -> list[Candidate]:
    """The best distinct poses of a search on the middle level by rays near bone alone, by cost and prior: what lies around pulls all coarse
    candidates to one wrong place now and then."""
    center, beyond = center_in_isocenter(start, task.point_lps_mm), task.moving.beyond()
    turns = rotation_grid(TURN_DEG, TURN_DEG)
    found = search(level, beyond, start, center, turns, reach_mm=NEAR_REACH_MM, keep=4 * AROUND, peaks=4, threads=task.options.threads)
    return _ranked(task, level, [c.pose for c in found.candidates], center)


def _ranked(task: Task, level: Level, poses: list[np.ndarray], center_mm: np.ndarray) -> list[Candidate]:
    """The best distinct of some poses by cost and prior."""
    tried = []
    for pose in poses:
        if task.cancelled():
            raise CancelledError()
        here = center_in_isocenter(pose, task.point_lps_mm)
        found = level.without_unknown(task.moving.beyond(), pose).evaluate(pose, here, derivatives=False)
        tried.append(Candidate(pose, -(found if task.prior is None else task.prior.add(pose, here, found)).rank))
    return distinct(sorted(tried, key=lambda c: -c.score), center_mm, APART_MM, AROUND)


def starts_around(task: Task, level: Level, start: np.ndarray) -> list[Candidate]:
    """The best distinct poses among the start (4x4) moved along the patient's axis and turned, by their cost on a level and the prior."""
    center, axis = center_in_isocenter(start, task.point_lps_mm), start[:3, 2]
    around = itertools.product(rotation_grid(TURN_DEG, TURN_DEG), ALONG_MM)
    return _ranked(task, level, [motion(np.r_[turn, shift * axis], center) @ start for turn, shift in around], center)


def part_search(moving: MovingVolume, whole: np.ndarray, center_lps_mm: np.ndarray) -> tuple[PartOptions | None, PosePrior | None]:
    """(options, prior) with which a bone is searched for around the whole volume's pose (4x4); None for the engine's own."""
    if not isinstance(moving.volume, MrVolume):
        return None, None
    return PART, PosePrior.around(whole, apply(whole, center_lps_mm), rotation_deg=BONE_DEG, translation_mm=BONE_MM)
