"""Path lengths in soft tissue and bone mineral through a CT: the simulator's own projectors.

Neither shares anything with the projectors of registration: RTK's Joseph filter (package itk-rtk), and a plain march
with trilinear samples (scipy) for where RTK is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .physics import BONE_ABOVE_HU

MAX_EXTENSION_MM = 250.0
_MISMATCH_SCALE_MM = 40.0


class VoxelPaths:
    """Two densities relative to water on a grid whose axes are its own x, y, z.

    Attributes
    ----------
    densities
        ``{"soft", "bone"}``, float32 ``[k, j, i]``.
    projector
        ``"rtk"`` or ``"march"``: what is used.
    """

    def __init__(
        self, image_hu: object, *, extend_body: bool = False, views_lps: Sequence[CArmView] = (), soft_mismatch: float = 0.0, projector: str = "auto",
        rng: np.random.Generator | None = None,
    ) -> None:
        """``views_lps``: the views in the volume's LPS, which decide how far the body has to be continued."""
        import SimpleITK as sitk

        if image_hu.GetDimension() != 3:
            raise FluoroGuideError("The volume to simulate is not 3-D", f"{image_hu.GetDimension()}-D")
        image = sitk.DICOMOrient(image_hu, "LPS")
        self.projector = _choose(projector)
        hu = sitk.GetArrayFromImage(image)
        hu, first = _cropped(hu)
        self._turn = np.array(image.GetDirection()).reshape(3, 3)
        self.spacing_mm = np.array(image.GetSpacing())
        self.origin_mm = self._turn.T @ np.array(image.GetOrigin()) + first * self.spacing_mm
        if extend_body:
            hu = self._extended(hu, [self._own(v) for v in views_lps])
        hu = hu.astype(np.float32)
        bone = np.clip((hu - BONE_ABOVE_HU) / 1000.0, 0.0, None)
        np.minimum(hu, BONE_ABOVE_HU, out=hu)
        hu /= 1000.0
        hu += 1.0
        np.maximum(hu, 0.0, out=hu)
        if soft_mismatch > 0:
            hu *= self._smooth_field(hu.shape, soft_mismatch, rng or np.random.default_rng(0))
        self.densities = {"soft": hu, "bone": bone}
        self._images: dict[str, object] = {}

    def integrals(self, view: CArmView, pose: np.ndarray) -> dict[str, np.ndarray]:
        """Path lengths, mm of water, float32 (rows, columns), for a pose volume LPS -> isocentre."""
        own = self._own(view.in_volume(pose))
        run = self._rtk if self.projector == "rtk" else self._march
        return run(own)

    # ---- preparation --------------------------------------------------------------------------------------------
    def _own(self, view_lps: CArmView) -> CArmView:
        """The view in the frame whose axes are the grid's."""
        matrix = np.eye(4)
        matrix[:3, :3] = self._turn.T
        return view_lps.moved(matrix)

    def _extended(self, hu: np.ndarray, views: list[CArmView]) -> np.ndarray:
        """End slices repeated as far as any ray meets the body's prism beyond them."""
        low, high = self.origin_mm, self.origin_mm + self.spacing_mm * (np.array(hu.shape[::-1]) - 1)
        reach_low = reach_high = 0.0
        for view in views:
            # A net of rays, not the corners alone: those may pass beside the body.
            c, r = np.meshgrid(np.linspace(0, view.columns - 1, 33), np.linspace(0, view.rows - 1, 9))
            for ray in view.pixel_mm(np.stack([c.ravel(), r.ravel()], 1)) - view.source_mm:
                start, stop = 0.0, 1.0
                for axis in (0, 1):
                    if abs(ray[axis]) < 1e-9:
                        continue
                    ends = sorted(((low[axis] - view.source_mm[axis]) / ray[axis], (high[axis] - view.source_mm[axis]) / ray[axis]))
                    start, stop = max(start, ends[0]), min(stop, ends[1])
                if start < stop:
                    z = view.source_mm[2] + np.array([start, stop]) * ray[2]
                    reach_low, reach_high = max(reach_low, low[2] - z.min()), max(reach_high, z.max() - high[2])
        below, above = (int(np.ceil(np.clip(r, 0, MAX_EXTENSION_MM) / self.spacing_mm[2])) + 2 if r > 0 else 0 for r in (reach_low, reach_high))
        if below or above:
            hu = np.pad(hu, ((below, above), (0, 0), (0, 0)), mode="edge")
            self.origin_mm = self.origin_mm - [0, 0, below * self.spacing_mm[2]]
        return hu

    def _smooth_field(self, shape: tuple[int, int, int], amount: float, rng: np.random.Generator) -> np.ndarray:
        """1 + a smooth random field, float32."""
        import SimpleITK as sitk

        extent = np.array(shape[::-1]) * self.spacing_mm
        nodes = np.maximum(2, np.ceil(extent / _MISMATCH_SCALE_MM).astype(int) + 2)
        coarse = sitk.GetImageFromArray((1 + amount * rng.standard_normal(nodes[::-1])).astype(np.float32))
        coarse.SetSpacing([_MISMATCH_SCALE_MM] * 3)
        size = [int(n) for n in shape[::-1]]
        axes = np.eye(3).ravel().tolist()
        fine = sitk.Resample(coarse, size, sitk.Transform(), sitk.sitkLinear, (0.0, 0.0, 0.0), self.spacing_mm.tolist(), axes, 1.0)
        return np.clip(sitk.GetArrayFromImage(fine), 0.5, 1.5)

    # ---- RTK ----------------------------------------------------------------------------------------------------
    def _rtk(self, view: CArmView) -> dict[str, np.ndarray]:
        import itk

        rtk = itk.RTK
        geometry = rtk.ThreeDCircularProjectionGeometry.New()
        column_mm, row_mm = (float(np.linalg.norm(s)) for s in (view.column_step_mm, view.row_step_mm))
        point, vector = itk.Point[itk.D, 3], itk.Vector[itk.D, 3]
        # RTK wants (rows, columns, towards the source) right-handed; with u x v = -d that is how images are read here.
        done = geometry.AddProjection(
            point(view.source_mm.tolist()), point(view.first_pixel_mm.tolist()), vector((view.column_step_mm / column_mm).tolist()),
            vector((view.row_step_mm / row_mm).tolist()),
        )
        if not done:
            raise FluoroGuideError("The C-arm view cannot be simulated with RTK: its pixels are not a rectangle", None, "Use the projector 'march'")
        result = {}
        for name in self.densities:
            empty = itk.image_from_array(np.zeros((1, view.rows, view.columns), np.float32))
            empty.SetSpacing([column_mm, row_mm, 1.0])
            kind = itk.Image[itk.F, 3]
            projector = rtk.JosephForwardProjectionImageFilter[kind, kind].New()
            projector.SetInput(0, empty)
            projector.SetInput(1, self._itk_image(name))
            projector.SetGeometry(geometry)
            projector.Update()
            result[name] = itk.array_from_image(projector.GetOutput())[0].copy()
        return result

    def _itk_image(self, name: str) -> object:
        if name not in self._images:
            import itk

            image = itk.image_view_from_array(self.densities[name])
            image.SetOrigin(self.origin_mm.tolist())
            image.SetSpacing(self.spacing_mm.tolist())
            self._images[name] = image
        return self._images[name]

    # ---- plain march --------------------------------------------------------------------------------------------
    def _march(self, view: CArmView) -> dict[str, np.ndarray]:
        result = {name: np.zeros((view.rows, view.columns), np.float32) for name in self.densities}

        def one_row(row: int) -> None:
            pixels = np.column_stack([np.arange(view.columns), np.full(view.columns, row)])
            for name, values in self._march_rays(view.source_mm, view.pixel_mm(pixels)).items():
                result[name][row] = values

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(one_row, range(view.rows)))
        return result

    def _march_rays(self, source_mm: np.ndarray, ends_mm: np.ndarray) -> dict[str, np.ndarray]:
        """Midpoint sums with steps of at most the smallest voxel side between the volume's faces; ends (N, 3)."""
        from scipy.ndimage import map_coordinates

        size = np.array(self.densities["soft"].shape[::-1])
        start_i = (source_mm - self.origin_mm) / self.spacing_mm
        ray_i = (ends_mm - source_mm) / self.spacing_mm
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([(-1.0 - start_i) / ray_i, (size - start_i) / ray_i])  # one voxel beyond: there the samples fade to 0
        ends = np.nan_to_num(ends, nan=0.0, posinf=np.inf, neginf=-np.inf)
        enter, leave = np.maximum(ends.min(0).max(1), 0.0), np.minimum(ends.max(0).min(1), 1.0)
        span = np.maximum(leave - enter, 0.0)
        length = np.linalg.norm(ends_mm - source_mm, axis=1) * span
        count = max(1, int(np.ceil(length.max() / self.spacing_mm.min())))
        t = enter[:, None] + span[:, None] * (np.arange(count) + 0.5) / count
        where = (start_i[None, None] + t[..., None] * ray_i[:, None])[..., ::-1].transpose(2, 0, 1)
        return {
            name: (map_coordinates(density, where, order=1, mode="grid-constant", cval=0.0, prefilter=False).mean(1) * length).astype(np.float32)
            for name, density in self.densities.items()
        }


def rtk_available() -> bool:
    """Whether the package itk-rtk is installed (without the seconds that importing it takes)."""
    from importlib.util import find_spec

    itk = find_spec("itk")
    return itk is not None and any((Path(folder) / "Configuration" / "RTKConfig.py").is_file() for folder in itk.submodule_search_locations or ())


def _choose(projector: str) -> str:
    if projector == "auto":
        return "rtk" if rtk_available() else "march"
    if projector == "rtk" and not rtk_available():
        hint = "Install the package itk-rtk, or use the projector 'march'"
        raise FluoroGuideError("The simulation asks for RTK, which is not installed", None, hint)
    return projector


def _cropped(hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The array without the air around the body (all slices kept) and its first index (x, y, z)."""
    body = (hu > -500).any(0)
    if not body.any():
        raise FluoroGuideError("The volume to simulate holds nothing denser than air", f"maximum {hu.max():g} HU", "Check its units: HU are expected")
    rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    j, i = slice(max(0, rows[0] - 2), rows[-1] + 3), slice(max(0, columns[0] - 2), columns[-1] + 3)
    return hu[:, j, i], np.array([i.start, j.start, 0])
