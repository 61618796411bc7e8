"""A bone in its volume, cut into shells by distance: what moves with the bone, what moves with its surroundings, what lies between."""

from __future__ import annotations

import itertools

import numpy as np

from ..anatomy.attenuation import AttenuationVolume
from ..geometry.carm import CArmView
from ..projection.joseph import Projector
from .volume import MovingVolume, resampled

NODES_MM = (6.0, 20.0, 36.0)
"""Distances from the bone at which the shells peak: rigid with the bone up to the first, with the surroundings from the last."""
SHELL_MM = 1.5
"""Voxels of all shells but the inner one, whose edges are the bone's: that of the whole volume's finest level, which is there already."""


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
        self._projectors: dict[float, list[Projector | Surroundings]] = {}

    @property
    def fractions(self) -> np.ndarray:
        """How far each shell goes with the surroundings, 0..1."""
        nodes = np.asarray(self.nodes_mm)
        return (nodes - nodes[0]) / (nodes[-1] - nodes[0])

    def projectors(self, spacing_mm: float) -> list[Projector | Surroundings]:
        """One projector per shell, inner to outer.

        Only the inner shell, which shows the bone's edges, is made finer than :data:`SHELL_MM`; all others are made once for every level.
        """
        shell_mm = max(SHELL_MM, min(self.moving.volume.image.GetSpacing()))
        if not self._projectors:
            near = _near(self.moving.resampled(shell_mm), self.distance, self.nodes_mm[-1] + 2 * shell_mm)
            hats = np.eye(len(self.nodes_mm))
            shells = [self._shell(near, hat) for hat in hats[:-1]]
            self._projectors[shell_mm] = [*shells, Surroundings(self.moving.projector(shell_mm), self._shell(near, 1 - hats[-1]))]
        spacing_mm = min(spacing_mm, shell_mm)
        if spacing_mm not in self._projectors:
            fine = resampled(_near(self.moving.image, self.distance, self.nodes_mm[1] + 2 * spacing_mm), spacing_mm)
            self._projectors[spacing_mm] = [self._shell(fine, np.eye(len(self.nodes_mm))[0]), *self._projectors[shell_mm][1:]]
        return self._projectors[spacing_mm]

    def _shell(self, image: object, weights: np.ndarray) -> Projector:
        """The image times a weight that is linear over the distance between the nodes, where it has these values."""
        import SimpleITK as sitk

        distance = sitk.GetArrayFromImage(sitk.Resample(self.distance, image, sitk.Transform(), sitk.sitkLinear, 1e3, sitk.sitkFloat32))
        shell = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(image) * np.interp(distance, self.nodes_mm, weights).astype(np.float32))
        shell.CopyInformation(image)
        return Projector(shell, self.moving.backend)


class Surroundings:
    """The outermost shell as the whole volume less what lies near the bone: a projector that needs no copy of the volume of its own."""

    def __init__(self, whole: Projector, near: Projector) -> None:
        self.whole, self.near, self.kernels = whole, near, whole.kernels

    def prepare(self, axes: tuple[int, ...] = (0, 1, 2)) -> None:
        """As a projector's."""
        self.whole.prepare(axes)
        self.near.prepare(axes)

    @property
    def _matrix(self) -> np.ndarray:
        return self.whole._matrix

    def project(self, view: CArmView, pose: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None) -> np.ndarray:
        """As a projector's."""
        return self.whole.project(view, pose, mask, distances) - self.near.project(view, pose, mask, distances)

    def project_with_jacobian(
        self, view: CArmView, pose: np.ndarray, center_mm: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As a projector's."""
        all_of_it, jacobian = self.whole.project_with_jacobian(view, pose, center_mm, mask, distances)
        near, near_jacobian = self.near.project_with_jacobian(view, pose, center_mm, mask, distances)
        return all_of_it - near, jacobian - near_jacobian


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
