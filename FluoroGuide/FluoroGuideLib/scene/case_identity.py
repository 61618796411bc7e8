"""Whether the volume, plan and X-rays of the scene belong together, checked without holding up the window.

The volume's content is hashed a few planes at a time; who the files are of is read when they are loaded and kept as keyed
digests in memory only.  What a person confirmed is kept in the scene, without identifiers.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ras
from ..imaging.identity import PLAN_KEY, Confirmation, Identity, IdentityCheck, VolumeStamp, compare, read_identity, side_of_targets
from .nodes import array_of, text_node, text_value
from .text import translator

if TYPE_CHECKING:
    from .session import CaseSession

_ = translator(__name__)
STEP_SECONDS = 0.02
"""How long one step of hashing may take: a frozen window is one that stands still for 100 ms."""


class ContentHash:
    """``imaging.identity.volume_hash`` of a volume node, in steps."""

    def __init__(self, node: Any) -> None:
        import slicer

        self._voxels = slicer.util.arrayFromVolume(node)
        self._content, self._next, self.value = hashlib.sha256(), 0, ""
        geometry = [*self._voxels.shape[::-1], *node.GetSpacing(), *lps_from_ras(np.array(node.GetOrigin(), float)).tolist(), *_directions(node)]
        self._content.update((np.round(np.asarray(geometry, float), 4) + 0.0).astype("<f8").tobytes())

    def step(self, seconds: float = STEP_SECONDS) -> bool:
        """Go on for so long; True when done: then :attr:`value` has the digest."""
        end = time.perf_counter() + seconds
        while self._next < len(self._voxels):
            self._content.update(np.ascontiguousarray(self._voxels[self._next], "<f4").tobytes())
            self._next += 1
            if time.perf_counter() > end:
                return False
        self.value = self._content.hexdigest()
        return True


def _directions(node: Any) -> list[float]:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(matrix)
    return lps_from_ras(array_of(matrix)[:3, :3].T).T.ravel().tolist()


class CaseIdentity:
    """Identity and side of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._xrays: dict[str, Identity] = {}
        self._hash: tuple[tuple, ContentHash] | None = None
        self._stamp: tuple[tuple, VolumeStamp] | None = None
        self._volume: tuple[str, Identity] | None = None

    def forget(self) -> None:
        """The scene is being closed."""
        self._xrays.clear()
        self._hash = self._stamp = self._volume = None

    def note_xray(self, node: Any, path: str | Path, side: str) -> None:
        """Remember who an X-ray's file is of."""
        try:
            self._xrays[node.GetID()] = read_identity(path, f"X-ray {side}")
        except FluoroGuideError:  # not DICOM: it says nothing
            self._xrays.pop(node.GetID(), None)

    # ---- the volume ---------------------------------------------------------------------------------------------------
    @staticmethod
    def _key(volume: Any) -> tuple:
        from .raw_volumes import content_key

        return content_key(volume)

    def step(self, volume: Any | None) -> bool:
        """Hash the volume a little further (call it from a timer); True when there is nothing left to do."""
        if volume is None or volume.GetImageData() is None:
            return True
        key = self._key(volume)
        if self._stamp is not None and self._stamp[0] == key:
            return True
        if self._hash is None or self._hash[0] != key:
            self._hash = key, ContentHash(volume)
        if not self._hash[1].step():
            return False
        uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
        self._stamp = key, VolumeStamp(uids[0] if len(uids) == 1 else "", self._hash[1].value)
        self._hash = None
        return True

    def stamp(self, volume: Any | None) -> VolumeStamp | None:
        """The stamp of a volume; None until :meth:`step` has finished."""
        return self._stamp[1] if volume is not None and self._stamp is not None and self._stamp[0] == self._key(volume) else None

    def _volume_identity(self, volume: Any) -> Identity:
        if self._volume is None or self._volume[0] != volume.GetID():
            self._volume = volume.GetID(), _read_volume_identity(volume)
        return self._volume[1]

    # ---- the check ------------------------------------------------------------------------------------------------------
    def check(self, choices: Any) -> IdentityCheck | None:
        """The comparison of what is chosen now; None without a volume."""
        if choices is None or choices.volume is None:
            return None
        known = [self._volume_identity(choices.volume)]
        for side, node in (("A", choices.xrayA), ("B", choices.xrayB)):
            if node is not None:
                known.append(self._xrays.get(node.GetID(), Identity(f"X-ray {side}")))
        plan = text_value(self._session.host, "plan")
        side = choices.laterality if choices.laterality in ("left", "right") else None
        found = compare(known, planned_side=side, plan_stamp=VolumeStamp.from_plan(plan), volume_stamp=self.stamp(choices.volume))
        findings = [f for f in found.findings if len(known) > 1 or f.item not in ("patient id", "birth date", "sex", "study time")]
        findings += self._side_of_plan(choices.volume, side)
        stored = text_value(self._session.host, "identity") or {}
        passed = tuple(Confirmation(tuple(c["items"]), c["reason"], c["person"], c["time"]) for c in stored.get("confirmations", []))
        return IdentityCheck(tuple(findings), found.compared, passed)

    def _side_of_plan(self, volume: Any, side: str | None) -> list:
        """The planned side against where the targets lie: on which side of the volume's middle (LPS: left is +x)."""
        from ..imaging.identity import Finding

        points = list(self._session.planner.targets().values())
        if side is None or not points:
            return []
        bounds = [0.0] * 6
        volume.GetRASBounds(bounds)
        middle = [0.0, 0.0, 0.0]
        volume.TransformPointFromWorld([(bounds[2 * a] + bounds[2 * a + 1]) / 2 for a in range(3)], middle)
        there = side_of_targets(np.array(points), -middle[0])
        if there and there != side:
            told = _("The plan is for the {side} side, but its targets lie on the patient's {there} in the volume.").format(side=side, there=there)
            return [Finding("block", "side of the targets", told)]
        return []

    def confirm(self, choices: Any, reason: str) -> None:
        """Pass what blocks, for a reason; kept in the scene for the record.

        Raises
        ------
        FluoroGuideError
            No reason in words, or nothing blocks.
        """
        check = self.check(choices)
        if check is None:
            raise FluoroGuideError("There is nothing to confirm yet", None, "Choose the volume first")
        done = check.confirmed(reason)
        text_node(self._session.host, "identity", "Identity check", done.to_dict())
        self._session.refresh_folder()

    def blocked(self, choices: Any) -> str:
        """Why the case must not go on, one or more sentences; empty when nothing forbids it."""
        check = self.check(choices)
        return " ".join(f.sentence for f in check.blocking) if check is not None else ""

    def plan_extra(self, volume: Any) -> dict:
        """What the plan keeps of its volume; empty until the hash is there, or when the plan has a stamp already."""
        plan, stamp = text_value(self._session.host, "plan"), self.stamp(volume)
        return {} if stamp is None or VolumeStamp.from_plan(plan) is not None else {PLAN_KEY: stamp.to_dict()}


def _read_volume_identity(volume: Any) -> Identity:
    """Who the volume is of: from the DICOM database, or the file that it was read from."""
    import slicer

    paths = []
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if uids and database is not None:
        paths.append(database.fileForInstance(uids[0]))
    storage = volume.GetStorageNode()
    if storage is not None and storage.GetFileName():
        paths.append(storage.GetFileName())
    for path in paths:
        if path and Path(path).is_file() and Path(path).suffix.lower() in ("", ".dcm", ".ima", ".dicom"):
            try:
                return read_identity(path, "volume")
            except FluoroGuideError:
                continue
    return Identity("volume")
