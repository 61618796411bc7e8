"""The Register section on the stand-ins, with a stand-in for the engine."""

from __future__ import annotations

import time

import numpy as np
import pytest

from module_case import POSE, fill, mark, register, registration, tick, until, views

pytest_plugins = ["module_fixture"]


def test_one_view_registers_but_gives_no_needle(widget):
    fill(widget, xrays=1)
    register(widget, "warn", ("In-plane only.",))
    assert "CHECK" in widget.ui.fgVerdictResult.text
    assert "In-plane only." in widget.ui.fgVerdictResult.text
    assert "one view shows no depth" in widget.ui.fgRecordButton.toolTip


def test_a_second_needle_joins_the_plan(widget):
    import slicer

    fill(widget)
    register(widget)
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L4 right")
    second.AddControlPointWorld(0, 0, 0)
    second.AddControlPointWorld(0, 40, 0)
    widget._parameterNode.planLine = second
    tick(0.1)
    register(widget)
    assert set(widget.engine.arguments[3]) == {"L4 left", "L4 right"}
    # world (isocentre) RAS (0, 40, 0) is LPS (0, -40, 0); the inverse pose gives x = y' + 3 = -37, y = -(x' - 5) = 5, z = -7
    np.testing.assert_allclose(widget.engine.arguments[3]["L4 right"], (-37, 5, -7), atol=1e-6)


def test_a_failed_registration_is_shown_and_hides_distances(widget):
    _volume, _line, nodes = fill(widget)
    register(widget, "fail", ("The X-rays do not show this volume.",))
    assert "FAIL" in widget.ui.fgVerdictResult.text
    assert "do not show this volume" in widget.ui.fgVerdictResult.text
    mark(widget, nodes)
    assert "registration failed" in widget.ui.fgNeedleResult.text
    assert not widget.ui.fgRecordButton.enabled


def test_new_pixels_make_the_registration_old(widget):
    from FluoroGuideLib.imaging.xray import XrayImage

    _volume, _line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    widget.logic.session.xrays.add(XrayImage(np.zeros((64, 80)), np.ones((64, 80), bool), views()[0]), 0)
    widget.panel.refresh()
    assert "OLD" in widget.ui.fgVerdictResult.text
    assert not widget.ui.fgRecordButton.enabled


def test_cancel_changes_nothing(widget):
    import qt

    volume, _line, _nodes = fill(widget)
    widget.ui.fgRegisterButton.click()
    widget.engine.jobs[-1].progress, widget.engine.jobs[-1].text = 0.4, "searching"
    tick(0.1)
    assert widget.ui.fgRegisterProgress.value == 40
    assert not widget.ui.fgRegisterButton.enabled
    widget.ui.fgCancelButton.click()
    tick(0.1)
    assert "Nothing was changed" in widget.ui.fgStatus.text
    assert volume.GetParentTransformNode() is None
    assert widget.logic.session.registrar.registration is None
    until(lambda: not [t for t in qt.active_timers() if not t.isSingleShot()])  # polling ends, on a loaded machine a little later
    assert widget.ui.fgRegisterButton.enabled


def test_errors_are_one_sentence_in_the_status_line(widget, tmp_path):
    from FluoroGuideLib.errors import FluoroGuideError

    fill(widget)
    widget.ui.fgRegisterButton.click()
    job = widget.engine.jobs[-1]
    job.error, job.state = FluoroGuideError("The registration process stopped unexpectedly", "signal SIGKILL", "Start it again"), "failed"
    tick(0.1)
    assert "The registration process stopped unexpectedly (signal SIGKILL). Start it again." in widget.ui.fgStatus.text
    (tmp_path / "text.png").write_text("no picture")
    widget.panel.dialogs.answer = tmp_path / "text.png"
    widget.ui.fgLoadAButton.click()
    tick(0.2)  # it is read by the worker
    assert "Not done." in widget.ui.fgStatus.text
    assert "Traceback" not in widget.ui.fgStatus.text


def test_an_unexpected_error_is_told_and_logged(widget, monkeypatch, caplog):
    fill(widget)
    monkeypatch.setattr(widget.logic.session.registrar, "submit", lambda *a: 1 / 0)
    widget.ui.fgRegisterButton.click()
    assert "ZeroDivisionError" in widget.ui.fgStatus.text
    assert "unexpected error" in caplog.text


# ---- start, bone, comparison, history ----------------------------------------------------------------------------------------
def _label_map():
    import slicer

    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "bones")
    array = np.zeros((12, 12, 12), np.uint8)
    array[3:9, 3:9, 3:9] = 7
    slicer.util.updateVolumeFromArray(labels, array)
    return labels


def test_what_is_asked_for_reaches_the_engine(widget):
    _volume, _line, nodes = fill(widget)
    ui, p = widget.ui, widget._parameterNode
    assert len(widget.engine.prepared) == 1, "the volume goes to the engine while the user plans, once"
    register(widget)
    assert (widget.engine.more["part"], widget.engine.more["labels"], widget.engine.more["options"].search) == ("auto", None, True)
    assert widget.engine.arguments[0] is widget.engine.prepared[0]
    ui.fgSearchCheck.click()
    p.bones = _label_map()
    tick(0.1)
    texts = [ui.fgPartCombo.itemText(i) for i in range(ui.fgPartCombo.count)]
    assert texts == ["Bone at the target", "label 7", "Whole volume"]
    ui.fgPartCombo.setCurrentIndex(1)
    ui.fgStartCombo.setCurrentIndex(1)  # the present position
    tick(0.1)
    register(widget)
    more = widget.engine.more
    assert (more["part"], more["labels"].names, more["options"].search) == (7, {7: "label 7"}, False)
    np.testing.assert_array_equal(widget.engine.arguments[2], POSE)
    first = more["labels"]
    register(widget)
    assert widget.engine.more["labels"] is first, "the label image is handed over once"
    ui.fgPartCombo.setCurrentIndex(2)
    register(widget)
    assert widget.engine.more["part"] is None
    p.bones = None
    tick(0.1)
    assert ui.fgPartCombo.currentText == "Whole volume"


def test_landmarks_are_clicked_and_their_errors_shown(widget):
    from FluoroGuideLib.geometry.frames import ras_from_lps
    from FluoroGuideLib.geometry.rigid import apply
    from FluoroGuideLib.registration.landmarks import register_landmarks
    from FluoroGuideLib.scene.xray_view import pixels_to_ras

    fill(widget)
    ui, session = widget.ui, widget.logic.session
    real = widget.engine.run

    def run(task, **arguments):
        job = real(task, **arguments)
        if task == "landmarks":
            job.result = register_landmarks(arguments["views"], arguments["pairs"], expected=arguments["expected"])
        return job

    widget.engine.run = run
    ui.fgStartCombo.setCurrentIndex(2)
    tick(0.1)
    assert ui.fgRegisterButton.toolTip == "Click three or more landmarks in the CT."
    points = np.array([[0, 0, 0], [20, 5, -10], [-15, 12, 8], [4, -18, 16.0]])
    ui.fgLandmarkCtButton.click()
    assert ui.fgLandmarkPlace.placeModeEnabled
    for point in ras_from_lps(points):
        session.registrar.landmarks.ct_node(widget._parameterNode.volume).AddControlPointWorld(*point)
    tick(0.1)
    assert ui.fgRegisterButton.toolTip == "Click the same landmarks in an X-ray."
    for index, view in enumerate(views()):
        (ui.fgLandmarkAButton, ui.fgLandmarkBButton)[index].click()
        for point in pixels_to_ras(view, view.project(apply(POSE, points))):
            session.registrar.landmarks.xray_node(index).AddControlPointWorld(*point)
    table = ui.fgLandmarkTable
    until(lambda: table.rowCount == 4 and {table.item(r, c).text() for r in range(4) for c in (1, 2)} == {"0.0"})
    assert [table.item(r, 0).text() for r in range(4)] == ["L1", "L2", "L3", "L4"]
    register(widget)
    pairs = widget.engine.more["landmarks"]
    assert len(pairs) == 8
    np.testing.assert_allclose(pairs[1].position_lps_mm, points[1], atol=1e-6)
    assert session.registrar.history.entries()[-1].start == "landmarks"
    ui.fgLandmarkBackButton.click()
    assert session.registrar.landmarks.counts() == (4, 4, 3)
    ui.fgLandmarkClearButton.click()
    assert session.registrar.landmarks.counts() == (0, 0, 0)


def test_a_dragged_volume_is_where_the_registration_starts(widget):
    from FluoroGuideLib.scene.nodes import find_all
    from FluoroGuideLib.scene.xray_view import pixels_to_ras

    fill(widget)
    widget.panel.mode.open("Register")
    widget.ui.fgStartCombo.setCurrentIndex(3)
    tick(0.1)
    grip = widget.panel.register.start._grip
    node, view = grip.node(0), views()[0]
    before, pixels = grip.pose.copy(), grip.pixels(0)
    drawn = len([t for t, _ in widget.engine.runs if t == "drr"])
    node.SetNthControlPointPositionWorld(0, *pixels_to_ras(view, pixels[:1] + (5.0, 0.0))[0])
    until(lambda: len([t for t, _ in widget.engine.runs if t == "drr"]) == drawn + 2)  # drawn anew in both views
    assert widget.logic.session.registrar.registration is None
    draft = grip.pose.copy()
    assert not np.allclose(draft, before)
    register(widget)
    np.testing.assert_array_equal(widget.engine.arguments[2], draft)
    assert find_all(widget.logic.session.host, "pose-grip") == [], "the grips go once it is registered"
    assert widget.panel.register.start.draft is None


def test_the_volume_is_laid_over_the_xrays_only_while_the_section_is_open(widget):
    import slicer

    import qt

    fill(widget)
    widget.panel.mode.open("Register")
    composite = slicer.mrmlScene.GetSingletonNode("XRayA", "vtkMRMLSliceCompositeNode")
    register(widget)
    until(lambda: composite.GetLabelVolumeID() is not None)
    widget.ui.fgCompareCombo.setCurrentIndex(3)  # flicker
    until(lambda: composite.GetForegroundOpacity() == 0.0)
    until(lambda: composite.GetForegroundOpacity() == 1.0)
    widget.panel.mode.open("Guide")
    assert (composite.GetForegroundVolumeID(), composite.GetLabelVolumeID()) == (None, None)
    assert [t.interval for t in qt.active_timers() if not t.isSingleShot()] == []
    widget.panel.mode.open("Register")
    until(lambda: composite.GetForegroundVolumeID() is not None)
    widget.ui.fgCompareCombo.setCurrentIndex(0)
    assert composite.GetForegroundVolumeID() is None


def test_going_back_rejecting_and_accepting(widget):
    import dataclasses

    volume, _line, _nodes = fill(widget)
    ui, registrar = widget.ui, widget.logic.session.registrar
    register(widget)
    ui.fgRegisterButton.click()
    shifted = POSE.copy()
    shifted[0, 3] += 4.0
    job = widget.engine.jobs[-1]
    job.result, job.state = dataclasses.replace(registration("warn", ("Look.",)), pose=shifted), "done"
    until(lambda: not widget.panel.register.running)
    tick(0.1)
    assert [e.verdict for e in registrar.history.entries()] == ["pass", "warn"]
    assert ui.fgHistoryTable.item(0, 1).text() == "check"
    assert not ui.fgRestoreButton.enabled
    ui.fgRejectRegistrationButton.click()
    np.testing.assert_array_equal(registrar.registration.pose, POSE)
    assert not widget.panel.stale()
    record = widget.logic.session.recorder.record
    assert [r.get("accepted") for r in record.registrations] == [None, False]
    ui.fgAcceptRegistrationButton.click()
    assert [r.get("accepted") for r in record.registrations] == [True, False]
    assert ui.fgHistoryTable.item(1, 1).text() == "pass, accepted"
    ui.fgHistoryTable.selectRow(0)
    tick(0.1)
    ui.fgRestoreButton.click()
    np.testing.assert_array_equal(registrar.registration.pose, shifted)
    moved = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld([0.0, 0.0, 0.0], moved)
    np.testing.assert_allclose(moved, shifted[:3, 3] * (-1, -1, 1), atol=1e-9)
    assert [e["event"] for e in record.timeline][-1] == "registration restored"


def test_what_changes_while_it_runs_makes_the_result_old_or_unused(widget):
    import slicer

    volume, _line, nodes = fill(widget)
    widget.ui.fgRegisterButton.click()
    slicer.util.arrayFromVolume(nodes[0])[:] += 1  # another picture comes into the slot meanwhile
    slicer.util.arrayFromVolumeModified(nodes[0])
    job = widget.engine.jobs[-1]
    job.result, job.state = registration(), "done"
    until(lambda: not widget.panel.register.running)
    tick(0.1)
    assert "OLD" in widget.ui.fgVerdictResult.text
    widget.ui.fgRegisterButton.click()
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "another CT")
    slicer.util.updateVolumeFromArray(other, np.random.default_rng(3).integers(-900, 900, (6, 6, 6)).astype(np.int16))
    widget._parameterNode.volume = other  # the user switches volumes in mid-registration
    job = widget.engine.jobs[-1]
    job.result, job.state = registration(), "done"
    until(lambda: not widget.panel.register.running)
    tick(0.1)
    assert other.GetParentTransformNode() is None
    assert volume.GetParentTransformNode() is not None
    assert widget.panel.stale()
    widget._parameterNode.volume = volume
    widget.ui.fgRegisterButton.click()
    slicer.mrmlScene.RemoveNode(nodes[0])
    job = widget.engine.jobs[-1]
    job.result, job.state = registration(), "done"
    until(lambda: not widget.panel.register.running)
    tick(0.1)
    assert "was removed meanwhile" in widget.ui.fgStatus.text


@pytest.mark.slow
def test_cancel_at_many_moments_leaves_pose_views_and_record_as_they_were(module):
    """With the real engine on a tiny volume: whatever it is doing, nothing of a cancelled registration arrives."""
    import slicer

    import slicer_app

    widget = slicer_app.make_widget(module[0], "FluoroGuide")
    slicer_app.enter(widget)
    session, ui = widget.logic.session, widget.ui
    try:
        volume, _line, _nodes = fill(widget)
        widget._parameterNode.searchAround = False  # in noise a search takes long and finds nothing; any registration can be cancelled
        while session.engine.busy:
            tick(0.02)
        session.registrar.accept(registration(), session.registrar.submit(volume, widget.panel.xrays(), plan_of(widget))[1], plan_of(widget))

        def state():
            views_now = [
                [slicer.mrmlScene.GetSingletonNode(n, "vtkMRMLSliceCompositeNode").GetBackgroundVolumeID() for n in ("XRayA", "XRayB")],
                slicer.mrmlScene.GetSingletonNode("XRayA", "vtkMRMLSliceNode").GetSliceToRAS().GetElement(0, 3),
            ]
            record = session.recorder.record
            return (
                session.registrar.registration.pose.tolist(), len(session.registrar.history.entries()), volume.GetParentTransformNode().GetID(),
                views_now, None if record is None else record.to_dict(), slicer.mrmlScene.GetNumberOfNodes(),
            )

        for _ in range(2):  # the second one is as long as those to come
            began = time.monotonic()
            ui.fgRegisterButton.click()
            while widget.panel.register.running:
                tick(0.005)
            whole = time.monotonic() - began
        before, rng, cancelled = state(), np.random.default_rng(0), 0
        for share in (np.arange(8) + rng.uniform(size=8)) / 10:  # one in each tenth up to the eighth
            for _ in range(4):  # how long a registration takes changes with what else the machine does
                began = time.monotonic()
                ui.fgRegisterButton.click()
                while widget.panel.register.running and time.monotonic() - began < share * whole:
                    tick(0.005)
                if widget.panel.register.running:
                    break
                whole, before = min(whole, time.monotonic() - began), state()  # it was quicker than expected: sooner next time
            else:
                continue
            pause, began = time.monotonic() - began, time.monotonic()
            ui.fgCancelButton.click()
            while widget.panel.register.running:
                tick(0.005)
            assert time.monotonic() - began < 5.0  # the engine's own limit of 0.2 s has a test of its own
            if "Nothing was changed" not in ui.fgStatus.text:  # it ended between the last look and the click
                before = state()
                continue
            cancelled += 1
            assert state() == before, f"cancelled after {pause:.2f} s"
        assert cancelled >= 4, "hardly any registration was cancelled in the middle"
    finally:
        slicer_app.leave(widget)
        widget.cleanup()


def plan_of(widget):
    p = widget._parameterNode
    return widget.logic.session.planner.plan(p.volume, p.planLine, p.procedureName)
