"""Opening sources beside the program: a run of many frames takes a second to read, and a server may not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from .live import LiveSource


class Opener:
    """Makes sources in a thread of its own; none of them is started.

    Parameters
    ----------
    makers
        Slot -> what makes its source from files or the network.
    made
        Sources that are there already.
    """

    def __init__(self, makers: Mapping[int, Callable[[], LiveSource]], made: Mapping[int, LiveSource] | None = None) -> None:
        self._made, self._makers, self._error = dict(made or {}), dict(makers), None
        self._thread = threading.Thread(target=self._work, name="FluoroGuide opening", daemon=True) if makers else None
        if self._thread is not None:
            self._thread.start()

    def _work(self) -> None:
        try:
            for slot, make in self._makers.items():
                self._made[slot] = make()
        except BaseException as error:  # raised again where it can be told
            self._error = error

    @property
    def finished(self) -> bool:
        """Whether :meth:`result` may be asked for."""
        return self._thread is None or not self._thread.is_alive()

    def result(self) -> dict[int, LiveSource]:
        """Slot -> source.

        Raises
        ------
        FluoroGuideError
            One of them cannot be opened.
        """
        if self._error is not None:
            raise self._error
        return self._made
