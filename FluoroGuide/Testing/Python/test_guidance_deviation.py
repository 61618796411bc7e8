"""Deviation from the plan against numbers worked out by hand, and probabilities against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.guidance.deviation import Deviation, deviation, direction_text, probability_in_ball
from FluoroGuideLib.planning.plan import Trajectory

DOWN = Trajectory("down", (0, 0, 100), (0, 0, 0))  # the needle heads to the feet


def test_by_hand() -> None:
    # Tip 3 left, 4 posterior, 2 below the target: sqrt(9 + 16 + 4) away, 5 beside the path, 2 past the target.
    found = deviation(DOWN, (3, 4, -2), (0, 0, -7), tolerance_mm=5.4)
    assert found.tip_mm == pytest.approx(29**0.5)
    assert found.lateral_mm == pytest.approx(5)
    assert found.along_mm == pytest.approx(2)
    assert found.angle_deg == pytest.approx(0, abs=1e-9)
    assert found.entry_mm == pytest.approx(5)
    assert found.direction_text == "4.0 mm posterior, 3.0 mm left, 2.0 mm caudal"
    assert found.in_target is True
    assert found.probability_in_target is None
    assert deviation(DOWN, (3, 4, -2), tolerance_mm=5.3).in_target is False
    assert deviation(DOWN, (0, 0, 1.5)).along_mm == pytest.approx(-1.5)  # short of the target
    assert deviation(DOWN, (0, 0, 1.5)).in_target is None
    assert Deviation.from_dict(found.to_dict()) == found


def test_angle_and_entry_by_hand() -> None:
    # Turned by 5 degrees about the tip at the target: the line passes the entry 100 sin 5 = 8.7156 mm away.
    turned = np.array([np.sin(np.radians(5)), 0, -np.cos(np.radians(5))])
    found = deviation(DOWN, (0, 0, 0), turned)
    assert found.angle_deg == pytest.approx(5)
    assert found.entry_mm == pytest.approx(8.71557, abs=1e-4)
    assert deviation(DOWN, (0, 0, 0), -turned).angle_deg == pytest.approx(175)
    assert found.direction_text == "on the target"


def test_words() -> None:
    assert direction_text((-1, -2, 3)) == "3.0 mm cranial, 2.0 mm anterior, 1.0 mm right"
    assert direction_text((0.04, 0, -0.06)) == "0.1 mm caudal"


def test_probability_against_closed_forms() -> None:
    from scipy.stats import chi2, multivariate_normal, ncx2

    # Isotropic, centred, sigma 1, radius 2: Maxwell, erf(sqrt 2) - 2 sqrt(2 / pi) exp(-2) = 0.738536.
    assert probability_in_ball(np.zeros(3), np.eye(3), 2.0) == pytest.approx(0.738536, abs=1e-6)
    for sigma, offset, radius in ((0.3, (1, 0.5, -0.2), 1.5), (2.0, (3, 1, 1), 2.0), (0.05, (0, 0, 1.02), 1.0), (1e-3, (0, 0, 0.5), 1.0)):
        exact = ncx2.cdf((radius / sigma) ** 2, 3, np.sum(np.square(offset)) / sigma**2)
        assert probability_in_ball(np.array(offset), sigma**2 * np.eye(3), radius) == pytest.approx(exact, abs=1e-6)
    # No spread in one direction: Rayleigh in the other two.
    assert probability_in_ball(np.zeros(3), np.diag([1, 1, 0]), 1.5) == pytest.approx(chi2.cdf(2.25, 2), abs=1e-6)
    # No spread at all: in or out.
    assert probability_in_ball(np.array([0.9, 0, 0]), np.zeros((3, 3)), 1.0) == pytest.approx(1)
    assert probability_in_ball(np.array([1.1, 0, 0]), np.zeros((3, 3)), 1.0) == pytest.approx(0)
    # Any covariance: a million samples have a standard error of 0.0005.
    covariance = np.array([[2.0, 0.6, -0.3], [0.6, 0.5, 0.1], [-0.3, 0.1, 0.2]])
    samples = multivariate_normal((1, 0.5, 0), covariance).rvs(1_000_000, random_state=1)
    share = np.mean((samples**2).sum(axis=1) <= 4)
    assert probability_in_ball(np.array([1, 0.5, 0]), covariance, 2.0) == pytest.approx(share, abs=0.0025)


def test_bad_input() -> None:
    for arguments, sentence in (
        (((0, 0, np.nan),), "needle tip is not three finite numbers"), (((0, 0, 0), (0, 0, 0)), "direction has no length"),
        (((0, 0, 0), None, np.eye(2), 1.0), "covariance is not a symmetric"), (((0, 0, 0), None, -np.eye(3), 1.0), "negative in one direction"),
    ):
        with pytest.raises(FluoroGuideError, match=sentence):
            deviation(DOWN, *arguments)
