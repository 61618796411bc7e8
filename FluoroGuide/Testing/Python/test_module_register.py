"""The Register section on the stand-ins, with a stand-in for the engine."""

from __future__ import annotations

import numpy as np

from module_case import fill, mark, register, tick, views

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
    assert [t.interval for t in qt.active_timers() if not t.isSingleShot()] == []
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
