"""Big arrays between client and worker: files in a private folder that lives in memory where the system offers it.

Why files and not ``multiprocessing.shared_memory``: before Python 3.13 the process that only *attaches* to a block
also registers it with its own resource tracker, which unlinks it when that process ends or crashes - while the other
side still uses it - and the tracker is a further process that would be started with Slicer's executable.  On Linux
the folder is in ``/dev/shm`` (memory, no disk) when it has room, elsewhere in the system's temporary folder, which
the operating system caches.  Files are *written*, not mapped, so a full folder is an error, not a crash (SIGBUS).

Clean-up: the reader of a file deletes it at once; the client removes the folder when a worker ends in any way; the
worker removes it when the client died; what is left when both were killed is swept by the next client.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError

PREFIX = "fluoroguide-engine-"
_LOCK = "owner.lock"
_NAME = re.compile(r"[0-9]-[cw][0-9]+\.bin")
_RESERVE_BYTES = 64 << 20
_YOUNG_SECONDS = 60.0


def storage_roots() -> list[Path]:
    """Where exchange folders may be made, the best first."""
    roots = [Path("/dev/shm")] if os.name == "posix" and os.access("/dev/shm", os.W_OK | os.X_OK) else []
    return [*roots, Path(tempfile.gettempdir())]


class Exchange:
    """A pair of private folders that carries arrays to the other process.

    Parameters
    ----------
    folders
        The folders, the best first.  The worker gets them from the client.
    side
        ``"c"`` for the client, ``"w"`` for the worker: keeps their file names apart.
    """

    def __init__(self, folders: Sequence[str | os.PathLike], side: str) -> None:
        self.folders = [Path(f) for f in folders]
        self._side, self._count, self._locks = side, 0, []

    @classmethod
    def create(cls) -> Exchange:
        """New empty folders (readable by this user only), locked so that no other client sweeps them."""
        folders, locks = [], []
        for root in storage_roots():
            with contextlib.suppress(OSError):
                folders.append(tempfile.mkdtemp(prefix=PREFIX, dir=root))
                locks.append(_hold(Path(folders[-1]) / _LOCK))
        if not folders:
            raise FluoroGuideError("No temporary folder can be written", tempfile.gettempdir(), "Free space or set TMPDIR to another folder.")
        exchange = cls(folders, "c")
        exchange._locks = locks
        return exchange

    def write(self, arrays: Sequence[np.ndarray]) -> str:
        """Write C-contiguous arrays one after the other into one new file; returns its name.

        Raises
        ------
        FluoroGuideError
            No folder has room.
        """
        for name in self.writing(arrays):
            if name:
                return name
        raise AssertionError("writing ends with a name or an error")

    def writing(self, arrays: Sequence[np.ndarray], piece_bytes: int = 1 << 62) -> Iterator[str]:
        """The same piece by piece: gives "" after each piece, and the name at the end.  Closed early, it leaves nothing.

        Raises
        ------
        FluoroGuideError
            No folder has room.
        """
        needed = sum(a.nbytes for a in arrays)
        self._count += 1
        number, last = self._count, len(self.folders) - 1
        for index, folder in enumerate(self.folders):
            name, whole = f"{index}-{self._side}{number}.bin", False
            try:
                if index < last and shutil.disk_usage(folder).free < needed + _RESERVE_BYTES:
                    continue
                with open(folder / name, "xb") as file:
                    for array in arrays:
                        octets = array.reshape(-1).view(np.uint8)
                        for first in range(0, len(octets), piece_bytes):
                            file.write(octets[first : first + piece_bytes])
                            yield ""
                whole = True
                yield name
                return
            except OSError:
                pass  # the next folder
            finally:
                if not whole:
                    with contextlib.suppress(OSError):
                        os.unlink(folder / name)
        raise FluoroGuideError(
            "The data cannot be handed to the registration process", f"{needed / 1e6:.0f} MB", "Free space in the temporary folder and try again.",
        )

    def read(self, name: str, layout: Sequence[tuple[np.dtype, tuple[int, ...]]]) -> list[np.ndarray]:
        """The arrays of a file, in memory of their own; the file is deleted in any case.

        Raises
        ------
        ValueError, OSError
            Not a name that :meth:`write` makes, a file that is missing, or one of another length.
        """
        if not _NAME.fullmatch(name) or int(name[0]) >= len(self.folders):
            raise ValueError("not the name of an exchange file")
        path = self.folders[int(name[0])] / name
        try:
            if path.stat().st_size != sum(d.itemsize * _count(s) for d, s in layout):
                raise ValueError("exchange file of another length")
            with open(path, "rb") as file:
                return [np.fromfile(file, d, _count(s)).reshape(s) for d, s in layout]
        finally:
            self.discard(name)

    def discard(self, name: str | None) -> None:
        """Delete a file that nobody will read."""
        if name and _NAME.fullmatch(name) and int(name[0]) < len(self.folders):
            with contextlib.suppress(OSError):
                os.unlink(self.folders[int(name[0])] / name)

    def close(self) -> None:
        """Remove the folders and all in them."""
        for lock in self._locks:
            lock.close()
        self._locks = []
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _hold(path: Path) -> object:
    """An open file that tells others that its folder is in use; freed by the system when this process ends."""
    file = open(path, "wb")  # noqa: SIM115 - stays open as long as the folder is used
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def sweep() -> int:
    """Remove the folders of clients that were killed; returns how many."""
    removed = 0
    for root in storage_roots():
        for folder in root.glob(PREFIX + "*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _YOUNG_SECONDS and _mine(folder) and not _in_use(folder / _LOCK):
                    shutil.rmtree(folder, ignore_errors=True)
                    removed += 1
    return removed


def _mine(folder: Path) -> bool:
    return not folder.is_symlink() and (os.name != "posix" or folder.stat().st_uid == os.getuid())


def _in_use(lock: Path) -> bool:
    if not lock.exists():
        return False
    if os.name != "posix":
        try:
            lock.unlink()  # Windows does not delete a file that another process holds open
        except OSError:
            return True
        return False
    import fcntl

    with open(lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
