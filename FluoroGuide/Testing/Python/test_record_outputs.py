"""Page, DICOM SR, CSV and scene: every number comes through, every output opens."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pydicom
import pytest
from record_cases import LONG, UNBROKEN, a_plan, empty_record, long_record, record_with

from FluoroGuideLib import RESEARCH_NOTICE, cli
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.record.export import csv_text, export_record, open_record, placement_rows
from FluoroGuideLib.record.keeper import RecordKeeper, journals
from FluoroGuideLib.record.record import ProcedureRecord, read_record, write_record
from FluoroGuideLib.record.report import report_html
from FluoroGuideLib.record.report_plots import bulls_eye, bulls_eye_axes, bulls_eye_point, nice_step

CASES = {
    "normal": lambda: record_with(2), "long names": long_record, "missing data": empty_record, "no needle": lambda: record_with(0),
    "20 needles": lambda: record_with(20),
}


def dciodvfy() -> str | None:
    """The validator of dicom3tools, beside this Python or on the path."""
    beside = Path(sys.executable).parent / "dciodvfy"
    return str(beside) if beside.exists() else shutil.which("dciodvfy")


# ---- the page -----------------------------------------------------------------------------------------------------------
class Checker(HTMLParser):
    """Counts what opens and closes, and collects addresses."""

    VOID = {"meta", "img", "br", "link", "input", "circle", "line", "rect", "path", "ellipse"}

    def __init__(self) -> None:
        super().__init__()
        self.open, self.addresses, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("name", CASES)
def test_page_is_whole_and_needs_nothing_else(name: str) -> None:
    record = CASES[name]()
    page = report_html(record)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert all(a.startswith("data:image/png;base64,") for a in checker.addresses)
    assert "script" not in checker.tags
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)
    text = " ".join(checker.text)
    assert text.count(RESEARCH_NOTICE) == 2  # head and foot
    assert "nan" not in re.findall(r"[a-z]+", text.lower())
    assert "None" not in re.findall(r"\bNone\b(?!\.)", text)
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        numbers_of_svg(svg)
    if name == "no needle":
        assert "No needle was recorded." in text
    if name == "missing data":
        assert text.count("not told") > 5
    if name == "20 needles":
        assert "needle 20" in text
        assert "Needles 1-20: marks by hand" in text
    if name == "long names":
        assert UNBROKEN in text
        assert LONG.strip()[:80] in text


def numbers_of_svg(svg: str) -> None:
    """The plot is well-formed and everything lies in its picture."""
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter():
        for key, limit in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height), ("y1", height), ("y2", height)):
            if element.get(key) is not None:
                assert -1 <= float(element.get(key)) <= limit + 1, (element.tag, key, element.get(key), limit)


def test_page_tells_the_numbers() -> None:
    record = record_with(2)
    page = report_html(record)
    for p in record.placements:
        assert f"<td class=n>{p.deviation.tip_mm:.1f}</td>" in page
    for words in (
        "0.936 Gy.cm²", "12.5 mGy", "0.7956 Gy.cm² (factor 0.85)", "triamcinolone", "R. Head", "Sacroiliac joint injection", "may be off by 35 %",
    ):
        assert words in page, words
    assert page.count("data:image/png;base64,") == 2


def test_names_cannot_break_the_page() -> None:
    record = record_with(1, "<b>\"'&</script><img src=x onerror=1>")
    record.procedure = "<h1>x"
    checker = Checker()
    checker.feed(report_html(record))
    assert checker.open == []
    assert all(a.startswith("data:") for a in checker.addresses)


def test_bulls_eye_by_hand() -> None:
    # A needle from back to front: whoever looks along it at the patient's back, head up, has the patient's right at the right hand.
    # LPS: axis (0, -1, 0), up (0, 0, 1), right = axis x up = (-1, 0, 0).
    right, up, name = bulls_eye_axes(np.array([0.0, -1, 0]))
    assert (right.tolist(), up.tolist(), name) == ([-1, 0, 0], [0, 0, 1], "head")
    # Along the body's axis towards the head: anterior is up; looking from the feet, the patient's left is at the right hand.
    right, up, name = bulls_eye_axes(np.array([0.0, 0, 1]))
    assert (right.tolist(), up.tolist(), name) == ([1, 0, 0], [0, -1, 0], "anterior")
    placement = record_with(1).placements[0]
    x, y, covariance, _ = bulls_eye_point(placement)
    assert np.hypot(x, y) == pytest.approx(placement.deviation.lateral_mm, abs=1e-12)
    assert covariance.shape == (2, 2)
    assert [nice_step(v, 4) for v in (1.0, 4.0, 7.0, 0.3)] == [0.5, 1.0, 2.0, 0.1]


def test_a_tip_beyond_all_measure_does_not_end_the_report() -> None:
    """A damaged record said 1e154 mm, whose square is no number (found by the proof ``fuzz_readers``)."""
    placement = record_with(1).placements[0]
    far = dataclasses.replace(placement, deviation=dataclasses.replace(placement.deviation, offset_lps_mm=np.array([1e200, -1e200, 1e200])))
    assert bulls_eye([placement, far, far]).startswith("<svg")


# ---- DICOM ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def highdicom():
    return pytest.importorskip("highdicom", reason="highdicom is not installed (extra 'record')")


def leaves(value: object) -> list[float]:
    """All numbers in nested data."""
    if isinstance(value, dict):
        return [n for v in value.values() for n in leaves(v)]
    if isinstance(value, list):
        return [n for v in value for n in leaves(v)]
    return [float(value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


@pytest.mark.parametrize("name", CASES)
def test_sr_opens_and_keeps_every_number(name: str, tmp_path: Path, highdicom) -> None:
    record = CASES[name]()
    export_record(record, tmp_path, ("dicom", "json"))
    report = highdicom.sr.srread(tmp_path / "report.sr.dcm")
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR
    back, sent = open_record(tmp_path / "report.sr.dcm").to_dict(), json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert {k: v for k, v in back.items() if k != "key_images"} == {k: v for k, v in sent.items() if k != "key_images"}
    groups = report.content.get_image_measurement_groups() if record.placements else []
    needles = [g for g in groups if g.finding_type is not None and g.finding_type.value == "79068005"]
    assert len(needles) == len(record.placements)
    for group, placement in zip(needles, record.placements, strict=True):
        values = {m.name.meaning: m.value for m in group.get_measurements()}
        d = placement.deviation
        assert values["Distance of needle tip from target"] == d.tip_mm  # the full double, not 16 characters of it
        assert values["Distance of needle tip from planned path"] == d.lateral_mm
        assert values["Radius of 95 % uncertainty of needle tip"] == placement.tip_error_95_mm
        assert [values[f"Needle tip {a} in volume"] for a in "LPS"] == placement.tip_lps_mm.tolist()
        assert values["Needle Gauge"] == 22
    assert len(list(tmp_path.glob("key_image_*.dcm"))) == len(record.key_images)
    if record.key_images:
        first = pydicom.dcmread(tmp_path / "key_image_01.dcm")
        assert np.array_equal(first.pixel_array, record.key_images[0].pixels())
        series = [r for s in report.CurrentRequestedProcedureEvidenceSequence for r in s.ReferencedSeriesSequence]
        assert first.SOPInstanceUID in [i.ReferencedSOPInstanceUID for r in series for i in r.ReferencedSOPSequence]


@pytest.mark.parametrize("name", CASES)
def test_dciodvfy_finds_no_error(name: str, tmp_path: Path, highdicom) -> None:
    program = dciodvfy()
    if program is None:
        pytest.skip("dciodvfy is not installed (dicom3tools)")
    for path in export_record(CASES[name](), tmp_path, ("dicom",)):
        done = subprocess.run([program, "-new", path], capture_output=True, text=True, timeout=60, check=False)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert not errors, f"{path.name}: {errors[:3]}"


def test_dose_in_the_sr_has_standard_codes(tmp_path: Path, highdicom) -> None:
    export_record(record_with(1), tmp_path, ("dicom",))
    report = highdicom.sr.srread(tmp_path / "report.sr.dcm")
    found = {}
    for group in report.content.get_image_measurement_groups():
        for m in group.get_measurements():
            found[(m.name.scheme_designator, m.name.value)] = (m.value, m.unit.value)
    assert found[("DCM", "113722")] == (9.36e-5, "Gy.m2")
    assert found[("DCM", "113725")] == (0.0125, "Gy")
    assert found[("DCM", "113730")] == (29.7, "s")
    assert found[("SCT", "225908003")] == (2.0, "{score}")  # pain score, the last


# ---- tables ---------------------------------------------------------------------------------------------------------------
def test_csv_keeps_numbers_and_disarms_formulas() -> None:
    record = record_with(3, "=cmd()")
    rows = list(csv.DictReader(io.StringIO(csv_text(placement_rows(record.to_dict())))))
    assert len(rows) == 3
    for row, placement in zip(rows, record.placements, strict=True):
        assert float(row["tip_mm"]) == placement.deviation.tip_mm
        assert [float(row[f"tip_{a}_mm"]) for a in "lps"] == placement.tip_lps_mm.tolist()
        assert row["needle"].startswith("'=")
    assert csv_text([]) == ""
    assert float(rows[0]["along_mm"]) == record.placements[0].deviation.along_mm  # negative numbers stay numbers


# ---- scene ----------------------------------------------------------------------------------------------------------------
def test_recovered_record_becomes_a_scene_and_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    import slicer

    from FluoroGuideLib.scene import case, host, nodes
    from FluoroGuideLib.scene.journal_nodes import read_record as record_of_scene
    from FluoroGuideLib.scene.journal_nodes import recover_scene
    from FluoroGuideLib.scene.plan_nodes import markups_lps_mm

    record = record_with(2)
    a_host = host.start()
    path = recover_scene(a_host, record, tmp_path / "case.mrb")
    a_host.scene.Clear(0)
    case.load_mrb(a_host, path)
    assert record_of_scene(a_host).to_dict() == record.to_dict()
    assert open_record(path).to_dict() == record.to_dict()  # without Slicer too
    lines = nodes.find_all(a_host, "achieved")
    assert [markups_lps_mm(n)[1].tolist() for n in lines] == [pytest.approx(p.tip_lps_mm) for p in record.placements]
    assert np.linalg.norm(np.diff(markups_lps_mm(lines[0]), axis=0)) == pytest.approx(90.0)
    pictures = nodes.find_all(a_host, "key-image")
    assert [slicer.util.arrayFromVolume(n)[0].tolist() for n in pictures] == [k.pixels().tolist() for k in record.key_images]
    table = nodes.find(a_host, "dose-table")
    rows = {table.GetCellText(i, 0): (table.GetCellText(i, 1), table.GetCellText(i, 2)) for i in range(table.GetNumberOfRows())}
    assert rows["dap_gy_m2"] == ("9.36e-05", "Gy.m2")
    assert lines[0].GetParentTransformNode().GetAttribute("FluoroGuide.role") == "pose"
    a_host.scene.Clear(0)


# ---- command line -----------------------------------------------------------------------------------------------------------
def test_record_commands(tmp_path: Path, capsys, monkeypatch) -> None:
    path, out = tmp_path / "record.json", tmp_path / "out"
    write_record(path, record_with(2))
    assert cli.main(["record", "show", str(path)]) == 0
    assert "complications: none" in capsys.readouterr().out
    assert cli.main(["record", "validate", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"valid": True, "schema_version": 1, "problems": [], "notes": []}
    assert cli.main(["record", "report", str(path), "--output", str(out)]) == 0
    assert cli.main(["record", "export", str(path), "--output", str(out), "--format", "json,csv", "--hide", "needle"]) == 0
    assert "needle 1" not in (out / "placements.csv").read_text(encoding="utf-8")
    capsys.readouterr()
    data = json.loads(path.read_text(encoding="utf-8"))
    data["pain"][0]["score"] = -3
    path.write_text(json.dumps(data), encoding="utf-8")
    assert cli.main(["record", "validate", str(path)]) == 1
    assert "pain[0].score: -3 is less than 0" in capsys.readouterr().out
    for arguments, words in (
        (["show", str(tmp_path / "absent.json")], "does not exist"), (["show"], "No record is given"), (["report", str(path)], "--output DIR"),
        (["export", str(path), "--output", str(out), "--format", "pdf"], "format is unknown"),
    ):
        assert cli.main(["record", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_recover_command(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FLUOROGUIDE_DATA", str(tmp_path / "data"))
    assert cli.main(["record", "recover"]) == 0
    assert "nothing was left behind" in capsys.readouterr().out
    record = record_with(2)
    keeper = RecordKeeper.start(record)
    record.add_pain("after", 1)
    assert keeper.journal.path.is_relative_to(tmp_path / "data")
    assert cli.main(["record", "recover", "--json", "--output", str(tmp_path / "out"), "--discard"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["recovered"]
    assert (found["in_use"], found["discarded"], found["placements"]) == (True, False, 2)  # somebody still writes: it stays
    keeper.journal.close()
    assert cli.main(["record", "recover", "--discard"]) == 2
    assert cli.main(["record", "recover", "--output", str(tmp_path / "out"), "--discard"]) == 0
    assert journals() == []
    assert read_record(tmp_path / "out" / f"record-{record.record_id[:8]}.json").to_dict() == record.to_dict()


def test_what_people_enter_is_checked() -> None:
    record = ProcedureRecord.of_plan(a_plan(1))
    for call, words in (
        (lambda: record.add_pain("before", 11), "more than the scale's 10"), (lambda: record.add_pain("during", 1), "time of the pain score"),
        (lambda: record.add_pain("before", True), "not a number"), (lambda: record.add_contrast(""), "contrast agent is empty"),
        (lambda: record.add_contrast("x", -1), "not a number from 0"), (lambda: record.add_contrast("x", vascular="no"), "neither yes nor no"),
        (lambda: record.add_injectate("x", volume_ml=float("nan")), "not a number"), (lambda: record.add_complication("x", "bad"), "severity"),
        (lambda: record.approve("none", "R. Head"), "no such placement"), (lambda: record.answer("x", []), "neither text"),
    ):
        with pytest.raises(FluoroGuideError, match=words):
            call()
    assert [e["event"] for e in record.timeline] == ["started"]  # nothing half entered
    record.add_pain("before", 55, "VAS")
    assert record.pain[0]["score"] == 55
    record.no_complications()
    assert record.complications == []
