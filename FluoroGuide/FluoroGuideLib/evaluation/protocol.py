"""Measures of registration error, and starts at a stated distance from the truth (van de Kraats et al., IEEE TMI 24:1177, 2005)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, perturb


def mtre(pose: np.ndarray, truth: np.ndarray, points_lps_mm: np.ndarray) -> float:
    """Mean target registration error in mm: mean distance of volume points (N, 3) under two poses."""
    points = np.atleast_2d(points_lps_mm)
    return float(np.linalg.norm(apply(pose, points) - apply(truth, points), axis=1).mean())


def mrpd(pose: np.ndarray, truth: np.ndarray, points_lps_mm: np.ndarray, views: CArmView | Sequence[CArmView]) -> float:
    """Mean reprojection distance in mm: how far points (N, 3) under ``pose`` lie from the rays through their true images.

    The distance at the point, not on the detector: blind to the depth error of a single view.  Mean over points and views.
    """
    views = [views] if isinstance(views, CArmView) else list(views)
    found, true = apply(pose, np.atleast_2d(points_lps_mm)), apply(truth, np.atleast_2d(points_lps_mm))
    distances = []
    for view in views:
        ray = true - view.source_mm
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        distances.append(np.linalg.norm(np.cross(found - view.source_mm, ray), axis=1))
    return float(np.mean(distances))


def mtre_projected(pose: np.ndarray, truth: np.ndarray, points_lps_mm: np.ndarray, view: CArmView) -> float:
    """Mean length in mm of the 3-D error's component parallel to the detector (mTREproj)."""
    points = np.atleast_2d(points_lps_mm)
    error = apply(pose, points) - apply(truth, points)
    return float(np.linalg.norm(error - np.outer(error @ view.beam, view.beam), axis=1).mean())


def perturbed_start(
    truth: np.ndarray, center_mm: np.ndarray, rng: np.random.Generator, *, mtre_mm: float | None = None, points_lps_mm: np.ndarray | None = None,
    rotation_deg: float | None = None, max_rotation_deg: float = 20.0,
) -> np.ndarray:
    """A pose at a stated distance from the truth, random in direction.

    Parameters
    ----------
    center_mm
        Centre (3,) of the rotation, isocentre frame.
    mtre_mm, points_lps_mm
        The start's mTRE over volume points (N, 3), met exactly; without points, the distance the centre itself moves.
    rotation_deg
        Angle of the rotation about a random axis.  Not given: uniform up to ``max_rotation_deg``, as far as ``mtre_mm`` allows.

    Raises
    ------
    FluoroGuideError
        The rotation alone already moves the points further than ``mtre_mm``.
    """
    axis, direction = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    angle = rng.uniform(0, max_rotation_deg) if rotation_deg is None else rotation_deg

    def pose_of(degrees: float, length: float) -> np.ndarray:
        return perturb(truth, np.r_[np.radians(degrees) * axis, length * direction], center_mm)

    if mtre_mm is None:
        return pose_of(angle, 0.0)
    if points_lps_mm is None:
        return pose_of(angle, mtre_mm)
    while mtre(pose_of(angle, 0.0), truth, points_lps_mm) > mtre_mm:
        if rotation_deg is not None:
            value = f"{rotation_deg} degrees, {mtre_mm} mm"
            raise FluoroGuideError("The rotation alone moves the points further than asked", value, "Use a smaller rotation")
        angle *= 0.7
    low, high = 0.0, mtre_mm + mtre(pose_of(angle, 0.0), truth, points_lps_mm)
    for _ in range(60):  # bisection: mTRE at 0 is below, at the upper end above what is asked
        middle = (low + high) / 2
        low, high = (middle, high) if mtre(pose_of(angle, middle), truth, points_lps_mm) < mtre_mm else (low, middle)
    return pose_of(angle, (low + high) / 2)
