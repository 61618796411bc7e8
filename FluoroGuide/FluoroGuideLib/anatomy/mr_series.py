"""Reads MR series: DICOM folders or files of any contrast and orientation, what contrast they are, and what they do not show well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .attenuation import read_volume
from .volume_checks import BoundedFile, read_header

TAGS = {
    "Modality": "modality", "ScanningSequence": "sequence", "RepetitionTime": "tr_ms", "EchoTime": "te_ms", "InversionTime": "ti_ms",
    "FlipAngle": "flip_deg", "SliceThickness": "thickness_mm", "SpacingBetweenSlices": "spacing_mm", "MagneticFieldStrength": "field_t",
    "ImageType": "image_type", "ScanOptions": "options", "SeriesDescription": "description", "ProtocolName": "protocol",
    "SequenceName": "sequence_name", "BodyPartExamined": "body_part", "PixelBandwidth": "bandwidth_hz", "EchoNumbers": "echo",
}
"""DICOM keyword -> name of the fact; descriptions are used to recognise the contrast and not kept."""
PRIVATE = ("description", "protocol")
MIN_SLICES = 6
FAR_FROM_CENTRE_MM = 150.0
"""Beyond this, gradient non-linearity that the scanner did not correct reaches millimetres."""


@dataclass(frozen=True, eq=False)
class MrSeries:
    """One MR volume with what is known of it.

    Attributes
    ----------
    image
        SimpleITK 3-D image in LPS.
    contrast
        ``"T1"``, ``"T2"``, ``"PD"``, ``"STIR"``, ``"Dixon water"``, ``"T2 fat-suppressed"``, ... or ``"unknown"``.
    contrast_from
        ``"tags"`` or ``"histogram"``.
    facts
        TR, TE and so on as found.
    caveats
        Sentences for people.
    """

    image: object
    contrast: str
    contrast_from: str
    facts: Mapping[str, object] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()


def read_mr(path: str | Path, check_modality: bool = True) -> MrSeries:
    """Read an MR series; ``check_modality=False``: the user said that it is MR, whatever its tags say.

    Raises
    ------
    FluoroGuideError
        Not readable, not MR by its tags, or fewer than :data:`MIN_SLICES` slices (a localizer).
    """
    path = Path(path)
    facts = read_facts(path)
    if check_modality and facts.get("modality", "MR") != "MR":
        raise FluoroGuideError("The series is not MR", f"{path.name}: {facts['modality']}", "Choose the MR series, or read it as CT")
    return series_of(read_volume(path), facts, name=path.name)


def series_of(image: object, facts: Mapping[str, object], contrast: str = "", name: str = "MR volume") -> MrSeries:
    """An MR that was read already, with what its tags say (:func:`read_facts`); ``contrast`` where that is known.

    Raises
    ------
    FluoroGuideError
        Fewer than :data:`MIN_SLICES` slices (a localizer).
    """
    slices = min(image.GetSize())
    if slices < MIN_SLICES:
        raise FluoroGuideError("The MR series has too few slices: it is a localizer", f"{name}, {slices} slices", "Choose the planning series")
    contrast = contrast or contrast_of(facts)
    source = "tags" if contrast else "histogram"
    contrast = contrast or contrast_from_histogram(image)
    notes = [image.GetMetaData("FluoroGuide.note")] if image.HasMetaDataKey("FluoroGuide.note") else []
    shown = {k: v for k, v in facts.items() if k not in PRIVATE}
    return MrSeries(image, contrast, source, shown, (*notes, *caveats(image, facts, contrast, source)))


def read_facts(path: str | Path) -> dict:
    """Tags of a DICOM file or of the first DICOM file in a folder, or of the JSON beside a NIfTI (BIDS); empty where there are none."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        return next((f for f in map(_dicom_facts, files[:50]) if f), {})
    found = _dicom_facts(path)
    side = path.with_name(path.name.removesuffix(".gz").rsplit(".", 1)[0] + ".json")
    return found or (_json_facts(side) if side.is_file() else {})


def _dicom_facts(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            dataset = read_header(BoundedFile(file, path.stat().st_size), specific_tags=list(TAGS))
        return {name: _plain(dataset.get(key)) for key, name in TAGS.items() if dataset.get(key) not in (None, "", [])}
    except Exception:  # pydicom raises many kinds for damaged files, and for files that are not DICOM
        return {}


def _plain(value: object) -> object:
    """A float, a text, or texts joined by backslashes as in DICOM."""
    if isinstance(value, str):
        return value
    try:
        return float(value)
    except TypeError:
        return "\\".join(str(v) for v in value)


def _json_facts(path: Path) -> dict:
    """BIDS side file: the same names, times in seconds."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        facts = {name: found[key] for key, name in TAGS.items() if key in found}
        for key in ("tr_ms", "te_ms", "ti_ms"):
            if key in facts:
                facts[key] = 1000.0 * float(facts[key])
        return {k: "\\".join(map(str, v)) if isinstance(v, list) else v for k, v in facts.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def contrast_of(facts: Mapping[str, object]) -> str:
    """Contrast type from tags; empty where they do not say.

    Words of the description first (Dixon parts and inversion recovery are not in TR and TE), then the usual limits for spin echo:
    T1 up to TR 1000 and TE 30 ms; PD with long TR and TE up to 45 ms; T2 with long TR and TE beyond.
    """
    words = " ".join(str(facts.get(k, "")) for k in ("description", "protocol", "sequence_name", "image_type", "options")).upper()
    tokens = set(words.replace("\\", " ").replace("_", " ").replace("-", " ").replace("*", " ").split())
    suppressed = bool(tokens & {"FS", "FATSAT", "SPAIR", "SPIR", "FAT_SAT", "CHESS"}) or "FAT SAT" in words or "FATSAT" in words
    ti, tr, te = (_number(facts.get(k)) for k in ("ti_ms", "tr_ms", "te_ms"))
    if tokens & {"STIR", "TIRM"} or (ti is not None and 80 < ti < 260 and "IR" in str(facts.get("sequence", ""))):
        return "STIR"
    if tokens & {"W", "WATER"} or "WATER" in words:
        return "Dixon water"
    if "DIXON" in words and tokens & {"F", "FAT"}:
        return "Dixon fat"
    if tokens & {"OPP", "OUT"} and ("DIXON" in words or "PHASE" in words):
        return "Dixon opposed phase"
    base = _by_times(tr, te, str(facts.get("sequence", "")), _number(facts.get("flip_deg")))
    base = base or next((c for c in ("T1", "T2", "PD") if c in tokens or any(t.startswith(c + "W") for t in tokens)), "")
    return f"{base} fat-suppressed" if base and suppressed else base


def _number(value: object) -> float | None:
    try:
        return float(str(value).split("\\")[0])
    except ValueError:
        return None


def _by_times(tr: float | None, te: float | None, sequence: str, flip: float | None) -> str:
    if tr is None or te is None:
        return ""
    if "GR" in sequence and "SE" not in sequence:  # gradient echo: the flip angle decides between T1 and PD
        return "T2" if te > 15 else "T1" if flip is None or flip >= 20 or tr < 12 else "PD"
    if te <= 30 and tr <= 1000:
        return "T1"
    return ("PD" if te <= 45 else "T2") if tr > 1000 else ""


def contrast_from_histogram(image: object) -> str:
    """Contrast type from signal alone, a guess: what lies just below the skin is fat, and how bright it is against the rest tells.

    Fat much darker than the bright tissues: fat-suppressed.  Fat the brightest: T1.  Something clearly brighter than fat (fluid): T2.
    Between: PD.
    """
    import SimpleITK as sitk

    from .mr_tissue import classify, isotropic

    tissue = classify(isotropic(image, 2.5))
    values = sitk.GetArrayFromImage(tissue.image)
    deep = values[tissue.body & (tissue.depth_mm > 15)]
    ring = values[tissue.body & (tissue.depth_mm > 3) & (tissue.depth_mm < 12)]
    if deep.size < 100 or ring.size < 100:
        return "unknown"
    fat, median, bright = float(np.percentile(ring, 60)), float(np.median(deep)), float(np.percentile(deep, 99))
    if fat < 0.8 * median:
        return "STIR"
    if bright > 1.25 * fat:
        return "T2"
    return "T1" if median < 0.6 * fat else "PD"


def caveats(image: object, facts: Mapping[str, object], contrast: str, source: str) -> tuple[str, ...]:
    """What this series does not show well, one sentence each."""
    notes = []
    if source == "histogram":
        notes.append(f"The MR contrast was taken as {contrast} from the grey values alone: its tags do not say.")
    spacing = np.asarray(image.GetSpacing())
    thick, gap = float(spacing.max()), None
    thickness = _number(facts.get("thickness_mm"))
    if thickness is not None and thick - thickness > 0.1:
        gap = thick - thickness
        notes.append(f"The slices are {thickness:g} mm thick with gaps of {gap:.1f} mm between them: what lies in a gap is not in the images.")
    if thick > 2.5 and gap is None:
        notes.append(f"The slices are {thick:.1f} mm apart: positions across them are uncertain by about {thick / 4:.1f} mm.")
    reach = 0.5 * float((np.asarray(image.GetSize()) * spacing).max())
    corrected = any(w in str(facts.get("image_type", "")).upper() for w in ("DIS2D", "DIS3D"))
    if not corrected:
        notes.append("Gradient distortion: the tags do not say that it was corrected; about 1 mm is to be expected" + (
            f", more beyond {FAR_FROM_CENTRE_MM:g} mm from the scanner's centre." if reach > FAR_FROM_CENTRE_MM else "."))
    return tuple(notes)


def recognise(path: str | Path, image: object | None = None) -> tuple[str, str]:
    """(``"CT"`` or ``"MR"``, how it was recognised: empty when a tag says so).

    Without tags: values below -200 are Hounsfield units; a volume that never goes below zero is MR.
    """
    modality = str(read_facts(path).get("modality", "")).upper()
    if modality:
        return ("MR" if modality == "MR" else "CT"), ""
    return modality_from_values(read_volume(path) if image is None else image)


def modality_from_values(image: object) -> tuple[str, str]:
    """The same of an image without tags, by its values alone."""
    import SimpleITK as sitk

    return modality_of_lowest(float(sitk.GetArrayViewFromImage(image).min()))


def modality_of_lowest(low: float) -> tuple[str, str]:
    """The same by the lowest value alone."""
    if low < -200:
        return "CT", ""
    if low >= 0:
        return "MR", "The volume was taken as MR: no tag says what it is, and it has no values below zero. If it is CT, say so."
    return "CT", ""
