"""The command line: exit codes, one-line errors, and a case from simulation to located needle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.cli import COMMANDS, main
from FluoroGuideLib.evaluation.protocol import mtre
from FluoroGuideLib.geometry import rigid


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def one_line(capsys: pytest.CaptureFixture, *words: str) -> None:
    """What went to standard error is one line that holds the words, and no traceback."""
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1, error
    for word in words:
        assert word in error, error


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom in two simulated views with a needle, its CT, and a plan; made through the command line."""
    from FluoroGuideLib.evaluation.phantom import LumbarPhantom

    folder = tmp_path_factory.mktemp("case")
    phantom = LumbarPhantom()
    sitk.WriteImage(phantom.voxelize(1.5), str(folder / "ct.nrrd"))
    target = phantom.landmarks["L4/L5 facet joint left"]
    entry = target + np.array([25.0, 70.0, 10.0])
    axis = (entry - target) / np.linalg.norm(entry - target)
    tip = target + np.array([1.5, 0.0, 1.5])
    needle = ",".join(f"{v:.3f}" for v in np.r_[tip, tip + 90 * axis, 22])
    center = ",".join(f"{v:.3f}" for v in target)
    code = run(
        "simulate", "--volume", "phantom", "--view", "-5,3", "--view", "50,0", "--center", center, "--needle", needle, "--size", 300,
        "--spacing", 1.0, "--output", folder,
    )
    assert code == 0
    text = [",".join(f"{v:.3f}" for v in p) for p in (target, entry)]
    code = run(
        "plan", "--volume", folder / "ct.nrrd", "--procedure", "free", "--target", text[0], "--entry", text[1], "--level", "L4/L5",
        "--laterality", "left", "--output", folder,
    )
    assert code == 0
    np.save(folder / "tip.npy", np.array([tip, tip + 40 * axis]))
    return folder


def test_from_simulation_to_needle(case: Path, capsys: pytest.CaptureFixture) -> None:
    views = ["--xray", case / "view_A.dcm", "--xray", case / "view_B.dcm"]
    assert run("register", "--volume", case / "ct.nrrd", *views, "--plan", case / "plan.json", "--output", case / "out", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    truth, pose = rigid.read_tfm(case / "truth.tfm"), rigid.read_tfm(case / "out" / "pose.tfm")
    np.testing.assert_allclose(result["pose_matrix"], pose, atol=1e-9)
    plan = json.loads((case / "plan.json").read_text())
    target = np.array(plan["targets"][0]["position_lps_mm"])
    assert mtre(pose, truth, target + np.random.default_rng(0).normal(0, 15, (30, 3))) < 1.0
    assert result["verdict"] in ("pass", "warn")
    assert result["targets"][0]["predicted_error_mm"] > 0
    assert (case / "out" / "overlay_B.png").stat().st_size > 10_000

    described = json.loads((case / "truth.json").read_text())["views"]
    from FluoroGuideLib.geometry.carm import CArmView

    marks = []
    for view in described:
        pixels = CArmView.from_dict(view["view"]).project(rigid.apply(truth, np.load(case / "tip.npy")))
        marks += [["--tip", "{:.2f},{:.2f}".format(*pixels[0]), "--shaft", "{:.2f},{:.2f}".format(*pixels[1])]]
    flat = [a for pair in marks for a in pair]
    assert run("locate", *views, *flat, "--pose", case / "out" / "pose.tfm", "--plan", case / "plan.json", "--output", case / "out", "--json") == 0
    needle = json.loads(capsys.readouterr().out)
    assert np.linalg.norm(np.array(needle["tip_lps_mm"]) - np.load(case / "tip.npy")[0]) < 1.0
    assert needle["deviation"]["tip_mm"] == pytest.approx(np.sqrt(2 * 1.5**2), abs=0.8)


def test_overlay_and_inspect(case: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("overlay", "--xray", case / "view_A.dcm", "--pose", case / "truth.tfm", "--plan", case / "plan.json", "--output", case / "o") == 0
    assert (case / "o" / "overlay_A.png").exists()
    assert run("inspect", case / "view_A.dcm", "--output", case / "o") == 0
    assert "-5 deg" in capsys.readouterr().out


def test_replay_draws_every_frame(case: Path) -> None:
    arguments = ["--pose", case / "truth.tfm", "--plan", case / "plan.json", "--volume", case / "ct.nrrd", "--output", case / "replay"]
    assert run("replay", case / "view_A.dcm", *arguments) == 0
    assert (case / "replay" / "frame_0000.png").stat().st_size > 10_000
    assert (case / "replay" / "replay.gif").stat().st_size > 1_000


def test_pelvis_through_the_command_line(data_dir: Path, tmp_path: Path) -> None:
    """SI joint of a real CT that ends inside the picture: simulated, registered from 15 mm and 8 degrees off."""
    volume = data_dir / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz"
    joint = np.array([318.0, 293.0, 975.0])
    common = ["--sid", 1050, "--sod", 700, "--size", 256, "--spacing", 1.2]
    assert run("simulate", "--volume", volume, "--view", "-20,0", "--view", "70,5", "--center", "318,293,975", *common, "--output", tmp_path) == 0
    truth = rigid.read_tfm(tmp_path / "truth.tfm")
    turn, shift = np.random.default_rng(5).normal(size=(2, 3))
    xi = np.r_[turn / np.linalg.norm(turn) * np.radians(8), shift / np.linalg.norm(shift) * 15]
    rigid.write_tfm(tmp_path / "start.tfm", rigid.perturb(truth, xi, np.zeros(3)))
    (tmp_path / "targets.json").write_text(json.dumps([{"name": "SI joint left", "position_lps_mm": joint.tolist()}]))
    code = run(
        "register", "--volume", volume, "--xray", tmp_path / "view_A.dcm", "--xray", tmp_path / "view_B.dcm", "--initial", tmp_path / "start.tfm",
        "--targets", tmp_path / "targets.json", "--output", tmp_path / "out",
    )
    assert code == 0
    points = joint + np.random.default_rng(0).normal(0, 15, (50, 3))
    assert mtre(rigid.read_tfm(tmp_path / "start.tfm"), truth, points) > 10
    assert mtre(rigid.read_tfm(tmp_path / "out" / "pose.tfm"), truth, points) < 1.0


def bad_volumes(folder: Path) -> dict[str, tuple[Path, str]]:
    text = folder / "text.nrrd"
    text.write_text("not an image")
    flat, rgb, nan = folder / "flat.nrrd", folder / "rgb.nrrd", folder / "nan.nrrd"
    sitk.WriteImage(sitk.Image((20, 20, 1), sitk.sitkInt16), str(flat))
    sitk.WriteImage(sitk.Image((20, 20, 20), sitk.sitkVectorUInt8, 3), str(rgb))
    values = np.zeros((20, 20, 20), np.float32)
    values[3, 4, 5] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(values), str(nan))
    return {
        "missing": (folder / "none.nrrd", "none.nrrd"), "text": (text, "text.nrrd"), "one slice": (flat, "flat.nrrd"),
        "colour": (rgb, "rgb.nrrd"), "NaN": (nan, "nan.nrrd"),
    }


@pytest.mark.parametrize("kind", ["missing", "text", "one slice", "colour", "NaN"])
def test_bad_volumes_give_one_sentence(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture, kind: str) -> None:
    path, word = bad_volumes(tmp_path)[kind]
    capsys.readouterr()
    assert run("register", "--volume", path, "--xray", case / "view_A.dcm", "--output", tmp_path / "out") == 2
    one_line(capsys, word)


def test_other_bad_input_gives_one_sentence(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    truth = rigid.read_tfm(case / "truth.tfm")
    behind = truth.copy()
    behind[:3, 3] += (0.0, 3000.0, 0.0)  # the source of an AP view is posterior, at +y
    rigid.write_tfm(tmp_path / "behind.tfm", behind)
    (tmp_path / "text.tfm").write_text("hello")
    (tmp_path / "text.dcm").write_text("hello")
    (tmp_path / "broken.json").write_text("{")
    volume, xray, out = ["--volume", case / "ct.nrrd"], ["--xray", case / "view_A.dcm"], ["--output", tmp_path / "out"]
    capsys.readouterr()
    for words, arguments in {
        ("behind the X-ray source",): ["register", *volume, *xray, "--initial", tmp_path / "behind.tfm", *out],
        ("text.tfm",): ["register", *volume, *xray, "--initial", tmp_path / "text.tfm", *out],
        ("text.dcm",): ["register", *volume, "--xray", tmp_path / "text.dcm", *out],
        ("broken.json",): ["register", *volume, *xray, "--targets", tmp_path / "broken.json", *out],
        ("once for each",): ["locate", *xray, "--xray", case / "view_B.dcm", "--tip", "1,2", "--shaft", "3,4", *out],
        ("3 numbers", "1,2"): ["plan", *volume, "--procedure", "free", "--target", "1,2", *out],
        ("outside",): ["plan", *volume, "--procedure", "free", "--target", "900,0,0", *out],
        ("shorter",): ["plan", *volume, "--procedure", "free", "--target", "0,0,0", "--entry", "0,80,0", "--needle-length", 50, *out],
        ("view_A.dcm",): ["register", "--volume", case / "view_A.dcm", *xray, *out],
        ("--volume",): ["register", *xray, *out],
        ("nonsense",): ["nonsense"],
    }.items():
        assert run(*arguments) == 2, arguments
        one_line(capsys, *words)


def test_help_names_every_command(capsys: pytest.CaptureFixture) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    for name in COMMANDS:
        assert run(name, "--help") == 0
        assert "usage: fluoroguide" in capsys.readouterr().out


def test_demo_offline(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The whole workflow on the phantom, with the scene; without OpenGL the pictures of views are left out and said."""
    assert run("demo", "--offline", "--output", tmp_path) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["pose_error_mm"] < 1.0
    assert result["tip_error_mm"] < 1.0
    assert "phantom" in result["volume"]
    for name in ("case.mrb", "record.json", "summary.txt", "overlay_A.png", "plan.json"):
        assert (tmp_path / name).stat().st_size > 500, name
    assert run("record", "validate", tmp_path / "record.json") == 0
