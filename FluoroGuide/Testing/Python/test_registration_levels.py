"""A spine that bent between CT and fluoroscopy: every level is found where it is, and held by its neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.anatomy.attenuation import AttenuationVolume, attenuation_from_hu
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.bending import bend_spine
from FluoroGuideLib.evaluation.phantom import LumbarPhantom
from FluoroGuideLib.evaluation.simulate import SimulationOptions, simulate_view
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.bodies import PartLevel
from FluoroGuideLib.registration.levels import Flexibility, _with_priors, register_levels
from FluoroGuideLib.registration.parts import PartOptions
from FluoroGuideLib.registration.prior import PosePrior
from FluoroGuideLib.registration.register import MovingVolume, Options
from FluoroGuideLib.registration.search import start_at_isocenter
from FluoroGuideLib.registration.similarity import Evaluation

L2, L3, L4 = 3, 4, 5
DEGREES = 4.0
COARSE = PartOptions(levels=(PartLevel(2.0, 3, 1.0, 6.0, 8, 1),), candidates=4)


class Bent:
    """The phantom bent by 4 degrees at each level, in two views of another projector."""

    def __init__(self) -> None:
        phantom = LumbarPhantom(seed=2)
        hu, (self.labels, names) = phantom.voxelize(2.5), phantom.labels(2.5)
        self.hu, self.order = hu, [n for n, name in names.items() if name in ("L2", "L3", "L4")]
        plain = attenuation_from_hu(hu)
        self.moving = MovingVolume(AttenuationVolume(plain.image, plain.modality, "phantom", self.labels, names))
        self.targets = {name: phantom.landmarks[f"{name} body"] for name in ("L3", "L4")}
        self.truth = rigid.perturb(start_at_isocenter(self.targets["L3"]), [0.05, -0.03, 0.06, 3.0, -4.0, 2.0], np.zeros(3))
        self.bent, self.motions = bend_spine(hu, self.labels, self.order, [DEGREES] * 2, (0.6, 0.8, 0.0), fixed=1)
        self.images = []
        for n, angles in enumerate(((0.0, 0.0), (60.0, 0.0))):
            view = CArmView.from_angles(*angles, sid_mm=1050, sod_mm=700, rows=160, columns=160, pixel_spacing_mm=(1.75, 1.75))
            image = simulate_view(self.bent, view, self.truth, options=SimulationOptions.preset("clean", projector="march", gray="LOG"), rng=n)
            self.images.append(XrayImage(-image.frames[0].astype(np.float32), image.mask, view, "bent"))

    def error(self, pose: np.ndarray, label: int, name: str) -> float:
        """Mean distance over points of the vertebra."""
        points = self.targets[name] + np.random.default_rng(0).normal(0, 10, (20, 3))
        return float(np.linalg.norm(rigid.apply(pose, points) - rigid.apply(self.truth @ self.motions[label], points), axis=1).mean())


@pytest.fixture(scope="module")
def bent() -> Bent:
    return Bent()


def test_the_simulated_bend_is_rigid_within_bones_and_turns_by_the_angle(bent: Bent) -> None:
    import SimpleITK as sitk

    way = rigid.difference(bent.motions[L3], bent.motions[L4], np.zeros(3))
    assert np.degrees(np.linalg.norm(way[:3])) == pytest.approx(DEGREES)
    np.testing.assert_allclose(bent.motions[L3], np.eye(4), atol=1e-12)
    # the bent CT, looked up where a motion takes points of L4, is like the CT there: most for the whole motion, less for half or none of it
    inside = np.argwhere(sitk.GetArrayFromImage(bent.labels) == L4)[::3, ::-1].astype(float)
    points = np.array([bent.labels.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in inside])
    middle = points.mean(0)
    xi = rigid.difference(np.eye(4), bent.motions[L4], middle)

    def alike(share: float) -> float:
        there = rigid.apply(rigid.perturb(np.eye(4), share * xi, middle), points)
        values = [[image.EvaluateAtPhysicalPoint(p.tolist(), sitk.sitkLinear) for p in at] for image, at in ((bent.hu, points), (bent.bent, there))]
        return float(np.corrcoef(values)[0, 1])

    assert alike(1.0) > alike(0.5) > alike(0.0)
    assert alike(1.0) > alike(1.5)


def test_each_level_is_found_where_the_whole_volume_is_wrong(bent: Bent) -> None:
    result = register_levels(bent.moving, bent.images, [L3, L4], targets=bent.targets, options=Options(threads=1), part_options=COARSE)
    assert list(result.levels) == ["L3", "L4"]
    for label, (name, found) in zip((L3, L4), result.levels.items(), strict=True):
        assert bent.error(found.pose, label, name) < 0.6 < 0.8 * bent.error(result.whole.pose, label, name), name
    rows = result.to_dict()["levels"]
    assert "against_level_before" not in rows[0]
    for row in rows[1:]:
        assert 1.5 < row["against_level_before"]["turned_deg"] < DEGREES + 1  # at this resolution the tissue between holds it back
    assert result.verdict in ("pass", "warn", "fail")


def test_the_prior_is_about_the_point_between_and_counts_in_all_terms() -> None:
    """By hand: a shift of 2 mm at 4 mm sigma and weight 0.5 costs 0.5 (2 / 4)^2."""
    prior = PosePrior.around(np.eye(4), np.zeros(3), rotation_deg=4.0, translation_mm=4.0, weight=0.5)
    pose = rigid.motion([0, 0, 0, 2.0, 0, 0], np.zeros(3))
    plain = Evaluation(1.0, 2.0, np.eye(12), np.zeros(12), (0.5,))
    found = _with_priors(plain, (pose, np.eye(4)), np.array([5.0, 6.0, 7.0]), [prior, prior])
    assert found.cost == pytest.approx(1.0 + 2 * 0.125)
    assert found.rank == pytest.approx(2.0 + 2 * 0.125)
    assert found.gradient[3] == pytest.approx(2 * 0.5 * 2.0 / 16)
    np.testing.assert_array_equal(found.gradient[6:], 0)
    assert found.hessian[3, 3] == pytest.approx(1 + 2 * 0.5 / 16)
    np.testing.assert_array_equal(plain.hessian, np.eye(12))


def test_bad_input_is_one_sentence(bent: Bent) -> None:
    with pytest.raises(FluoroGuideError, match="not in the label image"):
        register_levels(bent.moving, bent.images, [L3, 99])
    with pytest.raises(FluoroGuideError, match="No bone"):
        register_levels(bent.moving, bent.images, [])
    with pytest.raises(FluoroGuideError, match="need a label image"):
        register_levels(attenuation_from_hu(bent.hu), bent.images, [L3])
    with pytest.raises(FluoroGuideError, match="positive"):
        Flexibility(rotation_deg=0)
    with pytest.raises(FluoroGuideError, match="one angle for each gap"):
        bend_spine(bent.hu, bent.labels, [L3, L4], [1.0, 2.0])
