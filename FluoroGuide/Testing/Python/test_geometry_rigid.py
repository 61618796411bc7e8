"""Rigid motions against the matrix exponential, hand-computed motions, central differences, sampling and SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry import rigid

CENTER_MM = np.array([5.0, -40.0, 120.0])
POINT_MM = np.array([10.0, -20.0, 30.0])


def a_pose(rotation_rad=(0.3, -0.7, 1.1), shift_mm=(12.0, -34.0, 56.0)) -> np.ndarray:
    """A motion without any symmetry."""
    return rigid.motion(np.r_[rotation_rad, shift_mm], CENTER_MM)


def test_a_motion_computed_by_hand() -> None:
    # A quarter turn about z around (10, 0, 0), then (1, 2, 3): the origin is at (-10, 0) from the centre, turns to (0, -10).
    matrix = rigid.motion([0, 0, np.pi / 2, 1, 2, 3], [10, 0, 0])
    np.testing.assert_allclose(rigid.apply(matrix, [0, 0, 0]), (11, -8, 3), atol=1e-12)
    # (12, 5, 7) is at (2, 5) from the centre, turns to (-5, 2).
    np.testing.assert_allclose(rigid.apply(matrix, [12, 5, 7]), (6, 4, 10), atol=1e-12)


def test_skew_is_the_cross_product() -> None:
    np.testing.assert_array_equal(rigid.skew([1, 2, 3]) @ [4, 5, 6], (-3, 6, -3))  # 2*6-3*5, 3*4-1*6, 1*5-2*4


@pytest.mark.parametrize("length", [0.0, 1e-9, 0.9e-7, 1.1e-7, 1e-5, 1e-3, 0.5, 2.0, 3.1, np.pi, 5.0])
def test_rotation_against_the_matrix_exponential(length) -> None:
    from scipy.linalg import expm

    vector = length * np.array([2.0, -3.0, 6.0]) / 7
    np.testing.assert_allclose(rigid.rotation_from_vector(vector), expm(rigid.skew(vector)), atol=1e-13)


@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3, 0.1, 1.0, 2.0, 3.0, *(np.pi - x for x in (1e-3, 1e-6, 1e-9, 1e-12, 0.0))])
def test_rotation_vector_against_scipy(length) -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(3)
    for direction in [*np.eye(3), *-np.eye(3), *rng.normal(size=(40, 3))]:
        vector = length * direction / np.linalg.norm(direction)
        matrix = Rotation.from_rotvec(vector).as_matrix()
        found, expected = rigid.vector_from_rotation(matrix), Rotation.from_matrix(matrix).as_rotvec()
        if length > np.pi - 1e-8 and found @ expected < 0:  # half a turn is the same either way
            expected = -expected
        np.testing.assert_allclose(found, expected, atol=1e-14)
        np.testing.assert_allclose(np.linalg.norm(found), length, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("length", [0.0, 1e-6, 0.9e-4, 1.1e-4, 0.01, 0.7, 2.5, 4.0])
def test_left_jacobian_against_its_integral(length) -> None:
    """J(w) is the mean of exp(s w) for s from 0 to 1; Gauss-Legendre with 20 nodes is exact to rounding here."""
    from scipy.linalg import expm

    vector = length * np.array([2.0, -3.0, 6.0]) / 7
    nodes, weights = np.polynomial.legendre.leggauss(20)
    expected = sum(w / 2 * expm((x + 1) / 2 * rigid.skew(vector)) for x, w in zip(nodes, weights, strict=True))
    np.testing.assert_allclose(rigid.left_jacobian(vector), expected, atol=1e-12)


def test_left_jacobian_moves_the_rotation() -> None:
    vector, step = np.array([0.4, -0.9, 1.3]), 1e-6 * np.array([1.0, 2.0, -1.5])
    moved = rigid.rotation_from_vector(vector + step)
    expected = rigid.rotation_from_vector(rigid.left_jacobian(vector) @ step) @ rigid.rotation_from_vector(vector)
    np.testing.assert_allclose(moved, expected, atol=1e-11)
    # The right Jacobian (its transpose) would be wrong here.
    wrong = rigid.rotation_from_vector(rigid.left_jacobian(vector).T @ step) @ rigid.rotation_from_vector(vector)
    assert np.abs(moved - wrong).max() > 1e-7


@pytest.mark.parametrize("xi", [np.zeros(6), np.array([1e-5, 0, -2e-5, 1, 2, 3]), np.array([0.6, -0.4, 1.2, 5, -6, 7])])
def test_point_jacobian_against_central_differences(xi) -> None:
    points, h = np.random.default_rng(1).uniform(-100, 100, (8, 3)), 1e-5
    numeric = np.stack(
        [(rigid.apply(rigid.motion(xi + h * e, CENTER_MM), points) - rigid.apply(rigid.motion(xi - h * e, CENTER_MM), points)) / (2 * h)
         for e in np.eye(6)], axis=-1)
    np.testing.assert_allclose(rigid.point_jacobian(points, CENTER_MM, xi), numeric, atol=1e-6)


def test_difference_undoes_perturb() -> None:
    pose, xi = a_pose(), np.array([0.2, -0.1, 0.4, 3, -2, 8.0])
    other = rigid.perturb(pose, xi, CENTER_MM)
    np.testing.assert_allclose(rigid.difference(pose, other, CENTER_MM), xi, atol=1e-12)
    # About another centre the rotation is the same, the translation is that of the centre.
    again = rigid.difference(pose, other, POINT_MM)
    np.testing.assert_allclose(again[:3], xi[:3], atol=1e-12)
    moved_centre = rigid.apply(rigid.motion(xi, CENTER_MM), POINT_MM)
    np.testing.assert_allclose(again[3:], moved_centre - POINT_MM, atol=1e-12)


def test_inverse() -> None:
    np.testing.assert_allclose(rigid.inverse(a_pose()), np.linalg.inv(a_pose()), atol=1e-13)


def test_recentred_covariance_against_sampling() -> None:
    rng = np.random.default_rng(2)
    factor = rng.normal(size=(6, 6)) * np.array([2e-3] * 3 + [0.4] * 3)[:, None]
    samples = rng.normal(size=(20000, 6)) @ factor.T
    # The same motions, written about the other centre: translation of that centre, computed from the motions themselves.
    moved = np.array([rigid.apply(rigid.motion(xi, CENTER_MM), POINT_MM) - POINT_MM for xi in samples])
    sampled = np.cov(np.c_[samples[:, :3], moved].T)
    predicted = rigid.recentered(factor @ factor.T, CENTER_MM, POINT_MM)
    sigma = np.sqrt(np.diag(predicted))
    # The standard error of a correlation from 20000 samples is 0.7 %.
    np.testing.assert_allclose(sampled / np.outer(sigma, sigma), predicted / np.outer(sigma, sigma), atol=0.03)
    assert np.abs(predicted - factor @ factor.T)[3:, 3:].max() > 0.02  # recentring did something


# ---- SimpleITK and files ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("center_mm", [(0, 0, 0), (30, -40, 50)])
def test_simpleitk_moves_the_same_point(center_mm) -> None:
    pose = a_pose()
    transform = rigid.to_sitk(pose, center_mm)
    np.testing.assert_allclose(transform.TransformPoint(POINT_MM.tolist()), rigid.apply(pose, POINT_MM), atol=1e-9)
    np.testing.assert_allclose(transform.GetCenter(), center_mm)
    np.testing.assert_allclose(rigid.from_sitk(transform), pose, atol=1e-9)


# The last three are where Euler angles are weakest: a quarter turn about x, almost one, and a patient lying prone.
@pytest.mark.parametrize("rotation_rad", [(0.3, -0.7, 1.1), (np.pi / 2, 0, 0), (1.5707, 0.01, -0.005), (0, 0, np.pi)])
def test_files_keep_the_direction_of_the_map(tmp_path: Path, rotation_rad) -> None:
    import SimpleITK as sitk

    pose, path = a_pose(rotation_rad), tmp_path / "pose.tfm"
    rigid.write_tfm(path, pose)
    # ITK itself reads a map of points, volume to isocentre.
    moved = sitk.ReadTransform(str(path)).TransformPoint(POINT_MM.tolist())
    np.testing.assert_allclose(moved, rigid.apply(pose, POINT_MM), atol=0.01)
    np.testing.assert_allclose(rigid.read_tfm(path), pose, atol=0.01)
    np.testing.assert_allclose(rigid.apply(rigid.inverse(rigid.read_tfm(path)), moved), POINT_MM, atol=0.01)


def test_other_rigid_transforms_are_read() -> None:
    import SimpleITK as sitk

    turn = sitk.VersorRigid3DTransform((0, 0, 1), np.pi / 2, (1, 2, 3), (10, 0, 0))
    # Centre (10, 0, 0), quarter turn about z: (0, 0, 0) -> (10, -10, 0) -> plus (1, 2, 3).
    np.testing.assert_allclose(rigid.apply(rigid.from_sitk(turn), [0, 0, 0]), (11, -8, 3), atol=1e-9)
    shift = sitk.TranslationTransform(3, (100, 0, 0))
    # A composite applies the transform added last first: shift, then turn. (0,0,0) -> (100,0,0) -> (10,90,0) -> (11,92,3).
    both = sitk.CompositeTransform([turn, shift])
    np.testing.assert_allclose(rigid.apply(rigid.from_sitk(both), [0, 0, 0]), (11, 92, 3), atol=1e-9)


NOT_RIGID = {
    "shape": np.eye(3),
    "nan": np.full((4, 4), np.nan),
    "scale": np.diag([1.1, 1, 1, 1]),
    "mirror": np.diag([-1.0, 1, 1, 1]),
    "shear": np.array([[1, 0.1, 0, 0], *np.eye(4)[1:]]),
}


@pytest.mark.parametrize("matrix", NOT_RIGID.values(), ids=NOT_RIGID)
def test_what_is_not_rigid_is_refused(matrix) -> None:
    with pytest.raises(FluoroGuideError):
        rigid.check_rigid(matrix)


def test_rounding_is_repaired() -> None:
    rounded = np.round(a_pose(), 4)
    repaired = rigid.check_rigid(rounded)
    np.testing.assert_allclose(repaired[:3, :3] @ repaired[:3, :3].T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(repaired, rounded, atol=2e-4)


def test_transforms_that_bend_space_are_refused(tmp_path: Path) -> None:
    """A B-spline is the identity where its grid is absent: read at a few points only, it would pass for rigid."""
    import SimpleITK as sitk

    for transform in (sitk.BSplineTransform(3), sitk.Euler2DTransform(), sitk.ScaleTransform(3, (1.2, 1, 1))):
        sitk.WriteTransform(transform, str(tmp_path / "bad.tfm"))
        with pytest.raises(FluoroGuideError):
            rigid.read_tfm(tmp_path / "bad.tfm")


def test_wrong_transform_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.tfm").write_text("not a transform\n")
    for path in (tmp_path / "absent.tfm", tmp_path / "text.tfm"):
        with pytest.raises(FluoroGuideError) as caught:
            rigid.read_tfm(path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)
