"""The exposed field of a picture: collimators, shutters and round intensifiers found in the pixels."""

from __future__ import annotations

import numpy as np


def find_field(values: np.ndarray, tolerance: float = 0.06) -> tuple[np.ndarray, bool] | None:
    """The exposed field of a picture and whether the outside is dark; ``None`` when the picture fills its frame.

    The outside is uniform, lies at one end of the values and is joined to the picture's edge, over two corners or a
    whole side.  Fields (round, rectangular, octagonal) are convex, so the convex hull of the rest repairs bites where
    dense anatomy meets the edge.  The rim, where blur and edge enhancement show, is cut by 2 % of the size.

    Parameters
    ----------
    values
        float32 (rows, columns), finite.
    tolerance
        How far the outside may vary, as a share of the range of values.
    """
    from scipy import ndimage

    small, step = reduced(values, 256)
    # Noise outside the field must not decide; edges stay where they are to within the rim that is cut anyway.
    small = ndimage.gaussian_filter(small, 1.0)
    low, high = np.percentile(small, (0.1, 99.9))
    if high <= low:
        return None
    unit = (small - low) / (high - low)
    candidates = []
    for dark in (True, False):
        outside = _border_component(unit if dark else 1 - unit, tolerance)
        if outside is not None and not outside.all():
            inside = _largest(ndimage.binary_opening(~outside, iterations=2))
            distance = ndimage.distance_transform_edt(inside)
            rim = (distance > 3) & (distance <= 5) & ndimage.binary_dilation(outside, iterations=6)
            # Anatomy that fades towards the picture's edge has no step there.
            if not rim.any() or abs(np.median(unit[rim]) - np.median(unit[outside])) < 0.1:
                continue
            corners = int(outside[:: outside.shape[0] - 1, :: outside.shape[1] - 1].sum())
            candidates.append((corners, dark, inside))
    if not candidates:
        return None
    _, dark, inside = max(candidates, key=lambda c: (c[0], c[1]))
    if not 0.05 < inside.mean() < 0.995:
        return None
    return _hull_mask(inside, step, values.shape, max(1.0, 0.02 * max(values.shape))), dark


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    return mask if count < 2 else labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def reduced(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Block means with at most about ``size`` pixels per side, and the block's side."""
    step = max(1, min(values.shape) // size)
    rows, columns = (n // step * step for n in values.shape)
    return values[:rows, :columns].reshape(rows // step, step, columns // step, step).mean((1, 3)), step


def _border_component(unit: np.ndarray, tolerance: float) -> np.ndarray | None:
    """Pixels near the low end joined to the edge, when they hold at least two corners or one whole side."""
    from scipy import ndimage

    ring = np.concatenate([unit[0], unit[-1], unit[:, 0], unit[:, -1]])
    level = np.percentile(ring, 10)
    if level > 0.15:
        return None
    labels, count = ndimage.label(unit <= level + tolerance)
    if not count:
        return None
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.unique(edge[edge > 0]))
    corners = outside[:: outside.shape[0] - 1, :: outside.shape[1] - 1].sum()
    sides = max(side.mean() for side in (outside[0], outside[-1], outside[:, 0], outside[:, -1]))
    return outside if corners >= 2 or sides > 0.95 else None


def _hull_mask(inside: np.ndarray, step: int, shape: tuple[int, int], margin: float) -> np.ndarray:
    """Convex hull of a reduced mask as a mask of the full size, its sides moved inwards by ``margin`` pixels.

    A side that lies on the picture's own edge over 30 % of its length is where the picture cuts the field: it has
    no rim and stays.
    """
    from scipy.spatial import ConvexHull

    points = np.column_stack(np.nonzero(inside)).astype(float)
    corners = np.concatenate([points + d for d in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))])
    corners = (corners + 0.5) * step - 0.5
    for axis in (0, 1):  # the blocks may leave out the last pixels
        corners[corners[:, axis] >= shape[axis] // step * step - 0.75, axis] = shape[axis] - 0.5
    hull = ConvexHull(corners)
    rows = np.arange(shape[0], dtype=float)
    first, last = np.full(shape[0], -np.inf), np.full(shape[0], np.inf)  # columns of the mask in each row
    for (a, b, offset), ends in zip(hull.equations, corners[hull.simplices], strict=True):
        cut_off = any(
            np.abs(ends[:, axis] - edge).max() < 0.1 and np.ptp(ends[:, 1 - axis]) > 0.3 * shape[1 - axis]
            for axis in (0, 1) for edge in (-0.5, shape[axis] - 0.5)
        )
        room = -offset - (0 if cut_off else margin) - a * rows  # b * column <= room
        if b > 1e-9:
            last = np.minimum(last, room / b)
        elif b < -1e-9:
            first = np.maximum(first, room / b)
        else:
            first = np.where(room < 0, np.inf, first)
    columns = np.arange(shape[1])
    return (columns >= first[:, None]) & (columns <= last[:, None])
