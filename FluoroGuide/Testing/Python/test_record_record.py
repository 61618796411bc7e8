"""The record: nothing lost on the way to disk, valid by its schema, readable as one page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib import RESEARCH_NOTICE
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.triangulation import NeedlePose
from FluoroGuideLib.planning.plan import Plan, Target, Trajectory
from FluoroGuideLib.record.dose_model import DoseEvent, DoseSummary
from FluoroGuideLib.record.placement import Placement, placement_of
from FluoroGuideLib.record.record import ProcedureRecord, read_record, summary_text, write_record
from FluoroGuideLib.registration.result import Registration

SCHEMA = Path(__file__).resolve().parents[2] / "Resources" / "procedure_record.schema.json"


def a_plan() -> Plan:
    path = Trajectory("left", (0, 0, 100), (0, 0, 0), 22, 90)
    return Plan("si_joint", (Target("joint", (0, 0, 0), 6),), (path,), "left", "S1", "ct", {"joint line": [[0, 0, 0], [1 / 3, 2, 3]]}, ("AP",))


def a_needle(frame: str = "volume") -> NeedlePose:
    # Tip 3 left, 4 posterior, 2 caudal of the target: 5.385 mm away; sigma 0.5 mm in each direction.
    return NeedlePose(np.array([3.0, 4, -2]), np.array([0, 0, -1.0]), np.eye(3) / 4, 0.4, 88.0, np.zeros(2), frame, ("marks by hand",))


def a_record() -> ProcedureRecord:
    view = CArmView.from_angles(30, -20, sid_mm=1000, sod_mm=700, rows=512, columns=512, pixel_spacing_mm=(0.3, 0.3))
    history = ({"level": 0, "cost": np.float32(1.5), "worst": float("inf")},)
    registration = Registration(np.eye(4), "warn", ("depth uncertain",), (0.8,), np.eye(6) * 0.01, np.zeros(3), (view,), history, 1.25, 7)
    record = ProcedureRecord.of_plan(a_plan())
    record.add_view("view 1", view, ("The spacing was typed by the user.",))
    record.add_registration(registration)
    record.add_placement(placement_of(record.plan, a_needle(), views=("LAO 30.0 CAU 20.0",), registration_verdict="warn"))
    events = (DoseEvent(uid="1.2.3", dap_gy_m2=1.6e-5),)
    record.set_dose(DoseSummary(dap_gy_m2=1.6e-5, fluoroscopy_seconds=28.0, events=events, source="rdsr", device="X"))
    return record


def test_round_trip_through_a_file_keeps_everything(tmp_path: Path) -> None:
    record = a_record()
    write_record(tmp_path / "record.json", record)
    data = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert data == record.to_dict()
    assert read_record(tmp_path / "record.json").to_dict() == data
    assert data["plan"]["outlines"]["joint line"][1][0] == 1 / 3
    assert data["registrations"][0]["history"] == [{"level": 0, "cost": 1.5, "worst": None}]
    data["weather"] = ["none"]  # of a later version
    assert ProcedureRecord.from_dict(data).to_dict() == data


def test_valid_by_its_schema_and_schema_can_say_no() -> None:
    import jsonschema

    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    validator.check_schema(validator.schema)
    data = a_record().to_dict()
    validator.validate(data)
    validator.validate(ProcedureRecord("free").to_dict())
    for wrong in (
        {"laterality": "links"}, {"schema_version": 2}, {"pain": [{"when": "during"}]}, {"complications": ["dizzy"]},
        {"created_utc": "yesterday"}, {"placements": [{}]}, {"dose": {"dap_gy_m2": -1}},
    ):
        assert not validator.is_valid({**data, **wrong}), wrong


def test_no_identifiers_by_default() -> None:
    data = a_record().to_dict()
    assert data["patient_key"] is None
    assert "1.2.3" not in json.dumps(data)


def test_timeline_goes_on_after_reading(tmp_path: Path) -> None:
    record = a_record()
    assert [e["event"] for e in record.timeline] == ["started", "view", "registration", "placement", "dose"]
    record.timeline[-1]["seconds"] = 500.0
    write_record(tmp_path / "r.json", record)
    again = read_record(tmp_path / "r.json")
    again.log("resumed")
    assert again.timeline[-1]["seconds"] >= 500.0
    assert again.timeline[-1]["utc"].endswith("Z")
    assert again.record_id == record.record_id


def test_placement_by_hand() -> None:
    placement = placement_of(a_plan(), a_needle(), views=("AP", "lateral"))
    assert placement.deviation.tip_mm == pytest.approx(29**0.5)
    assert placement.deviation.in_target is True  # tolerance 6 mm, from the plan's target
    assert 0.8 < placement.deviation.probability_in_target < 0.95
    assert placement.tip_error_95_mm == pytest.approx(0.5 * 2.7955, rel=1e-3)  # sqrt(chi-square 95 %, 3 degrees of freedom = 7.8147) sigmas
    assert placement.approved_by is None
    again = Placement.from_dict(placement.to_dict())
    assert again.to_dict() == placement.to_dict()
    with pytest.raises(FluoroGuideError, match="not in the volume's frame"):
        placement_of(a_plan(), a_needle("isocentre"))
    with pytest.raises(FluoroGuideError, match="measured is unknown"):
        placement_of(a_plan(), a_needle(), method="guess")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 5, "readable_from": 4}, "version 5, known up to 1"), ({"schema_version": "1"}, "not a whole number"), (
            {"format": "fluoroguide-plan"}, "This is not a record",
        ),
        ({"placements": None}, "'placements' is not a list"), ({"placements": [{}]}, "placement lacks the key 'trajectory'"),
        ({"laterality": "links"}, "laterality is unknown"), ({"procedure": ""}, "names no procedure"),
    ],
)
def test_wrong_records(change: dict, sentence: str) -> None:
    with pytest.raises(FluoroGuideError, match=sentence):
        ProcedureRecord.from_dict({**a_record().to_dict(), **change})


@pytest.mark.parametrize("key", ["format", "schema_version", "procedure", "plan", "placements", "record_id"])
def test_missing_keys_are_named(key: str) -> None:
    data = a_record().to_dict()
    del data[key]
    with pytest.raises(FluoroGuideError, match=f"lacks the key '{key}'"):
        ProcedureRecord.from_dict(data)


def test_summary() -> None:
    text = summary_text(a_record())
    for words in (
        RESEARCH_NOTICE, "si_joint", "left, S1", "22G, needle 90 mm", "view 1: LAO 30.0 CAU 20.0", "typed by the user", "WARN at", "depth uncertain",
        "tip 5.4 mm from the target (4.0 mm posterior, 3.0 mm left, 2.0 mm caudal)", "5.0 mm beside the path, 2.0 mm past the target",
        "known to 1.4 mm (95 %)", "in the target: yes", "approved by: nobody yet", "0.16 Gy.cm2", "28.0 s", "no identifier stored",
    ):
        assert words in text, words
    assert "Ref. air kerma  not told" in text  # never 0
    assert max(map(len, text.splitlines())) <= 140
    empty = summary_text(ProcedureRecord("free"))
    assert empty.count("none recorded") == 3
    assert "not recorded" in empty
