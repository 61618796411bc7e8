"""Resampling in slabs against one plain resampling; what lies beyond a truncated scan."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.geometry.rigid import rotation_from_vector
from FluoroGuideLib.registration import volume


@pytest.mark.parametrize("spacing", [1.0, 2.5])
def test_slabs_give_what_one_resampling_gives(monkeypatch: pytest.MonkeyPatch, spacing: float) -> None:
    monkeypatch.setattr(volume, "SLAB_BYTES", 20_000)  # many slabs
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.random((20, 31, 27)).astype(np.float32))
    image.SetSpacing((1.5, 1.2, 2.0))
    image.SetOrigin((3.0, -7.0, 11.0))
    image.SetDirection(rotation_from_vector([0.2, -0.1, 0.3]).ravel().tolist())
    old, size = np.asarray(image.GetSpacing()), np.asarray(image.GetSize())
    count = np.floor((size - 1) * old / spacing).astype(int) + 1
    plain = image
    for axis in range(3):
        if spacing > 1.2 * old[axis]:
            plain = sitk.RecursiveGaussian(plain, 0.42 * spacing, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    plain = sitk.Resample(
        plain, count.tolist(), sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [spacing] * 3, image.GetDirection(), 0.0, sitk.sitkFloat32,
    )
    mine = volume.resampled(image, spacing)
    assert mine.GetSize() == plain.GetSize()
    np.testing.assert_allclose(mine.GetOrigin(), plain.GetOrigin())
    np.testing.assert_allclose(sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(plain), atol=1e-5)


def test_body_beyond_a_cut_scan_is_unknown_and_a_whole_body_has_none() -> None:
    """A cylinder along z that fills the slices at both ends: unknown above and below, nowhere beside it."""
    z, y, x = np.mgrid[:40, :60, :60]
    inside = (x - 30) ** 2 + (y - 30) ** 2 < 400
    cut = sitk.GetImageFromArray((0.02 * inside).astype(np.float32))
    cut.SetSpacing((2.0, 2.0, 2.0))
    beyond = volume.unknown_beyond(cut)
    assert beyond is not None

    def value(point: tuple[float, float, float]) -> float:
        return beyond.GetPixel(*beyond.TransformPhysicalPointToIndex(point))

    assert value((60.0, 60.0, 150.0)) == 1  # the scan ends at z = 78
    assert value((60.0, 60.0, -60.0)) == 1
    assert value((60.0, 60.0, 40.0)) == 0  # inside the scan all is known
    assert value((4.0, 4.0, 150.0)) == 0  # air goes on as air
    whole = sitk.GetImageFromArray((0.02 * (inside & (z > 3) & (z < 36))).astype(np.float32))
    whole.SetSpacing((2.0, 2.0, 2.0))
    assert volume.unknown_beyond(whole) is None
