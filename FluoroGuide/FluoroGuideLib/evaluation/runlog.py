"""Finished runs on disk: one line each as soon as it is known, so that a kill costs only what was in progress; then CSV and Parquet."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import FluoroGuideError
from ..planning.jsonfile import plain, read_json, write_json

COLUMNS: dict[str, type] = {
    "run": str, "subject": str, "scene": int, "start": int, "views": int, "case": str, "target": str, "apart_deg": float, "moved_mm": float,
    "start_mtre_mm": float, "start_rotation_deg": float, "mtre_mm": float, "mrpd_mm": float, "mtreproj_mm": float, "depth_mm": float,
    "target_error_mm": float, "predicted_error_mm": float, "probability": float, "similarity": float, "success": bool, "verdict": str,
    "reasons": str, "pose_error": str, "seconds": float, "cpu_seconds": float,
}
TIMES = ("seconds", "cpu_seconds")
"""Columns that differ from run to run even where the results are the same."""
NEEDS_PYARROW = "Parquet needs the package pyarrow (extra 'scale'): pip install 'pyarrow>=17'; the same table is in runs.csv"


class RunLog:
    """``study.json`` and ``runs.jsonl`` of one output folder.

    Raises
    ------
    FluoroGuideError
        The folder holds the runs of another study (other settings, data or code).
    """

    def __init__(self, folder: Path, study: dict, fresh: bool = False) -> None:
        self.folder, self.path, self.rows = folder, folder / "runs.jsonl", {}
        described = folder / "study.json"
        if fresh:
            self.path.unlink(missing_ok=True)
        elif self.path.is_file() and (rows := read_rows(self.path)):
            old = read_json(described, "study") if described.is_file() else None
            if not isinstance(old, dict) or old.get("key") != study["key"]:
                hint = "Choose another folder with --output, or --fresh to evaluate again"
                raise FluoroGuideError("The folder holds runs of other settings, data or code", folder.name, hint)
            self.rows = rows
            study = {**study, "begun": old.get("begun", study.get("begun"))}
        self.resumed = len(self.rows)
        write_json(described, plain(study))
        self._file = open(self.path, "ab")  # noqa: SIM115 - open as long as the study runs
        if self._file.tell() and not _ends_with_newline(self.path):
            self._file.write(b"\n")  # a kill cut the last line

    def add(self, row: dict) -> bool:
        """Put a finished run on disk; False when it was there already."""
        if row["run"] in self.rows:
            return False
        try:
            self._file.write(json.dumps(plain(row)).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise FluoroGuideError("The runs cannot be written", error.strerror, "Make space, then start the same command again") from None
        self.rows[row["run"]] = row
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def table(self) -> list[dict]:
        """All runs in the study's order, every column present."""
        return [{c: row.get(c) for c in COLUMNS} for row in sorted(self.rows.values(), key=lambda r: (r["subject"], -r["views"], r["start"]))]


def read_rows(path: Path) -> dict[str, dict]:
    """Finished runs of a ``runs.jsonl``; torn lines are left out, the first of two runs of one name counts."""
    rows: dict[str, dict] = {}
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if _is_run(row):
                rows.setdefault(row["run"], row)
    return rows


def _is_run(row: object) -> bool:
    """Whether every column has a value of its kind, or none where that may be."""
    if not isinstance(row, dict) or any(row.get(k) is None for k in ("run", "subject", "scene", "start", "views", "verdict")):
        return False
    allowed = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
    known = [(row.get(c), t) for c, t in COLUMNS.items() if row.get(c) is not None]
    return all(isinstance(v, allowed[t]) and (t is bool or not isinstance(v, bool)) and (t is not float or abs(v) < 1e300) for v, t in known)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def results_digest(table: Iterable[dict]) -> str:
    """Digest of all columns but times: equal for a serial run, a resumed one and one on a cluster."""
    digest = hashlib.sha256()
    for row in table:
        digest.update(json.dumps([row[c] for c in COLUMNS if c not in TIMES], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def write_csv(path: Path, table: list[dict]) -> None:
    """UTF-8 CSV with a header, written whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows({k: _cell(v) for k, v in row.items()} for row in table)
    os.replace(temporary, path)


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets a quote in front (CSV injection)."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") and not _number(value) else value


def _number(text: str) -> bool:
    try:
        [float(word) for word in text.split()]
    except ValueError:
        return False
    return True


def write_parquet(path: Path, table: list[dict], facts: dict) -> bool:
    """Parquet with typed columns and the study's facts as metadata; False where pyarrow is not installed."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return False
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(c, types[t]) for c, t in COLUMNS.items()], metadata={"fluoroguide": json.dumps(plain(facts))})
    columns = {c: [None if row[c] is None else t(row[c]) for row in table] for c, t in COLUMNS.items()}
    temporary = path.with_name(path.name + ".part")
    parquet.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")
    os.replace(temporary, path)
    return True
