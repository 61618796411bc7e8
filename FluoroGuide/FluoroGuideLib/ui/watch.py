"""Observing one node at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Watch:
    """Calls back at some events of the node that is watched now; watching another lets go of the first."""

    def __init__(self, callback: Callable[[], None], *events: str) -> None:
        self._callback, self._events = callback, events
        self._node: Any | None = None
        self._tags: list[int] = []

    def set(self, node: Any | None) -> None:
        """Watch ``node``; None watches nothing.  ``events`` are names of its class's event numbers."""
        if node is self._node:
            return
        for tag in self._tags:
            self._node.RemoveObserver(tag)
        self._node = node
        self._tags = [] if node is None else [node.AddObserver(getattr(node, event), lambda *_: self._callback()) for event in self._events]
