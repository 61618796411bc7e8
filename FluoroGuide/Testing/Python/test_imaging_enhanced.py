"""Enhanced XA: geometry from functional groups, gantry angles, patient position from codes; expected pixels by hand."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from FluoroGuideLib.imaging.dicom_xa import read_run

ENHANCED_XA = "1.2.840.10008.5.1.4.1.1.12.1.1"


def item(**elements) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, scheme: str = "SCT") -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="-")


def picture(dot: tuple[int, int] = (150, 150)) -> np.ndarray:
    r, c = np.mgrid[:301, :301]
    values = (40 + 50 * np.sin(r / 37.0) * np.cos(c / 23.0)).clip(0, 99).astype(np.uint16)
    values[dot[1], dot[0]] = 200
    return values


def write_enhanced(path, *, shared: dict | None = None, frames: list[dict] | None = None, dot=(150, 150), top: dict | None = None) -> None:
    """An Enhanced XA object: ``shared`` and each of ``frames`` are macros, sequence keyword -> Dataset."""
    pixels = np.stack([picture(dot)] * len(frames or [{}]))
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = ENHANCED_XA, "1.2.3.4", "XA"
    d.ImageType = ["ORIGINAL", "PRIMARY", "", "NONE"]
    d.SamplesPerPixel, d.PhotometricInterpretation, d.Rows, d.Columns, d.NumberOfFrames = 1, "MONOCHROME2", 301, 301, len(pixels)
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.SharedFunctionalGroupsSequence = Sequence([item(**{k: Sequence([v]) for k, v in (shared or {}).items()})])
    d.PerFrameFunctionalGroupsSequence = Sequence([item(**{k: Sequence([v]) for k, v in groups.items()}) for groups in frames or [{}]])
    for keyword, value in (top or {}).items():
        setattr(d, keyword, value)
    d.PixelData = pixels.tobytes()
    d["PixelData"].VR = "OW"
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID, d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.2.1", ENHANCED_XA
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    pydicom.dcmwrite(path, d, enforce_file_format=True)


def distances(sid: float = 1000, sod: float = 500) -> Dataset:
    return item(DistanceSourceToDetector=sid, DistanceSourceToIsocenter=sod)


SPACING = {"FramePixelDataPropertiesSequence": item(
    ImagerPixelSpacing=[1.0, 1.0], PixelIntensityRelationship="LIN", PixelIntensityRelationshipSign=1)}


def isocenter(a: float, b: float, **more) -> Dataset:
    return item(PositionerIsocenterPrimaryAngle=a, PositionerIsocenterSecondaryAngle=b, **more)


def where_is_the_dot(run) -> tuple[int, int]:
    row, column = np.unravel_index(int(run.frames[0].argmax()), run.frames[0].shape)
    return int(column), int(row)


def test_everything_from_functional_groups(tmp_path):
    write_enhanced(tmp_path / "x.dcm", shared={
        "XRayGeometrySequence": distances(), **SPACING, "PositionerPositionSequence": item(PositionerPrimaryAngle=90.0, PositionerSecondaryAngle=0.0),
    })
    run = read_run(tmp_path / "x.dcm")
    assert run.missing == ()
    assert {q.origin for q in run.quantities if q.needed} == {"tag"}
    # Patient angle 90: d = L, columns run to P, rows to F.  20 mm posterior, 10 mm up, magnified by 1000 / 500 = 2:
    # column 150 + 40, row 150 - 20.
    np.testing.assert_allclose(run.view().project([[0, 20, 10]]), [[190, 130]], atol=1e-9)
    assert run.facts["intensity_relationship"] == "LIN"
    assert run.facts["told_polarity"] == "bone dark"


def test_isocentre_angles_belong_to_the_gantry(tmp_path):
    # Gantry (0, 0), head first prone (codes of CID 20 and 21): the patient's back faces the detector, d = P, columns
    # run to R.  50 mm left: column 150 - 100; 20 mm up: row 150 - 40.  Head first: the picture stays as it is.
    write_enhanced(tmp_path / "x.dcm", dot=(50, 110), shared={
        "XRayGeometrySequence": distances(), **SPACING, "IsocenterReferenceSystemSequence": isocenter(0.0, 0.0),
    }, top={
        "PatientOrientationCodeSequence": Sequence([item(
            CodeValue="102538003", CodingSchemeDesignator="SCT", CodeMeaning="recumbent",
            PatientOrientationModifierCodeSequence=Sequence([code("1240000")]))]),
        "PatientGantryRelationshipCodeSequence": Sequence([code("102540008")]),
    })
    run = read_run(tmp_path / "x.dcm")
    assert run.value("angle_reference") == "gantry"
    assert run.value("patient_position") == "HFP"
    np.testing.assert_allclose(run.view().project([[50, 0, 20]]), [[50, 110]], atol=1e-9)
    assert where_is_the_dot(run) == (50, 110)


def test_isocentre_angles_feet_first(tmp_path):
    # Gantry LAO 90, feet first supine: the detector stands at the patient's right, d = R (patient angle -90), columns
    # run to A, rows to F.  20 mm posterior and 10 mm up, magnified by 2: upright column 150 - 40, row 150 - 20.
    # The table's head end is the feet's: the picture in the file is turned by 180 degrees: (300 - 110, 300 - 130).
    write_enhanced(tmp_path / "x.dcm", dot=(190, 170), shared={
        "XRayGeometrySequence": distances(), **SPACING, "IsocenterReferenceSystemSequence": isocenter(90.0, 0.0),
    }, top={"PatientPosition": "FFS"})
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_allclose(run.view().project([[0, 20, 10]]), [[110, 130]], atol=1e-9)
    assert where_is_the_dot(run) == (110, 130)


def test_isocentre_angles_without_patient_position_are_asked_for(tmp_path):
    write_enhanced(tmp_path / "x.dcm", shared={
        "XRayGeometrySequence": distances(), **SPACING, "IsocenterReferenceSystemSequence": isocenter(0.0, 0.0),
    })
    assert any("patient position" in name for name in read_run(tmp_path / "x.dcm").missing)


def test_values_of_each_frame(tmp_path):
    # Frame 1: SID 1200, angle -90: d = R, columns to A.  10 mm anterior: magnification 1200 / 500 = 2.4: column 150 + 24.
    write_enhanced(tmp_path / "x.dcm", shared=SPACING, frames=[
        {"XRayGeometrySequence": distances(1000), "PositionerPositionSequence": item(PositionerPrimaryAngle=0.0, PositionerSecondaryAngle=0.0)},
        {"XRayGeometrySequence": distances(1200), "PositionerPositionSequence": item(PositionerPrimaryAngle=-90.0, PositionerSecondaryAngle=0.0)},
    ])
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_allclose(run.view(0).project([[10, 0, 0]]), [[170, 150]], atol=1e-9)
    np.testing.assert_allclose(run.view(1).project([[0, -10, 0]]), [[174, 150]], atol=1e-9)


def test_rotated_and_flipped_field_of_view_in_groups(tmp_path):
    # Upright picture: 30 mm left, 20 mm up: (150 + 60, 150 - 40) = (210, 110).  Turned clockwise by 90 degrees, the top
    # becomes the right side: (column, row) -> (300 - row, column) = (190, 210).  Then left and right exchanged: (110, 210).
    write_enhanced(tmp_path / "x.dcm", dot=(110, 210), shared={
        "XRayGeometrySequence": distances(), **SPACING, "PositionerPositionSequence": item(PositionerPrimaryAngle=0.0, PositionerSecondaryAngle=0.0),
        "FieldOfViewSequence": item(FieldOfViewRotation="90", FieldOfViewHorizontalFlip="YES"),
    })
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_allclose(run.view().project([[30, 0, 20]]), [[210, 110]], atol=1e-9)
    assert where_is_the_dot(run) == (210, 110)


@pytest.mark.parametrize(("flip", "dot"), [("NO", (170, 150)), ("YES", (130, 150))])
def test_a_field_of_view_off_the_detectors_centre(tmp_path, flip, dot):
    # Active area 400 x 400 mm, elements of 0.5 mm; the field's first pixel is 239 elements = 119.5 mm down and 199
    # elements = 99.5 mm right of the area's corner.  Centre of the area (200, 200) mm: 100.5 mm right and 80.5 mm
    # below the field's corner; 1 mm pixels: pixel centre 100.5 - 0.5 = 100 and 80.5 - 0.5 = 80.  35 mm left of the
    # isocentre at magnification 2 lies 70 pixels right of it: (170, 80), whatever was done to the file's picture.
    write_enhanced(tmp_path / "x.dcm", dot=dot, shared={
        "XRayGeometrySequence": distances(), **SPACING, "PositionerPositionSequence": item(PositionerPrimaryAngle=0.0, PositionerSecondaryAngle=0.0),
        "FieldOfViewSequence": item(FieldOfViewOrigin=[239.0, 199.0], FieldOfViewHorizontalFlip=flip),
    }, top={"DetectorActiveDimensions": [400.0, 400.0], "DetectorElementSpacing": [0.5, 0.5]})
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_allclose(run.view().principal_point_px, (100, 80), atol=1e-6)
    np.testing.assert_allclose(run.view().project([[35, 0, 0]]), [[170, 80]], atol=1e-6)
    assert where_is_the_dot(run) == (170, 150)


def test_turned_table_and_detector_are_told(tmp_path):
    write_enhanced(tmp_path / "x.dcm", shared={
        "XRayGeometrySequence": distances(), **SPACING, "TablePositionSequence": item(TableHorizontalRotationAngle=12.0),
        "IsocenterReferenceSystemSequence": isocenter(0.0, 0.0, PositionerIsocenterDetectorRotationAngle=15.0),
    }, top={"PatientPosition": "HFS"})
    warnings = " ".join(read_run(tmp_path / "x.dcm").warnings)
    assert "table is turned" in warnings
    assert "detector is turned" in warnings


def test_patient_and_gantry_angles_that_disagree(tmp_path):
    groups = {
        "XRayGeometrySequence": distances(), **SPACING, "IsocenterReferenceSystemSequence": isocenter(40.0, 0.0),
        "PositionerPositionSequence": item(PositionerPrimaryAngle=10.0, PositionerSecondaryAngle=0.0),
    }
    write_enhanced(tmp_path / "x.dcm", shared=groups, top={"PatientPosition": "HFS"})
    run = read_run(tmp_path / "x.dcm")
    assert run.value("primary_angle_deg") == 10
    assert any("do not agree" in text for text in run.warnings)
    groups["IsocenterReferenceSystemSequence"] = isocenter(10.0, 0.0)
    write_enhanced(tmp_path / "y.dcm", shared=groups, top={"PatientPosition": "HFS"})
    assert not any("do not agree" in text for text in read_run(tmp_path / "y.dcm").warnings)


def test_plane_and_frame_times(tmp_path):
    write_enhanced(tmp_path / "x.dcm", shared=SPACING, frames=[{}] * 3, top={"FrameTimeVector": ["0", "40", "60"], "PlaneIdentification": "PLANE B"})
    facts = read_run(tmp_path / "x.dcm").facts
    assert facts["plane"] == "B"
    assert facts["frame_times_ms"] == [0.0, 40.0, 100.0]


# ---- pixel intensity relationship -------------------------------------------------------------------------------
def lut(function: str, entries: np.ndarray, first: int = 0) -> Dataset:
    """An item of the Pixel Intensity Relationship LUT Sequence."""
    table = item(LUTFunction=function, LUTDescriptor=[len(entries) % 65536, first, 16])
    table.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    return table


def test_the_files_own_table_leads_back_to_intensities(tmp_path):
    # Stored = value 0..255; the console stored 100 * ln(intensity), so intensity = exp(stored / 100): 40 -> 1.4918, 200 -> 7.3891; as
    # 16-bit entries in thousandths 1492 and 7389.  The first item is another table and must not be taken.
    entries = np.rint(1000 * np.exp(np.arange(256) / 100)).astype(np.uint16)
    path = tmp_path / "log.dcm"
    spacing = item(ImagerPixelSpacing=[1.0, 1.0], PixelIntensityRelationship="LOG", PixelIntensityRelationshipSign=1)
    write_enhanced(path, shared={"FramePixelDataPropertiesSequence": spacing})
    plain = read_run(path)
    dataset = pydicom.dcmread(path)
    group = dataset.SharedFunctionalGroupsSequence[0]
    group.PixelIntensityRelationshipLUTSequence = Sequence([lut("TO_LOG", np.arange(256)), lut("TO_LINEAR", entries)])
    pydicom.dcmwrite(path, dataset)
    run = read_run(path)
    assert run.facts["intensity_relationship"] == "LIN"
    assert plain.facts["intensity_relationship"] == "LOG"
    assert plain.frames[0, 150, 150] == 200
    assert run.frames[0, 150, 150] == 7389
    assert run.frames[0][plain.frames[0] == 40][0] == 1492
    assert any("(0028,9422)" in a for a in run.assumptions)
    assert not any("(0028,9422)" in a for a in plain.assumptions)
    # The negative logarithm of linear values is the logarithmic picture turned over: the two normalise alike.
    a, b = run.normalized(polarity="bone dark").pixels, plain.normalized(polarity="bone dark").pixels
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999


def test_a_damaged_table_is_left_alone(tmp_path):
    path = tmp_path / "damaged.dcm"
    spacing = item(ImagerPixelSpacing=[1.0, 1.0], PixelIntensityRelationship="LOG")
    broken = lut("TO_LINEAR", np.arange(256))
    broken.LUTDescriptor = [4096, 0, 16]  # says 4,096 entries, has 256
    write_enhanced(path, shared={"FramePixelDataPropertiesSequence": spacing, "PixelIntensityRelationshipLUTSequence": broken})
    run = read_run(path)
    assert run.facts["intensity_relationship"] == "LOG"
    assert run.frames[0, 150, 150] == 200
