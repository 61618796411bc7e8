#!/usr/bin/env python3
"""Benchmarks: ``make bench`` measures everything and writes ``Docs/benchmarks.md``; ``make bench PART=metrics`` one part of it.

Figures of earlier parts are kept in ``build/bench`` and put on the page again; a part that was measured elsewhere stays as the page has it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(ROOT / "FluoroGuide")]

import harness  # noqa: E402  (before anything that imports numpy)

FIRST = ("projectors", "registration", "metrics")
PARTS = (*FIRST, *sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py") if p.stem.removeprefix("bench_") not in FIRST))
"""Every file ``bench_NAME.py`` is a part: ``run(quick) -> dict`` of plain numbers and ``markdown(dict) -> str``."""
PAGE = ROOT / "Docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`; do not edit. Peers that are not installed are named as such: `pip install` the extra `bench` into the
project's environment (and Debian's `plastimatch`) to compare with all of them. What is compared with what is in
`FluoroGuide/Testing/Benchmarks`.
"""


def stored(part: str) -> Path:
    """Where a part's figures are kept."""
    return ROOT / "build" / "bench" / f"{part}.json"


def written(page: str) -> dict[str, str]:
    """Part -> its section of a page, without the mark it begins with."""
    pieces = re.split(r"^<!-- part: (\w+) -->\n", page, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def write_page() -> None:
    """Put the figures of all parts that were measured on the page; the others' sections stay."""
    sections = written(PAGE.read_text()) if PAGE.is_file() else {}
    for part in PARTS:
        if stored(part).is_file():
            kept = json.loads(stored(part).read_text())
            sections[part] = f"{importlib.import_module(f'bench_{part}').markdown(kept['figures'])}\n\n*{kept['circumstances']}*\n"
    marked = [f"<!-- part: {part} -->\n{sections[part]}" for part in PARTS if part in sections]
    PAGE.write_text("\n\n".join(s.rstrip("\n") for s in [HEAD, *marked]) + "\n")


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[], help="default: all")
    parser.add_argument("--quick", action="store_true", help="few cases and rounds, to see that all works; the page stays as it is")
    parser.add_argument("--page", action="store_true", help="only write the page again from the figures kept")
    arguments = parser.parse_args()
    harness.limit_loaded_libraries()
    for part in [] if arguments.page else arguments.parts or PARTS:
        module = importlib.import_module(f"bench_{part}")
        figures = module.run(arguments.quick)
        print(module.markdown(json.loads(json.dumps(figures))))
        if not arguments.quick:
            stored(part).parent.mkdir(parents=True, exist_ok=True)
            stored(part).write_text(json.dumps({"circumstances": harness.circumstances(), "figures": figures}, indent=1))
    if not arguments.quick:
        write_page()
        print(f"Written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
