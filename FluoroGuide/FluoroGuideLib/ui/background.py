"""Work in the engine's process, asked for by a timer: the window stays free."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import qt

from ..errors import FluoroGuideError

POLL_MS = 30


class Background:
    """One job at a time; a new one replaces the one before.

    Parameters
    ----------
    session
        The case, whose engine works.
    attempt
        ``Section.attempt``: runs a function and tells its error in one sentence.
    told
        Called when a job starts or ends (to refresh what is shown).
    """

    def __init__(self, session: Any, attempt: Callable[[Callable[[], None]], bool], told: Callable[[], None]) -> None:
        self._session, self._attempt, self._told = session, attempt, told
        self._job: Any | None = None
        self._done: Callable[[Any], None] | None = None
        self._progressed: Callable[[Any], None] | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)

    @property
    def running(self) -> bool:
        """Whether a job runs or waits."""
        return self._job is not None

    @property
    def text(self) -> str:
        """What the job does now."""
        return self._job.text if self._job is not None else ""

    def start(self, job: Any, done: Callable[[Any], None], progressed: Callable[[Any], None] | None = None) -> None:
        """Wait for a job of the engine; ``done`` gets its result, ``progressed`` the job at each poll before.  A job before it is given up."""
        self.stop()
        self._job, self._done, self._progressed = job, done, progressed
        self._timer.start()
        self._told()

    def stop(self) -> None:
        """Give up the job."""
        self._timer.stop()
        job, self._job, self._done, self._progressed = self._job, None, None, None
        if job is not None and not job.finished:
            self._session.engine.cancel(job)

    def finish(self, seconds: float) -> None:
        """Wait for the job's end, at most so long: for files that somebody asked for and that must not be left half-way."""
        job = self._job
        if job is not None and not job.finished:
            try:
                self._session.engine.wait(job, timeout=seconds)
            except FluoroGuideError as error:
                logging.error("FluoroGuide: %s was not finished: %s", job.task, error.message)
        if job is not None:
            self._poll()

    def close(self) -> None:
        """Not used again."""
        self.stop()
        self._timer.disconnect("timeout()", self._poll)

    def _poll(self) -> None:
        job, done = self._job, self._done
        self._session.engine.poll()
        if job is None:
            return
        if not job.finished:
            if self._progressed is not None:
                self._progressed(job)
            return
        self._timer.stop()
        self._job = self._done = self._progressed = None
        if job.state == "cancelled":
            self._told()
            return
        self._attempt(lambda: self._end(job, done))

    @staticmethod
    def _end(job: Any, done: Callable[[Any], None]) -> None:
        if job.state != "done":
            if job.log:
                logging.error("FluoroGuide: %s failed\n%s", job.task, job.log)
            raise job.error
        done(job.result)
