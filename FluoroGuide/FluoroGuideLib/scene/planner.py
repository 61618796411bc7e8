"""The plan of a case: which lines are its needles, and what they become in the volume's frame."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ras
from ..planning.plan import Plan, Trajectory
from .nodes import KEY, ROLE, find_all
from .plan_nodes import read_plan_nodes

if TYPE_CHECKING:
    from .session import CaseSession

TRAJECTORY = "FluoroGuide.trajectory"


class Planner:
    """The plan of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session

    def plan(self, volume: Any, line: Any, procedure: str) -> Plan:
        """The plan of the scene, with ``line`` (entry, then target) as one of its trajectories.

        The line becomes part of the plan's nodes; trajectories whose line was deleted leave the plan.

        Raises
        ------
        FluoroGuideError
            The line has not two points.
        """
        self._check_transform(volume)
        if line.GetAttribute(ROLE) in ("needle", "needle-mark"):
            raise FluoroGuideError("This line is a located needle, not a plan", line.GetName(), "Choose or place another line")
        if line.GetNumberOfDefinedControlPoints() != 2:
            raise FluoroGuideError("The planned needle needs an entry and a target", f"{line.GetNumberOfDefinedControlPoints()} points", "Place both")
        points = self._points_in_volume(volume, line)
        plan = read_plan_nodes(self._session.host)
        kept = [node for node in find_all(self._session.host, "trajectory") if node is not line]
        known = {t.name: t for t in plan.trajectories} if plan is not None else {}
        name = line.GetAttribute(TRAJECTORY) or self._free_name(line.GetName(), {n.GetAttribute(TRAJECTORY) for n in kept})
        own = dataclasses.replace(known[name], entry_lps_mm=points[0], target_lps_mm=points[1]) if name in known else Trajectory(name, *points)
        kept = [node for node in kept if node.GetAttribute(TRAJECTORY) in known]
        for key, node in enumerate([*kept, line]):
            node.SetAttribute(ROLE, "trajectory")
            node.SetAttribute(KEY, str(key))
        line.SetAttribute(TRAJECTORY, name)
        trajectories = (*(known[n.GetAttribute(TRAJECTORY)] for n in kept), own)
        title = procedure.strip() or "not told"
        base = plan or Plan(title)
        return dataclasses.replace(base, procedure=title, trajectories=trajectories, volume_name=base.volume_name or "Volume")

    def line_path(self, volume: Any, line: Any) -> Trajectory:
        """The path of a line with two points in the volume's frame, without changing the plan."""
        return Trajectory(line.GetName() or "needle", *self._points_in_volume(volume, line))

    def targets(self) -> dict[str, np.ndarray]:
        """Name -> point (3,), volume LPS mm, of everything whose error matters in the scene's plan."""
        plan = read_plan_nodes(self._session.host)
        return {} if plan is None else plan.target_points()

    @staticmethod
    def _free_name(wanted: str, taken: set[str]) -> str:
        names = (wanted if n == 1 else f"{wanted} {n}" for n in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    @staticmethod
    def _points_in_volume(volume: Any, line: Any) -> np.ndarray:
        """Control points (N, 3) of a line in the volume's own LPS frame, whatever transforms both hang under."""
        points = []
        for i in range(line.GetNumberOfControlPoints()):
            local = [0.0, 0.0, 0.0]
            volume.TransformPointFromWorld(list(line.GetNthControlPointPositionWorld(i)), local)
            points.append(local)
        return lps_from_ras(np.array(points, float).reshape(-1, 3))

    def _check_transform(self, volume: Any) -> None:
        parent = volume.GetParentTransformNode()
        if parent is not None and parent.GetAttribute(ROLE) != "pose":
            raise FluoroGuideError("The volume hangs under a transform of its own", parent.GetName(), "Harden or remove that transform first")

    def blocked(self, choices: Any) -> str:
        """Why the case's identity or side forbids to go on, one sentence; empty when nothing does."""
        return ""
