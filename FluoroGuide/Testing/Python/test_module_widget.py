"""The module's widget on the stand-ins: wiring, life cycle and the workflow with a stand-in for the engine.

What this cannot show: looks, PythonQt's own behaviour and real views.  FluoroGuideTest runs in the application too.
"""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

pytest_plugins = ["module_fixture"]
MODULE_FILE = Path(__file__).resolve().parents[2] / "FluoroGuide.py"
POSE = np.array([[0, -1, 0, 5.0], [1, 0, 0, -3.0], [0, 0, 1, 7.0], [0, 0, 0, 1]])  # asymmetric on purpose
ENTRY, TARGET = np.array([10.0, 60.0, 5.0]), np.array([-4.0, 8.0, 2.0])
TIP_OFFSET = np.array([0.0, 0.0, 2.0])


class FakeJob:
    def __init__(self):
        self.state, self.progress, self.text, self.result, self.error, self.log, self.seconds = "running", 0.0, "", None, None, "", 1.0

    @property
    def finished(self):
        return self.state != "running"


class FakeEngine:
    """Does what it is told, at once."""

    def __init__(self):
        self.jobs, self.closed, self.warm = [], False, 0

    def warm_up(self):
        self.warm += 1

    def submit(self, volume, images, initial=None, *, targets=None, options=None):
        self.arguments = (volume, images, initial, targets)
        self.jobs.append(FakeJob())
        return self.jobs[-1]

    def poll(self):
        return []

    def cancel(self, job):
        job.state = "cancelled"

    def wait(self, job):
        return job.result

    def close(self):
        self.closed = True


class Files:
    """Answers of the file dialogs."""

    def __init__(self):
        self.answer = ""

    def open_file(self, title, kinds):
        return str(self.answer)

    def save_file(self, title, name, kinds):
        return str(self.answer)


@pytest.fixture
def module(app):
    import slicer_app

    return slicer_app.load_module(MODULE_FILE)


def _make(module):
    import slicer_app

    widget = slicer_app.make_widget(module[0], "FluoroGuide")
    widget.engine = FakeEngine()
    widget.logic.session._make_engine = lambda: widget.engine
    widget.panel.dialogs = Files()
    return widget


@pytest.fixture
def widget(module):
    import slicer_app

    made = _make(module)
    slicer_app.enter(made)
    yield made
    if made.panel is not None:
        made.cleanup()


def _views():
    from FluoroGuideLib.geometry.carm import CArmView

    return [CArmView.from_angles(a, 5, sid_mm=1000, sod_mm=700, rows=64, columns=80, pixel_spacing_mm=(2.0, 2.0)) for a in (0, 80)]


def _fill(widget, xrays=2):
    """A small case chosen in the panel: volume, planned line, X-rays."""
    import SimpleITK as sitk
    import slicer

    from FluoroGuideLib.imaging.xray import XrayImage
    from FluoroGuideLib.scene.nodes import set_volume
    from FluoroGuideLib.scene.plan_nodes import set_markups

    scene, p = slicer.mrmlScene, widget._parameterNode
    image = sitk.GetImageFromArray(np.random.default_rng(1).integers(-900, 900, (6, 7, 8)).astype(np.int16))
    image.SetSpacing((20, 20, 20))
    image.SetOrigin((-70, -40, -50))
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    set_volume(volume, image)
    line = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L4 left")
    set_markups(line, np.array([ENTRY, TARGET]), ["entry", "target"], (1, 1, 1))
    rng = np.random.default_rng(0)
    images = [XrayImage(rng.random((64, 80)), np.ones((64, 80), bool), view) for view in _views()[:xrays]]
    nodes = [widget.logic.session.add_xray(image, i) for i, image in enumerate(images)]
    p.volume, p.planLine, p.xrayA = volume, line, nodes[0]
    if xrays > 1:
        p.xrayB = nodes[1]
    p.procedureName = "biopsy"
    widget.panel.refresh()
    return volume, line, nodes


def _registration(verdict="pass", reasons=()):
    from FluoroGuideLib.registration.result import Registration

    return Registration(POSE, verdict, reasons, (0.9, 0.8), np.diag([1e-6] * 3 + [0.04] * 3), np.zeros(3), tuple(_views()), seconds=1.0)


def _tick(seconds=0.0):
    """Let timers run: the panel's are 30 and 40 ms."""
    import time

    import qt

    end = time.monotonic() + seconds
    while True:
        qt.application.processEvents()
        if time.monotonic() >= end:
            return
        time.sleep(0.005)


def _register(widget, verdict="pass", reasons=()):
    widget.ui.fgRegisterButton.click()
    job = widget.engine.jobs[-1]
    job.result, job.state = _registration(verdict, reasons), "done"
    _tick(0.1)


def _tip_and_shaft():
    """Pixels of a needle 2 mm cranial of its target, parallel to the plan, in both views."""
    from FluoroGuideLib.geometry.rigid import apply

    axis = (ENTRY - TARGET) / np.linalg.norm(ENTRY - TARGET)
    points = apply(POSE, np.array([TARGET + TIP_OFFSET, TARGET + TIP_OFFSET + 30 * axis]))
    return [view.project(points) for view in _views()]


def _mark(widget, nodes):
    for index, button in enumerate((widget.ui.fgMarkAButton, widget.ui.fgMarkBButton)):
        button.click()
        assert widget.ui.fgMarkPlace.placeModeEnabled
        widget.logic.session.set_marks(index, nodes[index], _tip_and_shaft()[index])
    _tick(0.1)


# ---- metadata and life ---------------------------------------------------------------------------------------------------
def test_metadata_for_the_generic_module_test(module):
    parent = module[1]
    assert parent.title == "FluoroGuide"
    assert parent.categories == ["IGT"]
    assert parent.contributors
    assert parent.acknowledgementText
    assert "not a medical device" in parent.helpText


def test_startup_registers_the_layout_before_the_module_is_opened(app_with_window):
    import slicer

    import slicer_app

    slicer_app.load_module(MODULE_FILE)
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    assert not node.IsLayoutDescription(5701)
    app_with_window.startupCompleted.emit()
    assert node.IsLayoutDescription(5701)


def test_startup_without_main_window_does_nothing_wrong(app, module):
    app.startupCompleted.emit()


def test_the_users_layout_comes_back_on_exit(app_with_window):
    import slicer

    import slicer_app

    widget = _make(slicer_app.load_module(MODULE_FILE))
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    node.SetViewArrangement(3)
    slicer_app.enter(widget)
    assert node.GetViewArrangement() == 5701
    slicer_app.leave(widget)
    assert node.GetViewArrangement() == 3
    slicer_app.enter(widget)
    node.SetViewArrangement(4)  # the user chooses another while the module is open: keep theirs
    slicer_app.leave(widget)
    assert node.GetViewArrangement() == 4
    widget.cleanup()


def test_another_scene_and_back_is_survived(widget):
    import slicer

    _fill(widget)
    other = slicer.vtkMRMLScene()
    widget.layout.itemAt(0).widget().setMRMLScene(other)
    widget.panel.refresh()
    widget.layout.itemAt(0).widget().setMRMLScene(slicer.mrmlScene)
    widget.panel.refresh()
    assert widget.ui.fgVolumeSelector.mrmlScene() is slicer.mrmlScene


def test_cleanup_leaves_no_connection_timer_observer_or_reference(module):
    import slicer

    import qt
    import slicer_app

    widget = _make(module)
    slicer_app.enter(widget)
    volume, line, nodes = _fill(widget)
    _register(widget)
    _mark(widget, nodes)
    widget.ui.fgRegisterButton.click()  # leave in the middle of a registration
    assert qt.active_timers()
    ui, engine, node = widget.ui, widget.engine, widget._parameterNode.parameterNode
    widget.cleanup()
    widget.cleanup()
    assert engine.closed
    assert qt.active_timers() == []
    assert [qt.connections(w) for w in vars(ui).values() if qt.connections(w)] == []
    mark = widget.logic.session.mark_node(0)
    assert not line.HasObserver(line.PointModifiedEvent)
    assert not mark.HasObserver(mark.PointPositionDefinedEvent)
    assert not mark.HasObserver(mark.PointEndInteractionEvent)
    gone = weakref.ref(widget.panel or widget)
    del widget
    gc.collect()
    assert gone() is None, "an observer or a signal still holds the widget"
    node.Modified()
    slicer.mrmlScene.Clear(0)


def test_two_widgets_do_not_disturb_each_other(module):
    first, second = _make(module), _make(module)
    _fill(first)
    first.cleanup()
    second.panel.refresh()
    assert second.ui.fgRegisterButton.enabled
    second.cleanup()


def test_reload_forgets_the_library_and_the_new_panel_lives_without_enter(module, monkeypatch):
    import slicer
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget

    before = dict(sys.modules)
    try:
        widget, seen = _make(module), []
        library = lambda: [n for n in sys.modules if n.startswith("FluoroGuideLib")]  # noqa: E731
        monkeypatch.setattr(ScriptedLoadableModuleWidget, "onReload", lambda self: seen.append(library()))
        widget.onReload()
        assert seen == [[]]
        widget.cleanup()
    finally:
        sys.modules.update(before)
    fresh = _make(module)  # Slicer calls setup(), but not enter()
    slicer.mrmlScene.Clear(0)
    assert fresh._parameterNode is not None
    fresh.cleanup()


def test_scene_close_in_mid_registration_stops_everything(widget):
    import slicer

    import qt

    _fill(widget)
    widget.ui.fgRegisterButton.click()
    slicer.mrmlScene.Clear(0)
    assert widget.engine.jobs[-1].state == "cancelled"
    assert qt.active_timers() == []
    assert widget._parameterNode.volume is None
    assert "CT volume" in widget.ui.fgStatus.text
    _fill(widget)  # a second case afterwards
    _register(widget)
    assert "PASS" in widget.ui.fgVerdictResult.text


def test_exit_frees_the_views_and_stops_placing(widget):
    import slicer
    import vtk

    import slicer_app

    _fill(widget)
    widget.panel.show_xrays()
    node = slicer.mrmlScene.GetSingletonNode("XRayA", "vtkMRMLSliceNode")
    upright = vtk.vtkMatrix4x4()
    upright.DeepCopy(node.GetSliceToRAS())
    node.SetOrientationToAxial()
    assert node.GetSliceToRAS().GetElement(1, 1) == pytest.approx(upright.GetElement(1, 1)), "locked while the module is open"
    widget.ui.fgMarkAButton.click()
    slicer_app.leave(widget)
    assert not widget.ui.fgMarkPlace.placeModeEnabled
    node.SetOrientationToAxial()
    assert node.GetSliceToRAS().GetElement(1, 1) == pytest.approx(1.0)


def test_a_saved_case_comes_back(widget, tmp_path):
    from FluoroGuideLib.scene import case, host

    _volume, _line, nodes = _fill(widget)
    _register(widget)
    _mark(widget, nodes)
    widget.ui.fgRecordButton.click()
    shown = widget.ui.fgNeedleResult.text
    case.save_mrb(host.start(), tmp_path / "case.mrb")
    host.start().scene.Clear(0)
    assert widget.ui.fgPlacementTable.rowCount == 0
    case.load_mrb(host.start(), tmp_path / "case.mrb")
    _tick(0.1)
    assert widget._parameterNode.procedureName == "biopsy"
    assert widget.ui.fgNeedleResult.text == shown
    assert widget.ui.fgPlacementTable.item(0, 0).text() == "L4 left"


# ---- what is missing -----------------------------------------------------------------------------------------------------
def test_disabled_buttons_say_what_is_missing(widget):
    import slicer

    ui, p, scene = widget.ui, widget._parameterNode, slicer.mrmlScene

    def why():
        _tick(0.1)
        return "" if ui.fgRegisterButton.enabled else ui.fgRegisterButton.toolTip

    assert why() == "Choose the patient's CT volume."
    p.volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    assert why().startswith("Place the planned needle")
    p.planLine = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "N")
    p.planLine.AddControlPointWorld(0, 0, 0)
    assert why().startswith("Place the planned needle")
    p.planLine.AddControlPointWorld(30, 0, 0)
    assert why() == "Load X-ray A."
    p.xrayA = p.volume
    assert "no C-arm geometry" in why()
    _fill(widget, xrays=1)
    assert why() == ""
    assert ui.fgRegisterButton.toolTip == "Find the position of the volume in the X-rays."
    assert ui.fgCancelButton.toolTip == "No registration runs."
    assert ui.fgRecordButton.toolTip == "Register first."
    p.xrayB = p.xrayA
    assert "same image" in why()


def test_one_view_registers_but_gives_no_needle(widget):
    _fill(widget, xrays=1)
    _register(widget, "warn", ("In-plane only.",))
    assert "CHECK" in widget.ui.fgVerdictResult.text
    assert "In-plane only." in widget.ui.fgVerdictResult.text
    assert "one view shows no depth" in widget.ui.fgRecordButton.toolTip


def test_choices_are_bound_both_ways(widget):
    widget.ui.fgProcedureEdit.text = "facet injection"
    widget.ui.fgSidASpin.value = 1100
    assert (widget._parameterNode.procedureName, widget._parameterNode.sidA) == ("facet injection", 1100.0)
    widget._parameterNode.primaryB = -30.0
    assert widget.ui.fgPrimaryBSpin.value == -30


# ---- the workflow ----------------------------------------------------------------------------------------------------------
def test_plan_register_mark_record_export(widget, tmp_path):
    import json

    import slicer

    volume, line, nodes = _fill(widget)
    widget.panel.refresh()
    assert widget.ui.fgPlanResult.text.startswith(f"{np.linalg.norm(ENTRY - TARGET):.1f} mm long")
    _register(widget)
    sent, images, initial, targets = widget.engine.arguments
    assert (len(images), initial) == (2, None)
    np.testing.assert_allclose(targets["L4 left"], TARGET)
    # volume LPS (1, 2, 3) goes to (-2 + 5, 1 - 3, 3 + 7) = (3, -2, 10) LPS by hand, which is RAS (-3, 2, 10)
    moved = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld([-1.0, -2.0, 3.0], moved)
    np.testing.assert_allclose(moved, (-3, 2, 10), atol=1e-9)
    np.testing.assert_allclose(line.GetNthControlPointPosition(1), TARGET * (-1, -1, 1), atol=1e-9, err_msg="the plan stays in the volume's frame")
    assert widget.ui.fgErrorTable.item(0, 0).text() == "L4 left"

    _mark(widget, nodes)
    text = widget.ui.fgNeedleResult.text
    assert "Tip 2.0 mm" in text
    assert "2.0 mm cranial" in text
    assert "0.0° off" in text
    overlays = [n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if n.GetAttribute("FluoroGuide.role") == "overlay"]
    assert {n.GetAttribute("FluoroGuide.key")[0] for n in overlays} == {"0", "1"}

    widget.ui.fgRecordButton.click()
    assert [widget.ui.fgPlacementTable.item(0, c).text() for c in range(2)] == ["L4 left", "2.0"]
    widget.panel.dialogs.answer = tmp_path / "record.json"
    widget.ui.fgExportButton.click()
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["placements"][0]["deviation"]["tip_mm"] == pytest.approx(2.0, abs=0.05)
    assert record["procedure"] == "biopsy"
    assert [len(record["views"]), len(record["registrations"]), record["patient_key"]] == [2, 1, None]
    widget.ui.fgRecordButton.click()
    again = widget.logic.session.recorder.record
    assert [len(again.views), len(again.registrations), len(again.placements)] == [2, 1, 2]


def test_a_dragged_plan_is_kept_and_used(widget):
    _volume, line, nodes = _fill(widget)
    _register(widget)
    _mark(widget, nodes)
    local = [-TARGET[0], -TARGET[1], TARGET[2] + 2.0]  # RAS: onto the needle's tip
    line.SetNthControlPointPosition(1, *local)
    _tick(0.1)
    assert "Tip 0.0 mm" in widget.ui.fgNeedleResult.text
    widget.ui.fgRegisterButton.click()
    np.testing.assert_allclose(widget.engine.arguments[3]["L4 left"], TARGET + TIP_OFFSET, atol=1e-6)


def test_a_second_needle_joins_the_plan(widget):
    import slicer

    _fill(widget)
    _register(widget)
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L4 right")
    second.AddControlPointWorld(0, 0, 0)
    second.AddControlPointWorld(0, 40, 0)
    widget._parameterNode.planLine = second
    _tick(0.1)
    _register(widget)
    assert set(widget.engine.arguments[3]) == {"L4 left", "L4 right"}
    # world (isocentre) RAS (0, 40, 0) is LPS (0, -40, 0); the inverse pose gives x = y' + 3 = -37, y = -(x' - 5) = 5, z = -7
    np.testing.assert_allclose(widget.engine.arguments[3]["L4 right"], (-37, 5, -7), atol=1e-6)


def test_a_failed_registration_is_shown_and_hides_distances(widget):
    _volume, _line, nodes = _fill(widget)
    _register(widget, "fail", ("The X-rays do not show this volume.",))
    assert "FAIL" in widget.ui.fgVerdictResult.text
    assert "do not show this volume" in widget.ui.fgVerdictResult.text
    _mark(widget, nodes)
    assert "registration failed" in widget.ui.fgNeedleResult.text
    assert not widget.ui.fgRecordButton.enabled


def test_new_pixels_make_the_registration_old(widget):
    from FluoroGuideLib.imaging.xray import XrayImage

    _volume, _line, nodes = _fill(widget)
    _register(widget)
    _mark(widget, nodes)
    widget.logic.session.add_xray(XrayImage(np.zeros((64, 80)), np.ones((64, 80), bool), _views()[0]), 0)
    widget.panel.refresh()
    assert "OLD" in widget.ui.fgVerdictResult.text
    assert not widget.ui.fgRecordButton.enabled


def test_cancel_changes_nothing(widget):
    import qt

    volume, _line, _nodes = _fill(widget)
    widget.ui.fgRegisterButton.click()
    widget.engine.jobs[-1].progress, widget.engine.jobs[-1].text = 0.4, "searching"
    _tick(0.1)
    assert widget.ui.fgRegisterProgress.value == 40
    assert not widget.ui.fgRegisterButton.enabled
    widget.ui.fgCancelButton.click()
    _tick(0.1)
    assert "Nothing was changed" in widget.ui.fgStatus.text
    assert volume.GetParentTransformNode() is None
    assert widget.logic.session.registration is None
    assert qt.active_timers() == []
    assert widget.ui.fgRegisterButton.enabled


def test_errors_are_one_sentence_in_the_status_line(widget, tmp_path):
    from FluoroGuideLib.errors import FluoroGuideError

    _fill(widget)
    widget.ui.fgRegisterButton.click()
    job = widget.engine.jobs[-1]
    job.error, job.state = FluoroGuideError("The registration process stopped unexpectedly", "signal SIGKILL", "Start it again"), "failed"
    _tick(0.1)
    assert "The registration process stopped unexpectedly (signal SIGKILL). Start it again." in widget.ui.fgStatus.text
    (tmp_path / "text.png").write_text("no picture")
    widget.panel.dialogs.answer = tmp_path / "text.png"
    widget.ui.fgLoadAButton.click()
    assert "Not done." in widget.ui.fgStatus.text
    assert "Traceback" not in widget.ui.fgStatus.text


def test_an_unexpected_error_is_told_and_logged(widget, monkeypatch, caplog):
    _fill(widget)
    monkeypatch.setattr(widget.logic.session, "submit", lambda *a: 1 / 0)
    widget.ui.fgRegisterButton.click()
    assert "ZeroDivisionError" in widget.ui.fgStatus.text
    assert "unexpected error" in caplog.text


def test_a_mark_off_the_xray_is_refused(widget):
    _volume, _line, nodes = _fill(widget)
    _register(widget)
    _mark(widget, nodes)
    node = widget.logic.session.mark_node(0)
    node.SetNthControlPointPositionWorld(0, 0.0, 0.0, 0.0)
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert "does not lie on the X-ray" in widget.ui.fgStatus.text


def test_marks_show_in_their_own_xray_view_only(widget):
    _fill(widget)
    for index, name in enumerate(("XRayA", "XRayB")):
        display = widget.logic.session.mark_node(index).GetDisplayNode()
        assert [display.GetNthViewNodeID(i) for i in range(display.GetNumberOfViewNodeIDs())] == [f"vtkMRMLSliceNode{name}"]


def test_a_picture_is_loaded_with_the_entered_values(widget, tmp_path):
    import SimpleITK as sitk

    ramp = np.tile(np.arange(100, dtype=np.uint8), (60, 1)) + np.arange(60, dtype=np.uint8)[:, None]
    sitk.WriteImage(sitk.GetImageFromArray(ramp), str(tmp_path / "x.png"))
    widget.panel.dialogs.answer = tmp_path / "x.png"
    widget.ui.fgLoadAButton.click()
    assert "Not done." in widget.ui.fgStatus.text, "geometry is never assumed"
    p = widget._parameterNode
    p.useEnteredGeometry, p.primaryA, p.secondaryA, p.sidA, p.sodA, p.spacingA = True, 30.0, -10.0, 1100.0, 700.0, 0.4
    widget.ui.fgLoadAButton.click()
    assert widget.ui.fgXrayAResult.text.startswith("LAO 30.0 CAU 10.0, SID 1100 mm, 100 x 60 pixels of 0.400 mm")
    assert widget.ui.fgXrayASelector.currentNode() is p.xrayA


def test_dose_report_goes_into_the_record(widget, data_dir):
    files = sorted((data_dir / "rdsr_fluoro").rglob("*.dcm"))
    assert files
    widget.panel.dialogs.answer = files[0]
    widget.ui.fgDoseButton.click()
    assert "Dose area product" in widget.ui.fgDoseResult.text
    assert widget.ui.fgExportButton.enabled


def test_the_panel_is_not_wider_than_the_module_column(widget):
    _fill(widget)
    _register(widget)
    assert widget.parent.minimumSizeHint.width() <= 450


def test_the_engine_warms_up_when_the_module_is_entered(widget):
    assert widget.engine.warm == 1


@pytest.mark.slow
def test_the_modules_own_test_passes_with_the_real_engine(module):
    module[0].FluoroGuideTest().runTest()
