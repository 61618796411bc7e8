"""A live X-ray source from what the user chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FluoroGuideError
from ..imaging.live import LiveSource
from ..imaging.live_opening import Opener

KINDS = ("volume", "folder", "igtl", "replay", "sequence")
NONE = "none"
"""No second source."""
IN_SCENE = ("volume", "sequence")
"""Kinds that read nodes: only the main thread may open them.  The others read files or the network."""


@dataclass(frozen=True)
class SourceChoice:
    """What feeds an X-ray slot.

    Attributes
    ----------
    kind
        One of :data:`KINDS`: a volume node that changes (SlicerOpenIGTLink, Plus), a folder that files come into, an OpenIGTLink
        server, a multi-frame file played at its own rate, a Sequence of the scene played at its own rate.
    node
        The volume or Sequence node.
    path
        The folder or file.
    host, port
        The OpenIGTLink server.
    """

    kind: str = "volume"
    node: Any | None = None
    path: str = ""
    host: str = "localhost"
    port: int = 18944

    @property
    def feeds(self) -> tuple:
        """What it comes from: two sources with the same are one."""
        told = {"volume": self.node, "sequence": self.node, "igtl": (self.host.strip(), self.port)}
        return self.kind, told.get(self.kind, self.path)

    def missing(self) -> str:
        """What has still to be chosen, one sentence; empty when the source may be opened."""
        if self.kind in ("volume", "sequence") and self.node is None:
            return "Choose the volume that is filled." if self.kind == "volume" else "Choose the Sequence to play."
        if self.kind in ("folder", "replay") and not self.path:
            return "Choose the folder that images come into." if self.kind == "folder" else "Choose the multi-frame file to play."
        if self.kind == "igtl" and not self.host.strip():
            return "Give the name or address of the OpenIGTLink server."
        return ""


def open_source(choice: SourceChoice, geometry: Any | None = None) -> LiveSource:
    """The source, not started; ``geometry``: C-arm card or view for frames that do not tell theirs.

    Raises
    ------
    FluoroGuideError
        Something is missing or cannot be opened.
    """
    missing = choice.missing()
    if missing:
        raise FluoroGuideError(missing.rstrip("."), None)
    if choice.kind == "volume":
        from .live_source import NodeSource

        return NodeSource(choice.node, geometry)
    if choice.kind == "folder":
        from ..imaging.live_folder import FolderSource

        return FolderSource(choice.path, geometry)
    if choice.kind == "igtl":
        from ..imaging.live_igtl import OpenIGTLinkSource

        return OpenIGTLinkSource(choice.host.strip(), choice.port, geometry=geometry)
    from ..imaging.live_replay import ReplaySource

    if choice.kind == "sequence":
        from .live_source import recorded_run

        return ReplaySource(recorded_run(choice.node), geometry, repeat=True)
    return ReplaySource(choice.path, geometry, repeat=True)


def open_sources(wanted: Sequence[tuple[int, SourceChoice, Any]]) -> Opener:
    """(slot, choice, geometry) each: sources of the scene at once, the others beside the program; none is started.

    Raises
    ------
    FluoroGuideError
        A source of the scene cannot be opened; for the others :meth:`Opener.result` raises it.
    """
    made = {slot: open_source(choice, geometry) for slot, choice, geometry in wanted if choice.kind in IN_SCENE}
    makers = {slot: lambda c=choice, g=geometry: open_source(c, g) for slot, choice, geometry in wanted if choice.kind not in IN_SCENE}
    return Opener(makers, made)
