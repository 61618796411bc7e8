"""The dose box of the Record section: files, folder, Slicer's DICOM database, or typed in."""

from __future__ import annotations

from typing import Any

from ..errors import FluoroGuideError
from ..record.dose import manual_dose
from ..record.dose_reference import compare, outlier, substantial
from ..scene.dicom_database import study_files
from .background import Background
from .style import allow, show_text
from .text import translator

_ = translator(__name__)


class DoseBox:
    """``section`` is the Record section."""

    def __init__(self, section: Any) -> None:
        self._section, self.ui, self.session = section, section.ui, section.session
        ui = self.ui
        self._buttons = (
            (ui.fgDoseButton, self._from_files), (ui.fgDoseFolderButton, self._from_folder), (ui.fgDoseDatabaseButton, self._from_database),
            (ui.fgDoseManualButton, self._typed),
        )
        for button, action in self._buttons:
            section.button(button, action)
        for widget in (ui.fgDapEdit, ui.fgKermaEdit, ui.fgTimeEdit):
            section.tip(widget)
        self.reading = Background(self.session, section.attempt, section.panel.refresh_later)

    def refresh(self, record: Any | None) -> None:
        """Buttons and the dose of now."""
        missing = _("The dose is being read.") if self.reading.running else ""
        missing = missing if self._section.choices is not None else _("The module is not ready yet.")
        for button, _action in self._buttons:
            allow(button, missing, self._section.tool_tip(button))
        show_text(self.ui.fgDoseResult, self._text(record) if record is not None and record.dose is not None else "")

    @staticmethod
    def _text(record: Any) -> str:
        dose = record.dose

        def said(value: float | None, factor: float, unit: str) -> str:
            return _("not told") if value is None else f"{value * factor:.3g} {unit}"

        text = _("Dose area product {dap}, air kerma {kerma}, fluoroscopy {time}.").format(
            dap=said(dose.dap_gy_m2, 1e4, "Gy.cm2"), kerma=said(dose.reference_air_kerma_gy, 1e3, "mGy"),
            time=said(dose.fluoroscopy_seconds, 1.0, "s"),
        )
        comparisons = compare(dose, record.procedure)
        high = outlier(comparisons)
        return " ".join([text, *([high] if high else [c.text for c in comparisons[:1]]), *substantial(dose), *dose.warnings])

    def _read(self, paths: Any, reports_only: bool = False) -> None:
        """Have it read in the worker: a folder may hold thousands of files."""
        job = self.session.recorder.dose_job(paths, reports_only)
        self._section.panel.tell("idle", _("Reading the dose."), _("The panel stays usable."))
        self.reading.start(job, self._take)

    def _take(self, dose: Any) -> None:
        self._told(self.session.recorder.set_dose(dose, self._section.choices.procedureName))

    def _told(self, dose: Any) -> None:
        estimated = dose.fluoroscopy_time_source not in ("reported", "manual")
        signals = self.session.recorder.fluoroscopy(dose.fluoroscopy_seconds, estimated)
        if signals:
            self._section.panel.tell("warn", _("Fluoroscopy time."), signals[-1])
        else:
            self._section.panel.tell("idle", _("Dose read."), "")

    def _from_files(self) -> None:
        path = self._section.panel.dialogs.open_file(_("Read dose"), _("DICOM files (*.dcm *.ima);;All files (*)"))
        if path:
            self._read(path)

    def _from_folder(self) -> None:
        path = self._section.panel.dialogs.open_folder(_("Read dose from a folder"))
        if path:
            self._read(path)

    def _from_database(self) -> None:
        files = study_files(self._section.panel.xrays(), self._section.panel.xrays_section.browser.study)
        if not files:
            what = "Slicer's DICOM database holds no report of these X-rays' study"
            raise FluoroGuideError(what, None, "Choose the study under X-ray, or the report's file")
        self._read(files, reports_only=True)

    def leave(self) -> None:
        """The scene or the module is left: a dose that is being read is not of the next patient."""
        self.reading.stop()

    def close(self) -> None:
        """Undo the connection."""
        self.reading.close()

    def _typed(self) -> None:
        ui = self.ui
        values = [edit.text.strip() or None for edit in (ui.fgDapEdit, ui.fgKermaEdit, ui.fgTimeEdit)]
        dose = self.session.recorder.set_dose(manual_dose(*values), self._section.choices.procedureName)
        for edit in (ui.fgDapEdit, ui.fgKermaEdit, ui.fgTimeEdit):
            edit.setText("")
        self._told(dose)
