"""Live guidance: start and stop, the motion banner, registering again, driven by one timer."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import qt

from ..errors import FluoroGuideError
from .opening import GIL_MS, GIL_SECONDS
from .style import allow, show_banner
from .text import translator

_ = translator(__name__)
TICK_MS = 33
"""Sources give 15 frames a second or fewer; a tick without a new frame costs nothing."""
REPORT_EVERY = 4


class LiveControl:
    """The live row of the Guide section (``section``)."""

    def __init__(self, section: Any) -> None:
        self._section, self.ui, self.session = section, section.ui, section.session
        self.report: Any | None = None
        self._ticks, self._told, self._streamed = 0, (), 0.0
        self._timer = qt.QTimer()
        self._timer.setTimerType(qt.Qt.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._gil = qt.QTimer()
        self._gil.setInterval(GIL_MS)
        section.on(self._timer, "timeout()", self._tick)
        section.on(self._gil, "timeout()", lambda: time.sleep(GIL_SECONDS))
        section.button(self.ui.fgLiveButton, self._toggle, "Ctrl+Shift+L")
        section.button(self.ui.fgReregisterButton, self._register_again, "Ctrl+Shift+T")

    @property
    def live(self) -> Any:
        """The live guidance of the scene."""
        return self.session.guidance.live

    def missing(self) -> str:
        """Why live guidance cannot start, one sentence; empty when it can."""
        panel, registration = self._section.panel, self.session.registrar.registration
        if panel.missing_inputs():
            return panel.missing_inputs()
        if registration is None:
            return _("Register first.")
        if panel.stale():
            return _("The registration is old: register again.")
        if registration.verdict == "fail":
            return _("The registration failed: register again.")
        if panel.xrays_section.live.opening.running:
            return _("The live source is being opened.")
        return panel.xrays_section.live.missing_source()

    def refresh(self) -> None:
        """Buttons and banner of now."""
        running = self.live.running
        self.ui.fgLiveButton.setText(_("Stop live") if running else _("Start live"))
        allow(self.ui.fgLiveButton, "" if running else self.missing(), self._section.tool_tip(self.ui.fgLiveButton))
        again = self._section.panel.missing_inputs() or ("" if self.session.registrar.registration is not None else _("Register first."))
        again = again or (_("A registration runs.") if self._section.panel.register.running else "")
        allow(self.ui.fgReregisterButton, again, self._section.tool_tip(self.ui.fgReregisterButton))
        if running and self._section.panel.stale():
            self.live.volume_edited()
        self._banner()

    def _toggle(self) -> None:
        if self.live.running:
            self.stop()
            return
        chosen, panel = self._section.panel.xrays_section.live, self._section.panel
        chosen.stop()  # frames are followed here now, not only shown
        for which in chosen.used():
            index = chosen.slot_of(which)
            if panel.xray(index) is None:
                raise FluoroGuideError(
                    "There is no X-ray in the slot of the live source", "AB"[index], "Load and register an X-ray of this view first")
        chosen.open(self._start)

    def _start(self, sources: dict[int, Any]) -> None:
        p, panel = self._section.choices, self._section.panel
        plan = self.session.planner.plan(p.volume, p.planLine, p.procedureName)
        path = plan.trajectory(p.planLine.GetAttribute("FluoroGuide.trajectory"))
        panel.register.compare.clear()
        self.live.start(sources, p.volume, {index: panel.xray(index) for index in sources}, plan, path)
        self._ticks, self._told, self._streamed = 0, (), 0.0
        self._timer.start()
        self._gil.start()
        self.session.recorder.log("live guidance started")

    def stop(self) -> None:
        """End the live views; the reference X-rays come back."""
        self._timer.stop()
        self._gil.stop()
        if not self.live.running:
            return
        self.live.stop()
        self.report = None
        self._section.panel.show_xrays()
        self._section.panel.show_results()
        self.session.recorder.log("live guidance stopped")

    def _tick(self) -> None:
        try:
            self.report = self.live.tick()
        except Exception as error:  # a timer would raise it again thirty times a second
            if not isinstance(error, FluoroGuideError):
                logging.exception("FluoroGuide: unexpected error in the live view")
            told = error.message if isinstance(error, FluoroGuideError) else type(error).__name__
            self.stop()
            self._section.panel.tell("fail", _("The live view has ended."), told)
            self._section.panel.refresh()
            return
        self._ticks += 1
        if self._ticks % REPORT_EVERY == 0:
            self._banner()
            self._section.show_needle()
            self._count_time()

    def _count_time(self) -> None:
        """A signal each five minutes; frames only estimate the fluoroscopy time, and it says so."""
        if self.report.streaming_seconds - self._streamed < 1.0:
            return
        self._streamed = self.report.streaming_seconds
        for sentence in self.session.recorder.fluoroscopy(self._streamed, estimated=True) if self.session.recorder.record is not None else ():
            self._section.panel.tell("warn", _("Fluoroscopy time."), sentence)

    def _banner(self) -> None:
        report = self.report
        if not self.live.running or report is None:
            show_banner(self.ui.fgMotionResult, "idle", "", "")
            return
        kinds = {"ok": "pass", "hold": "pass", "stale": "warn", "moved": "fail", "lost": "fail", "fail": "fail"}
        words = {
            "ok": _("LIVE"), "hold": _("LAST IMAGE"), "stale": _("CHECK"), "moved": _("MOVED"), "lost": _("LOST"), "fail": _("NOT REGISTERED"),
        }
        texts = {
            "moved": _("The bone has left its place: register again."), "lost": _("The picture does not match the volume: register again."),
        }
        text = texts.get(report.state, report.note)
        rate = _("{rate:.0f} pictures a second").format(rate=report.frames_per_second)
        told = (kinds[report.state], words[report.state], ". ".join(part for part in (text, rate, *report.messages) if part))
        if told != self._told:
            self._told = told
            show_banner(self.ui.fgMotionResult, *told, big=True)

    def _register_again(self) -> None:
        """The one key: the newest pictures become the reference, and the registration starts from the present position."""
        panel, p = self._section.panel, self._section.choices
        for index in (0, 1):
            found = self.live.frame(index)
            if found is not None:
                panel.xrays_section.remember(index)
                node = self.session.xrays.add(dataclasses.replace(found[0], pixels=found[1].copy()), index)
                p.setValue("xray" + "AB"[index], node)
        if self.live.running:
            self.live.reclaim_views()
        panel.register.register_from_present()

    def registered(self, registration: Any) -> None:
        """A registration came in: live overlays follow, or the bone is drawn for a live view to come."""
        p, panel = self._section.choices, self._section.panel
        if p is None or registration.verdict == "fail" or panel.stale():
            return
        plan = self.session.planner.plan(p.volume, p.planLine, p.procedureName)
        path = plan.trajectory(p.planLine.GetAttribute("FluoroGuide.trajectory"))
        if self.live.running:
            self.live.set_registration(registration, plan, path)
        else:
            self._section.jobs.follow(self.live.prefetch(p.volume, {i: panel.xray(i) for i in (0, 1)}, path), lambda job: None)

    def leave(self) -> None:
        """The scene or the module is left: nothing goes on."""
        self._timer.stop()
        self._gil.stop()
        if self.live.running:
            self.live.stop()
        self.report, self._told = None, ()
