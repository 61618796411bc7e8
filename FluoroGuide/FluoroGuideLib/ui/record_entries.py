"""What is typed in during a procedure: drugs, pain, complications, after-care."""

from __future__ import annotations

from typing import Any

from ..record.entries import PAIN_TIMES, SEVERITIES
from .style import allow, fill_table, prepare_table
from .text import translator

_ = translator(__name__)
SHOWN = 12
"""Newest entries in the table; the report has all."""


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
        for button, action in self._buttons:
            section.button(button, action)
        for widget in (
            ui.fgDrugEdit, ui.fgConcentrationEdit, ui.fgDrugVolumeSpin, ui.fgLotEdit, ui.fgPainWhenCombo, ui.fgPainSpin, ui.fgComplicationEdit,
            ui.fgSeverityCombo,
        ):
            section.tip(widget)
        prepare_table(ui.fgEntryTable)

    def refresh(self, record: Any | None) -> None:
        """Buttons, and what the record holds."""
        missing = "" if self._section.choices is not None else _("The module is not ready yet.")
        for button, _action in self._buttons:
            allow(button, missing, self._section.tool_tip(button))
        rows = sorted(self._rows(record), key=lambda r: r[1], reverse=True) if record is not None else []
        fill_table(self.ui.fgEntryTable, [[text, utc[11:16]] for text, utc in rows[:SHOWN]])

    @staticmethod
    def _rows(record: Any) -> list[tuple[str, str]]:
        rows = []
        for item in record.injectate:
            parts = [item["drug"], item["concentration"], f"{item['volume_ml']:g} ml" if item["volume_ml"] is not None else None, item["lot"]]
            rows.append((" ".join(p for p in parts if p), item["utc"]))
        for item in record.pain:
            when = _("before") if item["when"] == "before" else _("after")
            rows.append((_("Pain {when}: {score:g} of 10").format(when=when, score=item["score"]), item["utc"]))
        rows += [(_("Complication: {what}").format(what=item["text"]), item["utc"]) for item in record.complications or ()]
        if record.complications == []:
            utc = next((e["utc"] for e in reversed(record.timeline) if e["event"] == "complication"), record.created_utc)
            rows.append((_("No complication"), utc))
        rows += [(_("After-care: {text}").format(text=item["text"].splitlines()[0]), item["utc"]) for item in record.aftercare]
        for item in record.contrast:
            seen = {True: _("vascular"), False: _("not vascular"), None: _("vascular uptake not told")}[item["vascular"]]
            rows.append((_("Contrast {agent}: {seen}").format(agent=item["agent"], seen=seen), item["utc"]))
        answers = {item["item"]: item for item in record.checklist}  # the last answer holds
        rows += [(_("Checked: {item}").format(item=item), a["utc"]) for item, a in answers.items() if a["answer"]]
        return rows

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
