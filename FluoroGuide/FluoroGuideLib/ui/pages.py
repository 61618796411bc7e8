"""The panel's widgets: the frame of ``FluoroGuide.ui`` with the page of each section, from a .ui file of its own, in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import qt

PAGES = ("Plan", "Xray", "Register", "Guide", "Record")
"""``PlanSection.ui`` goes into ``fgPlanSection``, and so on."""


def load_pages(load_ui: Callable[[str], Any], path_of: Callable[[str], str]) -> Any:
    """The whole panel's widget.

    Each page is a ``qMRMLWidget`` that passes its scene on to its own node selectors; the frame passes its scene on to the
    pages.  The sections are open while the pages are put in: what is added to a closed one would stay hidden.
    """
    frame = load_ui(path_of("FluoroGuide"))
    for name in PAGES:
        page = load_ui(path_of(f"{name}Section"))
        frame.findChild("ctkCollapsibleButton", f"fg{name}Section").layout().addWidget(page)
        frame.connect("mrmlSceneChanged(vtkMRMLScene*)", page, "setMRMLScene(vtkMRMLScene*)")
    order_focus([frame.findChild("ctkCollapsibleButton", f"fg{name}Section") for name in PAGES])
    return frame


def order_focus(headers: list[Any]) -> None:
    """Let the Tab key go from a section's header into its page before the next header: Qt put the pages, which came later, after all headers."""
    stops = [w for header in headers for w in (header, *list(header.findChildren("QWidget"))) if _takes_focus(w, header)]
    for before, after in itertools.pairwise(stops):
        qt.QWidget.setTabOrder(before, after)


def _takes_focus(widget: Any, header: Any) -> bool:
    """Whether Tab may stop at a widget; the lists that combo boxes drop down are windows of their own."""
    return widget.focusPolicy != qt.Qt.NoFocus and widget.window() == header.window()
