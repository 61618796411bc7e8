"""Values of DICOM elements read without trust, and one quantity of the geometry with where it came from."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from dataclasses import dataclass

ORIGINS = ("tag", "derived", "default", "given by the user", "missing")
"""From a tag; computed from other tags or from the definition of the object; taken for granted; from the C-arm card; unknown."""


@dataclass(frozen=True)
class Quantity:
    """One quantity of the geometry.

    Attributes
    ----------
    name
        Key of the C-arm card (``"source_to_detector_mm"``, ...).
    label
        The name for people with its tag, e.g. ``"SID (0018,1110)"``.
    value
        Number, tuple or text; ``None`` when missing.
    unit
        ``"mm"``, ``"deg"``, ``"px"`` or ``""``.
    origin
        One of :data:`ORIGINS`.
    note
        How it was derived or what is odd about it; empty otherwise.
    needed
        Without it there is no view.
    per_frame
        The values of all frames when they differ; empty otherwise.  ``value`` is then that of the first frame
        (positioner angles: all of them).
    """

    name: str
    label: str
    value: object
    unit: str
    origin: str
    note: str = ""
    needed: bool = False
    per_frame: tuple = ()

    def at(self, frame: int) -> object:
        """The value of a frame."""
        return self.per_frame[frame] if self.per_frame else self.value


@contextlib.contextmanager
def quiet_pydicom():
    """No warnings about odd values: pydicom quotes them, and they may name the patient."""
    import pydicom

    level = pydicom.config.logger.level
    pydicom.config.logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom.config.logger.setLevel(level)


_LONGEST_VALUE = 1 << 20


def _element(dataset: object, keyword: str) -> object:
    """The value of an element; ``None`` when it is absent, damaged or absurdly long (pydicom decodes on access and raises many kinds)."""
    try:
        raw = dataset.get_item(keyword) if hasattr(dataset, "get_item") else None
        if raw is not None and getattr(raw, "is_raw", False) and raw.value is not None and len(raw.value) > _LONGEST_VALUE:
            return None
        return dataset.get(keyword)
    except Exception:
        return None


def numbers(dataset: object, keyword: str) -> tuple[float, ...]:
    """The finite numbers of an element; empty when it is absent, empty or not numeric."""
    return as_numbers(_element(dataset, keyword))


def as_numbers(value: object) -> tuple[float, ...]:
    """The finite numbers of an element's value; empty when there are none or not only numbers."""
    if value is None or (isinstance(value, (str, bytes)) and not value):
        return ()
    try:
        many = list(value) if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else [value]
        found = tuple(float(v) for v in many)
    except (TypeError, ValueError, OverflowError):
        return ()
    return found if all(math.isfinite(v) for v in found) else ()


def text(dataset: object, keyword: str) -> str:
    """The text of an element, stripped, several values joined by a backslash; empty when absent."""
    value = _element(dataset, keyword)
    if value is None or isinstance(value, bytes):
        return ""
    whole = value if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(str, value))
    return " ".join(str(whole).split())


def given(card: dict, name: str, label: str, unit: str, needed: bool = False) -> Quantity | None:
    """The quantity as the C-arm card gives it, or ``None``."""
    if name not in card:
        return None
    return Quantity(name, label, card[name], unit, "given by the user", needed=needed)
