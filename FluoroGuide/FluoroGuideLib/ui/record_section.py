"""Record: placements, what was given and seen, dose, report, export, and the journal that keeps all of it safe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import qt

from ..errors import FluoroGuideError
from .background import Background
from .record_dose import DoseBox
from .record_entries import Entries
from .section import Section
from .style import allow, fill_table, prepare_table, show_banner
from .text import translator

_ = translator(__name__)
RETRY_MS = 5000
FINISH_SECONDS = 20.0
"""Longest wait, when the module or the scene is left, for a file that is being written."""


class RecordSection(Section):
    """Keeps everything of the procedure in the scene and in its journal, and writes it to files."""

    key = "record"

    def setup(self) -> None:
        """Buttons and tables."""
        ui = self.ui
        self._unfinished: list[Any] = []
        self._saved: str | None = None
        self.entries, self.dose = Entries(self), DoseBox(self)
        self.writing = Background(self.session, self.attempt, self.panel.refresh_later)
        self.button(ui.fgRecoverButton, self._recover)
        self.button(ui.fgDiscardButton, self._discard)
        self._writers = (
            (ui.fgReportButton, self._report), (ui.fgExportButton, self._export), (ui.fgExportAllButton, self._export_all),
            (ui.fgSaveSceneButton, lambda: self._save_scene(False)), (ui.fgPrivateSceneButton, lambda: self._save_scene(True)),
            (ui.fgFinishButton, self._finish),
        )
        for button, action in self._writers:
            self.button(button, action)
        self.tip(ui.fgRecoverCombo)
        self.tip(ui.fgIdentifiersCheck)
        prepare_table(ui.fgPlacementTable)
        self._retry = qt.QTimer()
        self._retry.setInterval(RETRY_MS)
        self.on(self._retry, "timeout()", self._try_again)

    def enter(self) -> None:
        """Look for procedures that were left unfinished."""
        self._look()

    def _look(self) -> None:
        self._unfinished = list(reversed(self.session.recorder.unfinished()))
        combo = self.ui.fgRecoverCombo
        combo.clear()
        for found in self._unfinished:
            begun = found.record.created_utc.replace("T", " ")[:16]
            combo.addItem(_("{procedure}, {begun}, {count} events").format(procedure=found.record.procedure, begun=begun, count=found.events))

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Placements, entries, dose, journal and buttons of now."""
        recorder = self.session.recorder
        record = recorder.record if self.choices is not None else None
        nothing = _("A file is being written.") if self.writing.running else ""
        nothing = nothing if record is not None else _("There is nothing to export yet.")
        self.ui.fgWriteProgress.setVisible(self.writing.running)
        for button, _action in self._writers:
            allow(button, nothing, self.tool_tip(button))
        fill_table(self.ui.fgPlacementTable, [self._row(p) for p in record.placements] if record is not None else [])
        self.entries.refresh(record)
        self.dose.refresh(record)
        self._refresh_journal(record)

    def _refresh_journal(self, record: Any | None) -> None:
        problem = self.session.recorder.problem
        if problem:
            show_banner(self.ui.fgJournalResult, "fail", _("Not on disk."), problem)
            if not self._retry.isActive():
                self._retry.start()
        elif self._unfinished and record is None:
            show_banner(self.ui.fgJournalResult, "warn", _("Unfinished."), _("A procedure was not closed: recover it, or remove it."))
        else:
            show_banner(self.ui.fgJournalResult, "idle", "", "")
        self.ui.fgRecoverBox.setVisible(bool(self._unfinished))
        busy = _("The scene holds a record already: close it first.") if record is not None else ""
        allow(self.ui.fgRecoverButton, busy, self.tool_tip(self.ui.fgRecoverButton))
        allow(self.ui.fgDiscardButton, "", self.tool_tip(self.ui.fgDiscardButton))

    @staticmethod
    def _row(placement: Any) -> list[str]:
        d = placement.deviation
        return [placement.trajectory.name, f"{d.tip_mm:.1f}", f"{d.lateral_mm:.1f}", "" if d.angle_deg is None else f"{d.angle_deg:.1f}"]

    # ---- journal ------------------------------------------------------------------------------------------------------
    def _try_again(self) -> None:
        if self.session.recorder.retry():
            self._retry.stop()
            self.panel.tell("pass", _("On disk again."), _("Nothing was lost."))
        self.panel.refresh()

    def _chosen(self) -> Any:
        index = self.ui.fgRecoverCombo.currentIndex
        if not 0 <= index < len(self._unfinished):
            raise FluoroGuideError("No unfinished procedure is chosen", None, "Choose one in the list")
        return self._unfinished[index]

    def _recover(self) -> None:
        found = self._chosen()
        record = self.session.recorder.recover(found.path)
        self.choices.procedureName = record.procedure
        self._look()
        told = _("{count} events are back. Load the volume and the X-rays again.").format(count=found.events)
        self.panel.tell("warn" if found.warnings else "pass", _("Recovered."), " ".join([told, *found.warnings]))

    def _discard(self) -> None:
        from ..record.record import write_record

        found = self._chosen()
        path = self.panel.dialogs.save_file(_("Save the unfinished record"), "record.json", _("FluoroGuide record (*.json)"))
        if not path:
            return
        write_record(path, found.record)
        agreed = self.panel.dialogs.confirm(_("The record is saved. Remove its journal?"))
        if agreed:
            self.session.recorder.discard_journal(path, True, found.path)
        self._look()
        self.panel.tell("idle", _("Saved.") if not agreed else _("Removed."), Path(path).name)

    def _finish(self) -> None:
        if self._saved is None:
            raise FluoroGuideError("The record was not saved since its last change", None, "Save the scene, the record file or the report first")
        question = _("The record is in {name}. Remove its journal? The record itself stays in the scene and in the file.")
        if not self.panel.dialogs.confirm(question.format(name=Path(self._saved).name)):
            return
        self.session.recorder.discard_journal(self._saved, True)
        self.panel.tell("pass", _("Finished."), _("The journal is removed; the record is in {name}.").format(name=Path(self._saved).name))

    # ---- files --------------------------------------------------------------------------------------------------------
    @property
    def _identifiers(self) -> bool:
        return bool(self.ui.fgIdentifiersCheck.checked)

    def _written(self, path: Any, private: bool) -> None:
        said = _("It holds no patient identifiers.") if private else _("It may hold the patient's identifiers.")
        self.panel.tell("pass", _("Written."), f"{Path(path).name}. {said}")

    def _write(self, kind: str, path: str, done: Callable[[list[str]], None]) -> None:
        """Have files written by the engine; ``done`` gets their paths."""
        job = self.session.recorder.write_job(kind, path, self._identifiers)
        self.ui.fgWriteProgress.setValue(0)
        self.panel.tell("idle", _("Writing."), _("The panel stays usable."))
        self.writing.start(job, done, self._progressed)

    def _progressed(self, job: Any) -> None:
        self.ui.fgWriteProgress.setValue(int(100 * job.progress))
        self.ui.fgWriteProgress.setFormat(f"{job.text} %p %".strip())

    def _report(self) -> None:
        path, private = self.panel.dialogs.save_file(_("Write the report"), "report.html", _("Page (*.html)")), not self._identifiers
        if path:
            self._write("report", path, lambda files: self._report_written(files[0], private))

    def _report_written(self, path: str, private: bool) -> None:
        self._saved = path
        self._written(path, private)
        self.panel.dialogs.open_page(path)

    def _export(self) -> None:
        path = self.panel.dialogs.save_file(_("Export the record"), "record.json", _("FluoroGuide record (*.json)"))
        identified = self.session.recorder.record.patient is not None
        if path:
            self._write("record", path, lambda files: self._record_written(files[0], identified))

    def _record_written(self, path: str, identified: bool) -> None:
        self._saved = path
        told = _("It holds the patient's identifiers.") if identified else _("It holds no patient identifiers.")
        self.panel.tell("pass", _("Record written."), told)

    def _export_all(self) -> None:
        folder, said = self.panel.dialogs.open_folder(_("Export into a folder")), "" if self._identifiers else _("Without identifiers.")
        if folder:
            self._write("all", folder, lambda files: self.panel.tell(
                "pass", _("Written."), " ".join([_("{count} files.").format(count=len(files)), said]).strip()))

    def _save_scene(self, private: bool) -> None:
        path = self.panel.dialogs.save_file(_("Save the scene"), "case.mrb", _("Slicer scene (*.mrb)"))
        if path:
            with waiting():
                saved = self.session.recorder.save_scene(path, private)
            self._saved = self._saved if private else str(saved)
            self._written(path, private)

    # ---- life ---------------------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """Nothing goes on; what is not on disk stays in memory and is written when the journal is let go of."""
        self.writing.finish(FINISH_SECONDS)
        self.writing.stop()
        self.dose.leave()
        self._retry.stop()
        self._saved = None

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.writing.close()
        self.dose.close()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """A waiting cursor for saving a scene, which only the main thread can do."""
    qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
    try:
        yield
    finally:
        qt.QApplication.restoreOverrideCursor()
