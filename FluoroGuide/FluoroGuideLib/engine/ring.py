"""A ring of frames in shared memory: the client writes the newest frame, the worker reads the one it was told of.

One file of fixed size in the exchange folder (memory where the system offers it), mapped by both.  It is written in
full when made, so that a full folder is an error then and no SIGBUS later.  Each slot carries its frame's number,
set after the pixels: a reader that finds another number knows that the frame was overwritten, and drops it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .exchange import Exchange

HEADER_BYTES = 64
NAME = "frames.ring"


class FrameRing:
    """The client's end: owns the file.

    Parameters
    ----------
    shape, dtype
        Of every frame.
    slots
        At least 2: one being read, one being written.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype, slots: int = 4) -> None:
        self.shape, self.dtype, self.slots = tuple(int(n) for n in shape), np.dtype(dtype), max(2, int(slots))
        self._exchange = Exchange.create()
        self.path = self._exchange.folders[0] / NAME
        try:
            with open(self.path, "xb") as file:
                for _ in range(self.slots):
                    file.write(bytes(slot_bytes(self.shape, self.dtype)))
        except OSError as error:
            self._exchange.close()
            hint = "Free space in the temporary folder and try again."
            raise FluoroGuideError("There is no room for the live frames", error.strerror, hint) from None
        self._memory: np.memmap | None = np.memmap(self.path, np.uint8, "r+")
        self._next = 0

    def describe(self) -> dict:
        """What the worker needs to map it."""
        return {"path": str(self.path), "shape": list(self.shape), "dtype": self.dtype.str, "slots": self.slots}

    def write(self, number: int, pixels: np.ndarray) -> int:
        """Put a frame with its number (positive) into the next slot; returns the slot.

        Raises
        ------
        FluoroGuideError
            A frame of another size or type.
        """
        if pixels.shape != self.shape or pixels.dtype != self.dtype:
            raise FluoroGuideError("A live frame has another size or type than the first", f"{pixels.shape} {pixels.dtype}", "Restart the live view")
        slot, self._next = self._next, (self._next + 1) % self.slots
        head, body = views(self._memory, self.shape, self.dtype, slot)
        head[0] = -1
        body[...] = pixels
        head[0] = number
        return slot

    def close(self) -> None:
        """Remove the file; a worker that still maps it keeps its memory until it ends."""
        self._memory = None
        self._exchange.close()


class RingReader:
    """The worker's end."""

    def __init__(self, path: str, shape: list[int], dtype: str, slots: int) -> None:
        self.shape, self.dtype, self.slots = tuple(shape), np.dtype(dtype), slots
        if Path(path).stat().st_size != slots * slot_bytes(self.shape, self.dtype):
            raise FluoroGuideError("The shared memory of the live frames has another size", None, "Restart the live view")
        self._memory = np.memmap(path, np.uint8, "r")

    def read(self, slot: int, number: int) -> np.ndarray | None:
        """A copy of the frame, or None when it was overwritten meanwhile."""
        head, body = views(self._memory, self.shape, self.dtype, slot)
        if head[0] != number:
            return None
        pixels = np.array(body)
        return pixels if head[0] == number else None


def slot_bytes(shape: tuple[int, int], dtype: np.dtype) -> int:
    """Bytes of one slot, a multiple of 64."""
    return HEADER_BYTES + -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64


def views(memory: np.ndarray, shape: tuple[int, int], dtype: np.dtype, slot: int) -> tuple[np.ndarray, np.ndarray]:
    """(header int64, pixels) of a slot, without copying."""
    size = slot_bytes(shape, dtype)
    part = memory[slot * size : (slot + 1) * size]
    count = int(np.prod(shape)) * dtype.itemsize
    return part[:8].view(np.int64), part[HEADER_BYTES : HEADER_BYTES + count].view(dtype).reshape(shape)
