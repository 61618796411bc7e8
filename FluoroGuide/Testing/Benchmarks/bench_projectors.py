"""One DRR: CPU time next to other projectors, and accuracy against closed-form line integrals."""

from __future__ import annotations

import harness
import numpy as np
import peers

from FluoroGuideLib.evaluation.phantom import GaussianBlobs
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.projection.joseph import LEVELS_8BIT

SIZES = ((64, 3.0), (128, 1.5), (256, 1.0))
DETECTOR_MM, SID_MM, SOD_MM = 320.0, 1100.0, 700.0
ANGLES_DEG = (10.0, 5.0)
SLOW = ("DiffDRR Siddon (torch CPU)", "DiffDRR trilinear (torch CPU)", "nanodrr (torch CPU)")
"""Left out at 256 x 256, where they need many gigabytes."""


def phantom() -> GaussianBlobs:
    """A smooth object that fills a box of about 35 x 36 x 33 cm."""
    return GaussianBlobs.random(0, 12, reach_mm=120.0, sigma_mm=(18.0, 32.0))


def volume(blobs: GaussianBlobs, spacing_mm: float) -> object:
    """The phantom's voxels, cut to the box where 8-bit storage sees anything: every projector walks the same box."""
    import SimpleITK as sitk

    image = blobs.voxelize(spacing_mm, 3.5)
    values = sitk.GetArrayViewFromImage(image)
    used = np.argwhere(values > values.max() / LEVELS_8BIT / 2)
    first, last = used.min(0)[::-1], used.max(0)[::-1]
    return sitk.RegionOfInterest(image, (last - first + 1).tolist(), first.tolist())


def detector(pixels: int) -> CArmView:
    """The view at one detector size."""
    size = DETECTOR_MM / pixels
    return CArmView.from_angles(*ANGLES_DEG, sid_mm=SID_MM, sod_mm=SOD_MM, rows=pixels, columns=pixels, pixel_spacing_mm=(size, size))


def error_percent(image: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square difference in percent of the truth's; the best of the four ways to flip the picture, which plastimatch's file leaves open."""
    flips = (image, image[::-1], image[:, ::-1], image[::-1, ::-1])
    return min(float(np.sqrt(((f - truth) ** 2).mean() / (truth**2).mean())) for f in flips) * 100


def one_size(blobs: GaussianBlobs, pixels: int, spacing_mm: float, rounds: int) -> tuple[dict[str, tuple[float, float]], list[str], str]:
    """(name -> (median ms, error %)), what is not installed, and the volume's size in words."""
    view, image = detector(pixels), volume(blobs, spacing_mm)
    functions, missing = peers.available(image, view, SLOW if pixels > 128 else ())
    truth = blobs.line_integrals(view, np.eye(4))
    errors = {name: error_percent(np.asarray(f(), float), truth) for name, f in functions.items()}
    seconds = harness.interleaved(functions, rounds)
    result = {name: (harness.median_ms(seconds[name]), errors[name]) for name in functions}
    return result, missing, "x".join(map(str, image.GetSize()))


def run(quick: bool = False) -> dict:
    """All sizes."""
    blobs = phantom()
    sizes, missing = {}, []
    for pixels, spacing_mm in SIZES[:2] if quick else SIZES:
        sizes[pixels], missing, shape = one_size(blobs, pixels, spacing_mm, 5 if quick or pixels > 128 else 11)
        print(f"{pixels} x {pixels}, {spacing_mm:g} mm, volume {shape}", {k: round(v[0], 1) for k, v in sizes[pixels].items()}, flush=True)
    return {"sizes": sizes, "missing": missing}


def markdown(result: dict) -> str:
    """The section of ``Docs/benchmarks.md``."""
    sizes = {int(k): v for k, v in result["sizes"].items()}
    unit = sizes[128].get(peers.REFERENCE, (float("nan"),))[0] / harness.NORMAL_MS
    header = ["projector"]
    for pixels in sizes:
        header += [f"{pixels}² ms", f"{pixels}² rtk / this", f"{pixels}² error %"]
    rows = []
    for name in peers.PEERS:
        row: list[object] = [name]
        for figures in sizes.values():
            reference = figures.get(peers.REFERENCE, (float("nan"),))[0]
            ms, error = figures.get(name, (float("nan"), float("nan")))
            row += [ms / unit, reference / ms, error]
        rows.append([*row[:1], "not installed", *["-"] * (len(header) - 2)] if name in result["missing"] else row)
    figures, jac = sizes[128], "FluoroGuide with 6-dof Jacobian"
    bars = []
    for name, best, bar in (
        (peers.REFERENCE, "FluoroGuide", 1.3), (peers.REFERENCE, jac, 1.0), ("nanodrr (torch CPU)", "FluoroGuide", 6.0),
        ("DiffDRR trilinear (torch CPU)", "FluoroGuide", 15.0), ("DiffDRR Siddon (torch CPU)", "FluoroGuide", 15.0),
    ):
        if name in figures:
            ratio = figures[name][0] / figures[best][0]
            bars.append([f"{best} against {name}", ratio, bar, "yes" if ratio >= bar else "no"])
    without = []
    frustum, numpy_jac = (figures.get(n, (float("nan"),))[0] for n in ("SimpleITK frustum", "FluoroGuide, numpy, with Jacobian"))
    if np.isfinite(frustum):
        without = [
            "Without numba: a SimpleITK projector has no derivative; by forward differences a step needs seven of its DRRs, "
            f"{7 * frustum / unit:.0f} ms at 128², where the numpy kernel gives one DRR with the exact Jacobian in {numpy_jac / unit:.0f} ms "
            f"({7 * frustum / numpy_jac:.1f} times less). So the path without numba uses the numpy kernel; the frustum is a test oracle.",
        ]
    return "\n\n".join([
        "## One DRR",
        "Matched resolution: detector 320 mm wide with 64, 128, 256 pixels a side and 3, 1.5, 1 mm voxels; SID 1100, SOD 700 mm, 10 degrees "
        "LAO, 5 degrees cranial; the box of about 35 x 36 x 33 cm is the same for all. One thread, CPU milliseconds, medians of interleaved "
        f"calls, scaled so that itk-rtk at 128² takes {harness.NORMAL_MS:g} ms (here it took {unit * harness.NORMAL_MS:.1f}). *rtk / this*: how many "
        "times faster than itk-rtk. *error*: RMS against the closed form of a sum of Gaussians, in percent of its RMS. Peers build their filter "
        "in each call, as a new pose asks; loading and conversion of the volume is not counted. A dash: too large to be run.",
        harness.table(header, rows),
        "At 128², against what was asked for:", harness.table(["ratio", "measured", "asked for", "met"], bars), *without,
    ])
