"""The evaluation: shells, capture range, calibration and verdicts by hand; runs that are kept, continued and told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from evaluation_case import small_ct

from FluoroGuideLib.cli import main
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation import figures, runlog, trials
from FluoroGuideLib.evaluation.study import Chunk, Settings, Subject, chunks, run_keys
from FluoroGuideLib.evaluation.study_report import study_figures, study_html
from FluoroGuideLib.evaluation.subjects import load_subject
from FluoroGuideLib.evaluation.truth import read_truth

SMALL = Settings(starts=4, starts_per_scene=2, pixels=64, noise="clean", search=False, largest_start_mm=8.0, shell_mm=4.0, views="both")


@pytest.fixture(scope="module")
def subject() -> Subject:
    ct, labels = small_ct()
    point = np.array(ct.TransformContinuousIndexToPhysicalPoint(np.argwhere(sitk.GetArrayViewFromImage(labels) == 3).mean(0)[::-1].tolist()))
    return Subject("small", ct, (("ball", point, 3),), labels, digest="d")


def row(start: int, error: float | None, verdict: str = "pass", predicted: float = 1.0, **more) -> dict:
    success = error is not None and error < 2
    base = dict.fromkeys(runlog.COLUMNS)
    return {**base, "run": f"s/{start:06d}/2v", "subject": "s", "scene": 0, "start": start, "views": 2, "start_mtre_mm": 1.0, "mtre_mm": error,
            "mrpd_mm": error, "mtreproj_mm": error, "depth_mm": error, "target_error_mm": error, "predicted_error_mm": predicted, "probability": 0.5,
            "success": success, "verdict": verdict, "cpu_seconds": 1.0, "seconds": 1.0, "pose_error": "", **more}


# ---- figures ------------------------------------------------------------------------------------------------------------
def test_capture_range_ends_before_the_first_bad_shell() -> None:
    """Shells of 2 mm with 20 runs: 20, 19 (95 %), 18 (90 %), 20 good ones -> 4 mm, whatever comes after."""
    settings = Settings(starts=80, largest_start_mm=8.0, shell_mm=2.0)
    bad = {1: 1, 2: 2}
    rows, failed = [], dict.fromkeys(range(4), 0)
    for start in range(80):
        shell = start % 4
        fails = failed[shell] < bad.get(shell, 0)
        failed[shell] += fails
        rows.append(row(start, 9.0 if fails else 0.5))
    found = figures.shells(rows, settings)
    assert [(s["from_mm"], s["to_mm"], s["runs"], s["successes"]) for s in found] == [(0, 2, 20, 20), (2, 4, 20, 19), (4, 6, 20, 18), (6, 8, 20, 20)]
    assert figures.capture_range_mm(found) == 4.0
    assert figures.capture_range_mm([{"runs": 20, "successes": 18, "to_mm": 2.0}]) == 0.0
    assert figures.capture_range_mm([{"runs": 1, "successes": 1, "to_mm": 2.0}, {"runs": 0, "successes": 0, "to_mm": 4.0}]) == 2.0


def test_errors_count_as_failures_and_are_told() -> None:
    rows = [row(0, 0.5), row(1, 3.0, "fail"), row(2, 5.0, "pass"), row(3, None, "error", predicted=None, probability=None), row(4, 1.5, "warn")]
    found = figures.summary(rows, Settings(starts=5))
    assert found["success_percent"] == 40.0
    assert found["errors"] == 1
    # failures: one told (fail), one error, one passed; successes: one warned
    assert (found["failures_not_passed"], found["successes_not_passed"]) == ("2 of 3", "1 of 2")
    counted = figures.confusion(rows)
    assert counted["success"] == {"pass": 1, "warn": 1, "fail": 0, "error": 0}
    assert counted["failure"] == {"pass": 1, "warn": 0, "fail": 1, "error": 1}
    # of four runs with an error, only the 0.5 mm one lies within its predicted 1 mm
    assert found["predicted_95_holds_percent"] == 25.0
    assert [r["start"] for r in figures.worst([{**r, "pose_error": "x"} for r in rows], 3)] == [2, 3, 1]


def test_wilson_interval_by_hand() -> None:
    """10 of 10: lower limit 1 / (1 + z^2 / 10) = 0.7225."""
    assert figures.wilson(10, 10) == pytest.approx((0.72246, 1.0), abs=1e-4)
    assert figures.wilson(0, 0) == (0.0, 1.0)


def test_probability_within_a_radius() -> None:
    """Isotropic sigma 2: the chi distribution with 3 degrees of freedom; 95 % lie within 2.7955 sigma, the median is 1.5382 sigma."""
    covariance = 4 * np.eye(3)
    assert trials.probability_within(2 * 2.79548, covariance) == pytest.approx(0.95, abs=1e-4)
    assert trials.probability_within(2 * 1.53817, covariance) == pytest.approx(0.5, abs=1e-4)
    sample = np.random.default_rng(0).multivariate_normal(np.zeros(3), np.diag([9.0, 1.0, 0.04]), 200_000)
    assert trials.probability_within(3.0, np.diag([9.0, 1.0, 0.04])) == pytest.approx(np.mean(np.linalg.norm(sample, axis=1) < 3.0), abs=0.02)
    assert np.isnan(trials.probability_within(1.0, np.zeros((3, 3))))


def test_calibration_counts() -> None:
    rows = [row(k, 1.0, probability=p) for k, p in enumerate((0.05, 0.2, 0.6, 0.999))]
    observed = {c["predicted"]: c["observed"] for c in figures.calibration(rows)}
    assert (observed[0.1], observed[0.25], observed[0.75], observed[0.99]) == (0.25, 0.5, 0.75, 0.75)


# ---- the list of runs ---------------------------------------------------------------------------------------------------
def test_every_start_is_in_one_chunk_and_shells_are_even() -> None:
    settings = Settings(starts=23, starts_per_scene=5, largest_start_mm=10.0, shell_mm=4.0)
    todo = list(chunks(settings, 2, 3))
    assert sorted((c.subject, n) for c in todo for n in c.starts) == [(s, n) for s in range(2) for n in range(23)]
    assert all(len(c.starts) <= 3 and {n // 5 for n in c.starts} == {c.scene} for c in todo)
    assert settings.shells.tolist() == [0.0, 4.0, 8.0, 10.0]
    distances = [trials.start_distance(settings, n, np.random.default_rng(n)) for n in range(300)]
    assert all(settings.shells[n % 3] <= d <= settings.shells[n % 3 + 1] for n, d in enumerate(distances))
    done = {key for n in (0, 1, 2, 4) for key in run_keys(settings, "a", n)}
    assert next(c.starts for c in chunks(settings, 1, 9, done, ["a"])) == (3,)


@pytest.mark.parametrize("bad", [{"starts": 0}, {"views": "three"}, {"shell_mm": 50.0}, {"moved_mm": (0.0,)}, {"apart_deg": ()}, {"pixels": 8}])
def test_impossible_settings_are_refused(bad: dict) -> None:
    with pytest.raises(FluoroGuideError, match="is not possible"):
        Settings(**bad)


# ---- runs -----------------------------------------------------------------------------------------------------------------
def test_runs_do_not_depend_on_order_or_company(subject: Subject) -> None:
    together = trials.run_chunk(subject, SMALL, Chunk(0, 0, (0, 1)))
    trials._SCENES.clear()
    trials._VOLUMES.clear()
    alone = [r for n in (1, 0) for r in trials.run_chunk(subject, SMALL, Chunk(0, 0, (n,)))]
    assert {r["run"] for r in together} == {"small/000000/2v", "small/000000/1v", "small/000001/2v", "small/000001/1v"}
    same = [c for c in runlog.COLUMNS if c not in runlog.TIMES]
    assert [[r.get(c) for c in same] for r in together] == [[r.get(c) for c in same] for r in sorted(alone, key=lambda r: (r["start"], -r["views"]))]
    two = next(r for r in together if r["views"] == 2)
    assert two["success"]
    assert two["mtre_mm"] < two["start_mtre_mm"] <= 4.0
    # what mTREproj leaves out is the part along the beam: together they make the 3-D error, for a mean within the triangle inequality
    assert two["mtreproj_mm"] <= two["mtre_mm"] <= two["mtreproj_mm"] + two["depth_mm"] + 1e-6


def test_a_broken_case_becomes_a_row(subject: Subject) -> None:
    lost = Subject("lost", subject.volume, (("nowhere", np.array([900.0, 0, 0]), None),), digest="x")
    found = trials.run_chunk(lost, Settings(starts=1, pixels=64, noise="clean"), Chunk(0, 0, (0,)))
    assert [r["verdict"] for r in found] == ["error"]
    assert "unexpected" not in found[0]
    moved = trials.run_chunk(lost, Settings(starts=1, pixels=64, moved_mm=(3.0,)), Chunk(0, 0, (0,)))
    assert "needs the label" in moved[0]["reasons"]


def test_moved_anatomy_is_simulated_and_told(subject: Subject) -> None:
    settings = Settings(starts=1, pixels=64, noise="clean", search=False, moved_mm=(6.0,), largest_start_mm=4.0)
    found = trials.run_chunk(subject, settings, Chunk(0, 0, (0,)))[0]
    assert found["moved_mm"] == 6.0
    still = trials.run_chunk(subject, Settings(starts=1, pixels=64, noise="clean", search=False, largest_start_mm=4.0), Chunk(0, 0, (0,)))[0]
    assert found["mtre_mm"] > 3 * still["mtre_mm"]  # the whole volume follows what moved


# ---- the log ----------------------------------------------------------------------------------------------------------------
def test_the_log_survives_a_torn_line_and_knows_its_study(tmp_path: Path) -> None:
    log = runlog.RunLog(tmp_path, {"key": "a"})
    assert log.add(row(0, 0.5))
    assert not log.add(row(0, 0.7))
    assert log.add(row(1, 0.6))
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"run": "s/000002/2v", "subj')
    again = runlog.RunLog(tmp_path, {"key": "a"})
    assert again.resumed == 2
    assert again.add(row(2, 0.9))
    again.close()
    assert [r["mtre_mm"] for r in runlog.RunLog(tmp_path, {"key": "a"}).table()] == [0.5, 0.6, 0.9]
    with pytest.raises(FluoroGuideError, match="other settings"):
        runlog.RunLog(tmp_path, {"key": "b"})
    assert not runlog.RunLog(tmp_path, {"key": "b"}, fresh=True).rows


def test_tables(tmp_path: Path) -> None:
    table = [row(0, 0.5, reasons="=cmd()"), row(1, None, "error", predicted=None, probability=None, pose_error="-1 0 0")]
    runlog.write_csv(tmp_path / "runs.csv", table)
    lines = (tmp_path / "runs.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(runlog.COLUMNS)
    assert "'=cmd()" in lines[1]
    assert ",-1 0 0," in lines[2]
    changed = [{**table[0], "seconds": 9.0}, table[1]]
    assert runlog.results_digest(table) == runlog.results_digest(changed) != runlog.results_digest([{**table[0], "mtre_mm": 0.500001}, table[1]])
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'scale')")
    assert runlog.write_parquet(tmp_path / "runs.parquet", table, {"key": "a"})
    back = parquet.read_table(tmp_path / "runs.parquet")
    assert back.column_names == list(runlog.COLUMNS)
    assert back["mtre_mm"].to_pylist() == [0.5, None]
    assert back["success"].to_pylist() == [True, False]
    assert json.loads(back.schema.metadata[b"fluoroguide"]) == {"key": "a"}


def test_report_is_one_file_and_escapes(tmp_path: Path) -> None:
    table = [row(k, 0.1 * (k + 1), reasons="<script>alert(1)</script>") for k in range(30)] + [row(30, None, "error", None, probability=None)]
    facts = {"simulated": True, "subjects": {"<b>": "0" * 64}, "command": "fluoroguide evaluate", "code": "c", "versions": {"python": "3"},
             "machine": "m", "date": "d", "expected": 40}
    page = study_html(table, Settings(starts=31), facts, [(table[0], b"png")])
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "&lt;b&gt;" in page
    assert "9 of 40 runs are not done yet" in page
    assert page.count("<svg") == 4
    assert study_figures(table, Settings(starts=31))["s, two views"]["runs"] == 31


# ---- gold standards ---------------------------------------------------------------------------------------------------------
def truth_text(**changes: object) -> str:
    return json.dumps({"pose_matrix": np.eye(4).tolist(), "views": [{"file": "a.dcm"}], **changes})


def test_truth_is_read_and_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    path = tmp_path / "case" / "truth.json"
    (tmp_path / "case" / "a.dcm").touch()
    (tmp_path / "secret.dcm").touch()
    path.write_text(truth_text(simulated=True))
    found = read_truth(tmp_path / "case")
    assert found.simulated
    assert [p.name for p in found.xrays] == ["a.dcm"]
    assert found.geometries == (None,)
    for name in ("../secret.dcm", str(tmp_path / "secret.dcm"), "..", "", "sub/a.dcm", "..\\secret.dcm", "C:a.dcm", "a\x00.dcm", 7, None, ["a.dcm"]):
        path.write_text(truth_text(views=[{"file": name}]))
        with pytest.raises(FluoroGuideError):
            read_truth(path)
        path.write_text(truth_text(views=[{"file": "a.dcm", "geometry": name if name is not None else "../x"}]))
        with pytest.raises(FluoroGuideError):
            read_truth(path)


@pytest.mark.parametrize(
    "matrix", [None, 1, [[1]], [[1, 0, 0, 0]] * 4, np.diag([2.0, 1, 1, 1]).tolist(), [["1"] * 4] * 4, [[10**400] * 4] * 4, [[True] * 4] * 4],
)
def test_truth_with_another_matrix_is_refused(tmp_path: Path, matrix: object) -> None:
    (tmp_path / "a.dcm").touch()
    (tmp_path / "truth.json").write_text(truth_text(pose_matrix=matrix))
    with pytest.raises(FluoroGuideError):
        read_truth(tmp_path)


# ---- the command ------------------------------------------------------------------------------------------------------------
def test_command_on_real_files_then_continued(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A simulated case read back from DICOM files, one child process; half of the finished runs are lost, then the command is given again."""
    from FluoroGuideLib.evaluation.simulate import SimulationOptions, simulate_case
    from FluoroGuideLib.registration.search import start_at_isocenter

    ct, labels = small_ct()
    sitk.WriteImage(ct, str(tmp_path / "ct.nii.gz"))
    point = np.array(ct.TransformContinuousIndexToPhysicalPoint(np.argwhere(sitk.GetArrayViewFromImage(labels) == 3).mean(0)[::-1].tolist()))
    (tmp_path / "t.json").write_text(json.dumps([{"name": "ball", "position_lps_mm": point.tolist()}]))
    simulate_case(ct, [(0, 0), (90, 0)], start_at_isocenter(point), tmp_path / "case", rows=64, columns=64, pixel_spacing_mm=(5.0, 5.0),
                  options=SimulationOptions.preset("clean", projector="march"))
    out = tmp_path / "out"
    command = ["evaluate", "--volume", str(tmp_path / "ct.nii.gz"), "--targets", str(tmp_path / "t.json"), "--case", str(tmp_path / "case"),
               "--starts", "4", "--largest-start", "8", "--no-search", "--workers", "1", "--gallery", "1", "--output", str(out), "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["runs"] == 4
    assert not first["simulated"]
    assert first["groups"]["ct, two views"]["success_percent"] == 100.0
    assert "<svg" in (out / "report.html").read_text(encoding="utf-8")
    assert len(list((out / "gallery").glob("*.png"))) == 1
    assert str(tmp_path) not in (out / "figures.json").read_text() + (out / "report.html").read_text()
    lines = (out / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (out / "runs.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:30])
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["results_digest"] == first["results_digest"]
    assert (out / "runs.jsonl").read_bytes().startswith(b"".join(lines[:2]))  # finished runs were not repeated
    assert main([*command, "--seed", "7"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_mr_is_recognised_and_registered_as_mr(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """An MR drawn from the small CT, its contrast told by a side file; X-rays simulated from the CT, whose voxels are others than the MR's."""
    from FluoroGuideLib.evaluation.pseudo_mr import PseudoMrOptions, pseudo_mr

    ct, labels = small_ct()
    options = PseudoMrOptions(pixel_mm=3.0, slice_mm=5.0, bias=0.0, noise=0.01, distortion_mm=0.0)
    mr, bones, _ = pseudo_mr(ct, options, np.random.default_rng(1), labels)
    for name, image in (("ct", ct), ("mr", mr), ("bones", bones)):
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    (tmp_path / "mr.json").write_text(json.dumps({"Modality": "MR", "RepetitionTime": 0.5, "EchoTime": 0.012, "ScanningSequence": "SE"}))
    point = ct.TransformContinuousIndexToPhysicalPoint(np.argwhere(sitk.GetArrayViewFromImage(labels) == 3).mean(0)[::-1].tolist())
    (tmp_path / "t.json").write_text(json.dumps([{"name": "ball", "position_lps_mm": list(point)}]))
    files = {"labels": tmp_path / "bones.nii.gz", "targets": tmp_path / "t.json", "simulate_from": tmp_path / "ct.nii.gz"}
    planned = load_subject(str(tmp_path / "mr.nii.gz"), **files)
    assert planned.facts["modality"] == "MR"
    moved = Settings(starts=1, pixels=64, noise="clean", search=False, largest_start_mm=4.0, moved_mm=(4.0,), part="auto")
    told = trials.run_chunk(planned, moved, Chunk(0, 0, (0,)))[0]["reasons"]
    assert "Planned on MR (T1)" in told
    assert "label 3" in told, "the labelled bone at the target is registered on its own"
    options = [word for name, path in files.items() for word in ("--" + name.replace("_", "-"), str(path))]
    command = ["evaluate", "--volume", str(tmp_path / "mr.nii.gz"), "--starts", "1", "--largest-start", "4", "--no-search",
               "--size", "64", "--noise", "clean", "--workers", "1", "--gallery", "0", "--json", "--output", str(tmp_path / "out")]
    command += ["--success", "4.8"]  # a pixel of these small pictures: how exact MR is, its own proofs say
    assert main([*command, *options]) == 0
    found = json.loads(capsys.readouterr().out)["groups"]["mr, two views"]
    assert (found["errors"], found["success_percent"]) == (0, 100.0)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "MR (T1), SHA-256" in page
    assert "1 of them MR" in page
    assert main(command) == 2
    assert "--simulate-from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "word"),
    [([], "--volume or --study"), (["--volume", "a", "--study", "b"], "--volume or --study"), (["--volume", "missing.nii"], "does not exist"),
     (["--volume", "a", "--targets", "b", "--targets", "c"], "differs"),
     (["--study", "a", "--simulate-from", "b"], "'simulate_from'"), (["--volume", "a", "--volume", "b", "--modality", "mr"], "--modality differs"),
     (["--volume", "a", "--volume", "b", "--case", "c"], "exactly one"),
     (["--volume", "a", "--starts", "0"], "number of starts"), (["--volume", "a", "--moved", "x"], "--moved"),
     (["--study", "missing.json"], "study file")],
)
def test_bad_commands_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], word: str) -> None:
    assert main(["evaluate", *options, "--output", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["[]", '{"subjects": []}', '{"subjects": [1]}', '{"subjects": [{"volume": 3}]}', '{"subjects": [{"volumes": "x"}]}',
                                  '{"subjects": [{"volume": "x", "cases": "y"}]}', '{"subjects": [{"volume": "x", "cases": [1]}]}', "{", "null"])
def test_bad_study_files(tmp_path: Path, capsys: pytest.CaptureFixture, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    assert main(["evaluate", "--study", str(tmp_path / "s.json"), "--output", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """/dev/full answers every write with "no space left"."""
    if not os.path.exists("/dev/full") or shutil.which("ln") is None:
        pytest.skip("this system has no /dev/full")
    (tmp_path / "runs.jsonl").symlink_to("/dev/full")
    log = runlog.RunLog(tmp_path, {"key": "a"})
    with pytest.raises(FluoroGuideError, match="No space left"):
        log.add(row(0, 0.5))
