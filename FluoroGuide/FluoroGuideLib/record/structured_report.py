"""The record as DICOM: a Comprehensive 3D SR (TID 1500), with its key images as Secondary Capture images.

Numbers are NUM items with codes of SCT, DCM and UCUM where those exist, else of the private scheme ``99FLUOROGUIDE``; each carries
the full double as Floating Point Value.  The whole record follows as JSON in one text item, so that nothing is lost.  Identity
is pseudonymous unless asked.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import FluoroGuideError
from .privacy import without_identifiers

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from .record import ProcedureRecord

SCHEME = "99FLUOROGUIDE"
JSON_CODE = ("FG100", "FluoroGuide record as JSON")
MANUFACTURER = "FluoroGuide developers"


def uid_of(*parts: str) -> str:
    """A UID (2.25) that is the same for the same parts and tells nothing about them."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(('fluoroguide', *parts))).int}"


def write_structured_report(record: ProcedureRecord, folder: str | Path, *, identifiers: bool = False, words: Iterable[str] = ()) -> list[Path]:
    """Write ``report.sr.dcm`` and one Secondary Capture per key image into ``folder``; returns the files, the report first.

    Parameters
    ----------
    identifiers
        Whether the patient's identifiers of the record are written (when it has any).
    words
        Known identifiers to remove when they are not.

    Raises
    ------
    FluoroGuideError
        highdicom is not installed, or a file cannot be written.
    """
    report, images = structured_report(record, identifiers=identifiers, words=words)
    folder = Path(folder)
    paths = [folder / "report.sr.dcm", *(folder / f"key_image_{k + 1:02d}.dcm" for k in range(len(images)))]
    for path, dataset in zip(paths, [report, *images], strict=True):
        try:
            dataset.save_as(path, enforce_file_format=True)
        except OSError as error:
            raise FluoroGuideError("The DICOM file cannot be written", f"{path.name}: {error.strerror}", "Choose a folder that exists") from None
    return paths


def structured_report(record: ProcedureRecord, *, identifiers: bool = False, words: Iterable[str] = ()) -> tuple[Dataset, list[Dataset]]:
    """The report and its key images as data sets (see :func:`write_structured_report`)."""
    try:
        import highdicom as hd
    except ImportError:
        raise FluoroGuideError("DICOM reports need the package highdicom", None, "Install it: pip install highdicom") from None
    from .sr_content import document

    data = record.to_dict() if identifiers else without_identifiers(record.to_dict(), words)
    identity = _identity(data, identifiers)
    images = [_secondary_capture(image, k, identity, data) for k, image in enumerate(data["key_images"])]
    began = _time_of(data["created_utc"])
    report = hd.sr.Comprehensive3DSR(
        evidence=images or [_placeholder(identity)], content=document(data, images, uid_of)[0],
        series_instance_uid=uid_of(data["record_id"], "sr series"),
        series_number=900, sop_instance_uid=uid_of(data["record_id"], "sr", _digest(data)), instance_number=1, manufacturer=MANUFACTURER,
        is_complete=True, is_final=False, is_verified=False, series_description="FluoroGuide procedure record",
        content_date=began.date(), content_time=began.time(), manufacturer_model_name="FluoroGuide",
        software_versions=data["software"].get("version") or __version__, device_serial_number="0",
    )
    _complete(report, data, identity, bool(images))
    return report, images


def _complete(report: Dataset, data: dict, identity: dict, has_images: bool) -> None:
    """What highdicom leaves open."""
    from pydicom.dataset import Dataset

    if not has_images and "CurrentRequestedProcedureEvidenceSequence" in report:
        del report.CurrentRequestedProcedureEvidenceSequence  # the placeholder stands for no image
    report.SeriesDate, report.SeriesTime = report.ContentDate, report.ContentTime
    report.TimezoneOffsetFromUTC = "+0000"
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName, scheme.CodingSchemeResponsibleOrganization = SCHEME, "FluoroGuide codes", MANUFACTURER
    scheme.CodingSchemeUID = uid_of("coding scheme")
    report.CodingSchemeIdentificationSequence = [*report.get("CodingSchemeIdentificationSequence", []), scheme]
    report.PatientIdentityRemoved = "NO" if identity["identified"] else "YES"
    if not identity["identified"]:
        report.DeidentificationMethod = "FluoroGuide: written without identifiers"
    report.ContentSequence.append(_text_item(JSON_CODE, json.dumps(without_pictures(data), ensure_ascii=False, allow_nan=False)))


def without_pictures(data: dict) -> dict:
    """The record's data without the pixels of key images (they are DICOM objects of their own)."""
    from .withdrawal import without_pictures as told

    images = [{k: v for k, v in image.items() if k != "png_base64"} for image in data["key_images"]]
    return {**data, "key_images": images, **({"withdrawn": told(data["withdrawn"])} if data.get("withdrawn") else {})}


def record_in_report(dataset: Dataset) -> dict:
    """The record's plain data in a report of ours; key images without pixels.

    Raises
    ------
    FluoroGuideError
        The report is not one of FluoroGuide.
    """
    for item in dataset.get("ContentSequence") or []:
        names = item.get("ConceptNameCodeSequence")
        if names and names[0].get("CodingSchemeDesignator") == SCHEME and names[0].get("CodeValue") == JSON_CODE[0]:
            return json.loads(item.TextValue)
    raise FluoroGuideError("The structured report holds no FluoroGuide record", dataset.get("Modality"), "Choose report.sr.dcm of an export")


def _digest(data: dict) -> str:
    from .keeper import state_mark

    return state_mark(data)


def _time_of(utc: str) -> datetime:
    return datetime.fromisoformat(utc.replace("Z", "+00:00")).replace(tzinfo=None)


# ---- identity -----------------------------------------------------------------------------------------------------------
def _identity(data: dict, identifiers: bool) -> dict[str, Any]:
    """Patient and study attributes: from the record when asked, else pseudonymous."""
    patient = (data.get("patient") or {}) if identifiers else {}
    began = _time_of(data["created_utc"])
    return {
        "identified": bool(patient), "PatientName": patient.get("name") or "",
        "PatientID": patient.get("id") or data.get("patient_key") or "FG-" + data["record_id"][:8],
        "PatientBirthDate": (patient.get("birth_date") or "").replace("-", ""), "PatientSex": patient.get("sex") or "",
        "StudyInstanceUID": patient.get("study_instance_uid") or uid_of(data["record_id"], "study"), "StudyDate": began.strftime("%Y%m%d"),
        "StudyTime": began.strftime("%H%M%S"), "StudyID": "FG", "AccessionNumber": patient.get("accession_number") or "",
        "ReferringPhysicianName": "",
    }


def _placeholder(identity: dict) -> Dataset:
    """Stands for the images when there are none: highdicom takes patient and study from an image."""
    from pydicom.dataset import Dataset
    from pydicom.uid import SecondaryCaptureImageStorage

    dataset = Dataset()
    for key, value in identity.items():
        if key != "identified":
            setattr(dataset, key, value)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = SecondaryCaptureImageStorage, uid_of("none"), uid_of("none", "series")
    dataset.Modality = "OT"
    dataset.Rows = dataset.Columns = 1
    return dataset


def _secondary_capture(image: dict, index: int, identity: dict, data: dict) -> Dataset:
    """A key image as a Secondary Capture image of the report's study."""
    import highdicom as hd

    from .key_images import KeyImage

    picture = KeyImage.from_dict(image)
    pixels = picture.pixels()
    taken = _time_of(image.get("utc") or data["created_utc"])
    capture = hd.sc.SCImage(
        pixel_array=pixels, photometric_interpretation="MONOCHROME2" if pixels.ndim == 2 else "RGB", bits_allocated=8, coordinate_system="PATIENT",
        study_instance_uid=identity["StudyInstanceUID"], series_instance_uid=uid_of(data["record_id"], "key images"),
        series_number=901, sop_instance_uid=uid_of(data["record_id"], image["image_id"], image["sha256"]), instance_number=index + 1,
        manufacturer=MANUFACTURER, patient_id=identity["PatientID"], patient_name=identity["PatientName"] or None,
        patient_birth_date=identity["PatientBirthDate"] or None, patient_sex=identity["PatientSex"] or None, study_id=identity["StudyID"],
        study_date=_time_of(data["created_utc"]).date(), study_time=_time_of(data["created_utc"]).time().replace(microsecond=0),
        accession_number=identity["AccessionNumber"] or None, patient_orientation=("L", "F"), series_description="Key images",
        manufacturer_model_name="FluoroGuide", software_versions=data["software"].get("version") or __version__,
    )
    capture.SeriesDate, capture.SeriesTime = taken.strftime("%Y%m%d"), taken.strftime("%H%M%S")
    capture.TimezoneOffsetFromUTC = "+0000"
    capture.PatientOrientation = ""  # a picture of a screen: which way it shows the patient is not told
    capture.Laterality = {"left": "L", "right": "R"}.get(data.get("laterality") or "", "")
    capture.ImageComments = (image.get("caption") or image["name"])[:10240]
    # A reviewed picture may hold text that a person judged harmless: that is not "NO".
    clean = image["burned_in"] == "no" or image["masked"]
    capture.BurnedInAnnotation = "NO" if clean else "YES"
    return capture


# ---- items --------------------------------------------------------------------------------------------------------------
def _text_item(code: tuple[str, str], text: str) -> Dataset:
    from highdicom.sr import CodedConcept, TextContentItem
    from highdicom.sr.enum import RelationshipTypeValues

    return TextContentItem(name=CodedConcept(code[0], SCHEME, code[1]), value=text, relationship_type=RelationshipTypeValues.CONTAINS)
