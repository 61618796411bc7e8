"""X-ray, normalised picture: what the registration sees, each decision shown and open to be overridden."""

from __future__ import annotations

import numpy as np

from ..imaging.preprocess import POLARITIES, RELATIONSHIPS
from ..imaging.sources import STEP_COLORS
from .pixmaps import show_picture
from .section import Section
from .style import choose_data, fill_box, show_text
from .text import translator

_ = translator(__name__)
SHOWN_PX = 320
CHECKS = {"fgFieldCheck": "field", "fgSaturatedCheck": "mask_saturated", "fgTextCheck": "mask_text", "fgMetalCheck": "mask_metal"}


class PicturePart(Section):
    """The picture of the slot that the geometry part shows."""

    key = "xray"

    def setup(self) -> None:
        """Boxes and checks; a change reads the file again with it."""
        ui = self.ui
        self.options: dict[int, dict] = {}
        self._shown: tuple | None = None
        fill_box(ui.fgPolarityBox, [(_("found by itself"), ""), *((text, text) for text in POLARITIES)], "")
        words = {"LIN": _("linear in intensity"), "LOG": _("logarithm taken"), "DISP": _("for display")}
        fill_box(ui.fgRelationBox, [(_("as the file says"), ""), *((f"{words[k]} ({k})", k) for k in RELATIONSHIPS)], "")
        for box in (ui.fgPolarityBox, ui.fgRelationBox):
            self.on(box, "currentIndexChanged(int)", lambda index: self.attempt(self._changed))
        for name in CHECKS:
            self.on(getattr(ui, name), "clicked(bool)", lambda on: self.attempt(self._changed))

    def leave(self) -> None:
        """Forget the choices for files of another scene."""
        self.options.clear()
        self._shown = None

    def _slot(self) -> int:
        return self.panel.xrays_section.geometry.slot

    def _changed(self) -> None:
        slot, section = self._slot(), self.panel.xrays_section
        loaded = self.session.xrays.loaded.get(slot)
        if loaded is None:
            return
        polarity, relation = (b.itemData(b.currentIndex) for b in (self.ui.fgPolarityBox, self.ui.fgRelationBox))
        options = {option: False for name, option in CHECKS.items() if not getattr(self.ui, name).checked}
        options |= {k: v for k, v in (("polarity", polarity), ("relationship", relation)) if v}
        section.read(slot, loaded.path, section.geometry.given.get(slot), loaded.frame, options)

    def refresh(self) -> None:
        """Picture, notes and choices of the slot."""
        ui, slot = self.ui, self._slot()
        loaded = self.session.xrays.loaded.get(slot) if self.choices else None
        options = self.options.get(slot, {})
        why = "" if loaded is not None else _("Load the X-ray from its file to see and change this.")
        for box, key in ((ui.fgPolarityBox, "polarity"), (ui.fgRelationBox, "relationship")):
            box.setEnabled(not why)
            choose_data(box, options.get(key, ""))
        for name, option in CHECKS.items():
            getattr(ui, name).setEnabled(not why)
            getattr(ui, name).setChecked(options.get(option, True))
        ui.fgXrayPicture.setVisible(loaded is not None)
        show_text(ui.fgPictureNotes, why or " ".join(n[0].upper() + n[1:] + "." for n in loaded.picture.notes))
        if loaded is not None and self._shown is not loaded and not ui.fgPicturePart.collapsed:
            self._shown = loaded
            show_picture(ui.fgXrayPicture, colored(loaded.picture), SHOWN_PX)


def colored(picture: object) -> np.ndarray:
    """RGB (rows, columns, 3), uint8: the normalised picture with what each step masked in its colour (``STEP_COLORS``)."""
    step = max(1, max(picture.pixels.shape) // 512)
    grey = np.clip(picture.pixels[::step, ::step], 0, 1) * 255
    rgb = np.repeat(grey[..., None], 3, axis=2)
    for name, color in STEP_COLORS.items():
        part = picture.parts.get(name)
        if part is not None:
            inside = part[::step, ::step]
            rgb[inside] = 0.5 * rgb[inside] + 0.5 * np.array(color)
    return np.rint(rgb).astype(np.uint8)
