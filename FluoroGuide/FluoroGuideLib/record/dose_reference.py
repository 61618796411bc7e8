"""A dose against published values of the procedure, substantial-dose levels, and the five-minute signal of fluoroscopy time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import asinh, erf, log, sqrt

from ..errors import FluoroGuideError
from ..resources import RESOURCES
from .dose_model import DoseSummary

REFERENCE_PATH = RESOURCES / "dose_reference.json"
ACCURACY_NOTE = "Displayed dose values may be off by 35 % (the limit of IEC and FDA rules for displays); a site's correction factor makes DAP better."
OUTLIER_RATIO, OUTLIER_PERCENTILE = 3.0, 95.0
SIGNAL_EVERY_S = 300.0
"""21 CFR 1020.32(h)(2): an audible signal each 5 minutes of fluoroscopy."""
QUARTILE = 0.6744898
"""Third quartile of the standard normal distribution."""
SHOWN = {
    "dap_gy_m2": ("dose area product", 1e4, "Gy.cm2"), "reference_air_kerma_gy": ("reference air kerma", 1e3, "mGy"),
    "fluoroscopy_seconds": ("fluoroscopy time", 1.0, "s"),
}


@dataclass(frozen=True)
class Comparison:
    """One value against one published one.

    Attributes
    ----------
    quantity, group
        Field of :class:`DoseSummary`, and the group of patients or technique that was published (None: all).
    value, reference
        In Gy.m2, Gy, s; ``reference`` is the published median or mean, None where only a range was published.
    ratio
        Value over reference, or None.
    percentile
        0 to 100, where median and interquartile range were published (log-normal between them), else None.
    outlier
        Above three times the reference, above the 95th percentile, or above the published range.
    text
        One sentence with the source.
    """

    quantity: str
    group: str | None
    value: float
    reference: float | None
    ratio: float | None
    percentile: float | None
    outlier: bool
    text: str

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return asdict(self)


@lru_cache(maxsize=1)
def reference_data() -> dict:
    """The content of ``Resources/dose_reference.json``."""
    try:
        return json.loads(REFERENCE_PATH.read_text(encoding="utf-8"))
    except OSError as error:
        raise FluoroGuideError("The table of published doses is missing", error.strerror, "Install FluoroGuide again") from None


def known_procedures() -> list[str]:
    """Procedures with published values."""
    return sorted({name for entry in reference_data()["entries"] for name in entry["procedures"]})


def compare(dose: DoseSummary, procedure: str) -> list[Comparison]:
    """The dose against everything published for the procedure; empty when nothing is, or the dose does not tell those values.

    The dose area product is compared as corrected when the site gave a factor.
    """
    found = []
    for entry in reference_data()["entries"]:
        if procedure in entry["procedures"]:
            value = getattr(dose, entry["quantity"])
            if entry["quantity"] == "dap_gy_m2" and dose.corrected_dap_gy_m2 is not None:
                value = dose.corrected_dap_gy_m2
            if value is not None:
                found.append(_compared(entry, value))
    return found


def _compared(entry: dict, value: float) -> Comparison:
    label, factor, unit = SHOWN[entry["quantity"]]
    reference, spread, limits = entry["value"], entry.get("interquartile_range"), entry.get("range")
    ratio = value / reference if reference else None
    percentile = percentile_of(value, reference, spread) if spread else None
    above = limits is not None and value > limits[1]
    outlier = above or (ratio is not None and ratio > OUTLIER_RATIO) or (percentile is not None and percentile > OUTLIER_PERCENTILE)
    said = [f"{label} {value * factor:.3g} {unit}"]
    if reference:
        said.append(f"{ratio:.2g} times the published {entry['statistic']} of {reference * factor:.3g} {unit}")
    if percentile is not None:
        said.append("below percentile 1" if percentile < 1 else "above percentile 99" if percentile > 99 else f"about percentile {percentile:.0f}")
    if limits:
        place = "above" if above else "below" if value < limits[0] else "within"
        said.append(f"{place} the published range of {limits[0] * factor:.3g} to {limits[1] * factor:.3g} {unit}")
    group = f" ({entry['group']})" if entry.get("group") else ""
    text = f"{', '.join(said)}{group}; {entry['source']}."
    return Comparison(entry["quantity"], entry.get("group"), value, reference, ratio, percentile, outlier, text[0].upper() + text[1:])


def percentile_of(value: float, median: float, interquartile_range: float) -> float:
    """Percentile (0 to 100) of a value in the log-normal distribution with this median and interquartile range.

    With quartiles m exp(-q s) and m exp(+q s), q = 0.6745, their difference is 2 m sinh(q s), which gives s.
    """
    if value <= 0:
        return 0.0
    sigma = asinh(interquartile_range / (2 * median)) / QUARTILE
    return 50.0 * (1 + erf(log(value / median) / (sigma * sqrt(2))))


def outlier(comparisons: list[Comparison]) -> str | None:
    """One sentence when a value is unusually high against *every* group that was published for it, else None."""
    for quantity in dict.fromkeys(c.quantity for c in comparisons):
        own = [c for c in comparisons if c.quantity == quantity]
        if all(c.outlier for c in own):
            least = min(own, key=lambda c: c.ratio or 0.0)
            return f"Unusually high for this procedure: {least.text}"
    return None


def substantial(dose: DoseSummary) -> list[str]:
    """Sentences for substantial radiation dose levels and their first notifications that the dose reaches; usually none for injections."""
    found = []
    for level in reference_data()["substantial_dose"]["levels"]:
        value = getattr(dose, level["quantity"])
        label, factor, unit = SHOWN[level["quantity"]]
        if value is None or value < level["first"]:
            continue
        if value >= level["substantial"]:
            limit, name, todo = level["substantial"], "substantial radiation dose level", "follow the patient up"
        else:
            limit = level["first"] + level["step"] * int((value - level["first"]) / level["step"] + 1e-9)
            name, todo = "notification level", "tell the operator"
        found.append(f"The {label} of {value * factor:.4g} {unit} reaches the {name} of {limit * factor:.4g} {unit}: {todo}.")
    return found


class FluoroscopyClock:
    """Tells when another five minutes of fluoroscopy are full.

    Feed it the time that the C-arm *reports*; an estimate from frames is kept apart and labelled so in every sentence.
    """

    def __init__(self) -> None:
        self._full = {"reported": 0, "estimated": 0}

    def update(self, seconds: float, estimated: bool = False) -> list[str]:
        """Sentences for the marks passed since the last call; a new procedure (a smaller time) begins again."""
        kind = "estimated" if estimated else "reported"
        full = int(seconds // SIGNAL_EVERY_S)
        passed = range(self._full[kind] + 1, full + 1)
        self._full[kind] = full
        label = "of fluoroscopy, estimated from frames (the C-arm's own clock counts)" if estimated else "of reported fluoroscopy time"
        return [f"{mark * SIGNAL_EVERY_S / 60:.0f} minutes {label}." for mark in passed]
