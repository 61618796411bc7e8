"""Entry points for a target: every direction of the procedure's cone is tried, those that keep the rules are ranked.

Hard rules: skin in the scan, no bone (unless the procedure goes through it), the wanted clearance of each structure, a
needle long enough, a bull's-eye view that the C-arm reaches.  What is left is scored; the best are checked again
exactly (:func:`planning.safety.check_trajectory`), and each says why it is there.  A suggestion is a starting point for
the planner, never a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..anatomy.skin import exits_lps_mm
from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk
from .approach import Room, SolvedView, bulls_eye, nearest_angles
from .plan import Trajectory, inside
from .safety import BONE_HU, SafetyReport, Structure, check_trajectory, needle_radius_mm

WEIGHTS = {"clearance": 0.40, "length": 0.20, "obliquity": 0.30, "view": 0.10}
GOOD_CLEARANCE_MM = 15.0
APART_DEG = 6.0
FAR_MM = 20.0
"""The search looks no farther: the score does not gain beyond :data:`GOOD_CLEARANCE_MM`."""


@dataclass(frozen=True)
class Rules:
    """What a procedure asks of a path.

    Attributes
    ----------
    direction_lps
        Preferred direction from the target outward (3,).
    cone_deg
        Greatest angle from it.
    bone_allowed, bone_allow_mm
        See :func:`planning.safety.check_trajectory`.
    needle_length_mm, gauge
        Of the needle at hand, or None.
    through_lps_mm, through_mm
        A point (3,) that the needle's axis has to pass within so many mm (a pedicle's middle), or None.
    """

    direction_lps: np.ndarray
    cone_deg: float = 40.0
    bone_allowed: bool = False
    bone_allow_mm: float = 5.0
    needle_length_mm: float | None = None
    gauge: float | None = None
    through_lps_mm: np.ndarray | None = None
    through_mm: float = 1.5


@dataclass(frozen=True, eq=False)
class Candidate:
    """A suggested path: score 0..1, its exact safety report, its bull's-eye view, and why."""

    trajectory: Trajectory
    score: float
    clearance_mm: float
    obliquity_deg: float
    safety: SafetyReport
    view: SolvedView
    reasons: tuple[str, ...]

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {"trajectory": self.trajectory.to_dict(), "score": self.score, "clearance_mm": self.clearance_mm, "obliquity_deg": self.obliquity_deg,
                "safety": self.safety.to_dict(), "view": self.view.to_dict(), "reasons": list(self.reasons)}


@dataclass(eq=False)
class _Search:
    """Counts of what fell out, for the message when nothing is left."""

    tried: int
    lost: dict[str, int] = field(default_factory=dict)

    def keep(self, good: np.ndarray, why: str) -> np.ndarray:
        self.lost[why] = int((~good).sum())
        return np.nonzero(good)[0]


def cone(direction: np.ndarray, angle_deg: float, step_deg: float = 2.0) -> np.ndarray:
    """Unit vectors (N, 3) that fill a cone with rings ``step_deg`` apart; the first one is the axis."""
    axis = np.asarray(direction, float) / np.linalg.norm(direction)
    e1 = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(axis, e1)
    found = [axis[None]]
    for ring in np.radians(np.arange(step_deg, angle_deg + 1e-9, step_deg)):
        turn = np.linspace(0, 2 * np.pi, max(6, round(360 / step_deg * np.sin(ring))), endpoint=False)[:, None]
        found.append(np.cos(ring) * axis + np.sin(ring) * (np.cos(turn) * e1 + np.sin(turn) * e2))
    return np.concatenate(found)


def suggest(
    target_lps_mm: np.ndarray, image: object, body: object, structures: Sequence[Structure], room: Room, rules: Rules, *, count: int = 5,
    step_deg: float = 2.0, name: str = "suggested",
) -> list[Candidate]:
    """Ranked entry candidates for a target, best first.

    Parameters
    ----------
    target_lps_mm
        (3,), volume LPS mm.
    image, body
        CT in HU and its :func:`anatomy.skin.body_mask`.

    Raises
    ------
    FluoroGuideError
        The target is outside the volume or the body, or no direction keeps the rules (the message counts the reasons).
    """
    target = np.asarray(target_lps_mm, float)
    if not inside(image, target[None])[0]:
        place = np.round(target, 1).tolist()
        raise FluoroGuideError("The target lies outside the volume", f"{place} LPS mm", "Check that target and volume belong together (LPS, not RAS)")
    axis = np.asarray(rules.direction_lps, float) / np.linalg.norm(rules.direction_lps)
    directions = cone(axis, rules.cone_deg, step_deg)
    search = _Search(len(directions))
    if rules.through_lps_mm is not None:
        way = np.asarray(rules.through_lps_mm, float) - target
        across = np.linalg.norm(way - (directions @ way)[:, None] * directions, axis=1)
        directions = directions[search.keep((across <= rules.through_mm) & (directions @ way > 0), "miss the point to pass")]
    entries = exits_lps_mm(body, target, directions)
    keep = search.keep(np.isfinite(entries).all(axis=1), "leave the scan before the skin")
    directions, entries = directions[keep], entries[keep]
    lengths = np.linalg.norm(entries - target, axis=1)
    if rules.needle_length_mm is not None:
        keep = search.keep(lengths <= rules.needle_length_mm, "are longer than the needle")
        directions, entries, lengths = directions[keep], entries[keep], lengths[keep]
    if not rules.bone_allowed:
        keep = search.keep(~_bone_hit(image, target, directions, lengths, rules.bone_allow_mm), "cross bone")
        directions, entries, lengths = directions[keep], entries[keep], lengths[keep]
    spare = _spare_mm(structures, target, directions, lengths) - needle_radius_mm(rules.gauge)
    keep = search.keep(spare > 0, "come too near to a structure")
    directions, entries, lengths, spare = directions[keep], entries[keep], lengths[keep], spare[keep]
    off = np.array([min(nearest_angles(s * d, room)[2] for s in (1, -1)) for d in directions])
    keep = search.keep(off < 1e-6, "need a view out of the C-arm's reach")
    directions, entries, lengths, spare = directions[keep], entries[keep], lengths[keep], spare[keep]
    tilt = np.degrees(np.arccos(np.clip(directions @ axis, -1, 1)))
    rough = _scores(spare + (min(s.clearance_mm for s in structures) if structures else 0.0), lengths, tilt, rules)
    chosen = _checked(np.argsort(-rough, kind="stable"), directions, entries, tilt, target, (image, body, structures), (room, rules), count, name)
    if not chosen:
        told = "; ".join(f"{n} {why}" for why, n in search.lost.items() if n) or "the exact check refused the rest"
        told = f"of {search.tried} directions {told}"
        raise FluoroGuideError("No path keeps the procedure's rules", told, "Widen the cone, move the target or plan by hand")
    return chosen


def _checked(order: np.ndarray, directions: np.ndarray, entries: np.ndarray, tilt: np.ndarray, target: np.ndarray, scene: tuple, how: tuple,
             count: int, name: str) -> list[Candidate]:
    """The first ``count`` that pass the exact check, at least :data:`APART_DEG` apart, best first."""
    (image, body, structures), (room, rules) = scene, how
    chosen: list[Candidate] = []
    taken: list[np.ndarray] = []
    for n in order[:60 * count]:
        if len(chosen) == count or any(directions[n] @ d > np.cos(np.radians(APART_DEG)) for d in taken):
            continue
        path = Trajectory(f"{name} {len(chosen) + 1}", entries[n], target, rules.gauge, rules.needle_length_mm)
        report = check_trajectory(path, image, list(structures), body, bone_allowed=rules.bone_allowed, bone_allow_mm=rules.bone_allow_mm)
        if report.problems:
            continue
        view = bulls_eye(path, room)
        clear = report.clearances[0].distance_mm if report.clearances else GOOD_CLEARANCE_MM
        score = float(_scores(np.array([clear]), np.array([path.length_mm]), tilt[n:n + 1], rules)[0])
        chosen.append(Candidate(path, score, clear, float(tilt[n]), report, view, _reasons(path, report, view, float(tilt[n]), rules)))
        taken.append(directions[n])
    return sorted(chosen, key=lambda c: -c.score)


def _scores(clear: np.ndarray, lengths: np.ndarray, tilt: np.ndarray, rules: Rules) -> np.ndarray:
    return (WEIGHTS["clearance"] * np.clip(clear / GOOD_CLEARANCE_MM, 0, 1) + WEIGHTS["length"] * np.clip(1 - lengths / 200.0, 0, 1)
            + WEIGHTS["obliquity"] * (1 - tilt / max(rules.cone_deg, 1e-9)) + WEIGHTS["view"])


def _reasons(path: Trajectory, report: SafetyReport, view: SolvedView, tilt: float, rules: Rules) -> tuple[str, ...]:
    text = [f"{path.length_mm:.0f} mm from skin to target.", f"{tilt:.0f} deg from the procedure's usual direction.",
            f"Bull's-eye view in reach: {view.text}."]
    if report.clearances:
        first = report.clearances[0]
        more = "more than " if first.distance_mm >= 60 else ""
        text.insert(0, f"Nearest structure: '{first.name}', {more}{first.distance_mm:.1f} mm from the needle's wall ({first.wanted_mm:g} mm wanted).")
    if report.bone_mm is not None:
        text.append(f"{report.bone_mm:.0f} mm through bone, as this procedure does." if rules.bone_allowed else
                    f"No bone before the last {rules.bone_allow_mm:g} mm.")
    return tuple(text)


def _samples(target: np.ndarray, directions: np.ndarray, lengths: np.ndarray, start_mm: float, step_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, M, 3) from ``start_mm`` outward in steps, and which of them (N, M) lie before the skin."""
    steps = np.arange(start_mm, max(lengths.max(initial=start_mm), start_mm) + step_mm, step_mm)
    return target + steps[None, :, None] * directions[:, None], steps[None] <= lengths[:, None]


def _lookup(image: object, points: np.ndarray, outside: float) -> np.ndarray:
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    matrix = np.linalg.inv(lps_from_ijk(image))
    ijk = np.round(points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).astype(int)
    good = ((ijk >= 0) & (ijk < np.array(image.GetSize()))).all(axis=1)
    values = np.full(len(ijk), outside)
    values[good] = array[ijk[good, 2], ijk[good, 1], ijk[good, 0]]
    return values.reshape(points.shape[:-1])


def _bone_hit(image: object, target: np.ndarray, directions: np.ndarray, lengths: np.ndarray, allow_mm: float) -> np.ndarray:
    points, before = _samples(target, directions, lengths, allow_mm, 1.0)
    return ((_lookup(image, points, -1000.0) > BONE_HU) & before).any(axis=1)


def _spare_mm(structures: Sequence[Structure], target: np.ndarray, directions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Least distance beyond the wanted clearance along each path, to voxel centres: a bound that the exact check follows."""
    spare = np.full(len(directions), FAR_MM)
    points, before = _samples(target, directions, lengths, 0.0, 2.0)
    for item in structures:
        if item.tree is not None and before.any():
            far = FAR_MM + item.clearance_mm
            values = np.full(before.shape, far)
            values[before] = np.minimum(item.tree.query(points[before], distance_upper_bound=far)[0], far)
            spare = np.minimum(spare, values.min(axis=1) - item.clearance_mm)
    return spare
