"""One live frame after the other: motion, needle, overlay, deviation, each timed, with bounded work per frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.rigid import apply
from ..imaging.xray import XrayImage
from ..planning.plan import Plan
from ..registration.result import Registration
from .live_overlay import LiveOverlay, OverlayContent, finding_shapes
from .motion import MotionOptions, MotionReading, MotionWatch, view_change
from .needle import NeedleFinding, find_needle, search_needle
from .needle_candidates import field_mask
from .needle_model import width_of_gauge
from .overlay import greyed, orientation_shapes, status_shapes
from .shapes import Shape
from .single_view import OneView, one_view
from .state import GOOD, GuidanceState

SEARCH_LINES = 6
"""A needle that is not followed is looked for, one line a frame: a whole search costs ten times what following does."""


@dataclass(frozen=True, eq=False)
class LiveSetup:
    """Everything that does not change from frame to frame.

    Attributes
    ----------
    view
        Isocentre view.
    pose
        4x4, volume -> isocentre.
    target_lps_mm
        Where motion is judged, volume LPS mm.
    bone_drr
        :func:`.motion.bone_drr`; None: no motion watch (the overlay then says that it is not watched).
    bone_dark
        The frames show bone dark (raw fluoroscopy): they are turned over.
    whole_search
        Search whole frames at once: for recorded runs, where no frame waits.
    trajectory
        Name of the planned path to compare with; the first by default.
    """

    view: CArmView
    pose: np.ndarray
    plan: Plan
    target_lps_mm: np.ndarray
    bone_drr: np.ndarray | None = None
    mask: np.ndarray | None = None
    content: OverlayContent = field(default_factory=OverlayContent)
    registration: Registration | None = None
    motion: MotionOptions = field(default_factory=MotionOptions)
    bone_dark: bool = False
    look_for_needle: bool = True
    whole_search: bool = False
    trajectory: str | None = None


@dataclass(frozen=True, eq=False)
class LiveResult:
    """What one frame gave.

    ``shapes`` are the geometry without letters and status line: :func:`composed` adds those and the colours of the
    state at the time of drawing, which may have changed since.  ``milliseconds`` per stage.
    """

    number: int
    sent_at: float
    alignment: str
    motion: MotionReading | None
    finding: NeedleFinding | None
    one_view: OneView | None
    shapes: list[Shape]
    pose: np.ndarray
    milliseconds: dict[str, float]


class LiveGuide:
    """Works through frames; keeps what the next frame can use."""

    def __init__(self, setup: LiveSetup) -> None:
        self.setup, self.pose = setup, np.asarray(setup.pose, float)
        self.overlay = LiveOverlay(setup.view, setup.plan, setup.content, setup.registration)
        self.watch = None if setup.bone_drr is None else MotionWatch(
            setup.view, self.pose, setup.target_lps_mm, setup.bone_drr, setup.motion, setup.mask)
        self.trajectory = setup.plan.trajectory(setup.trajectory) if setup.plan.trajectories else None
        self.mm_per_px = setup.view.mm_per_pixel_at(apply(self.pose, setup.target_lps_mm))
        self._field = None if setup.mask is None else field_mask(setup.mask)
        self._near: NeedleFinding | None = None
        self._search: Iterator[NeedleFinding | None] | None = None
        self._width_mm = None if self.trajectory is None else width_of_gauge(self.trajectory.gauge)

    def process(self, pixels: np.ndarray, number: int = 0, sent_at: float = 0.0) -> LiveResult:
        """One frame (rows, columns) as it came; ``sent_at`` in seconds of the caller's clock."""
        marks = [time.perf_counter()]
        image = self._bone_bright(pixels)
        marks.append(time.perf_counter())
        motion = self.watch.check(image, sent_at, self._near) if self.watch is not None else None
        marks.append(time.perf_counter())
        finding = self._needle(image) if self.setup.look_for_needle else None
        marks.append(time.perf_counter())
        geometry = self.overlay.geometry(self.pose)
        if finding is not None and finding.found:
            geometry = geometry + finding_shapes(self.overlay.drawn, finding)
        marks.append(time.perf_counter())
        seen = one_view(self.setup.view, self.pose, finding, self.trajectory) if finding is not None and finding.found else None
        marks.append(time.perf_counter())
        names = ("convert", "motion", "needle", "overlay", "deviation")
        spent = {n: 1e3 * (b - a) for n, a, b in zip(names, marks[:-1], marks[1:], strict=True)}
        alignment = "ok" if motion is None else motion.state
        return LiveResult(number, sent_at, alignment, motion, finding, seen, geometry, self.pose, spent)

    def xray(self, pixels: np.ndarray) -> XrayImage:
        """A frame as it came as an X-ray: bone bright, with the session's mask and geometry."""
        image = self._bone_bright(pixels)
        mask = np.ones(image.shape, bool) if self.setup.mask is None else self.setup.mask
        return XrayImage(image, mask, self.setup.view, "live")

    def _bone_bright(self, pixels: np.ndarray) -> np.ndarray:
        image = np.asarray(pixels, np.float32)
        return -image if self.setup.bone_dark else image

    def set_pose(self, pose: np.ndarray) -> None:
        """A new pose (from tracking or registration): the overlay follows, and the next frame is the motion's new reference."""
        self.pose = np.asarray(pose, float)
        if self.watch is not None and not self.watch.follow(self.pose):
            self.watch = None

    def _needle(self, image: np.ndarray) -> NeedleFinding:
        """Follow the last finding; without one, one step of a search: the work of a frame stays bounded, found or not."""
        planned = self._planned_px()
        if self._near is not None or self.setup.whole_search:
            found = find_needle(
                image, self._field, self.mm_per_px, planned_px=planned, near=self._near, width_mm=self._width_mm,
                candidates=SEARCH_LINES if self.setup.whole_search else 0,
            )
            self._near = found if found.found else None
            return found
        if self._search is None:
            around = self.setup.view.project(apply(self.pose, self.setup.target_lps_mm))[0]
            self._search = search_needle(
                image, self._field, self.mm_per_px, planned_px=planned, around_px=around, candidates=SEARCH_LINES, width_mm=self._width_mm)
        seen = next(self._search)
        if seen is None:
            return NeedleFinding(False, reason="Looking for the needle.")
        self._search = None
        # Found in a picture some frames old: it is the next frame that says where it is now.
        self._near = seen if seen.found else None
        return NeedleFinding(False, reason=seen.reason if not seen.found else "Looking for the needle.")

    def _planned_px(self) -> np.ndarray | None:
        if self.trajectory is None:
            return None
        planned = self.setup.view.in_volume(self.pose).project(np.array([self.trajectory.entry_lps_mm, self.trajectory.target_lps_mm]))
        return planned if np.isfinite(planned).all() else None


def composed(result: LiveResult | None, setup: LiveSetup, state: GuidanceState, now: float) -> list[Shape]:
    """What is drawn now: the last frame's geometry in the colours of the *present* state, letters and status line."""
    status, note = state.status(now)
    shapes = [] if result is None else list(result.shapes)
    if status not in GOOD:
        shapes = greyed(shapes)
    if status == "ok" and (setup.bone_drr is None or (result is not None and result.motion is None)):
        note = "motion is not watched"
    elif status == "ok" and result is not None and not result.motion.watched:
        note = "motion is not watched: the bone is hardly seen"
    return shapes + orientation_shapes(setup.view) + status_shapes(setup.view, setup.registration, status, note)


def follow_view(state: GuidanceState, old: CArmView, new: CArmView, told: bool) -> str:
    """Tell the state about a frame's geometry; returns ``same``, ``follows`` or ``moved`` (see :func:`.motion.view_change`)."""
    change = view_change(old, new, told)
    if change != "same":
        state.carm_moved(follows=change == "follows")
    return change
