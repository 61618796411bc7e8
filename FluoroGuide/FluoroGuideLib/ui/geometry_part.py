"""X-ray, geometry: the report of an X-ray with values that can be changed, and values given by hand."""

from __future__ import annotations

from typing import Any

import qt

from ..errors import FluoroGuideError
from ..imaging.geometry_report import shown
from ..imaging.presets import PRESETS, preset
from .section import Section
from .style import allow, fill_box, fill_table, prepare_table, show_text
from .text import translator

_ = translator(__name__)
EDITABLE = {
    "source_to_detector_mm", "source_to_isocenter_mm", "primary_angle_deg", "secondary_angle_deg", "pixel_spacing_mm", "principal_point_px",
    "image_rotation_deg", "table_offset_mm", "horizontal_flip", "patient_position", "angle_reference",
}
"""Quantities that a C-arm card can give (:mod:`~FluoroGuideLib.imaging.geometry_card`)."""


class GeometryPart(Section):
    """One slot's report at a time."""

    key = "xray"

    def setup(self) -> None:
        """Table, slot and preset boxes."""
        ui = self.ui
        self.given: dict[int, dict] = {}
        prepare_table(ui.fgGeometryTable)
        fill_box(ui.fgSlotBox, [(_("X-ray A"), "0"), (_("X-ray B"), "1")], "0")
        fill_box(ui.fgPresetBox, [(_("choose"), ""), *((p.name, p.name) for p in PRESETS)], "")
        self.on(ui.fgSlotBox, "currentIndexChanged(int)", lambda index: self.panel.refresh_later())
        self.on(ui.fgPresetBox, "currentIndexChanged(int)", self._preset_chosen)
        self.on(ui.fgGeometryTable, "cellChanged(int,int)", self._edited)
        self.on(ui.fgFrameSpin, "valueChanged(int)", self._frame_chosen)
        self.button(ui.fgFromNodeButton, self._from_node)

    def leave(self) -> None:
        """Forget what was given for files of another scene."""
        self.given.clear()

    @property
    def slot(self) -> int:
        """The slot that is shown: 0 (A) or 1 (B)."""
        return max(self.ui.fgSlotBox.currentIndex, 0)

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

    def entered(self, index: int) -> dict[str, Any]:
        """The entered values of a slot as they stand in the parameter node, by name."""
        side = "AB"[index]
        return {name: self.choices.getValue(name) for name in (
            "useEnteredGeometry", *(k + side for k in ("primary", "secondary", "sid", "sod", "spacing")))}

    # ---- changes ------------------------------------------------------------------------------------------------------
    def _preset_chosen(self, index: int) -> None:
        name = self.ui.fgPresetBox.itemData(index)
        if not name or self.choices is None:
            return
        found, side = preset(name), "AB"[self.slot]
        self.panel.xrays_section.remember(self.slot)
        for key, parameter in (("source_to_detector_mm", "sid"), ("source_to_isocenter_mm", "sod")):
            if key in found.card:
                self.choices.setValue(parameter + side, float(found.card[key]))
        loaded = self.session.xrays.loaded.get(self.slot)
        if loaded is not None:
            rows, columns = loaded.picture.pixels.shape
            try:
                self.choices.setValue("spacing" + side, float(found.card_for(rows, columns)["pixel_spacing_mm"][0]))
            except FluoroGuideError:  # the picture is not square, so the field's size does not tell its spacing
                pass
        self.panel.tell("warn", _("Starting values."), f"{found.note[0].upper()}{found.note[1:]}.")

    def _frame_chosen(self, number: int) -> None:
        loaded = self.session.xrays.loaded.get(self.slot)
        if loaded is not None and number - 1 != loaded.frame:
            self.attempt(lambda: self._again(frame=number - 1))

    def _again(self, frame: int | None = None, **changes: object) -> None:
        """Read the slot's file again, with another frame or changed values."""
        loaded, section = self.session.xrays.loaded[self.slot], self.panel.xrays_section
        card = {**self.given.get(self.slot, {}), **changes}
        section.read(self.slot, loaded.path, card, loaded.frame if frame is None else frame, section.picture.options.get(self.slot))

    def _edited(self, row: int, column: int) -> None:
        report = self.session.xrays.report(self.slot)
        if column != 1 or report is None or not 0 <= row < len(report["entries"]):
            return
        entry, text = report["entries"][row], self.ui.fgGeometryTable.item(row, 1).text()
        if text != shown(entry["value"], entry["unit"]):
            self.attempt(lambda: self._again(**{entry["name"]: value_of(text, entry)}))

    def _from_node(self) -> None:
        node, missing = self.panel.xray(self.slot), self._no_file()
        if missing:
            raise FluoroGuideError(missing.rstrip("."), None)
        self.panel.xrays_section.read(self.slot, self.session.xrays.file_of(node), self.card(self.slot))

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """The report of the slot that is shown."""
        ui = self.ui
        ui.fgGeometryValues.setVisible(bool(self.choices and self.choices.useEnteredGeometry))
        loaded = self.session.xrays.loaded.get(self.slot) if self.choices else None
        report = self.session.xrays.report(self.slot) if self.choices else None
        blocked = ui.fgGeometryTable.blockSignals(True)
        entries = report["entries"] if report else []
        fill_table(ui.fgGeometryTable, [self._row(e) for e in entries])
        for n, entry in enumerate(entries):
            self._dress(n, entry, loaded is not None)
        ui.fgGeometryTable.blockSignals(blocked)
        show_text(ui.fgGeometryNotes, self._notes(report, loaded))
        blocked = ui.fgFrameSpin.blockSignals(True)
        ui.fgFrameSpin.setMaximum(loaded.frames if loaded is not None else 1)
        ui.fgFrameSpin.setSuffix(f" / {loaded.frames}" if loaded is not None and loaded.frames > 1 else "")
        ui.fgFrameSpin.setValue(loaded.frame + 1 if loaded is not None else 1)
        ui.fgFrameSpin.setEnabled(loaded is not None and loaded.frames > 1)
        ui.fgFrameSpin.blockSignals(blocked)
        allow(ui.fgFromNodeButton, self._no_file(), self.tool_tip(ui.fgFromNodeButton))

    def _no_file(self) -> str:
        if self.choices is None:
            return _("The module is not ready yet.")
        node = self.panel.xray(self.slot)
        if node is None:
            return _("Choose a volume of the scene as X-ray {side} first.").format(side="AB"[self.slot])
        return "" if self.session.xrays.file_of(node) else _("The file that this volume was made from is not known: load it with the Load button.")

    @staticmethod
    def _row(entry: dict) -> list[str]:
        effect = "" if entry["effect_mm"] is None else f"{entry['effect_mm']:.1f} mm"
        label = entry["label"].split(" (")[0]
        return [label, shown(entry["value"], entry["unit"]), entry["origin"], effect]

    def _dress(self, row: int, entry: dict, editable: bool) -> None:
        table, may = self.ui.fgGeometryTable, editable and entry["name"] in EDITABLE
        why = _("Double-click to change it.") if may else _("Load the file again to change it.") if entry["name"] in EDITABLE else ""
        for column in range(4):
            item = table.item(row, column)
            if column != 1 or not may:
                item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
            tip = [entry["label"], entry["note"], why if column == 1 else "", f"{entry['step']}" if column == 3 and entry["step"] else ""]
            item.setToolTip("\n".join(t for t in tip if t))

    @staticmethod
    def _notes(report: dict | None, loaded: Any) -> str:
        if report is None:
            return _("The report appears here when an X-ray is loaded.")
        told = [_("Missing: {what}.").format(what="; ".join(report["missing"]))] if report["missing"] else []
        told += [a[0].upper() + a[1:] + ("" if a.endswith(".") else ".") for a in report["assumptions"]]
        return " ".join(told + ([loaded.error] if loaded is not None and loaded.error and not report["missing"] else []))


def value_of(text: str, entry: dict) -> object:
    """A value as the C-arm card wants it from what the user typed: a number, several (``0.3 x 0.3``), yes or no, or words.

    Raises
    ------
    FluoroGuideError
        It cannot be read.
    """
    words = text.replace(entry["unit"], "").strip() if entry["unit"] else text.strip()
    if entry["name"] in ("patient_position", "angle_reference"):
        return words
    if entry["name"] == "horizontal_flip":
        if words.lower() in ("yes", "no"):
            return words.lower() == "yes"
        raise FluoroGuideError("The value is neither yes nor no", text)
    try:
        numbers = [float(w.replace(",", ".")) for w in words.replace("x", " ").split()]
    except ValueError:
        numbers = []
    pair = entry["name"] in ("pixel_spacing_mm", "principal_point_px")
    wanted = 2 if pair else 3 if entry["name"] == "table_offset_mm" else 1
    if entry["name"] == "pixel_spacing_mm" and len(numbers) == 1:
        numbers *= 2
    if len(numbers) != wanted:
        raise FluoroGuideError(f"{entry['label']} needs {wanted} number{'s' if wanted > 1 else ''}", text, "For instance 0.3 x 0.3" if pair else "")
    return numbers if wanted > 1 else numbers[0]
