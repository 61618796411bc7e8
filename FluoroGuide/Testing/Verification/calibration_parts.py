"""Predicted error and verdict of bones that moved and of narrow CBCT on new cases, for which they were set on design cases of their own.

The cases are made as there; of its six groups only the moved ones and CBCT are run, and CBCT from a longer range, for they are rare in it.
4200-5799 were run on designs before
(of CBCT: 4200-5511).  Moved 5800-6087 and CBCT 5512-7559 were run first; the others were added for larger numbers, after which nothing was changed.
"""

from __future__ import annotations

import registration_calibration as calibration
import registration_cases as cases

GROUPS = len(cases.STRATA) - 1


def is_moved(seed: int) -> bool:
    """Whether a seed makes a bone that moved."""
    return seed // 4 % 6 == 2


def is_cbct(seed: int) -> bool:
    """Whether a seed makes a CBCT."""
    return seed // 4 % 6 in (1, 4) and cases.STRATA[1 + (seed // 4) % GROUPS] == "cbct"


SEEDS = sorted([s for s in range(5800, 6376) if is_moved(s)] + [s for s in range(5512, 7560) if is_cbct(s)])  # 96 and 96
SLICE = SEEDS[:1]
case = calibration.case
summarize = calibration.summarize
