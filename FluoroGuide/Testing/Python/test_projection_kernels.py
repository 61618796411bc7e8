"""The remaining kernels: numba against numpy, and the local normalisation's derivative against differences."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.projection import joseph

KERNELS = [joseph.kernels("numba"), joseph.kernels("numpy")]


def images(seed: int = 3, shape: tuple[int, int] = (31, 44)) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=shape), 2).astype(np.float32) * 3 + 5
    mask = np.ones(shape, np.float32)
    mask[:6, :9] = 0
    mask[20:, 40:] = 0
    return image, mask


def inverse_count(mask: np.ndarray, radius: int) -> np.ndarray:
    count = np.empty_like(mask)
    KERNELS[1].box_sum(mask, radius, count)
    return np.where(count > 3, 1 / np.maximum(count, 1), 0).astype(np.float32)


@pytest.mark.parametrize("radius", [1, 4, 40])
def test_box_sum_is_the_sum_over_the_window(radius: int) -> None:
    image, _ = images()
    brute = np.array([
        [image[max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1].sum() for j in range(image.shape[1])]
        for i in range(image.shape[0])
    ])
    for kernels in KERNELS:
        out = np.empty_like(image)
        kernels.box_sum(image, radius, out)
        np.testing.assert_allclose(out, brute, rtol=2e-4, atol=1e-3)


def normalized(kernels: object, image: np.ndarray, mask: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    out, inverse_std, mean = np.empty_like(image), np.empty_like(image), np.empty_like(image)
    kernels.local_normalize(image, mask, inverse_count(mask, radius), radius, 0.15, out, inverse_std, mean)
    return out, inverse_std, mean


def test_local_normalisation_agrees_and_ignores_gain_and_offset() -> None:
    image, mask = images()
    a, b = (normalized(k, image, mask, 4)[0] for k in KERNELS)
    np.testing.assert_allclose(a, b, atol=2e-3)
    assert not a[mask == 0].any()
    assert np.std(a[mask > 0]) > 0.5
    np.testing.assert_allclose(normalized(KERNELS[0], 7 * image - 100, mask, 4)[0], a, atol=5e-3)
    # what lies outside the mask must not matter
    other = np.where(mask > 0, image, 1e3).astype(np.float32)
    np.testing.assert_allclose(normalized(KERNELS[0], other, mask, 4)[0], a, atol=2e-3)


def test_derivative_of_the_normalisation_agrees_and_points_the_right_way() -> None:
    image, mask = images()
    change = images(8)[0] - 5
    results = []
    for kernels in KERNELS:
        out, inverse_std, mean = normalized(kernels, image, mask, 4)
        jacobian = np.repeat(change[None], 6, axis=0).copy()
        kernels.local_normalize_jacobian(jacobian, mask, inverse_count(mask, 4), 4, out, inverse_std, mean)
        results.append(jacobian)
    np.testing.assert_allclose(results[0], results[1], atol=2e-3 * np.abs(results[1]).max())
    step = 1e-2
    slope = (normalized(KERNELS[1], image + step * change, mask, 4)[0] - normalized(KERNELS[1], image - step * change, mask, 4)[0]) / (2 * step)
    on = mask > 0
    assert np.corrcoef(results[1][0][on], slope[on])[0, 1] > 0.999
    # the floor is held fixed: it depends on the whole image, so its own change is a common factor near one
    assert (results[1][0][on] * slope[on]).sum() / (slope[on] ** 2).sum() == pytest.approx(1, abs=0.02)


def test_normal_equations_agree() -> None:
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(6, 20, 30)).astype(np.float32)
    moving, fixed = rng.normal(size=(2, 20, 30)).astype(np.float32)
    weight = (rng.random((20, 30)) * (rng.random((20, 30)) > 0.2)).astype(np.float32)
    results = []
    for kernels in KERNELS:
        hessian, gradient, sums = np.zeros((6, 6)), np.zeros(6), np.zeros(5)
        kernels.normal_equations(jacobian, moving, fixed, weight, 1.0, hessian, gradient, sums)
        results.append((hessian, gradient, sums))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
    assert np.linalg.eigvalsh(results[0][0]).min() > 0


def test_costs_are_the_equations_of_no_parameter() -> None:
    rng = np.random.default_rng(1)
    moving, fixed = rng.normal(size=(2, 20, 30)).astype(np.float32)
    weight = (rng.random((20, 30)) * (rng.random((20, 30)) > 0.2)).astype(np.float32)
    m, f, w = (x.astype(float) for x in (moving, fixed, weight))
    expected = [(w * 0.5 * np.log1p((m - f) ** 2 / 0.5)).sum(), (w * m * f).sum(), (w * m * m).sum(), (w * f * f).sum(), w.sum()]
    for kernels in KERNELS:
        sums = np.zeros(5)
        kernels.normal_equations(np.empty((0, 20, 30), np.float32), moving, fixed, weight, 0.5, np.empty((0, 0)), np.empty(0), sums)
        np.testing.assert_allclose(sums, expected, rtol=1e-6)
