"""What the volume is: told by its tags or values, unless the user says otherwise."""

from __future__ import annotations

from typing import Any

from ..scene.raw_volumes import content_key, said_modality, say_modality, seen_modality
from .section import Section
from .style import allow, fill_box
from .text import translator

_ = translator(__name__)


class ModalityPart(Section):
    """One box beside the volume: automatic, or CT, cone-beam CT or MR as the user says."""

    key = "plan"

    def __init__(self, ui: Any, session: Any, panel: Any) -> None:
        super().__init__(ui, session, panel)
        self._seen: tuple[tuple, str] | None = None

    def setup(self) -> None:
        """Connect the box."""
        self.tip(self.ui.fgModalityBox)
        self.on(self.ui.fgModalityBox, "currentIndexChanged(int)", self._chosen)

    def refresh(self) -> None:
        """What was said of the present volume, and what is recognised."""
        box, volume = self.ui.fgModalityBox, self.choices.volume if self.choices is not None else None
        seen = self._recognised(volume)
        automatic = _("automatic ({modality})").format(modality=seen) if seen else _("automatic")
        said = said_modality(volume) if volume is not None else ""
        fill_box(box, [(automatic, ""), (_("CT"), "CT"), (_("cone-beam CT"), "CBCT"), (_("MR"), "MR")], said)
        allow(box, "" if volume is not None else _("Choose the patient's volume."), self.tool_tip(box))

    def _recognised(self, volume: Any | None) -> str:
        """``CT``, ``MR`` or another DICOM modality; looked at once per content of a volume."""
        if volume is None or volume.GetImageData() is None:
            return ""
        key = content_key(volume)
        if self._seen is None or self._seen[0] != key:
            self._seen = key, seen_modality(volume)
        return self._seen[1]

    def _chosen(self, _index: int = 0) -> None:
        volume, value = self.choices.volume if self.choices is not None else None, self.ui.fgModalityBox.itemData(self.ui.fgModalityBox.currentIndex)
        if volume is None or value is None or str(value) == said_modality(volume):
            return
        say_modality(volume, str(value))
        self.panel.refresh_later()
