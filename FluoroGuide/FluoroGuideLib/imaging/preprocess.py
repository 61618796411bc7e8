"""From stored values to a line-integral-like picture: bone bright, the field masked, each decision noted.

The steps, each its own function: find the field (:func:`~.field.find_field`), mask saturated pixels
(:func:`saturated`), burned-in text (:func:`~.masks.text_mask`) and metal (:func:`~.masks.metal_mask`), decide whether
bone is dark (:func:`~.polarity.detect_polarity`), take the logarithm of linear intensities and scale
(:func:`fit_normalization`).  :func:`normalize` runs them; every decision can be given instead, and what each step
masked is in :attr:`Normalized.parts`.  A window for display (VOI LUT) plays no part: it changes no measured value.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np

from ..errors import FluoroGuideError
from .field import find_field
from .masks import metal_mask, text_mask
from .polarity import detect_polarity

__all__ = ["POLARITIES", "RELATIONSHIPS", "Normalized", "detect_polarity", "find_field", "fit_normalization", "normalize", "saturated"]

POLARITIES = ("bone dark", "bone bright")
RELATIONSHIPS = ("LIN", "LOG", "DISP")


@dataclass(frozen=True, eq=False)
class Normalized:
    """A normalised picture.

    Attributes
    ----------
    pixels
        float32 (rows, columns), 0..1 inside the field, bone bright; 0 outside it.  Masked metal keeps its values, so that a
        needle can be seen.
    mask
        bool (rows, columns): pixels that show the patient.
    notes
        One sentence per decision.
    polarity
        One of :data:`POLARITIES`: how bone looked in the picture given.
    confidence
        0.5 (a guess) to 1 (certain) of that polarity; 1 when it was given.
    relationship
        One of :data:`RELATIONSHIPS` as it was used.
    field
        bool (rows, columns): inside the exposed field and not known to be invalid; ``mask`` is this without
        saturated pixels, text and metal.
    low_high
        Stored values that became the two ends of the window.
    base_range
        Least and greatest stored value used, from which linear intensities get their logarithm.
    saturated_below, saturated_above
        Stored values at or beyond which pixels are saturated; infinite when none are.
    parts
        ``"outside field"``, ``"saturated"``, ``"text"``, ``"metal"``: what each step masked.
    """

    pixels: np.ndarray
    mask: np.ndarray
    notes: tuple[str, ...]
    polarity: str
    confidence: float
    relationship: str
    field: np.ndarray | None = None
    low_high: tuple[float, float] = (0.0, 1.0)
    base_range: tuple[float, float] = (0.0, 1.0)
    saturated_below: float = -np.inf
    saturated_above: float = np.inf
    parts: dict[str, np.ndarray] = dataclass_field(default_factory=dict)


def normalize(
    pixels: np.ndarray, *, polarity: str | None = None, relationship: str | None = None, mask: np.ndarray | None = None,
    field: bool | np.ndarray = True, mask_saturated: bool = True, mask_metal: bool = True, mask_text: bool = True,
    check_polarity: bool = True, percentiles: tuple[float, float] = (0.1, 99.9),
) -> Normalized:
    """Normalise one picture.

    Parameters
    ----------
    pixels
        (rows, columns), any number type.  Pixels that are not finite are masked.
    polarity
        ``"bone dark"``, ``"bone bright"``, or ``None`` to detect it.
    relationship
        What the values are: ``"LIN"`` (proportional to intensity), ``"LOG"``, ``"DISP"`` (for display), as DICOM
        (0028,1040) says; ``None`` and other terms are treated as ``"DISP"``: no logarithm is taken.
    mask
        bool (rows, columns): pixels known to be valid (shutters, padding); ``None`` for all.
    field
        ``True``: find the exposed field in the pixels; ``False``: do not; or a bool array that is the field.
    mask_saturated
        Mask plateaus at either end of the values.
    mask_metal, mask_text
        Mask metal (:class:`~.live_normalize.StreamNormalizer` does not: instruments move), and text or markers burned into the picture.
    check_polarity
        Compare a polarity that was given with what the pixels look like, and note a contradiction.
    percentiles
        Values of the masked picture that become 0 and 1; what lies beyond is clipped.

    Raises
    ------
    FluoroGuideError
        Not a 2-D picture, an unknown word, a mask of another size, or nothing left to look at.
    """
    values, valid = _checked(pixels, mask, polarity, relationship)
    notes: list[str] = []
    exposed = _field_mask(values, valid, field, notes)
    used = valid & exposed
    letters = text_mask(values, used) if mask_text else np.zeros_like(used)
    used &= ~letters
    limits = saturation_limits(values, used, np.asarray(pixels).dtype) if mask_saturated else (-np.inf, np.inf)
    plateau = used & ((values <= limits[0]) | (values >= limits[1]))
    if polarity is None or check_polarity:
        polarity, confidence = _decide_polarity(values, valid & ~letters, exposed, plateau, polarity, relationship, notes)
    else:
        confidence = 1.0
        notes.append(f"{polarity} in the picture given: told")
    used &= ~plateau
    if used.sum() < max(64, 0.01 * used.size):
        share = f"{100 * used.mean():.2f} %"
        raise FluoroGuideError("Less than 1 % of the picture shows anything", share, "Check the shutters, or give the mask yourself")
    relationship = relationship if relationship in RELATIONSHIPS else "DISP"
    inside = values[used]
    base = float(inside.min()), float(inside.max())
    low, high = np.percentile(inside[:: max(1, inside.size // 500_000)], percentiles).tolist()
    if high <= low:
        raise FluoroGuideError("The X-ray has no contrast inside its field", None, "Check the shutters and the export")
    result = fit_normalization(values, polarity, relationship, base, (low, high))
    metal = metal_mask(result, used) & used if mask_metal else np.zeros_like(used)
    seen = valid & exposed & ~letters
    result *= seen  # saturated pixels keep their value for the eye; text may name a patient and goes
    for part, name in ((plateau, "saturated"), (letters, "burned-in text"), (metal, "metal")):
        if part.any():
            notes.append(f"{100 * part.mean():.1f} % of the pixels are {name} and masked")
    notes.append(_VALUES_NOTES["bone bright" if polarity == "bone bright" else relationship])
    return Normalized(
        result, used & ~metal, tuple(notes), polarity, confidence, relationship, seen, (low, high), base, *limits,
        parts={"outside field": ~exposed, "saturated": plateau, "text": letters, "metal": metal},
    )


def _checked(pixels: np.ndarray, mask: np.ndarray | None, polarity: str | None, relationship: str | None) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(pixels)
    if values.ndim != 2 or min(values.shape) < 8 or not (np.issubdtype(values.dtype, np.number) or values.dtype == bool) or np.iscomplexobj(values):
        raise FluoroGuideError("The X-ray is not one grey picture of at least 8 x 8 pixels", f"shape {values.shape}, {values.dtype}")
    if polarity not in (None, *POLARITIES):
        raise FluoroGuideError("The polarity is not known", polarity, "Use one of " + ", ".join(POLARITIES))
    if relationship is not None and not isinstance(relationship, str):
        raise FluoroGuideError("The pixel intensity relationship is not a word", relationship, "Use one of " + ", ".join(RELATIONSHIPS))
    values = values.astype(np.float32)
    valid = np.isfinite(values)
    if mask is not None:
        if np.shape(mask) != values.shape:
            raise FluoroGuideError("The mask and the X-ray differ in size", f"{np.shape(mask)}, {values.shape}")
        valid &= np.asarray(mask, bool)
    if not valid.any():
        raise FluoroGuideError("The X-ray has no valid pixel", None, "Check the file and its mask")
    inside = values[valid]
    middle = float(np.median(inside[:: max(1, inside.size // 100_000)]))
    if inside.min() == inside.max():
        raise FluoroGuideError("All pixels of the X-ray have the same value", middle, "Check the export or the shutter")
    return np.where(np.isfinite(values), values, np.float32(middle)), valid


# ---- the field --------------------------------------------------------------------------------------------------
def _field_mask(values: np.ndarray, valid: np.ndarray, field: bool | np.ndarray, notes: list[str]) -> np.ndarray:
    if isinstance(field, np.ndarray):
        if field.shape != values.shape:
            raise FluoroGuideError("The field mask and the X-ray differ in size", f"{field.shape}, {values.shape}")
        notes.append("the field was given")
        return field.astype(bool)
    if not field:
        return np.ones_like(valid)
    found = find_field(values)
    if found is None:
        notes.append("no collimation or round field was found: the whole picture is used")
        return np.ones_like(valid)
    mask, dark = found
    notes.append(f"outside the field, {'dark' if dark else 'bright'} and uniform, lie {100 * (1 - mask.mean()):.0f} % of the picture")
    return mask


def saturation_limits(values: np.ndarray, used: np.ndarray, dtype: np.dtype | None = None) -> tuple[float, float]:
    """Values at or below, and at or above which pixels are saturated; infinite where there is no plateau.

    A plateau holds at least 0.2 % of the used pixels.  For integers it is the extreme value itself; a single brightest
    pixel is no plateau.
    """
    inside = values[used]
    if not inside.size:
        return -np.inf, np.inf
    low, high = float(inside.min()), float(inside.max())
    slack = 0.0 if dtype is not None and np.issubdtype(dtype, np.integer) else 1e-6 * (high - low)
    least = 0.002 * inside.size
    return (low + slack if (inside <= low + slack).sum() >= least else -np.inf,
            high - slack if (inside >= high - slack).sum() >= least else np.inf)


def saturated(values: np.ndarray, used: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """The used pixels beyond :func:`saturation_limits`."""
    low, high = saturation_limits(values, used, dtype)
    return used & ((values <= low) | (values >= high))


# ---- polarity ---------------------------------------------------------------------------------------------------
def _decide_polarity(
    values: np.ndarray, valid: np.ndarray, exposed: np.ndarray, plateau: np.ndarray, given: str | None, relationship: str | None,
    notes: list[str],
) -> tuple[str, float]:
    detected, confidence = detect_polarity(values, valid & exposed, plateau, valid & ~exposed, relationship in ("LIN", "LOG"))
    if given is None:
        notes.append(f"{detected} in the picture given: detected with confidence {confidence:.2f}")
        return detected, confidence
    notes.append(f"{given} in the picture given: told")
    if detected != given and confidence > 0.9:
        notes.append(f"the pixels look like the opposite polarity ({detected}, confidence {confidence:.2f})")
    return given, 1.0


# ---- values -----------------------------------------------------------------------------------------------------
_VALUES_NOTES = {
    "bone bright": "bone is bright already: values used as they are", "LIN": "negative logarithm of linear intensities",
    "LOG": "values turned over; no logarithm (logarithmic or display values)",
    "DISP": "values turned over; no logarithm (logarithmic or display values)",
}


def fit_normalization(
    values: np.ndarray, polarity: str, relationship: str, base_range: tuple[float, float], low_high: tuple[float, float],
) -> np.ndarray:
    """float32 0..1 that grows with the line integral of attenuation; ``low_high`` are the stored values at its ends.

    Linear intensities: ``-log((I + e) / (I_max + e))`` with e = 0.2 % of the range, below which detector offset and
    8-bit steps rule.  Logarithmic and display values: used as they are, turned over when bone is dark.
    """
    low, high = low_high
    ends = np.array([low, high], np.float32)
    if polarity == "bone dark" and relationship == "LIN":
        least = min(base_range[0], 0.0)
        e = 0.002 * (base_range[1] - least)
        values, ends = (np.log(np.maximum(v - np.float32(least), 0) + np.float32(e)) for v in (values, ends))
    start, stop = (ends[1], ends[0]) if polarity == "bone dark" else (ends[0], ends[1])
    result = (values - start) * np.float32(1.0 / (float(stop) - float(start)))
    return np.clip(result, 0, 1, out=result)
