"""The X-ray section on the stand-ins."""

from __future__ import annotations

import numpy as np

from module_case import tick, until

pytest_plugins = ["module_fixture"]


def test_a_picture_is_loaded_with_the_entered_values(widget, tmp_path):
    import SimpleITK as sitk

    ramp = np.tile(np.arange(100, dtype=np.uint8), (60, 1)) + np.arange(60, dtype=np.uint8)[:, None]
    sitk.WriteImage(sitk.GetImageFromArray(ramp), str(tmp_path / "x.png"))
    widget.panel.dialogs.answer = tmp_path / "x.png"
    widget.ui.fgLoadAButton.click()
    tick(0.1)
    assert "X-ray A is not complete" in widget.ui.fgStatus.text, "geometry is never assumed"
    p = widget._parameterNode
    p.useEnteredGeometry, p.primaryA, p.secondaryA, p.sidA, p.sodA, p.spacingA = True, 30.0, -10.0, 1100.0, 700.0, 0.4
    widget.ui.fgLoadAButton.click()
    tick(0.1)
    assert widget.ui.fgXrayAResult.text.startswith("LAO 30.0 CAU 10.0, SID 1100 mm, 100 x 60 pixels of 0.400 mm")
    assert widget.ui.fgXrayASelector.currentNode() is p.xrayA


def _database(path):
    from dicom_database import Database

    miller = {"patient": "1", "name": "MILLER^ANN", "study": "1.1", "0008,0020": "20260102", "0008,1030": "Spine"}
    other = {"patient": "2", "name": "ADAMS^BO", "study": "2.1", "series": "2.1.1", "uid": "2.1.1.1", "0008,0060": "CT"}
    run = {**miller, "series": "1.1.2", "0008,0060": "XA", "0020,0011": "10"}
    old = {**miller, "study": "1.2", "0008,0020": "20250102", "0008,1030": "Old", "series": "1.2.1", "0008,0060": "XA", "0020,0011": "1"}
    return Database({
        "/a": {**miller, "series": "1.1.1", "uid": "a", "0008,0060": "CT", "0020,0011": "2"},
        str(path): {**run, "uid": "b", "0008,103e": "run", "0020,0013": "3", "0028,0008": "12"},
        "/c": {**run, "uid": "c", "0020,0013": "1"}, "/d": {**old, "uid": "d"}, "/e": other,
    })


def test_an_xray_is_chosen_from_the_dicom_database(widget, tmp_path, monkeypatch, caplog):
    import slicer

    from FluoroGuideLib.imaging.dicom_xa import write_xa

    ui, path = widget.ui, tmp_path / "run.dcm"
    ui.fgDatabasePart.collapsed = False
    widget.panel.refresh()
    assert "not open" in ui.fgDatabaseNotes.text
    assert not ui.fgDatabaseLoadAButton.enabled
    frames = np.tile(np.arange(64, dtype=np.uint16), (12, 48, 1)) + 100
    write_xa(path, frames, primary_deg=30.0, secondary_deg=-10.0, sid_mm=1100.0, sod_mm=700.0, pixel_spacing_mm=(0.4, 0.4))
    database = _database(path)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    widget.panel.refresh()

    def shown(box):
        return [box.itemText(n) for n in range(box.count)]

    assert shown(ui.fgDatabasePatientBox) == ["ADAMS BO", "MILLER ANN"]
    assert "holds no X-ray images" in ui.fgDatabaseNotes.text, "only a CT"
    ui.fgDatabasePatientBox.setCurrentIndex(1)
    assert shown(ui.fgDatabaseStudyBox) == ["2026-01-02 Spine", "2025-01-02 Old"]
    assert shown(ui.fgDatabaseSeriesBox) == ["10 XA run"]
    assert shown(ui.fgDatabaseImageBox) == ["1", "3 (12 frames)"]
    asked = database.calls
    widget.panel.refresh()
    assert database.calls == asked, "the database is not asked again with every refresh"
    ui.fgDatabaseImageBox.setCurrentIndex(1)
    widget.panel.refresh()
    ui.fgDatabaseLoadAButton.click()
    until(lambda: not widget.panel.xrays_section.reading.running)
    assert ui.fgXrayAResult.text.startswith("LAO 30.0 CAU 10.0, SID 1100 mm, 64 x 48 pixels")
    ui.fgDatabaseStudyBox.setCurrentIndex(1)
    assert shown(ui.fgDatabaseImageBox) == ["?"]
    widget.panel.leave()
    assert ui.fgDatabasePatientBox.count == 0, "names do not stay"
    assert "MILLER" not in caplog.text


def _run(folder, primary=30.0, frames=3, name="run.dcm"):
    from FluoroGuideLib.imaging.dicom_xa import write_xa

    pixels = np.tile(np.arange(64, dtype=np.uint16), (frames, 48, 1)) + 100 * (1 + np.arange(frames, dtype=np.uint16))[:, None, None]
    write_xa(folder / name, pixels, primary_deg=primary, secondary_deg=0.0, sid_mm=1100.0, sod_mm=700.0, pixel_spacing_mm=(0.4, 0.4))
    return folder / name


def _load(widget, path, button="fgLoadAButton"):
    widget.panel.dialogs.answer = path
    getattr(widget.ui, button).click()
    until(lambda: not widget.panel.xrays_section.reading.running)


def test_every_change_of_an_xray_is_taken_back_step_by_step(widget, tmp_path):
    import slicer

    ui, p = widget.ui, widget._parameterNode
    assert not ui.fgXrayUndoButton.enabled
    _load(widget, _run(tmp_path, 30.0, name="a.dcm"))
    first = slicer.util.arrayFromVolume(p.xrayA).copy()
    _load(widget, _run(tmp_path, 10.0, frames=1, name="b.dcm"))
    widget.panel.refresh()
    ui.fgPolarityBox.setCurrentIndex(1)
    until(lambda: not widget.panel.xrays_section.reading.running)
    polarity = ui.fgPolarityBox.itemData(1)
    assert widget.panel.xrays_section.picture.options[0] == {"polarity": polarity}
    entries = widget.logic.session.xrays.report(0)["entries"]
    row = next(n for n, entry in enumerate(entries) if entry["name"] == "source_to_detector_mm")
    ui.fgGeometryTable.item(row, 1).setText("1200 mm")
    until(lambda: not widget.panel.xrays_section.reading.running)
    assert "SID 1200 mm" in ui.fgXrayAResult.text
    ui.fgKeepButton.click()
    assert ui.fgReferenceTable.rowCount == 1

    ui.fgXrayUndoButton.click()  # the stored reference
    assert ui.fgReferenceTable.rowCount == 0
    ui.fgXrayUndoButton.click()  # the edited distance
    assert "SID 1100 mm" in ui.fgXrayAResult.text
    assert widget.panel.xrays_section.geometry.given[0] == {}
    assert ui.fgGeometryTable.item(row, 1).text().startswith("1100")
    ui.fgXrayUndoButton.click()  # the polarity
    assert widget.panel.xrays_section.picture.options.get(0, {}) == {}
    assert ui.fgPolarityBox.currentIndex == 0
    ui.fgXrayUndoButton.click()  # the second file
    assert ui.fgXrayAResult.text.startswith("LAO 30.0")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(p.xrayA), first)
    assert widget.logic.session.xrays.loaded[0].path.endswith("a.dcm")
    ui.fgXrayUndoButton.click()  # the first
    assert p.xrayA is None
    assert not ui.fgXrayUndoButton.enabled
    assert ui.fgXrayUndoButton.toolTip == "There is no change of the X-rays to undo."


def test_going_back_to_the_registered_picture_makes_the_registration_valid_again(widget, tmp_path):
    from module_case import fill, register

    _volume, _line, nodes = fill(widget)
    register(widget)
    before = nodes[1]
    _load(widget, _run(tmp_path), "fgLoadBButton")
    widget.panel.refresh()
    assert widget.panel.stale()
    widget.ui.fgXrayUndoButton.click()
    assert widget._parameterNode.xrayB is before
    assert not widget.panel.stale()


def test_another_image_chosen_in_a_selector_is_taken_back(widget):
    from module_case import fill

    _volume, _line, nodes = fill(widget)
    p = widget._parameterNode
    p.xrayB = nodes[0]
    widget.panel.refresh()
    widget.ui.fgXrayUndoButton.click()
    assert p.xrayB is nodes[1]


def test_a_run_becomes_a_sequence_frame_by_frame(widget, tmp_path):
    from FluoroGuideLib.scene.live_source import find_run

    ui = widget.ui
    _load(widget, _run(tmp_path, frames=1, name="one.dcm"))
    widget.panel.refresh()
    assert ui.fgRunButton.toolTip == "Load a run of several frames first."
    _load(widget, _run(tmp_path, frames=3))
    widget.panel.refresh()
    ui.fgRunButton.click()
    until(lambda: not widget.panel.xrays_section.run.running)
    found = find_run(widget.logic.session.host, 0)
    assert found.sequence.GetNumberOfDataNodes() == 3
    assert "3 frames are in the scene" in ui.fgStatus.text
    found.browser.SetSelectedItemNumber(2)  # as if played: its view follows
    assert found.node.GetName() == "X-ray A (LAO 30.0)"


def test_a_file_to_play_is_opened_beside_the_window(widget, tmp_path):
    ui, p = widget.ui, widget._parameterNode
    p.sourceKind, p.sourcePath = "replay", str(_run(tmp_path, frames=2))
    widget.panel.refresh()
    ui.fgLiveStartButton.click()
    part = widget.panel.xrays_section.live
    until(lambda: bool(part.lives))
    until(lambda: p.xrayA is not None)
    widget.panel.refresh()
    assert ui.fgXrayAResult.text.startswith("LAO 30.0")
    ui.fgLiveStopButton.click()
    assert part.live is None
    p.sourcePath = str(tmp_path / "absent.dcm")
    widget.panel.refresh()
    ui.fgLiveStartButton.click()
    until(lambda: not part.opening.running)
    assert "Not done." in ui.fgStatus.text
    assert part.live is None
