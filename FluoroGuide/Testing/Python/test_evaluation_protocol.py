"""Error measures against numbers derived by hand, and starts at the distance asked for."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.protocol import mrpd, mtre, mtre_projected, perturbed_start
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import difference, motion

VIEW = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=500, rows=64, columns=64, pixel_spacing_mm=(2, 2))


def shifted(x: float, y: float, z: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def test_shift_along_and_across_the_beam():
    """AP beam along y: 3-4-12 is 13 mm in space, sqrt(9 + 144) across; at the isocentre the ray distance is that too."""
    points = np.zeros((1, 3))
    pose = shifted(3, 4, 12)
    assert mtre(pose, np.eye(4), points) == pytest.approx(13.0)
    assert mtre_projected(pose, np.eye(4), points, VIEW) == pytest.approx(np.sqrt(153.0))
    assert mrpd(pose, np.eye(4), points, VIEW) == pytest.approx(np.sqrt(153.0))
    assert mrpd(shifted(0, 25, 0), np.eye(4), points, VIEW) == pytest.approx(0.0, abs=1e-9)


def test_depth_shows_off_the_central_ray():
    """A point 50 mm beside a source 500 mm away, moved 10 mm along the beam: 10 sin(atan(0.1)) = 0.99504 mm off its ray."""
    points = np.array([[50.0, 0.0, 0.0]])
    assert mrpd(shifted(0, 10, 0), np.eye(4), points, [VIEW]) == pytest.approx(0.995037, abs=1e-5)
    lateral = CArmView.from_angles(90, 0, sid_mm=1000, sod_mm=500, rows=64, columns=64, pixel_spacing_mm=(2, 2))
    # seen from the side (point on the central ray) the same shift is 10 mm: the mean of both views
    assert mrpd(shifted(0, 10, 0), np.eye(4), points, [VIEW, lateral]) == pytest.approx((0.995037 + 10) / 2, abs=1e-5)


def test_rotation_by_hand():
    """90 degrees about z: points 10 mm from the axis move 10 sqrt(2), those on it do not."""
    turn = motion(np.array([0, 0, np.pi / 2, 0, 0, 0]), np.zeros(3))
    assert mtre(turn, np.eye(4), np.array([[10.0, 0, 0], [0, 0, 7]])) == pytest.approx(5 * np.sqrt(2))


def test_start_meets_its_distance():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 20, (30, 3))
    truth = motion(rng.normal(0, 0.3, 6), np.zeros(3))
    directions = []
    for target in (0.5, 5.0, 17.0, 40.0):
        start = perturbed_start(truth, np.zeros(3), rng, mtre_mm=target, points_lps_mm=points)
        assert mtre(start, truth, points) == pytest.approx(target, abs=1e-6)
        assert np.degrees(np.linalg.norm(difference(truth, start, np.zeros(3))[:3])) <= 20
        directions.append(difference(truth, start, np.zeros(3))[3:])
    assert np.linalg.matrix_rank(np.array(directions)) == 3


def test_start_with_a_given_rotation():
    rng = np.random.default_rng(1)
    center = np.array([10.0, -5.0, 3.0])
    xi = difference(np.eye(4), perturbed_start(np.eye(4), center, rng, mtre_mm=15.0, rotation_deg=8.0), center)
    assert np.degrees(np.linalg.norm(xi[:3])) == pytest.approx(8.0)
    assert np.linalg.norm(xi[3:]) == pytest.approx(15.0)
    with pytest.raises(FluoroGuideError, match="rotation alone"):
        perturbed_start(np.eye(4), center, rng, mtre_mm=0.1, rotation_deg=20.0, points_lps_mm=np.eye(3) * 100)
