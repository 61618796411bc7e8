"""Where runs are computed: a child process of this one, or a Dask cluster; both give the same numbers.

Every process that computes has one thread for linear algebra and ITK: sums in another order would differ in their last
digits, and many processes would get in each other's way.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ..errors import FluoroGuideError
from .study import Chunk, Settings, Subject
from .trials import run_chunk

ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
}
NEEDS_DASK = "More than one process needs Dask: pip install 'dask[distributed]>=2025.1'; this runs in one"
Report = Callable[[dict], None]


class Runner(Protocol):
    """Computes chunks."""

    workers: int

    def run(self, todo: Iterable[Chunk], report: Report) -> None:
        """All chunks; ``report(row)`` is called in this thread for each finished run."""

    def pictures(self, rows: list[tuple[int, dict]]) -> list[bytes | None]:
        """PNG of (subject number, row) each; None where it cannot be made."""


# ---- one child process --------------------------------------------------------------------------------------------------
_CHILD: dict = {}


def _start_child(subjects: list[Subject], settings: Settings, rows: object) -> None:
    from ..registration.register import warm_up

    _CHILD.update(subjects=subjects, settings=settings, rows=rows)
    warm_up()


def _child_chunk(chunk: Chunk) -> None:
    run_chunk(_CHILD["subjects"][chunk.subject], _CHILD["settings"], chunk, report=_CHILD["rows"].put)


def _child_picture(number: int, row: dict) -> bytes | None:
    return try_picture(_CHILD["subjects"][number], _CHILD["settings"], row)


def try_picture(subject: Subject, settings: Settings, row: dict) -> bytes | None:
    """A picture for the gallery, which is not worth an exception."""
    from .gallery import picture

    try:
        return picture(subject, settings, row)
    except Exception:
        return None


class ChildRunner:
    """One child process: serial, and a crash in native code does not take the study with it."""

    workers = 1

    def __init__(self, subjects: list[Subject], settings: Settings) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._rows = self._context.SimpleQueue()
        with one_thread():
            self._pool = concurrent.futures.ProcessPoolExecutor(1, self._context, _start_child, (subjects, settings, self._rows))
            self._pool.submit(os.getpid).result()  # started while the environment says one thread

    def run(self, todo: Iterable[Chunk], report: Report) -> None:
        """See :class:`Runner`."""
        for chunk in todo:
            job = self._pool.submit(_child_chunk, chunk)
            while not job.done():
                concurrent.futures.wait([job], 0.05)
                self._drain(report)
            self._drain(report)
            try:
                job.result()
            except concurrent.futures.process.BrokenProcessPool:
                raise FluoroGuideError("The computing process ended by itself", None, "Start the command again: finished runs are kept") from None

    def _drain(self, report: Report) -> None:
        while not self._rows.empty():
            report(self._rows.get())

    def pictures(self, rows: list[tuple[int, dict]]) -> list[bytes | None]:
        """See :class:`Runner`."""
        return [self._pool.submit(_child_picture, number, row).result() for number, row in rows]

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Child processes started meanwhile compute with one thread each."""
    before = {k: os.environ.get(k) for k in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def default_workers() -> int:
    """One per core, as far as memory allows: about 2.5 GB each for a CT of 512 x 512 x 130 (measured; Docs/scaling.md)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, AttributeError, OSError):
        return cores
    return max(1, min(cores, int(gigabytes / 2.5)))
