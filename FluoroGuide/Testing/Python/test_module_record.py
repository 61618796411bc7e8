"""The Record section on the stand-ins: the whole workflow to the exported record."""

from __future__ import annotations

import numpy as np
import pytest

from module_case import ENTRY, TARGET, fill, mark, register, until

pytest_plugins = ["module_fixture"]


def _written(widget, button):
    """Click a button that has files written by the engine, and wait for them."""
    button.click()
    until(lambda: not widget.panel.record.writing.running)


def test_plan_register_mark_record_export(widget, tmp_path):
    import json

    import slicer

    volume, line, nodes = fill(widget)
    widget.panel.refresh()
    assert widget.ui.fgPlanResult.text.startswith(f"{np.linalg.norm(ENTRY - TARGET):.1f} mm long")
    register(widget)
    sent, images, initial, targets = widget.engine.arguments
    assert (len(images), initial) == (2, None)
    np.testing.assert_allclose(targets["L4 left"], TARGET)
    # volume LPS (1, 2, 3) goes to (-2 + 5, 1 - 3, 3 + 7) = (3, -2, 10) LPS by hand, which is RAS (-3, 2, 10)
    moved = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld([-1.0, -2.0, 3.0], moved)
    np.testing.assert_allclose(moved, (-3, 2, 10), atol=1e-9)
    np.testing.assert_allclose(line.GetNthControlPointPosition(1), TARGET * (-1, -1, 1), atol=1e-9, err_msg="the plan stays in the volume's frame")
    assert widget.ui.fgErrorTable.item(0, 0).text() == "L4 left"

    mark(widget, nodes)
    text = widget.ui.fgNeedleResult.text
    assert "Tip 2.0 mm" in text
    assert "2.0 mm cranial" in text
    assert "0.0° off" in text
    overlays = [n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if n.GetAttribute("FluoroGuide.role") == "overlay"]
    assert {n.GetAttribute("FluoroGuide.key")[0] for n in overlays} == {"0", "1"}

    widget.ui.fgRecordButton.click()
    assert [widget.ui.fgPlacementTable.item(0, c).text() for c in range(2)] == ["L4 left", "2.0"]
    widget.panel.dialogs.answer = tmp_path / "record.json"
    _written(widget, widget.ui.fgExportButton)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["placements"][0]["deviation"]["tip_mm"] == pytest.approx(2.0, abs=0.05)
    assert record["procedure"] == "biopsy"
    assert [len(record["views"]), len(record["registrations"]), record["patient_key"]] == [2, 1, None]
    widget.ui.fgRecordButton.click()
    again = widget.logic.session.recorder.record
    assert [len(again.views), len(again.registrations), len(again.placements)] == [2, 1, 2]


def test_dose_report_goes_into_the_record(widget, data_dir):
    files = sorted((data_dir / "rdsr_fluoro").rglob("*.dcm"))
    assert files
    widget.panel.dialogs.answer = files[0]
    widget.ui.fgDoseButton.click()
    until(lambda: not widget.panel.record.dose.reading.running)
    assert "Dose area product" in widget.ui.fgDoseResult.text
    assert widget.ui.fgExportButton.enabled



def _placed(widget):
    _volume, _line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    widget.ui.fgRecordButton.click()
    return nodes


def _journals():
    from FluoroGuideLib.record.keeper import journals

    return journals()


def test_drugs_pain_complications_and_care_go_into_the_record(widget):
    fill(widget)
    ui = widget.ui
    ui.fgDrugEdit.text, ui.fgConcentrationEdit.text, ui.fgLotEdit.text, ui.fgDrugVolumeSpin.value = "triamcinolone", "40 mg/ml", "A17", 1.5
    ui.fgDrugButton.click()
    assert ui.fgDrugEdit.text == ""
    ui.fgDrugButton.click()  # nothing is told
    assert "The drug is empty" in ui.fgStatus.text
    ui.fgPainSpin.value = 7
    ui.fgPainButton.click()
    ui.fgPainWhenCombo.setCurrentIndex(1)
    ui.fgPainSpin.value = 2
    ui.fgPainButton.click()
    ui.fgNoComplicationButton.click()
    widget._parameterNode.procedureName = "lumbar_facet"
    ui.fgCareButton.click()
    record = widget.logic.session.recorder.record
    drug = record.injectate[0]
    assert {k: drug[k] for k in ("drug", "concentration", "volume_ml", "lot", "placement_id")} == {
        "drug": "triamcinolone", "concentration": "40 mg/ml", "volume_ml": 1.5, "lot": "A17", "placement_id": None}
    assert len(record.injectate) == 1
    assert [(p["when"], p["score"]) for p in record.pain] == [("before", 7.0), ("after", 2.0)]
    assert record.complications == []
    assert "no driving until any numbness is gone" in record.aftercare[0]["text"]
    assert "Come back at once with" in record.aftercare[0]["text"]
    texts = {ui.fgEntryTable.item(r, 0).text() for r in range(ui.fgEntryTable.rowCount)}
    assert {"triamcinolone 40 mg/ml 1.5 ml A17", "Pain before: 7 of 10", "Pain after: 2 of 10", "No complication"} <= texts
    ui.fgComplicationEdit.text = "vasovagal reaction"
    ui.fgSeverityCombo.setCurrentIndex(1)
    ui.fgComplicationButton.click()
    assert [(c["text"], c["severity"]) for c in record.complications] == [("vasovagal reaction", "minor")]


def test_the_dose_is_typed_with_its_unit_and_each_five_minutes_are_signalled(widget):
    fill(widget)
    ui = widget.ui
    ui.fgDapEdit.text = "1.2"
    ui.fgDoseManualButton.click()
    assert "with its unit" in ui.fgStatus.text
    assert widget.logic.session.recorder.record is None, "a refused value begins no record"
    ui.fgDapEdit.text, ui.fgKermaEdit.text, ui.fgTimeEdit.text = "1.2 Gy.cm2", "30 mGy", "4 min"
    ui.fgDoseManualButton.click()
    dose = widget.logic.session.recorder.record.dose
    # 1.2 Gy.cm2 = 1.2e-4 Gy.m2
    assert (dose.dap_gy_m2, dose.reference_air_kerma_gy, dose.fluoroscopy_seconds) == (pytest.approx(1.2e-4), pytest.approx(0.03), 240.0)
    assert "Fluoroscopy time" not in ui.fgStatus.text
    ui.fgTimeEdit.text = "11 min"
    ui.fgDoseManualButton.click()
    assert "10 minutes of reported fluoroscopy time" in ui.fgStatus.text
    assert [e["text"] for e in widget.logic.session.recorder.record.timeline if e["event"] == "fluoroscopy time"] == [
        "5 minutes of reported fluoroscopy time.", "10 minutes of reported fluoroscopy time."]


def test_ticked_items_and_the_identity_check_are_in_the_record(widget):
    fill(widget)
    recorder = widget.logic.session.recorder
    recorder.sync_checklist(["Consent"], "biopsy")
    recorder.sync_checklist(["Consent", "Allergies"], "biopsy")
    recorder.sync_checklist(["Allergies"], "biopsy")
    assert [(a["item"], a["answer"]) for a in recorder.record.checklist] == [("Consent", True), ("Allergies", True), ("Consent", None)]
    assert all(a["utc"].endswith("Z") for a in recorder.record.checklist)

    class Check:
        def to_dict(self):
            return {"compared": ["volume"], "blocked": False, "findings": [], "confirmations": [{"reason": "same patient"}]}

    recorder.set_identity(Check())
    recorder.set_identity(Check())
    assert recorder.record.extra["identity_check"]["confirmations"] == [{"reason": "same patient"}]
    assert [e["event"] for e in recorder.record.timeline].count("identity check") == 1


def test_nothing_is_lost_when_the_scene_closes_and_the_journal_brings_it_back(widget, tmp_path):
    import slicer

    import slicer_app

    _placed(widget)
    before = widget.logic.session.recorder.record.to_dict()
    assert len(_journals()) == 1
    slicer.mrmlScene.Clear(0)
    slicer_app.leave(widget)
    slicer_app.enter(widget)  # as at the next start
    ui = widget.ui
    widget.panel.refresh()
    assert "A procedure was not closed" in ui.fgJournalResult.text
    assert ui.fgRecoverCombo.currentText.startswith("biopsy, ")
    ui.fgRecoverButton.click()
    assert "Recovered." in ui.fgStatus.text
    recorder = widget.logic.session.recorder
    assert recorder.record.to_dict() == before
    assert ui.fgPlacementTable.item(0, 0).text() == "L4 left"
    assert widget._parameterNode.procedureName == "biopsy"
    assert ui.fgRecoverCombo.count == 0, "it is in use now, and offered no more"
    ui.fgPainButton.click()  # it goes on, into the same journal
    assert len(_journals()) == 1
    widget.panel.dialogs.answer = tmp_path / "record.json"
    ui.fgFinishButton.click()
    assert "was not saved since" in ui.fgStatus.text
    _written(widget, ui.fgExportButton)
    ui.fgPainButton.click()
    ui.fgFinishButton.click()
    assert "does not hold the record as it is now" in ui.fgStatus.text
    assert len(_journals()) == 1
    _written(widget, ui.fgExportButton)
    ui.fgFinishButton.click()
    assert _journals() == []


def test_an_unfinished_procedure_is_removed_only_after_it_was_saved_and_the_user_agreed(widget, tmp_path):
    import json

    import slicer

    _placed(widget)
    slicer.mrmlScene.Clear(0)
    widget.panel.record.enter()
    widget.panel.refresh()
    widget.panel.dialogs.answer = ""  # the file dialog is cancelled
    widget.ui.fgDiscardButton.click()
    assert len(_journals()) == 1
    widget.panel.dialogs.answer = tmp_path / "old.json"
    widget.ui.fgDiscardButton.click()
    assert _journals() == []
    assert len(json.loads((tmp_path / "old.json").read_text())["placements"]) == 1


def test_two_cases_one_after_the_other_have_two_records_and_two_journals(widget):
    import slicer

    _placed(widget)
    first = widget.logic.session.recorder.record.record_id
    slicer.mrmlScene.Clear(0)
    assert widget.logic.session.recorder.record is None
    assert widget.ui.fgPlacementTable.rowCount == 0
    _placed(widget)
    second = widget.logic.session.recorder.record
    assert second.record_id != first
    assert len(second.placements) == 1
    assert len(_journals()) == 2


def test_a_saved_scene_goes_on_with_its_own_journal(widget, tmp_path):
    from FluoroGuideLib.scene import case, host

    _placed(widget)
    case.save_mrb(host.start(), tmp_path / "case.mrb")
    host.start().scene.Clear(0)
    case.load_mrb(host.start(), tmp_path / "case.mrb")
    widget.panel.refresh()
    widget.ui.fgPainButton.click()
    assert len(_journals()) == 1
    record = widget.logic.session.recorder.record
    assert len(record.pain) == 1
    from FluoroGuideLib.record.keeper import recover

    assert recover(_journals()[0]).record.to_dict() == record.to_dict()


def test_a_full_disk_is_said_and_tried_again(widget, monkeypatch):
    import errno

    from FluoroGuideLib.record import journal

    fill(widget)
    widget.ui.fgPainButton.click()
    real = journal._write_all

    def full(handle, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "_write_all", full)
    widget.ui.fgPainButton.click()
    assert "The disk is full" in widget.ui.fgJournalResult.text
    assert widget.panel.record._retry.isActive()
    monkeypatch.setattr(journal, "_write_all", real)
    widget.panel.record._try_again()
    assert widget.ui.fgJournalResult.text == ""
    assert not widget.panel.record._retry.isActive()
    from FluoroGuideLib.record.keeper import recover

    assert len(recover(_journals()[0]).record.pain) == 2


def test_everything_is_exported_without_identifiers_and_the_private_scene_too(widget, tmp_path):
    _placed(widget)
    widget.ui.fgCaptureAButton.click()
    widget.panel.dialogs.answer = tmp_path
    _written(widget, widget.ui.fgExportAllButton)
    names = {f.name for f in tmp_path.iterdir()}
    assert {"record.json", "placements.csv", "timeline.csv", "report.html", "report.sr.dcm"} <= names
    widget.panel.dialogs.answer = tmp_path / "page.html"
    _written(widget, widget.ui.fgReportButton)
    assert widget.panel.dialogs.opened == str(tmp_path / "page.html")
    widget.panel.dialogs.answer = tmp_path / "private.mrb"
    widget.ui.fgPrivateSceneButton.click()
    assert (tmp_path / "private.mrb").stat().st_size > 10_000
    assert "no patient identifiers" in widget.ui.fgStatus.text


def test_what_was_entered_is_withdrawn_with_a_reason_and_put_back(widget):
    nodes = _placed(widget)
    ui, recorder, dialogs = widget.ui, widget.logic.session.recorder, widget.panel.dialogs
    ui.fgCaptureAButton.click()
    ui.fgPainButton.click()
    assert not ui.fgReinstateButton.visible
    dialogs.answer = ""
    ui.fgWithdrawButton.click()  # the newest; no reason is given
    assert "A reason is needed" in ui.fgStatus.text
    assert len(recorder.record.pain) == 1
    dialogs.answer = "typed twice"
    ui.fgWithdrawButton.click()
    assert recorder.record.pain == []
    assert "Withdrawn." in ui.fgStatus.text
    texts = [ui.fgEntryTable.item(r, 0).text() for r in range(ui.fgEntryTable.rowCount)]
    assert "Withdrawn: pain: before, 0 (typed twice)" in texts
    ui.fgEntryTable.selectRow(next(n for n, text in enumerate(texts) if text.startswith("Placement: ")))
    dialogs.answer = "wrong needle"
    ui.fgWithdrawButton.click()
    assert recorder.record.placements == []
    assert ui.fgPlacementTable.rowCount == 0
    import slicer

    roles = [n.GetAttribute("FluoroGuide.role") for n in slicer.mrmlScene.GetNodes()]
    assert not {"achieved", "placement", "placement-table"} & set(roles), "no line or table of it stays in the scene"
    ui.fgReinstateButton.click()  # the one withdrawn last
    assert [len(recorder.record.placements), len(recorder.record.pain)] == [1, 0]
    assert [e["event"] for e in recorder.record.timeline[-3:]] == ["withdrawn", "withdrawn", "reinstated"]
    from FluoroGuideLib.record.keeper import recover

    assert recover(_journals()[0]).record.to_dict() == recorder.record.to_dict(), "the journal has it too"
    assert nodes[0].GetScene() is not None


def test_a_second_dose_replaces_the_first_which_stays_told(widget):
    fill(widget)
    ui, recorder = widget.ui, widget.logic.session.recorder
    for dap in ("1.2 Gy.cm2", "1.4 Gy.cm2"):
        ui.fgDapEdit.text = dap
        ui.fgDoseManualButton.click()
    assert recorder.record.dose.dap_gy_m2 == pytest.approx(1.4e-4)
    (old,) = recorder.record.withdrawn
    assert (old["kind"], old["item"]["dap_gy_m2"], old["reason"]) == ("dose", pytest.approx(1.2e-4), "replaced by a newer entry")


def test_files_are_written_off_the_main_thread_and_leaving_waits_for_them(widget, tmp_path):
    """The engine is given the work; the buttons say why they cannot be used; nothing asked for is left half-way."""
    import slicer_app

    _placed(widget)
    ui, engine, kept = widget.ui, widget.engine, []

    def slowly(job, task, arguments):
        kept.append((job, task, arguments))
        job.state, job.progress, job.text = "running", 0.4, "Writing the report"

    engine._really, really = slowly, engine._really
    widget.panel.dialogs.answer = tmp_path / "page.html"
    ui.fgReportButton.click()
    widget.panel.refresh()
    assert not ui.fgReportButton.enabled
    assert ui.fgReportButton.toolTip == ui.fgFinishButton.toolTip == "A file is being written."
    until(lambda: ui.fgWriteProgress.value == 40)
    assert not (tmp_path / "page.html").exists()

    def wait(job, timeout=None):
        engine._really = really
        really(*kept[0])
        job.state = "done"

    engine.wait = wait
    slicer_app.leave(widget)
    assert (tmp_path / "page.html").stat().st_size > 1000
    assert widget.panel.dialogs.opened == str(tmp_path / "page.html")


def test_the_dose_comes_from_the_study_of_the_dicom_database(widget, data_dir, monkeypatch):
    import slicer

    from dicom_database import Database

    reports = sorted((data_dir / "rdsr_fluoro").rglob("*.dcm"))[:1]
    one = {"patient": "p", "name": "A^B", "study": "1.2", "0008,0060": "SR"}
    image = {**one, "series": "1.2.2", "uid": "u", "0008,0060": "XA"}
    files = {str(reports[0]): {**one, "series": "1.2.1", "uid": "1.2.1.1"}, "/nowhere/x.dcm": image}
    monkeypatch.setattr(slicer, "dicomDatabase", Database(files), raising=False)
    _volume, _line, nodes = fill(widget)
    widget.ui.fgDoseDatabaseButton.click()
    assert "holds no report of these" in widget.ui.fgStatus.text
    nodes[0].SetAttribute("DICOM.instanceUIDs", "u")
    widget.ui.fgDoseDatabaseButton.click()
    until(lambda: not widget.panel.record.dose.reading.running)
    assert "Dose area product" in widget.ui.fgDoseResult.text
