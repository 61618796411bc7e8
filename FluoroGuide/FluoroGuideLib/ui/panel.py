"""The whole panel: its sections, the status line, and what they ask each other."""

from __future__ import annotations

from typing import Any

import qt

from .. import RESEARCH_NOTICE
from ..scene import workflow
from ..scene.nodes import looking
from ..scene.session import CaseSession
from .guide_section import GuideSection
from .mode import SectionMode
from .plan_section import PlanSection
from .record_section import RecordSection
from .register_section import RegisterSection
from .section import Dialogs
from .style import show_banner, show_text
from .text import translator
from .xray_section import XraySection

_ = translator(__name__)
REFRESH_MS = 40


class QtDialogs:
    """Qt's own dialogs."""

    def __init__(self, parent: Any) -> None:
        self._parent = parent

    def open_file(self, title: str, kinds: str) -> str:
        """A file to read, or an empty text."""
        return str(qt.QFileDialog.getOpenFileName(self._parent, title, "", kinds) or "")

    def open_folder(self, title: str) -> str:
        """A folder, or an empty text."""
        return str(qt.QFileDialog.getExistingDirectory(self._parent, title) or "")

    def save_file(self, title: str, name: str, kinds: str) -> str:
        """A file to write, or an empty text."""
        return str(qt.QFileDialog.getSaveFileName(self._parent, title, name, kinds) or "")

    def open_page(self, path: str) -> None:
        """Show a page in the browser."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path))

    def confirm(self, question: str) -> bool:
        """Whether the user says yes."""
        return qt.QMessageBox.question(self._parent, "FluoroGuide", question) == qt.QMessageBox.Yes

    def ask_text(self, title: str, question: str) -> str:
        """A line of text, or an empty one when the user gives none or cancels."""
        return str(qt.QInputDialog.getText(self._parent, title, question) or "")


class Panel:
    """Controller of the module's widget.

    Parameters
    ----------
    ui
        Widgets by name.
    session
        The case.
    dialogs
        Asks for files and confirmations.
    window
        Slicer's main window for keyboard shortcuts, or None.
    """

    def __init__(self, ui: Any, session: CaseSession, dialogs: Dialogs, window: Any | None = None) -> None:
        self.ui, self.session, self.dialogs, self.window = ui, session, dialogs, window
        self.choices: Any | None = None
        self.plan, self.xrays_section = PlanSection(ui, session, self), XraySection(ui, session, self)
        self.register, self.guide, self.record = RegisterSection(ui, session, self), GuideSection(ui, session, self), RecordSection(ui, session, self)
        self.mode = SectionMode(ui)
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

    def enter(self) -> None:
        """The module is shown."""
        for section in self.sections:
            section.enter()
            section.add_shortcuts(self.window)
        self.show_xrays()

    def leave(self) -> None:
        """The module is left: stop timers, placing and watching; the views and keys are free again."""
        self._stop()
        for section in self.sections:
            section.remove_shortcuts()

    def _stop(self) -> None:
        self._timer.stop()
        for section in self.sections:
            section.leave()
        self.session.xrays.release()
        self._message = ("idle", "", "")

    def scene_closes(self) -> None:
        """Forget everything that belongs to the scene."""
        self._stop()
        self.choices = None
        self.session.forget()

    def close(self) -> None:
        """Undo every connection; the panel is not used again."""
        self.scene_closes()
        self.mode.close()
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
        return self.choices is not None and self.session.registrar.stale(self.choices.volume, self.xrays())

    @property
    def states(self) -> dict[str, workflow.SectionState]:
        """Every section's state, computed at the last :meth:`refresh`."""
        return self._states

    def missing_plan(self) -> str:
        """What the plan lacks, as a sentence; empty when it is complete."""
        return self._states["plan"].missing

    def missing_inputs(self) -> str:
        """What a registration lacks, as a sentence; empty when it may run."""
        return self._states["plan"].missing or self._states["xray"].missing

    # ---- showing --------------------------------------------------------------------------------------------------
    def tell(self, kind: str, word: str, text: str) -> None:
        """Say something in the status line until the next message; an empty message shows what is missing."""
        text = text.strip()
        self._message = (kind, word, f"{text}." if text and text[-1] not in ".:!?" else text or (word and " "))
        self._show_status()

    def _show_status(self) -> None:
        kind, word, text = self._message
        if not text:
            name = workflow.next_section(self._states)
            state = self._states[name]
            kind, word, text = state.kind if state.invalid else "idle", _("Next:") if not state.done else _("Ready."), state.text
        show_banner(self.ui.fgStatus, kind, word, text)

    def show_xrays(self) -> None:
        """X-rays upright in their views, held there."""
        self.session.xrays.show([self.xray(0), self.xray(1)])

    def show_results(self) -> None:
        """Overlays on the X-rays of now."""
        self.session.guidance.update_overlays([self.xray(0), self.xray(1)], stale=self.stale())

    def refresh_later(self) -> None:
        """Refresh once, soon: for events that come in crowds."""
        if not self._timer.isActive():
            self._timer.start()

    def refresh(self) -> None:
        """Bring every section up to date."""
        with looking(self.session.host):
            self._states = workflow.states(workflow.gather(self.session, self.choices, self.register.running))
            for section in self.sections:
                section.refresh()
                section.show_status()
        self._show_status()
