"""Similarity measures for MR: where the bottom of each valley lies when pseudo-attenuation of an MR stands for the CT.

As :mod:`bench_metrics`, on design cases of the proof ``mr_registration`` (T1 axial and T2 sagittal of the thorax, the pelvis with bone labels).
Rotation and shift are compared at the target, a point of the MR, whose true place is where the MR was distorted from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from bench_metrics import METRICS, NARROW, WIDE, axes, bottom, curves, width
from harness import table

sys.path.append(str(Path(__file__).resolve().parents[1] / "Verification"))

from FluoroGuideLib.geometry.rigid import apply
from FluoroGuideLib.registration.register import Options
from FluoroGuideLib.registration.similarity import Level

PLANS = (("thorax", "T1", "axial", 900, 900), ("thorax", "T2", "sagittal", 901, 901), ("pelvis", "T2", "sagittal", 903, 900))
"""Body, contrast, plane, seed of the MR, seed of the X-rays."""
SHIFTS = slice(3, 6)


def run(quick: bool = False) -> dict:
    """All cases: metric -> kind -> one list of figures per case."""
    import mr_cases
    import registration_rigid as rigid_part

    from FluoroGuideLib.registration.mr import MrMovingVolume

    found: dict[str, dict[str, list]] = {name: {"width": [], "bottom": []} for name in METRICS}
    for name, contrast, plane, group, seed in PLANS[-1:] if quick else PLANS:
        volume, labels, distortion = mr_cases.planned(name, contrast, plane, group)
        moving, rng = MrMovingVolume(mr_cases.refined(name, volume, labels)), np.random.default_rng([seed, 9])
        target, _ = mr_cases.target_of(name, rng)
        pose, _ = rigid_part.true_pose(target, rng), rigid_part.points_around(target, rng)
        images = rigid_part.xrays(mr_cases.scan(name)[0], pose, 90.0 if seed % 2 == 0 else 50.0, rng, mr_cases.PIXELS)
        pose[:3, 3] += pose[:3, :3] @ (np.array(distortion.TransformPoint(target.tolist())) - target)
        center = apply(pose, target)
        for kind, number, steps, measure in (("width", 1, WIDE, width), ("bottom", 2, NARROW, bottom)):
            spec = Options().levels[number]
            level = Level(moving.projector(spec.pixel_mm), images, center, spec.pixel_mm, spec.radius).without_unknown(moving.beyond(), pose)
            for metric, costs in curves(level, pose, center, axes()[SHIFTS], steps).items():
                found[metric][kind].append([measure(c, steps) for c in costs])
        print(f"{name} {contrast} {seed} done", flush=True)
    return found


def markdown(result: dict) -> str:
    """The section of ``Docs/benchmarks.md``."""
    rows = []
    for name in METRICS:
        wide, deep = (np.array(result[name][k]) for k in ("width", "bottom"))
        rows.append([name, float(np.median(wide)), float(wide.min()), float(np.median(deep)), float(np.mean(deep)), float(deep.max())])
    return "\n\n".join([
        "## Measures of similarity for MR",
        f"Pseudo-attenuation of pseudo-MR (T1 and T2 of the thorax without labels, T2 of the pelvis with bone labels; {len(wide)} cases, design "
        "seeds) in place of the CT; shifts along the three axes through the true place of the target. *width* as above (3 mm pixels); *bottom*: "
        "how far the lowest point is from the truth (1.5 mm pixels).",
        table(["measure", "width mm", "least", "bottom mm", "mean", "worst"], rows),
    ])
