"""Taking back what was entered: nothing is erased.

An entry that is withdrawn leaves the list that it stands in, so that no count, report or export takes it for valid any more, and goes
with the time and the reason of its withdrawal into ``record.withdrawn``, which every output shows.  It can be put back; the withdrawal
then stays in the list with the time of that.  Both are events of the timeline, and the journal appends them like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import FluoroGuideError
from . import entries
from .dose_model import DoseSummary
from .key_images import KeyImage
from .placement import Placement

if TYPE_CHECKING:
    from .record import ProcedureRecord

KINDS = {
    "placements": "placement", "contrast": "contrast", "injectate": "drug", "pain": "pain", "complications": "complication",
    "aftercare": "after-care", "key_images": "key image", "dose": "dose",
}
"""Attributes of a record whose entries can be withdrawn, and what one of them is called."""
CLASSES = {"placements": Placement, "key_images": KeyImage, "dose": DoseSummary}


def withdraw(record: ProcedureRecord, kind: str, utc: str | None, reason: str) -> dict:
    """Withdraw an entry of ``record``.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    utc
        The entry's time, by which it is known; None: the dose, or the statement that no complication occurred.
    reason
        Why, in words.

    Returns
    -------
    dict
        The new item of ``record.withdrawn``: ``kind``, ``item`` (plain data; None: the statement that there was none), ``utc``, ``reason``,
        ``reinstated_utc``.

    Raises
    ------
    FluoroGuideError
        No reason, or no such entry; the record is then as it was.
    """
    from .record import utc_now

    reason = entries.text(reason, "The reason")
    item = _taken(record, kind, utc)
    entry = {"kind": kind, "item": item, "utc": utc_now(), "reason": reason, "reinstated_utc": None}
    record.withdrawn = [*record.withdrawn, entry]
    record.log("withdrawn", f"{title(entry)}: {reason}")
    return entry


def _taken(record: ProcedureRecord, kind: str, utc: str | None) -> Any:
    """Takes the entry out of its list; gives its plain data."""
    missing = FluoroGuideError("The record has no such entry", f"{KINDS.get(kind, kind)} of {utc}", "Choose one of the list")
    if kind == "dose" and record.dose is not None:
        item, record.dose = record.dose.to_dict(), None
        return item
    if kind == "complications" and record.complications == []:
        record.complications = None
        return None
    found = getattr(record, kind) if kind in KINDS and kind != "dose" else None
    index = next((n for n, value in enumerate(found or ()) if _utc(value) == utc), None)
    if index is None:
        raise missing
    left = [value for n, value in enumerate(found) if n != index]
    setattr(record, kind, left or (None if kind == "complications" else []))  # no complication left: nothing is told, which is not "none"
    return found[index] if isinstance(found[index], dict) else found[index].to_dict()


def reinstate(record: ProcedureRecord, number: int) -> dict:
    """Put the entry ``record.withdrawn[number]`` back to where it was; gives that item, now with its ``reinstated_utc``.

    Raises
    ------
    FluoroGuideError
        There is none, it is back already, something else has taken its place, or this copy of the record is without its picture.
    """
    from .record import utc_now

    if not 0 <= number < len(record.withdrawn) or record.withdrawn[number]["reinstated_utc"] is not None:
        raise FluoroGuideError("There is no such withdrawn entry", number, "Choose one of the list")
    entry = record.withdrawn[number]
    kind, item = entry["kind"], entry["item"]
    value = CLASSES[kind].from_dict(item) if kind in CLASSES else item
    if kind == "dose":
        if record.dose is not None:
            raise FluoroGuideError("The record has another dose now", None, "Withdraw that one first")
        record.dose = value
    elif item is None:
        if record.complications is not None:
            raise FluoroGuideError("The record has a complication now", None, "Withdraw that one first")
        record.complications = []
    else:
        setattr(record, kind, sorted([*(getattr(record, kind) or []), value], key=lambda v: _utc(v) or ""))
    done = {**entry, "reinstated_utc": utc_now()}
    record.withdrawn = [done if n == number else old for n, old in enumerate(record.withdrawn)]
    record.log("reinstated", title(entry))
    return done


def _utc(value: Any) -> str | None:
    return value.get("utc") if isinstance(value, dict) else value.utc


def title(entry: dict) -> str:
    """What was withdrawn, in a few words: ``"drug: triamcinolone"``."""
    item, kind = entry.get("item"), KINDS.get(entry.get("kind"))
    if item is None or kind is None:  # a newer version may know more kinds
        return "no complication" if kind == "complication" else kind or "entry"
    named = {
        "placements": lambda: item["trajectory"]["name"], "contrast": lambda: item["agent"], "injectate": lambda: item["drug"],
        "pain": lambda: f"{item['when']}, {item['score']:g}", "complications": lambda: item["text"],
        "aftercare": lambda: item["text"].splitlines()[0], "key_images": lambda: item["name"], "dose": lambda: item["source"],
    }[entry["kind"]]
    try:
        return f"{kind}: {named()}"
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # of another version
        return kind


def without_pictures(withdrawn: list[dict]) -> list[dict]:
    """``record.withdrawn`` without pixels, for every output that leaves: a picture taken back is told, not shown."""
    def told(entry: dict) -> dict:
        return {**entry, "item": {k: v for k, v in entry["item"].items() if k not in ("png_base64", "sha256")}}

    return [told(w) if isinstance(w.get("item"), dict) and "png_base64" in w["item"] else w for w in withdrawn]
