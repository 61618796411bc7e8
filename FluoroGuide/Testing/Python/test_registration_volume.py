"""Resampling in slabs against one plain resampling; what lies beyond a truncated scan."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import rotation_from_vector
from FluoroGuideLib.registration import volume
from FluoroGuideLib.registration.volume import Unknown, continued_sideways, is_cut_at_the_sides


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


def field_of_view(*, narrow: bool) -> sitk.Image:
    """A water ellipse of 240 x 160 mm with a rod of bone, 40 mm high; ``narrow`` cuts a round field of 120 mm out of it."""
    k, j, i = np.mgrid[:10, :64, :64]
    x, y = (i - 31.5) * 4.0, (j - 31.5) * 4.0
    values = 0.02 * ((x / 120) ** 2 + (y / 80) ** 2 < 1) + 0.02 * (x**2 + y**2 < 100) + 0.0 * k
    if narrow:
        x, y, values = x[:, 17:47, 17:47], y[:, 17:47, 17:47], values[:, 17:47, 17:47]
        values = np.where(x**2 + y**2 < 60.0**2, values, 0.0)
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing([4.0] * 3)
    image.SetOrigin([-58.0 if narrow else -126.0] * 2 + [-18.0])
    return image


def test_a_narrow_field_is_told_from_a_whole_body_and_continued() -> None:
    assert not is_cut_at_the_sides(field_of_view(narrow=False))
    cut = field_of_view(narrow=True)
    assert is_cut_at_the_sides(cut)
    wide = continued_sideways(cut, 40.0)
    assert wide.GetPixel(wide.TransformPhysicalPointToIndex((-90.0, 10.0, 2.0))) == pytest.approx(0.02, abs=1e-4)
    assert wide.GetPixel(wide.TransformPhysicalPointToIndex((2.0, 2.0, 2.0))) == pytest.approx(0.04, abs=1e-4)


def ellipse(half_x_mm: float, half_y_mm: float, columns: int, rows: int, spacing_mm: float) -> sitk.Image:
    """A water ellipse in the middle of a scan."""
    x, y = (np.arange(columns) - (columns - 1) / 2) * spacing_mm, (np.arange(rows) - (rows - 1) / 2) * spacing_mm
    values = 0.02 * ((x[None, :] / half_x_mm) ** 2 + (y[:, None] / half_y_mm) ** 2 < 1)
    image = sitk.GetImageFromArray(np.repeat(values[None], 10, axis=0).astype(np.float32))
    image.SetSpacing([spacing_mm] * 3)
    return image


@pytest.mark.parametrize("shape", [(60, 48, 55, 45, 2.5), (78, 70, 160, 160, 1.0), (79, 75, 160, 160, 1.0), (79, 60, 160, 160, 1.0)])
def test_a_whole_body_close_to_the_border_is_no_narrow_field(shape: tuple) -> None:
    """A leg that fills its square, or a body cropped closely: continued as if it were cut, it was registered 23 to 31 mm off."""
    assert not is_cut_at_the_sides(ellipse(*shape))


@pytest.mark.parametrize("noisy_air", [True, False])
def test_a_round_body_in_air_is_no_narrow_field(noisy_air: bool) -> None:
    """A cylinder at 97 % of a square scan of 160 mm: air around it has noise, half of it cut off at 0; beyond a field lies one value."""
    image, rng = ellipse(77.6, 77.6, 160, 160, 1.0), np.random.default_rng(3)
    values = sitk.GetArrayFromImage(image) + rng.normal(0, 4e-4, (10, 160, 160))
    y, x = np.mgrid[:160, :160] - 79.5
    values = np.where((np.hypot(x, y) < 77.6) | noisy_air, np.maximum(values, 0.0), 0.0)
    assert is_cut_at_the_sides(sitk.GetImageFromArray(values.astype(np.float32))) is not noisy_air


def test_the_continuation_is_the_harmonic_function() -> None:
    """Around a cylinder of radius 60: cos(3 angle) falls off as (60 / r)^3; what repeats along it every 20 mm fades e-fold in 20 / 2 pi mm."""
    angle, z = np.linspace(0, 2 * np.pi, 180, endpoint=False), np.arange(40) + 0.5
    around = volume._harmonic(np.tile(1.0 + np.cos(3 * angle), (40, 1)), 60.0, 120.0, 1.0)
    np.testing.assert_allclose(around[20, :, 20], 1.0 + np.cos(3 * angle) / 8, atol=1e-5)  # 20 shells of 3 mm: r = 120
    along = volume._harmonic(np.repeat(np.cos(2 * np.pi * z / 20)[:, None], 180, axis=1), 60.0, 120.0, 1.0)
    np.testing.assert_allclose(along[:, 7, 2], np.exp(-6 * 2 * np.pi / 20) * np.cos(2 * np.pi * z / 20), atol=1e-5)


def test_a_field_that_reaches_beyond_the_skin_on_one_side_is_narrow() -> None:
    image = ellipse(160, 100, 180, 180, 1.0)
    image.SetOrigin((0.0, 0.0, 0.0))
    values = np.roll(sitk.GetArrayFromImage(ellipse(160, 100, 400, 300, 1.0)), 50, axis=1)[:, 60:240, 110:290]  # skin 50 mm from its axis
    y, x = np.mgrid[:180, :180] - 89.5
    cut = sitk.GetImageFromArray(np.where(x**2 + y**2 < 90**2, values, 0.0).astype(np.float32))
    assert is_cut_at_the_sides(cut)


def test_rays_beside_a_narrow_field_are_unknown() -> None:
    """A parallel-looking AP view: rays more than 0.85 x 60 = 51 mm from the axis say nothing, those through the middle do."""
    unknown = Unknown(None, field_of_view(narrow=True))
    view = CArmView.from_angles(0, 0, sid_mm=2000, sod_mm=1000, rows=21, columns=101, pixel_spacing_mm=(4.0, 4.0))  # 2 mm at the isocentre
    row = unknown.project(view, np.eye(4))[10] > 0
    known = np.flatnonzero(~row) - 50
    assert (known.min(), known.max()) == (-25, 25)  # 2 mm x 25 = 50 mm; the perpendicular distance differs by 0.1 %
