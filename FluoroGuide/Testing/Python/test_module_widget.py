"""The module's widget on the stand-ins: wiring and life cycle.

What this cannot show: looks, PythonQt's own behaviour and real views.  FluoroGuideTest runs in the application too.
"""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from module_case import MODULE_FILE, fill, make, mark, register, tick

pytest_plugins = ["module_fixture"]


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

    widget = make(slicer_app.load_module(MODULE_FILE))
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

    fill(widget)
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

    widget = make(module)
    slicer_app.enter(widget)
    volume, line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    widget.ui.fgRegisterButton.click()  # leave in the middle of a registration
    assert qt.active_timers()
    ui, engine, node = widget.ui, widget.engine, widget._parameterNode.parameterNode
    widget.cleanup()
    widget.cleanup()
    assert engine.closed
    assert qt.active_timers() == []
    assert [qt.connections(w) for w in vars(ui).values() if qt.connections(w)] == []
    node_of_marks = widget.logic.session.guidance.mark_node(0)
    assert not line.HasObserver(line.PointModifiedEvent)
    assert not node_of_marks.HasObserver(node_of_marks.PointPositionDefinedEvent)
    assert not node_of_marks.HasObserver(node_of_marks.PointEndInteractionEvent)
    gone = weakref.ref(widget.panel or widget)
    del widget
    gc.collect()
    assert gone() is None, "an observer or a signal still holds the widget"
    node.Modified()
    slicer.mrmlScene.Clear(0)


def test_two_widgets_do_not_disturb_each_other(module):
    first, second = make(module), make(module)
    fill(first)
    first.cleanup()
    second.panel.refresh()
    assert second.ui.fgRegisterButton.enabled
    second.cleanup()


def test_reload_forgets_the_library_and_the_new_panel_lives_without_enter(module, monkeypatch):
    import slicer
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget

    before = dict(sys.modules)
    try:
        widget, seen = make(module), []
        library = lambda: [n for n in sys.modules if n.startswith("FluoroGuideLib")]  # noqa: E731
        monkeypatch.setattr(ScriptedLoadableModuleWidget, "onReload", lambda self: seen.append(library()))
        widget.onReload()
        assert seen == [[]]
        widget.cleanup()
    finally:
        sys.modules.update(before)
    fresh = make(module)  # Slicer calls setup(), but not enter()
    slicer.mrmlScene.Clear(0)
    assert fresh._parameterNode is not None
    fresh.cleanup()


def test_scene_close_in_mid_registration_stops_everything(widget):
    import slicer

    import qt

    fill(widget)
    widget.ui.fgRegisterButton.click()
    slicer.mrmlScene.Clear(0)
    assert widget.engine.jobs[-1].state == "cancelled"
    assert qt.active_timers() == []
    assert widget._parameterNode.volume is None
    assert "CT volume" in widget.ui.fgStatus.text
    fill(widget)  # a second case afterwards
    register(widget)
    assert "PASS" in widget.ui.fgVerdictResult.text


def test_exit_frees_the_views_and_stops_placing(widget):
    import slicer
    import vtk

    import slicer_app

    fill(widget)
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

    _volume, _line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    widget.ui.fgRecordButton.click()
    shown = widget.ui.fgNeedleResult.text
    case.save_mrb(host.start(), tmp_path / "case.mrb")
    host.start().scene.Clear(0)
    assert widget.ui.fgPlacementTable.rowCount == 0
    case.load_mrb(host.start(), tmp_path / "case.mrb")
    tick(0.1)
    assert widget._parameterNode.procedureName == "biopsy"
    assert widget.ui.fgNeedleResult.text == shown
    assert widget.ui.fgPlacementTable.item(0, 0).text() == "L4 left"


def test_disabled_buttons_say_what_is_missing(widget):
    import slicer

    ui, p, scene = widget.ui, widget._parameterNode, slicer.mrmlScene

    def why():
        tick(0.1)
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
    fill(widget, xrays=1)
    assert why() == ""
    assert ui.fgRegisterButton.toolTip == "Find the position of the volume in the X-rays. (Ctrl+Shift+R)"
    assert ui.fgCancelButton.toolTip == "No registration runs."
    assert ui.fgRecordButton.toolTip == "Register first."
    p.xrayB = p.xrayA
    assert "same image" in why()


def test_choices_are_bound_both_ways(widget):
    widget.ui.fgProcedureBox.setEditText("facet injection")
    widget.ui.fgSidASpin.value = 1100
    assert (widget._parameterNode.procedureName, widget._parameterNode.sidA) == ("facet injection", 1100.0)
    widget._parameterNode.primaryB = -30.0
    assert widget.ui.fgPrimaryBSpin.value == -30


def test_the_panel_is_not_wider_than_the_module_column(widget):
    fill(widget)
    register(widget)
    assert widget.parent.minimumSizeHint.width() <= 450


def test_the_engine_warms_up_when_the_module_is_entered(widget):
    assert widget.engine.warm == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["test_PlanAndXrayPanels", "test_PlanRegisterGuideRecord"])
def test_the_modules_own_test_passes_with_the_real_engine(module, step):
    test = module[0].FluoroGuideTest()
    test.setUp()
    getattr(test, step)()
