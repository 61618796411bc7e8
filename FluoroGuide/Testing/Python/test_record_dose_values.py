"""Dose that is typed in, corrected by the site, and compared with published values."""

from __future__ import annotations

import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.record import dose_reference
from FluoroGuideLib.record.dose import DoseSummary, manual_dose


def test_typed_values_need_their_unit() -> None:
    found = manual_dose("1,5 Gy.cm2", "30 mGy", "1.5 min", 12)
    assert (found.dap_gy_m2, found.reference_air_kerma_gy, found.fluoroscopy_seconds, found.frames) == (pytest.approx(1.5e-4), 0.03, 90.0, 12)
    assert (found.source, found.fluoroscopy_time_source) == ("manual", "manual")
    assert manual_dose(dap="0 Gy.cm2").dap_gy_m2 == 0.0
    assert manual_dose(dap="0 Gy.cm2").reference_air_kerma_gy is None
    for wrong in ("1.5", "-1 Gy.cm2", "1.5 mGy", "x Gy.cm2", "1 2 Gy.cm2", ""):
        with pytest.raises(FluoroGuideError, match="not a number from 0 with its unit"):
            manual_dose(dap=wrong)
    with pytest.raises(FluoroGuideError, match="No dose is given"):
        manual_dose()


def test_the_site_s_correction_leaves_the_displayed_value() -> None:
    found = manual_dose("2 Gy.cm2").with_correction(0.75)
    assert found.dap_gy_m2 == pytest.approx(2e-4)
    assert found.corrected_dap_gy_m2 == pytest.approx(1.5e-4)
    assert DoseSummary.from_dict(found.to_dict()) == found
    for wrong in (0, -1, float("nan"), 11, True, "1"):
        with pytest.raises(FluoroGuideError, match="correction factor"):
            found.with_correction(wrong)


def test_percentiles_by_hand() -> None:
    # Median 2, quartiles 1 and 4: log-normal, s = ln 2 / 0.6745; interquartile range 3.
    assert dose_reference.percentile_of(2, 2, 3) == pytest.approx(50)
    assert dose_reference.percentile_of(1, 2, 3) == pytest.approx(25, abs=1e-4)
    assert dose_reference.percentile_of(4, 2, 3) == pytest.approx(75, abs=1e-4)
    assert dose_reference.percentile_of(0, 2, 3) == 0


def test_comparison_with_published_values() -> None:
    usual = dose_reference.compare(manual_dose("1.4 Gy.cm2"), "si_joint")
    assert [c.group for c in usual] == ["normal weight", "overweight", "obese"]
    assert usual[0].ratio == pytest.approx(1.4 / 1.21)
    assert dose_reference.outlier(usual) is None
    assert dose_reference.outlier(dose_reference.compare(manual_dose("5 Gy.cm2"), "si_joint")) is None  # high only for the slim
    high = dose_reference.outlier(dose_reference.compare(manual_dose("8 Gy.cm2"), "si_joint"))
    assert high.startswith("Unusually high for this procedure")
    assert "Cushman" in high
    corrected = dose_reference.compare(manual_dose("8 Gy.cm2").with_correction(0.25), "si_joint")
    assert corrected[0].value == pytest.approx(2e-4)
    assert dose_reference.compare(manual_dose("8 Gy.cm2"), "unheard_of") == []
    time = dose_reference.compare(manual_dose(fluoroscopy="200 s"), "transforaminal_lumbar")
    assert time[0].outlier
    assert "above the published range of 11 to 161 s" in time[0].text


def test_substantial_dose_levels() -> None:
    assert dose_reference.substantial(manual_dose("299 Gy.cm2", "2.9 Gy", "29 min")) == []
    first = dose_reference.substantial(manual_dose("450 Gy.cm2", "4.2 Gy", "45 min"))
    # 450 lies past 300 and 400; 4.2 past 3 and 4; 45 min on 30 + 15
    assert ["400 Gy.cm2" in first[1], "4000 mGy" in first[0], "2700 s" in first[2]] == [True] * 3
    reached = dose_reference.substantial(manual_dose("500 Gy.cm2", "5 Gy", "60 min"))
    assert len(reached) == 3
    assert all("substantial radiation dose level" in s for s in reached)


def test_signal_each_five_minutes() -> None:
    clock = dose_reference.FluoroscopyClock()
    assert clock.update(299.9) == []
    assert clock.update(300.0) == ["5 minutes of reported fluoroscopy time."]
    assert clock.update(301.0) == []
    assert clock.update(910.0) == ["10 minutes of reported fluoroscopy time.", "15 minutes of reported fluoroscopy time."]
    assert "estimated from frames" in clock.update(320.0, estimated=True)[0]
    assert clock.update(5.0) == []  # the next patient
    assert clock.update(301.0) == ["5 minutes of reported fluoroscopy time."]
