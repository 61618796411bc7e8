"""The projected volume over the X-rays while the Register section is open: edges, blend, flicker, checkerboard."""

from __future__ import annotations

from typing import Any

import numpy as np

import qt

from ..scene.comparison import MODES, Comparison
from .text import translator

_ = translator(__name__)
FLICKER_MS = 500
QUICK_PX, SHARP_PX = 256, 768
"""Pixels of a DRR's longer side: while it is dragged, and for looking."""


class Comparing:
    """The comparison's widgets; ``section`` is the :class:`~.register_section.RegisterSection`."""

    def __init__(self, section: Any) -> None:
        self._section, self.ui, self.session = section, section.ui, section.session
        self.shown = Comparison(lambda: section.session.host)
        self._jobs: dict[int, Any] = {}
        self._wanted: tuple[np.ndarray, bool] | None = None
        words = {
            "off": _("X-ray alone"), "edges": _("Edges of the volume"), "blend": _("Half and half"), "flicker": _("Flicker"),
            "checkerboard": _("Checkerboard"),
        }
        for mode in MODES:
            self.ui.fgCompareCombo.addItem(words[mode])
        self.ui.fgCompareCombo.setCurrentIndex(MODES.index(self.shown.mode))
        section.tip(self.ui.fgCompareCombo)
        section.on(self.ui.fgCompareCombo, "currentIndexChanged(int)", self._mode_chosen)
        section.on(self.ui.fgRegisterSection, "contentsCollapsed(bool)", self._folded)
        self._flicker = qt.QTimer()
        self._flicker.setInterval(FLICKER_MS)
        section.on(self._flicker, "timeout()", self.shown.flick)

    @property
    def mode(self) -> str:
        """One of ``comparison.MODES``."""
        return MODES[max(0, self.ui.fgCompareCombo.currentIndex)]

    @property
    def open(self) -> bool:
        """Whether the section is open: elsewhere the views belong to others."""
        return not self.ui.fgRegisterSection.collapsed

    def show_pose(self, pose: np.ndarray, quick: bool = False) -> None:
        """Show the volume at a pose as soon as the engine has drawn it; of several wishes the last one counts."""
        if not self.open or self.mode == "off":
            return
        self._wanted = (np.array(pose, float), quick)
        if not self._jobs:
            self._ask()

    def show_registered(self) -> None:
        """The volume at its registered pose; nothing when there is none, or it is old."""
        registration = self.session.registrar.registration
        draft = self._section.start.draft
        if draft is not None:
            self.show_pose(draft, quick=True)
        elif registration is None or self._section.panel.stale():
            self.clear()
        else:
            self.show_pose(registration.pose)

    def _ask(self) -> None:
        """Give the engine the last wish, unless a registration keeps it busy."""
        panel, p = self._section.panel, self._section.choices
        if self._wanted is None or self._section.running or p is None or p.volume is None:
            return
        (pose, quick), self._wanted = self._wanted, None
        for index in (0, 1):
            xray = panel.xray(index)
            if xray is not None and self.session.xrays.has_geometry(xray):
                self._jobs[index] = self.session.registrar.preview_job(p.volume, xray, pose, QUICK_PX if quick else SHARP_PX)
        for index, job in list(self._jobs.items()):
            self._section.jobs.follow(job, lambda ended, i=index: self._drawn(i, ended))

    def _drawn(self, index: int, job: Any) -> None:
        if self._jobs.get(index) is not job:
            return
        del self._jobs[index]
        xray = self._section.panel.xray(index)
        if job.state == "done" and xray is not None and self.open and self.mode != "off":
            self.shown.set(index, xray, self.session.xrays.image(xray), job.result)
            self._run_flicker()
        if not self._jobs:
            self._ask()

    def _mode_chosen(self) -> None:
        self.shown.set_mode(self.mode)
        if self.mode == "off":
            self.clear()
        elif not self.shown.shown:
            self.show_registered()
        self._run_flicker()

    def _folded(self) -> None:
        if self.open:
            self._section.attempt(self.show_registered)
        else:
            self.clear()

    def _run_flicker(self) -> None:
        if self.mode == "flicker" and self.shown.shown:
            self._flicker.start()
        else:
            self._flicker.stop()

    def clear(self) -> None:
        """Take it off the views."""
        self._wanted = None
        self._jobs.clear()
        self._flicker.stop()
        self.shown.clear()
