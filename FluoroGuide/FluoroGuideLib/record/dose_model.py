"""Dose values with their units turned into Gy.m2, Gy and s; a value that is not told is None, never zero."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import FluoroGuideError

DAP_UNITS = {
    "Gy.m2": 1.0, "mGy.m2": 1e-3, "uGy.m2": 1e-6, "Gy.cm2": 1e-4, "dGy.cm2": 1e-5, "cGy.cm2": 1e-6, "mGy.cm2": 1e-7, "uGy.cm2": 1e-10,
}
KERMA_UNITS = {"Gy": 1.0, "dGy": 0.1, "cGy": 1e-2, "mGy": 1e-3, "uGy": 1e-6}
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}
RATE_UNITS = dict.fromkeys(("{pulse}/s", "{pulses}/s", "{frame}/s", "{frames}/s", "pulse/s", "pulses/s", "frames/s", "/s", "1/s", "Hz"), 1.0)
COUNT_UNITS = {"1": 1.0, "{frames}": 1.0, "{pulse}": 1.0, "{pulses}": 1.0}


def factor_of(unit: str, units: dict[str, float]) -> float | None:
    """Factor from a UCUM unit code to the base unit, or None when the code is not one of ``units``.

    Spellings of real devices count too: ``Gym2`` (Siemens), ``Gy*m2``, ``Gy.m^2``, ``µGy.m2``.  Case matters, as in UCUM
    (``mGy`` and ``MGy`` differ by 10^9).
    """
    def bare(text: str) -> str:
        for old, new in ((" ", ""), ("*", ""), (".", ""), ("·", ""), ("^", ""), ("²", "2"), ("µ", "u"), ("μ", "u")):
            text = text.replace(old, new)
        return text

    return {bare(name): factor for name, factor in units.items()}.get(bare(unit))


@dataclass(frozen=True)
class DoseEvent:
    """One irradiation event (one press of the pedal), or one image whose header tells its dose.

    Attributes
    ----------
    uid
        Irradiation event UID; an identifier, so it leaves only when asked for (:meth:`to_dict`).
    kind
        ``"fluoroscopy"``, ``"acquisition"`` or ``"unknown"``.
    plane
        ``"A"``, ``"B"``, ``"single"`` or None.
    started
        Local time of the device, ISO text, or None.
    dap_gy_m2, air_kerma_gy
        Dose area product; air kerma at the reference point.
    entrance_dose_gy
        Entrance dose of an image header; it is *not* the reference air kerma.
    seconds
        Irradiation duration (pedal time) of a report; exposure time of an image header.
    pulses, pulse_rate_hz
        Number of pulses or frames, and how many a second.
    primary_deg, secondary_deg
        Positioner angles as reported (raw device angles).
    """

    uid: str | None = None
    kind: str = "unknown"
    plane: str | None = None
    started: str | None = None
    dap_gy_m2: float | None = None
    air_kerma_gy: float | None = None
    entrance_dose_gy: float | None = None
    seconds: float | None = None
    pulses: int | None = None
    kvp: float | None = None
    tube_current_ma: float | None = None
    primary_deg: float | None = None
    secondary_deg: float | None = None
    source_to_detector_mm: float | None = None
    pulse_rate_hz: float | None = None

    def to_dict(self, identifiers: bool = False) -> dict:
        """Plain values for JSON, without the UID unless asked."""
        return {**dataclasses.asdict(self), "uid": self.uid if identifiers else None}

    @classmethod
    def from_dict(cls, data: dict) -> DoseEvent:
        """The event written by :meth:`to_dict`."""
        return cls(**{f.name: data.get(f.name, f.default) for f in dataclasses.fields(cls)})


@dataclass(frozen=True)
class DoseTotals:
    """Accumulated values of one plane, or of all; Gy.m2, Gy, s; None: not told."""

    plane: str | None = None
    dap_gy_m2: float | None = None
    reference_air_kerma_gy: float | None = None
    fluoroscopy_seconds: float | None = None
    fluoroscopy_dap_gy_m2: float | None = None
    fluoroscopy_air_kerma_gy: float | None = None
    acquisition_dap_gy_m2: float | None = None
    acquisition_air_kerma_gy: float | None = None
    acquisition_seconds: float | None = None
    frames: int | None = None


@dataclass(frozen=True)
class DoseCheck:
    """A total as the report states it against the sum of its irradiation events, with why they differ.

    Attributes
    ----------
    quantity
        Name of a field of :class:`DoseTotals`.
    plane
        Plane the total is of; None: all planes.
    stated, events
        Both values (Gy.m2, Gy, s); None: not told, or not told by every event.
    agrees
        Whether they are the same within the rounding of events; None when one is missing.
    explanation
        One sentence.
    """

    quantity: str
    plane: str | None
    stated: float | None
    events: float | None
    agrees: bool | None
    explanation: str


TOTAL_FIELDS = tuple(f.name for f in dataclasses.fields(DoseTotals) if f.name != "plane")


@dataclass(frozen=True)
class DoseSummary(DoseTotals):
    """The dose of one procedure.

    Attributes
    ----------
    planes
        Totals per plane, when the report has more than one.
    events
        Irradiation events, in the order of the file.
    warnings
        Sentences: what is missing, recomputed, or does not fit.
    source
        ``"rdsr"``, ``"image headers"`` or ``"manual"``.
    device
        Manufacturer and model; no serial number, no station name.
    fluoroscopy_time_source
        ``"reported"``, ``"added up from events"``, ``"manual"``, or None without a time.
    estimated_fluoroscopy_seconds
        Pulses over pulse rate of all fluoroscopy events: an estimate from frames, never mixed with the reported time.
    dap_correction
        The site's factor, true over displayed dose area product; all totals here are as displayed (:attr:`corrected_dap_gy_m2`).
    checks
        Totals against sums of events.
    """

    planes: tuple[DoseTotals, ...] = ()
    events: tuple[DoseEvent, ...] = ()
    warnings: tuple[str, ...] = ()
    source: str = "manual"
    device: str = ""
    fluoroscopy_time_source: str | None = None
    estimated_fluoroscopy_seconds: float | None = None
    dap_correction: float | None = None
    checks: tuple[DoseCheck, ...] = ()

    @property
    def corrected_dap_gy_m2(self) -> float | None:
        """Dose area product times the site's factor; None without either."""
        return None if self.dap_gy_m2 is None or self.dap_correction is None else self.dap_gy_m2 * self.dap_correction

    def with_correction(self, factor: float) -> DoseSummary:
        """The same dose with the site's correction factor of its dose area product (0.1 to 10).

        Raises
        ------
        FluoroGuideError
            The factor cannot be one.
        """
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0.1 <= factor <= 10:
            raise FluoroGuideError("The correction factor of the dose area product is not between 0.1 and 10", factor, "Give true over displayed DAP")
        return dataclasses.replace(self, dap_correction=float(factor))

    def to_dict(self, identifiers: bool = False) -> dict:
        """Plain values for JSON (``dose --json``); event UIDs only when asked."""
        data = {name: getattr(self, name) for name in TOTAL_FIELDS}
        return {
            **data, "planes": [dataclasses.asdict(p) for p in self.planes], "events": [e.to_dict(identifiers) for e in self.events],
            "warnings": list(self.warnings), "source": self.source, "device": self.device,
            "fluoroscopy_time_source": self.fluoroscopy_time_source, "estimated_fluoroscopy_seconds": self.estimated_fluoroscopy_seconds,
            "dap_correction": self.dap_correction, "corrected_dap_gy_m2": self.corrected_dap_gy_m2,
            "checks": [dataclasses.asdict(c) for c in self.checks],
        }

    @classmethod
    def from_dict(cls, data: dict) -> DoseSummary:
        """The summary written by :meth:`to_dict`."""
        if not isinstance(data, dict):
            raise FluoroGuideError("The record's dose is not a JSON object", type(data).__name__)
        names = ("source", "device", "fluoroscopy_time_source", "estimated_fluoroscopy_seconds", "dap_correction", *TOTAL_FIELDS)
        return cls(
            **{name: data[name] for name in names if name in data}, planes=tuple(_known(DoseTotals, p) for p in data.get("planes", [])),
            warnings=tuple(data.get("warnings", [])), events=tuple(map(DoseEvent.from_dict, data.get("events", []))),
            checks=tuple(_known(DoseCheck, c) for c in data.get("checks", [])),
        )


def _known(kind: type, data: dict) -> object:
    """A dataclass from the keys it has; those of a later version are left to the record."""
    names = {f.name for f in dataclasses.fields(kind)}
    for name in TOTAL_FIELDS:
        if not isinstance(data.get(name), (int, float, type(None))):
            raise FluoroGuideError(f"The dose's {name} is not a number", data[name])
    return kind(**{k: v for k, v in data.items() if k in names})


def add_known(values: list[float | None]) -> float | None:
    """Sum of the values that are told; None when none is."""
    known = [v for v in values if v is not None]
    return sum(known) if known else None
