"""The whole panel: its sections, the status line, and what they ask each other."""

from __future__ import annotations

from typing import Any

import qt

from .. import RESEARCH_NOTICE
from .guide_section import GuideSection
from .plan_section import PlanSection
from .record_section import RecordSection
from .register_section import RegisterSection
from .section import Dialogs
from .session import CaseSession
from .style import show_banner, show_text
from .text import translator
from .xray_section import XraySection

_ = translator(__name__)
REFRESH_MS = 40


class FileDialogs:
    """Qt's file dialogs."""

    def __init__(self, parent: Any) -> None:
        self._parent = parent

    def open_file(self, title: str, kinds: str) -> str:
        """A file to read, or an empty text."""
        return str(qt.QFileDialog.getOpenFileName(self._parent, title, "", kinds) or "")

    def save_file(self, title: str, name: str, kinds: str) -> str:
        """A file to write, or an empty text."""
        return str(qt.QFileDialog.getSaveFileName(self._parent, title, name, kinds) or "")


class Panel:
    """Controller of the module's widget.

    Parameters
    ----------
    ui
        Widgets by name.
    session
        The case.
    dialogs
        Asks for files.
    """

    def __init__(self, ui: Any, session: CaseSession, dialogs: Dialogs) -> None:
        self.ui, self.session, self.dialogs = ui, session, dialogs
        self.choices: Any | None = None
        self.plan, self.xrays_section = PlanSection(ui, session, self), XraySection(ui, session, self)
        self.register, self.guide, self.record = RegisterSection(ui, session, self), GuideSection(ui, session, self), RecordSection(ui, session, self)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFRESH_MS)
        self._timer.connect("timeout()", self.refresh)
        self._message = ("idle", "", "")
        for section in self.sections:
            section.setup()
        show_text(ui.fgNotice, RESEARCH_NOTICE)
        self.refresh()

    @property
    def sections(self) -> tuple:
        """All sections, from top to bottom."""
        return self.plan, self.xrays_section, self.register, self.guide, self.record

    # ---- life -----------------------------------------------------------------------------------------------------
    def set_choices(self, parameter_node: Any | None) -> None:
        """Use another parameter node; None while the scene is closed or the module hidden."""
        self.choices = parameter_node
        self.refresh()

    def leave(self) -> None:
        """The module is left: stop timers, placing and watching; the views are free again."""
        self._timer.stop()
        for section in self.sections:
            section.leave()
        self.session.release_views()
        self._message = ("idle", "", "")

    def scene_closes(self) -> None:
        """Forget everything that belongs to the scene."""
        self.leave()
        self.choices = None
        self.session.forget()

    def close(self) -> None:
        """Undo every connection; the panel is not used again."""
        self.scene_closes()
        for section in self.sections:
            section.close()
        self._timer.disconnect("timeout()", self.refresh)

    # ---- what the sections ask ----------------------------------------------------------------------------------------
    def xray(self, index: int) -> Any | None:
        """The node chosen for slot 0 (A) or 1 (B)."""
        return None if self.choices is None else (self.choices.xrayA, self.choices.xrayB)[index]

    def xrays(self) -> list[Any]:
        """The chosen X-rays, A first."""
        return [node for node in (self.xray(0), self.xray(1)) if node is not None]

    def stale(self) -> bool:
        """Whether the registration belongs to other images than those chosen."""
        return self.choices is not None and self.session.stale(self.choices.volume, self.xrays())

    def missing_plan(self) -> str:
        """What the plan lacks, as a sentence; empty when it is complete."""
        p = self.choices
        if p is None:
            return _("The module is not ready yet.")
        if p.volume is None:
            return _("Choose the patient's CT volume.")
        if p.planLine is None or p.planLine.GetNumberOfDefinedControlPoints() < 2:
            return _("Place the planned needle: its entry, then its target.")
        return ""

    def missing_inputs(self) -> str:
        """What a registration lacks, as a sentence; empty when it may run."""
        missing = self.missing_plan()
        if missing:
            return missing
        first, second = self.xray(0), self.xray(1)
        if first is None:
            return _("Load X-ray A.")
        if first is second:
            return _("X-ray A and B are the same image: choose two.")
        for side, node in (("A", first), ("B", second)):
            if node is not None and not self.session.has_geometry(node):
                return _("X-ray {side} has no C-arm geometry: load its file with the Load button.").format(side=side)
        if self.choices.volume in (first, second):
            return _("The volume and an X-ray are the same node: choose others.")
        return ""

    # ---- showing --------------------------------------------------------------------------------------------------
    def tell(self, kind: str, word: str, text: str) -> None:
        """Say something in the status line until the next message; an empty message shows what is missing."""
        self._message = (kind, word, text or (word and " "))
        self._show_status()

    def _show_status(self) -> None:
        kind, word, text = self._message
        if not text:
            missing = self.missing_inputs()
            kind, word, text = ("idle", _("Next:"), missing) if missing else ("idle", _("Ready."), self.next_step())
        show_banner(self.ui.fgStatus, kind, word, text)

    def next_step(self) -> str:
        """What the user would do next when nothing is missing."""
        if self.session.registration is None or self.stale():
            return _("Register the volume to the X-rays.")
        return self.guide.missing() or _("Record the placement.")

    def show_xrays(self) -> None:
        """X-rays upright in their views, held there."""
        self.session.show_xrays([self.xray(0), self.xray(1)])

    def show_results(self) -> None:
        """Overlays on the X-rays of now."""
        self.session.update_overlays([self.xray(0), self.xray(1)], stale=self.stale())

    def refresh_later(self) -> None:
        """Refresh once, soon: for events that come in crowds."""
        if not self._timer.isActive():
            self._timer.start()

    def refresh(self) -> None:
        """Bring every section up to date."""
        for section in self.sections:
            section.refresh()
        self._show_status()
