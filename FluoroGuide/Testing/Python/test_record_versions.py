"""Records of every version load for ever: the released files in Testing/Data/records, drafts, and those of the future."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
from record_cases import empty_record, long_record, record_with

from FluoroGuideLib import cli
from FluoroGuideLib.record.journal import SUFFIX, read_journal
from FluoroGuideLib.record.keeper import recover
from FluoroGuideLib.record.record import ProcedureRecord, read_record, summary_text
from FluoroGuideLib.record.report import report_html
from FluoroGuideLib.record.schema import problems, record_schema

RECORDS = Path(__file__).resolve().parents[1] / "Data" / "records"
KEPT = sorted(RECORDS.glob("v*.json"))


def test_kept_files_are_there() -> None:
    names = {p.name for p in KEPT}
    assert {"v1_full.json", "v1_empty.json", "v1_long_names.json", "v1_twenty_needles.json", "v0_draft.json", "v0_demo.json"} <= names


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_kept_records_load(path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    record = read_record(path)
    again = record.to_dict()
    assert problems({**again, "schema_version": 1}) == []
    assert summary_text(record)
    assert "</html>" in report_html(record)
    if data["schema_version"] == 1:
        assert again == data  # every number, every key
        assert record.read_warnings == ()
    else:
        assert "draft" in record.read_warnings[0]


def test_numbers_of_a_kept_record() -> None:
    """Values read by hand from the file, so that a change of meaning shows."""
    record = read_record(RECORDS / "v1_full.json")
    assert (record.procedure, record.laterality, record.level) == ("si_joint", "left", "S1")
    assert [p.trajectory.name for p in record.placements] == ["needle 1", "needle 2"]
    assert record.placements[0].deviation.tip_mm == pytest.approx(0.6487442110684495, abs=0)
    assert record.placements[0].approved_by == "R. Head"
    assert [p["score"] for p in record.pain] == [7, 2]
    assert record.complications == []
    assert record.contrast[0]["vascular"] is False
    assert record.dose.dap_gy_m2 == 9.36e-5
    assert record.dose.corrected_dap_gy_m2 == pytest.approx(9.36e-5 * 0.85)
    assert record.dose.planes[1].dap_gy_m2 == 0.0
    assert record.key_images[0].pixels().shape == (96, 128)
    assert record.views[1]["angles"] == "LAO 80.0 CRA 5.0"


def test_drafts_of_the_demo_get_names_and_times() -> None:
    record = read_record(RECORDS / "v0_demo.json")
    data = record.to_dict()
    assert [v["name"] for v in data["views"]] == ["view 1", "view 2"]  # not the names of files
    assert data["registrations"][0]["utc"] == data["created_utc"]
    assert record.complications is None  # nobody was asked
    ids = [p.placement_id for p in record.placements]
    assert ids == [p.placement_id for p in read_record(RECORDS / "v0_demo.json").placements]  # made from the data: the same each time


def test_kept_journal_recovers() -> None:
    path = RECORDS / f"v1{SUFFIX}"
    found = recover(path)
    assert found.warnings == ()
    assert len(read_journal(path).events) == found.events
    assert found.record.to_dict() == read_record(RECORDS / "v1_full.json").to_dict()


def test_a_later_version_is_read_and_written_back_whole(tmp_path: Path) -> None:
    data = copy.deepcopy(record_with(2).to_dict())
    data["schema_version"] = 3
    data["sedation"] = {"drug": "none"}
    data["placements"][1]["bevel_deg"] = 90
    data["placements"][0]["deviation"]["curvature_mm"] = 0.4
    data["plan"]["trajectories"][1]["steering"] = "straight"
    data["plan"]["targets"][0]["priority"] = 1
    data["dose"]["peak_skin_dose_gy"] = 0.02
    data["pain"][0]["mood"] = "calm"
    record = ProcedureRecord.from_dict(data)
    assert "newer FluoroGuide (schema version 3)" in record.read_warnings[0]
    record.add_aftercare("rest")
    again = record.to_dict()
    assert again["placements"][1]["bevel_deg"] == 90
    assert again["placements"][0]["deviation"]["curvature_mm"] == 0.4
    assert again["plan"]["trajectories"][1]["steering"] == "straight"
    assert again["plan"]["targets"][0]["priority"] == 1
    assert again["dose"]["peak_skin_dose_gy"] == 0.02
    assert again["pain"][0]["mood"] == "calm"
    assert again["sedation"] == {"drug": "none"}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    assert cli.main(["record", "validate", str(path)]) == 0


# ---- the schema's own checker against jsonschema ---------------------------------------------------------------------------
def mutated(data: dict, rng: random.Random) -> dict:
    """The record with one value somewhere replaced, removed or added."""
    data = copy.deepcopy(data)
    place, steps = data, rng.randint(1, 7)
    for _ in range(steps):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        inner = [k for k in keys if isinstance(place[k], (dict, list)) and place[k]]
        if not inner or rng.random() < 0.25:
            break
        place = place[rng.choice(inner)]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = rng.choice(keys)
    if rng.random() < 0.2 and isinstance(place, dict):
        del place[key]
    else:
        place[key] = rng.choice([None, -1, 0, 1, 1.5, True, False, "", "x", [], [1, 2, 3], {}, "2026-01-01T00:00:00Z", "left", "pass", 101, "f" * 64])
    return data


def test_checker_agrees_with_jsonschema() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra 'test')")
    validator = jsonschema.Draft202012Validator(record_schema())
    validator.check_schema(record_schema())
    rng = random.Random(5)
    sources = [r.to_dict() for r in (record_with(2), empty_record())]
    verdicts = {True: 0, False: 0}
    for _ in range(400):
        data = mutated(rng.choice(sources), rng)
        valid = validator.is_valid(data)
        assert (problems(data) == []) == valid, problems(data)
        verdicts[valid] += 1
    assert min(verdicts.values()) > 60
    assert problems(long_record().to_dict()) == []


def test_problems_name_the_place() -> None:
    data = record_with(1).to_dict()
    data["placements"][0]["tip_lps_mm"] = [1, 2, "x"]
    data["pain"][1]["scale"] = "smileys"
    del data["timeline"]
    assert sorted(problems(data), reverse=True) == [
        "the record: lacks the key 'timeline'", 'placements[0].tip_lps_mm[2]: "x" is not number', 'pain[1].scale: "smileys" is none of "NRS", "VAS"',
    ]
