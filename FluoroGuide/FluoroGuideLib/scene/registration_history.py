"""Every registration of a case, to go back to: kept in the scene as text, so that it is saved with it.

What a registration was made from is known by *content marks*: a node keeps its mark while its pixels stay, so a
registration that is brought back is stale exactly when its volume or X-rays have changed since.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FluoroGuideError
from ..registration.result import Registration
from .host import Host
from .nodes import find, plain, text_node, text_value
from .record_nodes import build_pose, build_registration, registration_of
from .xray_slots import STAMP

ROLE = "registration-history"
CONTENT = "FluoroGuide.content"
MOST = 50
"""Older ones go: a history is for going back, not an archive (the record keeps all)."""


@dataclass(frozen=True)
class Entry:
    """One registration of the past.

    Attributes
    ----------
    number
        1, 2, ...; never given twice.
    utc
        When, ISO text: also the stamp that its nodes carry.
    verdict
        ``pass``, ``warn`` or ``fail``.
    error_mm
        The largest predicted error at a target, or None.
    start, part
        Where it began and what was registered, in words.
    accepted
        What the user decided; None: not yet.
    present
        Whether it is the one in the scene.
    """

    number: int
    utc: str
    verdict: str
    error_mm: float | None
    start: str
    part: str
    accepted: bool | None
    present: bool


class RegistrationHistory:
    """The registrations of a scene; ``host`` gives the scene of now."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self._read: tuple | None = None

    @property
    def host(self) -> Host:
        """The scene of now."""
        return self._host()

    def entries(self) -> list[Entry]:
        """All of them, oldest first."""
        stored = find(self.host, "registration")
        present = stored.GetAttribute(STAMP) if stored is not None else None
        names = ("number", "utc", "verdict", "error_mm", "start", "part", "accepted")
        return [Entry(**{k: item[k] for k in names}, present=item["utc"] == present) for item in self._items()]

    def add(
        self, registration: Registration, utc: str, made_from: Sequence[Any], targets: dict[str, np.ndarray], start: str = "", part: str = "",
    ) -> Entry:
        """Remember a registration that was just put into the scene; ``made_from``: its volume and X-rays, already marked."""
        items = self._items()
        errors = [e.predicted_error_mm for e in registration.target_error(targets)] if np.isfinite(registration.covariance).all() else []
        data = registration.to_dict()
        data["facts"] = registration.facts
        items.append(plain({
            "number": 1 + max((i["number"] for i in items), default=0), "utc": utc, "verdict": registration.verdict,
            "error_mm": max(errors, default=None), "start": start, "part": part, "accepted": None,
            "made_from": [mark(node) for node in made_from], "registration": data,
        }))
        self._store(items[-MOST:])
        return self.entries()[-1]

    def registration(self, number: int) -> Registration:
        """The registration of an entry, as it was."""
        return registration_of(self._item(number)["registration"])

    def restore(self, number: int, volume: Any, xrays: Sequence[Any]) -> Registration:
        """Bring an earlier registration back: pose, numbers, and the stamp of what is still the same; the volume hangs under it."""
        item = self._item(number)
        registration = registration_of(item["registration"])
        pose = build_pose(self.host, registration.pose)
        build_registration(self.host, registration).SetAttribute(STAMP, item["utc"])
        for node in (volume, *xrays):
            if node is not None and node.GetAttribute(STAMP) and node.GetAttribute(CONTENT) in item["made_from"]:
                node.SetAttribute(STAMP, item["utc"])
        if volume is not None and volume.GetAttribute(CONTENT) in item["made_from"]:
            volume.SetAndObserveTransformNodeID(pose.GetID())
        return registration

    def decide(self, number: int, accepted: bool) -> None:
        """The user accepted or rejected it."""
        items = self._items()
        for item in items:
            if item["number"] == number:
                item["accepted"] = accepted
        self._store(items)

    def _item(self, number: int) -> dict:
        for item in self._items():
            if item["number"] == number:
                return item
        raise FluoroGuideError("There is no such registration any more", number, "Choose one of the list")

    def _items(self) -> list[dict]:
        node = find(self.host, ROLE)
        key = None if node is None else (node.GetID(), node.GetMTime())
        if self._read is None or self._read[0] != key:
            stored = text_value(self.host, ROLE)
            self._read = key, [] if stored is None else stored["entries"]
        return [dict(item) for item in self._read[1]]

    def _store(self, items: list[dict]) -> None:
        node = text_node(self.host, ROLE, "Registration history", {"format": "fluoroguide-registration-history", "version": 1, "entries": items})
        node.SetHideFromEditors(True)


def mark(node: Any) -> str:
    """The content mark of a node, given when it has none."""
    if not node.GetAttribute(CONTENT):
        node.SetAttribute(CONTENT, str(uuid.uuid4()))
    return node.GetAttribute(CONTENT)


def remark(nodes: Sequence[Any]) -> None:
    """Before a registration is put into the scene: nodes without a stamp have other pixels than at the last one, and get another mark."""
    for node in nodes:
        if not node.GetAttribute(STAMP):
            node.SetAttribute(CONTENT, str(uuid.uuid4()))
