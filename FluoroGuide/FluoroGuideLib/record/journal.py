"""The journal: every event of a procedure on disk before it is acknowledged.

One line per event: 16 hexadecimal digits of the SHA-256 of what follows, a space, JSON, a newline.  The JSON holds the
record's id, the number of the event from 0, UTC, the monotonic clock, and the data.  A line counts only when its newline
is there and its checksum fits, so a line cut short by a kill or a full disk is never taken for an event, and one damaged
line costs no other.

Nothing but the standard library, so that a journal opens and recovers when nothing else does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import FluoroGuideError

SUFFIX = ".fgjournal"
DIGITS = 16
MOST_EVENTS = 10_000_000
"""A number beyond is damage whose checksum fits; the list of missing events must stay finite."""
_WINDOWS_LOCK_OFFSET = 0x7FFF_0000  # beyond every journal: msvcrt locks bytes against reading too


@dataclass(frozen=True)
class JournalContent:
    """What a journal file holds.

    Attributes
    ----------
    record_id
        Of the record whose events these are; None when no line is whole.
    events
        Whole events in their order: ``n``, ``utc``, ``mono``, ``event``, ``data``.
    damaged
        Lines that end in a newline but do not fit their checksum.
    missing
        Numbers of events that should be there and are not.
    torn
        Whether the last line is cut short (its event was never acknowledged).
    """

    record_id: str | None
    events: tuple[dict, ...]
    damaged: int
    missing: tuple[int, ...]
    torn: bool
    whole_bytes: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, one sentence each."""
        said = []
        if self.missing:
            said.append(f"{len(self.missing)} events of the journal are damaged or missing (numbers {', '.join(map(str, self.missing[:10]))}).")
        elif self.damaged:
            said.append(f"{self.damaged} damaged lines of the journal were left out; no event is missing.")
        if self.torn:
            said.append("The last line was cut short and left out; its event had not been acknowledged.")
        return tuple(said)


def line_of(content: dict) -> bytes:
    """One event as a line with its checksum."""
    body = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return _checksum(body) + b" " + body + b"\n"


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:DIGITS].encode()


def _event_of(line: bytes) -> dict | None:
    """The event of a line without its newline, or None when it is damaged."""
    digits, _, body = line.partition(b" ")
    if len(digits) != DIGITS or _checksum(body) != digits:
        return None
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("record"), str) or not isinstance(event.get("data", {}), dict):
        return None
    number = event.get("n")
    return event if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < MOST_EVENTS else None


def read_journal(path: str | Path) -> JournalContent:
    """Read a journal, whoever holds it.

    Raises
    ------
    FluoroGuideError
        The file cannot be read or holds no journal at all.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FluoroGuideError("The journal cannot be read", f"{path.name}: {error.strerror}", "Check the path") from None
    content = parse_journal(raw)
    if raw and not content.events and path.suffix != SUFFIX:
        raise FluoroGuideError("The file is not a FluoroGuide journal", path.name, f"Choose a file that ends in {SUFFIX}")
    return content


def parse_journal(raw: bytes) -> JournalContent:
    """The events in the bytes of a journal."""
    *lines, rest = raw.split(b"\n")
    found: dict[int, dict] = {}
    record_id, damaged = None, 0
    for line in lines:
        event = _event_of(line)
        if event is None or (record_id is not None and event["record"] != record_id):
            damaged += 1
            continue
        record_id = event["record"]
        found.setdefault(event["n"], event)  # written twice after a failed fsync: it is one event
    numbers = sorted(found)
    missing = tuple(n for n in range(numbers[-1]) if n not in found) if numbers else ()
    return JournalContent(record_id, tuple(found[n] for n in numbers), damaged, missing, bool(rest), len(raw) - len(rest))


@dataclass(frozen=True)
class Acknowledgement:
    """Answer to an event: its number, whether it is on disk, and a sentence when it is not (it is then kept in memory)."""

    number: int
    durable: bool
    problem: str | None = None


class Journal:
    """An open journal; this process alone writes to it.

    Use :meth:`create` for a new procedure and :meth:`open` to go on after a crash.
    """

    def __init__(self, path: Path, record_id: str, handle: int, size: int, next_number: int) -> None:
        self.path, self.record_id = path, record_id
        self._handle: int | None = handle
        self._size, self._next = size, next_number
        self._dirty = False
        self._pending: deque[bytes] = deque()
        self.problem: str | None = None

    # ---- opening --------------------------------------------------------------------------------------------------
    @classmethod
    def create(cls, folder: str | Path, record_id: str) -> Journal:
        """A new journal in ``folder`` (made when missing), named by time and record: no identifiers.

        Raises
        ------
        FluoroGuideError
            The file cannot be made.
        """
        from .userdata import private_folder

        folder = private_folder(Path(folder))
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = folder / f"{stamp}-{record_id}{SUFFIX}"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        except FileExistsError:
            return cls.open(path)
        except OSError as error:
            raise FluoroGuideError("The journal cannot be made", error.strerror, "Free some space or choose another data folder") from None
        _lock(handle, path)
        _sync_folder(folder)
        return cls(path, record_id, handle, 0, 0)

    @classmethod
    def open(cls, path: str | Path) -> Journal:
        """Go on with a journal; a last line that was cut short is taken away (its event was never acknowledged).

        Raises
        ------
        FluoroGuideError
            Another Slicer writes to it, or it cannot be opened.
        """
        path = Path(path)
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise FluoroGuideError("The journal cannot be opened", f"{path.name}: {error.strerror}", "Check the path") from None
        _lock(handle, path)
        try:
            content = read_journal(path)
            number = content.events[-1]["n"] + 1 if content.events else 0
            record_id = content.record_id or path.name[: -len(SUFFIX)].partition("-")[2]
            journal = cls(path, record_id, handle, content.whole_bytes, number)
            journal._dirty = content.torn
            journal._repair()
        except (OSError, FluoroGuideError):
            os.close(handle)
            raise
        return journal

    # ---- writing --------------------------------------------------------------------------------------------------
    def append(self, event: str, data: dict) -> Acknowledgement:
        """Write one event.  It is acknowledged (``durable``) only after the disk said so.

        When it cannot be written the event stays in memory, :attr:`problem` says why, and every later :meth:`append` and
        :meth:`retry` tries again, in order.
        """
        if self._handle is None:
            raise FluoroGuideError("The journal is closed", self.path.name, "Start a new one")
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        content = {"record": self.record_id, "n": self._next, "utc": now, "mono": round(time.monotonic(), 6), "event": event, "data": data}
        try:
            line = line_of(content)
        except (ValueError, TypeError) as error:
            raise FluoroGuideError("The event cannot be written as JSON", error) from None
        number, self._next = self._next, self._next + 1
        self._pending.append(line)
        return Acknowledgement(number, self.retry(), self.problem)

    def retry(self) -> bool:
        """Write what is still in memory; returns whether everything is on disk now."""
        while self._pending and self._handle is not None:
            line = self._pending[0]
            try:
                self._repair()
                self._dirty = True
                _write_all(self._handle, line)
                os.fsync(self._handle)
            except OSError as error:
                self.problem = self._sentence(error)
                self._take_back()
                return False
            self._dirty = False
            self._size += len(line)
            self._pending.popleft()
        if not self._pending:
            self.problem = None
        return not self._pending

    @property
    def pending(self) -> int:
        """Number of events that are in memory only."""
        return len(self._pending)

    @property
    def vanished(self) -> bool:
        """Whether somebody removed the file while it was open."""
        return not self.path.exists()

    def _sentence(self, error: OSError) -> str:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "The disk is full" if full else f"The disk refused the journal ({error.strerror})"
        return f"{why}: {len(self._pending)} events are kept in memory only. Free some space; FluoroGuide tries again by itself."

    def _repair(self) -> None:
        """Take away what a failed write left behind the last whole line."""
        if self._dirty:
            os.ftruncate(self._handle, self._size)
            self._dirty = False

    def _take_back(self) -> None:
        try:
            self._repair()
        except OSError:
            pass  # tried again before the next line; a reader leaves the piece out by its checksum

    # ---- end ------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Let go of the file, which stays.  Events that are in memory only are tried once more."""
        if self._handle is not None:
            self.retry()
            os.close(self._handle)
            self._handle = None

    def remove(self) -> None:
        """Close and delete the file (see :meth:`~FluoroGuideLib.record.keeper.RecordKeeper.discard` for when that is right)."""
        if self._handle is not None:
            if os.name == "nt":  # an open file cannot be deleted there
                os.close(self._handle)
                self.path.unlink(missing_ok=True)
            else:
                self.path.unlink(missing_ok=True)
                os.close(self._handle)
            self._handle = None
            self._pending.clear()


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view):]


def _sync_folder(folder: Path) -> None:
    """Make the new name in the folder durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network folders refuse; the file's own fsync still holds
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    """Keep other processes from writing; the lock ends with the process, however it ends."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(handle, _WINDOWS_LOCK_OFFSET, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return  # a network folder without locks: the name holds the record's own id, so two procedures never share one
        os.close(handle)
        raise FluoroGuideError("Another Slicer writes to this journal", path.name, "Close the procedure there first") from None


def locked(path: str | Path) -> bool:
    """Whether a running process holds the journal."""
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    try:
        _lock(handle, Path(path))
    except FluoroGuideError:
        return True
    os.close(handle)
    return False
