"""X-ray radiation dose structured reports (DICOM PS3.16, TID 10001, 10002, 10003) of any vendor.

Concept codes (scheme DCM) are told in :data:`TOTALS` and :data:`EVENT_NUMBERS`; each was checked against real
reports of five vendors.  Values are searched anywhere below their container, because vendors nest them differently.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import FluoroGuideError
from .dose_checks import check_totals, estimated_seconds, event_sums, fewer_warnings
from .dose_model import (
    COUNT_UNITS,
    DAP_UNITS,
    KERMA_UNITS,
    RATE_UNITS,
    TIME_UNITS,
    TOTAL_FIELDS,
    DoseEvent,
    DoseSummary,
    DoseTotals,
    add_known,
    factor_of,
)

ACCUMULATED, EVENT, REPORT, CT_ACCUMULATED = "113702", "113706", "113701", "113811"
DOSE_REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.67"
TOTALS = {
    "113722": ("dap_gy_m2", DAP_UNITS, "Dose Area Product Total"),
    "113725": ("reference_air_kerma_gy", KERMA_UNITS, "Dose (RP) Total"),
    "113730": ("fluoroscopy_seconds", TIME_UNITS, "Total Fluoro Time"),
    "113726": ("fluoroscopy_dap_gy_m2", DAP_UNITS, "Fluoro Dose Area Product Total"),
    "113728": ("fluoroscopy_air_kerma_gy", KERMA_UNITS, "Fluoro Dose (RP) Total"),
    "113727": ("acquisition_dap_gy_m2", DAP_UNITS, "Acquisition Dose Area Product Total"),
    "113729": ("acquisition_air_kerma_gy", KERMA_UNITS, "Acquisition Dose (RP) Total"),
    "113855": ("acquisition_seconds", TIME_UNITS, "Total Acquisition Time"),
    "113731": ("frames", COUNT_UNITS, "Total Number of Radiographic Frames"),
}
# code: field, units, name, how several values of a (rotational) event become one
EVENT_NUMBERS = {
    "122130": ("dap_gy_m2", DAP_UNITS, "Dose Area Product", "sum"),
    "113738": ("air_kerma_gy", KERMA_UNITS, "Dose (RP)", "sum"),
    "113742": ("seconds", TIME_UNITS, "Irradiation Duration", "sum"),
    "113768": ("pulses", COUNT_UNITS, "Number of Pulses", "sum"),
    "113791": ("pulse_rate_hz", RATE_UNITS, "Pulse Rate", "mean"),
    "113733": ("kvp", {"kV": 1.0}, "KVP", "mean"),
    "113734": ("tube_current_ma", {"mA": 1.0, "uA": 1e-3}, "X-Ray Tube Current", "mean"),
    "112011": ("primary_deg", {"deg": 1.0}, "Positioner Primary Angle", "first"),
    "112012": ("secondary_deg", {"deg": 1.0}, "Positioner Secondary Angle", "first"),
    "113750": ("source_to_detector_mm", {"mm": 1.0, "cm": 10.0}, "Distance Source to Detector", "first"),
}
PLANES = {"113620": "A", "113621": "B", "113622": "single"}
FLUOROSCOPY_CODES = ("P5-06000", "44491008")  # SNOMED RT and CT
ACQUISITION_CODES = ("113611", "113612", "113613")  # stationary, stepping, rotational


def is_dose_report(dataset: object) -> bool:
    """Whether a data set is an X-ray radiation dose report: by its title or class, with totals or events of projection X-ray."""
    titled = _code(dataset) == REPORT or str(dataset.get("SOPClassUID", "")) == DOSE_REPORT_CLASS
    return titled and any(next(_containers(dataset, code), None) is not None for code in (ACCUMULATED, EVENT))


def read_report(dataset: object, name: str) -> DoseSummary:
    """The dose summary of one report.

    Parameters
    ----------
    dataset
        pydicom data set.
    name
        File name for messages.

    Raises
    ------
    FluoroGuideError
        A structured report of another kind (what it is instead is told).
    """
    if not is_dose_report(dataset):
        raise FluoroGuideError(
            "This structured report is not an X-ray projection dose report", f"{name}: {_kind(dataset)}", "Choose the RDSR of the C-arm",
        )
    warnings: list[str] = []
    planes = _distinct([_totals(item, warnings) for item in _containers(dataset, ACCUMULATED)], warnings)
    events = tuple(_event(item, warnings) for item in _containers(dataset, EVENT))
    if not planes:
        warnings.append("The report states no totals.")
    warnings += [f"Plane {p.plane} was not used: all its values are 0." for p in planes if len(planes) > 1 and _all_zero(p)]
    if not events:
        warnings.append("The report lists no irradiation events, so its totals cannot be checked.")
    totals = {key: add_known([getattr(p, key) for p in planes]) for key in TOTAL_FIELDS}
    for key in ("dap_gy_m2", "reference_air_kerma_gy", "fluoroscopy_seconds"):
        silent = [p.plane or "?" for p in planes if getattr(p, key) is None]
        if silent and len(silent) < len(planes):
            warnings.append(f"Plane {', '.join(silent)} does not tell its {LABELS[key]}; the total is of the other plane alone.")
    checks = check_totals(totals, planes, events)
    totals, time_source = _filled(totals, events, warnings)
    warnings += [c.explanation for c in checks if c.agrees is False]
    device = " ".join(str(dataset.get(tag, "") or "").strip() for tag in ("Manufacturer", "ManufacturerModelName")).strip()
    return DoseSummary(
        **totals, planes=tuple(planes) if len(planes) > 1 else (), events=events, warnings=fewer_warnings(warnings), source="rdsr", device=device,
        fluoroscopy_time_source=time_source, estimated_fluoroscopy_seconds=estimated_seconds(events), checks=checks,
    )


LABELS = {"dap_gy_m2": "dose area product", "reference_air_kerma_gy": "reference air kerma", "fluoroscopy_seconds": "fluoroscopy time"}


def _filled(totals: dict, events: tuple[DoseEvent, ...], warnings: list[str]) -> tuple[dict, str | None]:
    """Totals, with those that the report leaves empty added up where every event tells its part; and where the time is from."""
    totals, time_source = dict(totals), None if totals["fluoroscopy_seconds"] is None else "reported"
    for key, total in event_sums(events).items():
        if totals[key] is None and total is not None:
            totals[key] = total
            time_source = "added up from events" if key == "fluoroscopy_seconds" else time_source
            warnings.append(f"The report does not state the total {LABELS[key]}; it was added up from {len(events)} events.")
        elif totals[key] is None:
            warnings.append(f"The report does not state the total {LABELS[key]}.")
    return totals, time_source


# ---- the tree of content items ----------------------------------------------------------------------------------
def _code(item: object) -> str:
    """Code value of the item's concept name, "" without one; private schemes never match a standard code."""
    names = item.get("ConceptNameCodeSequence")
    if not names or str(names[0].get("CodingSchemeDesignator", "DCM")) not in ("DCM", ""):
        return ""
    return str(names[0].get("CodeValue", "") or "").strip()


def _children(item: object) -> list:
    return list(item.get("ContentSequence") or [])


def _containers(item: object, code: str) -> Iterator[object]:
    for child in _children(item):
        if _code(child) == code:
            yield child
        else:
            yield from _containers(child, code)


def _below(item: object) -> Iterator[object]:
    """Items below ``item``, not those of another accumulation or event inside it."""
    for child in _children(item):
        if _code(child) in (ACCUMULATED, EVENT):
            continue
        yield child
        yield from _below(child)


def _numbers(item: object, units: dict[str, float], label: str, warnings: list[str]) -> list[float]:
    """Values of a NUM item in the base unit; an empty item gives none."""
    values: list[float] = []
    for measured in item.get("MeasuredValueSequence") or []:
        try:
            raw = measured.get("NumericValue")
            if raw is None or raw == "":
                raw = measured.get("FloatingPointValue")
        except (ValueError, TypeError, OverflowError):  # pydicom converts on access
            warnings.append(f"{label} is not a number and was left out.")
            continue
        raw = [] if raw is None or raw == "" else (list(raw) if isinstance(raw, (list, tuple)) or hasattr(raw, "append") else [raw])
        codes = measured.get("MeasurementUnitsCodeSequence")
        unit = str(codes[0].get("CodeValue", "") or "") if codes else ""
        factor = factor_of(unit, units)
        if factor is None and codes and not unit:  # some devices write the unit into the meaning alone
            factor = factor_of(str(codes[0].get("CodeMeaning", "") or ""), units)
        if raw and factor is None:
            warnings.append(f"{label} is in {f'the unknown unit {unit!r}' if unit else 'no unit'} and was left out.")
            continue
        for one in raw:
            try:
                value = float(one) * factor
            except (TypeError, ValueError):
                warnings.append(f"{label} is not a number ({str(one)[:20]!r}) and was left out.")
                continue
            if not 0 <= abs(value) < float("inf"):
                warnings.append(f"{label} is not a finite number and was left out.")
            else:
                values.append(value)
    return values


def _plane(item: object) -> str | None:
    for child in _children(item):
        if _code(child) == "113764" and child.get("ConceptCodeSequence"):
            code = child.ConceptCodeSequence[0]
            return PLANES.get(str(code.get("CodeValue", "")), str(code.get("CodeMeaning", "")) or None)
    return None


def _totals(container: object, warnings: list[str]) -> DoseTotals:
    found: dict[str, list[float]] = {}
    for item in _below(container):
        if _code(item) in TOTALS and item.get("ValueType") == "NUM":
            key, units, label = TOTALS[_code(item)]
            found.setdefault(key, []).extend(_numbers(item, units, label, warnings))
    values: dict[str, float | None] = {}
    for key, numbers in found.items():
        negative = any(v < 0 for v in numbers)
        if negative:
            warnings.append(f"A total ({key}) is negative and was left out.")
        if not numbers or negative:
            continue
        if max(numbers) - min(numbers) > 1e-6 * max(numbers):
            warnings.append(f"The report states several values of one total ({key}); the largest is used.")
        values[key] = round(max(numbers)) if key == "frames" else max(numbers)
    return DoseTotals(plane=_plane(container), **values)


def _all_zero(plane: DoseTotals) -> bool:
    """Whether a plane tells values, and each is exactly 0 (not merely missing)."""
    told = [v for v in (getattr(plane, key) for key in TOTAL_FIELDS) if v is not None]
    return bool(told) and not any(told)


def _distinct(planes: list[DoseTotals], warnings: list[str]) -> list[DoseTotals]:
    """Accumulations without exact repeats: a repeated one of the same plane would count the dose twice."""
    result: list[DoseTotals] = []
    for plane in planes:
        if plane in result:
            warnings.append("The report repeats the same totals of one plane; they are counted once.")
        else:
            if any(plane.plane == other.plane for other in result):
                warnings.append(f"The report has several totals of plane {plane.plane or '?'}; they are added.")
            result.append(plane)
    return result


def _event(container: object, warnings: list[str]) -> DoseEvent:
    found: dict[str, list[float]] = {}
    facts: dict[str, object] = {"plane": _plane(container)}
    for item in _below(container):
        code = _code(item)
        if code in EVENT_NUMBERS and item.get("ValueType") == "NUM":
            key, units, label, _ = EVENT_NUMBERS[code]
            found.setdefault(key, []).extend(_numbers(item, units, f"{label} of an event", warnings))
        elif code == "113769":
            facts["uid"] = str(item.get("UID", "") or "") or None
        elif code == "111526":
            facts["started"] = iso_time(str(item.get("DateTime", "") or ""))
        elif code == "113721" and item.get("ConceptCodeSequence"):
            facts["kind"] = _event_kind(item.ConceptCodeSequence[0])
    for key, _, label, how in EVENT_NUMBERS.values():
        numbers = found.get(key)
        if not numbers:
            continue
        if len(numbers) > 1 and how == "sum":
            warnings.append(f"{label} of an event has {len(numbers)} values, which were added.")
        value = sum(numbers) if how == "sum" else (sum(numbers) / len(numbers) if how == "mean" else numbers[0])
        facts[key] = round(value) if key == "pulses" else value
    return DoseEvent(**facts)


def _event_kind(code: object) -> str:
    value, meaning = str(code.get("CodeValue", "")), str(code.get("CodeMeaning", "")).lower()
    if value in FLUOROSCOPY_CODES or "fluoro" in meaning:
        return "fluoroscopy"
    return "acquisition" if value in ACQUISITION_CODES or "acquisition" in meaning else "unknown"


def iso_time(text: str) -> str | None:
    """DICOM DT (``20171109150056.5``) as ISO text, local to the device unless it carries an offset; None when incomplete."""
    digits, text = text.strip()[:14], text.strip()
    if len(digits) < 14 or not digits.isdigit():
        return None
    rest = text[14:]
    offset = next((rest[k:] for k in range(len(rest)) if rest[k] in "+-"), "")
    offset = f"{offset[:3]}:{offset[3:5]}" if len(offset) == 5 else ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:14]}{offset}"


def _kind(dataset: object) -> str:
    """What a structured report is instead, in words."""
    if next(_containers(dataset, CT_ACCUMULATED), None) is not None:
        return "a CT dose report"
    names = dataset.get("ConceptNameCodeSequence")
    title = str(names[0].get("CodeMeaning", "") or "") if names else ""
    return f"its title is '{title}'" if title else "it has no title"
