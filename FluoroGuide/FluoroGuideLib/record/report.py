"""The record as one printable page: ``report.html``, with its pictures and plots inside; no script, nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .. import RESEARCH_NOTICE
from ..errors import FluoroGuideError
from ..resources import RESOURCES
from .dose_reference import ACCURACY_NOTE, SHOWN, compare, outlier, substantial
from .keeper import state_mark
from .privacy import without_identifiers
from .report_plots import bulls_eye, depths, dose_bars, timeline
from .report_style import STYLE

if TYPE_CHECKING:
    from .record import ProcedureRecord

PROCEDURES = RESOURCES / "Procedures"
NOT_TOLD = '<span class="none">not told</span>'


def write_report(path: str | Path, record: ProcedureRecord, *, identifiers: bool = False, words: Iterable[str] = ()) -> None:
    """Write ``report.html``; an older file stays until the new one is complete.

    Raises
    ------
    FluoroGuideError
        It cannot be written.
    """
    path = Path(path)
    text = report_html(record, identifiers=identifiers, words=words)
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise FluoroGuideError(f"{path.name} cannot be written", error.strerror, "Choose a folder that exists and has space") from None


def report_html(record: ProcedureRecord, *, identifiers: bool = False, words: Iterable[str] = ()) -> str:
    """The report's HTML.

    Parameters
    ----------
    identifiers
        Whether the patient's identifiers of the record are shown (when it has any).
    words
        Known identifiers to remove when they are not.
    """
    from .record import ProcedureRecord

    whole = record.to_dict()
    if not identifiers:
        record = ProcedureRecord.from_dict(without_identifiers(whole, words))
    parts = [
        _head(record), _summary(record), _placements(record), _registrations(record), _dose(record), _drugs(record), _clinical(record), _plan(record),
        _views(record), _images(record), _withdrawn(record), _timeline(record),
        _section("Notes", f"<p class='notes'>{escape(record.notes)}</p>" if record.notes else ""),
    ]
    title = f"Procedure record: {_title(record.procedure)}"
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}"
        f"<footer><p>{escape(RESEARCH_NOTICE)}</p>"
        f"<p>FluoroGuide {escape(str(record.software.get('version', '')))}, record {escape(state_mark(whole))}</p></footer>"
        "</main></body></html>\n"
    )


# ---- bricks -----------------------------------------------------------------------------------------------------------
def _section(title: str, body: str, name: str = "") -> str:
    return f"<section class='{name}'><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _text(value: object) -> str:
    return NOT_TOLD if value is None or value == "" else escape(str(value))


def _number(value: float | None, unit: str = "", form: str = ".1f") -> str:
    return NOT_TOLD if value is None else f"{value:{form}}{' ' + unit if unit else ''}"


def _yes(value: bool | None) -> str:
    return NOT_TOLD if value is None else "yes" if value else "no"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), classes: Sequence[str] = ()) -> str:
    """A table of cells that are HTML already; columns ``numbers`` are aligned to the right."""
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=n' if k in numbers else ''}>{cell}</{tag}>" for k, cell in enumerate(row))

    body = "".join(f"<tr class='{classes[k] if k < len(classes) else ''}'>{cells('td', row)}</tr>" for k, row in enumerate(rows))
    return f"<table><thead><tr>{cells('th', [escape(t) for t in titles])}</tr></thead><tbody>{body}</tbody></table>"


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in pairs) + "</dl>"


def _list(sentences: Iterable[str], name: str = "") -> str:
    items = "".join(f"<li>{escape(s)}</li>" for s in dict.fromkeys(sentences))
    return f"<ul class='{name}'>{items}</ul>" if items else ""


def _when(utc: str | None) -> str:
    return NOT_TOLD if not utc else f"<span class='when'>{escape(f'{utc[:10]} {utc[11:16]}')} UTC</span>"


def _needles(numbers: Sequence[int]) -> str:
    """``[1, 2, 3, 7]`` -> ``Needles 1-3, 7``."""
    runs: list[list[int]] = []
    for n in dict.fromkeys(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    text = ", ".join(f"{r[0]}" if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
    return ("Needle " if text.isdigit() else "Needles ") + text


def _title(procedure: str) -> str:
    """The procedure library's title of a key, else the procedure as it was written."""
    if re.fullmatch(r"\w+", procedure) and (PROCEDURES / f"{procedure}.json").is_file():
        title = json.loads((PROCEDURES / f"{procedure}.json").read_text(encoding="utf-8")).get("title")
        if isinstance(title, str) and title:
            return title
    return procedure


# ---- sections ---------------------------------------------------------------------------------------------------------
def _head(record: ProcedureRecord) -> str:
    patient = record.patient or {}
    who = ", ".join(escape(str(v)) for k, v in patient.items() if v and "uid" not in k) or (
        escape(record.patient_key) if record.patient_key else "<span class='none'>no identifier stored</span>"
    )
    facts = _pairs([
        ("Patient", who), ("Side", _text(record.laterality)), ("Level", _text(record.level)), ("Approach", _text(record.approach)),
        ("Begun", _when(record.created_utc)), ("Equipment", _text(record.equipment or (record.dose.device if record.dose else None))),
    ])
    return f"<header><p class='notice'>{escape(RESEARCH_NOTICE)}</p><h1>{escape(_title(record.procedure))}</h1>{facts}</header>"


def _summary(record: ProcedureRecord) -> str:
    decided = [p.deviation.in_target for p in record.placements if p.deviation.in_target is not None]
    tips = [p.deviation.tip_mm for p in record.placements]
    verdict = record.registrations[-1].get("verdict") if record.registrations else None
    dap = record.dose.dap_gy_m2 if record.dose else None
    seconds = record.dose.fluoroscopy_seconds if record.dose else None
    complications = "not told" if record.complications is None else str(len(record.complications)) if record.complications else "none"
    cards = [
        (
            "Needles", str(len(tips)),
            f"{sum(decided)} of {len(decided)} in the target" if decided else "target not decided" if tips else "none recorded",
        ),
        ("Largest tip distance", f"{max(tips):.1f} mm" if tips else "–", f"median {sorted(tips)[len(tips) // 2]:.1f} mm" if len(tips) > 2 else ""),
        ("Registration", verdict or "–", f"{len(record.registrations)} made" if record.registrations else "none recorded"),
        ("Dose area product", "–" if dap is None else f"{dap * 1e4:.3g} Gy.cm²", "not told" if dap is None else "as displayed"),
        ("Fluoroscopy", "–" if seconds is None else f"{seconds / 60:.1f} min", "not told" if seconds is None else f"{seconds:.0f} s"),
        ("Complications", complications, ""),
    ]
    body = "".join(
        f"<div class='card {escape(value) if title == 'Registration' else ''}'><b>{escape(title)}</b><strong>{escape(value)}</strong>"
        f"<i>{escape(note)}</i></div>" for title, value, note in cards
    )
    return f"<div class='cards'>{body}</div>"


def _placements(record: ProcedureRecord) -> str:
    if not record.placements:
        return _section("Placements", "<p class='none'>No needle was recorded.</p>")
    rows, classes = [], []
    for k, p in enumerate(record.placements, 1):
        d, error = p.deviation, p.tip_error_95_mm
        chance = f" ({d.probability_in_target:.0%})" if d.probability_in_target is not None else ""
        path = p.trajectory
        needle = ", ".join([*([f"{path.gauge:g}G"] if path.gauge else []), *([f"{path.needle_length_mm:g} mm"] if path.needle_length_mm else [])])
        rows.append([
            f"<b class='when'>{k}</b>", f"{escape(path.name)}<small>{escape(needle)}</small>", _number(d.tip_mm), _number(d.lateral_mm),
            _number(d.along_mm, form="+.1f"),
            _number(d.angle_deg), _number(d.entry_mm), _number(error), (_yes(d.in_target) + chance) if d.in_target is not None else NOT_TOLD,
            f"{'by hand' if p.method == 'manual' else 'automatic'}<small>{escape(', '.join(p.views)) or 'views not told'}</small>",
            escape(p.approved_by) if p.approved_by else "<span class='none'>nobody yet</span>",
        ])
        classes.append("out" if d.in_target is False else "")
    titles = ("", "Needle", "Tip mm", "Beside path mm", "Along path mm", "Angle °", "Entry mm", "± 95 % mm", "In target", "Measured", "Approved by")
    tolerances = [record.plan.tolerance_mm(p.trajectory) for p in record.placements] if record.plan else []
    plots = f"<div class='plots'><figure>{bulls_eye(record.placements, tolerances)}</figure><figure>{depths(record.placements)}</figure></div>"
    legend = (
        "<p class='legend'>Filled dot: in the target; cross: outside; ring: not decided. Dashed: tolerance of the target. "
        "Shaded: holds the true tip with 95 % probability. Positions along the path are positive past the target.</p>"
    )
    said: dict[str, list[int]] = {}
    for k, p in enumerate(record.placements, 1):
        for warning in p.warnings:
            said.setdefault(warning, []).append(k)
    warnings = _list((f"{_needles(numbers)}: {warning}" for warning, numbers in said.items()), "warnings")
    return _section("Placements", _table(titles, rows, (2, 3, 4, 5, 6, 7), classes) + plots + legend + warnings)


def _registrations(record: ProcedureRecord) -> str:
    if not record.registrations:
        return _section("Registration", "<p class='none'>No registration was recorded.</p>")
    rows = []
    for k, r in enumerate(record.registrations, 1):
        errors = "<br>".join(f"{escape(t['name'])}: {_number(t.get('predicted_error_mm'), 'mm')}" for t in r.get("targets") or []) or NOT_TOLD
        similarity = ", ".join("–" if s is None else f"{s:.2f}" for s in r.get("similarity") or []) or NOT_TOLD
        reasons = _list(r.get("reasons", []))
        verdict = f"<b class='{escape(r['verdict'])}'>{escape(r['verdict'])}</b>{reasons}"
        rows.append([str(k), _when(r.get("utc")), verdict, errors, similarity, _text(r.get("version"))])
    return _section("Registration", _table(("", "When", "Verdict", "Predicted error (95 %)", "Similarity", "Version"), rows))


def _dose(record: ProcedureRecord) -> str:
    dose = record.dose
    if dose is None:
        return _section("Dose", "<p class='none'>Not recorded.</p>")
    def told(value: float | None, factor: float, unit: str) -> str:
        return _number(None if value is None else value * factor, unit, ".4g")

    pairs = [
        ("Dose area product", told(dose.dap_gy_m2, 1e4, "Gy.cm²")), ("Reference air kerma", told(dose.reference_air_kerma_gy, 1e3, "mGy")),
        ("Fluoroscopy time", told(dose.fluoroscopy_seconds, 1, "s")), ("Source", escape(", ".join(filter(None, (dose.source, dose.device))))),
        ("Irradiation events", str(len(dose.events)) if dose.events else NOT_TOLD), ("Frames", _text(dose.frames)),
    ]
    if dose.corrected_dap_gy_m2 is not None:
        pairs.insert(1, ("Corrected by the site", f"{dose.corrected_dap_gy_m2 * 1e4:.4g} Gy.cm² (factor {dose.dap_correction:g})"))
    if dose.fluoroscopy_seconds is None and dose.estimated_fluoroscopy_seconds is not None:
        pairs.insert(3, ("Estimated from frames", f"{dose.estimated_fluoroscopy_seconds:.4g} s"))
    if dose.planes:
        rows = [
            [_text(p.plane), told(p.dap_gy_m2, 1e4, ""), told(p.reference_air_kerma_gy, 1e3, ""), told(p.fluoroscopy_seconds, 1, "")]
            for p in dose.planes
        ]
        planes = _table(("Plane", "DAP Gy.cm²", "Air kerma mGy", "Fluoroscopy s"), rows, (1, 2, 3))
    else:
        planes = ""
    comparisons = compare(dose, record.procedure)
    plots = ""
    for quantity in dict.fromkeys(c.quantity for c in comparisons):
        own = [c for c in comparisons if c.quantity == quantity]
        label, factor, unit = SHOWN[quantity]
        plots += f"<figure><figcaption>{escape(label[0].upper() + label[1:])}</figcaption>{dose_bars(own, factor, unit)}</figure>"
    alarms = [*([high] if (high := outlier(comparisons)) else []), *substantial(dose)]
    sources = _list(c.text for c in comparisons)
    checks = _list(c.explanation for c in dose.checks if c.plane is None and c.quantity in SHOWN)
    body = _pairs(pairs) + planes + _list(alarms, "warnings") + _list(dose.warnings, "warnings") + (
        f"<div class='plots'>{plots}</div>" if plots else ""
    )
    details = (f"<h3>Against published values</h3>{sources}" if sources else "") + (f"<h3>Totals against events</h3>{checks}" if checks else "")
    return _section("Dose", f"{body}{details}<p class='legend'>{escape(ACCURACY_NOTE)}</p>")


def _drugs(record: ProcedureRecord) -> str:
    body = ""
    if record.contrast:
        rows = [
            [_when(c.get("utc")), escape(c["agent"]), _number(c.get("volume_ml"), form="g"), _text(c.get("pattern")), _yes(c.get("vascular")),
             _text(c.get("note"))] for c in record.contrast
        ]
        body += "<h3>Contrast</h3>" + _table(
            ("When", "Agent", "ml", "Pattern", "Vascular", "Note"), rows, (2,), ["out" if c.get("vascular") else "" for c in record.contrast]
        )
    if record.injectate:
        names = {p.placement_id: p.trajectory.name for p in record.placements}
        rows = [
            [_when(g.get("utc")), escape(g["drug"]), _text(g.get("concentration")), _number(g.get("volume_ml"), form="g"), _text(g.get("lot")),
             _text(names.get(g.get("placement_id")))] for g in record.injectate
        ]
        body += "<h3>Injectate</h3>" + _table(("When", "Drug", "Concentration", "ml", "Lot", "Needle"), rows, (3,))
    return _section("Contrast and injectate", body or "<p class='none'>Not recorded.</p>")


def _clinical(record: ProcedureRecord) -> str:
    body = ""
    if record.pain:
        rows = [
            [escape(p["when"]), _number(p["score"], form="g"), escape(p["scale"]), _number(p.get("minutes_after"), "min", "g"),
             _text(p.get("activity"))] for p in record.pain
        ]
        body += "<h3>Pain</h3>" + _table(("", "Score", "Scale", "After the procedure", "Activity"), rows, (1,))
    if record.complications:
        rows = [[_when(c.get("utc")), escape(c["text"]), _text(c.get("severity")), _text(c.get("treatment"))] for c in record.complications]
        body += "<h3>Complications</h3>" + _table(("When", "What", "Severity", "Treatment"), rows)
    else:
        body += f"<h3>Complications</h3><p>{'None.' if record.complications == [] else NOT_TOLD}</p>"
    if record.aftercare:
        body += "<h3>After-care</h3>" + _list(a["text"] for a in record.aftercare)
    if record.checklist:
        answers = [
            [_when(c.get("utc")), escape(c["item"]), _yes(c["answer"]) if isinstance(c["answer"], bool) else _text(c["answer"]), _text(c.get("by"))]
            for c in record.checklist
        ]
        body += "<h3>Checklist</h3>" + _table(("When", "Item", "Answer", "By"), answers)
    return _section("Patient", body)


def _plan(record: ProcedureRecord) -> str:
    if record.plan is None:
        return _section("Plan as used", "<p class='none'>None.</p>")
    rows = [
        [escape(t.name), _number(t.length_mm), _number(t.angle_to_axial_deg, form="+.1f"), _number(t.angle_to_sagittal_deg, form="+.1f"),
         " ".join(f"{v:.1f}" for v in t.entry_lps_mm), " ".join(f"{v:.1f}" for v in t.target_lps_mm)] for t in record.plan.trajectories
    ]
    titles = ("Path", "Length mm", "Cranial tilt °", "Tilt to the left °", "Entry (LPS mm)", "Target (LPS mm)")
    notes = f"<p class='notes'>{escape(record.plan.notes)}</p>" if record.plan.notes else ""
    return _section("Plan as used", (_table(titles, rows, (1, 2, 3)) if rows else "<p class='none'>No path.</p>") + notes)


def _views(record: ProcedureRecord) -> str:
    if not record.views:
        return ""
    rows = [[escape(v["name"]), _text(v.get("angles")), _when(v.get("utc")), escape("; ".join(v.get("assumptions", [])))] for v in record.views]
    return _section("C-arm views", _table(("View", "Angles", "When", "Assumed"), rows))


def _images(record: ProcedureRecord) -> str:
    import base64

    figures = ""
    for image in record.key_images:
        source = "data:image/png;base64," + base64.b64encode(image.png).decode()
        masked = " <i>(border and text masked)</i>" if image.masked else ""
        caption = ": ".join(filter(None, (escape(image.name), escape(image.caption))))
        facts = ", ".join(filter(None, (image.view, *image.shows)))
        figures += f"<figure class='picture'><img src='{source}' alt='{escape(image.name, quote=True)}'>"
        figures += f"<figcaption>{caption}{masked}<small>{escape(facts)}</small></figcaption></figure>"
    return _section("Key images", f"<div class='pictures'>{figures}</div>" if figures else "")


def _withdrawn(record: ProcedureRecord) -> str:
    """Entries that were taken back: they count nowhere else, and are never hidden."""
    from .withdrawal import title

    rows = [[escape(title(w)), _when((w.get("item") or {}).get("utc")), _when(w["utc"]), escape(w["reason"]),
             _when(w["reinstated_utc"]) if w["reinstated_utc"] else ""]
            for w in record.withdrawn]
    return _section("Withdrawn entries", _table(("Entry", "Entered", "Withdrawn", "Reason", "Put back"), rows)) if rows else ""


def _timeline(record: ProcedureRecord) -> str:
    return _section("Timeline", f"<figure class='wide'>{timeline(record.timeline)}</figure>" if record.timeline else "")
