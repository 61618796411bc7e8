"""Normalisation: line integrals recovered, fields found, polarity decided; on closed forms and on real pictures."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging.preprocess import detect_polarity, find_field, normalize, saturated
from FluoroGuideLib.imaging.sources import open_xray

SIZE = 320


def line_integrals() -> np.ndarray:
    """Closed-form line integrals (unitless) of a body and bones seen across: chords of cylinders, with hollow shafts."""
    r, c = np.mgrid[:SIZE, :SIZE].astype(float)

    def chord(distance, radius):
        return 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))

    body = 0.006 * chord(c - 160, 220)
    line = body
    for center, slope, radius in ((90, 0.15, 22), (215, -0.1, 26)):
        distance = (c - center - slope * (r - 160)) / np.hypot(1, slope)
        line = line + 0.02 * (chord(distance, radius) - 0.8 * chord(distance, radius - 5))
    return line


def intensities(line: np.ndarray, photons: float = 20000.0) -> np.ndarray:
    return np.random.default_rng(3).poisson(photons * np.exp(-line)).astype(float)


def correlation(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    return float(np.corrcoef(a[mask], b[mask])[0, 1])


@pytest.mark.parametrize(("make", "relationship", "polarity"), [
    (lambda i: i.astype(np.uint16), "LIN", "bone dark"),
    (lambda i: np.round(4000 * np.log(i) / np.log(20000)).astype(np.uint16), "LOG", "bone dark"),
    (lambda i: np.float32(-np.log(i)), "DISP", "bone bright"),
    (lambda i: np.round(255 * (i / 20000) ** 0.5).clip(0, 255).astype(np.uint8), None, "bone dark"),
    (lambda i: 255 - np.round(255 * (i / 20000) ** 0.5).clip(0, 255).astype(np.uint8), None, "bone bright"),
])
def test_line_integrals_come_back(make, relationship, polarity):
    line = line_integrals()
    result = normalize(make(intensities(line)), relationship=relationship)
    assert result.polarity == polarity
    assert 0.5 <= result.confidence <= 1
    assert result.mask.mean() > 0.95
    # The square root of the display curve bends the values: the logarithm of what LIN and LOG give back is exact.
    assert correlation(result.pixels, line, result.mask) > (0.99 if relationship in ("LIN", "LOG", "DISP") else 0.97)
    assert result.pixels.dtype == np.float32
    assert result.pixels.min() >= 0
    assert result.pixels.max() <= 1


def test_polarity_can_be_told_and_a_contradiction_is_noted():
    picture = np.float32(-np.log(intensities(line_integrals())))
    result = normalize(picture, polarity="bone dark")
    assert result.polarity == "bone dark"
    assert result.confidence == 1
    assert correlation(result.pixels, -line_integrals(), result.mask) > 0.99


def test_turning_values_over_turns_the_polarity_only():
    picture = intensities(line_integrals())
    used, nothing = np.ones(picture.shape, bool), np.zeros(picture.shape, bool)
    first, sure = detect_polarity(picture, used, nothing, nothing)
    second, as_sure = detect_polarity(-picture, used, nothing, nothing)
    assert (first, second) == ("bone dark", "bone bright")
    assert sure == pytest.approx(as_sure, abs=0.02)


def disc(center: tuple[float, float], radius: float) -> np.ndarray:
    r, c = np.mgrid[:SIZE, :SIZE]
    return (r - center[0]) ** 2 + (c - center[1]) ** 2 <= radius**2


def polygon_field() -> np.ndarray:
    r, c = np.mgrid[:SIZE, :SIZE]
    return (r >= 30) & (c >= 20) & (c < 290) & (r + c > 80) & (r + 20 < SIZE)


@pytest.mark.parametrize("field", [disc((160, 160), 150), disc((170, 150), 175), polygon_field()])
@pytest.mark.parametrize("outside", [0.0, 30.0])
def test_the_field_is_found(field, outside):
    picture = np.where(field, intensities(line_integrals()) + 500, np.random.default_rng(0).normal(outside, 10, field.shape))
    mask, dark = find_field(picture.astype(np.float32))
    assert dark
    assert not (mask & ~field).any()  # nothing from outside
    assert mask.sum() > 0.90 * field.sum()  # 2 % of the size per side is the rim
    result = normalize(picture.clip(0).astype(np.uint16), relationship="LIN")
    assert result.polarity == "bone dark"
    assert not (result.mask & ~field).any()
    assert (result.pixels[~result.mask] == 0).all()


def test_a_bright_outside_is_found():
    field = disc((160, 160), 150)
    picture = np.where(field, line_integrals(), 5.0)
    mask, dark = find_field(picture.astype(np.float32))
    assert not dark
    assert not (mask & ~field).any()
    assert mask.sum() > 0.9 * field.sum()
    assert normalize(picture).polarity == "bone bright"


def test_a_picture_that_fills_its_frame_has_no_field():
    assert find_field(intensities(line_integrals()).astype(np.float32)) is None
    off = normalize(np.where(disc((160, 160), 150), intensities(line_integrals()), 0), field=False, mask_saturated=False)
    assert off.mask.all()


def test_saturated_plateaus_are_masked_single_extremes_are_not():
    picture = np.random.default_rng(0).integers(20, 200, (100, 100)).astype(np.uint8)
    picture[10:20, 10:30] = 255  # 2 % plateau
    picture[50, 50] = 0
    expected = picture == 255
    np.testing.assert_array_equal(saturated(picture.astype(np.float32), np.ones((100, 100), bool), np.dtype(np.uint8)), expected)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: normalize(np.zeros((4, 5, 6))), "not one grey picture"), (lambda: normalize(np.full((50, 50), 3)), "same value"),
    (lambda: normalize(np.full((50, 50), np.nan)), "no valid pixel"), (lambda: normalize(line_integrals(), polarity="dark"), "polarity"),
    (lambda: normalize(line_integrals(), mask=np.ones((3, 3), bool)), "differ in size"),
    (lambda: normalize(line_integrals(), mask=np.zeros((SIZE, SIZE), bool)), "no valid pixel"),
])
def test_wrong_pictures(call, words):
    with pytest.raises(FluoroGuideError, match=words):
        call()


def test_pixels_that_are_not_numbers_are_masked():
    picture = line_integrals()
    picture[40:50, 60:70] = np.nan
    result = normalize(picture)
    assert not result.mask[40:50, 60:70].any()
    assert np.isfinite(result.pixels).all()


REAL = [
    "xa_static_phantom_8views/IM1.dcm", "xa_static_phantom_8views/IM6.dcm", "xa_rubo_coronary_96f/0002.dcm", "rf_shoulder_kwire/KarstenHilbertRF.dcm",
    "knee_biplane_autoscoper/XRay/L_Hop_Cam1_001_UND.0138.tif", "knee_biplane_autoscoper/XRay/L_Hop_Cam2_001_UND.0138.tif",
]


@pytest.mark.parametrize("name", REAL)
def test_polarity_of_real_pictures(data_dir, name):
    # All six show vessels or bone dark (seen).  Turned over, with the outside turned over too or painted black, they are bright.
    run = open_xray(data_dir / name)
    picture = run.frames[len(run.frames) // 2]
    original = normalize(picture)
    assert original.polarity == "bone dark"
    assert original.confidence > 0.7
    turned = picture.max() - picture
    assert normalize(turned).polarity == "bone bright"
    turned[~find_field(picture.astype(np.float32))[0]] = 0
    assert normalize(turned).polarity == "bone bright"


def test_field_of_a_real_round_intensifier(data_dir):
    run = open_xray(data_dir / "rf_shoulder_kwire" / "KarstenHilbertRF.dcm")
    mask, dark = find_field(run.frames[0].astype(np.float32))
    # The stored picture is 0 outside a disc that the frame cuts above and below.
    assert dark
    assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (run.frames[0][mask] == 0).mean() < 0.001
    assert 0.75 < mask.mean() < 0.85
