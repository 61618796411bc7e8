"""The bone's own step of MR to CBCT, the field of a CBCT, discs between labelled bodies, and the CT-like volume made of a lumbar MR."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from FluoroGuideLib.anatomy.mr import DISC, SOFT, WATER, attenuation_from_mr, with_labels
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.lumbar_mr import LEVELS, ct_like
from FluoroGuideLib.geometry.rigid import apply, perturb
from FluoroGuideLib.registration.correlation_ratio import Sampler, _equations, refine, region
from FluoroGuideLib.registration.through_cbct import known_field


def _image(values, spacing=1.0):
    image = sitk.GetImageFromArray(np.asarray(values, np.float32))
    image.SetSpacing([spacing] * 3)
    return image


@pytest.fixture(scope="module")
def pair():
    """Sampler of an MR that is a cosine of a CBCT's texture, the CBCT's voxels, a smooth MR; the true pose is the identity."""
    rng = np.random.default_rng(0)
    texture = gaussian_filter(rng.normal(size=(44, 44, 44)), 2.0)
    texture /= texture.std()
    weight = np.zeros(texture.shape)
    weight[10:34, 10:34, 10:34] = 1
    mr = np.cos(1.5 * texture) + 0.05 * rng.normal(size=texture.shape)
    voxels = region(_image(texture), _image(gaussian_filter(texture, 3)), _image(weight))
    return Sampler(_image(mr)), voxels, Sampler(_image(gaussian_filter(mr, 2.0)))


CENTER = np.full(3, 22.0)


def test_the_bone_is_found_whatever_its_contrast(pair):
    start = perturb(np.eye(4), np.r_[np.radians([2.0, -1.5, 1.0]), 0.8, -0.6, 0.5], CENTER)
    found = refine(*pair[:2], start, CENTER, 20)
    corners = CENTER + 10 * np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1]])
    assert np.abs(apply(found.matrix, corners) - corners).max() < 0.1  # a tenth of a voxel
    assert found.unexplained < 0.05
    # what the equations say of the error: less than the voxel, more than nothing
    assert 1e-4 < np.sqrt(np.trace(found.point_covariance(CENTER, CENTER))) < 0.1


def test_where_nothing_votes_there_is_no_voxel():
    nothing = _image(np.zeros((4, 4, 4)))
    assert len(region(nothing, nothing, nothing).weight) == 0


def test_the_derivative_is_that_of_the_cost(pair, monkeypatch):
    """Central differences, without the robust weights, which change with the pose; the MR's slopes are those of central differences too."""
    monkeypatch.setattr("FluoroGuideLib.registration.correlation_ratio.CAUCHY", 1e6)
    pose = perturb(np.eye(4), np.r_[0.09, -0.08, 0.07, 0.45, -0.3, 0.42], CENTER)
    _, voxels, smooth = pair
    gradient = _equations(smooth, voxels, pose, CENTER)[1]
    for n, step in enumerate((1e-3, 1e-3, 1e-3, 2e-2, 2e-2, 2e-2)):
        costs = [_equations(smooth, voxels, perturb(pose, sign * step * np.eye(6)[n], CENTER), CENTER)[0] for sign in (1, -1)]
        assert (costs[0] - costs[1]) / (2 * step) == pytest.approx(gradient[n], rel=0.15, abs=0.02 * np.abs(gradient).max())


def test_what_lies_outside_a_round_field_does_not_vote():
    j, i = np.indices((60, 60)) - 29.5
    hu = np.full((20, 60, 60), -1000.0)
    hu[:, np.hypot(i, j) < 29.5] = 40.0
    field = known_field(_image(hu, 3.0))
    known = sitk.GetArrayFromImage(field)[10]
    assert known[30, 30]
    assert not known[0, 0]
    edge = known[30, 30:].sum() * 3.0  # mm from the axis to the last voxel that votes
    assert 88.5 - 4.0 - 6.0 <= edge <= 88.5 - 4.0 + 3.0
    hu[:, np.hypot(i, 1.4 * j) >= 24] = -1000.0  # skin within the field: the air around it is known
    assert sitk.GetArrayFromImage(known_field(_image(hu, 3.0))).all()
    assert sitk.GetArrayFromImage(known_field(_image(np.zeros((20, 20, 20)), 3.0))).all()


@pytest.fixture(scope="module")
def spine():
    """MR of a slab of 72 mm with six bodies 40 mm apart in it; dark layers (endplates, annulus) lie between them."""
    z, y, x = np.indices((130, 60, 36)) * 2.0
    mr = np.where((y > 12) & (y < 110), 300.0, 0.0)
    labels = np.zeros(mr.shape, np.uint8)
    inside = (np.abs(x - 36) < 20) & (np.abs(y - 60) < 16)
    for n in range(6):
        labels[inside & (np.abs(z - 30 - 40 * n) <= 14)] = n + 1
    mr[inside & (labels == 0) & (z > 30) & (z < 230)] = 30.0
    mr += np.random.default_rng(1).normal(0, 4, mr.shape) ** 2
    return _image(mr, 2.0), sitk.Cast(_image(labels, 2.0), sitk.sitkUInt8)


def test_a_dark_disc_between_labelled_bodies_is_no_cortex(spine):
    image, labels = spine
    with_bodies = with_labels(attenuation_from_mr(image, "T2", grid_mm=2.0), labels)
    disc, marrow = (with_bodies.image.TransformPhysicalPointToIndex((36.0, 60.0, z)) for z in (130.0, 110.0))
    assert with_bodies.image[disc] <= DISC * 1.001
    assert with_bodies.image[marrow] > 1.1 * WATER


def test_no_bone_in_front_of_labelled_vertebrae_however_thick_the_slices(spine):
    """A dark vessel wall in front of the bodies, which lie from z = 16 to 244 mm and begin at y = 46; slices of 8 mm."""
    image, labels = spine
    values = sitk.GetArrayFromImage(image)
    values[:, 15, 8:28], values[:, 52, 8:28] = 10.0, 10.0  # y = 30 in front, y = 104 behind
    walls = sitk.GetImageFromArray(values)
    walls.CopyInformation(image)
    thick = [sitk.BinShrink(walls, [1, 1, 4]), sitk.Shrink(labels, [1, 1, 4])]
    assert max(sitk.GetArrayFromImage(thick[1]).flat) == 6
    found = with_labels(attenuation_from_mr(thick[0], "T2", grid_mm=2.0), thick[1]).image
    index = found.TransformPhysicalPointToIndex((36.0, 30.0, 110.0))
    assert max(found[index[0], j, index[2]] for j in range(index[1] - 2, index[1] + 3)) <= SOFT * 1.001


def test_a_ct_like_volume_of_a_labelled_spine(spine):
    image, labels = spine
    ct, values, centers = ct_like(image, labels, np.random.default_rng(2), spacing_mm=3.0)
    assert list(values) == list(reversed(LEVELS))
    assert centers["L5"] == pytest.approx((36.0, 60.0, 30.0), abs=1.1)

    def at(x, y, z):
        return ct[ct.TransformPhysicalPointToIndex((float(x), float(y), float(z)))]

    assert at(36, 60, 110) == pytest.approx(180.0, abs=5.0)  # the middle of L3
    assert at(36, 60, 130) == pytest.approx(80.0, abs=25.0)  # the disc above it
    assert at(36 + 130, 14, 110) < -900  # beside the scan the trunk is rounded off; in it the skin begins at 12 mm
    assert -130 < at(36, 20, 110) < -60  # fat below it
    assert at(36 + 130, 60, 110) > -150  # the trunk goes on beside the scan
    few = sitk.ChangeLabel(labels, {6: 0})
    with pytest.raises(FluoroGuideError, match="Too few"):
        ct_like(image, few, np.random.default_rng(2))
