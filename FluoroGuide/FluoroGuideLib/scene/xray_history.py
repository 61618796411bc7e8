"""Going back in the X-ray section: what a slot held, and by which values it was read, before each change.

The pictures are kept in memory while the module is open, the newest few; nothing of it goes into the scene or the record, which only hears
of an X-ray once it was registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import FluoroGuideError
from ..imaging.xray import XrayImage
from .geometry_table import build_geometry_table
from .nodes import find, remove

if TYPE_CHECKING:
    from .session import CaseSession
    from .xray_slots import Loaded

KEPT = 8
"""Steps that can be taken back."""


@dataclass(frozen=True, eq=False)
class SlotState:
    """What a slot was before a change.

    Attributes
    ----------
    index
        0 (A) or 1 (B).
    chosen
        Id of the node that was chosen for it; empty without one.
    image, stamp
        Picture and geometry of the slot's own node (None: there was none), and the registration that it was used in.
    loaded
        What it was read from.
    notes
        What the panel wants back: the values given for the file, the normalisation's choices, the entered geometry.
    reference
        Key of a reference image that the step stored; empty for other steps.
    """

    index: int
    chosen: str
    image: XrayImage | None
    stamp: str | None
    loaded: Loaded | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""


class XrayHistory:
    """Steps of a session's X-ray slots, newest last."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._steps: list[SlotState] = []

    def remember(self, index: int, chosen: Any | None, notes: Mapping[str, Any]) -> None:
        """Keep what slot ``index`` holds now, before it is changed."""
        from .xray_slots import STAMP

        slots = self._session.xrays
        node = find(self._session.host, "xray", str(index))
        try:
            image = slots.image(node) if node is not None and slots.has_geometry(node) else None
        except FluoroGuideError:  # somebody replaced its pixels: nothing that could be put back
            image = None
        stamp = node.GetAttribute(STAMP) if node is not None else None
        self._push(SlotState(index, chosen.GetID() if chosen is not None else "", image, stamp, slots.loaded.get(index), notes))

    def stored(self, index: int, reference: Any) -> None:
        """Remember that a reference image was stored."""
        from .nodes import KEY

        self._push(SlotState(index, "", None, None, None, {}, reference.GetAttribute(KEY)))

    def _push(self, state: SlotState) -> None:
        self._steps = [*self._steps, state][-KEPT:]

    def drop(self) -> None:
        """Forget the newest step: it did not change anything after all."""
        self._steps = self._steps[:-1]

    @property
    def last(self) -> SlotState | None:
        """The step that :meth:`undo` takes back; None when there is none."""
        return self._steps[-1] if self._steps else None

    def undo(self) -> tuple[SlotState, Any | None]:
        """Take the newest step back.

        Returns
        -------
        tuple
            The state that is there again, and the node that was chosen in it (None: none, or it is gone from the scene).
        """
        state = self._steps[-1]
        self._steps = self._steps[:-1]
        host, slots = self._session.host, self._session.xrays
        if state.reference:
            remove(host, "xray-reference", lambda key: key != state.reference)
            return state, None
        if state.image is not None:
            node = slots.add(state.image, state.index)
            if state.stamp:
                self._session.registrar.still_registered(node, state.stamp)
        slots.loaded.pop(state.index, None)
        if state.loaded is not None:
            slots.loaded[state.index] = state.loaded
            build_geometry_table(host, state.loaded.report, state.index)
        chosen = host.scene.GetNodeByID(state.chosen) if state.chosen else None
        return state, chosen

    def clear(self) -> None:
        """The scene is being closed."""
        self._steps = []
