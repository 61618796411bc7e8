"""Register: start, bone, progress, cancel, verdict, comparison, history."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from ..errors import FluoroGuideError
from ..scene.packages import offer_numba
from ..scene.raw_volumes import bones_of, content_key
from ..scene.registrar import AUTO, WHOLE, Request
from .jobs import Jobs
from .register_compare import Comparing
from .register_start import StartChoice
from .section import Section
from .style import COLORS, allow, fill_table, paint_cell, prepare_table, show_banner
from .text import translator

_ = translator(__name__)


class RegisterSection(Section):
    """Runs one registration at a time in the engine's process; the window stays free."""

    key = "register"

    def setup(self) -> None:
        """Buttons, tables and what belongs to them."""
        ui = self.ui
        self.jobs = Jobs(self.session)
        self._job: Any | None = None
        self._made: Any | None = None
        self._line: Any | None = None
        self._prepared: tuple | None = None
        self._parts: list[str] = []
        self.start, self.compare = StartChoice(self), Comparing(self)
        self.button(ui.fgRegisterButton, self._start, "Ctrl+Shift+R")
        self.button(ui.fgCancelButton, self.cancel)
        self.button(ui.fgAcceptRegistrationButton, lambda: self._decide(True))
        self.button(ui.fgRejectRegistrationButton, lambda: self._decide(False))
        self.button(ui.fgRestoreButton, self._restore)
        self.tip(ui.fgPartCombo)
        self.on(ui.fgPartCombo, "currentIndexChanged(int)", self.panel.refresh_later)
        self.on(ui.fgHistoryTable, "itemSelectionChanged()", self.panel.refresh_later)
        for table in (ui.fgErrorTable, ui.fgHistoryTable):
            prepare_table(table)

    def enter(self) -> None:
        """The engine starts and compiles meanwhile."""
        self.jobs.wake()

    @property
    def running(self) -> bool:
        """True while a registration runs."""
        return self._job is not None

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Buttons, progress, verdict and predicted errors."""
        allow(self.ui.fgRegisterButton, self._missing(), self.tool_tip(self.ui.fgRegisterButton))
        allow(self.ui.fgCancelButton, "" if self.running else _("No registration runs."), self.tool_tip(self.ui.fgCancelButton))
        self.ui.fgRegisterProgress.setVisible(self.running)
        self._refresh_parts()
        self.start.refresh()
        registration = self.session.registrar.registration if self.choices is not None else None
        self._refresh_verdict(registration)
        self._refresh_history(registration)
        self._prepare_volume()

    def _refresh_verdict(self, registration: Any) -> None:
        if registration is None:
            show_banner(self.ui.fgVerdictResult, "idle", "", "")
            fill_table(self.ui.fgErrorTable, [])
            return
        words = {"pass": _("PASS"), "warn": _("CHECK"), "fail": _("FAIL")}
        reasons = " ".join(registration.reasons) or _("The volume fits the X-rays.")
        kind, word = registration.verdict, words[registration.verdict]
        if self.panel.stale():
            kind, word, reasons = "idle", _("OLD"), _("Volume or X-rays were changed after the registration: register again.")
        part = registration.facts.get("part")
        show_banner(self.ui.fgVerdictResult, kind, word, _("{reasons} Registered: {part}.").format(reasons=reasons, part=part) if part else reasons)
        fill_table(self.ui.fgErrorTable, [self._row(e) for e in registration.target_error(self.session.planner.targets())])

    @staticmethod
    def _row(error: Any) -> list[str]:
        def numbers(values: tuple) -> str:
            return " / ".join(f"{v:.1f}" for v in values)

        return [error.name, f"{error.predicted_error_mm:.1f}", numbers(error.in_plane_mm), numbers(error.depth_mm)]

    def _refresh_history(self, registration: Any) -> None:
        entries = self.session.registrar.history.entries() if self.choices is not None else []
        words = {"pass": _("pass"), "warn": _("check"), "fail": _("fail")}
        rows, table = [], self.ui.fgHistoryTable
        for entry in reversed(entries):
            decided = {True: _(", accepted"), False: _(", rejected"), None: ""}[entry.accepted]
            error = "" if entry.error_mm is None else f"{entry.error_mm:.1f}"
            rows.append([_("{time} now").format(time=entry.utc[11:19]) if entry.present else entry.utc[11:19], words[entry.verdict] + decided, error,
                         entry.start])
        chosen = self._chosen_entry()
        if rows != self._shown_rows(table):
            fill_table(table, rows)
            for row, entry in enumerate(reversed(entries)):
                paint_cell(table, row, 1, COLORS[entry.verdict])
        table.setVisible(len(rows) > 0)
        busy = _("A registration runs.") if self.running else ""
        undecided = busy or ("" if registration is not None and not self.panel.stale() else _("There is no valid registration to decide on."))
        for button in (self.ui.fgAcceptRegistrationButton, self.ui.fgRejectRegistrationButton):
            allow(button, undecided, self.tool_tip(button))
        why = busy or ("" if chosen is not None else _("Choose an earlier registration in the list."))
        allow(self.ui.fgRestoreButton, why, self.tool_tip(self.ui.fgRestoreButton))
        self.ui.fgRestoreButton.setVisible(len(rows) > 1)

    @staticmethod
    def _shown_rows(table: Any) -> list[list[str]]:
        return [[table.item(r, c).text() if table.item(r, c) is not None else "" for c in range(table.columnCount)] for r in range(table.rowCount)]

    def _chosen_entry(self) -> Any | None:
        """The entry of the selected row that is not the present one."""
        rows = sorted({item.row() for item in list(self.ui.fgHistoryTable.selectedItems())})
        entries = list(reversed(self.session.registrar.history.entries())) if self.choices is not None else []
        return entries[rows[0]] if rows and rows[0] < len(entries) and not entries[rows[0]].present else None

    def _refresh_parts(self) -> None:
        """The bones that can be chosen; the choice stays when it is still there."""
        bones = bones_of(self.choices.bones) if self.choices is not None else []
        items = [(AUTO, _("Bone at the target")), *bones, (WHOLE, _("Whole volume"))]
        keys, combo = [key for key, _name in items], self.ui.fgPartCombo
        if keys == self._parts:
            return
        before = self.part
        combo.blockSignals(True)
        combo.clear()
        for _key, name in items:
            combo.addItem(name)
        self._parts = keys
        combo.setCurrentIndex(keys.index(before) if before in keys else 0)
        combo.blockSignals(False)

    @property
    def part(self) -> str:
        """``auto``, ``whole`` or a bone's key."""
        index = self.ui.fgPartCombo.currentIndex
        return self._parts[index] if 0 <= index < len(self._parts) else AUTO

    def _missing(self) -> str:
        if self.running:
            return _("A registration runs.")
        return self.panel.missing_inputs() or self.start.missing()

    # ---- the registration ------------------------------------------------------------------------------------------------
    def _prepare_volume(self) -> None:
        """Let the engine take the volume while the user goes on planning; once per volume."""
        volume = self.choices.volume if self.choices is not None else None
        key = content_key(volume) if volume is not None and volume.GetImageData() is not None else None
        if key is None or key == self._prepared or self.running:
            return
        self._prepared = key
        with contextlib.suppress(FluoroGuideError):  # no volume to register: said when it is tried
            self.session.registrar.prepare(volume)
            self.jobs.wake()

    def _start(self) -> None:
        self._submit(Request(self.start.start, self.choices.searchAround, self.part, self.choices.bones, self.start.draft))

    def register_from_present(self) -> None:
        """Register again from the present position, without a search: the one key of the Guide section."""
        self._submit(Request("present", False, self.part, self.choices.bones))

    def _submit(self, request: Request) -> None:
        p, xrays = self.choices, self.panel.xrays()
        plan = self.session.planner.plan(p.volume, p.planLine, p.procedureName)
        offer_numba()  # asked where it is first of use; declined, the registration takes longer
        self._job, self._made = self.session.registrar.submit(p.volume, xrays, plan, request)
        self._line = p.planLine
        self.start.stop_placing()
        self.jobs.follow(self._job, self._ended, self._progressed)
        self.panel.tell("idle", _("Registering."), _("The views stay usable."))

    def cancel(self) -> None:
        """Ask for the end of the registration; pose and views stay as they were."""
        if self._job is not None:
            self.session.engine.cancel(self._job)

    def _progressed(self, job: Any) -> None:
        self.ui.fgRegisterProgress.setValue(int(100 * job.progress))
        self.ui.fgRegisterProgress.setFormat(f"{job.text} %p %".strip())

    def _ended(self, job: Any) -> None:
        if job is not self._job:
            return
        self._job, made, self._made = None, self._made, None
        self.attempt(lambda: self._end(job, made))

    def _end(self, job: Any, made: Any) -> None:
        if job.state == "cancelled":
            self.panel.tell("idle", _("Cancelled."), _("Nothing was changed."))
            return
        if job.state != "done":
            logging.error("FluoroGuide: registration failed\n%s", job.log)
            raise job.error
        if self.choices is None:
            return
        plan = self.session.planner.plan(made.volume, self._line, self.choices.procedureName)  # the needle may have been dragged meanwhile
        self.session.registrar.accept(job.result, made, plan)
        self.session.recorder.add_registration(job.result, made.xrays)
        self.start.end_drag()
        self.panel.guide.live.registered(job.result)
        self.panel.show_results()
        self.compare.show_registered()
        self.panel.tell(job.result.verdict, _("Registered."), _("It took {seconds:.0f} s.").format(seconds=job.seconds))

    def _decide(self, accepted: bool) -> None:
        self.session.registrar.decide(accepted)
        if accepted:
            self.panel.tell("pass", _("Accepted."), _("It is in the record."))
            return
        entries = self.session.registrar.history.entries()
        before = [e for e in entries if not e.present and e.accepted is not False and e.verdict != "fail"]
        if before:
            self._bring_back(before[-1])
        self.panel.tell("warn", _("Rejected."), _("The registration before it is back.") if before else _("Register again with another start."))

    def _restore(self) -> None:
        entry = self._chosen_entry()
        if entry is None:
            raise FluoroGuideError("No earlier registration is chosen", None, "Choose one in the list")
        self._bring_back(entry)
        self.panel.tell("idle", _("Back."), _("The registration of {time} is in use.").format(time=entry.utc[11:19]))

    def _bring_back(self, entry: Any) -> None:
        self.session.registrar.restore(entry.number, self.choices.volume, self.panel.xrays())
        self.session.recorder.log("registration restored", entry.verdict)
        self.panel.show_results()
        self.compare.show_registered()

    # ---- life -----------------------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """Give up a running registration: the scene it belongs to may be gone."""
        self.jobs.drop()
        self._job = self._made = self._line = self._prepared = None
        self.start.leave()
        self.compare.clear()

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.jobs.close()
