"""A second look after a weak answer, and rays near a scan's end, on the phantom's closed-form X-rays."""

from __future__ import annotations

import numpy as np
import pytest
from test_registration_register import Case

from FluoroGuideLib.registration.coarse_to_fine import make_level, refine_pool
from FluoroGuideLib.registration.register import LevelOptions, Options, _Task
from FluoroGuideLib.registration.search import Candidate, center_in_isocenter
from FluoroGuideLib.registration.second_look import is_weak, look_again
from FluoroGuideLib.registration.similarity import UNSURE_MM

LEVELS = (LevelOptions(6.0, 4, 8, 4), LevelOptions(3.0, 5, 8, 2))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def task_of(case: Case) -> _Task:
    options = Options(levels=LEVELS, threads=1, check_part=False)
    return _Task(case.moving, list(case.images), case.target, options, lambda *_: None, lambda: False)


def test_a_wrong_basin_is_weak_and_a_second_look_leaves_it(case: Case) -> None:
    task, start = task_of(case), case.start(3, 12, 6)
    stuck = refine_pool(task, [Candidate(case.start(7, 60, 35), 0.0)])
    assert case.mtre(stuck[0].pose) > 10
    assert is_weak(stuck[0])
    best, rivals, _ = look_again(task, start, stuck)
    assert case.mtre(best.pose) < 1.0
    assert not is_weak(best)
    assert all(best.evaluation.rank <= r.evaluation.rank for r in rivals)
    assert [h["better"] for h in task.history if h["stage"] == "second look"] == [True]  # one way was enough


def test_a_good_answer_is_kept_as_it_is(case: Case) -> None:
    task = task_of(case)
    good = refine_pool(task, [Candidate(case.truth, 0.0)])
    assert not is_weak(good[0])
    assert look_again(task, case.truth, good)[0] is good[0]


def test_rays_next_to_unknown_ones_do_not_vote(case: Case) -> None:
    """Unknown from column 20 on: at 3 mm two more pixels on each side are left out, at 6 mm one."""

    class FromColumn20:
        def project(self, view: object, *_: object) -> np.ndarray:
            return (np.arange(view.columns)[None] >= 20) * np.ones((view.rows, 1))

    task = task_of(case)
    for spec in LEVELS:
        level = make_level(task, spec, center_in_isocenter(case.truth, case.target))
        known = level.without_unknown(FromColumn20(), case.truth).views[0].mask.any(axis=0)
        assert np.flatnonzero(known).max() == 20 - 1 - round(UNSURE_MM / spec.pixel_mm)
