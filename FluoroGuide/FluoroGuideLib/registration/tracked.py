"""What a tracker answers for one frame, and what it says to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .findings import Finding

SILENT = "nearly all of its rays near the target pass through body that the scan does not hold"
"""Why a view says nothing."""


@dataclass(frozen=True, eq=False)
class TrackResult:
    """One frame's answer.

    Attributes
    ----------
    pose
        4x4, volume LPS -> isocentre LPS; the last good one while lost.
    similarity
        Per view, -1..1, before the last step; NaN for a view that says nothing.
    state
        ``"ok"``, ``"lost"`` or ``"reacquired"`` (the first good frame after a loss).
    shift_mm
        (3,): how far the target is from where the tracker started, isocentre axes; where one view only sees it, the part across its ray.
    cpu_seconds, wall_seconds
        What the update cost.
    seen
        Per view: whether it says anything about the target.  Where nearly all rays near it pass through body beyond the scan it does not: it
        is then neither followed nor a reason for ``"lost"``.
    findings
        What there is to say about the views, each with a sentence; empty where two of them see the target and none is silent.
    """

    pose: np.ndarray
    similarity: tuple[float, ...]
    state: str
    shift_mm: np.ndarray
    cpu_seconds: float
    wall_seconds: float
    seen: tuple[bool, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return float(np.linalg.norm(self.shift_mm))

    @property
    def in_plane_only(self) -> bool:
        """Whether fewer than two views see the target: its depth is then not known."""
        return sum(self.seen) < 2


def findings_of(seen: Sequence[bool]) -> tuple[Finding, ...]:
    """What there is to say of views that see the target or not, the worst first."""
    silent = [str(number) for number, sees in enumerate(seen, 1) if not sees]
    found = []
    if silent and not any(seen):
        what = f"No view says anything about the target: {SILENT}."
        found.append(Finding("silent view", "fail", f"{what} Use a scan that reaches farther, or views across its long axis."))
    elif silent:
        what = f"View {', '.join(silent)} says nothing about the target: {SILENT}."
        found.append(Finding("silent view", "warn", f"{what} Turn it across the scan's long axis, or use a scan that reaches farther."))
    if sum(seen) == 1:
        depth = "in-plane only" if len(seen) == 1 else "Only one view sees the target: its depth is not known (in-plane only)."
        found.append(Finding("in-plane", "note", depth))
    return tuple(found)
