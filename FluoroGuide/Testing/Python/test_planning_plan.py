"""The plan: geometry by hand, lossless files, and one sentence for every wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.planning.plan import Plan, RequiredView, Target, Trajectory, check_plan_against_volume, read_plan, read_targets, write_plan

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"


def a_plan() -> Plan:
    return Plan(
        "vertebroplasty_transpedicular", (Target("L1 body", (10, 20, 30.1), 3),), (Trajectory("left", (13, 24, 42.1), (10, 20, 30.1), 13, 100),),
        "left", "L1", "ct", {"L1": np.array([[0, 0, 0], [1 / 3, 2, 3]])}, ("AP", RequiredView("lateral", 90.0, 0.0)), "note ü",
    )


def test_length_axis_and_angles_by_hand() -> None:
    path = a_plan().trajectory()
    # entry -> target = (-3, -4, -12): length 13; to the axial plane asin(-12/13) = -67.38 degrees, to the sagittal asin(-3/13) = -13.34
    assert path.length_mm == pytest.approx(13, abs=1e-12)
    np.testing.assert_allclose(path.axis, np.array([-3, -4, -12]) / 13, atol=1e-12)
    assert path.angle_to_axial_deg == pytest.approx(-67.3801, abs=1e-4)
    assert path.angle_to_sagittal_deg == pytest.approx(-13.3424, abs=1e-4)
    np.testing.assert_allclose(path.point_at(6.5), (11.5, 22, 36.1), atol=1e-12)


def test_file_keeps_every_number_and_unknown_keys(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.json", a_plan())
    data = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (data["format"], data["version"]) == ("fluoroguide-plan", 0)
    assert data["outlines"]["L1"][1][0] == 1 / 3
    assert data["targets"][0] == {"name": "L1 body", "position_lps_mm": [10, 20, 30.1], "tolerance_mm": 3}
    data["later"] = {"corridor_mm": 2}
    (tmp_path / "later.json").write_text(json.dumps(data), encoding="utf-8")
    plan = read_plan(tmp_path / "later.json")
    assert plan.to_dict() == data
    assert plan.required_views == (RequiredView("AP"), RequiredView("lateral", 90.0, 0.0))
    assert plan.tolerance_mm(plan.trajectory("left")) == 3
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trajectories": [{"name": "a", "entry_lps_mm": [1, 2, 3], "target_lps_mm": [1, 2, 3]}]}, "trajectory 'a' are the same point"),
        ({"targets": [{"name": "t", "position_lps_mm": [1, float("nan"), 3]}]}, "position of target 't' is not three finite numbers"),
        ({"targets": [{"name": "t", "position_lps_mm": [1, 2]}]}, "is not three finite numbers"),
        ({"targets": [{"position_lps_mm": [1, 2, 3]}]}, "The target lacks the key 'name'"),
        ({"targets": {"name": "t"}}, "'targets' is not a list"),
        ({"version": 7}, "version 7, known up to 0"),
        ({"version": "0"}, "version this FluoroGuide cannot read"),
        ({"format": "other"}, "This is not a plan (format 'other'"),
        ({"laterality": "links"}, "laterality is unknown (links)"),
        ({"outlines": {"L1": [[1, 2, 3]]}}, "outline 'L1' is not a list"),
        ({"targets": [{"name": "t", "position_lps_mm": [1, 2, 3], "tolerance_mm": -1}]}, "tolerance of target 't' is not a positive number (-1)"),
        ({"targets": [{"name": "t", "position_lps_mm": [1, 2, 3]}] * 2}, "Two targets of the plan have the same name (t)"),
    ],
)
def test_wrong_plans_are_told_in_one_sentence(tmp_path: Path, change: dict, sentence: str) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**a_plan().to_dict(), **change}), encoding="utf-8")
    with pytest.raises(FluoroGuideError) as caught:
        read_plan(tmp_path / "plan.json")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["format", "version", "procedure", "targets", "trajectories"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    data = a_plan().to_dict()
    del data[key]
    (tmp_path / "plan.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(FluoroGuideError, match=f"lacks the key '{key}'"):
        read_plan(tmp_path / "plan.json")


def test_a_joint_region_is_kept(tmp_path: Path) -> None:
    region = [[1, 2, 3], [2, 2, 1 / 3], [1, 2, 3]]
    write_plan(tmp_path / "plan.json", Plan("si_joint", (Target("joint", (1, 2, 3), 4, region),)))
    assert read_plan(tmp_path / "plan.json").targets[0].region_lps_mm.tolist() == region
    with pytest.raises(FluoroGuideError, match="region of joint"):
        Target("joint", (1, 2, 3), None, [[1, 2, 3]])


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("hello", encoding="utf-8")
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    sentences = {"none.json": "does not exist", "text.json": "is not JSON", "binary.json": "is not a text file", "list.json": "JSON object"}
    for name, sentence in sentences.items():
        with pytest.raises(FluoroGuideError, match=sentence):
            read_plan(tmp_path / name)
    with pytest.raises(FluoroGuideError, match="cannot be written"):
        write_plan(tmp_path / "no" / "plan.json", a_plan())


@pytest.mark.parametrize("old", ["30.1", "0.3333333333333333"], ids=["target", "outline"])
def test_integers_that_no_float_holds_are_refused(tmp_path: Path, old: str) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, a_plan())
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, "1" + 400 * "0", 1), encoding="utf-8")
    with pytest.raises(FluoroGuideError):
        read_plan(path)
    with pytest.raises(FluoroGuideError):  # also when they did not come from a file
        Plan("p", outlines={"o": [[0, 0, 10**400], [1, 1, 1]]})


def test_targets_file(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text('[{"name": "a", "position_lps_mm": [1, 2, 3]}, {"name": "b", "position_lps_mm": [4, 5, 6], "tolerance_mm": 2}]', encoding="utf-8")
    a, b = read_targets(path)
    assert (a.name, a.position_lps_mm.tolist(), a.tolerance_mm, b.tolerance_mm) == ("a", [1, 2, 3], None, 2)
    write_plan(path, a_plan())
    assert [(t.name, t.tolerance_mm) for t in read_targets(path)] == [("L1 body", 3)]
    for text, sentence in (("[]", "is not a list of targets"), ('{"a": 1}', "is not a list of targets"), ("[3]", "target is not a JSON object")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FluoroGuideError, match=sentence):
            read_targets(path)


def test_plan_against_volume() -> None:
    # 10 voxels of 2 mm from 0: centres 0..18, outer borders -1 and 19.
    image = sitk.Image(10, 10, 10, sitk.sitkInt16)
    image.SetSpacing((2, 2, 2))
    inside = Plan("p", (Target("t", (18.9, 0, -0.9)),), (Trajectory("n", (9, 9, 40), (9, 9, 9)),), outlines={"o": [[1, 1, 1], [1, 1, 30]]})
    warnings = check_plan_against_volume(inside, image)
    assert len(warnings) == 2
    assert "entry of trajectory 'n'" in warnings[0]
    assert "1 of 2 points of the outline 'o'" in warnings[1]
    with pytest.raises(FluoroGuideError, match="target 't' lies outside the volume"):
        check_plan_against_volume(Plan("p", (Target("t", (19.1, 0, 0)),)), image)
    with pytest.raises(FluoroGuideError, match="target 'n' lies outside"):
        check_plan_against_volume(Plan("p", (), (Trajectory("n", (9, 9, 9), (-9, 9, 9)),)), image)


def test_every_number_of_the_procedures_has_a_source_or_says_unverified() -> None:
    def facts(data: object) -> list[dict]:
        children = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
        return ([data] if isinstance(data, dict) and "status" in data else []) + [f for child in children for f in facts(child)]

    files = sorted((RESOURCES / "Procedures").glob("*.json"))
    assert files
    for path in files:
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["key"] == path.stem
        for fact in facts(data):
            assert fact["status"] == ("cited" if fact["source"] else "unverified"), path.name
        assert all("status" in v for v in data["views"] + [data["target"]]), path.name
