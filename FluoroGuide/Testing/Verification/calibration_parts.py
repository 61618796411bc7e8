"""Predicted error and verdict of bones that moved and of narrow CBCT, on new cases: their factors were set on those of ``registration_calibration``.

The cases are made as there; of its six groups only the moved ones and CBCT are run.
"""

from __future__ import annotations

import registration_calibration as calibration
import registration_cases as cases

GROUPS = len(cases.STRATA) - 1


def wanted(seed: int) -> bool:
    """Whether a seed makes a bone that moved, or a CBCT."""
    place = seed // 4 % 6
    return place == 2 or (place in (1, 4) and cases.STRATA[1 + (seed // 4) % GROUPS] == "cbct")


SEEDS = [s for s in range(4200, 4488) if wanted(s)]
SLICE = SEEDS[:1]
case = calibration.case
summarize = calibration.summarize
