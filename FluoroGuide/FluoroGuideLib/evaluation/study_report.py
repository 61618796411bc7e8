"""``report.html`` of an evaluation: one file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from .. import RESEARCH_NOTICE
from ..record.report_style import STYLE
from . import charts
from .figures import VERDICTS, calibration, confusion, groups, measure, shells, summary
from .runlog import results_digest
from .study import Settings

WORDS = {
    "runs": "runs", "success_percent": "success %", "success_wilson_95_percent": "95 % interval", "capture_range_mm": "capture range mm",
    "median_mm": "median mm", "p95_mm": "p95 mm", "worst_mm": "worst mm", "median_mtre_mm_of_successes": "mTRE mm",
    "median_mrpd_mm_of_successes": "mRPD mm", "median_mtreproj_mm_of_successes": "mTREproj mm", "median_depth_mm_of_successes": "along the beam mm",
    "predicted_95_holds_percent": "predicted 95 % holds %", "failures_not_passed": "failures not passed",
    "successes_not_passed": "successes not passed", "errors": "errors", "median_cpu_seconds": "CPU s",
}
EXPLAINED = (
    "Starts lie evenly over shells of initial mTRE. A run succeeds when its mTRE (two views) or mRPD (one view, whose depth cannot be seen) is "
    "below the limit. Capture range: upper edge of the last shell with at least 95 % success before the first with less. mTREproj leaves out the "
    "viewing direction; 'along the beam' is what it leaves out. Medians of these four are over successful runs. Errors count as failures."
)


def study_figures(table: Sequence[dict], settings: Settings) -> dict:
    """Everything that may be quoted: per group its summary, shells, verdicts and calibration."""
    return {
        name: {**summary(rows, settings), "shells": shells(rows, settings), "verdicts": confusion(rows), "calibration": calibration(rows)}
        for name, rows in groups(table).items()
    }


def study_html(table: Sequence[dict], settings: Settings, facts: dict, pictures: Sequence[tuple[dict, bytes]] = ()) -> str:
    """The page.

    Parameters
    ----------
    table
        Finished runs (:meth:`RunLog.table`).
    facts
        ``command``, ``versions``, ``machine``, ``date``, ``subjects``, ``simulated``, ``code``, ``kinds`` (what each volume is).
    pictures
        (run, PNG) each.
    """
    parts = [_head(table, settings, facts), _overview(table, settings)]
    parts += [_group(name, rows, settings) for name, rows in groups(table).items()]
    parts += [_gallery(pictures), _facts(settings, facts, table)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Evaluation of registration</title><style>{STYLE}</style></head><body><main>{body}"
        f"<footer><p>{escape(RESEARCH_NOTICE)}</p></footer></main></body></html>\n"
    )


def _head(table: Sequence[dict], settings: Settings, facts: dict) -> str:
    kind = "Simulated X-rays" if facts["simulated"] else "X-rays with gold standard"
    unfinished = facts.get("expected", len(table)) - len(table)
    warning = f"<p class='notice'>{unfinished} of {facts['expected']} runs are not done yet.</p>" if unfinished > 0 else ""
    planned = "".join(f", {n} of them MR" for n in [sum(k.startswith("MR") for k in facts.get("kinds", {}).values())] if n)
    notice = f"{kind}, {len(facts['subjects'])} volume(s){planned}: these figures say nothing of patients."
    return (
        f"<h1>Evaluation of registration</h1><p class='notice'>{notice}</p>{warning}"
        f"<p>{escape(EXPLAINED)} Limit here: {settings.success_mm:g} mm.</p>"
    )


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return " to ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else escape(str(value))


def _overview(table: Sequence[dict], settings: Settings) -> str:
    found = {name: summary(rows, settings) for name, rows in groups(table).items()}
    names = [escape(n) for n in found]
    rows = "".join(
        f"<tr><td>{escape(word)}</td>" + "".join(f"<td class='n'>{_cell(f[key])}</td>" for f in found.values()) + "</tr>"
        for key, word in WORDS.items()
    )
    head = "".join(f"<th class='n'>{n}</th>" for n in names)
    return f"<section><h2>Result</h2><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></section>"


def _group(name: str, rows: Sequence[dict], settings: Settings) -> str:
    by_shell, figures = shells(rows, settings), summary(rows, settings)
    drawn, every = charts.thinned(rows)
    note = f" Every {every}th run is drawn." if every > 1 else ""
    legend = "green dot: pass, orange square: warn, red cross: fail, grey cross: error"
    against = charts.error_against_start(drawn, measure(rows[0]["views"]), settings.success_mm, settings.largest_start_mm)
    plots = (
        (charts.success_per_shell(by_shell, figures["capture_range_mm"]), "Success per shell; 95 % is the dashed line."),
        (against, f"Error after registration; {legend}.{note}"),
        (charts.predicted_against_actual(drawn), f"Above the diagonal the error was predicted too small.{note}"),
        (charts.reliability(calibration(rows)), "How often the predicted radius held. Below the diagonal: too confident."),
    )
    shown = "".join(f"<figure>{svg}<figcaption>{escape(text)}</figcaption></figure>" for svg, text in plots)
    return f"<section><h2>{escape(name)}</h2><div class='plots' style='flex-wrap:wrap'>{shown}</div>{_confusion(rows)}</section>"


def _confusion(rows: Sequence[dict]) -> str:
    counted = confusion(rows)
    head = "".join(f"<th class='n'>{v}</th>" for v in VERDICTS)
    body = "".join(
        f"<tr{' class=out' if word == 'failure' and line['pass'] else ''}><td>{word}</td>"
        + "".join(f"<td class='n'>{line[v]}</td>" for v in VERDICTS) + "</tr>"
        for word, line in counted.items()
    )
    return f"<h3>Verdicts</h3><table><thead><tr><th>the run was a</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _gallery(pictures: Sequence[tuple[dict, bytes]]) -> str:
    if not pictures:
        return ""
    shown = "".join(
        f"<figure class='picture'><img alt='run {escape(row['run'])}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        f"<figcaption>{escape(row['run'])}: {'success' if row['success'] else 'failure'}, {escape(row['verdict'])}, mTRE {_cell(row['mtre_mm'])} mm, "
        f"from {_cell(row['start_mtre_mm'])} mm<small>{escape(row['reasons'] or '')}</small></figcaption></figure>" for row, png in pictures
    )
    return (
        "<section><h2>Failures, then the worst successes</h2><p class='legend'>Edges of the volume: green where it is, orange where it was found.</p>"
        f"<div class='pictures'>{shown}</div></section>"
    )


def _facts(settings: Settings, facts: dict, table: Sequence[dict]) -> str:
    kinds = facts.get("kinds", {})
    lines = {
        "command": facts["command"], "seed": settings.seed, "settings": ", ".join(f"{k} {v}" for k, v in settings.to_dict().items()),
        "code": facts["code"], "versions": ", ".join(f"{k} {v}" for k, v in facts["versions"].items()), "machine": facts["machine"],
        "date": facts["date"], "results": f"digest {results_digest(table)} of all columns but times",
        **{f"volume {name}": f"{kinds.get(name, 'CT')}, SHA-256 {digest[:16]}" for name, digest in facts["subjects"].items()},
    }
    body = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in lines.items())
    return f"<section><h2>How to repeat this</h2><table><tbody>{body}</tbody></table></section>"
