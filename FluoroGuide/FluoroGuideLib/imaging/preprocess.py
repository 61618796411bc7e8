"""From stored values to a line-integral-like picture: bone bright, the field masked, each decision noted.

The steps, each its own function: find the field (:func:`find_field`), mask saturated pixels (:func:`saturated`),
decide whether bone is dark (:func:`detect_polarity`), take the logarithm of linear intensities
(:func:`to_line_integral`), scale (:func:`scale`).  :func:`normalize` runs them; every decision can be given instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError

POLARITIES = ("bone dark", "bone bright")
RELATIONSHIPS = ("LIN", "LOG", "DISP")


@dataclass(frozen=True, eq=False)
class Normalized:
    """A normalised picture.

    Attributes
    ----------
    pixels
        float32 (rows, columns), 0..1 inside the mask, bone bright; 0 outside it.
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
    """

    pixels: np.ndarray
    mask: np.ndarray
    notes: tuple[str, ...]
    polarity: str
    confidence: float
    relationship: str


def normalize(
    pixels: np.ndarray, *, polarity: str | None = None, relationship: str | None = None, mask: np.ndarray | None = None,
    field: bool | np.ndarray = True, mask_saturated: bool = True, percentiles: tuple[float, float] = (0.1, 99.9),
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
    plateau = saturated(values, used, np.asarray(pixels).dtype) if mask_saturated else np.zeros_like(used)
    polarity, confidence = _decide_polarity(values, valid, exposed, plateau, polarity, relationship, notes)
    if plateau.any():
        notes.append(f"{100 * plateau.mean():.1f} % of the pixels are saturated and masked")
    used &= ~plateau
    if used.sum() < max(64, 0.01 * used.size):
        share = f"{100 * used.mean():.2f} %"
        raise FluoroGuideError("Less than 1 % of the picture shows anything", share, "Check the shutters, or give the mask yourself")
    relationship = relationship if relationship in RELATIONSHIPS else "DISP"
    line, note = to_line_integral(values, used, polarity, relationship)
    notes.append(note)
    result = scale(line, used, percentiles)
    return Normalized(result, used, tuple(notes), polarity, confidence, relationship)


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
    middle = float(np.median(values[valid]))
    if values[valid].min() == values[valid].max():
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


def find_field(values: np.ndarray, tolerance: float = 0.06) -> tuple[np.ndarray, bool] | None:
    """The exposed field of a picture and whether the outside is dark; ``None`` when the picture fills its frame.

    The outside is uniform, lies at one end of the values and is joined to the picture's edge, over two corners or a
    whole side.  Fields (round, rectangular, octagonal) are convex, so the convex hull of the rest repairs bites where
    dense anatomy meets the edge.  The rim, where blur and edge enhancement show, is cut by 2 % of the size.

    Parameters
    ----------
    values
        float32 (rows, columns), finite.
    tolerance
        How far the outside may vary, as a share of the range of values.
    """
    from scipy import ndimage

    small, step = _reduced(values, 256)
    # Noise outside the field must not decide; edges stay where they are to within the rim that is cut anyway.
    small = ndimage.gaussian_filter(small, 1.0)
    low, high = np.percentile(small, (0.1, 99.9))
    if high <= low:
        return None
    unit = (small - low) / (high - low)
    candidates = []
    for dark in (True, False):
        outside = _border_component(unit if dark else 1 - unit, tolerance)
        if outside is not None and not outside.all():
            inside = _largest(ndimage.binary_opening(~outside, iterations=2))
            distance = ndimage.distance_transform_edt(inside)
            rim = (distance > 3) & (distance <= 5) & ndimage.binary_dilation(outside, iterations=6)
            # Anatomy that fades towards the picture's edge has no step there.
            if not rim.any() or abs(np.median(unit[rim]) - np.median(unit[outside])) < 0.1:
                continue
            corners = int(outside[:: outside.shape[0] - 1, :: outside.shape[1] - 1].sum())
            candidates.append((corners, dark, inside))
    if not candidates:
        return None
    _, dark, inside = max(candidates, key=lambda c: (c[0], c[1]))
    if not 0.05 < inside.mean() < 0.995:
        return None
    return _hull_mask(inside, step, values.shape, max(1.0, 0.02 * max(values.shape))), dark


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    return mask if count < 2 else labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def _reduced(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Block means with at most about ``size`` pixels per side, and the block's side."""
    step = max(1, min(values.shape) // size)
    rows, columns = (n // step * step for n in values.shape)
    return values[:rows, :columns].reshape(rows // step, step, columns // step, step).mean((1, 3)), step


def _border_component(unit: np.ndarray, tolerance: float) -> np.ndarray | None:
    """Pixels near the low end joined to the edge, when they hold at least two corners or one whole side."""
    from scipy import ndimage

    ring = np.concatenate([unit[0], unit[-1], unit[:, 0], unit[:, -1]])
    level = np.percentile(ring, 10)
    if level > 0.15:
        return None
    labels, count = ndimage.label(unit <= level + tolerance)
    if not count:
        return None
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.unique(edge[edge > 0]))
    corners = outside[:: outside.shape[0] - 1, :: outside.shape[1] - 1].sum()
    sides = max(side.mean() for side in (outside[0], outside[-1], outside[:, 0], outside[:, -1]))
    return outside if corners >= 2 or sides > 0.95 else None


def _hull_mask(inside: np.ndarray, step: int, shape: tuple[int, int], margin: float) -> np.ndarray:
    """Convex hull of a reduced mask as a mask of the full size, its sides moved inwards by ``margin`` pixels.

    A side that lies on the picture's own edge over 30 % of its length is where the picture cuts the field: it has
    no rim and stays.
    """
    from scipy.spatial import ConvexHull

    points = np.column_stack(np.nonzero(inside)).astype(float)
    corners = np.concatenate([points + d for d in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))])
    corners = (corners + 0.5) * step - 0.5
    for axis in (0, 1):  # the blocks may leave out the last pixels
        corners[corners[:, axis] >= shape[axis] // step * step - 0.75, axis] = shape[axis] - 0.5
    hull = ConvexHull(corners)
    rows = np.arange(shape[0], dtype=float)
    first, last = np.full(shape[0], -np.inf), np.full(shape[0], np.inf)  # columns of the mask in each row
    for (a, b, offset), ends in zip(hull.equations, corners[hull.simplices], strict=True):
        cut_off = any(
            np.abs(ends[:, axis] - edge).max() < 0.1 and np.ptp(ends[:, 1 - axis]) > 0.3 * shape[1 - axis]
            for axis in (0, 1) for edge in (-0.5, shape[axis] - 0.5)
        )
        room = -offset - (0 if cut_off else margin) - a * rows  # b * column <= room
        if b > 1e-9:
            last = np.minimum(last, room / b)
        elif b < -1e-9:
            first = np.maximum(first, room / b)
        else:
            first = np.where(room < 0, np.inf, first)
    columns = np.arange(shape[1])
    return (columns >= first[:, None]) & (columns <= last[:, None])


def saturated(values: np.ndarray, used: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """Pixels on a plateau at either end of the values: at least 0.2 % of the used pixels share the extreme value.

    For integers the plateau is the extreme value itself; a single brightest pixel is no plateau.
    """
    result = np.zeros(values.shape, bool)
    inside = values[used]
    if not inside.size:
        return result
    slack = 0.0 if dtype is not None and np.issubdtype(dtype, np.integer) else 1e-6 * float(np.ptp(inside))
    for extreme, sign in ((inside.max(), 1), (inside.min(), -1)):
        plateau = used & (sign * (values - extreme) >= -slack)
        if plateau.sum() >= 0.002 * inside.size:
            result |= plateau
    return result


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


def detect_polarity(values: np.ndarray, used: np.ndarray, plateau: np.ndarray, outside: np.ndarray, intensities: bool = False) -> tuple[str, float]:
    """Whether bone is dark or bright in a picture, with a confidence between 0.5 and 1.

    Votes, added as log odds (weights set on real XA, RF and TIFF pictures and on projected CT):

    * thin structures (cortex seen edge-on, wires, vessels with contrast) are dense (:func:`thin_structures`);
    * a large plateau inside the field is open air;
    * outside the field no X-ray arrives, which looks dense (little weight: some systems paint it black later);
    * values that are said to be (logarithms of) intensities are small where little arrives.

    Parameters
    ----------
    values, used, plateau, outside
        (rows, columns): values; pixels inside the field; those of them on a plateau; pixels outside the field.
    intensities
        The file says that the values are linear in, or the logarithm of, the intensity.
    """
    ridges, skewness = thin_structures(values, used & ~plateau)
    score = 1.5 * intensities + 3.0 * float(np.clip(ridges, -1, 1)) - float(np.clip(skewness, -1.5, 1.5))
    middle = float(np.median(values[used])) if used.any() else 0.0
    if (plateau & used).mean() > 0.01:
        score += 1.0 if np.median(values[plateau & used]) > middle else -1.0
    if outside.mean() > 0.01:
        score += 0.5 if np.median(values[outside]) < middle else -0.5
    confidence = 1 / (1 + np.exp(-abs(score)))
    return ("bone dark" if score >= 0 else "bone bright"), float(confidence)


def thin_structures(values: np.ndarray, used: np.ndarray) -> tuple[float, float]:
    """Log ratio of dark to bright ridges (positive: dark ones are stronger), and the skewness of a band of scales.

    Both on a picture reduced to about 384 pixels and equalised by rank, so that gamma, logarithm and windowing do not
    matter and turning the values over changes just the signs.  Ridges: largest eigenvalue of the Hessian at 3 pixels
    where the other is below half of it, cubed; band: between 1 and 4 pixels.
    """
    from scipy import ndimage

    small, _ = _reduced(values, 384)
    inside = _reduced(used.astype(np.float32), 384)[0] > 0.999
    inner = ndimage.binary_erosion(inside, iterations=8, border_value=1)
    if inner.sum() < 100:
        return 0.0, 0.0
    ranks = np.full(small.shape, 0.5, np.float32)
    _, index, counts = np.unique(small[inside], return_inverse=True, return_counts=True)
    ranks[inside] = ((np.cumsum(counts) - 0.5 * counts) / inside.sum())[index]
    rr, cc, rc = (ndimage.gaussian_filter(ranks, 3.0, order=o) for o in ((2, 0), (0, 2), (1, 1)))
    mean, half = (rr + cc) / 2, np.sqrt(((rr - cc) / 2) ** 2 + rc**2)
    upper, lower = (mean + half)[inner], (mean - half)[inner]
    dark = np.where((upper > 0) & (np.abs(lower) < 0.5 * upper), upper, 0) ** 3
    bright = np.where((lower < 0) & (np.abs(upper) < -0.5 * lower), -lower, 0) ** 3
    band = (ndimage.gaussian_filter(ranks, 1.0) - ndimage.gaussian_filter(ranks, 4.0))[inner]
    band = band - band.mean()
    tiny = 1e-15 + 1e-6 * (dark.sum() + bright.sum())
    return float(np.log((dark.sum() + tiny) / (bright.sum() + tiny))), float((band**3).mean() / ((band**2).mean() ** 1.5 + 1e-15))


# ---- values -----------------------------------------------------------------------------------------------------
def to_line_integral(values: np.ndarray, used: np.ndarray, polarity: str, relationship: str) -> tuple[np.ndarray, str]:
    """Values that grow with the line integral of attenuation, and a note on what was done.

    Linear intensities: ``-log((I + e) / (I_max + e))`` with e = 0.2 % of the range, below which detector offset and
    8-bit steps rule.  Logarithmic and display values: used as they are, turned over when bone is dark.
    """
    if polarity == "bone bright":
        return values, "bone is bright already: values used as they are"
    if relationship != "LIN":
        return -values, "values turned over; no logarithm (logarithmic or display values)"
    low, high = float(values[used].min()), float(values[used].max())
    base = min(low, 0.0)
    e = 0.002 * (high - base)
    return -np.log(np.maximum(values - base, 0) + e) + np.log(high - base + e), "negative logarithm of linear intensities"


def scale(line: np.ndarray, used: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """float32 with the two percentiles of the used pixels at 0 and 1, clipped; 0 outside."""
    low, high = np.percentile(line[used], percentiles)
    if high <= low:
        raise FluoroGuideError("The X-ray has no contrast inside its field", None, "Check the shutters and the export")
    return np.where(used, np.clip((line - low) / (high - low), 0, 1), 0).astype(np.float32)
