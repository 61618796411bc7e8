"""The case in MRML on the real Slicer scene (slicer-core): geometry, saving, reading back."""

from __future__ import annotations

import dataclasses

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
from FluoroGuideLib.scene import case, host, nodes, record_nodes, xray_view
from FluoroGuideLib.scene.plan_nodes import markups_lps_mm
from FluoroGuideLib.scene.xray_view import UprightLock

# 90 degrees about z, then (5, 7, -11): x -> -y, y -> x.  Written by hand: no code of the product is used.
POSE = np.array([[0.0, -1, 0, 5], [1, 0, 0, 7], [0, 0, 1, -11], [0, 0, 0, 1]])
TARGET = (0.1 + 0.2, 1 / 3, -7.0)


@pytest.fixture
def a_host():
    a_host = host.start()
    a_host.scene.Clear(0)
    yield a_host
    a_host.scene.Clear(0)


def a_view(primary=30.0, secondary=20.0, rows=60, columns=80):
    return CArmView.from_angles(primary, secondary, sid_mm=1000, sod_mm=600, rows=rows, columns=columns, pixel_spacing_mm=(1.5, 1.2))


def an_image(view, seed=1):
    rng = np.random.default_rng(seed)
    mask = np.ones((view.rows, view.columns), bool)
    mask[:5, :7] = False
    return XrayImage(rng.normal(0, 1, mask.shape).astype(np.float32), mask, view, "run.dcm", 3, {"kvp": 70.5}, ("Spacing was assumed.",))


def a_volume():
    voxels = np.full((6, 8, 10), -1000, np.int16)
    voxels[1, 2, 3] = 1200  # k, j, i
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 3.0, 4.0))
    image.SetOrigin((-10.0, 20.0, 30.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))  # i along -y, j along +x
    return image


def a_plan():
    return Plan(
        "facet_joint", (Target("L4/5 links", TARGET, 2.0),),
        (Trajectory("Nadel Ü", (40, -50, 10.125), TARGET, 22, 120.0), Trajectory("second", (1, 2, 3), (4, 5, 60))),
        "left", "L4/L5", "CT 1", {"joint": [(0, 0, 0), (5, 0, 0), (5, 5, 1), (0, 0, 0)]}, ("AP",), "a note", {"unknown": [1, 2]},
    )


def a_case(**changes):
    views = (a_view(), a_view(-50, -5))
    covariance = np.diag([1e-4, 2e-4, 3e-4, 0.1, 0.2, 0.3]) + 1e-5
    registration = Registration(
        POSE, "warn", ("Only because.",), (0.51, 0.62), covariance, np.array([1.0, 2, 3]), views,
        ({"level": 1, "cost": 0.1},), 1.25, 345, {"bone": "L4"},
    )
    needle = NeedlePose(np.array([1.0, 2, 3]), np.array([0, 0.6, 0.8]), np.eye(3) * 0.1, 0.5, 80.0, np.array([0.1, 0.2]), "isocentre", ("w",))
    shapes = [
        Shape("needle", "Nadel Ü", np.array([[10.0, 20], [30, 40], [np.nan, np.nan], [50, 40], [60, 30]]), (86, 180, 233, 255), 2, "Nadel Ü"),
        Shape("outline", "joint", np.array([[1.0, 2], [3, 4], [5, 6]]), (0, 158, 115, 255), 1, ""),
    ]
    data = case.CaseData(a_volume(), [an_image(v, i) for i, v in enumerate(views)], registration, a_plan(), needle, {0: shapes}, name="Case Ä")
    return dataclasses.replace(data, **changes)


def roles(a_host):
    every = (a_host.scene.GetNthNode(i) for i in range(a_host.scene.GetNumberOfNodes()))
    return sorted((n.GetAttribute("FluoroGuide.role"), n.GetAttribute("FluoroGuide.key")) for n in every if n.GetAttribute("FluoroGuide.role"))


def ras_of(node, ijk):
    """World RAS of a voxel, by Slicer's own transforms."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    local, world = matrix.MultiplyPoint((*ijk, 1.0))[:3], [0.0, 0.0, 0.0]
    node.TransformPointToWorld(local, world)
    return np.array(world)


def test_start_twice_gives_the_same_scene(a_host):
    assert host.start() is a_host
    assert a_host.headless


def test_a_voxel_lands_where_the_pose_says(a_host):
    made = case.build(a_host, a_case())
    # voxel (3, 2, 1): LPS = origin + j * 3 in x, i * -2 in y, k * 4 in z = (-10 + 6, 20 - 6, 30 + 4) = (-4, 14, 34)
    # pose: (-y + 5, x + 7, z - 11) = (-9, 3, 23) LPS -> RAS (9, -3, 23); a pose taken as from-parent gives another point
    assert ras_of(made.volume, (3, 2, 1)) == pytest.approx((9, -3, 23), abs=1e-9)
    import slicer

    assert slicer.util.arrayFromVolume(made.volume)[1, 2, 3] == 1200
    # entry (40, -50, 10.125) -> (55, 47, -0.875) LPS -> RAS (-55, -47, -0.875)
    world = [0.0, 0.0, 0.0]
    made.trajectories[0].GetNthControlPointPositionWorld(0, world)
    assert world == pytest.approx((-55, -47, -0.875), abs=1e-9)


def test_xray_pixels_lie_on_the_detector_and_directions_are_right_handed(a_host):
    view = a_view()
    made = case.build(a_host, case.CaseData(images=[an_image(view)]))
    for column, row in ((0, 0), (79, 0), (0, 59), (12, 34)):
        lps = view.first_pixel_mm + column * view.column_step_mm + row * view.row_step_mm
        assert ras_of(made.xrays[0], (column, row, 0)) == pytest.approx(lps * (-1, -1, 1), abs=1e-9)
    directions = xray_view.ijk_to_ras(view)[:3, :3]
    assert np.linalg.det(directions) > 0
    # third axis -d in RAS; d of LAO 30 CRA 20 by hand: (sin30 cos20, -cos30 cos20, sin20)
    d = np.array([0.5 * np.cos(np.radians(20)), -np.cos(np.radians(30)) * np.cos(np.radians(20)), np.sin(np.radians(20))])
    assert directions[:, 2] == pytest.approx(-d * (-1, -1, 1))


def test_upright_matrix_of_an_ap_view_is_columns_right_and_rows_down():
    matrix = xray_view.upright_slice_to_ras(a_view(0, 0))
    # AP: columns run to the patient's left (RAS -x), rows to the feet; so picture up is superior
    assert matrix[:3, 0] == pytest.approx((-1, 0, 0))
    assert matrix[:3, 1] == pytest.approx((0, 0, 1), abs=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    assert matrix[:3, 3] == pytest.approx((0, 400, 0), abs=1e-9)  # detector 400 mm anterior of the isocentre


def test_built_twice_makes_nothing_twice_and_drops_what_is_gone(a_host):
    case.build(a_host, a_case())
    before, count = roles(a_host), a_host.scene.GetNumberOfNodes()
    case.build(a_host, a_case())
    assert roles(a_host) == before
    assert a_host.scene.GetNumberOfNodes() == count
    plan = dataclasses.replace(a_plan(), trajectories=a_plan().trajectories[:1], outlines={})
    case.build(a_host, a_case(plan=plan, needle=None, images=[an_image(a_view())], overlays={}))
    left = roles(a_host)
    assert ("trajectory", "1") not in left
    assert ("outline", "joint") not in left
    assert ("needle", "") not in left
    assert ("xray", "1") not in left
    assert ("trajectory", "0") in left
    assert ("xray", "0") in left
    case.build(a_host, case.CaseData())
    assert roles(a_host) == [("case", ""), ("overlay-colors", "")]


def test_saved_cleared_and_loaded_every_number_is_back(a_host, tmp_path):
    data = a_case()
    case.build(a_host, data)
    before = roles(a_host)
    path = case.save_mrb(a_host, tmp_path / "a case ü.mrb")
    a_host.scene.Clear(0)
    assert roles(a_host) == []
    back = case.load_mrb(a_host, path)
    assert roles(a_host) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a case ü.mrb"]
    assert back["name"] == "Case Ä"
    assert back["plan"].to_dict() == data.plan.to_dict()
    assert np.abs(back["pose"] - POSE).max() < 1e-12
    assert _equal(back["registration"], data.registration)
    assert _equal(back["needle"], data.needle)
    for image, original in zip(back["images"], data.images):
        assert (image.pixels == original.pixels).all()
        assert (image.mask == original.mask).all()
        assert image.view.to_dict() == original.view.to_dict()
        assert image.facts == original.facts
        assert image.assumptions == original.assumptions
        assert (image.source, image.frame) == ("run.dcm", 3)
    volume = case.read_volume_image(a_host)
    assert (sitk.GetArrayFromImage(volume) == sitk.GetArrayFromImage(data.volume)).all()
    assert volume.GetPixelID() == sitk.sitkInt16
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(volume, name)() == pytest.approx(getattr(data.volume, name)(), abs=1e-12)


def _equal(a, b):
    assert type(a) is type(b)
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(y, np.ndarray):
            assert (x == y).all(), field.name
        elif field.name == "views":
            assert [v.to_dict() for v in x] == [v.to_dict() for v in y]
        else:
            assert x == y, field.name
    return True


def test_loaded_scene_keeps_geometry_hierarchy_display_and_references(a_host, tmp_path):
    case.build(a_host, a_case())
    path = case.save_mrb(a_host, tmp_path / "c.mrb")
    a_host.scene.Clear(0)
    back = case.load_mrb(a_host, path)
    assert ras_of(nodes.find(a_host, "volume"), (3, 2, 1)) == pytest.approx((9, -3, 23), abs=1e-6)
    line = nodes.find(a_host, "trajectory", "0")
    assert markups_lps_mm(line)[1] == pytest.approx(TARGET, abs=1e-6)
    assert line.GetLocked()
    head = nodes.find(a_host, "case")
    assert [n.GetAttribute("FluoroGuide.key") for n in nodes.references(head, "xray")] == ["0", "1"]
    import slicer

    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(a_host.scene)
    assert back["folder"]
    assert tree.GetItemName(back["folder"]) == "Case Ä"
    for role in ("volume", "pose", "xray", "trajectory", "needle", "plan", "registration", "overlay"):
        for node in nodes.find_all(a_host, role):
            assert tree.GetItemParent(tree.GetItemByDataNode(node)) == back["folder"], role
    overlay = nodes.find(a_host, "overlay", "0/2").GetDisplayNode()
    assert overlay.GetSliceDisplayMode() == overlay.SliceDisplayProjection
    assert overlay.GetVisibility2D()
    assert [overlay.GetNthViewNodeID(i) for i in range(overlay.GetNumberOfViewNodeIDs())] == ["vtkMRMLSliceNodeXRayA"]
    assert overlay.GetColorNode() is nodes.find(a_host, "overlay-colors")
    slice_node, composite = xray_view.slice_nodes(a_host, "XRayB")
    assert composite.GetBackgroundVolumeID() == nodes.find(a_host, "xray", "1").GetID()
    assert not composite.GetDoPropagateVolumeSelection()
    assert nodes.array_of(slice_node.GetSliceToRAS()) == pytest.approx(xray_view.upright_slice_to_ras(a_view(-50, -5)), abs=1e-6)
    display = nodes.find(a_host, "xray", "0").GetDisplayNode()
    assert not display.GetAutoWindowLevel()
    assert display.GetWindow() > 1


def test_a_built_case_after_load_updates_the_loaded_nodes(a_host, tmp_path):
    case.build(a_host, a_case())
    path = case.save_mrb(a_host, tmp_path / "c.mrb")
    case.load_mrb(a_host, path)
    before = roles(a_host)
    case.build(a_host, a_case())
    assert roles(a_host) == before


def test_a_dragged_markup_changes_the_plan_and_a_renamed_one_does_not(a_host):
    made = case.build(a_host, a_case())
    made.trajectories[0].SetName("renamed by the user")
    made.trajectories[0].SetNthControlPointPosition(1, -1.0, -2.0, 3.0)  # RAS
    plan = case.read_case(a_host)["plan"]
    assert plan.trajectories[0].name == "Nadel Ü"
    assert tuple(plan.trajectories[0].target_lps_mm) == (1.0, 2.0, 3.0)
    assert tuple(plan.trajectories[0].entry_lps_mm) == (40, -50, 10.125)


def test_the_pose_read_is_the_one_the_scene_shows(a_host):
    made = case.build(a_host, a_case())
    moved = POSE.copy()
    moved[:3, 3] += (1, 2, 3)
    made.pose.SetMatrixTransformToParent(nodes.vtk_matrix(np.diag([-1.0, -1, 1, 1]) @ moved @ np.diag([-1.0, -1, 1, 1])))
    assert case.read_case(a_host)["pose"] == pytest.approx(moved)


def test_overlay_points_are_the_detector_points_of_their_pixels(a_host):
    view = a_view()
    made = case.build(a_host, a_case())
    overlay = nodes.find(a_host, "overlay", "0/2").GetPolyData()
    assert overlay.GetNumberOfCells() == 2  # NaN cuts the polyline
    for i, (column, row) in enumerate(((10, 20), (30, 40), (50, 40), (60, 30))):
        lps = view.first_pixel_mm + column * view.column_step_mm + row * view.row_step_mm
        assert overlay.GetPoint(i) == pytest.approx(lps * (-1, -1, 1), abs=1e-9)
    labels = made.overlays[0].labels
    assert labels.GetNumberOfControlPoints() == 1
    assert labels.GetNthControlPointLabel(0) == "Nadel Ü"


def test_overlay_update_in_place_and_stale_is_grey(a_host):
    overlay = case.build(a_host, a_case()).overlays[0]
    model = nodes.find(a_host, "overlay", "0/2")
    points = model.GetPolyData().GetPoints()

    def colors(node):
        table, cells = node.GetDisplayNode().GetColorNode(), node.GetPolyData().GetCellData().GetArray("color")
        found = []
        for i in range(cells.GetNumberOfTuples()):
            rgba = [0.0] * 4
            table.GetColor(int(cells.GetTuple1(i)), rgba)
            found.append(tuple(round(c * 255) for c in rgba))
        return found

    shapes = [Shape("needle", "n", np.array([[1.0, 2], [3, 4], [np.nan, 0], [5, 6], [7, 8]]), (213, 94, 0, 255), 2, "n")]
    overlay.update(shapes)
    assert model.GetPolyData().GetPoints() is points
    assert colors(model) == [(213, 94, 0, 255)] * 2
    assert nodes.find(a_host, "overlay", "0/1").GetPolyData().GetNumberOfCells() == 0  # the outline is gone
    overlay.set_stale(True)
    assert colors(model) == [(150, 150, 150, 255)] * 2
    assert model.GetAttribute("FluoroGuide.stale") == "1"
    overlay.update(shapes)
    assert colors(model) == [(150, 150, 150, 255)] * 2  # a new frame does not make it fresh
    overlay.set_stale(False)
    assert colors(model) == [(213, 94, 0, 255)] * 2
    assert model.GetAttribute("FluoroGuide.stale") is None


def test_lock_keeps_the_view_upright(a_host):
    view = a_view()
    case.build(a_host, case.CaseData(images=[an_image(view)]))
    node, _ = xray_view.slice_nodes(a_host, "XRayA")
    wanted = xray_view.upright_slice_to_ras(view)
    lock = UprightLock(node, view)
    node.SetSliceOffset(17)
    node.SetOrientation("Axial")
    node.JumpSliceByOffsetting(1, 2, 3)
    assert nodes.array_of(node.GetSliceToRAS()) == pytest.approx(wanted, abs=1e-4)
    node.SetFieldOfView(50, 40, 1)
    assert node.GetFieldOfView()[:2] == (50, 40)  # zoom goes on working
    lock.release()
    lock.release()
    node.SetOrientation("Axial")
    assert not np.allclose(nodes.array_of(node.GetSliceToRAS()), wanted, atol=1e-2)


def test_layout_is_registered_once_and_makes_both_views_in_their_own_groups(a_host):
    import slicer

    for left in slicer.util.getNodesByClass("vtkMRMLLayoutNode", a_host.scene):  # of another test file's main window; it outlives Clear
        a_host.scene.RemoveNode(left)
    assert xray_view.register_layout(a_host) is False  # no layout node yet
    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLScene(a_host.scene)
    layout = logic.GetLayoutNode()
    assert xray_view.register_layout(a_host)
    assert xray_view.register_layout(a_host)
    layout.SetViewArrangement(xray_view.LAYOUT_ID)
    groups = {name: a_host.scene.GetSingletonNode(name, "vtkMRMLSliceNode").GetViewGroup() for name in ("XRayA", "XRayB")}
    assert groups == {"XRayA": 57, "XRayB": 58}
    logic.SetMRMLScene(None)
    a_host.scene.RemoveNode(layout)


def test_tables_say_units_and_what_is_not_known():
    rows = record_nodes.rows_of({"tip_mm": 1.23456789, "dap_gy_m2": None, "warnings": [], "events": [{"kvp": 70}], "axis": [0.0, 1.0]})
    assert rows == [
        ("tip_mm", "1.23457", "mm"), ("dap_gy_m2", "not known", ""), ("warnings", "none", ""),
        ("events[1].kvp", "70", ""), ("axis", "0, 1", ""),
    ]


def test_placement_dose_and_record_come_back_whole(a_host, tmp_path):
    from FluoroGuideLib.record.dose_model import DoseEvent, DoseSummary
    from FluoroGuideLib.record.placement import placement_of
    from FluoroGuideLib.record.record import ProcedureRecord

    plan = a_plan()
    # 3 mm further along x than the target, direction of the plan
    in_volume = NeedlePose(np.array(TARGET) + (3, 0, 0), plan.trajectories[0].axis, np.eye(3) * 0.04, 0.5, 80.0, np.array([0.1, 0.2]), "volume")
    placement = placement_of(plan, in_volume, views=("AP", "LAO 30.0"))
    dose = DoseSummary(dap_gy_m2=1.23456789e-4, reference_air_kerma_gy=0.0125, events=(DoseEvent(kind="fluoroscopy", seconds=3.0),), warnings=("w",))
    record = ProcedureRecord("facet_joint", "left", "L4/L5", plan, placements=[placement], dose=dose, notes="Ü")
    made = case.build(a_host, a_case(needle=in_volume, placement=placement, dose=dose, record=record))
    assert made.needle.GetParentTransformNode() is made.pose  # a needle in the volume's frame follows the volume
    path = case.save_mrb(a_host, tmp_path / "c.mrb")
    a_host.scene.Clear(0)
    back = case.load_mrb(a_host, path)
    assert back["placement"].to_dict() == placement.to_dict()
    assert back["dose"].to_dict() == dose.to_dict()
    assert back["record"].to_dict() == record.to_dict()
    table = nodes.find(a_host, "placement-table")
    rows = {table.GetCellText(i, 0): (table.GetCellText(i, 1), table.GetCellText(i, 2)) for i in range(table.GetNumberOfRows())}
    assert rows["trajectory"] == ("Nadel Ü", "")
    assert rows["deviation.tip_mm"] == ("3", "mm")
    assert rows["views"] == ("AP; LAO 30.0", "")
    table = nodes.find(a_host, "dose-table")
    rows = {table.GetCellText(i, 0): (table.GetCellText(i, 1), table.GetCellText(i, 2)) for i in range(table.GetNumberOfRows())}
    assert rows["dap_gy_m2"] == ("0.000123457", "Gy.m2")
    assert rows["fluoroscopy_seconds"] == ("not known", "")
    assert rows["events"] == ("1", "")


def test_a_list_of_placements_comes_back_as_a_list(a_host):
    from FluoroGuideLib.record.placement import placement_of

    needle = NeedlePose(np.array(TARGET), np.array([0, 0.6, 0.8]), np.eye(3), 0.5, 80.0, np.array([0.1, 0.2]), "volume")
    both = [placement_of(a_plan(), needle, t) for t in a_plan().trajectories]
    case.build(a_host, a_case(placement=both))
    assert [p.to_dict() for p in case.read_case(a_host)["placement"]] == [p.to_dict() for p in both]


def test_needle_line_ends_at_the_tip_and_has_the_needle_s_length(a_host):
    made = case.build(a_host, a_case())
    # tip (1, 2, 3), axis (0, .6, .8) hub to tip, 120 mm: hub (1, 2 - 72, 3 - 96)
    assert markups_lps_mm(made.needle) == pytest.approx(np.array([[1, -70, -93], [1, 2, 3]]))
    assert made.needle.GetParentTransformNode() is None  # measured in the X-rays: isocentre frame


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda h, d: case.read_case(h), "holds no FluoroGuide case"),
        (lambda h, d: case.load_mrb(h, d / "absent.mrb"), "does not exist"),
        (lambda h, d: case.save_mrb(h, d / "case.txt"), "must end in .mrb"),
        (lambda h, d: case.save_mrb(h, d / "absent" / "case.mrb"), "folder for the scene file does not exist"),
    ],
)
def test_bad_requests_are_one_sentence(a_host, tmp_path, action, words):
    with pytest.raises(FluoroGuideError, match=words):
        action(a_host, tmp_path)


def test_a_wrong_file_does_not_cost_the_open_scene(a_host, tmp_path):
    case.build(a_host, a_case())
    before = roles(a_host)
    (tmp_path / "text.mrb").write_text("this is no zip file")
    with pytest.raises(FluoroGuideError, match="not a Slicer scene bundle"):
        case.load_mrb(a_host, tmp_path / "text.mrb")
    assert roles(a_host) == before
