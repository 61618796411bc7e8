#!/usr/bin/env python3
"""Pictures of the panel for ``Docs/tutorial.md``: the module's widget on the Qt stand-ins, 450 px wide, driven through the phantom case.

They show the panel's layout and texts; fonts and styles in Slicer differ.  ``--dark`` with a dark palette, for looking only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH_PX = 450
DARK = {"Window": "#2d2d2d", "WindowText": "#e6e6e6", "Base": "#1f1f1f", "AlternateBase": "#2a2a2a", "Text": "#e6e6e6", "Button": "#3a3a3a",
        "ButtonText": "#e6e6e6", "Highlight": "#3d6fa5", "HighlightedText": "#ffffff", "PlaceholderText": "#999999"}
sys.path[:0] = [str(ROOT / "FluoroGuide"), str(ROOT / "FluoroGuide" / "Testing" / "Host")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def set_palette(application: object) -> None:
    """A dark palette, as Slicer's dark style."""
    from PySide6.QtGui import QColor, QPalette

    palette = QPalette()
    for role, color in DARK.items():
        palette.setColor(getattr(QPalette, role), QColor(color))
    for role in ("WindowText", "Text", "ButtonText"):
        palette.setColor(QPalette.Disabled, getattr(QPalette, role), QColor("#808080"))
    application.setPalette(palette)


class Camera:
    """Photographs the panel."""

    def __init__(self, widget: object, folder: Path, suffix: str) -> None:
        import qt

        self._top, self._folder, self._suffix, self._application = widget.parent, folder, suffix, qt.application
        self._top.setFixedWidth(WIDTH_PX)
        self._top.show()

    def shoot(self, name: str) -> None:
        """Write one picture."""
        import module_case

        module_case.tick(0.3)
        for _ in range(2):  # the second pass knows the wrapped texts' heights
            height = max(self._top.minimumSizeHint.height(), self._top.layout().totalHeightForWidth(WIDTH_PX))
            self._top.resize(WIDTH_PX, height)
            self._application.processEvents()
        path = self._folder / f"panel_{name}{self._suffix}.png"
        self._top.grab().save(str(path))
        print(path)


def main(arguments: list[str]) -> int:
    """The whole workflow, a picture of each section."""
    import unittest

    import module_case
    import qt
    import slicer_app
    from FluoroGuideLib.scene import host as host_module

    dark = "--dark" in arguments
    folder = Path(next((a for a in arguments if not a.startswith("-")), ROOT / "Docs" / "pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["FLUOROGUIDE_DATA"] = tempfile.mkdtemp(prefix="fluoroguide-pictures-")
    qt.application.setStyle("Fusion")
    if dark:
        set_palette(qt.application)
    host = host_module.start()
    app, _messages, undo = slicer_app.install(host.scene, main_window=False, app_logic=host.app_logic)
    module = slicer_app.load_module(module_case.MODULE_FILE)[0]
    widget = slicer_app.make_widget(module, "FluoroGuide")
    slicer_app.enter(widget)
    try:
        photograph(widget, Camera(widget, folder, "_dark" if dark else ""), unittest.TestCase(), app.processEvents)
    finally:
        slicer_app.leave(widget)
        widget.cleanup()
        undo()
    return 0


def photograph(widget: object, camera: Camera, test: object, process_events: object) -> None:
    """Each section when its work is done."""
    from FluoroGuideLib.ui.self_test import PanelSteps
    from FluoroGuideLib.ui.workflow_steps import Workflow

    camera.shoot("start")
    loaded, ui, panel = widget.logic.loadSampleCase(), widget.ui, widget.panel
    steps = PanelSteps(test, panel, loaded, process_events)
    steps.plan()
    panel.choices.level = panel.choices.confirmedLevel = "L4"
    camera.shoot("plan_carm")
    ui.fgCarmPart.collapsed, ui.fgProcedurePart.collapsed = True, False
    steps.click(ui.fgSuggestButton)
    steps.until(lambda: ui.fgSuggestionTable.rowCount > 0, "the suggestion of entries")
    camera.shoot("plan")
    steps.click(ui.fgSuggestionDropButton)
    panel.mode.open("Xray")
    ui.fgGeometryPart.collapsed = False
    steps.xray()
    camera.shoot("xray_geometry")
    ui.fgGeometryPart.collapsed, ui.fgPicturePart.collapsed = True, False
    camera.shoot("xray_picture")
    ui.fgPicturePart.collapsed = True
    show_sources(widget)
    camera.shoot("xray_sources")
    ui.fgDatabasePart.collapsed = ui.fgLivePart.collapsed = True
    hide_sources(panel)
    for name, node in zip(("xrayA", "xrayB"), loaded["xrays"], strict=True):
        panel.choices.setValue(name, node)
    for index, image in enumerate(loaded["case"].images):  # the phantom's own pictures again
        widget.logic.session.xrays.add(image, index)
    with tempfile.TemporaryDirectory() as folder:
        work = Workflow(widget, loaded, folder, process_events)
        work.register()
        camera.shoot("register")
        work.guide()
        camera.shoot("guide")
        panel.mode.open("Record")
        enter_things(work)
        camera.shoot("record")


def show_sources(widget: object) -> None:
    """The DICOM database (a stand-in with invented patients) and two live sources."""
    import slicer

    from dicom_database import Database

    run = {"patient": "1", "name": "PHANTOM^LUMBAR", "study": "1.1", "0008,0020": "20260302", "0008,1030": "Spine", "series": "1.1.2",
           "0008,0060": "XA", "0020,0011": "2", "0008,103e": "lateral run", "0020,0013": "1", "0028,0008": "42", "uid": "1.1.2.1"}
    slicer.dicomDatabase = Database({"run.dcm": run})
    ui, p = widget.ui, widget.panel.choices
    ui.fgDatabasePart.collapsed = ui.fgLivePart.collapsed = False
    p.sourceKind, p.secondKind = "igtl", "replay"
    widget.panel.refresh()


def hide_sources(panel: object) -> None:
    """As before."""
    import slicer

    del slicer.dicomDatabase
    panel.choices.sourceKind, panel.choices.secondKind = "volume", "none"


def enter_things(work: object) -> None:
    """What is typed in during a procedure, and one entry taken back."""
    ui = work.ui
    for drug, strength in (("triamcinolone", "40 mg/ml"), ("bupivacaine", "0.25 %")):
        ui.fgDrugEdit.setText(drug)
        ui.fgConcentrationEdit.setText(strength)
        work.click("fgDrugButton")
    work.click("fgWithdrawButton")
    work.click("fgPainButton")
    work.click("fgNoComplicationButton")
    ui.fgDapEdit.setText("1.2 Gy.cm2")
    ui.fgTimeEdit.setText("39 s")
    work.click("fgDoseManualButton")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
