# ruff: noqa: PT009 (unittest runs this inside Slicer)
"""The module's own test of the panel, step by step: run by ``FluoroGuideTest`` in the application and on the stand-ins.

Nothing here needs a main window.  The steps wait for the module's timers by letting the application handle its events,
as Slicer's own tests do.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WAIT_SECONDS = 180.0
"""A loaded machine starts the engine's process slowly."""


class Answers:
    """Dialogs that answer by themselves: under test Slicer's own say no to everything."""

    def __init__(self) -> None:
        self.path, self.text = "", ""

    def open_file(self, title: str, kinds: str) -> str:
        """The prepared path."""
        return self.path

    open_folder = open_file

    def save_file(self, title: str, name: str, kinds: str) -> str:
        """The prepared path."""
        return self.path

    def confirm(self, question: str) -> bool:
        """Yes."""
        return True

    def ask_text(self, title: str, question: str) -> str:
        """The prepared text."""
        return self.text


class PanelSteps:
    """Drives a panel that shows the sample case.

    Parameters
    ----------
    test
        A ``unittest.TestCase``.
    panel
        The module's panel.
    loaded
        What ``load_sample_case`` returned.
    process_events
        Lets the application work (``slicer.app.processEvents``).
    """

    def __init__(self, test: Any, panel: Any, loaded: dict, process_events: Callable[[], None]) -> None:
        self.test, self.panel, self.loaded, self._events = test, panel, loaded, process_events
        self.ui, self.answers = panel.ui, Answers()
        panel.dialogs = self.answers

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + WAIT_SECONDS
        while not done():
            self.test.assertLess(time.monotonic(), end, f"{what} did not happen; the panel says: {self.ui.fgStatus.text}")
            self._events()
            time.sleep(0.01)

    def click(self, button: Any) -> None:
        """Click a button that must be enabled."""
        self.test.assertTrue(button.enabled, f"{button.name}: {button.toolTip}")
        button.click()

    def plan(self) -> None:
        """Procedure, side, checks and views, suggestions, the needle list, virtual fluoroscopy, lock."""
        ui, p, planner, needles = self.ui, self.panel.choices, self.panel.session.planner, self.panel.plan.needles
        p.procedureName, p.laterality = "vertebroplasty_transpedicular", "left"
        self.until(lambda: ui.fgViewTable.rowCount >= 4 and not needles.checking.running, "the check of the needle")
        self.test.assertIn("mm long", ui.fgPlanResult.text)
        self.click(ui.fgNeedleCopyButton)
        self.test.assertEqual(len(planner.current.trajectories), 2)
        self.click(ui.fgNeedleDeleteButton)
        self.click(ui.fgPlanUndoButton)
        self.test.assertEqual(len(planner.current.trajectories), 2)
        self.click(ui.fgPlanUndoButton)
        self.test.assertEqual(len(planner.current.trajectories), 1)
        p.planLine = self.loaded["line"]
        self.until(lambda: ui.fgSuggestButton.enabled, "the suggestion button")
        self.click(ui.fgSuggestButton)
        self.until(lambda: ui.fgSuggestionTable.rowCount > 0, "the suggestion of entries")
        self.click(ui.fgSuggestionDropButton)
        self._fluoroscopy()
        self._lock()

    def _fluoroscopy(self) -> None:
        ui, carm = self.ui, self.panel.plan.carm
        self.panel.mode.open("Plan")
        ui.fgCarmPart.collapsed = False
        self.until(lambda: ui.fgViewTable.rowCount >= 4, "the C-arm views")
        ui.fgViewTable.setCurrentCell(0, 0)
        self.until(lambda: carm._picture is not None, "the picture of virtual fluoroscopy")
        self.click(ui.fgShootButton)
        self.test.assertEqual(ui.fgRehearsedBox.count, 2)

    def _lock(self) -> None:
        ui, planner = self.ui, self.panel.session.planner
        planner.tick([ui.fgChecklist.item(n).text() for n in range(ui.fgChecklist.count)])
        self.panel.refresh()
        self.click(ui.fgLockButton)
        self.test.assertTrue(planner.locked)
        self.test.assertFalse(ui.fgNewNeedleButton.enabled)
        self.answers.text = "self-test"
        self.click(ui.fgUnlockButton)
        self.test.assertFalse(planner.locked)

    def xray(self) -> None:
        """A DICOM file written, loaded, its SID changed and changed back; a stored reference image."""
        from ..imaging.xa_writer import write_xa

        ui, p, image = self.ui, self.panel.choices, self.loaded["case"].images[0]
        shown = image.pixels / max(float(image.pixels.max()), 1e-6)
        stored = np.rint(60000 * np.exp(-3 * np.clip(shown, 0, 1))).astype(np.uint16)
        primary, secondary = image.view.angles_deg
        with tempfile.TemporaryDirectory() as folder:
            self.answers.path = str(Path(folder) / "a.dcm")
            write_xa(self.answers.path, stored, primary_deg=primary, secondary_deg=secondary, sid_mm=image.view.sid_mm,
                     sod_mm=float(np.linalg.norm(image.view.source_mm)), pixel_spacing_mm=image.view.pixel_spacing_mm)
            before = p.xrayA
            self.click(ui.fgLoadAButton)
            self.until(lambda: not self.panel.xrays_section.reading.running, "reading the X-ray")
            self.test.assertIs(p.xrayA, before, "the slot keeps its node")
            view = self.panel.session.xrays.view(p.xrayA)
            points = np.array([[0.0, 0, 0], [40, -30, 50], [-20, 60, -35]])
            np.testing.assert_allclose(view.project(points), image.view.project(points), atol=0.05)  # tags are rounded decimals
            row = next(r for r in range(ui.fgGeometryTable.rowCount) if ui.fgGeometryTable.item(r, 0).text().startswith("SID"))
            for value in ("1050 mm", f"{image.view.sid_mm:g} mm"):
                ui.fgGeometryTable.item(row, 1).setText(value)
                self.until(lambda: not self.panel.xrays_section.reading.running, "reading it again")
                self.test.assertAlmostEqual(self.panel.session.xrays.view(p.xrayA).sid_mm, float(value.split()[0]), places=3)
        self.click(ui.fgKeepButton)
        self.test.assertEqual(ui.fgReferenceTable.rowCount, 1)
