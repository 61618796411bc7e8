"""The projector against closed forms, against its numpy twin, and its pose derivative against central differences."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.frames import lps_from_ijk
from FluoroGuideLib.projection import joseph, reference
from FluoroGuideLib.projection.joseph import Projector

ANGLES = [(0, 0), (90, 0), (35, 20), (-120, -15), (10, 60)]
POSE = rigid.motion([0.1, -0.2, 0.15, 5, -8, 12], np.zeros(3))
CENTER_MM = np.array([10.0, -20.0, 15.0])
BACKENDS = ["numba", "numpy"]


def view_at(angles: tuple[float, float], n: int = 64, spacing: float = 3.2) -> CArmView:
    return CArmView.from_angles(
        *angles, sid_mm=1000, sod_mm=650, rows=n, columns=n + 6, pixel_spacing_mm=(spacing, 1.1 * spacing), principal_point_px=(n / 2 - 3, n / 2 + 2),
    )


def blob_volume() -> tuple[object, list[tuple]]:
    """Gaussian blobs in an oblique, anisotropic image whose border they do not reach (> 4.5 sigma away)."""
    rng = np.random.default_rng(7)
    blobs = [(rng.uniform(-30, 30, 3), rng.uniform(8, 13), rng.uniform(0.005, 0.02)) for _ in range(10)]
    size, spacing = (124, 128, 100), np.array([1.5, 1.45, 1.9])
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(rigid.rotation_from_vector([0.2, -0.1, 0.3]).ravel().tolist())
    image.SetOrigin((-lps_from_ijk(image)[:3, :3] @ (np.array(size) / 2)).tolist())
    k, j, i = np.mgrid[: size[2], : size[1], : size[0]]
    matrix = lps_from_ijk(image)
    points = np.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]
    values = sum(a * np.exp(-((points - m) ** 2).sum(-1) / (2 * s * s)) for m, s, a in blobs)
    filled = sitk.GetImageFromArray(values.astype(np.float32))
    filled.CopyInformation(image)
    return filled, blobs


def blob_integrals(blobs: list[tuple], view: CArmView, pose: np.ndarray) -> np.ndarray:
    """Closed form: a line at distance d from the centre of a Gaussian collects a sqrt(2 pi) s exp(-d^2 / 2 s^2)."""
    seen = view.in_volume(pose)
    rows, columns = np.mgrid[: view.rows, : view.columns]
    rays = seen.ray_directions(np.column_stack([columns.ravel(), rows.ravel()]))
    total = np.zeros(len(rays))
    for mean, sigma, amplitude in blobs:
        to = mean - seen.source_mm
        distance2 = to @ to - (rays @ to) ** 2
        total += amplitude * np.sqrt(2 * np.pi) * sigma * np.exp(-distance2 / (2 * sigma**2))
    return total.reshape(view.rows, view.columns)


@pytest.fixture(scope="module")
def blobs() -> tuple:
    return blob_volume()


def relative_rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).mean() / (b**2).mean()))


@pytest.mark.parametrize("angles", ANGLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_line_integrals_agree_with_the_closed_form_within_half_a_percent(blobs: tuple, angles: tuple, backend: str) -> None:
    image, shapes = blobs
    view = view_at(angles)
    truth = blob_integrals(shapes, view, POSE)
    assert truth.max() > 0.5  # not a comparison of nothing with nothing
    assert relative_rms(Projector(image, backend).project(view, POSE), truth) < 0.005


@pytest.mark.parametrize("angles", ANGLES)
def test_jacobian_agrees_with_central_differences_of_the_closed_form(blobs: tuple, angles: tuple) -> None:
    image, shapes = blobs
    view = view_at(angles)
    _, jacobian = Projector(image).project_with_jacobian(view, POSE, CENTER_MM)
    for p in range(6):
        step = np.eye(6)[p] * (1e-3 if p < 3 else 0.05)
        plus, minus = (blob_integrals(shapes, view, rigid.perturb(POSE, s * step, CENTER_MM)) for s in (1, -1))
        slope = (plus - minus) / (2 * step[p])
        assert (jacobian[p] * slope).sum() / (slope * slope).sum() == pytest.approx(1, abs=0.01), p
        assert np.corrcoef(jacobian[p].ravel(), slope.ravel())[0, 1] > 0.99, p


def test_numba_and_numpy_kernels_agree(blobs: tuple) -> None:
    image, _ = blobs
    rng = np.random.default_rng(1)
    for angles in ANGLES:
        view = view_at(angles, 40, 5.0)
        mask = (rng.random((view.rows, view.columns)) > 0.3).astype(np.uint8)
        results = [Projector(image, b).project_with_jacobian(view, POSE, CENTER_MM, mask) for b in BACKENDS]
        assert not results[0][0][mask == 0].any()
        assert results[0][0].max() > 0.1
        np.testing.assert_allclose(results[0][0], results[1][0], atol=2e-5)
        for p in range(6):
            np.testing.assert_allclose(results[0][1][p], results[1][1][p], atol=2e-4 * np.abs(results[1][1][p]).max())
        np.testing.assert_allclose(Projector(image, "numba").project(view, POSE, mask), results[0][0], atol=2e-5)


def test_rows_and_columns_may_change_places(blobs: tuple) -> None:
    """The compiled kernel walks through the pixels along memory, down the columns or along the rows: both give every pixel its own ray."""
    projector, mask = Projector(blobs[0]), (np.random.default_rng(2).random((40, 46)) > 0.3).astype(np.uint8)
    for angles in ANGLES:
        view = view_at(angles, 40, 5.0)
        turned = CArmView(view.columns, view.rows, view.source_mm, view.first_pixel_mm, view.row_step_mm, view.column_step_mm)
        here, there = (
            projector.project_with_jacobian(v, POSE, CENTER_MM, np.ascontiguousarray(m)) for v, m in ((view, mask), (turned, mask.T)))
        assert here[0].max() > 0.1
        np.testing.assert_allclose(there[0].T, here[0], atol=1e-5)
        np.testing.assert_allclose(there[1].transpose(0, 2, 1), here[1], atol=1e-5 * np.abs(here[1]).max())
        np.testing.assert_allclose(projector.project(turned, POSE, np.ascontiguousarray(mask.T)).T, here[0], atol=1e-5)


def test_slabs_skip_only_what_is_empty() -> None:
    """A body with sharp edges, hollow and crooked, against the same in a box whose far corners hold next to nothing: then no slab cuts."""
    k, j, i = np.mgrid[:48, :40, :44]
    body = (np.hypot(i - 20, j - 18) < 14) & (np.abs(k - 0.5 * i - 12) < 9) & (np.hypot(i - 24, k - 24) > 4)
    values = np.where(body, 0.02, 0.0).astype(np.float32)
    boxed = values.copy()
    boxed[np.ix_((0, 47), (0, 39), (0, 43))] = 0.02 / 255 * 0.6  # one step of 255
    tight, loose = (Projector(sitk.GetImageFromArray(v)) for v in (values, boxed))
    pose = rigid.motion([0.3, -0.2, 0.1, -22, -20, -24], np.zeros(3))
    for angles in ANGLES:
        view = view_at(angles, 56, 1.6)
        pictures = [p.project_with_jacobian(view, pose, np.zeros(3)) for p in (tight, loose)]
        assert pictures[0][0].max() > 0.2
        assert np.abs(pictures[0][0] - pictures[1][0]).max() < 6e-4  # what the corners themselves cast
        np.testing.assert_allclose(tight.project(view, pose), pictures[0][0], atol=1e-5)
    for axis in range(3):
        slabs, box = tight._get(axis)[1], loose._get(axis)[1]
        assert np.all(np.diff(slabs) < np.diff(box))
        words = np.argwhere(tight._get(axis)[0])
        for n, (m, sign) in enumerate(((1, 1), (1, -1), (2, 1), (2, -1))):
            corners = words[:, 0] + sign * (words[:, m] + np.array([[0], [1]]))
            assert slabs[n] == pytest.approx((corners.min(), corners.max()), abs=0.05)


def test_jacobian_pass_gives_the_same_image(blobs: tuple) -> None:
    projector, view = Projector(blobs[0]), view_at((35, 20))
    np.testing.assert_allclose(projector.project_with_jacobian(view, POSE, CENTER_MM)[0], projector.project(view, POSE), atol=1e-5)


def test_sharp_ellipsoids_voxelised_at_one_and_a_half_mm() -> None:
    """Dominated by the voxels' partial volume; the chord of a line through an ellipsoid is the closed form."""
    bodies = [(np.zeros(3), np.array([70.0, 50.0, 60.0]), 0.02), (np.array([20.0, 10.0, -15.0]), np.array([12.0, 18.0, 25.0]), 0.02)]
    fine = np.arange(-74.5, 74, 0.5)  # 297 = 3 x 99
    z, y, x = np.meshgrid(fine, fine, fine, indexing="ij", sparse=True)
    values = np.zeros((297, 297, 297), np.float32)
    for center, axes, mu in bodies:
        values += mu * ((((x - center[0]) / axes[0]) ** 2 + ((y - center[1]) / axes[1]) ** 2 + ((z - center[2]) / axes[2]) ** 2) <= 1)
    values = values.reshape(99, 3, 99, 3, 99, 3).mean(axis=(1, 3, 5))
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([1.5] * 3)
    image.SetOrigin([-74.0] * 3)  # centre of the first 3x3x3 block: (-74.5 - 74 - 73.5) / 3
    for angles in ANGLES[:3]:
        view = view_at(angles)
        seen = view.in_volume(POSE)
        rows, columns = np.mgrid[: view.rows, : view.columns]
        rays = seen.ray_directions(np.column_stack([columns.ravel(), rows.ravel()]))
        truth = np.zeros(len(rays))
        for center, axes, mu in bodies:
            o, d = (seen.source_mm - center) / axes, rays / axes
            a, b, c = (d * d).sum(1), d @ o, o @ o - 1
            truth += mu * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a
        assert relative_rms(Projector(image).project(view, POSE), truth.reshape(view.rows, view.columns)) < 0.03


def test_slow_reference_agrees_with_the_closed_form_and_the_projector(blobs: tuple) -> None:
    image, shapes = blobs
    view = view_at((35, 20), 20, 10.0)
    slow = reference.line_integrals(image, view, POSE, step_mm=1.0)
    assert relative_rms(slow, blob_integrals(shapes, view, POSE)) < 0.005
    assert relative_rms(Projector(image).project(view, POSE), slow) < 0.005


def test_a_bright_voxel_lands_where_the_view_projects_it() -> None:
    """An asymmetric point: any swapped axis, sign or half-voxel shift in the projector moves it by pixels."""
    values = np.zeros((40, 50, 60), np.float32)
    values[11:14, 31:34, 8:11] = 1.0  # centre at i=9, j=32, k=12
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 1.5, 2.5))
    image.SetOrigin((-60.0, -30.0, -50.0))
    point = np.array(image.TransformIndexToPhysicalPoint((9, 32, 12)))
    for angles in ANGLES:
        view = view_at(angles, 240, 1.0)
        shadow = Projector(image).project(view, POSE)
        rows, columns = np.mgrid[: view.rows, : view.columns]
        center = np.array([(columns * shadow).sum(), (rows * shadow).sum()]) / shadow.sum()
        np.testing.assert_allclose(center, view.project(rigid.apply(POSE, point))[0], atol=0.1)


def test_pixel_distances_by_hand() -> None:
    """AP, SID 1000, 3x3 pixels of 30 mm: the centre is 1000 mm away, a corner sqrt(1000^2 + 30^2 + 30^2)."""
    view = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=700, rows=3, columns=3, pixel_spacing_mm=(30, 30))
    distances = joseph.pixel_distances(view)
    assert distances[1, 1] == pytest.approx(1000)
    assert distances[0, 2] == pytest.approx(np.sqrt(1_001_800))


def test_empty_volume_and_unknown_backend_are_named() -> None:
    image = sitk.Image((8, 8, 8), sitk.sitkFloat32)
    with pytest.raises(FluoroGuideError, match="attenuates nothing"):
        Projector(image)
    with pytest.raises(FluoroGuideError, match="cuda"):
        Projector(image + 1.0, "cuda")
