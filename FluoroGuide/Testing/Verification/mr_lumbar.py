"""A real lumbar MR (T2, a sagittal slab of 77 mm, vertebral bodies labelled) to two simulated X-rays.

There is no CT of that patient.  The X-rays are of a CT-like volume (:mod:`evaluation.lumbar_mr`): bodies from the labels, the MR's own skin, all
else made up: posterior elements of the phantom, discs, tissue, bowel gas that lies elsewhere than in the MR.  So the truth is that of the
bodies alone, and the MR's own posterior elements and vessels disagree with the X-rays by more than a real pair would.

Six seeds share one CT-like volume.  Four have a target in the middle of a body L1 to L5 and a start up to 20 mm and 10 degrees off, two views 90 or
50 degrees apart; the fifth starts one level up or down; the sixth shows the thorax.  Success: mean projected distance at the target below 2.5 mm.
"""

from __future__ import annotations

import functools

import mr_cases
import mr_registration
import numpy as np
import registration_rigid as rigid_part
import SimpleITK as sitk

from FluoroGuideLib.anatomy.mr import attenuation_from_mr, with_labels
from FluoroGuideLib.evaluation.lumbar_mr import ct_like
from FluoroGuideLib.geometry.rigid import apply, perturb
from FluoroGuideLib.registration.mr import MrMovingVolume
from FluoroGuideLib.registration.register import Options, register

SEEDS = range(1068, 1086)  # 1068 = 178 * 6; 1050-1067 were run on a search before
SLICE = (1068,)
GROUP = 6
TARGETS = ("L1", "L2", "L3", "L4", "L5")
FOLDER = rigid_part.DATA / "mr_lumbar_labelled"


@functools.cache
def scan() -> tuple[object, object, MrMovingVolume]:
    """(MR, labels of bodies, what is registered)."""
    image, labels = (sitk.ReadImage(str(FOLDER / f"VB2_05_{kind}.nii.gz")) for kind in ("img", "labels"))
    return image, labels, MrMovingVolume(with_labels(attenuation_from_mr(image, "T2", "lumbar"), labels))


@functools.lru_cache(maxsize=1)
def room(group: int) -> tuple[object, dict[str, int], dict[str, np.ndarray]]:
    """The CT-like volume of a group, label values and centres of its levels."""
    image, labels, _ = scan()
    return ct_like(image, labels, np.random.default_rng([group, 31]))


def case(seed: int) -> dict:
    """One case; the last of each group has the wrong body part, the one before it a start one level off."""
    group, number = seed // GROUP, seed % GROUP
    rng, moving = np.random.default_rng([seed, 29]), scan()[2]
    ct, values, centers = room(group)
    level = str(rng.choice(TARGETS))
    target = centers[level]
    truth, points = rigid_part.true_pose(target, rng), rigid_part.points_around(target, rng)
    wrong, off = number == GROUP - 1, number == GROUP - 2
    seen, seen_pose = ct, truth
    if wrong:
        seen = mr_cases.scan("thorax")[0]
        seen_pose = rigid_part.true_pose(mr_cases.target_of("thorax", rng)[0], rng)
    images = rigid_part.xrays(seen, seen_pose, 90.0 if seed % 2 == 0 else 50.0, rng, mr_cases.PIXELS)
    start = mr_cases.start_pose(truth, target, points, rng)
    if off:
        names = [n for n in ("T12", *TARGETS) if abs(list(values).index(n) - list(values).index(level)) == 1]
        other = centers[str(rng.choice(names))]
        start = perturb(start, np.r_[0, 0, 0, truth[:3, :3] @ (other - target)], apply(start, target))
    result = register(moving, images, start, targets={"target": target}, options=Options(threads=1), part=values[level])
    return {
        "level": level, "wrong_part": wrong, "level_off": off, "labelled": True,
        "start_mm": float(np.linalg.norm(apply(start, target) - apply(truth, target))),
        **mr_cases.measured(result, truth, target, sitk.TranslationTransform(3)),
    }


def summarize(results: list[dict]) -> dict:
    """Figures of right starts, of starts one level off, and of the wrong body part."""
    kinds = {
        "all": [r for r in results if not r["wrong_part"]],
        "right": [r for r in results if not r["wrong_part"] and not r["level_off"]], "start one level off": [r for r in results if r["level_off"]],
    }
    out = {kind: mr_registration.figures(rows) for kind, rows in kinds.items() if rows}
    wrong = [r for r in results if r["wrong_part"]]
    out["wrong body part"] = {
        "cases": len(wrong), "verdict_fail": sum(r["verdict"] == "fail" for r in wrong), "passed": sum(r["verdict"] == "pass" for r in wrong),
    }
    return out
