"""The child process: ``python -m FluoroGuideLib.engine.worker``; started by ``engine.client``, not by hand.

The main thread computes; a reader thread routes what arrives, so that a cancel is seen and a ping answered while the
main thread computes; a writer thread sends, so that a client that does not poll never holds the computation up (of
several unsent progress messages of a job only the last is kept).  The protocol runs over the original stdin and
stdout; what libraries print goes to stderr.  When stdin ends the client is gone: the worker removes the exchange
folders and leaves at once, whatever it is doing.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import os
import queue
import re
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .. import __version__
from ..errors import CancelledError, FluoroGuideError
from .exchange import Exchange
from .messages import PROTOCOL, Framer, Message, ProtocolError, VolumeReference, encode
from .volumes import RawVolume

_PACKAGE = __package__.rpartition(".")[0]
_TELLING = (TypeError, IndexError, AttributeError, NameError, ArithmeticError)
"""Exceptions whose text is written by Python about the program, not about the data."""


class Outbox:
    """Sends frames in order from a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._waiting, self._news = descriptor, deque(), threading.Condition()
        self._busy = False
        threading.Thread(target=self._serve, daemon=True).start()

    def send(self, kind: str, exchange: Exchange | None = None, **fields: object) -> None:
        """Queue a message; raises FluoroGuideError when a field cannot be sent."""
        frame = encode(kind, fields, exchange)
        with self._news:
            self._waiting.append((None, frame))
            self._news.notify()

    def send_progress(self, job: int, fraction: float, text: str) -> None:
        """Queue a progress message in place of an unsent one of the same job."""
        frame = encode("progress", {"job": job, "fraction": fraction, "text": text})
        with self._news:
            if self._waiting and self._waiting[-1][0] == job:
                self._waiting.pop()
            self._waiting.append((job, frame))
            self._news.notify()

    def drain(self, seconds: float) -> None:
        """Wait until all is sent, at most ``seconds``."""
        with self._news:
            self._news.wait_for(lambda: not self._waiting and not self._busy, seconds)

    def _serve(self) -> None:
        while True:
            with self._news:
                self._busy = False
                self._news.notify_all()
                self._news.wait_for(lambda: self._waiting)
                view = memoryview(self._waiting.popleft()[1])
                self._busy = True
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                return  # the client is gone; the reader thread notices too


class Worker:
    """The command loop."""

    def __init__(self, source: int, target: int, tasks: dict, forget: Callable[[object], None]) -> None:
        self._source, self._outbox, self._tasks, self._forget = source, Outbox(target), tasks, forget
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._volumes: dict[int, object] = {}
        self._exchange = Exchange([], "w")

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        threading.Thread(target=self._read, daemon=True).start()
        while (message := self._inbox.get()) is not None:
            if not self._serve(message):
                self._outbox.drain(1.0)
                return 4
        self._outbox.drain(1.0)
        return 0

    # ---- reader thread ----
    def _read(self) -> None:
        framer = Framer()
        while True:
            try:
                data = os.read(self._source, 1 << 20)
            except OSError:
                data = b""
            if not data:
                self._leave(0)
            try:
                for message in framer.feed(data):
                    self._route(message)
            except Exception as error:
                # After this nothing can be read any more, not even a cancel: leave, and let the client start another.
                broken = error if isinstance(error, ProtocolError) else ProtocolError(type(error).__name__)
                self._outbox.send("refused", reason=broken.what, value=broken.value)
                self._outbox.drain(1.0)
                self._leave(3)

    def _route(self, message: Message) -> None:
        if message.kind == "ping":
            self._outbox.send("pong", count=message.peek("count"))
        elif message.kind == "cancel":
            self._cancelled.add(message.peek("job"))
        else:
            self._inbox.put(None if message.kind == "shutdown" else message)

    def _leave(self, code: int) -> None:
        self._exchange.close()
        os._exit(code)

    # ---- main thread ----
    def _serve(self, message: Message) -> bool:
        if message.kind == "hello":
            return self._greet(message)
        if message.kind == "set_volume":
            self._set_volume(message)
        elif message.kind == "drop_volume":
            self._forget(self._volumes.pop(message.peek("id"), None))
        elif message.kind == "run":
            self._run(message)
        else:
            self._outbox.send("refused", reason="The registration process got a message it does not know", value=message.kind)
            return False
        return True

    def _greet(self, message: Message) -> bool:
        if (message.peek("protocol"), message.peek("version")) != (PROTOCOL, __version__):
            self._outbox.send("refused", reason="The registration process has another version of FluoroGuide", value=__version__)
            return False
        self._exchange = Exchange(message.read()["folders"], "w")
        self._outbox.send("hello", protocol=PROTOCOL, version=__version__, pid=os.getpid())
        return True

    def _set_volume(self, message: Message) -> None:
        number = message.peek("id")
        try:
            self._volumes[number] = message.read(self._exchange)["volume"]
        except Exception as error:  # told when a job wants the volume
            self._volumes[number] = error

    def _run(self, message: Message) -> None:
        job = message.peek("job")
        try:
            self._check(job)
            result = self._call(job, message)
            self._check(job)
            self._outbox.send("done", self._exchange, job=job, result=result)
        except FluoroGuideError as error:
            self._fail(job, "cancelled" if isinstance(error, CancelledError) else "error", error.what, error.value, error.next_step, "")
        except MemoryError as error:
            what = "The computer has not enough free memory for this"
            self._fail(job, "error", what, None, "Close other programs or crop the volume.", describe(error))
        except Exception as error:
            what = f"The {message.peek('task')} task stopped because of an error in the program"
            self._fail(job, "error", what, type(error).__name__, "Try again, and report the log if it happens again.", describe(error))
        finally:
            message.discard(self._exchange)
            self._cancelled.discard(job)

    def _call(self, job: int, message: Message) -> object:
        task = message.peek("task")
        if task not in self._tasks:
            raise FluoroGuideError("The registration process does not know this task", task)
        received = message.read(self._exchange)["arguments"]
        arguments = {k: self._volume(v) if isinstance(v, VolumeReference) else v for k, v in received.items()}

        def progress(fraction: float, text: str = "") -> None:
            self._check(job)
            self._outbox.send_progress(job, min(1.0, max(0.0, float(fraction))), str(text)[:500])

        return self._tasks[task](**arguments, progress=progress, cancelled=lambda: job in self._cancelled)

    def _volume(self, reference: VolumeReference) -> object:
        volume = self._volumes.get(reference.id)
        if volume is None:
            raise FluoroGuideError("The registration process does not have the volume", reference.id, "Try again.")
        if isinstance(volume, Exception):
            raise volume
        if isinstance(volume, RawVolume):  # converted when first used, and then the same object each time
            volume = self._volumes[reference.id] = volume.ready()
        return volume

    def _check(self, job: int) -> None:
        if job in self._cancelled:
            raise CancelledError()

    def _fail(self, job: int, state: str, what: str, value: object, next_step: str | None, log: str) -> None:
        plain = value if value is None or type(value) in (bool, int, float, str) else str(value)
        self._outbox.send("failed", job=job, state=state, what=what, value=plain, next_step=next_step, log=log)


def describe(error: BaseException) -> str:
    """Where and which error, for a log: no paths but file names, and no text that could name a patient.

    The message is kept only for errors that Python words itself, with quoted parts and paths masked.
    """
    frames = [f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    text = type(error).__name__
    if isinstance(error, _TELLING):
        text += ": " + re.sub(r"'[^']*'|\"[^\"]*\"|\S*[\\/^]\S*", "...", str(error))[:300]
    elif isinstance(error, ImportError) and error.name:
        text += f": {error.name}"
    return "\n".join([*frames, text])


def _take_over_stdio() -> tuple[int, int]:
    """The pipes' descriptors, private to this module; afterwards stdin is empty and what is printed goes to stderr."""
    source, target = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as empty:
        os.dup2(empty.fileno(), 0)
    os.dup2(2, 1)
    if os.name == "nt":
        import msvcrt

        msvcrt.setmode(source, os.O_BINARY)
        msvcrt.setmode(target, os.O_BINARY)
    sys.stdout = sys.stderr
    return source, target


def _give_way() -> None:
    """Lower this process's priority: where the cores do not suffice, the application and its live view come first."""
    with contextlib.suppress(OSError, AttributeError):
        if os.name == "posix":
            os.nice(5)
            return
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.SetPriorityClass(ctypes.c_void_p(kernel.GetCurrentProcess()), 0x4000)  # BELOW_NORMAL_PRIORITY_CLASS


def main(arguments: list[str] | None = None) -> int:
    """Run the worker on this process's stdin and stdout."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default=f"{_PACKAGE}.engine.tasks", help="module with a dictionary TASKS and perhaps a function forget(volume)")
    options = parser.parse_args(arguments)
    source, target = _take_over_stdio()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a terminal is the client's business
    with contextlib.suppress(OSError, ValueError, AttributeError):
        faulthandler.enable()
    tasks = importlib.import_module(options.tasks)
    if getattr(tasks, "GIVES_WAY", False):
        _give_way()
    return Worker(source, target, tasks.TASKS, getattr(tasks, "forget", lambda volume: None)).run()


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # threads of libraries must not hold a process back that has nothing more to do
