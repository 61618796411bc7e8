"""Hostile and damaged files that once ended in a traceback, a hang or gigabytes of memory (found by the proof ``fuzz_readers``)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from record_cases import record_with

from FluoroGuideLib.anatomy import volume_checks
from FluoroGuideLib.anatomy.attenuation import read_volume
from FluoroGuideLib.anatomy.mr_series import read_facts
from FluoroGuideLib.anatomy.segments import read_segmentation
from FluoroGuideLib.engine.record_tasks import is_report
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.rigid import read_tfm
from FluoroGuideLib.imaging import dicom_file
from FluoroGuideLib.imaging.geometry_card import check_card
from FluoroGuideLib.planning.plan import point_lps_mm, read_targets
from FluoroGuideLib.record import bundle
from FluoroGuideLib.record.dose import read_dose
from FluoroGuideLib.record.export import open_record
from FluoroGuideLib.record.journal import parse_journal
from FluoroGuideLib.record.keeper import apply_changes, saved_in
from FluoroGuideLib.record.record import ProcedureRecord


@pytest.fixture(scope="module")
def record() -> dict:
    return record_with(1).to_dict()


def zipped(path: Path, **members: bytes | str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


# ---- deflated DICOM --------------------------------------------------------------------------------------------------------
def deflated(path: Path, size: int) -> Path:
    """A DICOM file whose dataset, one private element, unpacks to ``size`` bytes and a patient's sex."""
    syntax = b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"
    body = b"\x08\0\x60\0CS\x02\0MR" + b"\x09\0\x10\x10OB\0\0" + struct.pack("<I", size) + bytes(size) + b"\x10\0\x40\0CS\x02\0F "
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(body) + packer.flush()
    path.write_bytes(bytes(128) + b"DICM\x02\0\0\0UL\x04\0" + struct.pack("<I", len(syntax)) + syntax + packed)
    return path


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(FluoroGuideError) as told:
        call()
    return str(told.value)


def test_deflate_bombs_among_volumes_and_reports_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 MB of nothing in 40 kB, where 1 MB is the limit: what Python holds meanwhile stays below 4 MB; a small deflated file is read."""
    monkeypatch.setattr(volume_checks, "MOST_UNPACKED", 1_000_000)
    monkeypatch.setattr(dicom_file, "MAX_HEADER_BYTES", 1_000_000)
    (tmp_path / "series").mkdir()
    bomb = deflated(tmp_path / "series" / "bomb.dcm", 40_000_000)
    assert bomb.stat().st_size < 50_000
    is_report(str(bomb)), read_facts(bomb)  # imports are not what is measured
    tracemalloc.start()
    try:
        assert read_facts(bomb) == {}
        assert is_report(str(bomb)) is False
        assert "not a readable DICOM file" in refused(lambda: read_dose(bomb))
        assert "damaged" in refused(lambda: read_volume(bomb.parent))
        assert "unpacks to more" in refused(lambda: read_volume(bomb))
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert read_facts(deflated(tmp_path / "small.dcm", 1000))["modality"] == "MR"


# ---- bundles ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "..\\out.txt", "a/../../out.txt", "C:\\out.txt", "C:out.txt"])
def test_names_that_leave_the_bundle_are_refused(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "x.mrb", **{name: "x"})
    with pytest.raises(FluoroGuideError, match="leads out of its folder"):
        bundle.check_bundle(path)
    assert not list(tmp_path.parent.glob("out.txt"))


def test_links_and_sizes_in_bundles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("a")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "l.mrb", "w") as file:
        file.writestr(link, "/etc")
    with pytest.raises(FluoroGuideError, match="leads out"):
        bundle.check_bundle(tmp_path / "l.mrb")
    monkeypatch.setattr(bundle, "MOST_BYTES", 1000)
    with pytest.raises(FluoroGuideError, match="more than can be held"):
        bundle.check_bundle(zipped(tmp_path / "b.mrb", a=b"0" * 2000))
    bundle.check_bundle(zipped(tmp_path / "g.mrb", **{"Data/a.nrrd": b"0" * 10, "scene.mrml": b"<MRML/>"}))
    with pytest.raises(FluoroGuideError, match="damaged"):
        bundle.check_bundle(Path(__file__))


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: dict) -> None:
    monkeypatch.setattr(bundle, "MOST_TEXT_BYTES", 3_000_000)
    path = zipped(tmp_path / "x.mrb", **{"bomb.txt": b"fluoroguide-record " * 400_000, "r.json": json.dumps(record)})
    assert open_record(path).record_id == record["record_id"]  # the rest is still read
    # a member that says it is small: what it unpacks to counts
    raw = bytearray(zipped(tmp_path / "y.mrb", **{"bomb.txt": b"fluoroguide-record " * 400_000}).read_bytes())
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = raw.index(mark) + at
        raw[place : place + 4] = struct.pack("<I", 10)
    (tmp_path / "y.mrb").write_bytes(raw)
    with pytest.raises(FluoroGuideError, match="holds no procedure record"):
        open_record(tmp_path / "y.mrb")


@pytest.mark.parametrize("scene", [
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><M><T v="fluoroguide-record">&x;</T></M>',
    '<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;">]><M><T v="fluoroguide-record">&b;</T></M>',
    '<M><T v="fluoroguide-record"', '<M v="fluoroguide-record [[[["/>', "fluoroguide-record " + "[" * 100_000,
])
def test_scenes_with_entities_or_damage_hold_no_record(tmp_path: Path, scene: str, record: dict) -> None:
    path = zipped(tmp_path / "x.mrb", **{"scene.mrml": scene})
    with pytest.raises(FluoroGuideError, match="holds no procedure record"):
        open_record(path)
    assert not saved_in(path, record)


def test_damaged_bundles_never_give_a_traceback(tmp_path: Path, record: dict) -> None:
    good = zipped(tmp_path / "x.mrb", **{"a/r.json": json.dumps(record), "scene.mrml": "<MRML/>"}).read_bytes()
    rng, path, told = np.random.default_rng(5), tmp_path / "y.mrb", 0
    for _ in range(150):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 6):
            data[int(place)] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            open_record(path)
        except FluoroGuideError:
            told += 1
    assert told > 20


# ---- records and journals ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("key", "value"), [
    ("timeline", [3]), ("timeline", [{"event": "x", "seconds": "soon"}]),
    ("registrations", [{"utc": "2026-01-01T00:00:00Z", "verdict": {}}]), ("pain", [{"when": {}}]),
    ("dose", {"planes": [{"plane": "A", "dap_gy_m2": []}]}), ("placements", [{"tip_lps_mm": [10**400, 0, 0]}]), ("notes", []), ("placements", {}),
])
def test_a_record_with_values_of_another_kind_is_refused(record: dict, key: str, value: object) -> None:
    with pytest.raises(FluoroGuideError):
        ProcedureRecord.from_dict({**record, key: value})


def test_values_out_of_range_do_not_lose_a_record(record: dict) -> None:
    data = json.loads(json.dumps(record))
    data["pain"][0]["score"] = -3
    assert ProcedureRecord.from_dict(data).pain[0]["score"] == -3


def line(event: dict) -> bytes:
    body = json.dumps(event).encode()
    return hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"


def test_events_with_impossible_numbers_are_damage() -> None:
    """A number of 10^12 made a list of all missing ones."""
    good = line({"record": "r", "n": 0, "event": "x", "data": {}})
    for n in (10**12, -1, True, 1.5, None, "0"):
        content = parse_journal(good + line({"record": "r", "n": n, "event": "x", "data": {}}))
        assert (len(content.events), content.damaged, content.missing) == (1, 1, ())
    assert parse_journal(good + line({"record": "r", "n": 1, "data": [1]})).damaged == 1
    body = b"[" * 100_000
    assert parse_journal(hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n").damaged == 1


@pytest.mark.parametrize("steps", [7, [7], [[]], [["set"]], [["set", "a"]], [["add", "a", 7]], [["set", ["a"], 1]], ["ab"]])
def test_changes_that_are_not_whole_are_told(steps: object) -> None:
    with pytest.raises(FluoroGuideError, match="not whole"):
        apply_changes({}, steps)


# ---- numbers and texts --------------------------------------------------------------------------------------------------------
def test_numbers_no_float_can_hold() -> None:
    with pytest.raises(FluoroGuideError, match="three finite numbers"):
        point_lps_mm([10**400, 0, 0], "The point")
    with pytest.raises(FluoroGuideError, match="finite number"):
        check_card({"source_to_detector_mm": 10**400})


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xff\xfe", b""])
def test_endless_json_is_told(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "t.json").write_bytes(text)
    with pytest.raises(FluoroGuideError, match="is not"):
        read_targets(tmp_path / "t.json")


def test_messages_stay_short_and_printable() -> None:
    long = str(FluoroGuideError("The name is wrong", "x" * 100_000 + "\n"))
    assert len(long) < 600
    strange = str(FluoroGuideError("The name is wrong", "a\x00b\u202ec\ud800\x1b[2J"))
    assert strange.isprintable()
    strange.encode("utf-8")
    assert "very long" in str(FluoroGuideError("The number is wrong", 10**9999))


# ---- volumes ------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def nifti(tmp_path: Path) -> bytes:
    image = sitk.GetImageFromArray(np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8))
    sitk.WriteImage(image, str(tmp_path / "v.nii"))
    return (tmp_path / "v.nii").read_bytes()


@pytest.mark.parametrize(("place", "value"), [(320, np.inf), (280, np.nan), (80, 1e30), (268, -np.inf)])
def test_nifti_geometry_that_is_no_number(tmp_path: Path, nifti: bytes, place: int, value: float) -> None:
    """An infinite element of the sform made ITK's singular value decomposition run for ever."""
    data = bytearray(nifti)
    data[place : place + 4] = np.float32(value).tobytes()
    (tmp_path / "v.nii").write_bytes(data)
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(bytes(data)))
    for name, read in (("v.nii", read_volume), ("v.nii.gz", read_volume), ("v.nii.gz", read_segmentation)):
        with pytest.raises(FluoroGuideError, match="geometry that is no number"):
            read(tmp_path / name)


def test_headers_that_promise_more_than_the_file_holds(tmp_path: Path, nifti: bytes) -> None:
    data = bytearray(nifti)
    data[42:48] = struct.pack("<3h", 1200, 1200, 1200)
    (tmp_path / "v.nii").write_bytes(data)
    for read in (read_volume, read_segmentation):
        with pytest.raises(FluoroGuideError, match="promises"):
            read(tmp_path / "v.nii")
    (tmp_path / "w.nii.gz").write_bytes(gzip.compress(nifti)[:-20])
    with pytest.raises(FluoroGuideError, match="damaged or incomplete"):
        read_volume(tmp_path / "w.nii.gz")


def test_detached_headers_are_still_read(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-100, 900, (30, 40, 50)).astype(np.int16))
    for name in ("v.mhd", "v.nhdr"):
        sitk.WriteImage(image, str(tmp_path / name))
        assert read_volume(tmp_path / name).GetSize() == (50, 40, 30)


def test_a_series_with_a_damaged_slice_is_refused_at_once(tmp_path: Path) -> None:
    """GDCM's own scan took 9 s and 3.5 GB over such a file."""
    pydicom = pytest.importorskip("pydicom")
    d = pydicom.Dataset()
    d.file_meta = pydicom.dataset.FileMetaDataset()
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    d.SeriesInstanceUID, d.ImageComments, d.Rows, d.Columns, d.BitsAllocated = "1.2.4", "x" * 20, 4, 4, 16
    buffer = io.BytesIO()
    d.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    place = data.index(b"\x20\x00\x00\x40") + 4  # the length of Image Comments (0020,4000)
    (tmp_path / "a.dcm").write_bytes(data[:place] + struct.pack("<I", 0xF0000000) + data[place + 4 :])
    with pytest.raises(FluoroGuideError, match="damaged"):
        read_volume(tmp_path)


def test_a_transform_with_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.tfm").write_bytes(b"#Insight Transform File V1.0\nTransform: \xff\xfe\x80_double_3_3\nParameters: 0\n")
    with pytest.raises(FluoroGuideError, match="not an ITK transform"):
        read_tfm(tmp_path / "p.tfm")


@pytest.mark.parametrize(
    "change", [{"required_views": None}, {"required_views": [{"name": "a", "primary_deg": 10**400}]}, {"level": float("inf")}, {"notes": 3}],
)
def test_plans_with_values_of_another_kind(change: dict) -> None:
    from record_cases import a_plan

    from FluoroGuideLib.planning.plan import Plan

    with pytest.raises(FluoroGuideError):
        Plan.from_dict({**a_plan(1).to_dict(), **change})


def test_axes_of_the_report_end_somewhere(record: dict) -> None:
    """Distances near the largest float made the plots' axes infinite."""
    from FluoroGuideLib.record.report import report_html

    data = json.loads(json.dumps(record))
    data["placements"][0]["deviation"] |= {"along_mm": 1e308, "offset_lps_mm": [1e200, 0, 1e200]}
    data["timeline"][0]["seconds"] = 1e308
    assert "<svg" in report_html(ProcedureRecord.from_dict(data))
    data["placements"][0]["deviation"]["offset_lps_mm"] = [10**400, 0, 0]
    with pytest.raises(FluoroGuideError):
        ProcedureRecord.from_dict(data)


@pytest.mark.parametrize(("old", "new"), [
    ("Euler3DTransform", "BSplineTransform"), ("Euler3DTransform", "AffineTransform"), ("_3_3", "_2_2"), ("Parameters: ", "Parameters: 1 "),
    ("#Insight", "#insight"), ("FixedParameters", "Parameters"), ("Transform: ", "Transform: x\nTransform: "), ("0.1", "nan"), ("0.1", "0.1x"),
])
def test_damaged_transforms_are_refused_before_itk_crashes(tmp_path: Path, old: str, new: str) -> None:
    """Wrong numbers of parameters ended the whole program (segmentation fault in ITK's reader)."""
    text = "#Insight Transform File V1.0\n#Transform 0\nTransform: Euler3DTransform_double_3_3\nParameters: 0.1 0.2 0.3 1 2 3\n"
    text += "FixedParameters: 0 0 0 0\n"
    path = tmp_path / "p.tfm"
    path.write_text(text)
    assert read_tfm(path)[:3, 3].tolist() == [1.0, 2.0, 3.0]
    path.write_text(text.replace(old, new))
    with pytest.raises(FluoroGuideError, match="not an ITK transform"):
        read_tfm(path)


def test_a_composite_of_rigid_transforms_is_still_read(tmp_path: Path) -> None:
    shift, turn = sitk.TranslationTransform(3, (1, 2, 3)), sitk.Euler3DTransform((0, 0, 0), 0, 0, np.pi / 2)
    for transform in (sitk.CompositeTransform([shift, turn]), sitk.VersorRigid3DTransform(), sitk.AffineTransform(3), sitk.Euler3DTransform()):
        sitk.WriteTransform(transform, str(tmp_path / "p.tfm"))
        expected = transform.TransformPoint((5.0, 6.0, 7.0))
        assert (read_tfm(tmp_path / "p.tfm") @ (5, 6, 7, 1))[:3] == pytest.approx(expected)
