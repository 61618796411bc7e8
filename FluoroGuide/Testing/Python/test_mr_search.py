"""The search on MR: which rays vote, whose pose is believed, and the body where fat is as dark as noise."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from FluoroGuideLib.anatomy.mr import MrVolume
from FluoroGuideLib.anatomy.mr_tissue import body_mask
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.registration.mr import MrMovingVolume
from FluoroGuideLib.registration.mr_search import NearBone, bone_is_seen, part_search


def test_fat_that_is_as_dark_as_noise_belongs_to_the_body():
    """Water image: suppressed fat at 0.08 with noise of 0.025 in both channels; air shows 0.031 on average (Rayleigh: 0.025 * sqrt(pi / 2))."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[:40, :80, :80] - np.array([20, 40, 40])[:, None, None, None]
    body, muscle = (x / 34) ** 2 + (y / 28) ** 2 < 1, (x / 26) ** 2 + (y / 20) ** 2 < 1
    signal = 0.08 * body + 0.57 * muscle + 0.0 * z
    image = sitk.GetImageFromArray(np.hypot(signal + rng.normal(0, 0.025, signal.shape), rng.normal(0, 0.025, signal.shape)).astype(np.float32))
    image.SetSpacing([1.5] * 3)
    found = body_mask(image, fat_is_dark=True)
    assert found[2:-2][body[2:-2] & ~muscle[2:-2]].mean() > 0.97
    assert found[2:-2][~((x / 37) ** 2 + (y / 31) ** 2 < 1)[2:-2]].mean() < 0.01


def test_only_rays_near_labelled_bone_vote():
    """A ball of bone of 10 mm at the isocentre, magnified 1.5 times: on the detector its neighbourhood ends at 1.5 (10 + 8) = 27 mm."""
    k, j, i = (np.mgrid[:60, :60, :60] - 29.5) * 2.0
    tissue = (i**2 + j**2 < 50**2) & (np.abs(k) < 50)
    images = [sitk.GetImageFromArray(a) for a in (
        np.float32(0.02) * tissue, np.zeros(k.shape, np.float32), (i**2 + j**2 + k**2 < 100).astype(np.uint8))]
    for image in images:
        image.SetSpacing([2.0] * 3)
        image.SetOrigin([-59.0] * 3)
    moving = MrMovingVolume(MrVolume(images[0], "MR", "", images[2], {}, images[1]), "numpy")
    view = CArmView.from_angles(0, 0, sid_mm=1050, sod_mm=700, rows=41, columns=41, pixel_spacing_mm=(3.0, 3.0))
    votes = NearBone(moving).beyond().project(view, np.eye(4)) <= 0
    r, c = np.mgrid[:41, :41] - 20
    away = 3.0 * np.hypot(r, c)
    assert votes[away < 22].all()
    assert not votes[away > 30].any()
    assert bone_is_seen(moving, (0.13, 0.3))
    assert not bone_is_seen(moving, (0.11, 0.3))
    options, prior = part_search(moving, np.eye(4), np.zeros(3))
    assert options.elsewhere_mm < 4.0
    assert prior is not None
