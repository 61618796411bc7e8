"""Dose: six real reports against values read from their raw items, and synthetic reports for what the real ones lack."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.record.dose import DoseEvent, DoseSummary, read_dose
from FluoroGuideLib.record.dose_model import DAP_UNITS, KERMA_UNITS, TIME_UNITS, factor_of
from FluoroGuideLib.record.rdsr import iso_time

# Read by hand from a dump of each file: DAP total (Gy.m2), RP total (Gy), fluoroscopy time (s), frames, events, fluoroscopy events.
REAL = {
    "openrem/RF-No-kVp-and-others.dcm": (2.954178618e-05, 1.313381045e-03, 19.4, 0, 20, 20),
    "openrem/RF-RDSR-Canon-Alphenix-rotational.dcm": (0.00031522, 0.012722, 70.0, 217, 49, 48),
    "openrem/RF-RDSR-GE.dcm": (0.00024126, 0.0117317, 72.46, 0, 8, 8),
    "openrem/RF-RDSR-Philips_Allura.dcm": (0.00015356864017, 0.00427128035068, 13.0, 27, 3, 1),
    "openrem/RF-RDSR-Siemens-Zee.dcm": (1.6e-05, 0.00252, 28.0, None, 8, 8),
    "pyskindose/siemens_axiom_artis.dcm": (9.37e-06, 0.00136, 18.0, None, 21, 19),
}


@pytest.mark.parametrize("name", REAL)
def test_real_reports(data_dir: Path, name: str) -> None:
    dap, kerma, seconds, frames, events, fluoroscopy = REAL[name]
    found = read_dose(data_dir / "rdsr_fluoro" / name)
    assert found.dap_gy_m2 == pytest.approx(dap, rel=1e-12)
    assert found.reference_air_kerma_gy == pytest.approx(kerma, rel=1e-12)
    assert found.fluoroscopy_seconds == pytest.approx(seconds, rel=1e-12)
    assert found.frames == frames  # None: not in the file, not zero
    assert (len(found.events), [e.kind for e in found.events].count("fluoroscopy")) == (events, fluoroscopy)
    # Each vendor's events add up to its own total within rounding; Siemens rounds each event's kerma to 0.01 mGy.
    rounding_gy = 0.5e-5 * events if "iemens" in name else 0.0
    assert sum(e.dap_gy_m2 for e in found.events) == pytest.approx(dap, rel=0.01)
    assert sum(e.air_kerma_gy for e in found.events) == pytest.approx(kerma, rel=0.01, abs=rounding_gy)
    assert DoseSummary.from_dict(found.to_dict(identifiers=True)) == found
    assert all(e["uid"] is None for e in found.to_dict()["events"])


def test_real_peculiarities(data_dir: Path) -> None:
    folder = data_dir / "rdsr_fluoro" / "openrem"
    ge = read_dose(folder / "RF-RDSR-GE.dcm")
    assert all(e.primary_deg is None for e in ge.events)  # its angle items are empty
    assert ge.events[0].seconds == pytest.approx(7.62599993)
    canon = read_dose(folder / "RF-RDSR-Canon-Alphenix-rotational.dcm")
    assert any("another fluoroscopy time" in w for w in canon.warnings)  # its durations (80.7 s for 7 pulses) cannot be seconds
    assert (canon.fluoroscopy_dap_gy_m2, canon.acquisition_dap_gy_m2) == (pytest.approx(2.587e-5), pytest.approx(2.8933e-4))


def test_several_reports(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "rdsr_fluoro"
    one, copy = folder / "openrem/RF-RDSR-Siemens-Zee.dcm", tmp_path / "copy.dcm"
    copy.write_bytes(one.read_bytes())
    assert read_dose([one, copy]) == read_dose(one)
    with pytest.raises(FluoroGuideError, match="more than one patient"):
        read_dose([one, folder / "pyskindose/siemens_axiom_artis.dcm"])


def test_real_images(data_dir: Path) -> None:
    folder = data_dir / "xa_static_phantom_8views"
    found = read_dose(folder / "IM6.dcm")
    assert found.dap_gy_m2 == pytest.approx(0.00289802e-5)  # dGy.cm2 in the header
    assert found.reference_air_kerma_gy is None
    assert found.fluoroscopy_seconds is None
    assert found.source == "image headers"
    both = read_dose([folder / "IM1.dcm", folder / "IM6.dcm"])
    assert both.dap_gy_m2 == pytest.approx(0.00289802e-5)
    assert any("1 of 2 images do not tell" in w for w in both.warnings)
    none = read_dose(folder / "IM1.dcm")
    assert none.dap_gy_m2 is None


# ---- synthetic reports ------------------------------------------------------------------------------------------
def code(value: str, meaning: str = "x", scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def item(kind: str, name: str, scheme: str = "DCM", **values: object) -> Dataset:
    result = Dataset()
    result.ValueType, result.ConceptNameCodeSequence = kind, [code(name, scheme=scheme)]
    for key, value in values.items():
        setattr(result, key, value)
    return result


def number(name: str, value: object, unit: str | None, scheme: str = "DCM") -> Dataset:
    """A NUM item; ``value`` None writes the empty measured value of PS3.3 C.17.3."""
    measured = []
    if value is not None:
        one = Dataset()
        one.NumericValue = value
        one.MeasurementUnitsCodeSequence = [code(unit, scheme="UCUM")] if unit else []
        measured = [one]
    return item("NUM", name, scheme, MeasuredValueSequence=measured)


def plane(which: str, *items: Dataset) -> Dataset:
    return item("CONTAINER", "113702", ContentSequence=[item("CODE", "113764", ConceptCodeSequence=[code(which)]), *items])


def event(kind: str, *items: Dataset, uid: str | None = None) -> Dataset:
    parts = [item("CODE", "113721", ConceptCodeSequence=[code(kind, scheme="SRT")])]
    parts.append(item("UIDREF", "113769", UID=uid or generate_uid()))
    return item("CONTAINER", "113706", ContentSequence=[*parts, *items])


def write(path: Path, *content: Dataset, title: str = "113701", patient: str = "p") -> Path:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.67", generate_uid()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    data.Modality, data.PatientID, data.ValueType = "SR", patient, "CONTAINER"
    data.ConceptNameCodeSequence = [code(title, "X-Ray Radiation Dose Report" if title == "113701" else "Basic Text")]
    data.ContentSequence = list(content)
    data.save_as(path, enforce_file_format=True)
    return path


def test_units() -> None:
    # 1 Gy.m2 = 10^4 Gy.cm2 = 10^5 dGy.cm2 = 10^6 cGy.cm2 = 10^7 mGy.cm2 = 10^6 uGy.m2
    for unit, per_gy_m2 in (
        ("Gy.m2", 1), ("Gym2", 1), ("Gy*m2", 1), ("Gy.m^2", 1), ("Gy.cm2", 1e4), ("dGy.cm2", 1e5), ("dGycm2", 1e5), ("cGy.cm2", 1e6),
        ("mGy.cm2", 1e7), ("uGy.m2", 1e6), ("uGym2", 1e6), ("µGy.m2", 1e6), ("μGy.m2", 1e6),
    ):
        assert factor_of(unit, DAP_UNITS) * per_gy_m2 == pytest.approx(1, rel=1e-12), unit
    assert factor_of("mGy", KERMA_UNITS) == 1e-3
    assert factor_of("min", TIME_UNITS) == 60
    for unit in ("MGy", "Gy", "m2", "", "gy.m2"):
        assert factor_of(unit, DAP_UNITS) is None


def test_biplane_with_other_units(tmp_path: Path) -> None:
    # A: 12 dGy.cm2 = 1.2e-4 Gy.m2, 30 mGy, 2 min.  B: 300 uGy.m2 = 3e-4 Gy.m2, 0.01 Gy, 30000 ms.
    path = write(
        tmp_path / "a.dcm",
        plane("113620", number("113722", "12", "dGy.cm2"), number("113725", "30", "mGy"), number("113730", "2", "min")),
        plane("113621", number("113722", "300", "uGy.m2"), number("113725", "0.01", "Gy"), number("113730", "30000", "ms")),
    )
    found = read_dose(path)
    assert found.dap_gy_m2 == pytest.approx(4.2e-4)
    assert found.reference_air_kerma_gy == pytest.approx(0.04)
    assert found.fluoroscopy_seconds == pytest.approx(150)
    assert [(p.plane, pytest.approx(p.dap_gy_m2)) for p in found.planes] == [("A", 1.2e-4), ("B", 3e-4)]


def test_empty_is_not_zero(tmp_path: Path) -> None:
    found = read_dose(write(
        tmp_path / "a.dcm", plane("113620", number("113722", "0", "Gy.m2"), number("113725", None, None), number("113730", "5", "s")),
        plane("113621", number("113722", "0", "Gy.m2"), number("113725", None, None), number("113730", None, None)),
    ))
    assert found.dap_gy_m2 == 0
    assert found.reference_air_kerma_gy is None
    assert found.fluoroscopy_seconds == 5
    assert any("Plane B does not tell its fluoroscopy time" in w for w in found.warnings)
    assert any("does not state the total reference air kerma" in w for w in found.warnings)


def test_totals_recomputed_from_events(tmp_path: Path) -> None:
    def shot(kind: str, dap: str | None, seconds: str) -> Dataset:
        return event(kind, number("122130", dap, "mGy.cm2"), number("113742", seconds, "s"), number("113733", ["60", "80"], "kV"))

    path = write(tmp_path / "a.dcm", plane("113622"), shot("P5-06000", "100", "3"), shot("44491008", "50", "2"), shot("113613", "850", "4"))
    found = read_dose(path)
    assert found.dap_gy_m2 == pytest.approx(1e-4)  # 1000 mGy.cm2
    assert found.fluoroscopy_seconds == pytest.approx(5)  # not the rotational acquisition's 4 s
    assert [e.kind for e in found.events] == ["fluoroscopy", "fluoroscopy", "acquisition"]
    assert found.events[0].kvp == pytest.approx(70)  # multi-valued: the mean
    assert any("added up from 3 events" in w for w in found.warnings)
    # With one event silent, a sum would look complete and be wrong.
    silent = read_dose(write(tmp_path / "b.dcm", plane("113622"), shot("P5-06000", "100", "3"), shot("P5-06000", None, "3")))
    assert silent.dap_gy_m2 is None
    assert silent.fluoroscopy_seconds == pytest.approx(6)


def test_multi_valued_and_nested_and_private_items(tmp_path: Path) -> None:
    nested = item("CONTAINER", "113999", ContentSequence=[number("113722", "2", "Gy.cm2")])
    found = read_dose(write(
        tmp_path / "a.dcm", plane("113622", nested, number("113722", "999", "Gy.m2", scheme="99VENDOR")),
        event("113613", number("122130", ["0.5", "0.7", "0.8"], "Gy.cm2")),
    ))
    assert found.dap_gy_m2 == pytest.approx(2e-4)
    assert found.events[0].dap_gy_m2 == pytest.approx(2e-4)
    assert any("has 3 values" in w for w in found.warnings)


def test_unknown_unit_and_repeats(tmp_path: Path) -> None:
    unit = read_dose(write(tmp_path / "a.dcm", plane("113622", number("113722", "2", "rad.cm2"), number("113730", "2", None))))
    assert unit.dap_gy_m2 is None
    assert unit.fluoroscopy_seconds is None
    assert any("unknown unit 'rad.cm2'" in w for w in unit.warnings)
    assert any("no unit" in w for w in unit.warnings)
    same = plane("113622", number("113722", "2", "Gy.cm2"))
    twice = read_dose(write(tmp_path / "b.dcm", same, same))
    assert twice.dap_gy_m2 == pytest.approx(2e-4)
    assert any("counted once" in w for w in twice.warnings)


def test_reports_are_merged_by_event(tmp_path: Path) -> None:
    uids = [generate_uid() for _ in range(3)]

    def report(name: str, total: str, *which: int) -> Path:
        shots = [event("P5-06000", number("122130", "1", "Gy.cm2"), number("113742", "2", "s"), uid=uids[k]) for k in which]
        return write(tmp_path / name, plane("113622", number("113722", total, "Gy.cm2")), *shots)

    first, second, all_of_them = report("1.dcm", "1", 0), report("2.dcm", "1", 1), report("3.dcm", "3", 0, 1, 2)
    assert read_dose([first, second]).dap_gy_m2 == pytest.approx(2e-4)  # different events: added
    whole = read_dose([first, all_of_them, second])
    assert whole.dap_gy_m2 == pytest.approx(3e-4)  # the study's report holds the others
    assert any("not counted again" in w for w in whole.warnings)
    overlap = read_dose([report("4.dcm", "2", 0, 1), report("5.dcm", "2", 1, 2)])
    assert overlap.dap_gy_m2 == pytest.approx(3e-4)  # 0, 1, 2 once each
    assert len(overlap.events) == 3
    assert overlap.fluoroscopy_seconds == pytest.approx(6)


def test_images_beside_a_report_do_not_count_twice(tmp_path: Path) -> None:
    report = write(tmp_path / "r.dcm", plane("113622", number("113722", "2", "Gy.cm2")))
    data = pydicom.dcmread(report)
    del data.ContentSequence
    data.Modality, data.SOPInstanceUID, data.ImageAndFluoroscopyAreaDoseProduct = "XA", generate_uid(), "5"
    data.save_as(tmp_path / "i.dcm", enforce_file_format=True)
    both = read_dose([report, tmp_path / "i.dcm"])
    assert both.dap_gy_m2 == pytest.approx(2e-4)
    assert any("image file(s) were not counted" in w for w in both.warnings)
    assert read_dose(tmp_path).dap_gy_m2 == pytest.approx(2e-4)  # a folder


def test_one_sentence_for_what_is_no_dose_report(tmp_path: Path) -> None:
    text = tmp_path / "text.dcm"
    text.write_text("hello", encoding="utf-8")
    cases = [
        (tmp_path / "none.dcm", "does not exist"), (text, "not a readable DICOM file"),
        (write(tmp_path / "sr.dcm", title="121181"), "its title is 'Basic Text'"),
        (write(tmp_path / "ct.dcm", item("CONTAINER", "113811", ContentSequence=[])), "a CT dose report"),
    ]
    empty = tmp_path / "folder"
    empty.mkdir()
    cases.append((empty, "no DICOM file"))
    data = pydicom.dcmread(tmp_path / "sr.dcm")
    del data.ContentSequence
    data.Modality = "CT"
    data.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    cases.append((tmp_path / "image.dcm", "modality CT"))
    for path, sentence in cases:
        with pytest.raises(FluoroGuideError) as caught:
            read_dose(path)
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.what


def test_times() -> None:
    assert iso_time("20171109150056") == "2017-11-09T15:00:56"
    assert iso_time("20171109150056.25+0100") == "2017-11-09T15:00:56+01:00"
    assert iso_time("20171109") is None


# ---- totals explained ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REAL)
def test_every_total_of_the_real_reports_is_explained(data_dir: Path, name: str) -> None:
    found = read_dose(data_dir / "rdsr_fluoro" / name)
    checks = {c.quantity: c for c in found.checks}
    assert {"dap_gy_m2", "reference_air_kerma_gy", "fluoroscopy_seconds"} <= set(checks)
    for quantity in ("dap_gy_m2", "reference_air_kerma_gy", "fluoroscopy_dap_gy_m2", "acquisition_dap_gy_m2"):
        assert checks[quantity].agrees, checks[quantity].explanation
    time = checks["fluoroscopy_seconds"]
    if "Canon" in name:  # 80.7 s for 7 pulses at 7.5/s, and the next event starts 20 s later
        assert time.agrees is False
        assert "40 events last beyond the start of the next one" in time.explanation
        # 48 fluoroscopy events: the sum of pulses over pulse rate, read from the file
        assert found.estimated_fluoroscopy_seconds == pytest.approx(73.2, abs=0.05)
    elif "iemens" in name:  # no durations; pulses and pulse rates instead
        assert time.agrees is None
        assert "an estimate from frames" in time.explanation
    else:
        assert time.agrees, time.explanation
    assert found.fluoroscopy_time_source == "reported"


def test_rounding_explains_only_rounding(tmp_path: Path) -> None:
    def checked(total: str, *shots: str) -> object:
        events = [event("P5-06000", number("122130", s, "Gy.cm2")) for s in shots]
        return read_dose(write(tmp_path / "a.dcm", plane("113622", number("113722", total, "Gy.cm2")), *events)).checks[0]

    # Three events rounded to 0.01: together they may be off by 0.015, and the total by half its last digit.
    assert "rounding of the values explains it" in checked("1.01", "0.33", "0.33", "0.34").explanation
    more = checked("1.04", "0.33", "0.33", "0.34")
    assert more.agrees
    assert "more than rounding explains" in more.explanation
    wrong = checked("1.2", "0.33", "0.33", "0.34")
    assert wrong.agrees is False
    assert wrong.events == pytest.approx(1e-4)


# ---- other vendors -------------------------------------------------------------------------------------------------------
def test_biplane_with_an_unused_second_plane(tmp_path: Path) -> None:
    uid = generate_uid()
    zeros = [number(c, "0", u) for c, u in (("113722", "Gy.m2"), ("113725", "Gy"), ("113730", "s"))]
    shots = [event("P5-06000", item("CODE", "113764", ConceptCodeSequence=[code("113620")]), number("122130", "2", "Gy.cm2"), uid=uid)]
    path = write(
        tmp_path / "a.dcm", plane("113620", number("113722", "2", "Gy.cm2"), number("113725", "4", "mGy"), number("113730", "30", "s")),
        plane("113621", *zeros), *shots,
    )
    found = read_dose(path)
    assert (found.dap_gy_m2, found.reference_air_kerma_gy, found.fluoroscopy_seconds) == (pytest.approx(2e-4), pytest.approx(4e-3), 30)
    assert found.planes[1].dap_gy_m2 == 0.0  # a real zero
    assert "Plane B was not used: all its values are 0." in found.warnings
    assert [c.agrees for c in found.checks if c.quantity == "dap_gy_m2"][:2] == [True, True]


def test_both_planes_may_share_an_event_s_uid(tmp_path: Path) -> None:
    uid, other = generate_uid(), generate_uid()

    def shot(which: str, dap: str, name: str) -> Dataset:
        return event("P5-06000", item("CODE", "113764", ConceptCodeSequence=[code(which)]), number("122130", dap, "Gy.cm2"), uid=name)

    first = write(tmp_path / "1.dcm", plane("113620", number("113722", "1", "Gy.cm2")), plane("113621", number("113722", "2", "Gy.cm2")),
                  shot("113620", "1", uid), shot("113621", "2", uid))
    second = write(tmp_path / "2.dcm", plane("113620", number("113722", "5", "Gy.cm2")), plane("113621", number("113722", "2", "Gy.cm2")),
                   shot("113621", "2", uid), shot("113620", "5", other))
    # Events A 1, B 2 (in both reports), A 5: 8 Gy.cm2.
    assert read_dose([first, second]).dap_gy_m2 == pytest.approx(8e-4)


def test_three_hundred_events_and_no_totals(tmp_path: Path) -> None:
    shots = [event("P5-06000", number("122130", ["10", "20"], "uGy.m2"), number("113742", "500", "ms")) for _ in range(320)]
    found = read_dose(write(tmp_path / "a.dcm", *shots))
    assert found.dap_gy_m2 == pytest.approx(320 * 30e-6)
    assert found.fluoroscopy_seconds == pytest.approx(160)
    assert found.fluoroscopy_time_source == "added up from events"
    assert len(found.warnings) < 8  # not one for each event
    assert any("and so in 319 more events" in w for w in found.warnings)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", plane("113622", number("113722", "2", "Gy.cm2"), number("113730", "3", "s")))
    raw = path.read_bytes()
    for cut in range(132, len(raw), 37):
        path.write_bytes(raw[:cut])
        try:
            said = read_dose(path).source
        except FluoroGuideError as error:
            said = str(error)
        assert said == "rdsr" or ("\n" not in said and len(said) > 20)


def test_images_of_one_event_count_once(tmp_path: Path) -> None:
    report = write(tmp_path / "r.dcm", plane("113622", number("113722", "2", "Gy.cm2")))
    uid = generate_uid()
    for k, event_uid in enumerate((uid, uid, generate_uid())):
        data = pydicom.dcmread(report)
        del data.ContentSequence
        data.Modality, data.SOPInstanceUID, data.ImageAndFluoroscopyAreaDoseProduct = "XA", generate_uid(), "5"
        data.IrradiationEventUID = event_uid
        data.save_as(tmp_path / f"i{k}.dcm", enforce_file_format=True)
    found = read_dose([tmp_path / f"i{k}.dcm" for k in range(3)])
    assert found.dap_gy_m2 == pytest.approx(10e-5)  # 2 events of 5 dGy.cm2
    assert any("1 of 3 images show an irradiation event that another one counts" in w for w in found.warnings)
    assert DoseEvent.from_dict(found.events[0].to_dict(identifiers=True)) == found.events[0]


def test_dose_command(tmp_path: Path, capsys) -> None:
    import json

    from FluoroGuideLib import cli

    path = write(tmp_path / "a.dcm", plane("113622", number("113722", "9", "Gy.cm2"), number("113730", "30", "s")))
    assert cli.main(["dose", str(path), "--procedure", "si_joint", "--correction", "0.9", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"dap_gy_m2", "reference_air_kerma_gy", "fluoroscopy_seconds", "events", "warnings"} <= set(data)
    assert data["reference_air_kerma_gy"] is None
    assert data["corrected_dap_gy_m2"] == pytest.approx(8.1e-4)
    assert data["outlier"].startswith("Unusually high")
    assert "35 %" in data["accuracy"]
    assert cli.main(["dose", "--time", "90 s", "--procedure", "magic"]) == 0
    assert "No published dose is known for 'magic'" in capsys.readouterr().out
    for arguments in ([], [str(path), "--dap", "1 Gy.cm2"], ["--dap", "1"]):
        assert cli.main(["dose", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
