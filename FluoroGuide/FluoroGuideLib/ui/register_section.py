"""Register: start, progress, cancel, verdict."""

from __future__ import annotations

import logging
from typing import Any

import qt

from ..errors import FluoroGuideError
from ..scene.packages import offer_numba
from .section import Section
from .style import allow, fill_table, prepare_table, show_banner
from .text import translator

_ = translator(__name__)
POLL_MS = 30


class RegisterSection(Section):
    """Runs one registration at a time in the engine's process; the window stays free."""

    key = "register"

    def setup(self) -> None:
        """Buttons, table and the timer that asks the engine."""
        self._job: Any | None = None
        self._inputs: tuple[Any, list[Any], Any, Any] | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self.on(self._timer, "timeout()", self._poll)
        self.button(self.ui.fgRegisterButton, self._start)
        self.button(self.ui.fgCancelButton, self.cancel)
        prepare_table(self.ui.fgErrorTable)

    @property
    def running(self) -> bool:
        """True while a registration runs."""
        return self._job is not None

    def refresh(self) -> None:
        """Buttons, progress, verdict and predicted errors."""
        allow(self.ui.fgRegisterButton, self._missing(), self.tool_tip(self.ui.fgRegisterButton))
        allow(self.ui.fgCancelButton, "" if self.running else _("No registration runs."), self.tool_tip(self.ui.fgCancelButton))
        self.ui.fgRegisterProgress.setVisible(self.running)
        registration = self.session.registrar.registration
        if registration is None:
            show_banner(self.ui.fgVerdictResult, "idle", "", "")
            fill_table(self.ui.fgErrorTable, [])
            return
        words = {"pass": _("PASS"), "warn": _("CHECK"), "fail": _("FAIL")}
        reasons = " ".join(registration.reasons) or _("The volume fits the X-rays.")
        kind, word = registration.verdict, words[registration.verdict]
        if self.panel.stale():
            kind, word, reasons = "idle", _("OLD"), _("Volume or X-rays were changed after the registration: register again.")
        show_banner(self.ui.fgVerdictResult, kind, word, reasons)
        fill_table(self.ui.fgErrorTable, [self._row(e) for e in registration.target_error(self.session.planner.targets())])

    @staticmethod
    def _row(error: Any) -> list[str]:
        def numbers(values: tuple) -> str:
            return " / ".join(f"{v:.1f}" for v in values)

        return [error.name, f"{error.predicted_error_mm:.1f}", numbers(error.in_plane_mm), numbers(error.depth_mm)]

    def _missing(self) -> str:
        return _("A registration runs.") if self.running else self.panel.missing_inputs()

    def _start(self) -> None:
        p, xrays = self.choices, self.panel.xrays()
        plan = self.session.planner.plan(p.volume, p.planLine, p.procedureName)
        offer_numba()  # asked where it is first of use; declined, the registration takes longer
        self._job = self.session.registrar.submit(p.volume, xrays, plan, p.startFromPresent)
        self._inputs = p.volume, xrays, p.planLine, plan
        self._timer.start()
        self.panel.tell("idle", _("Registering."), _("The views stay usable."))

    def cancel(self) -> None:
        """Ask for the end of the registration; pose and views stay as they were."""
        if self._job is not None:
            self.session.engine.cancel(self._job)

    def _poll(self) -> None:
        job = self._job
        self.session.engine.poll()
        if job is None:
            self._timer.stop()
            return
        self.ui.fgRegisterProgress.setValue(int(100 * job.progress))
        self.ui.fgRegisterProgress.setFormat(f"{job.text} %p %".strip())
        if job.finished:
            self._timer.stop()
            self._job = None
            self.attempt(lambda: self._end(job))

    def _end(self, job: Any) -> None:
        if job.state == "cancelled":
            self.panel.tell("idle", _("Cancelled."), _("Nothing was changed."))
            return
        if job.state != "done":
            logging.error("FluoroGuide: registration failed\n%s", job.log)
            raise job.error
        volume, xrays, line, plan = self._inputs
        try:  # the needle may have been dragged meanwhile
            plan = self.session.planner.plan(volume, line, self.choices.procedureName)
        except FluoroGuideError:
            pass
        self.session.registrar.accept(job.result, volume, xrays, plan)
        self.panel.show_results()
        self.panel.tell(job.result.verdict, _("Registered."), _("It took {seconds:.0f} s.").format(seconds=job.seconds))

    def leave(self) -> None:
        """Give up a running registration: the scene it belongs to may be gone."""
        self.cancel()
        self._timer.stop()
        self._job = self._inputs = None
