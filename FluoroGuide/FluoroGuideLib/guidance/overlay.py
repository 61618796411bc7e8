"""What is drawn on an X-ray view, as polylines in pixels: pure geometry, for the scene, the command line and tests.

Colours are those of M. Okabe and K. Ito ("Color Universal Design", 2008): told apart by colour-blind people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply
from ..imaging.xray import XrayImage
from ..planning.plan import Plan, Trajectory
from ..registration.result import Registration, TargetError
from .triangulation import NeedlePose

SKY_BLUE, BLUISH_GREEN, YELLOW, ORANGE = (86, 180, 233, 255), (0, 158, 115, 255), (240, 228, 66, 255), (230, 159, 0, 255)
VERMILLION, REDDISH_PURPLE, WHITE, GREY = (213, 94, 0, 255), (204, 121, 167, 255), (255, 255, 255, 255), (150, 150, 150, 255)
ROLE_COLORS = {
    "needle": SKY_BLUE, "tick": SKY_BLUE, "entry": SKY_BLUE, "target": YELLOW, "tolerance": YELLOW, "outline": BLUISH_GREEN,
    "error": REDDISH_PURPLE, "achieved": ORANGE, "orientation": WHITE, "status": WHITE,
}
STATUSES = ("ok", "stale", "fail")
CHI2_95_2 = 5.991464547107979
"""95 % quantile of chi-square with 2 degrees of freedom: -2 ln 0.05."""
TICK_MM = 10.0
NEAR_MM = 1.0
"""Nearest distance from the source that is drawn; nothing of a patient is there."""
MIN_LETTER = 0.3
"""A second orientation letter is written when the axis leans to it by more than asin(0.3) = 17 degrees."""


@dataclass(frozen=True, eq=False)
class Shape:
    """One thing to draw.

    Attributes
    ----------
    role
        ``needle``, ``tick``, ``entry``, ``target``, ``tolerance``, ``outline``, ``error``, ``achieved``, ``orientation``, ``status``.
    name
        The planned thing it belongs to; a line cut by the image border gives several shapes of one name.
    pixels
        (N, 2) finite (column, row).  N >= 2: a polyline, closed when the last point repeats the first.  N = 1: text only.
    color
        (red, green, blue, alpha), 0-255.
    width
        Line width in screen pixels.
    text
        Written at the first point; empty for none.
    """

    role: str
    name: str
    pixels: np.ndarray
    color: tuple[int, int, int, int]
    width: float = 1.5
    text: str = ""


def plan_overlay(
    view: CArmView, pose: np.ndarray, plan: Plan, registration: Registration | None = None,
    errors: Sequence[TargetError] | Mapping[str, np.ndarray] | None = None, *,
    needle: NeedlePose | None = None, status: str | None = None,
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
        ``ok``, ``stale`` or ``fail``; by default ``fail`` when the registration's verdict is, else ``ok``.
        Anything but ``ok`` is drawn grey and says so in words.
    """
    if status is None:
        status = "fail" if registration is not None and registration.verdict == "fail" else "ok"
    if status not in STATUSES:
        raise ValueError(f"status {status!r} is none of {STATUSES}")
    shapes: list[Shape] = []
    for name, line in plan.outlines.items():
        shapes += _lines("outline", name, view, apply(pose, line), 1.5, name)
    for item in plan.trajectories:
        ends_in_target = any(np.allclose(t.position_lps_mm, item.target_lps_mm, atol=1e-6) for t in plan.targets)
        shapes += _trajectory_shapes(view, pose, item, ends_in_target)
    for target in plan.targets:
        shapes += _target_shapes(view, apply(pose, target.position_lps_mm), target.name, target.tolerance_mm)
    for name, covariance in _covariances(plan, registration, errors).items():
        point = plan.target_points().get(name)
        if point is not None:
            shapes += _cut("error", name, view, error_ellipse(view, apply(pose, point), covariance), 1.5, "")
    if needle is not None:
        shapes += _needle_shapes(view, pose, needle, plan)
    if status != "ok":
        shapes = [Shape(s.role, s.name, s.pixels, GREY, s.width, s.text) for s in shapes]
    return shapes + orientation_shapes(view) + _status_shapes(view, registration, status)


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
    angle = np.linspace(0, 2 * np.pi, points + 1)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    ring[-1] = ring[0]
    return view.project(point_mm)[0] + (ring * half) @ vectors.T


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
def _unit(view: CArmView) -> float:
    """Size in pixels of marks: 1 for a 1024-pixel image, so that marks look alike whatever the matrix."""
    return max(view.columns, view.rows) / 1024


def _trajectory_shapes(view: CArmView, pose: np.ndarray, item: Trajectory, ends_in_target: bool) -> list[Shape]:
    entry, target = apply(pose, np.array([item.entry_lps_mm, item.target_lps_mm]))
    shapes = _lines("needle", item.name, view, np.array([entry, target]), 2.0, item.name)
    mark = 9 * _unit(view)
    depths = np.arange(TICK_MM, item.length_mm + 1e-9, TICK_MM)
    for depth in depths:  # counted from the target, where the needle's remaining way matters
        point = target + (entry - target) * depth / item.length_mm
        along = view.project_jacobian(point)[0] @ (target - entry) / item.length_mm
        spacing = np.linalg.norm(along) * TICK_MM
        if view.depth_mm(point)[0] > NEAR_MM and spacing > 0.5 * mark:  # nearer ticks would merge in a view along the needle
            across = np.array([-along[1], along[0]]) / np.linalg.norm(along) * mark * (1.0 if depth % 50 else 1.6)
            here = view.project(point)[0]
            shapes += _cut("tick", f"{item.name} {depth:.0f} mm", view, np.array([here - across, here + across]), 1.5, "")
    shapes += _cut("entry", item.name, view, _circle(view, entry, mark), 1.5, "")
    if ends_in_target:  # that target draws the mark
        return shapes
    return shapes + _cut("target", item.name, view, _cross(view, target, mark), 1.5, "")


def _target_shapes(view: CArmView, point: np.ndarray, name: str, tolerance_mm: float | None) -> list[Shape]:
    shapes = _cut("target", name, view, _cross(view, point, 9 * _unit(view)), 1.5, name)
    if tolerance_mm is not None:  # the ball's outline, as the ellipse of a sphere is to first order
        scale = tolerance_mm / np.sqrt(CHI2_95_2)
        shapes += _cut("tolerance", name, view, error_ellipse(view, point, np.eye(3) * scale**2), 1.0, "")
    return shapes


def _needle_shapes(view: CArmView, pose: np.ndarray, needle: NeedlePose, plan: Plan) -> list[Shape]:
    tip, axis = needle.tip_mm, needle.axis
    if needle.frame == "volume":
        tip, axis = apply(pose, tip), np.asarray(pose)[:3, :3] @ axis
    length = max([t.needle_length_mm or t.length_mm for t in plan.trajectories], default=100.0)
    return _lines("achieved", "achieved needle", view, np.array([tip, tip - length * axis]), 2.0, "") + _cut(
        "achieved", "achieved tip", view, _circle(view, tip, 4 * _unit(view)), 1.5, "")


def _covariances(plan: Plan, registration: Registration | None, errors: object) -> dict[str, np.ndarray]:
    if isinstance(errors, Mapping):
        return dict(errors)
    if errors is not None:
        return {e.name: e.covariance_mm2 for e in errors}
    if registration is not None:
        return {name: registration.point_covariance(point) for name, point in plan.target_points().items()}
    return {}


def _status_shapes(view: CArmView, registration: Registration | None, status: str) -> list[Shape]:
    words, color = [], GREY
    if status == "stale":
        words.append("Overlay stale: register again")
    elif registration is not None:
        color = {"pass": BLUISH_GREEN, "warn": YELLOW, "fail": VERMILLION}[registration.verdict]
        words.append(f"Registration {registration.verdict}" + (f": {registration.reasons[0]}" if registration.reasons else ""))
    elif status == "fail":
        words.append("Registration fail")
        color = VERMILLION
    if not words:
        return []
    place = np.array([[0.012 * view.columns, 0.012 * view.rows]])
    return [Shape("status", status, place, color, 1.0, " - ".join(words))]


def _circle(view: CArmView, point: np.ndarray, radius_px: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 25)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    ring[-1] = ring[0]
    return view.project(point)[0] + radius_px * ring


def _cross(view: CArmView, point: np.ndarray, radius_px: float) -> np.ndarray:
    """A plus drawn as one polyline that passes its middle twice."""
    arms = np.array([[-1, 0], [1, 0], [0, 0], [0, -1], [0, 1]], float)
    return view.project(point)[0] + radius_px * arms


def _lines(role: str, name: str, view: CArmView, points_mm: np.ndarray, width: float, text: str) -> list[Shape]:
    """A 3-D polyline (N, 3), isocentre mm, cut where it comes behind the source and at the image's border."""
    depth = view.depth_mm(points_mm)
    if depth.min() > NEAR_MM:  # the usual case, in one projection
        return _cut(role, name, view, view.project(points_mm), width, text)
    pieces: list[np.ndarray] = []
    for a, b, da, db in zip(points_mm[:-1], points_mm[1:], depth[:-1], depth[1:], strict=True):
        if max(da, db) <= NEAR_MM:
            continue
        # Cut in space first: behind the source the projection jumps to the other side of the image.
        near = a + (b - a) * (NEAR_MM - da) / (db - da) if min(da, db) < NEAR_MM else a
        pieces.append(view.project(np.array([near if da < NEAR_MM else a, near if db < NEAR_MM else b])))
    return _shapes(role, name, _join(pieces, view), width, text)


def _cut(role: str, name: str, view: CArmView, pixels: np.ndarray, width: float, text: str) -> list[Shape]:
    """A polyline in pixels (N, 2), cut at the image's border; nothing when it is not finite (behind the source)."""
    if not np.isfinite(pixels).all():
        return []
    if (pixels >= -0.5).all() and (pixels <= (view.columns - 0.5, view.rows - 0.5)).all():
        return _shapes(role, name, [pixels], width, text)
    return _shapes(role, name, _join([pixels[k:k + 2] for k in range(len(pixels) - 1)], view), width, text)


def _shapes(role: str, name: str, runs: list[np.ndarray], width: float, text: str) -> list[Shape]:
    return [Shape(role, name, run, ROLE_COLORS[role], width, text if k == 0 else "") for k, run in enumerate(runs)]


def _join(segments: list[np.ndarray], view: CArmView) -> list[np.ndarray]:
    """Clip segments (2, 2) to the image and join those that touch into polylines."""
    runs: list[list[np.ndarray]] = []
    for segment in segments:
        clipped = clip_segment(segment[0], segment[1], view.columns, view.rows)
        if clipped is None:
            continue
        if runs and np.allclose(runs[-1][-1], clipped[0], atol=1e-9):
            runs[-1].append(clipped[1])
        else:
            runs.append([clipped[0], clipped[1]])
    if len(runs) > 1 and np.allclose(runs[-1][-1], runs[0][0], atol=1e-9):  # a closed line that was entered in the middle
        runs[0] = runs.pop() + runs[0][1:]
    return [np.array(run) for run in runs]


def clip_segment(a: np.ndarray, b: np.ndarray, columns: int, rows: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The part of a segment inside the image (outer borders of its pixels), or None (Liang and Barsky, ACM TOG 3:1, 1984)."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    first, last, step = 0.0, 1.0, b - a
    for axis, high in ((0, columns - 0.5), (1, rows - 0.5)):
        for direction, room in ((-step[axis], a[axis] + 0.5), (step[axis], high - a[axis])):
            if direction == 0:
                if room < 0:
                    return None
            elif direction < 0:
                first = max(first, room / direction)
            else:
                last = min(last, room / direction)
    if first > last:
        return None
    return (a if first == 0 else a + first * step), (b if last == 1 else a + last * step)


# ---- pictures ---------------------------------------------------------------------------------------------------
LEGEND = {
    "needle": "planned needle, ticks 10 mm from the target", "achieved": "achieved needle", "target": "target", "outline": "outline",
    "error": "95 % registration error", "edges": "edges of the registered volume",
}


def draw_overlay_png(image: XrayImage, shapes: Sequence[Shape], path: str | Path, drr_edges: np.ndarray | None = None) -> None:
    """Draw shapes on an X-ray and write an 8-bit RGB PNG; small images are enlarged by a whole factor to 700 pixels or more.

    Parameters
    ----------
    image
        The X-ray; shown bone bright, between its 0.5 and 99.5 % quantiles in the mask, dimmed outside the mask.
    shapes
        From :func:`plan_overlay`, in the pixels of ``image.view``.
    path
        File to write.
    drr_edges
        (rows, columns), bool or 0..1: edges of the projected volume, drawn in vermillion.

    Raises
    ------
    FluoroGuideError
        ``drr_edges`` of another size, or a path that cannot be written.
    """
    from PIL import Image

    rows, columns = image.pixels.shape
    enlarge = max(1, int(np.ceil(700 / max(rows, columns))))
    picture = Image.fromarray(_eight_bit(image)).resize((columns * enlarge, rows * enlarge), Image.Resampling.BICUBIC).convert("RGBA")
    legend = {s.role: s.color for s in shapes if s.role in LEGEND}
    if drr_edges is not None:
        if np.shape(drr_edges) != (rows, columns):
            raise FluoroGuideError("The projected edges have another size than the X-ray", f"{np.shape(drr_edges)} and {(rows, columns)}")
        alpha = Image.fromarray((np.clip(np.asarray(drr_edges, float), 0, 1) * 200).astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
        picture.paste(Image.new("RGBA", picture.size, VERMILLION), (0, 0), alpha)
        legend["edges"] = VERMILLION
    picture.alpha_composite(_line_layer(shapes, picture.size, enlarge))
    _write_texts(picture, shapes, enlarge, legend)
    try:
        picture.convert("RGB").save(path, format="PNG")
    except OSError as error:
        raise FluoroGuideError(f"{Path(path).name} cannot be written", error.strerror, "Choose a folder that exists and has space") from None


def _eight_bit(image: XrayImage) -> np.ndarray:
    """uint8 (rows, columns) for the eye."""
    shown = image.pixels[image.mask] if image.mask.any() else image.pixels[np.isfinite(image.pixels)]
    low, high = np.percentile(shown, (0.5, 99.5)) if shown.size else (0.0, 1.0)
    gray = np.clip((np.nan_to_num(image.pixels, nan=low) - low) / max(high - low, 1e-12), 0, 1) * 235
    return np.where(image.mask, gray, 0.25 * gray).astype(np.uint8)


def _line_layer(shapes: Sequence[Shape], size: tuple[int, int], enlarge: int) -> object:
    """RGBA picture of all polylines with a dark rim, anti-aliased by drawing three times as large."""
    from PIL import Image, ImageDraw

    fine = 3
    layer = Image.new("RGBA", (size[0] * fine, size[1] * fine), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    pen = fine * max(1.0, max(size) / 1024)
    for rim in (True, False):
        for shape in shapes:
            if len(shape.pixels) < 2:
                continue
            # The centre of pixel 0 lies half an (enlarged) pixel inside the picture.
            points = [tuple(p) for p in (np.asarray(shape.pixels) + 0.5) * enlarge * fine - 0.5]
            width = max(1, round(shape.width * pen + (1.2 * pen if rim else 0)))
            draw.line(points, fill=(0, 0, 0, 255) if rim else shape.color, width=width, joint="curve")
    return layer.resize(size, Image.Resampling.BOX)


def _write_texts(picture: object, shapes: Sequence[Shape], enlarge: int, legend: Mapping[str, tuple]) -> None:
    from PIL import ImageDraw, ImageFont

    draw, size = ImageDraw.Draw(picture), picture.size
    height = max(11, round(max(size) / 62))
    font = ImageFont.load_default(height)
    taken: list[tuple[float, float, float, float]] = []

    def write(x: float, y: float, text: str, color: tuple, anchor: str) -> None:
        box = draw.textbbox((x, y), text, font=font, anchor=anchor)
        x += max(2 - box[0], 0) - max(box[2] - size[0] + 2, 0)
        # Texts move down until they cover no other: two targets of one joint lie close together.
        while any(box[0] < t[2] and t[0] < box[2] and y - height / 2 < t[3] and t[1] < y + height / 2 for t in taken) and y < size[1] - 2 * height:
            y += height / 2
        box = draw.textbbox((x, y), text, font=font, anchor=anchor)
        taken.append((box[0], y - height / 2, box[2], y + height / 2))
        draw.text((x, y), text, font=font, fill=color, anchor=anchor, stroke_width=max(1, height // 8), stroke_fill=(0, 0, 0, 255))

    for line, (role, color) in enumerate(reversed(legend.items())):
        write(height / 2, size[1] - height * (0.8 + 1.3 * line), f"- {LEGEND[role]}", color, "lm")
    for shape in sorted((s for s in shapes if s.text), key=lambda s: s.role not in ("status", "orientation")):
        x, y = (np.asarray(shape.pixels[0]) + 0.5) * enlarge
        if shape.role == "orientation":
            write(x, y, shape.text, shape.color, "mm")
        elif shape.role == "status":
            write(x, y + height / 2, shape.text, shape.color, "lm")
        else:
            write(x + height, y, shape.text, shape.color, "lm")
