"""The unit of CPU seconds (no proof itself): itk-rtk's projection of 128 x 128 pixels on this machine, in this run, counts as 30 ms.

Machines differ, and one machine differs from hour to hour; a ratio to a known piece of work does not.  The projection is that of ``make bench``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

WANTED = "FLUOROGUIDE_UNIT"
"""Environment variable that whole proofs set, and their slices do not."""
NORMAL_MS = 30.0
"""What the projection counts as (as in ``make bench``, whose module is not imported for it: it limits the process's threads)."""
BENCHMARKS = Path(__file__).resolve().parents[1] / "Benchmarks"


@functools.cache
def _projection() -> Callable[[], object] | None:
    """One projection; None where itk-rtk is not installed."""
    sys.path.insert(0, str(BENCHMARKS))
    import harness
    import peers
    from bench_projectors import detector, phantom, volume

    harness.limit_loaded_libraries()
    try:
        render = peers.rtk_joseph(volume(phantom(), 1.5), detector(128))
    except ImportError:
        return None
    render()  # the first call loads itk
    return render


def samples(count: int = 3) -> list[float]:
    """CPU milliseconds of ``count`` projections; empty without itk-rtk, and where :data:`WANTED` is not set (loading itk takes seconds)."""
    render = _projection() if os.environ.get(WANTED) else None
    if render is None:
        return []
    import harness

    return [1e3 * harness.timed(render) for _ in range(count)]


def scaled(cpu_s: float, unit_ms: list[float]) -> float:
    """CPU seconds where the projection takes 30 ms; NaN without samples."""
    return cpu_s * NORMAL_MS / float(np.median(unit_ms)) if unit_ms else float("nan")
