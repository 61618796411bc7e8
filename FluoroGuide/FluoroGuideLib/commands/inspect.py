"""``fluoroguide inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="DICOM XA/RF, or a picture")
    parser.add_argument("--geometry", metavar="JSON", help="C-arm card that fills what the tags lack")
    parser.add_argument("--frame", type=int, metavar="N", help="frame of a run, from 0 (default: the middle one)")
    parser.add_argument("--polarity", choices=("bone-dark", "bone-bright"), help="how bone looks in the file (default: detected)")
    parser.add_argument("--relationship", choices=("LIN", "LOG", "DISP"), help="what the values are (default: as the file says)")
    parser.add_argument("--no-field", action="store_true", help="do not look for collimators or a round field in the pixels")
    parser.add_argument("--steps", action="store_true", help="with --output: also write a picture of what each step masked")
    common.add_output(parser, required=False)


def run(arguments: argparse.Namespace) -> int:
    """Print the geometry report of each file; with ``--output`` also write its normalised picture."""
    from ..imaging.sources import inspect_text, open_xray, run_report, write_preview, write_steps

    options: dict = {"field": not arguments.no_field}
    if arguments.polarity:
        options["polarity"] = arguments.polarity.replace("-", " ")
    if arguments.relationship:
        options["relationship"] = arguments.relationship
    reports = {}
    for name in arguments.files:
        report, picture = run_report(open_xray(name, arguments.geometry), arguments.frame, **options)
        if arguments.output:
            folder = common.output_folder(arguments.output)
            path = folder / f"{Path(name).stem}.png"
            write_preview(path, picture)
            report["picture"] = str(path)
            if arguments.steps:
                write_steps(folder / f"{Path(name).stem}_steps.png", picture)
                report["steps_picture"] = str(folder / f"{Path(name).stem}_steps.png")
        reports[name] = report
        if not arguments.json:
            print(inspect_text(report))
    if arguments.json:
        common.show(arguments, reports, "")
    return 0
