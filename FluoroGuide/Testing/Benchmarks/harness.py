"""Interleaved timing in CPU seconds, and the page that the figures go to.

All functions of a comparison take turns within one process, so that a busy machine slows them alike; what is reported
is the median of each, and its ratio to a reference in the same run.  CPU seconds of the process (all its threads, and
child processes where a peer is a program) count, not wall time.  Importing this module limits the process to one thread.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# One thread for everything; numpy's and numba's libraries read this when they are loaded.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
NORMAL_MS = 30.0
"""What the itk-rtk projection of 128 x 128 pixels through 1.5 mm voxels counts as; other figures are scaled with it."""


def limit_loaded_libraries() -> None:
    """One thread for the libraries that do not read the environment."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        import itk

        itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
        itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(1)
    except ImportError:
        pass
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:
        pass


def cpu_seconds() -> float:
    """CPU seconds of this process."""
    return time.process_time()


def child_seconds() -> float:
    """CPU seconds of finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(function: Callable[[], object]) -> float:
    """CPU seconds of one call; a function with an attribute ``cpu_seconds`` measures itself."""
    own = getattr(function, "cpu_seconds", None)
    if own is not None:
        return own()
    began = cpu_seconds()
    function()
    return cpu_seconds() - began


def interleaved(functions: dict[str, Callable[[], object]], rounds: int = 15, budget_s: float = 20.0, least: int = 3) -> dict[str, np.ndarray]:
    """CPU seconds of every call, the functions taking turns.

    A function that has used up ``budget_s`` drops out after ``least`` rounds, so that a slow peer does not cost minutes.
    Each function is called once beforehand, not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for number in range(rounds):
        for name, function in functions.items():
            if number < least or sum(seconds[name]) < budget_s:
                seconds[name].append(timed(function))
    return {name: np.array(values) for name, values in seconds.items()}


def median_ms(seconds: np.ndarray) -> float:
    """Median in milliseconds."""
    return float(np.median(seconds)) * 1e3


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; numbers are right-aligned."""
    def cell(value: object) -> str:
        if isinstance(value, float):
            return "-" if not np.isfinite(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
        return str(value)

    body = [[cell(v) for v in row] for row in rows]
    numeric = [all(isinstance(r[i], (int, float)) or r[i] == "-" for r in rows) for i in range(len(header))]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join("---:" if n else "---" for n in numeric) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def commit() -> str:
    """The commit the figures belong to, with ``+changes`` when the library or the benchmarks differ from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "FluoroGuide/FluoroGuideLib", "FluoroGuide/Testing/Benchmarks")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def circumstances() -> str:
    """Date, commit and machine in one line; no names."""
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
        load = f", load {os.getloadavg()[0]:.1f} at the end"
    except OSError:
        load = ""
    return f"{dt.date.today().isoformat()}, commit {commit()}, {model}, {os.cpu_count()} cores{load}, Python {platform.python_version()}"
