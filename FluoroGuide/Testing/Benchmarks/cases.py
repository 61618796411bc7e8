"""Simulated cases on the thorax CT for the registration and metric benchmarks (design seeds: nothing here is a proof)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from FluoroGuideLib.anatomy.attenuation import AttenuationVolume, attenuation_from_hu
from FluoroGuideLib.evaluation.motion import move_surroundings
from FluoroGuideLib.evaluation.protocol import mtre
from FluoroGuideLib.evaluation.sample import thorax_ct
from FluoroGuideLib.evaluation.simulate import SimulationOptions, prepare, simulate_view
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.frames import lps_from_ijk
from FluoroGuideLib.geometry.rigid import apply, perturb
from FluoroGuideLib.imaging.preprocess import normalize
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.search import start_at_isocenter

VERTEBRAE = ("vertebrae_T10", "vertebrae_T9", "vertebrae_T8", "vertebrae_T7")
CARM = {"sid_mm": 1050.0, "sod_mm": 700.0, "rows": 400, "columns": 400, "pixel_spacing_mm": (0.8, 0.8)}
AP_AND_LATERAL = ((0.0, 0.0), (90.0, 0.0))


@lru_cache(maxsize=1)
def _thorax() -> tuple[object, AttenuationVolume, np.ndarray, dict[str, int], np.ndarray]:
    """CT, attenuation, labels [k, j, i], label numbers and the 4x4 from index to LPS."""
    import SimpleITK as sitk

    image, labels, names = thorax_ct()
    numbers = {name: number for number, name in names.items()}
    return image, attenuation_from_hu(image, name="thorax CT"), sitk.GetArrayFromImage(labels), numbers, lps_from_ijk(image)


def _moved(image: object, bone: np.ndarray, moved_mm: float, rng: np.random.Generator) -> object:
    """The CT with everything but the bone displaced."""
    import SimpleITK as sitk

    mask = sitk.GetImageFromArray(bone.astype(np.uint8))
    mask.CopyInformation(image)
    return move_surroundings(image, mask, rng, moved_mm)[0]


class Case:
    """Two simulated X-rays of the thorax CT around one vertebra, with the true pose.

    Attributes
    ----------
    volume, images, truth
        Moving volume, X-rays as a reader delivers them, true pose (4x4).
    target, points
        Centre of the vertebra (3,) and 60 points in it (60, 3), volume LPS mm.
    """

    def __init__(self, seed: int, angles: tuple[tuple[float, float], ...] = AP_AND_LATERAL, moved_mm: float = 0.0) -> None:
        """``moved_mm``: how far everything but the vertebra has moved since the CT, in a random direction."""
        image, self.volume, labels, numbers, lps = _thorax()
        rng = np.random.default_rng(seed)
        bone = labels == numbers[VERTEBRAE[seed % len(VERTEBRAE)]]
        if moved_mm:
            image = _moved(image, bone, moved_mm, np.random.default_rng(seed))
        voxels = np.argwhere(bone)[:, ::-1]
        inside = apply(lps, voxels)
        self.target = inside.mean(0)
        self.points = inside[rng.choice(len(inside), 60, replace=False)]
        self.truth = perturb(start_at_isocenter(self.target), np.r_[rng.normal(0, 0.05, 3), rng.normal(0, 6, 3)], np.zeros(3))
        views = [CArmView.from_angles(*a, **CARM) for a in angles]
        options = SimulationOptions.preset("fluoroscopy")
        source = prepare(image, views, self.truth, options, rng)
        self.images = []
        for view in views:
            run = simulate_view(source, view, self.truth, (), options, rng)
            clean = normalize(run.frames[0], polarity="bone dark", relationship=options.gray)
            self.images.append(XrayImage(clean.pixels, clean.mask, view, f"thorax {seed}"))

    def error_mm(self, pose: np.ndarray) -> float:
        """Mean target registration error over the vertebra."""
        return mtre(pose, self.truth, self.points)
