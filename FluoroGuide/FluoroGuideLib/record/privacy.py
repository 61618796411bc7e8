"""Keeping patients out of outputs: pseudonyms, known identifiers, file names, and text burned into pictures.

Outputs hold no identifiers unless the user asks for them.  What FluoroGuide writes itself carries none; this module is for
what people and devices bring in: names of files and nodes, notes, tags, and the screen of a C-arm on a frame grabber.
Times of the procedure stay.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .userdata import private_folder, user_folder

REMOVED = "[removed]"
PATIENT_TAGS = (
    "PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "PatientAddress", "PatientTelephoneNumbers",
    "PatientBirthName",
    "PatientMotherBirthName", "MilitaryRank", "AccessionNumber", "StudyID", "InstitutionName", "InstitutionAddress", "StationName",
    "DeviceSerialNumber",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "RequestingPhysician", "IssuerOfPatientID", "AdmissionID",
    "PatientComments",
)
UID = re.compile(r"\b[0-2](?:\.(?:0|[1-9]\d*)){5,}\b")
CARET_NAME = re.compile(r"[^\W\d_][\w'-]*\^[\w'^.=-]*", re.UNICODE)
FILE_NAME = re.compile(
    r"(?:[A-Za-z]:)?[^\s\"'<>|]*\.(?:dcm|ima|dicom|png|jpe?g|tiff?|bmp|nii(?:\.gz)?|nrrd|nhdr|mh[ad]|mrb|mrml|avi|mp4)\b", re.IGNORECASE,
)
_PART = r"[^\s\\/\"'<>|:;,()]"
FOLDERS = re.compile(rf"(?<![^\s\"'(=:,;])(?:file:|[A-Za-z]:)?[\\/]{{1,3}}(?:{_PART}+[\\/]+)+{_PART}*")


_VERDICTS = ("pass", "warn", "fail")
FIXED_WORDS = {
    "laterality": ("left", "right", "bilateral", "midline"), "verdict": _VERDICTS, "registration_verdict": _VERDICTS,
    "method": ("manual", "automatic"),
    "kind": ("fluoroscopy", "acquisition", "unknown"), "source": ("rdsr", "image headers", "manual"), "plane": ("A", "B", "single"),
    "fluoroscopy_time_source": ("reported", "added up from events", "manual"), "scale": ("NRS", "VAS"), "when": ("before", "after"),
    "severity": ("minor", "major"), "burned_in": ("no", "yes", "unknown"), "format": ("fluoroguide-record", "fluoroguide-plan", "fluoroguide-case"),
}
"""Values that the schema allows under a key."""


# ---- pseudonyms -------------------------------------------------------------------------------------------------------
def installation_secret(folder: str | Path | None = None) -> bytes:
    """The secret (32 random bytes) of this installation, made at the first call, readable by its owner alone.

    Raises
    ------
    FluoroGuideError
        It cannot be read or written: without it no pseudonym is made.
    """
    path = private_folder(Path(folder) if folder is not None else user_folder()) / "secret.key"
    try:
        if not path.exists():
            _write_secret(path)
        secret = path.read_bytes()
    except OSError as error:
        raise FluoroGuideError("The installation's secret cannot be written", error.strerror, "Choose a data folder that you may write to") from None
    if len(secret) != 32:
        raise FluoroGuideError("The installation's secret is damaged", path.name, "Restore it from a backup; a new one gives patients new keys")
    return secret


def _write_secret(path: Path) -> None:
    """Whole or not at all, and only the first of two processes that start together."""
    part = path.with_name(f"secret.{os.getpid()}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        except OSError:  # a disk without links
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def patient_key(patient_id: str, issuer: str = "", *, secret: bytes | None = None) -> str:
    """A pseudonym of a patient: HMAC-SHA-256 of issuer and id with the installation's secret.

    The same patient has the same key on this installation only.  A bare hash could be undone by trying all patient
    numbers; this cannot without the secret.

    Raises
    ------
    FluoroGuideError
        The id is empty: everybody without one would share a key.
    """
    if not str(patient_id).strip():
        raise FluoroGuideError("The patient has no id", None, "Leave the patient's key empty")
    message = f"{str(issuer).strip()}\x1f{str(patient_id).strip()}".encode()
    return "FG-" + hmac.new(secret or installation_secret(), message, hashlib.sha256).hexdigest()[:24]


# ---- words ------------------------------------------------------------------------------------------------------------
def identifiers_of(dataset: object) -> set[str]:
    """Everything in a DICOM data set (also nested) that names a person, a place or an instance."""
    words: set[str] = set()
    for element in dataset.iterall():
        if element.keyword in PATIENT_TAGS or element.VR == "PN" or (element.VR == "UI" and not str(element.value).startswith("1.2.840.10008.")):
            values = element.value if isinstance(element.value, (list, tuple)) or hasattr(element.value, "append") else [element.value]
            words |= {str(v).strip() for v in values if v is not None and str(v).strip()}
    return words | set().union(*[_variants(w) for w in words]) if words else words


def _variants(word: str) -> set[str]:
    """How an identifier may be written elsewhere: parts of names, dates with separators."""
    found = {part for part in re.split(r"[\^=\s,]+", word) if len(part) > 2} if "^" in word else set()
    if not UID.fullmatch(word):
        found |= set(re.findall(r"\d{5,}", word))  # "PID-998877" is also written without its letters
    if re.fullmatch(r"(19|20)\d{6}", word):
        y, m, d = word[:4], word[4:6], word[6:]
        found |= {f"{y}-{m}-{d}", f"{d}.{m}.{y}", f"{m}/{d}/{y}", f"{d}/{m}/{y}"}
    return found


class Scrubber:
    """Removes known identifiers, and what looks like one, from text.

    Parameters
    ----------
    words
        Known identifiers; matched without regard to case and to what separates their parts (``DOE^JANE``, ``Doe, Jane``).
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        every = {v for w in words if w for v in ({str(w)} | _variants(str(w)))}
        patterns = sorted((_pattern(w) for w in every if len(w.strip()) > 1), key=len, reverse=True)
        self._words = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None

    def text(self, text: str) -> str:
        """``text`` without identifiers."""
        for pattern in (self._words, UID, CARET_NAME, FOLDERS, FILE_NAME):
            if pattern is not None:
                text = pattern.sub(REMOVED, text)
        return text

    def data(self, value: object, key: str = "") -> object:
        """Nested plain data without identifiers.

        Keys stay, except the names of outlines, which people write; so do the words of the schema itself: a patient called Left
        must not cost a record its laterality.
        """
        if isinstance(value, str):
            return value if value in FIXED_WORDS.get(key, ()) else self.text(value)
        if isinstance(value, dict):
            return {self.text(k) if key == "outlines" else k: self.data(v, k) for k, v in value.items()}
        return [self.data(v, key) for v in value] if isinstance(value, (list, tuple)) else value


def _pattern(word: str) -> str:
    parts = [re.escape(p) for p in re.split(r"[\^=\s,_]+", word.strip()) if p]
    body = r"[\^=\s,_.-]{0,3}".join(parts)
    edge = (r"(?<![^\W_])", r"(?![^\W_])")  # a short number inside a longer one is another number; "_" separates
    return edge[0] + body + edge[1]


def without_identifiers(data: dict, words: Iterable[str] = ()) -> dict:
    """A record's plain data as it may leave: no patient, no file names, no UIDs, pictures masked unless clean or reviewed."""
    from .withdrawal import without_pictures

    patient = data.get("patient") or {}
    scrubber = Scrubber([*words, *(v for v in patient.values() if isinstance(v, str))])
    kept = {
        key: data[key] for key in ("format", "schema_version", "readable_from", "record_id", "created_utc", "patient_key", "notice") if key in data
    }
    pictures = [_leaving(image, scrubber) for image in data.get("key_images", [])]
    if data.get("withdrawn"):
        data = {**data, "withdrawn": without_pictures(data["withdrawn"])}
    rest = scrubber.data({k: v for k, v in data.items() if k not in kept and k not in ("patient", "key_images")})
    result = {key: kept.get(key, rest.get(key)) for key in data} | {"patient": None, "key_images": pictures}
    if result.get("plan"):
        result["plan"] = {**result["plan"], "volume_name": "Volume" if result["plan"].get("volume_name") else ""}
    doses = [result.get("dose"), *(w.get("item") for w in result.get("withdrawn", []) if w.get("kind") == "dose")]
    for event in [e for dose in doses for e in (dose or {}).get("events", [])]:
        event["uid"] = None
    return result


def _leaving(image: dict, scrubber: Scrubber) -> dict:
    """A key image as it may leave."""
    from .key_images import KeyImage

    picture = KeyImage.from_dict(image)
    text = {k: scrubber.data(v) for k, v in image.items() if k not in ("png_base64", "sha256", "image_id")}
    if picture.may_leave:
        return {**image, **text}
    masked = KeyImage(picture.name, _masked_png(picture.png), masked=True).to_dict()
    return {**image, **text, "masked": True, "png_base64": masked["png_base64"], "sha256": masked["sha256"]}


@lru_cache(maxsize=32)
def _masked_png(png: bytes) -> bytes:
    """A PNG with its border and text masked; remembered, because an export writes the same picture several times."""
    from .key_images import KeyImage, png_of

    return png_of(masked_picture(KeyImage("picture", png).pixels()))


# ---- pictures -----------------------------------------------------------------------------------------------------------
GLYPH_PX = 7
"""Strokes of burned-in text are thinner than this on a 1024 px picture, scaled with its size but never below 5."""


def masked_picture(pixels: np.ndarray, field: np.ndarray | None = None) -> np.ndarray:
    """A picture with everything outside the X-ray field black, and text inside the field replaced by its surroundings.

    Parameters
    ----------
    pixels
        uint8 (rows, columns) or (rows, columns, 3); colour marks a screen's own drawing and is treated as text.
    field
        bool (rows, columns) of the X-ray field; found in the picture when None.

    Notes
    -----
    Text is what a morphological opening or closing with a square larger than its strokes takes away.  That also blurs thin
    bright or dark details such as needles: a person who wants them reviews the picture instead.
    """
    from scipy import ndimage

    pixels = np.asarray(pixels)
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    inside = _field_of(grey) if field is None else np.asarray(field, bool)
    size = max(5, round(GLYPH_PX * max(grey.shape) / 1024)) | 1
    text = text_mask(grey, inside, size)
    if pixels.ndim == 3:
        text |= np.ptp(pixels.astype(int), axis=2) > 24
    text = ndimage.binary_dilation(text, iterations=2)
    result = pixels.copy()
    planes = result[..., None] if result.ndim == 2 else result
    for k in range(planes.shape[2]):
        planes[..., k] = _filled(planes[..., k], text)
    planes[~inside] = 0
    return result


def text_mask(grey: np.ndarray, inside: np.ndarray, size: int) -> np.ndarray:
    """bool (rows, columns): thin structures of high contrast, and those near them."""
    from scipy import ndimage

    values = grey.astype(np.float32)
    # The border is taken out first: its edge would look like a stroke.
    middle = float(np.median(values[inside])) if inside.any() else 0.0
    values = np.where(ndimage.binary_erosion(inside, iterations=1), values, middle)
    bright = values - ndimage.grey_opening(values, size=(size, size))
    dark = ndimage.grey_closing(values, size=(size, size)) - values
    low, high = (np.percentile(values[inside], (1, 99)) if inside.any() else (0.0, 255.0))
    contrast = np.maximum(bright, dark)
    noise = 1.4826 * float(np.median(contrast[inside])) if inside.any() else 0.0
    strong = contrast > max(0.12 * max(high - low, 1.0), 4 * noise, 12.0)
    return (strong | _large_letters(values, inside, 5 * size)) & inside


def _large_letters(values: np.ndarray, inside: np.ndarray, size: int) -> np.ndarray:
    """Strokes thicker than anatomy's finest lines but drawn in pure white or black, as screens draw headlines."""
    from scipy import ndimage

    if not inside.any():
        return np.zeros(inside.shape, bool)
    lowest, highest = float(values[inside].min()), float(values[inside].max())
    limit = max(0.25 * (highest - lowest), 24.0)
    white = (values >= highest - 2) & (values - ndimage.grey_opening(values, size=(size, size)) > limit)
    black = (values <= lowest + 2) & (ndimage.grey_closing(values, size=(size, size)) - values > limit)
    return white | black


def _filled(plane: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The plane with the hole filled from its nearest surroundings, smoothed: nothing of what was in the hole remains."""
    from scipy import ndimage

    if not hole.any() or hole.all():
        return np.zeros_like(plane) if hole.all() else plane
    rows, columns = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
    return np.where(hole, ndimage.uniform_filter(plane[rows, columns], 5), plane).astype(plane.dtype)


def _field_of(grey: np.ndarray) -> np.ndarray:
    """The X-ray field of a screen: what :func:`~FluoroGuideLib.imaging.preprocess.find_field` finds, else the middle 90 %."""
    from ..imaging.preprocess import find_field

    found = find_field(grey.astype(np.float32)) if min(grey.shape) >= 32 else None
    if found is not None:
        return found[0]
    inside = np.zeros(grey.shape, bool)
    rows, columns = (max(1, round(0.05 * n)) for n in grey.shape)
    inside[rows:-rows, columns:-columns] = True
    return inside
