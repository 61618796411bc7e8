"""Opening live sources without holding the window up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import qt

from ..scene.source_choice import SourceChoice, open_sources

GIL_MS, GIL_SECONDS = 10, 0.005
"""Another thread starves while Slicer idles, unless the main thread sleeps now and then (SLICER_FACTS 5)."""


class Opening:
    """Opens some sources at a time; a new request replaces the one before.

    Parameters
    ----------
    attempt
        ``Section.attempt``: runs a function and tells its error in one sentence.
    """

    def __init__(self, attempt: Callable[[Callable[[], None]], bool]) -> None:
        self._attempt = attempt
        self._opener: Any | None = None
        self._done: Callable[[dict[int, Any]], None] | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(GIL_MS)
        self._timer.connect("timeout()", self._poll)

    @property
    def running(self) -> bool:
        """Whether sources are being opened."""
        return self._opener is not None

    def start(self, wanted: Sequence[tuple[int, SourceChoice, Any]], done: Callable[[dict[int, Any]], None]) -> None:
        """Open (slot, choice, geometry) each; ``done`` gets slot -> source, at once when nothing but the scene is read, else from a timer.

        Raises
        ------
        FluoroGuideError
            A source that reads the scene cannot be opened; errors of the others are told by ``attempt``.
        """
        self.stop()
        opener = open_sources(wanted)
        if opener.finished:
            done(opener.result())
            return
        self._opener, self._done = opener, done
        self._timer.start()

    def _poll(self) -> None:
        opener, done = self._opener, self._done
        if opener is not None and not opener.finished:
            time.sleep(GIL_SECONDS)
            return
        self.stop()
        if opener is not None:
            self._attempt(lambda: done(opener.result()))

    def stop(self) -> None:
        """Want the sources no more: none was started, so nothing has to be ended."""
        self._timer.stop()
        self._opener = self._done = None

    def close(self) -> None:
        """Not used again."""
        self.stop()
        self._timer.disconnect("timeout()", self._poll)
