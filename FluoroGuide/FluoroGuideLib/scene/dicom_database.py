"""Slicer's DICOM database: patients, studies, series and images to choose from; nothing is found outside the application.

Only long-standing calls of ``ctkDICOMDatabase`` are used (``patients``, ``studiesForPatient``, ``seriesForStudy``, ``filesForSeries``,
``nameForPatient``, ``descriptionForStudy``, ``descriptionForSeries``, ``fileValue``, ``fileForInstance``, ``seriesForFile``, ``studyForSeries``);
none could be tried in a real database.  Their lists are tuples in Slicer.  Names of patients are shown to the user who chooses, and go nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UIDS = "DICOM.instanceUIDs"
XRAY_MODALITIES = ("XA", "RF", "DX", "CR")
MODALITY, STUDY_DATE, SERIES_NUMBER, INSTANCE_NUMBER, FRAMES = "0008,0060", "0008,0020", "0020,0011", "0020,0013", "0028,0008"


@dataclass(frozen=True)
class Choice:
    """One thing to choose: ``key`` is a UID of the database, or a file's path for an image; ``text`` is for people."""

    key: str
    text: str


def database() -> Any | None:
    """Slicer's DICOM database when it is open, else None."""
    import slicer

    found = getattr(slicer, "dicomDatabase", None)
    return found if found is not None and getattr(found, "isOpen", False) else None


# ---- choosing ---------------------------------------------------------------------------------------------------------
def patients() -> list[Choice]:
    """All patients, by name; none without a database."""
    found = database()
    listed = [] if found is None else [Choice(p, str(found.nameForPatient(p) or "").replace("^", " ").strip() or p) for p in list(found.patients())]
    return sorted(listed, key=lambda choice: choice.text.lower())


def studies(patient: str) -> list[Choice]:
    """A patient's studies, newest first, by date and description."""
    found = database()
    listed = []
    for study in list(found.studiesForPatient(patient)) if found is not None and patient else []:
        date = _value(found, next(iter(_files(found, study)), ""), STUDY_DATE)
        date = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 and date.isdigit() else date
        listed.append((date, Choice(study, " ".join(t for t in (date, str(found.descriptionForStudy(study) or "")) if t) or "study without a name")))
    return [choice for _date, choice in sorted(listed, key=lambda pair: (pair[0], pair[1].text), reverse=True)]


def series(study: str) -> list[Choice]:
    """The series of a study that hold X-ray images, by number."""
    found = database()
    listed = []
    for uid in list(found.seriesForStudy(study)) if found is not None and study else []:
        first = next(iter(list(found.filesForSeries(uid))), "")
        modality = _value(found, first, MODALITY)
        if modality in XRAY_MODALITIES:
            number = _value(found, first, SERIES_NUMBER)
            text = " ".join(t for t in (number, modality, str(found.descriptionForSeries(uid) or "")) if t)
            listed.append((_number(number), Choice(uid, text)))
    return [choice for _number_, choice in sorted(listed, key=lambda pair: (pair[0], pair[1].text))]


def images(uid: str) -> list[Choice]:
    """The images of a series, each one file, by number, with how many frames they have."""
    found = database()
    listed = []
    for path in list(found.filesForSeries(uid)) if found is not None and uid else []:
        number, frames = _value(found, path, INSTANCE_NUMBER), _number(_value(found, path, FRAMES))
        listed.append((_number(number), Choice(path, f"{number or '?'} ({frames} frames)" if frames > 1 else number or "?")))
    return [choice for _number_, choice in sorted(listed, key=lambda pair: (pair[0], pair[1].key))]


def _files(found: Any, study: str) -> list[str]:
    """A file of each series of a study."""
    return [path for uid in list(found.seriesForStudy(study)) for path in list(found.filesForSeries(uid))[:1]]


def _value(found: Any, path: str, tag: str) -> str:
    return str(found.fileValue(path, tag) or "").strip() if path else ""


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


# ---- dose -------------------------------------------------------------------------------------------------------------
def study_files(nodes: Sequence[Any], study: str = "") -> list[str]:
    """Files that may be dose reports (modality SR) of a study, or without one of the studies that ``nodes`` were loaded from."""
    found = database()
    if found is None:
        return []
    chosen = {study} if study else set()
    for node in nodes if not study else ():
        for uid in (node.GetAttribute(UIDS) or "").split()[:1]:
            chosen.add(found.studyForSeries(found.seriesForFile(found.fileForInstance(uid))))
    files: list[str] = []
    for one in sorted(s for s in chosen if s):
        for uid in list(found.seriesForStudy(one)):
            listed = list(found.filesForSeries(uid))
            if _value(found, next(iter(listed), ""), MODALITY) == "SR":
                files += listed
    return files
