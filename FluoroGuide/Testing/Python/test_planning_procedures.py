"""The procedure library: every file against its schema, angles by hand, broken files beside good ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.planning.approach import Room
from FluoroGuideLib.planning.carms import carm
from FluoroGuideLib.planning.procedures import RESOURCES, load_library, procedure_schema, read_procedure
from FluoroGuideLib.planning.schema import first_problem

ASKED = {
    "lumbar_facet", "medial_branch_block", "transforaminal_lumbar", "transforaminal_l5", "transforaminal_s1", "interlaminar_epidural",
    "caudal_epidural", "si_joint", "hip", "knee", "shoulder", "vertebroplasty_transpedicular", "kyphoplasty_transpedicular", "thoracic_facet",
    "costovertebral", "discography", "hip_arthrography", "shoulder_arthrography", "knee_arthrography", "trigger_point", "free",
}
SPINAL = ASKED - {"si_joint", "hip", "knee", "shoulder", "hip_arthrography", "shoulder_arthrography", "knee_arthrography", "trigger_point", "free"}


def test_all_procedures_keep_the_schema_and_the_rules() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    library = load_library()
    assert library.problems == ()
    assert set(library.procedures) == ASKED
    for key, procedure in library.procedures.items():
        jsonschema.validate(dict(procedure.data), procedure_schema())
        words = json.dumps(dict(procedure.data)).lower()
        # Volumes and contrast class only, no drug doses.
        for drug in ("triamcinolone", "bupivacaine", "dexamethasone", "lidocaine", "methylprednisolone", "ropivacaine", "cefazolin"):
            assert drug not in words, key
        for topic in ("infection", "bleeding", "nerve injury", "allerg", "anticoag", "pregnancy", "consent", "laterality"):
            assert any(topic in item.lower() for item in procedure.data["checklist"]), (key, topic)
        assert procedure.data["after_care"]["red_flags"]
        if key in SPINAL:
            contrast = procedure.data["contrast"]
            assert contrast["class"] == "non-ionic, intrathecal-approved", key
            assert "prescribing information" in contrast["source"], key
        text = "\n".join(procedure.text())
        assert "(unverified)" in text
        assert text.count("(source: ") + text.count("(unverified)") >= (4 if key == "free" else 6)


def test_my_validator_agrees_with_jsonschema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    good = json.loads((RESOURCES / "Procedures" / "si_joint.json").read_text(encoding="utf-8"))
    checker = jsonschema.Draft202012Validator(procedure_schema())
    assert first_problem(good, procedure_schema()) is None
    places: list[tuple] = []

    def walk(data: object, path: tuple = ()) -> None:
        for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
            places.append((*path, key))
            walk(data[key], (*path, key))

    walk(good)
    wrong = 0
    for path in places:
        for value in ("remove", None, -1, "", [], {}, True, "cited"):
            bad = copy.deepcopy(good)
            holder = bad
            for key in path[:-1]:
                holder = holder[key]
            if value == "remove":
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
            mine, theirs = first_problem(bad, procedure_schema()), checker.is_valid(bad)
            assert (mine is None) == theirs, (path, value, mine)
            wrong += not theirs
    assert wrong > 200


def test_view_angles_by_hand() -> None:
    library = load_library()
    # SI joint, left, prone: contralateral oblique 15 = detector 15 deg to the patient's right of straight behind.
    # Behind is 180; its direction (sin a, -cos a) has x < 0 (right) at a = -165 (sin = -0.26, -cos = +0.97).
    si = library.get("si_joint")
    assert si.view_angles(si.data["views"][0], "left") == pytest.approx((-165, 12.5))
    assert si.view_angles(si.data["views"][0], "right") == pytest.approx((165, 12.5))
    d = si.direction("left")
    assert d[0] < 0 < d[1]
    assert d[2] == pytest.approx(np.sin(np.radians(12.5)))
    # Facet, right: ipsilateral 45, so towards the right: a = -135. The gantry sees -135 - 180 = 45: console LAO 45.
    facet = library.get("lumbar_facet")
    room = Room(carm(), "HFP")
    view = facet.start_views("right", room, np.zeros(3))[0]
    assert view.primary_deg == pytest.approx(-135)
    assert "console shows LAO 45.0" in view.text
    assert "to the patient's right" in view.text
    assert view.reasons[1].startswith("Source: daradia.com")
    # Hip, supine, straight AP.
    hip = library.get("hip")
    assert hip.view_angles(hip.data["views"][0], "left") == (0, 0)
    assert (hip.patient_position, facet.patient_position) == ("HFS", "HFP")
    lateral = facet.start_views("left", room, np.zeros(3), "confirmation_views")[1]
    assert abs(lateral.primary_deg) == pytest.approx(90)
    assert lateral.reachable
    with pytest.raises(FluoroGuideError, match="is oblique to one side"):
        facet.view_angles(facet.data["views"][0], None)


def test_a_broken_file_is_named_and_the_rest_loads(tmp_path: Path) -> None:
    good = json.loads((RESOURCES / "Procedures" / "hip.json").read_text(encoding="utf-8"))
    (tmp_path / "mine.json").write_text(json.dumps({**good, "key": "mine", "title": "My hip"}), encoding="utf-8")
    (tmp_path / "hip.json").write_text(json.dumps({**good, "title": "Our hip"}), encoding="utf-8")
    (tmp_path / "text.json").write_text("hello", encoding="utf-8")
    (tmp_path / "other.json").write_text(json.dumps({**good, "key": "different"}), encoding="utf-8")
    number = copy.deepcopy(good)
    number["injectate_ml"] = {"range": [5, 8], "source": None, "status": "cited"}
    (tmp_path / "bad.json").write_text(json.dumps({**number, "key": "bad"}), encoding="utf-8")
    library = load_library(tmp_path, tmp_path / "none")
    assert library.get("mine").title == "My hip"
    assert library.get("hip").title == "Our hip"
    assert len(library.procedures) == len(ASKED) + 1
    assert len(library.problems) == 4
    assert all(p.count("\n") == 0 for p in library.problems)
    assert any("bad.json: injectate_ml" in p for p in library.problems)
    assert any("text.json" in p and "not JSON" in p for p in library.problems)
    with pytest.raises(FluoroGuideError, match=r"The procedure is unknown \(nose\)\. Known: "):
        library.get("nose")
    with pytest.raises(FluoroGuideError, match=r"The procedure is unknown \(bad\).*injectate_ml"):
        library.get("bad")
    with pytest.raises(FluoroGuideError, match="does not exist"):
        read_procedure(tmp_path / "gone.json")
