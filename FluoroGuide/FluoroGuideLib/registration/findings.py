"""What is thought of a registration: findings, each of a kind, with what it means for the verdict and a sentence for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LEVELS = ("fail", "warn", "note")
"""From the worst; a note changes nothing."""


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed.

    Attributes
    ----------
    kind
        Names it, so that nobody has to read the sentence: ``similarity``, ``mirrored``, ``views apart``, ``level``, ``bone``, ``rival``,
        ``error``, ``coverage``, ``in-plane``, ``moved``, ``whole``, ``polarity``, ``C-arm``, ``silent view``; more of MR's own.
    level
        One of :data:`LEVELS`.
    sentence
        For people.
    """

    kind: str
    level: str
    sentence: str


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What fails, then what warns, then notes; else in the order given."""
    return tuple(sorted(findings, key=lambda f: LEVELS.index(f.level)))


def verdict_of(findings: Iterable[Finding]) -> str:
    """``fail`` or ``warn`` where something does, else ``pass``."""
    levels = {f.level for f in findings}
    return next((level for level in LEVELS[:2] if level in levels), "pass")


def told(findings: Iterable[Finding]) -> dict:
    """The fields of a result that findings fill: themselves, the verdict and the sentences."""
    kept = tuple(findings)
    return {"findings": kept, "verdict": verdict_of(kept), "reasons": tuple(f.sentence for f in kept)}
