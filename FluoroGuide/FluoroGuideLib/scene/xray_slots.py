"""The X-rays of a case: slots A and B, their geometry, and the views that show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FluoroGuideError
from ..geometry.carm import describe_angles
from ..imaging.xray import XrayImage
from .nodes import references
from .xray_view import UprightLock, build_xray, read_xray_node, show_upright

if TYPE_CHECKING:
    from .session import CaseSession

STAMP = "FluoroGuide.registered"
"""When the registration was made that a node was used in: another stamp than the registration's means it is stale."""


class XraySlots:
    """The X-rays of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._locks: list[UprightLock] = []

    def load(self, path: str | Path, index: int, card: dict | None = None) -> Any:
        """Read a file into X-ray slot ``index`` (0 = A, 1 = B) and return its volume node.

        Raises
        ------
        FluoroGuideError
            The file cannot be read, or geometry is missing in it and in ``card``.
        """
        from ..imaging.sources import read_xray

        return self.add(read_xray(path, card or None), index)

    def add(self, image: XrayImage, index: int) -> Any:
        """Put an X-ray that is in memory into a slot and return its node."""
        node = build_xray(self._session.host, image, index)
        node.RemoveAttribute(STAMP)
        self._session.guidance.forget(index)
        self._session.refresh_folder()
        return node

    @staticmethod
    def has_geometry(node: Any) -> bool:
        """Whether FluoroGuide knows the C-arm geometry of a volume node."""
        return bool(references(node, "facts"))

    def image(self, node: Any) -> XrayImage:
        """The image and geometry of an X-ray node.

        Raises
        ------
        FluoroGuideError
            The node has none: it was not loaded by FluoroGuide.
        """
        if not self.has_geometry(node):
            raise FluoroGuideError("The X-ray has no C-arm geometry", node.GetName(), "Load its file with the Load button of the X-ray section")
        return read_xray_node(node)

    def describe(self, node: Any) -> str:
        """``"LAO 30.0, SID 1100 mm, 512 x 512 pixels of 0.300 mm"`` and what was assumed."""
        image = self.image(node)
        view = image.view
        size = f"{view.columns} x {view.rows} pixels of {view.pixel_spacing_mm[1]:.3f} mm"
        return " ".join([f"{describe_angles(*view.angles_deg)}, SID {view.sid_mm:.0f} mm, {size}.", *image.assumptions])

    def show(self, nodes: Sequence[Any]) -> None:
        """Show the X-rays upright in their views and keep them so until :meth:`release`."""
        self.release()
        for index, node in enumerate(nodes):
            if node is not None and self.has_geometry(node):
                view = read_xray_node(node).view
                self._locks.append(UprightLock(show_upright(self._session.host, view, node, index), view))

    def release(self) -> None:
        """Stop holding the X-ray views; harmless when repeated."""
        while self._locks:
            self._locks.pop().release()
