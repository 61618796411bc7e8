"""From path lengths to the pixels of a fluoroscope: spectrum, attenuation, scatter, blur, noise, collimation, grey values.

Attenuation coefficients are the familiar values of Hubbell & Seltzer's tables (NISTIR 5632; water, ICRU-44 cortical
bone, aluminium, copper, iron), at a few energies, interpolated log-log: good to a few percent, which is what a
simulation for registration needs, not for dosimetry.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView

_KEV = np.array([30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0])
_MASS_ATTENUATION_CM2_G = {
    "water": (0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505), "bone": (1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "aluminium": (1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378), "copper": (10.92, 4.862, 2.613, 1.593, 0.7630, 0.4584, 0.2217),
    "iron": (8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717, 0.1964),
}
_DENSITY_G_CM3 = {"water": 1.0, "bone": 1.92, "aluminium": 2.699, "copper": 8.96, "iron": 7.9}
BONE_ABOVE_HU = 100.0
"""HU up to here count as soft tissue; the excess is bone mineral."""
_CT_KEV = 70.0
"""Effective energy of CT: there one unit of either material attenuates like water, which is what HU mean."""


def attenuation_per_mm(material: str, energy_kev: np.ndarray) -> np.ndarray:
    """Linear attenuation in 1/mm of ``water``, ``bone`` (cortical), ``aluminium``, ``copper`` or ``iron`` at energies in keV."""
    table = np.log(np.array(_MASS_ATTENUATION_CM2_G[material]) * _DENSITY_G_CM3[material] / 10.0)
    return np.exp(np.interp(np.log(energy_kev), np.log(_KEV), table))


@lru_cache(maxsize=16)
def spectrum(kvp: float, copper_mm: float = 0.1) -> np.ndarray:
    """Rows (keV, weight, mu soft, mu bone mineral, mu steel), mu in 1/mm; weights are absorbed energy and sum to 1.

    Kramers' law behind 3 mm aluminium and some copper, energy-integrating detector.  Bone mineral is the excess of
    cortical bone over soft tissue of ``BONE_ABOVE_HU``, scaled so that at CT energy it attenuates like water: the HU scale.
    """
    energy = np.arange(30.0, kvp, 5.0) + 2.5
    filtered = np.exp(-3.0 * attenuation_per_mm("aluminium", energy) - copper_mm * attenuation_per_mm("copper", energy))
    weight = (kvp / energy - 1.0) * filtered * energy

    def excess(kev: np.ndarray) -> np.ndarray:
        return attenuation_per_mm("bone", kev) - (1 + BONE_ABOVE_HU / 1000.0) * attenuation_per_mm("water", kev)

    ct = np.array([_CT_KEV])
    bone = excess(energy) * attenuation_per_mm("water", ct) / excess(ct)
    return np.column_stack([energy, weight / weight.sum(), attenuation_per_mm("water", energy), bone, attenuation_per_mm("iron", energy)])


@dataclass(frozen=True)
class SimulationOptions:
    """What the simulated fluoroscope does.  Presets: :meth:`preset`.

    Attributes
    ----------
    kvp, copper_mm
        Tube voltage (50-140) and copper filter.
    scatter_to_primary, scatter_sigma_mm
        Scatter behind the grid: ratio to the primary and width (at the detector) of its spread.
    focal_spot_mm, detector_blur_mm
        Size of the focal spot (blurs with the magnification of the isocentre) and FWHM of the detector.
    quanta_per_mm2
        X-ray quanta per mm^2 at the detector and frame where the exposure control measures; 0 = no noise.
    electronic_noise
        Standard deviation of the detector's own noise, in quanta per pixel.
    collimation
        Fractions of the image covered by the (left, right, upper, lower) shutter.
    circular_field
        Diameter of a round field in units of the smaller image side; 0 = none.
    gray
        ``"LIN"`` (proportional to the signal), ``"LOG"`` (its logarithm) or ``"DISP"`` (8-bit with gamma, as displayed).
    bits
        8, 10, 12 or 16 bits stored; DISP is always 8.
    gamma
        Exponent of DISP, on a logarithmic window as fluoroscopes display it.
    range_compression
        Share (0..1) of slow brightness changes that DISP takes out, as fluoroscopes do to show thick and thin parts at once.
    tell_polarity
        Write Pixel Intensity Relationship Sign (0028,1041); without it a reader has to guess whether bone is dark.
    frames, frame_time_ms
        Frames of the run, each with its own noise.
    extend_body
        Continue the end slices of a CT so that rays which leave the scan still meet the body.
    soft_mismatch
        Standard deviation of a smooth random change (about 40 mm) of soft-tissue density: what CT and fluoroscopy disagree on.
    projector
        ``"rtk"``, ``"march"`` (slow, no further package) or ``"auto"``: RTK when it is installed.
    """

    kvp: float = 80.0
    copper_mm: float = 0.1
    scatter_to_primary: float = 0.0
    scatter_sigma_mm: float = 35.0
    focal_spot_mm: float = 0.0
    detector_blur_mm: float = 0.0
    quanta_per_mm2: float = 0.0
    electronic_noise: float = 0.0
    collimation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    circular_field: float = 0.0
    gray: str = "LIN"
    bits: int = 16
    gamma: float = 0.8
    range_compression: float = 0.0
    tell_polarity: bool = True
    frames: int = 1
    frame_time_ms: float = 66.7
    extend_body: bool = True
    soft_mismatch: float = 0.0
    projector: str = "auto"

    def __post_init__(self) -> None:
        shutters_fit = len(self.collimation) == 4 and min(self.collimation) >= 0 and max(self.collimation) < 0.5
        checks = (
            ("tube voltage", self.kvp, 50 <= self.kvp <= 140, "50 to 140 kV"),
            ("grey scale", self.gray, self.gray in ("LIN", "LOG", "DISP"), "LIN, LOG or DISP"),
            ("number of bits", self.bits, self.bits in (8, 10, 12, 16), "8, 10, 12 or 16"),
            ("number of frames", self.frames, self.frames >= 1, "1 or more"),
            ("projector", self.projector, self.projector in ("auto", "rtk", "march"), "auto, rtk or march"),
            ("collimation", self.collimation, shutters_fit, "four fractions below 0.5"),
        )
        for name, value, good, allowed in checks:
            if not good:
                raise FluoroGuideError(f"The simulation's {name} is not possible", value, f"Use {allowed}")
        amounts = (
            "scatter_to_primary focal_spot_mm detector_blur_mm quanta_per_mm2 electronic_noise circular_field soft_mismatch copper_mm "
            "range_compression"
        )
        for name in amounts.split():
            if not getattr(self, name) >= 0:
                raise FluoroGuideError(f"The simulation's {name} must not be negative", getattr(self, name))
        if not (self.gamma > 0 and self.scatter_sigma_mm > 0):
            raise FluoroGuideError("The simulation's gamma and scatter width must be positive", (self.gamma, self.scatter_sigma_mm))

    @classmethod
    def preset(cls, name: str, **changes: object) -> SimulationOptions:
        """``"clean"``: attenuation alone, 16-bit; ``"fluoroscopy"``: a working day; ``changes`` override single fields."""
        presets = {
            "clean": {},
            "fluoroscopy": {
                "scatter_to_primary": 0.6, "focal_spot_mm": 0.6, "detector_blur_mm": 0.35, "quanta_per_mm2": 2500.0, "electronic_noise": 3.0,
                "collimation": (0.03, 0.03, 0.02, 0.02), "gray": "DISP", "bits": 8, "range_compression": 0.5,
                "soft_mismatch": 0.04,
            },
        }
        if name not in presets:
            raise FluoroGuideError("The simulation preset is not known", name, "Use " + " or ".join(presets))
        return cls(**{**presets[name], **changes})

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class SimulatedImage:
    """One simulated run.

    Attributes
    ----------
    frames
        uint8 or uint16 (frames, rows, columns), as stored: bright where much radiation arrives (MONOCHROME2).
    line_integral
        float32 (rows, columns): noiseless attenuation at CT energy without metal, water 0.02 per mm; what an ideal DRR shows.
    mask
        bool (rows, columns): inside the field and not behind a shutter.
    metal
        bool (rows, columns): needles and wires.
    view, options
        As given.
    shutter
        DICOM shutter edges (left, right, upper, lower), 1-based, or None.
    facts
        ``kvp``, ``dap_dgy_cm2``, ``tube_current_ma``, ``exposure_time_ms``, ``projector``.
    """

    frames: np.ndarray
    line_integral: np.ndarray
    mask: np.ndarray
    metal: np.ndarray
    view: CArmView
    options: SimulationOptions
    shutter: tuple[int, int, int, int] | None = None
    facts: dict = field(default_factory=dict)


def transmission(soft_mm: np.ndarray, bone_mm: np.ndarray, steel_mm: np.ndarray, kvp: float, copper_mm: float) -> np.ndarray:
    """Share of the unattenuated detector signal that arrives (Beer-Lambert over the spectrum)."""
    total = np.zeros(soft_mm.shape, np.float32)
    steel = steel_mm if steel_mm.any() else None
    for _, weight, mu_soft, mu_bone, mu_steel in spectrum(kvp, copper_mm).astype(np.float32):
        exponent = mu_soft * soft_mm + mu_bone * bone_mm
        if steel is not None:
            exponent += mu_steel * steel
        total += weight * np.exp(-exponent)
    return total


def field_mask(view: CArmView, options: SimulationOptions) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """Pixels that radiation reaches, and the first and last column and row shown, 1-based, as shutter edges (PS3.3 C.7.6.11)."""
    left, right, upper, lower = options.collimation
    c0, c1 = round(left * view.columns), view.columns - round(right * view.columns)
    r0, r1 = round(upper * view.rows), view.rows - round(lower * view.rows)
    mask = np.zeros((view.rows, view.columns), bool)
    mask[r0:r1, c0:c1] = True
    if options.circular_field > 0:
        row, column = np.ogrid[: view.rows, : view.columns]
        radius = options.circular_field * min(view.rows, view.columns) / 2
        mask &= (row - (view.rows - 1) / 2) ** 2 + (column - (view.columns - 1) / 2) ** 2 <= radius**2
    return mask, (c0 + 1, c1, r0 + 1, r1) if any(options.collimation) else None


def expose(
    paths_mm: dict[str, np.ndarray], steel_mm: np.ndarray, view: CArmView, options: SimulationOptions, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int] | None, dict]:
    """One run from path lengths in mm of water (``{"soft", "bone"}``) and steel.

    Returns
    -------
    (stored frames, mask, shutter edges, exposure facts)
    """
    from scipy.ndimage import gaussian_filter

    mask, shutter = field_mask(view, options)
    primary = transmission(paths_mm["soft"], paths_mm["bone"], steel_mm, options.kvp, options.copper_mm) * mask
    pixel = np.sqrt(np.prod(view.pixel_spacing_mm))
    # Only the magnified focal spot blurs what the quanta carry; the detector's blur also smooths their noise.
    penumbra = options.focal_spot_mm * max(0.0, view.sid_mm / max(view.sod_mm, 1.0) - 1.0) / 2.355 / pixel
    signal = gaussian_filter(primary, penumbra) if penumbra > 0.05 else primary
    if options.scatter_to_primary > 0:
        signal = signal + _scatter(primary, mask, options, pixel)
    reference = _measured(signal, mask)
    quanta = options.quanta_per_mm2 * pixel**2
    runs = []
    for _ in range(options.frames):
        frame = signal / reference
        if quanta > 0:
            frame = (rng.poisson(np.minimum(frame * quanta, 1e9)) + rng.normal(0, 1, frame.shape) * options.electronic_noise) / quanta
        blur = options.detector_blur_mm / 2.355 / pixel
        runs.append(gaussian_filter(frame.astype(np.float32), blur) if blur > 0.05 else frame.astype(np.float32))
    return gray_values(np.stack(runs), mask, options), mask, shutter, _exposure_facts(reference, view, mask, options)


def _scatter(primary: np.ndarray, mask: np.ndarray, options: SimulationOptions, pixel_mm: float) -> np.ndarray:
    """Scatter behind the grid: a broad spread of what was scattered, about I (-ln I); nothing comes from open air.

    The form of Ohnesorge et al. (Eur Radiol 9:563, 1999) with one Gaussian, scaled so that behind a body of even
    thickness the ratio to the primary is ``scatter_to_primary``.
    """
    depth = -np.log(np.clip(primary, 1e-6, 1.0))
    reference = -np.log(min(_measured(primary, mask), 0.9))
    return options.scatter_to_primary / reference * _wide_blur(primary * depth, options.scatter_sigma_mm / pixel_mm)


def _measured(signal: np.ndarray, mask: np.ndarray) -> float:
    """What the automatic exposure control sees: the denser part of the central half of the field."""
    rows, columns = (slice(n // 4, n - n // 4) for n in mask.shape)
    seen = signal[rows, columns][mask[rows, columns]]
    return max(float(np.quantile(seen, 0.3)), 1e-9) if seen.size else 1.0


def _wide_blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """A Gaussian many pixels wide, made on a coarse grid: scatter has no detail to lose."""
    from scipy.ndimage import gaussian_filter, zoom

    factor = max(1, int(sigma_px // 6))
    rows, columns = (np.array(image.shape) // factor) * factor
    coarse = image[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor).mean((1, 3))
    smooth = gaussian_filter(coarse, sigma_px / factor)
    factors = image.shape[0] / smooth.shape[0], image.shape[1] / smooth.shape[1]
    return zoom(smooth, factors, order=1, grid_mode=True, mode="nearest").astype(np.float32)


def gray_values(signal: np.ndarray, mask: np.ndarray, options: SimulationOptions) -> np.ndarray:
    """Stored values of a signal: proportional, logarithmic or displayed; black outside the field."""
    bits = 8 if options.gray == "DISP" else options.bits
    top = 2**bits - 1
    inside = signal[:, mask] if mask.any() else signal.reshape(len(signal), -1)
    if options.gray == "DISP":
        level = _displayed(signal, mask, options)
    else:
        level = np.clip(signal / max(float(inside.max()), 1e-9), 0.0, 1.0)
    if options.gray == "LOG":
        # four decades below the brightest pixel carry everything a fluoroscope can tell from nothing
        level = 1 + np.log10(np.maximum(level, 1e-4)) / 4
    return np.where(mask, np.rint(level * top), 0).astype(np.uint8 if bits == 8 else np.uint16)


def _displayed(signal: np.ndarray, mask: np.ndarray, options: SimulationOptions) -> np.ndarray:
    """What a fluoroscope's display shows: logarithm, slow changes damped, window over 99 % of the field, gamma; 0..1.

    Air beside the body saturates, as it does on a real screen.
    """
    logarithm = np.log(np.maximum(signal, 1e-4))
    inside = mask if mask.any() else np.ones_like(mask)
    logarithm = np.minimum(logarithm, np.quantile(logarithm[:, inside], 0.25) + 3.0)
    if options.range_compression > 0:
        sigma = max(signal.shape[1:]) / 10.0
        share = np.maximum(_wide_blur(inside.astype(np.float32), sigma), 1e-3)
        slow = np.stack([_wide_blur(np.where(inside, frame, 0.0), sigma) for frame in logarithm]) / share
        logarithm = logarithm - min(options.range_compression, 1.0) * slow
    low, high = np.quantile(logarithm[:, inside], (0.005, 0.998))
    return np.clip((logarithm - low) / max(high - low, 1e-3), 0.0, 1.0) ** options.gamma


def _exposure_facts(reference: float, view: CArmView, mask: np.ndarray, options: SimulationOptions) -> dict:
    """A plausible dose of the run: what the automatic exposure control would have to give.

    About 30,000 quanta per mm^2 and uGy at fluoroscopic energies; the incident kerma at the detector plane without
    patient is the detector's kerma divided by the transmission, and the dose-area product is that times the open area.
    """
    quanta = options.quanta_per_mm2 or 2500.0
    kerma_ugy = quanta / 30_000.0 / reference * options.frames
    area_cm2 = float(mask.sum()) * np.prod(view.pixel_spacing_mm) / 100.0
    return {
        "kvp": options.kvp, "dap_dgy_cm2": float(kerma_ugy * 1e-6 * area_cm2 * 10.0), "tube_current_ma": 10.0,
        "exposure_time_ms": 8.0 * options.frames,
    }
