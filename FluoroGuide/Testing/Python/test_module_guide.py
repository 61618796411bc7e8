"""The Guide section on the stand-ins."""

from __future__ import annotations

import numpy as np

from module_case import TARGET, TIP_OFFSET, fill, mark, register, tick

pytest_plugins = ["module_fixture"]


def test_a_dragged_plan_is_kept_and_used(widget):
    _volume, line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    local = [-TARGET[0], -TARGET[1], TARGET[2] + 2.0]  # RAS: onto the needle's tip
    line.SetNthControlPointPosition(1, *local)
    tick(0.1)
    assert "Tip 0.0 mm" in widget.ui.fgNeedleResult.text
    widget.ui.fgRegisterButton.click()
    np.testing.assert_allclose(widget.engine.arguments[3]["L4 left"], TARGET + TIP_OFFSET, atol=1e-6)


def test_a_mark_off_the_xray_is_refused(widget):
    _volume, _line, nodes = fill(widget)
    register(widget)
    mark(widget, nodes)
    node = widget.logic.session.guidance.mark_node(0)
    node.SetNthControlPointPositionWorld(0, 0.0, 0.0, 0.0)
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert "does not lie on the X-ray" in widget.ui.fgStatus.text


def test_marks_show_in_their_own_xray_view_only(widget):
    fill(widget)
    for index, name in enumerate(("XRayA", "XRayB")):
        display = widget.logic.session.guidance.mark_node(index).GetDisplayNode()
        assert [display.GetNthViewNodeID(i) for i in range(display.GetNumberOfViewNodeIDs())] == [f"vtkMRMLSliceNode{name}"]
