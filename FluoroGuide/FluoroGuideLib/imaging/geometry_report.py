"""The geometry of an X-ray, each quantity with where it came from and what an error of it would do at the target."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..geometry.carm import CArmView
from .dicom_values import Quantity
from .dicom_xa import XrayRun

ANGLE_STEP_DEG = 0.9
"""What "1 % off" means for an angle: 1 % of a quarter turn, because 1 % of an angle of 0 is nothing."""
TABLE_STEP_MM = 1.0
DEFAULT_OFFSET_MM = 50.0


@dataclass(frozen=True)
class ReportEntry:
    """One quantity of the report.

    Attributes
    ----------
    name, label, value, unit, origin, note
        As :class:`~.dicom_values.Quantity`; ``value`` is that of the report's frame.
    step
        The error that was tried, in words: ``"1 % (10 mm)"``; empty where none makes sense.
    effect_mm
        How far the target's shadow then moves, measured at the target, mm; ``None`` where it is not known.
    """

    name: str
    label: str
    value: object
    unit: str
    origin: str
    note: str
    step: str = ""
    effect_mm: float | None = None


@dataclass(frozen=True)
class GeometryReport:
    """What is known of the geometry of one frame.

    Attributes
    ----------
    source, frame
        File name without folders and frame index.
    entries
        All quantities.
    missing, assumptions
        As :class:`~.dicom_xa.XrayRun`.
    target_mm
        The point, isocentre LPS mm, at which ``effect_mm`` holds; ``None`` when there is no view.
    target_note
        How that point was chosen, in words.
    """

    source: str
    frame: int
    entries: tuple[ReportEntry, ...]
    missing: tuple[str, ...]
    assumptions: tuple[str, ...]
    target_mm: tuple[float, float, float] | None
    target_note: str

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        data = asdict(self)
        for entry in data["entries"]:
            value = entry["value"]
            entry["value"] = np.asarray(value).tolist() if isinstance(value, (tuple, np.ndarray)) else value
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


def geometry_report(run: XrayRun, frame: int = 0, target_mm: np.ndarray | None = None) -> GeometryReport:
    """The report of one frame.

    The effect of a quantity is a finite difference: the view is built again with the quantity off by its step, the
    target is projected through both views, and the distance of the two pixels is taken at the target's depth.  It says
    what the error does to a plan that is drawn on the picture with a fixed pose; a registration takes part of it up.

    Parameters
    ----------
    target_mm
        (3,) isocentre LPS mm; by default a point 50 mm right of, below, and nearer to the detector than the isocentre: at the
        isocentre itself many errors do nothing.
    """
    view = None if run.missing else run.view(frame)
    note = ""
    if view is not None and target_mm is None:
        target_mm = default_target_mm(view)
        note = f"{DEFAULT_OFFSET_MM:g} mm right of, below, and nearer to the detector than the isocentre"
    entries = tuple(_entry(run, q, frame, view, target_mm) for q in run.quantities)
    if "projection_matrix" in run.card:
        entries = (ReportEntry("projection_matrix", "projection matrix 3x4", None, "", "given by the user", "says all of the geometry"),)
    target = None if view is None else tuple(float(v) for v in target_mm)
    return GeometryReport(run.source, frame, entries, run.missing, run.assumptions, target, note if target else "")


def default_target_mm(view: CArmView) -> np.ndarray:
    """The point (3,) 50 mm from the isocentre along both directions of the picture and along the beam."""
    columns, rows = (s / np.linalg.norm(s) for s in (view.column_step_mm, view.row_step_mm))
    return DEFAULT_OFFSET_MM * (columns + rows + view.beam)


def _entry(run: XrayRun, quantity: Quantity, frame: int, view: CArmView | None, target_mm: np.ndarray | None) -> ReportEntry:
    value = quantity.at(frame)
    entry = ReportEntry(quantity.name, quantity.label, value, quantity.unit, quantity.origin, quantity.note)
    if view is None:
        return entry
    changed = _changed(run, quantity, frame, view)
    if changed is None:
        return entry
    step, other = changed
    here, there = view.project(target_mm)[0], other.project(target_mm)[0]
    effect = float(np.linalg.norm(there - here)) * view.mm_per_pixel_at(target_mm)
    return ReportEntry(*(getattr(entry, k) for k in ("name", "label", "value", "unit", "origin", "note")), step, effect)


def _changed(run: XrayRun, quantity: Quantity, frame: int, view: CArmView) -> tuple[str, CArmView] | None:
    """The step in words and the view with this quantity off by it; ``None`` for what has no such step."""
    name = quantity.name
    parts = {
        "primary_deg": run.patient_angles_deg[frame][0] if run.patient_angles_deg else 0.0,
        "secondary_deg": run.patient_angles_deg[frame][1] if run.patient_angles_deg else 0.0,
        "sid_mm": view.sid_mm, "sod_mm": run.value("source_to_isocenter_mm", frame), "pixel_spacing_mm": view.pixel_spacing_mm,
        "principal_point_px": view.principal_point_px, "table_offset_mm": run.value("table_offset_mm") or (0.0, 0.0, 0.0),
    }
    if name in ("source_to_detector_mm", "source_to_isocenter_mm"):
        key = {"source_to_detector_mm": "sid_mm", "source_to_isocenter_mm": "sod_mm"}[name]
        step, parts[key] = f"1 % ({0.01 * parts[key]:.1f} mm)", 1.01 * parts[key]
    elif name in ("primary_angle_deg", "secondary_angle_deg"):
        key = name.replace("_angle", "")
        step, parts[key] = f"{ANGLE_STEP_DEG} deg (1 % of 90 deg)", parts[key] + ANGLE_STEP_DEG
    elif name == "pixel_spacing_mm":
        step, parts[name] = "1 %", tuple(1.01 * v for v in parts[name])
    elif name == "principal_point_px":
        shift = 0.01 * view.columns
        step, parts[name] = f"1 % of the width ({shift:.1f} px)", (parts[name][0] + shift, parts[name][1])
    elif name == "table_offset_mm":
        along = view.column_step_mm / np.linalg.norm(view.column_step_mm)
        step, parts[name] = f"{TABLE_STEP_MM:g} mm", tuple(np.add(parts[name], TABLE_STEP_MM * along))
    else:
        return None
    if parts["sid_mm"] <= parts["sod_mm"]:
        return None
    primary, secondary = parts.pop("primary_deg"), parts.pop("secondary_deg")
    return step, CArmView.from_angles(primary, secondary, rows=view.rows, columns=view.columns, **parts)


def report_text(report: GeometryReport) -> str:
    """The report as lines for people."""
    lines = []
    for e in report.entries:
        effect = "" if e.effect_mm is None else f"{e.effect_mm:6.2f} mm if {e.step} off"
        note = f"  ({e.note})" if e.note else ""
        lines.append(f"  {e.label:<62} {shown(e.value, e.unit):<24} {e.origin:<18} {effect:<44}{note}".rstrip())
    if report.target_mm is not None:
        place = ", ".join(f"{v:.0f}" for v in report.target_mm)
        lines.append(f"  effects hold at ({place}) mm" + (f", {report.target_note}" if report.target_note else ""))
    for key in ("missing", "assumptions"):
        lines += [f"  {key}: " + (text if text else "none") for text in getattr(report, key) or ("",)]
    return "\n".join(lines)


def shown(value: object, unit: str) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)) and len(value) > 3:
        return f"{np.min(value):g} .. {np.max(value):g} {unit}"
    if isinstance(value, (list, tuple)):
        return " x ".join(f"{v:g}" for v in value) + f" {unit}"
    return f"{value:g} {unit}".rstrip() if isinstance(value, (int, float)) else f"{value} {unit}".rstrip()
