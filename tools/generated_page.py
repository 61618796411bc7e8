"""A page that a script writes, or checks against what lies on the disk."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(page: Path, text: str, arguments: list[str]) -> int:
    """Write ``page``; with ``--check`` only say (exit code 1) when it differs from ``text``."""
    name = f"Docs/{page.name}"
    if "--check" not in arguments:
        page.write_text(text, encoding="utf-8")
        print(f"{name} written")
        return 0
    same = page.is_file() and page.read_text(encoding="utf-8") == text
    if not same:
        print(f"{name} differs from the proofs: run 'make accuracy'", file=sys.stderr)
    return 0 if same else 1
