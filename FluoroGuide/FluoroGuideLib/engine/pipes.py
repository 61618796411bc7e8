"""The client's ends of the worker's pipes; nothing here ever blocks the caller.

POSIX: the ends are non-blocking and read when the client polls.  No thread is used, because inside Slicer threads
get next to no time while the window is idle (they would hold results back for seconds).  Windows cannot poll a pipe,
so threads do nothing but one blocking system call and one append each; :meth:`ThreadedPipes.receive` sleeps 1 ms to
give them the interpreter.  Both have the same interface and both are tested on POSIX.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections import deque

_CHUNK = 1 << 20
_MAX_PER_CALL = 16 << 20


class PolledPipes:
    """Non-blocking pipes of a child process (POSIX)."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._in, self._out, self._err = process.stdin, process.stdout, process.stderr
        self._pending = bytearray()
        self.eof = False
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)

    def send(self, data: bytes) -> None:
        """Queue bytes for the child and write what fits now."""
        self._pending += data
        self._flush()

    def receive(self) -> tuple[bytes, bytes]:
        """What the child wrote to stdout and stderr since the last call; sets ``eof`` at the end of stdout."""
        self._flush()
        return self._read(self._out), self._read(self._err)

    def wait(self, seconds: float) -> None:
        """Return when there is something to read, at the latest after ``seconds``."""
        if self.eof:
            time.sleep(seconds)
            return
        ready = select.poll() if hasattr(select, "poll") else None  # select() fails above 1024 open files
        if ready is None:
            time.sleep(min(seconds, 0.005))
            return
        ready.register(self._out, select.POLLIN)
        if self._pending:
            ready.register(self._in, select.POLLOUT)
        ready.poll(seconds * 1000)

    def close_input(self) -> None:
        """Tell the child that nobody is left."""
        self._flush()
        with contextlib.suppress(OSError):
            self._in.close()

    def close(self) -> None:
        """Close all ends."""
        for stream in (self._in, self._out, self._err):
            with contextlib.suppress(OSError):
                stream.close()

    def _flush(self) -> None:
        while self._pending and not self._in.closed:
            try:
                written = _write_unsignalled(self._in.fileno(), self._pending[:_CHUNK])
            except BlockingIOError:
                return
            except OSError:  # the child is gone: its end is noticed on stdout
                self._pending.clear()
                return
            del self._pending[:written]

    def _read(self, stream: object) -> bytes:
        parts, total = [], 0
        while total < _MAX_PER_CALL and not stream.closed:
            try:
                part = os.read(stream.fileno(), _CHUNK)
            except BlockingIOError:
                break
            except OSError:
                part = b""
            if not part:
                self.eof |= stream is self._out
                break
            parts.append(part)
            total += len(part)
        return b"".join(parts)


def _write_unsignalled(descriptor: int, data: bytes) -> int:
    """``os.write`` that cannot end the program by SIGPIPE: an application that embeds Python need not ignore it."""
    if signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN:
        return os.write(descriptor, data)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(descriptor, data)
    except BrokenPipeError:
        if signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ThreadedPipes:
    """Pipes served by three threads (Windows)."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._in, self._out, self._err = process.stdin, process.stdout, process.stderr
        self._to_send: queue.SimpleQueue = queue.SimpleQueue()
        self._got = {self._out: deque(), self._err: deque(maxlen=64)}
        self._news = threading.Event()
        self.eof = False
        self._threads = [
            threading.Thread(target=self._serve_reading, args=(self._out,), daemon=True),
            threading.Thread(target=self._serve_reading, args=(self._err,), daemon=True),
            threading.Thread(target=self._serve_writing, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, data: bytes) -> None:
        """Queue bytes for the child."""
        self._to_send.put(data)

    def receive(self) -> tuple[bytes, bytes]:
        """What the child wrote to stdout and stderr since the last call; ``eof`` is True once all of stdout was given out."""
        self._news.clear()
        time.sleep(0.001)
        ended = not self._threads[0].is_alive()
        result = tuple(b"".join(lot.popleft() for _ in range(len(lot))) for lot in self._got.values())
        self.eof = ended
        return result

    def wait(self, seconds: float) -> None:
        """Return when there is something to read, at the latest after ``seconds``."""
        self._news.wait(seconds)

    def close_input(self) -> None:
        """Tell the child that nobody is left, after all that was queued."""
        self._to_send.put(None)

    def close(self) -> None:
        """End the threads; call after the child ended, so that none is blocked in a read."""
        self._to_send.put(None)
        for thread in self._threads:
            thread.join(0.2)
        for thread, stream in zip(self._threads, (self._out, self._err), strict=False):
            if not thread.is_alive():  # never under a blocked read: the number could be given to another file
                with contextlib.suppress(OSError):
                    stream.close()

    def _serve_reading(self, stream: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            while part := os.read(stream.fileno(), _CHUNK):
                self._got[stream].append(part)
                self._news.set()
        self._news.set()

    def _serve_writing(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while (data := self._to_send.get()) is not None:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._in.fileno(), view) :]
        with contextlib.suppress(OSError):
            self._in.close()
