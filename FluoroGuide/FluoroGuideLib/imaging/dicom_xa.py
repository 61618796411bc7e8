"""DICOM XA and RF runs, classic and Enhanced: pixels, geometry from the tags or a C-arm card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, patient_angles
from .dicom_file import DicomFile, open_dicom, pixel_layout, read_stored
from .dicom_lut import linear_values, modality_values
from .dicom_orientation import angle_warning, orientation_warning, turn_warnings
from .dicom_tags import read_quantities
from .dicom_values import Quantity, numbers, quiet_pydicom, text
from .functional_groups import FrameTags
from .geometry_card import Orientation, check_card
from .preprocess import normalize
from .xa_writer import write_xa
from .xray import XrayImage

__all__ = ["XrayRun", "read_run", "write_xa"]

_NOT_PROJECTIONS = {"CT", "MR", "PT", "NM", "US", "SEG", "OPT", "OCT", "SM", "ECG", "IVUS", "ES", "XC", "RTSTRUCT", "RTPLAN", "RTDOSE"}


@dataclass(frozen=True, eq=False)
class XrayRun:
    """One XA or RF object: its frames, upright, and what is known of its geometry.

    Attributes
    ----------
    frames
        (frames, rows, columns), values after the modality transformation, turned upright
        (:class:`~.geometry_card.Orientation`).
    mask
        bool (frames or 1, rows, columns): False behind shutters, collimators and on padding.
    quantities
        Each quantity of the geometry, with its value and where it came from.
    card
        What the user gave, checked.
    source
        File name without folders.
    facts
        ``kvp``, ``frame_time_ms``, ``frames``, ``model``, ``acquired``, ``modality``, ... (only those that are known).
    warnings
        Sentences on contradictions.
    """

    frames: np.ndarray
    mask: np.ndarray
    quantities: tuple[Quantity, ...]
    card: dict
    source: str
    orientation: Orientation
    patient_angles_deg: tuple[tuple[float, float], ...] | None
    facts: dict = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    _found: dict = field(default_factory=dict, repr=False)

    def value(self, name: str, frame: int | None = None) -> object:
        """The value of a quantity by its name in the C-arm card, of a frame when given; ``None`` when missing."""
        found = next((q for q in self.quantities if q.name == name), None)
        return None if found is None else found.value if frame is None else found.at(frame)

    @property
    def missing(self) -> tuple[str, ...]:
        """What a view needs and the file does not say, e.g. ``"SID (0018,1110)"``; empty with a projection matrix."""
        if "projection_matrix" in self.card:
            return ()
        missing = [q.label for q in self.quantities if q.needed and q.value is None]
        if self.value("angle_reference") == "gantry" and self.value("patient_position") is None:
            missing.append("patient position (0018,5100)")
        return tuple(missing)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Sentences on what was derived or taken for granted, and on contradictions."""
        plain = []
        if "projection_matrix" not in self.card:
            shown = [q for q in self.quantities if q.needed or q.name in ("angle_reference", "principal_point_px")]
            told = [q for q in shown if q.origin in ("derived", "default")]
            plain += [f"{q.label}: {q.note}" for q in told if q.note != "no angles"]
        if "distortion" in self.card:
            plain.append(f"distortion corrected with a grid's polynomial (rms {self.card['distortion'].residual_px:.2f} px)")
        if "intensity_note" in self.facts:
            plain.append("pixel values: " + self.facts["intensity_note"])
        if self.orientation != Orientation():
            plain.append(f"picture turned upright: undone flip {self.orientation.flip}, then {self.orientation.rotation_deg} deg counter-clockwise")
        return tuple(plain + list(self.warnings))

    def view(self, frame: int = 0) -> CArmView:
        """The C-arm geometry of a frame.

        Raises
        ------
        FluoroGuideError
            No such frame, or something is missing: all of it is named.
        """
        self._check_frame(frame)
        rows, columns = self.frames.shape[1:]
        if "projection_matrix" in self.card:
            return CArmView.from_projection_matrix(self.card["projection_matrix"], rows, columns)
        if self.missing:
            raise FluoroGuideError(
                f"The geometry of {self.source} is incomplete: missing " + "; ".join(self.missing), None,
                "Supply it in a geometry.json (--geometry)",
            )
        primary, secondary = self.patient_angles_deg[frame]
        spacing = self.orientation.upright_pair(self.value("pixel_spacing_mm"))
        point = self.value("principal_point_px")
        if point is not None:
            file_rows, file_columns = self.orientation.upright_pair((rows, columns))
            point = self.orientation.upright_point(point, int(file_rows), int(file_columns))
        return CArmView.from_angles(
            primary, secondary, sid_mm=self.value("source_to_detector_mm", frame), sod_mm=self.value("source_to_isocenter_mm", frame),
            rows=rows, columns=columns, pixel_spacing_mm=spacing, principal_point_px=point,
            table_offset_mm=self.value("table_offset_mm") or (0.0, 0.0, 0.0),
        )

    def image(self, frame: int = 0, **options: object) -> XrayImage:
        """A frame, normalised, with its view.  ``options`` go to :func:`~.preprocess.normalize` and win over the tags.

        Raises
        ------
        FluoroGuideError
            As :meth:`view`, or the frame shows nothing.
        """
        view = self.view(frame)
        result = self.normalized(frame, **options)
        facts = {**self.facts, "polarity": result.polarity, "polarity_confidence": result.confidence}
        return XrayImage(result.pixels, result.mask, view, self.source, frame, facts, self.assumptions + result.notes)

    def images(self, frames: range | None = None) -> Iterator[XrayImage]:
        """Frames one after the other, the run looked at once (:class:`~.live_normalize.StreamNormalizer`): a few ms each.

        Unlike :meth:`image` all frames share field, polarity and grey window, so that they can be compared; metal stays unmasked.
        """
        from .live_normalize import StreamNormalizer

        mask = self.mask[0] if len(self.mask) == 1 else None
        stream = StreamNormalizer(polarity=self._polarity(0), relationship=self.facts.get("intensity_relationship"), mask=mask)
        for frame in range(len(self.frames)) if frames is None else frames:
            result, view = stream(self.frames[frame]), self.view(frame)
            facts = {**self.facts, "polarity": result.polarity, "polarity_confidence": result.confidence}
            yield XrayImage(result.pixels, result.mask, view, self.source, frame, facts, self.assumptions + result.notes)

    def normalized(self, frame: int = 0, **options: object):
        """:class:`~.preprocess.Normalized` of a frame; needs no geometry."""
        self._check_frame(frame)
        settings = {"relationship": self.facts.get("intensity_relationship"), "polarity": self._polarity(frame), **options}
        known = self.mask[frame if len(self.mask) > 1 else 0]
        return normalize(self.frames[frame], mask=settings.pop("mask", known), **settings)

    def _polarity(self, frame: int) -> str | None:
        """The polarity that the tags tell, else that of the run's middle frame (found once): a run has one polarity."""
        told = self.facts.get("told_polarity")
        middle = len(self.frames) // 2
        if told is not None or len(self.frames) == 1 or frame == middle:
            return told
        if "polarity" not in self._found:
            found = self.normalized(middle)
            self._found["polarity"] = found.polarity if found.confidence > 0.8 else None
        return self._found["polarity"]

    def _check_frame(self, frame: int) -> None:
        if not isinstance(frame, (int, np.integer)) or not 0 <= frame < len(self.frames):
            raise FluoroGuideError(f"There is no such frame in {self.source}", f"{frame}", f"Give 0 to {len(self.frames) - 1}")


def read_run(path: str | Path, geometry: dict | None = None) -> XrayRun:
    """Read a DICOM XA or RF object, single or multi-frame, any transfer syntax GDCM decodes.

    Parameters
    ----------
    geometry
        A C-arm card (:data:`~.geometry_card.CARD_KEYS`); its values win over the tags.

    Raises
    ------
    FluoroGuideError
        No file, not DICOM, no grey projection picture, damaged pixels, or impossible values.
    """
    card = check_card(geometry or {})
    with quiet_pydicom():
        file = open_projection(path)
        tags = FrameTags(file.dataset)
        frames, padding = read_values(file, tags)
        mask = shutter_mask(tags, *frames.shape[1:])
        mask = (mask[None] & ~padding) if padding is not None else mask[None]
        facts = run_facts(tags, len(frames))
        frames, note = linear_values(tags, frames, facts.get("intensity_relationship", ""))
        if note:
            facts |= {"intensity_relationship": "LIN", "intensity_note": note}
        return _assemble(tags, frames, mask, card, file.path.name, facts)


def picture_run(frames: np.ndarray, card: dict, source: str) -> XrayRun:
    """A run from frames (f, r, c) without tags, such as a PNG; all of its geometry comes from the checked card."""
    rows_columns = frames.shape[1:]
    finite = np.isfinite(frames) if np.issubdtype(frames.dtype, np.floating) else np.ones((1, *rows_columns), bool)
    return _assemble(FrameTags({}), frames, finite, card, source, {"frames": len(frames)})


def _assemble(tags: FrameTags, frames: np.ndarray, mask: np.ndarray, card: dict, source: str, facts: dict) -> XrayRun:
    if "distortion" in card:
        frames, mask = _straightened(card["distortion"], frames, mask)
    quantities = read_quantities(tags, card, len(frames), frames.shape[1:])
    values = {q.name: q.value for q in quantities}
    orientation = Orientation() if "projection_matrix" in card else Orientation(values["image_rotation_deg"], values["horizontal_flip"])
    angles, half_turn = _patient_angles(values, len(frames))
    orientation = orientation.turned_half() if half_turn else orientation
    warnings = [orientation_warning(tags, *angles[0], orientation) if angles else "", angle_warning(tags, quantities)]
    warnings += turn_warnings(tags, quantities, values["angle_reference"] == "gantry")
    return XrayRun(
        orientation.upright(frames), orientation.upright(mask), tuple(quantities), card, source, orientation, angles, facts,
        tuple(w for w in warnings if w),
    )


def _straightened(distortion: object, frames: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames and mask without the intensifier's distortion; what lay outside the picture is masked."""
    seen = [distortion.corrected(m.astype(np.float32)) > 0.999 for m in mask]
    straight = np.stack([np.nan_to_num(distortion.corrected(f), nan=float(f.flat[0])) for f in frames])
    if np.issubdtype(frames.dtype, np.integer):
        straight = np.rint(straight).astype(frames.dtype)
    return straight, np.stack(seen)


def open_projection(path: str | Path) -> DicomFile:
    """The parsed header of a projection X-ray, its pixels not yet read.

    Raises
    ------
    FluoroGuideError
        No file, not DICOM, no picture in it, colour, not a projection X-ray, or a size beyond reason.
    """
    file = open_dicom(path)
    name, modality = file.path.name, text(file.dataset, "Modality").upper()
    pixel_layout(file)
    if (numbers(file.dataset, "SamplesPerPixel") or (1.0,))[0] != 1 or not text(file.dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
        raise FluoroGuideError("The DICOM picture is in colour", name, "Give the original grey XA or RF image, not a screen capture")
    if modality in _NOT_PROJECTIONS:
        raise FluoroGuideError("The DICOM object is not a projection X-ray", f"{name}, {modality}", "Give an XA or RF image here")
    return file


def read_values(file: DicomFile, tags: FrameTags) -> tuple[np.ndarray, np.ndarray | None]:
    """Frames (f, r, c) after the modality transformation, and where they are padding (or ``None``)."""
    try:
        stored = read_stored(file, pixel_layout(file))
        padding = _padding(tags, stored)
        return modality_values(tags, stored), padding
    except MemoryError:
        raise FluoroGuideError("The DICOM run is too large for memory", file.path.name, "Export fewer frames, for example one run per file") from None


def _padding(dataset: object, stored: np.ndarray) -> np.ndarray | None:
    """Where stored values lie in the padding range (0028,0120)-(0028,0121)."""
    low = numbers(dataset, "PixelPaddingValue")
    if not low:
        return None
    high = numbers(dataset, "PixelPaddingRangeLimit") or low
    padding = (stored >= min(low[0], high[0])) & (stored <= max(low[0], high[0]))
    return padding if padding.any() and not padding.all() else None


def shutter_mask(dataset: object, rows: int, columns: int) -> np.ndarray:
    """bool (rows, columns): True inside all shutters (0018,1600) and collimators (0018,1700); all True when they leave nothing.

    Edges, centres and vertices count from 1, rows before columns (PS3.3 C.7.6.11, C.8.7.3).
    """
    mask = np.ones((rows, columns), bool)
    r, c = np.mgrid[1:rows + 1, 1:columns + 1]
    edges = (("LeftVerticalEdge", 0), ("RightVerticalEdge", columns + 1), ("UpperHorizontalEdge", 0), ("LowerHorizontalEdge", rows + 1))
    for prefix in ("Shutter", "Collimator"):
        shapes = text(dataset, prefix + "Shape").upper()
        if "RECTANGULAR" in shapes:
            left, right, top, bottom = ((numbers(dataset, prefix + edge) or (default,))[0] for edge, default in edges)
            mask &= (c > left) & (c < right) & (r > top) & (r < bottom)
        if "CIRCULAR" in shapes:
            center, radius = numbers(dataset, f"CenterOfCircular{prefix}"), numbers(dataset, f"RadiusOfCircular{prefix}")
            if len(center) == 2 and radius:
                mask &= (r - center[0]) ** 2 + (c - center[1]) ** 2 < radius[0] ** 2
        if "POLYGONAL" in shapes:
            vertices = numbers(dataset, f"VerticesOfThePolygonal{prefix}")
            if len(vertices) >= 6 and len(vertices) % 2 == 0:
                mask &= _inside_polygon(np.array(vertices).reshape(-1, 2), r, c)
    return mask if mask.mean() > 0.01 else np.ones_like(mask)


def _inside_polygon(vertices: np.ndarray, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Even-odd rule for pixel centres; vertices (N, 2) as (row, column)."""
    inside = np.zeros(r.shape, bool)
    for (r0, c0), (r1, c1) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        if r0 != r1:
            inside ^= ((r0 > r) != (r1 > r)) & (c < (c1 - c0) * (r - r0) / (r1 - r0) + c0)
    return inside


def _patient_angles(values: dict, frames: int) -> tuple[tuple[tuple[float, float], ...] | None, bool]:
    """Patient angles of each frame, and whether the picture needs a half turn; ``None`` when angles are missing."""
    primary, secondary = values["primary_angle_deg"], values["secondary_angle_deg"]
    if primary is None or secondary is None:
        return None, False
    pairs = zip(np.broadcast_to(primary, frames).tolist(), np.broadcast_to(secondary, frames).tolist(), strict=True)
    if values["angle_reference"] == "patient":
        return tuple(pairs), False
    if values["patient_position"] is None:
        return None, False
    turned = [patient_angles(a, b, values["patient_position"]) for a, b in pairs]
    return tuple((a, b) for a, b, _ in turned), turned[0][2]


def run_facts(dataset: object, frames: int) -> dict:
    """Acquisition facts without anything that identifies a patient."""
    facts: dict = {"frames": frames, "modality": text(dataset, "Modality")}
    for key, keyword in (("kvp", "KVP"), ("frame_time_ms", "FrameTime"), ("tube_current_ma", "XRayTubeCurrent")):
        found = numbers(dataset, keyword)
        if found and found[0] > 0:
            facts[key] = found[0]
    rate = numbers(dataset, "CineRate")
    if "frame_time_ms" not in facts and rate and rate[0] > 0:
        facts["frame_time_ms"] = 1000.0 / rate[0]
    times = frame_times_ms(dataset, frames)
    if times:
        facts["frame_times_ms"] = times
        facts.setdefault("frame_time_ms", float(np.median(np.diff(times))))
    facts["plane"] = plane(dataset)
    facts["model"] = " ".join(filter(None, (text(dataset, "Manufacturer"), text(dataset, "ManufacturerModelName"))))
    facts["acquired"] = _acquired(dataset)
    facts["photometric"] = text(dataset, "PhotometricInterpretation")
    facts["intensity_relationship"] = text(dataset, "PixelIntensityRelationship").upper()
    sign = numbers(dataset, "PixelIntensityRelationshipSign")
    if sign and sign[0] in (1, -1):  # PS3.3 C.8.11.3.1.2: 1 = lower values mean less X-ray intensity
        facts["told_polarity"] = "bone dark" if sign[0] == 1 else "bone bright"
    return {k: v for k, v in facts.items() if v not in ("", None)}


def frame_times_ms(dataset: object, frames: int) -> list[float]:
    """Time of each frame after the first, from the Frame Time Vector (0018,1065: steps, the first 0); empty when absent or odd."""
    steps = numbers(dataset, "FrameTimeVector")
    if len(steps) != frames or frames < 2 or min(steps[1:]) <= 0:
        return []
    return (np.cumsum(steps) - steps[0]).tolist()


def plane(dataset: object) -> str:
    """``"A"`` or ``"B"`` of a biplane pair (0018,9457, or the third value of Image Type), else empty."""
    told = text(dataset, "PlaneIdentification").upper()
    kind = text(dataset, "ImageType").upper().split("\\")
    told = told if told.startswith("PLANE") else kind[2] if len(kind) > 2 and kind[2].startswith("BIPLANE") else ""
    return told[-1] if told[-1:] in ("A", "B") else ""


def _acquired(dataset: object) -> str:
    """Time of the acquisition as ISO text, or empty."""
    for name in ("Acquisition", "Content", "Series", "Study"):
        date, clock = text(dataset, name + "Date").replace(".", ""), text(dataset, name + "Time").replace(":", "")
        if len(date) == 8 and date.isdigit():
            stamp = f"{date[:4]}-{date[4:6]}-{date[6:]}"
            return stamp + (f"T{clock[:2]}:{clock[2:4]}:{clock[4:6]}" if len(clock) >= 6 and clock[:6].isdigit() else "")
    return ""

