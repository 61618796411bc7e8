"""``fluoroguide evaluate`` killed again and again and started again, against the same evaluation left alone: the same table, no run made twice.

The command runs as a user starts it, on the thorax CT and, where the test data are, on the pelvis CT; after random times all its processes get
SIGKILL.  ``make verify PART=evaluate_killed VERIFY_ARGS="--workers 1"``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIBRARY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FLUOROGUIDE_TEST_DATA", LIBRARY.parents[1] / "shared" / "data"))
PELVIS = DATA / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz"

SEEDS = (1000,)
SLICE = (1,)


def command(seed: int, output: Path) -> list[str]:
    """As a user types it; few and easy runs for CI."""
    text = [sys.executable, "-m", "FluoroGuideLib.cli", "evaluate", "--output", str(output)]
    text += ["--volume", "thorax", "--seed", str(seed), "--workers", "2"]
    if seed < 1000:
        few = "--starts 6 --starts-per-scene 3 --chunk 3 --no-search --size 96 --noise clean --gallery 0"
        return [*text, *few.split()]
    return [*text, *(["--volume", str(PELVIS)] if PELVIS.is_file() else []), "--starts", "40", "--gallery", "4"]


def run(seed: int, output: Path, seconds: float | None = None) -> tuple[float, bool]:
    """(seconds it ran, whether it came to its end); killed with all its processes after ``seconds``."""
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    began = time.monotonic()
    started = subprocess.Popen(command(seed, output), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _, errors = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        return time.monotonic() - began, False
    if started.returncode:
        raise RuntimeError(errors.decode(errors="replace")[-500:])
    return time.monotonic() - began, True


def finished_runs(output: Path) -> list[str]:
    """Names of the runs on disk, as often as they are there."""
    names = []
    for path in output.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                names.append(json.loads(line).get("run"))
            except json.JSONDecodeError:
                continue  # the line that the kill cut off
    return [n for n in names if n]


def case(seed: int) -> dict:
    """Undisturbed; then killed at three (CI: one) random moments of its undisturbed time, and started again."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="fluoroguide-killed-") as folder:
        calm, disturbed = Path(folder, "calm"), Path(folder, "killed")
        whole, _ = run(seed, calm)
        spent, kept = 0.0, []
        for _ in range(3 if seed >= 1000 else 1):
            seconds, ended = run(seed, disturbed, float(rng.uniform(0.35, 0.6)) * whole)
            spent += seconds
            kept.append(len(set(finished_runs(disturbed))))
            if ended:
                break
        last, _ = run(seed, disturbed)
        results = [json.loads((f / "figures.json").read_text(encoding="utf-8")) for f in (calm, disturbed)]
        names = finished_runs(disturbed)
        return {
            "runs": results[0]["runs"], "undisturbed_seconds": whole, "seconds_before_kills": spent, "seconds_after": last,
            "runs_kept_at_each_kill": kept, "digests": [r["results_digest"] for r in results], "twice": len(names) - len(set(names)),
            "wrong": int(results[0]["results_digest"] != results[1]["results_digest"]),
        }


def summarize(results: list[dict]) -> dict:
    """The measurement itself."""
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in results[-1].items() if k not in ("seed", "cpu_seconds")}
