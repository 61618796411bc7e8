"""Opens a record wherever it was kept, and writes it as JSON, CSV, page and DICOM."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import FluoroGuideError
from ..planning.jsonfile import write_json
from .bundle import texts
from .journal import SUFFIX
from .privacy import without_identifiers
from .record import ProcedureRecord, read_record

FORMATS = ("json", "csv", "html", "dicom")


# ---- opening ------------------------------------------------------------------------------------------------------------
def open_record(path: str | Path) -> ProcedureRecord:
    """The record of a ``record.json``, a journal, a scene (``.mrb``) or a structured report of ours.

    Raises
    ------
    FluoroGuideError
        The file is missing or holds no record.
    """
    path = Path(path)
    if not path.is_file():
        raise FluoroGuideError("The record does not exist", path, "Check the path")
    if path.suffix == SUFFIX:
        from .keeper import recover

        return recover(path).record
    if zipfile.is_zipfile(path):
        return _from_scene(path)
    with path.open("rb") as file:
        if file.read(132)[128:] == b"DICM":
            return _from_report(path)
    return read_record(path)


def _from_scene(path: Path) -> ProcedureRecord:
    """The record in a scene file, without Slicer: text nodes are files of their own or attributes of the scene's XML."""
    from .keeper import records_in_text

    try:
        for _name, text in texts(path):
            for value in records_in_text(text):
                return ProcedureRecord.from_dict(value)
    except OSError:
        raise FluoroGuideError("The scene file is damaged", path.name, "Choose another copy") from None
    raise FluoroGuideError("The scene holds no procedure record", path.name, "Choose a scene in which a placement or a dose was recorded")


def _from_report(path: Path) -> ProcedureRecord:
    from ..imaging.dicom_file import open_dicom
    from .structured_report import record_in_report

    try:
        data = record_in_report(open_dicom(path, pixels=False).dataset)
    except FluoroGuideError:
        raise
    except Exception:  # pydicom decodes on access, and a damaged element may raise nearly anything there
        raise FluoroGuideError("The structured report is damaged", path.name, "Export it again") from None
    if not isinstance(data, dict):
        raise FluoroGuideError("The structured report is damaged", path.name, "Export it again")
    data["key_images"] = []  # they are DICOM images of their own, beside the report
    return ProcedureRecord.from_dict(data)


# ---- writing ------------------------------------------------------------------------------------------------------------
def export_record(
    record: ProcedureRecord, folder: str | Path, formats: Sequence[str] = FORMATS, *, identifiers: bool = False, words: Iterable[str] = (),
) -> list[Path]:
    """Write the record into ``folder`` (which exists); returns the files.

    ``json`` is ``record.json``; ``csv`` are ``placements.csv``, ``dose_events.csv`` and ``timeline.csv``; ``html`` is
    ``report.html``; ``dicom`` is ``report.sr.dcm`` with one image per key image.

    Parameters
    ----------
    identifiers
        Whether identifiers of the patient may leave; off: they are taken out, and pictures are masked unless clean or reviewed.
    words
        Known identifiers to take out wherever they stand.

    Raises
    ------
    FluoroGuideError
        An unknown format, or a file cannot be written.
    """
    strange = [f for f in formats if f not in FORMATS]
    if strange:
        raise FluoroGuideError("The export format is unknown", strange[0], "Use some of " + ", ".join(FORMATS))
    folder, words, written = Path(folder), list(words), []
    data = record.to_dict() if identifiers else without_identifiers(record.to_dict(), words)
    if "json" in formats:
        written.append(folder / "record.json")
        write_json(written[-1], data)
    if "csv" in formats:
        for name, rows in (("placements", placement_rows(data)), ("dose_events", dose_rows(data)), ("timeline", timeline_rows(data))):
            written.append(folder / f"{name}.csv")
            _write_text(written[-1], csv_text(rows))
    if "html" in formats:
        from .report import write_report

        written.append(folder / "report.html")
        write_report(written[-1], record, identifiers=identifiers, words=words)
    if "dicom" in formats:
        from .structured_report import write_structured_report

        written += write_structured_report(record, folder, identifiers=identifiers, words=words)
    return written


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise FluoroGuideError(f"{path.name} cannot be written", error.strerror, "Choose a folder that exists and has space") from None


def csv_text(rows: list[dict]) -> str:
    """Rows as CSV with a header; numbers in full, nothing for what is not told, text that a spreadsheet would run as a formula quoted."""
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: _cell(v) for k, v in row.items()})
    return stream.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def placement_rows(data: dict) -> list[dict]:
    """One row per needle: planned, achieved, deviation, uncertainty, circumstances."""
    rows = []
    for number, p in enumerate(data["placements"], 1):
        path, d = p["trajectory"], p["deviation"]
        row = {
            "number": number, "placement_id": p["placement_id"], "needle": path["name"], "gauge": path.get("gauge"),
            "needle_length_mm": path.get("needle_length_mm"),
        }
        points = {
            "planned_entry": path["entry_lps_mm"], "planned_target": path["target_lps_mm"], "tip": p["tip_lps_mm"], "offset": d["offset_lps_mm"],
        }
        for name, point in points.items():
            row |= {f"{name}_{axis}_mm": value for axis, value in zip("lps", point, strict=True)}
        row |= {f"axis_{axis}": value for axis, value in zip("lps", p["axis_lps"] or (None,) * 3, strict=True)}
        row |= {key: d.get(key) for key in ("tip_mm", "lateral_mm", "along_mm", "angle_deg", "entry_mm", "in_target", "probability_in_target")}
        row |= {
            key: p.get(key) for key in ("tip_error_95_mm", "axis_sigma_deg", "method", "registration_verdict", "approved_by", "approved_utc", "utc")
        }
        rows.append(row | {"views": "; ".join(p.get("views", [])), "warnings": "; ".join(p.get("warnings", []))})
    return rows


def dose_rows(data: dict) -> list[dict]:
    """One row per irradiation event, after one with the totals."""
    dose = data.get("dose")
    if not dose:
        return []
    total = {
        "kind": "total", "plane": None, "started": None, "dap_gy_m2": dose["dap_gy_m2"], "air_kerma_gy": dose["reference_air_kerma_gy"],
        "seconds": dose["fluoroscopy_seconds"], "pulses": dose.get("frames"), "kvp": None, "tube_current_ma": None, "primary_deg": None,
        "secondary_deg": None,
        "dap_correction": dose.get("dap_correction"), "corrected_dap_gy_m2": dose.get("corrected_dap_gy_m2"),
    }
    return [total, *({key: event.get(key) for key in total} for event in dose["events"])]


def timeline_rows(data: dict) -> list[dict]:
    """One row per event."""
    return [{"utc": e["utc"], "seconds": e["seconds"], "event": e["event"], "text": e.get("text", "")} for e in data["timeline"]]
