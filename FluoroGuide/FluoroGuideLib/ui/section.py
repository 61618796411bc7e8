"""What every section of the panel shares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import qt

from ..errors import FluoroGuideError
from ..scene.session import CaseSession
from ..scene.workflow import SectionState
from .style import show_status
from .text import translator

_ = translator(__name__)


class Dialogs(Protocol):
    """Asking the user; replaced in tests, because Slicer answers no to every question while it tests."""

    def open_file(self, title: str, kinds: str) -> str:
        """A file to read, or an empty text."""

    def open_folder(self, title: str) -> str:
        """A folder, or an empty text."""

    def save_file(self, title: str, name: str, kinds: str) -> str:
        """A file to write, or an empty text."""

    def open_page(self, path: str) -> None:
        """Show a page in the browser."""

    def confirm(self, question: str) -> bool:
        """Whether the user says yes."""

    def ask_text(self, title: str, question: str) -> str:
        """A line of text, or an empty one."""


class Section:
    """A section: its widgets, the session, and the user's choices.

    Parameters
    ----------
    ui
        Widgets by name (``slicer.util.childWidgetVariables``).
    session
        The case.
    panel
        The whole panel (:class:`~.panel.Panel`): choices, status line, refresh, dialogs, workflow states.
    """

    parts: tuple = ()
    """Parts that are sections of their own: shown, and their keys alive, with this one."""
    key = ""
    """Name in :data:`~FluoroGuideLib.scene.workflow.SECTIONS`."""

    def __init__(self, ui: Any, session: CaseSession, panel: Any) -> None:
        self.ui, self.session, self.panel = ui, session, panel
        self._links: list[tuple[Any, str, Callable]] = []
        self._tips: dict[str, str] = {}
        self._wanted_shortcuts: list[tuple[str, Any]] = []
        self._shortcuts: list[tuple[Any, Callable]] = []

    # ---- overridden -----------------------------------------------------------------------------------------------
    def setup(self) -> None:
        """Connect the widgets; once."""

    def enter(self) -> None:
        """The module is shown."""
        for part in self.parts:
            part.enter()

    def refresh(self) -> None:
        """Show what is so now; called after every change, must be cheap and change nothing in the scene."""

    def leave(self) -> None:
        """The module is left, or its scene is being closed: stop timers and placing."""

    # ---- shared -----------------------------------------------------------------------------------------------------
    @property
    def choices(self) -> Any:
        """The parameter node, or None while the module has none."""
        return self.panel.choices

    @property
    def state(self) -> SectionState:
        """What the workflow says of this section."""
        return self.panel.states[self.key]

    def on(self, widget: Any, signal: str, slot: Callable) -> None:
        """Connect, and remember it for :meth:`close`."""
        widget.connect(signal, slot)
        self._links.append((widget, signal, slot))

    def button(self, widget: Any, action: Callable[[], None], keys: str = "") -> None:
        """A push button that runs an action and tells its error in one sentence.

        ``keys``: keyboard shortcut (``"Ctrl+Shift+R"``), told in the tool tip, alive while the module is shown.
        """
        self.tip(widget, keys)
        self.on(widget, "clicked()", lambda: self.attempt(action))

    def tip(self, widget: Any, keys: str = "") -> None:
        """Remember the .ui file's tool tip of a widget that :meth:`tool_tip` and ``style.allow`` use; with a shortcut it clicks the widget."""
        self._tips[widget.name] = f"{widget.toolTip} ({keys})" if keys else widget.toolTip
        widget.setToolTip(self._tips[widget.name])
        if keys:
            self._wanted_shortcuts.append((keys, widget))

    def tool_tip(self, widget: Any) -> str:
        """The tool tip that the .ui file gives a widget, with its shortcut."""
        return self._tips[widget.name]

    def attempt(self, action: Callable[[], None]) -> bool:
        """Run an action; an error goes to the status line.  True when it went well."""
        try:
            action()
        except FluoroGuideError as error:
            self.panel.tell("fail", _("Not done."), error.message)
            return False
        except Exception as error:
            logging.exception("FluoroGuide: unexpected error")
            self.panel.tell("fail", _("Unexpected error."), _("{kind}; the application log has the details.").format(kind=type(error).__name__))
            return False
        finally:
            self.panel.refresh()
        return True

    def show_status(self) -> None:
        """The section's status line, from the workflow."""
        show_status(getattr(self.ui, f"fg{self.key.capitalize()}Status"), self.state.kind, self.state.text)

    # ---- keyboard ---------------------------------------------------------------------------------------------------
    def add_shortcuts(self, window: Any | None) -> None:
        """Keyboard shortcuts in the main window (None: there is none)."""
        self.remove_shortcuts()
        for keys, widget in self._wanted_shortcuts if window is not None else ():
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(keys))
            slot = _clicker(widget)
            shortcut.connect("activated()", slot)
            self._shortcuts.append((shortcut, slot))
        for part in self.parts:
            part.add_shortcuts(window)

    def remove_shortcuts(self) -> None:
        """Give the keys back."""
        while self._shortcuts:
            shortcut, slot = self._shortcuts.pop()
            shortcut.disconnect("activated()", slot)
            shortcut.setParent(None)
        for part in self.parts:
            part.remove_shortcuts()

    def close(self) -> None:
        """Undo every connection."""
        self.leave()
        self.remove_shortcuts()
        while self._links:
            widget, signal, slot = self._links.pop()
            widget.disconnect(signal, slot)


def _clicker(widget: Any) -> Callable[[], None]:
    """Clicks as the mouse does; nothing happens while the widget is disabled."""
    return lambda: widget.click()
