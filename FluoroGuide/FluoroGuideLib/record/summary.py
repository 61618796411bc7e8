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
    data = record.to_dict()  # with the names and times that views and registrations may lack
    lines += _plan(record) + _views(data["views"]) + _registrations(data["registrations"])
    lines += ["", "Placements"] + ([line for p in record.placements for line in _placement(p)] or ["  none recorded"])
    lines += _drugs(record) + _clinical(record) + _dose(record.dose) + _withdrawn(record.withdrawn)
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


def _views(views: list[dict]) -> list[str]:
    lines = ["", "Views"] + [f"  {v['name']}: {v['angles']}" for v in views]
    for sentence in dict.fromkeys(a for v in views for a in v.get("assumptions", [])):
        lines += _wrapped(f"assumed: {sentence}", "    ")
    return lines if views else [*lines, "  none recorded"]


def _registrations(registrations: list[dict]) -> list[str]:
    lines = ["", "Registrations"]
    for item in registrations:
        similarity = ", ".join(f"{s:.2f}" for s in item["similarity"] if s is not None)
        lines.append(f"  {item['verdict'].upper()} at {item['utc']}, similarity {similarity or NOT_TOLD}")
        for reason in item["reasons"]:
            lines += _wrapped(reason, "    ")
        for target in item.get("targets", []):
            error = target["predicted_error_mm"]
            lines.append(f"    predicted error at {target['name']}: " + (f"{error:.1f} mm (95 %)" if error is not None else NOT_TOLD))
    return lines if registrations else [*lines, "  none recorded"]


def _drugs(record: ProcedureRecord) -> list[str]:
    """Contrast and drugs; nothing when none was recorded."""
    if not record.contrast and not record.injectate:
        return []
    lines = ["", "Contrast and injectate"]
    for c in record.contrast:
        vascular = {True: "VASCULAR", False: "not vascular", None: "vascular or not: " + NOT_TOLD}[c.get("vascular")]
        lines += _wrapped(f"contrast {c['agent']}, {_ml(c.get('volume_ml'))}, pattern {c.get('pattern') or NOT_TOLD}, {vascular}")
    for g in record.injectate:
        lines += _wrapped(f"{g['drug']} {g.get('concentration') or ''}, {_ml(g.get('volume_ml'))}, lot {g.get('lot') or NOT_TOLD}".replace(" ,", ","))
    return lines


def _ml(volume: float | None) -> str:
    return f"volume {NOT_TOLD}" if volume is None else f"{volume:g} ml"


def _clinical(record: ProcedureRecord) -> list[str]:
    """Pain, complications, after-care, checklist; nothing when none was told."""
    lines = []
    for p in record.pain:
        later = "" if p.get("minutes_after") is None else f", {p['minutes_after']:g} min after"
        lines.append(f"  pain {p['when']}: {p['score']:g} ({p['scale']}{later})")
    if record.complications is not None:
        lines += _wrapped("complications: " + ("; ".join(c["text"] for c in record.complications) or "none"))
    for item in record.aftercare:
        lines += _wrapped(f"after-care: {item['text']}")
    for c in record.checklist:
        answer = NOT_TOLD if c["answer"] is None else ("no", "yes")[c["answer"]] if isinstance(c["answer"], bool) else c["answer"]
        lines += _wrapped(f"checklist: {c['item']}: {answer}")
    if record.key_images:
        lines.append(f"  key images: {len(record.key_images)}")
    return ["", "Patient", *lines] if lines else []


def _withdrawn(entries: list[dict]) -> list[str]:
    """Entries taken back; nothing when none was."""
    from .withdrawal import title

    lines = ["", "Withdrawn"] if entries else []
    for entry in entries:
        back = f", put back at {entry['reinstated_utc']}" if entry["reinstated_utc"] else ""
        lines += _wrapped(f"{title(entry)}, withdrawn at {entry['utc']}: {entry['reason']}{back}")
    return lines


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
