"""``fluoroguide locate``."""

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
    parser.add_argument("--tip", action="append", metavar="C,R", help="column,row of the needle tip; once per X-ray, in their order")
    parser.add_argument("--shaft", action="append", metavar="C,R", help="column,row of another point of the needle; once per X-ray")
    parser.add_argument("--sigma", type=float, default=1.0, metavar="PX", help="how well the points were marked, 1 sigma (default 1 px)")
    parser.add_argument("--pose", type=Path, metavar="TFM", help="registration: gives the needle in the volume's frame")
    parser.add_argument("--plan", type=Path, metavar="JSON", help="plan to compare with (needs --pose)")
    parser.add_argument("--trajectory", metavar="NAME", help="trajectory of the plan (default: the first)")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Triangulate, compare with the plan, write ``needle.json``."""
    from ..guidance.triangulation import locate_needle, needle_in_volume
    from ..planning.plan import read_plan

    if arguments.plan and not arguments.pose:
        raise FluoroGuideError("The deviation from a plan needs the registration", None, "Give --pose pose.tfm as well")
    tips = _points(arguments.tip, arguments.xray, "--tip")
    shafts = _points(arguments.shaft, arguments.xray, "--shaft")
    images = common.read_xrays(arguments.xray, arguments.geometry, arguments.frame)
    plan = read_plan(arguments.plan) if arguments.plan else None
    needle = locate_needle([i.view for i in images], tips, shafts, arguments.sigma)
    pose = common.read_pose(arguments.pose)
    if pose is not None:
        needle = needle_in_volume(needle, pose)
    result = needle_result(needle, arguments.xray, None if plan is None else plan.trajectory(arguments.trajectory), plan)
    write_json(common.output_folder(arguments.output) / "needle.json", result)
    common.show(arguments, result, describe(result))
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
