"""Virtual fluoroscopy: what a C-arm position would show, fast while the C-arm is dragged and in full quality when it rests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .joseph import Projector, pixel_distances

DRAG_SPACING_MM = 2.0
"""Voxel size while dragging: three pixels of 256 x 256 at the isocentre, and four fifths of a usual slice."""
BLOCK_ROWS = 16
SLOW_SHARE = 0.7
"""How much of the slow change across a picture its display leaves out."""


class VirtualFluoroscopy:
    """DRRs of one volume.

    Parameters
    ----------
    image
        3-D SimpleITK image of linear attenuation, 1/mm (:attr:`AttenuationVolume.image`).
    threads
        How many work on one picture; all processors by default.  The compiled kernels let other threads run.
    backend
        As :class:`Projector` takes it.
    """

    def __init__(self, image: object, threads: int | None = None, backend: str = "auto") -> None:
        import SimpleITK as sitk

        factor = [max(1, round(DRAG_SPACING_MM / s)) for s in image.GetSpacing()]
        # Voxels between 1.3 and 2 mm cannot be thinned out by whole numbers: they are resampled.
        coarse = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factor) if max(factor) > 1 else _resampled(image)
        self.threads = max(1, threads or os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="drr") if self.threads > 1 else None
        self._image, self._backend = image, backend
        self._projectors: dict[str, Projector] = {"drag": Projector(coarse, backend)}

    def _projector(self, quality: str) -> Projector:
        if quality not in ("drag", "still"):
            raise FluoroGuideError("Unknown quality of virtual fluoroscopy", quality, "Choose drag or still")
        if quality not in self._projectors:
            self._projectors[quality] = Projector(self._image, self._backend)
        return self._projectors[quality]

    def prepare(self) -> None:
        """Build what both qualities need, and compile, before the first picture is wanted."""
        for quality in ("drag", "still"):
            self._projector(quality).prepare()
        small = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=700, rows=2, columns=2, pixel_spacing_mm=(100, 100))
        self.image(small, quality="drag")

    def image(self, view: CArmView, pose: np.ndarray | None = None, quality: str = "still") -> np.ndarray:
        """Line integrals (rows, columns), float32, dimensionless.

        Parameters
        ----------
        view, pose
            View and pose volume LPS -> frame of the view; a view in the volume's own frame needs no pose.
        quality
            ``drag`` (about 2 mm voxels) or ``still`` (the volume's own).
        """
        projector = self._projector(quality)
        axis, (source, first, columns, rows), _ = projector._index_geometry(view, np.eye(4) if pose is None else pose)
        packed, slabs = projector._get(axis)
        out, distances = np.empty((view.rows, view.columns), np.float32), pixel_distances(view)
        mask = np.ones(out.shape, np.uint8)

        def block(start: int) -> None:
            end = min(start + BLOCK_ROWS, view.rows)
            projector.kernels.joseph(packed, slabs, projector._scale, source, first + start * rows, columns, rows, distances[start:end],
                                     mask[start:end], out[start:end])

        starts = range(0, view.rows, BLOCK_ROWS)
        for _ in map(block, starts) if self._pool is None else self._pool.map(block, starts):
            pass  # wait for all, and raise what went wrong in one
        return out

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown()


def _resampled(image: object) -> object:
    import SimpleITK as sitk

    spacing = np.maximum(image.GetSpacing(), DRAG_SPACING_MM)
    size = np.ceil(np.asarray(image.GetSize()) * image.GetSpacing() / spacing).astype(int)
    shift = np.reshape(image.GetDirection(), (3, 3)) @ ((spacing - image.GetSpacing()) / 2)
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(image, sitk.sitkFloat32), [float(s) / 2 for s in spacing])
    origin = (np.asarray(image.GetOrigin()) + shift).tolist()
    return sitk.Resample(sitk.Clamp(smooth, sitk.sitkFloat32, 0.0, 1e3), size.tolist(), sitk.Transform(), sitk.sitkLinear, origin,
                         spacing.tolist(), image.GetDirection(), 0.0)


def displayed(line_integrals: np.ndarray, dark_bone: bool = True) -> np.ndarray:
    """uint8 picture (rows, columns) of line integrals, as a fluoroscope shows them: bone dark (or bright), air bright (or dark).

    As fluoroscopes do, most of the slow change across the picture (thick against thin parts of the body) is taken off;
    what is left fills the window from its 5th to 99.5th percentile.
    """
    from scipy.ndimage import uniform_filter

    met = line_integrals > 0
    if not met.any():
        return np.full(line_integrals.shape, 255 if dark_bone else 0, np.uint8)
    size = max(3, min(line_integrals.shape) // 5)
    weight = uniform_filter(met.astype(np.float32), size, mode="nearest")
    slow = uniform_filter(line_integrals.astype(np.float32), size, mode="nearest") / np.maximum(weight, 1e-3)
    detail = line_integrals - SLOW_SHARE * slow
    low, high = np.percentile(detail[met], [5, 99.5])
    scaled = np.where(met, np.clip((detail - low) / max(high - low, 1e-9), 0, 1), 0)
    return np.round(255 * (1 - scaled if dark_bone else scaled)).astype(np.uint8)


def drawn(picture: np.ndarray, view: CArmView, lines_mm: Mapping[str, tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """RGB picture (rows, columns, 3), uint8, with polylines on it.

    Parameters
    ----------
    picture
        uint8 (rows, columns) of :func:`displayed`.
    view
        The view it was made with.
    lines_mm
        Name -> (points (N, 3) in the view's frame, colour 0..255); a single point becomes a cross.
    """
    result = np.repeat(picture[..., None], 3, axis=2)
    for points, color in lines_mm.values():
        points = np.atleast_2d(points)
        pixels = view.project(points)
        if len(points) == 1:
            center = pixels[0]
            pieces = [(center - [5, 0], center + [5, 0]), (center - [0, 5], center + [0, 5])]
        else:
            pieces = list(pairwise(pixels))
        for start, end in pieces:
            if np.isfinite([*start, *end]).all():
                count = int(min(np.abs(end - start).max() * 2 + 2, 20000))
                column, row = np.round(start + np.linspace(0, 1, count)[:, None] * (end - start)).astype(int).T
                seen = (column >= 0) & (row >= 0) & (column < view.columns) & (row < view.rows)
                result[row[seen], column[seen]] = color
    return result
