"""Volumes in: HU to attenuation, and every wrong volume refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu, check_volume, read_volume
from FluoroGuideLib.errors import FluoroGuideError


def image_of(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    return image


def test_attenuation_by_hand():
    hu = np.array([[[-3024, -1024, -1000], [-500, 0, 1000]], [[2000, 3000, 30000], [100, 50, -100]]], np.int16)
    volume = attenuation_from_hu(image_of(hu), "CT", "case")
    # 0.02 (1 + HU / 1000), clipped at 0 and at 3000 HU: -500 -> 0.01, 0 -> 0.02, 1000 -> 0.04, >= 3000 -> 0.08.
    expected = [[[0, 0, 0], [0.01, 0.02, 0.04]], [[0.06, 0.08, 0.08], [0.022, 0.021, 0.018]]]
    np.testing.assert_allclose(sitk.GetArrayFromImage(volume.image), expected, atol=1e-7)
    assert volume.image.GetPixelID() == sitk.sitkFloat32
    assert volume.image.GetSpacing() == (0.5, 0.75, 2.0)
    assert volume.image.GetOrigin() == (10.0, -20.0, 30.0)
    assert (volume.modality, volume.name) == ("CT", "case")


def test_other_modalities_and_units_are_refused():
    hu = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    with pytest.raises(FluoroGuideError, match="CT or CBCT"):
        attenuation_from_hu(image_of(hu), "MR")
    with pytest.raises(FluoroGuideError, match="denser than air"):
        attenuation_from_hu(image_of(hu - 1000), "CT")


def nan_volume() -> np.ndarray:
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 2, 3] = np.nan
    return array


def infinite_volume() -> np.ndarray:
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 2, 3] = -np.inf
    return array


@pytest.mark.parametrize(("image", "words"), [
    (image_of(nan_volume()), "not numbers"),
    (image_of(infinite_volume()), "not numbers"),
    (image_of(np.full((3, 4, 5), 7, np.int16)), "same value"),
    (image_of(np.arange(20, dtype=np.int16).reshape(1, 4, 5)), "only one slice"),
    (sitk.GetImageFromArray(np.arange(20, dtype=np.int16).reshape(4, 5)), "not three-dimensional"),
    (sitk.GetImageFromArray(np.arange(180, dtype=np.uint8).reshape(3, 4, 5, 3), isVector=True), "several values per voxel"),
])
def test_wrong_volumes_are_named(image, words, tmp_path):
    with pytest.raises(FluoroGuideError, match=words) as caught:
        check_volume(image, "case")
    assert "case" in str(caught.value)
    assert "\n" not in str(caught.value)
    sitk.WriteImage(image, str(tmp_path / "v.nrrd"))
    with pytest.raises(FluoroGuideError, match=words):
        read_volume(tmp_path / "v.nrrd")


def test_files_that_are_no_volumes(tmp_path):
    with pytest.raises(FluoroGuideError, match="does not exist"):
        read_volume(tmp_path / "none.nii.gz")
    for name in ("t.nii.gz", "t.nrrd", "t.dcm", "t.txt"):
        (tmp_path / name).write_text("this is a text file\n" * 50)
        with pytest.raises(FluoroGuideError, match="not a volume"):
            read_volume(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FluoroGuideError, match="no DICOM series"):
        read_volume(tmp_path / "folder")


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "v.nrrd"
    sitk.WriteImage(image_of(np.arange(60000, dtype=np.int16).reshape(30, 40, 50)), str(path))
    path.write_bytes(path.read_bytes()[:50000])
    with pytest.raises(FluoroGuideError, match=r"damaged|not a volume"):
        read_volume(path)


def write_series(folder, count: int, uid: str, skip: int = -1) -> None:
    """A small CT series with slices 2 mm apart, value = 100 * slice + column."""
    import pydicom
    from pydicom.uid import generate_uid

    folder.mkdir(exist_ok=True)
    for k in range(count):
        if k == skip:
            continue
        d = pydicom.Dataset()
        d.SOPClassUID, d.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
        d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality, d.InstanceNumber = "1.2.3", uid, "CT", k + 1
        d.ImagePositionPatient, d.ImageOrientationPatient, d.PixelSpacing = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0], [0.5, 0.25]
        d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = 4, 6, 1, "MONOCHROME2"
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation, d.RescaleSlope, d.RescaleIntercept = 15, 1, 1, -1000
        d.PixelData = np.tile(np.arange(6, dtype="<i2") + 100 * k, (4, 1)).tobytes()
        d["PixelData"].VR = "OW"
        d.file_meta = pydicom.dataset.FileMetaDataset()
        d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        pydicom.dcmwrite(folder / f"{uid}_{k}.dcm", d, enforce_file_format=True)


def test_the_largest_series_of_a_folder_is_read(tmp_path):
    write_series(tmp_path / "ct", 5, "1.2.3.5")
    write_series(tmp_path / "ct", 2, "1.2.3.9")
    image = read_volume(tmp_path / "ct")
    assert image.GetSize() == (6, 4, 5)
    assert image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_allclose(image.GetSpacing(), (0.25, 0.5, 2.0))
    assert image[3, 0, 4] == 403 - 1000
    assert "2 series" in image.GetMetaData("FluoroGuide.note")


def test_a_missing_slice_is_refused(tmp_path):
    write_series(tmp_path / "gap", 6, "1.2.3.5", skip=3)
    with pytest.raises(FluoroGuideError, match="not evenly spaced"):
        read_volume(tmp_path / "gap")


@pytest.mark.parametrize("where", ["behind the pixels", "kind of an element"])
def test_a_slice_that_makes_gdcm_take_gigabytes_is_refused_before(tmp_path, where):
    write_series(tmp_path / "ct", 4, "1.2.3.5")
    path = tmp_path / "ct" / "1.2.3.5_2.dcm"
    data = path.read_bytes()
    if where == "behind the pixels":
        assert read_volume(tmp_path / "ct").GetSize() == (6, 4, 4)
        path.write_bytes(data + b"\xfc\xff\xfc\xffOB\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00")  # trailing padding of 4 bytes: allowed
        assert read_volume(tmp_path / "ct").GetSize() == (6, 4, 4)
        path.write_bytes(data + b"\x48\xfe\x51\x03UN\x00\x00\xf0\xff\xff\xff")  # 4 GB promised
    else:
        assert data.count(b"\x02\x00\x03\x00UI") == 1
        path.write_bytes(data.replace(b"\x02\x00\x03\x00UI", b"\x02\x00\x03\x00UJ"))
    with pytest.raises(FluoroGuideError, match="file of the folder is damaged"):
        read_volume(tmp_path / "ct")


def test_real_ct_and_mr(data_dir):
    image = read_volume(data_dir / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz")
    assert image.GetSize() == (450, 288, 150)
    assert image.GetPixelID() == sitk.sitkInt16
    mu = sitk.GetArrayFromImage(attenuation_from_hu(image).image)
    assert mu.min() == 0
    assert 0.04 < mu.max() <= 0.08
    knee = read_volume(data_dir / "mr_knee_mese" / "echo1")
    assert knee.GetSize() == (256, 256, 24)
