"""The moving volume at the resolutions a registration needs, and what lies beyond a truncated scan."""

from __future__ import annotations

import numpy as np

from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM, AttenuationVolume
from ..geometry.carm import CArmView
from ..projection.joseph import Projector

BODY_PER_MM = 0.25 * WATER_ATTENUATION_PER_MM
"""Attenuation above which a voxel at the scan's border says that the body goes on beyond it."""
FIELD_SHARE = 0.97
"""Radius of a round field of view, as a part of the smaller half side, at which the body is looked for."""
CUT_SHARE = 0.25
"""Part of the field's border that must lie in the body for it to count as cut: a narrow field may reach beyond the skin on one side."""
NEAR_SHARE, BEYOND_SHARE = 0.85, 1.03
"""Part of the radius from which the body's end is looked for, and beyond which a body goes on that no field cut."""
SAME_END_SHARE = 0.5
"""Part of the directions in which a body that ends near the border must end at the same distance from the axis: it was cut there."""
VOID_VOXELS, AIR_SHARE = 2.5, 0.2
"""Voxels beyond a field's border from which on there is nothing; part of them that differs from the rest when it is air instead."""
NARROW_SHARE = 0.85
"""Rays that pass the axis of a narrow field farther away than this part of its radius are not compared: little of their way is known."""
ENDS_MM = 45.0
"""How far the ends of a narrow field are continued."""
DIRECTIONS, SHELL_MM = 180, 3.0
"""Directions around a narrow field, and distance between the shells, in which its sides are continued."""
KEPT_MM = 1.5
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


def unknown_beyond(image: object, spacing_mm: float = 6.0, sides: bool = True) -> object | None:
    """Where the body goes on outside the scan: 1 there, 0 in the scan and in air; None when nothing is cut off.

    Border voxels that attenuate are continued straight outwards by ``UNKNOWN_REACH_MM``; without ``sides`` only along the
    third axis.
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
    faces = [(axis, side) for axis in range(3 if sides else 1) for side in (0, -1) if np.take(body, side, axis).mean() > 0.02]
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


def is_cut_at_the_sides(image: object) -> bool:
    """Whether a field of view narrower than the body cut it off (CBCT, a reconstruction zoomed in): body along the inscribed circle that
    ends there, everywhere at the same distance from the axis, as skin does not, and beyond it nothing but one value.

    Around a body, however round, lies air, with its noise: what lies beyond a field was never reconstructed.  (A perfect circle of water in
    a perfect void can be either.)  The third index axis is taken as the field's axis, as scanners and C-arms write their slices.
    """
    import SimpleITK as sitk

    size, spacing = np.asarray(image.GetSize(), float), np.asarray(image.GetSpacing())
    values = sitk.GetArrayViewFromImage(image)[values_between(int(size[2]))]
    body = values > BODY_PER_MM
    radius = (size[:2] * spacing[:2]).min() / 2
    voxel = 0.75 * spacing[:2].max() / radius
    beyond = max(BEYOND_SHARE, 1.0 + voxel)
    shares = np.arange(NEAR_SHARE, beyond + 0.031, 0.01)
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    i, j = (
        np.rint((size[n] - 1) / 2 + radius / spacing[n] * shares[:, None] * turn(angle)).astype(int) for n, turn in ((0, np.cos), (1, np.sin)))
    inside = (i >= 0) & (j >= 0) & (i < size[0]) & (j < size[1])
    seen = body[:, np.clip(j, 0, int(size[1]) - 1), np.clip(i, 0, int(size[0]) - 1)] & inside  # slices, distances, angles
    end = np.where(seen.any(1), shares[len(shares) - 1 - np.argmax(seen[:, ::-1], axis=1)], 0.0)  # where the body ends in each direction
    at_border = end > FIELD_SHARE - 0.03
    told = inside[-3:].all(0)  # directions in which the volume has something beyond the circle
    if at_border.mean() < CUT_SHARE or (end[:, told] > beyond).sum() > 0.05 * at_border[:, told].sum():
        return False
    border = np.median(end[at_border])
    off = np.abs(end - border) < max(0.016, voxel)
    if off.sum() <= SAME_END_SHARE * (end >= NEAR_SHARE).sum():
        return False
    x, y = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(size[:2], spacing[:2], strict=True))
    outside = values[:, np.hypot(y[:, None], x[None, :]) > border * radius + VOID_VOXELS * spacing[:2].max()]
    return outside.size == 0 or bool(np.mean(outside != np.median(outside)) < AIR_SHARE)


def values_between(count: int, number: int = 9) -> np.ndarray:
    """Indices of ``number`` slices spread over the middle four fifths of ``count``."""
    return np.unique(np.linspace(0.1 * (count - 1), 0.9 * (count - 1), number).astype(int))


def continued_sideways(image: object, reach_mm: float = 90.0) -> object:
    """The volume with its soft tissue continued outwards from the field's border, so that the border is no edge in a projection.

    What lies beyond the inscribed circle is the harmonic function that meets the values there (without bone): the smoothest continuation,
    in which what is small (noise, streaks, a rib) soon fades, and only what is large goes on.  The ends are continued a little too: a
    slanted ray leaves the continued sides there long before it leaves the field itself.
    """
    import SimpleITK as sitk

    size, spacing = np.asarray(image.GetSize()), np.asarray(image.GetSpacing())
    radius = FIELD_SHARE * (size[:2] * spacing[:2]).min() / 2
    old, pad = sitk.GetArrayFromImage(image), np.ceil(reach_mm / spacing[:2]).astype(int)
    x = (np.arange(-pad[0], size[0] + pad[0]) - (size[0] - 1) / 2) * spacing[0]
    y = (np.arange(-pad[1], size[1] + pad[1]) - (size[1] - 1) / 2) * spacing[1]
    distance = np.hypot(y[:, None], x[None, :])
    outside = distance > radius
    angle = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    back = radius - 3.0
    i = np.rint((size[0] - 1) / 2 + back / spacing[0] * np.cos(angle)).astype(int)
    j = np.rint((size[1] - 1) / 2 + back / spacing[1] * np.sin(angle)).astype(int)
    shells = _harmonic(np.minimum(old[:, j, i], 1.1 * WATER_ATTENUATION_PER_MM), radius, float(distance.max()), spacing[2])
    where = np.rint(np.arctan2(y[:, None], x[None, :])[outside] / (2 * np.pi) * DIRECTIONS).astype(int) % DIRECTIONS
    shell = np.rint((distance[outside] - radius) / SHELL_MM).astype(int)
    values = np.pad(old, ((0, 0), (pad[1], pad[1]), (pad[0], pad[0])))
    values[:, outside] = shells[:, where, shell]
    ends = int(np.ceil(ENDS_MM / spacing[2]))
    values = np.pad(values, ((ends, ends), (0, 0), (0, 0)), mode="edge")
    result = sitk.GetImageFromArray(values)
    result.SetSpacing(image.GetSpacing())
    result.SetDirection(image.GetDirection())
    result.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([-float(pad[0]), -float(pad[1]), -float(ends)]))
    return result


def _harmonic(ring: np.ndarray, radius_mm: float, last_mm: float, step_mm: float) -> np.ndarray:
    """Values (slices, directions, shells) around a cylinder whose surface has the values ``ring`` (slices, directions).

    The mode that repeats m times around the axis falls off as r^-m, one of wave number k along it about as exp(-k r) (the exact Bessel
    function does so where k r is large; where it is small the mode hardly varies at all).  Shells are ``SHELL_MM`` apart.
    """
    slices, directions = ring.shape
    modes = np.fft.rfft2(np.concatenate([ring, ring[::-1]]))  # mirrored at the ends, so that first and last slice do not meet
    along = 2 * np.pi * np.abs(np.fft.fftfreq(2 * slices, step_mm))[:, None]
    around = np.arange(modes.shape[1])[None]
    away = np.arange(0.0, last_mm - radius_mm + 2 * SHELL_MM, SHELL_MM)
    shells = [np.fft.irfft2(modes * (radius_mm / (radius_mm + a)) ** around * np.exp(-along * a), (2 * slices, directions))[:slices] for a in away]
    return np.stack(shells, -1).astype(np.float32)


class Unknown:
    """Rays about which a scan says too little: they meet body beyond its ends, or pass a narrow round field far from its axis.

    Parameters
    ----------
    ends
        Projector of the body beyond the ends, or None.
    image
        The scan, whose third axis is the field's.
    """

    def __init__(self, ends: Projector | None, image: object) -> None:
        matrix = np.reshape(image.GetDirection(), (3, 3))
        size, spacing = np.asarray(image.GetSize()), np.asarray(image.GetSpacing())
        self.ends, self.axes = ends, matrix[:, :2]
        self.center = np.array(image.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist()))
        self.reach = NARROW_SHARE * (size[:2] * spacing[:2]).min() / 2

    @property
    def count(self) -> int:
        """Projections rendered."""
        return 0 if self.ends is None else self.ends.count

    def project(self, view: CArmView, pose: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None) -> np.ndarray:
        """Above 0 where a ray is unknown (rows, columns); arguments as for a projector."""
        result = np.zeros((view.rows, view.columns), np.float32) if self.ends is None else self.ends.project(view, pose, mask, distances)
        own = view.in_volume(pose)
        source = (own.source_mm - self.center) @ self.axes
        first, column, row = ((v @ self.axes) for v in (own.first_pixel_mm - own.source_mm, own.column_step_mm, own.row_step_mm))
        x, y = (first[n] + column[n] * np.arange(view.columns)[None] + row[n] * np.arange(view.rows)[:, None] for n in (0, 1))
        beside = np.abs(x * source[1] - y * source[0]) / np.maximum(np.hypot(x, y), 1e-6)
        return np.where(beside > self.reach, 1.0, result)


class MovingVolume:
    """Projectors of one volume, one per resolution, made when first asked for and kept.

    Attributes
    ----------
    volume
        As given.
    image
        What is projected: the volume, continued where a narrow field of view cut the body off at its sides.
    shows_bone
        Whether bone in it looks as in an X-ray, so that a bone that is hardly recognised is doubted.
    """

    shows_bone = True

    def __init__(self, volume: AttenuationVolume, backend: str = "auto") -> None:
        self.volume, self.backend = volume, backend
        self.cut_at_the_sides = is_cut_at_the_sides(volume.image)
        self.image = continued_sideways(volume.image) if self.cut_at_the_sides else volume.image
        self._resampled: dict[float, object] = {}
        self._projectors: dict[float, Projector] = {}
        self._beyond: list[Projector | Unknown | None] = []

    def projector(self, spacing_mm: float) -> Projector:
        """The whole volume at ``spacing_mm`` (never finer than the scan itself)."""
        finest = min(self.volume.image.GetSpacing())
        spacing_mm = max(spacing_mm, finest)
        if spacing_mm not in self._projectors:
            self._projectors[spacing_mm] = Projector(self.resampled(spacing_mm), self.backend)
        return self._projectors[spacing_mm]

    def resampled(self, spacing_mm: float) -> object:
        """The volume on an isotropic grid; 1.5 mm is kept, for the parts share it."""
        if spacing_mm in self._resampled:
            return self._resampled[spacing_mm]
        image = resampled(self.image, spacing_mm)
        if spacing_mm == KEPT_MM:
            self._resampled[spacing_mm] = image
        return image

    def beyond(self) -> Projector | Unknown | None:
        """Projector of the unknown body beyond a truncated scan, or None."""
        if not self._beyond:
            image = unknown_beyond(self.volume.image, sides=not self.cut_at_the_sides)  # rays through the field itself must be known
            ends = None if image is None else Projector(image, self.backend)
            self._beyond.append(Unknown(ends, self.volume.image) if self.cut_at_the_sides else ends)
        return self._beyond[0]

    @property
    def shows_a_part(self) -> bool:
        """Whether X-rays of the body show much that the volume does not: a narrow field of CT or CBCT."""
        return self.cut_at_the_sides and self.shows_bone

    @property
    def projections(self) -> int:
        """Number of DRRs rendered so far."""
        others = [p for p in self._beyond if p is not None]
        return sum(p.count for p in [*self._projectors.values(), *others])
