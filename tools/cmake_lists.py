"""Rewrite the file lists in ``FluoroGuide/CMakeLists.txt`` from what is on the disk.

Slicer installs only the files that the module's CMake list names.  ``python tools/cmake_lists.py`` rewrites the lists,
``--check`` only compares and ends with exit code 1 when they differ.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MODULE = Path(__file__).resolve().parents[1] / "FluoroGuide"
LISTS = ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES")


def files_on_disk(module: Path = MODULE) -> dict[str, list[str]]:
    """The files each list must hold, relative to the module's folder, sorted; hidden and compiled files left out."""
    scripts = [*module.glob("*.py"), *(module / "FluoroGuideLib").rglob("*.py")]
    resources = [p for p in (module / "Resources").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    found = {}
    for name, paths in zip(LISTS, (scripts, resources), strict=True):
        relative = [p.relative_to(module) for p in paths]
        found[name] = sorted(p.as_posix() for p in relative if not any(part.startswith((".", "__pycache__")) for part in p.parts))
    return found


def files_in_list(text: str, name: str) -> list[str]:
    """The entries of one ``set(NAME ...)`` in a CMake text."""
    return _list_pattern(name).search(text).group(2).split()


def rewritten(text: str, lists: dict[str, list[str]]) -> str:
    """The CMake text with its lists replaced."""
    for name, files in lists.items():
        body = "".join(f"  {file}\n" for file in files)
        text = _list_pattern(name).sub(lambda match, body=body: f"{match.group(1)}\n{body}  )", text)
    return text


def _list_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(set\({name})\b([^)]*)\)")


def main(arguments: list[str]) -> int:
    """Rewrite or, with ``--check``, compare; returns the exit code."""
    path = MODULE / "CMakeLists.txt"
    text = path.read_text(encoding="utf-8")
    new = rewritten(text, files_on_disk())
    if new == text:
        return 0
    if "--check" in arguments:
        print("FluoroGuide/CMakeLists.txt does not list what is on the disk: run 'make cmake-lists'", file=sys.stderr)
        return 1
    path.write_text(new, encoding="utf-8")
    print("FluoroGuide/CMakeLists.txt rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
