"""The record's files and the reading of dose reports, in the worker: what takes a second must not hold the window up."""

from __future__ import annotations

import base64
from collections.abc import Callable

FORMATS = ("report", "record", "all")


def sent(record: object) -> dict:
    """A ``ProcedureRecord`` as arguments of :func:`write`; pictures go beside it as bytes, because they are most of it."""
    data, pictures = record.to_dict(), [image.png for image in record.key_images]
    data["key_images"] = [{**image, "png_base64": ""} for image in data["key_images"]]
    kept = []
    for entry in data.get("withdrawn", []):
        if "png_base64" in (entry.get("item") or {}):
            pictures.append(base64.b64decode(entry["item"]["png_base64"]))
            entry = {**entry, "item": {**entry["item"], "png_base64": ""}}
        kept.append(entry)
    return {"record": {**data, **({"withdrawn": kept} if kept else {})}, "pictures": pictures}


def _joined(record: dict, pictures: list) -> dict:
    """What :func:`sent` took apart."""
    left = iter(pictures)

    def whole(image: dict) -> dict:
        return {**image, "png_base64": base64.b64encode(bytes(next(left))).decode()}

    data = {**record, "key_images": [whole(image) for image in record["key_images"]]}
    if "withdrawn" in record:
        data["withdrawn"] = [{**w, "item": whole(w["item"])} if "png_base64" in (w.get("item") or {}) else w for w in record["withdrawn"]]
    return data


def write(*, record: dict, pictures: list, kind: str, path: str, identifiers: bool = False, progress: Callable, cancelled: Callable) -> list[str]:
    """Write a record (:func:`sent`): ``report`` (page) or ``record`` (JSON with all it holds) to the file ``path``, ``all`` into the folder ``path``.

    Returns
    -------
    list of str
        The files.  Each is whole or not there.

    Raises
    ------
    FluoroGuideError
        A file cannot be written.
    """
    from ..errors import CancelledError, FluoroGuideError
    from ..record.export import export_record
    from ..record.record import ProcedureRecord, write_record
    from ..record.report import write_report

    if kind not in FORMATS:
        raise FluoroGuideError("The kind of output is unknown", kind, "Use one of " + ", ".join(FORMATS))
    progress(0.05, "Preparing the record")
    whole = ProcedureRecord.from_dict(_joined(record, pictures))
    if kind == "report":
        progress(0.2, "Writing the report")
        write_report(path, whole, identifiers=identifiers)
        return [path]
    if kind == "record":
        progress(0.2, "Writing the record")
        write_record(path, whole)
        return [path]
    files: list[str] = []
    steps = (("json", "Writing the record"), ("csv", "Writing the tables"), ("html", "Writing the report"), ("dicom", "Writing the DICOM report"))
    for number, (form, text) in enumerate(steps):
        if cancelled():
            raise CancelledError()
        progress(0.1 + 0.85 * number / len(steps), text)
        files += [str(file) for file in export_record(whole, path, (form,), identifiers=identifiers)]
    return files


def dose(*, paths: list | str, reports_only: bool = False, progress: Callable, cancelled: Callable) -> object:
    """``record.dose.read_dose``; ``reports_only``: of these files only those that are dose reports, which must be some.

    Raises
    ------
    FluoroGuideError
        There is no dose in the files.
    """
    from ..errors import CancelledError, FluoroGuideError
    from ..record.dose import read_dose

    progress(0.0, "Reading the dose")
    if reports_only:
        found = []
        for number, path in enumerate(paths):
            if cancelled():
                raise CancelledError()
            progress(number / len(paths), "Looking for dose reports")
            if is_report(path):
                found.append(path)
        if not found:
            raise FluoroGuideError("There is no dose report in this study", f"{len(paths)} reports of other kinds", "Choose the dose report's file")
        paths = found
    return read_dose(paths)


def is_report(path: str) -> bool:
    """Whether a file is a DICOM dose report."""
    from ..imaging.dicom_file import open_dicom
    from ..record.rdsr import is_dose_report

    try:
        return bool(is_dose_report(open_dicom(path, pixels=False).dataset))  # bounded: a deflated file may promise to unpack to anything
    except Exception:  # pydicom raises many kinds for damaged files, and none of those is one
        return False


TASKS = {"record_write": write, "record_dose": dose}
