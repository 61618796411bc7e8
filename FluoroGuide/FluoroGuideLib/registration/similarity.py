"""How well a projected volume agrees with the X-rays: locally normalised residuals at one level of the pyramid.

Each image is normalised by the mean and deviation of a masked box window; the residual is DRR minus X-ray.  That removes
what differs between them without meaning anything for the pose: grey-value mapping, beam hardening, scatter, exposure.

A volume that shows only a part of what casts the X-ray's shadows (a narrow field, cut out of the body) predicts only a part of them.  The
DRR is then taken times the factor, of each view, that explains most of the X-ray: with a factor of one, a pose whose DRR is flat or
whose volume has left the picture would fit better than a right one whose correlation is below a half.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from ..geometry.carm import CArmView
from ..imaging.xray import XrayImage
from ..projection.joseph import Projector, pixel_distances

FLOOR_FACTOR = 0.15
"""Part of the root mean local variance added to each local deviation, so that flat regions are not blown up."""
MIN_WINDOW_FILL = 0.5
"""Pixels whose window is emptier than this (outside the mask) are normalised but do not vote."""

LEAST_GAIN = 0.05
"""Least factor of a DRR that shows a part: with none at all it would not be drawn anywhere."""

UNSURE_MM = 6.0
"""Border of a scan's end that is left out with what lies beyond (one or two pixels): the pose still moves while its mask stays, and pixels
that leave the scan on the way would hold it back (12 pelvis cases: worst 1.0 mm without, 0.1 mm with it)."""


@dataclass(frozen=True)
class Evaluation:
    """Cost and Gauss-Newton equations at one pose.

    Attributes
    ----------
    cost
        Mean Cauchy cost of the residuals over all views' pixels that the volume can explain.
    rank
        The same over *all* pixels of the X-rays: one that the volume cannot explain (its ray leaves a truncated scan)
        costs as much as predicting nothing. Poses that explain different pixels are compared by it.
    hessian, gradient
        6x6 and (6,) for (rx, ry, rz in rad, tx, ty, tz in mm); None when not asked for.
    similarity
        Per view: weighted correlation of the locally normalised images, -1..1.
    nothing
        The rank of predicting nothing, where the volume shows a part; 0 where that is not asked.
    known
        Part of it that pixels cost whose rays the volume knows.
    """

    cost: float
    rank: float
    hessian: np.ndarray | None
    gradient: np.ndarray | None
    similarity: tuple[float, ...]
    nothing: float = 0.0
    known: float = 1.0

    @property
    def explained(self) -> float:
        """Part of the X-rays' cost that a volume showing a part explains (0: as much as nothing, at most 1); NaN where that is not asked."""
        return 1.0 - self.rank / self.nothing if self.nothing > 0 else np.nan

    @property
    def explained_there(self) -> float:
        """The same of what pixels cost whose rays the volume knows: how well it is recognised, however little of the X-ray it covers."""
        return self.explained / max(self.known, 1e-6)

    def worse(self, best: Evaluation) -> float:
        """How many times worse than ``best``: ratio of ranks; where the volume shows a part, of what is explained."""
        if self.rank == best.rank:  # also where nothing votes and both are infinite
            return 1.0
        if not (self.nothing > 0 and best.nothing > 0):
            return self.rank / best.rank
        return best.explained / max(self.explained, 1e-6)

    @property
    def correlation(self) -> float:
        """Mean of the views' similarities."""
        return float(np.mean(self.similarity))


def shrink_factor(image: XrayImage, point_mm: np.ndarray, pixel_mm: float) -> int:
    """Whole number of pixels to average so that one covers about ``pixel_mm`` at the depth of ``point_mm``."""
    return max(1, round(pixel_mm / image.view.mm_per_pixel_at(point_mm)))


def block_mean(image: XrayImage, factor: int) -> tuple[np.ndarray, np.ndarray, CArmView]:
    """Masked means of factor x factor blocks: pixels float32, mask bool (block at least 90 % inside), and their view."""
    rows, columns = image.view.rows // factor, image.view.columns // factor
    view = image.view.cropped(0, 0, columns * factor, rows * factor).resampled(rows, columns)
    shape = (rows, factor, columns, factor)
    inside = image.mask[: rows * factor, : columns * factor].reshape(shape)
    values = np.where(inside, image.pixels[: rows * factor, : columns * factor].reshape(shape), 0.0)
    count = inside.sum(axis=(1, 3))
    mean = (values.sum(axis=(1, 3)) / np.maximum(count, 1)).astype(np.float32)
    return mean, count > 0.9 * factor * factor, view


class FixedView:
    """One X-ray at one level: its normalised pixels, its mask, and the work to compare a DRR with it.

    Parameters
    ----------
    pixels, mask, view
        float32 and bool (rows, columns), and the geometry of those pixels.
    radius
        Half-width of the normalisation window in pixels.
    kernels
        Kernel module (:func:`projection.joseph.kernels`).
    partial
        Whether the volume shows only a part of what casts shadows here.
    """

    def __init__(self, pixels: np.ndarray, mask: np.ndarray, view: CArmView, radius: int, kernels: object, partial: bool = False) -> None:
        self.view, self.radius, self.kernels, self.partial = view, radius, kernels, partial
        self.pixels = np.ascontiguousarray(pixels, np.float32)
        self.full_mask = _eroded(mask)
        self.distances = pixel_distances(view)
        self.lost_votes = self.lost_cost = 0.0
        self.set_mask(self.full_mask)

    def set_mask(self, mask: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Restrict to ``mask`` (bool, within the X-ray's own mask); ``weight`` (rows, columns) scales each pixel's vote."""
        mask = mask & self.full_mask
        self.mask = mask.astype(np.float32)
        self.rays = mask.astype(np.uint8)
        count = np.empty_like(self.mask)
        self.kernels.box_sum(self.mask, self.radius, count)
        self.inverse_count = np.where(count > 3, 1 / np.maximum(count, 1), 0).astype(np.float32)
        votes = self.mask * (count > MIN_WINDOW_FILL * (2 * self.radius + 1) ** 2)
        self.weight = (votes if weight is None else votes * weight).astype(np.float32)
        self.fixed = self.normalize(self.pixels)[0]

    @property
    def speaks(self) -> bool:
        """Whether enough pixels vote: as many as one window holds.  Fewer show nothing that a window could be compared by."""
        return np.count_nonzero(self.weight) >= (2 * self.radius + 1) ** 2

    def without(self, mask: np.ndarray, cauchy2: float) -> FixedView:
        """A copy that also leaves out the pixels where ``mask`` (bool) is True; cheap, shares the pixels."""
        other = copy.copy(self)
        other.set_mask(self.mask.astype(bool) & ~mask)
        lost = np.where(other.weight > 0, 0, self.weight)
        other.lost_votes = self.lost_votes + float(lost.sum())
        other.lost_cost = self.lost_cost + float((lost * cauchy2 * np.log1p((1 if self.partial else 2) * self.fixed**2 / cauchy2)).sum())
        return other

    def cropped(self, rows: slice, columns: slice, weight: np.ndarray) -> FixedView:
        """The part of the view in these rows and columns, voting with ``weight`` (of the whole view, rows x columns)."""
        other = copy.copy(self)
        first_row, first_column = rows.start, columns.start
        other.view = self.view.cropped(first_column, first_row, columns.stop - first_column, rows.stop - first_row)
        other.pixels, other.full_mask = np.ascontiguousarray(self.pixels[rows, columns]), self.full_mask[rows, columns]
        other.distances = np.ascontiguousarray(self.distances[rows, columns])
        other.lost_votes = other.lost_cost = 0.0
        other.set_mask(self.mask[rows, columns] > 0, np.ascontiguousarray(weight[rows, columns], np.float32))
        return other

    def normalize(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Locally normalised image, 1 / local deviation, local mean (all float32)."""
        out, inverse_std, mean = np.empty_like(image), np.empty_like(image), np.empty_like(image)
        self.kernels.local_normalize(image, self.mask, self.inverse_count, self.radius, FLOOR_FACTOR, out, inverse_std, mean)
        return out, inverse_std, mean

    def gain(self, moving: np.ndarray) -> np.float32:
        """The factor that a normalised DRR (rows, columns) is taken times: 1, or what explains most where the volume shows a part."""
        if not self.partial:
            return np.float32(1.0)
        weighted = self.weight * moving
        product, square = float(np.vdot(weighted, self.fixed)), float(np.vdot(weighted, moving))
        return np.float32(min(1.0, max(LEAST_GAIN, product / max(square, 1e-12))))

    def fitted(self, moving: np.ndarray, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A normalised DRR and its derivative (P, rows, columns) times the :meth:`gain`."""
        if not self.partial:
            return moving, jacobian
        gain = self.gain(moving)
        return gain * moving, gain * jacobian


class Level:
    """All views at one resolution, with the volume prepared for it.

    Parameters
    ----------
    projector
        Volume at a resolution that matches the pixels.
    images
        X-rays.
    point_mm
        Point in the isocentre frame whose depth sets the pixel size.
    pixel_mm
        Pixel size wanted at that depth.
    radius
        Half-width of the normalisation window, pixels.
    cauchy
        Residual at which a pixel's influence is halved (local deviations).
    partial
        Whether the volume shows only a part of what casts the shadows.
    """

    def __init__(
        self, projector: Projector, images: list[XrayImage], point_mm: np.ndarray, pixel_mm: float, radius: int, cauchy: float = 1.0,
        partial: bool = False,
    ) -> None:
        self.projector, self.pixel_mm, self.cauchy2 = projector, pixel_mm, cauchy**2
        self.views: list[FixedView] = []
        for image in images:
            pixels, mask, view = block_mean(image, shrink_factor(image, point_mm, pixel_mm))
            self.views.append(FixedView(pixels, mask, view, radius, projector.kernels, partial))
        self.nothing = sum(self._cost_of_nothing()) if partial else 0.0

    def with_views(self, views: list[FixedView]) -> Level:
        """This level with other views, each of a level of the same pixels."""
        other = copy.copy(self)
        other.views = views
        other.nothing = sum(other._cost_of_nothing()) if self.nothing else 0.0
        return other

    def without_unknown(self, beyond: Projector | None, pose: np.ndarray) -> Level:
        """This level without the rays that, at ``pose``, pass through body beyond the scan."""
        if beyond is None:
            return self
        other = copy.copy(self)
        border = max(1, min(2, round(UNSURE_MM / self.pixel_mm)))
        other.views = [v.without(_grown(beyond.project(v.view, pose, None, v.distances) > 0, border), self.cauchy2) for v in self.views]
        return other

    def coverage(self, of: Level) -> float:
        """Part of the votes of another level (same views) that are left here."""
        return float(sum(v.weight.sum() for v in self.views) / max(1.0, sum(v.weight.sum() for v in of.views)))

    def evaluate(self, pose: np.ndarray, center_mm: np.ndarray, derivatives: bool = True) -> Evaluation:
        """Cost, similarity and (on request) the Gauss-Newton equations at a pose (4x4)."""
        hessian, gradient, sums = np.zeros((6, 6)), np.zeros(6), np.zeros(5)
        similarity = []
        for fixed in self.views:
            before = sums.copy()
            if derivatives:
                self._add_equations(fixed, pose, center_mm, hessian, gradient, sums)
            else:
                self._add_cost(fixed, pose, sums)
            _, mf, mm, ff, _ = sums - before
            similarity.append(float(mf / np.sqrt(mm * ff + 1e-12)))
        return self.of_a_part(summed(self.views, sums, hessian if derivatives else None, gradient, tuple(similarity)))

    def of_a_part(self, found: Evaluation) -> Evaluation:
        """An evaluation at this level's pixels, with what nothing would cost where the volume shows a part."""
        if not self.nothing:
            return found
        # which pixels are known changes what nothing costs a little: poses are compared by the part of it that they save
        known, lost = self._cost_of_nothing()
        here = max(known + lost, 1e-12)
        return replace(found, rank=found.rank * self.nothing / here, nothing=self.nothing, known=known / here)

    def _cost_of_nothing(self) -> tuple[float, float]:
        """What predicting nothing costs, per pixel of the X-rays: in those whose rays are known, and in the others."""
        votes = max(1.0, sum(float(v.weight.sum()) + v.lost_votes for v in self.views))
        known = sum(float((v.weight * self.cauchy2 * np.log1p(v.fixed**2 / self.cauchy2)).sum()) for v in self.views)
        return known / votes, sum(v.lost_cost for v in self.views) / votes

    def _add_equations(
        self, fixed: FixedView, pose: np.ndarray, center_mm: np.ndarray, hessian: np.ndarray, gradient: np.ndarray, sums: np.ndarray,
    ) -> None:
        moving, jacobian = fixed.fitted(*self.normalized_with_jacobian(fixed, pose, center_mm))
        self.projector.kernels.normal_equations(jacobian, moving, fixed.fixed, fixed.weight, self.cauchy2, hessian, gradient, sums)

    def _add_cost(self, fixed: FixedView, pose: np.ndarray, sums: np.ndarray) -> None:
        add_cost(fixed, self.projector.project(fixed.view, pose, fixed.rays, fixed.distances), self.cauchy2, sums)

    def normalized_with_jacobian(self, fixed: FixedView, pose: np.ndarray, center_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised DRR (rows, columns) and its pose derivative (6, rows, columns) for one view."""
        image, jacobian = self.projector.project_with_jacobian(fixed.view, pose, center_mm, fixed.rays, fixed.distances)
        moving, inverse_std, mean = fixed.normalize(image)
        fixed.kernels.local_normalize_jacobian(jacobian, fixed.mask, fixed.inverse_count, fixed.radius, moving, inverse_std, mean)
        return moving, jacobian


def add_cost(fixed: FixedView, image: np.ndarray, cauchy2: float, sums: np.ndarray) -> None:
    """Add a DRR's cost and products to ``sums`` (5,): what ``normal_equations`` does, for no parameter at all."""
    moving, *_ = fixed.normalize(image)
    if fixed.partial:
        moving *= fixed.gain(moving)
    none = np.empty((0, *moving.shape), np.float32)
    fixed.kernels.normal_equations(none, moving, fixed.fixed, fixed.weight, cauchy2, np.empty((0, 0)), np.empty(0), sums)


def summed(views: list[FixedView], sums: np.ndarray, hessian: np.ndarray | None, gradient: np.ndarray, similarity: tuple[float, ...]) -> Evaluation:
    """Means over the votes of all views; infinite cost where nothing votes."""
    votes = sums[4] + sum(v.lost_votes for v in views)
    rank = (sums[0] + sum(v.lost_cost for v in views)) / votes if votes > 0 else np.inf
    if sums[4] <= 0:
        return Evaluation(np.inf, rank, hessian, gradient, similarity)
    if hessian is None:
        return Evaluation(sums[0] / sums[4], rank, None, None, similarity)
    return Evaluation(sums[0] / sums[4], rank, hessian / sums[4], gradient / sums[4], similarity)


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, np.ones((3, 3), bool), iterations=pixels) if mask.any() else mask


def _eroded(mask: np.ndarray) -> np.ndarray:
    """The mask without its one-pixel border, where blocks mix patient and shutter."""
    from scipy.ndimage import binary_erosion

    return binary_erosion(mask, np.ones((3, 3), bool), border_value=True)
