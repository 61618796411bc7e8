"""Where a registration begins: the choice, landmarks to click, and the volume dragged by hand."""

from __future__ import annotations

from typing import Any

from ..errors import FluoroGuideError
from ..scene.pose_grip import PoseGrip, target_of
from ..scene.registrar import STARTS
from .style import allow, fill_table, prepare_table, show_text
from .text import translator
from .watch import Watch

_ = translator(__name__)


class StartChoice:
    """The start's widgets; ``section`` is the :class:`~.register_section.RegisterSection`."""

    def __init__(self, section: Any) -> None:
        self._section, self.ui, self.session = section, section.ui, section.session
        self._grip: PoseGrip | None = None
        self._job: Any | None = None
        self._fit: Any | None = None
        self._busy = False
        ui = self.ui
        words = {
            "angles": _("C-arm angles"), "present": _("Present position"), "landmarks": _("Landmarks clicked by hand"),
            "dragged": _("Volume dragged by hand"),
        }
        for start in STARTS:
            ui.fgStartCombo.addItem(words[start])
        section.tip(ui.fgStartCombo)
        section.on(ui.fgStartCombo, "currentIndexChanged(int)", self._chosen)
        self._place_buttons = (ui.fgLandmarkCtButton, ui.fgLandmarkAButton, ui.fgLandmarkBButton)
        section.button(ui.fgLandmarkCtButton, lambda: self._place(None))
        section.button(ui.fgLandmarkAButton, lambda: self._place(0))
        section.button(ui.fgLandmarkBButton, lambda: self._place(1))
        section.button(ui.fgLandmarkBackButton, self._take_back)
        section.button(ui.fgLandmarkClearButton, self._clear)
        section.button(ui.fgDragResetButton, self._reset)
        prepare_table(ui.fgLandmarkTable)
        events = ("PointPositionDefinedEvent", "PointEndInteractionEvent", "PointRemovedEvent")
        self._landmark_watches = [Watch(self._marked, *events) for _unused in range(3)]
        self._grip_watches = [Watch(lambda i=index: self._dragged(i), "PointModifiedEvent") for index in (0, 1)]

    @property
    def start(self) -> str:
        """One of ``registrar.STARTS``."""
        return STARTS[max(0, self.ui.fgStartCombo.currentIndex)]

    @property
    def draft(self) -> Any:
        """The dragged pose, or None."""
        return None if self._grip is None else self._grip.pose

    @property
    def landmarks(self) -> Any:
        """The landmarks of the scene."""
        return self.session.registrar.landmarks

    # ---- showing ----------------------------------------------------------------------------------------------------
    def missing(self) -> str:
        """Why the chosen start cannot be used, one sentence; empty when it can."""
        if self.start == "present" and self.session.registrar.registration is None:
            return _("There is no position yet: start from the C-arm angles.")
        if self.start == "landmarks":
            return {"ct": _("Click three or more landmarks in the CT."), "xray": _("Click the same landmarks in an X-ray."), "": ""}[
                self.landmarks.missing()]
        if self.start == "dragged" and self._grip is None:
            return _("Load the X-rays and place the needle before you drag the volume.")
        return ""

    def refresh(self) -> None:
        """The widgets of the chosen start."""
        ui, start = self.ui, self.start
        ui.fgLandmarkBox.setVisible(start == "landmarks")
        ui.fgDragBox.setVisible(start == "dragged")
        if self._section.choices is not None and start == "landmarks":
            self._refresh_landmarks()
        if start == "dragged":
            missing = self.missing()
            show_text(ui.fgDragResult, missing or _("Drag the grip's first point to move the volume, its second point to turn it."))
            allow(ui.fgDragResetButton, missing, self._section.tool_tip(ui.fgDragResetButton))

    def _refresh_landmarks(self) -> None:
        counts, section = self.landmarks.counts(), self._section
        for index, button in enumerate(self._place_buttons):
            missing = self._why_not(index)
            allow(button, missing, section.tool_tip(button))
        none = "" if any(counts) else _("There is no landmark yet.")
        for button in (self.ui.fgLandmarkBackButton, self.ui.fgLandmarkClearButton):
            allow(button, none, section.tool_tip(button))
        for watch, node in zip(self._landmark_watches, [*self.landmarks.existing(), None, None, None], strict=False):
            watch.set(node)
        fill_table(self.ui.fgLandmarkTable, self._rows(counts))
        told = [] if self._fit is None else list(self._fit.warnings)
        show_text(self.ui.fgLandmarkResult, " ".join([m for m in [self.missing()] if m] + told))

    def _why_not(self, index: int) -> str:
        p = self._section.choices
        if index == 0:
            return "" if p.volume is not None else _("Choose the patient's CT volume.")
        node = self._section.panel.xray(index - 1)
        ok = node is not None and self.session.xrays.has_geometry(node)
        return "" if ok else _("Load X-ray {side} with its C-arm geometry first.").format(side="AB"[index - 1])

    def _rows(self, counts: tuple[int, int, int]) -> list[list[str]]:
        errors = {} if self._fit is None else {(e.name, e.view): e for e in self._fit.errors}
        rows = []
        for i in range(max(counts)):
            cells = [f"L{i + 1}" if i < counts[0] else _("L{number}: not in the CT").format(number=i + 1)]
            for view in (0, 1):
                found = errors.get((f"L{i + 1}", view))
                cells.append("" if i >= counts[view + 1] else "…" if found is None else f"{found.error_mm:.1f}" + (" !" if found.outlier else ""))
            rows.append(cells)
        return rows

    # ---- landmarks ----------------------------------------------------------------------------------------------------
    def _place(self, index: int | None) -> None:
        node = self.landmarks.ct_node(self._section.choices.volume) if index is None else self.landmarks.xray_node(index)
        self.ui.fgLandmarkPlace.setCurrentNode(node)
        self.ui.fgLandmarkPlace.setPlaceModeEnabled(True)
        number = node.GetNumberOfDefinedControlPoints() + 1
        where = _("the CT") if index is None else _("X-ray {side}").format(side="AB"[index])
        self._section.panel.tell("idle", _("Landmark {number}.").format(number=number), _("Click it in {where}.").format(where=where))

    def _marked(self) -> None:
        self._fit = None
        self._section.attempt(self._ask_fit)

    def _ask_fit(self) -> None:
        """Let the engine say how well the landmarks fit, while no registration runs."""
        if self._job is not None:
            self.session.engine.cancel(self._job)
            self._job = None
        if self.landmarks.missing() or self._section.running:
            return
        self._job = self.session.registrar.landmark_job(self._section.choices.volume, self._section.panel.xrays())
        self._section.jobs.follow(self._job, self._fitted)

    def _fitted(self, job: Any) -> None:
        if job is not self._job:
            return
        self._job = None
        if job.state == "done":
            self._fit = job.result
        elif job.state == "failed":
            show_text(self.ui.fgLandmarkResult, job.error.message)
            return
        self._section.panel.refresh_later()

    def _take_back(self) -> None:
        self.landmarks.take_back()

    def _clear(self) -> None:
        self.stop_placing()
        for watch in self._landmark_watches:
            watch.set(None)
        self.landmarks.clear()
        self._fit = None

    def stop_placing(self) -> None:
        """Leave the place mode."""
        self.ui.fgLandmarkPlace.setPlaceModeEnabled(False)
        self.ui.fgLandmarkPlace.setCurrentNode(None)

    # ---- dragging -----------------------------------------------------------------------------------------------------
    def _chosen(self) -> None:
        self.stop_placing()
        if self.start == "dragged":
            self._section.attempt(self._begin_drag)
        else:
            self.end_drag()
            self._section.panel.refresh_later()

    def _begin_drag(self) -> None:
        panel, p = self._section.panel, self._section.choices
        if p is None or panel.missing_inputs():
            return
        plan = self.session.planner.plan(p.volume, p.planLine, p.procedureName)
        views = {i: self.session.xrays.view(panel.xray(i)) for i in (0, 1) if panel.xray(i) is not None}
        target = target_of(list(plan.target_points().values()), p.volume.GetOrigin())
        self._grip = PoseGrip(lambda: self.session.host, views, self.session.registrar.start_pose(plan), target)
        for index in views:
            self._grip_watches[index].set(self._grip.node(index))
        self._section.compare.show_pose(self._grip.pose, quick=True)

    def _dragged(self, index: int) -> None:
        if self._busy or self._grip is None:
            return
        self._busy = True
        try:
            if self._grip.dragged(index):
                self._section.compare.show_pose(self._grip.pose, quick=True)
        except FluoroGuideError as error:
            self._section.panel.tell("fail", _("Not done."), error.message)
        finally:
            self._busy = False

    def _reset(self) -> None:
        self.end_drag()
        self._begin_drag()

    def end_drag(self) -> None:
        """Take the grips off the views; the draft is forgotten."""
        for watch in self._grip_watches:
            watch.set(None)
        if self._grip is not None:
            self._grip.close()
            self._grip = None
            self._section.compare.show_registered()

    # ---- life -----------------------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """The module is left or the scene is being closed."""
        self.stop_placing()
        self._job = self._fit = None
        for watch in (*self._landmark_watches, *self._grip_watches):
            watch.set(None)
        if self._grip is not None:
            self._grip.close()
            self._grip = None
        if self.start == "dragged":
            self.ui.fgStartCombo.setCurrentIndex(0)
