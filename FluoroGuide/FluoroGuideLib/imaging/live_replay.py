"""Replay of a recorded run at its own rate, as if it were live."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .dicom_xa import XrayRun
from .live import QueuedSource
from .sources import open_xray

DEFAULT_FRAME_TIME_MS = 1000.0 / 15
"""Taken (and told) for runs that do not say how fast they were."""


class ReplaySource(QueuedSource):
    """Frames of a run in time with its frame time vector or frame time.

    Parameters
    ----------
    run
        A file's path, an :class:`~.dicom_xa.XrayRun`, or anything with its ``frames``, ``mask``, ``facts``, ``source``, ``missing``
        and ``view(frame)``.
    geometry
        C-arm card or view for what the tags lack.
    speed
        2.0 is twice as fast.
    repeat
        Start again after the last frame, until stopped.
    options
        As for :class:`~.live.QueuedSource`.
    """

    def __init__(
        self, run: str | Path | XrayRun, geometry: dict | CArmView | None = None, *, speed: float = 1.0, repeat: bool = False, **options,
    ) -> None:
        if not np.isfinite(speed) or speed <= 0:
            raise FluoroGuideError("The speed of a replay must be a positive number", speed)
        card = geometry if isinstance(geometry, dict) else {}
        self.run = open_xray(run, card) if isinstance(run, (str, Path)) else run
        super().__init__(f"replay of {self.run.source}", geometry, **options)
        self._speed, self._repeat = speed, repeat
        if not isinstance(geometry, CArmView) and not self._pictures_only:
            self.run.view(0)  # names all that is missing, before anything starts

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What was taken for granted about the rate."""
        known = "frame_times_ms" in self.run.facts or "frame_time_ms" in self.run.facts
        if known or len(self.run.frames) < 2:
            return ()
        return (f"the run does not say its rate: {1000 / DEFAULT_FRAME_TIME_MS:.0f} frames per second are taken",)

    def times_s(self) -> np.ndarray:
        """Time of each frame after the first (N,), seconds, at speed 1."""
        vector = self.run.facts.get("frame_times_ms")
        if vector is not None:
            return np.asarray(vector, float) / 1000
        return np.arange(len(self.run.frames)) * self.run.facts.get("frame_time_ms", DEFAULT_FRAME_TIME_MS) / 1000

    def _receive(self) -> None:
        times = self.times_s() / self._speed
        step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        began = self._clock()
        while not self._stopping.is_set():
            for frame, at in enumerate(times):
                self._stopping.wait(max(0.0, began + float(at) - self._clock()))
                if self._stopping.is_set():
                    return
                view = None if isinstance(self.geometry, CArmView) or self.run.missing else self.run.view(frame)
                mask = self.run.mask[frame if len(self.run.mask) > 1 else 0]
                self._put(self.run.frames[frame], facts=self.run.facts, view=view, frame=frame, mask=mask)
            if not self._repeat:
                return
            began += float(times[-1]) + max(step, 0.01)
