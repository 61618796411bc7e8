"""C-arm geometry refined with the pose: what the parameters mean, their derivatives, and two views with wrong geometry."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
from FluoroGuideLib.commands.register import choose_carm, describe
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.phantom import GaussianBlobs, LumbarPhantom
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.projection.joseph import Projector
from FluoroGuideLib.registration.angles import angle_off
from FluoroGuideLib.registration.geometry_error import PARAMETERS, CArmEstimate, CArmTolerance, carm_jacobian, corrected, pixel_rays, seen_distance_mm
from FluoroGuideLib.registration.register import MovingVolume, Options, bone_bright, register
from FluoroGuideLib.registration.result import Registration
from FluoroGuideLib.registration.search import start_at_isocenter

CARM = {"sid_mm": 1000.0, "sod_mm": 700.0, "rows": 48, "columns": 64, "pixel_spacing_mm": (5.0, 4.0)}
VIEW = CArmView.from_angles(25.0, -12.0, **CARM)


def only(**values: float) -> np.ndarray:
    theta = np.zeros(len(PARAMETERS))
    for name, value in values.items():
        theta[PARAMETERS.index(name)] = value
    return theta


def test_corrections_mean_what_they_say() -> None:
    """Against views made from the changed numbers themselves."""
    def same(a: CArmView, b: CArmView) -> None:
        points = np.random.default_rng(0).uniform(-80, 80, (20, 3))
        np.testing.assert_allclose(a.project(points), b.project(points), atol=1e-9)

    same(corrected(VIEW, only(log_sid=np.log(1.01))), CArmView.from_angles(25.0, -12.0, **{**CARM, "sid_mm": 1010.0}))
    moved = CArmView.from_angles(25.0, -12.0, **CARM, principal_point_px=(31.5 + 3, 23.5 - 2))
    same(corrected(VIEW, only(principal_column=12.0, principal_row=-10.0)), moved)  # 3 columns of 4 mm, -2 rows of 5 mm
    # the secondary angle turns about the columns' axis: more cranial takes the beam to +z, which for d = (.., -cos b, sin b) is -u x
    up = CArmView.from_angles(25.0, -11.0, **CARM)
    turned = corrected(VIEW, only(turn_columns=np.radians(1.0)))
    other = corrected(VIEW, only(turn_columns=np.radians(-1.0)))
    same(turned if abs(turned.angles_deg[1] + 11) < 1e-6 else other, up)
    # with no secondary angle the primary one turns about the patient's long axis, which is the rows' axis there
    flat = CArmView.from_angles(25.0, 0.0, **CARM)
    same(corrected(flat, only(turn_rows=-np.radians(2.0))), CArmView.from_angles(27.0, 0.0, **CARM))
    shifted = corrected(VIEW, only(shift_columns=5.0, shift_beam=-7.0))
    u, d = VIEW.column_step_mm / 4.0, VIEW.beam
    np.testing.assert_allclose(shifted.source_mm, VIEW.source_mm + 5 * u - 7 * d, atol=1e-9)
    rolled = corrected(VIEW, only(roll=0.1))
    np.testing.assert_allclose(rolled.beam, VIEW.beam, atol=1e-12)
    assert np.degrees(np.arccos(rolled.column_step_mm @ VIEW.column_step_mm / 16)) == pytest.approx(np.degrees(0.1))


def differences(image_of: object, theta: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Central differences by every parameter, (9, rows, columns)."""
    result = []
    for n, step in enumerate(steps):
        change = np.zeros(len(steps))
        change[n] = step
        result.append((image_of(theta + change) - image_of(theta - change)) / (2 * step))
    return np.array(result)


def test_derivatives_agree_with_differences_of_closed_forms() -> None:
    """From the pose's differences to the C-arm's, both of line integrals in closed form; and from the projector's own derivative."""
    blobs = GaussianBlobs.random(3, 6, reach_mm=60.0, sigma_mm=(18.0, 26.0))
    pose, center = rigid.motion([0.05, -0.1, 0.08, 6.0, -4.0, 5.0], np.zeros(3)), np.array([20.0, -10.0, 15.0])
    theta = np.array([0.05, -0.04, 0.06, 8.0, -6.0, 10.0, 0.02, 4.0, -3.0])  # not at zero, where some terms would vanish
    view = corrected(VIEW, theta)
    steps = np.array([1e-2] * 3 + [0.5] * 3 + [1e-2] + [0.5] * 2)
    exact = differences(lambda xi: blobs.line_integrals(view, rigid.perturb(pose, xi, center)).astype(float), np.zeros(6), steps[:6])
    expected = differences(lambda t: blobs.line_integrals(corrected(VIEW, t), pose).astype(float), theta, steps)
    _, projected = Projector(blobs.voxelize(3.0, 3.5)).project_with_jacobian(view, pose, center)
    for jacobian, allowed in ((exact, 0.002), (projected, 0.06)):
        found = carm_jacobian(jacobian, pixel_rays(view), VIEW, theta, center)
        for name, one, two in zip(PARAMETERS, found, expected, strict=True):
            assert np.sqrt(((one - two) ** 2).mean() / (two**2).mean()) < allowed, name


def test_the_same_derivative_for_points() -> None:
    """As an apparent displacement across the ray: what an error of the C-arm does to a point's place in the picture."""
    theta, center, point = only(turn_rows=0.03, shift_rows=5.0, log_sid=0.01), np.array([5.0, 8.0, -6.0]), np.array([[30.0, -20.0, 25.0]])
    view = corrected(VIEW, theta)
    ray = point[0] - view.source_mm
    jacobian = carm_jacobian(rigid.point_jacobian(point, center)[0].T, ray * view.sid_mm / (ray @ view.beam), VIEW, theta, center)
    steps = np.array([1e-4] * 3 + [0.01] * 3 + [1e-4] + [0.01] * 2)
    pixels = differences(lambda t: corrected(VIEW, t).project(point), theta, steps)[:, 0]  # (9, 2)
    np.testing.assert_allclose(jacobian @ view.project_jacobian(point)[0].T, pixels, rtol=1e-4, atol=1e-4)


def test_bad_tolerances_are_one_sentence() -> None:
    for name in ("angle_deg", "sid_percent", "principal_point_px"):
        with pytest.raises(FluoroGuideError, match=name):
            CArmTolerance(**{name: -1.0})


class Case:
    """A phantom, its closed-form pictures in two views, and those views as they are and as they are stated."""

    def __init__(self) -> None:
        phantom = LumbarPhantom(seed=4)
        self.moving = MovingVolume(attenuation_from_hu(phantom.voxelize(2.0)))
        self.target = phantom.landmarks["L4/L5 facet joint left"]
        self.truth = rigid.perturb(start_at_isocenter(self.target), [0.06, -0.04, 0.08, 4.0, -6.0, 3.0], np.zeros(3))
        self.phantom, self.points = phantom, self.target + np.random.default_rng(0).normal(0, 15, (20, 3))

    def pictures(self, true: list[CArmView], stated: list[CArmView]) -> list[XrayImage]:
        images = []
        for view, said in zip(true, stated, strict=True):
            lines = self.phantom.line_integrals(view, self.truth)
            pixels = (0.9 * lines["soft"] + 1.4 * lines["bone"]).astype(np.float32)
            images.append(XrayImage(pixels, np.ones(pixels.shape, bool), said, "phantom"))
        return images

    def seen(self, found: Registration, true: list[CArmView]) -> float:
        return float(np.mean([seen_distance_mm(found.pose, v, self.truth, t, self.points) for v, t in zip(found.views, true, strict=True)]))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def two_views(*extra: dict) -> list[CArmView]:
    """AP and lateral, each with changes: ``primary`` is added, other values replace those of the C-arm."""
    carm = {"sid_mm": 1050.0, "sod_mm": 700.0, "rows": 192, "columns": 192, "pixel_spacing_mm": (1.6, 1.6)}
    return [CArmView.from_angles(p + e.pop("primary", 0.0), s, **{**carm, **e}) for (p, s), e in zip(((0.0, 0.0), (80.0, 5.0)), extra, strict=True)]


def test_wrong_geometry_is_found_and_reported(case: Case) -> None:
    """SID 1 % and -1 %, 0.7 degrees apart the wrong way, principal points 1 pixel up and down: what the pictures can show comes back."""
    middle = (192 - 1) / 2
    true = two_views(
        {"sid_mm": 1050 * 1.01, "primary": 0.7, "principal_point_px": (middle, middle + 1)},
        {"sid_mm": 1050 * 0.99, "primary": -0.7, "principal_point_px": (middle, middle - 1)},
    )
    images = case.pictures(true, two_views({}, {}))
    start = rigid.perturb(case.truth, [0.03, 0.02, -0.03, 3.0, 4.0, -2.0], rigid.apply(case.truth, case.target))
    stated, refined = (
        register(case.moving, images, start, targets={"t": case.target}, options=Options(threads=1, check_part=False, search=False, carm=c))
        for c in (None, CArmTolerance(principal_point_px=1.0))
    )
    assert case.seen(refined, true) < 0.2 < 0.4 * case.seen(stated, true)
    first, second = refined.carm.corrections()
    assert first["primary_deg"] - second["primary_deg"] == pytest.approx(1.4, abs=0.5)  # only their difference can be seen
    assert first["principal_point_px"][1] - second["principal_point_px"][1] == pytest.approx(2.0, abs=0.6)
    assert first["sid_percent"] - second["sid_percent"] == pytest.approx(2.0, abs=0.8)
    error = refined.target_error({"t": case.target})[0]
    assert np.linalg.norm(rigid.apply(refined.pose, case.target) - rigid.apply(case.truth, case.target)) < error.predicted_error_mm
    assert max(error.in_plane_mm) < error.predicted_error_mm  # what an error of the C-arm moves in space is not seen in its picture
    data = refined.to_dict({"t": case.target})
    assert data["carm"]["views"][0]["sid_percent"] == first["sid_percent"]
    assert "C-arm, view 2" in describe(refined, data, Path("out"))
    for image, view in zip(bone_bright(images, refined), refined.views, strict=True):
        assert image.view is view


@pytest.mark.parametrize(("degrees", "sid_percent", "levels"), [(0.7, 1.1, []), (0.9, 0.0, ["warn"]), (1.5, 0.0, ["fail"]), (0.0, 2.3, ["fail"])])
def test_a_carm_far_beyond_its_tolerance_fails(degrees: float, sid_percent: float, levels: list) -> None:
    """Limits are 0.7 degrees and 1 %: a fifth more is doubted, twice as much is no such C-arm."""
    theta = np.stack([only(), only(turn_rows=np.radians(degrees), log_sid=sid_percent / 100)])
    free = np.ones(theta.shape, bool)
    estimate = CArmEstimate((VIEW, VIEW), (VIEW, VIEW), theta, theta, CArmTolerance(), free, np.eye(18), np.zeros((6, 18)), np.zeros(3))
    found = estimate.findings()
    assert [f.level for f in found] == levels
    assert all(f.kind == "C-arm" and f.sentence.startswith("View 2 fits only") for f in found)


def test_a_misread_angle_is_told_with_its_size(case: Case) -> None:
    """The second view is stated 8 degrees from where it was taken: no pose fits both, and the angle that would is given."""
    true, stated = two_views({}, {}), two_views({}, {"primary": 8.0})
    images, right = case.pictures(true, stated), case.pictures(true, true)
    assert angle_off(case.moving, right, case.truth, case.target) == pytest.approx((0.0, 1.0), abs=0.3)
    start = rigid.perturb(case.truth, [0.02, 0.01, 0.03, 2.0, 1.0, -2.0], rigid.apply(case.truth, case.target))
    found = register(case.moving, images, start, targets={"t": case.target}, options=Options(threads=1, check_part=False, search=False))
    assert found.facts["checks"]["angle_deg"] == pytest.approx(8.0, abs=1.0)
    assert found.verdict == "fail"
    assert any(f.kind == "C-arm" and "angle" in f.sentence for f in found.findings)


def test_a_mobile_carm_is_registered_view_by_view_and_claims_no_depth(case: Case) -> None:
    true = two_views({"primary": 4.0}, {"primary": -3.0, "sid_mm": 1050 * 1.02, "table_offset_mm": (20.0, -15.0, 25.0)})
    images = case.pictures(true, two_views({}, {}))
    start = rigid.perturb(case.truth, [0.03, 0.02, -0.03, 3.0, 4.0, -2.0], rigid.apply(case.truth, case.target))
    options = Options(threads=1, check_part=False, carm=CArmTolerance.mobile(), search_limit_deg=10.0, search_reach_mm=50.0)
    found = register(case.moving, images, start, targets={"t": case.target}, options=options)
    assert case.seen(found, true) < 0.6
    assert found.facts["in_plane_only"]
    assert "in-plane only" in found.reasons
    assert found.verdict in ("pass", "warn")
    moved = np.array(found.carm.corrections()[1]["shift_mm"])
    across = moved - (moved @ true[1].beam) * true[1].beam
    assert np.linalg.norm(across) > 10  # most of the 35 mm; the rest may be taken for a turn or for depth
    assert "depth unknown" in describe(found, found.to_dict({"t": case.target}), Path("out"))


def test_one_view_keeps_its_geometry(case: Case) -> None:
    images = case.pictures(two_views({}, {})[:1], two_views({}, {})[:1])
    plain, found = (
        register(case.moving, images, case.truth, targets={"t": case.target}, options=Options(threads=1, search=False, check_part=False, carm=c))
        for c in (None, CArmTolerance(sid_percent=2.0))
    )
    np.testing.assert_allclose(found.pose, plain.pose, atol=1e-12)
    np.testing.assert_array_equal(found.views[0].source_mm, images[0].view.source_mm)
    assert any("taken as given" in r for r in found.reasons)
    # a SID wrong by s is taken for a depth wrong by s: 2 % / sqrt(3) of 700 mm, times 1.96, is 15.8 mm; angles and principal point add little
    before, after = (r.target_error({"t": case.target})[0] for r in (plain, found))
    assert np.hypot(before.depth_mm[0], 15.8) == pytest.approx(after.depth_mm[0], rel=0.15)
    assert after.in_plane_mm[0] < 1.5


def test_the_command_line_s_tolerances(tmp_path: Path) -> None:
    def chosen(carm: str | None, tolerance: str | None = None, cards: tuple = ()) -> CArmTolerance | None:
        paths = [tmp_path / f"{n}.json" for n in range(len(cards))]
        for path, kind in zip(paths, cards, strict=True):
            path.write_text(json.dumps({"carm": kind}))
        return choose_carm(argparse.Namespace(carm=carm, carm_tolerance=tolerance, geometry=paths))

    assert chosen(None) is None
    assert chosen("refine") == CArmTolerance()
    assert chosen("mobile", "shift=10, sid=3") == CArmTolerance(5.0, 2.0, 10.0, 3.0, 3.0)
    assert chosen(None, cards=("mobile", "mobile")) == CArmTolerance.mobile()
    assert chosen("fixed", cards=("mobile",)) is None
    for text, arguments in {
        "needs --carm": ("fixed", "sid=1"), "Unknown C-arm tolerance": ("refine", "height=3"), "not 1 numbers": ("refine", "sid=x"),
        "zero or positive": ("refine", "sid=-1"), "disagree": (None, None, ("mobile", "refine")),
    }.items():
        with pytest.raises(FluoroGuideError, match=text):
            chosen(*arguments)
