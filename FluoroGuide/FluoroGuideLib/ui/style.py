"""Colours, verdict labels and tables of the panels."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import qt

COLORS = {"pass": "#2e7d32", "warn": "#b26a00", "fail": "#b3261e", "idle": "#666666"}
"""White text on each of them has a contrast of at least 4.5; the verdict is always written in words too."""
ROW_PX, MOST_ROWS = 22, 6
_BOX = "QLabel {{ color: white; background: {}; border-radius: 3px; padding: 4px 6px; }}"


_TICKS = (
    "QListWidget::indicator {{ width: 11px; height: 11px; border: 1px solid #8a8a8a; border-radius: 2px; }}"
    " QListWidget::indicator:checked {{ background: {}; }}"
)


def show_ticks(box: Any) -> None:
    """Tick boxes of a list that are seen on dark palettes too, where a style's own are black on black."""
    box.setStyleSheet(_TICKS.format(COLORS["pass"]))


def show_banner(label: Any, kind: str, word: str, text: str, big: bool = False) -> None:
    """A coloured box with a word in bold (``big``: to be read from the table) and a sentence; without text it is hidden."""
    label.setVisible(bool(text))
    size = " style='font-size: x-large'" if big else ""
    label.setText(f"<b{size}>{escape(word)}</b>&nbsp; {escape(text)}" if text else "")
    label.setStyleSheet(_BOX.format(COLORS[kind]) if text else "")


def show_numbers(label: Any, kind: str, word: str, lines: Sequence[str]) -> None:
    """A coloured box to be read from the table: one big word, then lines, the first of them large; hidden without a word."""
    label.setVisible(bool(word))
    sizes = ["font-size: 15pt"] + [""] * len(lines)
    rows = [f"<div style='font-size: 26pt'><b>{escape(word)}</b></div>"]
    rows += [f"<div style='{size}'>{escape(line)}</div>" for size, line in zip(sizes, lines, strict=False)]
    label.setText("".join(rows) if word else "")
    label.setStyleSheet(_BOX.format(COLORS[kind]) if word else "")


def show_status(label: Any, kind: str, text: str) -> None:
    """A section's status line: a coloured bar at its left, the text in the palette's own colour; without text it is hidden."""
    label.setTextFormat(qt.Qt.PlainText)
    label.setText(text)
    label.setStyleSheet(f"QLabel {{ border: 0px solid {COLORS[kind]}; border-left-width: 5px; padding: 2px 6px; }}")
    label.setVisible(bool(text))


def show_text(label: Any, text: str) -> None:
    """Plain words; without text the label is hidden, so that no gap stays."""
    label.setTextFormat(qt.Qt.PlainText)
    label.setText(text)
    label.setVisible(bool(text))


def allow(button: Any, missing: str, tool_tip: str) -> None:
    """Enable a button, or say in its tool tip what is missing."""
    button.setEnabled(not missing)
    button.setToolTip(missing or tool_tip)


def prepare_table(table: Any) -> None:
    """First column takes the room; no row numbers; rows as low as the text."""
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(ROW_PX)
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
    for column in range(1, table.columnCount):
        table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)


def fill_table(table: Any, rows: Sequence[Sequence[str]]) -> None:
    """Texts into a table; numbers (all but the first column) to the right.  An empty table is hidden."""
    table.setVisible(bool(rows))
    table.setRowCount(len(rows))
    table.setFixedHeight(ROW_PX * min(len(rows), MOST_ROWS) + 28)
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            if c:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            table.setItem(r, c, item)


def paint_cell(table: Any, row: int, column: int, color: str) -> None:
    """A cell's background in a colour, its text white: legible on light and dark palettes."""
    item = table.item(row, column)
    if item is not None:
        item.setBackground(qt.QBrush(qt.QColor(color)))
        item.setForeground(qt.QBrush(qt.QColor("white")))


def choose_data(box: Any, value: str) -> None:
    """Show the entry of a combo box that has this data, without telling anyone."""
    index = box.findData(value)
    if index != box.currentIndex:
        blocked = box.blockSignals(True)
        box.setCurrentIndex(index)
        box.blockSignals(blocked)


def fill_box(box: Any, entries: Sequence[tuple[str, str]], chosen: str = "") -> None:
    """(text, data) entries of a combo box, changed only when they differ, without telling anyone."""
    if [(box.itemText(i), box.itemData(i)) for i in range(box.count)] != list(entries):
        blocked = box.blockSignals(True)
        box.clear()
        for text, data in entries:
            box.addItem(text, data)
        box.blockSignals(blocked)
    choose_data(box, chosen)
