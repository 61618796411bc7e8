"""Calibration from a ball, from fiducials, and of a distorted intensifier; against simulated pictures with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.calibration import ball_calibration, direct_linear_transform, plate_calibration
from FluoroGuideLib.imaging.distortion import Distortion, distortion_from_grid, find_dots


# ---- ball -------------------------------------------------------------------------------------------------------
def ball_outline(center_mm, radius_mm: float, sid_mm: float, spacing: float, size: int, count: int = 90) -> np.ndarray:
    """Pixels of the shadow's edge: rays from the source (origin, beam +z) that touch the ball, by geometry.

    The rays that touch a ball form a cone about its centre's direction with half angle asin(r / distance).
    """
    center = np.asarray(center_mm, float)
    distance = np.linalg.norm(center)
    axis = center / distance
    half = np.arcsin(radius_mm / distance)
    side = np.cross(axis, [0, 1, 0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None]
    rays = np.cos(half) * axis + np.sin(half) * (np.cos(angles) * side + np.sin(angles) * other)
    return rays[:, :2] / rays[:, 2:] * sid_mm / spacing + (size - 1) / 2


@pytest.mark.parametrize("center", [(0.0, 0.0, 700.0), (60.0, -40.0, 700.0), (-90.0, 20.0, 640.0)])
def test_a_ball_gives_the_distance_wherever_it_lies(center):
    # SID 1000 mm, ball at depth 700 mm: magnification 1000 / 700 = 1.42857.  Without noise exact, off the axis too.
    edge = ball_outline(center, 12.5, 1000, 0.2, 1024)
    found = ball_calibration(edge, 25.0, (0.2, 0.2), sid_mm=1000, image_size=(1024, 1024))
    assert found.source_to_object_mm == pytest.approx(center[2], abs=0.05)
    assert found.magnification == pytest.approx(1000 / center[2], rel=1e-4)
    other = ball_calibration(edge, 25.0, (0.2, 0.2), source_to_object_mm=center[2], image_size=(1024, 1024))
    assert other.source_to_detector_mm == pytest.approx(1000, abs=0.1)
    assert other.to_card()["source_to_detector_mm"] == other.source_to_detector_mm


def test_a_balls_error_is_as_large_as_said():
    rng = np.random.default_rng(3)
    edge = ball_outline((30, 20, 700), 12.5, 1000, 0.2, 1024)
    noisy = (edge + 0.3 * rng.standard_normal(edge.shape) for _ in range(60))
    found = [ball_calibration(points, 25.0, (0.2, 0.2), sid_mm=1000, image_size=(1024, 1024)) for points in noisy]
    spread = np.std([f.magnification for f in found])
    assert np.mean([f.sigma for f in found]) == pytest.approx(spread, rel=0.5)
    assert np.mean([f.source_to_object_mm for f in found]) == pytest.approx(700, abs=1.5)


@pytest.mark.parametrize(("points", "options", "words"), [
    (np.zeros((4, 2)), {"sid_mm": 1000}, "at least 8"), (np.column_stack([np.arange(20.0), np.arange(20.0)]), {"sid_mm": 1000}, "line|ellipse"),
    (ball_outline((0, 0, 700), 12.5, 1000, 0.2, 512), {}, "exactly one"),
    (ball_outline((0, 0, 700), 12.5, 1000, 0.2, 512), {"sid_mm": 1000, "source_to_object_mm": 700}, "exactly one"),
    (ball_outline((0, 0, 700), 2.0, 1000, 0.2, 512), {"sid_mm": 1000}, "behind the detector"),
])
def test_wrong_balls(points, options, words):
    with pytest.raises(FluoroGuideError, match=words):
        ball_calibration(points, 25.0, (0.2, 0.2), **options)


# ---- plate ------------------------------------------------------------------------------------------------------
def cage(layers=(-50.0, 50.0), count: int = 7, pitch: float = 18.0) -> np.ndarray:
    """Two plates of beads."""
    side = (np.arange(count) - (count - 1) / 2) * pitch
    return np.array([(x, y, z) for z in layers for x in side for y in side + 0.1 * z])


VIEW = CArmView.from_angles(20, 10, sid_mm=1000, sod_mm=650, rows=1024, columns=1024, pixel_spacing_mm=(0.3, 0.3), principal_point_px=(520, 505))


def test_exact_points_give_the_exact_matrix():
    points = cage()
    pixels = VIEW.project(points)
    matrix = direct_linear_transform(points, pixels)
    true = VIEW.projection_matrix
    np.testing.assert_allclose(matrix / matrix[2, 3], true / true[2, 3], rtol=1e-6, atol=1e-9)
    found = plate_calibration(points, pixels, pixel_spacing_mm=(0.3, 0.3))
    np.testing.assert_allclose(found.source_mm, VIEW.source_mm, atol=1e-4)
    assert found.sid_mm == pytest.approx(1000, abs=1e-3)
    assert found.principal_point_px == pytest.approx((520, 505), abs=1e-3)
    assert found.reprojection_rms_px < 1e-6
    np.testing.assert_allclose(found.view(1024, 1024).project(points), pixels, atol=1e-5)


def test_source_to_within_a_millimetre_with_noise_of_a_third_of_a_pixel():
    # Two plates of 10 x 10 beads, 144 mm wide, 130 mm apart: what fits into the field of a 30 cm detector.
    points = cage(layers=(-65.0, 65.0), count=10, pitch=16.0)
    errors, sigmas = [], []
    for seed in range(10):
        noise = 0.3 * np.random.default_rng(seed).standard_normal((len(points), 2))
        found = plate_calibration(points, VIEW.project(points) + noise, pixel_spacing_mm=(0.3, 0.3))
        errors.append(found.source_mm - VIEW.source_mm)
        sigmas.append(found.source_sigma_mm)
        # 0.3 px in each direction is 0.42 px in the plane.
        assert 0.3 < found.reprojection_rms_px < 0.5
    distances = np.linalg.norm(errors, axis=1)
    assert np.percentile(distances, 95) < 1.0
    # The error that is told is the error that is made.
    np.testing.assert_allclose(np.mean(sigmas, axis=0), np.std(errors, axis=0), rtol=0.35)


def test_pixels_of_any_shape_and_mirrored_pictures():
    view = CArmView.from_angles(-35, 0, sid_mm=1100, sod_mm=700, rows=800, columns=1000, pixel_spacing_mm=(0.4, 0.25))
    points = cage()
    mirrored = view.project(points) * (-1, 1) + (999, 0)
    for pixels in (view.project(points), mirrored):
        for square in (True, False):
            found = plate_calibration(points, pixels, pixel_spacing_mm=(0.4, 0.25), square_pixels=square)
            np.testing.assert_allclose(found.source_mm, view.source_mm, atol=1e-3)
            assert found.sid_mm == pytest.approx(1100, abs=0.01)


def test_real_biplane_calibration_can_be_found_again(data_dir):
    """The calibrated matrix of a real lab, from points projected with it."""
    lines = (data_dir / "knee_biplane_autoscoper" / "Calibration" / "xr_calib_left_knee_cam01.txt").read_text().splitlines()
    numbers = [[float(v) for v in line.replace(",", " ").split()] for line in lines if line.strip() and line.strip()[0] in "-0123456789"]
    blocks = [row for row in numbers if len(row) == 3]
    inner, rotation, shift = np.array(blocks[0:3]), np.array(blocks[3:6]), np.array([v[0] for v in numbers if len(v) == 1] or blocks[6])
    matrix = inner @ np.column_stack([rotation, shift])
    points = cage(pitch=15.0) + -rotation.T @ shift + rotation[2] * 700 * np.sign(np.linalg.det(inner))
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    # Its pixels are not square: focal lengths 8674 and 8724.
    found = plate_calibration(points, homogeneous[:, :2] / homogeneous[:, 2:], square_pixels=False)
    np.testing.assert_allclose(found.source_mm, -rotation.T @ shift, atol=1e-2)


@pytest.mark.parametrize(("points", "words"), [
    (cage()[:5], "at least six"), (cage(layers=(0.0,)), "one plane"), (np.full((8, 3), np.nan), "matching"),
])
def test_wrong_fiducials(points, words):
    with pytest.raises(FluoroGuideError, match=words):
        plate_calibration(points, VIEW.project(points) if np.isfinite(points).all() else np.zeros((8, 2)))


def test_swapped_fiducials_show_in_the_reprojection_error():
    points = cage()
    pixels = VIEW.project(points)
    pixels[[3, 40]] = pixels[[40, 3]]
    assert plate_calibration(points, pixels).reprojection_rms_px > 5


# ---- intensifier ------------------------------------------------------------------------------------------------
SIZE = 512


def truly_distorted(pixels: np.ndarray, pincushion: float = 0.05, swirl: float = 0.03) -> np.ndarray:
    """Radial (pincushion) and rotational (S-shape) distortion, as shares of the rim's radius."""
    middle, rim = (SIZE - 1) / 2, SIZE / 2
    unit = (pixels - middle) / rim
    square = (unit**2).sum(axis=1, keepdims=True)
    turned = np.column_stack([-unit[:, 1], unit[:, 0]])
    return middle + rim * (unit * (1 + pincushion * square) + swirl * turned * square)


def grid_picture(pitch: float = 24.0, turn_deg: float = 4.0, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """Dark dots of a turned grid seen through the distortion, in a round field, with noise."""
    turn = np.radians(turn_deg)
    i, j = np.mgrid[-14:15, -14:15]
    ideal = np.column_stack([i.ravel(), j.ravel()]) * pitch @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + (250.3, 258.7)
    seen = truly_distorted(ideal[np.linalg.norm(ideal - (SIZE - 1) / 2, axis=1) < 0.46 * SIZE])
    r, c = np.mgrid[:SIZE, :SIZE]
    picture = 1.0 - 0.3 * (((r - 256) ** 2 + (c - 256) ** 2) / 256**2)
    for x, y in seen:
        window = np.s_[max(int(y) - 8, 0):int(y) + 9, max(int(x) - 8, 0):int(x) + 9]
        picture[window] -= 0.5 * np.exp(-((c[window] - x) ** 2 + (r[window] - y) ** 2) / (2 * 2.2**2))
    return picture + noise * np.random.default_rng(seed).standard_normal(picture.shape)


def test_distortion_of_five_percent_is_reduced_below_a_third_of_a_pixel():
    found = distortion_from_grid(grid_picture())
    # 5 % of the rim's 256 px is 12.8 px; the dots reach 0.92 of the rim.
    assert found.before_px > 8
    assert found.residual_px < 0.3
    assert found.left_out_px < 0.3
    # Independent of the dots: straight lines come out straight.  Points of a line, distorted by the truth and
    # corrected, lie on a line again (the frame may be turned, shifted and scaled as a whole).
    for start, stop in (((60, 120), (450, 130)), ((256, 50), (256, 460)), ((100, 400), (400, 110))):
        line = np.linspace(start, stop, 60)
        line = line[np.linalg.norm(line - (SIZE - 1) / 2, axis=1) < 0.44 * SIZE]
        crooked = truly_distorted(line)
        straight = found.undistorted(crooked)

        def bend(points):
            centered = points - points.mean(axis=0)
            return float(np.abs(centered @ np.linalg.svd(centered)[2][1]).max())

        assert bend(straight) < 0.3
        assert bend(crooked) > 2 * bend(straight)
    np.testing.assert_allclose(found.distorted(found.undistorted(crooked)), crooked, atol=1e-4)


def test_correcting_a_picture_moves_dots_to_a_regular_grid():
    picture = grid_picture(noise=0.0)
    found = distortion_from_grid(picture)
    again = Distortion.from_dict(found.to_dict())
    corrected = again.corrected(picture)
    dots = find_dots(-np.nan_to_num(corrected, nan=1.0))
    middle = dots[np.linalg.norm(dots - (SIZE - 1) / 2, axis=1) < 0.4 * SIZE]
    nearest = [np.sort(np.linalg.norm(middle - d, axis=1))[1] for d in middle]
    assert np.ptp(np.percentile(nearest, (2, 98))) < 0.5
    # Before, the pitch at the rim is (1 + 3 * 0.05 * 0.8^2) = 1.1 times that in the middle.
    with pytest.raises(FluoroGuideError, match="another size"):
        found.corrected(np.zeros((100, 100)))


@pytest.mark.parametrize("picture", [np.zeros((256, 256)), np.random.default_rng(0).standard_normal((256, 256))])
def test_pictures_without_a_grid(picture):
    with pytest.raises(FluoroGuideError, match="grid"):
        distortion_from_grid(picture)


def test_a_card_with_a_distortion_straightens_pictures_as_they_are_read(tmp_path):
    import SimpleITK as sitk

    from FluoroGuideLib.imaging.live import QueuedSource
    from FluoroGuideLib.imaging.sources import open_xray

    picture = (1000 * grid_picture(noise=0.0)).clip(0, 2000).astype(np.uint16)
    found = distortion_from_grid(picture)
    sitk.WriteImage(sitk.GetImageFromArray(picture), str(tmp_path / "x.png"))
    card = {"source_to_detector_mm": 1000, "source_to_isocenter_mm": 600, "primary_angle_deg": 0, "secondary_angle_deg": 0,
            "pixel_spacing_mm": [0.5, 0.5], "angle_reference": "patient", "distortion": found.to_dict()}
    run = open_xray(tmp_path / "x.png", card)
    expected = found.corrected(picture)
    inside = run.mask[0]
    np.testing.assert_allclose(run.frames[0][inside], expected[inside], atol=0.51)
    assert any("distortion corrected" in text for text in run.assumptions)

    class One(QueuedSource):
        def _receive(self):
            self._put(picture)

    with One("test", card, polarity="bone dark") as source:
        image = next(source.frames(5.0)).image
    # Nearest neighbours instead of linear interpolation: the same dots, at most half a pixel off.
    straight, live = find_dots(-np.nan_to_num(expected, nan=900.0)), find_dots(image.pixels.astype(float))
    nearest = np.array([np.linalg.norm(live - d, axis=1).min() for d in straight if np.linalg.norm(d - 256) < 180])
    assert np.percentile(nearest, 95) < 0.5
    with pytest.raises(FluoroGuideError, match="distortion"):
        open_xray(tmp_path / "x.png", {**card, "distortion": {"rows": 3}})
