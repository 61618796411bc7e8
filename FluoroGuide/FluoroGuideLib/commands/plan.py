"""``fluoroguide plan``."""

from __future__ import annotations

import argparse

from ..errors import FluoroGuideError
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--volume", required=True, metavar="V", help="CT or CBCT: a file that SimpleITK reads, or a DICOM folder")
    parser.add_argument("--procedure", required=True, metavar="NAME")
    parser.add_argument("--target", required=True, metavar="X,Y,Z", help="LPS mm of the volume")
    parser.add_argument("--entry", metavar="X,Y,Z", help="LPS mm of the volume; with it a needle trajectory is planned")
    parser.add_argument("--tolerance", type=float, metavar="MM", help="radius around the target that counts as reached")
    parser.add_argument("--gauge", type=float, metavar="G", help="needle gauge")
    parser.add_argument("--needle-length", type=float, metavar="MM")
    parser.add_argument("--laterality", choices=["left", "right", "bilateral", "midline"])
    parser.add_argument("--level", metavar="NAME", help="for example L4/L5")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the points against the volume and write ``plan.json``."""
    from pathlib import Path

    from ..anatomy.attenuation import read_volume
    from ..planning.plan import Plan, Target, Trajectory, check_plan_against_volume, write_plan

    target = common.numbers(arguments.target, 3, "--target")
    trajectories = ()
    if arguments.entry:
        entry = common.numbers(arguments.entry, 3, "--entry")
        trajectories = (Trajectory("needle", entry, target, arguments.gauge, arguments.needle_length),)
        short = arguments.needle_length is not None and arguments.needle_length < trajectories[0].length_mm
        if short:
            raise FluoroGuideError(
                "The needle is shorter than the path", f"{arguments.needle_length:g} mm for {trajectories[0].length_mm:.1f} mm",
                "Choose a longer needle or another entry",
            )
    plan = Plan(
        arguments.procedure, (Target("target", target, arguments.tolerance),), trajectories, arguments.laterality, arguments.level,
        Path(arguments.volume).name,
    )
    warnings = check_plan_against_volume(plan, read_volume(arguments.volume))
    output = common.output_folder(arguments.output)
    write_plan(output / "plan.json", plan)
    text = [f"{output / 'plan.json'}"] + [f"{t.name}: {t.length_mm:.1f} mm, {t.angle_to_axial_deg:+.1f} deg to the axial plane" for t in trajectories]
    common.show(arguments, {**plan.to_dict(), "warnings": warnings}, "\n".join(text + [f"Warning: {w}" for w in warnings]))
    return 0
