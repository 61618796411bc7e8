"""A small CT for the tests of the evaluation: dense ellipsoids in a body of water, 4 mm voxels."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


def small_ct(seed: int = 3) -> tuple[sitk.Image, sitk.Image]:
    """CT (48^3, int16 HU) and its labels: 14 ellipsoids."""
    rng, n = np.random.default_rng(seed), 48
    k, j, i = np.mgrid[:n, :n, :n] * 4.0
    middle = (n - 1) * 2.0
    hu, labels = np.full((n, n, n), -1000, np.int16), np.zeros((n, n, n), np.uint8)
    hu[((i - middle) / 85) ** 2 + ((j - middle) / 70) ** 2 < 1] = 40
    for number in range(1, 15):
        at, half = middle + rng.uniform(-55, 55, 3) * (1, 0.8, 0.6), rng.uniform(7, 16, 3)
        inside = ((i - at[0]) / half[0]) ** 2 + ((j - at[1]) / half[1]) ** 2 + ((k - at[2]) / half[2]) ** 2 < 1
        hu[inside], labels[inside] = 600, number
    images = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(labels)
    for image in images:
        image.SetSpacing([4.0] * 3)
        image.SetOrigin([-middle] * 3)
    return images
