"""A record as one page of text for people (``summary.txt``)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from .. import RESEARCH_NOTICE
from .dose_model import DoseSummary
from .placement import Placement

if TYPE_CHECKING:
    from .record import ProcedureRecord

WIDTH = 100
NOT_TOLD = "not told"


def summary_text(record: ProcedureRecord) -> str:
    """The record in words: procedure, plan, registrations, placements, dose, warnings; ends with the research notice."""
    lines = ["FluoroGuide procedure summary", "=" * 29, RESEARCH_NOTICE, ""]
    lines += _pairs([
        ("Procedure", record.procedure), ("Side, level", f"{record.laterality or NOT_TOLD}, {record.level or NOT_TOLD}"),
        ("Recorded", f"{record.created_utc} (UTC)"), ("Software", f"{record.software.get('name', '')} {record.software.get('version', '')}"),
        ("Patient", record.patient_key or "no identifier stored"),
    ])
    lines += _plan(record) + _views(record) + _registrations(record)
    lines += ["", "Placements"] + ([line for p in record.placements for line in _placement(p)] or ["  none recorded"])
    lines += _dose(record.dose)
    if record.notes:
        lines += ["", "Notes", *_wrapped(record.notes)]
    return "\n".join(lines) + "\n"


def _pairs(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"  {name:<16}{value}" for name, value in pairs]


def _wrapped(text: str, first: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first)) or [first.rstrip()]


def _point(point: object) -> str:
    return "(" + ", ".join(f"{v:.1f}" for v in point) + ")"


def _plan(record: ProcedureRecord) -> list[str]:
    lines = ["", "Plan (LPS mm of the volume)"]
    if record.plan is None:
        return [*lines, "  none"]
    for item in record.plan.trajectories:
        needle = f", {item.gauge:g}G" if item.gauge else ""
        needle += f", needle {item.needle_length_mm:g} mm" if item.needle_length_mm else ""
        lines.append(f"  {item.name}: entry {_point(item.entry_lps_mm)} -> target {_point(item.target_lps_mm)}, {item.length_mm:.1f} mm{needle}")
    for target in record.plan.targets:
        tolerance = f", tolerance {target.tolerance_mm:g} mm" if target.tolerance_mm else ""
        lines.append(f"  target {target.name} at {_point(target.position_lps_mm)}{tolerance}")
    return lines


def _views(record: ProcedureRecord) -> list[str]:
    lines = ["", "Views"] + [f"  {v['name']}: {v['angles']}" for v in record.views]
    for sentence in dict.fromkeys(a for v in record.views for a in v.get("assumptions", [])):
        lines += _wrapped(f"assumed: {sentence}", "    ")
    return lines if record.views else [*lines, "  none recorded"]


def _registrations(record: ProcedureRecord) -> list[str]:
    lines = ["", "Registrations"]
    for item in record.registrations:
        similarity = ", ".join(f"{s:.2f}" for s in item["similarity"] if s is not None)
        lines.append(f"  {item['verdict'].upper()} at {item['utc']}, similarity {similarity or NOT_TOLD}")
        for reason in item["reasons"]:
            lines += _wrapped(reason, "    ")
        for target in item.get("targets", []):
            error = target["predicted_error_mm"]
            lines.append(f"    predicted error at {target['name']}: " + (f"{error:.1f} mm (95 %)" if error is not None else NOT_TOLD))
    return lines if record.registrations else [*lines, "  none recorded"]


def _placement(placement: Placement) -> list[str]:
    d = placement.deviation
    along = f"{abs(d.along_mm):.1f} mm {'past' if d.along_mm > 0 else 'short of'} the target"
    lines = [f"  {placement.trajectory.name}: tip {d.tip_mm:.1f} mm from the target ({d.direction_text})"]
    lines.append(f"    {d.lateral_mm:.1f} mm beside the path, {along}")
    if d.angle_deg is not None:
        lines.append(f"    direction {d.angle_deg:.1f} degrees off, needle's line {d.entry_mm:.1f} mm from the planned entry")
    error = placement.tip_error_95_mm
    how = f"measured {'by hand' if placement.method == 'manual' else 'automatically'} from {', '.join(placement.views) or 'views not told'}"
    lines.append(f"    {how}; " + (f"the tip is known to {error:.1f} mm (95 %)" if error is not None else "uncertainty not known"))
    if d.in_target is not None:
        chance = "" if d.probability_in_target is None else f" (probability {d.probability_in_target:.0%})"
        lines.append(f"    in the target: {'yes' if d.in_target else 'no'}{chance}")
    lines.append(f"    approved by: {placement.approved_by or 'nobody yet'}")
    for warning in placement.warnings:
        lines += _wrapped(f"warning: {warning}", "    ")
    return lines


def _dose(dose: DoseSummary | None) -> list[str]:
    lines = ["", "Dose"]
    if dose is None:
        return [*lines, "  not recorded"]
    dap, kerma, seconds = dose.dap_gy_m2, dose.reference_air_kerma_gy, dose.fluoroscopy_seconds
    lines += _pairs([
        ("DAP", NOT_TOLD if dap is None else f"{dap * 1e4:.4g} Gy.cm2"), ("Ref. air kerma", NOT_TOLD if kerma is None else f"{kerma * 1e3:.4g} mGy"),
        ("Fluoroscopy", NOT_TOLD if seconds is None else f"{seconds:.1f} s"),
        ("Source", f"{dose.source}{', ' + dose.device if dose.device else ''}, {len(dose.events)} events"),
    ])
    for warning in dose.warnings:
        lines += _wrapped(f"warning: {warning}", "  ")
    return lines
