"""The pose prior: its cost by hand, its gradient against differences, and what it does to a refinement."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.registration.prior import PosePrior
from FluoroGuideLib.registration.refine import refine
from FluoroGuideLib.registration.similarity import Evaluation

MEAN = rigid.motion([0.3, -0.2, 0.5, 12.0, -7.0, 31.0], np.array([4.0, 5.0, -6.0]))
CENTER = np.array([10.0, -20.0, 5.0])


def correlated(seed: int = 3) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(6, 6))
    sigma = np.array([0.05, 0.03, 0.08, 2.0, 5.0, 1.0])
    return (a @ a.T / 6 + 0.5 * np.eye(6)) * np.outer(sigma, sigma)


def nothing(derivatives: bool = True) -> Evaluation:
    return Evaluation(0.25, 0.5, np.zeros((6, 6)) if derivatives else None, np.zeros(6) if derivatives else None, (0.7,))


class Bowl:
    """A level whose images alone want the pose ``best``: cost is the squared distance of two fixed points."""

    def __init__(self, best: np.ndarray) -> None:
        self.prior = PosePrior.around(best, CENTER, rotation_deg=1.0, translation_mm=1.0, weight=1.0)

    def evaluate(self, pose: np.ndarray, center_mm: np.ndarray) -> Evaluation:
        return self.prior.add(pose, center_mm, Evaluation(0.0, 0.0, np.zeros((6, 6)), np.zeros(6), (1.0,)))


def test_cost_by_hand() -> None:
    """2 degrees about x with sigma 1 degree: 4; 3 mm along z with sigma 6 mm: 1/4; weight 0.1 of their sum."""
    prior = PosePrior(MEAN, np.diag([np.radians(1) ** 2] * 3 + [36.0] * 3), CENTER, 0.1)
    pose = rigid.perturb(MEAN, [np.radians(2), 0, 0, 0, 0, 3.0], CENTER)
    result = prior.add(pose, CENTER, nothing())
    assert result.cost == pytest.approx(0.25 + 0.425)
    assert result.rank == pytest.approx(0.5 + 0.425)
    assert result.similarity == (0.7,)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_is_half_the_derivative_of_the_cost_far_from_the_mean_and_about_another_centre(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prior = PosePrior(MEAN, correlated(), CENTER, 0.3)
    pose = rigid.perturb(MEAN, rng.normal(size=6) * [0.5, 0.5, 0.5, 20, 20, 20], rng.normal(size=3) * 50)
    center = rng.normal(size=3) * 60
    step = 1e-6

    def cost(xi: np.ndarray) -> float:
        return prior.add(rigid.perturb(pose, xi, center), center, nothing()).cost

    numeric = [(cost(step * e) - cost(-step * e)) / (2 * step) for e in np.eye(6)]
    gradient = prior.add(pose, center, nothing()).gradient
    np.testing.assert_allclose(gradient, np.array(numeric) / 2, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


def test_hessian_is_exact_at_the_mean() -> None:
    """There the residuals vanish, so Gauss-Newton is the second derivative; about the prior's own centre it is weight / covariance."""
    prior = PosePrior(MEAN, correlated(), CENTER, 2.0)
    np.testing.assert_allclose(prior.add(MEAN, CENTER, nothing()).hessian, 2 * np.linalg.inv(correlated()), rtol=1e-8)
    other = np.array([-30.0, 10.0, 40.0])
    np.testing.assert_allclose(
        prior.add(MEAN, other, nothing()).hessian, 2 * np.linalg.inv(rigid.recentered(correlated(), CENTER, other)), rtol=1e-6, atol=1e-6,
    )


def test_weight_zero_changes_nothing_and_no_derivatives_are_made_up() -> None:
    evaluation = nothing()
    assert PosePrior(MEAN, correlated(), CENTER, 0.0).add(np.eye(4), CENTER, evaluation) is evaluation
    result = PosePrior(MEAN, correlated(), CENTER).add(np.eye(4), CENTER, nothing(derivatives=False))
    assert result.gradient is None
    assert result.hessian is None
    assert result.cost > 0.25


def test_refinement_goes_where_the_weights_say() -> None:
    """Images and prior disagree by 6 mm along x: equal weights meet in the middle, a huge prior holds, none lets go."""
    images_want = rigid.perturb(MEAN, [0, 0, 0, 6.0, 0, 0], CENTER)

    def found(weight: float) -> np.ndarray:
        prior = PosePrior.around(MEAN, CENTER, rotation_deg=1.0, translation_mm=1.0, weight=weight)
        return refine(Bowl(images_want), MEAN, CENTER, 60, tolerance_mm=1e-6, prior=prior).pose

    for weight, x in ((0.0, 6.0), (1.0, 3.0), (1e9, 0.0)):
        np.testing.assert_allclose(rigid.difference(MEAN, found(weight), CENTER), [0, 0, 0, x, 0, 0], atol=2e-3)


def test_from_an_earlier_result() -> None:
    result = SimpleNamespace(pose=MEAN, covariance=correlated(), center_mm=CENTER)
    prior = PosePrior.from_result(result, moved_deg=2.0, moved_mm=4.0)
    np.testing.assert_allclose(np.diag(prior.covariance - correlated()), [np.radians(2) ** 2] * 3 + [16.0] * 3, rtol=1e-9)


def test_bad_input_is_one_sentence() -> None:
    singular = np.diag([1.0, 1, 1, 1, 1, 0])
    for text, arguments in {
        "symmetric 6x6": (MEAN, np.eye(5), CENTER), "positive definite": (MEAN, singular, CENTER),
        "weight": (MEAN, np.eye(6), CENTER, -1.0), "mirrors": (np.diag([-1.0, 1, 1, 1]), np.eye(6), CENTER),
    }.items():
        with pytest.raises(FluoroGuideError, match=text):
            PosePrior(*arguments)
    with pytest.raises(FluoroGuideError, match="standard deviations"):
        PosePrior.around(MEAN, CENTER, rotation_deg=0)
    infinite = SimpleNamespace(pose=MEAN, covariance=np.diag(np.full(6, np.inf)), center_mm=CENTER)
    with pytest.raises(FluoroGuideError, match="finite"):
        PosePrior.from_result(infinite)
