"""Motion watch and contrast check on pictures whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.align2d import Template
from FluoroGuideLib.guidance.motion import MotionOptions, MotionWatch, view_change
from FluoroGuideLib.guidance.subtraction import ContrastAnswer, OpacityRun, mask_outlines, spread, subtract

SIZE = 300
VIEW = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=700, rows=SIZE, columns=SIZE, pixel_spacing_mm=(0.6, 0.6))
MM = 0.6 * 0.7  # object-plane size of a pixel at the isocentre


def bone() -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    thick = np.sqrt(np.maximum(1 - (columns / 45) ** 2 - (rows / 30) ** 2, 0))
    thick -= 0.8 * np.sqrt(np.maximum(1 - (columns / 40) ** 2 - (rows / 25) ** 2, 0))
    return gaussian_filter(thick + 0.5 * ((np.abs(rows - 38) < 6) & (np.abs(columns) < 30)), 1.0)


def soft(rng: np.random.Generator) -> np.ndarray:
    return gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 8) * 4


def frames(count: int, jump_at: int | None, jump_mm: tuple, seed: int = 0, contrast_from: int | None = None):
    rng = np.random.default_rng(seed)
    tissue = soft(rng)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for k in range(count):
        breath = 1.5 * np.sin(2 * np.pi * k / 30) / MM
        b = bone() if jump_at is None or k < jump_at else shift(bone(), np.array(jump_mm[::-1]) / MM, order=1)
        line = b + shift(tissue, (breath, 0), order=1, mode="nearest")
        if contrast_from is not None and k >= contrast_from:
            line = line + 0.6 * (np.hypot(columns - 160, rows - 140) < 4 + k)
        yield (line + gaussian_filter(rng.normal(0, 0.08, line.shape), 0.5)).astype(np.float32)


def watch(**options: float) -> MotionWatch:
    return MotionWatch(VIEW, np.eye(4), np.zeros(3), bone(), MotionOptions(**options))


def test_no_alarm_while_soft_tissue_breathes() -> None:
    w = watch()
    readings = [w.check(f, k / 7.5) for k, f in enumerate(frames(45, None, (0, 0)))]
    assert {r.state for r in readings} == {"ok"}
    assert max(r.distance_mm for r in readings) < 0.8


@pytest.mark.parametrize("jump", [(2.0, 0.0), (0.0, -2.0), (-1.4, 1.4)])
@pytest.mark.parametrize("contrast_from", [None, 4])
def test_two_millimetres_are_seen_within_three_frames(jump: tuple, contrast_from: int | None) -> None:
    w = watch()
    states, seen = [], None
    for k, f in enumerate(frames(15, 12, jump, 1, contrast_from)):
        reading = w.check(f, k / 7.5)
        states.append(reading.state)
        seen = reading.shift_mm
    assert set(states[:12]) == {"ok"}
    assert "moved" in states[12:15]
    assert np.linalg.norm(np.array(seen) - jump) < 0.7


def test_another_picture_is_lost() -> None:
    w = watch()
    for f in frames(4, None, (0, 0)):
        w.check(f)
    rng = np.random.default_rng(5)
    states = [w.check(soft(rng)).state for _ in range(3)]
    assert states[-1] in ("lost", "moved")
    assert "ok" != states[-1]


def test_a_tracked_bone_is_watched_where_it_went() -> None:
    w = watch()
    for f in frames(3, None, (0, 0)):
        w.check(f)
    pose = np.eye(4)
    pose[:3, 3] = [6.0, 0.0, -4.0]  # AP: 6 mm to larger columns, 4 mm to larger rows
    assert w.follow(pose)
    there, states, seen = (6.0, 4.0), [], None
    for k in range(14):
        jump = (6.0, 6.0) if k >= 11 else there
        reading = w.check(next(frames(1, 0, jump, 30 + k)))
        states.append(reading.state)
        seen = reading.shift_mm
    assert set(states[:11]) == {"ok"}
    assert "moved" in states[11:]
    np.testing.assert_allclose(seen, (0.0, 2.0), atol=0.6)
    far = np.eye(4)
    far[0, 3] = 40.0
    assert not w.follow(far)


def test_a_bone_too_faint_for_its_surroundings_is_said_not_to_be_watched() -> None:
    faint = MotionWatch(VIEW, np.eye(4), np.zeros(3), bone())
    rng = np.random.default_rng(8)
    tissue = soft(rng)
    for k in range(20):
        moved = shift(tissue, (4.0 / MM * np.sin(k / 2), 0), order=1, mode="nearest")
        reading = faint.check((0.01 * bone() + moved + rng.normal(0, 0.08, tissue.shape)).astype(np.float32), k / 7.5)
    assert not reading.watched
    good = watch()
    assert all(good.check(f, k / 7.5).watched for k, f in enumerate(frames(20, None, (0, 0))))


def test_a_target_that_breathes_is_tolerated_by_its_amplitude() -> None:
    w, strict = watch(breathing_mm=2.0), watch()
    states, strictly = [], []
    for k in range(60):
        f = shift(bone(), (1.8 * np.sin(2 * np.pi * k / 30) / MM, 0), order=1).astype(np.float32)
        states.append(w.check(f, k / 7.5).state)
        strictly.append(strict.check(f, k / 7.5).state)
    assert set(states) == {"ok"}
    assert "moved" in strictly


def test_a_target_outside_the_picture_cannot_be_watched() -> None:
    with pytest.raises(FluoroGuideError, match="not in the picture"):
        MotionWatch(VIEW, np.eye(4), np.array([300.0, 0, 0]), bone())


def test_view_change_by_tags() -> None:
    turned = CArmView.from_angles(10, 0, sid_mm=1000, sod_mm=700, rows=SIZE, columns=SIZE, pixel_spacing_mm=(0.6, 0.6))
    assert view_change(VIEW, VIEW, True) == "same"
    assert view_change(VIEW, turned, True) == "follows"
    assert view_change(VIEW, turned, False) == "moved"


def test_template_finds_a_shift_and_a_rotation() -> None:
    from scipy.ndimage import rotate

    rng = np.random.default_rng(2)
    image = soft(rng) + bone()
    other = shift(rotate(image, -2.0, reshape=False, order=1, mode="nearest"), (-3.5, 5.25), order=1, mode="nearest")
    found = Template(image).find(other)
    # scipy's rotate by -2 degrees turns (column, row) by +2 degrees about the middle; then columns +5.25, rows -3.5
    np.testing.assert_allclose(found.shift_px, (5.25, -3.5), atol=0.3)
    assert np.degrees(found.rotation_rad) == pytest.approx(2.0, abs=0.15)


def test_subtraction_takes_motion_out_and_shows_the_agent() -> None:
    rng = np.random.default_rng(3)
    mask_frame = soft(rng) + bone()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    agent = 0.8 * (np.hypot(columns - 200, rows - 120) < 15)
    run = OpacityRun(mask_frame)
    for k in (0, 1, 2):
        frame = shift(mask_frame + agent * (k > 0), (2.0, -3.0), order=1, mode="nearest") + rng.normal(0, 0.03, mask_frame.shape)
        difference = run.add(frame)
    assert np.hypot(*(run.motion[-1].shift_px - (-3.0, 2.0))) < 0.3
    seen = spread(run.image, run.known, MM)
    # a disc of 15 px: 706.9 px, 124.7 mm^2
    assert seen.area_mm2 == pytest.approx(np.pi * 15**2 * MM**2, rel=0.15)
    middle = np.mean(max(seen.outlines, key=len), axis=0)
    np.testing.assert_allclose(middle, (197.0, 122.0), atol=1.5)
    assert abs(np.median(difference)) < 0.02


def test_no_spread_in_noise_and_size_mismatch() -> None:
    noise = np.random.default_rng(4).normal(0, 1, (128, 128)).astype(np.float32)
    assert spread(noise, np.ones((128, 128), bool), 0.3).area_mm2 == 0
    with pytest.raises(FluoroGuideError, match="size"):
        subtract(np.zeros((64, 64)), np.zeros((32, 32)))


def test_outline_of_a_block_by_hand() -> None:
    mask = np.zeros((6, 7), bool)
    mask[2:4, 3:6] = True
    (line,) = mask_outlines(mask)
    assert {tuple(p) for p in line} >= {(2.5, 1.5), (5.5, 1.5), (5.5, 3.5), (2.5, 3.5)}
    assert len(line) == 11  # ten unit borders, closed


def test_contrast_answer_round_trips_and_refuses_contradictions() -> None:
    answer = ContrastAnswer("unsure", ("epidural",), "contrast_A.png", 12, 0, 0.8, "slow")
    assert ContrastAnswer.from_dict(answer.to_dict()).to_dict() == answer.to_dict()
    with pytest.raises(FluoroGuideError, match="unknown"):
        ContrastAnswer("maybe")
    with pytest.raises(FluoroGuideError, match="both"):
        ContrastAnswer("no", ("intravascular",))
