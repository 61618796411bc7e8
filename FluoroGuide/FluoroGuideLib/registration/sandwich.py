"""Covariance of a least-squares estimate whose residuals err together: the block sandwich.

Residuals here are mismatch of models, not noise, and neighbouring pixels share it.  Scores are summed over blocks before they are squared,
which keeps their correlation within a block.
"""

from __future__ import annotations

import numpy as np

BLOCK_PX = 16


def block_sums(images: np.ndarray, size: int = BLOCK_PX) -> np.ndarray:
    """Sums over size x size blocks, the last ones smaller: (P, rows, columns) -> (P, blocks)."""
    rows = np.add.reduceat(images, np.arange(0, images.shape[1], size), axis=1)
    return np.add.reduceat(rows, np.arange(0, images.shape[2], size), axis=2).reshape(len(images), -1)


def block_sandwich(bread: np.ndarray, meat: np.ndarray) -> np.ndarray:
    """Covariance (P, P) from the normal equations' matrix and the scores' sum of squares; infinite on its diagonal where they are singular."""
    scale = np.sqrt(np.maximum(np.diag(bread), 1e-30))
    normalized = bread / np.outer(scale, scale)
    if not np.isfinite(normalized).all() or np.linalg.cond(normalized) > 1e12:
        return np.diag(np.full(len(bread), np.inf))
    inverse = np.linalg.inv(normalized) / np.outer(scale, scale)
    return inverse @ meat @ inverse
