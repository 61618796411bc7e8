"""The plan of a case: its procedure, its needles as lines in the scene, and what the user does with them.

The plan is kept in the scene at all times (:mod:`.plan_nodes`); :meth:`Planner.store` brings it up to date after the user
placed, dragged or edited something, with a line in its history.  A locked plan does not change: what was dragged goes back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ras
from ..planning.history import changed, is_locked, lock, shoot, unlock
from ..planning.plan import Plan, Target, Trajectory
from ..planning.procedures import Library, Procedure, load_library
from .nodes import KEY, ROLE, find, find_all, plain, text_node, text_value
from .plan_nodes import HELD, build_plan, read_plan_nodes
from .text import translator

if TYPE_CHECKING:
    from .session import CaseSession

_ = translator(__name__)
TRAJECTORY = "FluoroGuide.trajectory"
NOT_TOLD = "not told"
UNDO_STEPS = 30
ON_DETECTOR_MM = 0.1
"""A point so near to a detector's plane was clicked in that X-ray's view."""


class Planner:
    """The plan of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._library: tuple[str, Library] | None = None
        self._undo: list[dict] = []

    def forget(self) -> None:
        """The scene is being closed."""
        self._undo.clear()

    # ---- procedures -------------------------------------------------------------------------------------------------
    def library(self, folder: str = "") -> Library:
        """The shipped procedures and those of the user's folder; read once per folder."""
        if self._library is None or self._library[0] != folder:
            self._library = folder, load_library(*([folder] if folder else []))
        return self._library[1]

    def procedure(self, name: str) -> Procedure | None:
        """The procedure of a key or title; None for free text."""
        known = self.library(self._library[0] if self._library else "").procedures
        return known.get(name) or next((p for p in known.values() if p.title == name), None)

    # ---- the plan ---------------------------------------------------------------------------------------------------
    @property
    def current(self) -> Plan | None:
        """The plan in the scene, its markups where they are now."""
        return read_plan_nodes(self._session.host)

    @property
    def locked(self) -> bool:
        """Whether the plan is locked: its procedure has started."""
        data = text_value(self._session.host, "plan")
        return bool(data and data.get("locked"))

    def plan(self, volume: Any, line: Any, procedure: str) -> Plan:
        """The plan of the scene, with ``line`` (entry, then target) as one of its trajectories.

        The line becomes part of the plan's nodes; trajectories whose line was deleted leave the plan.

        Raises
        ------
        FluoroGuideError
            The line has not two points; or the plan is locked and the line does not belong to it.
        """
        self._check_transform(volume)
        check_line(line)
        plan = self.current
        if plan is not None and is_locked(plan):
            if line.GetAttribute(TRAJECTORY) not in [t.name for t in plan.trajectories]:
                raise FluoroGuideError("The plan is locked because its procedure has started", line.GetName(), "Unlock it with a reason first")
            return plan
        lines = self.lines()
        return self._with_lines(plan, volume, lines if line in lines else [*lines, line], procedure)

    def _with_lines(self, plan: Plan | None, volume: Any, lines: Sequence[Any], procedure: str) -> Plan:
        """The plan with these complete lines as its trajectories, in this order."""
        known = {t.name: t for t in plan.trajectories} if plan is not None else {}
        trajectories: list[Trajectory] = []
        for key, node in enumerate(lines):
            points = self._points_in_volume(volume, node)
            used, name = {t.name for t in trajectories}, node.GetAttribute(TRAJECTORY)
            if not name or name in used:  # a copy made elsewhere in Slicer carries the name of its original
                name = _free_name(node.GetName(), used | set(known))
            old = known.get(name)
            same = old is not None and np.allclose(points, [old.entry_lps_mm, old.target_lps_mm], atol=1e-6)
            new = old or self._new_path(name, points, procedure)
            made = old if same else dataclasses.replace(new, entry_lps_mm=points[0], target_lps_mm=points[1])
            trajectories.append(made)
            for attribute, value in ((ROLE, "trajectory"), (KEY, str(key)), (TRAJECTORY, name)):
                if node.GetAttribute(attribute) != value:
                    node.SetAttribute(attribute, value)
        title = procedure.strip() or NOT_TOLD
        base = plan or Plan(title)
        return dataclasses.replace(base, procedure=title, trajectories=tuple(trajectories), volume_name=base.volume_name or "Volume")

    def sizes(self, procedure: str) -> list[tuple[float, float]]:
        """(gauge, length in mm) of the needles that a procedure names; none for free text."""
        found = self.procedure(procedure)
        needle = found.data["needle"] if found is not None else {"gauge": [], "length_mm": []}
        return [(float(g), float(length)) for g in needle["gauge"] for length in needle["length_mm"]]

    def _new_path(self, name: str, points: np.ndarray, procedure: str) -> Trajectory:
        """A new needle: of the procedure's size when it names just one; of several the user chooses."""
        sizes = self.sizes(procedure)
        return Trajectory(name, *points, *(sizes[0] if len(sizes) == 1 else (None, None)))

    def set_size(self, name: str, gauge: float | None, length_mm: float | None) -> Plan:
        """Another size of a needle of the plan; None: not told.

        Raises
        ------
        FluoroGuideError
            There is no such needle, or the plan is locked.
        """
        old = text_value(self._session.host, "plan")
        plan = Plan.from_dict(old) if old is not None else None
        if plan is None or name not in [t.name for t in plan.trajectories]:
            raise FluoroGuideError("The plan has no such needle", name, "Place it first")
        if is_locked(plan):
            raise FluoroGuideError("The plan is locked because its procedure has started", None, "Unlock it with a reason first")
        paths = tuple(dataclasses.replace(t, gauge=gauge, needle_length_mm=length_mm) if t.name == name else t for t in plan.trajectories)
        made = changed(dataclasses.replace(plan, trajectories=paths, extra={**plan.extra}), f"size of {name}")
        self._remember(old)
        build_plan(self._session.host, made, find(self._session.host, "pose"))
        return made

    def lines(self) -> list[Any]:
        """The complete lines of the plan in their order."""
        found = [n for n in find_all(self._session.host, "trajectory") if n.GetNumberOfDefinedControlPoints() == 2]
        return sorted(found, key=lambda n: int(n.GetAttribute(KEY) or 0))

    def store(self, choices: Any, what: str = "", **extra: object) -> Plan | None:
        """Bring the plan in the scene up to date with its lines and the user's choices; None while there is nothing to keep.

        Parameters
        ----------
        what
            Line of the plan's history; made from what changed when empty.
        extra
            Further keys of the plan (``Plan.extra``).

        Raises
        ------
        FluoroGuideError
            The plan is locked and something would change: it is put back as it was.
        """
        host, volume, line = self._session.host, choices.volume, choices.planLine
        old = text_value(host, "plan")
        plan = Plan.from_dict(old) if old is not None else None
        lines = self.lines()
        if line is not None and line not in lines and line.GetNumberOfDefinedControlPoints() == 2:
            check_line(line)
            lines.append(line)
        if volume is None or (plan is None and not lines and not self.target_node_points(volume)):
            return None
        self._check_transform(volume)
        if plan is not None and is_locked(plan):
            return self._kept(plan, volume, lines)
        made = self._with_lines(plan, volume, lines, choices.procedureName)
        made = dataclasses.replace(made, targets=self._targets(made, volume), **self._told(choices))
        if extra:
            made = dataclasses.replace(made, extra={**made.extra, **extra})
        if old is not None and plain(made) == old and all(n.GetParentTransformNode() is find(host, "pose") for n in lines):
            return made
        made = changed(dataclasses.replace(made, extra={**made.extra}), what or _difference(plan, made))
        self._remember(old)
        build_plan(host, made, find(host, "pose"))
        self._session.refresh_folder()
        return made

    def _kept(self, plan: Plan, volume: Any, lines: Sequence[Any]) -> Plan:
        """A locked plan: markups that were moved go back; an error tells it."""
        planned = {t.name: np.array([t.entry_lps_mm, t.target_lps_mm]) for t in plan.trajectories}
        moved = [n.GetName() for n in lines if n.GetAttribute(TRAJECTORY) in planned
                 and not np.allclose(self._points_in_volume(volume, n), planned[n.GetAttribute(TRAJECTORY)], atol=1e-3)]
        if moved or len([n for n in lines if n.GetAttribute(TRAJECTORY) in planned]) != len(planned):
            build_plan(self._session.host, plan, find(self._session.host, "pose"))
            told = moved[0] if moved else "a needle was deleted"
            raise FluoroGuideError("The plan is locked because its procedure has started, so it was put back", told, "Unlock it with a reason first")
        return plan

    def _told(self, choices: Any) -> dict:
        side = None if choices.laterality == NOT_TOLD else choices.laterality
        procedure = self.procedure(choices.procedureName)
        views = procedure.required_views(side) if procedure is not None else ()
        return {"laterality": side, "level": choices.level.strip() or None, **({"required_views": views} if views else {})}

    # ---- targets ----------------------------------------------------------------------------------------------------
    def target_node(self) -> Any:
        """The fiducials of the plan's targets; made when missing."""
        from .nodes import obtain

        node = obtain(self._session.host, "vtkMRMLMarkupsFiducialNode", "targets", "Targets")
        node.CreateDefaultDisplayNodes()
        return node

    def target_node_points(self, volume: Any) -> dict[str, np.ndarray]:
        """Name -> point (3,), volume LPS mm, of the target markups as they are now."""
        node = find(self._session.host, "targets")
        if node is None:
            return {}
        points, named = self._points_in_volume(volume, node), {}
        for i, point in enumerate(points):
            if node.GetNthControlPointPositionStatus(i) == node.PositionDefined:
                named[_free_name(node.GetNthControlPointLabel(i) or _("target"), set(named))] = point
        return named

    def _targets(self, plan: Plan, volume: Any) -> tuple[Target, ...]:
        known = {t.name: t for t in plan.targets}
        made = []
        for name, point in self.target_node_points(volume).items():
            old = known.get(name)
            if old is not None:
                made.append(old if np.allclose(old.position_lps_mm, point, atol=1e-6) else dataclasses.replace(old, position_lps_mm=point))
            else:
                made.append(Target(name, point))
        return tuple(made)

    def targets(self) -> dict[str, np.ndarray]:
        """Name -> point (3,), volume LPS mm, of everything whose error matters in the scene's plan."""
        plan = self.current
        return {} if plan is None else plan.target_points()

    def refuse_points_on_xrays(self, node: Any, xrays: Sequence[Any]) -> None:
        """A click in an X-ray view gives a point on the detector, not in the patient: take such points away and say so.

        Raises
        ------
        FluoroGuideError
            There were such points.
        """
        views = [self._session.xrays.view(x) for x in xrays if x is not None and self._session.xrays.has_geometry(x)]
        for i in reversed(range(node.GetNumberOfControlPoints())):
            point = lps_from_ras(np.array(node.GetNthControlPointPositionWorld(i), float))
            if any(abs((point - view.detector_center_mm) @ view.beam) < ON_DETECTOR_MM for view in views):
                node.RemoveNthControlPoint(i)
                raise FluoroGuideError("That point lies on an X-ray, not in the patient", node.GetName(), "Place it in a view of the volume")

    # ---- one line ---------------------------------------------------------------------------------------------------
    def line_path(self, volume: Any, line: Any) -> Trajectory:
        """The path of a line with two points in the volume's frame, without changing the plan."""
        return Trajectory(line.GetAttribute(TRAJECTORY) or line.GetName() or "needle", *self._points_in_volume(volume, line))

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

    # ---- lock, rehearsal, undo ----------------------------------------------------------------------------------------
    def _write(self, plan: Plan) -> None:
        self._remember(text_value(self._session.host, "plan"))
        build_plan(self._session.host, plan, find(self._session.host, "pose"))

    def start_procedure(self) -> None:
        """Lock the plan: its procedure starts.

        Raises
        ------
        FluoroGuideError
            There is no plan yet.
        """
        plan = self.current
        if plan is None:
            raise FluoroGuideError("There is no plan to lock", None, "Place the planned needle first")
        build_plan(self._session.host, lock(plan), find(self._session.host, "pose"))
        self._undo.clear()  # what was before the start is not brought back by a slip of the hand

    def unlock(self, reason: str) -> None:
        """Open a locked plan; the reason goes into its history."""
        plan = self.current
        if plan is not None:
            build_plan(self._session.host, unlock(plan, reason), find(self._session.host, "pose"))

    def shoot(self, name: str, view: Any) -> None:
        """Store a rehearsed view; allowed on a locked plan."""
        plan = self.current
        if plan is None:
            raise FluoroGuideError("There is no plan to store the view in", None, "Place the planned needle first")
        text_node(self._session.host, "plan", "Plan", plain(shoot(plan, name, view)))

    def tick(self, items: Sequence[str]) -> None:
        """Keep which items of the procedure's checklist are done; allowed on a locked plan."""
        text_node(self._session.host, "checklist", "Checklist", {"done": list(items)})
        self._session.refresh_folder()

    def ticked(self) -> list[str]:
        """The items of the procedure's checklist that are done."""
        data = text_value(self._session.host, "checklist")
        return list(data["done"]) if data else []

    def _remember(self, old: dict | None) -> None:
        if old is not None:
            self._undo = [*self._undo, old][-UNDO_STEPS:]

    @property
    def can_undo(self) -> bool:
        """Whether :meth:`undo` has something to bring back."""
        return bool(self._undo) and not self.locked

    def undo(self) -> None:
        """Bring back the plan before its last change, its lines included."""
        if not self.can_undo:
            raise FluoroGuideError("There is no change of the plan to undo", None)
        plan = Plan.from_dict(self._undo.pop())
        for node in find_all(self._session.host, "trajectory"):
            if int(node.GetAttribute(KEY) or 0) < len(plan.trajectories):
                node.SetAttribute(TRAJECTORY, plan.trajectories[int(node.GetAttribute(KEY) or 0)].name)
        build_plan(self._session.host, plan, find(self._session.host, "pose"))


def check_line(line: Any) -> None:
    """Refuse lines that cannot be a planned needle.

    Raises
    ------
    FluoroGuideError
        It is a located needle, or has not two points.
    """
    if line.GetAttribute(ROLE) in ("needle", "needle-mark", "suggestion"):
        raise FluoroGuideError("This line is not a plan of your own", line.GetName(), "Choose or place another line")
    if line.GetNumberOfDefinedControlPoints() != 2:
        raise FluoroGuideError("The planned needle needs an entry and a target", f"{line.GetNumberOfDefinedControlPoints()} points", "Place both")


def _free_name(wanted: str, taken: set[str]) -> str:
    names = (wanted if n == 1 else f"{wanted} {n}" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def held(line: Any) -> bool:
    """Whether the user locked this line by itself."""
    return line.GetAttribute(HELD) == "1"


def _difference(old: Plan | None, new: Plan) -> str:
    """What changed between two plans, in words for the history."""
    if old is None:
        return "Plan made."
    before, after = {t.name: t for t in old.trajectories}, {t.name: t for t in new.trajectories}
    told = [f"Needle '{n}' added." for n in after if n not in before] + [f"Needle '{n}' removed." for n in before if n not in after]
    told += [f"Needle '{n}' moved." for n in after if n in before and after[n] is not before[n] and plain(after[n]) != plain(before[n])]
    for key in ("procedure", "laterality", "level"):
        if getattr(old, key) != getattr(new, key):
            told.append(f"{key.capitalize()}: {getattr(new, key) or 'not told'}.")
    if plain(old.targets) != plain(new.targets):
        told.append("Targets changed.")
    return " ".join(told) or "Plan stored."
