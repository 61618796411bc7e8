"""Simulated fluoroscopy: where bright voxels land, what the physics does, what is written, and how anatomy moves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation import voxel_paths
from FluoroGuideLib.evaluation.metal import OUTER_DIAMETER_MM, Needle, Wire, steel_path_mm
from FluoroGuideLib.evaluation.motion import move_parts, move_surroundings
from FluoroGuideLib.evaluation.phantom import LumbarPhantom
from FluoroGuideLib.evaluation.physics import SimulationOptions, attenuation_per_mm, expose, spectrum, transmission
from FluoroGuideLib.evaluation.simulate import patient_orientation, simulate_case, simulate_view
from FluoroGuideLib.evaluation.voxel_paths import VoxelPaths, rtk_available
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import apply, motion
from FluoroGuideLib.imaging.dicom_xa import read_run

POSE = motion(np.array([0.1, 0.2, -0.15, 5.0, -6.0, 7.0]), np.zeros(3))
ANGLES = [(0, 0), (90, 0), (-35, 25), (40, -20)]
PROJECTORS = ["march", pytest.param("rtk", marks=pytest.mark.skipif(not rtk_available(), reason="itk-rtk is not installed"))]


def view_of(primary: float, secondary: float, size: int = 80, width_mm: float = 320.0, **more: object) -> CArmView:
    return CArmView.from_angles(
        primary, secondary, sid_mm=1100, sod_mm=700, rows=size, columns=size, pixel_spacing_mm=(width_mm / size,) * 2, **more)


def oblique_volume(*bright: tuple[int, int, int]) -> sitk.Image:
    """Air with single bright voxels, on a turned grid with three different spacings."""
    array = np.full((50, 60, 70), -1000, np.int16)
    for i, j, k in bright:
        array[k, j, i] = 2000
    array[0, 0, 0] = array[-1, -1, -1] = 0  # keeps the crop from moving
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.1, 1.3, 1.7))
    image.SetOrigin((-30, -50, -40))
    image.SetDirection(motion(np.array([0.2, -0.1, 0.3, 0, 0, 0]), np.zeros(3))[:3, :3].ravel().tolist())
    return image


# ---- projectors -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("angles", ANGLES)
def test_bright_voxel_lands_where_the_view_says(projector, angles):
    """Detector off-centre, rows unlike columns: centre of gravity of the shadow against CArmView.project."""
    view = CArmView.from_angles(
        *angles, sid_mm=1100, sod_mm=700, rows=300, columns=260, pixel_spacing_mm=(0.8, 0.7), principal_point_px=(140, 120))
    for index in ((10, 15, 8), (60, 20, 40)):
        image = oblique_volume(index)
        pixel = view.project(apply(POSE, np.array([image.TransformIndexToPhysicalPoint(index)])))[0]
        column, row = np.rint(pixel).astype(int)
        crop = view.cropped(column - 15, row - 15, 31, 31)
        shadow = VoxelPaths(image, projector=projector).integrals(crop, POSE)["bone"]
        rows, columns = np.mgrid[:31, :31]
        center = np.array([(shadow * columns).sum(), (shadow * rows).sum()]) / shadow.sum()
        assert np.abs(center + [column - 15, row - 15] - pixel).max() < 0.15
        # 1.9 of bone (2000 HU) times the voxel's volume, spread over pixels of the size they have at its depth
        depth = view.depth_mm(apply(POSE, np.array([image.TransformIndexToPhysicalPoint(index)])))[0]
        area = 0.8 * 0.7 * (depth / 1100) ** 2
        assert shadow.sum() * area == pytest.approx(1.9 * 1.1 * 1.3 * 1.7, rel=0.12)


@pytest.fixture(scope="module")
def voxels():
    phantom = LumbarPhantom(5)
    return phantom, phantom.voxelize(1.5)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_voxels_agree_with_the_closed_forms(voxels, projector):
    """Voxels of 1.5 mm: within 3 % of the picture's standard deviation (voxelisation), and without bias."""
    phantom, image = voxels
    paths = VoxelPaths(image, projector=projector)
    for angles in ((0, 0), (60, 15)):
        view = view_of(*angles, size=40)
        exact = sum(phantom.line_integrals(view, POSE).values()) / 0.02
        error = sum(paths.integrals(view, POSE).values()) - exact
        assert np.sqrt((error**2).mean()) < 0.03 * exact.std()
        assert abs(error.mean()) < 0.001 * exact.mean()


@pytest.mark.skipif(not rtk_available(), reason="itk-rtk is not installed")
def test_both_projectors_agree():
    image = LumbarPhantom(5).voxelize(4.0, supersampling=1)
    view = view_of(-30, 20, size=32)
    a, b = (VoxelPaths(image, projector=p).integrals(view, POSE) for p in ("rtk", "march"))
    for material in ("soft", "bone"):
        assert np.corrcoef(a[material].ravel(), b[material].ravel())[0, 1] > 0.999
        assert a[material].mean() == pytest.approx(b[material].mean(), rel=0.01)


def test_rtk_asked_for_but_missing(monkeypatch):
    monkeypatch.setattr(voxel_paths, "rtk_available", lambda: False)
    with pytest.raises(FluoroGuideError, match="itk-rtk"):
        VoxelPaths(oblique_volume((3, 3, 3)), projector="rtk")
    assert VoxelPaths(oblique_volume((3, 3, 3)), projector="auto").projector == "march"


def test_body_goes_on_beyond_the_scan():
    """A water block 40 mm high; rays that pass 60 mm above it meet water only when the body is continued."""
    block = sitk.GetImageFromArray(np.pad(np.zeros((20, 50, 50), np.int16), ((0, 0), (5, 5), (5, 5)), constant_values=-1000))
    block.SetSpacing((2, 2, 2))
    block.SetOrigin((-59, -59, -19))
    view = view_of(0, 0, size=21, width_mm=320)
    above = round(view.project(np.array([[0.0, 0.0, 60.0]]))[0, 1])
    for extend, expected in ((False, 0.0), (True, 100.0)):
        paths = VoxelPaths(block, extend_body=extend, views_lps=[view], projector="march").integrals(view, np.eye(4))
        # the ray runs obliquely: 100 mm / cos of its slope
        slope = np.hypot(1, (above - 10) * 320 / 21 / 1100)
        assert paths["soft"][above, 10] == pytest.approx(expected * slope, abs=2.5)


# ---- physics ----------------------------------------------------------------------------------------------------
def test_materials_attenuate_as_tables_say():
    """Water at 60 keV 0.2059 /cm, cortical bone at 60 keV 0.3148 * 1.92 /cm; a broad beam hardens behind bone."""
    assert attenuation_per_mm("water", np.array([60.0]))[0] == pytest.approx(0.02059, rel=1e-6)
    assert attenuation_per_mm("bone", np.array([60.0]))[0] == pytest.approx(0.060442, rel=1e-4)
    table = spectrum(80.0)
    assert table[:, 1].sum() == pytest.approx(1.0)
    assert table[:, 0].max() < 80
    at70 = np.array([np.interp(70, table[:, 0], table[:, n]) for n in (2, 3)])
    assert at70[1] == pytest.approx(at70[0], rel=0.03)  # one unit of either is a unit of HU
    one, two = (-np.log(transmission(np.zeros((1, 1)), np.full((1, 1), x), np.zeros((1, 1)), 80, 0.1))[0, 0] for x in (20.0, 40.0))
    assert two < 1.97 * one
    harder = -np.log(transmission(np.zeros((1, 1)), np.full((1, 1), 20.0), np.zeros((1, 1)), 120, 0.3))[0, 0]
    assert harder < 0.9 * one


def test_noise_has_the_variance_of_its_quanta():
    """100 quanta per pixel (400 per mm^2 of 0.5 mm pixels), no blur: relative variance 1 / 100."""
    view = view_of(0, 0, size=128, width_mm=64)
    flat = {"soft": np.full((128, 128), 100.0, np.float32), "bone": np.zeros((128, 128), np.float32)}
    options = SimulationOptions(quanta_per_mm2=400.0, bits=16)
    frames, *_ = expose(flat, np.zeros((128, 128), np.float32), view, options, np.random.default_rng(0))
    values = frames[0].astype(float)
    assert values.var() / values.mean() ** 2 == pytest.approx(0.01, rel=0.05)
    again, *_ = expose(flat, np.zeros((128, 128), np.float32), view, options, np.random.default_rng(0))
    assert np.array_equal(frames, again)


def test_scatter_fills_shadows_and_shutters_stay_dark():
    view = view_of(0, 0, size=96, width_mm=300)
    paths = {"soft": np.full((96, 96), 100.0, np.float32), "bone": np.zeros((96, 96), np.float32)}
    paths["bone"][40:56, 40:56] = 40.0
    contrast = []
    for ratio in (0.0, 1.0):
        options = SimulationOptions(scatter_to_primary=ratio, collimation=(0.1, 0.0, 0.2, 0.0))
        frames, mask, shutter, _ = expose(paths, np.zeros((96, 96), np.float32), view, options, np.random.default_rng(0))
        image = frames[0].astype(float)
        contrast.append(1 - image[48, 48] / image[48, 75])
        assert not image[:19].any()
        assert not image[:, :10].any()
        assert image[19:, 10:].all()
        assert shutter == (11, 96, 20, 96)
        assert mask.sum() == 77 * 86
    assert contrast[1] < 0.65 * contrast[0]


@pytest.mark.parametrize(("changes", "word"), [
    ({"kvp": 20}, "voltage"), ({"gray": "HSV"}, "grey"), ({"bits": 9}, "bits"), ({"frames": 0}, "frames"),
    ({"collimation": (0.6, 0, 0, 0)}, "collimation"), ({"scatter_to_primary": -1}, "scatter"), ({"projector": "magic"}, "projector"),
    ({"gamma": 0}, "gamma"), ({"quanta_per_mm2": float("nan")}, "quanta"),
])
def test_impossible_options_are_told(changes, word):
    with pytest.raises(FluoroGuideError, match=word):
        SimulationOptions(**changes)


def test_unknown_preset_is_told():
    with pytest.raises(FluoroGuideError, match="fluoroscopy"):
        SimulationOptions.preset("cinema")
    assert SimulationOptions.preset("fluoroscopy", kvp=90).kvp == 90


# ---- metal ------------------------------------------------------------------------------------------------------
def test_needle_across_the_beam():
    """22 G is 0.718 mm: seen across, the shadow's sum along a column of the image is pi/4 d^2 per unit of its height there."""
    view = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=500, rows=60, columns=60, pixel_spacing_mm=(0.5, 0.5))
    needle = Needle([-40, 0, 0], [40, 0, 0], gauge=22)
    path = steel_path_mm([needle], view, np.eye(4))
    area = np.pi / 4 * 0.718**2
    # pixels are 0.25 mm at the isocentre; nine sub-pixels across a half circle sum up to within 1 / 9^1.5 = 4 %
    assert path[:, 30].sum() * 0.25 == pytest.approx(area, rel=0.037)
    assert path.max() <= 0.72
    assert path[0].max() == 0


def test_needle_tip_is_where_it_should_be():
    view = view_of(30, 10, size=256, width_mm=200)
    tip, hub = np.array([5.0, -8.0, 12.0]), np.array([30.0, 60.0, 20.0])
    shadow = steel_path_mm([Needle(tip, hub, 13)], view, POSE) > 0.3
    pixels = view.project(apply(POSE, np.array([tip, hub])))
    axis = (pixels[1] - pixels[0]) / np.linalg.norm(pixels[1] - pixels[0])
    row, column = np.nonzero(shadow)
    along = (np.stack([column, row], 1) - pixels[0]) @ axis
    assert -2.0 < along.min() < 0.5  # the round end of a thick needle reaches a little beyond its axis' end
    across = np.abs((np.stack([column, row], 1) - pixels[0]) @ [-axis[1], axis[0]])
    assert across.max() < OUTER_DIAMETER_MM[13] * 1.65 / 2 / 0.78 + 1


def test_wires_and_bad_needles():
    view = view_of(0, 0)
    assert steel_path_mm([Wire(np.array([[-20.0, 0, 0], [0, 0, 10], [20, 0, 0]]))], view, np.eye(4)).max() > 0.1
    for arguments in (([0, 0, 0], [0, 0, 0.5], 22), ([0, 0, 0], [0, 0, 50], 3), ([0, 0], [0, 0, 50], 22), ([0, 0, np.nan], [0, 0, 50], 22)):
        with pytest.raises(FluoroGuideError):
            Needle(*arguments)


# ---- cases ------------------------------------------------------------------------------------------------------
def test_case_on_disk_is_what_it_says(tmp_path):
    phantom = LumbarPhantom(1)
    target = phantom.landmarks["L4/L5 facet joint left"]
    pose = np.eye(4)
    pose[:3, 3] = -target
    needle = Needle(target, target + [20.0, 60.0, 5.0], gauge=22)
    options = SimulationOptions.preset("fluoroscopy", frames=2)
    truth_path = simulate_case(phantom, [(0, 0), (-35, 10)], pose, tmp_path, needle=needle, options=options, seed=4, rows=160, columns=128,
                               pixel_spacing_mm=(1.5, 1.6))
    truth = json.loads(truth_path.read_text())
    assert truth["seed"] == 4
    assert np.allclose(truth["pose_matrix"], pose)
    assert truth["options"]["kvp"] == 80
    assert np.allclose(truth["needles"][0]["tip_lps_mm"], target)
    assert np.allclose(truth["needles"][0]["tip_isocenter_mm"], 0)
    for described in truth["views"]:
        run = read_run(tmp_path / described["file"])
        assert run.frames.shape == (2, 160, 128)
        assert not np.array_equal(run.frames[0], run.frames[1])
        expected = CArmView.from_dict(described["view"])
        points = np.array([[0.0, 0, 0], [30, -20, 50]])
        assert np.allclose(run.view(0).project(points), expected.project(points), atol=1e-3)
        image = run.image(0)
        exact = sum(phantom.line_integrals(expected, pose).values())
        # bone bright, not turned over: correlation with the exact line integrals inside the field
        assert np.corrcoef(image.pixels[image.mask], exact[image.mask])[0, 1] > 0.7
        assert 0.01 < described["dap_dgy_cm2"] < 50


def test_same_seed_same_pixels():
    phantom, view = LumbarPhantom(2), view_of(0, 0, 64)
    options = SimulationOptions.preset("fluoroscopy")
    a, b, c = (simulate_view(phantom, view, POSE, options=options, rng=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.frames, b.frames)
    assert not np.array_equal(a.frames, c.frames)
    assert a.frames.dtype == np.uint8
    assert a.line_integral.max() > 1


@pytest.mark.parametrize(("gray", "bits", "dtype"), [("LIN", 12, np.uint16), ("LOG", 16, np.uint16), ("LIN", 8, np.uint8), ("DISP", 16, np.uint8)])
def test_grey_scales(gray, bits, dtype):
    view = view_of(0, 0, 64)
    image = simulate_view(LumbarPhantom(2), view, POSE, options=SimulationOptions(gray=gray, bits=bits))
    values = image.frames[0].astype(float)
    assert image.frames.dtype == dtype
    assert values.max() == 2 ** (8 if gray == "DISP" else bits) - 1
    assert np.corrcoef(values.ravel(), image.line_integral.ravel())[0, 1] < -0.8  # bright where much arrives


def test_patient_orientation():
    assert patient_orientation(view_of(0, 0)) == ("L", "F")
    assert patient_orientation(view_of(90, 0)) == ("P", "F")
    assert patient_orientation(view_of(-30, 0)) == ("LA", "F")


def test_pose_that_misses_is_told():
    away = np.eye(4)
    away[:3, 3] = 5000.0, 0.0, 0.0
    with pytest.raises(FluoroGuideError, match="No ray"):
        simulate_view(LumbarPhantom(), view_of(0, 0, 16), away)


# ---- anatomy that moves -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def spine():
    phantom = LumbarPhantom(6)
    return phantom, phantom.voxelize(2.5, 2), phantom.labels(2.5)[0]


def shift_of(before: np.ndarray, after: np.ndarray, reach: int = 4) -> np.ndarray:
    """Whole voxels (k, j, i) by which a block's content moved: the best match by brute force."""
    inner = after[reach:-reach, reach:-reach, reach:-reach].astype(float)
    best, where = np.inf, None
    for k in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            for i in range(-reach, reach + 1):
                other = before[tuple(slice(reach - d, n - reach - d) for d, n in zip((k, j, i), before.shape, strict=True))]
                cost = ((other - inner) ** 2).sum()
                best, where = (cost, (k, j, i)) if cost < best else (best, where)
    return np.array(where)


def test_surroundings_move_and_the_bone_stays(spine):
    phantom, hu, labels = spine
    moved, shift = move_surroundings(hu, labels == 4, np.random.default_rng(0), 7.5, direction_lps=np.array([0.0, 0.0, 1.0]))
    assert np.allclose(shift, (0, 0, 7.5))
    a, b, bone = (sitk.GetArrayFromImage(x) for x in (hu, moved, labels))
    assert np.abs(a[bone == 4].astype(int) - b[bone == 4]).max() <= 1
    i, j, k = hu.TransformPhysicalPointToIndex(phantom.landmarks["T12 body"].tolist())
    block = (slice(k - 12, k + 13), slice(j - 12, j + 13), slice(i - 12, i + 13))
    assert np.array_equal(shift_of(a[block], b[block]), (3, 0, 0))  # 7.5 mm upwards = 3 voxels of 2.5 mm


def test_surroundings_cannot_fold_and_need_a_bone(spine):
    _, hu, labels = spine
    with pytest.raises(FluoroGuideError, match="that far"):
        move_surroundings(hu, labels == 4, np.random.default_rng(0), 30.0)
    with pytest.raises(FluoroGuideError, match="empty"):
        move_surroundings(hu, labels == 99, np.random.default_rng(0), 3.0)


def test_each_vertebra_moves_as_told(spine):
    """An image that holds a coordinate is moved: at a point carried along, it must show where it came from."""
    _, hu, labels = spine
    array = sitk.GetArrayFromImage(labels)
    k, j, i = np.indices(array.shape, np.float32)
    coordinate = sitk.GetImageFromArray(i * 2.5 - j * 2.5 + k * 2.5)
    coordinate.CopyInformation(hu)
    moved, motions = move_parts(coordinate, labels, [4, 5], np.random.default_rng(1), translation_mm=3.0, rotation_deg=3.0)
    assert set(motions) == {4, 5}
    for part in (4, 5):
        index = np.argwhere(array == part)[::37, ::-1]
        here = np.array([labels.TransformIndexToPhysicalPoint(n.tolist()) for n in index])
        carried = apply(motions[part], here)
        found = np.array([moved.EvaluateAtPhysicalPoint(p.tolist(), sitk.sitkLinear) for p in carried])
        error = np.abs(found - index @ [2.5, -2.5, 2.5])
        # exact inside; at the very border the field (2 mm grid) is interpolated across it
        assert np.median(error) < 0.05
        assert np.quantile(error, 0.95) < 0.7
        assert np.linalg.norm(carried - here, axis=1).mean() > 1.5


def test_unknown_part_is_told(spine):
    with pytest.raises(FluoroGuideError, match="label"):
        move_parts(spine[1], spine[2], [77], np.random.default_rng(0))
