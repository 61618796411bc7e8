"""What can be known about a pose without the truth: each view on its own, its mirror image, and the poses one vertebra up and down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..geometry.rigid import apply, difference, motion
from ..imaging.xray import XrayImage
from .refine import Refined, refine
from .similarity import Level
from .volume import MovingVolume

if TYPE_CHECKING:
    from .bodies import BodiesLevel, Poses

CHECK_MM, CHECK_RADIUS = 3.0, 5
"""Level at which poses are compared: fine enough to tell a vertebra from the next, coarse enough to be quick."""
COARSE_MM, COARSE_RADIUS = 6.0, 4
LEVEL_REACH_MM, LEVEL_STEP_MM, LEVEL_LEAST_MM = 52.0, 4.0, 14.0
"""Shifts along the patient's long axis that are tried; vertebrae lie 15 (cervical) to 45 mm (lumbar) apart."""


@dataclass(frozen=True)
class Evidence:
    """Findings about a pose.

    Attributes
    ----------
    straight, mirrored
        Per view, on its own: similarity refined from the pose, and of its mirror image at its best pose; times the root of the part of
        the X-ray that the volume explains there, so that few pixels that fit well do not beat many.
    alone_mm
        Per view: how far the target moves in the view's plane when that view is refined without the other (empty for one view).
    alone_gain
        Per view: its cost at the pose over that when it is refined without the other (empty for one view).
    alone_turn_deg
        Per view: how far it turns the volume when it is refined without the other (empty for one view).
    angle_deg, angle_gain
        How far the views turn against each other when their angles are free, and how much lower the cost is then (:mod:`.angles`); 0 and 1
        where there was no reason to ask.
    level_ratio, level_mm
        Cost of the best pose one or two vertebrae away over that of the pose (below 1: the other fits better), and its distance.
    bone
        For a bone's own pose, per view: how strongly its own shadow is found there, as a part of how strongly all around it is.
    bone_explained
        For a bone's own pose, per view: how much of the X-ray its own shadow explains beyond all else where it lies, 0..1.
    """

    straight: tuple[float, ...] = ()
    mirrored: tuple[float, ...] = ()
    alone_mm: tuple[float, ...] = ()
    alone_gain: tuple[float, ...] = ()
    alone_turn_deg: tuple[float, ...] = ()
    level_ratio: float = np.inf
    level_mm: float = 0.0
    bone: tuple[float, ...] = ()
    bone_explained: tuple[float, ...] = ()
    angle_deg: float = 0.0
    angle_gain: float = 1.0


def evidence(
    moving: MovingVolume, images: Sequence[XrayImage], pose: np.ndarray, point_lps_mm: np.ndarray,
    mirrored_starts: Sequence[Sequence[np.ndarray]] = (), cancelled: Callable[[], bool] | None = None,
) -> Evidence:
    """Look at a pose of the whole volume from other sides.

    Parameters
    ----------
    mirrored_starts
        Per view: poses from which its mirror image is refined (the search's best); none for no such test.
    """
    center = apply(pose, point_lps_mm)
    beyond = moving.beyond()

    prepared: dict[tuple[int, float], tuple[XrayImage, Level]] = {}  # the image is kept so that its id stays its own

    def level_of(some: Sequence[XrayImage], millimetres: float, radius: int, at: np.ndarray) -> Level:
        for image in some:
            if (id(image), millimetres) not in prepared:
                made = Level(moving.projector(millimetres), [image], center, millimetres, radius, partial=moving.shows_a_part)
                prepared[id(image), millimetres] = image, made
        singles = [prepared[id(image), millimetres][1] for image in some]
        level = singles[0].with_views([view for single in singles for view in single.views])
        return level.without_unknown(beyond, at)

    def refined(some: Sequence[XrayImage], start: np.ndarray, coarse: int, fine: int) -> Refined:
        if coarse:
            start = refine(level_of(some, COARSE_MM, COARSE_RADIUS, start), start, center, coarse, cancelled=cancelled).pose
        return refine(level_of(some, CHECK_MM, CHECK_RADIUS, start), start, center, fine, cancelled=cancelled)

    def explained(image: XrayImage, at: np.ndarray) -> float:
        """Similarity at a pose times the root of the part of the X-ray that is compared there."""
        level = level_of([image], CHECK_MM, CHECK_RADIUS, at)
        votes = float(level.views[0].weight.sum())
        return level.evaluate(at, center, derivatives=False).similarity[0] * np.sqrt(votes / max(1.0, votes + level.views[0].lost_votes))

    straight, alone, gain, turned, mirrored = [], [], [], [], []
    for number, image in enumerate(images):
        level = level_of([image], CHECK_MM, CHECK_RADIUS, pose)
        own = refine(level, pose, center, 4, cancelled=cancelled)
        straight.append(explained(image, own.pose))
        if len(images) > 1:
            gain.append(float(level.evaluate(pose, center, derivatives=False).cost / own.evaluation.cost) if own.evaluation.cost > 0 else 1.0)
            ray = center - image.view.source_mm
            ray /= np.linalg.norm(ray)
            gap = apply(own.pose, point_lps_mm) - center
            alone.append(float(np.linalg.norm(gap - ray * (gap @ ray))))
            turned.append(float(np.degrees(np.linalg.norm(difference(pose, own.pose, center)[:3]))))
        flipped = dataclasses.replace(image, pixels=image.pixels[:, ::-1], mask=image.mask[:, ::-1])
        starts = mirrored_starts[number] if number < len(mirrored_starts) else ()
        mirrored.append(max((explained(flipped, refined([flipped], s, 6, 5).pose) for s in starts), default=-1.0))
    ratio, distance = _other_levels(level_of, refined, images, pose, center)
    return Evidence(tuple(straight), tuple(mirrored), tuple(alone), tuple(gain), tuple(turned), ratio, distance)


def _other_levels(level_of: Callable, refined: Callable, images: Sequence[XrayImage], pose: np.ndarray, center: np.ndarray) -> tuple[float, float]:
    """Cost ratio and distance of the best pose one or two vertebrae up or down."""
    axis = pose[:3, 2]  # the patient's long axis in the isocentre frame
    steps = np.arange(LEVEL_LEAST_MM, LEVEL_REACH_MM + 1e-6, LEVEL_STEP_MM)
    here, best = refined(images, pose, 0, 2).evaluation, (np.inf, 0.0)
    for sign in (-1.0, 1.0):
        poses = [motion(np.r_[0, 0, 0, sign * s * axis], center) @ pose for s in steps]
        costs = [level_of(images, COARSE_MM, COARSE_RADIUS, p).evaluate(p, center, derivatives=False).rank for p in poses]
        found = refined(images, poses[int(np.argmin(costs))], 5, 5)
        gone = float(np.linalg.norm((found.pose @ np.linalg.inv(pose) @ np.r_[center, 1.0])[:3] - center))
        if gone > 0.6 * LEVEL_LEAST_MM:  # else it came back
            best = min(best, (found.evaluation.worse(here), gone))
    return best


def bone_shares(level: BodiesLevel, poses: Poses) -> tuple[float, ...]:
    """Per view: how strongly the bone's own shadow is found at its pose, as a part of how strongly everything around it is.

    The X-ray is explained by a sum of the bone's shadow and of all the rest, both seen through the level's windows, each with a factor of
    its own (least squares).  Where the bone is elsewhere its factor falls below the rest's, although the picture as a whole fits.
    """
    own = level.own()
    shells = own._between(poses)
    shares = []
    for view in own.views:
        pictures = [p.project(view.view, pose, view.rays, view.distances) for p, pose in zip(own.projectors, shells, strict=True)]
        total, inverse_std, _ = view.normalize(np.sum(pictures, axis=0))
        mean = np.empty_like(total)
        own.kernels.box_sum(np.ascontiguousarray(pictures[0] * view.mask), view.radius, mean)
        bone = (pictures[0] - mean * view.inverse_count) * inverse_std * view.mask
        columns = np.stack([bone, total - bone, view.mask], -1).reshape(-1, 3).astype(float)
        weighted = columns * view.weight.reshape(-1, 1)
        factors = np.linalg.solve(weighted.T @ columns + 1e-9 * np.eye(3), weighted.T @ view.fixed.ravel().astype(float))
        shares.append(float(factors[0] / max(factors[1], 1e-3)))
    return tuple(shares)
