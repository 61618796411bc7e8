"""Pixels that do not show the patient although the field does: metal, and text or markers burned into the picture."""

from __future__ import annotations

import numpy as np

from .field import reduced


def metal_mask(line: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Where metal lies: screws, plates, prostheses, thick instruments.

    Metal stands out twice: sharply against what surrounds it, and against the whole picture, being denser than nearly
    all anatomy.  Both are asked for, so dense cortical bone is not taken for it; a needle thinner than about two
    pixels of the reduced picture, or one that lies in front of denser anatomy, may be left in.

    Parameters
    ----------
    line, used
        (rows, columns): values that grow with attenuation; pixels to look at.

    Returns
    -------
    bool (rows, columns), a margin of one reduced pixel included.
    """
    from scipy import ndimage

    nothing = np.zeros(line.shape, bool)
    small, step = reduced(np.where(used, line, np.float32(0)), 384)
    weight = reduced(used.astype(np.float32), 384)[0]
    inside = weight > 0.5
    if inside.sum() < 400:
        return nothing
    small = np.where(inside, small / np.maximum(weight, 0.5), 0).astype(np.float32)
    # Around: mean of the used pixels within about 10 % of the width (two box filters, whatever the size, in one pass each).
    size = int(0.1 * max(small.shape)) | 1
    around, norm = (ndimage.uniform_filter(ndimage.uniform_filter(a, size), size) for a in (small, inside.astype(np.float32)))
    excess = np.where(inside, small - around / np.maximum(norm, 1e-3), 0)
    spread = 1.4826 * float(np.median(np.abs(excess[inside] - np.median(excess[inside]))))
    seeds = excess > max(6 * spread, 1e-6)
    if seeds.sum() < 6 or seeds.sum() > 0.2 * inside.sum():
        return nothing
    rest = ndimage.uniform_filter(small, 9)[inside & ~ndimage.binary_dilation(seeds, iterations=4)]
    if rest.size < 100:
        return nothing
    level = float(np.median(small[seeds]))
    low, middle, anatomy = np.percentile(rest, (2, 50, 98)).tolist()
    # Where nothing but the dense thing shows (a phantom, a vessel full of contrast on a flat background) it is what is looked at, not metal.
    if level < anatomy + 0.25 * (anatomy - low) or anatomy - low < 0.6 * (level - middle):
        return nothing
    grown = ndimage.binary_propagation(seeds, mask=inside & (small > 0.5 * (level + anatomy)))
    found = _sharp_parts(small, grown, 6)
    if not found.any() or found.sum() > 0.25 * inside.sum():
        return nothing
    return _enlarged(ndimage.binary_dilation(found), step, line.shape)


def _sharp_parts(picture: np.ndarray, mask: np.ndarray, least: int) -> np.ndarray:
    """The connected parts with at least so many pixels whose sides fall off within about two pixels, as metal's do and bone's do not."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    steepness = np.hypot(*np.gradient(picture))
    keep = np.zeros(count + 1, bool)
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        window = tuple(slice(max(s.start - 6, 0), s.stop + 6) for s in box)
        part = labels[window] == index
        if part.sum() < least:
            continue
        side = ndimage.binary_dilation(part) & ~ndimage.binary_erosion(part)
        around = ndimage.binary_dilation(part, iterations=6) & ~ndimage.binary_dilation(part, iterations=4)
        if not around.any():
            continue
        height = np.median(picture[window][part]) - np.median(picture[window][around])
        keep[index] = np.percentile(steepness[window][side], 60) > 0.18 * height
    return keep[labels]


def _enlarged(mask: np.ndarray, step: int, shape: tuple[int, int]) -> np.ndarray:
    """A reduced mask at full size."""
    full = np.zeros(shape, bool)
    large = np.repeat(np.repeat(mask, step, axis=0), step, axis=1)
    full[:large.shape[0], :large.shape[1]] = large
    return full


def text_mask(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Where text and markers were burned in: letters of one extreme value, thin, sharp, at least two in a row.

    Parameters
    ----------
    values, valid
        float32 (rows, columns); pixels to look at.
    """
    from scipy import ndimage

    found = np.zeros(values.shape, bool)
    if not valid.any():
        return found
    low, high = float(values[valid].min()), float(values[valid].max())
    if high <= low:
        return found
    for near in (values >= high - 0.02 * (high - low), values <= low + 0.02 * (high - low)):
        near &= valid
        share = near.mean()
        if not 0 < share < 0.25:
            continue
        labels, count = ndimage.label(near, np.ones((3, 3)))
        if count > 5000:  # noise at the end of the values, not letters
            continue
        letters = _letters(values, labels, high - low)
        for rows, columns in _words(letters):
            found[max(rows.start - 3, 0):rows.stop + 3, max(columns.start - 3, 0):columns.stop + 3] = True
    return found & valid


def _letters(values: np.ndarray, labels: np.ndarray, span: float) -> list[tuple[slice, slice]]:
    """Bounding boxes of parts that are as large, thin and sharp as letters."""
    from scipy import ndimage

    rows, columns = values.shape
    tallest, widest = max(12, 0.08 * rows), max(12, 0.1 * columns)
    boxes = []
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        height, width = (s.stop - s.start for s in box)
        if not 6 <= height <= tallest or not 1 <= width <= widest:
            continue
        window = tuple(slice(max(s.start - 3, 0), s.stop + 3) for s in box)
        part = labels[window] == index
        area = part.sum()
        if not 8 <= area <= 0.9 * max(height * width, 20) or ndimage.distance_transform_edt(np.pad(part, 1)).max() > max(3.0, 0.008 * rows):
            continue
        ring = ndimage.binary_dilation(part, iterations=3) & ~ndimage.binary_dilation(part, iterations=1)
        # Strokes are uniform and end within two pixels; bone at the end of the window fades.
        if abs(np.median(values[window][part]) - np.median(values[window][ring])) > 0.3 * span:
            boxes.append(box)
    return boxes


def _words(boxes: list[tuple[slice, slice]]) -> list[tuple[slice, slice]]:
    """Boxes that have a neighbour of like height in the same line."""
    result = []
    for i, (r, c) in enumerate(boxes):
        height = r.stop - r.start
        for j, (r2, c2) in enumerate(boxes):
            other = r2.stop - r2.start
            overlap = min(r.stop, r2.stop) - max(r.start, r2.start)
            gap = max(c.start, c2.start) - min(c.stop, c2.stop)
            if i != j and overlap > 0.5 * min(height, other) and max(height, other) < 2.5 * min(height, other) and gap < 2.0 * max(height, other):
                result.append((r, c))
                break
    return result
