"""What every section of the panel shares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import FluoroGuideError
from .session import CaseSession
from .text import translator

_ = translator(__name__)


class Dialogs(Protocol):
    """Asking the user for files; replaced in tests."""

    def open_file(self, title: str, kinds: str) -> str:
        """A file to read, or an empty text."""

    def save_file(self, title: str, name: str, kinds: str) -> str:
        """A file to write, or an empty text."""


class Section:
    """A section: its widgets, the session, and the user's choices.

    Parameters
    ----------
    ui
        Widgets by name (``slicer.util.childWidgetVariables``).
    session
        The case.
    panel
        The whole panel (:class:`~.panel.Panel`): choices, status line, refresh, dialogs.
    """

    def __init__(self, ui: Any, session: CaseSession, panel: Any) -> None:
        self.ui, self.session, self.panel = ui, session, panel
        self._links: list[tuple[Any, str, Callable]] = []
        self._tips: dict[str, str] = {}

    # ---- overridden -----------------------------------------------------------------------------------------------
    def setup(self) -> None:
        """Connect the widgets; once."""

    def refresh(self) -> None:
        """Show what is so now; called after every change, must be cheap and change nothing in the scene."""

    def leave(self) -> None:
        """The module is left, or its scene is being closed: stop timers and placing."""

    # ---- shared -----------------------------------------------------------------------------------------------------
    @property
    def choices(self) -> Any:
        """The parameter node, or None while the module has none."""
        return self.panel.choices

    def on(self, widget: Any, signal: str, slot: Callable) -> None:
        """Connect, and remember it for :meth:`close`."""
        widget.connect(signal, slot)
        self._links.append((widget, signal, slot))

    def button(self, widget: Any, action: Callable[[], None]) -> None:
        """A push button that runs an action and tells its error in one sentence."""
        self._tips[widget.name] = widget.toolTip
        self.on(widget, "clicked()", lambda: self.attempt(action))

    def tool_tip(self, widget: Any) -> str:
        """The tool tip that the .ui file gives a button."""
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

    def close(self) -> None:
        """Undo every connection."""
        self.leave()
        while self._links:
            widget, signal, slot = self._links.pop()
            widget.disconnect(signal, slot)
