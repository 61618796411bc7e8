"""Triangulation: pixels and covariances by hand, samples against predicted spreads, and everything that must be refused."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import apply, motion
from FluoroGuideLib.guidance.triangulation import locate_needle, needle_in_volume, triangulate
from FluoroGuideLib.registration.result import Registration


def view(primary: float, secondary: float = 0.0) -> CArmView:
    """SID 1000, SOD 700, 0.5 mm pixels, middle at (500, 500): 0.35 mm per pixel at the isocentre."""
    return CArmView.from_angles(primary, secondary, sid_mm=1000, sod_mm=700, rows=1001, columns=1001, pixel_spacing_mm=(0.5, 0.5))


def marks(views: tuple[CArmView, ...], *points: np.ndarray) -> np.ndarray:
    return np.array([v.project(p)[0] for v, p in zip(views, points if len(points) > 1 else points * len(views), strict=True)])


def test_orthogonal_views_by_hand() -> None:
    # Point (10, 20, 30).  AP: d = (0, -1, 0), so 680 mm from the source: column 500 + 2 * 10 * 1000 / 680, row 500 - 2 * 30 * 1000 / 680.
    # Left lateral (90): d = (1, 0, 0), 710 mm: column 500 + 2 * 20 * 1000 / 710 (posterior is right), row 500 - 2 * 30 * 1000 / 710.
    pixels = np.array([[529.4117647, 411.7647059], [556.3380282, 415.4929577]])
    found = triangulate((view(0), view(90)), pixels)
    np.testing.assert_allclose(found.position_mm, (10, 20, 30), atol=1e-6)
    np.testing.assert_allclose(found.residual_px, 0, atol=1e-6)
    # Rays (10, -680, 30) and (710, 20, 30): the cosine is (7100 - 13600 + 900) / (680.735 * 710.915).
    assert found.ray_angle_deg == pytest.approx(90 - np.degrees(np.arcsin(5600 / (680.7349 * 710.9149))), abs=1e-4)
    assert found.warnings == ()


def test_covariance_by_hand() -> None:
    # At the isocentre a pixel is 0.35 mm, so 0.5 px is 0.175 mm: x from AP alone, y from lateral alone, z from both.
    found = triangulate((view(0), view(90)), np.full((2, 2), 500.0), sigma_px=0.5)
    np.testing.assert_allclose(found.covariance_mm2, np.diag([0.175**2, 0.175**2, 0.175**2 / 2]), atol=1e-12)
    # 20 degrees apart: depth 0.175 / (sqrt 2 sin 10), x 0.175 / (sqrt 2 cos 10).
    found = triangulate((view(-10), view(10)), np.full((2, 2), 500.0), sigma_px=0.5)
    sigma = np.sqrt(np.diag(found.covariance_mm2))
    np.testing.assert_allclose(sigma[:2], 0.175 / np.sqrt(2) / np.array([np.cos(np.radians(10)), np.sin(np.radians(10))]), rtol=1e-9)
    assert found.ray_angle_deg == pytest.approx(20)
    assert "only 20 degrees apart" in found.warnings[0]
    assert triangulate((view(-80), view(80)), np.full((2, 2), 500.0)).ray_angle_deg == pytest.approx(20)  # opposite views are as bad


def test_marks_that_do_not_fit_are_told() -> None:
    views = (view(0), view(90))
    pixels = marks(views, np.array([10.0, 20, 30])) + [[0, 0], [0, 12]]  # 12 rows: 4 mm along the patient
    found = triangulate(views, pixels)
    assert any("do not fit together" in w for w in found.warnings)
    # The 12 px are shared in the ratio of the magnifications, about half each.
    assert found.residual_px.max() == pytest.approx(6, abs=0.5)


def test_refusals() -> None:
    cases = [
        ((view(0),), np.array([[500.0, 500]]), "Depth is not known from one view"),
        ((view(0), view(1)), np.full((2, 2), 500.0), "nearly parallel"),
        ((view(0), view(180)), np.full((2, 2), 500.0), "nearly parallel"),
        ((view(0), view(90)), np.array([[500.0, np.nan], [1, 1]]), "one finite"),
        ((view(0), view(90)), np.zeros((3, 2)), "one finite"),
    ]
    for views, pixels, sentence in cases:
        with pytest.raises(FluoroGuideError, match=sentence):
            triangulate(views, pixels)
    with pytest.raises(FluoroGuideError, match="positive number of pixels"):
        triangulate((view(0), view(90)), np.full((2, 2), 500.0), sigma_px=0)
    with pytest.raises(FluoroGuideError, match="behind an X-ray source"):  # AP and 10 degrees off, marks crossed far: rays part in front
        triangulate((view(0), view(10)), np.array([[900.0, 500], [100.0, 500]]))


@pytest.mark.parametrize("angles", [((0, 0), (60, 0)), ((-30, 20), (45, -10)), ((10, 0), (100, 5), (50, 25))])
def test_needle_from_different_shaft_points(angles: tuple) -> None:
    views = tuple(view(*a) for a in angles)
    tip, axis = np.array([12.0, 22, 31]), np.array([-0.5, -0.8, -0.25])
    axis /= np.linalg.norm(axis)
    shafts = marks(views, *[tip - length * axis for length in (40, 60, 25)[: len(views)]])
    found = locate_needle(views, marks(views, tip), shafts)
    np.testing.assert_allclose(found.tip_mm, tip, atol=1e-6)
    np.testing.assert_allclose(found.axis, axis, atol=1e-7)  # from hub to tip
    assert found.frame == "isocentre"
    assert found.to_dict()["axis"] == pytest.approx(found.axis.tolist())


def test_predicted_spread_is_the_spread_of_noisy_marks() -> None:
    views, rng = (view(0), view(70)), np.random.default_rng(3)
    tip, axis = np.array([12.0, 22, 31]), np.array([-0.36, -0.8, -0.48])
    axis /= np.linalg.norm(axis)
    tips, shafts = marks(views, tip), marks(views, tip - 50 * axis, tip - 40 * axis)
    exact = locate_needle(views, tips, shafts, 0.5)
    samples = [locate_needle(views, tips + rng.normal(0, 0.5, (2, 2)), shafts + rng.normal(0, 0.5, (2, 2)), 0.5) for _ in range(400)]
    spread = np.cov(np.array([s.tip_mm for s in samples]).T)
    # 400 samples: a variance is known to 7 %, so 25 % is beyond three sigmas.
    np.testing.assert_allclose(np.linalg.eigvalsh(spread), np.linalg.eigvalsh(exact.tip_covariance_mm2), rtol=0.25)
    directions = np.array([s.axis for s in samples]) - axis
    worst = np.degrees(np.sqrt(np.linalg.eigvalsh(directions.T @ directions / len(samples))[-1]))
    assert worst == pytest.approx(exact.axis_sigma_deg, rel=0.15)


def test_view_along_the_needle() -> None:
    # Seen from AP the needle along y is a dot; the lateral view shows its length.
    views, tip = (view(0), view(90)), np.zeros(3)
    back = np.array([0, 40.0, 0])  # hub side is posterior, towards the AP source
    pixels = marks(views, back, back)
    found = locate_needle(views, marks(views, tip), pixels)
    np.testing.assert_allclose(found.axis, (0, -1, 0), atol=1e-9)
    np.testing.assert_allclose(found.tip_mm, 0, atol=1e-9)
    assert any("View 1 looks along the needle" in w for w in found.warnings)
    assert 0.2 < found.axis_sigma_deg < 0.6  # sqrt 2 * 0.175 mm over 40 mm is 0.35 degrees


def test_needle_refusals() -> None:
    views, tip = (view(0), view(90)), np.zeros(3)
    tips = marks(views, tip)
    with pytest.raises(FluoroGuideError, match="plane through the X-ray sources"):  # both sources lie in the axial plane z = 0
        locate_needle(views, tips, marks(views, np.array([30.0, 30, 0])))
    with pytest.raises(FluoroGuideError, match="on the tip in every view"):
        locate_needle(views, tips, tips + 0.5)
    a, b = marks(views, np.array([20.0, 20, 20])), marks(views, np.array([-20.0, -20, -20]))
    with pytest.raises(FluoroGuideError, match="opposite sides"):
        locate_needle(views, tips, np.array([a[0], b[1]]))


def test_needle_in_the_volume() -> None:
    views = (view(0), view(90))
    pose = motion(np.array([0.1, -0.2, 0.3, 5, -7, 9]), np.array([3.0, 4, 5]))
    tip_volume, hub_volume = np.array([12.0, 22, 31]), np.array([30.0, 50, 40])
    needle = locate_needle(views, marks(views, apply(pose, tip_volume)), marks(views, apply(pose, hub_volume)))
    covariance = np.diag([0, 0, 0, 0.09, 0.25, 0.01])
    registration = Registration(pose, "pass", (), (), covariance, np.zeros(3), views)
    found = needle_in_volume(needle, pose, registration)
    np.testing.assert_allclose(found.tip_mm, tip_volume, atol=1e-6)
    np.testing.assert_allclose(found.axis, (tip_volume - hub_volume) / np.linalg.norm(tip_volume - hub_volume), atol=1e-7)
    assert found.frame == "volume"
    # A pure translation error adds its variances, whatever the frame: the trace grows by 0.35.
    assert np.trace(found.tip_covariance_mm2) == pytest.approx(np.trace(needle.tip_covariance_mm2) + 0.35)
    turned_back = pose[:3, :3] @ found.tip_covariance_mm2 @ pose[:3, :3].T
    np.testing.assert_allclose(turned_back, needle.tip_covariance_mm2 + np.diag([0.09, 0.25, 0.01]), atol=1e-12)
