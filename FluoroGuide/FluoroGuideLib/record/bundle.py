"""Reads members of a scene bundle (``.mrb``, a zip file) that may come from anywhere: nothing is unpacked to disk, sizes are bounded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import FluoroGuideError

TEXTS = (".txt", ".json", ".mrml")
MOST_TEXT_BYTES = 200_000_000
"""Of one text member; key images lie in records as text."""
MOST_BYTES = 20_000_000_000
"""Of a whole bundle, unpacked."""
MOST_MEMBERS = 100_000


def check_bundle(path: str | Path) -> None:
    """Raise when a bundle cannot be given to a program that unpacks it.

    Raises
    ------
    FluoroGuideError
        It is damaged, holds a name that leaves its folder (absolute, a drive, ``..``) or a link, or unpacks to more than :data:`MOST_BYTES`.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as bundle:
            members = bundle.infolist()
    except Exception:  # zipfile raises many kinds for damaged files
        raise FluoroGuideError("The scene file is damaged", path.name, "Choose another copy") from None
    for member in members:
        name = member.filename.replace("\\", "/")
        link = (member.external_attr >> 16) & 0o170000 == 0o120000
        if link or name.startswith("/") or ":" in name.split("/")[0] or ".." in PurePosixPath(name).parts or "\x00" in member.orig_filename:
            hint = "Do not open it; ask where it comes from"
            raise FluoroGuideError("The scene file holds a name that leads out of its folder", member.filename, hint)
    if len(members) > MOST_MEMBERS or sum(m.file_size for m in members) > MOST_BYTES:
        raise FluoroGuideError("The scene file unpacks to more than can be held", path.name, "Ask where it comes from")


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of the text members; damaged and oversized ones are left out.

    Raises
    ------
    OSError
        The file is not a readable zip file.
    """
    try:
        bundle = zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"no zip file: {type(error).__name__}") from None
    with bundle:
        for member in bundle.infolist()[:MOST_MEMBERS]:
            if member.filename.endswith(TEXTS) and member.file_size <= MOST_TEXT_BYTES:
                try:
                    with bundle.open(member) as file:
                        raw = file.read(MOST_TEXT_BYTES + 1)  # file_size is only what the bundle says
                except Exception:  # damaged, encrypted, or packed in a way that this Python does not know
                    continue
                if len(raw) <= MOST_TEXT_BYTES:
                    yield member.filename, raw.decode("utf-8", "replace")
