"""How far the answer may be wrong, and a verdict in words.

The usual sigma^2 (J'WJ)^-1 is 5-7 times too small here: residuals are mismatch of models, not noise, and neighbouring
pixels share it.  The block sandwich sums scores over blocks before squaring them, which keeps their correlation; on
independent simulated cases it was still 2.5-3 times too small (REGISTRATION, 'Covariance'), so it is scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .checks import Evidence
from .refine import Refined, pose_distance_mm
from .similarity import FixedView, Level

BLOCK_PX = 16
SANDWICH_SCALE = 3.0
"""Measured ratio of actual to predicted error of the block sandwich, rigid anatomy (preliminary; see Docs/accuracy.md)."""


def pose_covariance(level: Level, pose: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) of (rx, ry, rz in rad, tx, ty, tz in mm) at the optimum: scaled block sandwich.

    Returns infinities on the diagonal when the equations are singular (a pose the images do not determine).
    """
    return sandwich([(fixed, *level.normalized_with_jacobian(fixed, pose, center_mm)) for fixed in level.views], level.cauchy2)


def sandwich(pieces: list[tuple[FixedView, np.ndarray, np.ndarray]], cauchy2: float) -> np.ndarray:
    """Scaled block-sandwich covariance (6, 6) of the first six parameters; the others are marginalised.

    Parameters
    ----------
    pieces
        Per view: the fixed view, the normalised DRR and its derivative (P, rows, columns).
    cauchy2
        Square of the Cauchy scale.
    """
    count = pieces[0][2].shape[0]
    bread, meat = np.zeros((count, count)), np.zeros((count, count))
    for fixed, moving, jacobian in pieces:
        residual = moving - fixed.fixed
        weight = fixed.weight / (1 + residual * residual / cauchy2)
        rows = jacobian.astype(float)
        bread += np.einsum("pij,qij,ij->pq", rows, rows, weight, optimize=True)
        scores = _block_sums(rows * (weight * residual)[None], BLOCK_PX)
        meat += scores @ scores.T
    scale = np.sqrt(np.maximum(np.diag(bread), 1e-30))
    normalized = bread / np.outer(scale, scale)
    if not np.isfinite(normalized).all() or np.linalg.cond(normalized) > 1e12:
        return np.diag(np.full(6, np.inf))
    inverse = np.linalg.inv(normalized) / np.outer(scale, scale)
    return SANDWICH_SCALE**2 * (inverse @ meat @ inverse)[:6, :6]


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
    rival_cost
        A distinct pose whose cost is within this factor of the best is a rival.
    rival_apart_mm
        What counts as distinct.
    error_warn_mm, error_fail_mm
        Predicted 95 % error at a target (in-plane for a single view).
    coverage_warn
        Part of the X-ray's mask that the volume explains.
    mirrored
        A mirror image whose similarity, on its own, exceeds the X-ray's by this says that left and right are exchanged.
    alone_warn_mm, alone_fail_mm
        How far views may pull the target apart, each on its own, in its plane.
    level_fail, level_warn
        Cost of the best pose a vertebra or two away, over that of the pose.
    """

    similarity_fail: float = 0.25
    similarity_warn: float = 0.45
    mirrored: float = 0.0
    alone_warn_mm: float = 2.0
    alone_fail_mm: float = 5.0
    level_fail: float = 1.0
    level_warn: float = 1.03
    rival_cost: float = 1.02
    rival_apart_mm: float = 3.0
    error_warn_mm: float = 2.0
    error_fail_mm: float = 5.0
    coverage_warn: float = 0.4


def judge(
    best: Refined, rivals: list[Refined], errors_mm: list[float], coverage: float, views: int, center_mm: np.ndarray, limits: Limits | None = None,
    *, seen: Evidence | None = None, names: tuple[str, ...] = (),
) -> tuple[str, tuple[str, ...]]:
    """Verdict ``pass``/``warn``/``fail`` and its reasons, from what can be known without the truth.

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
    """
    limits = limits or Limits()
    fails, warns = _from_checks(seen, names, limits) if seen is not None else ([], [])
    worst = min(best.evaluation.similarity, default=0.0)
    if worst < limits.similarity_fail:
        fails.append(f"The X-ray and the volume do not look alike (similarity {worst:.2f}): wrong volume, level, side or geometry?")
    elif worst < limits.similarity_warn:
        warns.append(f"The X-ray and the volume look only partly alike (similarity {worst:.2f}).")
    for rival in rivals:
        apart = pose_distance_mm(best.pose, rival.pose, center_mm)
        if apart > limits.rival_apart_mm and rival.evaluation.rank < limits.rival_cost * best.evaluation.rank:
            warns.append(f"Another pose, {apart:.0f} mm away, fits almost as well.")
            break
    error = max(errors_mm, default=0.0)
    if not np.isfinite(error) or error > limits.error_fail_mm:
        fails.append("The images do not determine the position of the target well enough.")
    elif error > limits.error_warn_mm:
        warns.append(f"The predicted error at the target is {error:.1f} mm.")
    if coverage < limits.coverage_warn:
        warns.append(f"Only {100 * coverage:.0f} % of the X-ray is covered by the volume.")
    notes = ["in-plane only"] if views == 1 else []
    verdict = "fail" if fails else "warn" if warns else "pass"
    return verdict, tuple(fails + warns + notes)


def _from_checks(seen: Evidence, names: tuple[str, ...], limits: Limits) -> tuple[list[str], list[str]]:
    """Sentences that fail, and that warn."""
    fails, warns = [], []
    for name, straight, mirrored in zip(names, seen.straight, seen.mirrored, strict=True):
        if mirrored > straight + limits.mirrored:
            fails.append(f"{name} fits the volume better as its mirror image: are left and right exchanged?")
    apart = max(seen.alone_mm, default=0.0)
    if apart > limits.alone_warn_mm:
        kind = fails if apart > limits.alone_fail_mm else warns
        kind.append(f"The views contradict each other by {apart:.1f} mm: are the C-arm's angles right, did the patient move?")
    if seen.level_ratio < limits.level_warn:
        kind = fails if seen.level_ratio < limits.level_fail else warns
        kind.append(f"A pose {seen.level_mm:.0f} mm along the spine fits as well: is it the right vertebra?")
    return fails, warns
