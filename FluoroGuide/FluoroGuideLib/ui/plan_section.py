"""Patient and plan: volume, procedure, side and level, needles; its parts are in files of their own."""

from __future__ import annotations

from typing import Any

import qt

from ..planning.carms import CARM_FOLDER
from ..scene.planner import NOT_TOLD
from .carm_part import CarmPart
from .checks_part import ChecksPart
from .modality_part import ModalityPart
from .needle_part import NeedlePart
from .section import Section
from .style import choose_data, show_text
from .text import translator
from .view_sketch import sketch

_ = translator(__name__)
FOLDER_SETTING = "FluoroGuide/ProcedureFolder"


def _sides() -> dict[str, str]:
    return {NOT_TOLD: _("not told"), "left": _("left"), "right": _("right"), "bilateral": _("both sides"), "midline": _("midline")}


def _positions() -> dict[str, str]:
    return {
        "": _("as the procedure says"), "HFS": _("supine, head first"), "HFP": _("prone, head first"), "FFS": _("supine, feet first"),
        "FFP": _("prone, feet first"),
    }


class PlanSection(Section):
    """The procedure and what is common to all needles."""

    key = "plan"

    def __init__(self, ui: Any, session: Any, panel: Any) -> None:
        super().__init__(ui, session, panel)
        self.needles, self.carm, self.checks, self.modality = (
            part(ui, session, panel) for part in (NeedlePart, CarmPart, ChecksPart, ModalityPart))
        self.parts = (self.needles, self.carm, self.checks, self.modality)
        self._shown: tuple | None = None
        self._problems: tuple[str, ...] = ()

    # ---- life -------------------------------------------------------------------------------------------------------
    def setup(self) -> None:
        """Fill the boxes, connect everything."""
        ui = self.ui
        self._fill_procedures()
        for value, text in _sides().items():
            ui.fgSideBox.addItem(text, value)
        for name, text in _positions().items():
            ui.fgPositionBox.addItem(text, name)
        for path in sorted(CARM_FOLDER.glob("*.json")):
            ui.fgCarmBox.addItem(path.stem.replace("_", " "), path.stem)
        self.tip(ui.fgProcedureBox)
        self.on(ui.fgProcedureBox, "currentTextChanged(QString)", self._procedure_chosen)
        self.on(ui.fgSideBox, "currentIndexChanged(int)", lambda: self._chosen("laterality", ui.fgSideBox))
        self.on(ui.fgPositionBox, "currentIndexChanged(int)", lambda: self._chosen("patientPosition", ui.fgPositionBox))
        self.on(ui.fgCarmBox, "currentIndexChanged(int)", lambda: self._chosen("carm", ui.fgCarmBox))
        self.on(ui.fgLevelCheck, "clicked(bool)", self._level_counted)
        self.button(ui.fgProcedureFolderButton, self._choose_folder)
        for part in (ui.fgProcedurePart, ui.fgCarmPart, ui.fgChecksPart):
            part.collapsed = True
            self.on(part, "contentsCollapsed(bool)", lambda collapsed: self.panel.refresh_later())
        for part in self.parts:
            part.setup()

    def leave(self) -> None:
        """Stop placing, timers and jobs."""
        for part in self.parts:
            part.leave()

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        for part in self.parts:
            part.close()

    # ---- procedures ---------------------------------------------------------------------------------------------------
    def _folder(self) -> str:
        return str(qt.QSettings().value(FOLDER_SETTING, "") or "")

    def _fill_procedures(self) -> None:
        box, library = self.ui.fgProcedureBox, self.session.planner.library(self._folder())
        blocked = box.blockSignals(True)
        box.clear()
        for item in sorted(library.procedures.values(), key=lambda p: p.title):
            box.addItem(item.title, item.key)
        box.setCurrentIndex(-1)
        box.blockSignals(blocked)
        self._problems = library.problems

    def _choose_folder(self) -> None:
        folder = self.panel.dialogs.open_folder(_("Folder with procedures of your own"))
        if folder:
            qt.QSettings().setValue(FOLDER_SETTING, folder)
            self._fill_procedures()
            self._shown = None
            if self._problems:
                self.panel.tell("warn", _("Some files were left out."), " ".join(self._problems))
            else:
                self.panel.tell("idle", _("Procedures read."), _("Yours replace shipped ones of the same name."))

    def _procedure_chosen(self, text: str) -> None:
        if self.choices is None:
            return
        known = self.session.planner.procedure(text)
        name = known.key if known is not None else text
        if name == self.choices.procedureName:
            return
        self.choices.procedureName = name
        if known is not None and known.patient_position is not None:
            self.choices.patientPosition = known.patient_position
        self.needles.store_later()

    def _chosen(self, parameter: str, box: Any) -> None:
        value = box.itemData(box.currentIndex)
        if self.choices is not None and value is not None and value != self.choices.getValue(parameter):
            self.choices.setValue(parameter, str(value))
            self.needles.store_later()

    def _level_counted(self) -> None:
        if self.choices is not None:
            self.choices.confirmedLevel = self.choices.level.strip() if self.ui.fgLevelCheck.checked else ""

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Everything of the plan."""
        ui, p = self.ui, self.choices
        why = "" if p is not None else _("The module is not ready yet.")
        if not why and self.session.planner.locked:
            why = _("The plan is locked because its procedure has started.")
        for widget in (ui.fgProcedureBox, ui.fgSideBox, ui.fgLevelEdit):
            widget.setEnabled(not why)
        if p is not None:
            choose_data(ui.fgSideBox, p.laterality)
            choose_data(ui.fgPositionBox, p.patientPosition)
            choose_data(ui.fgCarmBox, p.carm)
        level = p.level.strip() if p is not None else ""
        ui.fgLevelCheck.setEnabled(bool(level) and not why)
        ui.fgLevelCheck.setChecked(bool(level) and p.confirmedLevel == level)
        self._show_procedure(p.procedureName if p is not None else "", p.laterality if p is not None else NOT_TOLD)
        for part in self.parts:
            part.refresh()

    def _show_procedure(self, name: str, side: str) -> None:
        known = self.session.planner.procedure(name) if name else None
        title = known.title if known is not None else name
        box = self.ui.fgProcedureBox
        if box.currentText != title:
            blocked = box.blockSignals(True)
            box.setCurrentIndex(box.findText(title))
            box.setEditText(title)
            box.blockSignals(blocked)
        if not box.lineEdit().hasFocus():
            box.lineEdit().setCursorPosition(0)  # the beginning of a long name is seen, not its end
        box.setToolTip(f"{self.tool_tip(box)}\n{title}".strip())
        self.ui.fgProcedurePart.setVisible(known is not None)
        if known is None or self._shown == (known.key, known.path, side):
            return
        self._shown = (known.key, known.path, side)
        self.ui.fgProcedureText.setPlainText("\n".join(known.text()))
        view = next((v for v in known.data["views"] if v["detector_side"] != "lateral"), known.data["views"][0] if known.data["views"] else None)
        self.ui.fgProcedurePicture.setVisible(view is not None)
        if view is not None:
            angles = known.view_angles(view, side if side in ("left", "right") else "left")
            self.ui.fgProcedurePicture.setPixmap(sketch(*angles, known.patient_position == "HFP", self.ui.fgProcedurePicture.palette))

    def show_status(self) -> None:
        """The section's status line; files of the user's that could not be read are named."""
        super().show_status()
        if self._problems and not self.ui.fgProcedurePart.collapsed:
            show_text(self.ui.fgPlanStatus, " ".join([self.state.text, *self._problems]))
