"""What is typed in during a procedure: drugs, pain, complications, after-care; and taking back whatever the record holds."""

from __future__ import annotations

from typing import Any

from ..errors import FluoroGuideError
from ..record.entries import PAIN_TIMES, SEVERITIES
from .entry_rows import EntryRow, entry_rows
from .style import allow, fill_table, prepare_table
from .text import translator

_ = translator(__name__)


class Entries:
    """The box *Given and seen* of the Record section (``section``)."""

    def __init__(self, section: Any) -> None:
        self._section, self.ui, self.session = section, section.ui, section.session
        ui = self.ui
        words = {"before": _("before"), "after": _("after"), "minor": _("minor"), "major": _("major")}
        for when in PAIN_TIMES:
            ui.fgPainWhenCombo.addItem(words[when])
        for text in (_("not graded"), *(words[s] for s in SEVERITIES)):
            ui.fgSeverityCombo.addItem(text)
        self._buttons = (
            (ui.fgDrugButton, self._drug), (ui.fgPainButton, self._pain), (ui.fgNoComplicationButton, self._no_complication),
            (ui.fgComplicationButton, self._complication), (ui.fgCareButton, self._care),
        )
        self._rows: list[EntryRow] = []
        for button, action in self._buttons:
            section.button(button, action)
        section.button(ui.fgWithdrawButton, self._withdraw, "Ctrl+Shift+W")
        section.button(ui.fgReinstateButton, self._reinstate)
        section.on(ui.fgEntryTable, "itemSelectionChanged()", section.panel.refresh_later)
        for widget in (
            ui.fgDrugEdit, ui.fgConcentrationEdit, ui.fgDrugVolumeSpin, ui.fgLotEdit, ui.fgPainWhenCombo, ui.fgPainSpin, ui.fgComplicationEdit,
            ui.fgSeverityCombo,
        ):
            section.tip(widget)
        prepare_table(ui.fgEntryTable)

    def refresh(self, record: Any | None) -> None:
        """Buttons, and what the record holds."""
        ui, missing = self.ui, "" if self._section.choices is not None else _("The module is not ready yet.")
        for button, _action in self._buttons:
            allow(button, missing, self._section.tool_tip(button))
        rows = entry_rows(record) if record is not None else []
        if rows != self._rows:
            self._rows = rows
            fill_table(ui.fgEntryTable, [[row.text, row.utc[11:16]] for row in rows])
            for number, row in enumerate(rows):
                ui.fgEntryTable.item(number, 0).setToolTip(row.text)  # a long one does not fit its cell
            ui.fgEntryTable.clearSelection()
        withdraw, back = self._target(False), self._target(True)
        allow(ui.fgWithdrawButton, missing or ("" if withdraw is not None else self._why_not()), self._section.tool_tip(ui.fgWithdrawButton))
        allow(ui.fgReinstateButton, missing or ("" if back is not None else _("No withdrawn entry is chosen.")),
              self._section.tool_tip(ui.fgReinstateButton))
        ui.fgReinstateButton.setVisible(any(row.withdrawn is not None for row in rows))

    # ---- taking back ----------------------------------------------------------------------------------------------------
    def _chosen(self) -> EntryRow | None:
        rows = sorted({item.row() for item in list(self.ui.fgEntryTable.selectedItems())})
        return self._rows[rows[0]] if rows and rows[0] < len(self._rows) else None

    def _target(self, withdrawn: bool) -> EntryRow | None:
        """The chosen entry when it is of this kind; without a choice the newest one (withdrawn last, when ``withdrawn``)."""
        chosen = self._chosen()
        if chosen is not None:
            return chosen if chosen.kind and (chosen.withdrawn is not None) == withdrawn else None
        fitting = [row for row in self._rows if row.kind and (row.withdrawn is not None) == withdrawn]
        return max(fitting, key=lambda row: row.withdrawn) if withdrawn and fitting else fitting[0] if fitting else None

    def _why_not(self) -> str:
        chosen = self._chosen()
        if chosen is None:
            return _("There is no entry to withdraw.")
        return _("This entry is withdrawn already.") if chosen.withdrawn is not None else _("Untick it in the plan's checklist.")

    def _withdraw(self) -> None:
        row = self._target(False)
        if row is None:
            raise FluoroGuideError("There is no entry to withdraw", None, "Choose one of the list")
        reason = self._section.panel.dialogs.ask_text(_("Withdraw an entry"), _("Why is it withdrawn: {entry}?").format(entry=row.text))
        if not reason.strip():
            raise FluoroGuideError("Nothing was withdrawn", None, "A reason is needed")
        self.session.recorder.withdraw(row.kind, row.key, reason)
        self._section.panel.tell("warn", _("Withdrawn."), _("{entry}. It stays in the record with its reason.").format(entry=row.text))

    def _reinstate(self) -> None:
        row = self._target(True)
        if row is None:
            raise FluoroGuideError("There is no withdrawn entry to put back", None, "Choose one of the list")
        self.session.recorder.reinstate(row.withdrawn)
        self._section.panel.tell("pass", _("Put back."), row.text)

    def _change(self, action: Any, told: str) -> None:
        self.session.recorder.change(action, self._section.choices.procedureName)
        self._section.panel.tell("pass", _("Written."), told)

    def _drug(self) -> None:
        ui, record = self.ui, self.session.recorder.record
        needle = record.placements[-1].placement_id if record is not None and record.placements else None
        name, strength, lot = ui.fgDrugEdit.text, ui.fgConcentrationEdit.text.strip() or None, ui.fgLotEdit.text.strip() or None
        volume = float(ui.fgDrugVolumeSpin.value) or None
        self._change(lambda r: r.add_injectate(name, strength, volume, lot, needle), name)
        for widget in (ui.fgDrugEdit, ui.fgConcentrationEdit, ui.fgLotEdit):
            widget.setText("")
        ui.fgDrugVolumeSpin.setValue(0.0)

    def _pain(self) -> None:
        when, score = PAIN_TIMES[max(0, self.ui.fgPainWhenCombo.currentIndex)], float(round(self.ui.fgPainSpin.value))
        self._change(lambda r: r.add_pain(when, score), _("Pain {score:g} of 10").format(score=score))

    def _no_complication(self) -> None:
        self._change(lambda r: r.no_complications(), _("No complication."))

    def _complication(self) -> None:
        text, severity = self.ui.fgComplicationEdit.text, (None, *SEVERITIES)[max(0, self.ui.fgSeverityCombo.currentIndex)]
        self._change(lambda r: r.add_complication(text, severity), text)
        self.ui.fgComplicationEdit.setText("")

    def _care(self) -> None:
        text = self.session.recorder.aftercare_text(self._section.choices.procedureName)
        self._change(lambda r: r.add_aftercare(text), _("After-care instructions were given."))
