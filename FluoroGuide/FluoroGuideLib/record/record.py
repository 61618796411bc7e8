"""The procedure record: plan, views, registrations, placements and dose of one procedure, as versioned JSON.

Schema version 0 is a draft (``Resources/procedure_record.schema.json``).  No patient identifiers by default.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .. import RESEARCH_NOTICE, __version__
from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..planning.jsonfile import check_header, plain, read_json, take, write_json
from ..planning.plan import LATERALITIES, Plan
from ..registration.result import Registration
from .dose_model import DoseSummary
from .placement import Placement
from .summary import summary_text

__all__ = ["ProcedureRecord", "read_record", "summary_text", "utc_now", "write_record"]

RECORD_FORMAT = "fluoroguide-record"
SCHEMA_VERSION = 0


def utc_now() -> str:
    """Now as ISO text in UTC, to the millisecond: ``2025-01-31T09:15:02.123Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(eq=False)
class ProcedureRecord:
    """Everything worth keeping of one procedure.

    Attributes
    ----------
    procedure, laterality, level
        As in :class:`~FluoroGuideLib.planning.plan.Plan`.
    plan
        The plan as used, or None.
    patient_key
        Pseudonym of the patient; None unless the user asks for one.
    views
        C-arm views used: dictionaries with ``name``, ``angles``, ``view`` (:meth:`CArmView.to_dict`), ``assumptions``, ``utc``.
    registrations
        Results (:meth:`Registration.to_dict`) with ``utc``.
    placements
        Achieved needles.
    dose
        Dose summary, or None: not recorded.
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
    record_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_utc: str = field(default_factory=utc_now)
    software: dict = field(default_factory=lambda: {"name": "FluoroGuide", "version": __version__})
    extra: dict = field(default_factory=dict)

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
        """Append an event with its time to the timeline."""
        self.timeline.append({"utc": utc_now(), "seconds": round(time.monotonic() - self._started, 3), "event": event, "text": text})

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

    def set_dose(self, dose: DoseSummary) -> None:
        """Remember the dose (without event UIDs)."""
        self.dose = DoseSummary.from_dict(dose.to_dict())
        self.log("dose", dose.source)

    # ---- plain data ---------------------------------------------------------------------------------------------
    def to_dict(self) -> dict:
        """The contents of ``record.json``."""
        return {
            **self.extra, "format": RECORD_FORMAT, "schema_version": SCHEMA_VERSION, "record_id": self.record_id, "created_utc": self.created_utc,
            "software": plain(self.software), "patient_key": self.patient_key, "procedure": self.procedure, "laterality": self.laterality,
            "level": self.level, "plan": self.plan.to_dict() if self.plan else None, "views": plain(self.views),
            "registrations": plain(self.registrations), "placements": [p.to_dict() for p in self.placements],
            "dose": self.dose.to_dict() if self.dose else None, "timeline": plain(self.timeline), "notes": self.notes,
            "notice": RESEARCH_NOTICE,
        }

    @classmethod
    def from_dict(cls, data: dict) -> ProcedureRecord:
        """The record written by :meth:`to_dict`.

        Raises
        ------
        FluoroGuideError
            Another format, a schema version from the future, or a missing key (named).
        """
        take(data, "schema_version", "record")
        check_header({**data, "version": data["schema_version"]}, "record", RECORD_FORMAT, SCHEMA_VERSION)
        values = {key: take(data, key, "record") for key in KEYS}
        lists = [key for key in ("views", "registrations", "placements", "timeline") if not isinstance(values[key], list)]
        if lists:
            raise FluoroGuideError(f"The record's '{lists[0]}' is not a list", type(values[lists[0]]).__name__)
        values["plan"] = Plan.from_dict(values["plan"]) if values["plan"] is not None else None
        values["placements"] = [Placement.from_dict(p) for p in values["placements"]]
        values["dose"] = DoseSummary.from_dict(values["dose"]) if values["dose"] is not None else None
        known = {*KEYS, "format", "schema_version", "notice"}
        return cls(**values, extra={k: v for k, v in data.items() if k not in known})


KEYS = (
    "procedure", "laterality", "level", "plan", "patient_key", "views", "registrations", "placements", "dose", "timeline", "notes",
    "record_id", "created_utc", "software",
)


def write_record(path: str | Path, record: ProcedureRecord) -> None:
    """Write ``record.json``; the old file stays until the new one is complete on disk."""
    write_json(path, record.to_dict())


def read_record(path: str | Path) -> ProcedureRecord:
    """Read ``record.json``; raises :class:`FluoroGuideError` in one sentence for anything that is none."""
    return ProcedureRecord.from_dict(read_json(path, "record"))
