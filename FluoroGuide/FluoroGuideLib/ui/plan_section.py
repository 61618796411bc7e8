"""Patient and plan: volume, procedure, planned needle."""

from __future__ import annotations

from ..errors import FluoroGuideError
from .section import Section
from .style import show_text
from .text import translator
from .watch import Watch

_ = translator(__name__)


class PlanSection(Section):
    """Shows the planned needle's length and angles while it is placed or dragged."""

    key = "plan"

    def setup(self) -> None:
        """Follow the chosen line."""
        self._watch = Watch(self.panel.refresh_later, "PointModifiedEvent", "PointPositionDefinedEvent", "PointRemovedEvent")

    def refresh(self) -> None:
        """The numbers of the line of now."""
        line = self.choices.planLine if self.choices else None
        self._watch.set(line)
        self.ui.fgLinePlace.setCurrentNode(line)
        show_text(self.ui.fgPlanResult, self._summary())

    def _summary(self) -> str:
        if self.panel.missing_plan():
            return ""
        try:
            item = self.session.planner.line_path(self.choices.volume, self.choices.planLine)
        except FluoroGuideError as error:
            return error.message
        return _("{length:.1f} mm long, {axial:.0f}° to the axial and {sagittal:.0f}° to the sagittal plane.").format(
            length=item.length_mm, axial=abs(item.angle_to_axial_deg), sagittal=abs(item.angle_to_sagittal_deg),
        )

    def leave(self) -> None:
        """Let go of the line and stop placing."""
        self._watch.set(None)
        self.ui.fgLinePlace.setPlaceModeEnabled(False)
        self.ui.fgLinePlace.setCurrentNode(None)
