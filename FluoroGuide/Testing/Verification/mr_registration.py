"""MR to two X-rays, rigid anatomy: pseudo-MR of the thorax and pelvis CT, fluoroscopy simulated from the CT itself.

Starts up to 20 mm and 10 degrees off; targets are points of the MR, so its distortion (up to 1 mm) is part of the error.  PD was never
used while designing; nor was any verification seed.  Five seeds share one MR (its contrast, plane, shading, noise, distortion).  Success:
mean projected distance at the target below 2.5 mm.  A sixth case per MR has another part of the body planned (pelvis MR on a thorax X-ray and
the other way round): never to be passed.
"""

from __future__ import annotations

import mr_cases
import numpy as np
import registration_rigid as rigid_part

from FluoroGuideLib.anatomy.mr import with_labels
from FluoroGuideLib.registration.mr import MrMovingVolume
from FluoroGuideLib.registration.register import Options, register

SEEDS = range(1000, 1024)
SLICE = (1000,)
GROUP = 6
PLANS = (("thorax", "PD", "axial"), ("pelvis", "PD", "sagittal"), ("thorax", "T2", "sagittal"), ("pelvis", "T1", "axial"))


def case(seed: int) -> dict:
    """One case; the last of each group has the wrong body part."""
    group, number = seed // GROUP, seed % GROUP
    name, contrast, plane = PLANS[group % len(PLANS)]
    rng = np.random.default_rng([seed, 9])
    volume, _, distortion = mr_cases.planned(name, contrast, plane, group)
    target, _ = mr_cases.target_of(name, rng)
    truth, points = rigid_part.true_pose(target, rng), rigid_part.points_around(target, rng)
    wrong = number == GROUP - 1
    seen = ("pelvis" if name == "thorax" else "thorax") if wrong else name
    seen_target = mr_cases.target_of(seen, rng)[0] if wrong else target
    seen_pose = rigid_part.true_pose(seen_target, rng) if wrong else truth
    images = rigid_part.xrays(mr_cases.scan(seen)[0], seen_pose, 90.0 if seed % 2 == 0 else 50.0, rng, mr_cases.PIXELS)
    start = mr_cases.start_pose(truth, target, points, rng)
    moving = _moving(name, contrast, plane, group, volume)
    result = register(moving, images, start, targets={"target": target}, options=Options(threads=1))
    return {"volume": name, "contrast": contrast, "plane": plane, "wrong_part": wrong, **mr_cases.measured(result, truth, target, distortion)}


def _moving(name: str, contrast: str, plane: str, group: int, volume: object) -> MrMovingVolume:
    key = (name, contrast, plane, group)
    if key not in _KEPT:
        _KEPT.clear()
        if name == "pelvis":
            volume = with_labels(volume, mr_cases.planned(name, contrast, plane, group)[1])
        _KEPT[key] = MrMovingVolume(volume)
    return _KEPT[key]


_KEPT: dict[tuple, MrMovingVolume] = {}


def figures(rows: list[dict]) -> dict:
    """Success, error, coverage and verdicts of cases with the right volume."""
    errors = np.array([r["mrpd_mm"] for r in rows])
    good = errors < mr_cases.SUCCESS_MM
    inside = [r["target_error_mm"] <= r["predicted_error_mm"] for r in rows]
    return {
        "cases": len(rows), "success_percent": round(100 * float(good.mean()), 1),
        "success_wilson_95_percent": rigid_part.wilson(int(good.sum()), len(rows)), "median_mrpd_mm": round(float(np.median(errors)), 2),
        "worst_mrpd_mm": round(float(errors.max()), 2), "predicted_95_holds_percent": round(100 * float(np.mean(inside)), 1),
        "failures_not_passed": f"{sum(r['verdict'] != 'pass' for r, g in zip(rows, good, strict=True) if not g)} of {int((~good).sum())}",
        "failures_verdict_fail": f"{sum(r['verdict'] == 'fail' for r, g in zip(rows, good, strict=True) if not g)} of {int((~good).sum())}",
        "successes_verdict_fail": f"{sum(r['verdict'] == 'fail' for r, g in zip(rows, good, strict=True) if g)} of {int(good.sum())}",
        "smallest_similarity_of_successes": round(min((r["similarity"] for r, g in zip(rows, good, strict=True) if g), default=0.0), 2),
    }


def summarize(results: list[dict]) -> dict:
    """Figures of all, of the contrast never used in design, and of the wrong body parts."""
    right = [r for r in results if not r["wrong_part"]]
    out = {"all": figures(right)} if right else {}
    for contrast in ("PD", "T1", "T2"):
        rows = [r for r in right if r["contrast"] == contrast]
        if rows:
            out[f"{contrast} (never used in design)" if contrast == "PD" else contrast] = figures(rows)
    wrong = [r for r in results if r["wrong_part"]]
    out["wrong body part"] = {
        "cases": len(wrong), "verdict_fail": sum(r["verdict"] == "fail" for r in wrong), "passed": sum(r["verdict"] == "pass" for r in wrong),
    }
    return out
