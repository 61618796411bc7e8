"""The live loop in real time: frames of 1024 x 1024 at 15 per second through the engine's own process, overlay, needle and motion included.

One case is a whole run (ten minutes; the CI slice is 10 s): 24 different noisy frames of a real CT with a needle that
moves to and fro, replayed.  Latency is from the push of a frame to its result in this process, polled every 5 ms.
"""

from __future__ import annotations

import os
import time

import numpy as np
from frames import Needle, background, detector, draw_needle, volume

from FluoroGuideLib.geometry.carm import CArmView

SEEDS = (1000,)
SLICE = (1,)
RATE, DIFFERENT = 15.0, 24


def setup_and_frames(rng: np.random.Generator) -> tuple:
    """A :class:`LiveSetup` of the pelvis with a plan, and uint16 frames."""
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
    for k in range(DIFFERENT):
        line = base.copy()
        draw_needle(view, Needle(-axis * (4 + 0.4 * abs(k - DIFFERENT // 2)), axis, 127.0, 22, True, 0.6, 1.2), line)
        pixels = detector(line, rng, 300.0, 0.4, 0.8, mask)[0]
        frames.append(np.clip((pixels + 6.0) * 5000, 0, 65535).astype(np.uint16))
    return LiveSetup(view, pose, plan, target, bone_drr(ct, view, pose, target, weight), None, content), frames


def memory_mb(pid: int) -> float:
    """Resident memory of a process; NaN where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return float("nan")


def case(seed: int) -> dict:
    """One run: ``FLUOROGUIDE_LIVE_SECONDS`` (600; seeds below 1000: 10)."""
    from FluoroGuideLib.engine.live import LiveSession

    seconds = float(os.environ.get("FLUOROGUIDE_LIVE_SECONDS", 600 if seed >= 1000 else 10))
    setup, frames = setup_and_frames(np.random.default_rng(seed))
    with LiveSession(setup) as live:
        live.push(frames[0])
        while live.result is None:  # start-up is not part of the loop
            live.poll()
            time.sleep(0.005)
        live.latency_ms.clear()
        first = live.counters.pushed
        began, due, sent, memory, numbers, stages = time.monotonic(), 0.0, 0, [], [], []
        states: dict[str, int] = {}
        while (now := time.monotonic() - began) < seconds:
            if now >= due:
                live.push(frames[sent % DIFFERENT])
                sent += 1
                due = sent / RATE
            result = live.poll()
            if result is not None:
                numbers.append(result.number)
                stages.append(result.milliseconds)
                states[live.status()[0]] = states.get(live.status()[0], 0) + 1
                live.shapes()
            if len(memory) < now / 10:
                memory.append(memory_mb(live.client.worker_pid) + memory_mb(os.getpid()))
            time.sleep(0.005)
        latency, counters = np.array(live.latency_ms), live.counters
        found = live.result.finding is not None and live.result.finding.found
    return {
        "seconds": seconds, "frames_sent": sent, "analysed": len(numbers), "dropped": counters.dropped, "failed": counters.failed,
        "restarts": counters.restarts, "latency_p50_ms": float(np.percentile(latency, 50)), "latency_p95_ms": float(np.percentile(latency, 95)),
        "latency_max_ms": float(latency.max()), "memory_mb_first": memory[0], "memory_mb_last": memory[-1], "needle_at_end": bool(found),
        "counter_drift": int(live.counters.pushed - first - sent), "numbers_rise": bool((np.diff(numbers) > 0).all()), "states": states,
        **{f"{k}_median_ms": float(np.median([s[k] for s in stages])) for k in stages[0]},
    }


def summarize(results: list[dict]) -> dict:
    """The run itself."""
    return results[-1]
