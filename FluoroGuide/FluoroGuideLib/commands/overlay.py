"""``fluoroguide overlay``."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    common.add_xrays(parser)
    parser.add_argument("--pose", type=Path, required=True, metavar="TFM", help="registration, volume to isocentre")
    parser.add_argument("--plan", type=Path, required=True, metavar="JSON")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw the plan onto each X-ray: ``overlay_A.png``, ..."""
    from ..guidance.overlay import draw_overlay_png, plan_overlay
    from ..planning.plan import read_plan

    pose, plan = common.read_pose(arguments.pose), read_plan(arguments.plan)
    images = common.read_xrays(arguments.xray, arguments.geometry, arguments.frame)
    output = common.output_folder(arguments.output)
    written = []
    for letter, image in zip(common.LETTERS, images, strict=False):
        path = output / f"overlay_{letter}.png"
        draw_overlay_png(image, plan_overlay(image.view, pose, plan), path)
        written.append(str(path))
    common.show(arguments, {"overlays": written}, "\n".join(written))
    return 0
