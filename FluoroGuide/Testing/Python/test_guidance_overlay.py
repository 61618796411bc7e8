"""The overlay: ticks, ellipses, letters and clipping by hand, and pixels of the picture where they must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.overlay import (
    GREY,
    ORANGE,
    ROLE_COLORS,
    SKY_BLUE,
    axis_letters,
    clip_segment,
    draw_overlay_png,
    error_ellipse,
    orientation_shapes,
    plan_overlay,
)
from FluoroGuideLib.guidance.triangulation import NeedlePose
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.planning.plan import Plan, Target, Trajectory
from FluoroGuideLib.registration.result import Registration

PX_PER_MM = 1000 / 700 / 0.5  # at the isocentre


def view(primary: float = 0.0, secondary: float = 0.0) -> CArmView:
    return CArmView.from_angles(primary, secondary, sid_mm=1000, sod_mm=700, rows=1001, columns=1001, pixel_spacing_mm=(0.5, 0.5))


def a_registration(verdict: str = "pass") -> Registration:
    reasons = ("too far off",) if verdict == "fail" else ()
    return Registration(np.eye(4), verdict, reasons, (0.9,), np.diag([0, 0, 0, 1.0, 4, 9]), np.zeros(3), (view(),))


def by_role(shapes: list, role: str) -> list:
    return [s for s in shapes if s.role == role]


def test_needle_and_ticks_by_hand() -> None:
    # From 35 mm left of the isocentre to it, in the isocentre plane: 100 px to the right in AP (patient left is image right).
    shapes = plan_overlay(view(), np.eye(4), Plan("p", (), (Trajectory("n", (35, 0, 0), (0, 0, 0)),)))
    (needle,) = by_role(shapes, "needle")
    np.testing.assert_allclose(needle.pixels, [[600, 500], [500, 500]], atol=1e-9)
    ticks = by_role(shapes, "tick")
    assert [t.name for t in ticks] == ["n 10 mm", "n 20 mm", "n 30 mm"]
    for tick, depth in zip(ticks, (10, 20, 30), strict=True):  # upright, centred on the needle, counted from the target
        np.testing.assert_allclose(tick.pixels.mean(axis=0), (500 + depth * PX_PER_MM, 500), atol=1e-9)
        np.testing.assert_allclose(tick.pixels[:, 0], 500 + depth * PX_PER_MM, atol=1e-9)
    np.testing.assert_allclose(by_role(shapes, "entry")[0].pixels[:-1].mean(axis=0), (600, 500), atol=1e-9)
    np.testing.assert_allclose(by_role(shapes, "target")[0].pixels[2], (500, 500), atol=1e-9)
    assert needle.color == SKY_BLUE


def test_no_ticks_in_a_view_along_the_needle() -> None:
    shapes = plan_overlay(view(), np.eye(4), Plan("p", (), (Trajectory("n", (0, 100, 0), (0, 0, 0)),)))
    assert by_role(shapes, "tick") == []
    assert len(by_role(shapes, "entry")) == len(by_role(shapes, "target")) == 1


def test_pose_moves_the_plan() -> None:
    pose = np.eye(4)
    pose[:3, 3] = 0, 0, 35
    shapes = plan_overlay(view(), pose, Plan("p", (Target("t", (0, 0, 0)),)))
    np.testing.assert_allclose(by_role(shapes, "target")[0].pixels[2], (500, 400), atol=1e-9)  # cranial is up


def test_error_ellipse_by_hand() -> None:
    # sqrt(chi-square 95 %, 2) = 2.44775 sigmas: 1 mm along columns, 3 mm along rows; the 2 mm along the beam do not show.
    shapes = plan_overlay(view(), np.eye(4), Plan("p", (Target("t", (0, 0, 0)),)), a_registration())
    (ellipse,) = by_role(shapes, "error")
    half = (ellipse.pixels.max(axis=0) - ellipse.pixels.min(axis=0)) / 2
    np.testing.assert_allclose(half, 2.44775 * PX_PER_MM * np.array([1, 3]), rtol=2e-3)
    np.testing.assert_array_equal(ellipse.pixels[0], ellipse.pixels[-1])


def test_error_ellipse_holds_95_percent() -> None:
    rng, point = np.random.default_rng(5), np.array([20.0, -30, 10])
    root = np.array([[0.8, 0.2, 0.1], [0, 0.5, 0.3], [0, 0, 1.1]])
    slanted = view(35, 15)
    ring = error_ellipse(slanted, point, root @ root.T) - slanted.project(point)[0]
    moved = slanted.project(point + rng.normal(size=(40_000, 3)) @ root.T) - slanted.project(point)[0]
    # Inside when nearer than the ring in that direction: in coordinates where the ring is a circle.
    gram = np.linalg.inv(2 * ring[:-1].T @ ring[:-1] / len(ring[:-1]))
    assert np.mean(np.einsum("ni,ij,nj->n", moved, gram, moved) <= 1) == pytest.approx(0.95, abs=0.004)


def test_letters() -> None:
    expected = {(0, 0): ("R", "L", "H", "F"), (90, 0): ("A", "P", "H", "F"), (180, 0): ("L", "R", "H", "F"), (-30, 0): ("RP", "LA", "H", "F"),
                (0, 30): ("R", "L", "HP", "FA"), (0, -30): ("R", "L", "HA", "FP")}
    for angles, (left, right, top, bottom) in expected.items():
        letters = {s.name: s.text for s in orientation_shapes(view(*angles))}
        assert letters == {"left": left, "right": right, "top": top, "bottom": bottom}, angles
    assert axis_letters((0.1, -0.2, 0.9)) == "H"


def test_clipping_by_hand() -> None:
    assert clip_segment((-10, 5), (-1, 5), 11, 11) is None
    assert clip_segment((-4, -10), (-4, 30), 11, 11) is None
    assert clip_segment((-10, 0), (0, 20), 11, 11) is None  # passes the corner outside
    a, b = clip_segment((-5, 0), (15, 10), 11, 11)  # slope 1/2: enters at x = -0.5, leaves at x = 10.5
    np.testing.assert_allclose([a, b], [[-0.5, 2.25], [10.5, 7.75]], atol=1e-12)
    a, b = clip_segment((3, 4), (5, 6), 11, 11)
    np.testing.assert_array_equal([a, b], [[3, 4], [5, 6]])


def test_lines_are_cut_at_the_border_and_behind_the_source() -> None:
    # The AP source is at (0, 700, 0).  A line from the isocentre to (10, 900, 0) passes beside the source: what is behind it must not
    # jump to the other side; the visible part runs from the middle to the right border.
    plan = Plan("p", (Target("behind", (0, 800, 0)),), outlines={"o": [[0, 0, 0], [10, 900, 0]], "wide": [[-400, 0, 0], [400, 0, 0]]})
    shapes = plan_overlay(view(), np.eye(4), plan)
    lines = {s.name: s.pixels for s in by_role(shapes, "outline")}
    np.testing.assert_allclose(lines["o"], [[500, 500], [1000.5, 500]], atol=1e-9)
    np.testing.assert_allclose(lines["wide"], [[-0.5, 500], [1000.5, 500]], atol=1e-9)
    assert by_role(shapes, "target") == []
    assert all(np.isfinite(s.pixels).all() for s in shapes)


def test_a_ring_cut_by_the_border_stays_joined() -> None:
    t = np.linspace(0, 2 * np.pi, 41)
    ring = np.column_stack([60 * np.cos(t) + 160, 0 * t, 60 * np.sin(t)])  # centre 457 px right of the middle: cut by the right border
    pieces = by_role(plan_overlay(view(), np.eye(4), Plan("p", outlines={"ring": ring})), "outline")
    assert len(pieces) == 1
    np.testing.assert_allclose(pieces[0].pixels[[0, -1], 0], 1000.5, atol=1e-9)


@pytest.mark.parametrize(("status", "verdict"), [("stale", "pass"), (None, "fail")])
def test_untrusted_overlays_are_grey_and_say_so(status: str | None, verdict: str) -> None:
    plan = Plan("p", (Target("t", (0, 0, 0), 2),), (Trajectory("n", (35, 0, 0), (0, 0, 0)),))
    shapes = plan_overlay(view(), np.eye(4), plan, a_registration(verdict), status=status)
    drawn = [s for s in shapes if s.role not in ("orientation", "status")]
    assert {s.color for s in drawn} == {GREY}
    (words,) = by_role(shapes, "status")
    assert "stale" in words.text if status else "fail: too far off" in words.text
    assert "pass" not in words.text


def test_picture(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.zeros((1001, 1001), np.float32)
    pixels[:300] = 1.0  # bone at the top
    needle = NeedlePose(np.array([0, 0, -35.0]), np.array([-1.0, 0, 0]), np.eye(3), 0.1, 90.0, np.zeros(2))
    shapes = plan_overlay(view(), np.eye(4), Plan("p", (Target("t", (0, 0, 0)),), (Trajectory("n", (35, 0, 0), (0, 0, 0)),)), needle=needle)
    path = tmp_path / "overlay.png"
    draw_overlay_png(XrayImage(pixels, np.ones_like(pixels, bool), view()), shapes, path)
    with Image.open(path) as picture:
        assert picture.size == (1001, 1001)
        rgb = np.asarray(picture.convert("RGB")).astype(int)
    assert rgb[100, 300].min() > 200  # bright bone stays at the top
    assert rgb[900, 300].max() < 30
    # Planned needle at row 500 between two ticks; achieved one 100 rows lower, its hub to the patient's left = image right.
    np.testing.assert_allclose(rgb[500, 543], SKY_BLUE[:3], atol=40)
    np.testing.assert_allclose(rgb[600, 560], ORANGE[:3], atol=40)
    assert rgb[600, 440].max() < 30
    with pytest.raises(FluoroGuideError, match="another size"):
        draw_overlay_png(XrayImage(pixels, np.ones_like(pixels, bool), view()), shapes, path, np.zeros((5, 5)))
    with pytest.raises(FluoroGuideError, match="cannot be written"):
        draw_overlay_png(XrayImage(pixels, np.ones_like(pixels, bool), view()), shapes, tmp_path / "no" / "o.png")


def test_colours_differ_for_the_colour_blind() -> None:
    # Planned and achieved needle, target and error must differ in lightness or blue-yellow, which all but a few people see.
    def seen(color: tuple) -> np.ndarray:
        r, g, b = color[:3]
        return np.array([0.3 * r + 0.59 * g + 0.11 * b, b - (r + g) / 2])

    roles = ("needle", "achieved", "target", "error")
    for i, a in enumerate(roles):
        for b in roles[i + 1:]:
            assert np.abs(seen(ROLE_COLORS[a]) - seen(ROLE_COLORS[b])).max() > 40, (a, b)
