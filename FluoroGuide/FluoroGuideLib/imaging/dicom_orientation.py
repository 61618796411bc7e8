"""How patient, table and picture lie: patient position, angle reference, turned and flipped pictures, table and detector turns."""

from __future__ import annotations

from ..geometry.carm import PATIENT_POSITIONS, beam_axes, patient_angles
from .dicom_values import Quantity, as_numbers, given, numbers, text
from .functional_groups import FrameTags
from .geometry_card import Orientation

_PRONE, _SUPINE = {"1240000", "F-10310"}, {"40199007", "F-10340"}
_HEAD_FIRST, _FEET_FIRST = {"102540008", "F-10470"}, {"102541007", "F-10480"}
"""SNOMED CT and SRT codes of PS3.16 CID 20 and CID 21."""


def patient_position(tags: FrameTags) -> tuple[str, str]:
    """The patient position (``"HFS"``...) and the name of the tags it is from; empty when unknown.

    Patient Position (0018,5100), else the codes of Patient Orientation (0054,0410), its modifier (0054,0412) and the
    Patient Gantry Relationship (0054,0414), which Enhanced objects carry instead.
    """
    position = text(tags, "PatientPosition").upper()
    coded = "" if position else _coded_position(tags)
    return (coded, "(0054,0410)") if coded else (position, "(0018,5100)")


def _coded_position(tags: FrameTags) -> str:
    orientation = _codes(tags, "PatientOrientationCodeSequence", "PatientOrientationModifierCodeSequence")
    relation = _codes(tags, "PatientGantryRelationshipCodeSequence") | _codes(tags, "PatientEquipmentRelationshipCodeSequence")
    first = "HF" if relation & _HEAD_FIRST else "FF" if relation & _FEET_FIRST else ""
    side = "P" if orientation & _PRONE else "S" if orientation & _SUPINE else ""
    return first + side if first and side else ""


def _codes(tags: FrameTags, sequence: str, nested: str = "") -> set[str]:
    """Code values of a sequence's items, and of a sequence nested in them."""
    found: set[str] = set()
    try:
        for item in tags.get(sequence) or []:
            for one in [item, *(item.get(nested) or [] if nested else [])]:
                found.add(text(one, "CodeValue"))
    except Exception:  # a damaged sequence counts as absent; pydicom raises many kinds
        return found
    return found


def orientation_quantities(tags: FrameTags, card: dict, gantry: bool) -> list[Quantity]:
    """Patient position, angle reference (``gantry``: the angles are isocentre angles), and how the picture was turned."""
    position, where = patient_position(tags)
    label = f"patient position {where}"
    note = "not one of " + ", ".join(PATIENT_POSITIONS) if position and position not in PATIENT_POSITIONS else ""
    coded = _coded_position(tags)
    if coded and position != coded:
        note = f"the codes of Patient Orientation (0054,0410) say {coded}"
    found = Quantity("patient_position", label, position or None, "", "tag" if position else "missing", note)
    result = [_angle_reference(tags, card, gantry, position), given(card, "patient_position", label, "") or found]
    rotation = numbers(tags, "FieldOfViewRotation")
    value = int(rotation[0]) % 360 if rotation and rotation[0] % 90 == 0 else None
    odd = f"{rotation[0]:g} deg in the tag is not a multiple of 90: taken as 0" if rotation and value is None else "taken as 0"
    label = "field of view rotation (0018,7032)"
    result.append(given(card, "image_rotation_deg", label, "deg") or Quantity(
        "image_rotation_deg", label, value or 0, "deg", "tag" if value is not None else "default", "" if value is not None else odd))
    flip = text(tags, "FieldOfViewHorizontalFlip").upper()
    label = "field of view horizontal flip (0018,7034)"
    result.append(given(card, "horizontal_flip", label, "") or Quantity(
        "horizontal_flip", label, flip == "YES", "", "tag" if flip else "default", "" if flip else "taken as NO"))
    return result


def _angle_reference(tags: FrameTags, card: dict, gantry: bool, position: str) -> Quantity:
    name, label = "angle_reference", "angle reference (patient or gantry)"
    told = given(card, name, label, "")
    if told:
        return told
    if not {"primary_angle_deg", "secondary_angle_deg"} & set(card):
        if gantry:
            return Quantity(name, label, "gantry", "", "derived", "isocentre angles (0018,9463) belong to the gantry (PS3.3 C.8.19.6)")
        known = bool(numbers(tags, "PositionerPrimaryAngle"))
        return Quantity(name, label, "patient", "", "derived", "the definition of classic XA objects (PS3.3 C.8.7.5.1.2)" if known else "no angles")
    # Angles from a person, read off the machine: the two references differ unless the patient lies head first, supine.
    if card.get("patient_position", position) == "HFS":
        return Quantity(name, label, "patient", "", "derived", "the same as gantry angles: the patient lies head first, supine")
    return Quantity(name, label, None, "", "missing", needed=True)


# ---- table and detector -----------------------------------------------------------------------------------------
_TABLE_POSITIONS = (
    ("TableTopVerticalPosition", "vertical"), ("TableTopLongitudinalPosition", "longitudinal"), ("TableTopLateralPosition", "lateral"),
    ("TableXPositionToIsocenter", "x to isocentre"), ("TableYPositionToIsocenter", "y to isocentre"), ("TableZPositionToIsocenter", "z to isocentre"),
)
_TURNS = (
    ("detector_rotation_deg", "detector rotation about the beam (0018,9465)", "PositionerIsocenterDetectorRotationAngle"),
    ("detector_primary_tilt_deg", "detector primary angle (0018,1530)", "DetectorPrimaryAngle"),
    ("detector_secondary_tilt_deg", "detector secondary angle (0018,1531)", "DetectorSecondaryAngle"),
    ("table_rotation_deg", "table horizontal rotation (0018,9469)", "TableHorizontalRotationAngle"),
    ("table_head_tilt_deg", "table head tilt (0018,9470)", "TableHeadTiltAngle"),
    ("table_cradle_tilt_deg", "table cradle tilt (0018,9471)", "TableCradleTiltAngle"),
    ("table_angle_deg", "table angle (0018,1138)", "TableAngle"),
)
_TABLE_MOTION = ("TableVerticalIncrement", "TableLateralIncrement", "TableLongitudinalIncrement")


def table_note(tags: FrameTags) -> str:
    """What the file says of the table's position, in a sentence."""
    known = [(label, numbers(tags, k)[0]) for k, label in _TABLE_POSITIONS if numbers(tags, k)]
    if known:
        return "table positions are in the file: " + ", ".join(f"{label} {value:g} mm" for label, value in known)
    return "the table's position is not in the file: images taken at other table positions cannot be combined with this one"


def turns(tags: FrameTags) -> list[Quantity]:
    """Turns of detector and table that the file names; they are shown, not applied (see :func:`turn_warnings`)."""
    return [Quantity(name, label, numbers(tags, k)[0], "deg", "tag", "shown only") for name, label, k in _TURNS if numbers(tags, k)]


def turn_warnings(tags: FrameTags, quantities: list[Quantity], gantry: bool) -> list[str]:
    """Sentences where the table or detector is turned, or the table moves during the run, in ways the view does not follow."""
    values = {q.name: q for q in quantities}
    found = []
    table = [values[n] for n in ("table_rotation_deg", "table_head_tilt_deg", "table_cradle_tilt_deg", "table_angle_deg") if n in values]
    tilted = [q for q in table if abs(q.value) > 0.5]
    if tilted and gantry:  # patient angles already account for it
        found.append("the table is turned (" + ", ".join(f"{q.label} {q.value:g} deg" for q in tilted)
                     + "), which gantry angles do not follow: give patient angles, or an --initial pose")
    # The primary and secondary tilts are relative to the beam, 0 when the detector is perpendicular to it.
    detector = [values[n] for n in ("detector_rotation_deg", "detector_primary_tilt_deg", "detector_secondary_tilt_deg") if n in values]
    off = [q for q in detector if abs(q.value) > 0.5]
    if off:
        found.append("the detector is turned (" + ", ".join(f"{q.label} {q.value:g} deg" for q in off)
                     + "), which is not applied: the picture is taken as upright unless image_rotation_deg says otherwise")
    moving = [k for k in _TABLE_MOTION if any(numbers(tags, k))]
    if moving or (any(tags.varies(k) for k, _ in _TABLE_POSITIONS) and _table_moves(tags)):
        found.append("the table moves during the run: frames cannot be combined unless table_offset_mm says how far")
    return found


def _table_moves(tags: FrameTags) -> bool:
    first = [numbers(tags, k)[:1] for k, _ in _TABLE_POSITIONS]
    return any([_of(tags, k, i) for k, _ in _TABLE_POSITIONS] != first for i in range(1, tags.frame_count))


def _of(tags: FrameTags, keyword: str, frame: int) -> tuple[float, ...]:
    return as_numbers(tags.of_frame(keyword, frame))[:1]


def angle_warning(tags: FrameTags, quantities: list[Quantity]) -> str:
    """A sentence when an object gives both patient and isocentre angles and they contradict one another."""
    values = {q.name: q.value for q in quantities}
    primary, secondary = (numbers(tags, f"PositionerIsocenter{n}Angle") for n in ("Primary", "Secondary"))
    told = numbers(tags, "PositionerPrimaryAngle"), numbers(tags, "PositionerSecondaryAngle")
    if not (primary and secondary and told[0] and told[1]) or values["patient_position"] not in PATIENT_POSITIONS:
        return ""
    a, b, _ = patient_angles(primary[0], secondary[0], values["patient_position"])
    apart = beam_axes(a, b)[2] @ beam_axes(told[0][0], told[1][0])[2]
    if apart > 0.9986:  # 3 degrees
        return ""
    return (f"the isocentre angles (0018,9463) {primary[0]:g}, {secondary[0]:g} deg do not agree with the patient angles (0018,1510) "
            f"{told[0][0]:g}, {told[1][0]:g} deg for {values['patient_position']}: patient angles are used")


# ---- Patient Orientation (0020,0020) ----------------------------------------------------------------------------
_AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


def orientation_warning(tags: FrameTags, primary_deg: float, secondary_deg: float, orientation: Orientation) -> str:
    """A sentence when Patient Orientation (0020,0020) contradicts patient angles and picture orientation, else empty.

    The first letter of each value names the main anatomical direction of increasing columns and rows of the picture
    in the file (PS3.3 C.7.6.1.1.1); it contradicts when it does not point along the direction that the angles give.
    """
    letters = text(tags, "PatientOrientation").upper().split("\\")
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
