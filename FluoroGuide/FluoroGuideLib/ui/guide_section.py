"""Guide: mark the needle in both X-rays, see its distance from the plan."""

from __future__ import annotations

from .section import Section
from .style import allow, show_banner
from .text import translator
from .watch import Watch

_ = translator(__name__)


class GuideSection(Section):
    """Locates the needle as soon as tip and shaft are marked in both X-rays, and again when a mark is moved."""

    key = "guide"

    def setup(self) -> None:
        """Both mark buttons."""
        self.button(self.ui.fgMarkAButton, lambda: self._mark(0))
        self.button(self.ui.fgMarkBButton, lambda: self._mark(1))
        self._watches = [Watch(self._marked, "PointPositionDefinedEvent", "PointEndInteractionEvent") for _unused in range(2)]

    def refresh(self) -> None:
        """Buttons and the distance from the plan."""
        for index, button in enumerate((self.ui.fgMarkAButton, self.ui.fgMarkBButton)):
            allow(button, self._missing(index), self.tool_tip(button))
            self._watches[index].set(self.session.guidance.existing_mark_node(index) if self.choices else None)
        show_banner(self.ui.fgNeedleResult, *self._result(), big=True)

    def _missing(self, index: int) -> str:
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

    def _result(self) -> tuple[str, str, str]:
        missing = self.missing()
        found = None if missing else self.session.guidance.deviation(self.choices.planLine)
        if found is None:
            return "idle", "", missing if self.session.registrar.registration is not None else ""
        kind = {None: "idle", True: "pass", False: "fail"}[found.in_target]
        text = _("from the target ({where}); {across:.1f} mm across the path, {angle:.1f}° off.").format(
            where=found.direction_text, across=found.lateral_mm, angle=found.angle_deg,
        )
        return kind, _("Tip {distance:.1f} mm").format(distance=found.tip_mm), " ".join([text, *self.session.guidance.needle.warnings])

    def _mark(self, index: int) -> None:
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
        self.attempt(self._locate)

    def _locate(self) -> None:
        if self.session.guidance.locate(self.panel.xrays()) is not None:
            self.panel.show_results()
            self.panel.tell("idle", "", "")

    def leave(self) -> None:
        """Let go of the marks and stop placing."""
        for watch in self._watches:
            watch.set(None)
        self.ui.fgMarkPlace.setPlaceModeEnabled(False)
        self.ui.fgMarkPlace.setCurrentNode(None)
