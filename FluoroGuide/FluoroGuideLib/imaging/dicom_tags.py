"""What the tags of an XA or RF object say about its geometry: each quantity with its value and where it came from.

Classic objects (DICOM PS3.3 C.8.7: XA Acquisition, XA Positioner, X-Ray Table, DX Detector).  Nothing is guessed: a
quantity that no tag gives and none implies has the origin ``"missing"``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from dataclasses import dataclass

from ..errors import FluoroGuideError
from ..geometry.carm import PATIENT_POSITIONS, beam_axes
from .geometry_card import Orientation

ORIGINS = ("tag", "derived", "given by the user", "missing")


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
    """

    name: str
    label: str
    value: object
    unit: str
    origin: str
    note: str = ""
    needed: bool = False


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


def _element(dataset: object, keyword: str) -> object:
    """The value of an element; ``None`` when it is absent or damaged (pydicom decodes on access and raises many kinds)."""
    try:
        return dataset.get(keyword)
    except Exception:
        return None


def numbers(dataset: object, keyword: str) -> tuple[float, ...]:
    """The finite numbers of an element; empty when it is absent, empty or not numeric."""
    value = _element(dataset, keyword)
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


def read_quantities(dataset: object, card: dict, frames: int) -> list[Quantity]:
    """All quantities of the geometry of a classic XA or RF object.

    Parameters
    ----------
    dataset
        pydicom dataset.
    card
        A checked C-arm card whose values take precedence over the tags.
    frames
        Number of frames, for per-frame increments.

    Raises
    ------
    FluoroGuideError
        A tag with an impossible value (zero spacing, SID not beyond SOD).
    """
    result = []
    result.append(_length(dataset, card, "source_to_detector_mm", "SID (0018,1110)", "DistanceSourceToDetector"))
    result.append(_length(dataset, card, "source_to_isocenter_mm", "SOD (0018,1111)", "DistanceSourceToPatient"))
    _fill_from_magnification(dataset, result)
    result.append(_angle(dataset, card, "primary_angle_deg", "primary angle (0018,1510)", "PositionerPrimaryAngle", frames))
    result.append(_angle(dataset, card, "secondary_angle_deg", "secondary angle (0018,1511)", "PositionerSecondaryAngle", frames))
    result.append(_spacing(dataset, card))
    result += _orientation(dataset, card)
    result.append(_given(card, "principal_point_px", "principal point", "px") or Quantity(
        "principal_point_px", "principal point", None, "px", "derived", "taken as the image centre"))
    result.append(_given(card, "table_offset_mm", "table offset", "mm") or Quantity(
        "table_offset_mm", "table offset", None, "mm", "missing", _table_note(dataset)))
    _check_distances(result)
    return result


def _given(card: dict, name: str, label: str, unit: str, needed: bool = False) -> Quantity | None:
    if name not in card:
        return None
    return Quantity(name, label, card[name], unit, "given by the user", needed=needed)


def _length(dataset: object, card: dict, name: str, label: str, keyword: str) -> Quantity:
    given = _given(card, name, label, "mm", True)
    if given:
        return given
    found = numbers(dataset, keyword)
    # Some C-arms write 0 for "unknown": that is a missing value, not a distance.
    if not found or found[0] == 0:
        return Quantity(name, label, None, "mm", "missing", "the tag holds 0" if found else "", True)
    if found[0] < 0:
        raise FluoroGuideError(f"The {label} is negative", found[0], "Give the right value in a geometry.json")
    return Quantity(name, label, found[0], "mm", "tag", needed=True)


def _fill_from_magnification(dataset: object, result: list[Quantity]) -> None:
    """SID or SOD from their ratio (0018,1114) when exactly one of the two is missing."""
    sid, sod = result
    factor = numbers(dataset, "EstimatedRadiographicMagnificationFactor")
    if not factor or factor[0] <= 1 or (sid.value is None) == (sod.value is None):
        return
    note = f"from the magnification (0018,1114) {factor[0]:g}"
    if sid.value is None:
        result[0] = Quantity(sid.name, sid.label, sod.value * factor[0], "mm", "derived", note, True)
    else:
        result[1] = Quantity(sod.name, sod.label, sid.value / factor[0], "mm", "derived", note, True)


def _angle(dataset: object, card: dict, name: str, label: str, keyword: str, frames: int) -> Quantity:
    given = _given(card, name, label, "deg", True)
    if given:
        return given
    found = numbers(dataset, keyword)
    if not found:
        return Quantity(name, label, None, "deg", "missing", needed=True)
    increments = numbers(dataset, keyword + "Increment")
    # PS3.3 C.8.7.5.1.3: one value = change per frame; a vector = offsets of each frame from the initial angle.
    if len(increments) == 1 and increments[0] and frames > 1:
        value = tuple(found[0] + increments[0] * i for i in range(frames))
    elif len(increments) == frames > 1 and any(increments):
        value = tuple(found[0] + v for v in increments)
    elif len(increments) > 1 and len(increments) != frames and any(increments):
        raise FluoroGuideError(
            f"The increments of the {label} do not fit the number of frames", f"{len(increments)} for {frames} frames",
            f"Give {name} in a geometry.json",
        )
    else:
        return Quantity(name, label, found[0], "deg", "tag", needed=True)
    return Quantity(name, label, value, "deg", "tag", "per frame, from the increments", True)


def _spacing(dataset: object, card: dict) -> Quantity:
    name, label = "pixel_spacing_mm", "pixel spacing at the detector, ImagerPixelSpacing (0018,1164)"
    given = _given(card, name, label, "mm", True)
    if given:
        return given
    found = numbers(dataset, "ImagerPixelSpacing")
    if len(found) == 2:
        if min(found) <= 0:
            raise FluoroGuideError("The ImagerPixelSpacing (0018,1164) is not positive", found, "Give pixel_spacing_mm in a geometry.json")
        return Quantity(name, label, found, "mm", "tag", needed=True)
    derived = _spacing_from_field(dataset)
    if derived:
        value, note = derived
        return Quantity(name, label, value, "mm", "derived", note, True)
    note = "PixelSpacing (0028,0030) is there, but it is calibrated to some depth in the patient" if numbers(dataset, "PixelSpacing") else ""
    return Quantity(name, label, None, "mm", "missing", note, True)


def _spacing_from_field(dataset: object) -> tuple[tuple[float, float], str] | None:
    """Field of View Dimension(s) (0018,1149) over the image size: row then column size; one value is a diameter or side."""
    size = numbers(dataset, "FieldOfViewDimensions")
    shape = (numbers(dataset, "Rows") or (0,))[0], (numbers(dataset, "Columns") or (0,))[0]
    if len(size) not in (1, 2) or min(size) <= 0 or min(shape) < 1:
        return None
    if len(size) == 1 and shape[0] != shape[1]:
        return None  # one length over a picture that is not square: which side it is cannot be known
    rows_mm, columns_mm = size[0], size[-1]
    value = rows_mm / shape[0], columns_mm / shape[1]
    if not 0.98 < value[0] / value[1] < 1.02:
        return None  # detectors have square pixels: the field was not what is stored
    note = f"ImagerPixelSpacing is not in the file; field of view (0018,1149) {rows_mm:g} x {columns_mm:g} mm over {shape[0]:g} x {shape[1]:g} pixels"
    return value, note


def _orientation(dataset: object, card: dict) -> list[Quantity]:
    """Patient position, angle reference, and how the picture was turned."""
    result = [_angle_reference(dataset, card)]
    position = text(dataset, "PatientPosition").upper()
    result.append(_given(card, "patient_position", "patient position (0018,5100)", "") or Quantity(
        "patient_position", "patient position (0018,5100)", position or None, "", "tag" if position else "missing",
        "not one of " + ", ".join(PATIENT_POSITIONS) if position and position not in PATIENT_POSITIONS else ""))
    rotation = numbers(dataset, "FieldOfViewRotation")
    value = int(rotation[0]) % 360 if rotation and rotation[0] % 90 == 0 else None
    result.append(_given(card, "image_rotation_deg", "field of view rotation (0018,7032)", "deg") or Quantity(
        "image_rotation_deg", "field of view rotation (0018,7032)", value or 0, "deg", "tag" if value is not None else "derived",
        "" if value is not None else "taken as 0"))
    flip = text(dataset, "FieldOfViewHorizontalFlip").upper()
    result.append(_given(card, "horizontal_flip", "field of view horizontal flip (0018,7034)", "") or Quantity(
        "horizontal_flip", "field of view horizontal flip (0018,7034)", flip == "YES", "", "tag" if flip else "derived",
        "" if flip else "taken as NO"))
    return result


def _angle_reference(dataset: object, card: dict) -> Quantity:
    name, label = "angle_reference", "angle reference (patient or gantry)"
    given = _given(card, name, label, "")
    if given:
        return given
    if not {"primary_angle_deg", "secondary_angle_deg"} & set(card):
        known = bool(numbers(dataset, "PositionerPrimaryAngle"))
        return Quantity(name, label, "patient", "", "derived", "the definition of classic XA objects (PS3.3 C.8.7.5.1.2)" if known else "no angles")
    # Angles from a person, read off the machine: the two references differ unless the patient lies head first, supine.
    if card.get("patient_position", text(dataset, "PatientPosition").upper()) == "HFS":
        return Quantity(name, label, "patient", "", "derived", "the same as gantry angles: the patient lies head first, supine")
    return Quantity(name, label, None, "", "missing", needed=True)


def _table_note(dataset: object) -> str:
    known = [k for k in ("TableTopVerticalPosition", "TableTopLongitudinalPosition", "TableTopLateralPosition") if numbers(dataset, k)]
    if known:
        return "table positions are in the file: " + ", ".join(f"{k[8:]} {numbers(dataset, k)[0]:g} mm" for k in known)
    return "the table's position is not in the file: images taken at other table positions cannot be combined with this one"


def _check_distances(quantities: list[Quantity]) -> None:
    by_name = {q.name: q.value for q in quantities}
    sid, sod = by_name["source_to_detector_mm"], by_name["source_to_isocenter_mm"]
    if sid is not None and sod is not None and sid <= sod:
        raise FluoroGuideError(
            "The detector would lie between source and isocentre", f"SID (0018,1110) {sid:g} mm, SOD (0018,1111) {sod:g} mm",
            "Give the right source_to_detector_mm and source_to_isocenter_mm in a geometry.json",
        )


_AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


def orientation_warning(dataset: object, primary_deg: float, secondary_deg: float, orientation: Orientation) -> str:
    """A sentence when Patient Orientation (0020,0020) contradicts patient angles and picture orientation, else empty.

    The first letter of each value names the main anatomical direction of increasing columns and rows of the picture
    in the file (PS3.3 C.7.6.1.1.1); it contradicts when it does not point along the direction that the angles give.
    """
    letters = text(dataset, "PatientOrientation").upper().split("\\")
    if len(letters) != 2 or any(not v or v[0] not in _AXES for v in letters):
        return ""
    u, v, _ = beam_axes(primary_deg, secondary_deg)
    for _turn in range(orientation.rotation_deg // 90):  # clockwise: what pointed up points right, what pointed right points down
        u, v = -v, u
    if orientation.flip:
        u = -u
    pairs = (("columns", letters[0][0], u), ("rows", letters[1][0], v))
    wrong = [f"{name} increase towards {letter}" for name, letter, axis in pairs if axis @ _AXES[letter] < 0.1]
    if not wrong:
        return ""
    told = "Patient Orientation (0020,0020) says that " + " and ".join(wrong)
    return told + ", which the positioner angles contradict: the picture may be mirrored or turned"
