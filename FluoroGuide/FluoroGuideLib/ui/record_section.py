"""Record: placements, dose, export."""

from __future__ import annotations

from typing import Any

from .section import Section
from .style import allow, fill_table, prepare_table, show_text
from .text import translator

_ = translator(__name__)


class RecordSection(Section):
    """Keeps placements and dose in the scene and writes them to a file."""

    key = "record"

    def setup(self) -> None:
        """Buttons and table."""
        self.button(self.ui.fgRecordButton, self._record)
        self.button(self.ui.fgDoseButton, self._dose)
        self.button(self.ui.fgExportButton, self._export)
        prepare_table(self.ui.fgPlacementTable)

    def refresh(self) -> None:
        """Placements and dose of now."""
        record = self.session.recorder.record
        missing = self.panel.missing_inputs() or self.panel.guide.missing()
        allow(self.ui.fgRecordButton, missing, self.tool_tip(self.ui.fgRecordButton))
        allow(self.ui.fgDoseButton, "" if self.choices else _("The module is not ready yet."), self.tool_tip(self.ui.fgDoseButton))
        allow(self.ui.fgExportButton, "" if record else _("There is nothing to export yet."), self.tool_tip(self.ui.fgExportButton))
        fill_table(self.ui.fgPlacementTable, [self._row(p) for p in record.placements] if record else [])
        show_text(self.ui.fgDoseResult, self._dose_text(record.dose) if record and record.dose else "")

    @staticmethod
    def _row(placement: Any) -> list[str]:
        d = placement.deviation
        return [placement.trajectory.name, f"{d.tip_mm:.1f}", f"{d.lateral_mm:.1f}", "" if d.angle_deg is None else f"{d.angle_deg:.1f}"]

    @staticmethod
    def _dose_text(dose: Any) -> str:
        def said(value: float | None, factor: float, unit: str) -> str:
            return _("not told") if value is None else f"{value * factor:.3g} {unit}"

        text = _("Dose area product {dap}, air kerma {kerma}, fluoroscopy {time}.").format(
            dap=said(dose.dap_gy_m2, 1e4, "Gy.cm2"), kerma=said(dose.reference_air_kerma_gy, 1e3, "mGy"),
            time=said(dose.fluoroscopy_seconds, 1.0, "s"),
        )
        return " ".join([text, *dose.warnings])

    def _record(self) -> None:
        p = self.choices
        placement = self.session.recorder.add_placement(p.planLine, self.panel.xrays(), p.procedureName)
        self.panel.tell("pass", _("Recorded."), _("{name}: tip {distance:.1f} mm from the target.").format(
            name=placement.trajectory.name, distance=placement.deviation.tip_mm,
        ))

    def _dose(self) -> None:
        path = self.panel.dialogs.open_file(_("Read dose"), _("DICOM files (*.dcm *.ima);;All files (*)"))
        if path:
            self.session.recorder.add_dose(path, self.choices.procedureName)
            self.panel.tell("idle", _("Dose read."), "")

    def _export(self) -> None:
        path = self.panel.dialogs.save_file(_("Export the record"), "record.json", _("FluoroGuide record (*.json)"))
        if path:
            self.session.recorder.save(path)
            self.panel.tell("pass", _("Record written."), _("It holds no patient identifiers."))
