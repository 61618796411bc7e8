"""What one view says of a needle, and no more: its deviation in the picture's plane, and the ray its tip lies on.

Depth along the ray is unknown.  When hub and tip are both seen and the needle's length is known, the needle cannot be
farther from the source than where it would just span both rays, and at the planned depth its tilt out of the plane is
known up to its sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.carm import CArmView
from ..geometry.rigid import apply, inverse
from ..planning.plan import Trajectory
from .needle import NeedleFinding


@dataclass(frozen=True, eq=False)
class OneView:
    """A needle in one view.

    Attributes
    ----------
    lateral_mm
        Distance of the tip from the planned line as the picture shows it, in mm at the target's depth; None where the plan is seen end on.
    side_text
        Towards which patient side the tip lies from the planned line: ``"cranial"``, ``"left"``, ...
    remaining_mm
        Projected way from the tip to the target along the planned line, as a length in 3-D on that line; negative: past it.
    angle_deg
        Angle between planned and seen direction in the picture.
    ray_origin_lps_mm, ray_lps
        The tip lies on this ray, volume LPS: source (3,) and unit direction (3,).
    depth
        Always a sentence that says that depth is not known, or how it is bounded.
    farthest_mm
        Largest possible distance of the tip from the source, or None.
    tilt_deg
        Tilt out of the picture's plane at the planned depth, sign unknown, or None.
    """

    lateral_mm: float | None
    side_text: str
    remaining_mm: float | None
    angle_deg: float | None
    ray_origin_lps_mm: np.ndarray
    ray_lps: np.ndarray
    depth: str
    farthest_mm: float | None = None
    tilt_deg: float | None = None

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}


def one_view(view: CArmView, pose: np.ndarray, finding: NeedleFinding, trajectory: Trajectory | None = None) -> OneView:
    """Compare a found needle with its plan in one view (isocentre frame; ``pose`` 4x4, volume -> isocentre)."""
    local = view.in_volume(pose)
    ray = view.ray_directions(finding.tip_px)[0] @ np.asarray(pose)[:3, :3]
    lateral = remaining = angle = None
    side = ""
    if trajectory is not None:
        lateral, side, remaining, angle = _against_plan(local, finding, trajectory)
    text, farthest, tilt = "Depth is not known from one view.", None, None
    length = None if trajectory is None else trajectory.needle_length_mm
    if length is not None and finding.hub_seen:
        farthest, tilt = _bounded(local, finding, length, trajectory)
        text = f"Depth is not known from one view; the needle's length allows at most {farthest:.0f} mm from the source."
    return OneView(lateral, side, remaining, angle, apply(inverse(pose), view.source_mm), ray, text, farthest, tilt)


def _against_plan(view: CArmView, finding: NeedleFinding, item: Trajectory) -> tuple[float | None, str, float | None, float | None]:
    entry, target = view.project(np.array([item.entry_lps_mm, item.target_lps_mm]))
    mm = view.mm_per_pixel_at(item.target_lps_mm)
    along = target - entry
    size = float(np.linalg.norm(along))
    if not np.isfinite(size) or size * mm < 0.1 * item.length_mm:
        offset = finding.tip_px - target
        return (float(np.linalg.norm(offset) * mm), _side(view, offset), None, None) if np.isfinite(size) else (None, "", None, None)
    along = along / size
    away = finding.tip_px - target
    across = away - (away @ along) * along
    # Where on the planned line does this pixel lie?  The line's own perspective, not a fixed scale.
    remaining = _depth_on_line(view, item, finding.tip_px - across)
    angle = float(np.degrees(np.arccos(np.clip(finding.direction @ along, -1, 1))))
    return float(np.linalg.norm(across) * mm), _side(view, across), remaining, angle


def _depth_on_line(view: CArmView, item: Trajectory, pixel: np.ndarray) -> float:
    """mm from the point of the planned line under a pixel to the target; negative beyond it."""
    ray = view.ray_directions(pixel)[0]
    # nearest point of the line to the ray: the pixel lies on the projected line, so they meet
    base, d = item.target_lps_mm - view.source_mm, item.axis
    flat_d, flat_b = d - (d @ ray) * ray, base - (base @ ray) * ray
    return float(flat_b @ flat_d / (flat_d @ flat_d))


def _side(view: CArmView, offset_px: np.ndarray) -> str:
    step = offset_px[0] * view.column_step_mm + offset_px[1] * view.row_step_mm
    if np.linalg.norm(offset_px) < 1e-9:
        return ""
    axis = int(np.argmax(np.abs(step)))
    return (("left", "right"), ("posterior", "anterior"), ("cranial", "caudal"))[axis][0 if step[axis] > 0 else 1]


def _bounded(view: CArmView, finding: NeedleFinding, length: float, item: Trajectory) -> tuple[float, float | None]:
    tip, hub = view.ray_directions(np.array([finding.tip_px, finding.shaft_px]))
    sine = float(np.linalg.norm(np.cross(tip, hub)))
    if sine < 1e-9:
        return float("inf"), 90.0
    distance = float(np.linalg.norm(item.target_lps_mm - view.source_mm))
    span = distance * sine  # shortest needle between both rays with its tip at the planned depth
    tilt = float(np.degrees(np.arccos(min(1.0, span / length)))) if span <= length else None
    return length / sine, tilt
