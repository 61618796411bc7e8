"""Start from landmarks: pixels worked out by hand, noise, bad marks, exchanged and mirrored labels, ambiguity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.commands.landmarks import start_from
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.registration.landmarks import LandmarkPair, register_landmarks

CARM = {"sid_mm": 1050.0, "sod_mm": 700.0, "rows": 512, "columns": 512, "pixel_spacing_mm": (0.6, 0.6)}
AP, LATERAL = CArmView.from_angles(0, 0, **CARM), CArmView.from_angles(85, 8, **CARM)
# AP: the source is at (0, 700, 0), columns run to +x, rows to -z.  A point (x, y, z) lies 700 - y from the source, so
# column = 255.5 + 1750 x / (700 - y), row = 255.5 - 1750 z / (700 - y).
BY_HAND = {
    "A": ((35.0, 0.0, 0.0), (343.0, 255.5)),  # 1750 * 35 / 700 = 87.5
    "B": ((0.0, 0.0, -21.0), (255.5, 308.0)),  # 1750 * 21 / 700 = 52.5
    "C": ((-28.0, 140.0, 14.0), (168.0, 211.75)),  # 1750 * 28 / 560 = 87.5; 1750 * 14 / 560 = 43.75
    "D": ((24.0, -140.0, 48.0), (305.5, 155.5)),  # 1750 * 24 / 840 = 50; 1750 * 48 / 840 = 100
    "E": ((-40.0, 0.0, -60.0), (155.5, 405.5)),  # 100; 150
}
# 30 degrees about z, then a shift: volume -> isocentre
C30, S30 = np.sqrt(3) / 2, 0.5
TRUTH = np.array([[C30, -S30, 0, 12.0], [S30, C30, 0, -300.0], [0, 0, 1, 1070.0], [0, 0, 0, 1]])
SPINE = np.array([[30, 0, 0], [-32, 5, 4], [2, -25, 40], [5, 28, -35], [-20, -10, -50], [25, 15, 30], [-28, 20, 22.0]])


def by_hand(names: str) -> list[LandmarkPair]:
    return [LandmarkPair(n, TRUTH[:3, :3].T @ (np.array(BY_HAND[n][0]) - TRUTH[:3, 3]), np.array(BY_HAND[n][1])) for n in names]


def simulated(views: list[CArmView], truth: np.ndarray, points: np.ndarray = SPINE, noise_px: float = 0.0, seed: int = 0) -> list[LandmarkPair]:
    rng = np.random.default_rng(seed)
    return [
        LandmarkPair(f"p{i}", p, v.project(rigid.apply(truth, p))[0] + rng.normal(size=2) * noise_px, k)
        for k, v in enumerate(views) for i, p in enumerate(points)
    ]


def some_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rigid.motion(np.r_[rng.normal(size=3) * 0.2, rng.normal(size=3) * 25], np.zeros(3))


def mean_error(pose: np.ndarray, truth: np.ndarray, points: np.ndarray = SPINE) -> float:
    return float(np.linalg.norm(rigid.apply(pose, points) - rigid.apply(truth, points), axis=1).mean())


def test_pixels_worked_out_by_hand_give_the_pose() -> None:
    result = register_landmarks([AP], by_hand("ABCDE"))
    np.testing.assert_allclose(result.pose, TRUTH, atol=1e-4)
    assert not result.warnings
    assert result.rms_px < 1e-4


def test_error_of_a_pair_in_pixels_and_in_mm_at_its_depth() -> None:
    """With a mark 4 columns off in each of two views, millimetres are pixels x 0.6 x depth / 1050, up to the obliquity of the ray."""
    pairs = simulated([AP, LATERAL], np.eye(4))
    pairs[2] = LandmarkPair("p2", pairs[2].position_lps_mm, pairs[2].pixel + [4, 0], 0)
    result = register_landmarks([AP, LATERAL], pairs, sigma_px=2.0)
    error = result.errors[2]
    assert 2.0 < error.error_px < 4.2
    assert not error.outlier
    assert error.error_mm == pytest.approx(error.error_px * 0.6 * (700 + 25) / 1050, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_two_views_with_noise_reach_what_the_covariance_promises(seed: int) -> None:
    truth = some_pose(seed)
    result = register_landmarks([AP, LATERAL], simulated([AP, LATERAL], truth, noise_px=1.5, seed=seed), sigma_px=1.5)
    assert mean_error(result.pose, truth) < 0.8
    assert not result.warnings
    d = rigid.difference(result.pose, truth, result.center_mm)
    assert d @ np.linalg.solve(result.covariance, d) < 16.8  # 99 % of chi square with 6 degrees of freedom


def test_covariance_matches_the_scatter_of_many_trials() -> None:
    """The squared error in units of the covariance is chi square with 6 degrees of freedom: mean 6, known to 0.55 from 40 trials."""
    truth, squares = some_pose(9), []
    for seed in range(40):
        result = register_landmarks([AP, LATERAL], simulated([AP, LATERAL], truth, noise_px=1.0, seed=100 + seed), sigma_px=1.0)
        d = rigid.difference(result.pose, truth, result.center_mm)
        squares.append(d @ np.linalg.solve(result.covariance, d))
    assert np.mean(squares) == pytest.approx(6.0, abs=1.7)


def test_depth_is_the_weak_direction_of_a_single_view() -> None:
    covariance = register_landmarks([AP], simulated([AP], np.eye(4)), sigma_px=1.0).covariance
    x, y, z = np.sqrt(np.diag(covariance)[3:])
    assert y > 5 * max(x, z)


def test_one_bad_mark_is_named_and_left_out() -> None:
    truth = some_pose(4)
    pairs = simulated([AP, LATERAL], truth, noise_px=1.0, seed=4)
    pairs[9] = LandmarkPair("p2", pairs[9].position_lps_mm, pairs[9].pixel + [45, -30], 1)
    result = register_landmarks([AP, LATERAL], pairs, sigma_px=1.0)
    assert [i for i, e in enumerate(result.errors) if e.outlier] == [9]
    assert result.errors[9].error_px == pytest.approx(54, abs=6)
    assert any("p2 (view 2)" in w and "left out" in w for w in result.warnings)
    assert mean_error(result.pose, truth) < 0.8


def test_too_few_pairs_to_tell_which_is_wrong_are_not_judged() -> None:
    pairs = by_hand("ABCD")
    pairs[1] = LandmarkPair("B", pairs[1].position_lps_mm, pairs[1].pixel + [60, 40])
    result = register_landmarks([AP], pairs, sigma_px=1.0)
    assert not any(e.outlier for e in result.errors)
    assert any("too few to tell" in w or "do not fit together" in w for w in result.warnings)


def test_three_points_in_one_view_have_a_second_solution_and_it_is_told() -> None:
    result = register_landmarks([AP], by_hand("ABE"), expected=TRUTH)
    assert result.alternatives
    assert any("equally well" in w for w in result.warnings)
    for pose in [result.pose, *result.alternatives]:  # every one of them really fits
        for pair in by_hand("ABE"):
            np.testing.assert_allclose(AP.project(rigid.apply(pose, pair.position_lps_mm))[0], pair.pixel, atol=0.5)
    assert min(mean_error(p, TRUTH) for p in [result.pose, *result.alternatives]) < 0.5
    angles = [np.linalg.norm(rigid.difference(TRUTH, p, np.zeros(3))[:3]) for p in [result.pose, *result.alternatives]]
    assert angles[0] == min(angles)


def test_expected_orientation_may_be_anything() -> None:
    """Feet first and prone: 180 degrees about x."""
    turned = np.diag([1.0, -1.0, -1.0, 1.0]) @ some_pose(2)
    result = register_landmarks([AP], simulated([AP], turned), expected=turned)
    assert mean_error(result.pose, turned) < 0.01
    assert not result.warnings
    surprised = register_landmarks([AP], simulated([AP], turned))
    assert mean_error(surprised.pose, turned) < 0.01
    assert any("expected orientation" in w for w in surprised.warnings)


def test_two_exchanged_labels_are_named() -> None:
    pairs = simulated([AP, LATERAL], some_pose(5), noise_px=1.0, seed=5)
    pairs[0], pairs[1] = (
        LandmarkPair("p0", pairs[0].position_lps_mm, pairs[1].pixel), LandmarkPair("p1", pairs[1].position_lps_mm, pairs[0].pixel),
    )
    warnings = register_landmarks([AP, LATERAL], pairs, sigma_px=1.0).warnings
    assert any("p0 (view 1)" in w and "p1 (view 1)" in w and "exchanged" in w for w in warnings)


@pytest.mark.parametrize("views", [[AP], [AP, LATERAL]])
def test_a_mirrored_xray_is_told(views: list[CArmView]) -> None:
    pairs = [LandmarkPair(p.name, p.position_lps_mm, np.array([511 - p.pixel[0], p.pixel[1]]), p.view) for p in simulated(views, some_pose(6))]
    assert any("mirrored" in w for w in register_landmarks(views, pairs, sigma_px=1.0).warnings)


def test_points_on_a_line_are_told_and_their_rotation_stays_open() -> None:
    line = np.outer([-40.0, -10, 15, 50], [0.6, 0.0, 0.8])
    result = register_landmarks([AP, LATERAL], simulated([AP, LATERAL], np.eye(4), line), sigma_px=1.0)
    assert any("one line" in w for w in result.warnings)
    axis = np.array([0.6, 0, 0.8])
    assert np.sqrt(axis @ result.covariance[:3, :3] @ axis) > 1.0


def test_a_file_of_landmarks_gives_the_start_and_says_how_far_each_is_off(tmp_path: Path) -> None:
    """The hand-worked pixels, written as a person would; view 1 is the first X-ray."""
    rows = [{"name": p.name, "position_lps_mm": p.position_lps_mm.tolist(), "pixel": p.pixel.tolist(), "view": 1} for p in by_hand("ABCDE")]
    path = tmp_path / "marks.json"
    path.write_text(json.dumps(rows))
    pose, facts, lines = start_from(path, [AP, LATERAL])
    np.testing.assert_allclose(pose, TRUTH, atol=1e-4)
    assert [e["view"] for e in facts["errors"]] == [1] * 5
    assert any("A, view 1: 0.0 pixels" in line for line in lines)
    for text, data in {
        "not a list": {}, "cannot be read": [{"name": "A"}], "three coordinates": [{**rows[0], "pixel": [1, 2, 3]}],
        "not given": [{**rows[0], "view": 3}], "at least three": rows[:2],
    }.items():
        path.write_text(json.dumps(data))
        with pytest.raises(FluoroGuideError, match=text):
            start_from(path, [AP, LATERAL])


def test_bad_input_is_one_sentence() -> None:
    pairs = by_hand("ABC")
    nan = LandmarkPair("n", np.array([np.nan, 0, 0]), np.zeros(2))
    away = LandmarkPair("far", np.zeros(3), np.zeros(2), 3)
    same = LandmarkPair("A again", pairs[0].position_lps_mm, pairs[0].pixel)
    for text, given in {
        "at least three": pairs[:2], "three different": [*pairs[:2], same], "not a finite": [*pairs, nan], "does not exist": [*pairs, away],
    }.items():
        with pytest.raises(FluoroGuideError, match=text):
            register_landmarks([AP], given)
    with pytest.raises(FluoroGuideError, match="at least three"):
        register_landmarks([AP], [])
    with pytest.raises(FluoroGuideError, match="positive number of pixels"):
        register_landmarks([AP], pairs, sigma_px=0.0)
