"""Where needles might be: lines that gather the votes of many ridge pixels.

Ridges at two scales (largest curvature of the Hessian; T. Lindeberg, IJCV 30:117, 1998) vote for lines (R. Duda, P. Hart,
CACM 15:11, 1972) near the planned path if there is one, anywhere otherwise.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from .align2d import shrink
from .needle_strip import Line

PLAN_REACH_MM, PLAN_ANGLE_DEG = 18.0, 15.0
"""How far from its planned path, sideways and in angle, a needle is looked for."""
CANDIDATES = 8


def line_steps(
    pixels: np.ndarray, valid: np.ndarray, mm_per_px: float, planned_px: np.ndarray | None, around: np.ndarray | None = None,
    candidates: int = CANDIDATES,
) -> Generator[None, None, list[Line]]:
    """Lines by votes of ridge pixels, in full-resolution pixels, the strongest first; made in steps of bounded work."""
    factor = 2 if mm_per_px < 0.3 else 1
    low, high = _box(pixels.shape, mm_per_px, planned_px, around)
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    small = shrink(pixels[part], factor)
    inside = shrink(valid[part].astype(np.float32), factor) > 0.99
    yield
    strength, angle = ridges(small, inside)
    yield
    rows, columns = np.nonzero(strength > 0.8)
    weight, angle = strength[rows, columns], angle[rows, columns]
    if planned_px is not None:
        keep = _near_plan(columns, rows, angle, low, factor, planned_px, mm_per_px)
        rows, columns, weight, angle = rows[keep], columns[keep], weight[keep], angle[keep]
    lines = _vote(columns.astype(float), rows.astype(float), weight, angle, small.shape, candidates)
    return [Line(np.asarray(low) + (p + 0.5) * factor - 0.5, d) for p, d in lines]


def _box(shape: tuple[int, int], mm_per_px: float, planned_px: np.ndarray | None, around: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel (column, row) of the part looked at."""
    size = np.array([shape[1], shape[0]])
    if planned_px is not None:
        points, reach = planned_px, (PLAN_REACH_MM + 12) / mm_per_px
    elif around is not None:
        points, reach = np.atleast_2d(around), 40 / mm_per_px
    else:
        return np.zeros(2, int), size
    low = np.clip(np.floor(points.min(0) - reach), 0, size - 64).astype(int)
    high = np.clip(np.ceil(points.max(0) + reach), low + 64, size).astype(int)
    return np.maximum(low, 0), high


def ridges(small: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strength of bright ridges in units of its local spread (capped at 4), and their direction in radians, 0..pi."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    filled = np.where(inside, small, np.median(small[inside]) if inside.any() else 0.0).astype(np.float32)
    strength, xx, xy = (np.zeros_like(filled) for _ in range(3))
    for sigma in (1.0, 1.8):
        rr, cc, rc = (sigma**2 * gaussian_filter(filled, sigma, order) for order in ((2, 0), (0, 2), (1, 1)))
        root = np.sqrt(0.25 * (rr - cc) ** 2 + rc**2)
        here = np.maximum(0, root - 0.5 * (rr + cc) - np.abs(0.5 * (rr + cc) + root))
        strength = np.maximum(strength, here)
        # the larger eigenvalue of [[cc, rc], [rc, rr]] belongs to the direction along the ridge
        xx, xy = xx + here * (cc - rr), xy + here * 2 * rc
    safe = binary_erosion(inside, np.ones((3, 3), bool), iterations=4)
    strength *= safe
    # The direction of one pixel is noise at low dose: neighbours along the ridge agree.  Doubled angles average well.
    angle = 0.5 * np.arctan2(gaussian_filter(xy, 2.0), gaussian_filter(xx, 2.0))
    spread = np.sqrt(gaussian_filter(strength**2 * safe, 24.0) / (gaussian_filter(safe.astype(np.float32), 24.0) + 1e-3)) + 1e-9
    return np.minimum(strength / spread, 4.0), np.mod(angle, np.pi)


def _near_plan(
    columns: np.ndarray, rows: np.ndarray, angle: np.ndarray, low: np.ndarray, factor: int, planned_px: np.ndarray, mm_per_px: float,
) -> np.ndarray:
    along = planned_px[1] - planned_px[0]
    if np.linalg.norm(along) * mm_per_px < 5:  # seen end on: the plan gives a place, no direction
        return np.ones(len(columns), bool)
    along = along / np.linalg.norm(along)
    at = np.column_stack([columns, rows]) * factor + low
    across = np.abs((at - planned_px[0]) @ np.array([-along[1], along[0]])) * mm_per_px
    turn = np.abs(np.mod(angle - np.arctan2(along[1], along[0]) + np.pi / 2, np.pi) - np.pi / 2)
    return (across < PLAN_REACH_MM) & (turn < np.radians(PLAN_ANGLE_DEG + 10))


def _vote(x: np.ndarray, y: np.ndarray, weight: np.ndarray, angle: np.ndarray, shape: tuple[int, int], candidates: int) -> list[tuple]:
    """(point, direction) of the strongest lines: Hough transform where a pixel votes for directions near its own."""
    from scipy.ndimage import gaussian_filter

    lines: list[tuple[np.ndarray, np.ndarray]] = []
    if len(x) < 20:
        return lines
    radius = float(np.hypot(*shape)) / 2
    cx, cy = shape[1] / 2, shape[0] / 2
    bins = 2 * int(radius) + 3
    steps = np.arange(-9, 10)
    bell = np.exp(-0.5 * (steps / 4.5) ** 2)
    k = np.mod(np.round(np.degrees(angle)).astype(int)[:, None] + 90 + steps, 180)  # direction of the normal, degrees
    phi = np.radians(k)
    rho = np.round((x - cx)[:, None] * np.cos(phi) + (y - cy)[:, None] * np.sin(phi)).astype(int) + bins // 2
    index, votes_of = k * bins + np.clip(rho, 0, bins - 1), weight[:, None] * bell
    alive = np.ones(len(x), bool)
    for _ in range(candidates):
        votes = np.bincount(index[alive].ravel(), votes_of[alive].ravel(), 180 * bins).reshape(180, bins)
        smooth = gaussian_filter(votes, (0.7, 0.8), mode=("wrap", "constant"))
        score = smooth - gaussian_filter(votes, (0, 12), mode="constant")
        top, place = np.unravel_index(int(np.argmax(score)), score.shape)
        if score[top, place] <= 4:
            break
        normal = np.array([np.cos(np.radians(top)), np.sin(np.radians(top))])
        point = np.array([cx, cy]) + (place - bins // 2) * normal
        lines.append((point, np.array([-normal[1], normal[0]])))
        alive &= np.abs((x - point[0]) * normal[0] + (y - point[1]) * normal[1]) > 3
        if alive.sum() < 20:
            break
    return lines


def field_mask(mask: np.ndarray) -> np.ndarray:
    """The field of a mask (bool) that leaves metal out (``XrayImage.mask`` does): with the metal, for it is metal that is looked for.

    What is masked belongs to the field unless it reaches the picture's border and is broader than a thick needle.
    """
    from scipy.ndimage import binary_opening, label

    mask = np.asarray(mask, bool)
    if mask.all():
        return mask
    parts, _ = label(~mask)
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    outside = np.isin(parts, border[border > 0])
    # Every fourth pixel is enough to tell a shutter from a needle that leaves the picture; padding: shutters go on outside.
    coarse = np.pad(outside[::4, ::4], 4, mode="edge")
    broad = binary_opening(coarse, np.ones((3, 3), bool), iterations=2)[4:-4, 4:-4]
    broad = np.kron(broad, np.ones((4, 4), bool))[: mask.shape[0], : mask.shape[1]]
    return ~(outside & broad)
