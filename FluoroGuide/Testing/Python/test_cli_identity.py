"""The command line stops where patient, volume or side do not fit together, and goes on only with a reason."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from FluoroGuideLib.cli import main
from FluoroGuideLib.commands.identity import check_case, lines
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging.dicom_xa import write_xa
from FluoroGuideLib.planning.plan import read_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ct.nrrd`` with a block of bone, a plan made on it, X-rays of patients 1, 1 and 2 (x1.dcm, y1.dcm, x2.dcm)."""
    folder = tmp_path_factory.mktemp("identity")
    hu = np.full((40, 40, 40), -1000, np.int16)
    hu[8:32, 8:32, 8:32] = 40
    hu[16:24, 16:24, 16:24] = 700
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((2.0, 2.0, 2.0))
    sitk.WriteImage(image, str(folder / "ct.nrrd"))
    pixels = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16)
    for name, patient in (("x1", "P-1"), ("y1", "P-1"), ("x2", "P-2")):
        write_xa(folder / f"{name}.dcm", pixels, primary_deg=0, secondary_deg=0, sid_mm=1000, sod_mm=600, pixel_spacing_mm=(2.0, 2.0))
        dataset = pydicom.dcmread(folder / f"{name}.dcm")
        dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = patient, "19500101", "F"
        dataset.save_as(folder / f"{name}.dcm")
    made = main(["plan", "--volume", str(folder / "ct.nrrd"), "--procedure", "free", "--target", "40,40,40", "--entry", "40,74,40",
                 "--laterality", "left", "--output", str(folder)])
    assert made == 0
    return folder


def check(folder: Path, xrays: list[str], volume: str = "ct.nrrd", reason: str | None = None) -> object:
    arguments = argparse.Namespace(confirm_identity=reason, confirmed_by="Dr. B")
    return check_case(arguments, folder / volume, [str(folder / x) for x in xrays], read_plan(folder / "plan.json"))


def test_one_patient_and_the_plans_volume_pass(folder):
    found = check(folder, ["x1.dcm", "y1.dcm"])
    assert not found.blocked
    assert not found.confirmations
    assert [f.sentence for f in found.findings if f.item == "plan's volume"] == ["The plan was made on this volume."]
    assert "P-1" not in json.dumps(found.to_dict())
    assert "P-1" not in " ".join(lines(found))


def test_two_patients_stop_the_command_until_someone_says_why(folder, capsys):
    with pytest.raises(FluoroGuideError, match="X-ray A and X-ray B have different values for patient id"):
        check(folder, ["x1.dcm", "x2.dcm"])
    found = check(folder, ["x1.dcm", "x2.dcm"], reason="typing error at the console, same arm band")
    assert not found.blocked
    assert found.confirmations[0].person == "Dr. B"
    assert any("arm band" in line for line in lines(found))
    code = main(["register", "--volume", str(folder / "ct.nrrd"), "--xray", str(folder / "x1.dcm"), "--xray", str(folder / "x2.dcm"),
                 "--output", str(folder / "out")])
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert len(error.splitlines()) == 1
    assert "--confirm-identity" in error
    assert "P-2" not in error


def test_a_volume_that_is_not_the_plans_stops_the_command(folder):
    image = sitk.ReadImage(str(folder / "ct.nrrd"))
    image[20, 20, 20] = 701  # one voxel
    sitk.WriteImage(image, str(folder / "edited.nrrd"))
    with pytest.raises(FluoroGuideError, match="another volume"):
        check(folder, ["x1.dcm"], "edited.nrrd")


def test_the_other_side_stops_the_command(folder):
    dataset = pydicom.dcmread(folder / "x1.dcm")
    dataset.Laterality = "R"
    dataset.save_as(folder / "right.dcm")
    with pytest.raises(FluoroGuideError, match="for the left side, the X-ray A shows the right side"):
        check(folder, ["right.dcm"])
