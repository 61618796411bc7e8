"""The short form of every proof, for CI: ``tools/verify.py --slice-all``.

Each part's ``SLICE`` runs in a process of its own, two at a time, within one budget of time.  A slice fails when it raises or when a figure
that must hold whatever the seed does not (:data:`MUST`).  Parts whose data are absent are skipped and counted.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / "FluoroGuide" / "Testing" / "Verification"
MUST = {
    "lost": 0, "duplicates": 0, "wrong": 0, "twice": 0, "half_read": 0, "other_exceptions": 0, "unaccounted": 0, "failed": 0, "counter_drift": 0,
    "tracebacks": 0, "lost_acknowledged_events": 0, "numbers_rise": True, "as_promised": True, "within_limits": True, "sentences_of_one_line": True,
}
"""Figures that hold for every seed and on every machine, fast or slow; accuracy is not among them: a slice is too small to judge it."""
TIMED = {"live_stream": ("as_promised",), "soak": ("as_promised",)}
"""Figures that depend on how busy the machine is: not asked of a slice."""


LONGEST_S = 60.0
"""One slice must not eat the time of the others."""


def parts() -> list[str]:
    """Names of all proofs: the quick ones first, the others from another one on with every commit.

    What does not fit into the budget is told as late, and the next commits come to it.
    """
    names = sorted(p.stem for p in PARTS.glob("*.py") if "\nSLICE" in p.read_text(encoding="utf-8"))
    quick = [n for n in ("fuzz_readers", "xa_fuzz", "journal_kills", "rdsr", "chaos", "folder_watch") if n in names]
    others = [n for n in names if n not in quick]
    first = commits() % max(1, len(others))
    return quick + others[first:] + others[:first]


def commits() -> int:
    """How many commits led here; 0 outside a clone."""
    done = subprocess.run(["git", "rev-list", "--count", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def broken(figures: object, part: str, path: str = "") -> list[str]:
    """Figures that must hold and do not."""
    if not isinstance(figures, dict):
        return []
    found = []
    for key, value in figures.items():
        where = f"{path} / {key}" if path else str(key)
        if key in MUST and key not in TIMED.get(part, ()) and not isinstance(value, dict) and value != MUST[key]:
            found.append(f"{where} is {value}, must be {MUST[key]}")
        found += broken(value, part, where)
    return found


def missing_data(error: str) -> str | None:
    """Why a slice could not run on this machine, when that is so."""
    data = Path(os.environ.get("FLUOROGUIDE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if "cannot be downloaded" in error:
        return "the sample CT cannot be downloaded here"
    absent = ("The volume does not exist", "FileNotFoundError", "No such file", "test data are absent")
    return "real test data are absent" if not data.is_dir() and any(text in error for text in absent) else None


def run_for(command: list[str], seconds: float, environment: dict) -> subprocess.CompletedProcess | None:
    """A finished command; None when it took longer: it is then ended together with every process it started."""
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT, start_new_session=True)
    try:
        out, err = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # its workers would go on for minutes, without anyone to report to
        if hasattr(os, "killpg"):
            os.killpg(started.pid, signal.SIGKILL)
        else:
            started.kill()
        started.communicate()
        return None
    return subprocess.CompletedProcess(command, started.returncode, out, err)


def one(part: str, deadline: float) -> tuple[str, str, str]:
    """(part, outcome, text): outcome is ``ok``, ``skipped``, ``failed`` or ``late``."""
    left = min(LONGEST_S, deadline - time.monotonic())
    if left < 3:
        return part, "late", "no time left"
    command = [sys.executable, str(ROOT / "tools" / "verify.py"), part, "--slice", "--workers", "1", "--fresh"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    began = time.monotonic()
    done = run_for(command, left, environment)
    if done is None:
        return part, "late", f"stopped after {left:.0f} s"
    seconds = f"{time.monotonic() - began:.1f} s"
    if done.returncode:
        why = missing_data(done.stderr)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return (part, "skipped", why) if why else (part, "failed", f"{last[:300]} ({seconds})")
    summary = json.loads(done.stdout[done.stdout.index("{") :])
    wrong = broken(summary["figures"], part)
    return (part, "failed", "; ".join(wrong)) if wrong else (part, "ok", f"{summary['cases']} cases, {seconds}")


def run_all(budget_s: float = 120.0, workers: int = 2) -> int:
    """All slices; exit code 1 when one failed.  Late ones are told, not failed: a busy machine is no defect."""
    deadline = time.monotonic() + budget_s
    counts: dict[str, int] = {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for job in concurrent.futures.as_completed([pool.submit(one, part, deadline) for part in parts()]):
            part, outcome, text = job.result()
            counts[outcome] = counts.get(outcome, 0) + 1
            print(f"verify {part}: {outcome}: {text}", flush=True)
    print("verify: " + ", ".join(f"{n} {word}" for word, n in sorted(counts.items())))
    return 1 if counts.get("failed") else 0
