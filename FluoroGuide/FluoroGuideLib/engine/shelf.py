"""The volumes that the worker has or shall get: each is sent once, piece by piece, and the ones not used for longest go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import FluoroGuideError
from .messages import VolumeReference, arrays_of
from .process import WorkerProcess
from .volumes import BoneLabels, RawVolume

PIECE_BYTES = 16 << 20
"""So much of a volume is handed over per step: about 10 ms."""


@dataclass
class _Sending:
    number: int
    pieces: Iterator[str]
    small: bool


class Shelf:
    """One client's volumes; numbers stand for them in messages.

    Parameters
    ----------
    most
        Volumes kept in the worker; those that jobs wait for are kept in any case.
    """

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._volumes: dict[int, object] = {}
        self._sent: set[int] = set()
        self._gone: list[int] = []
        self._sending: _Sending | None = None

    @property
    def sending(self) -> bool:
        """True while a volume is on its way."""
        return self._sending is not None

    def refer(self, value: object, used: set[int]) -> object:
        """A reference in place of a volume (anything else is given back); ``used``: numbers that jobs still need."""
        from ..anatomy.attenuation import AttenuationVolume

        if not isinstance(value, (AttenuationVolume, RawVolume, BoneLabels)):
            return value
        number = next((n for n, v in self._volumes.items() if v is value), None)
        if number is None:
            self._count += 1
            number = self._count
        self._volumes[number] = self._volumes.pop(number, value)  # the last one is the one used last
        for old in [n for n in self._volumes if n not in used | {number}][: max(0, len(self._volumes) - self._most)]:
            self.drop(old)
        return VolumeReference(number)

    def remove(self, volume: object) -> None:
        """Free the worker's copy of a volume."""
        for number in [n for n, v in self._volumes.items() if v is volume]:
            self.drop(number)

    def drop(self, number: int) -> None:
        """Forget a volume, here and in the worker."""
        self._volumes.pop(number, None)
        if self._sending is not None and self._sending.number == number:
            self._stop_sending()
        if number in self._sent:
            self._sent.discard(number)
            self._gone.append(number)

    def clear(self) -> None:
        """Forget all."""
        self.new_worker()
        self._volumes.clear()

    def new_worker(self) -> None:
        """The worker is another one, or none: it has nothing."""
        self._stop_sending()
        self._sent, self._gone = set(), []

    def has(self, numbers: set[int]) -> bool:
        """Whether the worker has all of these."""
        return numbers <= self._sent

    def step(self, worker: WorkerProcess) -> list[tuple[int, FluoroGuideError]]:
        """Tell the worker what is gone and hand over one more piece of what it lacks, small volumes at once; those that failed."""
        while self._gone:
            worker.send("drop_volume", id=self._gone.pop(0))
        failed = []
        for number in [n for n in self._volumes if n not in self._sent]:
            try:
                if not self._send_piece(worker, number):
                    break
            except FluoroGuideError as error:
                failed.append((number, error))
                self.drop(number)
        return failed

    def _send_piece(self, worker: WorkerProcess, number: int) -> bool:
        """True when the volume is on its way in whole."""
        if self._sending is None or self._sending.number != number:
            self._stop_sending()
            arrays = arrays_of(self._volumes[number])
            small = sum(a.nbytes for a in arrays) <= PIECE_BYTES
            self._sending = _Sending(number, worker.exchange.writing(arrays, PIECE_BYTES), small)
        name = next(self._sending.pieces)
        while self._sending.small and not name:
            name = next(self._sending.pieces)
        if not name:
            return False
        self._sending = None
        self._sent.add(number)
        worker.send("set_volume", id=number, volume=self._volumes[number], written=name)
        return True

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.pieces.close()
            self._sending = None
