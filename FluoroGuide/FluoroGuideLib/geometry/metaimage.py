"""MetaImage headers (.mha, .mhd): checked before ITK reads them, whose reader crashes for a number of dimensions that is none.

Found by the proof ``fuzz_readers``.  The format: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

from pathlib import Path

from ..errors import FluoroGuideError

SUFFIXES = (".mha", ".mhd")
_START = 20_000
_LARGEST = 1e7
_NUMBERS = {
    b"DimSize": 1, b"ElementSpacing": 1, b"ElementSize": 1, b"Offset": 1, b"Origin": 1, b"Position": 1, b"CenterOfRotation": 1,
    b"TransformMatrix": 2, b"Rotation": 2, b"Orientation": 2,
}
"""Lists of numbers in a header, and the power of the dimension that is their length."""


def check_metaimage(path: Path, what: str) -> None:
    """Raise :class:`FluoroGuideError` for a header whose dimensions or geometry are not numbers, or not as many as there must be.

    ``what`` names the file's role.  Files of other kinds pass.
    """
    if path.suffix.lower() not in SUFFIXES:
        return
    with path.open("rb") as file:
        sound = _is_sound(file.read(_START))
    if not sound:
        raise FluoroGuideError(f"The {what}'s header holds a geometry that is no number", path.name, "Export it again")


def _is_sound(start: bytes) -> bool:
    header = start.split(b"ElementDataFile", 1)[0]
    fields = [(key.strip(), value.split()) for key, sign, value in (line.partition(b"=") for line in header.splitlines()) if sign]
    dimensions = [value for key, value in fields if key == b"NDims"]
    if len(dimensions) != 1 or dimensions[0] not in ([b"2"], [b"3"], [b"4"]):
        return False
    count = int(dimensions[0][0])
    lists = [(numbers, count ** _NUMBERS[key]) for key, numbers in fields if key in _NUMBERS]
    return all(len(numbers) == wanted and all(_is_small(n) for n in numbers) for numbers, wanted in lists)


def _is_small(text: bytes) -> bool:
    """Whether a text is a number, neither infinite nor out of proportion."""
    try:
        return abs(float(text)) < _LARGEST
    except ValueError:
        return False
