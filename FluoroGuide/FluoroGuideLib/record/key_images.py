"""Pictures worth keeping: small PNGs inside the record, with what is known about text burned into them."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import io
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FluoroGuideError
from ..planning.jsonfile import take
from .compatibility import merged, unknown

if TYPE_CHECKING:
    from ..imaging.xray import XrayImage

LONGEST_SIDE_PX = 1024
BURNED_IN = ("no", "yes", "unknown")


@dataclass(frozen=True, eq=False)
class KeyImage:
    """One picture.

    Attributes
    ----------
    name, caption
        For people; no patient identifiers.
    png
        The picture as an 8-bit PNG file.
    burned_in
        Whether text may be burned into the pixels (``"no"``, ``"yes"``, ``"unknown"``): only ``"no"`` leaves untouched.
    masked
        Whether border and text were masked (:func:`~FluoroGuideLib.record.privacy.masked_picture`).
    reviewed
        Whether a person saw this very picture and agreed that it may leave.
    view
        The C-arm view in words, or None.
    shows
        Keywords: ``"AP"``, ``"lateral"``, ``"contrast"``, ``"subtraction"``, ``"needle"`` ...
    utc
        When it was kept, ISO text.
    """

    name: str
    png: bytes
    caption: str = ""
    burned_in: str = "unknown"
    masked: bool = False
    reviewed: bool = False
    view: str | None = None
    shows: tuple[str, ...] = ()
    utc: str | None = None
    image_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    extra: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.burned_in not in BURNED_IN:
            raise FluoroGuideError("Whether the picture has burned-in text is unknown", self.burned_in, "Use one of " + ", ".join(BURNED_IN))
        if not self.png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise FluoroGuideError("The key image is not a PNG picture", self.name)
        object.__setattr__(self, "shows", tuple(self.shows))

    @classmethod
    def of_pixels(cls, name: str, pixels: np.ndarray, **facts: object) -> KeyImage:
        """A key image of pixels: (rows, columns), any numbers, or (rows, columns, 3) uint8; long sides are reduced to 1024 px.

        Raises
        ------
        FluoroGuideError
            The array is no picture.
        """
        return cls(name, png_of(pixels), **facts)

    @classmethod
    def of_xray(cls, name: str, image: XrayImage, *, burned_in: str = "unknown", **facts: object) -> KeyImage:
        """A key image of an X-ray, drawn as radiologists see it (bone bright); what its mask excludes (border, text) is black."""
        from ..geometry.carm import describe_angles

        inside = image.pixels[image.mask]
        low, high = (np.percentile(inside, (0.5, 99.5)) if inside.size else (0.0, 1.0))
        grey = np.clip((image.pixels - low) / max(high - low, 1e-12), 0, 1) * 255
        facts.setdefault("view", describe_angles(*image.view.angles_deg))
        return cls.of_pixels(name, np.where(image.mask, grey, 0).astype(np.uint8), burned_in=burned_in, **facts)

    def pixels(self) -> np.ndarray:
        """The picture as uint8, (rows, columns) or (rows, columns, 3)."""
        from PIL import Image

        with Image.open(io.BytesIO(self.png)) as picture:
            return np.asarray(picture.convert("L" if picture.mode in ("L", "1", "I", "I;16") else "RGB")).copy()

    @property
    def may_leave(self) -> bool:
        """Whether the picture may go into an output without identifiers as it is."""
        return self.burned_in == "no" or self.masked or self.reviewed

    def to_dict(self) -> dict:
        """Plain values for JSON; the picture as base64 with its SHA-256."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("png", "extra")}
        data |= {"shows": list(self.shows), **self._encoded}
        return merged(data, self.extra)

    @cached_property
    def _encoded(self) -> dict:
        """The picture as text, made once: a record is written after every event, and its pictures never change."""
        return {"sha256": hashlib.sha256(self.png).hexdigest(), "png_base64": base64.b64encode(self.png).decode()}

    @classmethod
    def from_dict(cls, data: dict) -> KeyImage:
        """The picture written by :meth:`to_dict`.

        Raises
        ------
        FluoroGuideError
            A missing key, or a picture that does not fit its checksum.
        """
        name, text = take(data, "name", "key image"), take(data, "png_base64", "key image")
        try:
            png = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise FluoroGuideError("The key image is damaged", name, "Recover the record from its journal") from None
        if data.get("sha256") not in (None, hashlib.sha256(png).hexdigest()):
            raise FluoroGuideError("The key image is damaged", f"{name}: its checksum differs", "Recover the record from its journal")
        others = {f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data and f.name not in ("name", "png", "extra")}
        made = cls(name, png, **others)
        return dataclasses.replace(made, extra=unknown(data, made.to_dict()))


def png_of(pixels: np.ndarray) -> bytes:
    """An 8-bit PNG of pixels, at most 1024 px long."""
    from PIL import Image

    array = np.asarray(pixels)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or min(array.shape[:2], default=0) < 1:
        raise FluoroGuideError("The key image is not a picture", array.shape, "Give (rows, columns) or (rows, columns, 3)")
    if array.dtype != np.uint8:
        finite = array[np.isfinite(array)] if array.size else array
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        array = np.nan_to_num((np.asarray(array, float) - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(array)
    longest = max(picture.size)
    if longest > LONGEST_SIDE_PX:
        picture = picture.resize([max(1, round(s * LONGEST_SIDE_PX / longest)) for s in picture.size], Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    # Runs only (Z_RLE): 25-30 ms for 1024 x 1024 where "optimize" takes 90-920, and files at most a sixth larger; a click waits for this.
    picture.save(stream, "PNG", compress_level=1, compress_type=3)
    return stream.getvalue()
