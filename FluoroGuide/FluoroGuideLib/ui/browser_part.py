"""X-ray, DICOM database: patient, study, series and image of Slicer's own database, into slot A or B."""

from __future__ import annotations

from ..errors import FluoroGuideError
from ..scene import dicom_database as dicom
from .section import Section
from .style import allow, fill_box, show_text
from .text import translator

_ = translator(__name__)


class BrowserPart(Section):
    """Four boxes, each filled from the one above.  The database is asked when the part is open, never before."""

    key = "xray"

    def setup(self) -> None:
        """Boxes and buttons."""
        ui = self.ui
        self._boxes = (ui.fgDatabasePatientBox, ui.fgDatabaseStudyBox, ui.fgDatabaseSeriesBox, ui.fgDatabaseImageBox)
        self._lists = (lambda _key: dicom.patients(), dicom.studies, dicom.series, dicom.images)
        self._filled = False
        for level, box in enumerate(self._boxes):
            self.tip(box)
            self.on(box, "currentIndexChanged(int)", lambda index, level=level: self._chosen(level))
        self.button(ui.fgDatabaseRefreshButton, self._refill)
        self.button(ui.fgDatabaseLoadAButton, lambda: self._load(0))
        self.button(ui.fgDatabaseLoadBButton, lambda: self._load(1))

    def leave(self) -> None:
        """Names of patients do not stay in the panel."""
        self._filled = False
        for box in self._boxes:
            fill_box(box, [])

    def key_of(self, level: int) -> str:
        """UID (file for an image) that is chosen in a box; empty when there is none."""
        box = self._boxes[level]
        return str(box.itemData(box.currentIndex) or "") if box.currentIndex >= 0 else ""

    @property
    def study(self) -> str:
        """UID of the chosen study; empty while none is."""
        return self.key_of(1)

    def _refill(self) -> None:
        self._filled = True
        self._fill(0)

    def _fill(self, level: int) -> None:
        """Fill a box, keeping what was chosen when it is still there, and then those below."""
        for at in range(level, len(self._boxes)):
            before, above = self.key_of(at), self.key_of(at - 1) if at else ""
            listed = [(c.text, c.key) for c in self._lists[at](above)] if at == 0 or above else []
            keys = [key for _text, key in listed]
            fill_box(self._boxes[at], listed, before if before in keys else keys[0] if keys else "")

    def _chosen(self, level: int) -> None:
        self.attempt(lambda: self._fill(level + 1))

    def _load(self, index: int) -> None:
        path = self.key_of(3)
        if not path:
            raise FluoroGuideError("No X-ray of the DICOM database is chosen", None, "Choose patient, study, series and image")
        self.panel.xrays_section.read(index, path, self.panel.xrays_section.geometry.card(index))

    def refresh(self) -> None:
        """What can be chosen and loaded now."""
        ui, there = self.ui, dicom.database() is not None
        if there and not self._filled and not ui.fgDatabasePart.collapsed:
            self._refill()
        show_text(ui.fgDatabaseNotes, self._why(there))
        for box in self._boxes:
            box.setEnabled(box.count > 0)
        ready = _("The module is not ready yet.") if self.choices is None else self._why(there) or ("" if self.key_of(3) else _("Choose an image."))
        reading = _("An X-ray is being read.") if self.panel.xrays_section.reading.running else ""
        for button in (ui.fgDatabaseLoadAButton, ui.fgDatabaseLoadBButton):
            allow(button, ready or reading, self.tool_tip(button))
        allow(ui.fgDatabaseRefreshButton, "" if there else self._why(there), self.tool_tip(ui.fgDatabaseRefreshButton))

    def _why(self, there: bool) -> str:
        if not there:
            return _("Slicer's DICOM database is not open: open it in the DICOM module.")
        if self._filled and not self._boxes[0].count:
            return _("The DICOM database holds no patient: import the images in the DICOM module.")
        if self._filled and self.study and not self._boxes[2].count:
            return _("This study holds no X-ray images.")
        return ""

