"""Ellipsoids and elliptic cylinders: exact line integrals, voxels, and the slow obvious reference.

The density at a point is the **sum** of the increments of all shapes that hold it.  Line integrals, voxels and the
reference share this one rule, so they describe the same object whatever overlaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..geometry.carm import CArmView


@dataclass(frozen=True, eq=False)
class Shape:
    """An ellipsoid or a finite elliptic cylinder.

    Attributes
    ----------
    kind
        ``"ellipsoid"`` or ``"cylinder"`` (its third local axis is the cylinder's axis).
    center_lps_mm
        Centre (3,).
    axes
        3x3 rotation; its columns are the local axes in LPS.
    semi_axes_mm
        (3,): semi-axes; for a cylinder the third is half its length.
    soft, bone
        Increments of density relative to water: attenuation as soft tissue and as bone mineral.
    bone_name, part_name
        What the shape belongs to (``"L4"``, ``"L4 pedicle left"``); empty where it has no label.
    """

    kind: str
    center_lps_mm: np.ndarray
    axes: np.ndarray
    semi_axes_mm: np.ndarray
    soft: float = 0.0
    bone: float = 0.0
    bone_name: str = ""
    part_name: str = field(default="")

    @property
    def half_extent_mm(self) -> np.ndarray:
        """Half size (3,) of the bounding box along LPS."""
        scaled = np.abs(self.axes * self.semi_axes_mm)
        if self.kind == "cylinder":
            return np.hypot(scaled[:, 0], scaled[:, 1]) + scaled[:, 2]
        return np.sqrt((scaled**2).sum(1))

    def corners_lps_mm(self) -> np.ndarray:
        """Corners (8, 3) of the oriented bounding box."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
        return self.center_lps_mm + (signs * self.semi_axes_mm) @ self.axes.T

    def normalized(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Points (..., 3) in local coordinates divided by the semi-axes."""
        return ((points_lps_mm - self.center_lps_mm) @ self.axes) / self.semi_axes_mm

    def contains(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Whether points (..., 3) lie inside."""
        q = self.normalized(points_lps_mm)
        if self.kind == "cylinder":
            return (q[..., 0] ** 2 + q[..., 1] ** 2 <= 1) & (np.abs(q[..., 2]) <= 1)
        return (q**2).sum(-1) <= 1


def path_length(shape: Shape, view_lps: CArmView) -> tuple[np.ndarray, slice, slice] | None:
    """Length in mm of every ray (source to pixel) inside a shape; only the block of pixels that can see it.

    Parameters
    ----------
    view_lps
        The view in the shape's frame (``view.in_volume(pose)``).

    Returns
    -------
    (lengths (rows, columns) of the block, row slice, column slice), or None when the shape misses the image.
    """
    rows, columns = _visible_block(shape, view_lps)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return None
    c = np.arange(columns.start, columns.stop, dtype=float)[None, :]
    r = np.arange(rows.start, rows.stop, dtype=float)[:, None]
    origin = shape.normalized(view_lps.source_mm)
    first = ((view_lps.first_pixel_mm - view_lps.source_mm) @ shape.axes) / shape.semi_axes_mm
    along_c = (view_lps.column_step_mm @ shape.axes) / shape.semi_axes_mm
    along_r = (view_lps.row_step_mm @ shape.axes) / shape.semi_axes_mm
    q = [first[i] + c * along_c[i] + r * along_r[i] for i in range(3)]
    start, stop = _interval(origin, q, shape.kind)
    ray = [view_lps.first_pixel_mm[i] - view_lps.source_mm[i] + c * view_lps.column_step_mm[i] + r * view_lps.row_step_mm[i] for i in range(3)]
    length = np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    return np.clip(np.minimum(stop, 1.0) - np.maximum(start, 0.0), 0.0, None) * length, rows, columns


def _interval(origin: np.ndarray, q: Sequence[np.ndarray], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Ray parameters (start, stop) inside the unit ellipsoid or cylinder; start > stop where the ray misses."""
    round_axes = (0, 1) if kind == "cylinder" else (0, 1, 2)
    a = sum(q[i] ** 2 for i in round_axes)
    b = sum(q[i] * origin[i] for i in round_axes)
    c = sum(origin[i] ** 2 for i in round_axes) - 1.0
    discriminant = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(discriminant, 0.0))
        start, stop = (-b - root) / a, (-b + root) / a
    parallel = a < 1e-18  # a ray along the cylinder's axis is inside for good or never
    start = np.where(parallel, -np.inf if c <= 0 else np.inf, np.where(discriminant > 0, start, np.inf))
    stop = np.where(parallel, np.inf if c <= 0 else -np.inf, np.where(discriminant > 0, stop, -np.inf))
    if kind == "cylinder":
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = (-1.0 - origin[2]) / q[2], (1.0 - origin[2]) / q[2]
        flat = np.abs(q[2]) < 1e-15
        inside = abs(origin[2]) <= 1
        low = np.where(flat, -np.inf if inside else np.inf, np.minimum(*ends))
        high = np.where(flat, np.inf if inside else -np.inf, np.maximum(*ends))
        start, stop = np.maximum(start, low), np.minimum(stop, high)
    return start, stop


def _visible_block(shape: Shape, view_lps: CArmView) -> tuple[slice, slice]:
    """Rows and columns that may see the shape: the projected bounding box, or all when it reaches the source plane."""
    corners = shape.corners_lps_mm()
    if view_lps.depth_mm(corners).min() <= 1e-6:
        return slice(0, view_lps.rows), slice(0, view_lps.columns)
    pixels = view_lps.project(corners)
    low, high = np.floor(pixels.min(0)).astype(int), np.ceil(pixels.max(0)).astype(int) + 1
    return (slice(max(0, low[1]), min(view_lps.rows, high[1])), slice(max(0, low[0]), min(view_lps.columns, high[0])))


def integrate(shapes: Iterable[Shape], view: CArmView, pose: np.ndarray) -> dict[str, np.ndarray]:
    """Exact line integrals of density, mm of water: ``{"soft", "bone"}``, float32 (rows, columns).

    ``pose`` (4x4) maps the shapes' LPS to the isocentre frame of ``view``.
    """
    view_lps = view.in_volume(pose)
    total = {"soft": np.zeros((view.rows, view.columns)), "bone": np.zeros((view.rows, view.columns))}
    for shape in shapes:
        found = path_length(shape, view_lps)
        if found is None:
            continue
        length, rows, columns = found
        for material in total:
            weight = getattr(shape, material)
            if weight:
                total[material][rows, columns] += weight * length
    return {k: v.astype(np.float32) for k, v in total.items()}


def integrate_slowly(shapes: Sequence[Shape], view: CArmView, pose: np.ndarray, pixels: np.ndarray, step_mm: float = 0.05) -> dict[str, np.ndarray]:
    """The obvious reference: add up the density at points ``step_mm`` apart along the rays of pixels (N, 2)."""
    view_lps = view.in_volume(pose)
    result = {"soft": np.zeros(len(pixels)), "bone": np.zeros(len(pixels))}
    for n, end in enumerate(view_lps.pixel_mm(pixels)):
        ray = end - view_lps.source_mm
        count = int(np.ceil(np.linalg.norm(ray) / step_mm))
        points = view_lps.source_mm + ((np.arange(count) + 0.5) / count)[:, None] * ray
        step = np.linalg.norm(ray) / count
        for shape in shapes:
            hits = np.count_nonzero(shape.contains(points)) * step
            result["soft"][n] += shape.soft * hits
            result["bone"][n] += shape.bone * hits
    return result


def bounds(shapes: Iterable[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (3,) of the box around all shapes, LPS mm."""
    boxes = [(s.center_lps_mm - s.half_extent_mm, s.center_lps_mm + s.half_extent_mm) for s in shapes]
    return np.min([b[0] for b in boxes], 0), np.max([b[1] for b in boxes], 0)


@dataclass(frozen=True)
class Grid:
    """A voxel grid with axes along LPS: first voxel centre, spacing and size in (x, y, z)."""

    origin_lps_mm: np.ndarray
    spacing_mm: np.ndarray
    size: tuple[int, int, int]

    @classmethod
    def around(cls, low_mm: np.ndarray, high_mm: np.ndarray, spacing_mm: float | Sequence[float]) -> Grid:
        """The grid that covers a box with its voxels' outer borders, centred on the box."""
        spacing = np.broadcast_to(np.asarray(spacing_mm, float), 3).copy()
        size = np.maximum(1, np.ceil((high_mm - low_mm) / spacing).astype(int))
        return cls((np.asarray(low_mm) + high_mm) / 2 - spacing * (size - 1) / 2, spacing, tuple(int(n) for n in size))

    def axis(self, i: int) -> np.ndarray:
        """Voxel centres along axis ``i``, mm."""
        return self.origin_lps_mm[i] + self.spacing_mm[i] * np.arange(self.size[i])

    def block(self, shape: Shape) -> tuple[slice, slice, slice]:
        """Index slices (x, y, z) of the voxels that may touch a shape."""
        reach = shape.half_extent_mm + self.spacing_mm
        low = np.floor((shape.center_lps_mm - reach - self.origin_lps_mm) / self.spacing_mm).astype(int)
        high = np.ceil((shape.center_lps_mm + reach - self.origin_lps_mm) / self.spacing_mm).astype(int) + 1
        return tuple(slice(max(0, a), min(n, max(0, b))) for a, b, n in zip(low, high, self.size))

    def image(self, array: np.ndarray) -> object:
        """SimpleITK image of an array ``[k, j, i]`` on this grid."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        image.SetOrigin(self.origin_lps_mm.tolist())
        image.SetSpacing(self.spacing_mm.tolist())
        return image


def occupancy(shape: Shape, grid: Grid, supersampling: int = 3, slab: int = 16) -> Iterable[tuple[tuple[slice, slice, slice], np.ndarray]]:
    """Fraction of each voxel inside a shape, in slabs: ((z, y, x) slices, float32 array).

    Only voxels that the surface may cut are supersampled; the test is conservative, so the result equals brute force.
    """
    xs, ys, zs = grid.block(shape)
    offsets = (np.arange(supersampling) - (supersampling - 1) / 2) / supersampling
    fine = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), -1).reshape(-1, 3) * grid.spacing_mm
    reach = np.linalg.norm(grid.spacing_mm) / 2
    margin = reach / shape.semi_axes_mm.min() if shape.kind == "ellipsoid" else reach / shape.semi_axes_mm[:2].min()
    x, y = grid.axis(0)[xs], grid.axis(1)[ys]
    local = [(p - shape.center_lps_mm[i])[:, None] * shape.axes[i] / shape.semi_axes_mm for i, p in enumerate((x, y))]
    for first in range(zs.start, zs.stop, slab):
        k = slice(first, min(first + slab, zs.stop))
        z = grid.axis(2)[k]
        up = (z - shape.center_lps_mm[2])[:, None] * shape.axes[2] / shape.semi_axes_mm
        q = [up[:, None, None, n] + local[1][None, :, None, n] + local[0][None, None, :, n] for n in range(3)]
        if shape.kind == "cylinder":
            radius, height = np.sqrt(q[0] ** 2 + q[1] ** 2), np.abs(q[2])
            limit = reach / shape.semi_axes_mm[2]
            sure, maybe = (radius <= 1 - margin) & (height <= 1 - limit), (radius < 1 + margin) & (height < 1 + limit)
        else:
            radius = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
            sure, maybe = radius <= 1 - margin, radius < 1 + margin
        part = sure.astype(np.float32)
        cut = np.argwhere(maybe & ~sure)
        for some in np.array_split(cut, max(1, len(cut) * len(fine) // 4_000_000 + 1)):
            centers = np.stack([x[some[:, 2]], y[some[:, 1]], z[some[:, 0]]], -1)
            part[tuple(some.T)] = shape.contains(centers[:, None, :] + fine).mean(1)
        yield (k, ys, xs), part


def voxelize(shapes: Iterable[Shape], grid: Grid, supersampling: int = 3) -> np.ndarray:
    """Density relative to water (soft + bone), float32 ``[k, j, i]``."""
    density = np.zeros(grid.size[::-1], np.float32)
    for shape in shapes:
        weight = shape.soft + shape.bone
        if weight:
            for where, part in occupancy(shape, grid, supersampling):
                density[where] += weight * part
    return density
