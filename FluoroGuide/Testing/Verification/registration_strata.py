"""Rigid anatomy with one difficulty at a time against the clean reference: CBCT, metal, contrast, collimation, truncation, dose, display values.

Case ``seed``: stratum ``seed mod 8``, thorax or pelvis, two views 90 or 35 degrees apart in turn; see :mod:`registration_cases`.
"""

from __future__ import annotations

import numpy as np
import registration_cases as cases

SEEDS = range(1112, 1144)  # four of each stratum: thorax and pelvis, 35 and 90 degrees; 1000-1111 were run on designs before
SLICE = (1017,)


def case(seed: int) -> dict:
    """One case."""
    stratum, turn = cases.STRATA[seed % len(cases.STRATA)], seed // len(cases.STRATA)
    made = cases.make(stratum, ("thorax", "pelvis")[turn % 2], (90.0, 35.0)[turn // 2 % 2], np.random.default_rng([seed, 11]))
    return {"stratum": stratum, "volume": made.body, "apart_deg": made.apart_deg, "two": cases.run(made, "rigid")}


def summarize(results: list[dict]) -> dict:
    """Figures per stratum."""
    return {s: cases.figures([r["two"] for r in results if r["stratum"] == s]) for s in cases.STRATA if any(r["stratum"] == s for r in results)}
