"""Phantoms with closed-form line integrals: a lumbar spine for everything, Gaussian blobs for projectors.

Nothing here shares code with the projectors that registration uses, so it can judge them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM
from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .lumbar import LEVELS, Builder
from .shapes import Grid, Shape, integrate, integrate_slowly, occupancy, voxelize

BONES = (*LEVELS, "sacrum", "ilium left", "ilium right")


class LumbarPhantom:
    """T12 to sacrum and ilia in a soft-tissue trunk, made of ellipsoids and elliptic cylinders.

    LPS mm, the centre of L3 at the origin, deterministic for a seed.  Random and built-in asymmetries (a slight
    scoliosis, the liver on the right, a calcified aorta and an osteophyte on the left) let a left-right mirror be seen.

    Attributes
    ----------
    shapes
        All :class:`~.shapes.Shape` objects; densities add.
    landmarks
        Name -> point (3,), LPS mm: ``"L4/L5 facet joint left"``, ``"L4 pedicle right"``, ``"L4 pedicle entry left"``,
        ``"L4 body target left"``, ``"SI joint left"``, ``"L4/L5 disc"``, ``"L4 body"``, ...
    joint_outlines
        Name of a facet or SI joint -> closed polyline (N, 3) in the middle of the joint space.
    """

    def __init__(self, seed: int = 0, *, bowel_gas: bool = True) -> None:
        self.seed = seed
        rng = np.random.default_rng(seed)
        skeleton = Builder(rng).build()
        self.landmarks, self.joint_outlines = skeleton.landmarks, skeleton.outlines
        self.shapes: list[Shape] = [*_trunk(rng, bowel_gas), *skeleton.shapes]

    def line_integrals(self, view: CArmView, pose: np.ndarray) -> dict[str, np.ndarray]:
        """Exact line integrals of attenuation from source to pixel: ``{"soft", "bone"}``, float32 (rows, columns).

        In units of water at :data:`WATER_ATTENUATION_PER_MM`, so that their sum is what a projector should make of
        ``attenuation_from_hu(self.voxelize())``.  ``pose``: 4x4, phantom LPS -> isocentre.
        """
        return {k: v * np.float32(WATER_ATTENUATION_PER_MM) for k, v in integrate(self.shapes, view, pose).items()}

    def line_integrals_slowly(self, view: CArmView, pose: np.ndarray, pixels: np.ndarray, step_mm: float = 0.05) -> dict[str, np.ndarray]:
        """The same for pixels (N, 2) by plain summation along the rays: the reference for :meth:`line_integrals`."""
        return {k: v * WATER_ATTENUATION_PER_MM for k, v in integrate_slowly(self.shapes, view, pose, pixels, step_mm).items()}

    def grid(self, spacing_mm: float | Sequence[float] = 1.0) -> Grid:
        """The voxel grid around the trunk that :meth:`voxelize` and :meth:`labels` use."""
        skin = self.shapes[0]
        return Grid.around(skin.center_lps_mm - skin.half_extent_mm - 4, skin.center_lps_mm + skin.half_extent_mm + 4, spacing_mm)

    def voxelize(self, spacing_mm: float | Sequence[float] = 1.0, supersampling: int = 3) -> object:
        """CT of the phantom: SimpleITK int16 image in HU, partial volume by ``supersampling`` points per axis."""
        grid = self.grid(spacing_mm)
        hu = 1000.0 * (voxelize(self.shapes, grid, supersampling) - 1.0)
        return grid.image(np.clip(np.rint(hu), -1024, 3071).astype(np.int16))

    def labels(self, spacing_mm: float | Sequence[float] = 1.0, detail: str = "bones") -> tuple[object, dict[int, str]]:
        """Label image (SimpleITK uint16) on the same grid and the names of its values.

        ``detail="bones"``: one label per bone (:data:`BONES`, 1 = T12 ... 6 = L5, 7 = sacrum, 8/9 = ilium left/right);
        ``"parts"``: one per part (``"L4 pedicle left"``, ...).
        """
        if detail not in ("bones", "parts"):
            raise FluoroGuideError("The phantom's label detail is not known", detail, "Use 'bones' or 'parts'.")
        solid = [s for s in self.shapes if s.bone > 0 and s.bone_name]
        name_of = (lambda s: s.bone_name) if detail == "bones" else (lambda s: s.part_name)
        names = list(BONES) if detail == "bones" else list(dict.fromkeys(name_of(s) for s in solid))
        grid = self.grid(spacing_mm)
        array = np.zeros(grid.size[::-1], np.uint16)
        for shape in solid:
            for where, part in occupancy(shape, grid, 2):
                array[where][part >= 0.5] = names.index(name_of(shape)) + 1
        return grid.image(array), {i + 1: n for i, n in enumerate(names)}


def _trunk(rng: np.random.Generator, bowel_gas: bool) -> list[Shape]:
    """Skin and fat, muscle, organs, gas and calcified aorta; the first shape is the skin."""
    eye = np.eye(3)

    def shape(kind: str, center: Sequence[float], semi: Sequence[float], soft: float = 0.0, bone: float = 0.0, turn: np.ndarray = eye) -> Shape:
        return Shape(kind, np.asarray(center, float), turn, np.asarray(semi, float), soft, bone)

    parts = [
        shape("cylinder", (0, -28, -40), (160, 116, 240), soft=0.91),
        shape("cylinder", (0, -28, -40), (147, 104, 240), soft=0.13),
        shape("ellipsoid", (-78, -42, 120), (62, 66, 70), soft=0.02),
        shape("cylinder", (14, -30, 40), (9, 9, 90), soft=0.01),
        shape("cylinder", (0, 52, -20), (62, 20, 160), soft=0.015),
    ]
    for z in (95, 62, 20, -8):
        parts.append(shape("ellipsoid", (21 + rng.normal(0, 1), -32, z + rng.normal(0, 3)), (1.2, 5, 7), bone=0.5))
    parts.append(shape("ellipsoid", (25, -4, -20 + rng.normal(0, 1)), (5, 7, 4), bone=0.4))
    if bowel_gas:
        for _ in range(9):
            center = (rng.uniform(-95, 95), rng.uniform(-100, -62), rng.uniform(-130, 60))
            parts.append(shape("ellipsoid", center, rng.uniform(7, 19, 3), soft=-0.5))
    return parts


@dataclass(frozen=True, eq=False)
class GaussianBlobs:
    """A smooth object: a sum of 3-D Gaussians of attenuation with closed-form line integrals.

    Attributes
    ----------
    centers_lps_mm
        (N, 3).
    covariances_mm2
        (N, 3, 3).
    amplitudes_per_mm
        (N,) peak attenuation, 1/mm.
    """

    centers_lps_mm: np.ndarray
    covariances_mm2: np.ndarray
    amplitudes_per_mm: np.ndarray

    @classmethod
    def random(cls, seed: int = 0, count: int = 12, *, reach_mm: float = 55.0, sigma_mm: tuple[float, float] = (7.0, 16.0)) -> GaussianBlobs:
        """Elongated blobs in a ball around the origin, sizes ``sigma_mm``, deterministic for a seed."""
        from scipy.spatial.transform import Rotation

        rng = np.random.default_rng(seed)
        direction = rng.normal(size=(count, 3))
        centers = direction / np.linalg.norm(direction, axis=1, keepdims=True) * reach_mm * rng.uniform(0, 1, (count, 1)) ** (1 / 3)
        turn = Rotation.from_rotvec(rng.normal(size=(count, 3))).as_matrix()
        scaled = turn * rng.uniform(*sigma_mm, (count, 1, 3))
        return cls(centers, scaled @ scaled.transpose(0, 2, 1), rng.uniform(0.01, 0.04, count))

    def line_integrals(self, view: CArmView, pose: np.ndarray) -> np.ndarray:
        """Integrals of attenuation along the (unbounded) lines source-pixel, float64 (rows, columns).

        For precision P, unit direction e and d = source - centre: amplitude sqrt(2 pi / ePe) exp(-(dPd - (ePd)^2 / ePe) / 2).
        """
        view_lps = view.in_volume(pose)
        column, row = np.meshgrid(np.arange(view.columns), np.arange(view.rows))
        rays = view_lps.ray_directions(np.stack([column.ravel(), row.ravel()], 1))
        total = np.zeros(len(rays))
        for center, covariance, amplitude in zip(self.centers_lps_mm, self.covariances_mm2, self.amplitudes_per_mm):
            # The foot of the perpendicular (in the metric P) is found first: far sources would cancel otherwise.
            precision = np.linalg.inv(covariance)
            from_center = view_lps.source_mm - center
            a = np.einsum("ni,ij,nj->n", rays, precision, rays)
            nearest = from_center - ((rays @ (precision @ from_center)) / a)[:, None] * rays
            total += amplitude * np.sqrt(2 * np.pi / a) * np.exp(-0.5 * np.einsum("ni,ij,nj->n", nearest, precision, nearest))
        return total.reshape(view.rows, view.columns)

    def density(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Attenuation, 1/mm, at points (..., 3)."""
        total = np.zeros(np.shape(points_lps_mm)[:-1])
        for center, covariance, amplitude in zip(self.centers_lps_mm, self.covariances_mm2, self.amplitudes_per_mm):
            d = np.asarray(points_lps_mm) - center
            total += amplitude * np.exp(-0.5 * np.einsum("...i,ij,...j->...", d, np.linalg.inv(covariance), d))
        return total

    def voxelize(self, spacing_mm: float | Sequence[float] = 2.0, margin_sigmas: float = 4.5) -> object:
        """SimpleITK float32 image of attenuation, 1/mm, sampled at the voxel centres."""
        reach = margin_sigmas * np.sqrt(np.diagonal(self.covariances_mm2, axis1=1, axis2=2))
        grid = Grid.around((self.centers_lps_mm - reach).min(0), (self.centers_lps_mm + reach).max(0), spacing_mm)
        array = np.zeros(grid.size[::-1], np.float32)
        x, y = np.meshgrid(grid.axis(0), grid.axis(1))
        for k, z in enumerate(grid.axis(2)):
            array[k] = self.density(np.stack([x, y, np.full_like(x, z)], -1))
        return grid.image(array)
