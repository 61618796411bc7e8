"""The X-rays of a case: slots A and B, their geometry, and the views that show them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..imaging.geometry_report import GeometryReport
from ..imaging.preprocess import Normalized
from ..imaging.xray import XrayImage
from ..record.record import utc_now
from .geometry_table import ROLE_TABLE, build_geometry_table
from .nodes import KEY, find, find_all, obtain, references, set_reference, text_value, vtk_matrix
from .xray_history import XrayHistory
from .xray_view import UprightLock, build_xray, ijk_to_ras, read_view, read_xray_node, show_upright

if TYPE_CHECKING:
    from .session import CaseSession

STAMP = "FluoroGuide.registered"
"""When the registration was made that a node was used in: another stamp than the registration's means it is stale."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a slot was read from, while the program runs: its file, report, frame of how many, normalised picture, and why it has no view."""

    path: str
    report: GeometryReport
    frame: int
    frames: int
    picture: Normalized
    error: str


class XraySlots:
    """The X-rays of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._locks: list[UprightLock] = []
        self.loaded: dict[int, Loaded] = {}
        self.history = XrayHistory(session)

    def load(self, path: str | Path, index: int, card: dict | None = None) -> Any:
        """Read a file into X-ray slot ``index`` (0 = A, 1 = B) and return its volume node.

        Raises
        ------
        FluoroGuideError
            The file cannot be read, or geometry is missing in it and in ``card``.
        """
        from ..imaging.sources import read_xray

        return self.add(read_xray(path, card or None), index)

    def show_loaded(self, index: int, path: str, result: dict) -> Any | None:
        """Put what the worker's ``xray_read`` gave into a slot: picture, geometry report.  None while its geometry is incomplete."""
        build_geometry_table(self._session.host, result["report"], index)
        self.loaded[index] = Loaded(path, result["report"], result["frame"], result["frames"], result["picture"], result["error"])
        if result["image"] is None:
            return None
        node = self.add(result["image"], index)
        self._session.identity.note_xray(node, path, "AB"[index])
        set_reference(node, "geometry", [n for n in (find(self._session.host, r, str(index)) for r in (ROLE_TABLE, ROLE_TABLE + "-data")) if n])
        return node

    def report(self, index: int) -> dict | None:
        """The geometry report of a slot as plain values, from the scene; None when it has none."""
        return text_value(self._session.host, ROLE_TABLE + "-data", str(index))

    @staticmethod
    def file_of(node: Any) -> str:
        """The file that a volume node was made from, by the DICOM database or its storage node; empty when it is not known."""
        import slicer

        database, uids = getattr(slicer, "dicomDatabase", None), (node.GetAttribute("DICOM.instanceUIDs") or "").split()
        found = database.fileForInstance(uids[0]) if uids and database is not None else ""
        storage = node.GetStorageNode()
        found = found or (storage.GetFileName() if storage is not None else "") or ""
        return found if Path(found).is_file() else ""

    # ---- reference images -------------------------------------------------------------------------------------------
    def keep(self, node: Any, name: str) -> Any:
        """Store a copy of an X-ray as a reference image of the case.

        Raises
        ------
        FluoroGuideError
            The node has no geometry.
        """
        import slicer

        image, host = self.image(node), self._session.host
        number = 1 + max((int(n.GetAttribute(KEY)) for n in find_all(host, "xray-reference")), default=0)
        kept = obtain(host, "vtkMRMLScalarVolumeNode", "xray-reference", name or f"Reference {number}", str(number))
        slicer.util.updateVolumeFromArray(kept, image.pixels[None])
        kept.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras(image.view)))
        kept.SetAttribute("FluoroGuide.view", json.dumps(image.view.to_dict()))
        kept.SetAttribute("FluoroGuide.utc", utc_now())
        kept.CreateDefaultDisplayNodes()
        self._session.refresh_folder()
        return kept

    def references(self) -> list[Any]:
        """The stored reference images, oldest first."""
        return sorted(find_all(self._session.host, "xray-reference"), key=lambda n: int(n.GetAttribute(KEY)))

    def forget(self) -> None:
        """The scene is being closed."""
        self.release()
        self.loaded.clear()
        self.history.clear()

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
        self._must_have_geometry(node)
        return read_xray_node(node)

    def view(self, node: Any) -> CArmView:
        """The C-arm view of an X-ray node: :meth:`image` without the pixels, for what is asked often.

        Raises
        ------
        FluoroGuideError
            The node has none.
        """
        self._must_have_geometry(node)
        return read_view(node)

    def _must_have_geometry(self, node: Any) -> None:
        if not self.has_geometry(node):
            raise FluoroGuideError("The X-ray has no C-arm geometry", node.GetName(), "Load its file with the Load button of the X-ray section")

    def describe(self, node: Any) -> str:
        """``"LAO 30.0, SID 1100 mm, 512 x 512 pixels of 0.300 mm"`` and what was assumed."""
        image = self.image(node)
        view = image.view
        size = f"{view.columns} x {view.rows} pixels of {view.pixel_spacing_mm[1]:.3f} mm"
        told = [a[:1].upper() + a[1:] + ("" if a.endswith(".") else ".") for a in image.assumptions]
        return " ".join([f"{describe_angles(*view.angles_deg)}, SID {view.sid_mm:.0f} mm, {size}.", *told])

    def show(self, nodes: Sequence[Any]) -> None:
        """Show the X-rays upright in their views and keep them so until :meth:`release`."""
        self.release()
        for index, node in enumerate(nodes):
            if node is not None and self.has_geometry(node):
                view = read_view(node)
                self._locks.append(UprightLock(show_upright(self._session.host, view, node, index), view))

    def release(self) -> None:
        """Stop holding the X-ray views; harmless when repeated."""
        while self._locks:
            self._locks.pop().release()
