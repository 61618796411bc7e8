"""Needle detection on analytic pictures: a cylinder's profile with known ends over a slope, noise and a bent wire."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.guidance.needle import find_needle, refine_click, search_needle
from FluoroGuideLib.guidance.needle_candidates import field_mask
from FluoroGuideLib.guidance.needle_model import width_of_gauge

MM = 0.2
TIP = np.array([260.3, 301.7])
ANGLE = np.radians(-63.0)  # the shaft runs from the upper border down to the tip
DIRECTION = -np.array([np.cos(ANGLE), np.sin(ANGLE)])


def picture(seed: int = 0, needle: bool = True, contrast: float = 0.5, noise: float = 0.08) -> np.ndarray:
    """A 22 G needle (3.6 px): chord of a cylinder, 5 px of bevel, blurred; a curved wire; slopes; noise."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:512, :512].astype(float)
    image = 3.0 + 0.002 * columns - 0.001 * rows + 0.4 * np.exp(-((columns - 300) ** 2 + (rows - 200) ** 2) / 9000)
    radius = np.hypot(columns - 700, rows - 250)
    image += 0.3 * np.exp(-((radius - 420) ** 2) / 6)  # an arc
    if needle:
        x, y = columns - TIP[0], rows - TIP[1]
        along, across = x * DIRECTION[0] + y * DIRECTION[1], -x * DIRECTION[1] + y * DIRECTION[0]
        chord = np.sqrt(np.maximum(1 - (across / 1.8) ** 2, 0)) * np.clip(-along / 5.0, 0, 1)
        image += contrast * gaussian_filter(chord, 0.8)
    return (image + gaussian_filter(rng.normal(0, noise * 1.6, image.shape), 0.45)).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tip_and_direction(seed: int) -> None:
    found = find_needle(picture(seed), None, MM)
    assert found.found, found.reason
    assert np.linalg.norm(found.tip_px - TIP) < 4.0  # 0.8 mm
    assert abs(found.direction @ np.array([-DIRECTION[1], DIRECTION[0]])) < np.sin(np.radians(0.3))
    assert found.direction @ DIRECTION > 0.99
    assert not found.hub_seen
    assert 0.5 < found.confidence <= 1


def test_the_plan_says_which_end_and_where() -> None:
    plan = np.array([TIP - 250 * DIRECTION + (9, 3), TIP + 60 * DIRECTION + (6, -4)])
    found = find_needle(picture(3), None, MM, planned_px=plan)
    assert found.found
    assert np.linalg.norm(found.tip_px - TIP) < 4.0
    elsewhere = np.array([[40.0, 480.0], [160.0, 470.0]])
    assert not find_needle(picture(3), None, MM, planned_px=elsewhere).found


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_nothing_is_claimed_without_a_needle(seed: int) -> None:
    found = find_needle(picture(seed, needle=False), None, MM)
    assert not found.found
    assert found.tip_px is None
    assert found.reason


def test_a_needle_free_frame_is_subtracted() -> None:
    found = find_needle(picture(7), None, MM, free=picture(8, needle=False))
    assert found.found
    assert np.linalg.norm(found.tip_px - TIP) < 4.0


def test_it_is_followed_from_frame_to_frame() -> None:
    first = find_needle(picture(9), None, MM)
    again = find_needle(picture(10), None, MM, near=first, candidates=0)
    assert again.found
    assert np.linalg.norm(again.tip_px - TIP) < 4.0


def test_a_click_refines_or_stands() -> None:
    refined = refine_click(picture(11), TIP + (5, -4), None, MM)
    assert np.linalg.norm(refined.tip_px - TIP) < 4.0
    kept = refine_click(picture(12, needle=False), np.array([100.0, 420.0]), None, MM, shaft_px=np.array([60.0, 470.0]))
    assert kept.found
    np.testing.assert_allclose(kept.tip_px, [100.0, 420.0], atol=15)


def free_needle(width_px: float, shaft_px: float, hub: bool) -> np.ndarray:
    """A solid needle with both ends in a 512 x 512 picture, tip at :data:`TIP`; a plastic hub 30 px wide and 120 long behind it."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(21)
    rows, columns = np.mgrid[:512, :512].astype(float)
    x, y = columns - TIP[0], rows - TIP[1]
    back, across = -(x * DIRECTION[0] + y * DIRECTION[1]), -x * DIRECTION[1] + y * DIRECTION[0]
    chord = np.sqrt(np.maximum(1 - (2 * across / width_px) ** 2, 0)) * np.clip(back / 5.0, 0, 1) * (back < shaft_px)
    image = 3.0 + 0.001 * columns + 0.5 * gaussian_filter(chord, 0.8)
    if hub:
        image += 0.06 * ((np.abs(across) < 15) & (back > shaft_px - 15) & (back < shaft_px + 105))
    return (image + gaussian_filter(rng.normal(0, 0.1, image.shape), 0.45)).astype(np.float32)


def test_the_hub_tells_the_tip_and_without_it_nothing_does() -> None:
    # both ends lie equally far from the picture's middle: only the hub can tell
    found = find_needle(free_needle(3.6, 110.0, True), None, MM)
    assert found.found, found.reason
    assert np.linalg.norm(found.tip_px - TIP) < 4.0
    assert found.hub_seen
    doubtful = find_needle(free_needle(3.6, 110.0, False), None, MM)
    assert not doubtful.found
    assert "tip" in doubtful.reason


def test_a_vertebroplasty_needle_is_found_by_its_gauge() -> None:
    # 11 G: 3.0 mm, 15 px wide; the plan points to the tip
    assert width_of_gauge(11) == pytest.approx(3.0)
    plan = np.array([TIP - 150 * DIRECTION + (9, 3), TIP + 60 * DIRECTION + (6, -4)])
    found = find_needle(free_needle(15.0, 220.0, False), None, MM, planned_px=plan, width_mm=width_of_gauge(11))
    assert found.found, found.reason
    assert np.linalg.norm(found.tip_px - TIP) < 6.0  # 1.2 mm
    assert found.width_px == pytest.approx(12.0, abs=3.5)  # a cylinder's profile is full at half height, not at its foot
    assert width_of_gauge(None) is None
    assert width_of_gauge(40) is None


def test_masked_metal_is_given_back() -> None:
    image = free_needle(3.6, 110.0, True)
    mask = np.ones(image.shape, bool)
    mask[:, :60] = False  # a shutter stays out
    mask[gaussian_mask(image)] = False
    again = field_mask(mask)
    assert again[int(TIP[1]), int(TIP[0])]
    assert again[:, 70:].all()
    assert not again[:, :50].any()
    assert find_needle(image, mask, MM).found


def gaussian_mask(image: np.ndarray) -> np.ndarray:
    """The needle's own pixels."""
    from scipy.ndimage import gaussian_filter

    return image - gaussian_filter(image, 8) > 0.25


def test_a_search_in_steps_ends_with_the_same_finding() -> None:
    steps = list(search_needle(picture(0), None, MM))
    assert all(s is None for s in steps[:-1])
    assert 2 <= len(steps) <= 10
    np.testing.assert_allclose(steps[-1].tip_px, find_needle(picture(0), None, MM).tip_px)
    # a line that is surely a needle ends the search: the other seven are not looked at (each takes two steps or more)
    assert steps[-1].confidence > 0.97
    assert len(list(search_needle(picture(0, needle=False), None, MM))) > len(steps)


def test_bad_input_is_refused() -> None:
    with pytest.raises(FluoroGuideError, match="too small"):
        find_needle(np.zeros((8, 8)))
    with pytest.raises(FluoroGuideError, match="pixel size"):
        find_needle(np.zeros((128, 128)), None, 0.0)
    with pytest.raises(FluoroGuideError, match="size"):
        find_needle(np.zeros((128, 128)), np.ones((64, 64), bool))
