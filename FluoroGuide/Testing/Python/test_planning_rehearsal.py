"""Virtual fluoroscopy against the slow reference, and a plan's lock, history and rehearsed views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.planning.history import changed, history, is_locked, lock, rehearsed_views, shoot, unlock
from FluoroGuideLib.planning.plan import Plan, Target, read_plan, write_plan
from FluoroGuideLib.projection.drr import VirtualFluoroscopy, displayed, drawn
from FluoroGuideLib.projection.reference import line_integrals


def a_volume(spacing: float = 1.0) -> sitk.Image:
    """Water ball of 30 mm radius with a dense rod, smooth edges."""
    n = round(80 / spacing)
    k, j, i = (np.mgrid[:n, :n, :n] - (n - 1) / 2) * spacing
    radius = np.sqrt(i**2 + j**2 + k**2)
    values = 0.02 * np.clip(30.5 - radius, 0, 1) + 0.03 * np.clip(6.5 - np.hypot(i - 10, j), 0, 1) * (np.abs(k) < 20)
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin((-(n - 1) / 2 * spacing,) * 3)
    return image


def a_view(size: int = 48) -> CArmView:
    return CArmView.from_angles(25, 10, sid_mm=1000, sod_mm=700, rows=size, columns=size + 5, pixel_spacing_mm=(2.5, 2.5))


def test_blocks_in_threads_equal_the_reference() -> None:
    image = a_volume()
    reference = line_integrals(image, a_view(), np.eye(4), 0.25)
    single, many = VirtualFluoroscopy(image, threads=1), VirtualFluoroscopy(image, threads=3)
    still = single.image(a_view())
    np.testing.assert_array_equal(still, many.image(a_view()))
    assert np.abs(still - reference).max() < 0.02 * reference.max()
    # While dragging: voxels of 2 mm; 3 % of the full range on average, edges more.
    drag = many.image(a_view(), quality="drag")
    assert np.abs(drag - reference).mean() < 0.03 * reference.max()
    assert np.corrcoef(drag.ravel(), reference.ravel())[0, 1] > 0.995
    with pytest.raises(FluoroGuideError, match="Unknown quality"):
        many.image(a_view(), quality="best")
    many.close()


def test_picture_and_plan_on_it() -> None:
    view = a_view(64)
    picture = displayed(VirtualFluoroscopy(a_volume(), threads=1).image(view))
    rod = np.round(view.project(np.array([[10.0, 0, 0]]))[0]).astype(int)
    assert picture[rod[1], rod[0]] < 30  # bone dark
    assert picture[0, 0] == 255  # air bright
    beside = np.round(view.project(np.array([[-12.0, 0, 0]]))[0]).astype(int)
    assert picture[beside[1], beside[0]] > picture[rod[1], rod[0]] + 40
    assert displayed(np.zeros((3, 3), np.float32)).tolist() == [[255] * 3] * 3
    target = np.array([[10.0, 0, 15]])
    rgb = drawn(picture, view, {"target": (target, (255, 0, 0)), "needle": (np.array([[10.0, 0, -15], [10, 0, -18]]), (0, 255, 0))})
    column, row = np.round(view.project(target)[0]).astype(int)
    assert rgb[row, column].tolist() == [255, 0, 0]
    assert rgb[row - 3, column].tolist() == [255, 0, 0]  # a cross
    column, row = np.round(view.project(np.array([[10.0, 0, -18]]))[0]).astype(int)
    assert rgb[row, column].tolist() == [0, 255, 0]
    behind = drawn(picture, view, {"n": (np.array([view.source_mm - view.beam, view.source_mm]), (1, 2, 3))})
    np.testing.assert_array_equal(behind, np.repeat(picture[..., None], 3, axis=2))


def test_lock_history_and_rehearsed_views(tmp_path: Path) -> None:
    plan = changed(Plan("hip", (Target("t", (1, 2, 3)),)), "Level set.", level="L4")
    assert plan.level == "L4"
    locked = lock(plan)
    assert is_locked(locked)
    assert not is_locked(plan)
    with pytest.raises(FluoroGuideError, match="The plan is locked because its procedure has started"):
        changed(locked, "Target moved.", targets=(Target("t", (9, 9, 9)),))
    with pytest.raises(FluoroGuideError, match="only with a reason"):
        unlock(locked, " ")
    shot = shoot(locked, "lateral", CArmView.from_angles(90, 0, sid_mm=1000, sod_mm=600, rows=8, columns=8, pixel_spacing_mm=(1, 1)))
    opened = unlock(shot, "patient turned")
    write_plan(tmp_path / "plan.json", opened)
    again = read_plan(tmp_path / "plan.json")
    assert [e.what for e in history(again)] == [
        "Level set.", "Locked: the procedure starts.", "Rehearsed view 'lateral', LAO 90.0.", "Unlocked: patient turned"]
    assert all(e.utc.endswith("Z") for e in history(again))
    view = rehearsed_views(again)[0]
    assert view.name == "lateral"
    assert view.view.angles_deg == pytest.approx((90, 0))
    assert not is_locked(again)
