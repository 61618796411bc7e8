"""A whole procedure without end: frames of 1024 x 1024 at 15 per second for 30 minutes through the real scene and the engine's processes.

Meanwhile the patient moves (every 4 minutes), contrast runs in (every 5), the volume is registered again after each motion
in a worker of its own, and a needle is placed and recorded every 3 minutes, each event journalled.  Memory of all processes, threads, open
files, nodes and observers of the scene, and latency are taken per minute.

``make verify PART=soak``; ``FLUOROGUIDE_SOAK_SECONDS`` shortens it.  Killed, the same command goes on with the minutes that are missing
(each stretch in a fresh process; growth is judged within the longest stretch).  In CI: 8 seconds.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from pathlib import Path

import live_loop
import numpy as np

SEEDS = (1000,)
SLICE = (1,)
MINUTES = Path(__file__).resolve().parents[3] / "build" / "verify" / "soak-minutes.jsonl"
MOTION_S, CONTRAST_S, NEEDLE_S = 240.0, 300.0, 180.0
WARM_UP_MINUTES = 3
LIVE_BAR_MS = 100.0


class Procedure:
    """Scene, live view, registration worker and journalled record of one procedure."""

    def __init__(self, folder: Path, seed: int) -> None:
        from FluoroGuideLib.engine.client import EngineClient
        from FluoroGuideLib.engine.live import LiveSession
        from FluoroGuideLib.imaging.xray import XrayImage
        from FluoroGuideLib.record.keeper import RecordKeeper
        from FluoroGuideLib.record.record import ProcedureRecord
        from FluoroGuideLib.scene import host as hosts
        from FluoroGuideLib.scene.live_view import LiveView
        from FluoroGuideLib.scene.xray_view import build_xray

        self.setup, self.frames, *_ = live_loop.setup_and_frames(np.random.default_rng(seed))
        self.volume = live_loop.volume("pelvis")
        self.shifted = [np.roll(f, 24, axis=1) for f in self.frames]  # the patient moved 8 mm
        self.contrast = [self._with_contrast(f) for f in self.frames]
        self.host = hosts.start()
        self.host.scene.Clear(0)
        mask = np.ones(self.frames[0].shape, bool)
        self.image = XrayImage(-self.frames[0].astype(np.float32), mask, self.setup.view, "soak")
        node = build_xray(self.host, self.image, 0)
        self.live = LiveView(self.host, LiveSession(self.setup), node, 0)
        self.worker = EngineClient(threads=1)
        self._warm_up()
        self.record = ProcedureRecord.of_plan(self.setup.plan)
        self.keeper = RecordKeeper.start(self.record, folder)
        self.journal = next(folder.iterdir())
        self.jobs, self.registrations, self.acknowledged, self.not_durable = [], 0, 0, 0

    def _warm_up(self) -> None:
        """As the module does when it opens and a volume is chosen: the worker has imported, compiled and prepared before the first frame."""
        job = self.worker.warm_up(self.volume)
        while not job.finished:
            self.worker.poll()
            time.sleep(0.01)
        if job.error:
            raise job.error

    @staticmethod
    def _with_contrast(frame: np.ndarray) -> np.ndarray:
        r, c = np.mgrid[: frame.shape[0], : frame.shape[1]]
        return np.where((r - 500) ** 2 / 90**2 + (c - 560) ** 2 / 40**2 < 1, frame // 2, frame).astype(frame.dtype)

    def start_registration(self) -> None:
        """The volume is registered again, in its own process, while frames go on."""
        from FluoroGuideLib.registration.register import Options

        options = Options(threads=1, check_part=False, search=False)
        self.jobs.append(self.worker.submit(self.volume, [self.image], self.setup.pose, targets=self.setup.plan.target_points(), options=options))

    def finish_jobs(self) -> None:
        """Take registrations that are done."""
        for job in self.worker.poll():
            self.jobs.remove(job)
            self.registrations += 1
            self.note("registered", "again")

    def note(self, event: str, text: str) -> None:
        """An event in the journal, acknowledged when it is on disk."""
        self.record.log(event, text)  # journals itself
        self.acknowledged += self.keeper.problem is None
        self.not_durable += self.keeper.problem is not None

    def place_needle(self, number: int) -> None:
        """A placement, recorded."""
        from FluoroGuideLib.guidance.deviation import deviation
        from FluoroGuideLib.record.placement import Placement

        trajectory = self.setup.plan.trajectories[0]
        tip = trajectory.target_lps_mm + np.array([0.4, -0.3, 0.1 * number])
        reached = deviation(trajectory, tip, trajectory.axis)
        self.record.add_placement(Placement(trajectory=trajectory, tip_lps_mm=tip, axis_lps=trajectory.axis, deviation=reached))
        self.note("needle", f"needle {number}")

    def counts(self) -> dict:
        """What must not grow."""
        pids = [os.getpid(), self.live.session.client.worker_pid, self.worker.worker_pid]
        observers = sum(self.host.scene.GetNthNode(i).HasObserver("ModifiedEvent") for i in range(self.host.scene.GetNumberOfNodes()))
        open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        return {
            "memory_mb": sum(live_loop.memory_mb(p) for p in pids if p), "own_memory_mb": live_loop.memory_mb(os.getpid()),
            "threads": threading.active_count(), "open_files": open_files, "nodes": self.host.scene.GetNumberOfNodes(), "observed_nodes": observers,
        }

    def close(self) -> None:
        """End everything."""
        self.live.close()
        self.worker.close()


def run_minutes(seconds: float, done: int, on_minute: object, minute_s: float = 60.0) -> dict:
    """The procedure from minute ``done`` on; ``on_minute(row)`` for each finished minute."""
    with tempfile.TemporaryDirectory(prefix="fluoroguide-soak-") as folder:
        procedure = Procedure(Path(folder), 1000)
        session = procedure.live.session
        try:
            session.push(procedure.frames[0])
            while session.result is None:  # start-up is not part of it
                session.poll()
                time.sleep(0.005)
            began, sent, minute, needles = time.monotonic(), 0, done, 0
            session.latency_ms.clear()
            first = session.counters.pushed
            next_motion, next_needle = MOTION_S, 5.0
            while (now := time.monotonic() - began + done * minute_s) < seconds:
                if now - done * minute_s >= sent / live_loop.RATE:
                    moved, contrast = now % MOTION_S < 15 and now > 15, now % CONTRAST_S < 12 and now > 12
                    frames = procedure.contrast if contrast else procedure.shifted if moved else procedure.frames
                    procedure.live.show(frames[sent % len(frames)])
                    sent += 1
                procedure.live.tick()
                procedure.finish_jobs()
                if now >= next_motion or (seconds < MOTION_S and sent == 30):
                    next_motion += MOTION_S
                    procedure.start_registration()
                if now - done * minute_s >= next_needle:
                    needles, next_needle = needles + 1, next_needle + NEEDLE_S
                    procedure.place_needle(needles)
                if now >= (minute + 1) * minute_s:
                    minute += 1
                    latency = np.array(session.latency_ms) if session.latency_ms else np.array([np.nan])
                    session.latency_ms.clear()
                    on_minute({"minute": minute, "pid": os.getpid(), "p50_ms": float(np.median(latency)), "p95_ms": float(np.percentile(latency, 95)),
                               "frames": len(latency), **procedure.counts()})
                time.sleep(0.004)
            waited = time.monotonic()
            while procedure.jobs and time.monotonic() - waited < 120:
                procedure.finish_jobs()
                time.sleep(0.02)
            return _totals(procedure, sent, first, needles)
        finally:
            procedure.close()


def _totals(procedure: Procedure, sent: int, first: int, needles: int) -> dict:
    """The end: counters, and the journal read back."""
    from FluoroGuideLib.record.keeper import recover

    counters = procedure.live.session.counters
    back = recover(procedure.journal).record
    kept = len(back.timeline) == len(procedure.record.timeline) and len(back.placements) == needles
    return {
        "frames_sent": sent, "analysed": counters.analysed, "dropped": counters.dropped, "failed": counters.failed, "restarts": counters.restarts,
        "counter_drift": int(counters.pushed - first - sent), "registrations": procedure.registrations, "needles": needles,
        "acknowledged_events": procedure.acknowledged + needles, "lost_acknowledged_events": 0 if kept and not procedure.not_durable else 1,
    }


def case(seed: int) -> dict:
    """The whole run, or what is missing of it."""
    long = seed >= 1000
    seconds = float(os.environ.get("FLUOROGUIDE_SOAK_SECONDS", 1800 if long else 8))
    minute_s = 60.0 if long else 2.0
    rows: list[dict] = []
    if long and MINUTES.is_file():
        rows = [json.loads(text) for text in MINUTES.read_text(encoding="utf-8").splitlines() if text.endswith("}")]

    def on_minute(row: dict) -> None:
        rows.append(row)
        if long:
            MINUTES.parent.mkdir(parents=True, exist_ok=True)
            with MINUTES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()

    done = max((r["minute"] for r in rows), default=0)
    totals = run_minutes(seconds, done, on_minute, minute_s)
    if long:
        MINUTES.unlink(missing_ok=True)
    return {"seconds": seconds, "stretches": len({r["pid"] for r in rows}), **totals, **growth(rows)}


def growth(rows: list[dict]) -> dict:
    """Slopes and differences within the longest stretch, after warm-up."""
    pids = [r["pid"] for r in rows]
    stretch = [r for r in rows if r["pid"] == max(set(pids), key=pids.count)] if rows else []
    settled = stretch[WARM_UP_MINUTES:] if len(stretch) > WARM_UP_MINUTES + 2 else stretch
    if len(settled) < 2:
        return {"minutes": len(rows)}
    minutes = np.array([r["minute"] for r in settled], float)
    slope = float(np.polyfit(minutes, [r["memory_mb"] for r in settled], 1)[0])
    own = float(np.polyfit(minutes, [r["own_memory_mb"] for r in settled], 1)[0])
    first, last = settled[0], settled[-1]
    return {
        "minutes": len(rows), "memory_mb_first": first["memory_mb"], "memory_mb_last": last["memory_mb"], "memory_slope_mb_per_min": slope,
        "own_memory_slope_mb_per_min": own, **{f"{k}_grown": last[k] - first[k] for k in ("threads", "open_files", "nodes", "observed_nodes")},
        "p95_ms_worst_minute": max(r["p95_ms"] for r in rows), "p50_ms_first": first["p50_ms"],
        "p50_ms_last": last["p50_ms"], "p95_ms_first": first["p95_ms"], "p95_ms_last": last["p95_ms"],
    }


def summarize(results: list[dict]) -> dict:
    """The run's figures, and whether they keep what is promised (only a long run can)."""
    r = {k: round(v, 3) if isinstance(v, float) else v for k, v in results[-1].items() if k not in ("seed", "cpu_seconds")}
    flat = r.get("memory_slope_mb_per_min", 99) < 1 and not any(r.get(f"{k}_grown") for k in ("threads", "open_files", "nodes", "observed_nodes"))
    kept = flat and r.get("p95_ms_worst_minute", 999) <= LIVE_BAR_MS
    kept = kept and not r["lost_acknowledged_events"] and not r["counter_drift"] and not r["failed"]
    return {**r, "as_promised": bool(kept) if r["seconds"] >= 1800 else None}
