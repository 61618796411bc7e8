"""``fluoroguide demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--output", type=Path, default=Path("build/demo"), metavar="DIR", help="folder for the results (default build/demo)")
    parser.add_argument("--offline", action="store_true", help="use the lumbar phantom instead of the downloaded CT")
    parser.add_argument("--seed", type=int, default=0)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the whole workflow; exit code 1 when the registration's verdict is fail."""
    from ..demo import run_demo

    def say(text: str) -> None:
        print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    result = run_demo(common.output_folder(arguments.output), say, arguments.seed, arguments.offline)
    if arguments.json:
        common.show(arguments, result, "")
    return 1 if result["verdict"] == "fail" else 0
