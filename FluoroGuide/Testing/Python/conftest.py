"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[object]:
    """One engine with the fake tasks, for the tests of a file that do no harm to it."""
    from engine_case import make

    with make() as engine:
        yield engine


@pytest.fixture(scope="module")
def engine_volume() -> object:
    """A small volume that is handed to engines."""
    from engine_case import small_volume

    return small_volume()
