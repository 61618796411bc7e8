"""Files in Slicer's DICOM database; nothing is found outside the application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UIDS = "DICOM.instanceUIDs"


def database() -> Any | None:
    """Slicer's DICOM database when it is open, else None."""
    import slicer

    found = getattr(slicer, "dicomDatabase", None)
    return found if found is not None and getattr(found, "isOpen", False) else None


def dose_files(nodes: Sequence[Any]) -> list[str]:
    """Dose reports (modality SR with a dose report's class) of the studies that these nodes were loaded from."""
    from ..record.rdsr import is_dose_report

    found = database()
    if found is None:
        return []
    studies = set()
    for node in nodes:
        for uid in (node.GetAttribute(UIDS) or "").split()[:1]:
            series = found.seriesForFile(found.fileForInstance(uid))
            studies.add(found.studyForSeries(series))
    files = []
    for study in sorted(s for s in studies if s):
        for series in found.seriesForStudy(study):
            files += [f for f in found.filesForSeries(series) if _is_report(f, is_dose_report)]
    return files


def _is_report(path: str, is_dose_report: Any) -> bool:
    import pydicom

    try:
        return bool(is_dose_report(pydicom.dcmread(path, stop_before_pixels=True)))
    except (OSError, pydicom.errors.InvalidDicomError):
        return False
