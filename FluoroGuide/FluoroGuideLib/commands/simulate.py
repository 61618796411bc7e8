"""``fluoroguide simulate``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--volume", required=True, metavar="CT", help="CT in HU: a file that SimpleITK reads, a DICOM folder, or 'phantom'")
    parser.add_argument("--view", action="append", required=True, metavar="P,S", help="primary,secondary angle, degrees (LAO, CRA +); once per view")
    parser.add_argument("--pose", type=Path, metavar="TFM", help="true pose, volume to isocentre; default: --center at the isocentre")
    parser.add_argument("--center", metavar="X,Y,Z", help="volume point put at the isocentre when no --pose is given, LPS mm")
    parser.add_argument("--noise", choices=["fluoroscopy", "clean"], default="fluoroscopy", help="all physics, or attenuation alone")
    parser.add_argument("--needle", action="append", metavar="TX,TY,TZ,HX,HY,HZ[,G]", help="tip and hub in LPS mm of the volume, gauge (default 22)")
    parser.add_argument("--sid", type=float, default=1050.0, metavar="MM")
    parser.add_argument("--sod", type=float, default=700.0, metavar="MM")
    parser.add_argument("--size", type=int, default=512, metavar="PX", help="rows and columns")
    parser.add_argument("--spacing", type=float, default=0.6, metavar="MM", help="pixel size at the detector")
    parser.add_argument("--seed", type=int, default=0)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write ``view_A.dcm``, ..., ``truth.json`` and ``truth.tfm``."""
    from ..anatomy.attenuation import read_volume
    from ..evaluation.phantom import LumbarPhantom
    from ..evaluation.simulate import SimulationOptions, simulate_case
    from ..geometry.frames import center_lps_mm
    from ..geometry.rigid import write_tfm
    from ..registration.search import start_at_isocenter

    angles = [tuple(common.numbers(v, 2, "--view")) for v in arguments.view]
    needles = [_needle(text) for text in arguments.needle or []]
    volume = LumbarPhantom() if arguments.volume == "phantom" else read_volume(arguments.volume)
    pose = common.read_pose(arguments.pose)
    if pose is None and arguments.center:
        pose = start_at_isocenter(common.numbers(arguments.center, 3, "--center"))
    if pose is None:
        pose = np.eye(4) if arguments.volume == "phantom" else start_at_isocenter(center_lps_mm(volume))
    bar = common.Bar()
    output = common.output_folder(arguments.output)
    truth = simulate_case(
        volume, angles, pose, output, needles=needles, options=SimulationOptions.preset(arguments.noise), seed=arguments.seed,
        sid_mm=arguments.sid, sod_mm=arguments.sod, rows=arguments.size, columns=arguments.size,
        pixel_spacing_mm=(arguments.spacing, arguments.spacing), volume_name=Path(arguments.volume).name,
        progress=lambda share: bar(share, "simulating"),
    )
    write_tfm(output / "truth.tfm", pose)
    files = [str(output / f"view_{chr(ord('A') + n)}.dcm") for n in range(len(angles))]
    common.show(arguments, {"truth": str(truth), "xrays": files}, "\n".join([*files, str(truth)]))
    return 0


def _needle(text: str) -> object:
    from ..evaluation.metal import Needle

    count = text.count(",") + 1
    if count not in (6, 7):
        raise FluoroGuideError("--needle is neither 6 nor 7 numbers", text, "Write tip x,y,z, hub x,y,z and perhaps the gauge")
    values = common.numbers(text, count, "--needle")
    return Needle(values[:3], values[3:6], int(values[6]) if count == 7 else 22)
