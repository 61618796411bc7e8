"""JSON files written whole or not at all, and read with errors a person understands."""

from __future__ import annotations

import json
import os
import tempfile
from math import isfinite
from pathlib import Path

from ..errors import FluoroGuideError


def write_json(path: str | Path, data: dict | list) -> None:
    """Write ``data`` as UTF-8 JSON; the old file stays until the new one is complete on disk.

    Raises
    ------
    FluoroGuideError
        The folder does not exist, the disk is full, or the data hold what JSON cannot say (NaN, arrays: see :func:`plain`).
    """
    path = Path(path)
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (ValueError, TypeError) as error:
        raise FluoroGuideError(f"{path.name} cannot be written as JSON", error) from None
    handle = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if handle is not None:
            Path(temporary).unlink(missing_ok=True)
        raise FluoroGuideError(f"{path.name} cannot be written", error.strerror, "Choose a folder that exists and has space") from None


def plain(value: object) -> object:
    """``value`` as JSON can hold it: numpy arrays and numbers become lists and numbers, NaN and infinity become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _umask() -> int:
    """The process's umask; mkstemp ignores it, and a file for colleagues must not be private by accident."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _whole(text: str) -> int | float:
    """An integer; infinity for one that no float can hold, so that every check for finite numbers refuses it."""
    return int(text) if len(text) < 300 else float(text)


def read_json(path: str | Path, what: str) -> object:
    """The content of a JSON file called ``what`` in messages ("plan", "targets file", ...).

    Raises
    ------
    FluoroGuideError
        The file is missing, is a folder, or is not JSON (line and column named).
    """
    path = Path(path)
    if not path.is_file():
        raise FluoroGuideError(f"The {what} does not exist", path, "Check the path")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_int=_whole)
    except json.JSONDecodeError as error:
        raise FluoroGuideError(f"The {what} is not JSON", f"{path.name}: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):  # not UTF-8, a number of thousands of digits, brackets without end
        raise FluoroGuideError(f"The {what} is not JSON", f"{path.name} is not a text file of that kind") from None
    except OSError as error:
        raise FluoroGuideError(f"The {what} cannot be read", f"{path.name}: {error.strerror}") from None


def take(data: dict, key: str, what: str) -> object:
    """``data[key]``; a :class:`FluoroGuideError` that names the key and the thing when it is missing."""
    if not isinstance(data, dict):
        raise FluoroGuideError(f"The {what} is not a JSON object", type(data).__name__)
    if key not in data:
        raise FluoroGuideError(f"The {what} lacks the key '{key}'", None, "Add it or write the file again with FluoroGuide")
    return data[key]


def check_header(data: object, what: str, tag: str, version: int) -> dict:
    """The object, after checking its ``format`` tag and integer ``version``.

    Raises
    ------
    FluoroGuideError
        Not an object, another format, or a version this program does not know.
    """
    found = take(data, "format", what)
    if found != tag:
        raise FluoroGuideError(f"This is not a {what}", f"format '{found}' instead of '{tag}'", "Choose another file")
    number = take(data, "version", what)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= version:
        raise FluoroGuideError(
            f"The {what} has a version this FluoroGuide cannot read", f"version {number}, known up to {version}", "Update FluoroGuide",
        )
    return data
