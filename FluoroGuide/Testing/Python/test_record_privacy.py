"""Planted identifiers are searched for in every output: JSON, CSV, page, DICOM, scene file, pixels."""

from __future__ import annotations

import dataclasses
import io
import stat
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from record_cases import a_picture, record_with

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.record.export import export_record
from FluoroGuideLib.record.key_images import KeyImage
from FluoroGuideLib.record.privacy import Scrubber, identifiers_of, installation_secret, masked_picture, patient_key, without_identifiers
from FluoroGuideLib.record.record import ProcedureRecord
from FluoroGuideLib.record.schema import problems

NAME, NUMBER, BIRTH, ACCESSION, UID = "DOEPLANTED^JANEPLANTED", "PID-998877", "19510203", "ACC445566", "1.2.826.0.1.3680043.8.498.771122.9"
PLANTED = ("doeplanted", "janeplanted", "998877", "19510203", "1951-02-03", "445566", "771122")
FOLDER = "/data/DOEPLANTED_JANEPLANTED/PID-998877/IM_0001.dcm"


def a_dataset() -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.AccessionNumber = NAME, NUMBER, BIRTH, ACCESSION
    dataset.StudyInstanceUID, dataset.SOPClassUID = UID, "1.2.840.10008.5.1.4.1.1.12.1"
    return dataset


def with_text(pixels: np.ndarray, text: str, at: tuple[int, int], size: int = 18) -> tuple[np.ndarray, np.ndarray]:
    """A picture with burned-in white text, and where its strokes are."""
    picture, strokes = Image.fromarray(pixels), Image.new("L", pixels.shape[::-1])
    for target, colour in ((picture, 255), (strokes, 255)):
        ImageDraw.Draw(target).text(at, text, fill=colour, font=ImageFont.load_default(size))
    return np.asarray(picture).copy(), np.asarray(strokes) > 128


def a_screen() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a frame grabber sees: a round field on black, the name beside it and a label inside it; and both masks of strokes."""
    rows, columns = np.mgrid[:480, :640]
    field = (rows - 240) ** 2 + (columns - 320) ** 2 < 200**2
    pixels = np.where(field, a_picture(3, (480, 640)), 0).astype(np.uint8)
    pixels, border = with_text(pixels, "DOEPLANTED JANEPLANTED", (5, 6))
    return *with_text(pixels, "PID-998877", (260, 300)), border


def planted_record():
    record = record_with(2, "DOEPLANTED")
    record.patient = {"name": NAME, "id": NUMBER, "birth_date": "1951-02-03", "accession_number": ACCESSION, "study_instance_uid": UID}
    record.plan = dataclasses.replace(record.plan, volume_name=f"4: CT {NAME}", notes=f"see {FOLDER}")
    record.notes = f"Mrs. Janeplanted Doeplanted, born 03.02.1951 or 1951-02-03, {NUMBER}, study {UID}, file {FOLDER}"
    record.views[0]["name"] = Path(FOLDER).name.replace("IM_0001", "DOEPLANTED_998877")
    record.equipment = f"C-arm at C:\\images\\{NUMBER}\\run"
    record.add_contrast("iohexol", 1.0, note=f"order {ACCESSION}")
    record.log("x-ray", FOLDER)
    screen, _, _ = a_screen()
    record.add_key_image(KeyImage.of_pixels(f"grab {NAME}", screen, burned_in="yes", caption=NUMBER))
    record.registrations[0]["loaded_from"] = FOLDER
    return record


def found_in(raw: bytes) -> list[str]:
    """Planted identifiers in bytes, whatever encoding and case."""
    text = raw.decode("latin-1").lower()
    wide = raw.decode("utf-16-le", "ignore").lower()
    return [w for w in PLANTED if w in text or w in wide]


def visibility(pixels: np.ndarray, strokes: np.ndarray) -> float:
    """How strongly the strokes stand out: correlation of pixels with strokes in their surroundings (1: perfectly legible)."""
    r, c = np.nonzero(strokes)
    box = np.s_[max(r.min() - 3, 0): r.max() + 4, max(c.min() - 3, 0): c.max() + 4]
    a, b = pixels[box].astype(float), strokes[box].astype(float)
    return 0.0 if a.std() < 1e-9 else float(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]))


def test_no_output_names_the_patient(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    record = planted_record()
    files = export_record(record, tmp_path)
    assert {p.suffix for p in files} == {".json", ".csv", ".html", ".dcm"}
    for path in files:
        assert not found_in(path.read_bytes()), path.name
        assert not found_in(path.name.encode())
    report = pydicom.dcmread(tmp_path / "report.sr.dcm")
    assert report.PatientID == record.patient_key
    assert str(report.PatientName) == ""
    assert report.StudyInstanceUID != UID
    # The procedure itself is still told.
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert "triamcinolone" in text
    assert record.record_id in text
    assert "joint 1" in text


def test_identifiers_leave_when_asked(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    export_record(planted_record(), tmp_path, identifiers=True)
    for name in ("record.json", "report.html", "report.sr.dcm", "key_image_01.dcm"):
        assert NUMBER.encode() in (tmp_path / name).read_bytes(), name
    report = pydicom.dcmread(tmp_path / "report.sr.dcm")
    assert (report.PatientName, report.PatientID, report.PatientBirthDate, report.StudyInstanceUID) == (NAME, NUMBER, BIRTH, UID)
    assert report.PatientIdentityRemoved == "NO"


def test_frame_grabber_pictures_leave_masked_unless_reviewed(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    screen, inner, border = a_screen()
    assert min(visibility(screen, inner), visibility(screen, border)) > 0.6  # the measure sees what is planted
    record = record_with(1)
    record.key_images = [KeyImage.of_pixels("grab", screen, burned_in=b) for b in ("yes", "unknown")]
    record.key_images += [KeyImage.of_pixels("seen", screen, burned_in="yes", reviewed=True), KeyImage.of_pixels("clean", screen, burned_in="no")]
    export_record(record, tmp_path, ("dicom", "json"))
    left = [pydicom.dcmread(tmp_path / f"key_image_{k:02d}.dcm") for k in (1, 2, 3, 4)]
    for dataset in left[:2]:
        assert max(visibility(dataset.pixel_array, inner), visibility(dataset.pixel_array, border)) < 0.15
        assert dataset.BurnedInAnnotation == "NO"
    for dataset in left[2:]:
        assert np.array_equal(dataset.pixel_array, screen)
    assert [d.BurnedInAnnotation for d in left[2:]] == ["YES", "NO"]
    assert record.key_images[0].pixels().tobytes() == screen.tobytes()  # the record itself keeps the picture
    anatomy = (slice(100, 200), slice(250, 400))  # far from text: the picture is still one
    assert np.abs(left[0].pixel_array[anatomy].astype(int) - screen[anatomy]).mean() < 1.0


@pytest.mark.parametrize("size", [12, 16, 40, 60])
@pytest.mark.parametrize("colour", ["bright", "dark", "colour"])
def test_text_goes_whatever_its_colour_and_size(colour: str, size: int) -> None:
    pixels, strokes = with_text(a_picture(4, (300, 400)), "JANE DOE"[: 8 if size < 60 else 4], (120, 140), size)
    if colour == "dark":
        pixels = np.where(strokes, 0, np.maximum(a_picture(4, (300, 400)), 90)).astype(np.uint8)
    if colour == "colour":
        grey = a_picture(4, (300, 400))
        pixels = np.dstack([np.where(strokes, 255, grey), grey, np.where(strokes, 0, grey)]).astype(np.uint8)
    masked = masked_picture(pixels, np.ones((300, 400), bool))
    flat = masked if masked.ndim == 2 else masked[..., 0]
    assert visibility(pixels if pixels.ndim == 2 else pixels[..., 0], strokes) > 0.5
    assert visibility(flat, strokes) < 0.15


def test_words_are_found_however_they_are_written() -> None:
    words = identifiers_of(a_dataset())
    assert {NAME, NUMBER, BIRTH, ACCESSION, UID} <= words
    assert "1.2.840.10008.5.1.4.1.1.12.1" not in words  # a class, not an instance
    scrub = Scrubber(words).text
    for text in ("Doeplanted, Janeplanted", "doeplanted_janeplanted.dcm", "JANEPLANTED", "born 03.02.1951", "pid 998877", NUMBER, UID):
        assert not found_in(scrub(text).encode()), text
    assert scrub('"/a/b/c d/e.nrrd" C:\\x\\y file:///a/b (/q/r/s)') == '"[removed] [removed]" [removed] [removed] ([removed])'
    clean = "0.1 mg/kg/h, Tip 1.2 mm left at L4/L5, 22G, dose 0.5 Gy.cm2, version 1.2.3, 10:15, 40 mg/ml, and/or, AP/lateral, view 1"
    assert scrub(clean) == clean
    assert scrub("ID 4998877001") == "ID 4998877001"  # another number that holds the digits by chance


def test_without_identifiers_leaves_a_clean_record_as_it_is() -> None:
    data = record_with(2).to_dict()
    cleaned = without_identifiers(data)
    assert cleaned["plan"].pop("volume_name") == "Volume"
    data["plan"].pop("volume_name")
    assert cleaned == data


def test_a_patient_named_like_a_word_of_the_schema_breaks_nothing() -> None:
    data = without_identifiers(record_with(2).to_dict(), ["Left^Pass", "notes", "manual", "fluoroscopy", "ct", "record"])
    assert problems(data) == []
    assert data["laterality"] == "left"
    assert ProcedureRecord.from_dict(data).to_dict() == data


def test_pseudonyms_need_the_installation_s_secret(tmp_path: Path) -> None:
    import hashlib
    import hmac

    secret = installation_secret(tmp_path)
    assert installation_secret(tmp_path) == secret
    assert len(secret) == 32
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    other = installation_secret(tmp_path / "other")
    assert other != secret
    key = patient_key(" 123 ", "Hospital", secret=secret)
    # HMAC-SHA-256 of issuer, unit separator, id: written out.
    assert key == "FG-" + hmac.new(secret, b"Hospital\x1f123", hashlib.sha256).hexdigest()[:24]
    assert key != patient_key("123", "Hospital", secret=other)
    assert key != patient_key("123", "Other", secret=secret)
    with pytest.raises(FluoroGuideError, match="no id"):
        patient_key("  ", secret=secret)
    (tmp_path / "secret.key").write_bytes(b"short")
    with pytest.raises(FluoroGuideError, match="secret is damaged"):
        installation_secret(tmp_path)


# ---- the scene ------------------------------------------------------------------------------------------------------------
def test_scene_file_names_nobody(tmp_path: Path) -> None:
    """The .mrb, unzipped: names, attributes, subject hierarchy, files, texts, pixels; the scene is as before afterwards."""
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    import slicer
    from test_scene_case import a_case, an_image

    from FluoroGuideLib.geometry.carm import CArmView
    from FluoroGuideLib.scene import case, host, nodes
    from FluoroGuideLib.scene.journal_nodes import build_record, read_record
    from FluoroGuideLib.scene.private_save import save_without_identifiers

    a_host = host.start()
    a_host.scene.Clear(0)
    screen, inner, border = a_screen()
    view = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=600, rows=480, columns=640, pixel_spacing_mm=(0.4, 0.4))
    mask = np.zeros(screen.shape, bool)
    mask[60:420, 140:500] = True
    image = dataclasses.replace(an_image(view), pixels=screen.astype(np.float32), mask=mask, source=FOLDER, facts={"station": NUMBER})
    made = case.build(a_host, a_case(images=[image], overlays={}))
    record = planted_record()
    build_record(a_host, record)
    made.volume.SetName(f"4: CT {NAME}")
    made.volume.SetAttribute("DICOM.instanceUIDs", UID)
    made.volume.SetDescription(f"from {FOLDER}")
    loose = a_host.scene.AddNewNodeByClass("vtkMRMLTextNode", f"note {NAME}")
    loose.SetText(f"secret {NUMBER}")
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(a_host.scene)
    patient = tree.CreateSubjectItem(tree.GetSceneItemID(), NAME)
    study = tree.CreateStudyItem(patient, f"study {ACCESSION}")
    for item, name, value in (
        (patient, "DICOM.PatientID", NUMBER), (patient, "DICOM.PatientBirthDate", BIRTH), (study, "DICOM.AccessionNumber", ACCESSION),
    ):
        tree.SetItemAttribute(item, name, value)
    tree.SetItemUID(study, "DICOM", UID)

    open_path = case.save_mrb(a_host, tmp_path / "open.mrb")
    assert found_in_bundle(open_path)  # the search can find
    before = scene_state(a_host, tree)
    path = save_without_identifiers(a_host, tmp_path / "private.mrb", ())
    assert found_in_bundle(path) == []
    assert scene_state(a_host, tree) == before

    a_host.scene.Clear(0)
    back = case.load_mrb(a_host, path)
    pixels = slicer.util.arrayFromVolume(nodes.find(a_host, "xray", "0"))[0]
    assert visibility(pixels, inner) < 0.15
    assert visibility(pixels, border) < 0.15
    assert np.allclose(pixels[100:200, 250:400], screen[100:200, 250:400])
    again = read_record(a_host)
    assert [p.deviation for p in again.placements] == [p.deviation for p in record.placements]
    assert back["registration"].pose.tolist() == a_case().registration.pose.tolist()

    a_host.scene.Clear(0)


def scene_state(a_host, tree) -> list:
    import vtk

    state = []
    for i in range(a_host.scene.GetNumberOfNodes()):
        node = a_host.scene.GetNthNode(i)
        attributes = {n: node.GetAttribute(n) for n in node.GetAttributeNames() or ()}
        text = node.GetText() if node.IsA("vtkMRMLTextNode") else node.GetImageData().GetScalarRange() if node.IsA("vtkMRMLVolumeNode") else None
        state.append((node.GetID(), node.GetName(), node.GetDescription(), node.GetSaveWithScene(), attributes, text))
    ids = vtk.vtkIdList()
    tree.GetItemChildren(tree.GetSceneItemID(), ids, True)
    for k in range(ids.GetNumberOfIds()):
        item = ids.GetId(k)
        names = {n: tree.GetItemAttribute(item, n) for n in tree.GetItemAttributeNames(item)}
        state.append((tree.GetItemName(item), tree.GetItemUID(item, "DICOM"), names))
    return state


def found_in_bundle(path: Path) -> list[tuple[str, list[str]]]:
    """Planted identifiers in a scene file: names of its files, their bytes, and compressed NRRD headers and data."""
    import gzip

    hits = []
    with zipfile.ZipFile(path) as bundle:
        for name in bundle.namelist():
            raw = bundle.read(name)
            pieces = [name.encode(), raw]
            if name.endswith(".nrrd") and b"gzip" in raw[:2000]:
                pieces.append(gzip.GzipFile(fileobj=io.BytesIO(raw[raw.index(b"\n\n") + 2:])).read())
            hits += [(name, words) for piece in pieces if (words := found_in(piece))]
    return hits
