"""Patient and plan, the needles: placing, the list, suggested entries, undo."""

from __future__ import annotations

from typing import Any

import qt

from ..errors import FluoroGuideError
from ..scene.needle_list import PALETTE
from ..scene.nodes import find, remove
from ..scene.planning_nodes import build_suggestions
from ..scene.rehearsal import build_clearances
from .background import Background
from .needle_size import NeedleSize
from .section import Section
from .style import allow, fill_table, prepare_table, show_text
from .text import translator
from .watch import Watch

_ = translator(__name__)
STORE_MS = 120
HASH_MS = 40


class NeedlePart(Section):
    """Keeps the plan in the scene up to date with what the user places and edits."""

    key = "plan"

    # ---- life -------------------------------------------------------------------------------------------------------
    def setup(self) -> None:
        """Buttons, tables, timers and the work in the background."""
        ui = self.ui
        self._line = Watch(self._line_event, "PointModifiedEvent", "PointPositionDefinedEvent", "PointRemovedEvent")
        self._drag = Watch(self.store_later, "PointEndInteractionEvent", "PointPositionDefinedEvent", "PointRemovedEvent")
        self._targets = Watch(self.store_later, "PointEndInteractionEvent", "PointPositionDefinedEvent", "PointRemovedEvent")
        self._store_timer, self._hash_timer = qt.QTimer(), qt.QTimer()
        self._store_timer.setSingleShot(True)
        self._store_timer.setInterval(STORE_MS)
        self._hash_timer.setInterval(HASH_MS)
        self.on(self._store_timer, "timeout()", lambda: self.attempt(self._store))
        self.on(self._hash_timer, "timeout()", self._hash)
        self.checking = Background(self.session, self.attempt, self.panel.refresh_later)
        self.suggesting = Background(self.session, self.attempt, self.panel.refresh_later)
        self.checked: dict[str, dict] = {}
        self.warnings: list[str] = []
        self.starts: list[Any] = []
        self._asked: tuple | None = None
        self._seen: tuple | None = None
        self._candidates: list[Any] = []
        self.button(ui.fgNewNeedleButton, self._new_needle, "Ctrl+Shift+N")
        self.button(ui.fgNewTargetButton, self._new_target, "Ctrl+Shift+G")
        self.button(ui.fgSuggestButton, self._suggest)
        self.button(ui.fgNeedleUpButton, lambda: self._move(-1))
        self.button(ui.fgNeedleDownButton, lambda: self._move(1))
        self.button(ui.fgNeedleCopyButton, self._copy)
        self.button(ui.fgNeedleColorButton, self._color)
        self.button(ui.fgNeedleHoldButton, self._hold)
        self.button(ui.fgNeedleDeleteButton, self._delete)
        self.button(ui.fgPlanUndoButton, self._undo, "Ctrl+Shift+Z")
        self.button(ui.fgSuggestionUseButton, self._use)
        self.button(ui.fgSuggestionDropButton, self._drop)
        self.size = NeedleSize(self)
        for table in (ui.fgNeedleTable, ui.fgSuggestionTable):
            prepare_table(table)
        self.on(ui.fgNeedleTable, "currentCellChanged(int,int,int,int)", self._row_chosen)
        self.on(ui.fgNeedleTable, "cellChanged(int,int)", self._cell_edited)
        self.on(ui.fgSuggestionTable, "currentCellChanged(int,int,int,int)", lambda row: self._show_reasons(row))

    def leave(self) -> None:
        """Let go of the lines, stop placing, timers and jobs."""
        for watch in (self._line, self._drag, self._targets):
            watch.set(None)
        self._store_timer.stop()
        self._hash_timer.stop()
        self.checking.stop()
        self.suggesting.stop()
        self._candidates, self.checked, self.warnings, self.starts, self._asked, self._seen = [], {}, [], [], None, None
        for place in (self.ui.fgLinePlace, self.ui.fgTargetPlace):
            place.setPlaceModeEnabled(False)
            place.setCurrentNode(None)

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.checking.close()
        self.suggesting.close()

    # ---- keeping the plan ---------------------------------------------------------------------------------------------
    def store_later(self) -> None:
        """Bring the plan in the scene up to date soon."""
        if self.choices is not None:
            self._store_timer.start()

    def _line_event(self) -> None:
        self.panel.refresh_later()

    def _store(self) -> None:
        if self.choices is None:
            return
        for node in (self.choices.planLine, find(self.session.host, "targets")):
            if node is not None and not self.session.planner.locked:
                self.session.planner.refuse_points_on_xrays(node, self.panel.xrays())
        extra = self.session.identity.plan_extra(self.choices.volume) if self.choices.volume is not None else {}
        plan = self.session.planner.store(self.choices, **extra)
        if plan is not None:
            self._check(plan)
            if self.session.identity.stamp(self.choices.volume) is None:
                self._hash_timer.start()

    def _hash(self) -> None:
        if self.choices is None or self.session.identity.step(self.choices.volume):
            self._hash_timer.stop()
            self.attempt(self._store)

    def _question(self, plan: Any) -> dict | None:
        """Arguments of the planning tasks for the plan; None while the procedure or the patient's position is open."""
        p, planner = self.choices, self.session.planner
        procedure = planner.procedure(p.procedureName) or planner.procedure("free")
        wanted = {s["name"] for s in procedure.data["safety_structures"]}
        labels = self.session.structures.labels(p.structures, p.volume, wanted)
        side = p.laterality if p.laterality in ("left", "right") else None
        arguments = {
            "volume": self.session.registrar.handle(p.volume), "procedure": dict(procedure.data), "side": side, "carm": p.carm,
            "patient_position": p.patientPosition or procedure.patient_position or "HFS",
        }
        return arguments if labels is None else {**arguments, "labels": labels}

    def _check(self, plan: Any) -> None:
        """Have the needles checked in the background, once per state of plan and choices."""
        p = self.choices
        asked = (p.volume.GetID(), p.carm, p.patientPosition, p.laterality, p.procedureName, p.structures.GetMTime() if p.structures else 0,
                 tuple((t.name, *t.entry_lps_mm, *t.target_lps_mm) for t in plan.trajectories))
        if asked == self._asked or not plan.trajectories:
            return
        arguments = self._question(plan)
        self._asked = asked
        job = self.session.engine.run("plan_check", trajectories=list(plan.trajectories), **arguments)
        self.checking.start(job, lambda result: self._take_check(plan, result))

    def _take_check(self, plan: Any, result: dict) -> None:
        self.checked, self.warnings, self.starts = result["paths"], list(result["warnings"]), list(result["starts"])
        paths = {t.name: (t, self.checked[t.name]["profile"]) for t in plan.trajectories if t.name in self.checked}
        build_clearances(self.session.host, paths)

    # ---- placing ------------------------------------------------------------------------------------------------------
    def _place(self, place: Any, node: Any, word: str, text: str) -> None:
        for other in (self.ui.fgLinePlace, self.ui.fgTargetPlace):
            other.setPlaceModeEnabled(False)
        place.setCurrentNode(node)
        place.setPlaceModeEnabled(True)
        self.panel.tell("idle", word, text)

    def _new_needle(self) -> None:
        node = self.session.needles.new()
        self.choices.planLine = node
        self._place(self.ui.fgLinePlace, node, _("Place the needle."), _("Click its entry at the skin, then its target."))

    def _new_target(self) -> None:
        if self.session.planner.locked:
            raise FluoroGuideError("The plan is locked because its procedure has started", None, "Unlock it with a reason first")
        node = self.session.planner.target_node()
        self._targets.set(node)
        self._place(self.ui.fgTargetPlace, node, _("Place the target."), _("Click it in a slice or 3-D view of the volume."))

    # ---- the list -------------------------------------------------------------------------------------------------------
    def chosen(self) -> Any:
        """The chosen needle's line when it is in the list, else None."""
        line = self.choices.planLine if self.choices is not None else None
        return line if line is not None and line in [row.node for row in self.session.needles.rows()] else None

    def must_choose(self) -> Any:
        """The chosen needle; the list may have changed since its button was drawn."""
        node = self.chosen()
        if node is None:
            raise FluoroGuideError("No needle of the list is chosen", None, "Choose one")
        return node

    def _row_chosen(self, row: int) -> None:
        rows = self.session.needles.rows()
        if self.choices is not None and 0 <= row < len(rows) and self.choices.planLine is not rows[row].node:
            self.choices.planLine = rows[row].node

    def _cell_edited(self, row: int, column: int) -> None:
        rows, item = self.session.needles.rows(), self.ui.fgNeedleTable.item(row, 0)
        if column or item is None or not 0 <= row < len(rows) or item.text() == rows[row].name:
            return
        self.attempt(lambda: self.edited(self.session.needles.rename, rows[row].node, item.text()))

    def edited(self, action: Any, *arguments: Any) -> Any:
        """Do something to the list, and keep the plan of it."""
        result = action(*arguments)
        self._store()
        return result

    def _move(self, step: int) -> None:
        self.edited(self.session.needles.move, self.must_choose(), step)

    def _copy(self) -> None:
        self.choices.planLine = self.session.needles.copy(self.must_choose())
        self._store()

    def _color(self) -> None:
        node = self.must_choose()
        row = next(r for r in self.session.needles.rows() if r.node is node)
        near = min(range(len(PALETTE)), key=lambda n: sum((a - b) ** 2 for a, b in zip(PALETTE[n], row.color, strict=True)))
        self.session.needles.color(row.node, PALETTE[(near + 1) % len(PALETTE)])

    def _hold(self) -> None:
        node = self.must_choose()
        self.session.needles.hold(node, not node.GetLocked())

    def _delete(self) -> None:
        rows = [r.node for r in self.session.needles.rows()]
        here = rows.index(self.must_choose())
        rest = rows[:here] + rows[here + 1:]
        self.session.needles.delete(rows[here])
        self.choices.planLine = rest[min(here, len(rest) - 1)] if rest else None
        self._store()

    def _undo(self) -> None:
        self.session.planner.undo()
        rows = [r.node for r in self.session.needles.rows()]
        if rows and self.choices.planLine not in rows:
            self.choices.planLine = rows[-1]
        self._asked = None
        plan = self.session.planner.current
        if plan is not None:
            self._check(plan)

    # ---- suggestions ----------------------------------------------------------------------------------------------------
    def _suggestion_target(self) -> Any | None:
        """Where suggested entries shall lead: the chosen needle's target, else the last target; None without either."""
        p, planner = self.choices, self.session.planner
        if p is None or p.volume is None:
            return None
        if p.planLine is not None and p.planLine.GetNumberOfDefinedControlPoints() == 2:
            return planner.line_path(p.volume, p.planLine).target_lps_mm
        points = list(planner.target_node_points(p.volume).values())
        return points[-1] if points else None

    def _missing_suggest(self) -> str:
        p = self.choices
        if p is None:
            return _("The module is not ready yet.")
        if p.volume is None:
            return _("Choose the patient's CT volume.")
        if self.session.planner.locked:
            return _("The plan is locked because its procedure has started.")
        if self.session.planner.procedure(p.procedureName) is None:
            return _("Choose a procedure from the library: it says where needles usually come from.")
        if self._suggestion_target() is None:
            return _("Place a target or a needle first.")
        return _("Entries are being sought.") if self.suggesting.running else ""

    def _suggest(self) -> None:
        missing = self._missing_suggest()
        if missing:
            raise FluoroGuideError(missing.rstrip("."), None)
        arguments = self._question(self.session.planner.current)
        job = self.session.engine.run("plan_suggest", target_lps_mm=self._suggestion_target(), **arguments)
        self.panel.tell("idle", _("Seeking entries."), _("The views stay usable."))
        self.suggesting.start(job, self._take_suggestions)

    def _take_suggestions(self, result: dict) -> None:
        self._candidates = list(result["candidates"])
        build_suggestions(self.session.host, self._candidates, find(self.session.host, "pose"))
        told = _("{count} entries, best first. Check each yourself.").format(count=len(self._candidates))
        self.panel.tell("idle", _("Suggested."), " ".join([told, *result["warnings"]]))
        self.ui.fgSuggestionTable.setCurrentCell(0, 0)
        self._show_reasons(0)

    def _show_reasons(self, row: int) -> None:
        show_text(self.ui.fgSuggestionReasons, " ".join(self._candidates[row].reasons) if 0 <= row < len(self._candidates) else "")

    def _use(self) -> None:
        row = max(self.ui.fgSuggestionTable.currentRow(), 0)
        if row >= len(self._candidates):
            raise FluoroGuideError("There are no suggestions", None, "Suggest entries first")
        path = self._candidates[row].trajectory
        line = self.choices.planLine
        from ..geometry.frames import ras_from_lps

        pose = find(self.session.host, "pose")
        if line is not None and line.GetNumberOfDefinedControlPoints() == 2 and self.chosen() is not None and self._ends_at(path):
            line.SetNthControlPointPosition(0, *ras_from_lps(path.entry_lps_mm))  # the needle that was asked about gets the better entry
        else:
            self.choices.planLine = self.session.needles.line("Needle", ras_from_lps(path.entry_lps_mm), ras_from_lps(path.target_lps_mm), pose)
        self._drop()
        self._store()

    def _ends_at(self, path: Any) -> bool:
        import numpy as np

        chosen = self.session.planner.line_path(self.choices.volume, self.choices.planLine)
        return bool(np.allclose(chosen.target_lps_mm, path.target_lps_mm, atol=1e-3))

    def _drop(self) -> None:
        self._candidates = []
        remove(self.session.host, "suggestion")

    # ---- showing --------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Buttons, list, numbers and suggestions."""
        ui, p = self.ui, self.choices
        line = p.planLine if p is not None else None
        self._store_when_changed()
        self._line.set(line)
        self._drag.set(line)
        self._targets.set(find(self.session.host, "targets") if p is not None else None)
        if not ui.fgLinePlace.placeModeEnabled:
            ui.fgLinePlace.setCurrentNode(line)
        not_ready = _("The module is not ready yet.") if p is None else _("Choose the patient's CT volume.") if p.volume is None else ""
        locked = _("The plan is locked because its procedure has started.") if self.session.planner.locked else ""
        for button in (ui.fgNewNeedleButton, ui.fgNewTargetButton):
            allow(button, not_ready or locked, self.tool_tip(button))
        allow(ui.fgSuggestButton, self._missing_suggest(), self.tool_tip(ui.fgSuggestButton))
        none = "" if self.chosen() is not None else _("Choose a needle of the list.")
        no_row = not_ready or locked or none
        for button in (ui.fgNeedleUpButton, ui.fgNeedleDownButton, ui.fgNeedleCopyButton, ui.fgNeedleHoldButton, ui.fgNeedleDeleteButton):
            allow(button, no_row, self.tool_tip(button))
        allow(ui.fgNeedleColorButton, not_ready or none, self.tool_tip(ui.fgNeedleColorButton))
        undo = "" if self.session.planner.can_undo else _("There is no change of the plan to undo.")
        allow(ui.fgPlanUndoButton, not_ready or locked or undo, self.tool_tip(ui.fgPlanUndoButton))
        self._show_needles()
        self.size.refresh(no_row)
        show_text(ui.fgPlanResult, self._summary())
        ui.fgSuggestionPart.setVisible(bool(self._candidates))
        if self._candidates or ui.fgSuggestionTable.rowCount:
            rows = [[c.trajectory.name, f"{c.score:.2f}", f"{c.trajectory.length_mm:.0f} mm", self._nearest(c.safety)] for c in self._candidates]
            fill_table(ui.fgSuggestionTable, rows)
        for button in (ui.fgSuggestionUseButton, ui.fgSuggestionDropButton):
            allow(button, "" if self._candidates else _("There are no suggestions."), self.tool_tip(button))

    def _store_when_changed(self) -> None:
        """Have the plan stored when a choice that belongs to it was changed, by whomever."""
        p = self.choices
        nodes = () if p is None else (p.volume, p.planLine, p.structures)
        seen = None if p is None else (*(n.GetID() if n is not None else "" for n in nodes), p.procedureName, p.laterality, p.level.strip(), p.carm,
                                       p.patientPosition)
        if seen != self._seen:
            self._seen = seen
            if p is not None and p.volume is not None:
                self.store_later()

    def _show_needles(self) -> None:
        ui, rows = self.ui, self.session.needles.rows()
        table = ui.fgNeedleTable
        blocked = table.blockSignals(True)
        fill_table(table, [[r.name, f"{r.length_mm:.1f} mm", self._clearance(r.name)] for r in rows])
        for n, row in enumerate(rows):
            item = table.item(n, 0)
            picture = qt.QPixmap(12, 12)
            picture.fill(qt.QColor(*(round(255 * c) for c in row.color)))
            item.setIcon(qt.QIcon(picture))
            item.setToolTip(_("Locked: it cannot be dragged.") if row.held else _("Double-click to rename."))
            for column in (1, 2):
                table.item(n, column).setFlags(table.item(n, column).flags() & ~qt.Qt.ItemIsEditable)
        chosen = [n for n, row in enumerate(rows) if self.choices is not None and row.node is self.choices.planLine]
        table.setCurrentCell(chosen[0] if chosen else -1, 0)
        table.blockSignals(blocked)

    def _clearance(self, name: str) -> str:
        found = self.checked.get(name)
        if found is None:
            return "..." if self.checking.running else ""
        if found["error"]:
            return _("see below")
        return self._nearest(found["safety"])

    @staticmethod
    def _nearest(report: Any) -> str:
        """Distance of the nearest structure; never a number where none was checked."""
        return f"{report.clearances[0].distance_mm:.1f} mm" if report.clearances else _("not checked")

    def _summary(self) -> str:
        p = self.choices
        if p is None or p.volume is None or p.planLine is None or p.planLine.GetNumberOfDefinedControlPoints() < 2:
            return ""
        try:
            item = self.session.planner.line_path(p.volume, p.planLine)
        except FluoroGuideError as error:
            return error.message
        text = [_("{length:.1f} mm long, {axial:.0f}° to the axial and {sagittal:.0f}° to the sagittal plane.").format(
            length=item.length_mm, axial=abs(item.angle_to_axial_deg), sagittal=abs(item.angle_to_sagittal_deg))]
        found = self.checked.get(item.name)
        if found is not None:
            report = found["safety"]
            text += [found["error"]] if report is None else [*report.problems, *report.warnings, *report.notes]
            text += self.warnings
        elif self.checking.running:
            text.append(_("The needle is being checked."))
        return " ".join(t for t in text if t)
