"""A frame as the X-ray machine meant it to be seen: VOI LUT or window, and MONOCHROME1 turned over (PS3.3 C.11.2, C.7.6.3.1.2).

For people to compare with the machine's screen.  Registration uses the normalised picture, to which a window adds nothing.
"""

from __future__ import annotations

import numpy as np

from .dicom_values import numbers, quiet_pydicom, text
from .dicom_xa import open_projection, read_values
from .functional_groups import FrameTags

__all__ = ["presented", "voi"]


def presented(path: object, frame: int = 0) -> np.ndarray:
    """uint8 (rows, columns): a frame of a DICOM file as it is to be displayed, in the file's own orientation.

    Raises
    ------
    FluoroGuideError
        As :func:`~.dicom_xa.read_run`, or there is no such frame.
    """
    from ..errors import FluoroGuideError

    with quiet_pydicom():
        file = open_projection(path)
        tags = FrameTags(file.dataset)
        frames, _ = read_values(file, tags)
        if not 0 <= frame < len(frames):
            raise FluoroGuideError("There is no such frame", frame, f"Give 0 to {len(frames) - 1}")
        shown = voi(tags, frames[frame])
        if text(tags, "PresentationLUTShape").upper() == "INVERSE" or text(tags, "PhotometricInterpretation") == "MONOCHROME1":
            shown = 1 - shown
    return np.rint(255 * shown).astype(np.uint8)


def voi(tags: FrameTags, values: np.ndarray) -> np.ndarray:
    """Values 0..1 after the first VOI LUT or window of the object, or over their whole range when it has none."""
    table = _table(tags)
    if table is not None:
        first, entries = table
        return entries[np.clip(values.astype(np.int64) - first, 0, len(entries) - 1)]
    center, width = numbers(tags, "WindowCenter"), numbers(tags, "WindowWidth")
    values = values.astype(float)
    if not center or not width or width[0] < 1:
        low, high = float(values.min()), float(values.max())
        return (values - low) / max(high - low, 1e-12)
    c, w = center[0], width[0]
    kind = text(tags, "VOILUTFunction").upper() or "LINEAR"
    if kind == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - c) / w, -700, 700)))
    if kind == "LINEAR_EXACT":
        return np.clip((values - c) / w + 0.5, 0, 1)
    if w == 1:  # C.11.2.1.2.1: a threshold
        return (values > c - 0.5).astype(float)
    return np.clip((values - (c - 0.5)) / (w - 1) + 0.5, 0, 1)


def _table(tags: FrameTags) -> tuple[int, np.ndarray] | None:
    """First mapped value and entries (0..1) of the VOI LUT Sequence; ``None`` when there is none that is whole."""
    try:
        item = tags.get("VOILUTSequence")[0]
        count, first, bits = int(item.LUTDescriptor[0]) or 65536, int(item.LUTDescriptor[1]), int(item.LUTDescriptor[2])
        data = item.LUTData
        entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data, np.int64).ravel()
    except Exception:  # none there, or damaged: pydicom raises many kinds
        return None
    return (first, entries / float(2**bits - 1)) if len(entries) == count and 8 <= bits <= 16 else None
