#!/usr/bin/env python3
"""Write ``Docs/accuracy.md`` from ``Docs/verification/*.json``; with ``--check`` only say whether it is up to date.

Nothing in that page is typed by hand, so no figure in it can differ from the proof that it came from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bars import table
from generated_page import write_or_check

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "Docs" / "accuracy.md"
HEAD = """# What was measured

Written by `make accuracy` from `Docs/verification/*.json`; each table names the command that makes it again. **Everything here is simulated
or generated** unless the part's own text says otherwise: two CT scans (a thorax, a pelvis), X-rays by a projector that registration does not
use. No clinical accuracy follows from it. Seeds from 1000 on were kept apart while a part was designed, and are reported whatever they say;
CPU seconds *in units of itk-rtk* are scaled so that its projection of 128 x 128 pixels, timed in the same run (`unit_ms`), takes 30 ms;
`+changes` behind a commit means that other files of the tree were being edited while the proof ran.
"""


def rows(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested figures as (dotted name, text)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from rows(inner, f"{name} / {key}" if name else str(key))
    elif isinstance(value, float):
        yield name, f"{value:.4g}"
    else:
        yield name, json.dumps(value) if isinstance(value, (list, bool)) or value is None else str(value)


def group(figures: dict) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Columns and rows where the figures are records of the same keys, else one column."""
    flat = dict(rows(figures))
    lines: dict[str, dict[str, str]] = {}
    for name, text in flat.items():
        head, _, last = name.rpartition(" / ")
        lines.setdefault(head, {})[last] = text
    columns = list(dict.fromkeys(key for line in lines.values() for key in line))
    return columns, lines


def section(path: Path) -> str:
    """One proof as Markdown."""
    proof = json.loads(path.read_text(encoding="utf-8"))
    machine, command = proof["machine"], proof.get("command") or f"make verify PART={proof['part']}"
    text = [
        f"## {proof['part'].replace('_', ' ')}", "",
        f"`{command}`: {proof['cases']} cases, seeds {proof['seeds'][0]} to {proof['seeds'][1]}, commit `{proof['commit']}`, "
        f"{proof['date']}, {machine['cores']} cores ({machine['system']}, Python {machine['python']}).", "",
    ]
    columns, lines = group(proof["figures"])
    if len(lines) > 1 and len(columns) <= 12:
        text += ["| | " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
        text += [f"| {head or 'all'} | " + " | ".join(line.get(c, "") for c in columns) + " |" for head, line in lines.items()]
    else:
        text += ["| figure | value |", "|---|---|", *(f"| {name.replace('_', ' ')} | {value} |" for name, value in rows(proof["figures"]))]
    return "\n".join([*text, ""])


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, table(ROOT / "Docs" / "verification"), *(section(p) for p in sorted((ROOT / "Docs" / "verification").glob("*.json")))])


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), sys.argv[1:]))
