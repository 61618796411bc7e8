"""The engine as Slicer and scripts see it.

In Slicer a timer calls :meth:`EngineClient.poll` (10-30 ms) and looks at its jobs; nothing there blocks::

    engine = EngineClient()
    engine.warm_up(volume)                                 # while the user plans
    job = engine.submit(volume, images, targets=targets)   # returns at once
    engine.poll(); job.state, job.progress, job.text, job.result, job.error

Scripts call :meth:`EngineClient.register`, which has the signature of ``registration.register.register``.

The worker starts with the first need and stays.  One job is given to it at a time, so whatever happens to the worker
hurts that job only: it fails (or is cancelled) with one sentence, and the next job starts a new worker, which gets
the volumes again.  Use a client from one thread only.  Arguments must not be changed until their job has ended.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

from ..errors import CancelledError, FluoroGuideError
from .exchange import sweep
from .job import Job
from .messages import Message, ProtocolError, VolumeReference
from .process import WorkerProcess, default_threads, interpreter, worker_environment
from .shelf import Shelf

_AGAIN = "Start it again; a new process is started by itself."
CANCEL_SECONDS = 0.15
"""A cancelled job ends for its owner at the latest by then; the worker is given its own time to stop."""


class EngineClient:
    """Owns the worker process.

    Parameters
    ----------
    tasks
        Dotted name of the module with the worker's tasks.
    threads
        Threads of the worker; one core less than there are by default.
    max_volumes
        Volumes kept in the worker; the one not used for longest goes first.
    cancel_grace_seconds
        A worker that has not stopped a cancelled job by then is killed and replaced.
    hang_seconds
        A worker that has not answered a ping for so long is killed; its job fails.  SimpleITK calls hold the
        interpreter, so this must be longer than the longest of them.
    start_seconds
        Longest start; generous, because a loaded machine starts it at lowest priority.
    environment
        Further environment variables for the worker.
    threaded_pipes
        See ``pipes``; chosen by system when None.
    """

    def __init__(
        self, *, tasks: str = f"{__package__}.tasks", threads: int | None = None, max_volumes: int = 3, heartbeat_seconds: float = 1.0,
        cancel_grace_seconds: float = 2.5, hang_seconds: float = 60.0, start_seconds: float = 120.0, executable: str | None = None,
        environment: Mapping[str, str] | None = None, threaded_pipes: bool | None = None,
    ) -> None:
        self._start = (executable, tasks, threads or default_threads(), dict(environment or {}), threaded_pipes)
        self._heartbeat, self._grace, self._hang, self._start_limit = heartbeat_seconds, cancel_grace_seconds, hang_seconds, start_seconds
        self._shelf = Shelf(max_volumes)
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._ended: list[Job] = []
        self._worker: WorkerProcess | None = None
        self._ready, self._closed, self._want, self._warm = False, False, False, False
        self._ping_at, self._heard_at, self._awaiting_pong = 0.0, 0.0, False
        self._next_id, self._last_stderr = 1, ""
        self.starts = 0

    # ---- giving work --------------------------------------------------------------------------------------------
    def submit(
        self, volume: object, images: list, initial: object = None, *, targets: object = None, options: object = None, part: object = None,
        labels: object = None, landmarks: list | None = None,
    ) -> Job:
        """Start a registration; returns at once.

        Parameters
        ----------
        volume, images, initial, targets, options
            Those of ``registration.register.register``; the volume also as :class:`~.volumes.RawVolume`.
        part
            None: the whole volume; ``"auto"``: the bone around the targets; label value(s) of ``labels``.
        labels
            :class:`~.volumes.RawLabels` or :class:`~.volumes.BoneLabels`, on any grid; sent once, like the volume.
        landmarks
            ``registration.landmarks.LandmarkPair``s from which the start is worked out; ``initial`` is then the expected pose.
        """
        arguments = {"volume": volume, "images": images, "initial": initial, "targets": targets, "options": options}
        further = {"part": part, "labels": labels, "landmarks": landmarks}
        return self.run("register", **arguments, **{k: v for k, v in further.items() if v is not None})

    def run(self, task: str, **arguments: object) -> Job:
        """Queue any task of the worker.  A volume or label image among the arguments is sent once and kept there."""
        self._must_be_open()
        job = Job(self._new_id(), task, {k: self._refer(v) for k, v in arguments.items()})
        self._queue.append(job)
        self._step()
        return job

    def warm_up(self, volume: object = None, options: object = None) -> Job:
        """Start the worker and let it import, compile and derive from the volume what a registration needs, before it is needed."""
        self._warm = True
        return self.run("warm_up", **({} if volume is None else {"volume": volume, "options": options}))

    def set_volume(self, volume: object) -> None:
        """Hand a volume to the worker ahead of its first use, piece by piece.  Its voxels must not be changed afterwards."""
        self._must_be_open()
        self._want = True
        self._refer(volume)
        self._step()

    def forget_volume(self, volume: object) -> None:
        """Free the worker's copy of a volume."""
        self._shelf.remove(volume)

    def cancel(self, job: Job) -> None:
        """Ask for a job's end.  Queued jobs end at once; a running one when the worker confirms, or is killed."""
        if job.finished or job.cancel_requested:
            return
        job.cancel_requested = True
        if job in self._queue:
            self._queue.remove(job)
            self._finish(job, "cancelled", error=CancelledError())
        elif job is self._running and self._worker is not None:
            job._since = time.monotonic()
            self._worker.send("cancel", job=job.id)

    def poll(self) -> list[Job]:
        """Read what arrived, watch the worker, start the next job.  Never blocks.  Returns the jobs that ended."""
        self._step()
        ended, self._ended = self._ended, []
        return ended

    # ---- waiting, for scripts and tests ---------------------------------------------------------------------------
    def register(
        self, volume: object, images: list, initial: object = None, *, targets: object = None, options: object = None,
        progress: Callable[[float, str], None] | None = None, cancelled: Callable[[], bool] | None = None, timeout: float | None = None,
    ) -> object:
        """Register and wait for the :class:`Registration`.

        Raises
        ------
        FluoroGuideError
            Bad input, a worker that stopped, or ``timeout`` seconds have passed.
        CancelledError
            ``cancelled()`` became true.
        """
        job = self.submit(volume, images, initial, targets=targets, options=options)
        return self.wait(job, timeout=timeout, progress=progress, cancelled=cancelled)

    def wait(
        self, job: Job, *, timeout: float | None = None, progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> object:
        """Wait for a job and return its result, or raise its error.  Cancels it when interrupted or out of time."""
        deadline, told, late = time.monotonic() + (math.inf if timeout is None else timeout), (0.0, ""), False
        try:
            while not job.finished:
                self._step()
                if progress and (job.progress, job.text) != told:
                    told = (job.progress, job.text)
                    progress(*told)
                late = late or time.monotonic() > deadline
                if late or (cancelled and cancelled()):
                    self.cancel(job)
                if not job.finished:
                    self._idle(0.02)
        except BaseException:
            self.cancel(job)
            raise
        self._ended = [j for j in self._ended if j is not job]
        if job.state == "done":
            return job.result
        if late:
            what = f"The {job.task} task took longer than allowed"
            raise FluoroGuideError(what, f"{timeout:g} s", "Allow more time or start nearer to the answer.")
        raise job.error

    # ---- state ----------------------------------------------------------------------------------------------------
    @property
    def alive(self) -> bool:
        """True while the worker runs and has answered lately, as known at the last ``poll``."""
        return self._ready and not (self._awaiting_pong and time.monotonic() - self._ping_at > 5 * self._heartbeat)

    @property
    def ready(self) -> bool:
        """True once the worker has started and greeted."""
        return self._ready

    @property
    def busy(self) -> bool:
        """True while a job runs or waits."""
        return self._running is not None or bool(self._queue)

    @property
    def worker_pid(self) -> int | None:
        """Id of the worker's process."""
        return self._worker.pid if self._worker else None

    @property
    def stderr_tail(self) -> str:
        """The last lines printed in the worker, for developers: libraries may print anything, so never store them."""
        return self._worker.stderr if self._worker else self._last_stderr

    def close(self) -> None:
        """End the worker; jobs that have not ended are cancelled.  Takes at most about half a second."""
        if self._closed:
            return
        self._closed = True
        worker, self._worker, idle = self._worker, None, self._running is None
        for job in [*([self._running] if self._running else []), *self._queue]:
            self._finish(job, "cancelled", error=CancelledError("The engine was closed"))
        self._queue.clear()
        self._shelf.clear()
        self._ready = False
        if worker is not None:
            worker.end(0.5 if idle else 0.0)

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- one step -------------------------------------------------------------------------------------------------
    def _step(self) -> None:
        if self._closed:
            return
        if self._worker is not None:
            self._receive()
        if self._worker is not None:
            self._watch()
        if self._worker is None and (self._queue or self._want):
            self._launch()
        if self._ready:
            self._supply()

    def _idle(self, seconds: float) -> None:
        if self._shelf.sending:
            return
        if self._worker is not None:
            self._worker.wait(seconds)
        else:
            time.sleep(0.001)

    def _launch(self) -> None:
        executable, tasks, threads, extra, threaded = self._start
        try:
            if self.starts == 0:
                sweep()
            self._worker = WorkerProcess(interpreter(executable), tasks, worker_environment(threads, extra), threaded)
        except FluoroGuideError as error:
            self._fail_all(error)
            return
        if self.starts and self._warm:
            self._queue.appendleft(Job(self._new_id(), "warm_up", {}, _hidden=True))
        self.starts += 1
        self._want, self._ready, self._awaiting_pong = False, False, False
        self._shelf.new_worker()

    def _receive(self) -> None:
        try:
            messages, gone = self._worker.receive()
            for message in messages:
                self._heard_at = time.monotonic()
                self._handle(message)
                if self._worker is None:
                    return
        except ProtocolError as error:
            self._lose(error)
            return
        if gone:
            ending = self._worker.how_it_ended()
            if self._ready:
                self._lose(FluoroGuideError("The registration process stopped unexpectedly", ending, _AGAIN))
            else:
                self._fail_start(FluoroGuideError("The registration process could not start", ending, "See the log for the reason."))

    def _handle(self, message: Message) -> None:
        if message.kind == "hello":
            self._ready = True
            self._worker.greeted(message.peek("pid"))
        elif message.kind == "pong":
            self._awaiting_pong = False
        elif message.kind == "refused":
            error = FluoroGuideError(str(message.peek("reason")), message.peek("value"), "Restart 3D Slicer.")
            if self._ready:
                self._lose(error)
            else:
                self._fail_start(error)
        elif self._running is not None and message.peek("job") == self._running.id:
            self._handle_job(message, self._running)
        else:
            message.discard(self._worker.exchange)

    def _handle_job(self, message: Message, job: Job) -> None:
        fields = message.read(self._worker.exchange)
        if message.kind == "progress":
            if job.finished:
                return
            job.progress, job.text = float(fields["fraction"]), str(fields["text"])
        elif job.cancel_requested and message.kind in ("done", "failed"):
            self._finish(job, "cancelled", error=CancelledError())
        elif message.kind == "done":
            job.progress = 1.0
            self._finish(job, "done", result=fields["result"])
        elif message.kind == "failed" and fields["state"] == "cancelled":
            self._finish(job, "cancelled", error=CancelledError(fields["what"]))
        elif message.kind == "failed":
            self._finish(job, "failed", error=FluoroGuideError(fields["what"], fields["value"], fields["next_step"]), log=fields["log"])
        else:
            raise ProtocolError(f"message {message.kind}")

    def _watch(self) -> None:
        now, job = time.monotonic(), self._running
        if not self._ready:
            if now - self._worker.started > self._start_limit:
                limit = f"{self._start_limit:g} s"
                self._fail_start(FluoroGuideError("The registration process did not start in time", limit, "Close other programs and try again."))
            return
        if job is not None and job.cancel_requested and not job.finished and now - job._since > CANCEL_SECONDS:
            self._tell(job, "cancelled", error=CancelledError())
        if job is not None and job.cancel_requested and now - job._since > self._grace:
            self._lose(CancelledError())
            self._want = True  # the user is about to start again: have it ready by then
        elif self._awaiting_pong and now - self._ping_at > self._hang:
            self._lose(FluoroGuideError("The registration process does not answer", f"{self._hang:g} s", _AGAIN))
        elif not self._awaiting_pong and now - self._ping_at > self._heartbeat:
            self._ping_at, self._awaiting_pong = now, True
            self._worker.send("ping")

    def _supply(self) -> None:
        """Give the worker the volumes it lacks and, when it is free and has what it needs, the next job."""
        for number, error in self._shelf.step(self._worker):
            for job in [j for j in self._queue if number in _volumes_of(j)]:
                self._queue.remove(job)
                self._finish(job, "failed", error=error)
        while self._running is None and self._queue and self._shelf.has(_volumes_of(self._queue[0])):
            job = self._queue.popleft()
            try:
                self._worker.send("run", job=job.id, task=job.task, arguments=job.arguments)
            except FluoroGuideError as error:
                self._finish(job, "failed", error=error)
                continue
            job.state, job._since, self._running = "running", time.monotonic(), job

    # ---- endings --------------------------------------------------------------------------------------------------
    def _finish(self, job: Job, state: str, *, result: object = None, error: FluoroGuideError | None = None, log: str = "") -> None:
        """The job is over for its owner, and the worker is free."""
        if job is self._running:
            self._running = None
        if not job.finished:
            self._tell(job, state, result=result, error=error, log=log)

    def _tell(self, job: Job, state: str, *, result: object = None, error: FluoroGuideError | None = None, log: str = "") -> None:
        """The job is over for its owner."""
        if job.state == "running" and not job.cancel_requested:
            job.seconds = time.monotonic() - job._since
        job.state, job.result, job.error, job.log, job.arguments = state, result, error, log, {}
        if not job._hidden:
            self._ended.append(job)

    def _lose(self, error: FluoroGuideError) -> None:
        """The worker is gone or must go: end it and the running job; queued jobs and volumes stay."""
        worker, job = self._worker, self._running
        worker.end()
        self._last_stderr, self._worker, self._ready = worker.stderr, None, False
        self._shelf.new_worker()
        if job is not None:
            cancelled = job.cancel_requested
            self._finish(job, "cancelled" if cancelled else "failed", error=CancelledError() if cancelled else error, log=worker.crash_log())

    def _fail_start(self, error: FluoroGuideError) -> None:
        self._lose(error)
        self._fail_all(error, self._last_stderr)  # no case was given to it yet: its output names none

    def _fail_all(self, error: FluoroGuideError, log: str = "") -> None:
        """A worker that does not start would not start for the next job either."""
        self._want = False
        while self._queue:
            self._finish(self._queue.popleft(), "failed", error=error, log=log)

    def _refer(self, value: object) -> object:
        jobs = [*self._queue, *([self._running] if self._running else [])]
        return self._shelf.refer(value, set().union(*map(_volumes_of, jobs)))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _must_be_open(self) -> None:
        if self._closed:
            raise FluoroGuideError("The engine was closed", None, "Make a new EngineClient.")


def _volumes_of(job: Job) -> set[int]:
    return {v.id for v in job.arguments.values() if isinstance(v, VolumeReference)}
