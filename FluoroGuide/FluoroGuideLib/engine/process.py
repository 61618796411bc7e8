"""Starting and ending the worker process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

from .. import __version__
from ..errors import FluoroGuideError
from .exchange import Exchange
from .messages import PROTOCOL, Framer, Message, encode
from .pipes import PolledPipes, ThreadedPipes

_PACKAGE = __package__.rpartition(".")[0]
_LIBRARY_PARENT = Path(__file__).resolve().parents[2]
_STDERR_KEPT = 16 << 10
_NOT_INHERITED = ("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONDEBUG", "PYTHONVERBOSE", "PYTHONPROFILEIMPORTTIME")


def interpreter(executable: str | None = None) -> str:
    """The Python to run the worker in: inside Slicer ``PythonSlicer``, elsewhere this one.

    Raises
    ------
    FluoroGuideError
        The executable is an application and no Python lies beside it: starting it would open a second window.
    """
    path = Path(executable or sys.executable or "")
    if "python" in path.stem.lower():
        return str(path)
    for folder in (path.parent, path.parent / "bin", path.parent.parent / "bin"):
        for name in ("PythonSlicer", "PythonSlicer.exe"):
            if (folder / name).is_file():
                return str(folder / name)
    shown = path.name or "sys.executable is empty"
    raise FluoroGuideError("No Python was found to run the registration in", shown, "Start FluoroGuide from an installed 3D Slicer.")


def default_threads() -> int:
    """Threads for the worker: one core stays with the window."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable - 1)


def worker_environment(threads: int, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the worker: this one, with the library found, bounded threads, and no user start-up files."""
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED} | dict(extra or {})
    paths = [str(_LIBRARY_PARENT), environment.get("PYTHONPATH", "")]
    environment.update(PYTHONPATH=os.pathsep.join(p for p in paths if p), PYTHONSAFEPATH="1", MPLBACKEND="Agg")
    # BLAS stays serial: its matrices are small here, and its threads would only fight with those of the search.
    environment.update({f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL", "BLIS")}, VECLIB_MAXIMUM_THREADS="1")
    environment.update(OMP_NUM_THREADS=str(threads), NUMBA_NUM_THREADS=str(threads), ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=str(threads))
    return environment


class WorkerProcess:
    """One life of the worker: its process, pipes and exchange folders.  Nothing blocks but :meth:`end`.

    Parameters
    ----------
    executable
        Python to use (see :func:`interpreter`).
    tasks
        Dotted name of the module with the tasks.
    environment
        Complete environment.
    threaded
        Serve the pipes with threads; by default only where they cannot be polled (Windows).
    """

    def __init__(self, executable: str, tasks: str, environment: Mapping[str, str], threaded: bool | None = None) -> None:
        command = [executable, "-m", f"{_PACKAGE}.engine.worker", "--tasks", tasks]
        # A session of its own: Ctrl+C stays with the client, and a launcher and its Python can be ended together.
        apart = {"start_new_session": True} if os.name == "posix" else {"creationflags": subprocess.CREATE_NO_WINDOW}
        self.exchange = Exchange.create()
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=dict(environment), **apart,
            )
        except OSError as error:
            self.exchange.close()
            raise FluoroGuideError("The registration process could not be started", error.strerror, "Check the installation of 3D Slicer.") from None
        self._pipes = (ThreadedPipes if (os.name == "nt" if threaded is None else threaded) else PolledPipes)(self._process)
        self._framer, self._stderr = Framer(skip_noise=True), b""
        self._ended_at: float | None = None
        self._end = weakref.finalize(self, _end, self._process, self._pipes, self.exchange, pids := [])
        self._pids = pids
        self.started = time.monotonic()
        self.send("hello", protocol=PROTOCOL, version=__version__, folders=[str(f) for f in self.exchange.folders])

    @property
    def pid(self) -> int:
        """Id of the process that was started (with a launcher in between, not the one that computes)."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def stderr(self) -> str:
        """The last lines that the worker and its libraries printed; kept in memory only."""
        return (self._framer.noise + self._stderr).decode("utf-8", "replace")

    def greeted(self, pid: int) -> None:
        """Note the id of the process that computes, so that it ends too when a launcher stands in between."""
        if isinstance(pid, int) and pid != self._process.pid:
            self._pids.append(pid)

    def send(self, kind: str, *, written: str | None = None, **fields: object) -> None:
        """Send a message; arrays go through the exchange (``written``: they are there).  Raises FluoroGuideError for what cannot be sent."""
        self._pipes.send(encode(kind, fields, self.exchange, written))

    def receive(self) -> tuple[list[Message], bool]:
        """New messages, and whether the worker is gone (no more will come).

        Raises
        ------
        ProtocolError
            Bytes that are no message.
        """
        gone = self.exit_code is not None  # asked first: what it wrote before it ended is then read below
        out, err = self._pipes.receive()
        self._stderr = (self._stderr + err)[-_STDERR_KEPT:]
        if self._ended_at is None and (gone or self._pipes.eof):
            self._ended_at = time.monotonic()
        # Usually both are seen.  A child of the worker may hold its stdout open; a dying worker may take its time.
        over = (gone and self._pipes.eof) or (self._ended_at is not None and time.monotonic() - self._ended_at > 1.0)
        return self._framer.feed(out), over and not out

    def wait(self, seconds: float) -> None:
        """Return when something arrived, at the latest after ``seconds``."""
        self._pipes.wait(seconds)

    def end(self, patience: float = 0.0) -> None:
        """End the process, politely for ``patience`` seconds, and remove its files."""
        if patience > 0 and self._end.alive:
            with contextlib.suppress(FluoroGuideError):
                self.send("shutdown")
            self._pipes.close_input()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self._end()

    def how_it_ended(self) -> str:
        """``"exit code 3"`` or ``"signal SIGKILL"``."""
        code = self._process.poll()
        if code is None:
            return "no exit code"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def crash_log(self) -> str:
        """What a log may keep of stderr: fatal errors and the places of frames, without folders or printed text."""
        lines = re.findall(r"^(?:Fatal Python error: [\w ]+|  File \"[^\"]*\", line \d+.* in \w+|\w+(?:Error|Exception)\b)", self.stderr, re.M)
        return "\n".join(re.sub(r"\"[^\"]*[\\/]([^\"\\/]*)\"", r'"\1"', line) for line in lines[-40:])


def _end(process: subprocess.Popen, pipes: object, exchange: Exchange, pids: list[int]) -> None:
    """Kill what still runs, reap it, and remove the files; also called at garbage collection and at exit."""
    pipes.close_input()
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        for pid in pids:  # the launcher still runs or has just been ended, so the id is still the worker's
            with contextlib.suppress(OSError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
    pipes.close()
    exchange.close()
