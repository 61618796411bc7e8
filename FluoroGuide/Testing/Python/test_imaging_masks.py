"""Metal, burned-in text and display gamma: what is masked, and that nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from FluoroGuideLib.imaging.masks import metal_mask, text_mask
from FluoroGuideLib.imaging.preprocess import normalize


def anatomy(size: int = 400, seed: int = 0) -> np.ndarray:
    """Line integrals (float): a body with a spine of blurred blocks and ribs, noise."""
    rng = np.random.default_rng(seed)
    r, c = np.mgrid[:size, :size] / size - 0.5
    line = 1.2 + 1.6 * np.exp(-((c / 0.35) ** 2)) + 0.3 * np.cos(3 * r)
    line += 0.7 / (1 + np.exp((np.abs(c) - 0.1) / 0.012)) * (0.75 + 0.25 * np.sign(np.sin(2 * np.pi * r / 0.16)))
    for k in range(-3, 4):
        line += 0.25 * np.exp(-((r - 0.14 * k - 0.4 * c**2) / 0.018) ** 2) * (np.abs(c) > 0.1)
    return line + 0.02 * rng.standard_normal(line.shape)


def screws(size: int = 400) -> np.ndarray:
    """bool: two pedicle screws and a rod."""
    picture = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(picture)
    for y in (140, 230):
        draw.line((150, y, 235, y + 12), fill=255, width=11)
        draw.ellipse((138, y - 12, 162, y + 12), fill=255)
    draw.line((150, 100, 150, 270), fill=255, width=9)
    return np.asarray(picture) > 0


def blurred(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(mask.astype(float), 0.8)


# ---- metal ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_screws_are_masked_and_bone_is_not(seed):
    metal = screws()
    line = anatomy(seed=seed) + 3.0 * blurred(metal)
    counts = np.clip(50000 * np.exp(-line), 1, 65535).astype(np.uint16)
    found = normalize(counts, relationship="LIN", polarity="bone dark", field=False, mask_saturated=False)
    masked = found.parts["metal"]
    assert masked[metal].mean() > 0.9
    # Beyond the blur and the margin of one reduced pixel, nothing.
    from scipy import ndimage

    assert masked[~ndimage.binary_dilation(metal, iterations=6)].mean() < 0.002
    assert not found.mask[metal].mean() > 0.1
    # The metal can still be seen: densest of all.
    assert found.pixels[ndimage.binary_erosion(metal, iterations=2)].min() > np.percentile(found.pixels[found.mask], 99)
    assert any("metal" in note for note in found.notes)
    assert not normalize(counts, relationship="LIN", polarity="bone dark", mask_metal=False).parts["metal"].any()


@pytest.mark.parametrize("seed", range(3))
def test_anatomy_alone_has_no_metal(seed):
    counts = np.clip(50000 * np.exp(-anatomy(seed=seed)), 1, 65535).astype(np.uint16)
    assert not normalize(counts, relationship="LIN", polarity="bone dark").parts["metal"].any()


def test_a_wire_phantom_on_a_flat_background_is_not_masked_away():
    line = 1.0 + 0.02 * np.random.default_rng(0).standard_normal((400, 400)) + 1.5 * blurred(screws())
    assert not metal_mask(line.astype(np.float32), np.ones(line.shape, bool)).any()


def test_real_pictures_without_implants_have_no_metal_mask(data_dir):
    from FluoroGuideLib.imaging.sources import open_xray

    for name in ("xa_static_phantom_8views/IM1.dcm", "xa_rubo_coronary_96f/0002.dcm"):
        run = open_xray(data_dir / name)
        for frame in (0, len(run.frames) - 1):
            parts = run.normalized(frame).parts
            assert parts["metal"].mean() < 0.01
            assert parts["text"].mean() < 0.005


# ---- text -------------------------------------------------------------------------------------------------------
def with_text(values: np.ndarray, words: str, place: tuple[int, int], level: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture with words drawn in, and where their strokes are."""
    picture = Image.new("L", values.shape[::-1], 0)
    ImageDraw.Draw(picture).text(place, words, fill=255, font=ImageFont.load_default(size=16))
    strokes = np.asarray(picture)
    share = strokes[..., None].astype(float)[..., 0] / 255
    return (values * (1 - share) + level * share).astype(values.dtype), strokes > 128


@pytest.mark.parametrize("level", [255, 0])
@pytest.mark.parametrize("seed", range(2))
def test_burned_in_text_is_masked(level, seed):
    line = anatomy(seed=seed)
    shown = np.clip(20 + 210 * (line.max() - line) / np.ptp(line), 1, 250).astype(np.uint8)
    written, strokes = with_text(shown, "LAO 30  CRA 5", (60, 40), level)
    found = normalize(written, relationship="DISP", polarity="bone dark", field=False)
    masked = ~found.mask
    assert masked[strokes].mean() > 0.95
    away = np.ones_like(masked)
    away[30:70, 45:190] = False
    assert masked[away].mean() < 0.01
    assert text_mask(written.astype(np.float32), np.ones(written.shape, bool))[strokes].mean() > 0.9
    # The rest is as it is without the text.
    clean = normalize(shown, relationship="DISP", polarity="bone dark", field=False)
    both = found.mask & clean.mask
    np.testing.assert_allclose(found.pixels[both], clean.pixels[both], atol=0.05)


def test_pictures_without_text_have_none():
    for seed in range(3):
        line = anatomy(seed=seed)
        shown = np.clip(20 + 210 * (line.max() - line) / np.ptp(line), 1, 250).astype(np.uint8)
        assert not text_mask(shown.astype(np.float32), np.ones(shown.shape, bool)).any()


def test_a_single_bright_spot_is_no_text():
    values = np.full((200, 200), 100, np.float32)
    values[90:100, 90:100] = 255
    assert not text_mask(values, np.ones(values.shape, bool)).any()


# ---- gamma ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gamma", [0.45, 1.0, 2.2])
@pytest.mark.parametrize("inverted", [False, True])
def test_display_gamma_changes_neither_polarity_nor_order(gamma, inverted):
    line = anatomy()
    shown = (line.max() - line) / np.ptp(line)
    shown = 1 - shown if inverted else shown
    picture = np.clip(255 * shown**gamma, 0, 255).round().astype(np.uint8)
    found = normalize(picture, mask_metal=False)
    assert found.polarity == ("bone bright" if inverted else "bone dark")
    inside = found.mask
    order = np.corrcoef(np.argsort(np.argsort(found.pixels[inside])), np.argsort(np.argsort(line[inside])))[0, 1]
    assert order > 0.98
