"""One bone on its own: shells, their derivative, and a case where the surroundings moved."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.anatomy.attenuation import AttenuationVolume, attenuation_from_hu
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.phantom import LumbarPhantom
from FluoroGuideLib.evaluation.simulate import SimulationOptions, move_surroundings, simulate_view
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration import parts
from FluoroGuideLib.registration.bodies import BodiesLevel, PartLevel, bodies_level
from FluoroGuideLib.registration.checks import bone_shares
from FluoroGuideLib.registration.parts import Part, PartOptions, _Candidate, _elsewhere, label_distance
from FluoroGuideLib.registration.register import MovingVolume, Options, register
from FluoroGuideLib.registration.search import start_at_isocenter
from FluoroGuideLib.registration.similarity import Level

L3 = 4  # label of L3 in LumbarPhantom.labels()


class Moved:
    """A phantom whose surroundings moved 8 mm against L3, in two views that another projector made."""

    def __init__(self) -> None:
        phantom = LumbarPhantom(seed=2)
        hu, (labels, names) = phantom.voxelize(2.0), phantom.labels(2.0)
        assert names[L3] == "L3"
        self.hu, self.labels = hu, labels
        plain = attenuation_from_hu(hu)
        self.moving = MovingVolume(AttenuationVolume(plain.image, plain.modality, "phantom", labels, names))
        self.target = phantom.landmarks["L3 body target left"]
        self.truth = rigid.perturb(start_at_isocenter(self.target), [0.05, -0.03, 0.06, 3.0, -4.0, 2.0], np.zeros(3))
        moved, _ = move_surroundings(hu, sitk.Cast(labels == L3, sitk.sitkUInt8), np.random.default_rng(3), 8.0)
        self.images = []
        for n, angles in enumerate(((0.0, 0.0), (60.0, 0.0))):
            view = CArmView.from_angles(*angles, sid_mm=1050, sod_mm=700, rows=160, columns=160, pixel_spacing_mm=(1.75, 1.75))
            options = SimulationOptions.preset("clean", projector="march", gray="LOG")
            image = simulate_view(moved, view, self.truth, options=options, rng=n)
            self.images.append(XrayImage(-image.frames[0].astype(np.float32), image.mask, view, "moved"))
        self.points = self.target + np.random.default_rng(0).normal(0, 10, (20, 3))

    def mtre(self, pose: np.ndarray) -> float:
        return float(np.linalg.norm(rigid.apply(pose, self.points) - rigid.apply(self.truth, self.points), axis=1).mean())


@pytest.fixture(scope="module")
def moved() -> Moved:
    return Moved()


def test_the_part_is_found_where_the_whole_volume_fails(moved: Moved) -> None:
    whole = register(moved.moving, moved.images, targets={"body": moved.target}, options=Options(threads=1))
    part = register(moved.moving, moved.images, targets={"body": moved.target}, options=Options(threads=1), part=L3)
    assert moved.mtre(whole.pose) > 2.0
    assert whole.verdict != "pass"
    assert any("register it on its own" in r for r in whole.reasons)
    assert moved.mtre(part.pose) < 1.5
    assert part.facts["part"] == "L3"
    assert part.facts["moved_against_surroundings_mm"] > 2.0
    assert any("moved against its surroundings" in r for r in part.reasons)
    assert np.isfinite(part.covariance).all()


def test_shells_add_up_to_the_volume(moved: Moved) -> None:
    part = Part(moved.moving, label_distance(moved.labels, [L3]), moved.target)
    view = moved.images[0].view.resampled(48, 48)
    shells = [p.project(view, moved.truth) for p in part.projectors(3.0)[:-1]] + [part.projectors(1.5)[-1].project(view, moved.truth)]
    whole = moved.moving.projector(1.5).project(view, moved.truth)
    assert np.sqrt(((sum(shells) - whole) ** 2).mean() / (whole**2).mean()) < 0.01
    assert max(s.max() for s in shells[:-1]) > 0.1


def test_only_the_bones_own_shell_is_made_again_for_a_finer_level(moved: Moved) -> None:
    part = Part(moved.moving, label_distance(moved.labels, [L3]), moved.target)
    coarse, fine = part.projectors(3.0), part.projectors(1.0)
    assert coarse[0] is not fine[0]
    assert coarse[1:] == fine[1:]
    assert fine[-1].whole is moved.moving.projector(2.0)  # the phantom's voxels: the surroundings need no copy of the volume of their own


def test_candidates_at_one_place_are_one_however_they_are_turned() -> None:
    """A bone left among its surroundings finds many tilted poses near one place, which must not crowd out another place."""
    center = np.array([5.0, -3.0, 8.0])

    def candidate(turn: float, x_mm: float, explained: float) -> _Candidate:
        pose = rigid.perturb(np.eye(4), [turn, 0, 0, x_mm, 0, 0], center)
        return _Candidate((pose, pose), None, (explained,))

    pool = [candidate(0.0, 0.0, 0.2), candidate(0.2, 1.0, 0.19), candidate(-0.2, 0.0, 0.15), candidate(0.0, 12.0, 0.1), candidate(0.0, 24.0, 0.04)]
    kept = _elsewhere(pool, center, PartOptions())
    assert [k.explained for k in kept] == [0.2, 0.1]  # 24 mm away, but its bone explains only a fifth of what the best one's does


def level_at_truth(moved: Moved, spec: PartLevel) -> tuple[BodiesLevel, np.ndarray]:
    """A level of L3 that looks where it is, and its centre."""
    part = Part(moved.moving, label_distance(moved.labels, [L3]), moved.target)
    center = rigid.apply(moved.truth, moved.target)
    pictures = Level(part.projectors(spec.pixel_mm)[0], moved.images, center, spec.pixel_mm, spec.radius)
    return BodiesLevel(part, pictures, spec, moved.truth, center), center


def test_a_bone_that_leaves_the_pictures_on_the_way_is_in_none(moved: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the border a fine level may see none of what a coarse one saw: no pose of its own then, and no traceback."""
    made = parts.bodies_level

    def seen_coarsely(part: Part, images: list, spec: PartLevel, *rest: object) -> BodiesLevel:
        level = made(part, images, spec, *rest)
        level.views = level.views if spec.pixel_mm > 1 else []
        return level

    monkeypatch.setattr(parts, "bodies_level", seen_coarsely)
    part = Part(moved.moving, label_distance(moved.labels, [L3]), moved.target)
    options = PartOptions(levels=(PartLevel(3.0, 2, 1.0, 6.0, 1, 2), PartLevel(1.0, 3, 0.7, 4.0, 1, 1)), candidates=2, first=1)
    assert parts.register_part(part, moved.images, moved.truth, options) is None


def test_a_long_bone_is_looked_at_about_its_centre(moved: Moved) -> None:
    level, center = level_at_truth(moved, PartLevel(2.0, 3, 1.0, 6.0, 1, 1, 20.0))
    for view in level.views:
        column, row = view.view.project(center)[0]
        r, c = np.nonzero(view.weight)
        assert 5.0 < np.hypot(r - row, c - column).max() <= 10.0  # 20 mm are 10 pixels


def test_derivatives_of_both_poses_agree_with_differences(moved: Moved) -> None:
    level, center = level_at_truth(moved, PartLevel(3.0, 4, 1.0, 20.0, 1, 1))
    poses = (moved.truth, rigid.perturb(moved.truth, [0.01, 0.02, -0.01, 2, -1, 3], center))
    gradient = level.evaluate(poses).gradient
    for p in (1, 3, 4, 5, 8, 9, 10, 11):
        step = np.eye(12)[p] * (2e-3 if p % 6 < 3 else 0.2)
        slope = (level.evaluate(level.move(poses, step), False).cost - level.evaluate(level.move(poses, -step), False).cost) / (2 * step[p])
        # the equations weight residuals by half of the cost's derivative: d(k2 log(1 + r2/k2)) = 2 r dr / (1 + r2/k2)
        assert 2 * gradient[p] == pytest.approx(slope, rel=0.15, abs=0.1 * np.abs(gradient[3:6]).max()), p


def test_a_bone_that_is_elsewhere_is_missing_its_own_shadow(moved: Moved) -> None:
    """The surroundings moved 8 mm: with the bone left behind among them everything but the bone fits."""
    level, center = level_at_truth(moved, PartLevel(2.0, 3, 1.0, 6.0, 1, 1))
    there, away = (rigid.perturb(moved.truth, np.r_[0, 0, 0, shift], center) for shift in (np.zeros(3), [6.0, -3.0, 6.0]))
    right, wrong = min(bone_shares(level, (there, moved.truth))), min(bone_shares(level, (away, moved.truth)))
    assert right > 0.82 > wrong


def test_a_bone_explains_most_where_it_is(moved: Moved) -> None:
    """The squared partial correlation, against one from two regressions; it falls where the bone is elsewhere, and a wrong sign explains nothing."""
    level, center = level_at_truth(moved, PartLevel(2.0, 3, 1.0, 6.0, 1, 1))
    there, away = (rigid.perturb(moved.truth, np.r_[0, 0, 0, shift], center) for shift in (np.zeros(3), [6.0, -3.0, 6.0]))
    right, wrong = (np.mean(level.at(p).explained((p, moved.truth))) for p in (there, away))
    assert 0.05 < right < 1.0
    assert wrong < 0.5 * right
    expected = []
    for view in level.at(there).views:
        pictures = [p.project(view.view, moved.truth) for p in level.projectors]
        total, inverse_std, _ = view.normalize(np.sum(pictures, axis=0))
        mean = np.empty_like(total)
        level.kernels.box_sum(np.ascontiguousarray(pictures[0] * view.mask), view.radius, mean)
        bone = (pictures[0] - mean * view.inverse_count) * inverse_std
        votes = view.weight > 0
        y, x, rest = view.fixed[votes], bone[votes], (total - bone)[votes]
        left = [np.linalg.lstsq(a, y, rcond=None)[1][0] for a in (rest[:, None].astype(float), np.stack([rest, x], -1).astype(float))]
        expected.append(1 - left[1] / left[0])
    assert right == pytest.approx(np.mean(expected), rel=0.02)
    for view in level.views:
        view.fixed = -view.fixed
    assert level.explained((there, moved.truth)) == (0.0, 0.0)


def test_pictures_that_were_made_before_are_those_made_anew(moved: Moved) -> None:
    """What a bone explains is read from the step that went there, and where it is looked for from the level's own pictures."""
    level, center = level_at_truth(moved, PartLevel(2.0, 3, 1.0, 6.0, 1, 1))
    other = rigid.perturb(moved.truth, [0.01, 0.02, -0.01, 2, -1, 1], center)
    part = Part(moved.moving, label_distance(moved.labels, [L3]), moved.target)
    whole = Level(part.projectors(2.0)[0], moved.images, center, 2.0, 3)
    level = BodiesLevel(part, whole, PartLevel(2.0, 3, 1.0, 6.0, 1, 1), [moved.truth, other], center)
    kept = level.at(other)
    poses = (other, moved.truth)
    kept.evaluate(poses)
    for n in range(3):  # steps that were tried and given up
        kept.evaluate(kept.move(poses, np.eye(12)[3 + n]))
    made = level.projectors[0].count
    explained = kept.explained(poses)
    assert level.projectors[0].count == made
    level._bone_seen = {id(view): [] for view in level.views}
    anew = level.at(other)
    assert level.projectors[0].count > made
    for a, b in zip(kept.views, anew.views, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.mask, b.mask)
    assert explained == pytest.approx(anew.explained(poses), abs=1e-5)
    assert min(explained) > 0.03


def test_a_bone_explains_nothing_in_a_picture_that_it_left(moved: Moved) -> None:
    """150 mm towards the first view's source the bone is still in that picture, and in the second no more: half of what the first says of it."""
    spec, center = PartLevel(2.0, 3, 1.0, 6.0, 1, 1), rigid.apply(moved.truth, moved.target)
    toward = moved.images[0].view.source_mm - center
    left = rigid.perturb(moved.truth, np.r_[0, 0, 0, 150 * toward / np.linalg.norm(toward)], center)
    part = Part(moved.moving, label_distance(moved.labels, [L3]), moved.target)
    both, first = (bodies_level(part, images, spec, [moved.truth, left], center) for images in (moved.images, moved.images[:1]))
    assert [len(level.at(left).views) for level in (both, first)] == [1, 1]
    (alone,) = first.at(left).explained((left, moved.truth))
    assert both.at(left).explained((left, moved.truth)) == pytest.approx((alone, 0.0), rel=1e-6)
    assert alone > 0.005
    # where no candidate is in the second picture, the first alone compares them
    assert bodies_level(part, moved.images, spec, left, center).at(left).explained((left, moved.truth)) == pytest.approx((alone,), rel=0.02)


def test_wrong_parts_are_named(moved: Moved) -> None:
    with pytest.raises(FluoroGuideError, match="label is not in"):
        register(moved.moving, moved.images, targets={"body": moved.target}, part=77)
    bare = MovingVolume(attenuation_from_hu(moved.hu))
    with pytest.raises(FluoroGuideError, match="no label image"):
        register(bare, moved.images, targets={"body": moved.target}, part=L3)
