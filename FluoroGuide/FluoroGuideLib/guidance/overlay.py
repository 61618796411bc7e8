"""What is drawn on an X-ray view, as polylines in pixels: pure geometry, for the scene, the command line and tests.

Shapes and colours: ``shapes``; pictures: ``draw``; bone outlines and live updates: ``live_overlay``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.rigid import apply
from ..planning.plan import Plan, Trajectory
from ..registration.result import Registration, TargetError
from .draw import draw_overlay_png
from .shapes import (
    BLUISH_GREEN,
    GREY,
    NEAR_MM,
    ORANGE,
    REDDISH_PURPLE,
    ROLE_COLORS,
    SKY_BLUE,
    VERMILLION,
    WHITE,
    YELLOW,
    DrawnView,
    Shape,
    clip_segment,
    cut,
    lines,
)
from .triangulation import NeedlePose

__all__ = [
    "BLUISH_GREEN", "GREY", "ORANGE", "REDDISH_PURPLE", "ROLE_COLORS", "SKY_BLUE", "STATUSES", "VERMILLION", "WHITE", "YELLOW", "Shape",
    "axis_letters", "clip_segment", "draw_overlay_png", "error_ellipse", "orientation_shapes", "plan_overlay",
]

STATUSES = ("ok", "hold", "moved", "stale", "lost", "fail")
"""``ok`` and ``hold`` (the last image, its age told) are drawn in colour; all others grey: they must not look good."""
STATUS_TEXTS = {
    "hold": "Last image", "moved": "Target moved: register again", "stale": "Overlay stale: register again",
    "lost": "Overlay lost: no match with the image",
    "fail": "Registration fail",
}
CHI2_95_2 = 5.991464547107979
"""95 % quantile of chi-square with 2 degrees of freedom: -2 ln 0.05."""
TICK_MM = 10.0
MIN_LETTER = 0.3
"""A second orientation letter is written when the axis leans to it by more than asin(0.3) = 17 degrees."""


def plan_overlay(
    view: CArmView, pose: np.ndarray, plan: Plan, registration: Registration | None = None,
    errors: Sequence[TargetError] | Mapping[str, np.ndarray] | None = None, *,
    needle: NeedlePose | None = None, status: str | None = None, note: str = "",
) -> list[Shape]:
    """Everything the plan draws on one view.

    Parameters
    ----------
    view
        The view, isocentre frame.
    pose
        4x4, volume LPS -> isocentre LPS.
    plan
        In volume LPS mm.
    registration
        Gives the error ellipses and the status line.
    errors
        Ellipses from elsewhere: :class:`TargetError` objects, or name -> covariance (3, 3), mm^2, isocentre axes.
    needle
        An achieved needle, in the isocentre or the volume frame.
    status
        One of :data:`STATUSES`; by default ``fail`` when the registration's verdict is, else ``ok``.
        Anything but ``ok`` and ``hold`` is drawn grey and says so in words.
    note
        Added to the status line: why the overlay is stale, or the age of the image.
    """
    if status is None:
        status = "fail" if registration is not None and registration.verdict == "fail" else "ok"
    if status not in STATUSES:
        raise ValueError(f"status {status!r} is none of {STATUSES}")
    view = view if isinstance(view, DrawnView) else DrawnView(view)
    shapes: list[Shape] = []
    for name, line in plan.outlines.items():
        shapes += lines("outline", name, view, apply(pose, line), 1.5, name)
    targets = np.array([t.position_lps_mm for t in plan.targets]).reshape(-1, 3)
    for item in plan.trajectories:
        ends_in_target = bool((np.abs(targets - item.target_lps_mm).max(1, initial=0.0) < 1e-6).any()) if len(targets) else False
        shapes += _trajectory_shapes(view, pose, item, ends_in_target)
    for target in plan.targets:
        shapes += _target_shapes(view, apply(pose, target.position_lps_mm), target.name, target.tolerance_mm)
    points = plan.target_points()
    for name, covariance in _covariances(points, registration, errors).items():
        if name in points:
            shapes += cut("error", name, view, error_ellipse(view, apply(pose, points[name]), covariance), 1.5, "")
    if needle is not None:
        shapes += _needle_shapes(view, pose, needle, plan)
    if status not in ("ok", "hold"):
        shapes = greyed(shapes)
    return shapes + orientation_shapes(view) + status_shapes(view, registration, status, note)


def greyed(shapes: Sequence[Shape]) -> list[Shape]:
    """The same shapes without their colours: they must not look valid."""
    return [Shape(s.role, s.name, s.pixels, GREY, s.width, s.text) for s in shapes]


def error_ellipse(view: CArmView, point_mm: np.ndarray, covariance_mm2: np.ndarray, points: int = 72) -> np.ndarray:
    """Ellipse (points + 1, 2) in pixels that holds the projection of a point with 95 % probability.

    Parameters
    ----------
    view, point_mm, covariance_mm2
        Isocentre frame: the expected point (3,) and its covariance (3, 3), mm^2.
    """
    jacobian = view.project_jacobian(point_mm)[0]
    values, vectors = np.linalg.eigh(jacobian @ np.asarray(covariance_mm2, float) @ jacobian.T)
    half = np.sqrt(CHI2_95_2 * np.clip(values, 0, None))
    return view.project(point_mm)[0] + (_ring(points) * half) @ vectors.T


def axis_letters(direction_lps: np.ndarray) -> str:
    """Patient direction of a vector (3,), LPS, in letters, the strongest first: ``"L"``, ``"LP"``; H and F are head and feet."""
    unit = np.asarray(direction_lps, float) / np.linalg.norm(direction_lps)
    order = np.argsort(-np.abs(unit))[:2]
    chosen = [k for n, k in enumerate(order) if n == 0 or abs(unit[k]) > MIN_LETTER]
    return "".join(("L", "P", "H")[k] if unit[k] > 0 else ("R", "A", "F")[k] for k in chosen)


def orientation_shapes(view: CArmView) -> list[Shape]:
    """Letters at the four borders that say which patient direction is there."""
    c, r = view.columns - 1.0, view.rows - 1.0
    margin = 0.03 * min(view.columns, view.rows)
    places = {
        "right": ((c - margin, r / 2), view.column_step_mm), "left": ((margin, r / 2), -view.column_step_mm),
        "bottom": ((c / 2, r - margin), view.row_step_mm), "top": ((c / 2, margin), -view.row_step_mm),
    }
    return [
        Shape("orientation", name, np.array([place]), ROLE_COLORS["orientation"], 1.0, axis_letters(direction))
        for name, (place, direction) in places.items()
    ]


# ---- parts ------------------------------------------------------------------------------------------------------
def _unit(view: DrawnView) -> float:
    """Size in pixels of marks: 1 for a 1024-pixel image, so that marks look alike whatever the matrix."""
    return max(view.columns, view.rows) / 1024


def _trajectory_shapes(view: DrawnView, pose: np.ndarray, item: Trajectory, ends_in_target: bool) -> list[Shape]:
    entry, target = apply(pose, np.array([item.entry_lps_mm, item.target_lps_mm]))
    shapes = lines("needle", item.name, view, np.array([entry, target]), 2.0, item.name)
    mark = 9 * _unit(view)
    shapes += _ticks(view, entry, target, item, mark)
    shapes += cut("entry", item.name, view, _circle(view, entry, mark), 1.5, "")
    if ends_in_target:  # that target draws the mark
        return shapes
    return shapes + cut("target", item.name, view, _cross(view, target, mark), 1.5, "")


def _ticks(view: DrawnView, entry: np.ndarray, target: np.ndarray, item: Trajectory, mark: float) -> list[Shape]:
    """Depth ticks, counted from the target, where the needle's remaining way matters."""
    depths = np.arange(TICK_MM, item.length_mm + 1e-9, TICK_MM)
    if not len(depths):
        return []
    points = target + (entry - target) * (depths / item.length_mm)[:, None]
    here = view.project(points)
    along = view.project_jacobian(points) @ ((target - entry) / item.length_mm)
    size = np.sqrt((along**2).sum(1))
    # in a view along the needle, nearer ticks would merge
    good = (view.depth_mm(points) > NEAR_MM) & (size * TICK_MM > 0.5 * mark)
    half = np.where(depths % 50, mark, 1.6 * mark)
    with np.errstate(divide="ignore", invalid="ignore"):
        across = np.stack([-along[:, 1], along[:, 0]], 1) * (half / size)[:, None]
    ends = np.stack([here - across, here + across], 1)
    shapes: list[Shape] = []
    for k in np.flatnonzero(good):
        shapes += cut("tick", f"{item.name} {depths[k]:.0f} mm", view, ends[k], 1.5, "")
    return shapes


def _target_shapes(view: DrawnView, point: np.ndarray, name: str, tolerance_mm: float | None) -> list[Shape]:
    shapes = cut("target", name, view, _cross(view, point, 9 * _unit(view)), 1.5, name)
    if tolerance_mm is not None:  # the ball's outline, as the ellipse of a sphere is to first order
        scale = tolerance_mm / np.sqrt(CHI2_95_2)
        shapes += cut("tolerance", name, view, error_ellipse(view, point, np.eye(3) * scale**2), 1.0, "")
    return shapes


def _needle_shapes(view: DrawnView, pose: np.ndarray, needle: NeedlePose, plan: Plan) -> list[Shape]:
    tip, axis = needle.tip_mm, needle.axis
    if needle.frame == "volume":
        tip, axis = apply(pose, tip), np.asarray(pose)[:3, :3] @ axis
    length = max([t.needle_length_mm or t.length_mm for t in plan.trajectories], default=100.0)
    return lines("achieved", "achieved needle", view, np.array([tip, tip - length * axis]), 2.0, "") + cut(
        "achieved", "achieved tip", view, _circle(view, tip, 4 * _unit(view)), 1.5, "")


def _covariances(points: Mapping[str, np.ndarray], registration: Registration | None, errors: object) -> dict[str, np.ndarray]:
    if isinstance(errors, Mapping):
        return dict(errors)
    if errors is not None:
        return {e.name: e.covariance_mm2 for e in errors}
    if registration is not None and np.isfinite(registration.covariance).all():
        return {name: registration.point_covariance(point) for name, point in points.items()}
    return {}


def status_shapes(view: DrawnView | CArmView, registration: Registration | None, status: str, note: str = "") -> list[Shape]:
    """The status line in the upper left corner, or nothing when there is nothing to say."""
    words, color = [], GREY
    if status in STATUS_TEXTS and not (status == "fail" and registration is not None):
        words.append(STATUS_TEXTS[status])
        color = {"fail": VERMILLION, "lost": VERMILLION, "hold": WHITE}.get(status, GREY)
    elif registration is not None:
        color = {"pass": BLUISH_GREEN, "warn": YELLOW, "fail": VERMILLION}[registration.verdict]
        words.append(f"Registration {registration.verdict}" + (f": {registration.reasons[0]}" if registration.reasons else ""))
    if note:
        words.append(note)
    if not words:
        return []
    place = np.array([[0.012 * view.columns, 0.012 * view.rows]])
    return [Shape("status", status, place, color, 1.0, " - ".join(words))]


@functools.cache
def _ring(points: int) -> np.ndarray:
    """Unit circle (points + 1, 2), closed."""
    angle = np.linspace(0, 2 * np.pi, points + 1)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    ring[-1] = ring[0]
    ring.setflags(write=False)
    return ring


def _circle(view: DrawnView, point: np.ndarray, radius_px: float) -> np.ndarray:
    return view.project(point)[0] + radius_px * _ring(24)


def _cross(view: DrawnView, point: np.ndarray, radius_px: float) -> np.ndarray:
    """A plus drawn as one polyline that passes its middle twice."""
    arms = np.array([[-1, 0], [1, 0], [0, 0], [0, -1], [0, 1]], float)
    return view.project(point)[0] + radius_px * arms
