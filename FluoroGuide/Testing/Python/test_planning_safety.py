"""Clearance against brute force, bone, skin, needle length, and one sentence for each thing that cannot be planned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.anatomy.segments import read_segmentation
from FluoroGuideLib.anatomy.skin import body_mask, exits_lps_mm, skin_point_lps_mm
from FluoroGuideLib.cli import main
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.frames import lps_from_ijk
from FluoroGuideLib.planning.approach import Room
from FluoroGuideLib.planning.carms import CArmCard, carm
from FluoroGuideLib.planning.plan import Trajectory
from FluoroGuideLib.planning.safety import Structure, bone_on_path_mm, check_trajectory, clearance, corridor, structures_from_labels
from FluoroGuideLib.planning.suggest import Rules, cone, suggest


def box(size=(60, 50, 40), spacing=(1.0, 1.0, 1.0), value=0) -> np.ndarray:
    return np.full(size[::-1], value, np.int16)


def image_of(array: np.ndarray, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    return image


def brute_mm(mask: sitk.Image, trajectory: Trajectory) -> float:
    """Distance between a segment and voxel boxes: each box filled with 5^3 points, each point against the segment."""
    kji = np.argwhere(sitk.GetArrayFromImage(mask) > 0)
    cell = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    matrix = lps_from_ijk(mask)
    a, axis, length = trajectory.entry_lps_mm, trajectory.axis, trajectory.length_mm
    best = np.inf
    for part in np.array_split(kji[:, ::-1], max(1, len(kji) // 4000)):
        points = (part[:, None] + cell).reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
        along = np.clip((points - a) @ axis, 0, length)
        best = min(best, float(np.linalg.norm(points - a - along[:, None] * axis, axis=1).min()))
    return best


def test_clearance_by_hand_and_by_brute_force() -> None:
    array = box()
    array[20, 25, 30] = 1  # one voxel with its centre at (30, 25, 20)
    mask = image_of(array)
    # A needle along y at x = 30, z = 27: the voxel's top is at z = 20.5, so 6.5 mm; a 22 gauge needle (0.7 mm) leaves 6.15.
    path = Trajectory("n", (30, 0, 27), (30, 49, 27), 22)
    found = clearance(Structure("s", mask, 2.0), path)
    assert found.distance_mm == pytest.approx(6.5, abs=1e-9)
    assert 24 <= found.at_depth_mm <= 26
    report = check_trajectory(path, structures=[Structure("s", mask, 6.2)])
    assert report.clearances[0].distance_mm == pytest.approx(6.15, abs=1e-9)
    assert "'s' is 6.2 mm from the needle's wall" in report.problems[0] or "'s' is 6.1 mm" in report.problems[0]
    assert clearance(Structure("s", mask), Trajectory("n", (30, 0, 20), (30, 49, 20))).distance_mm == 0
    assert clearance(Structure("s", mask), Trajectory("n", (30, 200, 20), (30, 180, 20))).distance_mm == 60
    rng = np.random.default_rng(2)
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    for _ in range(12):
        blob = np.zeros((20, 30, 30), np.uint8)
        for center in rng.uniform(8, 20, (3, 3)):
            k, j, i = np.ogrid[:20, :30, :30]
            blob |= ((k - center[0] / 2) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2 < 16).astype(np.uint8)
        mask = image_of(blob, (0.8, 0.9, 2.5), (5, -7, 3), turn.ravel().tolist())
        middle = np.array(mask.TransformContinuousIndexToPhysicalPoint((14.0, 14.0, 10.0)))
        path = Trajectory("n", middle + rng.normal(0, 25, 3), middle + rng.normal(0, 25, 3))
        exact, brute = clearance(Structure("s", mask), path).distance_mm, brute_mm(mask, path)
        # Brute force samples boxes (a quarter voxel apart), the library samples the needle (0.25 mm apart): both are
        # bounds from above, each within its own step.
        assert exact == pytest.approx(brute, abs=0.2), (exact, brute)


def test_bone_skin_and_needle_length_by_hand() -> None:
    ct = box((80, 80, 40), value=-1000)
    ct[:, 20:60, 10:70] = 40  # soft tissue from y = 19.5 to 59.5
    ct[10:30, 44:50, :] = 700  # a plate of bone, y from 43.5 to 49.5
    image = image_of(ct)
    body = body_mask(image, 1.0)
    path = Trajectory("n", (40, 70, 20), (40, 30, 20), 22, 60)
    assert bone_on_path_mm(image, path) == pytest.approx(6.0, abs=0.8)  # trilinear edges: half a voxel each side at most
    report = check_trajectory(path, image, [], body)
    assert report.skin_depth_mm == pytest.approx(29.5, abs=1.0)
    assert any("bone before its last 5 mm" in p for p in report.problems)
    assert report.notes[0].endswith("mm above the skin.")
    allowed = check_trajectory(path, image, [], body, bone_allowed=True)
    assert allowed.problems == ()
    short = check_trajectory(Trajectory("n", (40, 70, 20), (40, 30, 20), 22, 35), image, [], body, bone_allowed=True)
    assert short.problems[0].startswith("The needle is too short: 35 mm for a way of 40.0 mm")
    np.testing.assert_allclose(skin_point_lps_mm(body, np.array([40.0, 30, 20]), np.array([0, 1.0, 0])), (40, 59.75, 20), atol=0.6)
    assert np.isnan(exits_lps_mm(body, np.array([40.0, 30, 20]), np.array([[0, 0, 1.0]]))).all()
    with pytest.raises(FluoroGuideError, match="No skin lies on the needle's line"):
        skin_point_lps_mm(body, np.array([40.0, 30, 20]), np.array([0, 0, 1.0]))
    assert any("skin" in w for w in check_trajectory(Trajectory("n", (40, 30, 39), (40, 31, 20)), image, [], body).warnings)


def test_what_cannot_be_planned_is_one_sentence() -> None:
    ct = box((80, 80, 40), value=-1000)
    ct[:, 20:60, 10:70] = 40
    ct[10:30, 50:60, :] = 700
    image = image_of(ct)
    body, room, back = body_mask(image, 1.0), Room(carm(), "HFP"), np.array([0, 1.0, 0])
    cases = [
        (lambda: check_trajectory(Trajectory("n", (40, 70, 20), (40, 300, 20)), image), "The target lies outside the volume"),
        (lambda: check_trajectory(Trajectory("n", (40, 55, 20), (40, 30, 20)), image), "The entry lies inside bone"),
        (lambda: check_trajectory(Trajectory("n", (40, 30, 20), (40, 70, 20)), image, [], body), "seem to be swapped"),
        (lambda: body_mask(image_of(box(value=-1000))), "No skin was found"),
        (lambda: suggest((40, 300, 20), image, body, [], room, Rules(back)), "The target lies outside the volume"),
        (lambda: suggest((40, 30, 20), image, body, [], room, Rules(back, 10)), "No path keeps the procedure's rules"),
        (lambda: suggest((40, 30, 20), image, body, [], room, Rules(back, 10, True, needle_length_mm=20)), "are longer than the needle"),
    ]
    for make, sentence in cases:
        with pytest.raises(FluoroGuideError, match=sentence) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_corridor() -> None:
    near = clearance(Structure("nerve", image_of((np.indices((9, 9, 9)).sum(0) == 12).astype(np.uint8))), Trajectory("n", (0, 0, 7), (8, 0, 7)))
    text = corridor((near,), (1.0, 0.5), 2.0)
    assert text[0].startswith("95 % of placements lie within 2.4 x 1.2 mm across and 3.9 mm along")  # 2.448 sigma, 1.96 sigma
    assert ("nerve" in text[-1]) == (near.distance_mm < 2.448)
    # 95 % by brute force.
    draws = np.random.default_rng(0).normal(0, (1.0, 0.5), (200_000, 2))
    assert ((draws / (2.448, 1.224)) ** 2).sum(axis=1).__le__(1).mean() == pytest.approx(0.95, abs=0.002)


def test_suggestions_find_the_only_window() -> None:
    # A wall of bone behind the target with one window: paths have to go through it, and a vessel beside it pushes them away.
    ct = np.full((80, 120, 120), -1000, np.int16)
    ct[:, 20:100, 10:110] = 40
    ct[:, 70:74, :] = 800
    ct[30:50, 70:74, 60:80] = 40  # the window: x 60..79, z 30..49
    vessel = np.zeros(ct.shape, np.uint8)
    vessel[:, 80:84, 60:64] = 1
    image, body = image_of(ct), body_mask(image_of(ct), 1.0)
    wall = Structure("vessel", image_of(vessel), 3.0)
    found = suggest((60.0, 50, 40), image, body, [wall], Room(carm(), "HFP"), Rules(np.array([0, 1.0, 0]), 40, gauge=22))
    assert found
    for item in found:
        entry, axis = item.trajectory.entry_lps_mm, item.trajectory.axis
        at = entry + (72 - entry[1]) / axis[1] * axis  # where it passes the wall
        assert 59 < at[0] < 80
        assert 29 < at[2] < 50
        brute = brute_mm(wall.mask, item.trajectory) - 0.35
        assert item.clearance_mm == pytest.approx(brute, abs=0.2)
        assert item.clearance_mm >= 3.0 - 1e-9
        assert bone_on_path_mm(image, item.trajectory, 5.0) < 0.5
        assert item.view.reachable
        assert any("vessel" in r for r in item.reasons)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    none = CArmCard("narrow", primary_range_deg=(-1, 1), secondary_range_deg=(-1, 1))
    with pytest.raises(FluoroGuideError, match="out of the C-arm's reach"):
        suggest((60.0, 50, 40), image, body, [wall], Room(none, "HFP"), Rules(np.array([0, 1.0, 0]), 40))
    rays = cone(np.array([0, 1.0, 0]), 30, 2)
    assert np.degrees(np.arccos(np.clip(rays @ [0, 1, 0], -1, 1))).max() == pytest.approx(30, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)


def test_segmentation_files(tmp_path: Path) -> None:
    labels = image_of(np.pad(np.array([[[1, 2]]], np.uint8), 2))
    labels.SetMetaData("Segment0_Name", "aorta")
    labels.SetMetaData("Segment0_LabelValue", "2")
    sitk.WriteImage(labels, str(tmp_path / "s.seg.nrrd"))
    image, names = read_segmentation(tmp_path / "s.seg.nrrd")
    assert names == {1: "label 1", 2: "aorta"}
    (tmp_path / "names.json").write_text('{"1": "cord"}', encoding="utf-8")
    assert read_segmentation(tmp_path / "s.seg.nrrd", tmp_path / "names.json")[1] == {1: "cord", 2: "label 2"}
    found = structures_from_labels(image, {1: "cord", 2: "aorta", 9: "none"}, {"aorta": 4.0})
    assert [(s.name, s.clearance_mm) for s in found] == [("aorta", 4.0)]
    assert found[0].tree.data.tolist() == [[3.0, 2.0, 2.0]]
    for path, sentence in [(tmp_path / "no.nrrd", "does not exist"), (tmp_path / "names.json", "cannot be read as an image")]:
        with pytest.raises(FluoroGuideError, match=sentence):
            read_segmentation(path)
    with pytest.raises(FluoroGuideError, match="names of the segmentation's labels"):
        read_segmentation(tmp_path / "s.seg.nrrd", tmp_path / "s.seg.nrrd")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ct = np.full((40, 100, 100), -1000, np.int16)
    ct[:, 20:90, 10:90] = 40
    ct[:, 60:64, 60:90] = 800
    sitk.WriteImage(image_of(ct), str(tmp_path / "ct.nrrd"))
    start = ["plan", "--volume", str(tmp_path / "ct.nrrd"), "--output", str(tmp_path / "out")]
    assert main([*start, "--procedure", "medial_branch_block", "--laterality", "left", "--target", "50,50,20", "--gauge", "22", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["trajectories"]) == 3
    first = result["trajectories"][0]
    assert first["safety"]["problems"] == []
    assert first["views"][0]["reachable"]
    assert first["reasons"]
    assert result["patient_position"] == "HFP"
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["procedure"] == "medial_branch_block"
    for extra, words in [
        (["--procedure", "nose", "--target", "50,50,20"], "The procedure is unknown (nose). Known: "),
        (["--procedure", "lumbar_facet", "--target", "50,50,20"], "oblique to one side (none given). Say left or right."),
        (["--procedure", "free", "--target", "50,500,20", "--entry", "50,95,20"], "outside the volume"),
        (["--procedure", "free", "--target", "50,50,20", "--entry", "50,95,20", "--needle-length", "20"], "than the path (20 mm for 45.0 mm)"),
        (["--procedure", "hip", "--target", "50,30,20", "--entry", "70,62,20"], "The entry lies inside bone (800 HU"),
        (["--procedure", "hip", "--target", "50,30,20", "--carm", "x"], "The C-arm is unknown (x)"),
    ]:
        assert main([*start, *extra]) == 2
        error = capsys.readouterr().err.strip()
        assert words in error
        assert len(error.splitlines()) == 1
