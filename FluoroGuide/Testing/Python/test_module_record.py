"""The Record section on the stand-ins: the whole workflow to the exported record."""

from __future__ import annotations

import numpy as np
import pytest

from module_case import ENTRY, TARGET, fill, mark, register

pytest_plugins = ["module_fixture"]


def test_plan_register_mark_record_export(widget, tmp_path):
    import json

    import slicer

    volume, line, nodes = fill(widget)
    widget.panel.refresh()
    assert widget.ui.fgPlanResult.text.startswith(f"{np.linalg.norm(ENTRY - TARGET):.1f} mm long")
    register(widget)
    sent, images, initial, targets = widget.engine.arguments
    assert (len(images), initial) == (2, None)
    np.testing.assert_allclose(targets["L4 left"], TARGET)
    # volume LPS (1, 2, 3) goes to (-2 + 5, 1 - 3, 3 + 7) = (3, -2, 10) LPS by hand, which is RAS (-3, 2, 10)
    moved = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld([-1.0, -2.0, 3.0], moved)
    np.testing.assert_allclose(moved, (-3, 2, 10), atol=1e-9)
    np.testing.assert_allclose(line.GetNthControlPointPosition(1), TARGET * (-1, -1, 1), atol=1e-9, err_msg="the plan stays in the volume's frame")
    assert widget.ui.fgErrorTable.item(0, 0).text() == "L4 left"

    mark(widget, nodes)
    text = widget.ui.fgNeedleResult.text
    assert "Tip 2.0 mm" in text
    assert "2.0 mm cranial" in text
    assert "0.0° off" in text
    overlays = [n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if n.GetAttribute("FluoroGuide.role") == "overlay"]
    assert {n.GetAttribute("FluoroGuide.key")[0] for n in overlays} == {"0", "1"}

    widget.ui.fgRecordButton.click()
    assert [widget.ui.fgPlacementTable.item(0, c).text() for c in range(2)] == ["L4 left", "2.0"]
    widget.panel.dialogs.answer = tmp_path / "record.json"
    widget.ui.fgExportButton.click()
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["placements"][0]["deviation"]["tip_mm"] == pytest.approx(2.0, abs=0.05)
    assert record["procedure"] == "biopsy"
    assert [len(record["views"]), len(record["registrations"]), record["patient_key"]] == [2, 1, None]
    widget.ui.fgRecordButton.click()
    again = widget.logic.session.recorder.record
    assert [len(again.views), len(again.registrations), len(again.placements)] == [2, 1, 2]


def test_dose_report_goes_into_the_record(widget, data_dir):
    files = sorted((data_dir / "rdsr_fluoro").rglob("*.dcm"))
    assert files
    widget.panel.dialogs.answer = files[0]
    widget.ui.fgDoseButton.click()
    assert "Dose area product" in widget.ui.fgDoseResult.text
    assert widget.ui.fgExportButton.enabled

