"""Whether bone is dark or bright in a picture."""

from __future__ import annotations

import numpy as np

from .field import reduced


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

    small, _ = reduced(values, 384)
    inside = reduced(used.astype(np.float32), 384)[0] > 0.999
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
