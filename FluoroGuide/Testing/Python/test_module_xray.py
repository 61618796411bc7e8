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
    return Database({
        "/a": {**miller, "series": "1.1.1", "uid": "a", "0008,0060": "CT", "0020,0011": "2"},
        str(path): {**miller, "series": "1.1.2", "uid": "b", "0008,0060": "XA", "0020,0011": "10", "0008,103e": "run", "0020,0013": "3", "0028,0008": "12"},
        "/c": {**miller, "series": "1.1.2", "uid": "c", "0008,0060": "XA", "0020,0011": "10", "0020,0013": "1"},
        "/d": {**miller, "study": "1.2", "0008,0020": "20250102", "0008,1030": "Old", "series": "1.2.1", "uid": "d", "0008,0060": "XA", "0020,0011": "1"},
        "/e": other,
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
