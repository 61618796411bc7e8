"""Registrations of a case: sent to the engine's process, put into the scene, accepted or rejected, and brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.volumes import RawLabels, RawVolume
from ..errors import FluoroGuideError
from ..geometry.rigid import apply
from ..planning.plan import Plan
from ..record.record import utc_now
from ..registration.result import Registration
from .landmark_marks import LandmarkMarks
from .nodes import KEY, ROLE, find, find_all
from .plan_nodes import build_plan
from .raw_volumes import content_key, raw_labels, raw_volume
from .record_nodes import build_pose, build_registration, read_pose, read_registration
from .registration_history import RegistrationHistory, remark
from .text import translator
from .xray_slots import STAMP

if TYPE_CHECKING:
    from .session import CaseSession

_ = translator(__name__)
STARTS = ("angles", "present", "landmarks", "dragged")
AUTO, WHOLE = "auto", "whole"


@dataclass(frozen=True, eq=False)
class Request:
    """How to register.

    Attributes
    ----------
    start
        One of :data:`STARTS`: the target at the isocentre, the position the scene shows, marked landmarks, a dragged draft.
    search
        Search around the start; else it is only refined.
    part
        ``"auto"``: the bone at the targets; ``"whole"``: the whole volume; else a bone of ``bones`` (``raw_volumes.bones_of``).
    bones
        Segmentation or label map node.
    draft
        The dragged pose (4x4).
    """

    start: str = "angles"
    search: bool = True
    part: str = AUTO
    bones: Any | None = None
    draft: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Made:
    """What a registration is made from: to know, when it comes in, what it still belongs to."""

    volume: Any
    xrays: tuple[Any, ...]
    keys: tuple[tuple, ...]
    request: Request

    @property
    def nodes(self) -> tuple[Any, ...]:
        """Volume and X-rays."""
        return self.volume, *self.xrays


class Registrar:
    """Registers the volume of a session's scene."""

    def __init__(self, session: CaseSession) -> None:
        self._session = session
        self._volume: tuple[tuple, RawVolume] | None = None
        self._labels: tuple[tuple, tuple[RawLabels, int]] | None = None
        self._registered: dict[str, tuple] = {}
        self.history = RegistrationHistory(lambda: session.host)
        self.landmarks = LandmarkMarks(lambda: session.host)

    def forget(self) -> None:
        """The scene is being closed."""
        self._volume = self._labels = None
        self._registered.clear()

    # ---- what the engine gets ---------------------------------------------------------------------------------------
    def handle(self, volume: Any) -> RawVolume:
        """The volume for the engine: the same object until its voxels change.

        Raises
        ------
        FluoroGuideError
            The node holds no voxels.
        """
        key = content_key(volume)
        if self._volume is None or self._volume[0] != key:
            if self._volume is not None:
                self._session.engine.forget_volume(self._volume[1])
            self._volume = key, raw_volume(volume)
        return self._volume[1]

    def prepare(self, volume: Any) -> Any:
        """Let the engine take and prepare the volume while the user plans; returns the job."""
        return self._session.engine.warm_up(self.handle(volume))

    def _bone(self, request: Request, volume: Any) -> tuple[object, RawLabels | None]:
        """(part, labels) for the engine."""
        if request.part in (AUTO, WHOLE):
            return (AUTO if request.part == AUTO else None), None
        if request.bones is None:
            raise FluoroGuideError("No segmentation of bones is chosen", request.part, "Choose it, or the bone at the target")
        parents = [n.GetParentTransformNode() for n in (request.bones, volume)]
        key = (request.bones.GetID(), request.part, request.bones.GetMTime(), *(p.GetMTime() if p is not None else 0 for p in parents))
        if self._labels is None or self._labels[0] != key:
            if self._labels is not None:
                self._session.engine.forget_volume(self._labels[1][0])
            self._labels = key, raw_labels(request.bones, request.part, volume)
        labels, value = self._labels[1]
        return value, labels

    def _start(self, request: Request, volume: Any, views: list) -> tuple[np.ndarray | None, list | None]:
        """(initial pose, landmark pairs) of a request."""
        if request.start == "present":
            present = read_pose(self._session.host)
            if present is None:
                raise FluoroGuideError("The volume has no position yet", None, "Start from the C-arm's angles")
            return present, None
        if request.start == "dragged":
            if request.draft is None:
                raise FluoroGuideError("Nothing was dragged yet", None, "Drag the grip in an X-ray view, or choose another start")
            return request.draft, None
        if request.start == "landmarks":
            if self.landmarks.missing():
                raise FluoroGuideError("There are too few landmarks", None, "Mark three or more in the CT and the same ones in an X-ray")
            return None, self.landmarks.pairs(volume, views)
        return None, None

    def submit(self, volume: Any, xrays: Sequence[Any], plan: Plan, request: Request | None = None) -> tuple[Any, Made]:
        """Start a registration in the engine's process; returns its job, and what it is made from, at once.

        Raises
        ------
        FluoroGuideError
            Something is missing for it.
        """
        from ..registration.register import Options

        request = request or Request()
        images = [self._session.xrays.image(node) for node in xrays]
        initial, pairs = self._start(request, volume, [image.view for image in images])
        part, labels = self._bone(request, volume)
        made = Made(volume, tuple(xrays), tuple(content_key(node) for node in (volume, *xrays)), request)
        job = self._session.engine.submit(
            self.handle(volume), images, initial, targets=plan.target_points(), options=Options(search=request.search), part=part, labels=labels,
            landmarks=pairs,
        )
        return job, made

    def landmark_job(self, volume: Any, xrays: Sequence[Any]) -> Any:
        """How well the landmarks fit together, worked out in the engine; its result is a ``LandmarkRegistration``."""
        views = [self._session.xrays.view(node) for node in xrays]
        return self._session.engine.run("landmarks", views=views, pairs=self.landmarks.pairs(volume, views), expected=None)

    def preview_job(self, volume: Any, xray: Any, pose: np.ndarray, longest_px: int) -> Any:
        """The DRR at a pose as the X-ray's view shows it, worked out in the engine; see ``engine.tasks.drr``."""
        return self._session.engine.run(
            "drr", volume=self.handle(volume), view=self._session.xrays.view(xray), pose=np.asarray(pose, float), longest_px=longest_px)

    # ---- into the scene -----------------------------------------------------------------------------------------------
    def accept(self, registration: Registration, made: Made, plan: Plan) -> None:
        """Put a registration into the scene: volume and plan hang under the new pose.

        What was changed while it ran does not get its stamp, so that it is stale from the beginning.

        Raises
        ------
        FluoroGuideError
            Its volume or an X-ray is no longer in the scene.
        """
        gone = [node for node in made.nodes if node.GetScene() is None]
        if gone:
            raise FluoroGuideError("The registration was not used", "its volume or an X-ray was removed meanwhile", "Register again")
        host, volume, stamp = self._session.host, made.volume, utc_now()
        same = [node for node, key in zip(made.nodes, made.keys, strict=True) if content_key(node) == key]
        remark(made.nodes)
        pose = build_pose(host, registration.pose)
        for node in (build_registration(host, registration), *same):
            node.SetAttribute(STAMP, stamp)
        for node in made.nodes:
            if node not in same:
                node.RemoveAttribute(STAMP)
        self._hang(volume, pose)
        build_plan(host, plan, pose)
        self._note_keys(made.nodes)
        part = str(registration.facts.get("part") or _("whole volume"))
        self.history.add(registration, stamp, made.nodes, plan.target_points(), start_text(made.request), part)
        self._session.refresh_folder()

    def restore(self, number: int, volume: Any, xrays: Sequence[Any]) -> Registration:
        """Go back to an earlier registration of the history.

        Raises
        ------
        FluoroGuideError
            There is no such registration any more.
        """
        self._drop_stamps_of_changed((volume, *xrays))
        registration = self.history.restore(number, volume, xrays)
        if volume is not None:
            self._hang(volume, find(self._session.host, "pose"))
        return registration

    def decide(self, accepted: bool) -> None:
        """The user accepted or rejected the registration in the scene; kept in the history and in the record.

        Raises
        ------
        FluoroGuideError
            There is none.
        """
        present = next((e for e in self.history.entries() if e.present), None)
        registration = self.registration
        if present is None or registration is None:
            raise FluoroGuideError("There is no registration to decide on", None, "Register first")
        self.history.decide(present.number, accepted)
        self._session.recorder.decide_registration(registration, accepted)

    @property
    def accepted(self) -> bool | None:
        """What the user decided on the registration in the scene; None: not yet."""
        return next((e.accepted for e in self.history.entries() if e.present), None)

    def _hang(self, volume: Any, pose: Any) -> None:
        """The volume under the pose, as the only one of the case."""
        volume.SetAttribute(ROLE, "volume")
        volume.SetAttribute(KEY, "")
        for other in find_all(self._session.host, "volume"):
            if other is not volume:
                other.RemoveAttribute(ROLE)
        volume.SetAndObserveTransformNodeID(pose.GetID() if pose is not None else None)

    # ---- what holds -----------------------------------------------------------------------------------------------------
    @property
    def registration(self) -> Registration | None:
        """The registration that the scene holds."""
        return read_registration(self._session.host)

    def _note_keys(self, nodes: Sequence[Any]) -> None:
        self._registered.update({node.GetID(): content_key(node) for node in nodes})

    def _drop_stamps_of_changed(self, nodes: Sequence[Any]) -> None:
        """Nodes whose pixels were changed in place since they were registered lose their stamp."""
        for node in nodes:
            if node is not None and node.GetAttribute(STAMP) and self._registered.setdefault(node.GetID(), content_key(node)) != content_key(node):
                node.RemoveAttribute(STAMP)
                del self._registered[node.GetID()]

    def stale(self, volume: Any, xrays: Sequence[Any]) -> bool:
        """Whether the registration was made from other nodes, or from other pixels, than these."""
        return bool(self.changed(volume, xrays))

    def still_registered(self, node: Any, stamp: str) -> None:
        """A node holds again the very pixels that a registration (its stamp) was made from."""
        node.SetAttribute(STAMP, stamp)
        self._registered[node.GetID()] = content_key(node)

    def changed(self, volume: Any, xrays: Sequence[Any]) -> tuple[str, ...]:
        """What was changed since the registration in the scene, one sentence each; empty without a registration."""
        stored = find(self._session.host, "registration")
        if stored is None:
            return ()
        self._drop_stamps_of_changed((volume, *xrays))
        stamp, told = stored.GetAttribute(STAMP), []
        if volume is None or volume.GetAttribute(STAMP) != stamp:
            told.append(_("The volume was changed after the registration."))
        elif volume.GetParentTransformNode() is None or volume.GetParentTransformNode().GetAttribute(ROLE) != "pose":
            told.append(_("The volume was taken out of its registered position."))
        if not xrays or any(node is None or node.GetAttribute(STAMP) != stamp for node in xrays):
            told.append(_("The X-rays were changed after the registration."))
        return tuple(told)

    def start_pose(self, plan: Plan) -> np.ndarray:
        """Where dragging begins: the present position, else the targets' mean at the isocentre."""
        from ..registration.search import start_at_isocenter

        present = read_pose(self._session.host)
        points = list(plan.target_points().values())
        return present if present is not None else start_at_isocenter(np.mean(points, axis=0))


def moved_mm(first: np.ndarray, second: np.ndarray, points: dict[str, np.ndarray]) -> float:
    """How far apart two poses put the targets, at most."""
    return max((float(np.linalg.norm(apply(first, p) - apply(second, p))) for p in points.values()), default=0.0)


def start_text(request: Request) -> str:
    """A start in words, for the history."""
    words = {
        "angles": _("C-arm angles"), "present": _("present position"), "landmarks": _("landmarks"), "dragged": _("dragged by hand"),
    }
    return words[request.start]
