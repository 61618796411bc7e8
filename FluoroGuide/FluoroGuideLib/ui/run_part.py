"""X-ray, a run of frames: put into the scene as a Sequence, a frame at a time, and kept upright while it is played."""

from __future__ import annotations

import time
from typing import Any

import qt

from ..errors import FluoroGuideError
from ..scene.live_source import RunFilling, find_run
from .background import Background
from .section import Section
from .style import allow
from .text import translator

_ = translator(__name__)
STEP_MS, BUDGET_SECONDS = 20, 0.015
"""Frames are copied for so long at a time, so that the window answers in between."""


class RunPart(Section):
    """The button *Run* of the slot that the geometry part shows."""

    key = "xray"

    def setup(self) -> None:
        """Button, job and timer."""
        self.reading = Background(self.session, self.attempt, self.panel.refresh_later)
        self._filling: RunFilling | None = None
        self._followed: list[Any] = []
        self._timer = qt.QTimer()
        self._timer.setInterval(STEP_MS)
        self.on(self._timer, "timeout()", self._fill)
        self.button(self.ui.fgRunButton, self._make)

    def enter(self) -> None:
        """Runs of the scene stay upright while they are played."""
        self._follow()

    def leave(self) -> None:
        """Stop; a Sequence that is not complete stays as it is."""
        self.reading.stop()
        self._timer.stop()
        self._filling = None
        while self._followed:
            self._followed.pop().release()

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.reading.close()

    @property
    def running(self) -> bool:
        """Whether a run is read or put into the scene."""
        return self.reading.running or self._filling is not None

    def _follow(self) -> None:
        while self._followed:
            self._followed.pop().release()
        for index in (0, 1):
            run = find_run(self.session.host, index)
            if run is not None and run.sequence.GetNumberOfDataNodes():
                run.follow()
                self._followed.append(run)

    def _missing(self) -> str:
        if self.choices is None:
            return _("The module is not ready yet.")
        if self.running:
            return _("The run is being put into the scene.")
        loaded = self.session.xrays.loaded.get(self.panel.xrays_section.geometry.slot)
        if loaded is None or loaded.frames < 2:
            return _("Load a run of several frames first.")
        return loaded.error

    def _make(self) -> None:
        missing = self._missing()
        if missing:
            raise FluoroGuideError(missing.rstrip("."), None)
        slot, section = self.panel.xrays_section.geometry.slot, self.panel.xrays_section
        card = dict(section.geometry.given.get(slot) or {})
        job = self.session.engine.run("xray_run", path=self.session.xrays.loaded[slot].path, card=card)
        self.panel.tell("idle", _("Reading the run."), _("The panel stays usable."))
        self.reading.start(job, lambda result: self._take(slot, result))

    def _take(self, slot: int, result: dict) -> None:
        pixels = result["pixels"]
        self._filling = RunFilling(self.session.host, result["views"], result["times_s"], lambda n: pixels[n].astype("float32") / 65535, slot)
        self._timer.start()

    def _fill(self) -> None:
        end = time.perf_counter() + BUDGET_SECONDS
        while self._filling is not None and time.perf_counter() < end:
            if not self.attempt_step():
                return

    def attempt_step(self) -> bool:
        """One frame; False when it was the last, or nothing more can be done."""
        filling = self._filling
        try:
            if not filling.step():
                return True
        except FluoroGuideError as error:
            self.panel.tell("fail", _("Not done."), error.message)
        else:
            self.session.refresh_folder()
            self._follow()
            told = _("{count} frames are in the scene; play them in the Sequences module.").format(count=filling.done)
            self.panel.tell("pass", _("Run."), told)
        self._timer.stop()
        self._filling = None
        self.panel.refresh_later()
        return False

    def refresh(self) -> None:
        """The button of now."""
        allow(self.ui.fgRunButton, self._missing(), self.tool_tip(self.ui.fgRunButton))
