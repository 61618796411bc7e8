"""What the tags of an XA or RF object say about its geometry: each quantity with its value and where it came from.

Classic objects (DICOM PS3.3 C.8.7: XA Acquisition, XA Positioner, X-Ray Table, DX Detector) and Enhanced ones (C.8.19,
through :class:`~.functional_groups.FrameTags`).  Nothing is guessed: a quantity that no tag gives and none implies has
the origin ``"missing"``.
"""

from __future__ import annotations

from ..errors import FluoroGuideError
from .dicom_orientation import orientation_quantities, table_note, turns
from .dicom_values import Quantity, as_numbers, given, numbers, text
from .functional_groups import FrameTags
from .geometry_card import Orientation

# Where a quantity may be: (its name for people, its keyword), the best first.
_SID = (("SID (0018,1110)", "DistanceSourceToDetector"),)
_SOD = (("SOD (0018,9402)", "DistanceSourceToIsocenter"), ("SOD (0018,1111)", "DistanceSourceToPatient"))
_PRIMARY = (
    ("primary angle (0018,1510)", "PositionerPrimaryAngle"), ("primary angle of the gantry (0018,9463)", "PositionerIsocenterPrimaryAngle"))
_SECONDARY = (
    ("secondary angle (0018,1511)", "PositionerSecondaryAngle"), ("secondary angle of the gantry (0018,9464)", "PositionerIsocenterSecondaryAngle"))


def read_quantities(tags: FrameTags, card: dict, frames: int, shape: tuple[int, int]) -> list[Quantity]:
    """All quantities of the geometry of an XA or RF object.

    Parameters
    ----------
    tags
        The object's tags, wherever it keeps them.
    card
        A checked C-arm card whose values take precedence over the tags.
    frames
        Number of frames, for values per frame.
    shape
        (rows, columns) of the picture in the file.

    Raises
    ------
    FluoroGuideError
        A tag with an impossible value (zero spacing, SID not beyond SOD).
    """
    result = [
        _length(tags, card, "source_to_detector_mm", _SID, frames),
        _length(tags, card, "source_to_isocenter_mm", _SOD, frames),
    ]
    _fill_from_magnification(tags, result)
    primary = _angle(tags, card, "primary_angle_deg", _PRIMARY, frames)
    result += [primary, _angle(tags, card, "secondary_angle_deg", _SECONDARY, frames)]
    result.append(_spacing(tags, card))
    result += orientation_quantities(tags, card, "(0018,9463)" in primary.label)
    result.append(given(card, "principal_point_px", "principal point", "px") or _principal_point(tags, result, shape))
    result.append(given(card, "table_offset_mm", "table offset", "mm") or Quantity(
        "table_offset_mm", "table offset", None, "mm", "missing", table_note(tags)))
    result += turns(tags)
    _check_distances(result, frames)
    return result


def _per_frame(tags: FrameTags, keyword: str, frames: int) -> tuple[float, ...]:
    """One number for each frame when the functional groups hold them for all frames and they differ, else nothing."""
    if not tags.varies(keyword):
        return ()
    values = [as_numbers(tags.of_frame(keyword, i)) for i in range(frames)]
    found = tuple(v[0] for v in values if v)
    return found if len(found) == frames and len(set(found)) > 1 else ()


def _length(tags: FrameTags, card: dict, name: str, choices: tuple[tuple[str, str], ...], frames: int) -> Quantity:
    label, keyword = next(((text_, k) for text_, k in choices if any(numbers(tags, k)[:1])), choices[-1])
    told = given(card, name, label, "mm", True)
    if told:
        return told
    found = numbers(tags, keyword)
    # Some C-arms write 0 for "unknown": that is a missing value, not a distance.
    if not found or found[0] == 0:
        return Quantity(name, label, None, "mm", "missing", "the tag holds 0" if found else "", True)
    moving = _per_frame(tags, keyword, frames)
    least = min((found[0], *moving))
    if least <= 0:
        raise FluoroGuideError(f"The {label} is negative", least, "Give the right value in a geometry.json")
    return Quantity(name, label, found[0], "mm", "tag", "per frame" if moving else "", True, moving)


def _fill_from_magnification(tags: FrameTags, result: list[Quantity]) -> None:
    """SID or SOD from their ratio (0018,1114) when exactly one of the two is missing."""
    sid, sod = result
    factor = numbers(tags, "EstimatedRadiographicMagnificationFactor")
    if not factor or factor[0] <= 1 or (sid.value is None) == (sod.value is None):
        return
    note = f"from the magnification (0018,1114) {factor[0]:g}"
    if sid.value is None:
        result[0] = Quantity(sid.name, sid.label, sod.value * factor[0], "mm", "derived", note, True)
    else:
        result[1] = Quantity(sod.name, sod.label, sid.value / factor[0], "mm", "derived", note, True)


def _angle(tags: FrameTags, card: dict, name: str, choices: tuple[tuple[str, str], ...], frames: int) -> Quantity:
    label, keyword = next(((text_, k) for text_, k in choices if numbers(tags, k)), choices[0])
    told = given(card, name, choices[0][0], "deg", True)
    if told:
        return told
    found = numbers(tags, keyword)
    if not found:
        return Quantity(name, label, None, "deg", "missing", needed=True)
    moving = _per_frame(tags, keyword, frames)
    if moving:
        return Quantity(name, label, moving, "deg", "tag", "per frame", True, moving)
    increments = numbers(tags, keyword + "Increment")
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
    return Quantity(name, label, value, "deg", "tag", "per frame, from the increments", True, value)


def _spacing(tags: FrameTags, card: dict) -> Quantity:
    name, label = "pixel_spacing_mm", "pixel spacing at the detector, ImagerPixelSpacing (0018,1164)"
    told = given(card, name, label, "mm", True)
    if told:
        return told
    found = numbers(tags, "ImagerPixelSpacing")
    if len(found) == 2:
        if min(found) <= 0:
            raise FluoroGuideError("The ImagerPixelSpacing (0018,1164) is not positive", found, "Give pixel_spacing_mm in a geometry.json")
        return Quantity(name, label, found, "mm", "tag", needed=True)
    derived = _spacing_from_field(tags) or _spacing_from_calibration(tags)
    if derived:
        value, note = derived
        return Quantity(name, label, value, "mm", "derived", note, True)
    note = "PixelSpacing (0028,0030) is there, but it is calibrated to some depth in the patient" if numbers(tags, "PixelSpacing") else ""
    return Quantity(name, label, None, "mm", "missing", note, True)


def _spacing_from_field(tags: FrameTags) -> tuple[tuple[float, float], str] | None:
    """Field of View Dimension(s) (0018,1149) or (0018,9461) over the image size: row then column size; one value is a diameter or side."""
    tag, size = next(((t, v) for t, v in (
        ("(0018,1149)", numbers(tags, "FieldOfViewDimensions")), ("(0018,9461)", numbers(tags, "FieldOfViewDimensionsInFloat")),
    ) if v), ("", ()))
    shape = (numbers(tags, "Rows") or (0,))[0], (numbers(tags, "Columns") or (0,))[0]
    if len(size) not in (1, 2) or min(size) <= 0 or min(shape) < 1:
        return None
    if len(size) == 1 and shape[0] != shape[1]:
        return None  # one length over a picture that is not square: which side it is cannot be known
    rows_mm, columns_mm = size[0], size[-1]
    value = rows_mm / shape[0], columns_mm / shape[1]
    if not 0.98 < value[0] / value[1] < 1.02:
        return None  # detectors have square pixels: the field was not what is stored
    note = f"ImagerPixelSpacing is not in the file; field of view {tag} {rows_mm:g} x {columns_mm:g} mm over {shape[0]:g} x {shape[1]:g} pixels"
    return value, note


def _spacing_from_calibration(tags: FrameTags) -> tuple[tuple[float, float], str] | None:
    """PixelSpacing (0028,0030) times the magnification it was corrected by, when the file says it was (0028,0A02 GEOMETRY; PS3.3 10.7)."""
    spacing, factor = numbers(tags, "PixelSpacing"), numbers(tags, "EstimatedRadiographicMagnificationFactor")
    if text(tags, "PixelSpacingCalibrationType").upper() != "GEOMETRY" or len(spacing) != 2 or min(spacing) <= 0 or not factor or factor[0] < 1:
        return None
    note = f"ImagerPixelSpacing is not in the file; PixelSpacing (0028,0030) times the magnification (0018,1114) {factor[0]:g} it was corrected by"
    return (spacing[0] * factor[0], spacing[1] * factor[0]), note


def _principal_point(tags: FrameTags, known: list[Quantity], shape: tuple[int, int]) -> Quantity:
    """The image centre, or the centre of the detector's active area when the field of view is a part of it that lies elsewhere.

    Field of View Origin (0018,7030): (row, column) of the field's first pixel on the detector, in detector elements, before the picture was
    turned or flipped (PS3.3 C.8.11.4).
    """
    name, label = "principal_point_px", "principal point"
    values = {q.name: q.value for q in known}
    origin, active, element = (numbers(tags, k) for k in ("FieldOfViewOrigin", "DetectorActiveDimensions", "DetectorElementSpacing"))
    spacing = values["pixel_spacing_mm"]
    if len(origin) == 2 and len(element) == 2 and len(active) in (1, 2) and min(element) > 0 and min(active) > 0 and spacing:
        orientation = Orientation(values["image_rotation_deg"], values["horizontal_flip"])
        rows, columns = (int(v) for v in orientation.upright_pair(shape))
        step = orientation.upright_pair(spacing)
        row, column = ((active[i] / 2 if i < len(active) else active[0] / 2) - origin[i] * element[i] for i in (0, 1))
        upright = column / step[1] - 0.5, row / step[0] - 0.5
        if max(abs(upright[0] - (columns - 1) / 2), abs(upright[1] - (rows - 1) / 2)) > 1.0:
            point = orientation.file_point(upright, rows, columns)
            note = "the centre of the detector's active area (0018,7026), from the field of view origin (0018,7030)"
            return Quantity(name, label, point, "px", "derived", note)
    return Quantity(name, label, None, "px", "default", "taken as the image centre")


def _check_distances(quantities: list[Quantity], frames: int) -> None:
    by_name = {q.name: q for q in quantities}
    sid, sod = by_name["source_to_detector_mm"], by_name["source_to_isocenter_mm"]
    if sid.value is None or sod.value is None:
        return
    for i in range(frames if sid.per_frame or sod.per_frame else 1):
        if sid.at(i) <= sod.at(i):
            raise FluoroGuideError(
                "The detector would lie between source and isocentre", f"{sid.label} {sid.at(i):g} mm, {sod.label} {sod.at(i):g} mm",
                "Give the right source_to_detector_mm and source_to_isocenter_mm in a geometry.json",
            )
