"""The record's entries as rows of a table, in words, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..record.withdrawal import title
from .text import translator

_ = translator(__name__)


@dataclass(frozen=True)
class EntryRow:
    """One entry.

    Attributes
    ----------
    text, utc
        What it says, and when it was entered.
    kind, key
        What :func:`~FluoroGuideLib.record.withdrawal.withdraw` knows it by; no kind: it is taken back elsewhere (the checklist).
    withdrawn
        Its number in ``record.withdrawn`` when it was taken back, else None.
    """

    text: str
    utc: str
    kind: str = ""
    key: str | None = None
    withdrawn: int | None = None


def entry_rows(record: Any) -> list[EntryRow]:
    """All entries of a record that a person made, those withdrawn too."""
    rows = [EntryRow(_("Placement: {name}").format(name=p.trajectory.name), p.utc or "", "placements", p.utc) for p in record.placements]
    rows += [EntryRow(_("Picture: {name}").format(name=k.name), k.utc or "", "key_images", k.utc) for k in record.key_images]
    rows += [EntryRow(text(item), item["utc"], kind, item["utc"]) for kind, text in _WORDS.items() for item in getattr(record, kind) or ()]
    if record.complications == []:
        rows.append(EntryRow(_("No complication"), _time(record, "complication"), "complications"))
    if record.dose is not None:
        rows.append(EntryRow(_("Dose"), _time(record, "dose"), "dose"))
    answers = {item["item"]: item for item in record.checklist}  # the last answer holds
    rows += [EntryRow(_("Checked: {item}").format(item=item), a["utc"]) for item, a in answers.items() if a["answer"]]
    rows += [EntryRow(_("Withdrawn: {entry} ({reason})").format(entry=title(w), reason=w["reason"]), w["utc"], w["kind"], None, n)
             for n, w in enumerate(record.withdrawn) if w["reinstated_utc"] is None]
    return sorted(rows, key=lambda row: row.utc, reverse=True)


def _time(record: Any, event: str) -> str:
    """When something was last told that carries no time of its own."""
    return next((e["utc"] for e in reversed(record.timeline) if e["event"] == event), record.created_utc)


def _drug(item: dict) -> str:
    parts = [item["drug"], item["concentration"], f"{item['volume_ml']:g} ml" if item["volume_ml"] is not None else None, item["lot"]]
    return " ".join(p for p in parts if p)


def _pain(item: dict) -> str:
    when = _("before") if item["when"] == "before" else _("after")
    return _("Pain {when}: {score:g} of 10").format(when=when, score=item["score"])


def _contrast(item: dict) -> str:
    seen = {True: _("vascular"), False: _("not vascular"), None: _("vascular uptake not told")}[item["vascular"]]
    return _("Contrast {agent}: {seen}").format(agent=item["agent"], seen=seen)


_WORDS = {
    "injectate": _drug, "pain": _pain, "contrast": _contrast,
    "complications": lambda item: _("Complication: {what}").format(what=item["text"]),
    "aftercare": lambda item: _("After-care: {text}").format(text=item["text"].splitlines()[0]),
}
