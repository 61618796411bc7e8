"""The live loop through a real worker: results, dropped frames, a crash, a stream that dies, and the ring."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from FluoroGuideLib.engine.live import LiveSession
from FluoroGuideLib.engine.ring import FrameRing, RingReader
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.live import LiveSetup
from FluoroGuideLib.planning.plan import Plan, Target, Trajectory
from FluoroGuideLib.registration.tracked import TrackResult

VIEW = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=700, rows=256, columns=256, pixel_spacing_mm=(0.8, 0.8))


def setup() -> LiveSetup:
    rows, columns = np.mgrid[:256, :256] - 127.5
    bone = np.sqrt(np.maximum(1 - (columns / 50) ** 2 - (rows / 35) ** 2, 0)).astype(np.float32)
    plan = Plan("p", (Target("t", (0, 0, 0)),), (Trajectory("n", (60, 0, 20), (0, 0, 0), 22),))
    return LiveSetup(VIEW, np.eye(4), plan, np.zeros(3), bone)


def frame(seed: int = 0) -> np.ndarray:
    return (setup().bone_drr + np.random.default_rng(seed).normal(0, 0.03, (256, 256))).astype(np.float32)


def until(live: LiveSession, condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        live.poll()
        assert time.monotonic() < end, "too slow"
        time.sleep(0.005)


def stream(live: LiveSession, condition: object, seconds: float = 60.0) -> None:
    """Frames at 30 per second until something happened."""
    end, k = time.monotonic() + seconds, 0
    while not condition():
        live.push(frame(k := k + 1))
        live.poll()
        assert time.monotonic() < end, "too slow"
        time.sleep(0.03)


def test_ring_gives_frames_back_and_knows_overwritten_ones() -> None:
    ring = FrameRing((5, 7), np.uint16, 2)
    reader = RingReader(**ring.describe())
    first = np.arange(35, dtype=np.uint16).reshape(5, 7)
    slot = ring.write(1, first)
    np.testing.assert_array_equal(reader.read(slot, 1), first)
    assert reader.read(slot, 2) is None
    ring.write(2, first + 1)
    ring.write(3, first + 2)  # the first slot again
    assert reader.read(slot, 1) is None
    np.testing.assert_array_equal(reader.read(slot, 3), first + 2)
    with pytest.raises(FluoroGuideError, match="another size"):
        ring.write(4, first.astype(float))
    path = ring.path
    ring.close()
    assert not path.exists()


@pytest.mark.slow
def test_live_session_analyses_drops_survives_a_crash_and_turns_grey() -> None:
    with LiveSession(setup()) as live:
        stream(live, lambda: live.result is not None)
        assert live.status()[0] == "ok"
        for k in range(20):  # far faster than they can be worked through: the newest wins
            live.push(frame(k))
        last = live.counters.pushed
        until(live, lambda: live.result.number == last)
        assert live.counters.dropped >= 15
        assert live.counters.pushed == live.counters.analysed + live.counters.dropped
        assert live.counters.failed == 0
        roles = {s.role for s in live.shapes()}
        assert {"needle", "target", "orientation"} <= roles
        os.kill(live.client.worker_pid, signal.SIGKILL)
        before = live.result.number
        stream(live, lambda: live.result.number != before)
        assert live.client.starts == 2
        assert live.counters.restarts == 1
        time.sleep(1.1)  # nothing comes any more
        assert live.status() == ("stale", "the live stream has died")
        live.state.fluoroscopy_off()


@pytest.mark.slow
def test_a_moved_c_arm_greys_the_overlay_in_the_same_frame() -> None:
    with LiveSession(setup()) as live:
        stream(live, lambda: live.result is not None)
        other = CArmView.from_angles(5, 0, sid_mm=1000, sod_mm=700, rows=256, columns=256, pixel_spacing_mm=(0.8, 0.8))
        live.push(frame(1), other, told=False)
        assert live.status()[0] == "stale"
        last = live.counters.pushed
        until(live, lambda: live.result.number == last)
        live.push(frame(2), other, told=False)
        assert live.status()[0] == "stale"  # analysing frames does not wash the doubt away


def test_a_target_that_tracking_lost_turns_the_overlay_grey_and_keeps_its_pose() -> None:
    live, moved = LiveSession(setup(), client=object()), np.eye(4)
    moved[0, 3] = 2.0
    for state, pose, status in (("lost", np.eye(4), "stale"), ("reacquired", moved, "ok")):
        live._take_tracked(TrackResult(moved, (0.5,), state, np.zeros(3), 0.0, 0.0, (True,)))
        np.testing.assert_array_equal(live.setup.pose, pose)
        assert live.status()[0] == status
    assert live.tracked.state == "reacquired"
