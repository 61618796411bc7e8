"""Following the engine's jobs from one timer, which runs only while there is something to follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from ..scene.session import CaseSession

POLL_MS = 30


class Jobs:
    """Polls the engine and tells when a job has ended."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._followed: list[tuple[Any, Callable[[Any], None], Callable[[Any], None] | None]] = []
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)

    def follow(self, job: Any, ended: Callable[[Any], None], progress: Callable[[Any], None] | None = None) -> None:
        """Call ``ended(job)`` once the job is over, and ``progress(job)`` at each poll before."""
        self._followed.append((job, ended, progress))
        self._timer.start()

    def wake(self) -> None:
        """Poll until the engine has nothing to do: it was given work that nobody follows."""
        if self._session.engine.busy:
            self._timer.start()

    def poll(self) -> None:
        """One step; called by the timer."""
        self._session.engine.poll()
        for entry in list(self._followed):
            job, ended, progress = entry
            if job.finished:
                if entry in self._followed:  # an earlier callback may have dropped it
                    self._followed.remove(entry)
                    ended(job)
            elif progress is not None:
                progress(job)
        if not self._followed and not self._session.engine.busy:
            self._timer.stop()

    def drop(self) -> None:
        """Cancel and forget what is followed; nobody is called."""
        followed, self._followed = self._followed, []
        for job, _ended, _progress in followed:
            self._session.engine.cancel(job)
        self._timer.stop()

    def close(self) -> None:
        """Undo the connection."""
        self.drop()
        self._timer.disconnect("timeout()", self.poll)
