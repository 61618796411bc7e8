"""The planned needles as a list that the user edits: new, copy, order, colour, lock, name, delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FluoroGuideError
from .nodes import KEY, ROLE
from .plan_nodes import COLORS, HELD
from .planner import TRAJECTORY, held
from .text import translator

if TYPE_CHECKING:
    from .session import CaseSession

_ = translator(__name__)
PALETTE = (COLORS["plan"], (0.80, 0.47, 0.65), (0.90, 0.62, 0.0), (0.0, 0.62, 0.45), (0.84, 0.37, 0.0))
"""Okabe and Ito's colours, safe for the colour-blind; offered one after the other."""
COPY_APART_MM = 5.0


@dataclass(frozen=True)
class NeedleRow:
    """One needle of the list: its line, its name, colour (0..1), whether it is held, its length in mm."""

    node: Any
    name: str
    color: tuple[float, float, float]
    held: bool
    length_mm: float


class NeedleList:
    """The needles of a session's plan.  Each edit ends with ``Planner.store``, which the panel calls."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session

    def rows(self) -> list[NeedleRow]:
        """The needles in their order."""
        return [self._row(node) for node in self._session.planner.lines()]

    @staticmethod
    def _row(node: Any) -> NeedleRow:
        display = node.GetDisplayNode()
        color = tuple(display.GetSelectedColor()) if display is not None else COLORS["plan"]
        ends = np.array([node.GetNthControlPointPosition(i) for i in range(2)])
        return NeedleRow(node, node.GetAttribute(TRAJECTORY), color, held(node), float(np.linalg.norm(ends[1] - ends[0])))

    def _must_be_open(self) -> None:
        if self._session.planner.locked:
            raise FluoroGuideError("The plan is locked because its procedure has started", None, "Unlock it with a reason first")

    def new(self) -> Any:
        """An empty line to place: entry first, then target.

        Raises
        ------
        FluoroGuideError
            The plan is locked.
        """
        self._must_be_open()
        scene, rows = self._session.host.scene, self.rows()
        taken = {row.name for row in rows}
        name = next(f"Needle {n}" for n in range(1, len(taken) + 2) if f"Needle {n}" not in taken)
        node = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
        self._dress(node, PALETTE[len(rows) % len(PALETTE)])
        return node

    @staticmethod
    def _dress(node: Any, color: tuple[float, float, float]) -> None:
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetColor(*color)
        display.SetSelectedColor(*color)
        display.SetSnapMode(display.SnapModeUnconstrained)  # a target lies inside the body, not on a visible surface

    def line(self, name: str, entry_ras: np.ndarray, target_ras: np.ndarray, parent: Any | None) -> Any:
        """A line from points (3,) in RAS of the parent transform."""
        node = self.new()
        node.SetName(name)
        node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
        for point, label in ((entry_ras, "entry"), (target_ras, "target")):
            node.AddControlPoint(*map(float, point))
            node.SetNthControlPointLabel(node.GetNumberOfControlPoints() - 1, label)
        return node

    def copy(self, node: Any) -> Any:
        """A copy of a needle, its entry 5 mm cranial so that both can be seen and grasped."""
        points = np.array([node.GetNthControlPointPosition(i) for i in range(2)])
        points[0, 2] += COPY_APART_MM
        return self.line(f"{node.GetAttribute(TRAJECTORY) or node.GetName()} copy", points[0], points[1], node.GetParentTransformNode())

    def move(self, node: Any, step: int) -> None:
        """One place up (-1) or down (+1) in the list; nothing happens at its ends."""
        self._must_be_open()
        nodes = [row.node for row in self.rows()]
        here = nodes.index(node)
        there = here + step
        if 0 <= there < len(nodes):
            nodes[here], nodes[there] = nodes[there], nodes[here]
            for key, item in enumerate(nodes):
                item.SetAttribute(KEY, str(key))

    def color(self, node: Any, rgb: tuple[float, float, float]) -> None:
        """Another colour (0..1)."""
        self._dress(node, rgb)

    def hold(self, node: Any, on: bool) -> None:
        """Lock a needle by itself, or free it."""
        self._must_be_open()
        node.SetAttribute(HELD, "1" if on else None)
        node.SetLocked(on)

    def rename(self, node: Any, name: str) -> None:
        """Another name.

        Raises
        ------
        FluoroGuideError
            No name, or another needle has it.
        """
        self._must_be_open()
        name = name.strip()
        if not name:
            raise FluoroGuideError("A needle needs a name", None)
        if name in [row.name for row in self.rows() if row.node is not node]:
            raise FluoroGuideError("Another needle has this name", name, "Choose another name")
        node.SetAttribute(TRAJECTORY, name)
        node.SetName(name)

    def delete(self, node: Any) -> None:
        """Remove a needle from plan and scene (undo brings it back)."""
        self._must_be_open()
        if held(node):
            raise FluoroGuideError("The needle is locked", node.GetName(), "Unlock it first")
        node.RemoveAttribute(ROLE)
        self._session.host.scene.RemoveNode(node)
        for key, row in enumerate(self.rows()):
            row.node.SetAttribute(KEY, str(key))
