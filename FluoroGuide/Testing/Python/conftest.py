"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real test data; a counted skip where it is absent."""
    folder = Path(os.environ.get("FLUOROGUIDE_TEST_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real test data are absent (set FLUOROGUIDE_TEST_DATA)")
    return folder
