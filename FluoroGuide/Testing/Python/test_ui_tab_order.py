"""The Tab key goes through the panel as the eye does: downwards, and from left to right in a row."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest_plugins = ["module_fixture"]
UI_FILES = sorted((Path(__file__).resolve().parents[2] / "Resources" / "UI").glob("*.ui"))
WIDTH_PX = 450


@pytest.mark.parametrize("path", UI_FILES, ids=lambda p: p.name)
def test_rows_and_columns_stand_in_reading_order(path):
    """Qt's order of focus is the order in which widgets are made, which is that of the file; no list of tab stops overrides it."""
    root = ET.parse(path).getroot()
    assert root.find("tabstops") is None
    for layout in root.iter("layout"):
        if layout.get("class") in ("QFormLayout", "QGridLayout"):
            cells = [(int(item.get("row")), int(item.get("column"))) for item in layout.findall("item")]
            assert cells == sorted(cells), layout.get("name")


def _takes_tab(widget):
    from PySide6.QtCore import Qt

    return bool(widget.focusPolicy & Qt.TabFocus)  # a property here, as in PythonQt


def _chain(top):
    """Visible widgets under ``top`` that the Tab key stops at, in the order of the focus chain."""
    found, widget = [], top.nextInFocusChain()
    while widget is not top:
        if top.isAncestorOf(widget) and widget.isVisibleTo(top) and _takes_tab(widget):
            found.append(widget)
        widget = widget.nextInFocusChain()
    return found


def test_the_focus_follows_the_layout(widget):
    from PySide6.QtCore import QPoint

    import qt

    ui, top = widget.ui, widget.parent
    ui.fgExpertCheck.setChecked(True)
    for name, found in vars(ui).items():
        if name.endswith(("Section", "Part")) and hasattr(found, "collapsed"):
            found.collapsed = False
    top.setFixedWidth(WIDTH_PX)
    top.show()
    try:
        for _ in range(2):
            top.resize(WIDTH_PX, max(3000, top.layout().totalHeightForWidth(WIDTH_PX)))
            qt.application.processEvents()
        stops = _chain(top)
        assert len(stops) > 100
        wrong = []
        for before, after in itertools.pairwise(stops):
            a, b = (w.mapTo(top, QPoint(0, 0)) for w in (before, after))
            above, level = b.y() + after.height <= a.y(), abs(b.y() + after.height / 2 - a.y() - before.height / 2) < 6
            if above or (level and b.x() < a.x()):
                wrong.append(f"{before.objectName} ({a.x()}, {a.y()}) -> {after.objectName} ({b.x()}, {b.y()})")
        assert not wrong, wrong
    finally:
        top.hide()
