"""Identity of volume, plan, X-ray and dose report: what blocks, what warns, and that nothing leaks."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging.identity import (
    Identity,
    VolumeStamp,
    compare,
    digest,
    identity_of,
    read_identity,
    side_of_targets,
    volume_hash,
)
from FluoroGuideLib.imaging.xa_writer import write_xa


def patient(what: str, **change) -> Identity:
    d = Dataset()
    values = {"PatientID": "PID-4711", "PatientBirthDate": "19500102", "PatientSex": "F", "StudyDate": "20260301", "StudyTime": "101500",
              "StudyInstanceUID": "1.2.3", **change}
    for keyword, value in values.items():
        setattr(d, keyword, value)
    return identity_of(d, what)


def levels(check) -> dict[str, str]:
    return {f.item: f.level for f in check.findings}


def test_one_patient_passes():
    day = {"StudyDate": "20260303"}
    check = compare([patient("volume", PatientID=" pid-4711 "), patient("X-ray A", **day), patient("dose report", **day)])
    assert not check.blocked
    assert set(levels(check).values()) == {"ok"}
    check.require()


@pytest.mark.parametrize(("change", "item"), [
    ({"PatientID": "PID-4712"}, "patient id"), ({"PatientBirthDate": "19500103"}, "birth date"), ({"PatientSex": "M"}, "sex"),
])
def test_a_mismatch_blocks_until_confirmed_with_a_reason(change, item):
    check = compare([patient("volume"), patient("X-ray A", **change)])
    assert check.blocked
    assert levels(check)[item] == "block"
    with pytest.raises(FluoroGuideError, match=f"Volume and X-ray A have different values for {item}"):
        check.require()
    for reason in ("", "  ", "ok"):
        with pytest.raises(FluoroGuideError, match="reason in words"):
            check.confirmed(reason)
    with pytest.raises(FluoroGuideError, match="no such mismatch"):
        check.confirmed("the same person", items=["shoe size"])
    when = dt.datetime(2026, 3, 3, 9, 30, tzinfo=dt.UTC)
    passed = check.confirmed("Typing error in the RIS,\n corrected", person="interventionalist", time=when)
    assert not passed.blocked
    assert check.blocked  # the first is as it was
    assert passed.to_dict()["confirmations"] == [{
        "items": [item], "reason": "Typing error in the RIS, corrected", "person": "interventionalist", "time": "2026-03-03T09:30:00+00:00"}]


def test_other_issuers_and_anonymous_objects_are_not_compared():
    check = compare([patient("volume", IssuerOfPatientID="A"), patient("X-ray A", PatientID="77", IssuerOfPatientID="B")])
    assert levels(check)["patient id"] == "warn"
    check = compare([patient("volume"), patient("X-ray A", PatientID="ANONYMOUS", PatientBirthDate="", PatientSex="")])
    assert not check.blocked
    assert [levels(check)[k] for k in ("patient id", "birth date", "sex")] == ["warn"] * 3


def test_times():
    old = compare([patient("volume", StudyDate="20250101"), patient("X-ray A")])
    assert any("days older" in f.sentence for f in old.findings)
    new = compare([patient("volume", StudyDate="20260401"), patient("X-ray A")])
    assert any("newer" in f.sentence for f in new.findings)
    dose = compare([patient("X-ray A"), patient("dose report", StudyDate="20260201")])
    assert any("another day" in f.sentence for f in dose.findings)
    assert [c.blocked for c in (old, new, dose)] == [False] * 3


@pytest.mark.parametrize(("planned", "shown", "blocked"), [
    ("left", "R", True), ("left", "L", False), ("right", "L", True), ("right", "B", False), ("bilateral", "R", False),
    ("midline", "L", False), (None, "L", False),
])
def test_the_planned_side_is_the_images_side(planned, shown, blocked):
    check = compare([patient("volume"), patient("X-ray A", ImageLaterality=shown)], planned_side=planned)
    assert check.blocked is blocked
    if blocked:
        assert "side of X-ray A" in levels(check)
        assert check.confirmed("Wrong laterality tag, checked at the table").blocked is False


def volume(change: float = 0.0, dtype=np.int16) -> sitk.Image:
    voxels = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    voxels[1, 1, 1] += dtype(change)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.5, 0.5, 2.0))
    return image


def test_a_plan_knows_its_volume():
    same = VolumeStamp("1.2.3", volume_hash(volume()))
    assert volume_hash(volume(dtype=np.float32)) == same.content_hash
    assert volume_hash(volume(1)) != same.content_hash
    moved = volume()
    moved.SetOrigin((1, 0, 0))
    assert volume_hash(moved) != same.content_hash
    plan = json.loads(json.dumps({"targets": [], "volume_identity": same.to_dict()}))
    assert VolumeStamp.from_plan(plan) == same
    assert VolumeStamp.from_plan({}) is None
    people = [patient("volume"), patient("X-ray A")]
    assert not compare(people, plan_stamp=same, volume_stamp=same).blocked
    other = compare(people, plan_stamp=same, volume_stamp=VolumeStamp("9.9", volume_hash(volume(1))))
    assert "another volume" in other.blocking[0].sentence
    changed = compare(people, plan_stamp=same, volume_stamp=VolumeStamp("1.2.3", volume_hash(moved)))
    assert "changed since" in changed.blocking[0].sentence


def test_nothing_leaks(tmp_path, caplog):
    write_xa(tmp_path / "x.dcm", np.arange(100, dtype=np.uint8).reshape(10, 10), primary_deg=0, secondary_deg=0, sid_mm=1000, sod_mm=500,
             pixel_spacing_mm=(1, 1), patient_id="SECRET99", patient_name="Doe^Jane")
    identity = read_identity(tmp_path / "x.dcm", "X-ray A")
    check = compare([identity, patient("volume")])
    everything = repr(identity) + repr(check) + json.dumps(identity.to_dict()) + json.dumps(check.to_dict()) + caplog.text
    for word in ("secret99", "4711", "doe", "1950"):
        assert word not in everything.casefold()
    assert check.blocked
    # Another key, another digest; the same key, the same.
    assert digest("id", "x", b"a" * 32) != digest("id", "x", b"b" * 32)
    assert digest("id", "x", b"a" * 32) == digest("id", "x", b"a" * 32)
    assert digest("id", "x", b"a" * 32) != digest("birth", "x", b"a" * 32)


def test_files_that_are_not_dicom(tmp_path):
    (tmp_path / "v.nii").write_bytes(b"nothing")
    assert read_identity(tmp_path / "v.nii", "volume") == Identity("volume")
    with pytest.raises(FluoroGuideError, match="does not exist"):
        read_identity(tmp_path / "none", "volume")


def test_real_reports_have_identities(data_dir):
    found = read_identity(data_dir / "rdsr_fluoro" / "openrem" / "RF-RDSR-Siemens-Zee.dcm", "dose report")
    assert found.patient_id or found.study


@pytest.mark.parametrize(("x", "side"), [([40, 25], "left"), ([-40, -25], "right"), ([40, -25], ""), ([3], "")])
def test_side_of_targets(x, side):
    assert side_of_targets([(v + 5.0, 0, 0) for v in x], midline_x_mm=5.0) == side
