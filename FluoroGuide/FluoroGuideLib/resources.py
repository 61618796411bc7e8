"""Where procedures, C-arm cards and schemas lie: beside the library in Slicer and in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_LIBRARY = Path(__file__).resolve().parent
RESOURCES = next((p for p in (_LIBRARY.parent / "Resources", _LIBRARY / "Resources") if (p / "Procedures").is_dir()), _LIBRARY / "Resources")
"""Folder with ``Procedures``, ``CArms`` and the JSON schemas."""
