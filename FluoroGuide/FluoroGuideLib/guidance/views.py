"""Bull's-eye and progress views as geometry in mm: what the scene, the command line and tests draw.

Bull's-eye: looking along the planned needle from entry to target, the target in the middle, rings at 1, 2 and 5 mm of
lateral deviation at target depth.  Progress: the path unrolled, depth to the right, lateral distance upwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..planning.plan import Trajectory
from .overlay import axis_letters
from .shapes import BLUISH_GREEN, ORANGE, REDDISH_PURPLE, SKY_BLUE, VERMILLION, WHITE, YELLOW

RINGS_MM = (1.0, 2.0, 5.0)
CHI_95_2 = 2.4477
"""Radius that holds 95 % of a circular normal distribution in the plane, in sigmas."""


@dataclass(frozen=True, eq=False)
class Mark:
    """A line (N, 2) or a text at a point (1, 2) in mm of the view: x to the right, y upwards."""

    role: str
    points_mm: np.ndarray
    color: tuple[int, int, int, int]
    text: str = ""
    text_mm: tuple[float, float] | None = None

    @property
    def label_mm(self) -> np.ndarray:
        """Where the text is written (2,): at ``text_mm``, else at the first point, on a ring up to the right."""
        if self.text_mm is not None:
            return np.array(self.text_mm, float)
        return self.points_mm[0 if len(self.points_mm) < 5 else len(self.points_mm) // 8]


@dataclass(frozen=True, eq=False)
class BullsEye:
    """The view along the path.

    Attributes
    ----------
    right_lps, up_lps, into_lps
        Its axes, unit vectors (3,), volume LPS; ``into`` is the needle's direction.
    marks
        What is drawn.
    lateral_mm, aim_mm
        Distance of the tip from the planned line, and of the point where the needle's own line meets the target plane.
    """

    right_lps: np.ndarray
    up_lps: np.ndarray
    into_lps: np.ndarray
    marks: tuple[Mark, ...]
    lateral_mm: float | None = None
    aim_mm: float | None = None


def path_axes(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(right, up, into) of the bull's-eye view: head up where the path allows it, else the patient's front up.

    ``right x up = -into``: the view is that of somebody behind the hub.
    """
    into = trajectory.axis
    up = np.array([0.0, 0.0, 1.0]) if abs(into[2]) < 0.9 else np.array([0.0, -1.0, 0.0])
    up = up - (up @ into) * into
    up /= np.linalg.norm(up)
    return np.cross(into, up), up, into


def bulls_eye(
    trajectory: Trajectory, tip_lps_mm: np.ndarray | None = None, axis_lps: np.ndarray | None = None, covariance_mm2: np.ndarray | None = None,
    tolerance_mm: float | None = None,
) -> BullsEye:
    """The bull's-eye of a path with the achieved tip (3,), direction (3,) and the tip's covariance (3, 3), volume LPS."""
    right, up, into = path_axes(trajectory)
    frame = np.array([right, up])
    marks = [Mark("ring", _circle(radius), WHITE, f"{radius:g} mm") for radius in RINGS_MM]
    marks += [Mark("cross", np.array([[-6.0, 0], [6.0, 0]]), WHITE), Mark("cross", np.array([[0, -6.0], [0, 6.0]]), WHITE)]
    if tolerance_mm is not None:
        marks.append(Mark("tolerance", _circle(tolerance_mm), YELLOW))
    for direction, place in ((right, (6.6, 0)), (-right, (-6.6, 0)), (up, (0, 6.6)), (-up, (0, -6.6))):
        marks.append(Mark("letter", np.array([place], float), WHITE, axis_letters(direction)))
    if tip_lps_mm is None:
        return BullsEye(right, up, into, tuple(marks))
    offset = frame @ (np.asarray(tip_lps_mm, float) - trajectory.target_lps_mm)
    aim = None
    if axis_lps is not None and np.asarray(axis_lps) @ into > 0.1:
        axis = np.asarray(axis_lps, float) / np.linalg.norm(axis_lps)
        left = (trajectory.target_lps_mm - tip_lps_mm) @ into / (axis @ into)
        aim = frame @ (np.asarray(tip_lps_mm, float) + left * axis - trajectory.target_lps_mm)
        marks.append(Mark("aim", np.array([offset, aim]), ORANGE))
        # beside the tip's own text it would not be read
        marks.append(Mark("aim", aim + _circle(0.25), ORANGE, "aim" if np.hypot(*(aim - offset)) > 1.5 else ""))
    if covariance_mm2 is not None:
        values, vectors = np.linalg.eigh(frame @ np.asarray(covariance_mm2, float) @ frame.T)
        marks.append(Mark("error", offset + (_circle(1.0) * CHI_95_2 * np.sqrt(np.clip(values, 0, None))) @ vectors.T, REDDISH_PURPLE))
    lateral = float(np.hypot(*offset))
    good = tolerance_mm is None or lateral <= tolerance_mm
    marks.append(Mark("tip", offset + _circle(0.4), BLUISH_GREEN if good else VERMILLION, f"{lateral:.1f} mm"))
    return BullsEye(right, up, into, tuple(marks), lateral, None if aim is None else float(np.hypot(*aim)))


@dataclass(frozen=True, eq=False)
class Progress:
    """The view across the path: ``depth_mm`` from the entry, ``remaining_mm`` to the target (negative past it)."""

    marks: tuple[Mark, ...]
    depth_mm: float | None = None
    remaining_mm: float | None = None
    text: str = ""


def progress(trajectory: Trajectory, tip_lps_mm: np.ndarray | None = None, tolerance_mm: float | None = None) -> Progress:
    """The progress view of a path with the achieved tip (3,), volume LPS."""
    length = trajectory.length_mm
    marks = [Mark("path", np.array([[0.0, 0], [length, 0]]), SKY_BLUE)]
    marks.append(Mark("entry", np.array([[0.0, -2.0], [0.0, 2.0]]), SKY_BLUE, "entry", (0.0, 3.0)))
    for left in np.arange(10.0, length + 1e-9, 10.0):  # counted from the target, like the overlay's ticks
        text = f"{left:.0f}" if left % 20 == 0 else ""
        marks.append(Mark("tick", np.array([[length - left, -1.0], [length - left, 1.0]]), SKY_BLUE, text, (length - left, -4.5)))
    marks.append(Mark("target", np.array([[length, -3.0], [length, 3.0]]), YELLOW, "target", (length, 4.0)))
    if tolerance_mm is not None:
        marks.append(Mark("tolerance", np.array([length, 0.0]) + _circle(tolerance_mm), YELLOW))
    if tip_lps_mm is None:
        return Progress(tuple(marks))
    offset = np.asarray(tip_lps_mm, float) - trajectory.entry_lps_mm
    depth = float(offset @ trajectory.axis)
    lateral = float(np.linalg.norm(offset - depth * trajectory.axis))
    left = length - depth
    text = f"{left:.1f} mm to the target" if left >= 0.05 else "at the target's depth" if left > -0.05 else f"{-left:.1f} mm past the target"
    marks.append(Mark("tip", np.array([depth, lateral]) + _circle(0.8), ORANGE, text, (depth, lateral + 2.5)))
    marks.append(Mark("shaft", np.array([[min(0.0, depth), lateral], [depth, lateral]]), ORANGE))
    return Progress(tuple(marks), depth, left, text)


def _circle(radius: float, count: int = 72) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count + 1)
    return radius * np.column_stack([np.cos(angle), np.sin(angle)])


def draw_marks_png(marks: tuple[Mark, ...], path: str | Path, span_mm: tuple[float, float, float, float], size: int = 700, title: str = "") -> None:
    """Draw marks within ``span_mm`` (left, right, lower, upper) on black, ``size`` pixels wide.

    Raises
    ------
    FluoroGuideError
        The file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = size / (span_mm[1] - span_mm[0])
    picture = Image.new("RGB", (size, max(60, round((span_mm[3] - span_mm[2]) * scale))))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(max(12, size // 45))
    for mark in marks:
        at = [((x - span_mm[0]) * scale, (span_mm[3] - y) * scale) for x, y in mark.points_mm]
        if len(at) > 1:
            draw.line(at, fill=mark.color[:3], width=max(1, size // 350), joint="curve")
        if mark.text:
            place = ((mark.label_mm[0] - span_mm[0]) * scale, (span_mm[3] - mark.label_mm[1]) * scale)
            draw.text(place, mark.text, fill=mark.color[:3], font=font, anchor="mm" if len(at) == 1 else "ls")
    if title:
        draw.text((size // 60, size // 60), title, fill=(255, 255, 255), font=font)
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise FluoroGuideError(f"{Path(path).name} cannot be written", error.strerror, "Choose a folder that exists and has space") from None
