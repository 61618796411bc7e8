"""What the owner of the engine sees of one task."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import FluoroGuideError


@dataclass(eq=False)
class Job:
    """One task given to the engine; its owner reads it after each ``poll``.

    Attributes
    ----------
    state
        ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
    progress, text
        How far, 0..1, and what it is doing.
    result
        When done.
    error
        When failed or cancelled: one sentence.
    log
        Details of an unexpected failure, without paths and without text that could name a patient.
    seconds
        From the start in the worker to the end, as seen by the client.
    """

    id: int
    task: str
    arguments: dict = field(repr=False)
    state: str = "queued"
    progress: float = 0.0
    text: str = ""
    result: object = None
    error: FluoroGuideError | None = None
    log: str = field(default="", repr=False)
    seconds: float = 0.0
    cancel_requested: bool = False
    _since: float = field(default=0.0, repr=False)
    _hidden: bool = field(default=False, repr=False)

    @property
    def finished(self) -> bool:
        """True when done, failed or cancelled."""
        return self.state in ("done", "failed", "cancelled")
