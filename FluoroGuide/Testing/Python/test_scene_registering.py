"""What the Register section has in the scene: raw volumes and bones, DRR over the X-ray, grips, landmarks, history (slicer-core)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer")

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import apply, motion
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.scene import comparison as compare
from FluoroGuideLib.scene.comparison import Comparison
from FluoroGuideLib.scene.host import start
from FluoroGuideLib.scene.landmark_marks import LandmarkMarks
from FluoroGuideLib.scene.nodes import array_of, find_all, vtk_matrix
from FluoroGuideLib.scene.pose_grip import PoseGrip, moved_pose
from FluoroGuideLib.scene.raw_volumes import bones_of, content_key, raw_labels, raw_volume
from FluoroGuideLib.scene.xray_view import build_xray, pixels_to_ras, slice_nodes

VIEW_A = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=600, rows=100, columns=120, pixel_spacing_mm=(2.0, 1.5))
VIEW_B = CArmView.from_angles(90, 0, sid_mm=1000, sod_mm=600, rows=100, columns=120, pixel_spacing_mm=(2.0, 1.5))


@pytest.fixture
def scene():
    host = start()
    host.scene.Clear(0)
    yield host
    host.scene.Clear(0)


# ---- volumes and bones ----------------------------------------------------------------------------------------------
def _volume(scene, array, matrix):
    import slicer

    node = scene.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(vtk_matrix(matrix))
    return node


def test_a_volume_goes_to_the_engine_where_it_lies_without_a_copy(scene):
    import slicer

    # index axes: i to the left (-R), j to anterior, k to superior, 2 x 3 x 4 mm, first voxel at RAS (10, 20, 30)
    matrix = np.array([[-2.0, 0, 0, 10], [0, 3.0, 0, 20], [0, 0, 4.0, 30], [0, 0, 0, 1]])
    node = _volume(scene, np.arange(24, dtype=np.int16).reshape(2, 3, 4), matrix)
    raw = raw_volume(node)
    assert (raw.spacing, raw.origin) == ((2.0, 3.0, 4.0), (-10.0, -20.0, 30.0))
    # in LPS i runs to the left (+), j to anterior (-)
    assert raw.direction == (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    assert np.shares_memory(raw.voxels, slicer.util.arrayFromVolume(node))
    assert raw.image().TransformIndexToPhysicalPoint((1, 1, 1)) == (-8.0, -23.0, 34.0)
    before = content_key(node)
    slicer.util.arrayFromVolume(node)[0] = 5
    slicer.util.arrayFromVolumeModified(node)
    assert content_key(node) != before
    empty = scene.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(FluoroGuideError, match="holds no voxels"):
        raw_volume(empty)


def test_bones_of_a_label_map_and_of_a_segmentation_come_in_the_volumes_frame(scene):
    import slicer

    volume = _volume(scene, np.zeros((8, 8, 8), np.int16), np.diag([1.0, 1, 1, 1]))
    labels = scene.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "bones")
    array = np.zeros((30, 30, 30), np.uint8)
    array[10:16, 5:20, 3:9], array[20:26, 5:20, 3:9] = 4, 9
    slicer.util.updateVolumeFromArray(labels, array)
    assert [key for key, _ in bones_of(labels)] == ["4", "9"]
    raw, value = raw_labels(labels, "9", volume)
    assert (value, raw.names[9]) == (9, bones_of(labels)[1][1])
    with pytest.raises(FluoroGuideError, match="not in the segmentation"):
        raw_labels(labels, "5", volume)

    segmentation = scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segments")
    oriented = slicer.vtkSlicerSegmentationsModuleLogic.CreateOrientedImageDataFromVolumeNode(labels)
    oriented.UnRegister(None)
    binary = slicer.vtkOrientedImageData()
    binary.DeepCopy(oriented)
    from vtk.util.numpy_support import vtk_to_numpy

    vtk_to_numpy(binary.GetPointData().GetScalars())[:] = (array == 4).ravel()
    segmentation.AddSegmentFromBinaryLabelmapRepresentation(binary, "L4", (1, 1, 1), "id4")
    assert bones_of(segmentation) == [("id4", "L4")]
    raw, value = raw_labels(segmentation, "id4", volume)
    image = raw.image()
    # the middle of the box (i 3..8, j 5..19, k 10..15) at RAS (5.5, 12, 12.5) = LPS (-5.5, -12, 12.5)
    import SimpleITK as sitk

    found = sitk.LabelShapeStatisticsImageFilter()
    found.Execute(sitk.Cast(image == value, sitk.sitkUInt8))
    np.testing.assert_allclose(found.GetCentroid(1), (-5.5, -12, 12.5), atol=1e-6)
    moved = scene.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "pose")
    shift = np.eye(4)
    shift[:3, 3] = 100, 0, 0
    moved.SetMatrixTransformToParent(vtk_matrix(shift))
    volume.SetAndObserveTransformNodeID(moved.GetID())  # the volume hangs under the pose, the segmentation was left behind
    found.Execute(sitk.Cast(raw_labels(segmentation, "id4", volume)[0].image() == 1, sitk.sitkUInt8))
    np.testing.assert_allclose(found.GetCentroid(1), (94.5, -12, 12.5), atol=1e-6)
    shift[0, 0] = 2
    moved.SetMatrixTransformToParent(vtk_matrix(shift))
    with pytest.raises(FluoroGuideError, match="stretches"):
        raw_labels(segmentation, "id4", volume)


# ---- DRR over the X-ray ---------------------------------------------------------------------------------------------
def _xray(scene, view=VIEW_A, index=0):
    image = XrayImage(np.random.default_rng(0).random((100, 120)).astype(np.float32), np.ones((100, 120), bool), view)
    return image, build_xray(scene, image, index)


def _drr(view):
    picture = np.zeros((50, 60), np.float32)
    picture[10:40, 20:50] = np.linspace(1, 3, 30)
    return {"view": view.resampled(50, 60), "drr": picture, "edges": picture > 2.9}


def test_drr_is_matched_in_brightness_and_checkerboard_fields_alternate():
    rng = np.random.default_rng(1)
    xray = rng.normal(5, 2, (80, 80))
    drr = np.zeros((40, 40), np.float32)
    drr[5:35] = rng.normal(100, 30, (30, 40)).clip(1)
    out = compare.matched(drr, xray, np.ones(xray.shape, bool))
    np.testing.assert_allclose(np.quantile(out[drr > 0], (0.02, 0.98)), np.quantile(xray, (0.02, 0.98)), rtol=1e-3)
    board = compare.checkerboard(np.zeros((80, 40)), np.ones((80, 40)), 8)
    assert (board[:10, :10] == 0).all()
    assert (board[:10, 10:20] == 1).all()
    assert (board[10:20, :10] == 1).all()
    np.testing.assert_array_equal(compare.sampled(np.arange(12).reshape(3, 4), (6, 8))[::2, ::2], np.arange(12).reshape(3, 4))


def test_the_drr_lies_on_the_detector_and_leaves_no_trace(scene):
    image, node = _xray(scene)
    composite = slice_nodes(scene, "XRayA")[1]
    shown = Comparison(lambda: scene)
    names = {n.GetID() for n in find_all(scene, "xray")}
    before = scene.scene.GetNumberOfNodes()
    shown.set(0, node, image, _drr(VIEW_A))
    assert composite.GetForegroundVolumeID() is None
    label = scene.scene.GetNodeByID(composite.GetLabelVolumeID())
    # pixel (0, 0) of the smaller picture covers 2 x 2 pixels of the X-ray: its centre is at (0.5, 0.5)
    np.testing.assert_allclose(label.GetOrigin(), pixels_to_ras(VIEW_A, np.array([[0.5, 0.5]]))[0], atol=1e-9)
    shown.set_mode("flicker")
    drr = scene.scene.GetNodeByID(composite.GetForegroundVolumeID())
    assert not drr.GetSaveWithScene()
    assert composite.GetLabelVolumeID() is None
    assert composite.GetForegroundOpacity() == 1.0
    shown.flick()
    assert composite.GetForegroundOpacity() == 0.0
    shown.set_mode("blend")
    assert composite.GetForegroundOpacity() == 0.5
    shown.set_mode("checkerboard")
    assert composite.GetForegroundOpacity() == 1.0
    shown.flick()
    assert composite.GetForegroundOpacity() == 1.0
    shown.set_mode("off")
    assert composite.GetForegroundVolumeID() is None
    shown.set_mode("edges")
    shown.clear()
    assert (composite.GetForegroundVolumeID(), composite.GetLabelVolumeID()) == (None, None)
    assert scene.scene.GetNumberOfNodes() == before
    assert composite.GetBackgroundVolumeID() in names


# ---- grips ----------------------------------------------------------------------------------------------------------
def test_dragging_moves_the_target_at_its_depth_and_turns_the_picture():
    pose, target = motion(np.array([0.2, -0.1, 0.3, 5.0, 8.0, -4.0]), np.zeros(3)), np.array([4.0, -30.0, 7.0])
    other = target + np.array([10.0, 0.0, 0.0])
    moved = moved_pose(VIEW_A, pose, target, np.array([80.0, 30.0]))
    np.testing.assert_allclose(VIEW_A.project(apply(moved, target)), [[80.0, 30.0]], atol=1e-9)
    np.testing.assert_allclose(VIEW_A.depth_mm(apply(moved, target)), VIEW_A.depth_mm(apply(pose, target)), atol=1e-9)
    np.testing.assert_allclose(moved[:3, :3], pose[:3, :3], atol=1e-12)
    at = VIEW_A.project(apply(pose, target))[0]
    turned = moved_pose(VIEW_A, pose, target, at, np.radians(30))
    np.testing.assert_allclose(apply(turned, target), apply(pose, target), atol=1e-9)
    # a neighbour moved into the target's plane turns in the picture by exactly that angle, columns towards rows
    flat = apply(pose, other) - (VIEW_A.depth_mm(apply(pose, other)) - VIEW_A.depth_mm(apply(pose, target))) * VIEW_A.beam
    inside = apply(np.linalg.inv(pose), flat)
    mm = np.array([1.5, 2.0])
    a, b = ((VIEW_A.project(apply(p, inside))[0] - at) * mm for p in (pose, turned))
    assert np.degrees(np.arctan2(b[1], b[0]) - np.arctan2(a[1], a[0])) % 360 == pytest.approx(30.0, abs=1e-6)


def test_grips_follow_each_other_and_never_touch_the_pose_of_the_scene(scene):
    target = np.array([5.0, 10.0, -8.0])
    grip = PoseGrip(lambda: scene, {0: VIEW_A, 1: VIEW_B}, np.eye(4), target)
    assert not grip.dragged(0)
    node = grip.node(0)
    start_px = grip.pixels(0)[0]
    node.SetNthControlPointPositionWorld(0, *pixels_to_ras(VIEW_A, start_px[None] + (6.0, 0.0))[0])
    arm = grip.pixels(0)[1]
    node.SetNthControlPointPositionWorld(1, *pixels_to_ras(VIEW_A, arm[None] + (6.0, 0.0))[0])
    assert grip.dragged(0)
    depth = VIEW_A.depth_mm(target)[0]
    expected = 6.0 * 1.5 * depth / 1000  # 6 columns of 1.5 mm at the detector, seen at the target's depth
    moved = apply(grip.pose, target) - target
    np.testing.assert_allclose(moved, expected * VIEW_A.column_step_mm / 1.5, atol=1e-6)
    np.testing.assert_allclose(grip.pixels(1)[0], VIEW_B.project(apply(grip.pose, target))[0], atol=1e-6)
    node.RemoveAllControlPoints()  # deleted by the user: it comes back
    assert not grip.dragged(0)
    assert grip.pixels(0) is not None
    assert not find_all(scene, "pose")
    grip.close()
    assert grip.node(0) is None


# ---- landmarks ------------------------------------------------------------------------------------------------------
def test_landmarks_pair_in_order_and_follow_the_volume(scene):
    volume = _volume(scene, np.zeros((4, 4, 4), np.int16), np.eye(4))
    pose = scene.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "pose")
    shift = np.eye(4)
    shift[:3, 3] = 50, 0, 0
    pose.SetMatrixTransformToParent(vtk_matrix(shift))
    volume.SetAndObserveTransformNodeID(pose.GetID())
    marks = LandmarkMarks(lambda: scene)
    assert (marks.counts(), marks.missing()) == ((0, 0, 0), "ct")
    ct = marks.ct_node(volume)
    for world in ((51.0, 2.0, 3.0), (60.0, 5.0, 6.0), (50.0, 0.0, 9.0)):
        ct.AddControlPointWorld(*world)
    assert marks.missing() == "xray"
    for index, view in enumerate((VIEW_A, VIEW_B)):
        for pixel in ((10.0, 20.0), (30.0, 40.0), (50.0, 25.0))[: 3 - index]:
            marks.xray_node(index).AddControlPointWorld(*pixels_to_ras(view, np.array([pixel]))[0])
    assert (marks.counts(), marks.missing()) == ((3, 3, 2), "")
    pairs = marks.pairs(volume, [VIEW_A, VIEW_B])
    assert [(p.name, p.view) for p in pairs] == [("L1", 0), ("L2", 0), ("L3", 0), ("L1", 1), ("L2", 1)]
    np.testing.assert_allclose(pairs[0].position_lps_mm, (-1.0, -2.0, 3.0), atol=1e-9)  # world 51 - 50 = 1 R
    np.testing.assert_allclose(pairs[4].pixel, (30.0, 40.0), atol=1e-6)
    marks.take_back()
    assert marks.counts() == (3, 2, 2)
    marks.xray_node(0).SetNthControlPointPositionWorld(0, 0.0, 0.0, 0.0)
    with pytest.raises(FluoroGuideError, match="does not lie on the X-ray"):
        marks.pairs(volume, [VIEW_A, VIEW_B])
    marks.clear()
    assert marks.counts() == (0, 0, 0)
    assert array_of(vtk_matrix(shift))[0, 3] == 50


# ---- history --------------------------------------------------------------------------------------------------------
def _registration(shift):
    from FluoroGuideLib.registration.result import Registration

    pose = np.eye(4)
    pose[0, 3] = shift
    return Registration(pose, "pass", (), (0.9,), np.diag([1e-6] * 3 + [0.04] * 3), np.zeros(3), (VIEW_A,), facts={"part": "L4"})


def test_an_earlier_registration_comes_back_and_is_stale_only_when_its_pixels_changed(scene, tmp_path):
    from FluoroGuideLib.scene.case import load_mrb, save_mrb
    from FluoroGuideLib.scene.nodes import text_node
    from FluoroGuideLib.scene.record_nodes import build_pose, build_registration, read_pose, read_registration
    from FluoroGuideLib.scene.registration_history import RegistrationHistory, remark
    from FluoroGuideLib.scene.xray_slots import STAMP

    volume = _volume(scene, np.zeros((4, 4, 4), np.int16), np.eye(4))
    _image, xray = _xray(scene)
    history = RegistrationHistory(lambda: scene)

    def accept(registration, utc):
        remark([volume, xray])
        build_pose(scene, registration.pose)
        for node in (build_registration(scene, registration), volume, xray):
            node.SetAttribute(STAMP, utc)
        return history.add(registration, utc, [volume, xray], {"t": np.array([1.0, 2, 3])}, "landmarks", "L4")

    first = accept(_registration(1.0), "2026-01-01T10:00:00.000Z")
    second = accept(_registration(2.0), "2026-01-01T10:01:00.000Z")
    assert [e.number for e in history.entries()] == [1, 2]
    assert [e.present for e in history.entries()] == [False, True]
    assert second.error_mm == pytest.approx(_registration(2.0).target_error({"t": np.array([1.0, 2, 3])})[0].predicted_error_mm)
    history.restore(1, volume, [xray])
    assert read_pose(scene)[0, 3] == 1.0
    assert read_registration(scene).facts == {"part": "L4"}
    assert {n.GetAttribute(STAMP) for n in (volume, xray)} == {first.utc}
    assert volume.GetParentTransformNode() is not None
    history.decide(1, True)
    assert [e.accepted for e in history.entries()] == [True, None]
    xray.RemoveAttribute(STAMP)  # new pixels in the slot
    history.restore(2, volume, [xray])
    assert xray.GetAttribute(STAMP) is None
    accept(_registration(3.0), "2026-01-01T10:02:00.000Z")
    history.restore(1, volume, [xray])
    assert volume.GetAttribute(STAMP) == first.utc
    assert xray.GetAttribute(STAMP) != first.utc
    with pytest.raises(FluoroGuideError, match="no such registration"):
        history.restore(9, volume, [xray])
    text_node(scene, "case", "case", {"format": "fluoroguide-case", "version": 1, "name": "case"})
    save_mrb(scene, tmp_path / "case.mrb")
    load_mrb(scene, tmp_path / "case.mrb")
    assert [(e.number, e.accepted, e.start, e.part) for e in history.entries()] == [
        (1, True, "landmarks", "L4"), (2, None, "landmarks", "L4"), (3, None, "landmarks", "L4")]
