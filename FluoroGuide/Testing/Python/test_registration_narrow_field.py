"""A narrow field cut out of the phantom, whose X-rays show the whole of it: what is explained, and rounds that lose it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_registration_register import Case

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
from FluoroGuideLib.evaluation.cbct import cbct_from_ct
from FluoroGuideLib.evaluation.phantom import LumbarPhantom
from FluoroGuideLib.registration import narrow_field
from FluoroGuideLib.registration.coarse_to_fine import make_level
from FluoroGuideLib.registration.geometry_error import CArmTolerance
from FluoroGuideLib.registration.narrow_field import FIRST_KEEP, FIRST_MM, LOST_MOST, for_narrow_fields, in_rounds
from FluoroGuideLib.registration.refine import Refined
from FluoroGuideLib.registration.register import LevelOptions, MovingVolume, Options, _Task, register
from FluoroGuideLib.registration.search import center_in_isocenter
from FluoroGuideLib.registration.similarity import LEAST_GAIN, Evaluation, FixedView, Level

SPEC = LevelOptions(3.0, 5, 10, 4)


@pytest.fixture(scope="module")
def case() -> Case:
    """The phantom's X-rays, and of its CT a round field of 130 mm with the HU of a C-arm."""
    made = Case()
    ct = LumbarPhantom(seed=4).voxelize(1.5)
    field = cbct_from_ct(ct, made.target + [5.0, -20.0, 8.0], np.random.default_rng(1), field_mm=130.0, offset_hu=-100.0, streaks_hu=0.0)
    made.moving = MovingVolume(attenuation_from_hu(field, "CBCT"))
    assert made.moving.shows_a_part
    return made


def level_at(case: Case, pose: np.ndarray, *, partial: bool = True, pixel_mm: float = 3.0) -> Level:
    level = Level(case.moving.projector(pixel_mm), case.images, center_in_isocenter(pose, case.target), pixel_mm, 5, partial=partial)
    return level.without_unknown(case.moving.beyond(), pose)


def task_of(case: Case) -> _Task:
    return _Task(case.moving, list(case.images), case.target, Options(threads=1, check_part=False), lambda *_: None, lambda: False)


def slow_explained(level: Level, pose: np.ndarray) -> tuple[float, float]:
    """Cost of the best multiple of the DRR, unknown pixels predicted as nothing, against that of nothing; and of the known pixels alone."""
    cost = nothing = 0.0
    for view in level.views:
        moving = view.normalize(level.projector.project(view.view, pose, view.rays, view.distances))[0].astype(float)
        fixed, weight = view.fixed.astype(float), view.weight.astype(float)
        gain = np.clip((weight * moving * fixed).sum() / (weight * moving**2).sum(), LEAST_GAIN, 1.0)
        cost += (weight * np.log1p((gain * moving - fixed) ** 2)).sum() + view.lost_cost
        nothing += (weight * np.log1p(fixed**2)).sum() + view.lost_cost
    lost = sum(v.lost_cost for v in level.views)
    return 1.0 - cost / nothing, 1.0 - (cost - lost) / (nothing - lost)


def test_what_is_explained_agrees_with_a_slow_reference(case: Case) -> None:
    for pose in (case.truth, case.start(3, 6, 4), case.start(4, 30, 10)):
        level, center = level_at(case, pose), center_in_isocenter(pose, case.target)
        found = level.evaluate(pose, center)
        assert (found.explained, found.explained_there) == pytest.approx(slow_explained(level, pose), abs=1e-4)
        assert level.evaluate(pose, center, derivatives=False).rank == pytest.approx(found.rank, rel=1e-4)


def test_a_volume_that_has_left_the_picture_explains_nothing(case: Case) -> None:
    """With a factor of one it would even fit better than where it shows little; the whole volume is not asked."""
    gone = case.truth.copy()
    gone[:3, 3] += [0.0, 0.0, 400.0]
    here = level_at(case, case.truth).evaluate(case.truth, np.zeros(3), derivatives=False)
    away = level_at(case, gone).evaluate(gone, np.zeros(3), derivatives=False)
    assert here.explained_there > 0.3
    assert away.explained == pytest.approx(0.0, abs=0.01)
    assert away.worse(here) > 10
    whole = level_at(case, case.truth, partial=False).evaluate(case.truth, np.zeros(3), derivatives=False)
    assert np.isnan(whole.explained)
    assert dataclasses.replace(whole, rank=2 * whole.rank).worse(whole) == pytest.approx(2.0)


def test_the_gain_is_that_of_least_squares_and_never_nothing() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.normal(size=(40, 50)).astype(np.float32)
    view = object.__new__(FixedView)
    view.partial, view.weight, view.fixed = True, np.ones_like(fixed), fixed
    moving = (fixed + rng.normal(size=fixed.shape)).astype(np.float32)  # half of its variance is the X-ray's
    assert view.gain(moving) == pytest.approx(0.5, abs=0.05)
    assert view.gain(-moving) == pytest.approx(LEAST_GAIN)
    assert view.gain(0.2 * fixed) == 1.0
    jacobian = rng.normal(size=(6, 40, 50)).astype(np.float32)
    image, derivative = view.fitted(moving, jacobian)
    np.testing.assert_allclose(image, view.gain(moving) * moving)
    np.testing.assert_allclose(derivative, view.gain(moving) * jacobian)
    view.partial = False
    assert view.fitted(moving, jacobian)[0] is moving


def test_from_15_mm_and_from_the_truth(case: Case) -> None:
    task = task_of(case)
    level = make_level(task, SPEC, center_in_isocenter(case.truth, case.target))
    rested = in_rounds(task, level, SPEC, case.truth)
    assert case.mtre(rested.pose) < 1.0
    assert rested.evaluation.explained_there > 0.3
    result = register(case.moving, case.images, case.start(2, 15, 8), targets={"facet": case.target}, options=task.options)
    assert case.mtre(result.pose) < 0.8
    assert [f.kind for f in result.findings] == ["coverage"], result.reasons
    assert [h["stage"] for h in result.history] == ["search", "3 mm", "1.5 mm"]


def test_with_the_c_arm_estimated_it_is_judged_alike(case: Case) -> None:
    options = Options(threads=1, check_part=False, search=False, checks=False, carm=CArmTolerance())
    result = register(case.moving, case.images, case.start(2, 2, 1), targets={"facet": case.target}, options=options)
    assert case.mtre(result.pose) < 2.0
    assert np.isfinite(result.covariance).all()
    assert "similarity" not in [f.kind for f in result.findings], result.reasons  # what it explains is known here too


def test_a_round_that_loses_what_was_explained_is_taken_back(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round is kept, the second wanders off."""
    task, kept, away = task_of(case), case.start(1, 1.0, 0.5), case.start(1, 40, 10)
    level = make_level(task, SPEC, center_in_isocenter(case.truth, case.target))
    ends = iter([kept, away])
    monkeypatch.setattr(narrow_field, "refine", lambda _level, _pose, _center, steps, **_: Refined(next(ends), None, steps))
    found = in_rounds(task, level, SPEC, case.truth)
    np.testing.assert_array_equal(found.pose, kept)
    assert found.iterations == 2 * narrow_field.ROUND
    lost = level_at(case, away).evaluate(away, np.zeros(3), derivatives=False)
    assert lost.worse(found.evaluation) > LOST_MOST


def test_levels_of_a_narrow_field() -> None:
    usual = Options()
    assert for_narrow_fields(dataclasses.replace(usual, search=False), True).levels == usual.levels
    field = for_narrow_fields(usual, True)
    assert [(s.pixel_mm, s.iterations) for s in field.levels] == [(FIRST_MM, usual.levels[0].iterations), (1.5, usual.levels[-1].iterations)]
    assert field.search_keep == FIRST_KEEP
    assert [s.pixel_mm for s in for_narrow_fields(usual, False).levels] == [4.0, 3.0, 1.5]  # MR


def test_worse_than_nothing_is_very_much_worse() -> None:
    best, bad = (Evaluation(0.1, rank, None, None, (0.5,), nothing=0.4) for rank in (0.3, 0.41))
    assert best.explained == pytest.approx(0.25)
    assert bad.worse(best) > 1e4


@pytest.mark.parametrize("nothing", [0.0, 0.4])
def test_poses_where_nothing_votes_are_as_good_as_each_other(nothing: float) -> None:
    """Their ranks are infinite: a pool of them must not come out empty."""
    one, two, good = (Evaluation(np.inf, rank, None, None, (0.0,), nothing=nothing) for rank in (np.inf, np.inf, 0.2))
    assert two.worse(one) == 1.0
    assert one.worse(good) > 1e4
