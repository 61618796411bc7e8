"""The live path's own resampling against scipy's, which is slower and obvious."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from FluoroGuideLib.guidance.align2d import shrink, translated
from FluoroGuideLib.guidance.motion import _broad
from FluoroGuideLib.guidance.needle_strip import Line, Strip, contrast_along, known_at, response, sampled


def picture(rows: int = 53, columns: int = 70) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 1, (rows, columns)).astype(np.float32)


# fractions of both signs, whole pixels, nothing, and farther than the picture is wide
@pytest.mark.parametrize("shift_px", [(0.3, -1.7), (-6.25, 4.5), (3.0, 0.0), (0.0, 0.0), (90.5, -80.0)])
def test_translated_is_scipys_shift(shift_px: tuple[float, float]) -> None:
    image = picture()
    moved = translated(image, np.array(shift_px))
    np.testing.assert_allclose(moved, ndimage.shift(image, shift_px[::-1], order=1, mode="nearest"), atol=2e-6)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    back = [rows - shift_px[1], columns - shift_px[0]]
    slow = ndimage.map_coordinates(image, back, order=1, mode="constant")
    np.testing.assert_allclose(translated(image, np.array(shift_px), "zero"), slow, atol=2e-6)


def test_translated_moves_content_to_larger_columns_and_rows() -> None:
    image = np.zeros((20, 20), np.float32)
    image[5, 7] = 1
    moved = translated(image, np.array([3.0, 2.0]))
    assert moved[7, 10] == 1  # (column, row)
    assert moved.sum() == 1
    assert image[5, 7] == 1  # the picture given is left alone


def test_sampled_is_map_coordinates_inside_at_the_border_and_outside() -> None:
    image, rng = picture(), np.random.default_rng(6)
    where = [rng.uniform(-8, n + 8, (40, 30)) for n in image.shape]
    where[0][0, :4], where[1][0, :4] = (0, 52, 52, 0), (0, 69, 0, 69)  # corners, exactly
    np.testing.assert_allclose(sampled(image, where), ndimage.map_coordinates(image, where, order=1, mode="nearest"), atol=2e-6)


def test_known_at_tells_what_a_whole_mask_would() -> None:
    valid = np.ones((53, 70), bool)
    rng = np.random.default_rng(7)
    for low, high in ((2.0, 50.0), (-3.0, 55.0)):  # all inside: the short way; some outside: the long one
        where = [rng.uniform(low, high, (9, 11)) for _ in range(2)]
        r, c = (np.rint(w).astype(int) for w in where)
        np.testing.assert_array_equal(known_at(valid, where), (r >= 0) & (r < 53) & (c >= 0) & (c < 70))
    valid[20:30] = False
    assert not known_at(valid, [np.array([24.6]), np.array([5.0])])[0]
    assert known_at(valid, [np.array([19.4]), np.array([5.0])])[0]


@pytest.mark.parametrize("shape", [(64, 64), (61, 75)])
def test_the_broad_part_is_a_gaussian_of_twelve_pixels(shape: tuple[int, int]) -> None:
    image = ndimage.gaussian_filter(picture(*shape), 3.0)
    down = ndimage.gaussian_filter(np.pad(image, ((0, -shape[0] % 4), (0, -shape[1] % 4)), mode="edge"), 0)
    small = down.reshape(down.shape[0] // 4, 4, -1, 4).mean((1, 3))
    slow = ndimage.zoom(ndimage.gaussian_filter(small, 3.0), 4, order=1, grid_mode=True, mode="nearest")[: shape[0], : shape[1]]
    np.testing.assert_allclose(_broad(image), slow, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_shrink_is_the_mean_of_blocks(factor: int) -> None:
    image = picture(50, 71)
    rows, columns = 50 // factor, 71 // factor
    blocks = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor).mean((1, 3))
    np.testing.assert_allclose(shrink(image, factor), blocks, atol=1e-6)


def test_many_courses_at_once_are_one_after_the_other() -> None:
    image = picture(120, 140)
    strip = Strip(image, np.ones(image.shape, bool), Line(np.array([70.0, 60.0]), np.array([0.6, 0.8])))
    r, rows = response(strip.values, 4.0), np.arange(5, 60)
    offsets = np.linspace(-3, 3, 7)[:, None] * np.linspace(0, 1, len(rows))
    together = contrast_along(strip, r, offsets, rows)
    for offset, line in zip(offsets, together, strict=True):
        whole = np.zeros(len(strip.t))
        whole[rows] = offset
        np.testing.assert_array_equal(line, contrast_along(strip, r, whole)[rows])
