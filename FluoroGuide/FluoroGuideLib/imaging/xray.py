"""The X-ray image that every later part works on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView


@dataclass(frozen=True, eq=False)
class XrayImage:
    """One X-ray frame, line-integral-like: **bone is bright** after normalisation.

    Attributes
    ----------
    pixels
        float32 (rows, columns).  Monotonic in the line integral of attenuation; scale and offset are arbitrary.
    mask
        bool (rows, columns): True where the pixel shows the patient (inside the field, not shutter, metal, text).
    view
        The C-arm geometry, in isocentre LPS mm.
    source
        Where it came from (file name without folders, or the name of a live source); no patient identifiers.
    frame
        Index of the frame in its run, from 0.
    facts
        Acquisition facts for people and the record: ``kvp``, ``frame_time_ms``, ``acquired`` (ISO text), ...
    assumptions
        Sentences on what was assumed rather than read (shown to the user, stored in the record).
    """

    pixels: np.ndarray
    mask: np.ndarray
    view: CArmView
    source: str = ""
    frame: int = 0
    facts: dict = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = np.ascontiguousarray(self.pixels, np.float32)
        mask = np.ascontiguousarray(self.mask, bool)
        if pixels.ndim != 2 or pixels.shape != (self.view.rows, self.view.columns) or mask.shape != pixels.shape:
            raise FluoroGuideError(
                "The X-ray's pixels, mask and geometry differ in size",
                f"pixels {pixels.shape}, mask {mask.shape}, geometry {(self.view.rows, self.view.columns)}",
            )
        if not np.isfinite(pixels[mask]).all():
            raise FluoroGuideError("The X-ray has pixels that are not numbers", self.source or None, "Mask them or read the file again.")
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "mask", mask)

    def with_view(self, view: CArmView) -> XrayImage:
        """The same pixels with another geometry."""
        return dataclasses.replace(self, view=view)
