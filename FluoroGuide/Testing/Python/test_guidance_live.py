"""The worker's frame by frame guide without a process: a search in steps, following, thin bones, and the tracking task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from FluoroGuideLib.engine import live_tasks
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.live import LiveGuide, LiveSetup, composed
from FluoroGuideLib.guidance.motion import MotionReading
from FluoroGuideLib.guidance.state import GuidanceState
from FluoroGuideLib.planning.plan import Plan, Target, Trajectory

SIZE = 320
VIEW = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=700, rows=SIZE, columns=SIZE, pixel_spacing_mm=(0.4, 0.4))


def frame(seed: int, tip: np.ndarray | None) -> np.ndarray:
    """A 22 G needle (0.7 mm, 2.5 px) from the upper border down to ``tip`` (column, row)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    image = 3.0 + 0.002 * columns + gaussian_filter(rng.normal(0, 0.08, (SIZE, SIZE)), 0.45)
    if tip is not None:
        across = columns - tip[0] - 0.4 * (rows - tip[1])
        image += 0.4 * gaussian_filter((np.abs(across / np.hypot(1, 0.4)) < 1.25) * (rows < tip[1]).astype(float), 0.8)
    return image.astype(np.float32)


def setup(**changes: object) -> LiveSetup:
    plan = Plan("p", (Target("t", (0, 0, 0)),))
    return dataclasses.replace(LiveSetup(VIEW, np.eye(4), plan, np.zeros(3)), **changes)


def test_a_needle_is_searched_in_steps_then_followed_and_lost_again() -> None:
    guide, tips = LiveGuide(setup()), []
    for k in range(12):
        tips.append(np.array([170.0 + 0.2 * k, 180.0 + 0.5 * k]))
        result = guide.process(frame(k, tips[-1]), k, k / 15)
        if result.finding.found:
            break
    assert 2 <= k <= 10, result.finding.reason  # one step a frame: not in the first, and no later than a search has steps
    for k in range(12, 15):
        result = guide.process(frame(k, tips[-1]), k, k / 15)
        assert result.finding.found
        assert np.linalg.norm(result.finding.tip_px - tips[-1]) < 4.0
    assert {s.name for s in result.shapes if s.role == "achieved"} == {"needle in the image", "tip in the image"}
    gone = guide.process(frame(20, None), 20, 1.3)
    assert not gone.finding.found
    assert not [s for s in gone.shapes if s.role == "achieved"]


def test_a_recorded_run_is_searched_whole() -> None:
    assert LiveGuide(setup(whole_search=True)).process(frame(1, np.array([170.0, 180.0]))).finding.found


def test_a_bone_that_is_hardly_seen_is_not_said_to_be_watched() -> None:
    state = GuidanceState()
    state.registration_done("pass")
    state.frame_arrived(0.0)
    state.frame_checked("ok")
    watched = setup(bone_drr=np.zeros((4, 4)))
    result = LiveGuide(setup()).process(frame(0, None))
    for seen, words in ((True, ""), (False, "hardly seen")):
        reading = MotionReading("ok", (0.0, 0.0), 0.0, 0.2, 0.6, seen)
        shapes = composed(dataclasses.replace(result, motion=reading), watched, state, 0.01)
        assert words in " ".join(s.text for s in shapes if s.role == "status")


def test_the_tracking_task_follows_and_restarts_from_a_new_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
    from FluoroGuideLib.evaluation.phantom import LumbarPhantom
    from FluoroGuideLib.registration.search import start_at_isocenter

    phantom = LumbarPhantom(seed=4)
    target = phantom.landmarks["L4/L5 facet joint left"]
    pose = start_at_isocenter(target)
    view = CArmView.from_angles(0, 0, sid_mm=1050, sod_mm=700, rows=192, columns=192, pixel_spacing_mm=(1.5, 1.5))
    truth = rigid.perturb(pose, [0, 0, 0.01, 2.0, 0.0, -2.0], np.zeros(3))
    lines = phantom.line_integrals(view, truth)
    pixels = (0.9 * lines["soft"] + 1.4 * lines["bone"]).astype(np.float32)
    plan = Plan("p", (Target("t", target),), (Trajectory("n", target + (40, 40, 0), target, 22),))
    guide = LiveGuide(LiveSetup(view, pose, plan, target))

    class Ring:
        def read(self, slot: int, number: int) -> np.ndarray:
            return pixels

    monkeypatch.setattr(live_tasks, "_open", {
        "id": 1, "guide": guide, "ring": Ring(), "volume": attenuation_from_hu(phantom.voxelize(3.0)), "tracker": None})
    found = live_tasks.live_track(session=1, slot=0, number=1, progress=print, cancelled=bool)
    # AP: of the motion the picture shows x and z
    gap = (rigid.apply(found.pose, target) - rigid.apply(truth, target))[[0, 2]]
    assert np.abs(gap).max() < 0.5
    assert found.in_plane_only
    np.testing.assert_array_equal(guide.pose, found.pose)
    live_tasks.live_set_pose(session=1, pose=pose, progress=print, cancelled=bool)
    again = live_tasks.live_track(session=1, slot=0, number=2, progress=print, cancelled=bool)
    assert np.abs((rigid.apply(again.pose, target) - rigid.apply(truth, target))[[0, 2]]).max() < 0.5
    before, pixels = guide.pose, np.random.default_rng(0).normal(size=pixels.shape).astype(np.float32)
    assert live_tasks.live_track(session=1, slot=0, number=3, progress=print, cancelled=bool).state == "lost"
    np.testing.assert_array_equal(guide.pose, before)
