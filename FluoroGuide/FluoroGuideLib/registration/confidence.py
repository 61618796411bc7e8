"""How far the answer may be wrong, and a verdict in words.

The usual sigma^2 (J'WJ)^-1 is 5-7 times too small here: residuals are mismatch of models, not noise, and neighbouring
pixels share it.  The block sandwich sums scores over blocks before squaring them, which keeps their correlation, but not
what is wrong with whole pictures.  That shows when the same pictures are looked at in other ways: each view alone, and
through windows of half the width.  Where these looks would move the answer by more than the sandwich allows, the error is
larger in the same proportion; where they agree it is not.  The factors of the three parts were chosen on 58 design cases with two views
(a maximum-likelihood fit, seeds below 1000 and spent ones) and set together so that the 95 % region held the truth in about 95 % of 72
spent cases after the search was improved.  On 200 new ones (4000-4199) it then held 93.5 % of the rigid, but 66 % of the moved and 3 of 8
CBCT: what is said of parts and of narrow fields was set anew on design cases of their own, and is checked by the proof ``calibration_parts``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..geometry.rigid import point_jacobian
from .checks import Evidence
from .findings import Finding, worst_first
from .refine import LEVER_MM, Refined, pose_distance_mm
from .similarity import FixedView, Level

if TYPE_CHECKING:
    from .bodies import BodiesLevel, Poses

BLOCK_PX = 16
LEAST_FACTOR, ALONE_FACTOR, NARROW_FACTOR = 1.0, 0.9, 1.05
"""Factors of the sandwich's sigmas: always; per sigma that the views alone disagree; per sigma that narrow windows move the answer."""
PART_FACTOR, PART_SHARE_FACTOR, PART_MM = 5.6, 3.0, 0.1
"""At a bone's own pose (small windows, few blocks): factor of the sandwich's sigmas, how much more where the bone's own shadow is found
weaker or stronger than all around it (its share's logarithm: there the volume explains the bone wrongly, its place with it), and a standard
deviation per axis.  On 126 moved cases (seeds 4000-5799, run on designs before) the 95 % region then holds 97 % with a median of 2.3 times the
error.  A factor alone, larger blocks, similarity and how far the bone moved tell less."""
SHARE_RANGE, SHARE_UNKNOWN = (0.2, 2.0), 1.521
"""Shares beyond count as these; the one that is taken where it means nothing (in MR, which does not show bone as X-rays do): 9.0 sigmas."""
FIELD_FACTOR, FIELD_MM = 1.3, 0.25
"""In a narrow field (CBCT) what was cut off is only guessed, in all pictures alike: no look at them shows it.  Its sigmas are larger by the
first, and by a standard deviation per axis; set on 32 design cases (seeds below 1000)."""
SILENT = "nearly all of its rays pass through body that the scan does not hold, or are masked"
"""Why a view says nothing."""
LOST_MM, LOST_FIELD_MM = 18.0, 35.0
"""Standard deviation per axis of a bone's own pose, and of a narrow field's, when nothing of it is recognised: as far as it is looked for."""
BONE_USUAL = 0.75
"""A bone's own shadow is at least so strong at nine of ten right poses, as a part of all around it."""
EXPLAINED_USUAL = 0.03
"""And explains at least so much of each X-ray where it lies."""
STEP_DAMPING = 1e-3
STEP_SCALE = np.array([1 / LEVER_MM] * 3 + [1.0] * 3)
Piece = tuple[FixedView, np.ndarray, np.ndarray]
"""A view, the normalised DRR and its derivative (P, rows, columns)."""


@dataclass(frozen=True, eq=False)
class Looks:
    """The pictures at the answer, linearised once and looked at in several ways.

    Attributes
    ----------
    sandwich
        Block sandwich (6, 6) of (rx, ry, rz in rad, tx, ty, tz in mm), not calibrated; infinite where the equations are singular.
    alone
        Per view: the motion (6,) that it asks for without the others; empty for one view.
    narrow
        The motion (6,) that windows of half the width ask for.
    center_mm
        Centre of all motions, isocentre frame.
    sources_mm
        Per view: its source, isocentre frame.
    """

    sandwich: np.ndarray
    alone: tuple[np.ndarray, ...]
    narrow: np.ndarray
    center_mm: np.ndarray
    sources_mm: tuple[np.ndarray, ...]

    @classmethod
    def at(
        cls, linearised: Callable[[FixedView, FixedView], tuple[Piece, Piece]], views: Sequence[FixedView], cauchy2: float, center_mm: np.ndarray,
    ) -> Looks:
        """Looks at the answer; ``linearised`` gives the :data:`Piece` there of a view and of the same view through narrow windows."""
        both = [[_sums(piece, cauchy2) for piece in linearised(v, _narrowed(v))] for v in views]
        sums, narrow = zip(*both, strict=True)
        hessian, gradient, meat = (sum(x) for x in zip(*sums, strict=True))
        rest = _step(hessian, gradient)  # zero at an optimum, not where a prior holds the pose
        alone = tuple(_step(h, g) - rest for h, g, _ in sums) if len(sums) > 1 else ()
        small = _step(sum(h for h, _, _ in narrow), sum(g for _, g, _ in narrow)) - rest
        return cls(_block_sandwich(hessian, meat), alone, small, np.asarray(center_mm, float), tuple(v.view.source_mm for v in views))

    def disagreement(self, point_mm: np.ndarray) -> tuple[float, float]:
        """How many of the sandwich's sigmas the views alone (each in its plane), and narrow windows, move a point (3,) of the isocentre frame."""
        jacobian = point_jacobian(point_mm, self.center_mm)[0]
        spread = jacobian @ self.sandwich @ jacobian.T
        if not np.isfinite(spread).all():
            return 0.0, 0.0
        narrow = float(np.linalg.norm(jacobian @ self.narrow) / np.sqrt(np.trace(spread) + 1e-12))
        if not self.alone:
            return 0.0, narrow
        moved = allowed = 0.0
        for source, motion in zip(self.sources_mm, self.alone, strict=True):
            ray = (point_mm - source) / np.linalg.norm(point_mm - source)
            across = np.eye(3) - np.outer(ray, ray)
            moved += float(np.sum((across @ jacobian @ motion) ** 2))
            allowed += float(np.trace(across @ spread @ across))
        return float(np.sqrt(moved / (allowed + 1e-12))), narrow

    def covariance(self, point_mm: np.ndarray) -> np.ndarray:
        """Calibrated covariance (6, 6) about ``center_mm``; ``point_mm`` (3,), isocentre frame, is where the looks are compared."""
        alone, narrow = self.disagreement(point_mm)
        return self.sandwich * (LEAST_FACTOR**2 + (ALONE_FACTOR * alone) ** 2 + (NARROW_FACTOR * narrow) ** 2)


def looks_at(level: Level, pose: np.ndarray, center_mm: np.ndarray) -> Looks:
    """Looks at the whole volume's pose at one level.  Costs one projection with derivatives per view."""

    def linearised(wide: FixedView, narrow: FixedView) -> tuple[Piece, Piece]:
        image, jacobian = level.projector.project_with_jacobian(wide.view, pose, center_mm, wide.rays, wide.distances)
        return _normalised(wide, image, jacobian.copy()), _normalised(narrow, image, jacobian)

    return Looks.at(linearised, level.views, level.cauchy2, center_mm)


def _normalised(view: FixedView, image: np.ndarray, jacobian: np.ndarray) -> Piece:
    """A view's piece from a DRR and its derivative, which is overwritten."""
    moving, inverse_std, mean = view.normalize(image)
    view.kernels.local_normalize_jacobian(jacobian, view.mask, view.inverse_count, view.radius, moving, inverse_std, mean)
    return view, *view.fitted(moving, jacobian)


def part_covariance(level: BodiesLevel, poses: Poses, shares: Sequence[float]) -> np.ndarray:
    """Calibrated covariance (6, 6) of a bone's own pose about the level's centre, whatever the surroundings' pose.

    ``poses`` are the bone's and the surroundings'; ``shares`` those of :func:`.checks.bone_shares` there, none where they mean nothing.
    """
    own = level.own()
    shells = own._between(poses)
    sums = [_sums((view, *own._with_jacobian(view, shells)), own.cauchy2) for view in own.views]
    hessian, _, meat = (sum(x) for x in zip(*sums, strict=True))
    off = max(abs(np.log(np.clip(s, *SHARE_RANGE))) for s in (shares or (SHARE_UNKNOWN,)))
    covariance = PART_FACTOR**2 * (1 + (PART_SHARE_FACTOR * off) ** 2) * _block_sandwich(hessian, meat)
    covariance[3:, 3:] += np.eye(3) * PART_MM**2
    return covariance


def in_narrow_field(covariance: np.ndarray) -> np.ndarray:
    """The covariance (6, 6) widened by what a narrow field does not know of its surroundings."""
    wider = covariance * FIELD_FACTOR**2
    wider[3:, 3:] += np.eye(3) * FIELD_MM**2
    return wider


def lost_share(similarity: Sequence[float], bone: Sequence[float], explained: Sequence[float] = (), limits: Limits | None = None) -> float:
    """How little of a bone is recognised at its own pose, 0 (well enough to pass) to 1 (nothing of it).

    ``bone`` and ``explained`` as in :class:`.checks.Evidence`.

    Its error is then not what the pictures' curvature says: it may lie elsewhere.
    """
    limits = limits or Limits()
    share = min(bone, default=1.0)
    missing = float(np.clip(1 - share / BONE_USUAL, 0, 1)) if share < limits.bone_warn else 0.0
    least = min(explained, default=1.0)
    faint = float(np.clip(1 - least / EXPLAINED_USUAL, 0, 1)) if least < limits.explained_warn else 0.0
    return max(_lacking(similarity, limits.part_similarity_warn), missing, faint)


def field_not_recognised(covariance: np.ndarray, explained: float, limits: Limits | None = None) -> np.ndarray:
    """The covariance (6, 6) of a narrow field's pose, widened where it explains little of the X-rays: it may lie elsewhere."""
    wider = covariance.copy()
    wider[3:, 3:] += np.eye(3) * (LOST_FIELD_MM * _lacking((explained,), (limits or Limits()).field_explained_warn)) ** 2
    return wider


def _lacking(similarity: Sequence[float], enough: float) -> float:
    """0 where the worst view is similar enough, 1 where it is not at all."""
    return float(np.clip(1 - min(similarity, default=1.0) / enough, 0, 1))


def _narrowed(view: FixedView) -> FixedView:
    """The view normalised by windows of half the width; the same pixels vote."""
    other = copy.copy(view)
    other.radius = max(2, view.radius // 2)
    other.set_mask(view.mask > 0, (view.weight > 0).astype(np.float32))
    return other


def _sums(piece: Piece, cauchy2: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One view's normal equations (P, P) and (P,), and the sum over blocks of the squares of their scores (P, P)."""
    fixed, moving, jacobian = piece
    residual = moving - fixed.fixed
    weight = fixed.weight / (1 + residual * residual / cauchy2)
    rows = jacobian.astype(float)
    scores = _block_sums(rows * (weight * residual)[None], BLOCK_PX)
    return np.einsum("pij,qij,ij->pq", rows, rows, weight, optimize=True), scores.sum(axis=1), scores @ scores.T


def _step(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Gauss-Newton step (6,) of the pose; what the equations do not determine hardly moves."""
    scale = np.tile(STEP_SCALE, len(gradient) // 6)
    scaled = hessian * np.outer(scale, scale)
    damping = np.diag(np.diag(scaled) + 1e-3 * np.trace(scaled) / len(scaled) + 1e-12)
    return -(np.linalg.solve(scaled + STEP_DAMPING * damping, gradient * scale) * scale)[:6]


def _block_sandwich(bread: np.ndarray, meat: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) before any scale; infinities on the diagonal where the equations are singular."""
    scale = np.sqrt(np.maximum(np.diag(bread), 1e-30))
    normalized = bread / np.outer(scale, scale)
    if not np.isfinite(normalized).all() or np.linalg.cond(normalized) > 1e12:
        return np.diag(np.full(6, np.inf))
    inverse = np.linalg.inv(normalized) / np.outer(scale, scale)
    return (inverse @ meat @ inverse)[:6, :6]


def _block_sums(images: np.ndarray, size: int) -> np.ndarray:
    """Sums over size x size blocks, the last ones smaller: (P, rows, columns) -> (P, blocks)."""
    rows = np.add.reduceat(images, np.arange(0, images.shape[1], size), axis=1)
    return np.add.reduceat(rows, np.arange(0, images.shape[2], size), axis=2).reshape(len(images), -1)


@dataclass(frozen=True)
class Limits:
    """Thresholds of the verdict.

    Attributes
    ----------
    similarity_fail, similarity_warn
        Local correlation of the worst view.
    field_explained_fail, field_explained_warn
        In a narrow field instead of the second: how much of the X-rays it explains where it is known (about half of their shadows is cast
        by what was cut off).  Right poses of 45 design cases explain 0.10 to 0.59, another patient's X-rays 0.03 to 0.13 (what is above the
        limit is told by other checks), a wrong place 0.09.
    field_mirrored, field_mirrored_fail
        The limits of the mirror images there: chance explains more of an X-ray that shows little of the field (right poses: at most 0.14).
    part_similarity_fail, part_similarity_warn
        The same for a bone's own pose, which is compared through small windows (right poses: 0.2 and more, wrong ones about 0 or like right ones).
    bone_warn
        How strongly the bone's own shadow is found in the worst view, against all around it.  Of 151 right poses of design cases two have
        less (15 less than 0.75), of 17 wrong ones 12 (seeds below 1000).
    explained_warn
        How much of the X-ray the bone's own shadow explains where it lies, in the worst view: a wrong place may explain one view well.  Of
        some 130 right poses three have less (two of them unlike in that view anyway), of 7 wrong ones all (design seeds, and 5512-5799, spent).
    rival_cost, rival_unexplained
        A distinct pose whose cost is within this factor of the best is a rival; for a bone's own pose, what its shadow leaves unexplained.
    rival_apart_mm
        What counts as distinct.
    error_warn_mm, error_fail_mm
        Predicted 95 % error at a target (in-plane for a single view).
    coverage_warn
        Part of the X-ray's mask that the volume explains.
    mirrored, mirrored_fail
        A mirror image whose similarity, on its own, exceeds the X-ray's by the second says that left and right are exchanged; by less it
        may be chance (two views of which none fits), and is doubted.
    alone_warn_mm, alone_fail_mm
        How far views may pull the target apart, each on its own, in its plane.
    torn_mm, torn_gain
        The same where every view fits better without the other, by more than the second.  A view that shows little may pull far, and
        the other then fits as well as on its own; a wrong angle tears all of them off where they would be.  On
        design cases the lesser gain of right poses is at most 1.05, of wrong angles that nothing else tells 1.11 and more.
    angle_warn_deg, angle_warn_gain, angle_fail_gain
        Angle between the views beyond what was stated, and the factor by which both fit better with it.  Right poses of design cases gain
        at most 1.02 by more than a degree, wrong angles that nothing else tells 1.14 and more.
    level_fail, level_warn
        Cost of the best pose a vertebra or two away, over that of the pose.
    """

    similarity_fail: float = 0.25
    similarity_warn: float = 0.5
    field_explained_fail: float = 0.06
    field_explained_warn: float = 0.1
    field_mirrored: float = 0.15
    field_mirrored_fail: float = 0.25
    part_similarity_fail: float = 0.2
    part_similarity_warn: float = 0.2
    bone_warn: float = 0.64
    explained_warn: float = 0.025
    mirrored: float = 0.0
    mirrored_fail: float = 0.1
    alone_warn_mm: float = 3.0
    alone_fail_mm: float = 5.0
    torn_mm: float = 1.0
    torn_gain: float = 1.07
    angle_warn_deg: float = 1.5
    angle_warn_gain: float = 1.05
    angle_fail_gain: float = 1.3
    level_fail: float = 1.0
    level_warn: float = 1.03
    rival_cost: float = 1.02
    rival_unexplained: float = 1.01
    rival_apart_mm: float = 3.0
    error_warn_mm: float = 2.0
    error_fail_mm: float = 5.0
    coverage_warn: float = 0.4


def judge(
    best: Refined, rivals: list[Refined], errors_mm: list[float], coverage: float, views: int, center_mm: np.ndarray, limits: Limits | None = None,
    *, seen: Evidence | None = None, names: tuple[str, ...] = (), part: bool = False, silent: Sequence[int] = (),
) -> tuple[Finding, ...]:
    """Findings about an answer, the worst first, from what can be known without the truth.

    Parameters
    ----------
    best, rivals
        The answer and the other refined poses of the last comparison.
    errors_mm
        Predicted errors at the targets (in-plane ones for a single view).
    coverage
        Part of the X-rays' masks that the volume explains.
    views
        Number of views.
    seen, names
        Findings of :mod:`.checks`, and the X-rays' names.
    part
        Whether the pose is a bone's own.
    silent
        Numbers of views in which next to nothing was compared (:attr:`.similarity.FixedView.speaks`): they are not unlike, they say nothing.
    """
    limits = limits or Limits()
    alike = (limits.part_similarity_fail, limits.part_similarity_warn) if part else (limits.similarity_fail, limits.similarity_warn)
    if best.evaluation.nothing > 0:
        limits = replace(limits, mirrored=limits.field_mirrored, mirrored_fail=limits.field_mirrored_fail)
    found = _from_checks(seen, names, limits) if seen is not None else []
    for number in silent:
        name = names[number] if number < len(names) else f"X-ray {number + 1}"
        what = f"{name} says nothing of the pose: {SILENT}"
        found.append(Finding("silent view", "fail", f"{what}; register without it, or with a scan that reaches farther."))
    worst = min((s for n, s in enumerate(best.evaluation.similarity) if n not in silent), default=1.0 if silent else 0.0)
    share = best.evaluation.explained_there
    if share < limits.field_explained_warn:
        level = "fail" if min(share / limits.field_explained_fail, worst / alike[0]) < 1 else "warn"
        sentence = f"The volume explains only {100 * max(0.0, share):.0f} % of what the X-rays show there: is it the right one, and the right place?"
        found.append(Finding("similarity", level, sentence))
    elif worst < alike[0]:
        sentence = f"The X-ray and the volume do not look alike (similarity {worst:.2f}): wrong volume, level, side or geometry?"
        found.append(Finding("similarity", "fail", sentence))
    elif worst < alike[1] and np.isnan(share):
        found.append(Finding("similarity", "warn", f"The X-ray and the volume look only partly alike (similarity {worst:.2f})."))
    near = limits.rival_unexplained if part else limits.rival_cost
    for rival in rivals:
        apart = pose_distance_mm(best.pose, rival.pose, center_mm)
        if apart > limits.rival_apart_mm and rival.evaluation.worse(best.evaluation) < near:
            found.append(Finding("rival", "warn", f"Another pose, {apart:.0f} mm away, fits almost as well."))
            break
    error = max(errors_mm, default=0.0)
    if not np.isfinite(error) or error > limits.error_fail_mm:
        found.append(Finding("error", "fail", "The images do not determine the position of the target well enough."))
    elif error > limits.error_warn_mm:
        found.append(Finding("error", "warn", f"The predicted error at the target is {error:.1f} mm."))
    if coverage < limits.coverage_warn:
        found.append(Finding("coverage", "warn", f"Only {100 * coverage:.0f} % of the X-ray is covered by the volume."))
    if views == 1:
        found.append(Finding("in-plane", "note", "in-plane only"))
    return worst_first(found)


def _from_checks(seen: Evidence, names: tuple[str, ...], limits: Limits) -> list[Finding]:
    """What the checks say."""
    found = []
    for name, straight, mirrored in zip(names, seen.straight, seen.mirrored, strict=True):
        if mirrored > straight + limits.mirrored:
            level = "fail" if mirrored > straight + limits.mirrored_fail else "warn"
            found.append(Finding("mirrored", level, f"{name} fits the volume better as its mirror image: are left and right exchanged?"))
    apart, gain = max(seen.alone_mm, default=0.0), min(seen.alone_gain, default=0.0)
    if apart > limits.alone_warn_mm or (apart > limits.torn_mm and gain > limits.torn_gain):
        sentence = f"The views contradict each other by {apart:.1f} mm: are the C-arm's angles right, did the patient move?"
        found.append(Finding("views apart", "fail" if apart > limits.alone_fail_mm else "warn", sentence))
    if seen.angle_deg > limits.angle_warn_deg and seen.angle_gain > limits.angle_warn_gain:
        sentence = f"The X-rays fit better if the angle between them is {seen.angle_deg:.0f} degrees off what is stated: was a C-arm angle misread?"
        found.append(Finding("C-arm", "fail" if seen.angle_gain > limits.angle_fail_gain else "warn", sentence))
    if seen.level_ratio < limits.level_warn:
        sentence = f"A pose {seen.level_mm:.0f} mm along the spine fits as well: is it the right vertebra?"
        found.append(Finding("level", "fail" if seen.level_ratio < limits.level_fail else "warn", sentence))
    share = min(seen.bone, default=1.0)
    if share < limits.bone_warn:
        sentence = f"The bone's own shadow is only {100 * max(0.0, share):.0f} % as strong in the X-ray as all around it: it may lie elsewhere."
        found.append(Finding("bone", "warn", sentence))
    elif min(seen.bone_explained, default=1.0) < limits.explained_warn:
        share = 100 * min(seen.bone_explained)
        found.append(Finding("bone", "warn", f"The bone's own shadow explains only {share:.0f} % of an X-ray where it lies: it may lie elsewhere."))
    return found
