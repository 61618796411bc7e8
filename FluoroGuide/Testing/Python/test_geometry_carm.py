"""C-arm views against points computed by hand, a physical model of the gantry, and two calibrated data sets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView, angles_of_beam, beam_axes, describe_angles, patient_angles

# Left 10, anterior 20, superior 30: no coordinate can be mistaken for another.
POINT_LPS_MM = np.array([10.0, -20.0, 30.0])


def a_view(primary_deg: float = 0.0, secondary_deg: float = 0.0, **changes) -> CArmView:
    """SID 1000, SOD 700, 200 rows x 300 columns; rows 0.5 mm and columns 0.4 mm apart, so (149.5, 99.5) is the centre."""
    values = {"sid_mm": 1000.0, "sod_mm": 700.0, "rows": 200, "columns": 300, "pixel_spacing_mm": (0.5, 0.4)}
    return CArmView.from_angles(primary_deg, secondary_deg, **{**values, **changes})


# For x = (10, -20, 30): depth = x.d + 700, column = 1000 x.u / depth / 0.4 + 149.5, row = 1000 x.v / depth / 0.5 + 99.5.
@pytest.mark.parametrize(
    ("angles", "source_mm", "pixel"),
    [
        # AP: d anterior, u left, v caudal. depth 20 + 700; column 10000/720/0.4 = 34.722; row -30000/720/0.5 = -83.333.
        ((0, 0), (0, 700, 0), (184.2222, 16.1667)),
        # LAO 90: detector at the left side, u posterior. depth 710; column -20000/710/0.4 = -70.423; row -30000/710/0.5 = -84.507.
        ((90, 0), (-700, 0, 0), (79.0775, 14.9930)),
        # RAO 90: detector at the right side, u anterior. depth 690; column +20000/690/0.4 = 72.464; row -30000/690/0.5 = -86.957.
        ((-90, 0), (700, 0, 0), (221.9638, 12.5435)),
        # Prone, detector overhead (PA): d posterior, u right. depth 680; column -10000/680/0.4 = -36.765; row -88.235.
        ((180, 0), (0, -700, 0), (112.7353, 11.2647)),
        # CRA 30: d = (0, -0.8660, 0.5), v = (0, -0.5, -0.8660). depth 17.3205 + 15 + 700; x.v = 10 - 25.9808 = -15.9808.
        ((0, 30), (0, 606.2178, -350), (183.6381, 55.8558)),
        # LAO 30 CRA 20: d = (.469846, -.813798, .342020), u = (.866025, .5, 0), v = (.171010, -.296198, -.939693).
        # x.d = 4.69846 + 16.27595 + 10.26060 = 31.23502; x.u = 8.66025 - 10 = -1.33975; x.v = 1.71010 + 5.92396 - 28.19078 = -20.55672.
        ((30, 20), (-328.8924, 569.6584, -239.4141), (144.9196, 43.2754)),
    ],
)
def test_a_point_projects_where_the_hand_computes_it(angles, source_mm, pixel) -> None:
    view = a_view(*angles)
    np.testing.assert_allclose(view.source_mm, source_mm, atol=1e-4)
    np.testing.assert_allclose(view.project(POINT_LPS_MM)[0], pixel, atol=1e-4)


def test_what_the_doctor_sees_in_the_usual_views() -> None:
    """Left of the patient on the right of the AP image, head up; from the left side the face looks left."""
    def shift(angles, point):
        return a_view(*angles).project(np.array(point, float))[0] - (149.5, 99.5)

    assert shift((0, 0), (50, 0, 0))[0] > 0
    assert shift((0, 0), (0, 0, 50))[1] < 0
    assert shift((90, 0), (0, -50, 0))[0] < 0
    assert shift((180, 0), (50, 0, 0))[0] < 0  # prone, seen from behind
    # LAO 40 uncovers: something in front of the centre moves to the patient's right, image left; CRA moves it down.
    assert shift((40, 0), (0, -50, 0))[0] < 0
    assert shift((0, 20), (0, -50, 0))[1] > 0


# Rotation of the patient on the table, from the HFS axes (L, P, S) to the room: what is the patient's left in the room?
ROOM_FROM_PATIENT = {"HFS": (1, 1, 1), "HFP": (-1, -1, 1), "FFS": (-1, 1, -1), "FFP": (1, -1, -1)}


@pytest.mark.parametrize("position", ROOM_FROM_PATIENT)
@pytest.mark.parametrize("gantry", [(0, 0), (30, 20), (-75, -12), (140, 5)])
def test_gantry_angles_for_each_patient_position(position, gantry) -> None:
    """The gantry knows only the room: project there, after laying the patient on the table, and compare."""
    points_lps_mm = np.random.default_rng(1).uniform(-60, 60, (20, 3))
    seen = a_view(*gantry).project(points_lps_mm * ROOM_FROM_PATIENT[position])
    primary, secondary, turn = patient_angles(*gantry, position)
    if turn:
        seen = np.array([299.0, 199.0]) - seen
    np.testing.assert_allclose(a_view(primary, secondary).project(points_lps_mm), seen, atol=1e-9)
    assert -180 <= primary < 180


def test_an_unknown_patient_position_is_never_assumed() -> None:
    with pytest.raises(FluoroGuideError, match="HFS, HFP, FFS, FFP"):
        patient_angles(10, 0, "")


@pytest.mark.parametrize("angles", [(0, 0), (30, 20), (-30, -25), (120, 40), (-170, 5)])
def test_axes_and_angles(angles) -> None:
    u, v, d = beam_axes(*angles)
    np.testing.assert_allclose(np.array([u, v, d]) @ np.array([u, v, d]).T, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(np.cross(u, v), -d, atol=1e-15)  # left-handed: seen from the detector
    np.testing.assert_allclose(angles_of_beam(3.0 * d), angles, atol=1e-9)
    view = a_view(*angles)
    np.testing.assert_allclose(view.angles_deg, angles, atol=1e-9)
    assert view.sid_mm == pytest.approx(1000)
    assert view.sod_mm == pytest.approx(700)
    np.testing.assert_allclose(view.pixel_spacing_mm, (0.5, 0.4), rtol=1e-12)
    np.testing.assert_allclose(view.principal_point_px, (149.5, 99.5), atol=1e-9)
    np.testing.assert_allclose(view.detector_center_mm, 300 * d, atol=1e-9)


def test_words_for_angles() -> None:
    assert describe_angles(0, 0) == "AP"
    assert describe_angles(30, -20) == "LAO 30.0 CAU 20.0"
    assert describe_angles(-12.34, 5) == "RAO 12.3 CRA 5.0"


def test_principal_point_and_table_offset() -> None:
    # In AP the principal point (10, 20) is where the isocentre projects.
    view = a_view(principal_point_px=np.array([10.0, 20.0]))
    np.testing.assert_allclose(view.project(np.zeros(3))[0], (10, 20), atol=1e-9)
    np.testing.assert_allclose(view.principal_point_px, (10, 20), atol=1e-9)
    assert a_view(principal_point_px=(0, 0)).principal_point_px == pytest.approx((0, 0), abs=1e-9)
    moved = a_view(30, 20, table_offset_mm=(5, -6, 7))
    np.testing.assert_allclose(moved.project(POINT_LPS_MM + (5, -6, 7)), a_view(30, 20).project(POINT_LPS_MM), atol=1e-9)


def test_rays_meet_their_pixels() -> None:
    view = a_view(25, -15)
    pixels = np.array([[0.0, 0.0], [299.0, 10.0], [77.25, 150.75]])
    for distance_mm in (400.0, 700.0, 950.0):
        points = view.source_mm + distance_mm * view.ray_directions(pixels)
        np.testing.assert_allclose(view.project(points), pixels, atol=1e-9)
    np.testing.assert_allclose(view.project(view.pixel_mm(pixels)), pixels, atol=1e-9)


def test_points_behind_the_source_project_nowhere() -> None:
    view = a_view()
    assert np.isnan(view.project([[0, 701, 0]])).all()  # the AP source is at posterior 700
    assert np.isnan(view.project([view.source_mm])).all()
    assert view.depth_mm([[0, 701, 0]])[0] == pytest.approx(-1)


def test_jacobian_against_central_differences() -> None:
    view, points, h = a_view(40, 25), np.random.default_rng(2).uniform(-80, 80, (10, 3)), 1e-3
    numeric = np.stack([(view.project(points + h * e) - view.project(points - h * e)) / (2 * h) for e in np.eye(3)], axis=-1)
    np.testing.assert_allclose(view.project_jacobian(points), numeric, rtol=1e-7, atol=1e-8)


def test_size_of_a_pixel_in_the_body() -> None:
    # At the isocentre 1 mm is magnified 1000/700 times; pixels are sqrt(0.5 * 0.4) mm on the geometric mean.
    assert a_view(30, 10).mm_per_pixel_at(np.zeros(3)) == pytest.approx(0.7 * np.sqrt(0.2))


def test_resampling_keeps_the_borders_and_cropping_the_pixels() -> None:
    view = a_view(30, 20)
    half = view.resampled(100, 150)
    # Pixel borders: -0.5 is the first border in both, rows - 0.5 the last.
    np.testing.assert_allclose(half.pixel_mm((-0.5, -0.5)), view.pixel_mm((-0.5, -0.5)), atol=1e-9)
    np.testing.assert_allclose(half.pixel_mm((149.5, 99.5)), view.pixel_mm((299.5, 199.5)), atol=1e-9)
    # The centre of a pixel twice as large lies between the centres of two small ones.
    np.testing.assert_allclose(half.pixel_mm((10, 20)), view.pixel_mm((20.5, 40.5)), atol=1e-9)
    part = view.cropped(30, 40, 100, 50)
    assert (part.columns, part.rows) == (100, 50)
    np.testing.assert_allclose(part.project(POINT_LPS_MM), view.project(POINT_LPS_MM) - (30, 40), atol=1e-9)


def test_a_view_in_the_volume_sees_the_volume_where_the_pose_puts_it() -> None:
    # Quarter turn about z, then a shift: volume (1, 2, 3) -> isocentre (-2 + 4, 1 + 5, 3 + 6).
    pose = np.array([[0, -1, 0, 4], [1, 0, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1.0]])
    view = a_view(30, 20)
    np.testing.assert_allclose(view.in_volume(pose).project([[1, 2, 3]]), view.project([[2, 6, 9]]), atol=1e-9)


def test_views_survive_json_and_are_frozen() -> None:
    view = a_view(30, 20)
    again = CArmView.from_dict(json.loads(json.dumps(view.to_dict())))
    assert again.to_dict() == view.to_dict()
    with pytest.raises(ValueError, match="read-only"):
        view.source_mm[0] = 1.0


def test_matrix_and_view_say_the_same() -> None:
    view = a_view(30, 20, principal_point_px=(120, 90))
    points = np.random.default_rng(3).uniform(-80, 80, (10, 3))
    homogeneous = np.c_[points, np.ones(10)] @ view.projection_matrix.T
    np.testing.assert_allclose(homogeneous[:, :2] / homogeneous[:, 2:], view.project(points), atol=1e-9)
    np.testing.assert_allclose(homogeneous[:, 2] * 1000, view.depth_mm(points), atol=1e-9)
    for scale in (1.0, 37.0):
        again = CArmView.from_projection_matrix(scale * view.projection_matrix, 200, 300, plane_distance_mm=1000)
        for name in ("source_mm", "first_pixel_mm", "column_step_mm", "row_step_mm"):
            np.testing.assert_allclose(getattr(again, name), getattr(view, name), atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [{"sid_mm": 0}, {"sid_mm": float("nan")}, {"sod_mm": -700}, {"sod_mm": 1000}, {"pixel_spacing_mm": (0.5, 0)}, {"rows": 0},
     {"table_offset_mm": (0, 0, float("inf"))}],
)
def test_impossible_geometry_is_one_sentence(changes) -> None:
    with pytest.raises(FluoroGuideError) as caught:
        a_view(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("matrix", [np.eye(3), np.zeros((3, 4)), np.full((3, 4), np.nan), np.vstack([np.eye(4)[:2], np.eye(4)[0]])])
def test_impossible_matrices_are_refused(matrix) -> None:
    with pytest.raises(FluoroGuideError, match="projection matrix"):
        CArmView.from_projection_matrix(matrix, 100, 100)


# ---- 19 exact matrices (data/xcat_projection_points) --------------------------------------------------------------------
# Two-dimensional points are mm on the detector about its centre, the second axis up; depth is 765 - x.. = distance from the
# source. Their axes in LPS: x = L, y = S, z = A; alpha is then the primary angle.
LPS_FROM_XCAT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@pytest.fixture(params=range(1, 20))
def xcat(request, data_dir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Matrix (3, 4), 3-D points (N, 3), 2-D points (N, 2) and alpha in degrees of one frame."""
    folder = data_dir / "xcat_projection_points"
    alpha = float(re.search(r"alpha \(degrees\)\s+(\S+)", (folder / f"Params{request.param}.txt").read_text()).group(1))
    return (*(np.loadtxt(folder / f"frame{request.param}_{kind}.txt") for kind in ("projMat", "3d", "2d")), alpha)


def test_exact_matrices_project_their_points(xcat) -> None:
    matrix, points, pixels, alpha = xcat
    view = CArmView.from_projection_matrix(matrix, 960, 960, plane_distance_mm=1194)
    np.testing.assert_allclose(view.project(points), pixels, atol=1e-6)
    a = np.radians(alpha)
    np.testing.assert_allclose(view.source_mm, -765 * np.array([np.sin(a), 0, np.cos(a)]), atol=1e-4)
    assert view.sod_mm == pytest.approx(765, abs=1e-4)
    assert view.sid_mm == pytest.approx(1194)
    np.testing.assert_allclose(view.pixel_spacing_mm, (1, 1), rtol=1e-6)
    # The direction of the beam is printed to 5e-9, which is 6e-6 mm at 1194 mm.
    np.testing.assert_allclose(view.principal_point_px, (0, 0), atol=1e-5)


def test_the_same_frames_from_angles_alone(xcat) -> None:
    """SID, SOD and alpha, by our sign convention, reproduce the published points; so does the matrix's derived angle."""
    matrix, points, pixels, alpha = xcat
    view = CArmView.from_angles(
        alpha, 0, sid_mm=1194, sod_mm=765, rows=960, columns=960, pixel_spacing_mm=(1, 1), principal_point_px=(0, 0))
    np.testing.assert_allclose(view.project(points @ LPS_FROM_XCAT.T) * (1, -1), pixels, atol=1e-6)
    in_lps = np.diag([1.0, -1, 1]) @ np.c_[matrix[:, :3] @ LPS_FROM_XCAT.T, matrix[:, 3]]
    np.testing.assert_allclose(CArmView.from_projection_matrix(in_lps, 960, 960).angles_deg, (alpha, 0), atol=1e-6)


# ---- a calibrated biplane laboratory (data/knee_biplane_autoscoper) -----------------------------------------------------
def read_calibration(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Camera matrix K (3, 3), rotation R (3, 3) and translation t (3,) of x = K (R X + t)."""
    lines = [line.strip() for line in path.read_text().splitlines()]

    def block(title: str) -> np.ndarray:
        first = lines.index(title) + 1
        return np.array([[float(x) for x in line.split(",")] for line in lines[first:first + 3]])

    return block("camera matrix"), block("rotation"), block("translation").ravel()


@pytest.fixture
def cameras(data_dir: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """K, R, t of both cameras."""
    folder = data_dir / "knee_biplane_autoscoper" / "Calibration"
    return [read_calibration(folder / f"xr_calib_left_knee_cam0{i}.txt") for i in (1, 2)]


def biplane_views(cameras) -> list[CArmView]:
    """Both views from their 3x4 matrices."""
    return [CArmView.from_projection_matrix(k @ np.c_[r, t], 1760, 1760) for k, r, t in cameras]


def test_calibrated_cameras_project_as_opencv_does(cameras) -> None:
    points = np.array([[145, 112, 93], [121, 122, -3], [150, 60, 20], [90.0, 150, 60]])
    for view, (k, r, t) in zip(biplane_views(cameras), cameras, strict=True):
        camera = points @ r.T + t
        expected = np.c_[k[0, 0] * camera[:, 0] / camera[:, 2] + k[0, 2], k[1, 1] * camera[:, 1] / camera[:, 2] + k[1, 2]]
        np.testing.assert_allclose(view.project(points), expected, atol=1e-6)
        np.testing.assert_allclose(view.source_mm, -np.linalg.solve(r, t), atol=1e-6)
        np.testing.assert_allclose(view.beam, r[2], atol=1e-6)  # a camera's z axis runs from the source to the detector
        np.testing.assert_allclose(view.depth_mm(points), camera[:, 2], rtol=1e-6)
        np.testing.assert_allclose(view.principal_point_px, k[:2, 2], atol=1e-3)
        np.testing.assert_allclose(view.pixel_spacing_mm, (1000 / k[1, 1], 1000 / k[0, 0]), rtol=1e-6)


def test_fundamental_matrix_of_both_views(cameras) -> None:
    """Both projections of a point satisfy the epipolar constraint of the textbook formula K2^-T [t]x R K1^-1."""
    (k1, r1, t1), (k2, r2, t2) = cameras
    rotation = r2 @ r1.T
    x, y, z = t2 - rotation @ t1
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    fundamental = np.linalg.inv(k2).T @ essential @ np.linalg.inv(k1)
    first, second = biplane_views(cameras)
    points = np.random.default_rng(4).uniform(-60, 60, (30, 3)) + (140, 110, 60)
    lines = np.c_[first.project(points), np.ones(30)] @ fundamental.T
    distances = (lines * np.c_[second.project(points), np.ones(30)]).sum(axis=1) / np.hypot(lines[:, 0], lines[:, 1])
    assert np.abs(distances).max() < 1e-3


def screw_pixels(image: np.ndarray, column: int, row: int, radius: int, fraction: float) -> np.ndarray:
    """Pixels (N, 2) of the dark thing at (column, row): what is darker than a fraction of the way to its surroundings."""
    from scipy import ndimage

    window = image[row - radius:row + radius + 1, column - radius:column + radius + 1]
    dark = np.percentile(image[row - 3:row + 4, column - 3:column + 4], 20)
    labels, _ = ndimage.label(window < dark + fraction * (np.median(window) - dark))
    rows, columns = np.nonzero(labels == labels[radius, radius])
    return np.c_[columns + column - radius, rows + row - radius].astype(float)


def middle_plane(view: CArmView, sources_mm: tuple[np.ndarray, np.ndarray], pixels: np.ndarray) -> float:
    """Middle of the wedge of epipolar planes that the pixels' rays fill.

    The planes turn about the line through both sources; a plane's place is the tangent of its angle to the horizontal, so
    that it is the same number from both sources.
    """
    axis = sources_mm[1] - sources_mm[0]
    level = np.cross((0.0, 0.0, 1.0), axis)
    level /= np.linalg.norm(level)
    upright = np.cross(axis / np.linalg.norm(axis), level)
    rays = view.ray_directions(pixels)
    tangents = (rays @ upright) / (rays @ level)
    return float(tangents.min() + tangents.max()) / 2


# Two screws seen in both pictures: seeds (column, row), found by eye, and a window around them.
SCREWS = [("femoral", (918, 505), (701, 1205), 45), ("tibial", (320, 560), (1329, 1092), 40)]


@pytest.mark.parametrize(("name", "seed_1", "seed_2", "radius"), SCREWS)
def test_epipolar_planes_touch_the_same_screw_in_the_real_pictures(cameras, data_dir, name, seed_1, seed_2, radius) -> None:
    """The planes through both sources that just touch a thing are the same in both pictures; their middle hardly depends on blur."""
    import SimpleITK as sitk

    images = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(data_dir / "knee_biplane_autoscoper" / "XRay" / f"L_Hop_Cam{i}_001_UND.0138.tif"))).astype(float)
        for i in (1, 2)
    ]
    first, second = biplane_views(cameras)
    # A wire crosses the tibial screw and joins it at brighter thresholds.
    for fraction in (0.3, 0.4, 0.5) if name == "femoral" else (0.3,):
        pixels_1, pixels_2 = (screw_pixels(im, *seed, radius, fraction) for im, seed in zip(images, (seed_1, seed_2), strict=True))
        sources = first.source_mm, second.source_mm
        plane = middle_plane(first, sources, pixels_1)
        # A focal length of 8700 pixels turns the tangent into pixels.
        distance_px = 8700 * (plane - middle_plane(second, sources, pixels_2))
        assert abs(distance_px) < 0.8, (name, fraction, distance_px)
        # The check can fail: a picture taken mirrored is off by far more than a pixel.
        mirrored = (1759.0, 0.0) + pixels_2 * (-1, 1)
        assert abs(8700 * (plane - middle_plane(second, sources, mirrored))) > 50
