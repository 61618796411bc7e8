"""The benchmarks measure what they say: time keeping, the SimpleITK peer, the measures of similarity and their curves."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from FluoroGuideLib.evaluation.phantom import GaussianBlobs
from FluoroGuideLib.geometry.carm import CArmView

FOLDER = Path(__file__).resolve().parents[1] / "Benchmarks"
NAMES = ("harness", "peers", "cases", "bench_metrics")


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, ModuleType]]:
    """The benchmark modules, without leaving their folder or their one-thread limit behind."""
    before = dict(os.environ)
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)
        os.environ.clear()
        os.environ.update(before)


def test_functions_take_turns_and_slow_ones_drop_out(benchmarks: dict[str, ModuleType]) -> None:
    calls = []

    def peer(name: str, seconds: float) -> object:
        def call() -> None:
            calls.append(name)

        call.cpu_seconds = lambda: calls.append(name) or seconds
        return call

    seconds = benchmarks["harness"].interleaved({"a": peer("a", 0.1), "b": peer("b", 5.0)}, rounds=6, budget_s=8.0, least=2)
    assert calls == ["a", "b"] * 3 + ["a"] * 4  # one call to warm up, two rounds together (b: 10 s), then a alone
    assert len(seconds["a"]) == 6
    assert seconds["b"].tolist() == [5.0, 5.0]


def test_simpleitk_frustum_meets_the_closed_form(benchmarks: dict[str, ModuleType]) -> None:
    blobs = GaussianBlobs.random(3, 4)
    view = CArmView.from_angles(25, -10, sid_mm=1100, sod_mm=700, rows=24, columns=32, pixel_spacing_mm=(9.0, 7.0))
    truth = blobs.line_integrals(view, np.eye(4))
    found = benchmarks["peers"].sitk_frustum(blobs.voxelize(1.5), view)()
    assert found.shape == (24, 32)
    # linear interpolation widens a Gaussian of sigma 7 mm by a variance of 1.5^2 / 6 mm^2: up to 0.8 % at its peak, less on the whole
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.004 * np.sqrt((truth**2).mean())


def test_valleys_of_known_curves(benchmarks: dict[str, ModuleType]) -> None:
    metrics, steps = benchmarks["bench_metrics"], np.linspace(-10, 10, 41)
    assert metrics.bottom((steps - 0.7) ** 2, steps) == pytest.approx(0.7, abs=1e-9)
    # -cos falls towards 0 from one period's ends: pi / 0.5 = 6.28 mm on either side, cut to the grid of 0.5 mm
    assert metrics.width(-np.cos(0.5 * steps), steps) == pytest.approx(6.5, abs=0.51)
    assert metrics.width(steps, steps) == 0  # no valley at all


def test_every_measure_prefers_the_true_shift(benchmarks: dict[str, ModuleType]) -> None:
    from scipy.ndimage import gaussian_filter

    metrics = benchmarks["bench_metrics"]
    scene = gaussian_filter(np.random.default_rng(1).normal(size=(80, 80)), 3).astype(np.float32)
    fixed, votes = scene[10:70, 10:70], np.ones((60, 60), np.float32)
    for name, measure in metrics.METRICS.items():
        if measure is None:
            continue
        costs = [measure(scene[10:70, 10 + s : 70 + s], 2 * fixed + 1, votes) for s in range(-6, 7)]
        assert np.argmin(costs) == 6, name
