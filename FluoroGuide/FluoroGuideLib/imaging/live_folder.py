"""A watched folder: DICOM and picture files as live frames, each read once it is whole.

A file is read when it has stopped growing and its own structure says that it is complete (:func:`incomplete`): a DICOM
object holds as many pixel bytes as its header needs, a PNG ends with its end chunk, other pictures decode.  A writer
that pauses in the middle is waited for.  ``watchdog`` tells of changes at once; every file is also found by looking
through the folder once a second, because network shares and full event queues lose events.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .dicom_file import open_dicom, pixel_layout, read_stored
from .live import MAX_FRAME_BYTES, QueuedSource
from .sources import is_dicom, open_xray

PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".mha", ".nrrd")
_UNFINISHED_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~", ".json", ".txt", ".xml", ".log")


@dataclass
class _Pending:
    size: int
    changed_ns: int
    since_s: float
    due_s: float


class FolderSource(QueuedSource):
    """New files of a folder.

    Parameters
    ----------
    folder
        Watched without its subfolders.
    geometry
        C-arm card or view for files without usable tags.
    settle_s
        A file must not have changed for so long.
    give_up_s
        A file that is still not whole this long after its last change is refused (and counted).
    existing
        Also the files that are there at the start.
    max_file_bytes
        Larger files are refused unread.
    polling
        Do without ``watchdog`` and look through the folder five times a second.
    options
        As for :class:`~.live.QueuedSource`; by default no file is lost: the queue makes the source wait.

    Raises
    ------
    FluoroGuideError
        From :meth:`start`: no such folder, or ``watchdog`` is not installed.
    """

    def __init__(
        self, folder: str | Path, geometry: dict | CArmView | None = None, *, settle_s: float = 0.15, give_up_s: float = 20.0, existing: bool = False,
        max_file_bytes: int = MAX_FRAME_BYTES, polling: bool = False, **options,
    ) -> None:
        options.setdefault("lossless", True)
        options.setdefault("queue_size", 8)
        self.folder = Path(folder)
        super().__init__(f"folder {self.folder.name}", geometry, **options)
        self._settle, self._give_up, self._existing, self._limit, self._polling = settle_s, give_up_s, existing, max_file_bytes, polling
        self._pending: dict[Path, _Pending] = {}
        self._done: dict[Path, tuple[int, int]] = {}
        self._observer = None

    def _prepare(self) -> None:
        if not self.folder.is_dir():
            raise FluoroGuideError("The folder to watch does not exist", self.folder.name, "Make it, or check its path")
        if not self._polling:
            try:
                import watchdog.observers  # noqa: F401
            except ImportError:
                hint = "Install it with: pip install watchdog, or use polling"
                raise FluoroGuideError("Watching a folder needs the package watchdog", None, hint) from None
        if not self._existing:
            for path, (size, changed) in self._listed().items():
                self._done.setdefault(path, (size, changed))

    # ---- watching -----------------------------------------------------------------------------------------------
    def _receive(self) -> None:
        waker = self._watch()
        last_look = 0.0
        try:
            while not self._stopping.is_set():
                now = time.monotonic()
                if waker is None or waker.is_set() or now - last_look > 1.0:
                    if waker is not None:
                        waker.clear()
                    last_look = now
                    self._look()
                self._advance()
                wait = 0.02 if self._pending else 0.2
                if waker is None or self._pending:
                    self._stopping.wait(wait)
                else:
                    waker.wait(wait)
        finally:
            if self._observer is not None:
                self._observer.stop()
                self._observer.join(timeout=5)
                self._observer = None

    def _watch(self):
        """Start ``watchdog``; the event that is set when something in the folder changes."""
        if self._polling:
            return None
        import threading

        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        changed = threading.Event()

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event) -> None:
                if event.event_type in ("created", "modified", "moved", "closed"):
                    changed.set()

        self._observer = Observer()
        self._observer.schedule(Handler(), str(self.folder), recursive=False)
        self._observer.start()
        changed.set()
        return changed

    def _listed(self) -> dict[Path, tuple[int, int]]:
        """Candidate files with their size and time of change."""
        found = {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(".") or name.lower().endswith(_UNFINISHED_SUFFIXES):
                        continue
                    try:
                        if entry.is_file():
                            status = entry.stat()
                            found[Path(entry.path)] = (status.st_size, status.st_mtime_ns)
                    except OSError:  # gone again
                        continue
        except OSError as error:
            self.last_error = f"The folder cannot be read ({error.strerror}). Check that it is still there."
        return found

    def _look(self) -> None:
        now = time.monotonic()
        listed = self._listed()
        for path, state in listed.items():
            if self._done.get(path) == state:
                continue
            known = self._pending.get(path)
            if known is None or (known.size, known.changed_ns) != state:
                self._pending[path] = _Pending(*state, now, now + self._settle)
        for path in [p for p in self._pending if p not in listed]:
            del self._pending[path]
        self._done = {p: s for p, s in self._done.items() if p in listed}

    # ---- reading ------------------------------------------------------------------------------------------------
    def _advance(self) -> None:
        """Read the files that have settled, the oldest first."""
        now = time.monotonic()
        due = sorted((p.changed_ns, path) for path, p in self._pending.items() if p.due_s <= now)
        for _, path in due:
            if self._stopping.is_set():
                return
            pending = self._pending[path]
            try:
                status = path.stat()
            except OSError:
                self._pending.pop(path, None)
                continue
            state = status.st_size, status.st_mtime_ns
            if state != (pending.size, pending.changed_ns):
                self._pending[path] = _Pending(*state, now, now + self._settle)
                continue
            reason = self._read(path, status.st_size)
            if reason and now - pending.since_s < self._give_up:
                pending.due_s = time.monotonic() + max(self._settle, 0.2)  # perhaps its writer only paused
                continue
            if reason:
                self._refuse(reason)
            self._pending.pop(path, None)
            self._done[path] = state

    def _read(self, path: Path, size: int) -> str:
        """Queue the frames of a file; a sentence when it is not whole (yet), else empty."""
        if size == 0:
            return f"The file is empty ({path.name})."
        if size > self._limit:
            self._refuse(FluoroGuideError("A file is too large for a live source", f"{path.name}, {size} bytes", "Open it as a run instead").message)
            return ""
        reason = incomplete(path)
        if reason:
            return reason
        try:
            card = {} if isinstance(self.geometry, CArmView) else self.geometry
            run = open_xray(path, card)
            own = not run.missing
            for frame in range(len(run.frames)):
                mask = run.mask[frame if len(run.mask) > 1 else 0]
                facts = {**run.facts, "file": path.name}
                self._put(run.frames[frame], facts=facts, view=run.view(frame) if own else None, frame=frame, mask=mask)
        except FluoroGuideError as error:
            return error.message
        return ""


def incomplete(path: Path) -> str:
    """Why a file is not whole, as a sentence; empty when it seems whole."""
    try:
        if is_dicom(path):
            file = open_dicom(path)
            layout = pixel_layout(file)
            if file.pixels_at < 0 or file.syntax.startswith("1.2.840.10008.1.2.4") or file.syntax.startswith("1.2.840.10008.1.2.5"):
                read_stored(file, layout)
            elif file.size() - file.pixels_at < layout.bytes:
                return f"The pixels of the DICOM file are cut short ({path.name})."
            return ""
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            return ""
        with path.open("rb") as stream:
            start = stream.read(8)
            stream.seek(-min(12, path.stat().st_size), os.SEEK_END)
            end = stream.read()
        if start == b"\x89PNG\r\n\x1a\n" and end[4:8] != b"IEND":
            return f"The PNG file has no end ({path.name})."
        if start[:2] == b"\xff\xd8" and b"\xff\xd9" not in end:
            return f"The JPEG file has no end ({path.name})."
    except FluoroGuideError as error:
        return error.message
    except OSError as error:
        return f"The file cannot be read ({path.name}: {error.strerror})."
    return ""
