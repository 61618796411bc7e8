"""Whether the X-rays say that a C-arm angle was read wrongly: they are fitted once more with the angles between the views set free.

A wrong angle is hidden well by a pose between the views: one of them then fits badly, which it also does where it is dark, and turns when it
is fitted without the other, which it also does where it shows little.  Only a wrong angle lets both fit better at once when it is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..geometry.rigid import apply
from ..imaging.xray import XrayImage
from .geometry_error import CArmLevel
from .refine import levenberg_marquardt
from .similarity import Level
from .volume import MovingVolume

ASKED_DEG = 0.5
"""A view that turns the volume by more than this when it is fitted without the others gives reason to ask (most right poses: 0.05 to 0.45)."""
FREE_DEG = 10.0
"""Standard deviation that angles are given: hardly any hold."""
WEIGHT = 1e-4
STEPS = ((6.0, 4, 5), (3.0, 5, 5))
"""Pixels in mm, half-width of the windows in pixels, iterations."""


def angle_off(
    moving: MovingVolume, images: Sequence[XrayImage], pose: np.ndarray, point_lps_mm: np.ndarray, cancelled: Callable[[], bool] | None = None,
) -> tuple[float, float]:
    """How far the views turn against the first one when they may.

    Parameters
    ----------
    pose
        4x4, volume LPS -> isocentre LPS, of the whole volume; two or more ``images``.
    point_lps_mm
        (3,), volume LPS mm, about which the pose turns.

    Returns
    -------
    Degrees (the view that turns farthest), and the cost at the pose over the cost with the angles free: above 1 they explain something.
    """
    center, sigma = apply(pose, point_lps_mm), np.zeros((len(images), 9))
    sigma[1:, :2] = np.radians(FREE_DEG)
    state, gain = (pose, np.zeros(sigma.shape)), 1.0
    for pixel_mm, radius, iterations in STEPS:
        level = Level(moving.projector(pixel_mm), list(images), center, pixel_mm, radius, partial=moving.shows_a_part)
        level = level.without_unknown(moving.beyond(), pose)
        joint = CArmLevel(level, sigma, center, weight=WEIGHT)
        before = joint.evaluate((pose, np.zeros(sigma.shape))).cost
        state, found, _ = levenberg_marquardt(joint.evaluate, joint.move, state, iterations, cancelled=cancelled, scale=joint.scale)
        gain = float(before / found.cost) if 0 < found.cost < np.inf else 1.0
    return float(np.degrees(np.linalg.norm(state[1][:, :2], axis=1).max())), gain
