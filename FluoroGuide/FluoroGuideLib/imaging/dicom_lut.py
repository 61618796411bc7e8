"""Lookup tables of X-ray objects: modality transformation, and the way back to values proportional to X-ray intensity."""

from __future__ import annotations

import numpy as np

from .dicom_values import numbers, text
from .functional_groups import FrameTags


def modality_values(tags: FrameTags, stored: np.ndarray) -> np.ndarray:
    """Rescale Slope and Intercept, or the Modality LUT (PS3.3 C.11.1); whole numbers stay integers where they fit 16 bits."""
    slope = (numbers(tags, "RescaleSlope") or (1.0,))[0]
    intercept = (numbers(tags, "RescaleIntercept") or (0.0,))[0]
    if slope == 0 or (slope == 1 and intercept == 0):
        return _modality_lut(tags, stored)
    values = stored.astype(np.float32)
    values *= slope
    values += intercept
    whole = slope == int(slope) and intercept == int(intercept)
    return values.astype(np.int16) if whole and np.abs(values).max(initial=0) <= 32767 else values


def linear_values(tags: FrameTags, frames: np.ndarray, relationship: str) -> tuple[np.ndarray, str]:
    """Frames proportional to X-ray intensity by the TO_LINEAR table of the Pixel Intensity Relationship LUT (0028,9422), and a sentence.

    Enhanced XA and RF carry such tables so that the way back from logarithmic or display values need not be guessed
    (PS3.3 C.7.6.16.2.13, PS3.17 FFF.2.3.1.3.4); they map stored values and play no part in display.  Frames that are
    linear already, have no whole table, or tables that differ between frames come back as they are, with no sentence.
    """
    if relationship == "LIN" or frames.dtype.kind not in "ui":
        return frames, ""
    told = [_linear_table(tags, i) for i in range(max(1, min(len(frames), tags.frame_count)))]
    if told[0] is None or any(t is None or t[0] != told[0][0] or not np.array_equal(t[1], told[0][1]) for t in told[1:]):
        return frames, ""
    first, table = told[0]
    return table[np.clip(frames.astype(np.int64) - first, 0, len(table) - 1)], "made linear by the file's own table (0028,9422)"


def _linear_table(tags: FrameTags, frame: int) -> tuple[int, np.ndarray] | None:
    """First mapped value and entries of a frame's TO_LINEAR table."""
    for item in tags.items("PixelIntensityRelationshipLUTSequence", frame):
        if text(item, "LUTFunction").upper() != "TO_LINEAR":
            continue
        table = _lut_entries(item)
        if table is not None and table.max() > table.min():
            return int(item.LUTDescriptor[1]), table
    return None


def _modality_lut(dataset: object, pixels: np.ndarray) -> np.ndarray:
    """Apply a Modality LUT Sequence (PS3.3 C.11.1), if there is one that is whole."""
    try:
        item = dataset.get("ModalityLUTSequence")[0]
    except Exception:  # none there, or damaged: pydicom raises many kinds
        return pixels
    table = _lut_entries(item)
    return pixels if table is None else table[np.clip(pixels.astype(np.int64) - int(item.LUTDescriptor[1]), 0, len(table) - 1)]


def _lut_entries(item: object) -> np.ndarray | None:
    """uint16 entries of a lookup table item (PS3.3 C.11.1.1), ``None`` when it is not whole."""
    try:
        entries, _first_mapped = int(item.LUTDescriptor[0]) or 65536, int(item.LUTDescriptor[1])
        data = item.LUTData
        table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data, np.int64).ravel()
    except Exception:  # damaged: pydicom raises many kinds
        return None
    if len(table) < 2 or len(table) not in (entries, (entries + 1) // 2):
        return None
    if len(table) != entries:  # 8-bit entries packed two to a word
        table = np.frombuffer(table.astype("<u2").tobytes(), np.uint8)[:entries]
    return table.astype(np.uint16)
