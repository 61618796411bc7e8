"""2D/3D registration in the manner of ``sitk.ImageRegistrationMethod``, for scripts that know SimpleITK.

Example::

    method = ImageRegistrationMethod2D3D()
    method.SetInitialTransform(rough)                      # maps points of the volume to the isocentre frame, LPS mm
    method.AddCommand(sitk.sitkMultiResolutionIterationEvent, lambda: print(method.GetCurrentLevel()))
    pose = method.Execute([read_xray("A.dcm"), read_xray("B.dcm")], sitk.ReadImage("ct.nii.gz"))
    print(method.GetOptimizerStopConditionDescription(), method.GetResult().verdict)

Names are SimpleITK's where the meaning is SimpleITK's.  What differs: the fixed images are X-rays with their C-arm geometry; the
transform maps *moving* points to the fixed (isocentre) frame, because the X-rays have no grid to resample the volume on; a
stopped registration raises instead of returning half an answer.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Sequence

import numpy as np

from ..anatomy.attenuation import AttenuationVolume, attenuation_from_hu
from ..errors import CancelledError, FluoroGuideError
from ..geometry.rigid import from_sitk, to_sitk
from ..imaging.xray import XrayImage
from .geometry_error import CArmTolerance
from .prior import PosePrior
from .register import Options, register
from .result import Registration
from .similarity import Evaluation
from .volume import MovingVolume

ABANDON_AFTER_S = 0.1
"""How long a stopped registration is waited for; after that it ends by itself at its next check, unseen."""


class ImageRegistrationMethod2D3D:
    """Registers a volume to one or more X-rays.

    Commands run in the thread that called :meth:`Execute`; :meth:`StopRegistration` may be called from any thread, and from a command.
    The same input gives the same answer, whatever the number of threads.
    """

    def __init__(self) -> None:
        self._initial: np.ndarray | None = None
        self._targets: dict[str, np.ndarray] = {}
        self._options = Options()
        self._modality = "CT"
        self._prior: PosePrior | None = None
        self._part: object = None
        self._commands: list[tuple[int, Callable[[], None]]] = []
        self._result: Registration | None = None
        self._forget()

    # ---- input ------------------------------------------------------------------------------------------------------
    def SetInitialTransform(self, transform: object) -> None:
        """Rough pose: a rigid SimpleITK transform that maps **points of the volume to the isocentre frame**, both LPS mm.

        That is what ``pose.tfm`` holds.  ITK's resampling wants the inverse; a transform that Slicer shows *from parent* is this one.

        Raises
        ------
        FluoroGuideError
            The transform is not rigid.
        """
        self._initial = from_sitk(transform)

    def GetInitialTransform(self) -> object | None:
        """The rough pose as ``sitk.Euler3DTransform``; None where none was set (the targets' mean is then put at the isocentre)."""
        return None if self._initial is None else to_sitk(self._initial)

    def SetOptions(self, options: Options) -> None:
        """All of :class:`~.register.Options` at once (levels, search, threads, backend)."""
        self._options = options

    def GetOptions(self) -> Options:
        """The options in force."""
        return self._options

    def SetGlobalSearch(self, search: bool) -> None:
        """Search widely around the initial transform (the default), or only refine it."""
        self._options = dataclasses.replace(self._options, search=bool(search))

    def SetNumberOfThreads(self, threads: int) -> None:
        """Threads over views and starts."""
        if threads < 1:
            raise FluoroGuideError("The number of threads must be 1 or more", threads)
        self._options = dataclasses.replace(self._options, threads=int(threads))

    def SetTargets(self, targets: dict[str, np.ndarray]) -> None:
        """Named points (3,), volume LPS mm: the error is predicted there, and the transform turns about their mean."""
        self._targets = {name: np.asarray(point, float) for name, point in targets.items()}

    def SetMovingModality(self, modality: str) -> None:
        """What a SimpleITK image given to :meth:`Execute` holds: ``"CT"`` or ``"CBCT"``, in HU."""
        self._modality = modality

    def SetPosePrior(self, prior: PosePrior | None) -> None:
        """What is known of the pose beforehand (volume to isocentre), with its weight; None for nothing."""
        self._prior = prior

    def SetPart(self, part: object) -> None:
        """What is registered: None for the whole volume, ``"auto"`` for the bone at the targets, label values, or a :class:`~.parts.Part`."""
        self._part = part

    def SetCArmTolerance(self, tolerance: CArmTolerance | None) -> None:
        """Estimate the C-arm's geometry too, within these limits; None takes it as given.  ``GetResult().carm`` tells how far it moved."""
        self._options = dataclasses.replace(self._options, carm=tolerance)

    # ---- commands ---------------------------------------------------------------------------------------------------
    def AddCommand(self, event: int, command: Callable[[], None]) -> int:
        """Call ``command()`` at an event: ``sitk.sitkStartEvent``, ``sitkEndEvent``, ``sitkIterationEvent``,
        ``sitkMultiResolutionIterationEvent`` (a level begins), ``sitkProgressEvent``, ``sitkAbortEvent``, ``sitkAnyEvent``.

        An exception of the command ends the registration and reaches the caller of :meth:`Execute`.
        """
        if not callable(command):
            raise FluoroGuideError("A command must be something that can be called", command)
        self._commands.append((int(event), command))
        return len(self._commands) - 1

    def RemoveAllCommands(self) -> None:
        """Forget all commands."""
        self._commands.clear()

    def HasCommand(self, event: int) -> bool:
        """Whether a command waits for this very event."""
        return any(e == event for e, _ in self._commands)

    # ---- running ----------------------------------------------------------------------------------------------------
    def Execute(self, fixed_views: Sequence[XrayImage], moving: object) -> object:
        """Register.

        Parameters
        ----------
        fixed_views
            X-rays of one isocentre frame.
        moving
            A SimpleITK image in HU, an :class:`AttenuationVolume`, or a :class:`MovingVolume` (its pyramid is reused).

        Returns
        -------
        ``sitk.Euler3DTransform`` that maps points of the volume to the isocentre frame, turning about the targets' mean (else the
        volume's centre).

        Raises
        ------
        FluoroGuideError
            As :func:`~.register.register`.
        CancelledError
            :meth:`StopRegistration` was called; at most 0.2 s later.
        """
        if self._running.locked():
            raise FluoroGuideError("This method is registering already", None, "Use one method object per registration at a time")
        with self._running:
            self._begin()
            run = _Run(self)
            try:
                self._fire("sitkStartEvent")
                result, center = run.wait(list(fixed_views), moving)
            except CancelledError:
                self._description = f"stopped on request after {self._iteration} iterations"
                self._fire("sitkAbortEvent")
                raise
            except BaseException as error:
                self._stop.set()  # the worker has no one to report to any more
                self._description = f"failed: {error}"
                raise
            self._finish(result)
            self._fire("sitkEndEvent")
            return to_sitk(result.pose, center)

    def StopRegistration(self) -> None:
        """Ask a running :meth:`Execute` to end with :class:`CancelledError`; from any thread."""
        self._stop.set()
        self._channel.put(None)

    # ---- output -----------------------------------------------------------------------------------------------------
    def GetResult(self) -> Registration:
        """The last registration with its verdict, covariance and target errors."""
        if self._result is None:
            raise FluoroGuideError("Nothing has been registered yet", None, "Call Execute first")
        return self._result

    def GetMetricValue(self) -> float:
        """Minus the mean local correlation over the views, -1 at best, as sitk's correlation metric.

        During the registration that of the latest iteration (of whichever candidate it belongs to), afterwards the result's; NaN before
        the first iteration.
        """
        return self._metric

    def GetOptimizerIteration(self) -> int:
        """Iterations so far, all levels and candidates together."""
        return self._iteration

    def GetCurrentLevel(self) -> int:
        """0 while searching and at the coarsest level, then 1, 2, ..."""
        return self._level

    def GetProgress(self) -> float:
        """0..1."""
        return self._progress

    def GetOptimizerStopConditionDescription(self) -> str:
        """One sentence on how the last registration ended."""
        return self._description

    # ---- inside -----------------------------------------------------------------------------------------------------
    def _forget(self) -> None:
        self._running = threading.Lock()
        self._stop, self._channel = threading.Event(), queue.SimpleQueue()
        self._metric, self._iteration, self._level, self._progress, self._description = float("nan"), 0, 0, 0.0, "not started"

    def _begin(self) -> None:
        self._stop, self._channel, self._result = threading.Event(), queue.SimpleQueue(), None
        self._metric, self._iteration, self._level, self._progress, self._description = float("nan"), 0, 0, 0.0, "running"

    def _finish(self, result: Registration) -> None:
        self._result, self._metric, self._progress = result, -float(np.mean(result.similarity)), 1.0
        last = result.history[-1]["stage"] if result.history else "the only stage"
        reasons = f" ({'; '.join(result.reasons)})" if result.reasons else ""
        self._description = f"converged at {last} after {self._iteration} iterations, verdict {result.verdict}{reasons}"

    def _fire(self, event: str) -> None:
        """Run the commands of an event, in the order they were added, in the calling thread."""
        import SimpleITK as sitk

        wanted = (getattr(sitk, event), sitk.sitkAnyEvent)
        for number, command in list(self._commands):
            if number in wanted:
                command()


class _Run:
    """One registration in a thread of its own, so that the caller can be let go at once when it is stopped."""

    def __init__(self, method: ImageRegistrationMethod2D3D) -> None:
        self.method, self.stop, self.channel = method, method._stop, method._channel
        self.answer: tuple | BaseException | None = None
        self.level, self.counting = -1, False
        self.lock = threading.Lock()

    def wait(self, views: list[XrayImage], moving: object) -> tuple[Registration, np.ndarray]:
        """The registration and the transform's centre; runs the commands meanwhile."""
        if self.stop.is_set():  # asked for by a command of the start event
            raise CancelledError()
        # no daemon: Python would end it inside C++ code at exit, which aborts the process; it ends by itself soon after a stop
        worker = threading.Thread(target=self._work, args=(views, moving), name="2D/3D registration")
        worker.start()
        while True:
            message = self.channel.get()
            if self.stop.is_set():
                worker.join(ABANDON_AFTER_S)
                raise CancelledError()
            if message is None:
                continue
            event, seen = message
            if event == "done":
                break
            try:
                self.method._fire(event)
            finally:
                seen.set()
        worker.join()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def _work(self, views: list[XrayImage], moving: object) -> None:
        try:
            method = self.method
            volume = moving if isinstance(moving, (MovingVolume, AttenuationVolume)) else attenuation_from_hu(moving, method._modality)
            result = register(
                volume, views, method._initial, targets=method._targets or None, options=method._options, progress=self._progressed,
                cancelled=_Watch(self), part=method._part, prior=method._prior,
            )
            attenuation = volume.volume if isinstance(volume, MovingVolume) else volume
            self.answer = result, _center(attenuation, method._targets)
        except BaseException as error:
            self.answer = error
        self.channel.put(("done", threading.Event()))

    def _progressed(self, fraction: float, text: str) -> None:
        if self.stop.is_set():  # abandoned: the method may be at work on the next registration
            return
        self.method._progress = float(fraction)
        self._post("sitkProgressEvent")
        self.counting = text.startswith(("refining", "registering", "estimating the C-arm"))  # not the checks that follow
        if text.startswith("refining"):
            self.level += 1
            self.method._level = self.level
            self._post("sitkMultiResolutionIterationEvent")

    def iterated(self, evaluation: Evaluation) -> None:
        """Told of each iteration, from several threads."""
        with self.lock:
            if self.counting and not self.stop.is_set():
                self.method._iteration += 1
                self.method._metric = -evaluation.correlation
                self._post("sitkIterationEvent")

    def _post(self, event: str) -> None:
        """Let the caller's thread run the commands of an event and wait for them."""
        if self.stop.is_set() or not self.method._commands:
            return
        seen = threading.Event()
        self.channel.put((event, seen))
        while not seen.wait(0.05) and not self.stop.is_set():
            pass


class _Watch:
    """What the registration asks (whether to stop) and tells (each iteration)."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def __call__(self) -> bool:
        return self.run.stop.is_set()

    def iteration(self, evaluation: Evaluation) -> None:
        """An iteration begins at the pose with this evaluation."""
        self.run.iterated(evaluation)


def _center(volume: AttenuationVolume, targets: dict[str, np.ndarray]) -> np.ndarray:
    from ..geometry.frames import center_lps_mm

    return np.mean(list(targets.values()), axis=0) if targets else center_lps_mm(volume.image)
