"""What happens when something is wrong: the next vertebra, mirrored X-rays, another patient, far starts, wrong angles, starved pictures,
and the whole volume's pose where a bone moved against its surroundings.

Every case is a clean one that every kind of failure is done to; its X-rays are simulated as in :mod:`registration_calibration`.  A result
counts as a failure when its pose is more than 2 mm (mTRE) wrong, and always for mirrored X-rays and another patient's CT.  Kinds that
happen to find the right pose count as successes.
"""

from __future__ import annotations

import numpy as np
import registration_calibration as calibration
import registration_cases as cases

SEEDS = range(1045, 1058)  # thirteen cases with nine kinds each; 1000-1044 were run on designs before; more: go on from 1058
SLICE = (1000,)
KINDS = (*cases.KINDS, "whole_volume_on_moved")


def case(seed: int) -> dict:
    """All kinds of failure done to one case."""
    rng = np.random.default_rng([seed, 13])
    name, apart = ("thorax", "pelvis")[seed % 2], (90.0, 35.0)[seed // 2 % 2]
    shown = calibration.coarse(name)
    made = cases.make("clean", name, apart, rng, 0.0, shown, calibration.PIXELS)
    kinds = {k: cases.failure(made, k, np.random.default_rng([seed, n])) for n, k in enumerate(cases.KINDS)}
    moved = cases.make("clean", name, apart, np.random.default_rng([seed, 14]), float(rng.uniform(4, 15)), shown, calibration.PIXELS)
    kinds["whole_volume_on_moved"] = cases.run(moved, "whole")
    return {"volume": name, "apart_deg": apart, "kinds": kinds}


def summarize(results: list[dict]) -> dict:
    """Per kind: real failures and how many of them were not passed."""
    out = {}
    for kind in (*KINDS, "all"):
        rows = [(k, r) for case_ in results for k, r in case_["kinds"].items() if kind in (k, "all")]
        wrong = [r for k, r in rows if k in cases.ALWAYS_WRONG or r["mtre_mm"] > 2.0]
        right = [r for k, r in rows if not (k in cases.ALWAYS_WRONG or r["mtre_mm"] > 2.0)]
        caught, doubted = sum(r["verdict"] != "pass" for r in wrong), sum(r["verdict"] != "pass" for r in right)
        out[kind] = {
            "failures": len(wrong), "not_passed": caught, "not_passed_wilson_95_percent": cases.wilson(caught, len(wrong)),
            "right_after_all": len(right), "right_but_not_passed": doubted,
        }
    return out
