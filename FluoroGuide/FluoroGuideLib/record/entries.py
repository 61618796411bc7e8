"""What people enter during a procedure, checked once and kept as plain dictionaries (``Resources/procedure_record.schema.json``)."""

from __future__ import annotations

from math import isfinite

from ..errors import FluoroGuideError

PAIN_TIMES = ("before", "after")
PAIN_SCALES = {"NRS": 10.0, "VAS": 100.0}
"""Largest score of each scale: numeric rating scale 0-10, visual analogue scale 0-100 mm."""
SEVERITIES = ("minor", "major")
PATTERNS = ("intra-articular", "epidural", "perineural", "vascular", "intrathecal", "intradiscal", "soft tissue", "extra-articular", "other")
"""Usual words for where contrast spreads; free text is kept as well."""


def text(value: object, what: str) -> str:
    """``value`` as text that says something.

    Raises
    ------
    FluoroGuideError
        It is empty or no text.
    """
    if not isinstance(value, str) or not value.strip():
        raise FluoroGuideError(f"{what} is empty", None, "Write something")
    return value.strip()


def optional_text(value: object, what: str) -> str | None:
    """``value`` as text, or None: not told."""
    return None if value is None or value == "" else text(value, what)


def amount(value: object, what: str, most: float | None = None) -> float | None:
    """``value`` as a number from 0 to ``most``, or None: not told.

    Raises
    ------
    FluoroGuideError
        It is no finite number, negative, or more than ``most``.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
        raise FluoroGuideError(f"{what} is not a number from 0", value)
    if most is not None and value > most:
        raise FluoroGuideError(f"{what} is more than the scale's {most:g}", value)
    return float(value)


def flag(value: object, what: str) -> bool | None:
    """``value`` as yes, no, or None: not told."""
    if value is not None and not isinstance(value, bool):
        raise FluoroGuideError(f"{what} is neither yes nor no", value)
    return value


def choice(value: object, among: tuple[str, ...], what: str, optional: bool = False) -> str | None:
    """``value`` when it is one of ``among``.

    Raises
    ------
    FluoroGuideError
        It is not.
    """
    if optional and value is None:
        return None
    if value not in among:
        raise FluoroGuideError(f"{what} is unknown", value, "Use one of " + ", ".join(among))
    return value


def checklist_answer(item: str, answer: object, utc: str, by: str | None = None) -> dict:
    """One answer: text, yes or no, or a number; None withdraws it (what was answered before stays in the list)."""
    if answer is not None and not isinstance(answer, (str, bool, int, float)):
        raise FluoroGuideError("The checklist's answer is neither text, number, yes nor no", type(answer).__name__)
    return {"item": text(item, "The checklist's item"), "answer": answer, "utc": utc, "by": optional_text(by, "The name of who answered")}


def contrast(agent: str, volume_ml: float | None, pattern: str | None, vascular: bool | None, utc: str, note: str | None = None) -> dict:
    """One contrast injection: what, how much, how it spread, and whether it was seen in a vessel (None: not told)."""
    return {
        "agent": text(agent, "The contrast agent"), "volume_ml": amount(volume_ml, "The contrast's volume"),
        "pattern": optional_text(pattern, "The contrast's pattern"), "vascular": flag(vascular, "Whether contrast was vascular"), "utc": utc,
        "note": optional_text(note, "The note"),
    }


def injectate(drug: str, concentration: str | None, volume_ml: float | None, lot: str | None, utc: str, placement: str | None = None) -> dict:
    """One drug given; the concentration is text with its unit (``"40 mg/ml"``), ``placement`` the id of the needle it went through."""
    return {
        "drug": text(drug, "The drug"), "concentration": optional_text(concentration, "The concentration"),
        "volume_ml": amount(volume_ml, "The drug's volume"), "lot": optional_text(lot, "The lot"), "placement_id": placement, "utc": utc,
    }


def pain(when: str, score: float, scale: str, utc: str, minutes_after: float | None = None, activity: str | None = None) -> dict:
    """One pain score; ``minutes_after`` the procedure's end."""
    choice(scale, tuple(PAIN_SCALES), "The pain scale")
    value = amount(score, "The pain score", PAIN_SCALES[scale])
    if value is None:
        raise FluoroGuideError("The pain score is missing", None, f"Give 0 to {PAIN_SCALES[scale]:g}")
    return {
        "when": choice(when, PAIN_TIMES, "The time of the pain score"), "score": value, "scale": scale,
        "minutes_after": amount(minutes_after, "The minutes after the procedure"), "activity": optional_text(activity, "The activity"), "utc": utc,
    }


def complication(what: str, severity: str | None, utc: str, treatment: str | None = None) -> dict:
    """One complication."""
    return {
        "text": text(what, "The complication"), "severity": choice(severity, SEVERITIES, "The severity", optional=True),
        "treatment": optional_text(treatment, "The treatment"), "utc": utc,
    }
