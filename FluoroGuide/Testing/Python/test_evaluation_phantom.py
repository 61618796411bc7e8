"""Phantoms: exact integrals against summation, voxels against exact integrals, anatomy against its own statements."""

from __future__ import annotations

import numpy as np
import pytest

from FluoroGuideLib.anatomy.attenuation import WATER_ATTENUATION_PER_MM
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.phantom import BONES, GaussianBlobs, LumbarPhantom
from FluoroGuideLib.evaluation.shapes import Grid, Shape, integrate, occupancy
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import motion

POSE = motion(np.array([0.06, -0.09, 0.12, 7.0, -12.0, 15.0]), np.zeros(3))


def view_of(primary: float, secondary: float, size: int = 96, width_mm: float = 380.0, **more: object) -> CArmView:
    return CArmView.from_angles(
        primary, secondary, sid_mm=1100, sod_mm=700, rows=size, columns=size, pixel_spacing_mm=(width_mm / size,) * 2, **more)


@pytest.fixture(scope="module")
def phantom() -> LumbarPhantom:
    return LumbarPhantom(3)


def test_one_ball_by_hand():
    """A ball of radius 20 at the isocentre: 40 mm in the centre; at 700 mm from the source a chord is 2 sqrt(r^2 - d^2)."""
    ball = Shape("ellipsoid", np.zeros(3), np.eye(3), np.full(3, 20.0), soft=1.0, bone=0.5)
    view = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=500, rows=3, columns=41, pixel_spacing_mm=(1.0, 1.0))
    paths = integrate([ball], view, np.eye(4))
    assert paths["soft"][1, 20] == pytest.approx(40.0, abs=1e-4)
    # 20 mm off on the detector: the line passes the ball's centre at 500 sin(atan(20 / 1000)) = 9.998 mm
    assert paths["soft"][1, 40] == pytest.approx(2 * np.sqrt(400 - 9.998001**2), abs=1e-3)
    assert paths["bone"] == pytest.approx(0.5 * paths["soft"])


def test_cylinder_along_the_central_ray():
    """Radius 5, length 30 along the beam: the central ray runs from end to end."""
    view = CArmView.from_angles(90, 0, sid_mm=1000, sod_mm=500, rows=1, columns=1, pixel_spacing_mm=(1.0, 1.0))
    axes = np.column_stack([[0, 1, 0], [0, 0, 1], [1, 0, 0]]).astype(float)
    rod = Shape("cylinder", np.array([3.0, 1.0, -1.0]), axes, np.array([5.0, 5.0, 15.0]), soft=1.0)
    assert integrate([rod], view, np.eye(4))["soft"][0, 0] == pytest.approx(30.0, abs=1e-4)
    beside = Shape("cylinder", np.array([3.0, 6.0, 0.0]), axes, np.array([5.0, 5.0, 15.0]), soft=1.0)
    assert integrate([beside], view, np.eye(4))["soft"][0, 0] == 0.0


@pytest.mark.parametrize("angles", [(0, 0), (90, 0), (-35, 25)])
def test_closed_form_agrees_with_summation(phantom, angles):
    view = view_of(*angles, size=48, principal_point_px=(30.0, 18.0))
    pixels = np.random.default_rng(0).integers(8, 40, (6, 2))
    pixels = np.vstack([pixels, np.rint(view.project(POSE[:3, :3] @ phantom.landmarks["L4 pedicle left"] + POSE[:3, 3]))]).astype(int)
    exact, summed = phantom.line_integrals(view, POSE), phantom.line_integrals_slowly(view, POSE, pixels, step_mm=0.1)
    for material in ("soft", "bone"):
        values = exact[material][pixels[:, 1], pixels[:, 0]]
        # each of the ~100 borders on a ray is placed to within half a step (0.05 mm): random, so about 0.05 sqrt(100) mm of water
        assert np.abs(values - summed[material]).max() < 0.5 * WATER_ATTENUATION_PER_MM
    assert exact["bone"][pixels[-1, 1], pixels[-1, 0]] > 0.05


def test_voxels_carry_the_same_mass_as_the_shapes(phantom):
    """Volume of each rod by formula (pi a b length, 4/3 pi a b c) against the occupancy summed over voxels."""
    grid = phantom.grid(2.0)
    for shape in [phantom.shapes[0], *phantom.shapes[20:60:7]]:
        a, b, c = shape.semi_axes_mm
        volume = (2 * np.pi if shape.kind == "cylinder" else 4 / 3 * np.pi) * a * b * c
        total = sum(float(part.sum()) for _, part in occupancy(shape, grid, 4)) * 8.0
        assert total == pytest.approx(volume, rel=0.03)


def test_fast_occupancy_equals_brute_force():
    grid = Grid.around(np.full(3, -20.0), np.full(3, 20.0), 2.0)
    turn = motion(np.array([0.5, -0.3, 0.8, 0, 0, 0]), np.zeros(3))[:3, :3]
    z, y, x = np.meshgrid(grid.axis(2), grid.axis(1), grid.axis(0), indexing="ij")
    offsets = np.array([-2.0, 0.0, 2.0]) / 3
    for kind in ("ellipsoid", "cylinder"):
        shape = Shape(kind, np.array([1.0, -2.0, 0.5]), turn, np.array([3.0, 9.0, 6.0]))
        brute = np.mean([shape.contains(np.stack([x + a, y + b, z + c], -1)) for a in offsets for b in offsets for c in offsets], axis=0)
        fast = np.zeros(brute.shape, np.float32)
        for where, part in occupancy(shape, grid, 3):
            fast[where] += part
        assert np.abs(fast - brute).max() < 1e-6
        assert fast.sum() > 50


def test_anatomy_is_what_it_says(phantom):
    labels, names = phantom.labels(1.5)
    assert list(names.values()) == list(BONES)
    at = lambda p: names.get(labels[labels.TransformPhysicalPointToIndex(p.tolist())], "")  # noqa: E731
    for level in ("L1", "L2", "L3", "L4", "L5"):
        assert at(phantom.landmarks[f"{level} pedicle left"]) == level
        assert at(phantom.landmarks[f"{level} body"]) == level
        assert phantom.landmarks[f"{level} pedicle left"][0] > 5 > -5 > phantom.landmarks[f"{level} pedicle right"][0]
        assert phantom.landmarks[f"{level} spinous process tip"][1] > phantom.landmarks[f"{level} body"][1] + 30
    heights = [phantom.landmarks[f"{level} body"][2] for level in ("T12", "L1", "L2", "L3", "L4", "L5", "S1")]
    assert np.all(np.diff(heights) < -25)
    skin = phantom.shapes[0]
    for name, point in phantom.landmarks.items():
        assert skin.contains(point), name


def test_facet_joint_is_a_gap_between_two_bones(phantom):
    """Along the joint's normal: lower vertebra in front and lateral, the gap of 2 mm free of bone, upper vertebra behind."""
    hu = phantom.voxelize(3.0)
    name = "L4/L5 facet joint right"
    outline, center = phantom.joint_outlines[name], phantom.landmarks[name]
    assert np.allclose(outline[0], outline[-1])
    assert np.allclose(outline[:-1].mean(0), center, atol=1e-6)
    normal = np.cross(outline[0] - center, outline[12] - center)
    normal /= np.linalg.norm(normal)
    normal *= -np.sign(normal[1])  # forwards
    assert normal[0] < -0.3  # the right joint's lower process lies lateral, to the patient's right
    bone = lambda p: sum(s.bone for s in phantom.shapes if s.contains(p))  # noqa: E731
    owner = lambda p: {s.bone_name for s in phantom.shapes if s.bone > 0 and s.contains(p)}  # noqa: E731
    assert bone(center) == 0
    assert bone(center + 0.9 * normal) == 0
    assert bone(center - 0.9 * normal) == 0
    assert owner(center + 2.5 * normal) == {"L5"}
    assert owner(center - 2.5 * normal) == {"L4"}
    assert hu.GetPixelIDTypeAsString() == "16-bit signed integer"
    assert hu[0, 0, 0] == -1000


def test_seed_decides_and_the_mirror_shows():
    view = view_of(0, 0, 64)
    first, again, other = (LumbarPhantom(s).line_integrals(view, np.eye(4))["bone"] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.corrcoef(first.ravel(), first[:, ::-1].ravel())[0, 1] < 0.97


def test_unknown_detail_is_told():
    with pytest.raises(FluoroGuideError, match="bones"):
        LumbarPhantom().labels(4.0, detail="organs")


def test_parts_have_sides(phantom):
    labels, names = phantom.labels(2.0, detail="parts")
    assert {"L4 pedicle left", "L4 pedicle right", "L5 superior articular process left", "L4 inferior articular process left"} <= set(names.values())
    assert labels.GetPixelIDTypeAsString() == "16-bit unsigned integer"


def test_blobs_agree_with_summation():
    blobs = GaussianBlobs.random(4)
    view = view_of(40, -20, 32, 300)
    exact = blobs.line_integrals(view, POSE)
    view_lps = view.in_volume(POSE)
    for column, row in ((16, 15), (12, 20), (19, 11)):
        end = view_lps.pixel_mm((column, row))[0]
        points = np.linspace(view_lps.source_mm, end, 6001)
        summed = np.trapezoid(blobs.density(points), dx=np.linalg.norm(end - view_lps.source_mm) / 6000)
        assert exact[row, column] == pytest.approx(summed, rel=1e-6, abs=1e-9)


def test_blob_voxels_hold_the_closed_form_mass():
    """Sum of the voxels times their volume = sum of amplitude (2 pi)^1.5 sqrt(det covariance)."""
    import SimpleITK as sitk

    blobs = GaussianBlobs.random(2, count=3)
    mass = float((blobs.amplitudes_per_mm * (2 * np.pi) ** 1.5 * np.sqrt(np.linalg.det(blobs.covariances_mm2))).sum())
    assert float(sitk.GetArrayViewFromImage(blobs.voxelize(3.0)).sum(dtype=float)) * 27 == pytest.approx(mass, rel=1e-4)
