"""The moving volume at the resolutions a registration needs, and what lies beyond a truncated scan."""

from __future__ import annotations

import numpy as np

from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM, AttenuationVolume
from ..projection.joseph import Projector

BODY_PER_MM = 0.25 * WATER_ATTENUATION_PER_MM
"""Attenuation above which a voxel at the scan's border says that the body goes on beyond it."""
SLAB_BYTES = 64 * 2**20
"""Size of the pieces in which a volume is resampled."""
UNKNOWN_REACH_MM = 250.0
"""How far the body is taken to continue beyond the scan."""


def resampled(image: object, spacing_mm: float) -> object:
    """SimpleITK image on an isotropic grid, smoothed first along axes that become coarser; outside is 0.

    One axis after the other, the one that shrinks most first, in slabs: a full-size copy is never made.
    """
    size, old = np.asarray(image.GetSize()), np.asarray(image.GetSpacing())
    counts = np.maximum(1, np.floor((size - 1) * old / spacing_mm).astype(int) + 1)
    for axis in np.argsort(counts / size):
        image = _resampled_along(image, int(axis), spacing_mm, int(counts[axis]))
    return image


def _resampled_along(image: object, axis: int, spacing_mm: float, count: int) -> object:
    """The image with another spacing along one axis: linear interpolation is separable, so three of these are one resampling."""
    import SimpleITK as sitk

    across = 1 if axis == 2 else 2  # slabs along another axis do not need their neighbours
    size, spacing = list(image.GetSize()), list(image.GetSpacing())
    smooth = spacing_mm > 1.2 * spacing[axis]
    step = max(1, int(SLAB_BYTES / 4 / (np.prod([float(n) for n in size]) / size[across])))
    spacing[axis] = float(spacing_mm)
    new_size = list(size)
    new_size[axis] = count
    values = np.empty(new_size[::-1], np.float32)
    for first in range(0, size[across], step):
        index, part_size = [0, 0, 0], list(size)
        index[across], part_size[across] = first, min(step, size[across] - first)
        part = sitk.RegionOfInterest(image, part_size, index)
        if smooth:
            part = sitk.RecursiveGaussian(part, 0.42 * spacing_mm, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
        part_size[axis] = count
        part = sitk.Resample(
            part, part_size, sitk.Transform(), sitk.sitkLinear, part.GetOrigin(), spacing, part.GetDirection(), 0.0, sitk.sitkFloat32,
        )
        place = [slice(None)] * 3
        place[2 - across] = slice(first, first + part_size[across])
        values[tuple(place)] = sitk.GetArrayViewFromImage(part)
    result = sitk.GetImageFromArray(values)
    result.SetOrigin(image.GetOrigin())
    result.SetSpacing(spacing)
    result.SetDirection(image.GetDirection())
    return result


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
