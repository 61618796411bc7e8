"""Guided and expert mode: one section open at a time, or any number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from .pages import PAGES

SETTING = "FluoroGuide/ExpertMode"


class SectionMode:
    """Opens and closes the sections; the mode is the user's, kept in the application's settings."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._busy = False
        self._buttons = {name: getattr(ui, f"fg{name}Section") for name in PAGES}
        self._slots = {name: self._slot(name) for name in PAGES}
        for name, button in self._buttons.items():
            button.connect("contentsCollapsed(bool)", self._slots[name])
        ui.fgExpertCheck.setChecked(str(qt.QSettings().value(SETTING, "")).lower() in ("true", "1"))
        ui.fgExpertCheck.connect("toggled(bool)", self._toggled)
        self.open(PAGES[0])

    def _slot(self, name: str) -> Callable[[bool], None]:
        return lambda collapsed: self._folded(name, collapsed)

    @property
    def expert(self) -> bool:
        """Whether any number of sections may be open."""
        return self._ui.fgExpertCheck.checked

    def open(self, name: str) -> None:
        """Open a section (``Plan``, ``Xray``, ...); in guided mode the others close."""
        self._buttons[name].collapsed = False
        self._folded(name, False)

    def _folded(self, name: str, collapsed: bool) -> None:
        if self._busy or collapsed or self.expert:
            return
        self._busy = True
        try:
            for other, button in self._buttons.items():
                if other != name and not button.collapsed:
                    button.collapsed = True
        finally:
            self._busy = False

    def _toggled(self, expert: bool) -> None:
        qt.QSettings().setValue(SETTING, expert)
        if not expert:
            self.open(next((name for name, button in self._buttons.items() if not button.collapsed), PAGES[0]))

    def close(self) -> None:
        """Undo the connections."""
        for name, button in self._buttons.items():
            button.disconnect("contentsCollapsed(bool)", self._slots[name])
        self._ui.fgExpertCheck.disconnect("toggled(bool)", self._toggled)
