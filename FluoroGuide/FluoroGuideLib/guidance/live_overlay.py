"""The whole overlay of one view, kept between frames: only what moved is worked out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.rigid import apply
from ..planning.plan import Plan
from ..registration.result import Registration
from .needle import NeedleFinding
from .overlay import greyed, orientation_shapes, plan_overlay, status_shapes
from .shapes import ROLE_COLORS, DrawnView, Shape, cut, lines
from .silhouettes import Silhouette, Surface
from .triangulation import NeedlePose


@dataclass(frozen=True, eq=False)
class OverlayContent:
    """What is drawn besides the plan's needles and targets, in volume LPS mm.

    Attributes
    ----------
    bones
        Bone surfaces drawn as silhouettes, hidden parts dimmed.
    joints
        The target joint's bones (outlined like bones, in the joint's colour).
    joint_lines, safety
        Name -> polyline (N, 3): joint lines; structures to keep clear of.
    levels
        Vertebral level -> point (3,); written only when :attr:`numbering_confirmed` (transitional anatomy makes counts wrong).
    """

    bones: tuple[Surface, ...] = ()
    joints: tuple[Surface, ...] = ()
    joint_lines: Mapping[str, np.ndarray] = field(default_factory=dict)
    safety: Mapping[str, np.ndarray] = field(default_factory=dict)
    levels: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbering_confirmed: bool = False


class LiveOverlay:
    """One view's overlay.

    Parameters
    ----------
    plan, content
        What to draw, in the volume's frame.
    registration
        Gives error ellipses and the status line.
    """

    def __init__(self, view: CArmView, plan: Plan, content: OverlayContent | None = None, registration: Registration | None = None) -> None:
        self.plan, self.content, self.registration = plan, content or OverlayContent(), registration
        self._silhouettes = [(Silhouette(s), "bone") for s in self.content.bones] + [(Silhouette(s), "joint") for s in self.content.joints]
        self._still: tuple[object, list[Shape]] = (None, [])
        self.view = view

    @property
    def view(self) -> CArmView:
        """The view; setting another one works everything out again."""
        return self._view

    @view.setter
    def view(self, view: CArmView) -> None:
        self._view, self._drawn = view, DrawnView(view)
        self._letters = orientation_shapes(view)
        self._still = (None, [])

    def shapes(
        self, pose: np.ndarray, *, status: str = "ok", note: str = "", needle: NeedlePose | None = None, finding: NeedleFinding | None = None,
    ) -> list[Shape]:
        """Everything at a pose (4x4, volume -> isocentre).

        Parameters
        ----------
        status, note
            See :func:`.overlay.plan_overlay`: anything but ``ok`` and ``hold`` turns the overlay grey.
        needle, finding
            The needle in 3-D, and the needle found in this frame: the finding stays coloured, it is what the image shows.
        """
        shapes = self.geometry(pose, needle)
        if status not in ("ok", "hold"):
            shapes = greyed(shapes)
        if finding is not None and finding.found:
            shapes = shapes + finding_shapes(self._drawn, finding)
        return shapes + self._letters + status_shapes(self._drawn, self.registration, status, note)

    def geometry(self, pose: np.ndarray, needle: NeedlePose | None = None) -> list[Shape]:
        """The plan, bones and needle in their own colours, without letters and status; nothing is done when nothing moved."""
        key = (np.asarray(pose, float).tobytes(), needle)
        if self._still[0] != key:
            self._still = (key, self._geometry(pose, needle))
        return self._still[1]

    @property
    def drawn(self) -> DrawnView:
        """The view, ready for many small projections."""
        return self._drawn

    def _geometry(self, pose: np.ndarray, needle: NeedlePose | None) -> list[Shape]:
        view = self._drawn
        shapes: list[Shape] = []
        for silhouette, role in self._silhouettes:
            name = silhouette.surface.name
            for pixels, hidden in silhouette.update(view, pose):
                shapes += cut("hidden" if hidden else role, name, view, pixels, 1.0 if hidden else 1.5, "")
        for role, group in (("joint", self.content.joint_lines), ("safety", self.content.safety)):
            for name, points in group.items():
                shapes += lines(role, name, view, apply(pose, points), 1.5, name)
        if self.content.numbering_confirmed and self.content.levels:
            points = view.project(apply(pose, np.array(list(self.content.levels.values()))))
            shapes += [
                Shape("level", name, p[None], ROLE_COLORS["level"], 1.0, name) for name, p in zip(self.content.levels, points, strict=True)
                if np.isfinite(p).all() and 0 <= p[0] < view.columns and 0 <= p[1] < view.rows
            ]
        plan = plan_overlay(view, pose, self.plan, self.registration, needle=needle, status="ok")
        return shapes + [s for s in plan if s.role not in ("orientation", "status")]


def finding_shapes(view: DrawnView | CArmView, finding: NeedleFinding) -> list[Shape]:
    """The needle found in a frame: its shaft, and a ring at its tip as wide as the tip is uncertain (95 %)."""
    angle = np.linspace(0, 2 * np.pi, 25)
    radius = max(2.0 * finding.tip_sigma_px, 4.0)
    ring = finding.tip_px + radius * np.column_stack([np.cos(angle), np.sin(angle)])
    return cut("achieved", "needle in the image", view, np.array([finding.tip_px, finding.shaft_px]), 2.0, "") + cut(
        "achieved", "tip in the image", view, ring, 1.5, "")


def age_note(seconds: float) -> str:
    """How old the last image is, for people."""
    return f"{seconds:.0f} s old" if seconds < 90 else f"{seconds / 60:.0f} min old"


def of_role(shapes: Sequence[Shape], *roles: str) -> list[Shape]:
    """The shapes of some roles."""
    return [s for s in shapes if s.role in roles]
