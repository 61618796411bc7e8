"""Live frames and recorded runs in the scene.

* :class:`NodeSource`: a volume node that something else fills (SlicerOpenIGTLink, Plus, a Sequence browser) as a live source.
* :class:`LiveXray`: any live source's frames in a volume node at the detector plane, pixels written in place.
* :func:`build_run`: the frames of a run as a Sequence with browser; :class:`RunBrowser` keeps its view upright.
* :func:`recorded_run`: a Sequence as a run, for replay.

MRML is touched by the main thread alone: sources that have a thread only hand over arrays, which :meth:`LiveXray.take`
fetches from a timer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.xray_tasks import run_times_s
from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..imaging.dicom_xa import XrayRun
from ..imaging.live import LiveFrame, LiveSource, QueuedSource, grey
from ..imaging.live_normalize import StreamNormalizer
from .host import Host
from .nodes import find, obtain, set_reference, vtk_matrix
from .xray_view import build_xray, ijk_to_ras, show_upright, view_name

VIEW_ATTRIBUTE = "FluoroGuide.view"
_RUN_ROLES = ("xray-run", "xray-run-browser")


# ---- a node as a source -----------------------------------------------------------------------------------------
class NodeSource(QueuedSource):
    """A scalar (or colour) one-slice volume node that changes.

    Parameters
    ----------
    node
        ``vtkMRMLVolumeNode``; its own position in space is not used.
    geometry
        C-arm card or view; ``None``: the view kept in the node's attribute by :func:`build_run`.
    options
        As for :class:`~FluoroGuideLib.imaging.live.QueuedSource`.
    """

    def __init__(self, node: Any, geometry: dict | CArmView | None = None, **options: object) -> None:
        if node is None or not node.IsA("vtkMRMLVolumeNode"):
            kind = "none" if node is None else node.GetClassName()
            raise FluoroGuideError("The live source is not a volume", kind, "Choose the volume that is filled")
        super().__init__(f"volume {node.GetName()}", geometry if geometry is not None else view_of(node), **options)
        self._node, self._tags, self._seen = node, [], self._state(node)

    def _prepare(self) -> None:
        import slicer
        import vtk

        # Writers raise one event or the other (slicer.util: Modified; replaced image data: both); one change is one frame.
        if not self._tags:
            events = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, vtk.vtkCommand.ModifiedEvent
            self._tags = [self._node.AddObserver(event, self._changed_node) for event in events]

    @staticmethod
    def _state(node: Any) -> tuple:
        """Changes whenever the pixels do."""
        image = node.GetImageData()
        scalars = image.GetPointData().GetScalars() if image is not None else None
        return (0,) if scalars is None else (image.GetAddressAsString(""), image.GetMTime(), scalars.GetMTime())

    def _receive(self) -> None:
        self._stopping.wait()  # frames come from the observer, on the main thread

    def _changed_node(self, caller: Any, event: str) -> None:
        import slicer

        state = self._state(caller)
        if state in (self._seen, (0,)):
            return
        self._seen = state
        try:
            self._put(self._copied(np.asarray(slicer.util.arrayFromVolume(caller))))
        except FluoroGuideError as error:
            self._refuse(str(error))

    @staticmethod
    def _copied(array: np.ndarray) -> np.ndarray:
        if array.shape[0] != 1:
            raise FluoroGuideError("The live volume is not one picture", f"shape {array.shape}", "Send single frames")
        return grey(array[0]).copy()

    def stop(self) -> None:
        """End observing the node."""
        for tag in self._tags:
            self._node.RemoveObserver(tag)
        self._tags = []
        super().stop()


def view_of(node: Any) -> CArmView | None:
    """The view kept in a volume node of a run, or ``None``."""
    text = node.GetAttribute(VIEW_ATTRIBUTE)
    return CArmView.from_dict(json.loads(text)) if text else None


# ---- a source into the scene ------------------------------------------------------------------------------------
class LiveXray:
    """X-ray ``index`` of the scene, fed by a live source."""

    def __init__(self, host: Host, source: LiveSource, index: int) -> None:
        self._host, self.source, self._index = host, source, index
        self.node: Any | None = None
        self.frame: LiveFrame | None = None
        self._view: CArmView | None = None

    def take(self) -> LiveFrame | None:
        """Put the newest waiting frame into the scene (call it from a timer); ``None`` when none waits."""
        frame = self.source.poll()
        if frame is not None:
            self.show(frame)
        return frame

    def show(self, frame: LiveFrame) -> None:
        """Put a frame into the scene: pixels in place; the node is made, or placed anew, when the geometry changed."""
        import slicer

        image = frame.image
        if self.node is None or self.node.GetScene() is None or not _same_view(self._view, image.view):
            self.node = build_xray(self._host, image, self._index)
            self.node.GetDisplayNode().SetWindowLevelMinMax(0.0, 1.0)
            self._view = image.view
        else:
            slicer.util.arrayFromVolume(self.node)[0] = image.pixels
            slicer.util.arrayFromVolumeModified(self.node)
        self.frame = frame

    def status(self) -> str:
        """The source's status."""
        return self.source.status()




def _same_view(one: CArmView | None, other: CArmView) -> bool:
    if one is None or (one.rows, one.columns) != (other.rows, other.columns):
        return False
    return one is other or all(
        np.array_equal(getattr(one, k), getattr(other, k)) for k in ("source_mm", "first_pixel_mm", "column_step_mm", "row_step_mm"))


# ---- runs -------------------------------------------------------------------------------------------------------
def build_run(host: Host, run: XrayRun, index: int, frames: range | None = None) -> RunBrowser:
    """The frames of a run as a Sequence (time in s) at their detector planes, with a browser, shown in X-ray view ``index``; all at once."""
    frames = range(len(run.frames)) if frames is None else frames
    times = run_times_s(run)
    mask = run.mask[0] if len(run.mask) == 1 else None
    normalizer = StreamNormalizer(polarity=run.facts.get("told_polarity"), relationship=run.facts.get("intensity_relationship"), mask=mask)
    filling = RunFilling(host, [run.view(f) for f in frames], times[list(frames)], lambda n: normalizer(run.frames[frames[n]]).pixels, index)
    while not filling.step():
        pass
    return filling.result


class RunFilling:
    """Makes a run's Sequence frame by frame: :meth:`step` from a timer, until it returns True.

    Parameters
    ----------
    views, times_s
        Of each frame.
    pixels_of
        Number of a frame -> its pixels, bone bright, 0..1.
    index
        The X-ray view that shows the run.
    """

    def __init__(self, host: Host, views: Sequence[CArmView], times_s: np.ndarray, pixels_of: Callable[[int], np.ndarray], index: int) -> None:
        self._host, self._views, self._times, self._pixels_of, self._index = host, views, np.asarray(times_s, float), pixels_of, index
        self.done = 0
        self.result: RunBrowser | None = None
        self._title = f"X-ray {view_name(index)[-1]} run"
        self._sequence = obtain(host, "vtkMRMLSequenceNode", _RUN_ROLES[0], self._title, str(index))
        self._sequence.RemoveAllDataNodes()
        self._sequence.SetIndexName("time")
        self._sequence.SetIndexUnit("s")
        self._sequence.SetNumericIndexValueTolerance(1e-6)

    def step(self) -> bool:
        """One frame, and after the last one the browser; True when all is there."""
        if self.done < len(self._views):
            scratch = self._host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", self._title)
            try:
                _fill(scratch, self._pixels_of(self.done), self._views[self.done])
                self._sequence.SetDataNodeAtValue(scratch, f"{self._times[self.done]:.6f}")
            finally:
                self._host.scene.RemoveNode(scratch)
            self.done += 1
            return False
        self._finish()
        return True

    def _finish(self) -> None:
        browser = obtain(self._host, "vtkMRMLSequenceBrowserNode", _RUN_ROLES[1], self._title + " browser", str(self._index))
        browser.RemoveAllSequenceNodes()
        browser.AddSynchronizedSequenceNode(self._sequence)
        steps = np.diff(self._times)
        browser.SetPlaybackRateFps(float(1 / np.median(steps)) if len(steps) else 15.0)
        browser.SetPlaybackLooped(True)
        self.result = RunBrowser(self._host, browser, self._sequence, self._index)
        self.result.select(0)


def _fill(node: Any, pixels: np.ndarray, view: CArmView) -> None:
    import slicer

    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(pixels, np.float32)[None])
    node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras(view)))
    node.SetAttribute(VIEW_ATTRIBUTE, json.dumps(view.to_dict()))


@dataclass(eq=False)
class RunBrowser:
    """A run in the scene: its browser, its sequence, and the volume that shows the selected frame."""

    host: Host
    browser: Any
    sequence: Any
    index: int
    _tag: int | None = field(default=None, repr=False)

    @property
    def node(self) -> Any:
        """The volume that shows the selected frame."""
        return self.browser.GetProxyNode(self.sequence)

    def select(self, frame: int) -> CArmView:
        """Show a frame, upright on its own detector plane; returns its view."""
        count = self.sequence.GetNumberOfDataNodes()
        if not 0 <= frame < count:
            raise FluoroGuideError("The run has no such frame", frame, f"Give 0 to {count - 1}")
        self.browser.SetSelectedItemNumber(frame)
        return self.refresh()

    def refresh(self) -> CArmView:
        """Make the shown frame upright: after the browser moved by itself, and after scene load."""
        node = self.node
        view = view_of(self.sequence.GetNthDataNode(self.browser.GetSelectedItemNumber()))
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0.0, 1.0)
        node.SetName(f"X-ray {view_name(self.index)[-1]} ({describe_angles(*view.angles_deg)})")
        show_upright(self.host, view, node, self.index)
        set_reference(node, "run", [self.browser])
        return view

    def follow(self) -> None:
        """Keep the view upright while the browser plays; :meth:`release` ends it."""
        import vtk

        if self._tag is None:
            self._last = None
            self._tag = self.browser.AddObserver(vtk.vtkCommand.ModifiedEvent, self._moved)

    def _moved(self, caller: Any, event: str) -> None:
        item = caller.GetSelectedItemNumber()
        if item != self._last and item >= 0:
            self._last = item
            self.refresh()

    def release(self) -> None:
        """Stop following; harmless when repeated."""
        if self._tag is not None:
            self.browser.RemoveObserver(self._tag)
            self._tag = None


def find_run(host: Host, index: int) -> RunBrowser | None:
    """The run of X-ray ``index`` in the scene (after a load), or ``None``."""
    sequence, browser = (find(host, role, str(index)) for role in _RUN_ROLES)
    return None if sequence is None or browser is None else RunBrowser(host, browser, sequence, index)


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """Frames copied out of a Sequence: what :class:`~FluoroGuideLib.imaging.live_replay.ReplaySource` needs of a run."""

    frames: np.ndarray
    mask: np.ndarray
    views: tuple[CArmView | None, ...]
    facts: dict
    source: str

    @property
    def missing(self) -> tuple[str, ...]:
        """What a view needs and the Sequence does not hold."""
        return () if all(v is not None for v in self.views) else ("the C-arm geometry of the Sequence",)

    def view(self, frame: int = 0) -> CArmView:
        """The view of a frame.

        Raises
        ------
        FluoroGuideError
            The Sequence holds none.
        """
        view = self.views[frame]
        if view is None:
            raise FluoroGuideError("The Sequence has no C-arm geometry", self.source, "Give a C-arm card or a view")
        return view


def recorded_run(sequence: Any, geometry: CArmView | None = None) -> RecordedRun:
    """A Sequence of one-slice volumes as a run; its index must be time in seconds to be replayed at its own rate.

    Raises
    ------
    FluoroGuideError
        Empty, not volumes, several slices, or pictures of different size.
    """
    import slicer

    count = sequence.GetNumberOfDataNodes()
    nodes = [sequence.GetNthDataNode(i) for i in range(count)]
    if not count or any(not n.IsA("vtkMRMLVolumeNode") or n.GetImageData() is None for n in nodes):
        raise FluoroGuideError("The Sequence does not hold pictures", sequence.GetName(), "Choose a Sequence of X-ray volumes")
    arrays = [np.asarray(slicer.util.arrayFromVolume(n)) for n in nodes]
    if any(a.shape[0] != 1 for a in arrays) or len({a.shape for a in arrays}) != 1:
        raise FluoroGuideError("The Sequence's pictures are not single frames of one size", sequence.GetName())
    frames = np.stack([grey(a[0]) for a in arrays])
    facts: dict = {"frames": count}
    try:
        times = np.array([float(sequence.GetNthIndexValue(i)) for i in range(count)])
        if count > 1 and sequence.GetIndexUnit() == "s" and (np.diff(times) > 0).all():
            facts["frame_times_ms"] = (1000 * (times - times[0])).tolist()
    except ValueError:  # an index of words: no times
        pass
    if view_of(nodes[0]) is not None:
        facts["told_polarity"] = "bone bright"  # frames of build_run are normalised
    views = tuple(geometry or view_of(n) for n in nodes)
    return RecordedRun(frames, np.ones((1, *frames.shape[1:]), bool), views, facts, sequence.GetName())
