"""Following a registered pose in live frames: a warm start, few iterations, one level; then a check that it got better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..geometry.rigid import apply
from ..imaging.xray import XrayImage
from ..registration.refine import refine
from ..registration.similarity import Level
from ..registration.volume import MovingVolume
from .live import LiveSetup

PIXEL_MM, RADIUS, ITERATIONS = 3.0, 5, 4
LIMIT_MM = 15.0
"""A step farther than this is no tracking: the user registers again."""


class Tracker:
    """Re-registers one volume again and again.

    Parameters
    ----------
    volume
        :class:`AttenuationVolume`; for a moving bone among others, that bone's own part (``anatomy.bones.part_volume``).
    """

    def __init__(self, volume: object, target_lps_mm: np.ndarray) -> None:
        self.moving, self.target_lps_mm = MovingVolume(volume), np.asarray(target_lps_mm, float)

    def update(self, setup: LiveSetup, pose: np.ndarray, pixels: np.ndarray, cancelled: Callable[[], bool] | None = None) -> np.ndarray | None:
        """The pose (4x4) that fits a frame better than ``pose``, or None."""
        image = np.asarray(pixels, np.float32)
        image = -image if setup.bone_dark else image
        mask = np.ones(image.shape, bool) if setup.mask is None else setup.mask
        center = apply(pose, self.target_lps_mm)
        level = Level(self.moving.projector(PIXEL_MM), [XrayImage(image, mask, setup.view, "live")], center, PIXEL_MM, RADIUS)
        level = level.without_unknown(self.moving.beyond(), pose)
        before = level.evaluate(pose, center, False)
        found = refine(level, pose, center, ITERATIONS, cancelled=cancelled)
        moved = float(np.linalg.norm(apply(found.pose, self.target_lps_mm) - center))
        better = found.evaluation.cost < before.cost and moved < LIMIT_MM
        return found.pose if better else None
