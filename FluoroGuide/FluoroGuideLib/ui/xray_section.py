"""X-ray: which images; geometry, normalised picture and live source are parts of their own."""

from __future__ import annotations

from typing import Any

from ..errors import FluoroGuideError
from .background import Background
from .browser_part import BrowserPart
from .geometry_part import GeometryPart
from .live_part import LivePart
from .picture_part import PicturePart
from .section import Section
from .style import allow, show_text
from .text import translator

_ = translator(__name__)


class XraySection(Section):
    """Loads X-rays into slots A and B and tells their geometry."""

    key = "xray"

    def __init__(self, ui: Any, session: Any, panel: Any) -> None:
        super().__init__(ui, session, panel)
        kinds = (GeometryPart, PicturePart, BrowserPart, LivePart)
        self.geometry, self.picture, self.browser, self.live = self.parts = tuple(part(ui, session, panel) for part in kinds)

    # ---- life -------------------------------------------------------------------------------------------------------
    def setup(self) -> None:
        """Both load buttons, and the parts."""
        self.reading = Background(self.session, self.attempt, self.panel.refresh_later)
        self.button(self.ui.fgLoadAButton, lambda: self._load(0))
        self.button(self.ui.fgLoadBButton, lambda: self._load(1))
        for part in (self.ui.fgGeometryPart, self.ui.fgPicturePart, self.ui.fgDatabasePart, self.ui.fgLivePart):
            part.collapsed = True
            self.on(part, "contentsCollapsed(bool)", lambda collapsed: self.panel.refresh_later())
        for part in self.parts:
            part.setup()

    def leave(self) -> None:
        """Stop reading and live frames."""
        self.reading.stop()
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
        node = self.session.xrays.show_loaded(index, path, result)
        self.geometry.given[index], self.picture.options[index] = dict(card or {}), dict(options or {})
        self.ui.fgSlotBox.setCurrentIndex(index)
        if node is None:
            self.ui.fgGeometryPart.collapsed = False
            missing = "; ".join(result["report"].missing) or result["error"]
            what = f"X-ray {side} is not complete, the one before stays"
            raise FluoroGuideError(what, missing, "Give the values under Geometry, then load it again")
        self.choices.setValue("xray" + side, node)
        self.panel.show_xrays()
        self.panel.show_results()
        self.panel.tell("warn" if result["warnings"] else "idle", _("X-ray {side} loaded.").format(side=side), " ".join(result["warnings"]))

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """The images of now, or why there is none."""
        reading = _("An X-ray is being read.") if self.reading.running else ""
        for index, (button, label) in enumerate(((self.ui.fgLoadAButton, self.ui.fgXrayAResult), (self.ui.fgLoadBButton, self.ui.fgXrayBResult))):
            allow(button, reading if self.choices else _("The module is not ready yet."), self.tool_tip(button))
            node = self.panel.xray(index)
            show_text(label, self._described(node) if node is not None else "")
        for part in self.parts:
            part.refresh()

    def _described(self, node: Any) -> str:
        try:
            return self.session.xrays.describe(node)
        except FluoroGuideError as error:
            return error.message
