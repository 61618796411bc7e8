"""Tracking against the phantom's closed-form X-rays: accuracy, what counts as lost, and that a long session stays cheap."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.cbct import cropped
from FluoroGuideLib.evaluation.phantom import LumbarPhantom
from FluoroGuideLib.evaluation.protocol import mrpd, mtre
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.search import start_at_isocenter
from FluoroGuideLib.registration.tracking import SINGLE, Stage, Tracker, TrackerOptions
from FluoroGuideLib.registration.volume import MovingVolume


class Scene:
    """A phantom and two views; frames at any pose, each with its own noise and other grey values than the CT."""

    def __init__(self) -> None:
        self.phantom = LumbarPhantom(seed=4)
        self.ct = self.phantom.voxelize(1.5)
        self.moving = MovingVolume(attenuation_from_hu(self.ct))
        self.target = self.phantom.landmarks["L4/L5 facet joint left"]
        self.pose = rigid.perturb(start_at_isocenter(self.target), [0.06, -0.04, 0.08, 4.0, -6.0, 3.0], np.zeros(3))
        self.points = self.target + np.random.default_rng(0).normal(0, 15, (20, 3))
        geometry = {"sid_mm": 1050, "sod_mm": 700, "rows": 192, "columns": 192, "pixel_spacing_mm": (1.5, 1.5)}
        self.views = [CArmView.from_angles(*angles, **geometry) for angles in ((0.0, 0.0), (80.0, 5.0))]
        self.images = self.frame(self.pose, 0)

    def frame(self, pose: np.ndarray, seed: int, views: list[CArmView] | None = None) -> list[XrayImage]:
        rng, result = np.random.default_rng(seed), []
        for view in views or self.views:
            lines = self.phantom.line_integrals(view, pose)
            pixels = 0.9 * lines["soft"] + 1.4 * lines["bone"] + rng.normal(0, 0.02, (view.rows, view.columns))
            result.append(XrayImage(pixels.astype(np.float32), np.ones(pixels.shape, bool), view, "phantom"))
        return result

    def moved(self, mm: np.ndarray, degrees: float = 0.0) -> np.ndarray:
        return rigid.perturb(self.pose, np.r_[np.radians([degrees, 0, 0]), mm], rigid.apply(self.pose, self.target))

    def tracker(self, views: int = 2, **options: object) -> Tracker:
        return Tracker(self.moving, self.images[:views], self.pose, self.target, TrackerOptions(**options))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("mm", [(3.0, 0, 0), (0, -2.1, 2.1), (-1.7, 1.7, -1.7)])
def test_two_views_from_3_mm_and_1_5_degrees(scene: Scene, mm: tuple) -> None:
    truth = scene.moved(mm, 1.5)
    result = scene.tracker().update(scene.frame(truth, 1))
    assert result.state == "ok"
    assert mtre(scene.pose, truth, scene.points) > 2.5
    assert mtre(result.pose, truth, scene.points) < 0.5
    np.testing.assert_allclose(result.shift_mm, mm, atol=0.5)
    assert min(result.similarity) > 0.5


def test_one_view_follows_in_its_plane_and_claims_no_depth(scene: Scene) -> None:
    """AP looks along -y: of the motion (2, 2, -2) mm the picture shows x and z."""
    truth = scene.moved((2.0, 2.0, -2.0), 1.0)
    result = scene.tracker(1).update(scene.frame(truth, 2, scene.views[:1]))
    assert mrpd(result.pose, truth, scene.points, scene.views[0]) < 0.4
    np.testing.assert_allclose(result.shift_mm[[0, 2]], (2.0, -2.0), atol=0.4)
    ray = rigid.apply(result.pose, scene.target) - scene.views[0].source_mm
    assert abs(result.shift_mm @ ray) < 1e-9 * np.linalg.norm(ray)


def test_a_path_is_followed_without_drift(scene: Scene) -> None:
    tracker = scene.tracker()
    for step in range(1, 5):
        truth = scene.moved((2.0 * step, 0, -1.5 * step), 0.5 * step)
        result = tracker.update(scene.frame(truth, step))
        assert result.state == "ok"
    assert mtre(result.pose, truth, scene.points) < 0.4
    for _ in range(5):
        result = tracker.update(scene.frame(truth, 6))
    assert mtre(result.pose, truth, scene.points) < 0.4


def test_beam_off_is_lost_keeps_the_pose_and_is_found_again(scene: Scene) -> None:
    tracker = scene.tracker()
    good = tracker.update(scene.images)
    for blank in (np.zeros((192, 192), np.float32), np.full((192, 192), np.nan, np.float32)):
        result = tracker.update([blank, blank])
        assert result.state == "lost"
        np.testing.assert_array_equal(result.pose, good.pose)
    assert tracker.update(scene.images).state == "reacquired"
    assert tracker.update(scene.images).state == "ok"


def test_a_jump_is_not_believed_at_once_and_found_again_by_search(scene: Scene) -> None:
    tracker, truth = scene.tracker(), scene.moved((16.0, 0.0, -10.0))
    frame = scene.frame(truth, 3)
    assert tracker.update(frame).state == "lost"
    result = tracker.update(frame)
    assert result.state == "reacquired"
    result = tracker.update(frame)
    assert result.state == "ok"
    assert mtre(result.pose, truth, scene.points) < 0.5


@pytest.mark.parametrize("views", [1, 2])
def test_another_picture_is_lost_and_stays_lost(scene: Scene, views: int) -> None:
    """Upside down it is no anatomy that the volume could explain; neither is noise."""
    noise = [np.random.default_rng(i).normal(size=(192, 192)).astype(np.float32) for i in range(2)]
    for pictures in ([x.pixels[::-1] for x in scene.images], noise):
        tracker = scene.tracker(views)
        results = [tracker.update(pictures[:views]) for _ in range(4)]
        assert {r.state for r in results} == {"lost"}
        np.testing.assert_allclose(results[-1].pose, scene.pose, atol=1e-12)


def test_a_moved_carm_or_collimator_is_taken_over(scene: Scene) -> None:
    tracker = scene.tracker()
    other = [scene.views[0], CArmView.from_angles(60, -5, sid_mm=1050, sod_mm=700, rows=192, columns=192, pixel_spacing_mm=(1.5, 1.5))]
    truth = scene.moved((2.0, 1.0, 0.0))
    images = scene.frame(truth, 5, other)
    images[0].mask[:, :60] = False  # new shutter
    images[0].pixels[:, :60] = 9.0
    result = tracker.update(images)
    assert result.state == "ok"
    assert mtre(result.pose, truth, scene.points) < 0.5


def test_pixels_alone_give_the_same_as_xrays(scene: Scene) -> None:
    frame = scene.frame(scene.moved((1.0, 0, 0)), 6)
    a, b = scene.tracker().update(frame), scene.tracker().update([x.pixels for x in frame])
    np.testing.assert_array_equal(a.pose, b.pose)
    assert a.similarity == b.similarity


def test_work_per_frame_is_bounded_and_nothing_grows(scene: Scene) -> None:
    tracker = scene.tracker(1)
    tracker.update(scene.images[:1])
    before = scene.moving.projections
    tracker.update(scene.images[:1])
    assert scene.moving.projections - before == sum(s.steps for s in SINGLE)
    tracemalloc.start()
    for _ in range(5):
        tracker.update(scene.images[:1])
    first = tracemalloc.get_traced_memory()[0]
    for _ in range(60):
        tracker.update(scene.images[:1])
    assert tracemalloc.get_traced_memory()[0] - first < 100_000  # one small crop kept per frame would be ten times that
    tracemalloc.stop()


def test_small_region_and_large_frames_use_the_pixels_asked_for(scene: Scene) -> None:
    """At 4 and 2 mm the phantom's 192 pixels of 1 mm become blocks of 4 and 2; the region is about 2 x 40 mm wide."""
    tracker = scene.tracker(1, stages=(Stage(4.0, 4, 1, 100.0), Stage(2.0, 5, 1, 100.0)), region_mm=40.0)
    for layer in tracker._layers:
        view = layer.level.views[0].view
        size = view.mm_per_pixel_at(rigid.apply(scene.pose, scene.target))
        assert size == pytest.approx(layer.stage.pixel_mm, rel=0.1)
        assert view.columns * size == pytest.approx(80, abs=6)
        middle = view.project(rigid.apply(scene.pose, scene.target))[0]
        np.testing.assert_allclose(middle, [view.columns / 2, view.rows / 2], atol=2)
    truth = scene.moved((1.0, 0, 1.0))
    assert mrpd(tracker.update(scene.frame(truth, 7)[:1]).pose, truth, scene.points, scene.views[0]) < 0.6


def test_bad_input_is_one_sentence(scene: Scene) -> None:
    tracker = scene.tracker()
    with pytest.raises(FluoroGuideError, match="another number of views"):
        tracker.update(scene.images[:1])
    with pytest.raises(FluoroGuideError, match="another size"):
        tracker.update([np.zeros((10, 10)), np.zeros((10, 10))])
    with pytest.raises(FluoroGuideError, match="no X-ray view"):
        Tracker(scene.moving, [], scene.pose, scene.target)
    with pytest.raises(FluoroGuideError, match="Centre the target"):
        Tracker(scene.moving, scene.images, scene.moved((300.0, 0, 0)), scene.target)


@pytest.fixture(scope="module")
def thin_scan(scene: Scene) -> MovingVolume:
    """The scan of the phantom, only 56 mm high: seen from the front its rays stay within it, 30 degrees tilted none near the target does."""
    return MovingVolume(attenuation_from_hu(cropped(scene.ct, scene.target, [np.inf, np.inf, 28.0])))


def _tilted(scene: Scene) -> CArmView:
    return CArmView.from_angles(80.0, 30.0, sid_mm=1050, sod_mm=700, rows=192, columns=192, pixel_spacing_mm=(1.5, 1.5))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_view_without_votes_says_nothing_and_no_depth_is_claimed(scene: Scene, thin_scan: MovingVolume, order: tuple) -> None:
    """The front view alone follows: of (2, 2, -2) mm it shows x and z; the tilted one is neither a witness nor a reason for lost."""
    pair = [scene.views[0], _tilted(scene)]
    views, front = [pair[n] for n in order], order.index(0)
    truth = scene.moved((2.0, 2.0, -2.0), 1.0)
    tracker = Tracker(thin_scan, scene.frame(scene.pose, 0, views), scene.pose, scene.target)
    for _ in range(2):
        result = tracker.update(scene.frame(truth, 2, views))
        assert result.state == "ok"
    assert result.seen == (front == 0, front == 1)
    assert np.isnan(result.similarity[1 - front])
    assert result.similarity[front] > 0.5
    assert mrpd(result.pose, truth, scene.points, scene.views[0]) < 0.5
    assert result.in_plane_only
    ray = rigid.apply(result.pose, scene.target) - scene.views[0].source_mm
    assert abs(result.shift_mm @ ray) < 1e-9 * np.linalg.norm(ray)
    np.testing.assert_allclose(result.shift_mm[[0, 2]], (2.0, -2.0), atol=0.4)
    said = " ".join(f.sentence for f in result.findings)
    assert [f.kind for f in result.findings] == ["silent view", "in-plane"]
    assert f"View {2 - front} says nothing" in said
    assert "depth" in said


def test_a_lost_target_is_found_again_beside_a_view_without_votes(scene: Scene, thin_scan: MovingVolume) -> None:
    views = [scene.views[0], _tilted(scene)]
    images = scene.frame(scene.pose, 0, views)
    tracker = Tracker(thin_scan, images, scene.pose, scene.target)
    noise = np.random.default_rng(1).normal(size=(192, 192)).astype(np.float32)
    assert tracker.update([noise, images[1].pixels]).state == "lost"  # the one that sees decides
    assert tracker.update(images).state == "reacquired"
    assert tracker.update([images[0].pixels, noise]).state == "ok"


def test_where_no_view_votes_the_target_is_lost(scene: Scene, thin_scan: MovingVolume) -> None:
    images = scene.frame(scene.pose, 0, [_tilted(scene)] * 2)
    result = Tracker(thin_scan, images, scene.pose, scene.target).update(images)
    assert result.state == "lost"
    assert not any(result.seen)
    np.testing.assert_array_equal(result.shift_mm, 0.0)
    assert {f.level for f in result.findings} == {"fail"}


def test_two_views_that_see_claim_their_depth_and_say_nothing_more(scene: Scene) -> None:
    result = scene.tracker().update(scene.images)
    assert (result.seen, result.in_plane_only, result.findings) == ((True, True), False, ())
    single = scene.tracker(1).update(scene.images[:1])
    assert single.in_plane_only
    assert [f.kind for f in single.findings] == ["in-plane"]
