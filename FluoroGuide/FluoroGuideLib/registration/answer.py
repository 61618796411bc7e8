"""From the best pose to the answer: its error, its verdict, and what the bone at the target says of the whole volume's pose."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ..geometry.rigid import apply, recentered
from .angles import ASKED_DEG, angle_off
from .checks import bone_shares, evidence
from .confidence import LOST_MM, Limits, field_not_recognised, in_narrow_field, judge, looks_at, lost_share, part_covariance
from .findings import Finding, told, worst_first
from .mr_search import bone_is_seen, part_search
from .parts import Part, register_part
from .refine import Refined
from .result import Registration
from .search import center_in_isocenter
from .similarity import Level

if TYPE_CHECKING:
    from .register import _Task as Task

MOVED_MM = 2.0
"""A bone that lies farther than this from where the whole volume's pose puts it has moved against its surroundings."""
STRETCH_SHARE = 0.01
"""Standard deviation per axis that stretched tissue adds to a bone's position, as a part of its motion against its surroundings.

The bone is rigid, what lies between it and its surroundings is not, and the shells only approximate how it gives way.  Little of it: on
design cases with 3 to 15 mm of motion the pictures' own curvature tells most of it.
"""
FAR_MM = 5.0
"""A whole volume's pose is not to be used when the bone at the target differs by more."""


def whole_answer(task: Task, best: Refined, others: list[Refined], level: Level, targets: dict[str, np.ndarray] | None) -> dict:
    """Covariance, verdict and the rest of the result."""
    task.progress(0.95, "estimating the error")
    center = center_in_isocenter(best.pose, task.point_lps_mm)
    masked = level.without_unknown(task.moving.beyond(), best.pose)
    covariance = _widened(task, looks_at(masked, best.pose, center).covariance(center), center)
    if task.moving.shows_a_part:
        covariance = field_not_recognised(covariance, best.evaluation.explained_there)
    silent = tuple(n for n, view in enumerate(masked.views) if not view.speaks)
    return _judged(task, best, others, covariance, center, masked.coverage(level), targets, best.pose, silent=silent)


def checked_answer(
    task: Task, bone: Part, whole: Refined, others: list[Refined], level: Level, targets: dict[str, np.ndarray],
) -> dict:
    """The whole volume's pose, not passed when the bone at the targets says otherwise."""
    result = whole_answer(task, whole, others, level, targets)
    task.progress(0.97, f"checking the {bone.name}")
    found = register_part(bone, task.images, whole.pose, threads=task.options.threads, cancelled=task.cancelled)
    if found is None:
        return result
    moved = _largest_difference(found.best.pose, whole.pose, targets)
    result["facts"] = {**result["facts"], "moved_against_surroundings_mm": moved}
    if moved > MOVED_MM and len(task.images) > 1:
        sentence = f"The {bone.name} fits {moved:.1f} mm away from this pose: it moved against its surroundings; register it on its own."
        result |= told((Finding("moved", "fail" if moved > FAR_MM else "warn", sentence), *result["findings"]))
        covariance = result["covariance"].copy()  # the bone is where it is seen, not where this pose puts it
        for point in targets.values():
            gap = apply(found.best.pose, point) - apply(whole.pose, point)
            covariance[3:, 3:] += np.outer(gap, gap) / len(targets)
        result["covariance"] = covariance
    return result


def _largest_difference(a: np.ndarray, b: np.ndarray, points: dict[str, np.ndarray]) -> float:
    return max(float(np.linalg.norm(apply(a, p) - apply(b, p))) for p in points.values())


def part_answer(task: Task, bone: Part, whole: Refined, level: Level, targets: dict[str, np.ndarray] | None) -> dict:
    """The bone's own pose; the whole volume's where the bone is in no picture, which is then said."""
    task.progress(0.9, f"registering {bone.name} on its own")
    options, prior = part_search(task.moving, whole.pose, bone.center_lps_mm)
    found = register_part(bone, task.images, whole.pose, options, threads=task.options.threads, cancelled=task.cancelled, prior=prior)
    if found is None:
        task.note("whole", f"The {bone.name} is not in the pictures: this is the pose of the whole volume.")
        return whole_answer(task, whole, [], level, targets)
    if not bone_is_seen(task.moving, found.best.evaluation.similarity):
        result = whole_answer(task, whole, [], level, targets)
        return {**result, "facts": {**result["facts"], "part_not_seen": min(found.best.evaluation.similarity)}}
    points = targets or {"centre": task.point_lps_mm}
    moved = _largest_difference(found.best.pose, whole.pose, points)
    if moved > MOVED_MM:
        task.note("moved", (
            f"The {bone.name} lies {moved:.1f} mm from where the whole volume's pose puts it: it moved against its surroundings, "
            "whose overlay is not valid."
        ))
    task.history.append({"stage": "part", "cost": found.best.evaluation.cost, "similarity": list(found.best.evaluation.similarity)})
    coverage = level.without_unknown(task.moving.beyond(), whole.pose).coverage(level)
    shares = bone_shares(found.level, (found.best.pose, found.surroundings))
    covariance = part_covariance(found.level, (found.best.pose, found.surroundings), shares if task.moving.shows_bone else ())
    near = _largest_difference(found.best.pose, found.surroundings, points)
    lost = lost_share(found.best.evaluation.similarity, shares, found.explained) if task.moving.shows_bone else 0.0
    covariance[3:, 3:] += np.eye(3) * ((STRETCH_SHARE * near) ** 2 + (LOST_MM * lost) ** 2)
    covariance = _widened(task, covariance, found.center_mm)
    result = _judged(task, found.best, found.rivals, covariance, found.center_mm, coverage, targets, whole.pose, (shares, found.explained))
    facts = {"moved_near_mm": near, "part": bone.name, "whole_pose_matrix": whole.pose.tolist(), "moved_against_surroundings_mm": moved}
    return {**result, "facts": {**result["facts"], **facts}}


def _widened(task: Task, covariance: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """The covariance with what a narrow field and the C-arm's geometry leave open."""
    covariance = in_narrow_field(covariance) if task.moving.cut_at_the_sides else covariance
    if task.carm is None:
        return covariance
    return covariance + recentered(task.carm.pose_covariance(), task.carm.center_mm, center_mm)


def _judged(
    task: Task, best: Refined, others: list[Refined], covariance: np.ndarray, center: np.ndarray, coverage: float,
    targets: dict[str, np.ndarray] | None, whole: np.ndarray, bone: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    silent: tuple[int, ...] = (),
) -> dict:
    """The verdict and what goes into the result.

    ``whole`` is the whole volume's pose, which the checks of level and side look at; ``bone``: the shares of a bone's own shadow, and what
    it explains; ``silent``: numbers of views that say nothing.
    """
    views = tuple(image.view for image in task.images)
    draft = {
        "pose": best.pose, "similarity": best.evaluation.similarity, "covariance": covariance, "center_mm": center, "views": views,
        "carm": task.carm,
    }
    points = targets or {"centre": task.point_lps_mm}
    errors = Registration(verdict="warn", reasons=(), **draft).target_error(points) if np.isfinite(covariance).all() else []
    # a C-arm that is not known well enough leaves every view for itself: no depth is claimed then
    flat = len(views) == 1 or (task.carm is not None and any(e.predicted_error_mm > Limits().error_fail_mm for e in errors))
    widths = [max(e.in_plane_mm) if flat else e.predicted_error_mm for e in errors] or [np.inf]
    seen = evidence(task.moving, task.images, whole, task.point_lps_mm, task.mirrored_starts, task.cancelled) if task.options.checks else None
    if seen is not None and bone is None and task.moving.shows_bone and max(seen.alone_turn_deg, default=0.0) > ASKED_DEG:
        degrees, gain = angle_off(task.moving, task.images, whole, task.point_lps_mm, task.cancelled)
        seen = dataclasses.replace(seen, angle_deg=degrees, angle_gain=gain)
    if seen is not None and bone is not None:  # the views pull the whole volume apart where something moved: that says nothing of the bone
        seen = dataclasses.replace(seen, alone_mm=(), bone=bone[0], bone_explained=bone[1])
    names = tuple(image.source or f"X-ray {n + 1}" for n, image in enumerate(task.images))
    kind = {"part": bone is not None, "silent": silent}
    findings = judge(best, others, widths, coverage, 1 if flat else len(views), center, seen=seen, names=names, **kind)
    findings = worst_first((*findings, *(() if task.carm is None else task.carm.findings())))
    if flat and len(views) > 1:
        sentence = "How the views lie to each other is not known well enough for a position in space: each overlay holds in its own view."
        task.note("C-arm", sentence)
    facts = {"inverted_views": sorted(task.inverted), "in_plane_only": flat, "checks": None if seen is None else dataclasses.asdict(seen)}
    return {**draft, **told((*findings, *task.notes)), "facts": facts}
