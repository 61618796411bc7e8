"""X-ray: which images; geometry, normalised picture and live source are parts of their own."""

from __future__ import annotations

from typing import Any

from ..errors import FluoroGuideError
from .background import Background
from .browser_part import BrowserPart
from .geometry_part import GeometryPart
from .live_part import LivePart
from .picture_part import PicturePart
from .run_part import RunPart
from .section import Section
from .style import allow, show_text
from .text import translator

_ = translator(__name__)


class XraySection(Section):
    """Loads X-rays into slots A and B and tells their geometry."""

    key = "xray"

    def __init__(self, ui: Any, session: Any, panel: Any) -> None:
        super().__init__(ui, session, panel)
        kinds = (GeometryPart, RunPart, PicturePart, BrowserPart, LivePart)
        self.geometry, self.run, self.picture, self.browser, self.live = self.parts = tuple(part(ui, session, panel) for part in kinds)

    # ---- life -------------------------------------------------------------------------------------------------------
    def setup(self) -> None:
        """Both load buttons, and the parts."""
        self.reading = Background(self.session, self.attempt, self.panel.refresh_later)
        self.button(self.ui.fgLoadAButton, lambda: self._load(0))
        self.button(self.ui.fgLoadBButton, lambda: self._load(1))
        self.button(self.ui.fgXrayUndoButton, self._undo)
        self._seen: list[Any] | None = None
        for part in (self.ui.fgGeometryPart, self.ui.fgPicturePart, self.ui.fgDatabasePart, self.ui.fgLivePart):
            part.collapsed = True
            self.on(part, "contentsCollapsed(bool)", lambda collapsed: self.panel.refresh_later())
        for part in self.parts:
            part.setup()

    def leave(self) -> None:
        """Stop reading and live frames."""
        self.reading.stop()
        self._seen = None
        for part in self.parts:
            part.leave()

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.reading.close()
        for part in self.parts:
            part.close()

    # ---- loading ------------------------------------------------------------------------------------------------------
    def _load(self, index: int) -> None:
        side = "AB"[index]
        kinds = _("X-ray images (*.dcm *.ima *.png *.tif *.tiff *.nrrd *.mha);;All files (*)")
        path = self.panel.dialogs.open_file(_("Load X-ray {side}").format(side=side), kinds)
        if path:
            self.read(index, path, self.geometry.card(index))

    def read(self, index: int, path: str, card: dict | None, frame: int | None = None, options: dict | None = None) -> None:
        """Have a file read in the worker and put into a slot."""
        side = "AB"[index]
        job = self.session.engine.run("xray_read", path=path, card=dict(card or {}), frame=frame, options=dict(options or {}))
        self.panel.tell("idle", _("Reading X-ray {side}.").format(side=side), "")
        self.reading.start(job, lambda result: self._take(index, path, card, options, result))

    def _take(self, index: int, path: str, card: dict | None, options: dict | None, result: dict) -> None:
        side = "AB"[index]
        self.remember(index)
        node = self.session.xrays.show_loaded(index, path, result)
        self.geometry.given[index], self.picture.options[index] = dict(card or {}), dict(options or {})
        self.ui.fgSlotBox.setCurrentIndex(index)
        if node is None:
            self.ui.fgGeometryPart.collapsed = False
            missing = "; ".join(result["report"].missing) or result["error"]
            what = f"X-ray {side} is not complete, the one before stays"
            raise FluoroGuideError(what, missing, "Give the values under Geometry, then load it again")
        self._choose(index, node)
        self.panel.show_xrays()
        self.panel.show_results()
        self.panel.tell("warn" if result["warnings"] else "idle", _("X-ray {side} loaded.").format(side=side), " ".join(result["warnings"]))

    # ---- going back ---------------------------------------------------------------------------------------------------
    def remember(self, index: int) -> None:
        """Keep what a slot holds before it is changed, so that the change can be taken back."""
        notes = {"given": self.geometry.given.get(index), "options": self.picture.options.get(index), "entered": self.geometry.entered(index)}
        self.session.xrays.history.remember(index, self.panel.xray(index), notes)

    def _choose(self, index: int, node: Any | None) -> None:
        """Choose a slot's node; not a change by the user."""
        if self._seen is not None:
            self._seen[index] = node
        self.choices.setValue("xray" + "AB"[index], node)

    def _notice(self) -> None:
        """Another node chosen in a selector is a step that can be taken back."""
        now = [self.panel.xray(0), self.panel.xray(1)] if self.choices is not None else None
        before, self._seen = self._seen, now
        for index in (0, 1) if now is not None and before is not None else ():
            old = before[index]
            if old is not now[index] and old is not None and old.GetScene() is not None and not self.live.lives:
                notes = {"given": self.geometry.given.get(index), "options": self.picture.options.get(index)}
                self.session.xrays.history.remember(index, old, notes)

    def _undo(self) -> None:
        if self.session.xrays.history.last is None:
            raise FluoroGuideError("There is no change of the X-rays to undo", None)
        state, node = self.session.xrays.history.undo()
        side = "AB"[state.index]
        if state.reference:
            self.panel.tell("idle", _("Undone."), _("The stored reference image is removed."))
            return
        for kept, name in ((self.geometry.given, "given"), (self.picture.options, "options")):
            kept.pop(state.index, None)
            if state.notes.get(name) is not None:
                kept[state.index] = state.notes[name]
        for name, value in (state.notes.get("entered") or {}).items():
            self.choices.setValue(name, value)
        self._choose(state.index, node)
        self.panel.show_xrays()
        self.panel.show_results()
        self.panel.tell("idle", _("Undone."), _("X-ray {side} is what it was before.").format(side=side))

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """The images of now, or why there is none."""
        self._notice()
        reading = _("An X-ray is being read.") if self.reading.running else ""
        for index, (button, label) in enumerate(((self.ui.fgLoadAButton, self.ui.fgXrayAResult), (self.ui.fgLoadBButton, self.ui.fgXrayBResult))):
            allow(button, reading if self.choices else _("The module is not ready yet."), self.tool_tip(button))
            node = self.panel.xray(index)
            show_text(label, self._described(node) if node is not None else "")
        busy = reading or (_("The live source runs.") if self.live.lives else "")
        none = "" if self.session.xrays.history.last is not None else _("There is no change of the X-rays to undo.")
        busy = busy or none if self.choices else _("The module is not ready yet.")
        allow(self.ui.fgXrayUndoButton, busy, self.tool_tip(self.ui.fgXrayUndoButton))
        for part in self.parts:
            part.refresh()

    def _described(self, node: Any) -> str:
        try:
            return self.session.xrays.describe(node)
        except FluoroGuideError as error:
            return error.message
