"""The X-ray section on the stand-ins."""

from __future__ import annotations

import numpy as np

from module_case import tick

pytest_plugins = ["module_fixture"]


def test_a_picture_is_loaded_with_the_entered_values(widget, tmp_path):
    import SimpleITK as sitk

    ramp = np.tile(np.arange(100, dtype=np.uint8), (60, 1)) + np.arange(60, dtype=np.uint8)[:, None]
    sitk.WriteImage(sitk.GetImageFromArray(ramp), str(tmp_path / "x.png"))
    widget.panel.dialogs.answer = tmp_path / "x.png"
    widget.ui.fgLoadAButton.click()
    tick(0.1)
    assert "X-ray A is not complete" in widget.ui.fgStatus.text, "geometry is never assumed"
    p = widget._parameterNode
    p.useEnteredGeometry, p.primaryA, p.secondaryA, p.sidA, p.sodA, p.spacingA = True, 30.0, -10.0, 1100.0, 700.0, 0.4
    widget.ui.fgLoadAButton.click()
    tick(0.1)
    assert widget.ui.fgXrayAResult.text.startswith("LAO 30.0 CAU 10.0, SID 1100 mm, 100 x 60 pixels of 0.400 mm")
    assert widget.ui.fgXrayASelector.currentNode() is p.xrayA
