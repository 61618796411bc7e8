"""Predicted error and verdict of bones that moved and of narrow CBCT on new cases, for which they were set on design cases of their own.

The cases are made as there; of its six groups only the moved ones and CBCT are run, and CBCT from a longer range, for they are rare in it.

What was set where: the search for a bone of its own has been the same since before seed 5000, so that all of the moved ones are new to it; limits
of its verdict and the factor of its error were set on 5000-5799 (among others), so that only those from 5800 on, which are told apart, are new
to them.  CBCT was last changed before 5512.  Of the moved, 5000-5287 were run on older code, 5512-5799 and 5800-6087 after it, then the others to
have more; nothing was changed after 5800.
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


NEW_LIMITS_FROM = 5800
SEEDS = sorted([s for s in range(5000, 6376) if is_moved(s)] + [s for s in range(5512, 7560) if is_cbct(s)])
SLICE = SEEDS[:1]
case = calibration.case


def summarize(results: list[dict]) -> dict:
    """As there; and the moved ones that are new to the limits of their verdict."""
    new = [r for r in results if r["stratum"] == "moved" and r["seed"] >= NEW_LIMITS_FROM]
    return calibration.summarize(results) | ({f"moved, from {NEW_LIMITS_FROM} on": calibration.summarize(new)["moved"]} if new else {})
