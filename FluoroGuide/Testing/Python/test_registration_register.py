"""Registration against the phantom's closed-form X-rays, which share nothing with the registration's projector."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
from FluoroGuideLib.errors import CancelledError, FluoroGuideError
from FluoroGuideLib.evaluation.phantom import LumbarPhantom
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.register import LevelOptions, MovingVolume, Options, register
from FluoroGuideLib.registration.search import rotation_grid, start_at_isocenter
from FluoroGuideLib.registration.similarity import Level

FAST = Options(threads=1, check_part=False)


class Case:
    """A phantom, its true pose, two noisy X-rays of it and points around the target."""

    def __init__(self) -> None:
        phantom = LumbarPhantom(seed=4)
        self.moving = MovingVolume(attenuation_from_hu(phantom.voxelize(1.5)))
        self.target = phantom.landmarks["L4/L5 facet joint left"]
        self.truth = rigid.perturb(start_at_isocenter(self.target), [0.06, -0.04, 0.08, 4.0, -6.0, 3.0], np.zeros(3))
        rng = np.random.default_rng(0)
        self.images = []
        for angles in ((0.0, 0.0), (80.0, 5.0)):
            view = CArmView.from_angles(*angles, sid_mm=1050, sod_mm=700, rows=256, columns=256, pixel_spacing_mm=(1.2, 1.2))
            lines = phantom.line_integrals(view, self.truth)
            # another mixture of soft tissue and bone than the CT's, and noise: the grey values do not match
            pixels = 0.9 * lines["soft"] + 1.4 * lines["bone"] + rng.normal(0, 0.02, (256, 256))
            self.images.append(XrayImage(pixels.astype(np.float32), np.ones((256, 256), bool), view, "phantom"))
        self.points = self.target + rng.normal(0, 15, (20, 3))

    def start(self, seed: int, mm: float, degrees: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        turn, shift = rng.normal(size=(2, 3))
        xi = np.r_[turn / np.linalg.norm(turn) * np.radians(degrees), shift / np.linalg.norm(shift) * mm]
        return rigid.perturb(self.truth, xi, rigid.apply(self.truth, self.target))

    def mtre(self, pose: np.ndarray) -> float:
        return float(np.linalg.norm(rigid.apply(pose, self.points) - rigid.apply(self.truth, self.points), axis=1).mean())


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.mark.parametrize("seed", range(3))
def test_two_views_from_15_mm_and_8_degrees(case: Case, seed: int) -> None:
    start = case.start(seed, 15, 8)
    assert case.mtre(start) > 10
    result = register(case.moving, case.images, start, targets={"facet": case.target}, options=FAST)
    assert case.mtre(result.pose) < 0.7
    assert result.verdict == "pass", result.reasons
    error = result.target_error({"facet": case.target})[0]
    assert 0.05 < error.predicted_error_mm < 3


def test_search_needs_no_start(case: Case) -> None:
    """The default start puts the target at the isocentre: here 8 mm and 6 degrees off."""
    result = register(case.moving, case.images, targets={"facet": case.target}, options=FAST)
    assert case.mtre(result.pose) < 0.7


def test_one_view_is_good_in_plane_and_claims_no_depth(case: Case) -> None:
    result = register(case.moving, case.images[:1], case.start(5, 10, 5), targets={"facet": case.target}, options=FAST)
    view = case.images[0].view
    offset = np.linalg.norm(view.project(rigid.apply(result.pose, case.points)) - view.project(rigid.apply(case.truth, case.points)), axis=1)
    assert offset.mean() * view.mm_per_pixel_at(np.zeros(3)) < 0.5
    assert "in-plane only" in result.reasons
    error = result.target_error({"facet": case.target})[0]
    assert error.depth_mm[0] > 2 * error.in_plane_mm[0]


def test_numpy_backend_gives_the_same_answer(case: Case) -> None:
    options = Options(
        levels=(LevelOptions(6.0, 4, 8, 1), LevelOptions(3.0, 5, 6, 1)), search=False, threads=1, backend="numpy",
        check_part=False,  # the bone of its own takes half a minute in numpy
    )
    start = case.start(1, 5, 3)
    slow = register(MovingVolume(case.moving.volume, "numpy"), case.images, start, targets={"facet": case.target}, options=options)
    fast = register(case.moving, case.images, start, targets={"facet": case.target}, options=options)
    assert case.mtre(slow.pose) < 1.0
    np.testing.assert_allclose(slow.pose, fast.pose, atol=0.05)


def test_result_does_not_depend_on_threads(case: Case) -> None:
    start = case.start(2, 15, 8)
    poses = [register(case.moving, case.images, start, targets={"facet": case.target}, options=Options(threads=n)).pose for n in (1, 2)]
    np.testing.assert_array_equal(*poses)


def test_poses_that_explain_different_pixels_are_ranked_by_all_of_them(case: Case) -> None:
    """A pixel whose ray leaves the scan costs what predicting nothing costs; here the lower half is lost."""
    level = Level(case.moving.projector(6.0), case.images, np.zeros(3), 6.0, 4)
    whole = level.evaluate(case.truth, np.zeros(3), derivatives=False)
    assert whole.rank == pytest.approx(whole.cost)
    part = copy.copy(level)
    part.views = []
    for v in level.views:
        lower = np.zeros(v.mask.shape, bool)
        lower[v.mask.shape[0] // 2 :] = True
        part.views.append(v.without(lower, level.cauchy2))
    half = part.evaluate(case.truth, np.zeros(3), derivatives=False)
    nothing = sum(float((v.weight * np.log1p(v.fixed**2)).sum()) for v in level.views) / sum(v.weight.sum() for v in level.views)
    assert whole.rank < half.rank < nothing
    assert 0.4 < part.coverage(level) < 0.6


def test_progress_rises_to_one_and_cancelling_stops(case: Case) -> None:
    seen: list[float] = []
    register(case.moving, case.images, case.truth, options=FAST, progress=lambda f, _t: seen.append(f))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    calls = iter(range(100))
    with pytest.raises(CancelledError):
        register(case.moving, case.images, case.truth, options=FAST, cancelled=lambda: next(calls) > 4)


def test_bad_input_is_one_sentence(case: Case) -> None:
    behind = case.truth.copy()
    behind[:3, 3] += case.images[0].view.source_mm * 1.5
    blank = XrayImage(np.zeros((256, 256)), np.ones((256, 256), bool), case.images[0].view, "blank")
    dark = XrayImage(case.images[0].pixels, np.zeros((256, 256), bool), case.images[0].view, "dark")
    for text, arguments in {
        "behind the X-ray source": (case.images, behind),
        "no X-ray": ([], case.truth),
        "scales or shears": (case.images, np.diag([1.0, 1.1, 1.0, 1.0])),
        "mirrors left and right": (case.images, np.diag([-1.0, 1.0, 1.0, 1.0])),
        "shows nothing": ([blank], case.truth),
        "masked": ([dark], case.truth),
    }.items():
        with pytest.raises(FluoroGuideError, match=text) as error:
            register(case.moving, *arguments, options=FAST)
        assert "\n" not in str(error.value)
    with pytest.raises(FluoroGuideError, match="outside the volume"):
        register(case.moving, case.images, targets={"far": np.array([1000.0, 0, 0])}, options=FAST)


def test_rotation_grid_starts_at_zero_and_keeps_its_limit() -> None:
    grid = rotation_grid(20, 10)
    assert len(grid) == 33  # points of the cubic lattice with norm <= 2.1: 1 + 6 + 12 + 8 + 6
    assert not grid[0].any()
    assert np.degrees(np.linalg.norm(grid, axis=1)).max() <= 21


def test_an_inverted_xray_is_recognised_by_the_volume(case: Case) -> None:
    inverted = XrayImage(5 - case.images[1].pixels, case.images[1].mask, case.images[1].view, "lateral.png")
    result = register(case.moving, [case.images[0], inverted], case.start(3, 10, 5), targets={"facet": case.target}, options=FAST)
    assert case.mtre(result.pose) < 0.7
    assert [r for r in result.reasons if "lateral.png were inverted" in r]
    assert not [r for r in result.reasons if "phantom were inverted" in r]


def test_a_mirrored_xray_fails_and_says_so(case: Case) -> None:
    """The phantom's sides differ (scoliosis, gas, calcified aorta), so the mirror image correlates better than the picture."""
    view = case.images[0]
    mirrored = XrayImage(view.pixels[:, ::-1], view.mask, view.view, "flipped.dcm")
    result = register(case.moving, [mirrored], case.start(1, 8, 4), targets={"facet": case.target}, options=FAST)
    assert result.verdict == "fail"
    assert any("flipped.dcm" in r and "left and right" in r for r in result.reasons)
    straight = register(case.moving, [view], case.start(1, 8, 4), targets={"facet": case.target}, options=FAST)
    assert not any("mirror" in r for r in straight.reasons)


def test_one_vertebra_off_fails_and_says_so(case: Case) -> None:
    """Stuck 36 mm (a vertebra and a disc of the phantom) along the spine, with the coarse levels that would leave it switched off."""
    start = rigid.perturb(case.truth, np.r_[0, 0, 0, 36.0 * case.truth[:3, 2]], np.zeros(3))
    stuck = Options(levels=Options().levels[-1:], search=False, threads=1, check_part=False)
    result = register(case.moving, case.images, start, targets={"facet": case.target}, options=stuck)
    assert case.mtre(result.pose) > 2
    assert result.verdict == "fail"
    assert result.facts["checks"]["level_ratio"] < 1
    right = register(case.moving, case.images, case.truth, targets={"facet": case.target}, options=stuck)
    assert right.facts["checks"]["level_ratio"] > 1.03


def test_images_that_determine_nothing_have_an_infinite_error(case: Case) -> None:
    result = register(case.moving, case.images, case.truth, targets={"facet": case.target}, options=Options(
        levels=(LevelOptions(6.0, 4, 2, 1),), search=False, threads=1, check_part=False, checks=False))
    unknown = dataclasses.replace(result, covariance=np.diag([np.inf] * 6)).target_error({"facet": case.target})[0]
    assert unknown.predicted_error_mm == np.inf
    assert unknown.depth_mm == (np.inf, np.inf)
