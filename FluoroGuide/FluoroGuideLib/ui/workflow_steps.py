"""The workflow from registration to the written report, driven through the widget: buttons clicked, markups placed by MRML calls.

It runs inside the Slicer application (``FluoroGuideTest``) and on the stand-ins alike.  Every step checks against the sample
case's known truth and raises ``AssertionError`` with a sentence when something is wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..geometry.rigid import apply

WAIT_SECONDS = 180.0


class Answers:
    """Answers every question of the panel with files in one folder, and with yes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.opened = Path(folder), ""

    def open_file(self, title: str, kinds: str) -> str:
        """No file is read."""
        return ""

    def open_folder(self, title: str) -> str:
        """The folder."""
        return str(self.folder)

    def save_file(self, title: str, name: str, kinds: str) -> str:
        """A file of the proposed name in the folder."""
        return str(self.folder / name)

    def open_page(self, path: str) -> None:
        """Remember which page would have been shown."""
        self.opened = path

    def confirm(self, question: str) -> bool:
        """Yes."""
        return True

    def ask_text(self, title: str, question: str) -> str:
        """A reason."""
        return "checked by the self test"


class Workflow:
    """The steps; each may be called on its own, in this order.

    Parameters
    ----------
    widget
        The entered ``FluoroGuideWidget``.
    loaded
        What ``FluoroGuideLogic.loadSampleCase`` gave.
    folder
        Where files go.
    process_events
        ``slicer.app.processEvents``.
    """

    def __init__(self, widget: Any, loaded: dict[str, Any], folder: str | Path, process_events: Callable[[], Any]) -> None:
        self.widget, self.panel, self.ui, self.session = widget, widget.panel, widget.ui, widget.logic.session
        self.case, self.xrays, self.line, self.volume = loaded["case"], loaded["xrays"], loaded["line"], loaded["volume"]
        self._process = process_events
        self.answers = self.panel.dialogs = Answers(folder)
        self.session.recorder.folder = Path(folder) / "journals"  # not among the user's own

    # ---- help -------------------------------------------------------------------------------------------------------------
    def wait(self, condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Let the window live until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not in time: {what}; the panel says: {self.ui.fgStatus.text}")
            self._process()
            time.sleep(0.01)

    def settle(self, seconds: float = 0.2) -> None:
        """Let timers run."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end, "settling")

    def click(self, name: str) -> None:
        """Click a button that must be enabled."""
        button = getattr(self.ui, name)
        check(button.enabled, f"{name} is disabled: {button.toolTip}")
        button.click()

    def error_mm(self) -> float:
        """How far the registered target is from the truth."""
        pose = self.session.registrar.registration.pose
        return float(np.linalg.norm(apply(pose, self.case.target_lps_mm) - apply(self.case.pose, self.case.target_lps_mm)))

    # ---- steps ------------------------------------------------------------------------------------------------------------
    def register(self) -> None:
        """Register from the C-arm's angles; the target lands within 1 mm."""
        self.panel.mode.open("Register")
        self.panel.refresh()
        self.click("fgRegisterButton")
        self.wait(lambda: not self.panel.register.running, "the registration")
        registration = self.session.registrar.registration
        check(registration is not None, f"there is no registration: {self.ui.fgStatus.text}")
        check(registration.verdict != "fail", " ".join(registration.reasons))
        check(self.error_mm() < 1.0, f"the target is {self.error_mm():.2f} mm off")
        self.wait(lambda: not self.session.engine.busy, "the projected volume")
        check(self.panel.register.compare.shown.shown == (0, 1), "the projected volume is not laid over both X-rays")

    def cancel(self) -> None:
        """A registration that is cancelled leaves pose, record and history as they were."""
        before = self._state()
        self.click("fgRegisterButton")
        self.settle(0.3)
        self.click("fgCancelButton")
        self.wait(lambda: not self.panel.register.running, "the cancelled registration", 5.0)
        check(self._state() == before, "a cancelled registration changed something")

    def _state(self) -> tuple:
        record = self.session.recorder.record
        return (
            self.session.registrar.registration.pose.tolist(), len(self.session.registrar.history.entries()), len(record.timeline),
            self.volume.GetParentTransformNode().GetID(),
        )

    def undo(self) -> None:
        """Register again from the present position, then go back to the first registration and accept it."""
        first = self.session.registrar.registration.pose
        self.ui.fgStartCombo.setCurrentIndex(1)
        self.ui.fgSearchCheck.setChecked(False)
        self.register()
        check(len(self.session.registrar.history.entries()) == 2, "the history does not hold both registrations")
        self.ui.fgHistoryTable.selectRow(1)
        self.settle()
        self.click("fgRestoreButton")
        check(np.array_equal(self.session.registrar.registration.pose, first), "the first registration did not come back")
        check(not self.panel.stale(), "the first registration is stale although nothing was changed")
        self.click("fgAcceptRegistrationButton")
        check(self.session.recorder.record.registrations[-1].get("accepted") is None, "the wrong registration was accepted")
        check(self.session.recorder.record.registrations[0].get("accepted") is True, "the acceptance is not in the record")

    def guide(self) -> None:
        """Mark the needle, see its distance, keep the views, answer the contrast question, accept the placement."""
        self.panel.mode.open("Guide")
        for index, xray in enumerate(self.xrays):
            self.click(("fgMarkAButton", "fgMarkBButton")[index])
            self.session.guidance.set_marks(index, xray, self.case.marks(index))
        self.settle()
        planned = float(np.linalg.norm(self.case.tip_lps_mm - self.case.target_lps_mm))
        found = self.session.guidance.deviation(self.line)
        check(found is not None and abs(found.tip_mm - planned) < 1.0, f"the tip is told {found and found.tip_mm} mm off instead of {planned:.1f}")
        check(f"Tip {found.tip_mm:.1f} mm" in self.ui.fgNeedleResult.text, "the distance is not shown")
        self.click("fgCaptureAButton")
        self.click("fgCaptureBButton")
        self.ui.fgContrastAgentEdit.setText("iohexol 300")
        self.click("fgVascularNoButton")
        self.click("fgRecordButton")
        record = self.session.recorder.record
        check(len(record.placements) == 1, "the placement is not in the record")
        check(len(record.key_images) == 3, f"{len(record.key_images)} pictures are kept instead of 3")
        check(record.contrast[-1]["vascular"] is False, "the contrast check is not in the record")

    def record(self) -> None:
        """What was given, the dose, the files; the journal goes when the record is safe."""
        ui = self.ui
        self.panel.mode.open("Record")
        ui.fgDrugEdit.setText("triamcinolone")
        ui.fgConcentrationEdit.setText("40 mg/ml")
        self.click("fgDrugButton")
        self.click("fgPainButton")
        self.click("fgNoComplicationButton")
        self.click("fgCareButton")
        ui.fgDapEdit.setText("1.2 Gy.cm2")
        ui.fgTimeEdit.setText("39 s")
        self.click("fgDoseManualButton")
        keeper = self.session.recorder.record.keeper
        check(keeper is not None and keeper.journal.path.exists(), f"there is no journal: {self.session.recorder.problem}")
        self.take_back()
        self.written("fgReportButton")
        check(Path(self.answers.opened).is_file(), "the report was not written")
        self.written("fgExportAllButton")
        self.written("fgExportButton")
        written = json.loads((self.answers.folder / "record.json").read_text(encoding="utf-8"))
        check(len(written["placements"]) == 1 and written["dose"]["dap_gy_m2"] == 1.2e-4, "the exported record is incomplete")
        check(len(written["injectate"]) == len(written["pain"]) == 1, "what was given is not in the exported record")
        journal = keeper.journal.path
        self.click("fgFinishButton")
        check(not journal.exists(), f"the journal is still there: {self.ui.fgStatus.text}")

    def written(self, name: str) -> None:
        """Click a button that has files written, and wait until the engine has written them."""
        self.click(name)
        self.wait(lambda: not self.panel.record.writing.running, f"the files of {name}")

    def take_back(self) -> None:
        """The newest entry, the dose, is withdrawn with a reason, and put back."""
        record = self.session.recorder.record
        self.click("fgWithdrawButton")
        check(record.dose is None and record.withdrawn, f"the entry was not withdrawn: {self.ui.fgStatus.text}")
        self.click("fgReinstateButton")
        check(record.dose is not None, f"the entry was not put back: {self.ui.fgStatus.text}")

    def run(self, say: Callable[[str], Any] = lambda text: None) -> None:
        """All steps."""
        steps = {
            "Registering": self.register, "Cancelling": self.cancel, "Going back": self.undo, "Guiding": self.guide, "Recording": self.record,
        }
        for text, step in steps.items():
            say(text)
            step()


def check(holds: object, sentence: str) -> None:
    """Raise ``AssertionError`` with a sentence."""
    if not holds:
        raise AssertionError(sentence)
