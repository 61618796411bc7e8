"""Guidance on single images, in the worker: the needle, and a contrast picture against its mask."""

from __future__ import annotations

from collections.abc import Callable


def find_needle(*, images: list, pose: object, path: object, progress: Callable, cancelled: Callable) -> list:
    """``guidance.needle.find_needle`` in each X-ray (``XrayImage``), near the planned path of a registered volume.

    Parameters
    ----------
    pose, path
        4x4 volume -> isocentre, and the planned ``Trajectory``; None: looked for anywhere.
    """
    import numpy as np

    from ..errors import CancelledError
    from ..geometry.rigid import apply
    from ..guidance.needle import find_needle as run

    found = []
    for number, image in enumerate(images):
        progress(number / len(images), "Looking for the needle")
        if cancelled():
            raise CancelledError()
        planned, at = None, np.zeros(3)
        if pose is not None and path is not None:
            points = apply(pose, np.array([path.entry_lps_mm, path.target_lps_mm]))
            planned, at = image.view.project(points), points[1]
            planned = planned if np.isfinite(planned).all() else None
        found.append(run(image.pixels, image.mask, image.view.mm_per_pixel_at(at), planned_px=planned))
    return found


def subtract(*, pixels: object, mask_frame: object, valid: object, mm_per_px: float, progress: Callable, cancelled: Callable) -> dict:
    """``guidance.subtraction.subtract`` and the outline of what spread: ``difference``, ``area_mm2``, ``outlines`` and ``shift_mm``."""
    import numpy as np

    from ..guidance.subtraction import spread
    from ..guidance.subtraction import subtract as run

    difference, known, found = run(pixels, mask_frame, valid)
    seen = spread(difference, known, mm_per_px)
    return {
        "difference": difference, "area_mm2": seen.area_mm2, "outlines": [np.asarray(o, float) for o in seen.outlines],
        "shift_mm": float(np.hypot(*found.shift_px) * mm_per_px),
    }


TASKS = {"find_needle": find_needle, "subtract": subtract}
