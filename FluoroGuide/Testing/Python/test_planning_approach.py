"""The C-arm solver: hand-computed angles, limits, prone, and 50 random needles on the pelvis CT."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import PATIENT_POSITIONS, patient_angles
from FluoroGuideLib.planning.approach import Room, best_pair, bulls_eye, nearest_angles, progress_views
from FluoroGuideLib.planning.carms import CARM_FOLDER, CArmCard, carm, gantry_angles
from FluoroGuideLib.planning.plan import Trajectory

WIDE = CArmCard("wide", primary_range_deg=(-120, 120), secondary_range_deg=(-90, 90))


def needle(dx: float, dy: float, dz: float) -> Trajectory:
    """From (10, 20, 30) + 60 mm along (dx, dy, dz) to (10, 20, 30)."""
    d = np.array([dx, dy, dz], float)
    return Trajectory("n", np.array([10, 20, 30]) + 60 * d / np.linalg.norm(d), (10, 20, 30))


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_gantry_angles_undo_patient_angles(position: str) -> None:
    for a, b in [(0, 0), (30, 20), (-75, -40), (100, 5)]:
        there = patient_angles(a, b, position)
        np.testing.assert_allclose(gantry_angles(there[0], there[1], position), (a, b), atol=1e-12)


def test_prone_by_hand() -> None:
    # Prone, head first; the needle comes from behind and 30 deg from the patient's left: entry - target along
    # (sin 30, cos 30, 0) = (1/2, 0.866, 0). The detector is above the back on the left: patient primary 180 - 30 = 150
    # (d = (sin 150, -cos 150, 0) = (1/2, 0.866, 0)). The gantry sees 150 - 180 = -30; a console that believes in a
    # supine patient calls that RAO 30, although the detector is on the patient's left.
    room = Room(WIDE, "HFP")
    view = bulls_eye(needle(0.5, np.sqrt(0.75), 0), room)
    assert (view.primary_deg, view.secondary_deg) == pytest.approx((150, 0), abs=1e-9)
    assert "console shows RAO 30.0" in view.text
    assert "to the patient's left" in view.text
    # The tube is under the table: the source is in front of the patient (smaller y), which faces the table.
    assert view.view.source_mm[1] < 20 - 500
    # Supine, the same needle: the detector must not be behind the patient, so the opposite direction is taken: the
    # detector is in front on the right, RAO 30.
    view = bulls_eye(needle(0.5, np.sqrt(0.75), 0), Room(WIDE, "HFS"))
    assert (view.primary_deg, view.secondary_deg) == pytest.approx((-30, 0), abs=1e-9)
    over = CArmCard("over", primary_range_deg=(-180, 180), tube_over_table=True)
    assert bulls_eye(needle(0.5, np.sqrt(0.75), 0), Room(over, "HFS")).primary_deg == pytest.approx(150, abs=1e-9)


def test_feet_first_by_hand() -> None:
    # Feet first supine, needle from in front, 40 deg to the patient's left and 25 deg cranial: patient LAO 40 CRA 25,
    # the gantry's RAO 40 CAU 25.
    a, b = np.radians([40, 25])
    view = bulls_eye(needle(np.sin(a) * np.cos(b), -np.cos(a) * np.cos(b), np.sin(b)), Room(WIDE, "FFS"))
    assert (view.primary_deg, view.secondary_deg) == pytest.approx((40, 25), abs=1e-9)
    assert "console shows RAO 40.0 CAU 25.0" in view.text


def test_out_of_reach_is_the_nearest_edge() -> None:
    # CRA 60 wanted, 45 reached: 15 deg off, by hand. Then LAO 70 CRA 60 against limits 45 and 45, by brute force.
    room = Room(CArmCard("c", primary_range_deg=(-45, 45), secondary_range_deg=(-45, 45)), "HFS")
    view = bulls_eye(needle(0, -np.cos(np.radians(60)), np.sin(np.radians(60))), room)
    assert view.off_deg == pytest.approx(15, abs=1e-9)
    assert not view.reachable
    assert "15.0 deg off" in view.reasons[1]
    rng = np.random.default_rng(5)
    a, b = np.meshgrid(np.radians(np.linspace(-45, 45, 361)), np.radians(np.linspace(-45, 45, 361)))
    grid = np.stack([np.sin(a) * np.cos(b), -np.cos(a) * np.cos(b), np.sin(b)], -1)
    for _ in range(20):
        d = rng.normal(size=3)
        d /= np.linalg.norm(d)
        brute = np.degrees(np.arccos(np.clip((grid @ d).max(), -1, 1)))
        assert nearest_angles(d, room)[2] == pytest.approx(brute, abs=0.2)
        assert nearest_angles(d, room)[2] <= brute + 1e-9


def test_fifty_needles_on_the_pelvis(data_dir: Path) -> None:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(data_dir / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz"))
    bone = sitk.BinaryThreshold(sitk.Shrink(image, (3, 3, 3)), 200, 32767)
    hu = sitk.GetArrayViewFromImage(image)
    rng, card = np.random.default_rng(11), carm("innova_3100")
    places = np.argwhere(hu[20:130:4, 80:250:4, 80:370:4] > 200) * 4 + (20, 80, 80)
    reached = 0
    for n, (k, j, i) in enumerate(places[rng.choice(len(places), 50, replace=False)]):
        target = np.array(image.TransformIndexToPhysicalPoint((int(i), int(j), int(k))))
        away = rng.normal(size=3)
        entry = target + rng.uniform(40, 150) * away / np.linalg.norm(away)
        path = Trajectory("n", entry, target)
        angle = rng.uniform(-0.2, 0.2, 3)
        from FluoroGuideLib.geometry.rigid import motion

        room = Room(card, PATIENT_POSITIONS[n % 4], motion(np.r_[angle, rng.uniform(-80, 80, 3)], target))
        views = [bulls_eye(path, room), *progress_views(path, room, bone)]
        for view in views:  # limits respected, the tube under the table
            a, b = gantry_angles(view.primary_deg, view.secondary_deg, room.patient_position)
            assert -117 - 1e-9 <= a <= 105 + 1e-9
            assert -45 - 1e-9 <= b <= 50 + 1e-9
            assert abs(a) <= 90 + 1e-6
        pixels = views[0].view.project(np.array([entry, target]))
        if views[0].reachable:
            reached += 1
            assert np.linalg.norm(pixels[0] - pixels[1]) < 0.5
            assert np.linalg.norm(pixels[1] - (card.columns - 1) / 2) < 1e-6
        else:
            beam = views[0].view.beam
            assert min(np.degrees(np.arccos(abs(beam @ path.axis))), 90) == pytest.approx(views[0].off_deg, abs=1e-6)
        for view in views[1:]:
            if view.reachable:
                assert abs(np.degrees(np.arccos(np.clip(view.view.beam @ path.axis, -1, 1))) - 90) < 0.1
        assert any(v.reachable for v in views[1:])
    assert reached >= 20


def test_progress_views_avoid_bone_and_table_limits_shift_the_dot() -> None:
    import SimpleITK as sitk

    # A bone plate beside the needle towards the left: the needle runs in y, the plate covers beams along x.
    mask = np.zeros((80, 80, 80), np.uint8)
    mask[:, :, 60:70] = 1
    bone = sitk.GetImageFromArray(mask)
    path = Trajectory("n", (40, 70, 40), (40, 10, 40))
    view = progress_views(path, Room(WIDE, "HFP"), bone, count=1)[0]
    assert abs(view.view.beam[0]) < 0.72  # plate 80 x 80 at 25 mm: it is missed from 58 deg off the x axis on
    assert view.bone_mm < 5
    side = CArmCard("narrow", primary_range_deg=(-95, 95), secondary_range_deg=(0, 0))
    assert progress_views(path, Room(side, "HFP"), bone, count=1)[0].bone_mm == pytest.approx(10, abs=0.01)  # only laterals are left
    fixed = CArmCard("fixed", table_range_mm=(10, 10, 10), primary_range_deg=(-120, 120))
    view = bulls_eye(path, Room(fixed, "HFP"))
    pixels = view.view.project(np.array([path.entry_lps_mm, path.target_lps_mm]))
    assert np.linalg.norm(pixels[0] - pixels[1]) < 1e-6
    assert np.linalg.norm(pixels[0] - 255.5) > 10
    assert "off the image centre" in view.reasons[-1]


def test_best_pair_is_a_right_angle() -> None:
    # Two views at right angles see each direction: with magnification m = SID / SOD and spacing s, a pixel is s / m at
    # the isocentre. Directions: common axis seen twice (variance 1/2), the two others once each: sqrt(2.5) pixels.
    pair = best_pair(np.zeros(3), Room(CArmCard("c", secondary_range_deg=(0, 0)), "HFS"))
    assert pair.angle_deg == pytest.approx(90, abs=1e-6)
    assert pair.error_mm == pytest.approx(np.sqrt(2.5) * 0.58 * 600 / 1000, rel=1e-6)
    tight = best_pair(np.zeros(3), Room(CArmCard("c", primary_range_deg=(-20, 20), secondary_range_deg=(0, 0)), "HFS"))
    assert tight.angle_deg == pytest.approx(40, abs=1e-6)
    assert tight.error_mm > pair.error_mm


def test_cards(tmp_path: Path) -> None:
    for path in CARM_FOLDER.glob("*.json"):
        card = carm(path.stem)
        assert card.status == ("cited" if card.source else "unverified")
    with pytest.raises(FluoroGuideError, match=r"The C-arm is unknown \(x\)\. Known: generic_mobile"):
        carm("x")
    data = json.loads((CARM_FOLDER / "generic_mobile.json").read_text(encoding="utf-8"))
    for change, sentence in [({"sid_mm": -1}, "SID"), ({"limit": 3}, "unknown key \\(limit\\)"), ({"console": "x"}, "console"),
                             ({"primary_range_deg": [90, -90]}, "primary_range_deg"), ({"rows": "a"}, "wrong kind")]:
        (tmp_path / "mine.json").write_text(json.dumps({**data, **change}), encoding="utf-8")
        with pytest.raises(FluoroGuideError, match=sentence):
            carm("mine", tmp_path)
    with pytest.raises(FluoroGuideError, match="patient position is not known"):
        Room(WIDE, "")
