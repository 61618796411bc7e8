"""Stale means stale: each cause removes the overlay's good look at once; a last image keeps it and tells its age."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.live import LiveResult, LiveSetup, composed, follow_view
from FluoroGuideLib.guidance.overlay import GREY, plan_overlay
from FluoroGuideLib.guidance.state import GuidanceState
from FluoroGuideLib.planning.plan import Plan, Trajectory


def view(primary: float = 0.0) -> CArmView:
    return CArmView.from_angles(primary, 0, sid_mm=1000, sod_mm=700, rows=256, columns=256, pixel_spacing_mm=(1.0, 1.0))


def running() -> GuidanceState:
    state = GuidanceState()
    state.registration_done("pass")
    state.frame_arrived(10.0)
    state.frame_checked("ok")
    assert state.status(10.01) == ("ok", "")
    return state


PLAN = Plan("p", (), (Trajectory("n", (50, 0, 0), (0, 0, 0)),))
SETUP = LiveSetup(view(), np.eye(4), PLAN, np.zeros(3))
RESULT = LiveResult(1, 10.0, "ok", None, None, None, [s for s in plan_overlay(view(), np.eye(4), PLAN) if s.role != "orientation"], np.eye(4), {})


@pytest.mark.parametrize(("event", "word"), [
    (lambda s: s.patient_changed(), "patient"), (lambda s: s.volume_edited(), "edited"),
    (lambda s: s.carm_moved(), "C-arm"),
    (lambda s: s.registration_done("fail"), "failed"), (lambda s: s.frame_checked("moved"), "moved"),
    (lambda s: s.frame_checked("lost"), "not match"), (lambda s: s.tracked(found=False), "not found again"),
    (lambda s: (s.fluoroscopy_off(), s.fluoroscopy_on(), s.frame_arrived(10.01)), "first image"),
    (lambda s: follow_view(s, view(), view(5.0), told=False), "C-arm"), (lambda s: follow_view(s, view(), view(5.0), told=True), "first image"),
])
def test_each_cause_greys_the_overlay_at_once(event: object, word: str) -> None:
    state = running()
    assert any(s.color != GREY for s in composed(RESULT, SETUP, state, 10.01) if s.role == "needle")
    event(state)
    status, why = state.status(10.02)
    assert not state.good(10.02), (status, why)
    assert word in why, (status, why)
    shapes = composed(RESULT, SETUP, state, 10.02)
    assert {s.color for s in shapes if s.role in ("needle", "tick", "entry", "target")} == {GREY}
    assert any(s.role == "status" and s.text for s in shapes)


def test_a_stream_that_died_is_stale_and_needs_a_checked_frame() -> None:
    state = running()
    assert state.good(10.9)
    assert state.status(11.1) == ("stale", "the live stream has died")
    state.frame_arrived(20.0)
    assert state.status(20.0)[0] == "stale"  # not yet checked
    state.frame_checked("ok")
    assert state.good(20.0)


def test_a_last_image_keeps_its_overlay_and_tells_its_age() -> None:
    state = running()
    state.fluoroscopy_off()
    assert state.status(55.0) == ("hold", "last image, 45 s old")
    shapes = composed(RESULT, SETUP, state, 55.0)
    assert any(s.color != GREY for s in shapes if s.role == "needle")
    assert any("45 s old" in s.text for s in shapes if s.role == "status")
    state.frame_arrived(60.0)  # pedal pressed again
    assert not state.good(60.0)
    state.frame_checked("ok")
    assert state.good(60.0)


def test_a_new_registration_answers_old_doubts() -> None:
    state = running()
    state.carm_moved()
    state.volume_edited()
    state.registration_done("warn")
    assert state.good(10.1)


def test_rounded_tags_are_no_motion() -> None:
    state = running()
    assert follow_view(state, view(), view(0.04), told=True) == "same"
    assert state.good(10.1)


def test_a_target_that_tracking_lost_stays_grey_until_it_is_found_or_registered_again() -> None:
    for answer in (lambda s: s.tracked(found=True), lambda s: s.registration_done("pass")):
        state = running()
        state.tracked(found=False)
        state.frame_checked("ok")  # a checked frame does not wash the doubt away
        assert not state.good(10.02)
        answer(state)
        assert state.good(10.02)
