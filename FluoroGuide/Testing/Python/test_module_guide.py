"""The Guide section on the stand-ins."""

from __future__ import annotations

import numpy as np
import pytest

from module_case import MODULE_FILE, POSE, TARGET, TIP_OFFSET, FakeJob, fill, make, mark, register, registration, tick, tip_and_shaft, until

pytest_plugins = ["module_fixture"]


def test_a_dragged_plan_is_kept_and_used(widget):
    _volume, line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    local = [-TARGET[0], -TARGET[1], TARGET[2] + 2.0]  # RAS: onto the needle's tip
    line.SetNthControlPointPosition(1, *local)
    tick(0.1)
    assert "Tip 0.0 mm" in widget.ui.fgNeedleResult.text
    widget.ui.fgRegisterButton.click()
    np.testing.assert_allclose(widget.engine.arguments[3]["L4 left"], TARGET + TIP_OFFSET, atol=1e-6)


def test_a_mark_off_the_xray_is_refused(widget):
    _volume, _line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    node = widget.logic.session.guidance.mark_node(0)
    node.SetNthControlPointPositionWorld(0, 0.0, 0.0, 0.0)
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert "does not lie on the X-ray" in widget.ui.fgStatus.text


def test_marks_show_in_their_own_xray_view_only(widget):
    fill(widget)
    for index, name in enumerate(("XRayA", "XRayB")):
        display = widget.logic.session.guidance.mark_node(index).GetDisplayNode()
        assert [display.GetNthViewNodeID(i) for i in range(display.GetNumberOfViewNodeIDs())] == [f"vtkMRMLSliceNode{name}"]


# ---- live ------------------------------------------------------------------------------------------------------------------
class InProcess:
    """The live tasks, done at once in this process instead of a worker."""

    ready, starts = True, 1

    def __init__(self):
        self.closed, self.frames = False, 0

    def poll(self):
        return []

    def run(self, task, **arguments):
        from FluoroGuideLib.engine.live_tasks import TASKS

        job = FakeJob()
        self.frames += task == "live_frame"
        job.result, job.state = TASKS[task](**arguments, progress=lambda *_: None, cancelled=lambda: False), "done"
        return job

    def close(self):
        self.closed = True


@pytest.fixture
def live(widget):
    """A registered case whose X-ray section is told to take frames from a volume of the scene: (widget, nodes, source volume)."""
    import slicer

    from FluoroGuideLib.scene.nodes import vtk_matrix

    _volume, _line, nodes = fill(widget)
    register(widget)
    widget.client = InProcess()
    widget.logic.session.guidance.live._make_client = lambda: widget.client
    real = widget.engine.run

    def run(task, **arguments):
        job = real(task, **arguments)
        job.state = "failed" if task == "bone_drr" else job.state  # there is no bone in this volume of noise
        return job

    widget.engine.run = run
    source = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Stream")
    slicer.util.updateVolumeFromArray(source, np.zeros((1, 64, 80), np.float32))
    source.SetIJKToRASMatrix(vtk_matrix(np.eye(4)))
    p = widget._parameterNode
    p.sourceKind, p.sourceVolume = "volume", source
    widget.panel.refresh()
    return widget, nodes, source


def _send(source, seed=0):
    import slicer

    slicer.util.arrayFromVolume(source)[0] = 100 + np.random.default_rng(seed).random((64, 80))
    slicer.util.arrayFromVolumeModified(source)


def test_live_frames_are_shown_with_the_overlay_and_the_reference_stays(live):
    import slicer

    import qt
    from FluoroGuideLib.scene.nodes import find

    widget, nodes, source = live
    reference = slicer.util.arrayFromVolume(nodes[0]).copy()
    widget.ui.fgLiveButton.click()
    assert widget.ui.fgLiveButton.text == "Stop live"
    while widget.client.frames < 4:
        _send(source, widget.client.frames)
        tick(0.05)
    shown = find(widget.logic.session.host, "live-xray", "0")
    composite = slicer.mrmlScene.GetSingletonNode("XRayA", "vtkMRMLSliceCompositeNode")
    assert composite.GetBackgroundVolumeID() == shown.GetID()
    assert not shown.GetSaveWithScene()
    assert np.ptp(slicer.util.arrayFromVolume(shown)) > 0
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes[0]), reference, err_msg="the reference X-ray is not overwritten")
    assert not widget.panel.stale()
    until(lambda: "motion is not watched" in widget.ui.fgMotionResult.text)
    assert "pictures a second" in widget.ui.fgMotionResult.text
    slicer.util.arrayFromVolumeModified(widget._parameterNode.volume)  # the volume is edited: the overlay loses its good look
    widget._parameterNode.volume.GetImageData().Modified()
    widget.panel.refresh()
    until(lambda: "CHECK" in widget.ui.fgMotionResult.text)
    assert "volume was edited" in widget.ui.fgMotionResult.text
    assert not widget.ui.fgRecordButton.enabled
    widget.ui.fgLiveButton.click()
    assert composite.GetBackgroundVolumeID() == nodes[0].GetID()
    assert find(widget.logic.session.host, "live-xray", "0") is None
    assert [t.interval for t in qt.active_timers() if not t.isSingleShot()] == []
    assert not source.HasObserver(source.ImageDataModifiedEvent)
    assert [e["event"] for e in widget.logic.session.recorder.record.timeline if "live" in e["event"]] == [
        "live guidance started", "live guidance stopped"]


def test_two_views_are_live_at_once(live):
    """The second source feeds the other X-ray; both are followed, and both references come back."""
    import slicer

    from FluoroGuideLib.scene.nodes import find

    widget, nodes, source = live
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Stream B")
    slicer.util.updateVolumeFromArray(second, np.zeros((1, 64, 80), np.float32))
    p = widget._parameterNode
    p.secondKind, p.secondVolume = "volume", source
    widget.panel.refresh()
    assert widget.ui.fgLiveButton.toolTip == "Both sources are the same: choose two."
    p.secondVolume = second
    widget.panel.refresh()
    guidance = widget.logic.session.guidance.live
    guidance._prefetched = None  # the stand-in drew no bone
    widget.ui.fgLiveButton.click()
    assert guidance.running
    _send(source, 1)
    _send(second, 2)
    until(lambda: guidance.frame(0) is not None and guidance.frame(1) is not None)
    shown = [slicer.util.arrayFromVolume(find(widget.logic.session.host, "live-xray", str(i))) for i in (0, 1)]
    assert abs(float(np.corrcoef(shown[0].ravel(), shown[1].ravel())[0, 1])) < 0.2, "each its own"
    widget.ui.fgLiveButton.click()
    assert not guidance.running
    assert [p.xrayA, p.xrayB] == list(nodes)


def test_marks_go_back_step_by_step(widget):
    _volume, _line, nodes = fill(widget)
    register(widget)
    assert not widget.ui.fgMarkUndoButton.enabled
    mark(widget, nodes)
    guidance = widget.logic.session.guidance
    before, tip = guidance._marked(), guidance.needle.tip_mm.copy()
    node = guidance.existing_mark_node(0)
    node.SetNthControlPointPositionWorld(0, *(np.array(before[0][0]) + (0, 0, 6)))
    node.InvokeEvent(node.PointEndInteractionEvent)
    until(lambda: abs(guidance.needle.tip_mm - tip).max() > 1)
    widget.panel.refresh()
    widget.ui.fgMarkUndoButton.click()
    assert guidance._marked() == before
    np.testing.assert_allclose(guidance.needle.tip_mm, tip, atol=1e-6)
    widget.ui.fgMarkAButton.click()  # begins anew: its points are gone
    assert guidance._marked()[0] == ()
    widget.panel.refresh()
    widget.ui.fgMarkUndoButton.click()
    assert guidance._marked() == before


def test_live_needs_a_registration_and_a_source_and_says_so(widget):
    fill(widget)
    assert widget.ui.fgLiveButton.toolTip == "Register first."
    register(widget)
    assert widget.ui.fgLiveButton.toolTip == "Choose the volume that is filled."
    register(widget, "fail", ("No.",))
    assert widget.ui.fgLiveButton.toolTip == "The registration failed: register again."


def test_scene_close_and_leaving_the_module_end_the_live_view(live):
    import slicer

    import qt
    import slicer_app

    widget, _nodes, source = live
    widget.ui.fgLiveButton.click()
    _send(source)
    tick(0.1)
    slicer.mrmlScene.Clear(0)
    assert not widget.logic.session.guidance.live.running
    assert [t.interval for t in qt.active_timers() if not t.isSingleShot()] == []
    slicer_app.leave(widget)
    widget.cleanup()
    assert widget.client.closed


def test_registering_again_takes_the_newest_pictures_and_the_overlay_follows(live):
    widget, nodes, source = live
    widget.ui.fgLiveButton.click()
    _send(source, 5)
    until(lambda: widget.client.frames)
    jobs = len(widget.engine.jobs)
    widget.ui.fgReregisterButton.click()
    assert len(widget.engine.jobs) == jobs + 1
    _volume, images, initial, _targets = widget.engine.arguments
    np.testing.assert_array_equal(initial, POSE, err_msg="it starts from the present position")
    assert widget.engine.more["options"].search is False
    np.testing.assert_array_equal(images[0].pixels, widget.logic.session.guidance.live.frame(0)[1])
    widget.engine.jobs[-1].result, widget.engine.jobs[-1].state = registration("warn", ("Look.",)), "done"
    until(lambda: widget.logic.session.guidance.live.registration.reasons == ("Look.",))
    assert not widget.panel.stale()
    assert widget.logic.session.guidance.live.running


# ---- pictures, contrast, placement ---------------------------------------------------------------------------------------------
def test_the_needle_is_found_by_the_engine_and_may_be_corrected(widget):
    from FluoroGuideLib.guidance.needle import NeedleFinding

    _volume, _line, nodes = fill(widget)
    register(widget)
    real = widget.engine.run
    findings = [NeedleFinding(True, tip, shaft, (tip - shaft) / np.linalg.norm(tip - shaft), 0.5) for tip, shaft in tip_and_shaft()]

    def run(task, **arguments):
        job = real(task, **arguments)
        if task == "find_needle":
            assert arguments["path"].name == "L4 left"
            job.result = findings
        return job

    widget.engine.run = run
    widget.ui.fgFindButton.click()
    until(lambda: "Tip 2.0 mm" in widget.ui.fgNeedleResult.text)
    assert widget.logic.session.guidance.method == "automatic"
    widget.ui.fgRecordButton.click()
    node = widget.logic.session.guidance.mark_node(0)
    node.InvokeEvent(node.PointEndInteractionEvent)  # the user drags a mark
    widget.ui.fgRecordButton.click()
    assert [p.method for p in widget.logic.session.recorder.record.placements] == ["automatic", "manual"]
    findings[1] = NeedleFinding(False, reason="Too faint.")
    widget.ui.fgFindButton.click()
    until(lambda: "Not found in X-ray B. Too faint." in widget.ui.fgStatus.text)


def test_confirmation_views_of_the_procedure_are_kept_one_after_the_other(widget):
    fill(widget)
    widget._parameterNode.procedureName = "lumbar_facet"
    register(widget)
    table, combo = widget.ui.fgKeptTable, widget.ui.fgViewCombo
    assert [table.item(r, 0).text() for r in range(2)] == ["true AP", "lateral"]
    assert combo.currentText == "true AP"
    widget.ui.fgCaptureAButton.click()
    assert [table.item(r, 2).text() for r in range(2)] == ["yes", "no"]
    assert combo.currentText == "lateral"
    widget.ui.fgCaptureBButton.click()
    images = widget.logic.session.recorder.record.key_images
    assert [(i.name, i.view) for i in images] == [("true AP", "AP CRA 5.0"), ("lateral", "LAO 80.0 CRA 5.0")]
    assert combo.currentText == "Other"
    assert images[0].pixels().shape == (64, 80)


def test_the_contrast_answer_is_stored_with_its_picture_and_the_subtraction(widget):
    import slicer

    from FluoroGuideLib.engine.guidance_tasks import subtract

    _volume, _line, nodes = fill(widget)
    register(widget)
    assert widget.ui.fgSubtractButton.toolTip == "Set the mask first."
    widget.ui.fgMaskButton.click()
    pixels = slicer.util.arrayFromVolume(nodes[0])
    pixels[0, 20:40, 30:50] += 3.0  # contrast agent
    real = widget.engine.run

    def run(task, **arguments):
        job = real(task, **arguments)
        if task == "subtract":
            job.result = subtract(**arguments, progress=None, cancelled=None)
        return job

    widget.engine.run = run
    widget.ui.fgSubtractButton.click()
    until(lambda: "Contrast agent covers" in widget.ui.fgContrastResult.text)
    composite = slicer.mrmlScene.GetSingletonNode("XRayA", "vtkMRMLSliceCompositeNode")
    assert composite.GetForegroundVolumeID() is not None
    widget.ui.fgContrastAgentEdit.text, widget.ui.fgContrastVolumeSpin.value = "iohexol 300", 0.5
    widget.ui.fgContrastPatternCombo.setCurrentText("intra-articular")
    widget.ui.fgVascularUnsureButton.click()
    record = widget.logic.session.recorder.record
    answer = record.contrast[0]
    assert (answer["agent"], answer["volume_ml"], answer["pattern"], answer["vascular"]) == ("iohexol 300", 0.5, "intra-articular", None)
    assert "unsure" in answer["note"]
    assert record.key_images[0].image_id in answer["note"]
    assert [i.shows[:2] for i in record.key_images] == [("contrast", "X-ray A"), ("contrast", "subtraction")]
    assert composite.GetForegroundVolumeID() is None
    widget.ui.fgContrastPatternCombo.setCurrentText("intravascular")
    widget.ui.fgVascularNoButton.click()
    assert "both" in widget.ui.fgStatus.text
    assert len(widget.logic.session.recorder.record.contrast) == 1


def test_the_guide_layout_comes_and_goes_with_the_module(app_with_window):
    import slicer

    import slicer_app
    from FluoroGuideLib.scene.nodes import find_all

    widget = make(slicer_app.load_module(MODULE_FILE))
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    app_with_window.startupCompleted.emit()
    assert node.IsLayoutDescription(5702), "a saved scene may ask for it before the module is opened"
    node.SetViewArrangement(3)
    slicer_app.enter(widget)
    _volume, _line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    widget.ui.fgGuideLayoutCheck.click()
    assert node.GetViewArrangement() == 5702
    for name in ("BullsEye", "Progress"):
        composite = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")
        assert composite.GetBackgroundVolumeID() == widget._parameterNode.volume.GetID()
    assert find_all(widget.logic.session.host, "guide-view")
    shortcuts = slicer.util.mainWindow().findChildren("QShortcut")
    keys = [s.key.toString() for s in shortcuts]
    assert len(set(keys)) == len(keys) == 14, "each key told in a tool tip, those of parts too"
    assert {"Ctrl+Shift+S", "Ctrl+Shift+N", "Ctrl+Shift+W"} <= set(keys)
    slicer_app.leave(widget)
    assert node.GetViewArrangement() == 3
    assert not [s for s in slicer.util.mainWindow().findChildren("QShortcut") if s.parent() is not None]
    widget.cleanup()
