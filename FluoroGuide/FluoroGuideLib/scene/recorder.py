"""The procedure record in the scene, journalled from its first event.  No Qt here.

Every change goes to three places at once: the record's object, its nodes in the scene, and its journal on disk.  The journal
stays when the scene is closed, and is offered for recovery, until a saved file holds the record and the user agrees.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import describe_angles
from ..guidance.triangulation import needle_in_volume
from ..imaging.xray import XrayImage
from ..record.dose_reference import FluoroscopyClock
from ..record.key_images import KeyImage
from ..record.placement import Placement, placement_of
from ..record.record import ProcedureRecord, utc_now, write_record
from ..registration.result import Registration
from .journal_nodes import build_record, restore_record
from .nodes import find, plain, text_value
from .plan_nodes import read_plan_nodes
from .record_nodes import read_object
from .xray_view import view_name

if TYPE_CHECKING:
    from .session import CaseSession


class Recorder:
    """Keeps the record of a session's scene.

    Parameters
    ----------
    session
        The case.
    folder
        Where journals are kept; None: the user's data folder.
    """

    def __init__(self, session: CaseSession, folder: str | Path | None = None) -> None:
        self._session, self.folder = session, folder
        self._record: ProcedureRecord | None = None
        self._key: tuple = (None, 0)
        self._clock = FluoroscopyClock()
        self.problem: str | None = None
        """Why not everything is on disk, one sentence, or None."""

    # ---- life -------------------------------------------------------------------------------------------------------
    def forget(self) -> None:
        """The scene is being closed: the journal is let go of, and stays."""
        self._release()
        self._record, self.problem, self._clock, self._key = None, None, FluoroscopyClock(), (None, 0)

    def _release(self) -> None:
        if self._record is not None and self._record.keeper is not None:
            with contextlib.suppress(FluoroGuideError, OSError):
                self._record.keeper.journal.close()
            self._record.keeper = None

    @property
    def record(self) -> ProcedureRecord | None:
        """The record that the scene holds."""
        node = find(self._session.host, "record")
        key = (None, 0) if node is None else (node.GetID(), node.GetMTime())
        if key != self._key:  # else not read again: it may hold many pictures
            stored = text_value(self._session.host, "record")
            if stored is None or self._record is None or self._record.record_id != stored.get("record_id"):
                self._release()
                self._record = read_object(self._session.host, "record", "..record.record", "ProcedureRecord")
            self._key = key
        return self._record  # kept, because its clock runs on between two events

    def obtain(self, procedure: str = "") -> ProcedureRecord:
        """The record of the scene; begun when there is none."""
        record = self.record
        if record is None:
            plan = read_plan_nodes(self._session.host)
            record = ProcedureRecord.of_plan(plan) if plan is not None else ProcedureRecord(procedure.strip() or "not told")
            if plan is None:
                record.log("started")
        return record

    def change(self, action: Callable[[ProcedureRecord], Any], procedure: str = "") -> Any:
        """Change the record, its nodes and its journal; gives what ``action`` gives.

        Raises
        ------
        FluoroGuideError
            The action refuses its values; the record is then as it was.
        """
        record = self.obtain(procedure)
        result = action(record)
        self._store(record)
        return result

    def _store(self, record: ProcedureRecord) -> None:
        from ..record.keeper import keep_safe

        node = build_record(self._session.host, record)["record"][0]
        self._record, self._key = record, (node.GetID(), node.GetMTime())  # just written: it need not be read
        self._resume(record)
        self.problem = keep_safe(record, self.folder)

    def _resume(self, record: ProcedureRecord) -> None:
        """Go on with the journal that this record already has (its scene was saved, closed and loaded again)."""
        from ..record.keeper import RecordKeeper, journals

        if record.keeper is not None:
            return
        for path in journals(self.folder):
            if record.record_id in path.name:
                with contextlib.suppress(FluoroGuideError):  # in use elsewhere, or damaged: a new one is begun
                    record.keeper = RecordKeeper.resume(path)[0]
                return

    def retry(self) -> bool:
        """Write what is only in memory; True when all is on disk (for a timer)."""
        keeper = None if self._record is None else self._record.keeper
        if keeper is None:
            return True
        done = keeper.retry()
        self.problem = keeper.problem
        return done

    # ---- journals -----------------------------------------------------------------------------------------------------
    def unfinished(self) -> list[Any]:
        """Records of journals that nobody holds and that are not the scene's own (``record.keeper.Recovered``), oldest first."""
        from ..record.journal import locked
        from ..record.keeper import journals, recover

        own, found = self._record.record_id if self._record is not None else None, []
        for path in journals(self.folder):
            with contextlib.suppress(FluoroGuideError):
                if not (own and own in path.name) and not locked(path):
                    found.append(recover(path))
        return found

    def recover(self, path: str | Path) -> ProcedureRecord:
        """Bring the record of a journal into the scene and go on with it.

        Raises
        ------
        FluoroGuideError
            The scene holds another record, or the journal cannot be recovered.
        """
        from ..record.keeper import RecordKeeper

        if self.record is not None:
            raise FluoroGuideError("The scene holds a record already", None, "Save it and close the scene first")
        _keeper, record = RecordKeeper.resume(path)
        restore_record(self._session.host, record)
        self._record = record
        self.problem = record.keeper.problem
        return record

    def discard_journal(self, saved: str | Path, agreed: bool, path: str | Path | None = None) -> None:
        """Remove a journal (the scene's own, or the one at ``path``) once a saved file holds its record and the user agreed.

        Raises
        ------
        FluoroGuideError
            They did not agree, or the file does not hold the record as it is now.
        """
        from ..record.keeper import RecordKeeper

        if path is not None:
            keeper, _record = RecordKeeper.resume(path)
            try:
                keeper.discard(saved, agreed)
            except FluoroGuideError:
                keeper.journal.close()
                raise
            return
        if self._record is None or self._record.keeper is None:
            raise FluoroGuideError("There is no journal to remove")
        self._record.keeper.discard(saved, agreed)
        self._record.keeper = None

    def required_views(self, procedure: str = "") -> list[tuple[str, str]]:
        """(name, angles in words) of the pictures that the plan, else its procedure, asks for."""
        plan = read_plan_nodes(self._session.host)
        views = plan.required_views if plan is not None else ()
        found = self._session.planner.procedure(procedure.strip() or (plan.procedure if plan is not None else ""))
        if not views and found is not None:
            views = found.required_views(plan.laterality if plan is not None else None)
        return [(v.name, "" if v.primary_deg is None else describe_angles(v.primary_deg, v.secondary_deg or 0.0)) for v in views]

    def aftercare_text(self, procedure: str) -> str:
        """What the patient is given, by the procedure; general words when it has none."""
        found = self._session.planner.procedure(procedure)
        if found is None:
            return "After-care instructions were given."
        care = found.data["after_care"]
        return "\n".join([*care["text"], "Come back at once with: " + "; ".join(care["red_flags"])])

    def sync_checklist(self, ticked: Sequence[str], procedure: str = "") -> None:
        """Answers of the checklist, as they are ticked and withdrawn, each with its time."""
        record = self.record
        answers = {a["item"]: a["answer"] for a in record.checklist} if record is not None else {}
        new = [(item, True) for item in ticked if answers.get(item) is not True]
        new += [(item, None) for item, answer in answers.items() if answer is True and item not in ticked]

        def action(record: ProcedureRecord) -> None:
            for item, answer in new:
                record.answer(item, answer)

        if new:
            self.change(action, procedure)

    # ---- what happens ---------------------------------------------------------------------------------------------------
    def add_registration(self, registration: Registration, xrays: Sequence[Any]) -> None:
        """Remember a registration that was put into the scene, with its views."""
        plan = read_plan_nodes(self._session.host)
        images = [self._session.xrays.image(node) for node in xrays]

        def action(record: ProcedureRecord) -> None:
            if plan is not None:
                record.plan = plan
            _add_views(record, images)
            record.add_registration(registration)

        self.change(action)

    def decide_registration(self, registration: Registration, accepted: bool) -> None:
        """The user accepted or rejected a registration."""
        pose = registration.pose.tolist()

        def action(record: ProcedureRecord) -> None:
            found = next((r for r in reversed(record.registrations) if r["pose_matrix"] == pose), None)
            if found is None:
                record.add_registration(registration)
                found = record.registrations[-1]
            found |= {"accepted": accepted, "decided_utc": utc_now()}
            record.log("registration accepted" if accepted else "registration rejected", registration.verdict)

        self.change(action)

    def log(self, event: str, text: str = "") -> None:
        """An event for the timeline."""
        self.change(lambda record: record.log(event, text))

    def add_placement(self, line: Any, xrays: Sequence[Any], procedure: str, *, method: str = "manual", approved_by: str = "") -> Placement:
        """Add the located needle, against the planned ``line``, to the record in the scene.

        Raises
        ------
        FluoroGuideError
            There is no registration, plan or located needle.
        """
        session = self._session
        registration, needle, plan = session.registrar.registration, session.guidance.needle, read_plan_nodes(session.host)
        if registration is None or needle is None or plan is None:
            raise FluoroGuideError("There is no located needle to record", None, "Register, then mark the needle in both X-rays")
        images = [session.xrays.image(node) for node in xrays]
        inside = needle_in_volume(needle, registration.pose, registration)
        angles = [describe_angles(*image.view.angles_deg) for image in images]
        path = plan.trajectory(line.GetAttribute("FluoroGuide.trajectory"))
        placement = placement_of(plan, inside, path, views=angles, method=method, registration_verdict=registration.verdict, utc=utc_now())

        def action(record: ProcedureRecord) -> Placement:
            record.plan, record.procedure = plan, procedure.strip() or plan.procedure
            _add_views(record, images)
            if not any(r["pose_matrix"] == registration.pose.tolist() for r in record.registrations):
                record.add_registration(registration)
            record.add_placement(placement)
            return record.approve(placement.placement_id, approved_by) if approved_by.strip() else placement

        return self.change(action)

    def capture(self, xray: Any, index: int, name: str, shows: Iterable[str] = (), caption: str = "", pixels: np.ndarray | None = None) -> KeyImage:
        """Keep a picture of X-ray 0 (A) or 1 (B) under the name of a view; ``pixels``: other pixels of the same size (a subtraction)."""
        import dataclasses

        image = self._session.xrays.image(xray)
        if pixels is not None:
            image = dataclasses.replace(image, pixels=np.asarray(pixels, np.float32))
        burned = str(image.facts.get("burned_in", "unknown")) if image.facts else "unknown"
        words = tuple(dict.fromkeys((*shows, f"X-ray {view_name(index)[-1]}")))
        picture = KeyImage.of_xray(
            name, image, burned_in=burned if burned in ("no", "yes") else "unknown", caption=caption, shows=words, utc=utc_now())
        self.change(lambda record: record.add_key_image(picture))
        return picture

    def add_contrast(self, answer: Any, agent: str, volume_ml: float | None, picture: KeyImage | None = None) -> None:
        """A contrast injection with what was seen (``guidance.subtraction.ContrastAnswer``); vascular ``unsure`` is kept in the note."""
        vascular = {"yes": True, "no": False, "unsure": None}[answer.vascular]
        unsure = "vascular uptake: unsure" if answer.vascular == "unsure" else ""
        note = "; ".join(p for p in (unsure, f"picture {picture.image_id}" if picture is not None else "", answer.notes) if p)
        pattern = ", ".join(answer.patterns) or None
        self.change(lambda record: record.add_contrast(agent.strip() or "not told", volume_ml, pattern, vascular, note or None))

    def set_dose(self, dose: Any, procedure: str = "") -> Any:
        """Put a dose into the record; one that it replaces is withdrawn, not lost."""
        from ..record.withdrawal import withdraw

        def action(record: ProcedureRecord) -> None:
            if record.dose is not None:
                withdraw(record, "dose", None, "replaced by a newer entry")
            record.set_dose(dose)

        self.change(action, procedure)
        return self.record.dose

    def withdraw(self, kind: str, utc: str | None, reason: str) -> dict:
        """Take an entry back: it stays in the record, with when and why (``record.withdrawal.withdraw``)."""
        from ..record.withdrawal import withdraw

        if self.record is None:
            raise FluoroGuideError("There is no record yet", None, "Enter something first")
        return self.change(lambda record: withdraw(record, kind, utc, reason))

    def reinstate(self, number: int) -> dict:
        """Put an entry back that was withdrawn (``record.withdrawal.reinstate``)."""
        from ..record.withdrawal import reinstate

        if self.record is None:
            raise FluoroGuideError("There is no record yet", None, "Enter something first")
        return self.change(lambda record: reinstate(record, number))

    def fluoroscopy(self, seconds: float | None, estimated: bool) -> list[str]:
        """Sentences for every five minutes of fluoroscopy that are full since the last call; kept in the record's timeline."""
        told = self._clock.update(seconds, estimated) if seconds is not None else []
        for sentence in told:
            self.log("fluoroscopy time", sentence)
        return told

    def set_identity(self, check: Any) -> None:
        """What the comparison of the case's identities said (``imaging.identity.IdentityCheck``), with its confirmations."""
        told = check.to_dict()

        def action(record: ProcedureRecord) -> None:
            if record.extra.get("identity_check") != told:
                record.extra = {**record.extra, "identity_check": plain(told)}
                record.log("identity check", "blocked" if told["blocked"] else "confirmed" if told["confirmations"] else "done")

        self.change(action)

    # ---- files ----------------------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> Path:
        """Write the record as JSON, with all it holds.

        Raises
        ------
        FluoroGuideError
            There is nothing to write, or the file cannot be written.
        """
        write_record(path, self._needed())
        return Path(path)

    def write_job(self, kind: str, path: str | Path, identifiers: bool = False) -> Any:
        """Have a file written by the engine: ``report``, ``record`` or ``all`` (a folder); the job's result are the files' paths."""
        from ..engine.record_tasks import sent

        return self._session.engine.run("record_write", **sent(self._needed()), kind=kind, path=str(path), identifiers=identifiers)

    def dose_job(self, paths: str | Path | Sequence[str | Path], reports_only: bool = False) -> Any:
        """Have dose reports (or X-ray headers) read by the engine; the job's result is the ``DoseSummary`` for :meth:`set_dose`."""
        listed = str(paths) if isinstance(paths, (str, Path)) else [str(p) for p in paths]
        return self._session.engine.run("record_dose", paths=listed, reports_only=reports_only)

    def save_scene(self, path: str | Path, private: bool) -> Path:
        """Write the scene: as it is, or (``private``) FluoroGuide's part of it without identifiers."""
        from .case import save_mrb
        from .private_save import save_without_identifiers

        return save_without_identifiers(self._session.host, path) if private else save_mrb(self._session.host, path)

    def _needed(self) -> ProcedureRecord:
        if self.record is None:
            raise FluoroGuideError("There is no record yet", None, "Record a placement or read a dose report first")
        return self.record


def _add_views(record: ProcedureRecord, images: Sequence[XrayImage]) -> None:
    """Views that the record does not have yet."""
    for index, image in enumerate(images):
        name, view = f"X-ray {view_name(index)[-1]}", plain(image.view)
        if not any(v["name"] == name and v["view"] == view for v in record.views):
            record.add_view(name, image.view, image.assumptions)

