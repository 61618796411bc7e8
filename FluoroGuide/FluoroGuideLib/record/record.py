"""The record of one procedure, as versioned JSON (``Resources/procedure_record.schema.json``, schema version 1).

No patient identifiers by default.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from .. import RESEARCH_NOTICE, __version__
from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..planning.jsonfile import plain, read_json, take, write_json
from ..planning.plan import LATERALITIES, Plan
from ..registration.result import Registration
from . import entries
from .compatibility import NEW_IN_1, READABLE_FROM, RECORD_FORMAT, SCHEMA_VERSION, merged, normal_registration, normal_view, unknown, upgraded
from .dose_model import DoseSummary
from .key_images import KeyImage
from .placement import Placement
from .summary import summary_text

__all__ = ["ProcedureRecord", "read_record", "summary_text", "utc_now", "write_record"]


def utc_now() -> str:
    """Now as ISO text in UTC, to the millisecond: ``2025-01-31T09:15:02.123Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(eq=False)
class ProcedureRecord:
    """Everything worth keeping of one procedure.

    Attributes
    ----------
    procedure, laterality, level, approach
        As in :class:`~FluoroGuideLib.planning.plan.Plan`; the approach in words.
    plan
        The plan as used, or None.
    patient_key
        Pseudonym of the patient (:func:`~FluoroGuideLib.record.privacy.patient_key`), or None.
    patient
        Identifiers of the patient (``name``, ``id``, ...) when the user asked for them, else None.
    equipment
        The C-arm, in words, or None.
    checklist
        Answers with their times (:func:`~FluoroGuideLib.record.entries.checklist_answer`); the last answer to an item holds.
    views
        C-arm views used: dictionaries with ``name``, ``angles``, ``view`` (:meth:`CArmView.to_dict`), ``assumptions``, ``utc``.
    registrations
        Results (:meth:`Registration.to_dict`) with ``utc``.
    placements
        Achieved needles.
    contrast, injectate, pain, aftercare
        See :mod:`~FluoroGuideLib.record.entries`; ``aftercare`` has ``text`` and ``utc``.
    complications
        A list; empty: none occurred; None: not told.
    key_images
        Pictures worth keeping.
    dose
        Dose summary, or None: not recorded.
    withdrawn
        Entries taken back, with when and why (:mod:`~FluoroGuideLib.record.withdrawal`).
    timeline
        Events: ``utc``, ``seconds`` since the record began (monotonic clock), ``event``, ``text``.
    notes
        Free text.
    record_id
        Random UUID.
    created_utc
        ISO text.
    software
        Name and version that made the record.
    extra
        Keys of the file that this version does not know: kept and written back.
    keeper
        The :class:`~FluoroGuideLib.record.keeper.RecordKeeper` that journals each change, or None.
    read_warnings
        What was assumed when the record was read; not written.
    """

    procedure: str
    laterality: str | None = None
    level: str | None = None
    plan: Plan | None = None
    patient_key: str | None = None
    views: list[dict] = field(default_factory=list)
    registrations: list[dict] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    dose: DoseSummary | None = None
    timeline: list[dict] = field(default_factory=list)
    notes: str = ""
    patient: dict | None = None
    approach: str | None = None
    equipment: str | None = None
    checklist: list[dict] = field(default_factory=list)
    contrast: list[dict] = field(default_factory=list)
    injectate: list[dict] = field(default_factory=list)
    pain: list[dict] = field(default_factory=list)
    complications: list[dict] | None = None
    aftercare: list[dict] = field(default_factory=list)
    key_images: list[KeyImage] = field(default_factory=list)
    withdrawn: list[dict] = field(default_factory=list)
    record_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_utc: str = field(default_factory=utc_now)
    software: dict = field(default_factory=lambda: {"name": "FluoroGuide", "version": __version__})
    extra: dict = field(default_factory=dict)
    keeper: object | None = field(default=None, repr=False)
    read_warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.procedure, str) or not self.procedure.strip():
            raise FluoroGuideError("The record names no procedure", self.procedure, "Choose a procedure or write one")
        if self.laterality is not None and self.laterality not in LATERALITIES:
            raise FluoroGuideError("The record's laterality is unknown", self.laterality, "Use one of " + ", ".join(LATERALITIES))
        # Time of the record's start on the clock that no one can set back; a record read from a file goes on after its last event.
        self._started = time.monotonic() - max((e.get("seconds") or 0.0 for e in self.timeline), default=0.0)

    @classmethod
    def of_plan(cls, plan: Plan) -> ProcedureRecord:
        """A new record of a plan, with its first event."""
        record = cls(plan.procedure, plan.laterality, plan.level, plan)
        record.log("started")
        return record

    # ---- what happens -------------------------------------------------------------------------------------------
    def log(self, event: str, text: str = "") -> None:
        """Append an event with its time to the timeline, and journal what changed."""
        self.timeline.append({"utc": utc_now(), "seconds": round(time.monotonic() - self._started, 3), "event": event, "text": text})
        self.changed()

    def changed(self) -> None:
        """Journal what changed since the last event; call it after setting attributes directly.  Nothing without a :attr:`keeper`."""
        if self.keeper is not None:
            self.keeper.store(self)

    def add_view(self, name: str, view: CArmView, assumptions: tuple[str, ...] = ()) -> None:
        """Remember a view that was used; ``name`` must not carry identifiers (a file name from a PACS may)."""
        angles = describe_angles(*view.angles_deg)
        self.views.append({"name": name, "angles": angles, "view": view.to_dict(), "assumptions": list(assumptions), "utc": utc_now()})
        self.log("view", f"{name}: {angles}")

    def add_registration(self, registration: Registration) -> None:
        """Remember a registration, with the predicted error at each of the plan's targets."""
        points = self.plan.target_points() if self.plan else {}
        # A history with one infinite cost must not make the whole record unwritable: plain() turns it into null.
        self.registrations.append(plain({**registration.to_dict(points), "utc": utc_now()}))
        self.log("registration", registration.verdict)

    def add_placement(self, placement: Placement) -> None:
        """Remember an achieved needle."""
        self.placements.append(placement)
        self.log("placement", f"{placement.trajectory.name}: {placement.deviation.tip_mm:.1f} mm from the target")

    def approve(self, placement_id: str, by: str) -> Placement:
        """Somebody confirms a placement.

        Raises
        ------
        FluoroGuideError
            No such placement, or no name.
        """
        name = entries.text(by, "The name of who approves")
        for index, placement in enumerate(self.placements):
            if placement.placement_id == placement_id:
                self.placements[index] = replace(placement, approved_by=name, approved_utc=utc_now())
                self.log("approved", f"{placement.trajectory.name}: {name}")
                return self.placements[index]
        raise FluoroGuideError("The record has no such placement", placement_id, f"It has {len(self.placements)}")

    def set_dose(self, dose: DoseSummary) -> None:
        """Remember the dose (without event UIDs)."""
        self.dose = DoseSummary.from_dict(dose.to_dict())
        self.log("dose", dose.source)

    def answer(self, item: str, answer: str | bool | float | None, by: str | None = None) -> None:
        """Answer an item of the checklist; an earlier answer stays in the list."""
        self.checklist.append(entries.checklist_answer(item, answer, utc_now(), by))
        self.log("checklist", item)

    def add_contrast(
        self, agent: str, volume_ml: float | None = None, pattern: str | None = None, vascular: bool | None = None, note: str | None = None,
    ) -> None:
        """Remember a contrast injection; ``pattern`` is one of :data:`entries.PATTERNS` or free text."""
        self.contrast.append(entries.contrast(agent, volume_ml, pattern, vascular, utc_now(), note))
        self.log("contrast", pattern or agent)

    def add_injectate(
        self, drug: str, concentration: str | None = None, volume_ml: float | None = None, lot: str | None = None, placement_id: str | None = None,
    ) -> None:
        """Remember a drug that was given."""
        self.injectate.append(entries.injectate(drug, concentration, volume_ml, lot, utc_now(), placement_id))
        self.log("injectate", drug)

    def add_pain(self, when: str, score: float, scale: str = "NRS", minutes_after: float | None = None, activity: str | None = None) -> None:
        """Remember a pain score ``"before"`` or ``"after"`` the procedure."""
        self.pain.append(entries.pain(when, score, scale, utc_now(), minutes_after, activity))
        self.log("pain", f"{when}: {score:g} ({scale})")

    def add_complication(self, what: str, severity: str | None = None, treatment: str | None = None) -> None:
        """Remember a complication."""
        self.complications = [*(self.complications or []), entries.complication(what, severity, utc_now(), treatment)]
        self.log("complication", what)

    def no_complications(self) -> None:
        """Say that none occurred (which is more than not telling)."""
        if not self.complications:
            self.complications = []
            self.log("complication", "none")

    def add_aftercare(self, text: str) -> None:
        """Remember what the patient was told or given."""
        self.aftercare.append({"text": entries.text(text, "The after-care"), "utc": utc_now()})
        self.log("aftercare")

    def add_key_image(self, image: KeyImage) -> None:
        """Remember a picture."""
        self.key_images.append(image)
        self.log("key image", image.name)

    # ---- plain data ---------------------------------------------------------------------------------------------
    def to_dict(self) -> dict:
        """The contents of ``record.json``."""
        utc = self.created_utc
        data = {
            "format": RECORD_FORMAT, "schema_version": SCHEMA_VERSION, "readable_from": READABLE_FROM, "record_id": self.record_id,
            "created_utc": utc, "software": plain(self.software), "patient_key": self.patient_key, "patient": plain(self.patient),
            "procedure": self.procedure, "approach": self.approach, "laterality": self.laterality, "level": self.level,
            "equipment": self.equipment, "plan": self.plan.to_dict() if self.plan else None,
            "views": [normal_view(v, i, utc) for i, v in enumerate(plain(self.views))],
            "registrations": [normal_registration(r, i, utc) for i, r in enumerate(plain(self.registrations))],
            "placements": [p.to_dict() for p in self.placements], "dose": self.dose.to_dict() if self.dose else None,
            **{key: plain(getattr(self, key)) for key in ("checklist", "contrast", "injectate", "pain", "complications", "aftercare")},
            "key_images": [k.to_dict() for k in self.key_images], "timeline": plain(self.timeline), "notes": self.notes, "notice": RESEARCH_NOTICE,
        }
        if self.withdrawn:  # files of records without any stay as they always were
            data["withdrawn"] = self.withdrawn
        return merged(plain(data), self.extra)

    @classmethod
    def from_dict(cls, data: dict) -> ProcedureRecord:
        """The record written by :meth:`to_dict`, by this or another version (:mod:`~FluoroGuideLib.record.compatibility`).

        Raises
        ------
        FluoroGuideError
            Another format, a version that says it cannot be read, a missing key, or a value that does not fit the schema (named).
        """
        from .schema import kinds_schema, problems

        try:
            data, warnings = upgraded(data)
            record = cls._of(data, warnings)
            newer = data["schema_version"] > SCHEMA_VERSION  # may know words that this schema does not
            wrong = [] if newer else problems(record.to_dict(), kinds_schema())
        except FluoroGuideError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise FluoroGuideError("The record is damaged", type(error).__name__, "Choose another copy, or recover it from its journal") from None
        if wrong:
            raise FluoroGuideError("The record does not fit its schema", wrong[0], "Choose another copy, or recover it from its journal")
        return record

    @classmethod
    def _of(cls, data: dict, warnings: list[str]) -> ProcedureRecord:
        values = {key: take(data, key, "record") for key in KEYS} | {key: data.get(key, default) for key, default in NEW_IN_1.items()}
        values["withdrawn"] = data.get("withdrawn", [])
        lists = [key for key in LISTS if not isinstance(values[key], list)]
        if lists:
            raise FluoroGuideError(f"The record's '{lists[0]}' is not a list", type(values[lists[0]]).__name__)
        values["plan"] = Plan.from_dict(values["plan"]) if values["plan"] is not None else None
        values["placements"] = [Placement.from_dict(p) for p in values["placements"]]
        values["key_images"] = [KeyImage.from_dict(k) for k in values["key_images"]]
        values["dose"] = DoseSummary.from_dict(values["dose"]) if values["dose"] is not None else None
        record = cls(**values, read_warnings=tuple(warnings))
        record.extra = plain(unknown(data, record.to_dict()))
        return record


KEYS = (
    "procedure", "laterality", "level", "plan", "patient_key", "views", "registrations", "placements", "dose", "timeline", "notes",
    "record_id", "created_utc", "software",
)
LISTS = ("views", "registrations", "placements", "timeline", "checklist", "contrast", "injectate", "pain", "aftercare", "key_images", "withdrawn")


def write_record(path: str | Path, record: ProcedureRecord) -> None:
    """Write ``record.json``; the old file stays until the new one is complete on disk."""
    write_json(path, record.to_dict())


def read_record(path: str | Path) -> ProcedureRecord:
    """Read ``record.json``; raises :class:`FluoroGuideError` in one sentence for anything that is none."""
    return ProcedureRecord.from_dict(read_json(path, "record"))
