"""Patient and plan, before the start: identity, checklist, lock."""

from __future__ import annotations

import qt

from .section import Section
from .style import allow, show_text, show_ticks
from .text import translator

_ = translator(__name__)


class ChecksPart(Section):
    """What must be right before the plan is locked and the procedure starts."""

    key = "plan"

    def setup(self) -> None:
        """Buttons and checklist."""
        ui = self.ui
        self.button(ui.fgConfirmButton, self._confirm)
        self.button(ui.fgLockButton, self._lock)
        self.button(ui.fgUnlockButton, self._unlock)
        self._items: tuple | None = None
        show_ticks(ui.fgChecklist)
        self.on(ui.fgChecklist, "itemChanged(QListWidgetItem*)", self._ticked)

    def _confirm(self) -> None:
        reason = self.panel.dialogs.ask_text(_("Confirm a mismatch"), _("Why do these objects belong together? The reason is recorded."))
        if reason:
            self.session.identity.confirm(self.choices, reason)
            self.session.recorder.set_identity(self.session.identity.check(self.choices))
            self.panel.tell("warn", _("Confirmed."), _("The reason is recorded."))

    def _lock(self) -> None:
        self.panel.plan.needles._store()
        self.session.planner.start_procedure()
        check = self.session.identity.check(self.choices)
        if check is not None:
            self.session.recorder.set_identity(check)
        self.session.recorder.log("plan locked")
        self.panel.tell("pass", _("Locked."), _("The plan is fixed; it can be opened again with a reason."))

    def _unlock(self) -> None:
        reason = self.panel.dialogs.ask_text(_("Unlock the plan"), _("Why must the plan change? The reason goes into its history."))
        if reason:
            self.session.planner.unlock(reason)
            self.panel.tell("warn", _("Unlocked."), _("The plan may be changed again."))

    def _ticked(self, item: object) -> None:
        ticked = [self.ui.fgChecklist.item(n).text() for n in range(self.ui.fgChecklist.count) if _checked(self.ui.fgChecklist.item(n))]
        if self.choices is not None:
            self.session.planner.tick(ticked)
            self.session.recorder.sync_checklist(ticked, self.choices.procedureName)
        self.panel.refresh_later()

    def refresh(self) -> None:
        """Identity, checklist and buttons of now."""
        ui, p, planner = self.ui, self.choices, self.session.planner
        check = self.session.identity.check(p)
        blocking = check.blocking if check is not None else ()
        told = _sentences(check) if check is not None else []
        told += [_("Confirmed: {reason}").format(reason=c.reason) for c in (check.confirmations if check is not None else ())]
        fits = _("Volume, plan and X-rays fit together, as far as they tell.") if check is not None else ""
        show_text(ui.fgIdentityResult, " ".join(told) or fits)
        allow(ui.fgConfirmButton, "" if blocking else _("Nothing has to be confirmed."), self.tool_tip(ui.fgConfirmButton))
        self._show_checklist(planner.procedure(p.procedureName) if p is not None else None)
        open_items = ui.fgChecklist.count - len(planner.ticked()) if p is not None else 0
        missing = self.state.missing or (_("The plan is locked already.") if planner.locked else "")
        if not missing and open_items > 0:
            missing = _("{count} items of the checklist are open.").format(count=open_items)
        allow(ui.fgLockButton, missing, self.tool_tip(ui.fgLockButton))
        allow(ui.fgUnlockButton, "" if p is not None and planner.locked else _("The plan is not locked."), self.tool_tip(ui.fgUnlockButton))

    def _show_checklist(self, procedure: object) -> None:
        box, items = self.ui.fgChecklist, list(procedure.data["checklist"]) if procedure is not None else []
        ticked = self.session.planner.ticked() if self.choices is not None else []
        state = (tuple(items), tuple(ticked))
        if state == self._items:
            _fit(box)  # texts wrap once the panel has its width
            return
        self._items = state
        blocked = box.blockSignals(True)
        box.clear()
        for text in items:
            box.addItem(text)
            item = box.item(box.count - 1)
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
            item.setCheckState(qt.Qt.Checked if text in ticked else qt.Qt.Unchecked)
        box.setWordWrap(True)
        _fit(box)
        box.setVisible(bool(items))
        box.blockSignals(blocked)


def _fit(box: object) -> None:
    """As high as its texts."""
    height = sum(box.sizeHintForRow(n) for n in range(box.count)) + 8
    if height != box.maximumHeight:
        box.setFixedHeight(height)


def _checked(item: object) -> bool:
    return item.checkState() == qt.Qt.Checked


def _sentences(check: object) -> list[str]:
    """What is not right, one sentence each; what cannot be compared at all in one sentence for all of it."""
    silent = [f.item for f in check.findings if f.level == "warn" and "could not be compared" in f.sentence]
    told = [f.sentence for f in check.findings if f.level != "ok" and f.item not in silent]
    if silent:
        told.append(_("Not told by all of volume and X-rays, so not compared: {items}.").format(items=", ".join(silent)))
    return told
