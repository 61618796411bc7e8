"""Gauge and length of the chosen needle: those that the procedure names, or those it has."""

from __future__ import annotations

from typing import Any

from ..scene.planner import TRAJECTORY
from .style import fill_box
from .text import translator

_ = translator(__name__)


class NeedleSize:
    """The size box of the needle list (``part``: :class:`~.needle_part.NeedlePart`)."""

    def __init__(self, part: Any) -> None:
        self._part, self._box = part, part.ui.fgNeedleSizeBox
        part.tip(self._box)
        part.on(self._box, "currentIndexChanged(int)", self._picked)

    def _path(self) -> Any | None:
        """The planned path of the chosen needle, or None."""
        node, plan = self._part.chosen(), self._part.session.planner.current
        name = node.GetAttribute(TRAJECTORY) if node is not None else None
        return next((t for t in plan.trajectories if t.name == name), None) if plan is not None else None

    def refresh(self, missing: str) -> None:
        """The sizes of now; ``missing``: why none may be chosen."""
        path, sizes = self._path(), []
        if self._part.choices is not None and path is not None:
            sizes = list(self._part.session.planner.sizes(self._part.choices.procedureName))
            own = (path.gauge, path.needle_length_mm)
            sizes += [own] if own != (None, None) and own not in sizes else []
        entries = [(_("not told"), ""), *((self._text(*size), self._key(*size)) for size in sizes)]
        fill_box(self._box, entries, self._key(path.gauge, path.needle_length_mm) if path is not None else "")
        self._box.setEnabled(not missing and len(entries) > 1)
        why = missing or ("" if len(entries) > 1 else _("The procedure names no needle."))
        self._box.setToolTip(why or self._part.tool_tip(self._box))

    @staticmethod
    def _text(gauge: float | None, length_mm: float | None) -> str:
        parts = [f"{gauge:g} G" if gauge is not None else "", f"{length_mm:g} mm" if length_mm is not None else ""]
        return ", ".join(p for p in parts if p)

    @staticmethod
    def _key(gauge: float | None, length_mm: float | None) -> str:
        return "" if gauge is None and length_mm is None else f"{gauge}/{length_mm}"

    def _picked(self, index: int) -> None:
        key = self._box.itemData(index) if index >= 0 else None
        if key is None or self._path() is None:
            return
        gauge, length = (None if word == "None" else float(word) for word in key.split("/")) if key else (None, None)
        self._part.attempt(lambda: self._part.session.planner.set_size(self._path().name, gauge, length))
