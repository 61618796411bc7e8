"""Local refinement of a pose: Levenberg-Marquardt on one level of the pyramid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import CancelledError
from ..geometry.rigid import inverse, motion
from .similarity import Evaluation, Level

LEVER_MM = 60.0
"""Distance at which a rotation counts as much as a translation, for damping and step lengths (half a vertebra's view)."""
TOLERANCE = 0.015
"""Step at which a refinement on a level of the pyramid stops, as a part of the pixel size."""
_SCALE = np.array([1 / LEVER_MM] * 3 + [1.0] * 3)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Refined:
    """A pose with its evaluation and the number of iterations used."""

    pose: np.ndarray
    evaluation: Evaluation
    iterations: int


def levenberg_marquardt(
    evaluate: Callable[[T], Evaluation], move: Callable[[T, np.ndarray], T], state: T, iterations: int, *, tolerance_mm: float = 0.02,
    cancelled: Callable[[], bool] | None = None, scale: np.ndarray | None = None, settled: float = 0.0,
) -> tuple[T, Evaluation, int]:
    """Minimise a cost over any state whose perturbation is one or more (rx, ry, rz, tx, ty, tz).

    Parameters
    ----------
    evaluate
        State -> :class:`Evaluation` with equations of 6 n parameters (any number when ``scale`` is given).
    move
        State and perturbation (6 n,) in rad and mm -> state.
    state
        Start.
    iterations
        Upper limit of trial steps.
    tolerance_mm
        Stops when the step of the first six parameters (of all, with a ``scale``) is shorter (rotations at 60 mm lever).
    scale
        (P,): what each parameter is multiplied with so that steps of 1 move things by about a millimetre; by default
        P = 6 n and rotations are taken at the lever.
    settled
        Stops when two steps in turn lowered the cost by less than this part of it.
    cancelled
        Asked before each trial step.  An object with a method ``iteration(evaluation)`` is also told where the search stands.

    Returns
    -------
    The state, its evaluation, and the number of trial steps.
    """
    damping, now, used, resting = 1e-2, evaluate(state), 0, 0
    while used < iterations and np.isfinite(now.cost):
        if cancelled is not None and cancelled():
            raise CancelledError()
        used += 1
        getattr(cancelled, "iteration", _ignore)(now)
        scales = np.tile(_SCALE, len(now.gradient) // 6) if scale is None else scale
        step = _step(now, damping, scales)
        candidate = move(state, step * scales)
        then = evaluate(candidate)
        small = np.linalg.norm(step[:6] if scale is None else step) < tolerance_mm
        resting = resting + 1 if then.cost > (1 - settled) * now.cost else 0
        if then.cost < now.cost:
            state, now, damping = candidate, then, max(damping * 0.3, 1e-4)
        else:
            damping *= 8
        if small or damping > 1e2 or (settled > 0 and resting >= 2):
            break
    return state, now, used


def _ignore(_evaluation: Evaluation) -> None:
    """Nobody is told."""


def refine(
    level: Level, pose: np.ndarray, center_mm: np.ndarray, iterations: int = 12, *, tolerance_mm: float = 0.02,
    cancelled: Callable[[], bool] | None = None, prior: object | None = None,
) -> Refined:
    """Levenberg-Marquardt from ``pose``; stops when a step is below ``tolerance_mm`` (rotations at 60 mm lever).

    Parameters
    ----------
    level
        Level of the pyramid.
    pose
        Start, 4x4 volume LPS -> isocentre LPS.
    center_mm
        Centre of rotation in the isocentre frame; near the target, so that rotation and translation decouple.
    iterations
        Upper limit; each costs one projection with derivatives per view.
    prior
        Optional object with ``add(pose, center, evaluation) -> Evaluation`` that adds a pose prior.

    Raises
    ------
    CancelledError
        ``cancelled()`` returned True; it is asked before each iteration.
    """

    def evaluate(candidate: np.ndarray) -> Evaluation:
        result = level.evaluate(candidate, center_mm)
        return prior.add(candidate, center_mm, result) if prior is not None else result

    def move(candidate: np.ndarray, xi: np.ndarray) -> np.ndarray:
        return motion(xi, center_mm) @ candidate

    return Refined(*levenberg_marquardt(evaluate, move, pose, iterations, tolerance_mm=tolerance_mm, cancelled=cancelled))


def _step(now: Evaluation, damping: float, to_xi: np.ndarray) -> np.ndarray:
    """Damped Gauss-Newton step in mm (rotations at the lever)."""
    hessian, gradient = now.hessian * np.outer(to_xi, to_xi), now.gradient * to_xi
    scale = np.diag(np.diag(hessian) + 1e-3 * np.trace(hessian) / len(hessian) + 1e-12)
    return -np.linalg.solve(hessian + damping * scale, gradient)


def pose_distance_mm(a: np.ndarray, b: np.ndarray, center_mm: np.ndarray) -> float:
    """How far two poses are apart: rotation at the 60 mm lever plus the motion of ``center_mm`` (isocentre frame)."""
    delta = a @ inverse(b)
    angle = np.arccos(np.clip((np.trace(delta[:3, :3]) - 1) / 2, -1, 1))
    return float(angle * LEVER_MM + np.linalg.norm(delta[:3, :3] @ center_mm + delta[:3, 3] - center_mm))


def distinct(candidates: list, center_mm: np.ndarray, apart_mm: float, keep: int) -> list:
    """The first ``keep`` of ``candidates`` (best first; each with ``.pose``) that are ``apart_mm`` or more from each other."""
    kept: list = []
    for candidate in candidates:
        if all(pose_distance_mm(candidate.pose, k.pose, center_mm) >= apart_mm for k in kept):
            kept.append(candidate)
        if len(kept) == keep:
            break
    return kept
