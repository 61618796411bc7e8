"""The panel's widgets: the frame of ``FluoroGuide.ui`` with the page of each section, from a .ui file of its own, in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    return frame
