"""Guide: live pictures, the needle and its distance from the plan, confirmation views, placement, contrast."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import FluoroGuideError
from ..scene import guide_layout, xray_view
from .guide_contrast import ContrastQuestion
from .guide_live import LiveControl
from .jobs import Jobs
from .section import Section
from .style import allow, fill_table, prepare_table, show_banner, show_numbers
from .text import translator
from .watch import Watch

_ = translator(__name__)


class GuideSection(Section):
    """Locates the needle as soon as it is marked or found in both X-rays, and again when a mark is moved."""

    key = "guide"

    def setup(self) -> None:
        """Few, big controls."""
        ui = self.ui
        self.jobs = Jobs(self.session)
        self._job: Any | None = None
        self._view_names: list[str] = []
        self.live, self.contrast = LiveControl(self), ContrastQuestion(self)
        self.button(ui.fgFindButton, self._find, "Ctrl+Shift+F")
        self.button(ui.fgMarkAButton, lambda: self._mark(0), "Ctrl+Shift+A")
        self.button(ui.fgMarkBButton, lambda: self._mark(1), "Ctrl+Shift+B")
        self.button(ui.fgMarkUndoButton, self._undo_marks)
        self.button(ui.fgRecordButton, self._accept, "Ctrl+Shift+P")
        self.button(ui.fgCaptureAButton, lambda: self._keep(0), "Ctrl+Shift+1")
        self.button(ui.fgCaptureBButton, lambda: self._keep(1), "Ctrl+Shift+2")
        self.tip(ui.fgGuideLayoutCheck)
        self.tip(ui.fgViewCombo)
        self.on(ui.fgGuideLayoutCheck, "toggled(bool)", self._layout)
        prepare_table(ui.fgKeptTable)
        self._watches = [Watch(self._marked, "PointPositionDefinedEvent", "PointEndInteractionEvent") for _unused in range(2)]

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Buttons and the distance from the plan."""
        ui = self.ui
        for index, (mark, keep) in enumerate(((ui.fgMarkAButton, ui.fgCaptureAButton), (ui.fgMarkBButton, ui.fgCaptureBButton))):
            allow(mark, self.missing_xray(index), self.tool_tip(mark))
            allow(keep, self.missing_xray(index), self.tool_tip(keep))
            self._watches[index].set(self.session.guidance.existing_mark_node(index) if self.choices else None)
        missing = self.missing_xray(0) or self.missing_xray(1) or (_("The needle is being looked for.") if self._job is not None else "")
        allow(ui.fgFindButton, missing, self.tool_tip(ui.fgFindButton))
        allow(ui.fgRecordButton, self._missing_placement(), self.tool_tip(ui.fgRecordButton))
        back = "" if self.choices is not None and self.session.guidance.can_undo_marks else _("There is no change of the marks to undo.")
        allow(ui.fgMarkUndoButton, back, self.tool_tip(ui.fgMarkUndoButton))
        self._refresh_views()
        self.live.refresh()
        self.contrast.refresh()
        self.show_needle()

    def missing_xray(self, index: int) -> str:
        """Why X-ray 0 (A) or 1 (B) cannot be used, one sentence."""
        node = self.panel.xray(index)
        if node is None or not self.session.xrays.has_geometry(node):
            return _("Load X-ray {side} with its C-arm geometry first.").format(side="AB"[index])
        return ""

    def missing(self) -> str:
        """Why there is no distance from the plan to show or record; empty when there is one."""
        registration = self.session.registrar.registration
        if registration is None or self.panel.missing_plan():
            return self.panel.missing_plan() or _("Register first.")
        if self.panel.stale():
            return _("The registration is old: register again.")
        if registration.verdict == "fail":
            return _("The registration failed, so distances are not shown.")
        if len(self.panel.xrays()) < 2:
            return _("A second X-ray is needed: one view shows no depth.")
        if self.session.guidance.needle is None:
            return _("Mark the needle's tip and shaft in both X-rays.")
        return ""

    def _missing_placement(self) -> str:
        missing = self.panel.missing_inputs()
        if missing:
            return missing
        report = self.live.report
        if self.session.guidance.live.running and report is not None:
            if report.state not in ("ok", "hold"):
                return _("The overlay does not fit the picture now: register again.")
            return "" if report.needle is not None else _("The needle is not seen in both live pictures.")
        return self.missing()

    def show_needle(self) -> None:
        """The numbers, large."""
        report = self.live.report
        if self.session.guidance.live.running and report is not None:
            self._show_live(report)
            return
        missing = self.missing()
        found = None if missing else self.session.guidance.deviation(self.choices.planLine)
        if found is None:
            show_banner(self.ui.fgNeedleResult, "idle", "", missing if self.session.registrar.registration is not None else "")
            return
        self._show_deviation(found, self.session.guidance.needle.warnings)

    def _show_deviation(self, found: Any, warnings: tuple[str, ...] = ()) -> None:
        kind = {None: "idle", True: "pass", False: "fail"}[found.in_target]
        left = -found.along_mm
        depth = _("{depth:.1f} mm to go").format(depth=left) if left >= 0.05 else _("at depth") if left > -0.05 else (
            _("{depth:.1f} mm too deep").format(depth=-left))
        parts = [depth, _("{across:.1f} mm across the path").format(across=found.lateral_mm)]
        parts += [] if found.angle_deg is None else [_("{angle:.1f}° off").format(angle=found.angle_deg)]
        place = {None: [], True: [_("in the target")], False: [_("outside the target")]}[found.in_target]
        if found.probability_in_target is not None:
            place = [_("{place}, {chance:.0f} % sure").format(place=place[0], chance=100 * (
                found.probability_in_target if found.in_target else 1 - found.probability_in_target))]
        show_numbers(self.ui.fgNeedleResult, kind, _("Tip {distance:.1f} mm").format(distance=found.tip_mm),
                     [found.direction_text, ", ".join(parts + place), *warnings])

    def _show_live(self, report: Any) -> None:
        if report.state not in ("ok", "hold"):
            show_banner(self.ui.fgNeedleResult, "idle", "", _("No distances while the overlay does not fit."))
        elif report.deviation is not None:
            self._show_deviation(report.deviation, report.needle.warnings)
        elif report.one_view:
            lines = []
            for index, seen in sorted(report.one_view.items()):
                if seen.lateral_mm is not None:
                    lines.append(_("X-ray {side}: {across:.1f} mm {where} of the path").format(
                        side="AB"[index], across=seen.lateral_mm, where=seen.side_text or _("beside")))
            show_numbers(self.ui.fgNeedleResult, "idle", _("One view"), [*lines, _("Depth is not known from one view.")])
        else:
            show_banner(self.ui.fgNeedleResult, "idle", "", _("The needle is not seen."))

    # ---- marks and finding ----------------------------------------------------------------------------------------------
    def _mark(self, index: int) -> None:
        self.session.guidance.remember_marks()
        node = self.session.guidance.mark_node(index)
        node.RemoveAllControlPoints()
        self._watches[index].set(node)
        place = self.ui.fgMarkPlace
        place.setCurrentNode(node)
        place.setPlaceModeEnabled(True)
        self.panel.tell("idle", _("Mark the needle."), _("Click its tip, then a point of its shaft, in X-ray {side}.").format(side="AB"[index]))

    def _marked(self) -> None:
        if self.panel.missing_inputs() or len(self.panel.xrays()) < 2:
            return
        self.session.guidance.method = "manual"
        self.attempt(self._locate)

    def _undo_marks(self) -> None:
        if not self.session.guidance.can_undo_marks:
            raise FluoroGuideError("There is no change of the marks to undo", None)
        self.session.guidance.undo_marks()
        if not self.panel.missing_inputs() and len(self.panel.xrays()) > 1:
            self._locate()
        self.panel.tell("idle", _("Undone."), _("The marks are where they were before."))

    def _locate(self) -> None:
        self.session.guidance.remember_marks()
        if self.session.guidance.locate(self.panel.xrays()) is not None:
            self.panel.show_results()
            self.session.guidance.show_views(self.choices.volume, self.choices.planLine)
            self.panel.tell("idle", "", "")

    def _find(self) -> None:
        self._job = self.session.guidance.find_job(self.panel.xrays(), self.choices.planLine)
        self.jobs.follow(self._job, self._found)
        self.panel.tell("idle", _("Looking for the needle."), _("The views stay usable."))

    def _found(self, job: Any) -> None:
        if job is self._job:
            self._job = None
            self.attempt(lambda: self._use(job))

    def _use(self, job: Any) -> None:
        if job.state == "failed":
            raise job.error
        if job.state != "done":
            return
        self.session.guidance.remember_marks()
        missed = self.session.guidance.use_findings(job.result, self.panel.xrays())
        if missed:
            self.panel.tell("warn", _("Mark it by hand."), " ".join(missed))
            return
        self._locate()
        self.session.guidance.method = "automatic"
        self.panel.tell("idle", _("Found."), _("Check its tip in both X-rays; drag the marks where they are wrong."))

    # ---- pictures and placement -----------------------------------------------------------------------------------------
    def picture(self, index: int) -> tuple[Any, np.ndarray]:
        """(image with geometry, newest pixels) of X-ray 0 (A) or 1 (B), live or not.

        Raises
        ------
        FluoroGuideError
            There is no such X-ray.
        """
        live = self.session.guidance.live.frame(index)
        if live is not None:
            return live
        node = self.panel.xray(index)
        if node is None:
            raise FluoroGuideError("There is no such X-ray", "AB"[index], "Load it first")
        image = self.session.xrays.image(node)
        return image, image.pixels

    def capture(self, index: int, name: str, shows: tuple[str, ...] = (), caption: str = "", pixels: np.ndarray | None = None) -> Any:
        """Keep the picture of now in the record."""
        shown = self.picture(index)[1] if pixels is None else pixels
        return self.session.recorder.capture(self.panel.xray(index), index, name, shows, caption, shown)

    def _keep(self, index: int) -> None:
        name = self.ui.fgViewCombo.currentText or _("X-ray {side}").format(side="AB"[index])
        self.capture(index, name, (name,))
        self._next_view()
        self.panel.tell("pass", _("Kept."), name)

    def _refresh_views(self) -> None:
        """The procedure's confirmation views and which of them are kept."""
        wanted = self.session.recorder.required_views(self.choices.procedureName) if self.choices is not None else []
        record = self.session.recorder.record
        kept = [image.name for image in record.key_images] if record is not None else []
        fill_table(self.ui.fgKeptTable, [[name, angles, _("yes") if name in kept else _("no")] for name, angles in wanted])
        names = [name for name, _angles in wanted] + [_("Other")]
        if names != self._view_names:
            self.ui.fgViewCombo.clear()
            for name in names:
                self.ui.fgViewCombo.addItem(name)
            self._view_names = names
            self._next_view()

    def _next_view(self) -> None:
        """Offer the first view that is not kept yet."""
        record = self.session.recorder.record
        kept = [image.name for image in record.key_images] if record is not None else []
        self.ui.fgViewCombo.setCurrentIndex(next((n for n, name in enumerate(self._view_names) if name not in kept), 0))

    def _accept(self) -> None:
        p, report = self.choices, self.live.report
        if self.session.guidance.live.running and report is not None and self.session.guidance.live.located is not None:
            self.session.guidance.keep(self.session.guidance.live.located)
            for index in sorted(report.one_view):
                self.capture(index, _("Placement, X-ray {side}").format(side="AB"[index]), ("needle",))
        placement = self.session.recorder.add_placement(p.planLine, self.panel.xrays(), p.procedureName, method=self.session.guidance.method)
        self.panel.tell("pass", _("Recorded."), _("{name}: tip {distance:.1f} mm from the target.").format(
            name=placement.trajectory.name, distance=placement.deviation.tip_mm,
        ))

    # ---- layout and life ------------------------------------------------------------------------------------------------
    def _layout(self) -> None:
        wanted = self.ui.fgGuideLayoutCheck.checked
        guide_layout.show_layout(self.session.host, wanted, xray_view.LAYOUT_ID)
        if wanted and self.choices is not None and not self.panel.stale():
            self.attempt(lambda: self.session.guidance.show_views(self.choices.volume, self.choices.planLine))
        self.panel.show_xrays()

    def leave(self) -> None:
        """Let go of the marks, stop placing and the live views; the layout is the module's own again."""
        self.jobs.drop()
        self._job = None
        self.live.leave()
        self.contrast.leave()
        for watch in self._watches:
            watch.set(None)
        self.ui.fgMarkPlace.setPlaceModeEnabled(False)
        self.ui.fgMarkPlace.setCurrentNode(None)
        if self.ui.fgGuideLayoutCheck.checked:
            self.ui.fgGuideLayoutCheck.setChecked(False)

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.jobs.close()
