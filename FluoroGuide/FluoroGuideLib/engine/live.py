"""The live loop as Slicer's timer sees it: push frames, poll, draw.  Nothing here blocks, and late frames are dropped.

At most one frame is in the worker and one waits; a newer one takes the waiting one's place (counted in ``dropped``).
The worker is one of its own, beside that of the registrations, so that a registration never holds the picture up.
What the overlay may look like is decided here, not in the worker: it turns grey although the worker hangs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..guidance.live import LiveResult, LiveSetup, composed, follow_view
from ..guidance.shapes import Shape
from ..guidance.state import GuidanceState
from ..registration.tracked import TrackResult
from .client import EngineClient
from .job import Job
from .ring import FrameRing

_SESSIONS = itertools.count(1)


@dataclass
class LiveCounters:
    """What happened to the frames: ``pushed = analysed + dropped + failed + those on their way``."""

    pushed: int = 0
    analysed: int = 0
    dropped: int = 0
    failed: int = 0
    restarts: int = 0


class LiveSession:
    """One live view.

    Parameters
    ----------
    setup
        See :class:`LiveSetup`.
    volume
        For tracking (``track_every`` or :meth:`track`); None: no tracking.
    track_every
        Re-register in every n-th frame; 0: on demand only.
    client
        An engine with the live tasks; one of its own by default.
    clock
        Seconds; replaced in tests.
    """

    def __init__(
        self, setup: LiveSetup, *, volume: object = None, track_every: int = 0, client: EngineClient | None = None,
        state: GuidanceState | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.setup, self.volume, self.track_every, self._clock = setup, volume, track_every, clock
        self._owns = client is None
        self.client = client or EngineClient(tasks=f"{__package__}.live_tasks", threads=1, hang_seconds=10.0)
        self.state = state or GuidanceState()
        if setup.registration is not None:
            self.state.registration_done(setup.registration.verdict)
        else:
            self.state.registered = True
        self.counters, self.result, self._told = LiveCounters(), None, None
        self.tracked: TrackResult | None = None
        self.latency_ms: list[float] = []
        self._number, self._session = 0, next(_SESSIONS)
        self._ring: FrameRing | None = None
        self._waiting: tuple[int, np.ndarray, float] | None = None
        self._job: Job | None = None
        self._kind, self._opened_in, self._track_wanted, self._last_slot = "", -1, False, None

    # ---- frames ----
    def push(self, pixels: np.ndarray, view: CArmView | None = None, told: bool = False) -> int:
        """A new frame (rows, columns); returns its number.  ``view``, ``told``: its geometry by the tags, and whether they tell all of it."""
        now = self._clock()
        self._number += 1
        self.counters.pushed += 1
        self.state.frame_arrived(now)
        if view is not None and follow_view(self.state, self.setup.view, view, told) == "follows":
            self._follow(view)
        if self._waiting is not None:
            self.counters.dropped += 1
        self._waiting = (self._number, np.ascontiguousarray(pixels), now)
        self._step()
        return self._number

    def poll(self) -> LiveResult | None:
        """Take what is ready; the newest result when there is a new one.  To be called by a timer, every 10-30 ms."""
        self._step()
        if self.result is self._told:  # a result may have come in while a frame was pushed: it counts as new here
            return None
        self._told = self.result
        return self.result

    def shapes(self) -> list[Shape]:
        """What to draw now, in the colours of the present state."""
        return composed(self.result, self.setup, self.state, self._clock())

    def status(self) -> tuple[str, str]:
        """(state, why) now."""
        return self.state.status(self._clock())

    # ---- wishes ----
    def track(self) -> None:
        """Register again from the present pose at the next chance (the one key)."""
        self._track_wanted = True

    def set_registration(self, registration: object) -> None:
        """A full registration came in: a new session with its pose."""
        import dataclasses

        self.setup = dataclasses.replace(self.setup, pose=registration.pose, registration=registration)
        self.state.registration_done(registration.verdict)
        self._opened_in = -1

    def close(self) -> None:
        """End the worker (when it is this session's own) and free the frames."""
        if self._owns:
            self.client.close()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._waiting = None

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside ----
    def _follow(self, view: CArmView) -> None:
        """The C-arm moved and the tags say where to: a new session with the new geometry.  Its DRR is out of date until made again."""
        import dataclasses

        self.setup = dataclasses.replace(self.setup, view=view, bone_drr=None)
        self.state.causes.add("carm")  # grey until registered or given a new DRR: nothing checks the picture
        self._opened_in = -1

    def _step(self) -> None:
        self.client.poll()
        self.counters.restarts = max(0, self.client.starts - 1)
        if self._job is not None and self._job.finished:
            self._take(self._job)
            self._job = None
        if self._job is None:
            self._start_next()

    def _take(self, job: Job) -> None:
        if job.state != "done":
            self.counters.failed += self._kind == "live_frame"
            self._opened_in = -1  # open again, in a new worker if this one is gone
            if self._kind == "live_open":
                raise job.error
            return
        if self._kind == "live_frame" and job.result is not None:
            self.result = job.result
            self.counters.analysed += 1
            self.latency_ms.append(1e3 * (self._clock() - job.result.sent_at))
            del self.latency_ms[:-20000]
            self.state.frame_checked(job.result.alignment)
        elif self._kind == "live_frame":
            self.counters.dropped += 1
        elif self._kind == "live_track" and job.result is not None:
            self._take_tracked(job.result)

    def _take_tracked(self, result: TrackResult) -> None:
        """The pose, where the target was found; else the overlay is grey until it is.  What is said of the views is kept."""
        import dataclasses

        self.tracked = result
        self.state.tracked(result.state != "lost")
        if result.state != "lost":
            self.setup = dataclasses.replace(self.setup, pose=np.asarray(result.pose))

    def _start_next(self) -> None:
        if self._waiting is None:
            return
        number, pixels, sent_at = self._waiting
        if self._ring is None or (self._ring.shape, self._ring.dtype) != (pixels.shape, pixels.dtype):
            if pixels.shape != (self.setup.view.rows, self.setup.view.columns):
                self._waiting = None
                raise FluoroGuideError("The live frame does not fit the C-arm view", f"{pixels.shape}", "Restart the live view with its geometry")
            if self._ring is not None:
                self._ring.close()
            self._ring, self._opened_in = FrameRing(pixels.shape, pixels.dtype), -1
        if self._opened_in != self.client.starts or not self.client.ready:
            self._run("live_open", setup=self.setup, ring=self._ring.describe(), volume=self.volume)
            self._opened_in = self.client.starts
            return
        due = self.track_every and self.counters.analysed % self.track_every == self.track_every - 1
        if self._last_slot is not None and (self._track_wanted or due):
            self._track_wanted = False
            slot, seen = self._last_slot
            self._last_slot = None
            self._run("live_track", slot=slot, number=seen)
            return
        self._waiting = None
        slot = self._ring.write(number, pixels)
        self._last_slot = (slot, number)
        self._run("live_frame", slot=slot, number=number, sent_at=sent_at)

    def _run(self, task: str, **arguments: object) -> None:
        self._kind = task
        self._job = self.client.run(task, session=self._session, **arguments)
