"""A plan's life: who changed what and when, locked while a procedure runs, and the views rehearsed on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from .jsonfile import take
from .plan import Plan


@dataclass(frozen=True)
class PlanEvent:
    """One line of a plan's history: when (UTC, ISO 8601) and what."""

    utc: str
    what: str

    def to_dict(self) -> dict:
        """Plain data for JSON."""
        return {"utc": self.utc, "what": self.what}


@dataclass(frozen=True, eq=False)
class RehearsedView:
    """A view shot in virtual fluoroscopy: name, when, and the view in the planning volume's frame."""

    name: str
    utc: str
    view: CArmView
    angles: str = ""

    def to_dict(self) -> dict:
        """Plain data for JSON."""
        return {"name": self.name, "utc": self.utc, "angles": self.angles, "view": self.view.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping) -> RehearsedView:
        """The view written by :meth:`to_dict`."""
        return cls(*(take(data, key, "rehearsed view") for key in ("name", "utc")), CArmView.from_dict(take(data, "view", "rehearsed view")),
                   data.get("angles", ""))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _with(plan: Plan, what: str, **extra: object) -> Plan:
    history = [*plan.extra.get("history", []), PlanEvent(_now(), what).to_dict()]
    return dataclasses.replace(plan, extra={**plan.extra, **extra, "history": history})


def is_locked(plan: Plan) -> bool:
    """Whether the plan is locked."""
    return bool(plan.extra.get("locked", False))


def history(plan: Plan) -> list[PlanEvent]:
    """The plan's history, oldest first."""
    return [PlanEvent(take(e, "utc", "plan's history"), take(e, "what", "plan's history")) for e in plan.extra.get("history", [])]


def lock(plan: Plan, why: str = "Locked: the procedure starts.") -> Plan:
    """The plan locked; nothing happens to one that is."""
    return plan if is_locked(plan) else _with(plan, why, locked=True)


def unlock(plan: Plan, why: str) -> Plan:
    """The plan open again; the reason goes into its history.

    Raises
    ------
    FluoroGuideError
        No reason was given.
    """
    if not why.strip():
        raise FluoroGuideError("A locked plan is opened only with a reason", None, "Say why it must change")
    return _with(plan, f"Unlocked: {why.strip()}", locked=False) if is_locked(plan) else plan


def changed(plan: Plan, what: str, **fields: object) -> Plan:
    """The plan with fields of :class:`Plan` replaced, and a line in its history.

    Raises
    ------
    FluoroGuideError
        The plan is locked.
    """
    if is_locked(plan):
        raise FluoroGuideError("The plan is locked because its procedure has started", what, "Unlock it with a reason first")
    return _with(dataclasses.replace(plan, **fields), what)


def shoot(plan: Plan, name: str, view: CArmView) -> Plan:
    """The plan with a rehearsed view stored; allowed on a locked plan too, since it moves nothing."""
    shot = RehearsedView(name, _now(), view, describe_angles(*view.angles_deg))
    return _with(plan, f"Rehearsed view '{name}', {shot.angles}.", rehearsed_views=[*plan.extra.get("rehearsed_views", []), shot.to_dict()])


def rehearsed_views(plan: Plan) -> list[RehearsedView]:
    """The views stored by :func:`shoot`, oldest first."""
    return [RehearsedView.from_dict(v) for v in plan.extra.get("rehearsed_views", [])]
