"""Patient and plan, the C-arm: solved angles of the chosen needle and virtual fluoroscopy."""

from __future__ import annotations

from typing import Any

import numpy as np

import qt

from ..errors import FluoroGuideError
from ..geometry.carm import describe_angles
from ..planning.approach import Room
from ..planning.carms import carm
from ..planning.history import rehearsed_views
from ..scene.rehearsal import picture_with_plan
from .background import Background
from .pixmaps import show_picture
from .section import Section
from .style import allow, fill_box, fill_table, prepare_table, show_text
from .text import translator

_ = translator(__name__)
STILL_MS = 250
"""After so long without a change the picture is made in full quality."""
DRAG_PX, STILL_PX, SHOWN_PX = 256, 384, 320


class CarmPart(Section):
    """The angles are solved with the check of the needles (see ``NeedlePart``); pictures come from the engine's process."""

    key = "plan"

    # ---- life -------------------------------------------------------------------------------------------------------
    def setup(self) -> None:
        """Table, sliders and the work in the background."""
        ui = self.ui
        prepare_table(ui.fgViewTable)
        self._views: list[Any] = []
        self._view: Any | None = None
        self._picture: tuple[np.ndarray, Any] | None = None
        self._wanted: tuple | None = None
        self._made: tuple | None = None
        self.drawing = Background(self.session, self.attempt, lambda: None)
        self._still = qt.QTimer()
        self._still.setSingleShot(True)
        self._still.setInterval(STILL_MS)
        self.on(self._still, "timeout()", lambda: self.attempt(lambda: self._draw("still")))
        self.on(ui.fgViewTable, "currentCellChanged(int,int,int,int)", self._view_chosen)
        self.button(ui.fgShootButton, self._shoot)
        self.on(ui.fgRehearsedBox, "currentIndexChanged(int)", self._rehearsed)

    def leave(self) -> None:
        """Stop drawing."""
        self._still.stop()
        self.drawing.stop()
        self._views, self._view, self._picture, self._wanted, self._made = [], None, None, None, None

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.drawing.close()

    # ---- views ------------------------------------------------------------------------------------------------------
    def _solved(self) -> list[Any]:
        p, needles = self.choices, self.panel.plan.needles
        if p is None or p.planLine is None:
            return []
        found = needles.checked.get(p.planLine.GetAttribute("FluoroGuide.trajectory") or "")
        return [*(found["views"] if found else []), *needles.starts]

    def _view_chosen(self, row: int) -> None:
        if self.choices is not None and 0 <= row < len(self._views):
            view = self._views[row]
            self.choices.fluoroscopyPrimary, self.choices.fluoroscopySecondary = _within(view.primary_deg, 180), _within(view.secondary_deg, 90)
            show_text(self.ui.fgViewReasons, " ".join([view.text + ".", *view.reasons]))

    def _rehearsed(self, index: int) -> None:
        plan = self.session.planner.current
        views = rehearsed_views(plan) if plan is not None else []
        if self.choices is not None and 0 < index <= len(views):
            angles = views[index - 1].view.angles_deg
            self.choices.fluoroscopyPrimary, self.choices.fluoroscopySecondary = _within(angles[0], 180), _within(angles[1], 90)

    # ---- virtual fluoroscopy ------------------------------------------------------------------------------------------
    def _missing(self) -> str:
        p = self.choices
        if p is None:
            return _("The module is not ready yet.")
        if p.volume is None:
            return _("Choose the patient's CT volume.")
        if self._center() is None:
            return _("Place a needle or a target: the view is centred on it.")
        return ""

    def _center(self) -> np.ndarray | None:
        """The point (3,), volume LPS mm, that the table brings to the isocentre: the needle's target, or the last target."""
        p = self.choices
        if p is None or p.volume is None:
            return None
        if p.planLine is not None and p.planLine.GetNumberOfDefinedControlPoints() == 2:
            try:
                return self.session.planner.line_path(p.volume, p.planLine).target_lps_mm
            except FluoroGuideError:
                return None
        points = list(self.session.planner.target_node_points(p.volume).values())
        return points[-1] if points else None

    def _room(self) -> Room:
        p = self.choices
        return Room(carm(p.carm), p.patientPosition or "HFS")

    def _draw(self, quality: str) -> None:
        center, p = self._center(), self.choices
        if self._missing() or center is None:
            return
        room = self._room()
        point, _shift = room.table(center)
        full = room.view(p.fluoroscopyPrimary, p.fluoroscopySecondary, point)
        size = DRAG_PX if quality == "drag" else STILL_PX
        seen = full.resampled(size, round(size * full.columns / full.rows))
        self._view = full
        job = self.session.engine.run("plan_fluoroscopy", volume=self.session.registrar.handle(p.volume), view=seen, quality=quality)
        self._made = (*self._state(), quality)
        self.drawing.start(job, lambda picture: self._show(picture, seen, quality))

    def _show(self, picture: np.ndarray, view: Any, quality: str) -> None:
        self._picture = picture, view
        self._paint()
        if quality == "drag":
            self._still.start()
        if self._state() != self._wanted_state():
            self._ask()

    def _paint(self) -> None:
        picture = None
        if self._picture is not None and self.choices is not None:
            line = self.choices.planLine
            chosen = line.GetAttribute("FluoroGuide.trajectory") if line is not None else None
            picture = picture_with_plan(*self._picture, self.session.planner.current, chosen)
        show_picture(self.ui.fgFluoroscopyPicture, picture, SHOWN_PX)

    def _state(self) -> tuple | None:
        return self._wanted

    def _wanted_state(self) -> tuple | None:
        p, center = self.choices, self._center()
        if p is None or center is None or self.ui.fgCarmPart.collapsed or self.ui.fgPlanSection.collapsed:
            return None
        return p.volume.GetID(), p.carm, p.patientPosition, p.fluoroscopyPrimary, p.fluoroscopySecondary, *np.round(center, 3)

    def _ask(self) -> None:
        """Draw what is wanted now, unless it is being drawn; while the engine is busy with something else the wish waits."""
        wanted = self._wanted_state()
        if wanted is None or wanted == self._wanted:
            return
        if self.drawing.running:
            return  # asked again when the running picture is there
        self._wanted = wanted
        self._still.stop()
        self.attempt_quietly(lambda: self._draw("drag"))

    def attempt_quietly(self, action: Any) -> None:
        """Run an action from within a refresh: its error is told, but nothing is refreshed again."""
        try:
            action()
        except FluoroGuideError as error:
            self.panel.tell("fail", _("Not done."), error.message)

    def _shoot(self) -> None:
        p, missing = self.choices, self._missing()
        if missing:
            raise FluoroGuideError(missing.rstrip("."), None)
        room = self._room()
        point, _shift = room.table(self._center())
        view = room.view(p.fluoroscopyPrimary, p.fluoroscopySecondary, point)
        plan = self.session.planner.current
        number = 1 + (len(rehearsed_views(plan)) if plan is not None else 0)
        self.session.planner.shoot(f"View {number}", view)
        self.panel.tell("idle", _("Stored."), describe_angles(p.fluoroscopyPrimary, p.fluoroscopySecondary) + ".")

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Views, picture and stored views of now."""
        ui = self.ui
        self._views = self._solved()
        blocked = ui.fgViewTable.blockSignals(True)
        rows = [[v.name, describe_angles(v.primary_deg, v.secondary_deg), "" if v.reachable else f"{v.off_deg:.0f}°"] for v in self._views]
        fill_table(ui.fgViewTable, rows)
        ui.fgViewTable.blockSignals(blocked)
        if not self._views or ui.fgViewTable.currentRow() < 0:
            show_text(ui.fgViewReasons, _("Choose a view to see it below.") if self._views else _("Angles appear here when a needle is placed."))
        missing = self._missing()
        for slider in (ui.fgFluoroscopyPrimarySlider, ui.fgFluoroscopySecondarySlider):
            slider.setEnabled(not missing)
        ui.fgFluoroscopyPicture.setVisible(self._picture is not None)
        plan = self.session.planner.current if self.choices is not None else None
        allow(ui.fgShootButton, missing or ("" if plan is not None else _("Place the planned needle first.")), self.tool_tip(ui.fgShootButton))
        stored = rehearsed_views(plan) if plan is not None else []
        fill_box(ui.fgRehearsedBox, [(_("stored views"), "0"), *((f"{v.name}: {v.angles}", str(n)) for n, v in enumerate(stored, 1))], "0")
        ui.fgRehearsedBox.setEnabled(bool(stored))
        self._ask()


def _within(angle_deg: float, limit: float) -> float:
    """An angle as the parameter takes it: rounding may have left its range by a hair."""
    return float(min(max(angle_deg, -limit), limit))
