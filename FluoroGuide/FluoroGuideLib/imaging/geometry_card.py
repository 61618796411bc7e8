"""The C-arm card: geometry given by a person (``geometry.json``), and how a picture is turned upright.

**Orientation of the picture.**  ``image_rotation_deg`` and ``horizontal_flip`` say what was done to the picture that
lies in the file, in DICOM's words and order (PS3.3 C.8.11.4, Field of View Rotation and Horizontal Flip): the upright
picture was first turned **clockwise** by ``image_rotation_deg``, then its left and right side were exchanged.
:class:`Orientation` undoes that: flip first, then turn counter-clockwise.  Pixel spacing and principal point of a card
are those of the picture **in the file**; they are carried along.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import PATIENT_POSITIONS

_DISTANCE_RANGE_MM = (100.0, 5000.0)
_NEXT = "Correct the value in the C-arm card (geometry.json)."


def read_geometry_card(path: str | Path) -> dict:
    """Read and check a ``geometry.json`` (keys: :data:`CARD_KEYS`).

    Raises
    ------
    FluoroGuideError
        No file, no JSON object, an unknown key, or a value that is not possible.
    """
    path = Path(path)
    if not path.is_file():
        raise FluoroGuideError("The C-arm card does not exist", path.name, "Check the path given with --geometry")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        raise FluoroGuideError("The C-arm card is not a JSON file", path.name, "Write it as in the tutorial's geometry.json") from None
    return check_card(card)


def check_card(card: object) -> dict:
    """A checked copy of a card: numbers as float, lists as tuples, nulls left out.

    Raises
    ------
    FluoroGuideError
        Naming the first key that is unknown or has an impossible value.
    """
    if not isinstance(card, dict):
        raise FluoroGuideError("The C-arm card is not an object with named values", type(card).__name__, "Write it as {\"key\": value, ...}")
    checked = {}
    for key, value in card.items():
        if key not in CARD_KEYS:
            raise FluoroGuideError("The C-arm card has an unknown key", key, "Use only: " + ", ".join(CARD_KEYS))
        if value is not None:
            checked[key] = CARD_KEYS[key](key, value)
    sid, sod = checked.get("source_to_detector_mm"), checked.get("source_to_isocenter_mm")
    if sid is not None and sod is not None and sid <= sod:
        both = f"source_to_detector_mm {sid:g}, source_to_isocenter_mm {sod:g}"
        raise FluoroGuideError("The detector would lie between source and isocentre", both, _NEXT)
    others = ", ".join(k for k in checked if k not in ("projection_matrix", "distortion", "carm"))
    if "projection_matrix" in checked and others:
        raise FluoroGuideError("The C-arm card has a projection_matrix and other geometry", others, "Keep one of the two; the matrix says it all")
    return checked


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:  # also integers no float can hold
        raise FluoroGuideError(f"The C-arm card's {key} is not a finite number", value, _NEXT)
    return float(value)


def _between(low: float, high: float):
    def check(key: str, value: object) -> float:
        number = _number(key, value)
        if not low <= number <= high:
            raise FluoroGuideError(f"The C-arm card's {key} must lie between {low:g} and {high:g}", value, _NEXT)
        return number
    return check


def _numbers(length: int, low: float, high: float):
    one = _between(low, high)

    def check(key: str, value: object) -> tuple[float, ...]:
        if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != length:
            raise FluoroGuideError(f"The C-arm card's {key} must be a list of {length} numbers", value, _NEXT)
        return tuple(one(key, v.item() if isinstance(v, np.generic) else v) for v in value)
    return check


def _one_of(*allowed: str):
    def check(key: str, value: object) -> str:
        if value not in allowed:
            raise FluoroGuideError(f"The C-arm card's {key} must be one of " + ", ".join(allowed), value, _NEXT)
        return str(value)
    return check


def _quarter_turn(key: str, value: object) -> int:
    number = _number(key, value)
    if number % 90:
        raise FluoroGuideError(f"The C-arm card's {key} must be a multiple of 90", value, "Turn the picture upright first for other angles")
    return int(number) % 360


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise FluoroGuideError(f"The C-arm card's {key} must be true or false", value, _NEXT)
    return value


def _matrix(key: str, value: object) -> np.ndarray:
    try:
        matrix = np.array(value, float)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
        raise FluoroGuideError(f"The C-arm card's {key} must be 3 rows of 4 finite numbers", f"shape {matrix.shape}", _NEXT)
    return matrix


def _distortion(key: str, value: object) -> object:
    from .distortion import Distortion

    try:
        found = value if isinstance(value, Distortion) else Distortion.from_dict(value)
        terms = (found.order + 1) * (found.order + 2) // 2
        fits = found.coefficients.shape == (2, terms) and np.isfinite(found.coefficients).all() and min(found.rows, found.columns) > 0
    except (TypeError, ValueError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise FluoroGuideError(f"The C-arm card's {key} is not what a measured distortion is written as", type(value).__name__, _NEXT)
    return found


_SPACING_RANGE_MM = (0.005, 20.0)
CARD_KEYS = {
    "source_to_detector_mm": _between(*_DISTANCE_RANGE_MM),
    "source_to_isocenter_mm": _between(*_DISTANCE_RANGE_MM),
    "primary_angle_deg": _between(-360, 360),
    "secondary_angle_deg": _between(-360, 360),
    "pixel_spacing_mm": _numbers(2, *_SPACING_RANGE_MM),
    "principal_point_px": _numbers(2, -1e5, 1e5),
    "angle_reference": _one_of("patient", "gantry"),
    "patient_position": _one_of(*PATIENT_POSITIONS),
    "image_rotation_deg": _quarter_turn,
    "horizontal_flip": _flag,
    "table_offset_mm": _numbers(3, -5000, 5000),
    "projection_matrix": _matrix,
    "distortion": _distortion,
    "carm": _one_of("fixed", "refine", "mobile"),
}
"""Keys of a C-arm card and the check of each; ``pixel_spacing_mm`` is [row, column], ``principal_point_px`` [column, row].

``distortion`` is :meth:`~.distortion.Distortion.to_dict`; pictures are corrected as they are read, before all else.
``carm`` says whether registration takes the geometry as given, refines it, or expects a mobile C-arm (``fluoroguide register --carm``)."""


@dataclass(frozen=True)
class Orientation:
    """How the picture in the file was turned; :meth:`upright` undoes it.

    Attributes
    ----------
    rotation_deg
        0, 90, 180 or 270: clockwise turn from the upright picture to the one in the file.
    flip
        Left and right were exchanged after that turn.
    """

    rotation_deg: int = 0
    flip: bool = False

    def turned_half(self) -> Orientation:
        """With a further half turn of the picture to undo (feet-first patients and gantry angles)."""
        return Orientation((self.rotation_deg + 180) % 360, self.flip)

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """The upright picture of one in the file; the last two axes are (rows, columns)."""
        if self.flip:
            pixels = pixels[..., ::-1]
        # np.rot90 turns counter-clockwise (row 0 at the top), which undoes a clockwise turn.
        return np.ascontiguousarray(np.rot90(pixels, self.rotation_deg // 90, axes=(-2, -1)))

    def upright_point(self, point_px: tuple[float, float], rows: int, columns: int) -> tuple[float, float]:
        """Where (column, row) of the file's picture (rows, columns) lies in the upright picture."""
        column, row = float(point_px[0]), float(point_px[1])
        if self.flip:
            column = columns - 1 - column
        for _ in range(self.rotation_deg // 90):  # a quarter turn counter-clockwise: the right side becomes the top
            column, row, rows, columns = row, columns - 1 - column, columns, rows
        return column, row

    def file_point(self, point_px: tuple[float, float], rows: int, columns: int) -> tuple[float, float]:
        """Where (column, row) of the upright picture (rows, columns) lies in the file's picture: undoes :meth:`upright_point`."""
        column, row = float(point_px[0]), float(point_px[1])
        for _ in range(self.rotation_deg // 90):  # a quarter turn clockwise: the top becomes the right side
            column, row, rows, columns = rows - 1 - row, column, columns, rows
        return (columns - 1 - column if self.flip else column), row

    def upright_pair(self, pair: tuple[float, float]) -> tuple[float, float]:
        """(row, column) values, such as the spacing or the size, of the upright picture."""
        return (pair[1], pair[0]) if self.rotation_deg % 180 else (pair[0], pair[1])
