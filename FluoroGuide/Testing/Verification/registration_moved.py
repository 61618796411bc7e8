"""Surroundings moved 3, 8 or 15 mm against one vertebra of the thorax CT: whole volume, labelled bone, bone found without label.

Simulated as ``evaluation.simulate.move_surroundings`` does: the bone rigid, full displacement from 35 mm outward, random direction.
Two views 90 degrees apart (even seeds) or 35 (odd ones).
"""

from __future__ import annotations

import numpy as np
import registration_rigid as rigid_part
import SimpleITK as sitk

from FluoroGuideLib.anatomy.attenuation import AttenuationVolume
from FluoroGuideLib.evaluation.simulate import move_surroundings
from FluoroGuideLib.registration.parts import Part, label_distance
from FluoroGuideLib.registration.register import Options, register

SEEDS = range(2000, 2024)  # 1000-1035 were looked at before the predicted error knew of stretched tissue
SLICE = (2000,)
AMPLITUDES_MM = (3.0, 8.0, 15.0)


def case(seed: int) -> dict:
    """One case in three ways."""
    rng = np.random.default_rng([seed, 7])
    ct, labels, moving = rigid_part.volume("thorax")
    assert isinstance(moving.volume, AttenuationVolume)
    target, label = rigid_part.target_of("thorax", rng)
    amplitude = AMPLITUDES_MM[seed % 3]
    truth, points = rigid_part.true_pose(target, rng), rigid_part.points_around(target, rng)
    moved, _ = move_surroundings(ct, sitk.Cast(labels == label, sitk.sitkUInt8), rng, amplitude)
    images = rigid_part.xrays(moved, truth, 90.0 if seed % 2 == 0 else 35.0, rng)
    start = rigid_part.start_pose(truth, target, points, rng)
    part = Part(moving, label_distance(labels, [label]), target, "label")
    result = {"moved_mm": amplitude, "apart_deg": 90 if seed % 2 == 0 else 35}
    for name, wanted in (("whole", None), ("label", part), ("auto", "auto")):
        found = register(moving, images, start, targets={"target": target}, options=Options(threads=1), part=wanted)
        result[name] = rigid_part.measured(found, truth, target, points)
    return result


def summarize(results: list[dict]) -> dict:
    """Figures per displacement and way."""
    out = {}
    for amplitude in AMPLITUDES_MM:
        rows = [r for r in results if r["moved_mm"] == amplitude]
        if rows:
            out[f"{amplitude:g} mm"] = {way: rigid_part.figures(rows, way) for way in ("whole", "label", "auto")}
    return out
