"""Predicted target errors (registration/result.py) against sampling and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.registration.result import Registration, radius_95


@pytest.mark.parametrize(
    ("sigmas_mm", "expected_mm"),
    # Square roots of the 95 % points of chi-square with 1, 2 and 3 degrees of freedom: 3.8415, 5.9915, 7.8147.
    [((1, 0, 0), 1.95996), ((2, 2, 0), 2 * 2.44775), ((3, 3, 3), 3 * 2.79548), ((0, 0, 0), 0.0)],
)
def test_radius_where_it_has_a_closed_form(sigmas_mm, expected_mm) -> None:
    assert radius_95(np.diag(np.square(sigmas_mm).astype(float))) == pytest.approx(expected_mm, rel=1e-4)


@pytest.mark.parametrize("sigmas_mm", [(1, 1, 5), (1, 5, 5), (1, 2, 3), (0.3, 0.3, 4), (0, 1, 2), (0.1, 1, 1.2), (1, 1, 1.5)])
def test_radius_against_sampling(sigmas_mm) -> None:
    rng = np.random.default_rng(7)
    turn = rigid.rotation_from_vector([0.5, -0.8, 0.3])
    samples = rng.normal(size=(400_000, 3)) * sigmas_mm @ turn.T
    sampled = np.quantile(np.linalg.norm(samples, axis=1), 0.95)
    # The quantile itself is good to 0.3 %.
    assert radius_95(turn @ np.diag(np.square(sigmas_mm)) @ turn.T) == pytest.approx(sampled, rel=0.02)


def a_registration(covariance: np.ndarray, angles=((0, 0),)) -> Registration:
    views = tuple(
        CArmView.from_angles(a, b, sid_mm=1000, sod_mm=700, rows=200, columns=200, pixel_spacing_mm=(1, 1)) for a, b in angles)
    pose = rigid.motion([0.4, -0.2, 0.9, 10, 20, -30], np.zeros(3))
    return Registration(pose, "pass", (), (0.9,) * len(views), covariance, np.array([10.0, 20.0, -30.0]), views)


def test_depth_and_in_plane_of_a_target_on_the_axis() -> None:
    # Only depth (posterior, y) is uncertain in AP: 4 mm. The target sits at the isocentre, on the beam's axis.
    registration = a_registration(np.diag([0, 0, 0, 0.25, 16.0, 0.25]), ((0, 0), (90, 0)))
    error = registration.target_error({"target": rigid.apply(rigid.inverse(registration.pose), np.zeros(3))})[0]
    np.testing.assert_allclose(error.in_plane_mm, (1.95996 * 0.5, 1.95996 * 4), rtol=1e-5)
    np.testing.assert_allclose(error.depth_mm, (1.95996 * 4, 1.95996 * 0.5), rtol=1e-5)


def test_point_covariance_against_sampling() -> None:
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(6, 6)) * np.array([3e-3] * 3 + [0.5] * 3)[:, None]
    registration = a_registration(factor @ factor.T)
    point = np.array([40.0, -60.0, 80.0])
    samples = rng.normal(size=(20000, 6)) @ factor.T
    there = rigid.apply(registration.pose, point)
    moved = np.array([rigid.apply(rigid.motion(xi, registration.center_mm), there) for xi in samples])
    predicted = registration.point_covariance(point)
    sigma = np.sqrt(np.diag(predicted))
    np.testing.assert_allclose(np.cov(moved.T) / np.outer(sigma, sigma), predicted / np.outer(sigma, sigma), atol=0.03)
    # And the promise made to the user: 95 % of the errors are within the radius.
    radius = registration.target_error({"t": point})[0].predicted_error_mm
    assert np.mean(np.linalg.norm(moved - there, axis=1) < radius) == pytest.approx(0.95, abs=0.01)
