"""``fluoroguide record``."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("action", choices=["show", "validate"], help="show: print it for people; validate: check it against the schema")
    parser.add_argument("file", type=Path, metavar="RECORD.json")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the record (which checks it) and show it."""
    from ..record.record import read_record, summary_text

    record = read_record(arguments.file)
    if arguments.action == "validate":
        common.show(arguments, {"valid": True, "schema_version": record.to_dict()["schema_version"]}, f"{arguments.file.name} is a valid record.")
    else:
        common.show(arguments, record.to_dict(), summary_text(record))
    return 0
