"""The table of what was asked for: how a bar finds its figure, and that each finds one where its proof was run."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
if not (ROOT / "tools" / "bars.py").is_file():
    pytest.skip("installed without the project's tools", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))

import bars  # noqa: E402

FIGURES = {"a": {"mm": 1.5, "kept": "3 of 40", "none": "0 of 0", "share": 0.25, "ok": True}, "all": 8, "good": 6}


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("a / mm", 1.5), ("a / kept", 7.5), ("a / none", 0.0), ("a / share share", 25.0), ("good percent of all", 75.0),
     ("a / mm ratio to good", 0.25), ("a / nothing", None), ("all / mm", None), ("good percent of nothing", None)],
)
def test_a_bar_finds_its_figure(path: str, wanted: float | None) -> None:
    assert bars.value(FIGURES, path) == wanted


@pytest.mark.parametrize("bar", bars.BARS, ids=lambda bar: f"{bar[1]}: {bar[2]}")
def test_every_bar_names_a_figure_of_its_proof(bar: tuple) -> None:
    """A figure that was renamed would show as "not run"."""
    file = ROOT / "Docs" / "verification" / f"{bar[1]}.json"
    if not file.is_file():
        pytest.skip("this proof was not run")
    assert bars.value(json.loads(file.read_text(encoding="utf-8"))["figures"], bar[2]) is not None


def test_the_table_says_met_missed_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"figures": FIGURES}))
    monkeypatch.setattr(bars, "BARS", (("x", "p", "a / mm", "<=", 2, "mm"), ("y", "p", "a / mm", ">=", 2, "mm"), ("z", "q", "a / mm", "<=", 2, "")))
    rows = bars.table(tmp_path).splitlines()[4:]
    assert rows == [
        "| x (`p`) | at most 2 mm | 1.5 mm | met |", "| y (`p`) | at least 2 mm | 1.5 mm | **missed** |", "| z (`q`) | at most 2 | - | not run |",
    ]


def test_cpu_seconds_are_scaled_to_a_known_piece_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 s where the projection that counts as 30 ms takes 45 (median of 40, 45, 60): 2 s; slices do not measure it."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "Verification"))
    rtk_clock = importlib.import_module("rtk_clock")
    assert rtk_clock.scaled(3.0, [40.0, 60.0, 45.0]) == pytest.approx(2.0)
    assert rtk_clock.scaled(3.0, []) != rtk_clock.scaled(3.0, [])  # not a number
    monkeypatch.delenv(rtk_clock.WANTED, raising=False)
    assert rtk_clock.samples() == []
