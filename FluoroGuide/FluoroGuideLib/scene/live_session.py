"""Live guidance in the scene: sources in, pictures with overlay and the needle's numbers out; driven by a timer that only calls ``tick``.

Live frames have a volume node of their own in each X-ray view; the reference X-rays, from which the registration was made,
stay as they are and come back when the live view stops.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.client import EngineClient
from ..engine.live import LiveSession
from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..guidance.deviation import Deviation, deviation
from ..guidance.live import LiveSetup
from ..guidance.single_view import OneView
from ..guidance.state import GuidanceState
from ..guidance.triangulation import NeedlePose, locate_needle, needle_in_volume
from ..imaging.live import LiveSource
from ..imaging.xray import XrayImage
from ..planning.plan import Plan, Trajectory
from ..registration.result import Registration
from .guide_views import GuideViews
from .live_view import LiveView
from .nodes import obtain, remove, vtk_matrix
from .raw_volumes import content_key
from .xray_view import UprightLock, ijk_to_ras, show_upright, view_name, window_of

if TYPE_CHECKING:
    from .session import CaseSession

ROLE_LIVE = "live-xray"
RANK = ("ok", "hold", "stale", "moved", "lost", "fail")
"""States from good to bad: of several views the worst one is told."""
FRESH_SECONDS = 1.5
"""Findings of two views belong together when neither is older: the patient breathes."""
RATE_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class LiveReport:
    """What the guidance of this moment says.

    Attributes
    ----------
    state, note
        See :class:`~FluoroGuideLib.guidance.state.GuidanceState`; the worst of the views.
    frames_per_second
        Frames shown per second, of all views together.
    needle, deviation
        In 3-D, from two fresh views (volume frame); None otherwise.
    one_view
        X-ray index -> what that view alone says.
    streaming_seconds
        Time during which frames came: an estimate of the fluoroscopy time.
    messages
        What the sources complain about.
    """

    state: str
    note: str
    frames_per_second: float
    needle: NeedlePose | None = None
    deviation: Deviation | None = None
    one_view: Mapping[int, OneView] = field(default_factory=dict)
    streaming_seconds: float = 0.0
    messages: tuple[str, ...] = ()


class _Channel:
    """One live X-ray view."""

    def __init__(self, host: Any, source: LiveSource, client: EngineClient, setup: LiveSetup, index: int, image: XrayImage) -> None:
        self.source, self.index, self.image = source, index, image
        self.session = LiveSession(setup, client=client)
        self.session.state.fluoroscopy_on()
        self.node = _live_node(host, image, index)
        self.view = LiveView(host, self.session, self.node, index)
        self.lock = UprightLock(show_upright(host, image.view, self.node, index), image.view)
        self.seen_at: float | None = None
        self.frame: np.ndarray | None = None

    def take(self, host: Any, now: float) -> bool:
        """A waiting frame into the view; True when there was one."""
        import slicer

        frame = self.source.poll()
        if frame is None:
            self.view.tick()
            return False
        pixels, view = np.asarray(frame.image.pixels, np.float32), frame.image.view
        array = slicer.util.arrayFromVolume(self.node)
        if array.shape[1:] != pixels.shape:
            sizes = f"{pixels.shape}, {array.shape[1:]}"
            raise FluoroGuideError("The live frames have another size than the X-ray", sizes, "Load an X-ray of this run")
        array[0] = pixels
        slicer.util.arrayFromVolumeModified(self.node)
        if not _same(view, self.session.setup.view):
            self._turn(host, view)
        told = getattr(self.source, "geometry", None) in (None, {})
        self.session.push(pixels, view, told)
        self.frame = pixels
        self.view.tick()
        return True

    def _turn(self, host: Any, view: CArmView) -> None:
        """The C-arm moved: the picture lies elsewhere now."""
        self.lock.release()
        self.node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras(view)))
        self.lock = UprightLock(show_upright(host, view, self.node, self.index), view)

    def close(self) -> None:
        """Stop the source, take the overlay and the lock off the view."""
        self.source.stop()
        self.lock.release()
        self.view.close()


class LiveGuidance:
    """Live guidance of a session's case."""

    def __init__(self, session: CaseSession, clock: Callable[[], float] = time.monotonic, make_client: Callable[[], Any] | None = None) -> None:
        self._session, self._clock = session, clock
        self._make_client = make_client or (lambda: EngineClient(tasks="FluoroGuideLib.engine.live_tasks", threads=1, hang_seconds=10.0))
        self._clients: dict[int, Any] = {}
        self._channels: list[_Channel] = []
        self._drr_job: Any | None = None
        self._views: GuideViews | None = None
        self._shown: deque[float] = deque()
        self._needle_key: tuple = ()
        self._needle: NeedlePose | None = None
        self._volume: Any | None = None
        self._xrays: dict[int, Any] = {}
        self._prefetched: tuple[tuple, Any, list[int]] | None = None
        self.located: NeedlePose | None = None
        """The needle of the last report in the isocentre frame, for keeping it."""
        self._streamed, self._last_frame_at = 0.0, None
        self.plan: Plan | None = None
        self.path: Trajectory | None = None
        self.registration: Registration | None = None

    @property
    def running(self) -> bool:
        """Whether live views are shown."""
        return bool(self._channels)

    # ---- start and stop ---------------------------------------------------------------------------------------------
    def start(self, sources: Mapping[int, LiveSource], volume: Any, xrays: Mapping[int, Any], plan: Plan, path: Trajectory) -> None:
        """Begin: one source per X-ray index.  The volume must be registered.

        Raises
        ------
        FluoroGuideError
            There is no usable registration or no source; nothing is then changed.
        """
        registration = self._session.registrar.registration
        if registration is None or registration.verdict == "fail":
            raise FluoroGuideError("There is no usable registration", None, "Register first")
        if not sources:
            raise FluoroGuideError("There is no live source", None, "Choose one in the X-ray section")
        self.stop()
        self.plan, self.path, self.registration = plan, path, registration
        host = self._session.host
        self._session.xrays.release()
        try:
            for index, source in sorted(sources.items()):
                image = self._session.xrays.image(xrays[index])
                source.start()
                setup = LiveSetup(
                    image.view, registration.pose, plan, path.target_lps_mm, None, image.mask, registration=registration, trajectory=path.name)
                self._channels.append(_Channel(host, source, self._client(index), setup, index, image))
        except FluoroGuideError:
            self.stop()
            raise
        self._volume, self._xrays = volume, dict(xrays)
        self._ask_drr()
        self._views = GuideViews(host, path, volume, registration.pose, plan.tolerance_mm(path))
        self._streamed, self._last_frame_at = 0.0, None

    def prefetch(self, volume: Any, xrays: Mapping[int, Any], path: Trajectory) -> Any:
        """Let the engine draw the bone for the motion watch right after a registration, so that it is there when the live view starts."""
        registration = self._session.registrar.registration
        views = {index: self._session.xrays.view(node) for index, node in xrays.items() if node is not None}
        return self._drawn(volume, views, registration, path)

    def _drawn(self, volume: Any, views: Mapping[int, CArmView], registration: Registration, path: Trajectory) -> Any:
        """The job that draws the bone for these views; the same one while nothing it depends on has changed."""
        target = np.asarray(path.target_lps_mm, float)
        key = (content_key(volume), registration.pose.tobytes(), target.tobytes(), str([(i, v.to_dict()) for i, v in sorted(views.items())]))
        if self._prefetched is None or self._prefetched[0] != key or self._prefetched[1].state in ("failed", "cancelled"):
            job = self._session.engine.run(
                "bone_drr", volume=self._session.registrar.handle(volume), views=[v for _i, v in sorted(views.items())], pose=registration.pose,
                target_lps_mm=target,
            )
            self._prefetched = key, job, sorted(views)
        return self._prefetched[1]

    def _ask_drr(self) -> None:
        """The bone as the motion watch needs it: what was drawn after the registration, or drawn now."""
        wanted = {channel.index: channel.image.view for channel in self._channels}
        both = self._prefetched[2] if self._prefetched is not None else []
        views = {i: self._session.xrays.view(self._xrays[i]) for i in both if i in self._xrays}
        self._drr_job = self._drawn(self._volume, views if set(wanted) <= set(views) else wanted, self.registration, self.path)

    def set_registration(self, registration: Registration, plan: Plan, path: Trajectory) -> None:
        """A new registration came in while live: overlays, motion watch and guide views follow."""
        import dataclasses

        self.registration, self.plan, self.path = registration, plan, path
        for channel in self._channels:
            channel.session.setup = dataclasses.replace(
                channel.session.setup, plan=plan, target_lps_mm=path.target_lps_mm, trajectory=path.name, bone_drr=None)
            channel.session.set_registration(registration)
        if self._channels:
            self._show_needle(None, ())
            self._ask_drr()
            self._views = GuideViews(self._session.host, path, self._volume, registration.pose, plan.tolerance_mm(path))

    def _client(self, index: int) -> Any:
        """The worker of a view; it stays for the next start, because ending one takes half a second."""
        if index not in self._clients:
            self._clients[index] = self._make_client()
        return self._clients[index]

    def stop(self) -> None:
        """End the live views; the reference X-rays are shown again by whoever shows X-rays."""
        self._drr_job = None
        while self._channels:
            channel = self._channels.pop()
            channel.close()
            self._session.guidance.forget(channel.index)
        self._shown.clear()
        self._views, self._needle, self._needle_key, self.located, self._volume = None, None, (), None, None
        remove(self._session.host, ROLE_LIVE)

    def forget(self) -> None:
        """The scene is being closed."""
        self.stop()
        self._prefetched, self._xrays = None, {}

    def close(self) -> None:
        """End the workers too."""
        self.stop()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    # ---- the loop -----------------------------------------------------------------------------------------------------
    def tick(self) -> LiveReport:
        """One step of the timer: newest frames in, results out; late frames are dropped by the sources."""
        now, host = self._clock(), self._session.host
        self._take_drr()
        for channel in self._channels:
            if channel.take(host, now):
                self._shown.append(now)
                if self._last_frame_at is not None:
                    self._streamed += min(now - self._last_frame_at, 0.5)
                self._last_frame_at = now
            result = channel.session.result
            if result is not None and result.finding is not None and result.finding.found:
                channel.seen_at = now if result.number != getattr(channel, "number", None) else channel.seen_at
                channel.number = result.number
        while self._shown and now - self._shown[0] > RATE_SECONDS:
            self._shown.popleft()
        return self._report(now)

    def _take_drr(self) -> None:
        """The bone's picture for the motion watch, once the engine has drawn it."""
        import dataclasses

        job = self._drr_job
        if job is None:
            return
        self._session.engine.poll()
        if not job.finished:
            return
        self._drr_job = None
        if job.state != "done":
            return  # the overlay goes on saying that motion is not watched
        drawn = dict(zip(self._prefetched[2], job.result, strict=True))
        for channel in self._channels:
            channel.session.setup = dataclasses.replace(channel.session.setup, bone_drr=drawn[channel.index])
            channel.session.set_registration(self.registration)

    def _report(self, now: float) -> LiveReport:
        states = [channel.session.status() for channel in self._channels] or [("fail", "the live view is off")]
        state, note = max(states, key=lambda s: RANK.index(s[0]))
        if state == "ok" and any(channel.session.setup.bone_drr is None for channel in self._channels):
            note = "motion is not watched yet" if self._drr_job is not None else "motion is not watched"
        one = {}
        for channel in self._channels:
            result = channel.session.result
            if result is not None and result.one_view is not None and channel.seen_at is not None and now - channel.seen_at <= FRESH_SECONDS:
                one[channel.index] = result.one_view
        needle, found = self._needle_of(now)
        messages = tuple(m for m in (getattr(c.source, "last_error", "") for c in self._channels) if m)
        return LiveReport(state, note, len(self._shown) / RATE_SECONDS, needle, found, one, self._streamed, messages)

    def _needle_of(self, now: float) -> tuple[NeedlePose | None, Deviation | None]:
        """The needle in 3-D from two fresh findings, and its distance from the plan; drawn in the guide views."""
        fresh = [c for c in self._channels if c.seen_at is not None and now - c.seen_at <= FRESH_SECONDS]
        if len(fresh) < 2 or self.registration is None:
            self._show_needle(None, ())
            self.located = None
            return None, None
        key = tuple(c.session.result.number for c in fresh)
        if key != self._needle_key:
            findings = [c.session.result.finding for c in fresh]
            try:
                sigma = [max(f.tip_sigma_px, 0.3) for f in findings]
                located = locate_needle(
                    [c.session.setup.view for c in fresh], np.array([f.tip_px for f in findings]), np.array([f.shaft_px for f in findings]), sigma)
                inside = needle_in_volume(located, self.registration.pose, self.registration)
            except FluoroGuideError:
                inside = located = None
            self._show_needle(inside, key)
            self.located = located
        if self._needle is None:
            return None, None
        n = self._needle
        return n, deviation(self.path, n.tip_mm, n.axis, n.tip_covariance_mm2, self.plan.tolerance_mm(self.path))

    def _show_needle(self, needle: NeedlePose | None, key: tuple) -> None:
        if self._views is not None and (needle is not None or self._needle is not None):
            if needle is None:
                self._views.update()
            else:
                self._views.update(needle.tip_mm, needle.axis, needle.tip_covariance_mm2)
        self._needle, self._needle_key = needle, key

    # ---- wishes -----------------------------------------------------------------------------------------------------
    def reclaim_views(self) -> None:
        """Show the live pictures again after somebody put another picture into their views."""
        for channel in self._channels:
            show_upright(self._session.host, channel.session.setup.view, channel.node, channel.index)

    def volume_edited(self) -> None:
        """The registered volume was changed: the overlays turn grey."""
        for state in self._states():
            state.volume_edited()

    def _states(self) -> list[GuidanceState]:
        return [channel.session.state for channel in self._channels]

    def frame(self, index: int) -> tuple[XrayImage, np.ndarray] | None:
        """The reference image and the newest pixels of a live view, or None when it shows nothing."""
        channel = next((c for c in self._channels if c.index == index), None)
        return None if channel is None or channel.frame is None else (channel.image, channel.frame)

    def findings(self) -> dict[int, Any]:
        """X-ray index -> the needle as it was found in the newest frame."""
        return {c.index: c.session.result.finding for c in self._channels if c.session.result is not None and c.session.result.finding is not None}


def _live_node(host: Any, image: XrayImage, index: int) -> Any:
    """The volume node that live frames are written into; never saved."""
    import slicer

    node = obtain(host, "vtkMRMLScalarVolumeNode", ROLE_LIVE, f"Live X-ray {view_name(index)[-1]}", str(index))
    node.SetSaveWithScene(False)
    node.SetHideFromEditors(True)
    slicer.util.updateVolumeFromArray(node, np.array(image.pixels, np.float32)[None])
    node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras(image.view)))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.AutoWindowLevelOff()
    low, high = window_of(image)
    display.SetWindowLevelMinMax(min(low, 0.0), max(high, 1.0) if low >= 0 and high <= 1 else high)
    return node


def _same(one: CArmView, other: CArmView) -> bool:
    names = ("source_mm", "first_pixel_mm", "column_step_mm", "row_step_mm")
    return one is other or ((one.rows, one.columns) == (other.rows, other.columns) and all(
        np.allclose(getattr(one, n), getattr(other, n), atol=1e-6) for n in names))
