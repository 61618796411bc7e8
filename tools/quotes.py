#!/usr/bin/env python3
"""Every figure that README or Docs quote must be the one that was measured.

A quoted figure is followed by where it comes from, invisible when rendered: ``0.15 mm<!-- registration_moved: 3 mm / label / median_mm -->``
(the proof's name and the path of keys in its ``figures``).  It must be the measured value rounded as quoted; ``percent`` turns a share
into percent (``94.9 %<!-- needle: tip_within_1mm_of_claims percent -->``).  In README every number with a unit of a result
needs such a mark, or ``<!-- no result -->`` where it is none.  ``--write`` puts the measured figures in, with as many decimals as they have;
the words around them are a person's to check.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STRICT = ("README.md",)
GENERATED = ("Docs/accuracy.md", "Docs/benchmarks.md", "Docs/scaling.md")
UNITS = r"mm|%|ms|px|degrees|°|MB/min|MB|GB|CPU s|CPU seconds"
MARK = re.compile(
    rf"(?P<number>\d[\d,]*(?:\.\d+)?)(?P<unit>(?:\s?(?:{UNITS})|[\w -]*?)?)<!-- (?P<part>\w+): (?P<path>[^>]+?)(?P<percent> percent)? -->"
)
BARE = re.compile(rf"(?<![\w.,/-])\d[\d,]*(?:\.\d+)?\s?(?:{UNITS})(?!\w)(?!<!--)")


def measured(folder: Path, part: str, path: str) -> float | None:
    """The value at ``a / b / c`` of a proof's figures; None where there is none."""
    file = folder / f"{part}.json"
    if not file.is_file():
        return None
    value = json.loads(file.read_text(encoding="utf-8"))["figures"]
    for key in path.split(" / "):
        value = value.get(key.strip()) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def as_quoted(value: float, text: str) -> str:
    """The value with as many decimals as ``text`` has."""
    decimals = len(text.partition(".")[2])
    return f"{value:.{decimals}f}"


def text_of(markdown: str) -> str:
    """Without code blocks and code spans, which keep their lines."""
    markdown = re.sub(r"```.*?```", lambda m: "\n" * m.group().count("\n"), markdown, flags=re.S)
    return re.sub(r"`[^`\n]*`", "", markdown)


def problems(name: str, markdown: str, folder: Path, strict: bool) -> list[str]:
    """What is wrong in one file, with line numbers."""
    found = []
    for number, line in enumerate(text_of(markdown).split("\n"), 1):
        for mark in MARK.finditer(line):
            value = measured(folder, mark["part"], mark["path"])
            where = f"{name}:{number}: {mark['number']}{mark['unit']}"
            if value is None:
                found.append(f"{where} is quoted from {mark['part']}: {mark['path']}, which was not measured")
                continue
            value *= 100 if mark["percent"] else 1
            if as_quoted(value, mark["number"]) != mark["number"].replace(",", ""):
                found.append(f"{where} is quoted, {value:g} was measured ({mark['part']}: {mark['path']})")
        if strict and "<!-- no result -->" not in line:
            found += [f"{name}:{number}: '{m.group()}' does not say which proof it comes from" for m in BARE.finditer(MARK.sub("", line))]
    return found


def renewed(markdown: str, folder: Path) -> str:
    """The text with every quoted figure as measured."""

    def put(mark: re.Match) -> str:
        value = measured(folder, mark["part"], mark["path"])
        if value is None:
            return mark.group()
        new = as_quoted(value * (100 if mark["percent"] else 1), mark["number"])
        return (f"{int(new):,}" if "," in mark["number"] else new) + mark.group()[len(mark["number"]):]

    return MARK.sub(put, markdown)


def main(arguments: list[str]) -> int:
    """Check README and Docs; exit code 1 when something is wrong."""
    folder, found, quoted = ROOT / "Docs" / "verification", [], 0
    for path in [ROOT / "README.md", *sorted((ROOT / "Docs").glob("*.md"))]:
        name = path.relative_to(ROOT).as_posix()
        if name in GENERATED or not path.is_file():
            continue
        markdown = path.read_text(encoding="utf-8")
        if "--write" in arguments and (new := renewed(markdown, folder)) != markdown:
            path.write_text(new, encoding="utf-8")
            markdown = new
            print(f"{name} renewed")
        quoted += len(MARK.findall(text_of(markdown)))
        found += problems(name, markdown, folder, name in STRICT)
    print("\n".join(found) if found else f"{quoted} quoted figures agree with the proofs", file=sys.stderr if found else sys.stdout)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
