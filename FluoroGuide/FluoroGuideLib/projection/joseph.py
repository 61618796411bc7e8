"""Digitally reconstructed radiographs: line integrals of a volume seen by a C-arm view, and their pose derivative."""

from __future__ import annotations

import importlib.util

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.frames import lps_from_ijk

PADDING = 2  # voxels of zeros on every side, so that bilinear samples need no border test
LEVELS_8BIT = 255
ROUNDING = 0.02
"""Voxels by which what is not zero is taken to be larger, so that no sample is lost to rounding."""

# array axes (k, a, b) as index axes (i=0, j=1, k=2) for each main axis; b is the fastest axis of the transposed copy
_ORDER = {0: (0, 1, 2), 1: (1, 2, 0), 2: (2, 1, 0)}


def have_numba() -> bool:
    """True where numba is installed (it is optional inside Slicer)."""
    return importlib.util.find_spec("numba") is not None


def kernels(name: str = "auto") -> object:
    """The kernel module: ``"numba"``, ``"numpy"`` or ``"auto"`` (numba where installed)."""
    if name not in ("auto", "numba", "numpy"):
        raise FluoroGuideError("Unknown projector backend", name, "Choose auto, numba or numpy.")
    if name == "numba" or (name == "auto" and have_numba()):
        if not have_numba():
            raise FluoroGuideError("The fast projector needs the Python package numba", None, "Install numba or choose the numpy backend.")
        from . import numba_kernels

        return numba_kernels
    from . import numpy_kernels

    return numpy_kernels


def pixel_distances(view: CArmView) -> np.ndarray:
    """Distance in mm from the source to every pixel centre, float32 (rows, columns)."""
    column, row = np.arange(view.columns)[None], np.arange(view.rows)[:, None]
    along = zip(view.first_pixel_mm - view.source_mm, view.column_step_mm, view.row_step_mm, strict=True)
    squares = [(first + column * across + row * down) ** 2 for first, across, down in along]
    return np.sqrt(squares[0] + squares[1] + squares[2]).astype(np.float32)


class Projector:
    """A volume prepared for projection.

    Parameters
    ----------
    image
        3-D SimpleITK image of linear attenuation, 1/mm, not negative; any orientation.
    backend
        ``"auto"``, ``"numba"`` or ``"numpy"``.

    Attenuation is stored in 255 steps of its maximum; the rounding error averages out along a ray (measured against
    closed forms in ``test_projection_joseph.py``).
    """

    def __init__(self, image: object, backend: str = "auto") -> None:
        import SimpleITK as sitk

        values = sitk.GetArrayViewFromImage(image)
        maximum = float(values.max())
        if not np.isfinite(maximum) or maximum <= 0:
            raise FluoroGuideError("The volume attenuates nothing", f"maximum {maximum:g} 1/mm", "Check its units (HU for CT).")
        self.kernels = kernels(backend)
        self.count = 0
        self._scale = np.float32(maximum / LEVELS_8BIT)
        self._values, offset = _quantised(values, maximum)
        index_from_lps = inverse_affine(lps_from_ijk(image))
        self._matrix = index_from_lps[:3, :3]
        self._offset = index_from_lps[:3, 3] + PADDING - offset
        self._packed: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def prepare(self, axes: tuple[int, ...] = (0, 1, 2)) -> None:
        """Build the transposed copies for these main axes now instead of at first use."""
        for axis in axes:
            self._get(axis)

    def _get(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """The copy for a main axis, and the slabs that hold all of it."""
        if axis not in self._packed:
            order = tuple(2 - i for i in _ORDER[axis])  # numpy arrays are [k, j, i]
            packed = _packed_2x2(np.ascontiguousarray(self._values.transpose(order)))
            self._packed[axis] = packed, _slabs(packed)
        return self._packed[axis]

    def _index_geometry(self, view: CArmView, pose: np.ndarray) -> tuple[int, list[np.ndarray], np.ndarray]:
        """Main axis; source, first pixel, column and row step in (k, a, b) index units; the rotation part so ordered."""
        rotation = self._matrix @ pose[:3, :3].T
        vectors = np.array((view.source_mm, view.first_pixel_mm, view.column_step_mm, view.row_step_mm)) @ rotation.T
        vectors[:2] += self._offset - rotation @ pose[:3, 3]
        source, first, columns, rows = vectors
        middle = first + columns * ((view.columns - 1) / 2) + rows * ((view.rows - 1) / 2) - source
        axis = int(np.abs(middle).argmax())
        return axis, list(vectors.take(_ORDER[axis], axis=1)), rotation.take(_ORDER[axis], axis=0)

    def project(self, view: CArmView, pose: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None) -> np.ndarray:
        """Line integrals (rows, columns), float32, dimensionless.

        Parameters
        ----------
        view, pose
            C-arm view in the isocentre frame and the pose volume LPS -> isocentre LPS (4x4).
        mask
            uint8 (rows, columns); rays with 0 are skipped and give 0.
        distances
            :func:`pixel_distances` of the view, to save computing them again.
        """
        axis, geometry, _ = self._index_geometry(view, pose)
        mask, distances = _defaults(view, mask, distances)
        out = np.empty((view.rows, view.columns), np.float32)
        self.kernels.joseph(*self._get(axis), self._scale, *geometry, distances, mask, out)
        self.count += 1
        return out

    def project_with_jacobian(
        self, view: CArmView, pose: np.ndarray, center_mm: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Line integrals and d/d(rx, ry, rz, tx, ty, tz), float32 (6, rows, columns), per rad and per mm.

        The perturbation acts from the left, about ``center_mm`` in the isocentre frame (:mod:`geometry.rigid`).
        """
        axis, geometry, rotation = self._index_geometry(view, pose)
        mask, distances = _defaults(view, mask, distances)
        world = np.array([view.source_mm - center_mm, view.first_pixel_mm - view.source_mm, view.column_step_mm, view.row_step_mm])
        out = np.empty((view.rows, view.columns), np.float32)
        jacobian = np.empty((6, view.rows, view.columns), np.float32)
        self.kernels.joseph_jacobian(*self._get(axis), self._scale, *geometry, distances, mask, rotation, world, out, jacobian)
        self.count += 1
        return out, jacobian


def inverse_affine(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a 4x4 affine matrix."""
    return np.linalg.inv(matrix)


def _defaults(view: CArmView, mask: np.ndarray | None, distances: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.ones((view.rows, view.columns), np.uint8) if mask is None else mask,
        pixel_distances(view) if distances is None else distances,
    )


def _quantised(values: np.ndarray, maximum: float) -> tuple[np.ndarray, np.ndarray]:
    """uint8 copy cropped to what is not zero and padded, [k, j, i], and the (i, j, k) index of its first unpadded voxel."""
    steps = np.round(np.clip(values, 0, None) * (LEVELS_8BIT / maximum)).astype(np.uint8)
    box = []
    for axis in range(3):
        used = np.nonzero(steps.any(axis=tuple(a for a in range(3) if a != axis)))[0]
        box.append(slice(used[0], used[-1] + 1))
    first = np.array([b.start for b in box[::-1]], float)
    return np.pad(steps[tuple(box)], PADDING), first


def _packed_2x2(values: np.ndarray) -> np.ndarray:
    """uint32 [k, a, b] holding the values at (a, b), (a, b + 1), (a + 1, b), (a + 1, b + 1) from the low byte up."""
    packed = values.astype(np.uint32)
    packed[:, :, :-1] |= values[:, :, 1:].astype(np.uint32) << 8
    packed[:, :-1, :] |= values[:, 1:, :].astype(np.uint32) << 16
    packed[:, :-1, :-1] |= values[:, 1:, 1:].astype(np.uint32) << 24
    return packed


def _slabs(packed: np.ndarray) -> np.ndarray:
    """Least and greatest k + a, k - a, k + b and k - b of all that is not zero in a packed copy [k, a, b]: float32 (4, 2), index units.

    A body is rounder than the box around it; with these every ray skips most of the box's corners.
    """
    bounds = np.tile([np.inf, -np.inf], (4, 1))
    for k, words in enumerate(packed):
        for n, axis in ((0, 1), (2, 0)):
            used = np.flatnonzero(words.any(axis=axis))
            if len(used):
                low, high = used[0] - ROUNDING, used[-1] + 1 + ROUNDING  # a word goes as far as the next voxel
                for m, (least, most) in enumerate(((k + low, k + high), (k - high, k - low))):
                    bounds[n + m] = min(bounds[n + m, 0], least), max(bounds[n + m, 1], most)
    return bounds.astype(np.float32)
