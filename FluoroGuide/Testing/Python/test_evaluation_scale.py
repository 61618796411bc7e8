"""The evaluation on a real local Dask cluster: a worker killed in the middle, the same numbers as in one process; words before data leave."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import signal
import sys

import numpy as np
import pytest
from evaluation_case import small_ct

from FluoroGuideLib.cli import main
from FluoroGuideLib.commands import evaluate
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation import cluster
from FluoroGuideLib.evaluation.runlog import COLUMNS, TIMES
from FluoroGuideLib.evaluation.runners import ChildRunner
from FluoroGuideLib.evaluation.study import Settings, Subject, chunks

SETTINGS = Settings(starts=24, starts_per_scene=6, pixels=64, noise="clean", search=False, largest_start_mm=8.0, shell_mm=4.0)
needs_dask = pytest.mark.skipif(not cluster.available(), reason="Dask is not installed (extra 'scale')")


@pytest.fixture(scope="module")
def subject() -> Subject:
    ct, labels = small_ct()
    return Subject("small", ct, (("middle", np.zeros(3), None),), labels, digest="d", facts={"size": [48, 48, 48]})


def numbers(rows: dict[str, dict]) -> dict[str, list]:
    return {key: [r.get(c) for c in COLUMNS if c not in TIMES] for key, r in rows.items()}


def computed(runner: object, on_row=lambda row: None) -> dict[str, dict]:
    rows: dict[str, dict] = {}

    def report(row: dict) -> None:
        if row["run"] not in rows:
            rows[row["run"]] = row
            on_row(row)

    try:
        runner.run(list(chunks(SETTINGS, 1, 3)), report)
    finally:
        runner.close()
    return rows


@needs_dask
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL does not exist on Windows")
def test_a_killed_worker_changes_nothing(subject: Subject) -> None:
    runner = cluster.DaskRunner([subject], SETTINGS, workers=2)
    victims = sorted(runner.client.run(os.getpid).values())
    assert len(victims) == 2
    assert os.getpid() not in victims
    killed = []

    def kill_once(row: dict) -> None:
        if not killed:
            killed.append(row["run"])
            os.kill(victims[0], signal.SIGKILL)

    on_cluster = computed(runner, kill_once)
    assert killed
    assert len(on_cluster) == 24
    alone = computed(ChildRunner([subject], SETTINGS))
    assert numbers(on_cluster) == numbers(alone)
    assert all(r["verdict"] != "error" for r in alone.values())


def test_which_schedulers_need_a_word(subject: Subject) -> None:
    assert not any(cluster.needs_word(a) for a in ("tls://far.example:8786", "tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786"))
    assert all(cluster.needs_word(a) for a in ("tcp://far.example:8786", "10.0.0.7:8786", "ws://far.example:80", "tcp://127.0.0.1.evil.example:1"))
    assert cluster.what_is_sent([subject]) == "voxels, labels and targets of small (48 x 48 x 48 voxels); no DICOM headers"
    planned = dataclasses.replace(subject, simulate_from=subject.volume)
    assert cluster.what_is_sent([planned]).endswith("voxels), and 1 CT to simulate from; no DICOM headers")


def test_nothing_is_sent_without_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    with pytest.raises(FluoroGuideError, match="Nothing was sent"):
        evaluate.ask("tcp://far:1", "voxels of a")
    assert "Unencrypted to tcp://far:1: voxels of a." in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    evaluate.ask("tcp://far:1", "voxels of a")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(FluoroGuideError, match="needs your word"):
        evaluate.ask("tcp://far:1", "voxels of a")


def test_scheduler_options_that_cannot_work(tmp_path, subject: Subject, capsys: pytest.CaptureFixture) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(subject.volume, str(tmp_path / "ct.nii.gz"))
    base = ["evaluate", "--volume", str(tmp_path / "ct.nii.gz"), "--output", str(tmp_path / "o")]
    cases = [(["--tls-ca", "a"], "go together"), (["--scheduler", "tcp://192.0.2.1:8786"], "needs your word")]
    if importlib.util.find_spec("distributed"):
        cases.append((["--scheduler", "tls://192.0.2.1:8786"], "needs certificates"))
    for options, word in cases:
        assert main([*base, *options]) == 2
        error = capsys.readouterr().err
        assert word in error
        assert error.count("\n") == 1
