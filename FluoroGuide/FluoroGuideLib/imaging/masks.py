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
    """Where text and markers were burned in: thin, sharp strokes that reach the end of the values, as large as letters, at least two in a row.

    Parameters
    ----------
    values, valid
        float32 (rows, columns); pixels to look at.
    """
    found = np.zeros(values.shape, bool)
    if not valid.any():
        return found
    low, high = float(values[valid].min()), float(values[valid].max())
    span = high - low
    if span <= 0:
        return found
    for turned in (values, -values):
        top = float(turned[valid].max())
        ends = valid & (turned >= top - 0.02 * span)
        strokes = _strokes(turned, ends, span)
        if strokes is None:
            continue
        words = _words(_letters(strokes, ends))
        for rows, columns in words:
            if not _stands_alone(ends, rows, columns, words):
                continue
            found[max(rows.start - 3, 0):rows.stop + 3, max(columns.start - 3, 0):columns.stop + 3] = True
    return found & valid


def _stands_alone(ends: np.ndarray, rows: slice, columns: slice, words: list[tuple[slice, slice]]) -> bool:
    """Whether few pixels around a word reach the end of the values besides words: overexposed bone breaks into letter-like specks."""
    reach = rows.stop - rows.start
    around = ends[max(rows.start - reach, 0):rows.stop + reach, max(columns.start - reach, 0):columns.stop + reach].copy()
    first_row, first_column = max(rows.start - reach, 0), max(columns.start - reach, 0)
    for r, c in words:
        around[max(r.start - first_row, 0):max(r.stop - first_row, 0), max(c.start - first_column, 0):max(c.stop - first_column, 0)] = False
    return int(around.sum()) < 0.15 * int(ends[rows, columns].sum())


def _strokes(values: np.ndarray, ends: np.ndarray, span: float) -> np.ndarray | None:
    """bool: bright lines thinner than about 1 % of the picture, with smooth borders; ``None`` when no thin one reaches the end of the values."""
    from scipy import ndimage

    if not ends.any() or ends.mean() > 0.4:
        return None
    size = max(7, int(0.012 * max(values.shape)) | 1)
    # Open air and saturated fields reach the end too, but are thick: an opening keeps them, and what it takes away is thin.
    thin = ends & ~ndimage.grey_opening(ends.astype(np.uint8), (size, size)).astype(bool)
    if not 8 <= thin.sum() <= 0.02 * thin.size:
        return None
    rows, columns = (np.flatnonzero(thin.any(axis=1 - axis)) for axis in (0, 1))
    box = tuple(slice(max(int(i[0]) - 2 * size, 0), int(i[-1]) + 2 * size + 1) for i in (rows, columns))
    window = values[box]
    strokes = np.zeros(values.shape, bool)
    strokes[box] = window - ndimage.grey_opening(window, (size, size)) > 0.15 * span
    return strokes


def _letters(strokes: np.ndarray, ends: np.ndarray) -> list[tuple[slice, slice, bool]]:
    """Bounding boxes of strokes that are as large as letters, and whether a good part of each is at the end of the values.

    Letters were drawn in one value; smooth borders and compression leave part of it.  Wires and vessels touch the end here and there.
    """
    from scipy import ndimage

    labels, count = ndimage.label(strokes, np.ones((3, 3)))
    if count > 5000:  # noise, not letters
        return []
    rows, columns = strokes.shape
    tallest, widest = max(12, 0.08 * rows), max(12, 0.1 * columns)
    boxes = []
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        height, width = (s.stop - s.start for s in box)
        part = labels[box] == index
        fits = 6 <= height <= tallest and width <= widest and 8 <= part.sum() <= 0.9 * max(height * width, 20)
        share = (part & ends[box]).sum() / max(part.sum(), 1)
        if fits and share > 0:
            boxes.append((*box, bool(share > 0.12)))
    return boxes


def _words(boxes: list[tuple[slice, slice, bool]]) -> list[tuple[slice, slice]]:
    """Lines of at least two sure letters of like height beside one another (and not many doubtful ones), each as one box around all of them."""
    group = list(range(len(boxes)))
    for i, (r, c, _) in enumerate(boxes):
        height = r.stop - r.start
        for j, (r2, c2, _) in enumerate(boxes[:i]):
            other = r2.stop - r2.start
            overlap = min(r.stop, r2.stop) - max(r.start, r2.start)
            gap = max(c.start, c2.start) - min(c.stop, c2.stop)
            if overlap > 0.5 * min(height, other) and max(height, other) < 2.5 * min(height, other) and gap < 2.0 * max(height, other):
                group = [group[j] if g == group[i] else g for g in group]
    result = []
    for g in set(group):
        word = [box for box, of in zip(boxes, group, strict=True) if of == g]
        sure = sum(b[2] for b in word)
        if sure >= 2 and sure >= 0.4 * len(word):
            result.append(tuple(slice(min(b[axis].start for b in word), max(b[axis].stop for b in word)) for axis in (0, 1)))
    return result
