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


def line_colors(live: LiveView) -> list[tuple[int, ...]]:
    """The colour-table entries of every line that the overlay shows (not its dark rim)."""
    import slicer

    result = []
    for node in live.overlay.nodes[1:-1]:
        table = slicer.mrmlScene.GetNodeByID(node.GetDisplayNode().GetColorNodeID())
        cells = node.GetPolyData().GetCellData().GetArray("color")
        for k in range(cells.GetNumberOfTuples()):
            color = [0.0] * 4
            table.GetColor(int(cells.GetValue(k)), color)
            result.append(tuple(round(255 * c) for c in color[:3]))
    return result


CAUSES = {
    "new patient": lambda s: s.state.patient_changed(), "volume edited": lambda s: s.state.volume_edited(),
    "C-arm moved": lambda s: s.state.carm_moved(), "stream died": lambda s: setattr(s, "now", s.now + 1.5),
    "fluoroscopy resumed": lambda s: (s.state.fluoroscopy_off(), s.state.frame_arrived(s.now)),
    "registration failed": lambda s: s.state.registration_done("fail"), "target moved": lambda s: s.state.frame_checked("moved"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_overlay_nodes_lose_their_colours_within_one_tick(cause: str) -> None:
    host = start()
    pixels = np.zeros((64, 80), np.float32)
    session = Session()
    live = LiveView(host, session, build_xray(host, XrayImage(pixels, np.ones(pixels.shape, bool), VIEW), 0), 0)
    live.show(pixels)
    assert (86, 180, 233) in line_colors(live)  # the planned needle, sky blue
    CAUSES[cause](session)
    assert live.tick() not in ("ok", "hold")
    assert set(line_colors(live)) == {(150, 150, 150)}
    shade = live.overlay.labels.GetDisplayNode().GetSelectedColor()
    assert max(shade) < 0.7
    live.close()
    assert line_colors(live) == []


def test_a_last_image_hold_keeps_its_colours_and_tells_its_age() -> None:
    host = start()
    pixels = np.zeros((64, 80), np.float32)
    session = Session()
    live = LiveView(host, session, build_xray(host, XrayImage(pixels, np.ones(pixels.shape, bool), VIEW), 0), 0)
    live.show(pixels)
    session.state.fluoroscopy_off()
    session.now = 40.0
    assert live.tick() == "hold"
    assert (86, 180, 233) in line_colors(live)
    labels = live.overlay.labels
    assert any("40 s old" in labels.GetNthControlPointLabel(k) for k in range(labels.GetNumberOfControlPoints()))


def test_guide_views_show_texts_and_no_colour_of_an_earlier_needle() -> None:
    host = start()
    views = GuideViews(host, PATH, None, np.eye(4), 3.0)
    views.update(np.array([11.0, 20.0, 5.0]), np.array([0.0, -1.0, 0.0]))
    lines, labels = views._lines[BULLSEYE].node, views._labels[BULLSEYE].node
    texts = {labels.GetNthControlPointLabel(k) for k in range(labels.GetNumberOfControlPoints())}
    assert {"1 mm", "2 mm", "5 mm", "1.0 mm", "R", "L", "H", "F"} <= texts
    count = lines.GetPolyData().GetNumberOfCells()
    views.update(np.array([17.0, 20.0, 5.0]), np.array([0.0, -1.0, 0.0]))  # out of tolerance: red instead of green, not as well
    assert lines.GetPolyData().GetNumberOfCells() == count
    assert slice_nodes(host, BULLSEYE)[0].GetFieldOfView()[0] == pytest.approx(18.2, abs=0.1)  # 7 mm off: 2.6 * 7 wide
    views.set_stale(True)
    cells = lines.GetPolyData().GetCellData().GetArray("color")
    assert {int(cells.GetValue(k)) for k in range(cells.GetNumberOfTuples())} == {0}
    views.clear()
    assert lines.GetPolyData().GetNumberOfCells() == 0
