"""``fluoroguide replay``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("run", metavar="RUN", help="multi-frame DICOM XA or RF")
    parser.add_argument("--geometry", metavar="JSON", help="C-arm card for a run without usable tags")
    parser.add_argument("--pose", type=Path, required=True, metavar="TFM", help="registration, volume to isocentre")
    parser.add_argument("--plan", type=Path, required=True, metavar="JSON")
    parser.add_argument("--volume", metavar="FILE", help="the registered volume: adds the bone around the target and watches for motion")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every n-th frame (default 1)")
    parser.add_argument("--no-needle", action="store_true", help="do not look for the needle")
    parser.add_argument("--rate", type=float, default=15.0, metavar="HZ", help="frames per second of the animation (default 15)")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw each frame, write ``frame_0000.png`` ... and ``replay.gif``, and what was found in each frame."""
    from ..guidance.draw import draw_overlay_png
    from ..guidance.live import LiveGuide, composed
    from ..guidance.state import GuidanceState
    from ..imaging.sources import open_xray
    from ..planning.jsonfile import plain, write_json
    from ..planning.plan import read_plan

    if arguments.every < 1 or not 0.1 <= arguments.rate <= 60:
        raise FluoroGuideError("--every must be 1 or more and --rate between 0.1 and 60", f"{arguments.every}, {arguments.rate}")
    pose, plan = common.read_pose(arguments.pose), read_plan(arguments.plan)
    frames = open_xray(arguments.run, arguments.geometry)
    output, bar = common.output_folder(arguments.output), common.Bar()
    numbers = range(0, len(frames.frames), arguments.every)
    state, pictures, told = GuidanceState(stream_dead_seconds=float("inf")), [], []
    state.registration_done("pass")
    setup = guide = None
    for count, number in enumerate(numbers):
        image = frames.image(number)
        if setup is None:
            setup = _setup(arguments, image, pose, plan)
            guide = LiveGuide(setup)
        now = number / arguments.rate
        result = guide.process(image.pixels, number, now)
        state.frame_arrived(now)
        state.frame_checked(result.alignment)
        path = output / f"frame_{number:04d}.png"
        draw_overlay_png(image, composed(result, setup, state, now), path)
        pictures.append(path)
        told.append({
            "frame": number, "status": state.status(now)[0], "shift_mm": None if result.motion is None else result.motion.shift_mm,
            "needle": None if result.finding is None else result.finding.to_dict(), "milliseconds": result.milliseconds,
        })
        bar((count + 1) / len(numbers), f"frame {number}")
    _animate(pictures, output / "replay.gif", arguments.rate / arguments.every)
    result = plain({"frames": told, "animation": str(output / "replay.gif"), "notes": list(frames.assumptions)})
    write_json(output / "replay.json", result)
    common.show(arguments, result, f"{len(pictures)} frames drawn: {output / 'replay.gif'}")
    return 0


def _setup(arguments: argparse.Namespace, image: object, pose: np.ndarray, plan: object) -> object:
    from ..guidance.live import LiveSetup
    from ..guidance.live_overlay import OverlayContent

    points = list(plan.target_points().values())
    if not points:
        raise FluoroGuideError("The plan has no target", arguments.plan.name, "Add a target or a trajectory")
    content, drr = OverlayContent(), None
    if arguments.volume:
        from ..anatomy.bones import bone_weight
        from ..guidance.motion import bone_drr
        from ..guidance.silhouettes import surface_from_image

        volume = common.read_attenuation(arguments.volume)
        weight = bone_weight(volume, points[0])
        drr = bone_drr(volume, image.view, pose, points[0], weight)
        content = OverlayContent(bones=(surface_from_image(weight, 0.5, "bone at the target"),))
    return LiveSetup(image.view, pose, plan, points[0], drr, image.mask, content, look_for_needle=not arguments.no_needle, whole_search=True)


def _animate(pictures: list[Path], path: Path, rate_hz: float) -> None:
    """An animated GIF of pictures, at most 640 pixels wide."""
    from PIL import Image

    small = []
    for picture in pictures:
        with Image.open(picture) as image:
            image.thumbnail((640, 640))
            small.append(image.convert("P", palette=Image.Palette.ADAPTIVE, colors=128))
    small[0].save(path, save_all=True, append_images=small[1:], duration=max(20, round(1000 / rate_hz)), loop=0)
