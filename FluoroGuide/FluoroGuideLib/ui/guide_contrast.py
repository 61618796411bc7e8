"""Contrast: mask, subtraction, and the question whether a vessel fills, stored with its picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..guidance.subtraction import PATTERNS, ContrastAnswer
from .style import allow, show_text
from .text import translator

_ = translator(__name__)


class ContrastQuestion:
    """The contrast box of the Guide section (``section``)."""

    def __init__(self, section: Any) -> None:
        self._section, self.ui, self.session = section, section.ui, section.session
        self._mask: tuple[int, np.ndarray] | None = None
        self._result: dict | None = None
        self._job: Any | None = None
        ui = self.ui
        ui.fgContrastPatternCombo.addItem("")
        for pattern in PATTERNS:
            ui.fgContrastPatternCombo.addItem(pattern)
        for side in "AB":
            ui.fgContrastImageCombo.addItem(_("X-ray {side}").format(side=side))
        for widget in (ui.fgContrastPatternCombo, ui.fgContrastImageCombo, ui.fgContrastAgentEdit, ui.fgContrastVolumeSpin):
            section.tip(widget)
        show_text(ui.fgContrastResult, "")
        section.on(ui.fgContrastImageCombo, "currentIndexChanged(int)", self._image_chosen)
        section.button(ui.fgMaskButton, self._set_mask)
        section.button(ui.fgSubtractButton, self._subtract)
        section.button(ui.fgVascularNoButton, lambda: self._answer("no"))
        section.button(ui.fgVascularYesButton, lambda: self._answer("yes"))
        section.button(ui.fgVascularUnsureButton, lambda: self._answer("unsure"))

    @property
    def index(self) -> int:
        """The chosen X-ray, 0 (A) or 1 (B)."""
        return max(0, self.ui.fgContrastImageCombo.currentIndex)

    def refresh(self) -> None:
        """Buttons of now."""
        missing = self._section.missing_xray(self.index)
        no_mask = missing or ("" if self._mask is not None and self._mask[0] == self.index else _("Set the mask first."))
        for button, why in (
            (self.ui.fgMaskButton, missing), (self.ui.fgSubtractButton, no_mask or (_("It is being worked out.") if self._job is not None else "")),
            (self.ui.fgVascularNoButton, missing), (self.ui.fgVascularYesButton, missing), (self.ui.fgVascularUnsureButton, missing),
        ):
            allow(button, why, self._section.tool_tip(button))

    def _image_chosen(self) -> None:
        self._result = None
        self._section.panel.refresh_later()

    def _set_mask(self) -> None:
        _image, pixels = self._section.picture(self.index)
        self.session.guidance.hide_subtractions()
        self._mask, self._result = (self.index, np.array(pixels, np.float32)), None
        show_text(self.ui.fgContrastResult, _("The mask is set: inject, then subtract."))

    def _subtract(self) -> None:
        image, pixels = self._section.picture(self.index)
        at = image.view.mm_per_pixel_at(np.zeros(3))
        self._job = self.session.engine.run(
            "subtract", pixels=np.asarray(pixels, np.float32), mask_frame=self._mask[1], valid=image.mask, mm_per_px=at)
        self._section.jobs.follow(self._job, self._subtracted)

    def _subtracted(self, job: Any) -> None:
        if job is not self._job:
            return
        self._job = None
        self._section.attempt(lambda: self._show(job))

    def _show(self, job: Any) -> None:
        if job.state == "failed":
            raise job.error
        if job.state != "done":
            return
        self._result = job.result
        area, shift = job.result["area_mm2"], job.result["shift_mm"]
        told = _("Contrast agent covers {area:.0f} mm²; {shift:.1f} mm of motion were taken out.").format(area=area, shift=shift)
        show_text(self.ui.fgContrastResult, told if area > 0 else _("Nothing new stands out of the noise."))
        self.session.guidance.show_subtraction(self.index, self._section.panel.xray(self.index), job.result["difference"])

    def _answer(self, vascular: str) -> None:
        pattern = self.ui.fgContrastPatternCombo.currentText.strip()
        shift = 0.0 if self._result is None else self._result["shift_mm"]
        answer = ContrastAnswer(vascular, (pattern,) if pattern else (), frames=1, largest_shift_mm=shift)
        words = {"yes": _("vascular"), "no": _("not vascular"), "unsure": _("unsure")}
        picture = self._section.capture(self.index, _("Contrast"), ("contrast",), words[vascular])
        if self._result is not None:
            self._section.capture(self.index, _("Contrast, subtracted"), ("contrast", "subtraction"), words[vascular], self._result["difference"])
        self.session.guidance.hide_subtractions()
        volume = self.ui.fgContrastVolumeSpin.value or None
        self.session.recorder.add_contrast(answer, self.ui.fgContrastAgentEdit.text, volume, picture)
        self._section.panel.tell("pass", _("Stored."), _("Contrast check: {answer}.").format(answer=words[vascular]))

    def leave(self) -> None:
        """The scene or the module is left."""
        self._mask = self._result = self._job = None
        self.session.guidance.hide_subtractions()
        show_text(self.ui.fgContrastResult, "")
