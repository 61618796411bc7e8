"""X-ray: which images, and the geometry of their C-arm."""

from __future__ import annotations

from typing import Any

from ..errors import FluoroGuideError
from .section import Section
from .style import allow, show_text
from .text import translator

_ = translator(__name__)


class XraySection(Section):
    """Loads X-rays into slots A and B and tells their geometry."""

    key = "xray"

    def setup(self) -> None:
        """Both load buttons."""
        self.button(self.ui.fgLoadAButton, lambda: self._load(0))
        self.button(self.ui.fgLoadBButton, lambda: self._load(1))

    def refresh(self) -> None:
        """The geometry of the images of now, or why there is none."""
        for index, (button, label) in enumerate(((self.ui.fgLoadAButton, self.ui.fgXrayAResult), (self.ui.fgLoadBButton, self.ui.fgXrayBResult))):
            allow(button, "" if self.choices else _("The module is not ready yet."), self.tool_tip(button))
            node = self.panel.xray(index)
            self.ui.fgGeometryValues.setVisible(bool(self.choices and self.choices.useEnteredGeometry))
            show_text(label, self._described(node) if node is not None else "")

    def _described(self, node: Any) -> str:
        try:
            return self.session.xrays.describe(node)
        except FluoroGuideError as error:
            return error.message

    def card(self, index: int) -> dict | None:
        """The C-arm values entered for a slot; None when they shall not be used.  What is not given is left out."""
        p = self.choices
        if not p.useEnteredGeometry:
            return None
        side = "AB"[index]
        spacing = p.getValue("spacing" + side)
        given = {
            "primary_angle_deg": p.getValue("primary" + side), "secondary_angle_deg": p.getValue("secondary" + side), "angle_reference": "patient",
            "source_to_detector_mm": p.getValue("sid" + side) or None, "source_to_isocenter_mm": p.getValue("sod" + side) or None,
            "pixel_spacing_mm": [spacing, spacing] if spacing else None,
        }
        return {k: v for k, v in given.items() if v is not None}

    def _load(self, index: int) -> None:
        side = "AB"[index]
        kinds = _("X-ray images (*.dcm *.ima *.png *.tif *.tiff *.nrrd *.mha);;All files (*)")
        path = self.panel.dialogs.open_file(_("Load X-ray {side}").format(side=side), kinds)
        if not path:
            return
        node = self.session.xrays.load(path, index, self.card(index))
        self.choices.setValue("xray" + side, node)
        self.panel.show_xrays()
        self.panel.tell("idle", _("X-ray {side} loaded.").format(side=side), "")
