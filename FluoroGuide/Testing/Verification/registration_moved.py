"""Surroundings moved 3, 8 or 15 mm against a vertebra, the sacrum or a hip: whole volume, labelled bone, bone found without label.

Simulated as ``evaluation.simulate.move_surroundings`` does: the bone rigid, full displacement from 35 mm outward, random direction.
Thorax (even seeds) or pelvis (odd), two views 90 or 35 degrees apart; see :mod:`registration_cases`.
"""

from __future__ import annotations

import numpy as np
import registration_cases as cases

SEEDS = range(3030, 3042)  # each displacement and body at 35 and 90 degrees; 1000-1035, 2000-2023 and 3000-3029 were run on designs before
SLICE = (3030,)
AMPLITUDES_MM = (3.0, 8.0, 15.0)
WAYS = ("whole", "label", "auto")


def case(seed: int) -> dict:
    """One case in three ways."""
    amplitude = AMPLITUDES_MM[seed // 2 % 3]
    made = cases.make("clean", ("thorax", "pelvis")[seed % 2], (90.0, 35.0)[seed // 6 % 2], np.random.default_rng([seed, 7]), amplitude)
    return {"volume": made.body, "bone": made.label, "moved_mm": amplitude, "apart_deg": made.apart_deg, **{w: cases.run(made, w) for w in WAYS}}


def summarize(results: list[dict]) -> dict:
    """Figures per displacement, body and way."""
    out = {}
    for amplitude in AMPLITUDES_MM:
        for body in ("thorax", "pelvis"):
            rows = [r for r in results if r["moved_mm"] == amplitude and r["volume"] == body]
            if rows:
                out[f"{amplitude:g} mm {body}"] = {way: cases.figures([r[way] for r in rows]) for way in WAYS}
    return out
