"""The workflow as a state machine: per section what is missing, what may run, and what a change has invalidated.

:func:`states` is a pure function of :class:`Facts`, so it needs neither Qt nor a scene; :func:`gather` reads the facts from
a session and the user's choices.  All texts are whole sentences for the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .text import translator

_ = translator(__name__)
SECTIONS = ("plan", "xray", "register", "guide", "record")


@dataclass(frozen=True)
class Facts:
    """What is there now; see :func:`gather`.

    Attributes
    ----------
    ready
        The module has its parameter node.
    volume, plan_points
        A volume is chosen and holds voxels; how many points the chosen needle's line has.
    volume_is_xray
        Volume and an X-ray are the same node.
    level, level_confirmed
        A level is named; a person has confirmed how the vertebrae were counted.
    locked
        The plan is locked: the procedure has started.
    blocked
        Why identity or side forbid to go on; empty when nothing does.
    xrays
        Per slot: ``""`` (none), ``"no geometry"`` or ``"ok"``.
    same_xray
        Both slots hold one node.
    running
        A registration runs.
    verdict
        Of the registration in the scene; empty without one.
    changed
        What was changed since the registration, one sentence each.
    needle
        A needle is located.
    placements
        How many are recorded.
    """

    ready: bool = True
    volume: bool = False
    plan_points: int = 0
    volume_is_xray: bool = False
    level: bool = False
    level_confirmed: bool = False
    locked: bool = False
    blocked: str = ""
    xrays: tuple[str, str] = ("", "")
    same_xray: bool = False
    running: bool = False
    verdict: str = ""
    changed: tuple[str, ...] = ()
    needle: bool = False
    placements: int = 0


@dataclass(frozen=True)
class SectionState:
    """What a section's status line says.

    Attributes
    ----------
    missing
        Why the section's main action cannot run, one sentence; empty when it may.
    invalid
        What a change has made worthless, one sentence; empty when nothing.
    ready
        What may be done next, one sentence.
    done
        The section's result is there and valid.
    """

    missing: str = ""
    invalid: str = ""
    ready: str = ""
    done: bool = False

    @property
    def kind(self) -> str:
        """Colour of the status line: ``pass`` when done, ``warn`` when a change spoilt the result, else ``idle``."""
        return "warn" if self.invalid else "pass" if self.done else "idle"

    @property
    def text(self) -> str:
        """The status line."""
        return " ".join(part for part in (self.invalid, self.missing or self.ready) if part)


def states(facts: Facts) -> dict[str, SectionState]:
    """The state of every section, by the names of :data:`SECTIONS`."""
    if not facts.ready:
        return dict.fromkeys(SECTIONS, SectionState(missing=_("The module is not ready yet.")))
    made = {"plan": _plan(facts), "xray": _xray(facts)}
    made["register"] = _register(facts, made)
    made["guide"] = _guide(facts, made)
    made["record"] = _record(facts, made)
    return made


def next_section(made: dict[str, SectionState]) -> str:
    """The first section whose result is not there; the last one when all are."""
    return next((name for name in SECTIONS if not made[name].done), SECTIONS[-1])


def _plan(facts: Facts) -> SectionState:
    if not facts.volume:
        return SectionState(_("Choose the patient's CT volume."))
    if facts.plan_points < 2:
        return SectionState(_("Place the planned needle: its entry, then its target."))
    if facts.blocked:
        return SectionState(_("{why} Check patient, plan and images, or confirm with a reason.").format(why=facts.blocked))
    if facts.level and not facts.level_confirmed:
        return SectionState(_("Confirm the level: say that the vertebrae were counted."))
    if facts.locked:
        return SectionState(ready=_("The plan is complete and locked: the procedure has started."), done=True)
    return SectionState(ready=_("The plan is complete. Lock it when the procedure starts."), done=True)


def _xray(facts: Facts) -> SectionState:
    if not facts.xrays[0]:
        return SectionState(_("Load X-ray A."))
    if facts.same_xray:
        return SectionState(_("X-ray A and B are the same image: choose two."))
    for side, state in zip("AB", facts.xrays, strict=True):
        if state == "no geometry":
            return SectionState(_("X-ray {side} has no C-arm geometry: load its file with the Load button.").format(side=side))
    if facts.volume_is_xray:
        return SectionState(_("The volume and an X-ray are the same node: choose others."))
    if not facts.xrays[1]:
        return SectionState(ready=_("One X-ray is there: it shows no depth. Load X-ray B for the needle's depth."), done=True)
    return SectionState(ready=_("Both X-rays are there."), done=True)


def _register(facts: Facts, made: dict[str, SectionState]) -> SectionState:
    if facts.running:
        return SectionState(_("A registration runs."))
    missing = made["plan"].missing or made["xray"].missing
    if not facts.verdict:
        return SectionState(missing, ready=_("Register the volume to the X-rays."))
    if facts.changed:
        return SectionState(missing, " ".join(facts.changed), _("Register again."))
    if facts.verdict == "fail":
        return SectionState(missing, ready=_("The registration failed: change its start or its X-rays and register again."))
    return SectionState(missing, ready=_("The volume is registered."), done=not missing)


def _guide(facts: Facts, made: dict[str, SectionState]) -> SectionState:
    missing = made["plan"].missing
    if not missing and not facts.verdict:
        missing = _("Register first.")
    elif not missing and facts.changed:
        missing = _("The registration is old: register again.")
    elif not missing and facts.verdict == "fail":
        missing = _("The registration failed, so distances are not shown.")
    elif not missing and "" in facts.xrays:
        missing = _("A second X-ray is needed: one view shows no depth.")
    elif not missing and not facts.needle:
        missing = _("Mark the needle's tip and shaft in both X-rays.")
    return SectionState(missing, ready=_("The needle is located."), done=not missing)


def _record(facts: Facts, made: dict[str, SectionState]) -> SectionState:
    missing = made["plan"].missing or made["xray"].missing or made["guide"].missing
    if facts.placements:
        told = _("1 placement is recorded.") if facts.placements == 1 else _("{count} placements are recorded.").format(count=facts.placements)
        return SectionState(missing, ready=told, done=True)
    return SectionState(missing, ready=_("Record the placement."))


# ---- facts from the scene ---------------------------------------------------------------------------------------------------
def gather(session: Any, choices: Any | None, running: bool = False) -> Facts:
    """The facts of now: ``session`` is a :class:`~.session.CaseSession`, ``choices`` the parameter node or None."""
    if choices is None:
        return Facts(ready=False)
    xrays, level = (choices.xrayA, choices.xrayB), choices.level.strip()
    registration, record = session.registrar.registration, session.recorder.record
    return Facts(
        volume=choices.volume is not None, plan_points=choices.planLine.GetNumberOfDefinedControlPoints() if choices.planLine is not None else 0,
        level=bool(level), level_confirmed=bool(level) and choices.confirmedLevel == level, locked=session.planner.locked,
        volume_is_xray=choices.volume is not None and choices.volume in xrays, blocked=session.identity.blocked(choices),
        xrays=tuple(_slot(session, node) for node in xrays), same_xray=xrays[0] is not None and xrays[0] is xrays[1], running=running,
        verdict="" if registration is None else registration.verdict,
        changed=session.registrar.changed(choices.volume, [node for node in xrays if node is not None]),
        needle=session.guidance.needle is not None, placements=len(record.placements) if record is not None else 0,
    )


def _slot(session: Any, node: Any | None) -> str:
    return "" if node is None else "ok" if session.xrays.has_geometry(node) else "no geometry"

