"""Command line: ``fluoroguide COMMAND --help`` (DESIGN 5).

Exit codes: 0 success, 1 the verdict is fail, 2 bad input (one line: what, which value, what to do next).
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence

from . import RESEARCH_NOTICE, __version__
from .errors import FluoroGuideError

COMMANDS = {
    "demo": "the whole workflow on the sample case: scene, pictures, record, summary",
    "simulate": "realistic DICOM XA files with ground truth",
    "register": "pose of a volume in one or two X-rays, with predicted error and verdict",
    "plan": "check a target (and entry) against a volume and write plan.json",
    "locate": "needle tip and axis in 3-D from two views, found by itself or marked",
    "overlay": "draw a plan onto an X-ray",
    "replay": "every frame of a run with the plan drawn on it, as pictures and an animation",
    "inspect": "what is known of an X-ray's geometry, and its normalised picture",
    "watch": "rate, latency and drops of a live source: OpenIGTLink, a folder, or the replay of a run",
    "dose": "dose summary of RDSR and XA/RF files",
    "evaluate": "standardised evaluation of registration, on this machine or a Dask cluster",
    "record": "show, validate, report, export or recover a procedure record",
}


class _Parser(argparse.ArgumentParser):
    """One line instead of the usage text when arguments are wrong."""

    def error(self, message: str) -> None:
        print(f"{self.prog}: {message}. See {self.prog} --help.", file=sys.stderr)
        raise SystemExit(2)


def _join_negative_values(arguments: Sequence[str]) -> list[str]:
    """``--view -30,10`` -> ``--view=-30,10``: argparse would take the value for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and re.match(r"^--[a-z-]+$", joined[-1]) and re.match(r"^-[\d.]", argument):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; with ``only`` the options of that command alone are loaded (each command imports what it needs)."""
    parser = _Parser(prog="fluoroguide", description="Registration of CT, CBCT and MR to fluoroscopy. " + RESEARCH_NOTICE)
    parser.add_argument("--version", action="version", version=f"fluoroguide {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, text in COMMANDS.items():
        child = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if only in (None, name):
            module = importlib.import_module(f".commands.{name}", __package__)
            module.configure(child)
            child.set_defaults(_execute=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and never shows a traceback for bad input."""
    arguments = _join_negative_values(sys.argv[1:] if arguments is None else arguments)
    first = next((a for a in arguments if a in COMMANDS), None)
    try:
        parsed = build_parser(first or "").parse_args(arguments)
        return int(parsed._execute(parsed) or 0)
    except FluoroGuideError as error:
        print(f"fluoroguide: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fluoroguide: stopped.", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 2
    except SystemExit as stop:  # argparse: --help is 0, wrong arguments are 2
        return int(stop.code or 0)
    except OSError as error:
        reason = error.strerror or "Check the path"
        print(f"fluoroguide: A file could not be read or written ({error.filename or reason}). {reason}.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
