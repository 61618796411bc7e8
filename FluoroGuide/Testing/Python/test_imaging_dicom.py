"""DICOM XA and RF in and out: pixels, geometry, what is missing, what is wrong."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging.dicom_xa import read_run, write_xa
from FluoroGuideLib.imaging.sources import inspect_report, inspect_text, open_xray, read_xray, write_preview

GEOMETRY = {"primary_deg": 0, "secondary_deg": 0, "sid_mm": 1000, "sod_mm": 500, "pixel_spacing_mm": (1.0, 1.0)}


def picture(rows: int = 301, columns: int = 301, dot: tuple[int, int] = (150, 150)) -> np.ndarray:
    """uint8 with a smooth background below 100 and one pixel of 200 at ``dot`` = (column, row)."""
    r, c = np.mgrid[:rows, :columns]
    values = (40 + 50 * np.sin(r / 37.0) * np.cos(c / 23.0)).clip(0, 99).astype(np.uint8)
    values[dot[1], dot[0]] = 200
    return values


def where_is_the_dot(run, frame: int = 0) -> tuple[int, int]:
    row, column = np.unravel_index(int(run.frames[frame].argmax()), run.frames[frame].shape)
    return int(column), int(row)


def changed(path, **elements) -> None:
    """Set (or with ``...`` delete) elements of a DICOM file."""
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        if value is ...:
            delattr(dataset, keyword)
        elif keyword == "PixelPaddingValue":
            dataset.add_new(keyword, "US", value)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


# ---- writing and reading ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 10), (np.uint16, 12), (np.uint16, 16)])
def test_values_come_back_as_stored(tmp_path, dtype, bits, photometric):
    frames = np.random.default_rng(1).integers(0, 2**bits, (3, 31, 21)).astype(dtype)
    write_xa(tmp_path / "x.dcm", frames, **GEOMETRY, photometric=photometric, bits_stored=bits, frame_time_ms=40, kvp=81.5)
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_array_equal(run.frames, frames)
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "x.dcm").pixel_array, frames)
    assert run.facts["kvp"] == 81.5
    assert run.facts["frame_time_ms"] == 40
    assert run.facts["frames"] == 3


def test_simpleitk_reads_what_is_written(tmp_path):
    frames = np.random.default_rng(1).integers(0, 4096, (2, 31, 21)).astype(np.uint16)
    write_xa(tmp_path / "x.dcm", frames, **GEOMETRY)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "x.dcm"))), frames)


def test_a_written_file_has_what_the_standard_requires(tmp_path):
    uid = write_xa(tmp_path / "x.dcm", np.ones((2, 9, 9), np.uint8), **{**GEOMETRY, "primary_deg": -31.23456789012345}, dap_dgy_cm2=0.123)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    assert d.SOPClassUID.name == "X-Ray Angiographic Image Storage"
    assert d.SOPInstanceUID == uid == d.file_meta.MediaStorageSOPInstanceUID
    for keyword in (  # type 1 and 2 of the XA IOD (PS3.3 A.14) for this kind of object
        "StudyInstanceUID", "SeriesInstanceUID", "Modality", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
        "AccessionNumber", "ReferringPhysicianName", "StudyID", "SeriesNumber", "Manufacturer", "InstanceNumber", "ImageType",
        "FrameIncrementPointer", "NumberOfFrames", "FrameTime", "PixelIntensityRelationship", "KVP", "RadiationSetting",
        "PositionerPrimaryAngle", "PositionerSecondaryAngle",
        "PositionerMotion", "PatientOrientation", "ExposureTime", "XRayTubeCurrent", "Exposure",
    ):
        assert keyword in d, keyword
    assert all(len(str(v)) <= 16 for e in d if e.VR == "DS" and e.value is not None for v in (e.value if e.VM > 1 else [e.value]))
    assert float(d.PositionerPrimaryAngle) == pytest.approx(-31.234567890, abs=1e-9)
    assert float(d.ImageAndFluoroscopyAreaDoseProduct) == 0.123
    assert d.PatientID == "ANONYMOUS"


@pytest.mark.parametrize(("change", "words"), [
    ({"sid_mm": 500}, "between source and isocentre"), ({"pixel_spacing_mm": (0.0, 1.0)}, "positive"), ({"sod_mm": float("nan")}, "positive"),
    ({"photometric": "RGB"}, "photometric"), ({"patient_position": "XXX"}, "patient position"), ({"bits_stored": 4}, "bits stored"),
])
def test_impossible_values_are_not_written(tmp_path, change, words):
    with pytest.raises(FluoroGuideError, match=words):
        write_xa(tmp_path / "x.dcm", picture(), **{**GEOMETRY, **change})
    assert not (tmp_path / "x.dcm").exists()


# ---- geometry: pixels derived by hand ---------------------------------------------------------------------------
# SID 1000, SOD 500, spacing 1: a point in the isocentre plane is magnified by 2.  301 x 301 pixels, centre (150, 150).
def test_head_first_supine_straight_view(tmp_path):
    # a = b = 0: columns run to L, rows to F.  30 mm left, 20 mm up: column 150 + 60, row 150 - 40.
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY)
    view = read_xray(tmp_path / "x.dcm").view
    np.testing.assert_allclose(view.project([[30, 0, 20]]), [[210, 110]], atol=1e-9)


def test_prone_patient_and_gantry_angles(tmp_path):
    # Detector overhead, patient prone: gantry 0, 0 is patient 180, 0: the detector is at the back, d = +P, so columns
    # run to R.  50 mm left of the isocentre: column 150 - 100; 20 mm up: row 150 - 40.
    write_xa(tmp_path / "x.dcm", picture(dot=(50, 110)), **GEOMETRY, patient_position="HFP")
    run = read_run(tmp_path / "x.dcm", {"angle_reference": "gantry"})
    np.testing.assert_allclose(run.view().angles_deg, (-180, 0), atol=1e-9)
    np.testing.assert_allclose(run.view().project([[50, 0, 20]]), [[50, 110]], atol=1e-9)
    assert where_is_the_dot(run) == (50, 110)


def test_feet_first_patient_and_gantry_angles_turn_the_picture(tmp_path):
    # Gantry (90, 0), feet first supine: patient (-90, 0), d = R, columns run to A.  A point 20 mm posterior and 10 mm
    # up: column 150 - 40 = 110, row 150 - 20 = 130.  The file's picture is turned by 180 degrees: (190, 170).
    write_xa(tmp_path / "x.dcm", picture(dot=(190, 170)), **{**GEOMETRY, "primary_deg": 90}, patient_position="FFS")
    run = read_run(tmp_path / "x.dcm", {"angle_reference": "gantry"})
    np.testing.assert_allclose(run.view().project([[0, 20, 10]]), [[110, 130]], atol=1e-9)
    assert where_is_the_dot(run) == (110, 130)
    assert any("turned upright" in text for text in run.assumptions)


def test_feet_first_prone(tmp_path):
    # Gantry (0, 0), feet first prone: patient 180: columns to R, rows to F; picture turned.  Point 50 mm left, 20 mm
    # up: upright (50, 110), in the file (250, 190).
    write_xa(tmp_path / "x.dcm", picture(dot=(250, 190)), **GEOMETRY, patient_position="FFP")
    run = read_run(tmp_path / "x.dcm", {"angle_reference": "gantry"})
    np.testing.assert_allclose(run.view().project([[50, 0, 20]]), [[50, 110]], atol=1e-9)
    assert where_is_the_dot(run) == (50, 110)


def test_flipped_field_of_view(tmp_path):
    # Upright (210, 110) as in the straight view; left and right exchanged in the file: column 300 - 210 = 90.
    write_xa(tmp_path / "x.dcm", picture(dot=(90, 110)), **GEOMETRY)
    changed(tmp_path / "x.dcm", FieldOfViewRotation="0", FieldOfViewHorizontalFlip="YES")
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_allclose(run.view().project([[30, 0, 20]]), [[210, 110]], atol=1e-9)
    assert where_is_the_dot(run) == (210, 110)


@pytest.mark.parametrize(("flip", "dot"), [("NO", (190, 160)), ("YES", (110, 160))])
def test_rotated_and_flipped_field_of_view(tmp_path, flip, dot):
    # Upright picture 301 rows x 201 columns, centre (100, 150), row spacing 1, column spacing 0.5.  The point (30, 0, 20)
    # lies at column 100 + 60 / 0.5 = 220 > 200, so take (15, 0, 20): column 100 + 30 / 0.5 = 160, row 150 - 40 = 110.
    # Turned clockwise by 90 degrees (201 rows x 301 columns): column = 300 - 110 = 190, row = 160; then flipped:
    # column = 300 - 190 = 110.  In the file the row spacing is the upright column spacing, 0.5.
    write_xa(tmp_path / "x.dcm", picture(201, 301, dot), **{**GEOMETRY, "pixel_spacing_mm": (0.5, 1.0)})
    changed(tmp_path / "x.dcm", FieldOfViewRotation="90", FieldOfViewHorizontalFlip=flip)
    run = read_run(tmp_path / "x.dcm")
    assert run.frames.shape == (1, 301, 201)
    np.testing.assert_allclose(run.view().project([[15, 0, 20]]), [[160, 110]], atol=1e-9)
    assert where_is_the_dot(run) == (160, 110)


def test_principal_point_is_that_of_the_file(tmp_path):
    # File 201 rows x 301 columns, turned clockwise by 90: a principal point (190, 160) of the file is (160, 110) upright.
    write_xa(tmp_path / "x.dcm", picture(201, 301), **GEOMETRY)
    run = read_run(tmp_path / "x.dcm", {"image_rotation_deg": 90, "principal_point_px": [190, 160]})
    np.testing.assert_allclose(run.view().project([[0, 0, 0]]), [[160, 110]], atol=1e-9)


def test_angles_per_frame(tmp_path):
    frames = np.stack([picture()] * 3)
    write_xa(tmp_path / "x.dcm", frames, **{**GEOMETRY, "primary_deg": 10}, primary_increments_deg=[0, 1.5, 4])
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_allclose([run.view(f).angles_deg[0] for f in range(3)], [10, 11.5, 14])
    # PS3.3 C.8.7.5.1.3: a single value is the change per frame.
    changed(tmp_path / "x.dcm", PositionerPrimaryAngleIncrement="2", PositionerSecondaryAngleIncrement="-1")
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_allclose([run.view(f).angles_deg for f in range(3)], [[10, 0], [12, -1], [14, -2]], atol=1e-9)
    changed(tmp_path / "x.dcm", PositionerPrimaryAngleIncrement=["0", "1"])
    with pytest.raises(FluoroGuideError, match="2 for 3 frames"):
        read_run(tmp_path / "x.dcm")


@pytest.mark.parametrize(("primary", "orientation", "agrees"), [
    (0, ("L", "F"), True), (0, ("R", "F"), False), (0, ("L", "H"), False), (90, ("P", "F"), True), (-90, ("P", "F"), False), (30, ("LP", "F"), True),
    (180, ("R", "F"), True),
])
def test_patient_orientation_is_compared(tmp_path, primary, orientation, agrees):
    write_xa(tmp_path / "x.dcm", picture(), **{**GEOMETRY, "primary_deg": primary}, patient_orientation=orientation)
    assert (not read_run(tmp_path / "x.dcm").warnings) == agrees


def test_patient_orientation_of_a_flipped_picture(tmp_path):
    # Upright columns run to L; exchanged in the file they run to R: R\F is right, L\F is wrong.
    for letters, agrees in ((("R", "F"), True), (("L", "F"), False)):
        write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY, patient_orientation=letters)
        changed(tmp_path / "x.dcm", FieldOfViewRotation="0", FieldOfViewHorizontalFlip="YES")
        assert (not read_run(tmp_path / "x.dcm").warnings) == agrees


# ---- missing and derived ----------------------------------------------------------------------------------------
def test_missing_quantities_are_all_named(tmp_path):
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY)
    changed(tmp_path / "x.dcm", DistanceSourceToDetector=..., DistanceSourceToPatient="0", ImagerPixelSpacing=..., PositionerPrimaryAngle=None)
    run = read_run(tmp_path / "x.dcm")
    assert len(run.missing) == 4
    with pytest.raises(FluoroGuideError) as caught:
        run.view()
    for words in ("SID (0018,1110)", "SOD (0018,1111)", "primary angle (0018,1510)", "(0018,1164)", "geometry.json"):
        assert words in str(caught.value)
    card = {"source_to_detector_mm": 900, "source_to_isocenter_mm": 600, "pixel_spacing_mm": [0.2, 0.3], "primary_angle_deg": 12}
    image = read_xray(tmp_path / "x.dcm", card)
    assert image.view.sid_mm == pytest.approx(900)
    assert image.view.pixel_spacing_mm == pytest.approx((0.2, 0.3))
    assert [q.origin for q in read_run(tmp_path / "x.dcm", card).quantities[:2]] == ["given by the user"] * 2


def test_spacing_from_the_field_of_view_is_an_assumption(tmp_path):
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY)
    changed(tmp_path / "x.dcm", ImagerPixelSpacing=..., FieldOfViewDimensions=["301", "301"])
    run = read_run(tmp_path / "x.dcm")
    assert run.value("pixel_spacing_mm") == (1.0, 1.0)
    assert any("ImagerPixelSpacing is not in the file" in text for text in run.assumptions)
    changed(tmp_path / "x.dcm", FieldOfViewDimensions=["301", "250"])  # pixels that are not square: not what is stored
    assert read_run(tmp_path / "x.dcm").value("pixel_spacing_mm") is None


def test_sid_from_the_magnification(tmp_path):
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY)
    changed(tmp_path / "x.dcm", DistanceSourceToDetector=...)
    run = read_run(tmp_path / "x.dcm")
    assert run.view().sid_mm == pytest.approx(1000)
    assert any("magnification" in text for text in run.assumptions)


@pytest.mark.parametrize(("change", "words"), [
    ({"ImagerPixelSpacing": ["0", "0"]}, "ImagerPixelSpacing .* not positive"), ({"DistanceSourceToDetector": "400"}, "between source and isocentre"),
    ({"DistanceSourceToPatient": "-5"}, "negative"), ({"Modality": "CT"}, "not a projection"), ({"Rows": 0}, "no picture"),
])
def test_wrong_tags(tmp_path, change, words):
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY)
    changed(tmp_path / "x.dcm", **change)
    with pytest.raises(FluoroGuideError, match=words):
        read_run(tmp_path / "x.dcm")


def test_a_header_that_promises_too_much_is_refused_at_once(tmp_path):
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY)
    changed(tmp_path / "x.dcm", NumberOfFrames=20000)
    with pytest.raises(FluoroGuideError, match="more pixels than the file can hold"):
        read_run(tmp_path / "x.dcm")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_headers_give_one_sentence(tmp_path, seed):
    rng = np.random.default_rng(seed)
    write_xa(tmp_path / "x.dcm", np.stack([picture(64, 64, (9, 9))] * 3), **GEOMETRY, shutter=(2, 60, 2, 60), primary_increments_deg=[0, 1, 2])
    whole = bytearray((tmp_path / "x.dcm").read_bytes())
    header = len(whole) - 3 * 64 * 64
    for _ in range(40):
        data = bytearray(whole)
        for place in rng.integers(132, header, 3):
            data[place] = rng.integers(0, 256)
        (tmp_path / "y.dcm").write_bytes(data)
        sentence = ""
        try:
            run = read_run(tmp_path / "y.dcm")
            run.image(len(run.frames) - 1)
        except FluoroGuideError as error:
            sentence = str(error)
        assert "\n" not in sentence


def test_wrong_files(tmp_path):
    with pytest.raises(FluoroGuideError, match="does not exist"):
        read_xray(tmp_path / "none.dcm")
    (tmp_path / "text.dcm").write_text("This is not an image.\n" * 30)
    with pytest.raises(FluoroGuideError, match="not DICOM"):
        read_xray(tmp_path / "text.dcm")
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY)
    with pytest.raises(FluoroGuideError, match="no such frame"):
        read_xray(tmp_path / "x.dcm", frame=1)
    data = (tmp_path / "x.dcm").read_bytes()
    (tmp_path / "short.dcm").write_bytes(data[: len(data) // 2])
    with pytest.raises(FluoroGuideError, match=r"decoded|DICOM"):
        read_xray(tmp_path / "short.dcm")


def test_colour_is_refused(tmp_path):
    write_xa(tmp_path / "x.dcm", np.zeros((9, 9), np.uint8), **GEOMETRY)
    changed(tmp_path / "x.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0,
            PixelData=bytes(244))
    with pytest.raises(FluoroGuideError, match="colour"):
        read_xray(tmp_path / "x.dcm")


# ---- values and masks -------------------------------------------------------------------------------------------
def test_modality_lut_is_applied(tmp_path):
    write_xa(tmp_path / "x.dcm", np.tile(np.arange(10, dtype=np.uint8), (10, 1)), **GEOMETRY)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4, 3, 16], "US"
    item.add_new("LUTData", "US", [100, 200, 400, 800])
    changed(tmp_path / "x.dcm", ModalityLUTSequence=pydicom.Sequence([item]))
    # First mapped value 3: below it the first entry, above 6 the last.
    assert read_run(tmp_path / "x.dcm").frames[0, 0].tolist() == [100, 100, 100, 100, 200, 400, 800, 800, 800, 800]


def test_shutters_and_padding_are_masked(tmp_path):
    write_xa(tmp_path / "x.dcm", picture(), **GEOMETRY, shutter=(10, 291, 20, 281))
    mask = read_run(tmp_path / "x.dcm").mask[0]
    # Edges count from 1 and are not part of what is shown: columns 11..290 (0-based 10..289), rows 21..280 (20..279).
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (10, 289, 20, 279)
    changed(tmp_path / "x.dcm", ShutterShape="CIRCULAR", CenterOfCircularShutter=["151", "101"], RadiusOfCircularShutter="50", PixelPaddingValue=200)
    mask = read_run(tmp_path / "x.dcm").mask[0]
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (51, 149, 101, 199)
    assert not mask[150, 150]  # the pixel of 200 is padding
    changed(tmp_path / "x.dcm", ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=[11, 11, 11, 51, 51, 51, 51, 11])
    rows, columns = np.nonzero(read_run(tmp_path / "x.dcm").mask[0])
    assert (columns.min(), rows.min()) == (10, 10)
    assert 48 <= columns.max() <= 50
    assert 48 <= rows.max() <= 50


# ---- real files -------------------------------------------------------------------------------------------------
def test_real_phantom_run_with_geometry(data_dir):
    run = read_run(data_dir / "xa_static_phantom_8views" / "IM6.dcm")
    assert run.frames.shape == (9, 512, 512)
    assert run.missing == ()
    view = run.view(4)
    assert (view.sid_mm, view.sod_mm) == (pytest.approx(939), pytest.approx(720))
    np.testing.assert_allclose(view.angles_deg, (24, -18.8), atol=1e-9)
    assert view.pixel_spacing_mm == pytest.approx((0.390625, 0.390625))
    image = run.image(4)
    assert image.facts["polarity"] == "bone dark"
    assert image.pixels[image.mask].std() > 0.05


def test_real_phantom_run_without_spacing(data_dir):
    run = read_run(data_dir / "xa_static_phantom_8views" / "IM1.dcm")
    assert run.frames.shape == (14, 512, 512)
    spacing = next(q for q in run.quantities if q.name == "pixel_spacing_mm")
    assert spacing.origin == "derived"
    assert spacing.value == (0.390625, 0.390625)
    assert any("ImagerPixelSpacing is not in the file" in text for text in run.assumptions)


def test_real_runs_without_geometry_name_what_is_missing(data_dir):
    coronary = open_xray(data_dir / "xa_rubo_coronary_96f" / "0002.dcm")
    assert coronary.frames.shape == (96, 512, 512)
    assert coronary.facts["frame_time_ms"] == 33
    assert len(coronary.missing) == 3
    assert "SID (0018,1110)" in coronary.missing
    shoulder = open_xray(data_dir / "rf_shoulder_kwire" / "KarstenHilbertRF.dcm")
    assert shoulder.frames.shape == (1, 464, 512)
    assert len(shoulder.missing) == 5
    for run in (coronary, shoulder):
        with pytest.raises(FluoroGuideError, match=r"geometry\.json"):
            run.image()


def test_inspect_and_preview(data_dir, tmp_path):
    path = data_dir / "xa_static_phantom_8views" / "IM6.dcm"
    report = inspect_report(path)
    lines = inspect_text(report)
    assert "939 mm" in lines
    assert "tag" in lines
    assert "missing: none" in lines
    assert "TERRA" not in lines
    assert "1111" not in lines.replace("0018,1111", "")
    write_preview(tmp_path / "p.png", open_xray(path).normalized(0))
    back = sitk.ReadImage(str(tmp_path / "p.png"))
    assert back.GetSize() == (512, 512)
    assert back.GetPixelID() == sitk.sitkUInt8
    with pytest.raises(FluoroGuideError, match="cannot be written"):
        write_preview(tmp_path / "no" / "p.png", open_xray(path).normalized(0))
