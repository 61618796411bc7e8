"""Predicted error and verdict from made-up equations, whose answers are worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from FluoroGuideLib.registration.checks import Evidence
from FluoroGuideLib.registration.confidence import (
    ALONE_FACTOR,
    FIELD_FACTOR,
    FIELD_MM,
    LEAST_FACTOR,
    LOST_FIELD_MM,
    NARROW_FACTOR,
    PART_FACTOR,
    PART_MM,
    PART_SHARE_FACTOR,
    Looks,
    field_not_recognised,
    in_narrow_field,
    judge,
    lost_share,
    part_covariance,
)
from FluoroGuideLib.registration.findings import told, verdict_of
from FluoroGuideLib.registration.refine import Refined
from FluoroGuideLib.registration.similarity import Evaluation

SOURCES = (np.array([0.0, 700.0, 0.0]), np.array([700.0, 0.0, 0.0]))


def looks(alone: tuple, narrow: tuple) -> Looks:
    """0.1 mm of spread along each axis, none of rotation."""
    zero = np.zeros(3)
    return Looks(
        np.diag([0, 0, 0, 0.01, 0.01, 0.01]), tuple(np.r_[zero, a] for a in alone), np.r_[zero, narrow], zero, SOURCES[: len(alone) or 1],
    )


def test_disagreement_counts_sigmas_and_leaves_depth_out() -> None:
    """Along a view's own beam (y for the first, x for the second) a motion is not seen: 0.3 mm across of sqrt(2) * 0.1 mm in each view."""
    alone, narrow = looks(((0.3, 50.0, 0.0), (50.0, 0.0, 0.3)), (0.0, 0.0, 0.2)).disagreement(np.zeros(3))
    assert alone == pytest.approx(0.3 / np.sqrt(0.02))
    assert narrow == pytest.approx(0.2 / np.sqrt(0.03))


def test_the_error_grows_with_what_disagrees() -> None:
    calm = looks(((0, 0, 0), (0, 0, 0)), (0, 0, 0)).covariance(np.zeros(3))
    np.testing.assert_allclose(np.diag(calm)[3:], 0.01 * LEAST_FACTOR**2)
    pulled = looks(((0.3, 0, 0), (0, 0.3, 0)), (0, 0, 0.2)).covariance(np.zeros(3))
    expected = LEAST_FACTOR**2 + ALONE_FACTOR**2 * 0.09 / 0.02 + NARROW_FACTOR**2 * 0.04 / 0.03
    np.testing.assert_allclose(np.diag(pulled)[3:], 0.01 * expected)


def test_one_view_has_only_its_narrow_windows() -> None:
    assert looks((), (0.0, 0.3, 0.4)).disagreement(np.zeros(3)) == pytest.approx((0.0, 0.5 / np.sqrt(0.03)))


class _View:
    """A view whose X-ray is its DRR at the pose plus what another pose would add: the residual is the derivative times that motion."""

    def __init__(self, rng: np.random.Generator, motion_mm: np.ndarray, source_mm: np.ndarray) -> None:
        self.radius, self.mask, self.weight = 4, np.ones((24, 24), np.float32), np.ones((24, 24), np.float32)
        self.view = SimpleNamespace(source_mm=source_mm)
        self.jacobian = rng.normal(0, 1e-3, (6, 24, 24))
        self.jacobian[:3] *= 60
        self.moving = rng.normal(size=(24, 24))
        self.fixed = self.moving + np.tensordot(motion_mm, self.jacobian, 1)

    def set_mask(self, mask: np.ndarray, weight: np.ndarray) -> None:
        assert mask.all()
        self.weight = weight


def _pieces(*views: _View) -> list[tuple]:
    return [(v, v.moving, v.jacobian) for v in views]


def test_views_that_ask_for_other_poses_are_found_in_their_equations() -> None:
    """Views that want +1 and -1 mm along z: together they rest near zero, alone each wants its own; both sides count from the rest."""
    rng, want = np.random.default_rng(0), np.r_[0, 0, 0, 0, 0, 1.0]
    views = [_View(rng, want, SOURCES[0]), _View(rng, -want, SOURCES[1])]
    found = Looks.at(_pieces, views, 1.0, np.zeros(3))
    np.testing.assert_allclose(found.alone[0] - found.alone[1], 2 * want, atol=0.05)
    # each view has four blocks whose scores are a quarter of H x 1 mm: variance 8 / 16 H^2 / (2 H)^2 = 1/8 mm^2, and a little across
    assert 2.0 < found.disagreement(np.zeros(3))[0] < np.sqrt(8)
    assert views[0].radius == 4  # narrow windows are a copy's
    agreeing = Looks.at(_pieces, [_View(rng, 0 * want, s) for s in SOURCES], 1.0, np.zeros(3))
    assert max(np.abs(a).max() for a in agreeing.alone) < 1e-9


def test_a_bones_own_error_is_the_sandwich_alone() -> None:
    """Views that contradict each other widen a whole volume's error, not a bone's: its sandwich, scaled, and a tenth of a millimetre.

    A shadow half as strong as all around it scales more, as much as one twice as strong.
    """
    rng, want = np.random.default_rng(1), np.r_[0, 0, 0, 0, 0, 1.0]
    views = [_View(rng, want, SOURCES[0]), _View(rng, -want, SOURCES[1])]
    own = SimpleNamespace(views=views, cauchy2=1.0, _between=lambda _: None, _with_jacobian=lambda v, _: (v.moving, v.jacobian))
    found, weak, strong = (part_covariance(SimpleNamespace(own=lambda: own), (np.eye(4), np.eye(4)), s) for s in ((1, 1), (1, 0.5), (2, 1)))
    sandwich = Looks.at(_pieces, views, 1.0, np.zeros(3)).sandwich
    np.testing.assert_allclose(found, sandwich * PART_FACTOR**2 + np.diag([0, 0, 0, 1, 1, 1]) * PART_MM**2)
    np.testing.assert_allclose(weak[0, 0] / found[0, 0], 1 + (PART_SHARE_FACTOR * np.log(2)) ** 2)
    np.testing.assert_allclose(strong, weak)


def _judged(similarity: float = 0.9, error_mm: float = 0.5, part: bool = False, **seen: object) -> tuple[str, tuple[str, ...]]:
    best = Refined(np.eye(4), Evaluation(0.1, 0.1, None, None, (similarity, 0.95)), 0)
    sides = {"straight": (0.9, 0.9), "mirrored": (0.2, 0.2), **seen}
    found = told(judge(best, [], [error_mm], 1.0, 2, np.zeros(3), seen=Evidence(**sides), names=("A", "B"), part=part))
    return found["verdict"], found["reasons"]


def test_verdicts_and_their_sentences() -> None:
    assert _judged() == ("pass", ())
    assert _judged(similarity=0.45)[0] == "warn"
    assert _judged(similarity=0.45, part=True)[0] == "pass"  # a bone is compared through small windows
    assert _judged(similarity=0.1, part=True)[0] == "fail"
    verdict, reasons = _judged(part=True, bone=(1.1, 0.6))
    assert verdict == "warn"
    assert "only 60 % as strong" in reasons[0]
    assert _judged(part=True, bone=(1.1, 0.7), bone_explained=(0.1, 0.03))[0] == "pass"
    verdict, reasons = _judged(part=True, bone=(1.1, 0.7), bone_explained=(0.1, 0.01))
    assert verdict == "warn"
    assert "explains only 1 %" in reasons[0]
    assert _judged(error_mm=2.4)[0] == "warn"
    assert _judged(error_mm=5.4)[0] == "fail"
    assert _judged(straight=(0.5, 0.6), mirrored=(0.2, 0.75))[0] == "fail"
    assert _judged(straight=(0.5, 0.2), mirrored=(0.2, 0.25))[0] == "warn"  # neither fits: chance, but nothing to rely on


@pytest.mark.parametrize(("alone", "gain", "verdict"), [
    ((1.5, 0.4), (1.2, 1.15), "warn"),  # a wrong angle: both fit better without the other
    ((2.5, 0.1), (1.2, 1.01), "pass"),  # one that shows little pulls, the other is content
    ((0.5, 0.4), (1.2, 1.15), "pass"),
    ((3.5, 0.1), (1.2, 1.0), "warn"),
    ((5.5, 0.1), (1.2, 1.0), "fail"),
])
def test_views_that_pull_the_target_apart(alone: tuple, gain: tuple, verdict: str) -> None:
    assert _judged(alone_mm=alone, alone_gain=gain)[0] == verdict


def test_a_view_without_votes_is_not_called_unlike_but_silent() -> None:
    """Its similarity of 0 means nothing; the other view's counts as ever."""
    for other, kinds in ((0.95, ["silent view"]), (0.4, ["silent view", "similarity"])):
        best = Refined(np.eye(4), Evaluation(0.1, 0.1, None, None, (other, 0.0)), 0)
        found = judge(best, [], [0.5], 1.0, 2, np.zeros(3), names=("A", "B"), silent=(1,))
        assert ([f.kind for f in found], verdict_of(found)) == (kinds, "fail")
        assert found[0].sentence.startswith("B says nothing")


@pytest.mark.parametrize(("degrees", "gain", "verdict"), [
    (8.0, 4.0, "fail"), (3.4, 1.14, "warn"),
    (1.0, 1.2, "pass"),  # within what angles are off anyway
    (5.8, 0.93, "pass"),  # a dark view turns far, and nothing fits better
    (1.6, 1.02, "pass"),
])
def test_an_angle_with_which_both_views_fit_better(degrees: float, gain: float, verdict: str) -> None:
    found, reasons = _judged(angle_deg=degrees, angle_gain=gain)
    assert found == verdict
    assert verdict == "pass" or f"{degrees:.0f} degrees off what is stated" in reasons[0]


def test_a_bone_that_is_seen_too_little_may_lie_elsewhere() -> None:
    """Of what is usual (0.75) a third is missing: a third lost; a little less than usual is nothing; 0.1 of a similarity of 0.25: 60 %.

    A shadow that explains half of what is usual (0.08) is half lost.
    """
    assert lost_share((0.5,), (1.2, 0.9), (0.1, 0.015)) == pytest.approx(0.5)
    assert lost_share((0.5,), (1.2, 0.9), (0.1, 0.026)) == 0.0
    assert lost_share((0.5,), (1.2, 0.5)) == pytest.approx(1 / 3)
    assert lost_share((0.5,), (1.2, 0.7)) == 0.0
    assert lost_share((0.1,), (1.2, 0.7)) == pytest.approx(0.5)


def test_findings_come_once_worst_first_and_say_what_they_are() -> None:
    """Everything at once: two fail, the rest warns, one view says so; sentences in the order of the findings."""
    best, rival = (Refined(np.eye(4) + np.eye(4, k=3) * x, Evaluation(0.1, 0.1, None, None, (0.4,)), 0) for x in (0.0, 9.0))
    seen = Evidence(straight=(0.5,), mirrored=(0.55,), alone_mm=(4.0,), level_ratio=0.9, level_mm=22.0, bone=(0.5,))
    found = judge(best, [rival], [np.inf], 0.3, 1, np.zeros(3), seen=seen, names=("A",))
    assert [(f.level, f.kind) for f in found] == [
        ("fail", "level"), ("fail", "error"), ("warn", "mirrored"), ("warn", "views apart"), ("warn", "bone"), ("warn", "similarity"),
        ("warn", "rival"), ("warn", "coverage"), ("note", "in-plane"),
    ]
    assert told(found) == {"findings": found, "verdict": "fail", "reasons": tuple(f.sentence for f in found)}
    assert told(found)["reasons"][6] == "Another pose, 9 mm away, fits almost as well."


def test_a_narrow_field_is_judged_by_what_it_explains() -> None:
    """About half of the shadow is cast by what was cut off; where it explains next to nothing the pose may be anywhere."""

    def verdict(explained: float, similarity: float, seen: Evidence | None = None) -> str:
        best = Refined(np.eye(4), Evaluation(0.1, 0.4 * (1 - explained), None, None, (similarity, 0.9), nothing=0.4), 0)
        return verdict_of(judge(best, [], [0.5], 1.0, 2, np.zeros(3), seen=seen, names=("A",)))

    told_of = [verdict(*pair) for pair in ((0.2, 0.45), (0.09, 0.45), (0.05, 0.45), (0.09, 0.2), (0.2, 0.2))]
    assert told_of == ["pass", "warn", "fail", "fail", "fail"]
    assert [verdict(0.2, 0.45, Evidence(straight=(0.3,), mirrored=(m,))) for m in (0.44, 0.46, 0.56)] == ["pass", "warn", "fail"]
    whole = Refined(np.eye(4), Evaluation(0.1, 0.1, None, None, (0.45, 0.9)), 0)
    assert verdict_of(judge(whole, [], [0.5], 1.0, 2, np.zeros(3))) == "warn"
    np.testing.assert_allclose(field_not_recognised(np.eye(6), 0.11), np.eye(6))
    np.testing.assert_allclose(np.diag(field_not_recognised(np.eye(6), 0.05))[3:], 1 + (0.5 * LOST_FIELD_MM) ** 2)
    np.testing.assert_allclose(np.diag(in_narrow_field(np.eye(6))), [FIELD_FACTOR**2] * 3 + [FIELD_FACTOR**2 + FIELD_MM**2] * 3)
