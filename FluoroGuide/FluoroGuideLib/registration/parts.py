"""One bone registered on its own while everything around it may have moved: two bodies and what stretches between them.

A whole-volume metric follows whatever fills the picture.  Projecting the bone alone does not help either: most of what
the X-ray shows is then unexplained, and wrong poses explain it just as well (measured: the cost at the true pose is
higher than at the best wrong one).  So everything is projected, cut into shells by its distance from the bone: the inner
shell moves with the bone (pose T1), the outer one with the surroundings (pose T2), those between in proportion.  Both
poses are estimated together; the last levels look at the bone's own outline through small windows, where the tissue that
stretches in an unknown way counts least.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..anatomy.attenuation import AttenuationVolume
from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, difference, perturb
from ..imaging.xray import XrayImage
from ..projection.joseph import Projector
from .refine import Refined, levenberg_marquardt, pose_distance_mm
from .similarity import Evaluation, FixedView, Level, add_cost, summed
from .volume import MovingVolume, resampled

NODES_MM = (6.0, 20.0, 36.0)
"""Distances from the bone at which the shells peak: rigid with the bone up to the first, with the surroundings from the last."""
FAR_SPACING_MM = 1.5
"""The outermost shell fills the body; it is never made finer than this."""
LINEAR_MM = 0.7
"""The surroundings' projection is updated by its derivative while their pose stays within this distance, then made anew."""
ROI_SHARE = 0.05
"""Pixels where the inner shell contributes less than this part of its maximum do not belong to the bone's shadow."""
Poses = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PartLevel:
    """One level: voxel and pixel size, window half-width in pixels, residual scale, border around the bone's shadow, iterations, poses kept."""

    pixel_mm: float
    radius: int
    cauchy: float
    border_mm: float
    iterations: int
    keep: int


@dataclass(frozen=True)
class PartOptions:
    """How a part is registered; ``reach_mm`` and ``step_mm`` are the translations tried between bone and surroundings.

    ``candidates`` of them, ``apart_mm`` from each other, are refined by ``first`` iterations; ``keep_first`` go on.  On finer levels go on
    those whose cost is at most ``close`` times the best one's.
    """

    levels: tuple[PartLevel, ...] = (
        PartLevel(2.0, 3, 1.0, 6.0, 8, 5), PartLevel(1.0, 3, 0.7, 4.0, 10, 2),
    )
    nodes_mm: tuple[float, ...] = NODES_MM
    reach_mm: float = 18.0
    step_mm: float = 3.0
    apart_mm: float = 5.0
    candidates: int = 14
    first: int = 3
    keep_first: int = 5
    close: float = 1.06


class Part:
    """A bone in its volume, cut into shells by distance.

    Parameters
    ----------
    moving
        The volume and its resolutions.
    distance
        SimpleITK image, mm from the bone's surface (not above 0 inside), on any grid; outside the image counts as far.
    center_lps_mm
        Point (3,) about which the part turns: its target or its middle, volume LPS mm.
    name
        For people.
    """

    def __init__(
        self, moving: MovingVolume, distance: object, center_lps_mm: np.ndarray, name: str = "bone", nodes_mm: tuple[float, ...] = NODES_MM,
    ) -> None:
        self.moving, self.distance, self.name, self.nodes_mm = moving, distance, name, nodes_mm
        self.center_lps_mm = np.asarray(center_lps_mm, float)
        self._projectors: dict[float, list[Projector]] = {}

    @property
    def fractions(self) -> np.ndarray:
        """How far each shell goes with the surroundings, 0..1."""
        nodes = np.asarray(self.nodes_mm)
        return (nodes - nodes[0]) / (nodes[-1] - nodes[0])

    def projectors(self, spacing_mm: float) -> list[Projector]:
        """One projector per shell, inner to outer."""
        if spacing_mm not in self._projectors:
            last = len(self.nodes_mm) - 1
            near = resampled(_near(self.moving.image, self.distance, self.nodes_mm[-1] + 2 * spacing_mm), spacing_mm)
            made = [Projector(self._shell(near, n), self.moving.backend) for n in range(last)]
            far = max(spacing_mm, FAR_SPACING_MM)
            same = next((p[-1] for s, p in self._projectors.items() if max(s, FAR_SPACING_MM) == far), None)
            outer = same or Projector(self._shell(self.moving.resampled(far), last), self.moving.backend)
            self._projectors[spacing_mm] = [*made, outer]
        return self._projectors[spacing_mm]

    def _shell(self, image: object, number: int) -> object:
        """The image times the shell's weight: hat functions over the distance that add up to one."""
        import SimpleITK as sitk

        distance = sitk.GetArrayFromImage(sitk.Resample(self.distance, image, sitk.Transform(), sitk.sitkLinear, 1e3, sitk.sitkFloat32))
        weight = np.interp(distance, self.nodes_mm, np.eye(len(self.nodes_mm))[number]).astype(np.float32)
        result = sitk.GetImageFromArray(sitk.GetArrayFromImage(image) * weight)
        result.CopyInformation(image)
        return result


def _near(image: object, distance: object, reach_mm: float) -> object:
    """SimpleITK image: the volume cropped to where the distance map is below ``reach_mm``."""
    import SimpleITK as sitk

    inside = np.argwhere(sitk.GetArrayFromImage(distance) < reach_mm)[:, ::-1]
    corners = np.array(list(itertools.product(*zip(inside.min(0), inside.max(0), strict=True))), float)
    points = [distance.TransformContinuousIndexToPhysicalPoint(c.tolist()) for c in corners]
    index = np.array([image.TransformPhysicalPointToContinuousIndex(p) for p in points])
    size = np.asarray(image.GetSize())
    low = np.clip(np.floor(index.min(0)), 0, size - 1).astype(int)
    high = np.clip(np.ceil(index.max(0)) + 1, low + 1, size).astype(int)
    return sitk.RegionOfInterest(image, (high - low).tolist(), low.tolist())


def label_distance(labels: object, values: list[int], grid_mm: float = 2.0) -> object:
    """Distance in mm from labelled bone: SimpleITK float32 image, negative inside.

    Raises
    ------
    FluoroGuideError
        None of the labels is in the image.
    """
    from ..anatomy.bones import label_weight

    return _distance_from(label_weight(labels, values, widen_mm=0.5), 45.0, grid_mm)


def bone_distance(volume: AttenuationVolume, point_lps_mm: np.ndarray, radius_mm: float = 28.0, grid_mm: float = 2.0) -> object:
    """The same for the bone found around a point without any label (threshold, connectivity, distance).

    Raises
    ------
    FluoroGuideError
        No bone near the point.
    """
    from ..anatomy.bones import bone_weight

    return _distance_from(bone_weight(volume, point_lps_mm, radius_mm, fade_mm=1.0), 45.0, grid_mm)


def _distance_from(weight: object, reach_mm: float, grid_mm: float) -> object:
    """Signed distance from where ``weight`` exceeds one half, on a grid that goes ``reach_mm`` beyond it."""
    import SimpleITK as sitk

    size = np.asarray(weight.GetSize()) * np.asarray(weight.GetSpacing())
    count = np.ceil((size + 2 * reach_mm) / grid_mm).astype(int)
    direction = np.reshape(weight.GetDirection(), (3, 3))
    grid = sitk.Image([int(n) for n in count], sitk.sitkUInt8)
    grid.SetSpacing([grid_mm] * 3)
    grid.SetDirection(weight.GetDirection())
    grid.SetOrigin((np.asarray(weight.GetOrigin()) - direction @ np.full(3, reach_mm)).tolist())
    mask = sitk.Resample(weight, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32) > 0.5
    return sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)


class BodiesLevel:
    """X-rays at one level against the shells of a part; a state is (pose of the bone, pose of the surroundings)."""

    def __init__(self, part: Part, level: Level, spec: PartLevel, whole: np.ndarray, center_mm: np.ndarray) -> None:
        self.projectors, self.fractions, self.center_mm = part.projectors(spec.pixel_mm), part.fractions, center_mm
        self.cauchy2, self.kernels = spec.cauchy**2, self.projectors[0].kernels
        border = max(1, round(spec.border_mm / spec.pixel_mm))
        views = [_focused(v, self.projectors[0], whole, border) for v in level.views]
        self.views = [v for v in views if v is not None]
        self._outer: tuple[np.ndarray | None, list[np.ndarray]] = (None, [])
        self._tangent: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def own(self) -> BodiesLevel:
        """A copy for one candidate, so that threads do not share the kept projection of the surroundings."""
        other = copy.copy(self)
        other._outer, other._tangent = (None, []), {}
        return other

    def _between(self, poses: Poses) -> list[np.ndarray]:
        way = difference(poses[0], poses[1], self.center_mm)
        return [perturb(poses[0], f * way, self.center_mm) for f in self.fractions]

    def evaluate(self, poses: Poses, derivatives: bool = True) -> Evaluation:
        """Cost and, on request, the equations of 12 parameters (bone, surroundings)."""
        hessian, gradient, sums = np.zeros((12, 12)), np.zeros(12), np.zeros(5)
        shells, similarity = self._between(poses), []
        for n, view in enumerate(self.views):
            before = sums.copy()
            if derivatives:
                moving, jacobian = self._with_jacobian(view, shells)
                self.kernels.normal_equations(jacobian, moving, view.fixed, view.weight, self.cauchy2, hessian, gradient, sums)
            else:
                add_cost(view, self._image(n, view, shells, poses[1]), self.cauchy2, sums)
            _, mf, mm, ff, _ = sums - before
            similarity.append(float(mf / np.sqrt(mm * ff + 1e-12)))
        return summed(self.views, sums, hessian if derivatives else None, gradient, tuple(similarity))

    def _with_jacobian(self, view: FixedView, shells: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        image, jacobian = np.zeros(view.mask.shape, np.float32), np.zeros((12, *view.mask.shape), np.float32)
        for projector, pose, fraction in zip(self.projectors[:-1], shells[:-1], self.fractions[:-1], strict=True):
            one, d = projector.project_with_jacobian(view.view, pose, self.center_mm, view.rays, view.distances)
            image += one
            jacobian[:6] += np.float32(1 - fraction) * d
            if fraction > 0:
                jacobian[6:] += np.float32(fraction) * d
        one, d = self._outer_tangent(view, shells[-1])
        image += one
        jacobian[6:] += d
        moving, inverse_std, mean = view.normalize(image)
        self.kernels.local_normalize_jacobian(jacobian, view.mask, view.inverse_count, view.radius, moving, inverse_std, mean)
        return moving, jacobian

    def _outer_tangent(self, view: FixedView, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outermost shell's projection and derivative: the largest and slowest body, and the one that moves least."""
        kept = self._tangent.get(id(view))
        if kept is None or pose_distance_mm(kept[0], pose, self.center_mm) > LINEAR_MM:
            made = self.projectors[-1].project_with_jacobian(view.view, pose, self.center_mm, view.rays, view.distances)
            kept = self._tangent[id(view)] = (pose, *made)
        way = difference(kept[0], pose, self.center_mm).astype(np.float32)
        return kept[1] + np.tensordot(way, kept[2], 1), kept[2]

    def _image(self, number: int, view: FixedView, shells: list[np.ndarray], surroundings: np.ndarray) -> np.ndarray:
        """All shells' projection in one view."""
        image = self._surroundings(surroundings)[number].copy()
        for projector, pose in zip(self.projectors[:-1], shells[:-1], strict=True):
            image += projector.project(view.view, pose, view.rays, view.distances)
        return image

    def shift_costs(self, view: FixedView, number: int, whole: np.ndarray, reach_px: int) -> np.ndarray:
        """Cost (n, n) with the bone's projection shifted by every second pixel, rows first, up to ``reach_px`` (even).

        The shells are projected once and their pictures shifted, each as far as it goes with the bone.
        """
        outer, weight = self._surroundings(whole)[number], np.maximum(view.weight.sum(), 1.0)
        v, rows, columns = view.view, *view.mask.shape
        corner = v.pixel_mm((-reach_px, -reach_px))[0]
        large = CArmView(rows + 2 * reach_px, columns + 2 * reach_px, v.source_mm, corner, v.column_step_mm, v.row_step_mm)
        pictures = [p.project(large, whole) for p in self.projectors[:-1]]
        steps = range(-reach_px, reach_px + 1, 2)
        costs = np.empty((len(steps), len(steps)))
        for i, j in itertools.product(range(len(steps)), repeat=2):
            image = outer.copy()
            for picture, fraction in zip(pictures, self.fractions[:-1], strict=True):
                r, c = (reach_px - round((1 - fraction) * steps[n]) for n in (i, j))
                image += picture[r : r + rows, c : c + columns]
            sums = np.zeros(5)
            add_cost(view, image, self.cauchy2, sums)
            costs[i, j] = sums[0] / weight
        return costs

    def _surroundings(self, pose: np.ndarray) -> list[np.ndarray]:
        """Projections of the outermost shell, kept while its pose object stays the same."""
        if self._outer[0] is not pose:
            self._outer = (pose, [self.projectors[-1].project(v.view, pose, v.rays, v.distances) for v in self.views])
        return self._outer[1]

    def move(self, poses: Poses, xi: np.ndarray) -> Poses:
        """State after a perturbation (12,)."""
        return perturb(poses[0], xi[:6], self.center_mm), perturb(poses[1], xi[6:], self.center_mm)


def _focused(view: FixedView, projector: Projector, pose: np.ndarray, border: int) -> FixedView | None:
    """The view cropped to the bone's shadow and ``border`` pixels around it; None where it is not in the picture."""
    from scipy.ndimage import binary_dilation

    shadow = projector.project(view.view, pose, None, view.distances)
    if shadow.max() <= 0:
        return None
    region = binary_dilation(shadow > ROI_SHARE * shadow.max(), iterations=border)
    rows, columns = np.nonzero(region & (view.mask > 0))
    if len(rows) < 50:
        return None
    reach = view.radius + 1
    r = slice(max(0, int(rows.min()) - reach), min(view.mask.shape[0], int(rows.max()) + reach + 1))
    c = slice(max(0, int(columns.min()) - reach), min(view.mask.shape[1], int(columns.max()) + reach + 1))
    return view.cropped(r, c, region.astype(np.float32))


@dataclass(frozen=True, eq=False)
class PartResult:
    """Pose of the bone with its evaluation, pose of the surroundings, runners-up, the level it was found on, its centre."""

    best: Refined
    surroundings: np.ndarray
    rivals: list[Refined]
    level: BodiesLevel
    center_mm: np.ndarray


def register_part(
    part: Part, images: list[XrayImage], whole: np.ndarray, options: PartOptions | None = None, *, threads: int = 1,
    cancelled: Callable[[], bool] | None = None,
) -> PartResult | None:
    """Find the bone's own pose, starting from the whole volume's.

    Parameters
    ----------
    part
        The bone.
    images
        X-rays.
    whole
        Pose of the whole volume (4x4); the surroundings start there, the bone on a grid of translations around it.

    Returns
    -------
    None where the bone is in no picture.
    """
    options = options or PartOptions()
    center = apply(whole, part.center_lps_mm)
    pool: list[tuple[Poses, Evaluation]] = []
    level = None
    for number, spec in enumerate(options.levels):
        start = pool[0][0] if pool else (whole, whole)
        level = bodies_level(part, images, spec, start[0], center)
        if not level.views:
            return None
        if not pool:
            pool = _grid(level, whole, center, options)

        def refined(candidates: list[tuple[Poses, Evaluation]], iterations: int, level: BodiesLevel = level) -> list[tuple[Poses, Evaluation]]:
            def one(candidate: tuple[Poses, Evaluation]) -> tuple[Poses, Evaluation]:
                own = level.own()
                return levenberg_marquardt(own.evaluate, own.move, candidate[0], iterations, cancelled=cancelled)[:2]

            with ThreadPoolExecutor(max(1, threads)) as workers:
                return sorted(workers.map(one, candidates), key=lambda c: c[1].cost)

        if len(pool) > 1:
            pool = _distinct(refined(pool, options.first), center, 1.0, options.keep_first if number == 0 else spec.keep)
        pool = _distinct(refined(pool, spec.iterations), center, 1.0, spec.keep)
        pool = [p for p in pool if p[1].cost <= options.close * pool[0][1].cost]
    (poses, evaluation), *others = pool
    best = Refined(poses[0], evaluation, 0)
    return PartResult(best, poses[1], [Refined(p[0], e, 0) for p, e in others], level, center)


def make_part(moving: MovingVolume, wanted: object, point_lps_mm: np.ndarray) -> Part:
    """A part from what a caller may say: a :class:`Part`, ``"auto"`` (bone around the point), or label values of the volume's parts.

    Raises
    ------
    FluoroGuideError
        Labels without a label image, a label that is not there, or no bone near the point.
    """
    if isinstance(wanted, Part):
        return wanted
    if wanted == "auto":
        return Part(moving, bone_distance(moving.volume, point_lps_mm), point_lps_mm, "bone at the target")
    if moving.volume.parts is None:
        raise FluoroGuideError("A bone label was given but the volume has no label image", wanted, "Give the labels as well, or choose 'auto'")
    values = [int(v) for v in np.atleast_1d(wanted)]
    names = ", ".join(moving.volume.part_names.get(v, f"label {v}") for v in values)
    return Part(moving, label_distance(moving.volume.parts, values), point_lps_mm, names)


def bodies_level(part: Part, images: list[XrayImage], spec: PartLevel, pose: np.ndarray, center_mm: np.ndarray) -> BodiesLevel:
    """A part's level with the rays that, at ``pose``, leave a truncated scan left out."""
    base = Level(part.projectors(spec.pixel_mm)[0], images, center_mm, spec.pixel_mm, spec.radius, spec.cauchy)
    return BodiesLevel(part, base.without_unknown(part.moving.beyond(), pose), spec, pose, center_mm)


def _grid(level: BodiesLevel, whole: np.ndarray, center_mm: np.ndarray, options: PartOptions) -> list[tuple[Poses, Evaluation]]:
    """The best distinct translations of the bone against its surroundings, from cost maps over the shifts in each view."""
    from scipy.ndimage import map_coordinates

    steps = np.arange(-options.reach_mm, options.reach_mm + 1e-6, options.step_mm)
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    shifts = shifts[np.linalg.norm(shifts, axis=1) <= options.reach_mm + 1e-6]
    cost = np.zeros(len(shifts))
    for number, view in enumerate(level.views):
        jacobian = view.view.project_jacobian(center_mm)[0]  # pixels (column, row) per mm
        reach = 2 * int(np.ceil(options.reach_mm * np.linalg.norm(jacobian, axis=1).max() / 2))
        costs = level.shift_costs(view, number, whole, reach)
        cost += map_coordinates(costs, ((shifts @ jacobian.T)[:, ::-1].T + reach) / 2, order=1, mode="nearest")
    kept: list[np.ndarray] = []
    for shift in shifts[np.argsort(cost, kind="stable")]:
        if all(np.linalg.norm(shift - k) >= options.apart_mm for k in kept):
            kept.append(shift)
        if len(kept) == options.candidates:
            break
    return [((perturb(whole, np.r_[0, 0, 0, shift], center_mm), whole), None) for shift in kept]


def _distinct(pool: list[tuple[Poses, Evaluation]], center_mm: np.ndarray, apart_mm: float, keep: int) -> list[tuple[Poses, Evaluation]]:
    kept: list[tuple[Poses, Evaluation]] = []
    for candidate in pool:
        if all(pose_distance_mm(candidate[0][0], k[0][0], center_mm) >= apart_mm for k in kept):
            kept.append(candidate)
    return kept[:keep]
