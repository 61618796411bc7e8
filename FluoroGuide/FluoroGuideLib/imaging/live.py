"""Live X-ray sources behind one protocol: start, frames with their time of arrival, counters, stop.

A source's own thread receives *raw* pictures and puts them into a bounded queue; whoever takes a frame out normalises
it.  A picture that is dropped has therefore cost no work, and a slow consumer sees new frames, not old ones.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .dicom_xa import XrayRun, picture_run
from .geometry_card import check_card
from .live_normalize import StreamNormalizer
from .preprocess import normalize
from .xray import XrayImage

MAX_FRAME_BYTES = 256 * 1024 * 1024
"""A live picture or file larger than this is refused unread."""


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame of a live source.

    Attributes
    ----------
    image
        The picture, normalised, with its geometry.
    arrived_s
        Time of arrival, ``time.monotonic()``.
    number
        Counts all frames received by the source, from 0: gaps are dropped frames.
    sent_s
        Time stamp of the sender, seconds since 1970, when it gives one.
    processing_s
        CPU time of taking the frame out: normalisation and geometry.
    """

    image: XrayImage
    arrived_s: float
    number: int
    sent_s: float | None = None
    processing_s: float = 0.0


@dataclass
class Counters:
    """What a source has seen since it was made.

    Attributes
    ----------
    received, delivered, dropped, refused, reconnects
        Pictures that arrived; that were taken out; that were pushed out of the full queue unseen; that were no usable
        pictures; and how often a lost connection came back.
    """

    received: int = 0
    delivered: int = 0
    dropped: int = 0
    refused: int = 0
    reconnects: int = 0

    def to_dict(self) -> dict:
        """Plain numbers."""
        return asdict(self)


@runtime_checkable
class LiveSource(Protocol):
    """What every live source offers."""

    name: str
    counters: Counters

    def start(self) -> None:
        """Begin to receive; harmless when started already."""

    def stop(self) -> None:
        """End receiving and wait for the source's thread; harmless when stopped already."""

    def frames(self, timeout_s: float | None = None) -> Iterator[LiveFrame]:
        """Frames in order of arrival until the source ends, :meth:`stop` is called, or none comes for ``timeout_s``."""

    def poll(self) -> LiveFrame | None:
        """The newest frame that waits, older ones dropped; ``None`` when none waits.  Never blocks."""

    def status(self) -> str:
        """One line for people: receiving, waiting, or ``no frame for N s``."""


@dataclass(frozen=True, eq=False)
class _Raw:
    pixels: np.ndarray
    arrived_s: float
    number: int
    sent_s: float | None
    facts: dict
    view: CArmView | None
    frame: int
    mask: np.ndarray | None


class QueuedSource:
    """Queue, counters, normalisation and geometry shared by all sources; a source implements :meth:`_receive`.

    Parameters
    ----------
    name
        For people: no patient identifiers.
    geometry
        C-arm card (dictionary), or a :class:`CArmView`, of pictures that bring no geometry of their own.
    queue_size
        Frames that may wait; the oldest is dropped when one more comes (``lossless``: the source waits instead).
    polarity, relationship
        As for :func:`~.preprocess.normalize`; ``None``: found in the stream.
    pictures_only
        Frames whose geometry is not known are delivered with a made-up view and an assumption that says so, instead of
        being refused: to look at a stream, never to guide.
    """

    def __init__(
        self, name: str, geometry: dict | CArmView | None = None, *, queue_size: int = 4, polarity: str | None = None,
        relationship: str | None = None, lossless: bool = False, pictures_only: bool = False, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if queue_size < 1:
            raise FluoroGuideError("The queue of a live source must hold at least one frame", queue_size)
        self.name, self.counters, self.last_error = name, Counters(), ""
        self.geometry = geometry if isinstance(geometry, CArmView) else check_card(geometry or {})
        self._told = polarity, relationship
        self._normalizers: OrderedDict[tuple, StreamNormalizer] = OrderedDict()
        self._waiting: deque[_Raw] = deque()
        self._size, self._lossless, self._clock, self._pictures_only = queue_size, lossless, clock, pictures_only
        self._changed = threading.Condition()
        self._stopping, self._ended = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._started_s = self._last_s = None
        self._upright: tuple | None = None
        self._straight: tuple | None = None

    # ---- life ---------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """See :class:`LiveSource`."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._prepare()
        self._stopping.clear()
        self._ended, self._started_s = False, self._clock()
        self._thread = threading.Thread(target=self._run, name=f"FluoroGuide {self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """See :class:`LiveSource`."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)
        self._thread = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def _prepare(self) -> None:
        """Check what the source needs, in the caller's thread, so that errors reach the caller."""

    def _receive(self) -> None:
        """Receive until ``self._stopping`` is set or the source ends (in the source's thread)."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            warm_up()
            self._receive()
        except FluoroGuideError as error:
            self.last_error = str(error)
        except Exception as error:  # a source must end with a sentence, not silently with its thread
            self.last_error = f"The live source {self.name} failed ({type(error).__name__}). Stop and start it again."
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    # ---- in -----------------------------------------------------------------------------------------------------
    def _put(
        self, pixels: np.ndarray, *, sent_s: float | None = None, facts: dict | None = None, view: CArmView | None = None, frame: int = 0,
        mask: np.ndarray | None = None,
    ) -> None:
        """Queue a raw picture (rows, columns), with its valid pixels when known; the arrays must not be written to afterwards."""
        with self._changed:
            while self._lossless and len(self._waiting) >= self._size and not self._stopping.is_set():
                self._changed.wait(0.1)
            now = self._clock()
            self._waiting.append(_Raw(pixels, now, self.counters.received, sent_s, facts or {}, view, frame, mask))
            self.counters.received += 1
            self._last_s = now
            while len(self._waiting) > self._size and not self._lossless:
                self._waiting.popleft()
                self.counters.dropped += 1
            self._changed.notify_all()

    def _refuse(self, sentence: str) -> None:
        with self._changed:
            self.counters.refused += 1
            self.last_error = sentence

    # ---- out ----------------------------------------------------------------------------------------------------
    def frames(self, timeout_s: float | None = None) -> Iterator[LiveFrame]:
        """See :class:`LiveSource`."""
        while True:
            raw = self._next(timeout_s)
            if raw is None:
                return
            frame = self._finished(raw)
            if frame is not None:
                yield frame

    def poll(self) -> LiveFrame | None:
        """See :class:`LiveSource`."""
        with self._changed:
            if not self._waiting:
                return None
            raw = self._waiting.pop()
            self.counters.dropped += len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        return self._finished(raw)

    def _next(self, timeout_s: float | None) -> _Raw | None:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._waiting:
                left = None if until is None else until - time.monotonic()
                if self._ended or self._stopping.is_set() or (left is not None and left <= 0):
                    return None
                self._changed.wait(0.5 if left is None else min(left, 0.5))
            raw = self._waiting.popleft()
            self._changed.notify_all()
            return raw

    def _finished(self, raw: _Raw) -> LiveFrame | None:
        began = time.thread_time()
        try:
            image = self._image(raw)
        except FluoroGuideError as error:
            self._refuse(str(error))
            return None
        with self._changed:
            self.counters.delivered += 1
        return LiveFrame(image, raw.arrived_s, raw.number, raw.sent_s, time.thread_time() - began)

    def _image(self, raw: _Raw) -> XrayImage:
        pixels, view, assumptions = self._turned(raw)
        found = self._normalizer(raw)(pixels)
        facts = {**raw.facts, "polarity": found.polarity, "polarity_confidence": found.confidence}
        return XrayImage(found.pixels, found.mask, view, self.name, raw.frame, facts, assumptions + found.notes)

    def _normalizer(self, raw: _Raw) -> StreamNormalizer:
        """The normaliser of frames with the same tags and mask; the last few are kept."""
        polarity = self._told[0] or raw.facts.get("told_polarity")
        relationship = self._told[1] or raw.facts.get("intensity_relationship")
        mask = None if raw.mask is None or raw.mask.all() else raw.mask
        key = polarity, relationship, None if mask is None else hash(mask.tobytes())
        found = self._normalizers.pop(key, None) or StreamNormalizer(polarity=polarity, relationship=relationship, mask=mask)
        self._normalizers[key] = found
        while len(self._normalizers) > 4:
            self._normalizers.popitem(last=False)
        return found

    def _turned(self, raw: _Raw) -> tuple[np.ndarray, CArmView, tuple[str, ...]]:
        """The upright picture and its view: the frame's own, or the card's (worked out once per size)."""
        if raw.view is not None:
            return raw.pixels, raw.view, ()
        if isinstance(self.geometry, CArmView):
            return raw.pixels, self.geometry, ()
        key = (raw.pixels.shape, id(self.geometry))
        if self._upright is None or self._upright[0] != key:
            card = {k: v for k, v in self.geometry.items() if k != "distortion"}
            run: XrayRun = picture_run(np.zeros((1, *raw.pixels.shape), np.uint8), card, self.name)
            self._upright = (key, run.orientation, *self._view_of(run))
        _, orientation, view, assumptions = self._upright
        pixels = self._straightener(raw.pixels) if "distortion" in self.geometry else raw.pixels
        return orientation.upright(pixels), view, assumptions

    def _straightener(self, pixels: np.ndarray) -> np.ndarray:
        """The frame without distortion: the nearest pixel of each, from a table made once per card (1 ms; at most half a pixel off)."""
        found = self.geometry["distortion"]
        if self._straight is None or self._straight[0] is not found:
            self._straight = found, found.nearest()
        if pixels.shape != (found.rows, found.columns):
            raise FluoroGuideError("The distortion was measured for another size", f"{pixels.shape}, {(found.rows, found.columns)}")
        return pixels.ravel()[self._straight[1]].reshape(pixels.shape)

    def _view_of(self, run: XrayRun) -> tuple[CArmView, tuple[str, ...]]:
        if not run.missing or not self._pictures_only:
            return run.view(), run.assumptions
        rows, columns = run.frames.shape[1:]
        view = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=600, rows=rows, columns=columns, pixel_spacing_mm=(300 / rows, 300 / rows))
        return view, ("the geometry is not known: positions in this picture mean nothing", *run.assumptions)

    def set_geometry(self, geometry: dict | CArmView) -> None:
        """Another geometry from the next frame on (the C-arm moved)."""
        self.geometry = geometry if isinstance(geometry, CArmView) else check_card(geometry)
        self._upright = None

    def snapshot(self) -> tuple[Counters, int]:
        """A copy of the counters and the number of frames that wait, of one moment."""
        with self._changed:
            return replace(self.counters), len(self._waiting)

    # ---- state --------------------------------------------------------------------------------------------------
    @property
    def ended(self) -> bool:
        """Whether the source's thread is done and every frame was taken out."""
        with self._changed:
            return self._ended and not self._waiting

    @property
    def seconds_without_frame(self) -> float | None:
        """Seconds since the last frame arrived, or since the start; ``None`` before the start."""
        since = self._last_s if self._last_s is not None else self._started_s
        return None if since is None else self._clock() - since

    def status(self) -> str:
        """See :class:`LiveSource`."""
        quiet = self.seconds_without_frame
        if quiet is None:
            return f"{self.name}: not started"
        told = f"{self.name}: {self.counters.received} frames, {self.counters.dropped} dropped"
        if self.counters.refused:
            told += f", {self.counters.refused} refused"
        if self._ended:
            told += ", ended"
        elif quiet >= 1.0:
            told += f", no frame for {quiet:.0f} s"
        return told + (f". {self.last_error}" if self.last_error and (self._ended or quiet >= 1.0 or self.counters.refused) else "")


@functools.cache
def warm_up() -> None:
    """Load what the first look at a stream needs, so that the first frame does not wait for imports (done once)."""
    rows = np.arange(64)[:, None] * np.ones(64)
    normalize(np.round(1000 + 300 * np.sin(rows / 5) * np.cos(rows.T / 7)))


def grey(pixels: np.ndarray) -> np.ndarray:
    """A picture (rows, columns) of (rows, columns, 1, 3 or 4): frame grabbers send grey pictures in colour.

    Raises
    ------
    FluoroGuideError
        Another shape.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        # Rec. 601 luma; exact for grey. Integer arithmetic in 16 bits: 77 + 150 + 29 = 256.
        red, green, blue = (pixels[..., i].astype(np.uint32) for i in range(3))
        return ((77 * red + 150 * green + 29 * blue) >> 8).astype(pixels.dtype)
    if pixels.ndim != 2:
        raise FluoroGuideError("The live picture is not one 2-D frame", f"shape {pixels.shape}", "Send single frames")
    return pixels
