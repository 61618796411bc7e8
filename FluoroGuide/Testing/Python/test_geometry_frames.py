"""RAS, LPS and voxel indices against SimpleITK and signs written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.geometry import frames


@pytest.fixture
def oblique_image():
    """4 x 5 x 6 voxels of 0.5 x 0.7 x 2 mm, turned 30 degrees about z and then 20 degrees about x."""
    import SimpleITK as sitk

    image = sitk.Image(4, 5, 6, sitk.sitkInt16)
    image.SetSpacing((0.5, 0.7, 2.0))
    image.SetOrigin((-11.0, 22.0, 333.0))
    (c, s), (d, t) = (np.cos(np.radians(30)), np.sin(np.radians(30))), (np.cos(np.radians(20)), np.sin(np.radians(20)))
    turn = np.array([[1, 0, 0], [0, d, -t], [0, t, d]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    image.SetDirection(turn.ravel().tolist())
    return image


def test_signs_by_hand() -> None:
    # Right 1, anterior 2, superior 3 is left -1, posterior -2, superior 3.
    np.testing.assert_array_equal(frames.lps_from_ras([1, 2, 3]), (-1, -2, 3))
    np.testing.assert_array_equal(frames.ras_from_lps([[1, 2, 3], [4, 5, 6]]), [[-1, -2, 3], [-4, -5, 6]])


def test_voxels_where_simpleitk_puts_them(oblique_image) -> None:
    matrix = frames.lps_from_ijk(oblique_image)
    for index in ((3, 0, 0), (0, 4, 1), (1, 2, 5)):
        expected = oblique_image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(matrix @ (*index, 1), (*expected, 1), atol=1e-12)
        right, anterior, superior, _ = frames.ras_from_ijk(oblique_image) @ (*index, 1)
        np.testing.assert_allclose((-right, -anterior, superior), expected, atol=1e-12)


def test_a_transform_says_the_same_in_both_frames() -> None:
    # LPS: a quarter turn about z, then (4, 5, 6): (1, 2, 3) -> (-2 + 4, 1 + 5, 3 + 6) = (2, 6, 9).
    lps = np.array([[0, -1, 0, 4], [1, 0, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1.0]])
    ras = frames.ras_matrix_from_lps(lps)
    np.testing.assert_array_equal(ras @ (-1, -2, 3, 1), (-2, -6, 9, 1))
    np.testing.assert_array_equal(frames.lps_matrix_from_ras(ras), lps)


def test_corners_and_centre(oblique_image) -> None:
    corners = frames.corners_lps_mm(oblique_image)
    lowest = oblique_image.TransformContinuousIndexToPhysicalPoint((-0.5, -0.5, -0.5))
    highest = oblique_image.TransformContinuousIndexToPhysicalPoint((3.5, 4.5, 5.5))
    np.testing.assert_allclose(corners[0], lowest, atol=1e-12)
    np.testing.assert_allclose(corners[-1], highest, atol=1e-12)
    # The long diagonal is that of a box of 2 x 3.5 x 12 mm.
    assert np.linalg.norm(corners[-1] - corners[0]) == pytest.approx(np.sqrt(4 + 12.25 + 144))
    middle = oblique_image.TransformContinuousIndexToPhysicalPoint((1.5, 2.0, 2.5))
    np.testing.assert_allclose(frames.center_lps_mm(oblique_image), middle, atol=1e-12)
