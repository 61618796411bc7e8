"""Normalisation of a live stream: what :func:`~.preprocess.normalize` finds is found once and then only watched.

The field, the polarity, the grey window and masked text come from a full look at one frame.  For each further frame a
table from stored value to normalised value does the work (1024 x 1024 pixels of 16 bit: 4 ms; a look: 0.2 s), and a
sample of every eighth pixel says whether the look still holds.  When it does not (other dose, collimator moved, another
size) the frame gets a new look, at most one per ``look_every_s``; a moved window alone is repaired from the sample.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from .preprocess import Normalized, fit_normalization, normalize

_SAMPLE_STEP = 8
_DRIFT = 0.12
"""Share of the window by which its ends may move, or of the sample that may leave the field's outside, before the stream is looked at again."""


@dataclass(frozen=True, eq=False)
class _Look:
    """What a full look found, and the table made from it."""

    found: Normalized
    mask: np.ndarray
    multiplier: np.ndarray
    table: np.ndarray | None
    low_high: tuple[float, float]
    sample_mask: np.ndarray
    outside_level: float
    at_s: float


class StreamNormalizer:
    """Normalises the frames of one stream; keep one per stream, from one thread.

    Parameters
    ----------
    polarity, relationship, mask
        As for :func:`~.preprocess.normalize`; they win over what is detected.
    look_every_s
        Least time between two full looks.
    clock
        Seconds, for tests.
    """

    def __init__(
        self, *, polarity: str | None = None, relationship: str | None = None, mask: np.ndarray | None = None,
        look_every_s: float = 1.0, clock=time.monotonic,
    ) -> None:
        self.looks = 0
        self._options = {"polarity": polarity, "relationship": relationship, "mask": mask}
        self._every, self._clock = look_every_s, clock
        self._look: _Look | None = None

    def __call__(self, pixels: np.ndarray) -> Normalized:
        """The frame, normalised.

        Raises
        ------
        FluoroGuideError
            As :func:`~.preprocess.normalize`, for the frames that get a full look.
        """
        pixels = np.asarray(pixels)
        look = self._look
        if look is None or look.mask.shape != pixels.shape or (look.table is not None) != _fits_table(pixels):
            look = self._look_at(pixels)
        else:
            look = self._watched(pixels, look)
        return self._apply(pixels, look)

    # ---- the full look ------------------------------------------------------------------------------------------
    def _look_at(self, pixels: np.ndarray) -> _Look:
        options = self._options
        if options["mask"] is not None and np.shape(options["mask"]) != pixels.shape:
            raise FluoroGuideError("The mask and the live frame differ in size", f"{np.shape(options['mask'])}, {pixels.shape}")
        # Metal is not masked: instruments move.  A polarity is compared with the pixels once.
        found = normalize(pixels, **options, mask_metal=False, check_polarity=self.looks == 0)
        if options["polarity"] is None and found.confidence > 0.9:
            # A stream does not change its polarity; a dark frame between two must not turn it over.
            self._options = {**options, "polarity": found.polarity}
        self._look = self._make(pixels, found, found.low_high)
        self.looks += 1
        return self._look

    def _make(self, pixels: np.ndarray, found: Normalized, low_high: tuple[float, float]) -> _Look:
        mask = found.field
        sample = pixels[::_SAMPLE_STEP, ::_SAMPLE_STEP]
        sample_mask = mask[::_SAMPLE_STEP, ::_SAMPLE_STEP]
        outside = sample[~sample_mask]
        table = _table(found, low_high, pixels.dtype) if _fits_table(pixels) else None
        level = float(np.median(outside)) if outside.size > 50 else np.nan
        return _Look(found, mask, mask.astype(np.float32), table, low_high, sample_mask, level, self._clock())

    # ---- watching -----------------------------------------------------------------------------------------------
    def _watched(self, pixels: np.ndarray, look: _Look) -> _Look:
        sample = pixels[::_SAMPLE_STEP, ::_SAMPLE_STEP]
        inside = sample[look.sample_mask]
        if not inside.size:
            return look
        low, high = np.percentile(inside, (1, 99)).tolist()
        old_low, old_high = look.low_high
        width = max(old_high - old_low, 1e-6)
        # The window was made from the outermost 0.1 %, the sample's 1 % lie inside it.
        beyond = max(old_low - low, high - old_high, 0.0) > _DRIFT * width
        shrunk = (high - low) < 0.4 * width and high > low
        opened = np.isfinite(look.outside_level) and np.mean(np.abs(sample[~look.sample_mask] - look.outside_level) > _DRIFT * width) > 0.2
        if not (beyond or shrunk or opened):
            return look
        if self._clock() - look.at_s >= self._every:
            try:
                return self._look_at(pixels)
            except FluoroGuideError:  # a black frame (beam off): the old look stays
                return look
        if beyond and high > low:
            spare = 0.1 * (high - low)  # for the outermost 1 %
            return self._make(pixels, look.found, (min(low - spare, old_low), max(high + spare, old_high)))
        return look

    # ---- each frame ---------------------------------------------------------------------------------------------
    def _apply(self, pixels: np.ndarray, look: _Look) -> Normalized:
        found = look.found
        if look.table is not None:
            index = pixels.view(f"u{pixels.itemsize}") if pixels.dtype.kind == "i" else pixels
            values = np.take(look.table, index)
        else:
            values = fit_normalization(np.asarray(pixels, np.float32), found.polarity, found.relationship, found.base_range, look.low_high)
            values[~np.isfinite(values)] = 0
        values *= look.multiplier
        mask = look.mask & (pixels < found.saturated_above) if np.isfinite(found.saturated_above) else look.mask
        if np.isfinite(found.saturated_below):
            mask = mask & (pixels > found.saturated_below)
        return Normalized(values, mask, found.notes, found.polarity, found.confidence, found.relationship,
                          look.mask, look.low_high, found.base_range, found.saturated_below, found.saturated_above)


def _fits_table(pixels: np.ndarray) -> bool:
    return pixels.dtype.kind in "ui" and pixels.itemsize <= 2


def _table(found: Normalized, low_high: tuple[float, float], dtype: np.dtype) -> np.ndarray:
    """Normalised value of each stored value; a signed value's place is its bit pattern."""
    stored = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    return fit_normalization(stored.astype(np.float32), found.polarity, found.relationship, found.base_range, low_high)
