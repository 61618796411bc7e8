"""The procedure record in the scene: placements, dose, export.  No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FluoroGuideError
from ..geometry.carm import describe_angles
from ..guidance.triangulation import needle_in_volume
from ..imaging.xray import XrayImage
from ..record.placement import Placement, placement_of
from ..record.record import ProcedureRecord, utc_now, write_record
from ..registration.result import Registration
from .nodes import plain, text_node, text_value
from .plan_nodes import read_plan_nodes
from .record_nodes import build_table, read_object
from .xray_view import view_name

if TYPE_CHECKING:
    from .session import CaseSession


class Recorder:
    """Keeps the record of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._record: ProcedureRecord | None = None

    def forget(self) -> None:
        """The scene is being closed."""
        self._record = None

    @property
    def record(self) -> ProcedureRecord | None:
        """The record that the scene holds."""
        stored = text_value(self._session.host, "record")
        if stored is None:
            self._record = None
        elif self._record is None or self._record.record_id != stored.get("record_id"):
            self._record = read_object(self._session.host, "record", "..record.record", "ProcedureRecord")
        return self._record  # kept, because its clock runs on between two events

    def add_placement(self, line: Any, xrays: Sequence[Any], procedure: str) -> Placement:
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
        record = self.record or ProcedureRecord.of_plan(plan)
        record.plan, record.procedure = plan, procedure.strip() or plan.procedure
        images = [self._session.xrays.image(node) for node in xrays]
        self._add_circumstances(record, images, registration)
        inside = needle_in_volume(needle, registration.pose, registration)
        angles = [describe_angles(*image.view.angles_deg) for image in images]
        path = plan.trajectory(line.GetAttribute("FluoroGuide.trajectory"))
        placement = placement_of(plan, inside, path, views=angles, registration_verdict=registration.verdict, utc=utc_now())
        record.add_placement(placement)
        self._store(record)
        return placement

    @staticmethod
    def _add_circumstances(record: ProcedureRecord, images: Sequence[XrayImage], registration: Registration) -> None:
        """Views and registration, unless the record has them already."""
        for index, image in enumerate(images):
            name, view = f"X-ray {view_name(index)[-1]}", plain(image.view)
            if not any(v["name"] == name and v["view"] == view for v in record.views):
                record.add_view(name, image.view, image.assumptions)
        pose = registration.pose.tolist()
        if not any(r["pose_matrix"] == pose for r in record.registrations):
            record.add_registration(registration)

    def add_dose(self, path: str | Path, procedure: str) -> Any:
        """Read a dose report (or X-ray headers) into the record; returns the ``DoseSummary``."""
        from ..record.dose import read_dose

        dose = read_dose(path)
        plan = read_plan_nodes(self._session.host)
        record = self.record or (ProcedureRecord.of_plan(plan) if plan else ProcedureRecord(procedure.strip() or "not told"))
        record.set_dose(dose)
        build_table(self._session.host, "dose", "Dose", record.dose)
        self._store(record)
        return record.dose

    def _store(self, record: ProcedureRecord) -> None:
        text_node(self._session.host, "record", "Procedure record", plain(record))
        self._record = record
        if record.placements:
            build_table(self._session.host, "placement", "Placement", record.placements)
        self._session.refresh_folder()

    def save(self, path: str | Path) -> Path:
        """Write the record as JSON.

        Raises
        ------
        FluoroGuideError
            There is nothing to write, or the file cannot be written.
        """
        if self.record is None:
            raise FluoroGuideError("There is no record yet", None, "Record a placement or read a dose report first")
        write_record(path, self.record)
        return Path(path)
