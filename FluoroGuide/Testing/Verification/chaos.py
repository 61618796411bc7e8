"""What hospitals do to software: sources die, files vanish while they are read, the disk fills, nodes are deleted, processes are killed.

Each seed is one mishap of one of the kinds below, at a random moment.  A mishap passes when nothing but ``FluoroGuideError`` comes out, when what
was acknowledged is still there, and when the same object works again afterwards.  ``make verify PART=chaos``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from FluoroGuideLib.errors import FluoroGuideError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))


def _record() -> object:
    import record_cases

    return record_cases.record_with(1)


# ---- mishaps: each returns (acknowledged events, lost ones), raises for a defect -------------------------------------------
def file_vanishes(rng: np.random.Generator, folder: Path) -> tuple[int, int]:
    """An X-ray file is truncated or deleted between opening it and reading its pixels."""
    import xa_fuzz

    from FluoroGuideLib.imaging.sources import open_xray, run_report

    path = folder / "x.dcm"
    path.write_bytes(xa_fuzz.bases()[int(rng.integers(10))])

    def meddle() -> None:
        time.sleep(float(rng.uniform(0, 0.01)))
        with contextlib.suppress(OSError):
            if rng.random() < 0.5:
                path.unlink()
            else:
                os.truncate(path, int(rng.integers(0, path.stat().st_size)))

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        for _ in range(4):
            run = open_xray(path)
            run_report(run)
            run.image(0)
    finally:
        thread.join()
    return 0, 0


def folder_source_loses_its_folder(rng: np.random.Generator, folder: Path) -> tuple[int, int]:
    """The watched folder is removed and comes back while frames arrive."""
    import shutil

    import xa_fuzz

    from FluoroGuideLib.imaging.live_folder import FolderSource

    watched, data = folder / "in", xa_fuzz.bases()[1]
    watched.mkdir()
    with FolderSource(watched) as source:
        for n in range(3):
            (watched / f"{n}.dcm").write_bytes(data)
            next(source.frames(timeout_s=0.3), None)
        shutil.rmtree(watched)
        next(source.frames(timeout_s=float(rng.uniform(0.05, 0.3))), None)
        watched.mkdir()
        (watched / "again.dcm").write_bytes(data)
        next(source.frames(timeout_s=0.3), None)
    return 0, 0


def disk_fills(rng: np.random.Generator, folder: Path) -> tuple[int, int]:
    """The journal's disk is full for a while: the write fails with ENOSPC, then works again; every acknowledged event is there at the end."""
    import errno

    from FluoroGuideLib.record import journal as module
    from FluoroGuideLib.record.keeper import RecordKeeper, recover

    record = _record()
    keeper = RecordKeeper.start(record, folder)
    path, real = next(folder.glob("*.fgjournal")), module._write_all
    full = {int(n) for n in rng.integers(0, 12, 4)}

    def failing(handle: int, data: bytes) -> None:
        os.write(handle, data[: int(rng.integers(0, len(data)))])
        raise OSError(errno.ENOSPC, "No space left on device")

    acknowledged = 0
    try:
        for n in range(12):
            module._write_all = failing if n in full else real
            record.log("note", f"event {n}")
            acknowledged += keeper.problem is None
    finally:
        module._write_all = real
    keeper.retry()
    record.log("note", "after")
    kept = [e["text"] for e in recover(path).record.timeline if e["event"] == "note"]
    lost = sum(f"event {n}" not in kept for n in range(12)) + ("after" not in kept)
    return acknowledged, lost


def node_is_deleted(rng: np.random.Generator, folder: Path) -> tuple[int, int]:
    """A random node of the case is deleted behind our back; reading, saving and building the case again still work."""
    from FluoroGuideLib.scene import case as cases
    from FluoroGuideLib.scene import host as hosts
    from FluoroGuideLib.scene.journal_nodes import read_record
    from FluoroGuideLib.scene.plan_nodes import read_plan_nodes

    host = hosts.start()
    host.scene.Clear(0)
    import record_cases

    cases.build(host, cases.CaseData(plan=record_cases.a_plan(2)))
    for _ in range(int(rng.integers(1, 4))):
        number = host.scene.GetNumberOfNodes()
        host.scene.RemoveNode(host.scene.GetNthNode(int(rng.integers(number))))
        for read in (cases.read_case, read_plan_nodes, read_record):
            with contextlib.suppress(FluoroGuideError):
                read(host)
    cases.build(host, cases.CaseData(plan=record_cases.a_plan(1)))
    host.scene.Clear(0)
    return 0, 0


def evaluation_is_killed(rng: np.random.Generator, folder: Path) -> tuple[int, int]:
    """A process that writes finished runs is killed; every run that it told of is read back, and the log goes on."""
    from FluoroGuideLib.evaluation.runlog import RunLog

    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\nfrom FluoroGuideLib.evaluation.runlog import RunLog\n"
        "log = RunLog(Path(sys.argv[2]), {'key': 'a'})\n"
        "for n in range(100000):\n"
        "    row = {'run': str(n), 'subject': 's', 'scene': 0, 'start': n, 'views': 2, 'verdict': 'pass', 'reasons': 'x' * (n % 4000)}\n"
        "    log.add(row)\n    print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).resolve().parents[2]), str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told = [child.stdout.readline()]
    time.sleep(float(rng.uniform(0, 0.15)))
    child.send_signal(signal.SIGKILL)
    told += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    numbers = [line.strip() for line in told if line.endswith("\n")]
    log = RunLog(folder, {"key": "a"})
    lost = sum(n not in log.rows for n in numbers)
    log.add({"run": "x", "subject": "s", "scene": 0, "start": 0, "views": 2, "verdict": "pass"})
    log.close()
    return len(numbers), lost + ("x" not in RunLog(folder, {"key": "a"}).rows)


def saving_is_interrupted(rng: np.random.Generator, folder: Path) -> tuple[int, int]:
    """Writing a record fails at any step (disk full, no permission, file system error); the old file is whole."""
    from unittest import mock

    from FluoroGuideLib.record.record import read_record, write_record

    record, path = _record(), folder / "record.json"
    write_record(path, record)
    record.log("note", "new")
    step = ("os.fsync", "os.replace", "os.fdopen", "tempfile.mkstemp")[int(rng.integers(4))]
    with mock.patch(step, side_effect=OSError(28, "No space left on device")), contextlib.suppress(FluoroGuideError):
        write_record(path, record)
        raise AssertionError("a failed write was not told")
    whole = all(e["text"] != "new" for e in read_record(path).timeline)
    left = [p.name for p in folder.iterdir() if p.name != "record.json"]
    if left and step != "os.fdopen":
        raise AssertionError(f"left behind: {left}")
    write_record(path, record)
    return 1, 0 if whole and read_record(path).timeline[-1]["text"] == "new" else 1


def worker_is_killed(rng: np.random.Generator, folder: Path) -> tuple[int, int]:
    """The engine's process is killed while it registers: the job ends with one sentence, the next one works."""
    from evaluation_case import small_ct

    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
    from FluoroGuideLib.engine.client import EngineClient
    from FluoroGuideLib.evaluation.study import Settings, Subject
    from FluoroGuideLib.evaluation.trials import make_scene

    subject = Subject("small", small_ct()[0], (("middle", np.zeros(3), None),), digest="d")
    scene = make_scene(subject, Settings(starts=1, pixels=64, noise="clean"), 0)
    volume = attenuation_from_hu(subject.volume)
    with EngineClient(threads=1) as client:
        client.submit(volume, list(scene.images), scene.truth, targets={"t": scene.target_lps_mm})
        until = time.monotonic() + float(rng.uniform(0.0, 2.0))
        while time.monotonic() < until:
            client.poll()
            time.sleep(0.01)
        if client.worker_pid:
            os.kill(client.worker_pid, signal.SIGKILL)
        with contextlib.suppress(FluoroGuideError):
            client.register(volume, list(scene.images), scene.truth, targets={"t": scene.target_lps_mm}, timeout=60)
        found = client.register(volume, list(scene.images), scene.truth, targets={"t": scene.target_lps_mm}, timeout=60)
    return 1, 0 if np.linalg.norm(found.pose[:3, 3] - scene.truth[:3, 3]) < 2.0 else 1


MISHAPS: dict[str, Callable] = {
    f.__name__: f for f in (
        file_vanishes, folder_source_loses_its_folder, disk_fills, node_is_deleted, evaluation_is_killed, saving_is_interrupted, worker_is_killed,
    )
}
SEEDS = range(1000, 1000 + 40 * len(MISHAPS))
SLICE = range(len(MISHAPS))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Native libraries complain about damaged files on standard error."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def case(seed: int) -> dict:
    """One mishap."""
    name = list(MISHAPS)[seed % len(MISHAPS)]
    acknowledged = lost = 0
    outcome, threads = "survived", threading.active_count()
    with tempfile.TemporaryDirectory(prefix="fluoroguide-chaos-", ignore_cleanup_errors=True) as folder, _quiet():
        try:
            acknowledged, lost = MISHAPS[name](np.random.default_rng(seed), Path(folder))
        except FluoroGuideError as error:
            outcome = "told"
            json.dumps(str(error))
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
    left = threading.active_count() - threads
    return {"mishap": name, "outcome": outcome, "acknowledged": int(acknowledged), "lost": int(lost), "threads_left": left}


def summarize(results: list[dict]) -> dict:
    """Per mishap."""
    table = {}
    for name in MISHAPS:
        rows = [r for r in results if r["mishap"] == name]
        if rows:
            strange = [r["outcome"] for r in rows if r["outcome"] not in ("survived", "told")]
            table[name.replace("_", " ")] = {
                "mishaps": len(rows), "survived": sum(r["outcome"] == "survived" for r in rows), "told": sum(r["outcome"] == "told" for r in rows),
                "other_exceptions": len(strange), "kinds": sorted(set(strange))[:3], "acknowledged": sum(r["acknowledged"] for r in rows),
                "lost": sum(r["lost"] for r in rows), "threads_left": max(r["threads_left"] for r in rows),
            }
    return table
