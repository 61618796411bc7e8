"""``fluoroguide locate``: the needle in two views, found or marked by hand; its tip and direction in 3-D; its deviation from plan."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..planning.jsonfile import plain, write_json
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    common.add_xrays(parser)
    parser.add_argument("--tip", action="append", metavar="C,R", help="column,row of the tip, once per X-ray; found when not given")
    parser.add_argument("--shaft", action="append", metavar="C,R", help="column,row of another point of the needle; once per X-ray")
    parser.add_argument("--sigma", type=float, default=1.0, metavar="PX", help="how well the points were marked, 1 sigma (default 1 px)")
    parser.add_argument("--pose", type=Path, metavar="TFM", help="registration: gives the needle in the volume's frame")
    parser.add_argument("--plan", type=Path, metavar="JSON", help="plan to compare with (needs --pose)")
    parser.add_argument("--trajectory", metavar="NAME", help="trajectory of the plan (default: the first)")
    parser.add_argument("--gauge", type=float, metavar="G", help="of the needle (default: the plan's; without one 18-25 G are looked for)")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Triangulate, compare with the plan, write ``needle.json``."""
    from ..guidance.triangulation import locate_needle, needle_in_volume
    from ..planning.plan import read_plan

    if arguments.plan and not arguments.pose:
        raise FluoroGuideError("The deviation from a plan needs the registration", None, "Give --pose pose.tfm as well")
    images = common.read_xrays(arguments.xray, arguments.geometry, arguments.frame)
    plan = read_plan(arguments.plan) if arguments.plan else None
    pose = common.read_pose(arguments.pose)
    found: list = []
    if arguments.tip or arguments.shaft:
        tips = _points(arguments.tip, arguments.xray, "--tip")
        shafts = _points(arguments.shaft, arguments.xray, "--shaft")
        sigma: object = arguments.sigma
    else:
        found = find_in_views(images, pose, None if plan is None else plan.trajectory(arguments.trajectory), arguments.gauge)
        if len(images) == 1:
            return _one_view(arguments, images[0], found[0], pose, plan)
        tips, shafts = np.array([f.tip_px for f in found]), np.array([f.shaft_px for f in found])
        sigma = [max(f.tip_sigma_px, 0.5) for f in found]
    needle = locate_needle([i.view for i in images], tips, shafts, sigma)
    if pose is not None:
        needle = needle_in_volume(needle, pose)
    result = needle_result(needle, arguments.xray, None if plan is None else plan.trajectory(arguments.trajectory), plan)
    if found:
        result["found"] = plain([f.to_dict() for f in found])
    write_json(common.output_folder(arguments.output) / "needle.json", result)
    common.show(arguments, result, describe(result))
    return 0


def find_in_views(images: list, pose: np.ndarray | None, trajectory: object | None, gauge: float | None = None) -> list:
    """The needle in each X-ray, near its plan where one is known; ``gauge``: its plan's by default, else 18-25 G are looked for.

    Raises
    ------
    FluoroGuideError
        Not found in a view: nothing is guessed.
    """
    from ..geometry.rigid import apply
    from ..guidance.needle import find_needle
    from ..guidance.needle_model import width_of_gauge

    gauge = gauge or (None if trajectory is None else trajectory.gauge)
    width = width_of_gauge(gauge)
    if gauge and width is None:
        raise FluoroGuideError("The needle's diameter is not known", f"{gauge:g} gauge", "Use a gauge between 8 and 27, or leave it out")
    found = []
    for number, image in enumerate(images, 1):
        planned, middle = None, np.zeros(3)
        if pose is not None and trajectory is not None:
            ends = apply(pose, np.array([trajectory.entry_lps_mm, trajectory.target_lps_mm]))
            planned, middle = image.view.project(ends), ends[1]
        finding = find_needle(image.pixels, image.mask, image.view.mm_per_pixel_at(middle), planned_px=planned, width_mm=width)
        if not finding.found:
            what = f"No needle was found in X-ray {number}: {finding.reason.rstrip('.')}"
            raise FluoroGuideError(what, image.source or None, "Mark it with --tip and --shaft, once per X-ray")
        found.append(finding)
    return found


def _one_view(arguments: argparse.Namespace, image: object, finding: object, pose: np.ndarray | None, plan: object) -> int:
    """One X-ray: what one view can say, and never a depth."""
    from ..guidance.single_view import one_view

    trajectory = None if plan is None else plan.trajectory(arguments.trajectory)
    seen = one_view(image.view, np.eye(4) if pose is None else pose, finding, trajectory)
    result = plain({"tip_lps_mm": None, "axis_lps": None, "one_view": seen.to_dict(), "found": [finding.to_dict()], "warnings": [seen.depth]})
    write_json(common.output_folder(arguments.output) / "needle.json", result)
    lines = [f"Tip at column {finding.tip_px[0]:.1f}, row {finding.tip_px[1]:.1f} (confidence {finding.confidence:.2f})"]
    if seen.lateral_mm is not None:
        lines.append(f"{seen.lateral_mm:.1f} mm {seen.side_text} of the planned path in this view" + (
            "" if seen.remaining_mm is None else f", {seen.remaining_mm:.1f} mm to the target along it"))
    common.show(arguments, result, "\n".join([*lines, seen.depth]))
    return 0


def _points(texts: list[str] | None, xrays: list[str], option: str) -> np.ndarray:
    if not texts or len(texts) != len(xrays):
        raise FluoroGuideError(f"{option} must be given once for each X-ray", f"{len(texts or [])} for {len(xrays)}", f"Write {option} column,row")
    return np.array([common.numbers(t, 2, option) for t in texts])


def needle_result(needle: object, xrays: list[str], trajectory: object, plan: object) -> dict:
    """The contents of ``needle.json`` (DESIGN 5)."""
    from ..guidance.deviation import deviation

    result = {
        "tip_lps_mm": needle.tip_mm, "axis_lps": needle.axis, "frame": needle.frame,
        "tip_sigma_mm": np.sqrt(np.trace(needle.tip_covariance_mm2)), "axis_sigma_deg": needle.axis_sigma_deg,
        "ray_angle_deg": needle.ray_angle_deg, "residual_px": needle.residual_px, "views": [Path(x).name for x in xrays],
        "warnings": list(needle.warnings),
    }
    if trajectory is not None:
        d = deviation(trajectory, needle.tip_mm, needle.axis, needle.tip_covariance_mm2, plan.tolerance_mm(trajectory))
        result["deviation"] = {
            "trajectory": trajectory.name, "tip_mm": d.tip_mm, "lateral_mm": d.lateral_mm, "along_mm": d.along_mm, "angle_deg": d.angle_deg,
            "entry_mm": d.entry_mm, "direction": d.direction_text, "in_target": d.in_target, "probability_in_target": d.probability_in_target,
        }
    return plain(result)


def describe(result: dict) -> str:
    """The result in words."""
    lines = [f"Tip ({result['frame']} LPS mm): {np.round(result['tip_lps_mm'], 2).tolist()} +- {result['tip_sigma_mm']:.2f} mm (1 sigma)"]
    if "deviation" in result:
        d = result["deviation"]
        lines.append(
            f"From the plan '{d['trajectory']}': {d['tip_mm']:.1f} mm ({d['lateral_mm']:.1f} mm beside the path, "
            f"{abs(d['along_mm']):.1f} mm {'past' if d['along_mm'] > 0 else 'short of'} the target); {d['direction']}"
        )
    return "\n".join(lines + [f"Warning: {w}" for w in result["warnings"]])
