"""The evaluation on Dask: the same runs on one and on two workers, then on two of which one is killed in the middle.

Told: wall seconds of the runs alone (start-up of the cluster is told apart), efficiency on two workers, what the kill cost, memory of a
worker, and whether all three gave the same numbers.  Needs an idle machine with two cores: ``make verify PART=scaling VERIFY_ARGS="--workers 1"``.
"""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from FluoroGuideLib.evaluation.cluster import DaskRunner
from FluoroGuideLib.evaluation.runlog import COLUMNS, TIMES
from FluoroGuideLib.evaluation.study import Settings, Subject, chunks
from FluoroGuideLib.evaluation.subjects import load_subject
from FluoroGuideLib.evaluation.voxel_paths import rtk_available

SEEDS = (1000,)
SLICE = (1,)


def small() -> tuple[Subject, Settings]:
    """For CI: a made-up CT and runs of a tenth of a second."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))
    from evaluation_case import small_ct

    settings = Settings(starts=24, starts_per_scene=6, pixels=64, noise="clean", search=False, largest_start_mm=8.0)
    return Subject("small", small_ct()[0], (("middle", np.zeros(3), None),), digest="d", facts={"size": [48, 48, 48]}), settings


def run_once(subject: Subject, settings: Settings, workers: int, kill: bool) -> dict:
    """All runs on a fresh local cluster."""
    began = time.perf_counter()
    runner = DaskRunner([subject], settings, workers=workers)
    started = time.perf_counter() - began
    rows: dict[str, dict] = {}
    pids = sorted(runner.client.run(os.getpid).values())
    expected, lost = settings.starts, []

    def report(row: dict) -> None:
        rows.setdefault(row["run"], row)
        if kill and not lost and len(rows) >= expected // 2:
            lost.append(time.perf_counter())
            os.kill(pids[0], signal.SIGKILL)

    try:
        began = time.perf_counter()
        runner.run(list(chunks(settings, 1, 5)), report)
        seconds = time.perf_counter() - began
        memory = max(runner.client.run(_peak_mb).values())
    finally:
        runner.close()
    return {"start_seconds": started, "seconds": seconds, "worker_memory_mb": memory, "rows": rows}


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def case(seed: int) -> dict:
    """One, two, and two less one."""
    if seed >= 1000:
        settings = Settings(starts=60, seed=seed, projector="rtk" if rtk_available() else "march")
        subject = load_subject("thorax")
    else:
        subject, settings = small()
    results = [run_once(subject, settings, workers, kill) for workers, kill in ((1, False), (2, False), (2, True))]
    numbers = [{k: [r.get(c) for c in COLUMNS if c not in TIMES] for k, r in result["rows"].items()} for result in results]
    one, two, killed = results
    busy = [sum(r["seconds"] for r in result["rows"].values()) for result in results]
    return {
        "runs": settings.starts, "voxels": int(np.prod(subject.facts["size"])), "one_worker_seconds": one["seconds"],
        "two_workers_seconds": two["seconds"],
        "efficiency_two_workers": one["seconds"] / (2 * two["seconds"]), "killed_seconds": killed["seconds"],
        "killed_over_undisturbed": killed["seconds"] / two["seconds"], "cluster_start_seconds": two["start_seconds"],
        "worker_memory_mb": max(r["worker_memory_mb"] for r in results), "seconds_per_run_one_worker": busy[0] / settings.starts,
        "seconds_per_run_two_workers": busy[1] / settings.starts, "same_numbers": numbers[0] == numbers[1] == numbers[2],
        "wrong": int(not numbers[0] == numbers[1] == numbers[2]), "lost": settings.starts - len(killed["rows"]),
    }


def summarize(results: list[dict]) -> dict:
    """The measurement itself."""
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in results[-1].items() if k not in ("seed", "cpu_seconds")}
