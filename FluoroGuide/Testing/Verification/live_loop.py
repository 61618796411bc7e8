"""The live loop in real time: frames of 1024 x 1024 at 15 per second through the engine's own process, overlay, needle and motion included.

One case is a whole run (ten minutes; the CI slice is 10 s): 24 different noisy frames of a real CT with a needle that
moves to and fro, replayed; the last sixth of every minute shows none.  Latency is from the push of a frame until the
shapes of its overlay are there in this process, polled every 4 ms.
"""

from __future__ import annotations

import os
import time

import numpy as np
from frames import Needle, background, detector, draw_needle, volume

from FluoroGuideLib.geometry.carm import CArmView

SEEDS = (1001,)  # 1000 was spent before the search was cut into smaller steps
SLICE = (1,)
RATE, DIFFERENT = 15.0, 24


def setup_and_frames(rng: np.random.Generator) -> tuple:
    """A :class:`LiveSetup` of the pelvis with a plan, uint16 frames with a needle, and some without."""
    from FluoroGuideLib.anatomy.bones import bone_weight
    from FluoroGuideLib.geometry.frames import center_lps_mm
    from FluoroGuideLib.guidance.live import LiveSetup
    from FluoroGuideLib.guidance.live_overlay import OverlayContent
    from FluoroGuideLib.guidance.motion import bone_drr
    from FluoroGuideLib.guidance.silhouettes import surface_from_image
    from FluoroGuideLib.planning.plan import Plan, Target, Trajectory

    ct = volume("pelvis")
    target = center_lps_mm(ct.image) + np.array([35.0, 30.0, 10.0])
    view = CArmView.from_angles(10, 5, sid_mm=1050, sod_mm=700, rows=1024, columns=1024, pixel_spacing_mm=(0.3, 0.3))
    pose = np.eye(4)
    pose[:3, 3] = -target
    axis = np.array([-0.80, -0.35, 0.48])
    axis /= np.linalg.norm(axis)
    plan = Plan("proof", (Target("joint", target, 3.0),), (Trajectory("needle", target - 80 * axis, target, 22, 127.0),))
    weight = bone_weight(ct, target)
    content = OverlayContent(bones=(surface_from_image(weight, 0.5, "bone"),))
    base, mask, frames = background("pelvis", view, target), np.ones((1024, 1024), bool), []

    def counted(line: np.ndarray) -> np.ndarray:
        pixels = detector(line, rng, 300.0, 0.4, 0.8, mask)[0]
        return np.clip((pixels + 6.0) * 5000, 0, 65535).astype(np.uint16)

    for k in range(DIFFERENT):
        line = base.copy()
        draw_needle(view, Needle(-axis * (4 + 0.4 * abs(k - DIFFERENT // 2)), axis, 127.0, 22, True, 0.6, 1.2), line)
        frames.append(counted(line))
    setup = LiveSetup(view, pose, plan, target, bone_drr(ct, view, pose, target, weight), None, content)
    return setup, frames, [counted(base) for _ in range(DIFFERENT // 3)]


def memory_mb(pid: int) -> float:
    """Resident memory of a process; NaN where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return float("nan")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process; NaN where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watcher:
    """What the loop sees: latencies until the overlay's shapes are there, stages, states, memory."""

    def __init__(self) -> None:
        self.latency_ms: list[float] = []
        self.numbers: list[int] = []
        self.stages: list[dict] = []
        self.memory: list[float] = []
        self.states: dict[str, int] = {}
        self.found = 0

    def take(self, live: object, result: object) -> None:
        """One result."""
        live.shapes()
        self.latency_ms.append(1e3 * (time.monotonic() - result.sent_at))
        self.numbers.append(result.number)
        self.stages.append(result.milliseconds)
        self.found += result.finding is not None and result.finding.found
        status = live.status()[0]
        self.states[status] = self.states.get(status, 0) + 1


def case(seed: int) -> dict:
    """One run: ``FLUOROGUIDE_LIVE_SECONDS`` (600; seeds below 1000: 10)."""
    from FluoroGuideLib.engine.live import LiveSession

    seconds = float(os.environ.get("FLUOROGUIDE_LIVE_SECONDS", 600 if seed >= 1000 else 10))
    setup, frames, free = setup_and_frames(np.random.default_rng(seed))
    seen = Watcher()
    with LiveSession(setup) as live:
        live.push(frames[0])
        started = time.monotonic()
        while live.result is None:  # start-up is not part of the loop
            if time.monotonic() - started > 120:
                raise TimeoutError(f"no frame was analysed within 120 s: {live.status()}, {live.client.stderr_tail}")
            live.poll()
            time.sleep(0.005)
        first, worker = live.counters.pushed, live.client.worker_pid
        analysed, dropped = live.counters.analysed, live.counters.dropped
        used, own = cpu_seconds(worker), time.process_time()
        began, due, sent = time.monotonic(), 0.0, 0
        while (now := time.monotonic() - began) < seconds:
            if now >= due:
                # the last sixth of every minute shows no needle: searching costs more than following
                pictures = free if now % min(60.0, seconds) > min(60.0, seconds) * 5 / 6 else frames
                live.push(pictures[sent % len(pictures)])
                sent += 1
                due = sent / RATE
            result = live.poll()
            if result is not None:
                seen.take(live, result)
            if len(seen.memory) < now / min(10.0, seconds / 10):
                seen.memory.append(memory_mb(worker) + memory_mb(os.getpid()))
            time.sleep(0.004)
        counters, count = live.counters, max(1, len(seen.numbers))
        used, own = cpu_seconds(worker) - used, time.process_time() - own
    latency = np.array(seen.latency_ms)
    settled = seen.memory[len(seen.memory) // 10]
    stages = {
        f"{k}_{word}_ms": float(np.percentile([s[k] for s in seen.stages], q)) for k in seen.stages[0] for word, q in (("median", 50), ("p95", 95))
    }
    latencies = {f"latency_p{q}_ms": float(np.percentile(latency, q)) for q in (50, 95, 99)}
    return {
        "seconds": seconds, "frames_sent": sent, "analysed": counters.analysed - analysed, "results_seen": len(seen.numbers),
        "dropped": counters.dropped - dropped, "failed": counters.failed, "restarts": counters.restarts, **latencies,
        "latency_max_ms": float(latency.max()), "memory_mb_after_a_tenth": settled, "memory_mb_last": seen.memory[-1],
        "memory_mb_most": max(seen.memory), "needle_found_frames": seen.found, "counter_drift": int(counters.pushed - first - sent),
        "numbers_rise": bool((np.diff(seen.numbers) > 0).all()), "states": seen.states,
        "worker_cpu_ms_per_frame": 1e3 * used / count, "own_cpu_ms_per_frame": 1e3 * own / count, **stages,
    }


def summarize(results: list[dict]) -> dict:
    """The run itself."""
    return results[-1]
