"""C-arm geometry refined with the pose: what the parameters mean, their derivatives, and two views with wrong geometry."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.phantom import GaussianBlobs
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.projection.joseph import Projector
from FluoroGuideLib.registration.geometry_error import PARAMETERS, CArmTolerance, carm_jacobian, corrected, pixel_rays

CARM = {"sid_mm": 1000.0, "sod_mm": 700.0, "rows": 48, "columns": 64, "pixel_spacing_mm": (5.0, 4.0)}
VIEW = CArmView.from_angles(25.0, -12.0, **CARM)


def only(**values: float) -> np.ndarray:
    theta = np.zeros(len(PARAMETERS))
    for name, value in values.items():
        theta[PARAMETERS.index(name)] = value
    return theta


def test_corrections_mean_what_they_say() -> None:
    """Against views made from the changed numbers themselves."""
    def same(a: CArmView, b: CArmView) -> None:
        points = np.random.default_rng(0).uniform(-80, 80, (20, 3))
        np.testing.assert_allclose(a.project(points), b.project(points), atol=1e-9)

    same(corrected(VIEW, only(log_sid=np.log(1.01))), CArmView.from_angles(25.0, -12.0, **{**CARM, "sid_mm": 1010.0}))
    moved = CArmView.from_angles(25.0, -12.0, **CARM, principal_point_px=(31.5 + 3, 23.5 - 2))
    same(corrected(VIEW, only(principal_column=12.0, principal_row=-10.0)), moved)  # 3 columns of 4 mm, -2 rows of 5 mm
    # the secondary angle turns about the columns' axis: more cranial takes the beam to +z, which for d = (.., -cos b, sin b) is -u x
    up = CArmView.from_angles(25.0, -11.0, **CARM)
    turned = corrected(VIEW, only(turn_columns=np.radians(1.0)))
    other = corrected(VIEW, only(turn_columns=np.radians(-1.0)))
    same(turned if abs(turned.angles_deg[1] + 11) < 1e-6 else other, up)
    # with no secondary angle the primary one turns about the patient's long axis, which is the rows' axis there
    flat = CArmView.from_angles(25.0, 0.0, **CARM)
    same(corrected(flat, only(turn_rows=-np.radians(2.0))), CArmView.from_angles(27.0, 0.0, **CARM))
    shifted = corrected(VIEW, only(shift_columns=5.0, shift_beam=-7.0))
    u, d = VIEW.column_step_mm / 4.0, VIEW.beam
    np.testing.assert_allclose(shifted.source_mm, VIEW.source_mm + 5 * u - 7 * d, atol=1e-9)
    rolled = corrected(VIEW, only(roll=0.1))
    np.testing.assert_allclose(rolled.beam, VIEW.beam, atol=1e-12)
    assert np.degrees(np.arccos(rolled.column_step_mm @ VIEW.column_step_mm / 16)) == pytest.approx(np.degrees(0.1))


def differences(image_of: object, theta: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Central differences by every parameter, (9, rows, columns)."""
    result = []
    for n, step in enumerate(steps):
        change = np.zeros(len(steps))
        change[n] = step
        result.append((image_of(theta + change) - image_of(theta - change)) / (2 * step))
    return np.array(result)


def test_derivatives_agree_with_differences_of_closed_forms() -> None:
    """From the pose's differences to the C-arm's, both of line integrals in closed form; and from the projector's own derivative."""
    blobs = GaussianBlobs.random(3, 6, reach_mm=60.0, sigma_mm=(18.0, 26.0))
    pose, center = rigid.motion([0.05, -0.1, 0.08, 6.0, -4.0, 5.0], np.zeros(3)), np.array([20.0, -10.0, 15.0])
    theta = np.array([0.05, -0.04, 0.06, 8.0, -6.0, 10.0, 0.02, 4.0, -3.0])  # not at zero, where some terms would vanish
    view = corrected(VIEW, theta)
    steps = np.array([1e-2] * 3 + [0.5] * 3 + [1e-2] + [0.5] * 2)
    exact = differences(lambda xi: blobs.line_integrals(view, rigid.perturb(pose, xi, center)).astype(float), np.zeros(6), steps[:6])
    expected = differences(lambda t: blobs.line_integrals(corrected(VIEW, t), pose).astype(float), theta, steps)
    _, projected = Projector(blobs.voxelize(3.0, 3.5)).project_with_jacobian(view, pose, center)
    for jacobian, allowed in ((exact, 0.002), (projected, 0.06)):
        found = carm_jacobian(jacobian, pixel_rays(view), VIEW, theta, center)
        for name, one, two in zip(PARAMETERS, found, expected, strict=True):
            assert np.sqrt(((one - two) ** 2).mean() / (two**2).mean()) < allowed, name


def test_the_same_derivative_for_points() -> None:
    """As an apparent displacement across the ray: what an error of the C-arm does to a point's place in the picture."""
    theta, center, point = only(turn_rows=0.03, shift_rows=5.0, log_sid=0.01), np.array([5.0, 8.0, -6.0]), np.array([[30.0, -20.0, 25.0]])
    view = corrected(VIEW, theta)
    ray = point[0] - view.source_mm
    jacobian = carm_jacobian(rigid.point_jacobian(point, center)[0].T, ray * view.sid_mm / (ray @ view.beam), VIEW, theta, center)
    steps = np.array([1e-4] * 3 + [0.01] * 3 + [1e-4] + [0.01] * 2)
    pixels = differences(lambda t: corrected(VIEW, t).project(point), theta, steps)[:, 0]  # (9, 2)
    np.testing.assert_allclose(jacobian @ view.project_jacobian(point)[0].T, pixels, rtol=1e-4, atol=1e-4)


def test_bad_tolerances_are_one_sentence() -> None:
    for name in ("angle_deg", "sid_percent", "principal_point_px"):
        with pytest.raises(FluoroGuideError, match=name):
            CArmTolerance(**{name: -1.0})
