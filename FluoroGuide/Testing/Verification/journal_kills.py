"""Long proof: a process that writes a journal is killed (SIGKILL) at a random moment; no acknowledged event may be lost.

Each case is one kill.  The writer tells each acknowledged event's number through a pipe; events are 20 bytes to 4 MB, so
that kills fall between events, into writes (torn lines) and into fsync.  After the kill the journal is read, opened again
and continued.  A kill proves nothing about power loss: that rests on fsync, which is called before each acknowledgement.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

from FluoroGuideLib.record.journal import Journal, read_journal

SEEDS = range(1000, 2000)
SLICE = range(40)
RECORD = "00000000-0000-4000-8000-000000000000"


def payload(seed: int, number: int) -> dict:
    """Data of one event: the same for writer and checker."""
    rng = random.Random(f"{seed}/{number}")
    size = int(10 ** rng.uniform(1.3, 6.6 if rng.random() < 0.15 else 3.5))
    return {"number": number, "text": rng.choice("abcäö\n\\\"") * size}


def writer(folder: Path, seed: int, pipe: int) -> None:
    """Write events until killed."""
    journal = Journal.create(folder, RECORD)
    for number in range(100_000):
        answer = journal.append("event", payload(seed, number))
        if answer.durable:
            os.write(pipe, b"%d\n" % answer.number)


def kill_once(folder: Path, seed: int) -> tuple[list[int], float]:
    """Numbers that were acknowledged before the kill, and when it came."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(readable)
            writer(folder, seed, writable)
        finally:
            os._exit(1)
    os.close(writable)
    rng = random.Random(seed)
    if rng.random() < 0.9:  # one in ten is killed while it starts, the others while they write, however busy the machine is
        select.select([readable], [], [], 30)
    delay = rng.uniform(0.0, 0.06)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = b""
    while piece := os.read(readable, 1 << 16):
        said += piece
    os.close(readable)
    if not os.WIFSIGNALED(status):
        raise RuntimeError("the writer ended by itself")
    return [int(n) for n in said.split()], delay


def case(seed: int) -> dict:
    """One kill: what was acknowledged against what is in the journal."""
    folder = Path(tempfile.mkdtemp(prefix="fluoroguide-kill-"))
    try:
        acknowledged, delay = kill_once(folder, seed)
        paths = list(folder.iterdir())
        if not paths:  # killed before the file was made
            return result(acknowledged, [], delay, 0, 0, False, seed)
        before = read_journal(paths[0])
        journal = Journal.open(paths[0])
        for _ in range(3):
            journal.append("event", payload(seed, journal._next))
        journal.close()
        after = read_journal(paths[0])
        kept = [e["n"] for e in after.events][: len(before.events)] == [e["n"] for e in before.events]
        whole = kept and len(after.events) == len(before.events) + 3 and not (after.torn or after.missing or after.damaged)
        return result(acknowledged, before.events, delay, before.damaged, int(before.torn), whole, seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def result(acknowledged: list[int], events: tuple | list, delay: float, damaged: int, torn: int, continued: bool, seed: int) -> dict:
    """The case in numbers."""
    numbers = [e["n"] for e in events]
    return {
        "acknowledged": len(acknowledged), "recovered": len(numbers), "lost": len(set(acknowledged) - set(numbers)),
        "duplicates": len(numbers) - len(set(numbers)), "wrong": sum(e["data"] != payload(seed, e["n"]) for e in events),
        "not_acknowledged_but_whole": len(set(numbers) - set(acknowledged)), "damaged_lines": damaged, "torn_lines": torn,
        "continued": bool(continued or not events), "killed_after_s": round(delay, 4),
    }


def summarize(results: list[dict]) -> dict:
    """Figures that may be quoted."""
    keys = ("acknowledged", "recovered", "lost", "duplicates", "wrong", "not_acknowledged_but_whole", "damaged_lines", "torn_lines")
    return {
        "kills": len(results), **{k: sum(r[k] for r in results) for k in keys}, "continued": sum(r["continued"] for r in results),
        "kills_before_the_first_acknowledgement": sum(r["acknowledged"] == 0 for r in results),
    }
