"""Guide views and the live view on the real MRML scene (slicer-core)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer")

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.live import LiveResult, LiveSetup
from FluoroGuideLib.guidance.overlay import plan_overlay
from FluoroGuideLib.guidance.state import GuidanceState
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.planning.plan import Plan, Trajectory
from FluoroGuideLib.scene.guide_views import BULLSEYE, PROGRESS, GuideViews
from FluoroGuideLib.scene.host import start
from FluoroGuideLib.scene.live_view import LiveView
from FluoroGuideLib.scene.nodes import array_of
from FluoroGuideLib.scene.xray_view import build_xray, slice_nodes

PATH = Trajectory("n", (10, 80, 5), (10, 0, 5), 22)
VIEW = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=700, rows=64, columns=80, pixel_spacing_mm=(3.0, 3.0))


class Session:
    """What :class:`LiveView` needs of a live session."""

    def __init__(self) -> None:
        plan = Plan("p", (), (PATH,))
        self.setup = LiveSetup(VIEW, np.eye(4), plan, np.zeros(3))
        self.state, self.now, self.pushed = GuidanceState(), 0.0, 0
        self.state.registration_done("pass")
        self.result = LiveResult(1, 0.0, "ok", None, None, None, plan_overlay(VIEW, np.eye(4), plan), np.eye(4), {})
        self.closed = False

    def push(self, pixels: np.ndarray) -> int:
        self.pushed += 1
        self.state.frame_arrived(self.now)
        self.state.frame_checked("ok")
        return self.pushed

    def poll(self) -> None:
        return None

    def status(self) -> tuple[str, str]:
        return self.state.status(self.now)

    def shapes(self) -> list:
        from FluoroGuideLib.guidance.live import composed

        return composed(self.result, self.setup, self.state, self.now)

    def close(self) -> None:
        self.closed = True


def test_bulls_eye_plane_is_across_the_path_at_the_target() -> None:
    host = start()
    views = GuideViews(host, PATH, None, np.eye(4), 3.0)
    eye, way = views.update(np.array([13.0, 20.0, 9.0]), np.array([0.0, -1.0, 0.0]))
    matrix = array_of(slice_nodes(host, BULLSEYE)[0].GetSliceToRAS())
    # target (10, 0, 5) LPS is (-10, 0, 5) RAS; into = (0, -1, 0) LPS is (0, 1, 0) RAS; right = (-1, 0, 0) LPS is (1, 0, 0) RAS
    np.testing.assert_allclose(matrix[:3, 3], (-10, 0, 5), atol=1e-9)
    np.testing.assert_allclose(matrix[:3, :3], np.column_stack([(1, 0, 0), (0, 0, 1), (0, 1, 0)]), atol=1e-9)
    assert eye.lateral_mm == pytest.approx(5.0)
    assert way.remaining_mm == pytest.approx(20.0)
    progress = array_of(slice_nodes(host, PROGRESS)[0].GetSliceToRAS())
    np.testing.assert_allclose(progress[:3, 0], (0, 1, 0), atol=1e-9)  # along the path
    tip_ras = np.array([-13.0, -20.0, 9.0])
    assert abs((tip_ras - progress[:3, 3]) @ progress[:3, 2]) < 1e-6  # the needle lies in the progress plane


def test_live_view_overwrites_in_place_and_greys_when_the_stream_dies() -> None:
    import slicer

    host = start()
    pixels = np.random.default_rng(0).random((64, 80)).astype(np.float32)
    volume = build_xray(host, XrayImage(pixels, np.ones(pixels.shape, bool), VIEW), 0)
    session = Session()
    live = LiveView(host, session, volume, 0)
    before = volume.GetImageData()
    live.show(pixels + 1)
    assert volume.GetImageData() is before or volume.GetImageData() == before
    np.testing.assert_allclose(slicer.util.arrayFromVolume(volume)[0], pixels + 1)
    assert live.tick() == "ok"
    assert not live.overlay.stale
    session.now = 5.0
    assert live.tick() == "stale"
    assert live.overlay.stale
    live.close()
    assert session.closed
