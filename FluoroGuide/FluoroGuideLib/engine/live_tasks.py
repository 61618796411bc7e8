"""What the live worker can do: open a live session, work through its frames, track its pose.

The session's state lives in this process.  After a crash the client opens it again in a new one, so nothing of the
case is lost but the frames in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_open: dict = {}
"""The one session: ``{"id", "guide", "ring", "track"}``."""


def live_open(*, session: int, setup: object, ring: dict, volume: object = None, progress: Callable, cancelled: Callable) -> float:
    """Prepare a session; seconds it took.  ``volume`` is needed only for tracking."""
    from ..guidance.live import LiveGuide
    from .ring import RingReader

    began = time.perf_counter()
    _open.clear()
    _open.update(id=session, guide=LiveGuide(setup), ring=RingReader(**ring), volume=volume, tracker=None)
    _open["guide"].overlay.geometry(setup.pose)
    return time.perf_counter() - began


def live_frame(*, session: int, slot: int, number: int, sent_at: float, progress: Callable, cancelled: Callable) -> object:
    """A :class:`LiveResult`, or None when the frame was overwritten before it was read."""
    guide = _session(session)
    pixels = _open["ring"].read(slot, number)
    return None if pixels is None else guide.process(pixels, number, sent_at)


def live_track(*, session: int, slot: int, number: int, progress: Callable, cancelled: Callable) -> object:
    """Register again from the present pose on one frame (warm start, bounded cost).

    A :class:`~.registration.tracked.TrackResult`; None when the frame was overwritten before it was read, or there is no volume.
    """
    guide = _session(session)
    pixels = _open["ring"].read(slot, number)
    if pixels is None or _open["volume"] is None:
        return None
    image = guide.xray(pixels)
    if _open["tracker"] is None:
        from ..registration.tracking import Tracker
        from ..registration.volume import MovingVolume

        _open["tracker"] = Tracker(MovingVolume(_open["volume"]), [image], guide.pose, guide.setup.target_lps_mm)
    tracker = _open["tracker"]
    if abs(tracker.pose - guide.pose).max() > 1e-9:  # a pose came from elsewhere
        tracker.restart(guide.pose, [image])
    result = tracker.update([image])
    if result.state != "lost":
        guide.set_pose(result.pose)
    return result


def live_set_pose(*, session: int, pose: object, progress: Callable, cancelled: Callable) -> None:
    """A pose from elsewhere (a full registration)."""
    _session(session).set_pose(pose)


def _session(number: int) -> object:
    from ..errors import FluoroGuideError

    if _open.get("id") != number:
        raise FluoroGuideError("The live session is not open in this process", number, "Start the live view again")
    return _open["guide"]


TASKS = {"live_open": live_open, "live_frame": live_frame, "live_track": live_track, "live_set_pose": live_set_pose}
