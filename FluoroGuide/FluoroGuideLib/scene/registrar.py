"""Registrations of a case: sent to the engine's process, accepted into the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import FluoroGuideError
from ..planning.plan import Plan
from ..record.record import utc_now
from ..registration.result import Registration
from .nodes import KEY, ROLE, find, find_all, volume_image
from .plan_nodes import build_plan
from .record_nodes import build_pose, build_registration, read_pose, read_registration
from .text import translator
from .xray_slots import STAMP

if TYPE_CHECKING:
    from .session import CaseSession

_ = translator(__name__)


class Registrar:
    """Registers the volume of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._volume: tuple[tuple, Any] | None = None

    def attenuation(self, volume: Any) -> Any:
        """The volume as attenuation; converted once, and again after its voxels changed.

        Raises
        ------
        FluoroGuideError
            The node holds no voxels, or they cannot be a CT.
        """
        from ..anatomy.attenuation import attenuation_from_hu

        if volume.GetImageData() is None:
            raise FluoroGuideError("The volume holds no voxels", volume.GetName(), "Choose another volume")
        key = (volume.GetID(), volume.GetImageData().GetMTime(), *volume.GetSpacing(), *volume.GetOrigin())
        if self._volume is None or self._volume[0] != key:
            self._volume = key, attenuation_from_hu(volume_image(volume), name="Volume")
        return self._volume[1]

    def forget(self) -> None:
        """The scene is being closed."""
        self._volume = None

    def arguments(self, volume: Any, xrays: Sequence[Any], plan: Plan, from_present: bool) -> dict:
        """Arguments of ``registration.register.register`` for these nodes."""
        images = [self._session.xrays.image(node) for node in xrays]
        initial = read_pose(self._session.host) if from_present else None
        return {"volume": self.attenuation(volume), "images": images, "initial": initial, "targets": plan.target_points()}

    def submit(self, volume: Any, xrays: Sequence[Any], plan: Plan, from_present: bool = False) -> Any:
        """Start a registration in the engine's process; returns its ``Job`` at once."""
        arguments = self.arguments(volume, xrays, plan, from_present)
        return self._session.engine.submit(arguments["volume"], arguments["images"], arguments["initial"], targets=arguments["targets"])

    def accept(self, registration: Registration, volume: Any, xrays: Sequence[Any], plan: Plan) -> None:
        """Put a registration of these nodes into the scene: volume and plan hang under the new pose."""
        pose = build_pose(self._session.host, registration.pose)
        stamp = utc_now()
        for node in (build_registration(self._session.host, registration), volume, *xrays):
            node.SetAttribute(STAMP, stamp)
        volume.SetAttribute(ROLE, "volume")
        volume.SetAttribute(KEY, "")
        for other in find_all(self._session.host, "volume"):
            if other is not volume:
                other.RemoveAttribute(ROLE)
        volume.SetAndObserveTransformNodeID(pose.GetID())
        build_plan(self._session.host, plan, pose)
        self._session.refresh_folder()

    @property
    def registration(self) -> Registration | None:
        """The registration that the scene holds."""
        return read_registration(self._session.host)

    def stale(self, volume: Any, xrays: Sequence[Any]) -> bool:
        """Whether the registration was made from other nodes, or from other pixels, than these."""
        stored = find(self._session.host, "registration")
        return stored is not None and any(n is None or n.GetAttribute(STAMP) != stored.GetAttribute(STAMP) for n in (volume, *xrays))

    def changed(self, volume: Any, xrays: Sequence[Any]) -> tuple[str, ...]:
        """What was changed since the registration in the scene, one sentence each; empty without a registration."""
        stored = find(self._session.host, "registration")
        if stored is None:
            return ()
        stamp = stored.GetAttribute(STAMP)
        told = [] if volume is not None and volume.GetAttribute(STAMP) == stamp else [_("The volume was changed after the registration.")]
        if not xrays or any(node.GetAttribute(STAMP) != stamp for node in xrays):
            told.append(_("The X-rays were changed after the registration."))
        return tuple(told)
