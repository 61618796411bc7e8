"""Pictures with a C-arm card: cards checked value by value, pictures turned upright."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.geometry_card import Orientation, check_card
from FluoroGuideLib.imaging.sources import open_xray, read_geometry_card, read_xray

CARD = {
    "source_to_detector_mm": 1000, "source_to_isocenter_mm": 500, "primary_angle_deg": 0, "secondary_angle_deg": 0, "pixel_spacing_mm": [1, 1],
    "angle_reference": "patient",
}


def write_picture(path, dot=(150, 150), rows=301, columns=301) -> None:
    r, c = np.mgrid[:rows, :columns]
    values = (60 + 50 * np.sin(r / 37.0) * np.cos(c / 23.0)).astype(np.uint8)
    values[dot[1], dot[0]] = 200
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))


def dot_of(run) -> tuple[int, int]:
    row, column = np.unravel_index(int(run.frames[0].argmax()), run.frames[0].shape)
    return int(column), int(row)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.nrrd", "x.mha"])
def test_pictures_with_a_card(tmp_path, name):
    write_picture(tmp_path / name)
    (tmp_path / "g.json").write_text(json.dumps(CARD))
    image = read_xray(tmp_path / name, tmp_path / "g.json")
    # SID 1000, SOD 500: 30 mm left, 20 mm up of the isocentre is 60 columns right, 40 rows up of the centre (150, 150).
    np.testing.assert_allclose(image.view.project([[30, 0, 20]]), [[210, 110]], atol=1e-9)
    assert image.source == name
    assert image.pixels.shape == (301, 301)


def test_a_one_slice_volume_is_a_picture(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 10, (1, 30, 40)).astype(np.float32)), str(tmp_path / "x.nrrd"))
    assert read_xray(tmp_path / "x.nrrd", CARD).pixels.shape == (30, 40)


def test_without_a_card_everything_is_missing(tmp_path):
    write_picture(tmp_path / "x.png")
    with pytest.raises(FluoroGuideError, match=r"SID.*SOD.*primary.*secondary.*pixel spacing.*geometry.json"):
        read_xray(tmp_path / "x.png")
    with pytest.raises(FluoroGuideError, match="angle reference"):  # angles read off a machine: never assumed to be patient angles
        read_xray(tmp_path / "x.png", {k: v for k, v in CARD.items() if k != "angle_reference"})
    supine = {**CARD, "patient_position": "HFS"}
    del supine["angle_reference"]  # head first, supine: both references are the same
    assert read_xray(tmp_path / "x.png", supine).view.sid_mm == pytest.approx(1000)
    with pytest.raises(FluoroGuideError, match="patient position"):
        read_xray(tmp_path / "x.png", {**CARD, "angle_reference": "gantry"})


@pytest.mark.parametrize(("extra", "file_dot"), [
    # Upright, the point (30, 0, 20) lies at column 210, row 110 of 301 x 301 (last index 300).
    ({}, (210, 110)),
    ({"horizontal_flip": True}, (90, 110)),  # column 300 - 210
    ({"image_rotation_deg": 90}, (190, 210)),  # clockwise: column = 300 - row, row = column
    ({"image_rotation_deg": 180}, (90, 190)),
    ({"image_rotation_deg": -90}, (110, 90)),  # counter-clockwise: column = row, row = 300 - column
    ({"image_rotation_deg": 90, "horizontal_flip": True}, (110, 210)),  # turned (190, 210), then column 300 - 190
    ({"image_rotation_deg": 270, "horizontal_flip": True}, (190, 90)),  # turned (110, 90), then column 300 - 110
])
def test_turned_and_flipped_pictures(tmp_path, extra, file_dot):
    write_picture(tmp_path / "x.png", file_dot)
    run = open_xray(tmp_path / "x.png", {**CARD, **extra})
    np.testing.assert_allclose(run.view().project([[30, 0, 20]]), [[210, 110]], atol=1e-9)
    assert dot_of(run) == (210, 110)


def test_points_follow_pixels():
    picture = np.arange(35).reshape(5, 7)
    for turn in (0, 90, 180, 270):
        for flip in (False, True):
            orientation = Orientation(turn, flip)
            upright = orientation.upright(picture)
            column, row = orientation.upright_point((6, 1), 5, 7)
            assert upright[int(row), int(column)] == picture[1, 6]
            assert orientation.upright_pair((5, 7)) == upright.shape


def test_table_offset_moves_the_view(tmp_path):
    write_picture(tmp_path / "x.png")
    view = read_xray(tmp_path / "x.png", {**CARD, "table_offset_mm": [10, 0, 5]}).view
    # The isocentre now lies at (10, 0, 5): it is seen in the image centre.
    np.testing.assert_allclose(view.project([[10, 0, 5]]), [[150, 150]], atol=1e-9)


def test_projection_matrix_card(tmp_path):
    write_picture(tmp_path / "x.png")
    matrix = CArmView.from_angles(30, -10, sid_mm=1100, sod_mm=700, rows=301, columns=301, pixel_spacing_mm=(0.4, 0.4)).projection_matrix
    view = read_xray(tmp_path / "x.png", {"projection_matrix": (3 * matrix).tolist()}).view
    points = np.array([[0, 0, 0], [20, -30, 40.0]])
    expected = np.c_[points, np.ones(2)] @ matrix.T
    np.testing.assert_allclose(view.project(points), expected[:, :2] / expected[:, 2:], atol=1e-8)


@pytest.mark.parametrize(("change", "words"), [
    ({"sid": 1000}, "unknown key"), ({"source_to_detector_mm": "1000"}, "source_to_detector_mm"), ({"source_to_detector_mm": -1}, "between"),
    ({"source_to_detector_mm": 400}, "between source and isocentre"), ({"source_to_isocenter_mm": float("nan")}, "finite"),
    ({"pixel_spacing_mm": [0, 0.3]}, "pixel_spacing_mm"), ({"pixel_spacing_mm": 0.3}, "list of 2"), ({"pixel_spacing_mm": [0.3]}, "list of 2"),
    ({"primary_angle_deg": True}, "primary_angle_deg"), ({"secondary_angle_deg": 500}, "secondary_angle_deg"),
    ({"angle_reference": "table"}, "patient, gantry"), ({"patient_position": "supine"}, "HFS"), ({"image_rotation_deg": 45}, "multiple of 90"),
    ({"horizontal_flip": 1}, "true or false"), ({"table_offset_mm": [1, 2]}, "list of 3"), ({"projection_matrix": [[1, 2], [3, 4]]}, "3 rows of 4"),
    ({"projection_matrix": np.eye(3, 4).tolist()}, "Keep one of the two"),
])
def test_wrong_cards(tmp_path, change, words):
    (tmp_path / "g.json").write_text(json.dumps({**CARD, **change}))
    with pytest.raises(FluoroGuideError, match=words) as caught:
        read_geometry_card(tmp_path / "g.json")
    assert "\n" not in str(caught.value)


def test_nulls_are_left_out_and_files_are_checked(tmp_path):
    assert check_card({"source_to_detector_mm": None, "primary_angle_deg": 3}) == {"primary_angle_deg": 3.0}
    with pytest.raises(FluoroGuideError, match="does not exist"):
        read_geometry_card(tmp_path / "none.json")
    for text in ("not json", "[1, 2]", '"x"', "[" * 100000):
        (tmp_path / "g.json").write_text(text)
        with pytest.raises(FluoroGuideError):
            read_geometry_card(tmp_path / "g.json")
    (tmp_path / "g.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FluoroGuideError, match="not a JSON"):
        read_geometry_card(tmp_path / "g.json")


def test_wrong_pictures(tmp_path):
    with pytest.raises(FluoroGuideError, match="does not exist"):
        read_xray(tmp_path / "none.png", CARD)
    (tmp_path / "t.png").write_text("text")
    with pytest.raises(FluoroGuideError, match="not a picture"):
        read_xray(tmp_path / "t.png", CARD)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(FluoroGuideError, match="not a picture"):
        read_xray(tmp_path / "empty.png", CARD)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 20, 3), np.uint8), isVector=True), str(tmp_path / "rgb.png"))
    with pytest.raises(FluoroGuideError, match="colour"):
        read_xray(tmp_path / "rgb.png", CARD)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 20, 20), np.uint8)), str(tmp_path / "volume.nrrd"))
    with pytest.raises(FluoroGuideError, match="not one 2-D picture"):
        read_xray(tmp_path / "volume.nrrd", CARD)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((20, 20), np.nan, np.float32)), str(tmp_path / "nan.nrrd"))
    with pytest.raises(FluoroGuideError, match="no valid pixel"):
        read_xray(tmp_path / "nan.nrrd", CARD)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((20, 20), 9, np.uint8)), str(tmp_path / "flat.png"))
    with pytest.raises(FluoroGuideError, match="same value"):
        read_xray(tmp_path / "flat.png", CARD)


def test_real_knee_pictures_with_their_calibration(data_dir):
    path = data_dir / "knee_biplane_autoscoper" / "XRay" / "L_Hop_Cam1_001_UND.0138.tif"
    image = read_xray(path, CARD)
    assert image.pixels.shape == (1760, 1760)
    assert image.facts["polarity"] == "bone dark"
    # The round field: its corners are masked; so is the saturated open air beside the knee.
    assert not image.mask[0, 0]
    assert not image.mask[300, 800]
    assert image.mask[900, 900]


def test_a_small_file_that_promises_a_huge_picture_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "x.jpg"
    Image.fromarray((np.hypot(*(np.mgrid[:64, :72] - 30)) * 4).astype(np.uint8)).save(path)
    data = path.read_bytes()
    at = data.index(b"\xff\xc0") + 5  # rows and columns in the frame header
    assert data[at : at + 4] == bytes([0, 64, 0, 72])
    path.write_bytes(data[:at] + bytes([60, 0, 72, 0]) + data[at + 4 :])
    with pytest.raises(FluoroGuideError, match="promises"):
        open_xray(path, None)
