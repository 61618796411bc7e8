"""Keeps a record safe: each change goes to its journal, and a record comes back from its journal.

A change is what differs from the state journalled last, so nothing that was done to the record in between can be
forgotten: ``["set", key, value]``, ``["add", key, items]`` (appended to a list) or ``["drop", key]``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FluoroGuideError
from .bundle import texts
from .compatibility import RECORD_FORMAT
from .journal import SUFFIX, Acknowledgement, Journal, JournalContent, locked, read_journal
from .userdata import journal_folder

if TYPE_CHECKING:
    from .record import ProcedureRecord




def changes(old: dict | None, new: dict) -> list[list]:
    """What turns ``old`` (None: nothing yet) into ``new``, as plain JSON."""
    steps: list[list] = []
    for key, value in new.items():
        if old is None or key not in old:
            steps.append(["set", key, value])
            continue
        before = old[key]
        if value == before and type(value) is type(before):
            continue
        if isinstance(value, list) and isinstance(before, list) and before and len(value) > len(before) and value[: len(before)] == before:
            steps.append(["add", key, value[len(before):]])
        else:
            steps.append(["set", key, value])
    return steps + [["drop", key] for key in (old or {}) if key not in new]


def apply_changes(state: dict, steps: list) -> None:
    """Apply :func:`changes` to ``state`` in place."""
    if not isinstance(steps, list) or not all(_whole(step) for step in steps):
        raise FluoroGuideError("The journal holds a change that is not whole", None, "Recover from the saved record instead")
    for step, key, *value in steps:
        if step == "set":
            state[key] = value[0]
        elif step == "add":
            before = state.get(key)
            state[key] = [*(before if isinstance(before, list) else []), *value[0]]
        elif step == "drop":
            state.pop(key, None)
        else:
            raise FluoroGuideError("The journal holds a change that this FluoroGuide does not know", step, "Update FluoroGuide")


def _copied(value: object) -> object:
    """Lists and dictionaries anew, as JSON has them; texts are shared, so that a record with many pictures costs no more than its facts."""
    if isinstance(value, dict):
        return {key: _copied(v) for key, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, (list, tuple)) else value


def _whole(step: object) -> bool:
    """Whether a step of :func:`changes` has its key and what it needs (unknown kinds are told apart later)."""
    if not isinstance(step, list) or len(step) < 2 or not isinstance(step[0], str) or not isinstance(step[1], str):
        return False
    return step[0] not in ("set", "add") or (len(step) == 3 and (step[0] == "set" or isinstance(step[2], list)))


def state_of(content: JournalContent) -> dict:
    """The record (plain data) after all events of a journal."""
    state: dict = {}
    for event in content.events:
        apply_changes(state, event.get("data", {}).get("changes", []))
    return state


class RecordKeeper:
    """A record's journal, from its first event to its end."""

    def __init__(self, journal: Journal, state: dict | None = None) -> None:
        self.journal = journal
        self._state = state

    @classmethod
    def start(cls, record: ProcedureRecord, folder: str | Path | None = None) -> RecordKeeper:
        """Begin a journal for ``record`` in ``folder`` (default: the user's data folder), and keep it from now on.

        Raises
        ------
        FluoroGuideError
            The journal cannot be made.
        """
        keeper = cls(Journal.create(folder or journal_folder(), record.record_id))
        keeper.store(record)
        record.keeper = keeper
        return keeper

    @classmethod
    def resume(cls, path: str | Path) -> tuple[RecordKeeper, ProcedureRecord]:
        """Go on with the record of a journal after a crash.

        Raises
        ------
        FluoroGuideError
            Another Slicer holds it, or it holds no record.
        """
        record = recover(path).record
        keeper = cls(Journal.open(path), record.to_dict())
        record.keeper = keeper
        return keeper, record

    def store(self, record: ProcedureRecord) -> Acknowledgement | None:
        """Journal what changed since the last time; None when nothing did."""
        state = record.to_dict()
        if self.journal.vanished:  # somebody cleaned up: begin again with everything
            self._begin_again()
        steps = changes(self._state, state)
        if not steps:
            return None
        event = state["timeline"][-1]["event"] if state.get("timeline") else "changed"
        self._state = _copied(state)  # the record goes on changing
        return self.journal.append(event if any(s[1] == "timeline" for s in steps) else "changed", {"changes": steps})

    def _begin_again(self) -> None:
        folder, record_id = self.journal.path.parent, self.journal.record_id
        self.journal.close()
        self.journal = Journal.create(folder, record_id)
        self._state = None

    @property
    def problem(self) -> str | None:
        """Why not everything is on disk, or None."""
        return self.journal.problem

    def retry(self) -> bool:
        """Write what is only in memory; True when all is on disk (for a timer)."""
        return self.journal.retry()

    def discard(self, saved: str | Path, agreed: bool) -> None:
        """Remove the journal, once the record was saved elsewhere and the user agreed.

        Parameters
        ----------
        saved
            Scene (``.mrb``), report (``.html``) or record (``.json``) that holds the record as it is now.
        agreed
            Whether the user said yes.

        Raises
        ------
        FluoroGuideError
            The user did not agree, or the file does not hold the record (which keeps the journal).
        """
        if not agreed:
            raise FluoroGuideError("The journal stays", None, "It is removed only when the user agrees")
        if self._state is None or not saved_in(saved, self._state):
            raise FluoroGuideError("The journal stays, because this file does not hold the record as it is now", Path(saved).name, "Save again")
        self.journal.remove()


def keep_safe(record: ProcedureRecord, folder: str | Path | None = None) -> str | None:
    """Journal the record as it is now, beginning a journal when it has none: call it after the first event, and it is harmless to repeat.

    Returns
    -------
    str or None
        A sentence for the user when not everything is on disk (it is kept in memory and tried again), else None.
    """
    try:
        if record.keeper is None:
            RecordKeeper.start(record, folder)
        else:
            record.keeper.store(record)
    except FluoroGuideError as error:
        return f"The procedure is not journalled. {error}"
    return record.keeper.problem


def saved_in(path: str | Path, state: dict) -> bool:
    """Whether a saved file holds this state of a record: all of it (``.json``, ``.mrb``), or its mark (``.html``, see :func:`state_mark`)."""
    path = Path(path)
    try:
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8")) == state
        if path.suffix == ".html":
            return state_mark(state) in path.read_text(encoding="utf-8")
        return any(value == state for _, text in texts(path) if state.get("record_id", "") in text for value in records_in_text(text))
    except (OSError, ValueError, RecursionError):
        return False


def records_in_text(text: str) -> list[dict]:
    """Records in a text of a scene: JSON itself, or attributes of the scene's XML.

    XML with a document type is left alone: a scene has none, and entities can make a small file endless.
    """
    import xml.etree.ElementTree as ET

    if RECORD_FORMAT not in text:
        return []
    found = _json_record(text)
    if found is not None:
        return [found]
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return []
    try:
        scene = ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError):
        return []
    values = [_json_record(value) for element in scene.iter() for value in element.attrib.values() if RECORD_FORMAT in value]
    return [v for v in values if v is not None]


def _json_record(text: str) -> dict | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("format") == RECORD_FORMAT else None


def state_mark(state: dict) -> str:
    """A mark that a report carries: which record, in which state."""
    import hashlib

    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
    return f"{state.get('record_id', '')}/{digest}"


# ---- after a crash --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recovered:
    """A record that came back from a journal, and what a person should know about it."""

    path: Path
    record: ProcedureRecord
    events: int
    warnings: tuple[str, ...]
    in_use: bool


def recover(path: str | Path) -> Recovered:
    """The record of a journal with every acknowledged event; the journal is not touched.

    Raises
    ------
    FluoroGuideError
        It is no journal, or not even the record's beginning is whole.
    """
    from .record import ProcedureRecord

    path = Path(path)
    content = read_journal(path)
    if not content.events:
        raise FluoroGuideError("The journal holds no whole event", path.name, "There is nothing to recover")
    record = ProcedureRecord.from_dict(state_of(content))
    return Recovered(path, record, len(content.events), content.warnings, locked(path))


def journals(folder: str | Path | None = None) -> list[Path]:
    """Journals in a folder (default: the user's), oldest first."""
    folder = Path(folder) if folder is not None else journal_folder()
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
