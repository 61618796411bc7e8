"""``fluoroguide inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import FluoroGuideError
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--geometry", metavar="JSON", help="C-arm card that fills what the tags lack")
    parser.add_argument("--frame", type=int, default=0, help="frame of a run, from 0")
    common.add_output(parser, required=False)


def run(arguments: argparse.Namespace) -> int:
    """Print the geometry report of each file; with ``--output`` also write its normalised picture."""
    from ..imaging.sources import inspect_report, inspect_text, open_xray, write_preview

    reports = {}
    for name in arguments.files:
        report = inspect_report(name, arguments.geometry)
        if arguments.output:
            folder = common.output_folder(arguments.output)
            run_ = open_xray(name, arguments.geometry)
            if not 0 <= arguments.frame < len(run_.frames):
                raise FluoroGuideError("The run has no such frame", f"{arguments.frame} of {len(run_.frames)}", "Frames count from 0")
            path = folder / (Path(name).stem + ".png")
            write_preview(path, run_.normalized(arguments.frame))
            report["picture"] = str(path)
        reports[name] = report
        if not arguments.json:
            print(inspect_text(report))
    if arguments.json:
        common.show(arguments, reports, "")
    return 0
