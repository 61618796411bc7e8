"""MR to two X-rays, surroundings moved 8 mm against the vertebra at the target, which is labelled in the MR and registered on its own.

Pseudo-MR of the thorax CT (PD, never used while designing, T2 and T1), fluoroscopy simulated from the CT after everything but the vertebra was
moved as in :mod:`registration_moved`; starts up to 20 mm and 10 degrees off.  Success: mean projected distance at the target below 2.5 mm.
Also the whole MR, whose answer follows the surroundings and must not pass.

Seeds 1024-1035 belong to a simulation in which every border of fat and muscle shone as fluid, and to an earlier search (10 of 12, median 1.51 mm).
"""

from __future__ import annotations

import mr_cases
import mr_registration
import numpy as np
import registration_rigid as rigid_part
import SimpleITK as sitk

from FluoroGuideLib.anatomy.mr import with_labels
from FluoroGuideLib.evaluation.simulate import move_surroundings
from FluoroGuideLib.registration.mr import MrMovingVolume
from FluoroGuideLib.registration.register import Options, register

SEEDS = range(1086, 1104)  # 1050-1085 were run on a search before
SLICE = (1086,)
GROUP, MOVED_MM = 6, 8.0
PLANS = (("thorax", "PD", "sagittal"), ("thorax", "T2", "axial"), ("thorax", "T1", "sagittal"))
_KEPT: dict[tuple, MrMovingVolume] = {}


def case(seed: int) -> dict:
    """One case: the labelled vertebra, and the whole MR."""
    group = (seed - SEEDS[0]) // GROUP
    key = (*PLANS[group % len(PLANS)], 600 + group)
    volume, labels, distortion = mr_cases.planned(*key)
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = MrMovingVolume(with_labels(volume, mr_cases.vertebrae(labels)))
    rng = np.random.default_rng([seed, 19])
    target, label = mr_cases.target_of("thorax", rng)
    truth, points = rigid_part.true_pose(target, rng), rigid_part.points_around(target, rng)
    ct, _, parts = mr_cases.scan("thorax")
    source, _ = move_surroundings(ct, sitk.Cast(parts == label, sitk.sitkUInt8), rng, MOVED_MM)
    images = rigid_part.xrays(source, truth, 90.0 if seed % 2 == 0 else 50.0, rng, mr_cases.PIXELS)
    start = mr_cases.start_pose(truth, target, points, rng)
    found = {"contrast": key[1]}
    for way, part in (("label", label), ("whole", None)):
        volume = _KEPT[key] if part else _unlabelled(_KEPT[key])
        result = register(volume, images, start, targets={"target": target}, options=Options(threads=1), part=part)
        found[way] = mr_cases.measured(result, truth, target, distortion)
    return found


def _unlabelled(moving: MrMovingVolume) -> MrMovingVolume:
    """The same MR; its labels stay in the attenuation but name no bone."""
    import copy
    import dataclasses

    other = copy.copy(moving)
    other.volume = dataclasses.replace(moving.volume, parts=None, part_names={})
    return other


def summarize(results: list[dict]) -> dict:
    """Figures of both ways."""
    out = {"labelled vertebra": mr_registration.figures([r["label"] for r in results])}
    unseen = [r["label"] for r in results if r["contrast"] == "PD"]
    if unseen:
        out["labelled vertebra, PD (never used in design)"] = mr_registration.figures(unseen)
    out["whole MR"] = mr_registration.figures([r["whole"] for r in results])
    return out
