"""Totals of a dose report against its irradiation events, and why they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise

from .dose_model import DoseCheck, DoseEvent, DoseTotals

MISMATCH = 0.05
"""Totals and sums of events that differ by more than this share do not agree; devices round each event."""
QUANTITIES = {
    "dap_gy_m2": ("dap_gy_m2", None, "dose area product", "Gy.m2"),
    "reference_air_kerma_gy": ("air_kerma_gy", None, "reference air kerma", "Gy"),
    "fluoroscopy_seconds": ("seconds", "fluoroscopy", "fluoroscopy time", "s"),
    "fluoroscopy_dap_gy_m2": ("dap_gy_m2", "fluoroscopy", "dose area product of fluoroscopy", "Gy.m2"),
    "fluoroscopy_air_kerma_gy": ("air_kerma_gy", "fluoroscopy", "air kerma of fluoroscopy", "Gy"),
    "acquisition_dap_gy_m2": ("dap_gy_m2", "acquisition", "dose area product of acquisitions", "Gy.m2"),
    "acquisition_air_kerma_gy": ("air_kerma_gy", "acquisition", "air kerma of acquisitions", "Gy"),
    "acquisition_seconds": ("seconds", "acquisition", "acquisition time", "s"),
}
"""Field of the total: field of the event, kind of event (None: all), name, unit."""


def event_sum(events: Iterable[DoseEvent], quantity: str) -> float | None:
    """A total recomputed from events; None where an event does not tell its part (a partial sum would look complete)."""
    field, kind, _, _ = QUANTITIES[quantity]
    events = list(events)
    if kind and any(e.kind == "unknown" for e in events):
        return None
    values = [getattr(e, field) for e in events if kind is None or e.kind == kind]
    if not values:
        return 0.0 if events and kind else None  # events of the other kind only: this kind was not used
    return None if None in values else float(sum(values))


def event_sums(events: tuple[DoseEvent, ...]) -> dict[str, float | None]:
    """The three totals that people ask for, recomputed from events; a kind that no event has is not told rather than 0."""
    sums = {key: event_sum(events, key) for key in ("dap_gy_m2", "reference_air_kerma_gy", "fluoroscopy_seconds")}
    if not any(e.kind == "fluoroscopy" for e in events):
        sums["fluoroscopy_seconds"] = None
    return sums


def estimated_seconds(events: Iterable[DoseEvent]) -> float | None:
    """Fluoroscopy time estimated from frames: pulses over pulse rate of every fluoroscopy event; None when one does not tell both."""
    total, seen = 0.0, False
    for event in events:
        if event.kind == "unknown":
            return None
        if event.kind == "fluoroscopy":
            if event.pulses is None or not event.pulse_rate_hz:
                return None
            total, seen = total + event.pulses / event.pulse_rate_hz, True
    return total if seen else None


def check_totals(totals: dict, planes: list[DoseTotals], events: tuple[DoseEvent, ...]) -> tuple[DoseCheck, ...]:
    """Every total that is stated or can be added up: of all planes, then of each where there are several."""
    checks = [_check(key, None, totals[key], events) for key in QUANTITIES]
    if len(planes) > 1:
        for plane in planes:
            own = tuple(e for e in events if e.plane == plane.plane)
            checks += [_check(key, plane.plane, getattr(plane, key), own) for key in QUANTITIES]
    return tuple(c for c in checks if c is not None)


def _check(key: str, plane: str | None, stated: float | None, events: tuple[DoseEvent, ...]) -> DoseCheck | None:
    field, kind, label, unit = QUANTITIES[key]
    where = f" of plane {plane}" if plane else ""
    own = [e for e in events if kind is None or e.kind == kind]
    total = event_sum(events, key)
    if stated is None and total is None:
        return None
    if stated is None:
        return DoseCheck(key, plane, None, total, None, f"The {label}{where} is not stated; {len(own)} events add up to {total:.6g} {unit}.")
    if total is None:
        return DoseCheck(key, plane, stated, None, None, _why_no_sum(key, label, where, stated, own, events))
    if total == 0 and stated == 0:
        return DoseCheck(key, plane, stated, total, True, f"The {label}{where} is 0, and no event has any.")
    difference = abs(total - stated)
    share = difference / max(abs(total), abs(stated))
    said = f"The {len(own)} events add up to" if len(own) != 1 else "The only event gives"
    if share <= 1e-9:
        return DoseCheck(key, plane, stated, total, True, f"{said} the stated {label}{where}.")
    # Half a unit of the last digit that the events carry, for each event: what rounding alone can do.
    rounding = 0.5 * len(own) * _last_digit([getattr(e, field) for e in own]) + 0.5 * _last_digit([stated])
    if share <= MISMATCH or difference <= rounding:
        why = "rounding of the values explains it" if difference <= rounding * (1 + 1e-6) else "more than rounding explains, and below 5 %"
        text = f"{said} {_a(label)}{where} {100 * share:.2g} % {'above' if total > stated else 'below'} the stated one; {why}."
        return DoseCheck(key, plane, stated, total, True, text)
    text = f"The events add up to another {label}{where} ({total:.4g} {unit}) than the stated total ({stated:.4g} {unit}), which is used."
    if field == "seconds":
        text += _why_not_seconds(own)
    return DoseCheck(key, plane, stated, total, False, text)


def _a(label: str) -> str:
    return ("an " if label[0] in "aeiou" else "a ") + label


def _why_no_sum(key: str, label: str, where: str, stated: float, own: list[DoseEvent], events: tuple[DoseEvent, ...]) -> str:
    field = QUANTITIES[key][0]
    if not events:
        return f"The report lists no events to compare the {label}{where} with."
    if any(e.kind == "unknown" for e in events) and QUANTITIES[key][1]:
        return f"Some events do not tell whether they are fluoroscopy, so the {label}{where} cannot be compared."
    silent = sum(getattr(e, field) is None for e in own)
    text = f"{silent} of {len(own)} events do not tell their part of the {label}{where}."
    estimate = estimated_seconds(own) if key == "fluoroscopy_seconds" else None
    if estimate is not None:
        text += f" Pulses over pulse rate, an estimate from frames, give {estimate:.3g} s against the stated {stated:.3g} s."
    return text


def _why_not_seconds(own: list[DoseEvent]) -> str:
    """Events that last beyond the start of the next one do not tell seconds."""
    starts = [(datetime.fromisoformat(e.started), e.seconds) for e in own if e.started and e.seconds is not None]
    text = ""
    overlaps = sum((b[0] - a[0]).total_seconds() < a[1] - 1 for a, b in pairwise(starts) if a[0].tzinfo == b[0].tzinfo)
    if overlaps:
        text = f" {overlaps} events last beyond the start of the next one, so the device does not write seconds there."
    estimate = estimated_seconds(own)
    if estimate is not None:
        text += f" Pulses over pulse rate, an estimate from frames, give {estimate:.3g} s."
    return text


def _last_digit(values: Iterable[float | None]) -> float:
    """The size of the last digit that the values carry, at most 12 digits: 0.00252 -> 0.00001."""
    digits = [_digit(v) for v in values if v]
    return min(digits, default=0.0)


def _digit(value: float) -> float:
    mantissa, exponent = f"{value:.11e}".split("e")
    return 10.0 ** (int(exponent) - len(mantissa.rstrip("0").split(".")[1]))


def fewer_warnings(warnings: Iterable[str]) -> tuple[str, ...]:
    """Each warning once; the same one of many events with their count."""
    pattern = re.compile(r"^(.+ of an event) (has \d+ values, which were added|is .+ and was left out)\.$")
    result: dict[str, str] = {}
    counts: dict[str, int] = {}
    for warning in warnings:
        found = pattern.match(warning)
        key = warning if not found else f"{found[1]}/{re.sub(chr(92) + 'd+', '#', found[2])}"
        counts[key] = counts.get(key, 0) + 1
        result.setdefault(key, warning)
    return tuple(
        text if counts[key] == 1 or text == key else f"{text[:-1]} (and so in {counts[key] - 1} more events)." for key, text in result.items()
    )
