"""Check what ``fluoroguide demo`` wrote: every file is there and both errors against the truth are below 1 mm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

LIMITS_MM = {"pose_error_mm": 1.0, "tip_error_mm": 1.0}
FILES = ("case.mrb", "record.json", "summary.txt", "overlay_*.png", "views_*.png")


def problems(folder: Path) -> list[str]:
    """What is wrong with a demo folder, one sentence each; empty when all is well."""
    result_path = folder / "result.json"
    if not result_path.is_file():
        return [f"{result_path} is missing: the demo did not finish"]
    result = json.loads(result_path.read_text(encoding="utf-8"))
    found = []
    for key, limit in LIMITS_MM.items():
        value = result.get(key)
        # "not (value < limit)" also catches NaN.
        if not isinstance(value, int | float) or not value < limit:
            found.append(f"{key} is {value}, the limit is {limit} mm")
    found += [f"{folder / pattern} is missing or empty" for pattern in FILES if not any(p.stat().st_size for p in folder.glob(pattern))]
    return found


def main(arguments: list[str]) -> int:
    """Print the verdict; exit code 1 when something is wrong."""
    folder = Path(arguments[0] if arguments else "build/demo")
    found = problems(folder)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        print("demo: " + ", ".join(f"{key} {result[key]:.2f} (limit {limit:g})" for key, limit in LIMITS_MM.items()))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
