"""Rigid refinement of an MR on a CBCT around one bone: least squares on what the CBCT does not explain of the MR.

What an MR voxel shows is predicted by the CBCT as the mean of the MR over all voxels whose CBCT looks alike, in itself and in its
neighbourhood (marrow and enhanced vessels share a HU, not their surroundings).  The share of the MR's variance that this leaves is one minus
the correlation ratio (Roche et al., MICCAI 1998).  Which voxels look alike does not depend on the pose, so taking the means away is a fixed
projection: the residual is linear in the MR, Gauss-Newton applies, and its equations also say how well the pose is determined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import CancelledError
from ..geometry.frames import lps_from_ijk
from ..geometry.rigid import apply, inverse, perturb, point_jacobian

OWN_BINS, AROUND_BINS = 32, 12
AROUND_MM = 4.0
"""Smoothing of the CBCT that tells a voxel's neighbourhood."""
LEAST_VOTES = 25.0
"""Combinations of both seen less often are told by the voxel's own value alone."""
CAUCHY = 2.0
"""Residual, in robust deviations, at which a voxel's influence is halved."""
BLOCK_MM = 12.0
LEVER_MM = 40.0
SETTLED_MM = 0.01


@dataclass(frozen=True, eq=False)
class Region:
    """Voxels of the CBCT that vote.

    Attributes
    ----------
    points_mm
        (N, 3), LPS.
    weight
        (N,), 0..1.
    alike
        (N,) number of the class of voxels that look alike.
    block
        (N,) number of the block of :data:`BLOCK_MM` that holds each.
    """

    points_mm: np.ndarray
    weight: np.ndarray
    alike: np.ndarray
    block: np.ndarray


def region(own: object, around: object, weight: object) -> Region:
    """The voxels of three SimpleITK images of one grid: CBCT, CBCT smoothed by :data:`AROUND_MM`, weight (0 leaves out); maybe none."""
    import SimpleITK as sitk

    w = sitk.GetArrayFromImage(weight)
    index = np.argwhere(w > 0.02)
    if not len(index):
        return Region(np.empty((0, 3)), np.empty(0), np.empty(0, int), np.empty(0, int))
    values, blurred, w = (a[tuple(index.T)].astype(float) for a in (sitk.GetArrayFromImage(own), sitk.GetArrayFromImage(around), w))
    matrix = lps_from_ijk(own)
    points = index[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
    _, block = np.unique(np.floor(points / BLOCK_MM).astype(int), axis=0, return_inverse=True)
    return Region(points, w, _alike(values, blurred, w), block.ravel())


def _alike(values: np.ndarray, blurred: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Class of each voxel: its own value and its neighbourhood's, in steps that are equally often."""
    own, around = (
        np.searchsorted(np.unique(np.quantile(v, np.linspace(0, 1, n + 1)[1:-1])), v) for v, n in ((values, OWN_BINS), (blurred, AROUND_BINS)))
    both = own * AROUND_BINS + around
    votes = np.bincount(both, weight, OWN_BINS * AROUND_BINS)
    code = np.where(votes[both] < LEAST_VOTES, OWN_BINS * AROUND_BINS + own, both)
    return np.unique(code, return_inverse=True)[1].ravel()


class Sampler:
    """MR values and their derivatives at points."""

    def __init__(self, mr: object) -> None:
        import SimpleITK as sitk

        values = sitk.GetArrayFromImage(mr).astype(np.float32)
        self.inverse = np.linalg.inv(lps_from_ijk(mr))
        slopes = np.gradient(values)
        self.volumes = [values, *slopes]

    def __call__(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(values (N,), gradient per mm in LPS (N, 3), whether inside (N,)) at points (N, 3)."""
        from scipy.ndimage import map_coordinates

        kji = (points_mm @ self.inverse[:3, :3].T + self.inverse[:3, 3])[:, ::-1].T
        shape = np.array(self.volumes[0].shape)[:, None]
        inside = ((kji >= 0) & (kji <= shape - 1)).all(0)
        value, *slope = (map_coordinates(v, kji, order=1, mode="nearest") for v in self.volumes)
        return value, np.stack(slope[::-1], 1) @ self.inverse[:3, :3], inside


@dataclass(frozen=True, eq=False)
class Fit:
    """A refined pose.

    Attributes
    ----------
    matrix
        4x4, MR LPS -> CBCT LPS.
    unexplained
        Share of the MR's variance that the CBCT leaves, 0..1.
    covariance
        Block sandwich (6, 6) of (rx, ry, rz in rad, tx, ty, tz in mm) about the centre, CBCT LPS, not calibrated.
    """

    matrix: np.ndarray
    unexplained: float
    covariance: np.ndarray

    def point_covariance(self, point_mm: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
        """(3, 3) of a point (3,) of the CBCT."""
        jacobian = point_jacobian(point_mm, center_mm)[0]
        return jacobian @ self.covariance @ jacobian.T


def refine(
    sampler: Sampler, voxels: Region, start: np.ndarray, center_mm: np.ndarray, iterations: int, stop: Callable[[], bool] = lambda: False,
) -> Fit:
    """Gauss-Newton with backtracking from a pose (4x4, MR LPS -> CBCT LPS), turning about ``center_mm`` (3,), CBCT LPS."""
    pose, equations = start, _equations(sampler, voxels, start, center_mm)
    scale = np.array([1 / LEVER_MM] * 3 + [1.0] * 3)
    damping = 1e-3
    for _ in range(iterations):
        if stop():
            raise CancelledError()
        cost, gradient, hessian, _ = equations
        scaled = hessian * np.outer(scale, scale)
        step = -scale * np.linalg.solve(scaled + damping * np.trace(scaled) / 6 * np.eye(6), scale * gradient)
        tried = perturb(pose, step, center_mm)
        found = _equations(sampler, voxels, tried, center_mm)
        if found[0] < cost:
            pose, equations, damping = tried, found, max(damping / 5, 1e-6)
            if np.linalg.norm(step / scale) < SETTLED_MM:
                break
        else:
            damping *= 8
            if damping > 10:
                break
    cost, _, hessian, scores = equations
    back = np.linalg.pinv(hessian, hermitian=True)
    return Fit(pose, float(np.exp(cost)), back @ scores @ back)


def _equations(sampler: Sampler, voxels: Region, pose: np.ndarray, center_mm: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """(log of the unexplained share, gradient (6,), Gauss-Newton matrix (6, 6), sum over blocks of squared scores (6, 6))."""
    back = inverse(pose)
    value, slope, inside = sampler(apply(back, voxels.points_mm))
    # a motion of the MR by xi moves what lies at a point by -xi: the derivative of the value seen there
    turned = slope @ back[:3, :3]
    arm = voxels.points_mm - center_mm
    jacobian = -np.hstack([np.cross(arm, turned), turned])
    weight = voxels.weight * inside
    count = int(voxels.alike.max()) + 1
    residual = value - _means(value, voxels.alike, weight, count)[voxels.alike]
    spread = 1.48 * _median(np.abs(residual), weight) + 1e-9
    weight = weight / (1 + (residual / (CAUCHY * spread)) ** 2)
    votes = np.bincount(voxels.alike, weight, count)
    residual = value - _means(value, voxels.alike, weight, count)[voxels.alike]
    total = value - np.average(value, weights=weight)
    left, all_of_it = float(weight @ residual**2), float(weight @ total**2)
    own = jacobian - np.stack([np.bincount(voxels.alike, weight * j, count) / np.maximum(votes, 1e-9) for j in jacobian.T], 1)[voxels.alike]
    score = weight[:, None] * own * residual[:, None] / left
    normal = weight[:, None] * jacobian * total[:, None] / all_of_it
    gradient = 2 * (score.sum(0) - normal.sum(0))
    hessian = 2 * (own * weight[:, None]).T @ own / left
    sums = np.stack([np.bincount(voxels.block, s) for s in 2 * (score - normal).T], 1)
    return float(np.log(left / all_of_it)), gradient, hessian, sums.T @ sums


def _means(value: np.ndarray, group: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(group, weight * value, count) / np.maximum(np.bincount(group, weight, count), 1e-9)


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    return float(np.median(values[weight > 0.1])) if (weight > 0.1).any() else 0.0
