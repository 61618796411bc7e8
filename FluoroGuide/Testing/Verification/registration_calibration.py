"""Is the predicted error right?  Does the region that is to hold the truth with 95 % hold it, and is it no wider than needed?  Two views.

Half of the cases are rigid and clean, a third have one difficulty (see :mod:`registration_cases`), a sixth a bone that moved 3, 8 or 15 mm
against its surroundings, registered with its label or found at the target, in turn.  Thorax and pelvis, 90 and 35 degrees in turn.  So
that two hundred cases take minutes, the X-rays are simulated from a coarser copy of the CT (1.4 mm within slices) on 256 x 256 pixels;
the CT that is registered keeps its own resolution.  Wrong poses are counted as all others: a truth outside its region.
"""

from __future__ import annotations

import functools

import numpy as np
import registration_cases as cases
import SimpleITK as sitk

SEEDS = range(4000, 4200)
SLICE = (4000,)
COARSE_MM = 1.4
PIXELS = 256
AMPLITUDES_MM = (3.0, 8.0, 15.0)


def case(seed: int) -> dict:
    """One case, and what was predicted of its error."""
    name, apart = ("thorax", "pelvis")[seed % 2], (90.0, 35.0)[seed // 2 % 2]
    place = seed // 4 % 6  # of six groups of four: three clean, two difficult, one moved
    rng, moved, way, stratum = np.random.default_rng([seed, 31]), 0.0, "rigid", "clean"
    if place in (1, 4):
        stratum = cases.STRATA[1 + (seed // 4) % (len(cases.STRATA) - 1)]
    elif place == 2:
        stratum, moved, way = "moved", AMPLITUDES_MM[seed // 24 % 3], ("label", "auto")[(seed // 2 + seed // 24) % 2]
    made = cases.make(stratum, name, apart, rng, moved, coarse(name), PIXELS)
    found = cases.run(made, way)
    found["facts"] = {k: v for k, v in found["facts"].items() if k in ("checks", "moved_against_surroundings_mm")}
    return {"stratum": stratum, "volume": name, "apart_deg": apart, "moved_mm": moved, "way": way, "two": found}


@functools.cache
def coarse(name: str) -> tuple[object, object]:
    """CT and label image that the X-rays are simulated from."""
    ct, labels, _ = cases.body(name)
    spacing = [max(COARSE_MM, s) for s in ct.GetSpacing()]
    size = [int((n - 1) * old / new) + 1 for n, old, new in zip(ct.GetSize(), ct.GetSpacing(), spacing, strict=True)]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing)
    grid.SetOrigin(ct.GetOrigin())
    grid.SetDirection(ct.GetDirection())
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(ct, sitk.sitkFloat32), [0.4 * s for s in spacing])
    small = sitk.Resample(smooth, grid, sitk.Transform(), sitk.sitkLinear, -1000.0, sitk.sitkFloat32)
    return sitk.Cast(small, sitk.sitkInt16), sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def group(result: dict) -> str:
    """The stratum a case is counted in."""
    if result["stratum"] == "moved":
        return f"moved {result['way']}"
    return f"clean {result['volume']} {result['apart_deg']:.0f}" if result["stratum"] == "clean" else result["stratum"]


def summarize(results: list[dict]) -> dict:
    """Coverage, width and verdicts: all, rigid, moved, and per stratum."""
    groups = {"all": results, "rigid": [r for r in results if r["stratum"] != "moved"], "moved": [r for r in results if r["stratum"] == "moved"]}
    groups |= {f"all, {b}": [r for r in results if r["volume"] == b] for b in ("thorax", "pelvis")}
    for name in sorted({group(r) for r in results}):
        groups[name] = [r for r in results if group(r) == name]
    found = {k: cases.figures([r["two"] for r in rows]) for k, rows in groups.items() if rows}
    for k, figures in found.items():
        right = [r["two"] for r in groups[k] if r["two"]["mtre_mm"] < 2.0]
        figures["median_predicted_mm"] = round(float(np.median([r["predicted_error_mm"] for r in right])), 2) if right else None
    return found
