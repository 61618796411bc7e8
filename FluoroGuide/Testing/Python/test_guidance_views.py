"""Bull's-eye, progress and one-view answers with numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.needle import NeedleFinding
from FluoroGuideLib.guidance.single_view import one_view
from FluoroGuideLib.guidance.views import bulls_eye, draw_marks_png, path_axes, progress
from FluoroGuideLib.planning.plan import Trajectory

# From 80 mm behind (posterior is +y) straight forward to the target: into = (0, -1, 0), up = cranial, right = into x up = (-1, 0, 0).
PATH = Trajectory("n", (10, 80, 5), (10, 0, 5), 22, 127.0)
VIEW = CArmView.from_angles(90, 0, sid_mm=1000, sod_mm=500, rows=501, columns=501, pixel_spacing_mm=(0.5, 0.5))


def test_axes_seen_from_behind_the_hub() -> None:
    right, up, into = path_axes(PATH)
    np.testing.assert_allclose((into, up, right), [(0, -1, 0), (0, 0, 1), (-1, 0, 0)], atol=1e-12)


def test_bulls_eye_by_hand() -> None:
    # 3 mm to the patient's left (x + 3) and 4 mm cranial, 20 mm before the target, pointing 1:10 to the right and forward
    eye = bulls_eye(PATH, np.array([13.0, 20.0, 9.0]), np.array([-0.1, -1.0, 0.0]), np.diag([1.0, 9.0, 4.0]), 3.0)
    assert eye.lateral_mm == pytest.approx(5.0)
    tip = next(m for m in eye.marks if m.role == "tip")
    np.testing.assert_allclose(tip.points_mm[:-1].mean(0), (-3.0, 4.0), atol=1e-9)
    # 20 mm on it lies 2 mm further to the right: (13 - 2) - 10 = 1 mm left, 4 mm cranial
    assert eye.aim_mm == pytest.approx(np.hypot(1.0, 4.0))
    error = next(m for m in eye.marks if m.role == "error").points_mm
    np.testing.assert_allclose(np.ptp(error, axis=0), (2 * 2.4477, 4 * 2.4477), rtol=1e-3)
    assert [m.text for m in eye.marks if m.role == "ring"] == ["1 mm", "2 mm", "5 mm"]
    assert tip.color == (213, 94, 0, 255)  # outside the tolerance


def test_progress_by_hand(tmp_path: Path) -> None:
    way = progress(PATH, np.array([13.0, -4.0, 9.0]), 3.0)
    assert (way.depth_mm, way.remaining_mm) == pytest.approx((84.0, -4.0))
    assert way.text == "4.0 mm past the target"
    assert progress(PATH, np.array([10.0, 12.5, 5.0])).text == "12.5 mm to the target"
    draw_marks_png(way.marks, tmp_path / "p.png", (-10, 95, -20, 20), title=way.text)
    draw_marks_png(bulls_eye(PATH).marks, tmp_path / "b.png", (-8, 8, -8, 8))
    assert (tmp_path / "b.png").stat().st_size > 1000


def finding(tip: tuple, shaft: tuple, hub: bool = False) -> NeedleFinding:
    tip, shaft = np.array(tip, float), np.array(shaft, float)
    return NeedleFinding(True, tip, shaft, (tip - shaft) / np.linalg.norm(tip - shaft), 1.0, 0.1, 0.9, 4.0, 100.0, hub)


def test_one_view_says_lateral_and_remaining_but_no_depth() -> None:
    # Lateral view (LAO 90): x towards the detector.  The path lies 10 mm nearer the detector: 2 (1/(510/500)) px/mm... computed by projection.
    points = VIEW.project(np.array([(10.0, 15.0, 5.0 + 2.0), (10.0, 60.0, 5.0 + 2.0)]))
    seen = one_view(VIEW, np.eye(4), finding(points[0], points[1]), PATH)
    assert seen.lateral_mm == pytest.approx(2.0, abs=0.01)
    assert seen.side_text == "cranial"
    assert seen.remaining_mm == pytest.approx(15.0, abs=0.05)
    assert seen.angle_deg == pytest.approx(0.0, abs=0.05)
    assert "not known" in seen.depth
    assert seen.farthest_mm is None
    # the true tip lies on the ray
    away = np.array([10.0, 15.0, 7.0]) - seen.ray_origin_lps_mm
    assert np.linalg.norm(away - (away @ seen.ray_lps) * seen.ray_lps) < 1e-6


def test_a_known_length_bounds_the_depth() -> None:
    # Needle in the isocentre plane, 127 mm long and across the beam: its tip can be no farther than it is.
    ends = VIEW.project(np.array([(10.0, 0.0, 5.0), (10.0, 127.0, 5.0)]))
    seen = one_view(VIEW, np.eye(4), finding(ends[0], ends[1], hub=True), PATH)
    true = np.linalg.norm(np.array([10.0, 0.0, 5.0]) - VIEW.source_mm)
    assert seen.farthest_mm >= true
    assert seen.farthest_mm == pytest.approx(true * np.sqrt(1 + (127 / 510) ** 2), rel=0.01)
    assert "not known" in seen.depth
