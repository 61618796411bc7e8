"""Pictures from Slicer's own views, drawn offscreen: where pixels land, which way is up.  Skipped (counted) without OpenGL."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.overlay import Shape
from FluoroGuideLib.guidance.triangulation import NeedlePose
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.planning.plan import Plan, Target, Trajectory
from FluoroGuideLib.registration.result import Registration
from FluoroGuideLib.scene import case, host, pictures


@pytest.fixture
def a_host():
    problem = host.rendering_problem()
    if problem is not None:
        pytest.skip(problem)
    a_host = host.start()
    a_host.scene.Clear(0)
    yield a_host
    a_host.scene.Clear(0)


def f_image(view):
    """A letter F in the upper left quarter (bright on dark): any turn or mirror changes it."""
    pixels = np.zeros((view.rows, view.columns), np.float32)
    pixels[20:90, 20:32] = pixels[20:32, 20:70] = pixels[50:60, 20:55] = 1.0
    return XrayImage(pixels, np.ones(pixels.shape, bool), view)


VIEWS = {
    "oblique": CArmView.from_angles(30, 20, sid_mm=1000, sod_mm=600, rows=200, columns=240, pixel_spacing_mm=(1.2, 1.2)),
    "lateral": CArmView.from_angles(-90, 0, sid_mm=1100, sod_mm=700, rows=200, columns=240, pixel_spacing_mm=(1.2, 1.2)),
    "from below": CArmView.from_angles(180, 0, sid_mm=1000, sod_mm=600, rows=200, columns=240, pixel_spacing_mm=(1.2, 1.2)),
    "not square": CArmView.from_angles(-40, -10, sid_mm=1000, sod_mm=600, rows=200, columns=240, pixel_spacing_mm=(0.9, 1.2)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_every_pixel_of_the_picture_is_the_pixel_of_the_image(a_host, name):
    view = VIEWS[name]
    image = f_image(view)
    nodes = case.build(a_host, case.CaseData(images=[image]))
    # 3 picture pixels per image pixel across; down 3 * 0.9 / 1.2 where the pixels are not square
    row_scale = 3 * view.pixel_spacing_mm[0] / view.pixel_spacing_mm[1]
    picture = pictures.xray_view_picture(a_host, nodes, 0, (720, round(200 * row_scale)))
    rows, columns = np.mgrid[5:195:7, 5:235:7]
    seen = picture[np.round((rows + 0.5) * row_scale - 0.5).astype(int), columns * 3 + 1, 0] > 127
    wrong = seen != (image.pixels[rows, columns] > 0.5)
    padded = np.pad(image.pixels, 1)
    near_edge = (np.diff(padded, axis=0)[:-1, 1:-1] != 0) | (np.diff(padded, axis=1)[1:-1, :-1] != 0)
    assert not wrong[~near_edge[rows, columns]].any()
    assert picture[: round(100 * row_scale), :360].mean() > 20
    assert picture[round(100 * row_scale):].max() == 0


def test_overlay_lands_on_its_pixel(a_host):
    view = VIEWS["oblique"]
    cross = [
        Shape("target", "h", np.array([[150.0, 120], [210, 120]]), (255, 0, 0, 255), 1, ""),
        Shape("target", "v", np.array([[180.0, 100], [180, 160]]), (0, 255, 0, 255), 1, ""),
    ]
    nodes = case.build(a_host, case.CaseData(images=[f_image(view), f_image(VIEWS["lateral"])], overlays={0: cross}))
    picture = pictures.xray_view_picture(a_host, nodes, 0, (960, 800)).astype(int)  # 4 picture pixels per image pixel
    red = np.argwhere((picture[..., 0] > 200) & (picture[..., 1] < 60))
    green = np.argwhere((picture[..., 1] > 200) & (picture[..., 0] < 60))
    # centre of image pixel p lies at (p + 0.5) * 4 - 0.5 in the picture
    assert red[:, 0].mean() == pytest.approx(120.5 * 4 - 0.5, abs=1)
    assert abs(red[:, 1].min() - 601.5) <= 2
    assert abs(red[:, 1].max() - 841.5) <= 2
    assert green[:, 1].mean() == pytest.approx(180.5 * 4 - 0.5, abs=1)
    assert abs(green[:, 0].min() - 401.5) <= 2
    assert abs(green[:, 0].max() - 641.5) <= 2
    other = pictures.xray_view_picture(a_host, nodes, 1, (960, 800)).astype(int)
    assert np.ptp(other, axis=2).max() == 0  # grey only: no overlay of the other view


def test_stale_overlay_has_no_colour(a_host):
    view = VIEWS["oblique"]
    line = [Shape("needle", "n", np.array([[100.0, 120], [210, 150]]), (213, 94, 0, 255), 2, "planned")]
    nodes = case.build(a_host, case.CaseData(images=[f_image(view)], overlays={0: line}))
    assert np.ptp(pictures.xray_view_picture(a_host, nodes, 0).astype(int), axis=2).max() > 100
    nodes.overlays[0].set_stale(True)
    assert np.ptp(pictures.xray_view_picture(a_host, nodes, 0).astype(int), axis=2).max() <= 2


def test_a_loaded_case_gives_the_same_pictures(a_host, tmp_path):
    view = VIEWS["oblique"]
    line = [Shape("needle", "n", np.array([[100.0, 120], [210, 150]]), (213, 94, 0, 255), 2, "planned")]
    data = a_ct_case()
    data.overlays = {0: line}
    nodes = case.build(a_host, data)
    before = [pictures.xray_view_picture(a_host, nodes, 0), pictures.ct_slice_picture(a_host, nodes, "sagittal", (300, 300))]
    path = case.save_mrb(a_host, tmp_path / "c.mrb")
    a_host.scene.Clear(0)
    case.load_mrb(a_host, path)
    nodes = case.find_nodes(a_host)
    assert [n.GetName() for n in nodes.xrays] == ["X-ray A (LAO 30.0 CRA 20.0)", "X-ray B (RAO 90.0)"]
    assert len(nodes.carms) == 2
    assert nodes.overlays == []
    after = [pictures.xray_view_picture(a_host, nodes, 0), pictures.ct_slice_picture(a_host, nodes, "sagittal", (300, 300))]
    for old, new in zip(before, after):
        assert (np.abs(old.astype(int) - new).max(axis=2) > 8).mean() < 0.002
    from FluoroGuideLib.scene.overlay_nodes import XrayOverlay

    count = a_host.scene.GetNumberOfNodes()
    XrayOverlay(a_host, view, 0).update(line)
    XrayOverlay(a_host, view, 0).clear()
    assert a_host.scene.GetNumberOfNodes() <= count  # taken over, not doubled


def a_head_and_marker():
    """60 mm cube of 'soft tissue' with a bone block in the patient's left, anterior, superior corner (LPS: +x, -y, +z)."""
    voxels = np.full((60, 60, 60), 40, np.int16)
    voxels[40:55, 5:20, 40:55] = 1300  # k (z) high, j (y) low = anterior, i (x) high = left
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin((-30, -30, -30))
    return image


def a_ct_case(pose=None):
    plan = Plan("p", (Target("t", (20, -20, 15), 2.0),), (Trajectory("n", (-20.0, 15.0, 15.0), (20.0, -20.0, 15.0), 22, 60.0),))
    needle = NeedlePose(np.array([20.0, -14, 15]), np.array([0.7525767, -0.6585046, 0.0]), np.eye(3) * 0.1, 0.5, 80.0, np.array([0.1, 0.2]))
    registration = Registration(np.eye(4) if pose is None else pose, "pass", (), (0.9,), np.eye(6) * 1e-3, np.zeros(3), (VIEWS["oblique"],))
    return case.CaseData(a_head_and_marker(), [f_image(VIEWS["oblique"]), f_image(VIEWS["lateral"])], registration, plan, needle)


def quadrant_of_bone(picture):
    """(vertical, horizontal) of the brightest grey: the mean of pixels brighter than soft tissue, against the centre."""
    grey = picture.astype(int)
    rows, columns = np.nonzero((grey.min(axis=2) > 200) & (np.ptp(grey, axis=2) < 5))
    return "top" if rows.mean() < picture.shape[0] / 2 else "bottom", "left" if columns.mean() < picture.shape[1] / 2 else "right"


def test_axial_slice_has_patient_left_on_the_right_and_anterior_up(a_host):
    nodes = case.build(a_host, a_ct_case())
    picture = pictures.ct_slice_picture(a_host, nodes, "axial", (500, 500))
    assert quadrant_of_bone(picture) == ("top", "right")
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    planned, achieved = (blue > red + 80), (red > blue + 120)
    assert planned.sum() > 200
    assert achieved.sum() > 200
    # the achieved needle lies 6 mm further posterior: below the planned one
    assert np.argwhere(achieved)[:, 0].mean() > np.argwhere(planned)[:, 0].mean() + 10


def test_slice_axes_are_slicer_s_own_presets():
    import slicer
    import vtk

    for plane in pictures.PLANES:
        matrix = vtk.vtkMatrix3x3()
        getattr(slicer.vtkMRMLSliceNode, f"Get{plane.capitalize()}SliceToRASMatrix")(matrix)
        slicers = np.array([[matrix.GetElement(i, j) for j in range(3)] for i in range(3)])
        assert pictures.slice_axes_ras(plane) == pytest.approx(slicers), plane
    with pytest.raises(FluoroGuideError, match="no such slice plane"):
        pictures.slice_axes_ras("oblique")


def test_needle_plane_holds_the_needle_and_stays_near_its_preset():
    entry, target = np.array([10.0, -50, 20]), np.array([5.0, 0, 35])
    for plane in pictures.PLANES:
        matrix = pictures.needle_slice_to_ras(plane, entry, target)
        axes, preset = matrix[:3, :3], pictures.slice_axes_ras(plane)
        assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(axes) == pytest.approx(np.linalg.det(preset))
        if plane == "coronal":  # within 20 degrees of the needle, but not within 10: still a plane through it
            assert abs(preset[:, 2] @ (target - entry)) > 0.9 * np.linalg.norm(target - entry)
        assert axes[:, 2] @ (target - entry) == pytest.approx(0, abs=1e-9)
        assert axes[:, 1] @ preset[:, 1] > 0
    along = pictures.needle_slice_to_ras("axial", np.zeros(3), np.array([0.0, 0, 50]))
    assert along[:3, :3] == pytest.approx(pictures.slice_axes_ras("axial"))


def test_three_d_shows_bone_needles_c_arms_and_leaves_nothing_behind(a_host):
    data = a_ct_case()
    nodes = case.build(a_host, data)
    before = [a_host.scene.GetNthNode(i).GetID() for i in range(a_host.scene.GetNumberOfNodes())]
    pictures.three_d_picture(a_host, nodes, (300, 240), image=data.volume)
    first = {a_host.scene.GetNthNode(i).GetID() for i in range(a_host.scene.GetNumberOfNodes())}
    # new: the bone model with its display node (and its class's colour/storage helpers), nothing of the picture's views
    assert not [i for i in first - set(before) if "View" in i or "Camera" in i or "Slice" in i]
    for _ in range(2):
        far = pictures.three_d_picture(a_host, nodes, (300, 240))
        pictures.xray_view_picture(a_host, nodes, 0, (240, 200))
        pictures.ct_slice_picture(a_host, nodes, "axial", (200, 200))
    assert {a_host.scene.GetNthNode(i).GetID() for i in range(a_host.scene.GetNumberOfNodes())} == first
    assert (far.max(axis=2) > 150).sum() > 300
    near = pictures.three_d_picture(a_host, nodes, (300, 240), radius_mm=60)
    bone = (np.abs(near.astype(int) - near[..., :1]).max(axis=2) < 90) & (near[..., 0] > near[..., 2].astype(int) + 15)
    assert bone.sum() > 500  # warm white of the surface


def test_three_d_keeps_head_up_and_patient_left_on_the_right_seen_from_the_front(a_host):
    data = a_ct_case()
    nodes = case.build(a_host, case.CaseData(data.volume, (), data.registration, data.plan))
    picture = pictures.three_d_picture(a_host, nodes, (300, 300), image=data.volume, direction_lps=(0, -1, 0)).astype(int)
    # only the bone block and the needle are there; the line runs from patient right (entry) to left (target, in the bone)
    blue = np.argwhere(picture[..., 2] > picture[..., 0] + 60)
    bone = np.argwhere(picture[..., 0] > picture[..., 2] + 15)
    assert bone[:, 1].mean() > blue[:, 1].mean() + 20


def test_side_letters_of_a_tilted_slice():
    # RAS: +x right, +y anterior, +z head
    assert [pictures.side_letter(np.array(v)) for v in ((-0.9, 0.3, 0.2), (0.1, -0.8, 0.1), (0.2, 0.3, -0.9), (0, 0, 1))] == ["L", "P", "F", "H"]


def test_views_do_not_look_through_a_detector():
    views = [CArmView.from_angles(a, 0, sid_mm=1000, sod_mm=600, rows=20, columns=20, pixel_spacing_mm=(1, 1)) for a in (0, 90)]
    direction = pictures.free_direction_lps(views)
    assert max(direction @ v.beam for v in views) < 0.3
    assert direction[2] > 0


def test_write_to_an_absent_folder_is_one_sentence(tmp_path):
    with pytest.raises(FluoroGuideError, match="picture cannot be written"):
        pictures.write_png(tmp_path / "absent" / "a.png", np.zeros((4, 4, 3), np.uint8))


def test_picture_sizes_keep_the_image_s_proportions():
    assert pictures.fitting_size(240, 200) == (1020, 850)
    assert pictures.fitting_size(1024, 1024) == (1024, 1024)
    assert pictures.fitting_size(3000, 1500) == (1024, 512)


def test_a_broken_opengl_is_reported_not_crashed_on():
    """In a process of its own, because the answer is remembered for a process's life."""
    code = (
        "from FluoroGuideLib.scene import host; host._PROBE = 'import os; os.abort()'; "
        "print(host.rendering_available(), host.rendering_problem())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.startswith("False Pictures cannot be drawn")
    assert "apt-get install -y libegl1" in run.stdout
    assert run.stdout.count("\n") == 1
