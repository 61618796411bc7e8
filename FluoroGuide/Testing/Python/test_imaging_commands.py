"""``fluoroguide inspect`` and ``fluoroguide watch``, through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib import cli
from FluoroGuideLib.commands.watch import parse_igtl
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging.geometry_report import geometry_report
from FluoroGuideLib.imaging.sources import open_xray
from FluoroGuideLib.imaging.xa_writer import write_xa


@pytest.fixture
def file(tmp_path):
    r, c = np.mgrid[:96, :96]
    frames = np.stack([(3000 + 2000 * np.sin(r / 19) * np.cos(c / 13) - 1500 * (np.abs(c - 40 - i) < 4)).astype(np.uint16) for i in range(5)])
    write_xa(tmp_path / "x.dcm", frames, primary_deg=0, secondary_deg=0, sid_mm=1000, sod_mm=500, pixel_spacing_mm=(0.5, 0.5), frame_time_ms=20)
    return tmp_path / "x.dcm"


# ---- the report's effects, by hand ------------------------------------------------------------------------------
def test_effects_at_a_target_derived_by_hand(file):
    # Isocentre view, a = b = 0: columns to L, rows to F, beam to A.  Target 40 mm left in the isocentre plane:
    # u = 40 * SID / SOD.
    effects = {e.name: e.effect_mm for e in geometry_report(open_xray(file), target_mm=(40.0, 0.0, 0.0)).entries}
    # SID 1 % longer: the shadow lies 1 % farther out: 0.4 mm at the target.
    assert effects["source_to_detector_mm"] == pytest.approx(0.4, abs=1e-6)
    # SOD 1 % longer: u = 40 * 1000 / 505: 1 - 1 / 1.01 = 0.990 % of 40 mm.
    assert effects["source_to_isocenter_mm"] == pytest.approx(40 * (1 - 1 / 1.01), abs=1e-6)
    # Spacing 1 % larger: fewer pixels, by the same share.
    assert effects["pixel_spacing_mm"] == pytest.approx(40 * (1 - 1 / 1.01), abs=1e-6)
    # Principal point off by 1 % of 96 px = 0.96 px of 0.5 mm at the detector = 0.24 mm at half the way.
    assert effects["principal_point_px"] == pytest.approx(0.24, abs=1e-6)
    # The frame moved by 1 mm: 1 mm.
    assert effects["table_offset_mm"] == pytest.approx(1.0, abs=1e-6)
    # Primary 0.9 deg off: the target is 40 cos 0.9 = 39.9951 mm across and 40 sin 0.9 = 0.6283 mm farther from the source:
    # u = 39.9951 / 500.6283 * 1000 = 79.8898 instead of 80: 0.1102 mm at the detector, half of it at the target.
    assert effects["primary_angle_deg"] == pytest.approx(0.0551, abs=1e-4)
    assert effects["angle_reference"] is None


# ---- inspect ----------------------------------------------------------------------------------------------------
def test_inspect_prints_the_report_and_writes_pictures(file, tmp_path, capsys):
    assert cli.main(["inspect", str(file), "--output", str(tmp_path / "out"), "--steps"]) == 0
    told = capsys.readouterr().out
    assert "SID (0018,1110)" in told
    assert "mm if 1 % (10.0 mm) off" in told
    assert sitk.ReadImage(str(tmp_path / "out" / "x.png")).GetSize() == (96, 96)
    assert sitk.ReadImage(str(tmp_path / "out" / "x_steps.png")).GetNumberOfComponentsPerPixel() == 3
    assert cli.main(["inspect", str(file), "--json", "--frame", "0", "--polarity", "bone-bright", "--relationship", "DISP", "--no-field"]) == 0
    report = json.loads(capsys.readouterr().out)[str(file)]
    assert report["normalization"]["polarity"] == "bone bright"
    assert report["normalization"]["frame"] == 0
    assert {q["origin"] for q in report["quantities"]} <= {"tag", "derived", "default", "given by the user", "missing"}
    assert cli.main(["inspect", str(file), "--frame", "9"]) == 2


@pytest.mark.parametrize("name", [
    "xa_static_phantom_8views/IM1.dcm", "xa_static_phantom_8views/IM6.dcm", "xa_rubo_coronary_96f/0002.dcm", "rf_shoulder_kwire/KarstenHilbertRF.dcm",
    "knee_biplane_autoscoper/XRay/L_Hop_Cam1_001_UND.0138.tif",
])
def test_inspect_of_every_real_file(data_dir, name, capsys):
    assert cli.main(["inspect", str(data_dir / name), "--json"]) == 0
    report = next(iter(json.loads(capsys.readouterr().out).values()))
    known = {q["name"] for q in report["quantities"] if q["value"] is not None}
    if "phantom" in name:
        assert report["missing"] == []
        effects = {q["name"]: q["effect_mm"] for q in report["quantities"]}
        assert min(effects[n] for n in ("source_to_detector_mm", "source_to_isocenter_mm", "primary_angle_deg", "pixel_spacing_mm")) > 0
    else:
        assert "source_to_detector_mm" not in known
        assert "SID (0018,1110)" in report["missing"]
        assert all(q["effect_mm"] is None for q in report["quantities"])
    assert report["normalization"]["masked_share"] < 0.7


# ---- watch ------------------------------------------------------------------------------------------------------
def test_watch_a_replay(file, tmp_path, capsys):
    assert cli.main(["watch", str(file), "--json", "--save", str(tmp_path / "out")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["received"] == 5
    assert result["delivered"] + result["dropped"] == 5
    assert result["frames"] >= 1
    assert (tmp_path / "out" / "live.png").is_file()
    assert cli.main(["watch", str(file), "--repeat", "--frames", "7", "--speed", "4"]) == 0
    assert "frames" in capsys.readouterr().out


def test_watch_says_when_nothing_comes_and_when_geometry_is_unknown(tmp_path, capsys):
    assert cli.main(["watch", str(tmp_path), "--polling", "--seconds", "0.5"]) == 2
    assert "No frame arrived" in capsys.readouterr().err
    r, c = np.mgrid[:64, :64]
    sitk.WriteImage(sitk.GetImageFromArray((100 + 50 * np.sin(r / 9) * np.cos(c / 7)).astype(np.uint8)), str(tmp_path / "a.png"))
    assert cli.main(["watch", str(tmp_path), "--polling", "--existing", "--frames", "1", "--json"]) == 0
    assert "the geometry is not known" in json.loads(capsys.readouterr().out)["assumptions"][0]


@pytest.mark.parametrize(("arguments", "words"), [
    (["nowhere"], "no such live source"), (["igtl://"], "no host"), (["igtl://x:99999"], "port"),
    (["igtl://x", "--seconds", "0"], "--seconds must be"),
])
def test_wrong_watches(arguments, words, capsys):
    assert cli.main(["watch", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("address", "parts"), [
    ("igtl://plus", ("plus", 18944, None)), ("igtl://10.0.0.7:18945/Fluoro%20A", ("10.0.0.7", 18945, "Fluoro A")),
    ("IGTL://host:1/", ("host", 1, None)),
])
def test_addresses(address, parts):
    assert parse_igtl(address) == parts
    with pytest.raises(FluoroGuideError):
        parse_igtl("igtl:///device")
