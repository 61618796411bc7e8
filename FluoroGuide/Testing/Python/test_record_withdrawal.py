"""Entries taken back: they count no more, and nothing is erased."""

from __future__ import annotations

import numpy as np
import pytest
from record_cases import record_with

from FluoroGuideLib.engine import record_tasks
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.record.dose import manual_dose
from FluoroGuideLib.record.export import export_record, open_record
from FluoroGuideLib.record.keeper import RecordKeeper, recover
from FluoroGuideLib.record.key_images import KeyImage
from FluoroGuideLib.record.privacy import without_identifiers
from FluoroGuideLib.record.record import ProcedureRecord
from FluoroGuideLib.record.report import report_html
from FluoroGuideLib.record.summary import summary_text
from FluoroGuideLib.record.withdrawal import KINDS, reinstate, withdraw


@pytest.fixture
def record():
    made = record_with(1)
    made.key_images = []
    made.pain, made.injectate, made.contrast, made.aftercare, made.complications, made.dose = [], [], [], [], None, None
    made.add_contrast("iohexol", 1.0, "epidural", False)
    made.add_injectate("triamcinolone", "40 mg/ml", 1.5, "A17")
    made.add_pain("before", 7)
    made.add_complication("vasovagal reaction", "minor")
    made.add_aftercare("No driving today.")
    made.add_key_image(KeyImage.of_pixels("AP with needle", np.arange(400).reshape(20, 20), burned_in="no", utc="2025-03-04T10:00:00.000Z"))
    made.set_dose(manual_dose("1.2 Gy.cm2", None, "4 min"))
    return made


def _time_of(record, kind):
    values = getattr(record, kind)
    return None if kind == "dose" else values[-1].get("utc") if isinstance(values[-1], dict) else values[-1].utc


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_withdrawn_with_its_reason_and_put_back(record, kind):
    before, events = record.to_dict(), len(record.timeline)
    withdraw(record, kind, _time_of(record, kind), "entered for another patient")
    assert not getattr(record, kind), "it counts no more"
    if kind == "complications":
        assert record.complications is None, "no complication left is not the statement that there was none"
    entry = record.withdrawn[-1]
    item = before["dose"] if kind == "dose" else before[kind][-1]
    assert (entry["kind"], entry["item"], entry["reason"], entry["reinstated_utc"]) == (kind, item, "entered for another patient", None)
    assert record.timeline[-1]["event"] == "withdrawn"
    assert "entered for another patient" in record.timeline[-1]["text"]
    assert ProcedureRecord.from_dict(record.to_dict()).to_dict() == record.to_dict(), "by its schema"
    for text in (report_html(record), summary_text(record)):
        assert "entered for another patient" in " ".join(text.split())
    reinstate(record, 0)
    assert record.to_dict()[kind] == before[kind]
    assert entry["utc"] <= record.withdrawn[0]["reinstated_utc"] <= record.timeline[-1]["utc"]
    assert [e["event"] for e in record.timeline[events:]] == ["withdrawn", "reinstated"], "both are told"
    with pytest.raises(FluoroGuideError, match="no such withdrawn entry"):
        reinstate(record, 0)


def test_no_complication_is_a_statement_that_can_be_withdrawn(record):
    record.complications = []
    withdraw(record, "complications", None, "asked too early")
    assert record.complications is None
    record.add_complication("dural puncture")
    with pytest.raises(FluoroGuideError, match="has a complication now"):
        reinstate(record, 0)
    withdraw(record, "complications", record.complications[0]["utc"], "it was none")
    reinstate(record, 0)
    assert record.complications == []


@pytest.mark.parametrize(("kind", "utc", "reason", "sentence"), [
    ("pain", "2001-01-01T00:00:00.000Z", "x", "no such entry"), ("timeline", None, "x", "no such entry"), ("checklist", None, "x", "no such entry"),
    ("dose", None, "  ", "reason is empty"), ("complications", None, "x", "no such entry"),
])
def test_what_cannot_be_withdrawn_changes_nothing(record, kind, utc, reason, sentence):
    before = record.to_dict()
    with pytest.raises(FluoroGuideError, match=sentence):
        withdraw(record, kind, utc, reason)
    assert record.to_dict() == before


def test_the_right_one_of_several_goes_and_comes_back_to_its_place(record):
    times = ["2025-03-04T10:00:01.000Z", "2025-03-04T10:00:02.000Z", "2025-03-04T10:00:03.000Z"]
    record.pain = [{**record.pain[0], "score": float(n), "utc": utc} for n, utc in enumerate(times)]
    withdraw(record, "pain", times[1], "wrong")
    assert [p["score"] for p in record.pain] == [0.0, 2.0]
    reinstate(record, 0)
    assert [p["score"] for p in record.pain] == [0.0, 1.0, 2.0]


def test_the_journal_appends_it_and_brings_it_back(record, tmp_path):
    keeper = RecordKeeper.start(record, tmp_path)
    size = keeper.journal.path.stat().st_size
    withdraw(record, "key_images", record.key_images[0].utc, "blurred")
    old = keeper.journal.path.read_bytes()[:size]
    reinstate(record, 0)
    assert keeper.journal.path.read_bytes()[:size] == old, "nothing that was written is changed"
    assert recover(keeper.journal.path).record.to_dict() == record.to_dict()
    keeper.journal.close()


def test_a_withdrawn_picture_is_told_but_never_leaves(record, tmp_path):
    record.key_images = [KeyImage.of_pixels("screen of MILLER", np.arange(400).reshape(20, 20), utc="2025-03-04T10:00:00.000Z")]
    picture = record.to_dict()["key_images"][0]["png_base64"]
    withdraw(record, "key_images", record.key_images[0].utc, "MILLER is in it")
    out = without_identifiers(record.to_dict(), ["MILLER"])
    assert picture not in str(out)
    assert "MILLER" not in str(out)
    assert out["withdrawn"][0]["item"]["utc"] == "2025-03-04T10:00:00.000Z"
    files = export_record(record, tmp_path, words=["MILLER"])
    assert all(picture.encode() not in f.read_bytes() and b"MILLER" not in f.read_bytes() for f in files)
    read = open_record(tmp_path / "record.json")
    with pytest.raises(FluoroGuideError, match="png_base64"):
        reinstate(read, 0)


def test_an_event_shares_the_pictures_of_the_one_before(record, tmp_path):
    """What made an event cost 0.3 s with 20 pictures: each was encoded, copied and compared again."""
    keeper = RecordKeeper.start(record, tmp_path)
    first = keeper._state["key_images"][0]["png_base64"]
    size = keeper.journal.path.stat().st_size
    record.add_pain("after", 2)
    assert keeper._state["key_images"][0]["png_base64"] is first is record.to_dict()["key_images"][0]["png_base64"]
    assert keeper.journal.path.stat().st_size - size < 1500, "only what is new is appended"
    keeper.journal.close()


def test_the_worker_writes_what_the_library_writes(record, tmp_path):
    withdraw(record, "pain", record.pain[0]["utc"], "wrong")
    withdraw(record, "key_images", record.key_images[0].utc, "blurred")
    record.add_key_image(KeyImage.of_pixels("lateral", np.arange(100).reshape(10, 10), burned_in="no", utc="2025-03-04T10:00:05.000Z"))
    told, arguments = [], record_tasks.sent(record)
    assert all(image["png_base64"] == "" for image in arguments["record"]["key_images"]), "pictures go as bytes"

    def run(kind, path):
        return record_tasks.write(
            **arguments, kind=kind, path=str(path), progress=lambda share, text: told.append((share, text)), cancelled=lambda: False)

    run("record", tmp_path / "a.json")
    assert open_record(tmp_path / "a.json").to_dict() == record.to_dict()
    run("report", tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == report_html(record)
    (tmp_path / "all").mkdir()
    names = {f.rsplit("/", 1)[-1] for f in run("all", tmp_path / "all")}
    assert {"record.json", "placements.csv", "dose_events.csv", "timeline.csv", "report.html", "report.sr.dcm", "key_image_01.dcm"} == names
    shares = [share for share, _text in told[-5:]]
    assert shares == sorted(shares)
    assert shares[-1] < 1
    with pytest.raises(FluoroGuideError, match="cannot be written"):
        run("record", tmp_path / "nowhere" / "a.json")


@pytest.mark.parametrize("damaged", [
    b"",
    b"\0" * 128 + b"DICM\x02\0\0\0UL\x02\0\1\0",  # a group length of two bytes: pydicom's BytesLengthException
    b"\0" * 128 + b"DICM\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99garbage!garbage!",  # promises deflated data: zlib.error
], ids=["empty", "short number", "broken deflate"])
def test_a_damaged_file_is_no_dose_report(tmp_path, damaged):
    file = tmp_path / "damaged.dcm"
    file.write_bytes(damaged)
    assert record_tasks.is_report(str(file)) is False
