"""The picture that the X-ray should show at a pose, and its edges: for looking at, not for registering."""

from __future__ import annotations

import numpy as np

from ..geometry.carm import CArmView

EDGE_SHARE = 0.94
"""Part of the gradients below which a DRR has no edge worth drawing."""


def edges(drr: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Bool (rows, columns): the strong edges of a DRR, one pixel wide."""
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(np.asarray(drr, np.float32))
    inside = np.ones(drr.shape, bool) if mask is None else mask
    gradient = sitk.GetArrayFromImage(sitk.GradientMagnitudeRecursiveGaussian(picture, 1.5))
    strong = float(np.quantile(gradient[inside], EDGE_SHARE)) if inside.any() else 0.0
    if strong <= 0:
        return np.zeros(drr.shape, bool)
    return (sitk.GetArrayFromImage(sitk.CannyEdgeDetection(picture, 0.4 * strong, strong, [2.0, 2.0])) > 0) & inside


def smaller(view: CArmView, longest_px: int) -> CArmView:
    """The same detector with at most so many pixels on its longer side."""
    factor = max(1.0, max(view.rows, view.columns) / longest_px)
    return view if factor == 1.0 else view.resampled(max(8, round(view.rows / factor)), max(8, round(view.columns / factor)))
