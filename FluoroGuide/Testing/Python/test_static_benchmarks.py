"""The page of benchmarks: a part that was measured on another machine stays on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "Docs" / "benchmarks.md"
if not PAGE.is_file():
    pytest.skip("installed without the project's documents", allow_module_level=True)


def test_a_page_without_kept_figures_stays_as_it_is(tmp_path: Path) -> None:
    """As in a fresh checkout, where ``build/bench`` is empty."""
    folder = tmp_path / "FluoroGuide" / "Testing" / "Benchmarks"
    shutil.copytree(ROOT / "FluoroGuide" / "Testing" / "Benchmarks", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "Docs").mkdir()
    shutil.copy(PAGE, tmp_path / "Docs")
    subprocess.run([sys.executable, str(folder / "bench.py"), "--page"], check=True, capture_output=True)
    assert (tmp_path / "Docs" / "benchmarks.md").read_text() == PAGE.read_text()
    assert PAGE.read_text().count("\n## ") == PAGE.read_text().count("<!-- part: ") >= 8
