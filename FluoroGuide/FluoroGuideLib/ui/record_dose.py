"""The dose box of the Record section: files, folder, Slicer's DICOM database, or typed in."""

from __future__ import annotations

from typing import Any

from ..errors import FluoroGuideError
from ..record.dose import manual_dose
from ..record.dose_reference import compare, outlier, substantial
from ..scene.dicom_database import dose_files
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

    def refresh(self, record: Any | None) -> None:
        """Buttons and the dose of now."""
        missing = "" if self._section.choices is not None else _("The module is not ready yet.")
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

    def _read(self, paths: Any) -> None:
        dose = self.session.recorder.add_dose(paths, self._section.choices.procedureName)
        self._told(dose)

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
        files = dose_files(self._section.panel.xrays())
        if not files:
            raise FluoroGuideError("There is no dose report of these X-rays in Slicer's DICOM database", None, "Import it there, or choose its file")
        self._read(files)

    def _typed(self) -> None:
        ui = self.ui
        values = [edit.text.strip() or None for edit in (ui.fgDapEdit, ui.fgKermaEdit, ui.fgTimeEdit)]
        dose = self.session.recorder.set_dose(manual_dose(*values), self._section.choices.procedureName)
        for edit in (ui.fgDapEdit, ui.fgKermaEdit, ui.fgTimeEdit):
            edit.setText("")
        self._told(dose)
