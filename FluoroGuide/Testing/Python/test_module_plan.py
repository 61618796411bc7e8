"""The Patient and plan section on the stand-ins; planning itself is done by the worker's own functions."""

from __future__ import annotations

import numpy as np
import pytest

from module_case import ENTRY, TARGET, fill, register, settle

pytest_plugins = ["module_fixture"]


def _planned(widget):
    volume, line, nodes = fill(widget)
    widget.panel.plan.needles.store_later()
    settle()
    return volume, line, nodes


def _plan(widget):
    return widget.logic.session.planner.current


def _row(widget, row=0):
    return [widget.ui.fgNeedleTable.item(row, c).text() for c in range(3)]


# ---- placing and editing ---------------------------------------------------------------------------------------------------
def test_a_new_needle_is_placed_and_joins_the_plan(widget):
    import slicer

    widget._parameterNode.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    slicer.util.updateVolumeFromArray(widget._parameterNode.volume, np.zeros((4, 5, 6), np.int16))
    settle()
    widget.ui.fgNewNeedleButton.click()
    assert widget.ui.fgLinePlace.placeModeEnabled
    line = widget._parameterNode.planLine
    assert widget.ui.fgLinePlace.currentNode() is line
    line.AddControlPointWorld(0, -40, 0)
    line.AddControlPointWorld(0, 0, 0)
    settle()
    assert [t.name for t in _plan(widget).trajectories] == ["Needle 1"]
    np.testing.assert_allclose(_plan(widget).trajectories[0].entry_lps_mm, (0, 40, 0))
    assert _row(widget)[:2] == ["Needle 1", "40.0 mm"]
    assert line.GetDisplayNode().GetSnapMode() == line.GetDisplayNode().SnapModeUnconstrained


def test_the_list_copies_orders_renames_holds_deletes_and_undoes(widget):
    _volume, line, _nodes = _planned(widget)
    ui = widget.ui
    assert _row(widget)[0] == "L4 left"
    ui.fgNeedleCopyButton.click()
    assert [t.name for t in _plan(widget).trajectories] == ["L4 left", "L4 left copy"]
    first, second = _plan(widget).trajectories
    np.testing.assert_allclose(second.entry_lps_mm - first.entry_lps_mm, (0, 0, 5), atol=1e-9)
    ui.fgNeedleUpButton.click()
    assert [t.name for t in _plan(widget).trajectories] == ["L4 left copy", "L4 left"]
    row = [r.node for r in widget.logic.session.needles.rows()].index(widget._parameterNode.planLine)
    ui.fgNeedleTable.item(row, 0).setText("L4 right")
    assert [t.name for t in _plan(widget).trajectories] == ["L4 right", "L4 left"]
    ui.fgNeedleHoldButton.click()
    assert widget._parameterNode.planLine.GetLocked()
    ui.fgNeedleDeleteButton.click()
    assert "The needle is locked" in ui.fgStatus.text
    ui.fgNeedleHoldButton.click()
    ui.fgNeedleDeleteButton.click()
    assert [t.name for t in _plan(widget).trajectories] == ["L4 left"]
    assert widget._parameterNode.planLine is line
    ui.fgPlanUndoButton.click()
    assert [t.name for t in _plan(widget).trajectories] == ["L4 right", "L4 left"]


def test_a_name_that_is_taken_is_refused_and_put_back(widget):
    _planned(widget)
    widget.ui.fgNeedleCopyButton.click()
    widget.ui.fgNeedleTable.item(1, 0).setText("L4 left")
    assert "Another needle has this name" in widget.ui.fgStatus.text
    assert _row(widget, 1)[0] == "L4 left copy"


def test_a_drag_is_stored_with_history_and_can_be_undone(widget):
    from FluoroGuideLib.planning.history import history

    _volume, line, _nodes = _planned(widget)
    line.SetNthControlPointPosition(0, -20.0, -60.0, 5.0)
    line.InvokeEvent(line.PointEndInteractionEvent)
    settle()
    np.testing.assert_allclose(_plan(widget).trajectories[0].entry_lps_mm, (20, 60, 5))
    assert [e.what for e in history(_plan(widget))][-1] == "Needle 'L4 left' moved."
    widget.ui.fgPlanUndoButton.click()
    np.testing.assert_allclose(_plan(widget).trajectories[0].entry_lps_mm, ENTRY)
    np.testing.assert_allclose(line.GetNthControlPointPosition(0), ENTRY * (-1, -1, 1), err_msg="the line went back too")


def test_the_users_colour_survives_a_registration(widget):
    _volume, line, _nodes = _planned(widget)
    before = line.GetDisplayNode().GetSelectedColor()
    widget.ui.fgNeedleColorButton.click()
    chosen = line.GetDisplayNode().GetSelectedColor()
    assert chosen != before
    register(widget)
    assert line.GetDisplayNode().GetSelectedColor() == chosen


# ---- lock ------------------------------------------------------------------------------------------------------------------
def _lock(widget):
    p = widget._parameterNode
    p.procedureName = "free"
    settle()
    import qt

    box = widget.ui.fgChecklist
    for n in range(box.count):
        box.item(n).setCheckState(qt.Qt.Checked)
    settle()
    assert widget.ui.fgLockButton.enabled, widget.ui.fgLockButton.toolTip
    widget.ui.fgLockButton.click()


def test_a_locked_plan_cannot_be_changed_by_any_way(widget):
    _volume, line, _nodes = _planned(widget)
    _lock(widget)
    assert widget.logic.session.planner.locked
    assert line.GetLocked()
    for button in (widget.ui.fgNewNeedleButton, widget.ui.fgNeedleDeleteButton, widget.ui.fgPlanUndoButton, widget.ui.fgSuggestButton):
        assert not button.enabled
        assert "locked" in button.toolTip
    line.SetNthControlPointPosition(1, 30.0, 30.0, 30.0)  # Slicer's own tables can still do it
    np.testing.assert_allclose(_plan(widget).trajectories[0].target_lps_mm, TARGET, err_msg="the plan is its text, not the moved markup")
    line.InvokeEvent(line.PointEndInteractionEvent)
    settle()
    assert "put back" in widget.ui.fgStatus.text
    np.testing.assert_allclose(line.GetNthControlPointPosition(1), TARGET * (-1, -1, 1))
    register(widget)
    assert line.GetLocked(), "a registration does not open the plan"
    assert widget.logic.session.planner.locked


def test_a_plan_is_unlocked_only_with_a_reason_and_says_so(widget):
    from FluoroGuideLib.planning.history import history

    _planned(widget)
    _lock(widget)
    widget.panel.dialogs.answer = ""
    widget.ui.fgUnlockButton.click()
    assert widget.logic.session.planner.locked
    widget.panel.dialogs.answer = "patient was turned"
    widget.ui.fgUnlockButton.click()
    assert not widget.logic.session.planner.locked
    assert [e.what for e in history(_plan(widget))][-1] == "Unlocked: patient was turned"


def test_the_lock_waits_for_the_checklist(widget):
    _planned(widget)
    widget._parameterNode.procedureName = "si_joint"
    settle()
    assert "8 items of the checklist are open" in widget.ui.fgLockButton.toolTip


# ---- procedure, side, level ------------------------------------------------------------------------------------------------
def test_a_procedure_brings_text_views_position_and_checklist(widget):
    _planned(widget)
    box = widget.ui.fgProcedureBox
    assert box.count >= 20
    box.setCurrentIndex(box.findData("si_joint"))
    settle()
    assert widget._parameterNode.procedureName == "si_joint"
    assert widget._parameterNode.patientPosition == "HFP"
    assert "unverified" in widget.ui.fgProcedureText.plainText
    assert widget.ui.fgChecklist.count == 8
    assert _plan(widget).procedure == "si_joint"
    assert [v.name for v in _plan(widget).required_views] == ["true AP", "contrast along the joint"]


def test_own_procedures_are_read_and_broken_ones_named(widget, tmp_path):
    import json

    shipped = widget.logic.session.planner.procedure("free")
    (tmp_path / "mine.json").write_text(json.dumps({**shipped.data, "key": "mine", "title": "My procedure"}))
    (tmp_path / "bad.json").write_text("{")
    widget.panel.dialogs.answer = tmp_path
    widget.ui.fgProcedureFolderButton.click()
    assert widget.ui.fgProcedureBox.findData("mine") >= 0
    assert "bad.json" in widget.ui.fgStatus.text


def test_a_level_must_be_confirmed_again_when_it_changes(widget):
    _planned(widget)
    p = widget._parameterNode
    p.level = "L4"
    settle()
    assert "Confirm the level" in widget.ui.fgPlanStatus.text
    widget.ui.fgLevelCheck.click()
    settle()
    assert "Confirm the level" not in widget.ui.fgPlanStatus.text
    p.level = "L5"
    settle()
    assert "Confirm the level" in widget.ui.fgPlanStatus.text
    assert not widget.ui.fgLevelCheck.checked


def test_a_wrong_side_blocks_until_it_is_confirmed_with_a_reason(widget):
    """The volume's middle is at LPS x = 0 ((8 voxels of 20 mm from -70): -80 to 80); the needle ends 44 mm to its right."""
    _volume, line, _nodes = _planned(widget)
    line.SetNthControlPointPosition(1, 44.0, -8.0, 2.0)
    line.InvokeEvent(line.PointEndInteractionEvent)
    widget._parameterNode.laterality = "left"
    settle()
    assert "its targets lie on the patient's right" in widget.ui.fgPlanStatus.text
    assert not widget.ui.fgRegisterButton.enabled
    widget.panel.dialogs.answer = "ok"
    widget.ui.fgConfirmButton.click()
    assert "reason in words" in widget.ui.fgStatus.text
    widget.panel.dialogs.answer = "situs inversus"
    widget.ui.fgConfirmButton.click()
    assert widget.ui.fgRegisterButton.enabled
    assert "situs inversus" in widget.ui.fgIdentityResult.text


def test_a_plan_keeps_its_volumes_stamp_and_another_volume_blocks(widget):
    import slicer

    from FluoroGuideLib.imaging.identity import PLAN_KEY, volume_hash
    from FluoroGuideLib.scene.nodes import volume_image

    volume, _line, _nodes = _planned(widget)
    stamp = _plan(widget).extra[PLAN_KEY]
    assert stamp["content_hash"] == volume_hash(volume_image(volume)), "the same digest as the command line's"
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    widget.panel.plan.needles.store_later()
    settle()
    assert "The plan was made on another volume." in widget.ui.fgPlanStatus.text


# ---- suggestions, views, fluoroscopy -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def made():
    """The lumbar phantom, coarse for speed."""
    from FluoroGuideLib.scene.sample_case import make_sample_case

    return make_sample_case(4.0)


@pytest.fixture
def sample(widget, made, monkeypatch):
    """The lumbar phantom in the scene, its procedure and side chosen."""
    from FluoroGuideLib.scene import sample_case

    monkeypatch.setattr(sample_case, "make_sample_case", lambda: made)
    loaded = widget.logic.loadSampleCase()
    widget._parameterNode.procedureName = "vertebroplasty_transpedicular"
    widget._parameterNode.laterality = "left"
    settle()
    return loaded


def test_views_are_solved_shown_and_rehearsed(widget, sample):
    ui, p = widget.ui, widget._parameterNode
    ui.fgCarmPart.collapsed = False
    settle()
    names = [ui.fgViewTable.item(r, 0).text() for r in range(ui.fgViewTable.rowCount)]
    assert names[:3] == ["bull's-eye", "progress 1", "progress 2"]
    ui.fgViewTable.setCurrentCell(0, 0)
    settle()
    # seen along the needle, entry and target fall on the same pixel
    view = widget.panel.plan.carm._view
    pixels = view.project(np.array([sample["case"].entry_lps_mm, sample["case"].target_lps_mm]))
    assert np.linalg.norm(pixels[0] - pixels[1]) < 0.5
    assert not ui.fgFluoroscopyPicture.pixmap.isNull()
    ui.fgShootButton.click()
    p.fluoroscopyPrimary = 10.0
    ui.fgRehearsedBox.setCurrentIndex(1)
    assert p.fluoroscopyPrimary == pytest.approx(view.angles_deg[0])


def test_suggested_entries_come_with_reasons_and_one_is_used(widget, sample):
    ui = widget.ui
    ui.fgSuggestButton.click()
    settle()
    assert ui.fgSuggestionTable.rowCount >= 1
    assert "from skin to target" in ui.fgSuggestionReasons.text
    wanted = widget.panel.plan.needles._candidates[0].trajectory.entry_lps_mm
    ui.fgSuggestionUseButton.click()
    np.testing.assert_allclose(_plan(widget).trajectory("L4 left").entry_lps_mm, wanted, atol=1e-6)
    assert ui.fgSuggestionTable.visible is False


def test_a_structure_too_near_is_told_and_coloured(widget, sample):
    """A ball of 6 mm radius with its centre 8 mm beside the needle, half-way: nearer than 2 mm to its wall."""
    import slicer

    from FluoroGuideLib.geometry.frames import ras_from_lps

    case, scene = sample["case"], slicer.mrmlScene
    axis = (case.target_lps_mm - case.entry_lps_mm) / np.linalg.norm(case.target_lps_mm - case.entry_lps_mm)
    across = np.cross(axis, (0, 0, 1.0))
    middle = (case.entry_lps_mm + case.target_lps_mm) / 2 + 8.0 * across / np.linalg.norm(across)
    spinal = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "structures")
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "label")
    size = 24
    k, j, i = np.mgrid[:size, :size, :size] - (size - 1) / 2
    slicer.util.updateVolumeFromArray(labels, (np.sqrt(i**2 + j**2 + k**2) <= 6).astype(np.uint8))
    labels.SetOrigin(*(ras_from_lps(middle) - (size - 1) / 2))
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    assert logic.ImportLabelmapToSegmentationNode(labels, spinal)
    name = widget.logic.session.planner.procedure("vertebroplasty_transpedicular").data["safety_structures"][0]["name"]
    spinal.GetSegmentation().GetNthSegment(0).SetName(name)
    widget._parameterNode.structures = spinal
    widget.panel.plan.needles.store_later()
    settle()
    told = float(widget.ui.fgNeedleTable.item(0, 2).text().split()[0])
    assert told == pytest.approx(2.0, abs=0.6)  # 8 mm less the radius of 6, voxels of 1 mm
    (model,) = [n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if n.GetAttribute("FluoroGuide.role") == "clearance"]
    colors = {model.GetPolyData().GetCellData().GetArray("rgba").GetTuple3(c) for c in range(model.GetPolyData().GetNumberOfCells())}
    assert len(colors) >= 2


def test_a_new_needle_has_the_procedures_size_and_another_may_be_chosen(widget):
    fill(widget)
    p, ui = widget._parameterNode, widget.ui
    p.procedureName = "lumbar_facet"  # 22 G, 90 mm and no other
    p.planLine = widget.logic.session.needles.copy(p.planLine)
    widget.panel.plan.needles._store()
    plan = widget.logic.session.planner.current
    assert [(t.gauge, t.needle_length_mm) for t in plan.trajectories][-1] == (22, 90)
    p.procedureName = "medial_branch_block"  # 22 G, 90 or 127 mm
    widget.panel.refresh()
    sizes = [ui.fgNeedleSizeBox.itemText(n) for n in range(ui.fgNeedleSizeBox.count)]
    assert sizes == ["not told", "22 G, 90 mm", "22 G, 127 mm"]
    assert ui.fgNeedleSizeBox.currentText == "22 G, 90 mm"
    ui.fgNeedleSizeBox.setCurrentIndex(2)
    assert widget.logic.session.planner.current.trajectories[-1].needle_length_mm == 127
    widget.panel.refresh()
    ui.fgPlanUndoButton.click()
    assert widget.logic.session.planner.current.trajectories[-1].needle_length_mm == 90
    ui.fgNeedleSizeBox.setCurrentIndex(0)
    assert widget.logic.session.planner.current.trajectories[-1].gauge is None
