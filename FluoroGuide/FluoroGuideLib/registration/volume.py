"""The moving volume at the resolutions a registration needs, and what lies beyond a truncated scan."""

from __future__ import annotations

import numpy as np

from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM, AttenuationVolume
from ..projection.joseph import Projector

BODY_PER_MM = 0.25 * WATER_ATTENUATION_PER_MM
"""Attenuation above which a voxel at the scan's border says that the body goes on beyond it."""
UNKNOWN_REACH_MM = 250.0
"""How far the body is taken to continue beyond the scan."""


def resampled(image: object, spacing_mm: float) -> object:
    """SimpleITK image on an isotropic grid, smoothed first along axes that become coarser; outside is 0."""
    import SimpleITK as sitk

    old = np.asarray(image.GetSpacing())
    size = np.maximum(1, np.floor((np.asarray(image.GetSize()) - 1) * old / spacing_mm).astype(int) + 1)
    for axis in range(3):
        if spacing_mm > 1.2 * old[axis]:
            image = sitk.RecursiveGaussian(image, 0.42 * spacing_mm, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    return sitk.Resample(
        image, [int(n) for n in size], sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [float(spacing_mm)] * 3,
        image.GetDirection(), 0.0, sitk.sitkFloat32,
    )


def unknown_beyond(image: object, spacing_mm: float = 6.0) -> object | None:
    """Where the body goes on outside the scan: 1 there, 0 in the scan and in air; None when nothing is cut off.

    Border voxels that attenuate are continued straight outwards by ``UNKNOWN_REACH_MM``.
    """
    import SimpleITK as sitk

    # nearest neighbours on a grid whose first and last samples are the scan's own border voxels: smoothing would let a
    # body that ends just inside the scan look cut off
    old, count = np.asarray(image.GetSpacing()), np.asarray(image.GetSize())
    size = np.maximum(2, np.ceil((count - 1) * old / spacing_mm).astype(int) + 1)
    small = sitk.Resample(
        image, [int(n) for n in size], sitk.Transform(), sitk.sitkNearestNeighbor, image.GetOrigin(),
        ((count - 1) * old / (size - 1)).tolist(), image.GetDirection(), 0.0, sitk.sitkFloat32,
    )
    body = sitk.GetArrayFromImage(small) > BODY_PER_MM
    faces = [(axis, side) for axis in range(3) for side in (0, -1) if np.take(body, side, axis).mean() > 0.02]
    if not faces:
        return None
    reach = int(np.ceil(UNKNOWN_REACH_MM / spacing_mm))
    pad = [[0, 0], [0, 0], [0, 0]]
    for axis, side in faces:
        pad[axis][1 if side else 0] = reach
    beyond = np.pad(body, pad, mode="edge")
    beyond[tuple(slice(p[0], p[0] + n) for p, n in zip(pad, body.shape, strict=True))] = False
    result = sitk.GetImageFromArray(beyond.astype(np.float32))
    result.SetSpacing(small.GetSpacing())
    result.SetDirection(small.GetDirection())
    result.SetOrigin(small.TransformContinuousIndexToPhysicalPoint([-float(pad[2 - axis][0]) for axis in range(3)]))
    return result


class MovingVolume:
    """Projectors of one volume, one per resolution, made when first asked for and kept."""

    def __init__(self, volume: AttenuationVolume, backend: str = "auto") -> None:
        self.volume, self.backend = volume, backend
        self._projectors: dict[float, Projector] = {}
        self._beyond: list[Projector | None] = []

    def projector(self, spacing_mm: float) -> Projector:
        """The whole volume at ``spacing_mm`` (never finer than the scan itself)."""
        finest = min(self.volume.image.GetSpacing())
        spacing_mm = max(spacing_mm, finest)
        if spacing_mm not in self._projectors:
            self._projectors[spacing_mm] = Projector(resampled(self.volume.image, spacing_mm), self.backend)
        return self._projectors[spacing_mm]

    def beyond(self) -> Projector | None:
        """Projector of the unknown body beyond a truncated scan, or None."""
        if not self._beyond:
            image = unknown_beyond(self.volume.image)
            self._beyond.append(None if image is None else Projector(image, self.backend))
        return self._beyond[0]

    @property
    def projections(self) -> int:
        """Number of DRRs rendered so far."""
        others = [p for p in self._beyond if p is not None]
        return sum(p.count for p in [*self._projectors.values(), *others])
