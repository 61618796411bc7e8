"""The evaluation on a Dask cluster: local, or a scheduler elsewhere (packages dask and distributed).

Volumes are scattered once to all workers; each task is a chunk of starts of one scene.  A worker reports every finished
run at once through the scheduler, so that a lost worker costs only the run it was computing: its chunk is given to
another worker, and runs that are known already are dropped on arrival.
"""

from __future__ import annotations

import contextlib
import queue
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import FluoroGuideError
from .runners import ONE_THREAD, Report, try_picture
from .study import Chunk, Settings, Subject, code_digest
from .trials import run_chunk

AHEAD = 3
"""Chunks handed to the scheduler per thread: enough that nobody waits, few enough that a million runs need no memory."""
TRIES = 3
BROADCAST = 4
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Certificates:
    """Files of TLS: the authority, and this client's certificate and key."""

    authority: str
    certificate: str
    key: str


def available() -> bool:
    """Whether Dask's scheduler is installed."""
    from importlib.util import find_spec

    return find_spec("distributed") is not None


def needs_word(address: str) -> bool:
    """Whether voxels would leave this machine unencrypted."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    return parts.scheme not in ("tls", "wss") and parts.hostname not in _LOCAL and parts.scheme != "inproc"


def what_is_sent(subjects: list[Subject]) -> str:
    """What goes to the workers, in words."""
    names = ", ".join(f"{s.name} ({' x '.join(map(str, s.facts.get('size', [])))} voxels)" for s in subjects)
    cts, xrays = sum(s.simulate_from is not None for s in subjects), sum(len(case.images) for s in subjects for case in s.cases)
    more = (f", and {cts} CT to simulate from" if cts else "") + (f", and {xrays} X-ray images with their geometry" if xrays else "")
    return f"voxels, labels and targets of {names}{more}; no DICOM headers"


def _task(subject: Subject, settings: Settings, chunk: Chunk, topic: str) -> list[dict]:
    from distributed import get_worker

    worker = get_worker()
    return run_chunk(subject, settings, chunk, report=lambda row: worker.log_event(topic, row))


def _code() -> str:
    return code_digest()


def _prepare() -> None:
    from ..registration.register import warm_up

    warm_up()


class DaskRunner:
    """Computes on the workers of a Dask scheduler.

    Parameters
    ----------
    scheduler
        ``tls://host:port`` or ``tcp://host:port``; None for a cluster of ``workers`` processes on this machine.
    certificates
        For ``tls://``.

    Raises
    ------
    FluoroGuideError
        Dask is missing, no answer, no workers, or workers with other code.
    """

    def __init__(
        self, subjects: list[Subject], settings: Settings, workers: int | None = None, scheduler: str | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        if not available():
            raise FluoroGuideError("A scheduler needs Dask", None, "Install it: pip install 'dask[distributed]>=2025.1', or leave --scheduler out")
        import distributed

        self._subjects, self._settings, self._distributed = subjects, settings, distributed
        self._topic, self._arrived, self._cluster = f"fluoroguide-{uuid.uuid4().hex}", queue.SimpleQueue(), None
        self.given_up: list[Chunk] = []
        if scheduler is None:
            self._cluster = distributed.LocalCluster(
                n_workers=workers or 1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0, silence_logs=50,
                env=ONE_THREAD,
            )
        self.client = None
        try:
            self.client = self._connect(scheduler, certificates)
            self._check_workers()
            self.client.subscribe_topic(self._topic, self._on_event)
            self._scattered = self._scatter()
            self.client.gather([self.client.submit(_prepare, workers=[w], pure=False) for w in self._workers()])
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Processes that compute now."""
        return max(1, len(self._workers()))

    def _workers(self) -> list[str]:
        return list(self.client.scheduler_info(n_workers=-1)["workers"])

    def _connect(self, scheduler: str | None, certificates: Certificates | None) -> object:
        security = None
        if certificates:
            security = self._distributed.Security(
                tls_ca_file=certificates.authority, tls_client_cert=certificates.certificate, tls_client_key=certificates.key,
                require_encryption=True,
            )
        elif scheduler and scheduler.startswith("tls://"):
            raise FluoroGuideError("A tls:// scheduler needs certificates", scheduler, "Give --tls-ca, --tls-cert and --tls-key")
        try:
            return self._distributed.Client(self._cluster or scheduler, security=security, timeout=30, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = f"{scheduler}: {type(error).__name__}"
            raise FluoroGuideError("The scheduler does not answer", reason, "Check address and certificates") from None

    def _check_workers(self) -> None:
        try:
            self.client.wait_for_workers(1, timeout=60)
        except TimeoutError:
            raise FluoroGuideError("The scheduler has no workers", None, "Start some: dask worker ADDRESS --nthreads 1") from None
        try:
            answers = set(self.client.run(_code).values())
        except Exception as error:  # anything a foreign environment may raise, an ImportError first of all
            reason = f"{type(error).__name__}: {error}"[:200]
            raise FluoroGuideError("The workers cannot import FluoroGuide", reason, "Install the same version on them") from None
        if answers != {code_digest()}:
            raise FluoroGuideError("The workers run other code than this machine", None, "Install the same version on all of them")

    def _scatter(self) -> list:
        few = len(self._subjects) <= BROADCAST  # many go to where they are needed, so that no worker has to hold them all at once
        return [self.client.scatter(s, broadcast=few, hash=False, direct=False) for s in self._subjects]

    def _on_event(self, event: tuple) -> None:
        self._arrived.put(event[1])

    def run(self, todo: Iterable[Chunk], report: Report) -> None:
        """All chunks; a few per worker wait at the scheduler at any time."""
        waiting, open_jobs, tries = iter(todo), {}, {}

        def submit(chunk: Chunk) -> None:
            job = self.client.submit(_task, self._scattered[chunk.subject], self._settings, chunk, self._topic, pure=False)
            open_jobs[job] = chunk

        for chunk in waiting:
            submit(chunk)
            while len(open_jobs) >= AHEAD * self._threads():
                self._collect(open_jobs, tries, submit, report)
        while open_jobs:
            self._collect(open_jobs, tries, submit, report)
        self._drain(report)
        if self.given_up:  # after everything else is done; not in the table, so that the next start tries again
            first = f"{len(self.given_up)}; the first: {self._subjects[self.given_up[0].subject].name}, start {self.given_up[0].starts[0]}"
            hint = "Give the workers more memory and start again: finished runs are kept"
            raise FluoroGuideError("Runs ended their worker several times", first, hint)

    def _threads(self) -> int:
        return max(1, sum(self.client.nthreads().values()))

    def _collect(self, open_jobs: dict, tries: dict, submit: object, report: Report) -> None:
        """Wait a moment; take what is finished, give again what was lost."""
        with contextlib.suppress(queue.Empty):
            report(self._arrived.get(timeout=0.1))
        self._drain(report)
        for job in [j for j in open_jobs if j.done()]:
            chunk = open_jobs.pop(job)
            try:
                rows = job.result() if job.status == "finished" else None
            except Exception:  # the result was lost with its worker
                rows = None
            if rows is not None:
                for row in rows:
                    report(row)
                continue
            tries[chunk] = tries.get(chunk, 0) + 1
            if tries[chunk] >= TRIES and len(chunk.starts) == 1:
                self.given_up.append(chunk)
                continue
            if job.status in ("cancelled", "lost"):  # the scattered volumes went with their workers
                self._scattered = self._scatter()
            single = tries[chunk] >= TRIES
            for part in [Chunk(chunk.subject, chunk.scene, (n,)) for n in chunk.starts] if single else [chunk]:
                submit(part)

    def _drain(self, report: Report) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                report(self._arrived.get_nowait())

    def pictures(self, rows: list[tuple[int, dict]]) -> list[bytes | None]:
        """PNG of (subject number, row) each."""
        return self.client.gather([self.client.submit(try_picture, self._scattered[n], self._settings, row, pure=False) for n, row in rows])

    def close(self) -> None:
        """Leave the scheduler; end a local cluster."""
        if self.client is not None:
            self.client.close()
        if self._cluster is not None:
            self._cluster.close()
