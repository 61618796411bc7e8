"""What the proofs were asked for, and whether it was reached: the first table of ``Docs/accuracy.md``.

A bar is (what, proof, path of keys in its figures, ``<=`` or ``>=``, limit, unit).  Bars are asked for before a proof is run and stay when missed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

Bar = tuple[str, str, str, str, float, str]
BARS: tuple[Bar, ...] = (
    ("two views, rigid, thorax: success", "registration_rigid", "thorax / two_views / success_percent", ">=", 99, "%"),
    ("the same: median", "registration_rigid", "thorax / two_views / median_mm", "<=", 0.3, "mm"),
    ("the same: p95", "registration_rigid", "thorax / two_views / p95_mm", "<=", 0.6, "mm"),
    ("two views, rigid, pelvis: success", "registration_rigid", "pelvis / two_views / success_percent", ">=", 99, "%"),
    ("the same: median", "registration_rigid", "pelvis / two_views / median_mm", "<=", 0.3, "mm"),
    ("the same: p95", "registration_rigid", "pelvis / two_views / p95_mm", "<=", 0.6, "mm"),
    ("standardised evaluation, thorax: success", "evaluate", "thorax, two views / success_percent", ">=", 99, "%"),
    ("standardised evaluation, pelvis: success", "evaluate", "vhf_pelvis_1mm, two views / success_percent", ">=", 99, "%"),
    ("the same: median CPU in units of itk-rtk, thorax", "evaluate", "thorax, two views / median_scaled_cpu_seconds", "<=", 1.0, "s"),
    ("the same: median CPU in units of itk-rtk, pelvis", "evaluate", "vhf_pelvis_1mm, two views / median_scaled_cpu_seconds", "<=", 1.0, "s"),
    ("one view, thorax: mRPD p95", "registration_rigid", "thorax / one_view_mrpd / p95_mm", "<=", 0.5, "mm"),
    ("one view, pelvis: mRPD p95", "registration_rigid", "pelvis / one_view_mrpd / p95_mm", "<=", 0.5, "mm"),
    ("rigid, all strata, median CPU in units of itk-rtk (coarser X-rays)", "registration_calibration", "rigid / median_scaled_cpu_s", "<=", 1.0, "s"),
    ("bone that moved 3 to 15 mm, labelled: success", "calibration_parts", "moved label / success_percent", ">=", 95, "%"),
    ("the same: median", "calibration_parts", "moved label / median_mm", "<=", 0.8, "mm"),
    ("the same: median CPU in units of itk-rtk", "calibration_parts", "moved label / median_scaled_cpu_s", "<=", 2.5, "s"),
    ("the same without a label: success", "calibration_parts", "moved auto / success_percent", ">=", 90, "%"),
    ("the same without a label: median", "calibration_parts", "moved auto / median_mm", "<=", 1.2, "mm"),
    ("CBCT of 180 mm: success", "calibration_parts", "cbct / success_percent", ">=", 95, "%"),
    ("C-arm error, refined: seen within 2 mm", "carm_error", "refined / success_percent", ">=", 90, "%"),
    ("the same: 3-D target error over the mean of error-free and unrefined medians", "carm_error",
     "bar_space / refined_mm ratio to bar_space / mean_of_others_mm", "<=", 1, ""),
    ("the same, target seen in both views and triangulated", "carm_error",
     "bar_triangulated / refined_mm ratio to bar_triangulated / mean_of_others_mm", "<=", 1, ""),
    ("mobile C-arm, first view: seen within 2 mm", "mobile_carm", "bar / A / success_percent", ">=", 90, "%"),
    ("mobile C-arm, second view", "mobile_carm", "bar / B / success_percent", ">=", 90, "%"),
    ("mobile C-arm, both", "mobile_carm", "bar / both / success_percent", ">=", 90, "%"),
    ("predicted 95 % region holds, rigid (at least)", "registration_calibration", "rigid / predicted_95_holds_percent", ">=", 90, "%"),
    ("predicted 95 % region holds, rigid (at most)", "registration_calibration", "rigid / predicted_95_holds_percent", "<=", 98, "%"),
    ("predicted 95 % region holds, moved (at least)", "calibration_parts", "moved, from 5800 on / predicted_95_holds_percent", ">=", 90, "%"),
    ("predicted 95 % region holds, CBCT (at least)", "calibration_parts", "cbct / predicted_95_holds_percent", ">=", 90, "%"),
    ("predicted over actual error, rigid: median", "registration_calibration", "rigid / median_predicted_over_actual", "<=", 3, ""),
    ("predicted over actual error, moved: median", "calibration_parts", "moved, from 5800 on / median_predicted_over_actual", "<=", 3, ""),
    ("wrong registrations not passed", "registration_verdict", "all / not_passed percent of all / failures", ">=", 95, "%"),
    ("good rigid ones not passed", "registration_calibration", "rigid / successes_not_passed", "<=", 10, "%"),
    ("good moved ones not passed", "calibration_parts", "moved, from 5800 on / successes_not_passed", "<=", 10, "%"),
    ("good CBCT ones not passed", "calibration_parts", "cbct / successes_not_passed", "<=", 10, "%"),
    ("tracking, two views, up to 50 ms CPU: p95", "tracking", "fast / all / mtre_mm / p95", "<=", 0.9, "mm"),
    ("tracking, two views, up to 150 ms CPU: p95", "tracking", "fine / all / mtre_mm / p95", "<=", 0.5, "mm"),
    ("tracking, one view, up to 25 ms CPU: in-plane p95", "tracking", "single / all / mrpd_mm / p95", "<=", 0.5, "mm"),
    ("memory, 512 x 512 x 400", "memory", "peak_mb", "<=", 1500, "MB"),
    ("cancelled within", "memory", "stop_worst_ms", "<=", 200, "ms"),
    ("needle tip within 1 mm, of the claims", "needle", "tip_within_1mm_of_claims share", ">=", 95, "%"),
    ("needles claimed", "needle", "claimed_of_visible share", ">=", 85, "%"),
    ("needle tip from two views: mean", "triangulated_tip", "tip_mean_mm", "<=", 0.9, "mm"),
    ("silhouettes", "silhouette", "worst_outline_to_shadow_px", "<=", 0.7, "px"),
    ("motion: false alarms in 10 minutes", "motion", "false_alarms_per_10_minutes", "<=", 1, ""),
    ("soak, 30 minutes: growth of memory", "soak", "memory_slope_mb_per_min", "<=", 1, "MB/min"),
    ("the same: worst minute's p95, frame to overlay", "soak", "p95_ms_worst_minute", "<=", 100, "ms"),
    ("evaluation on Dask, a worker killed: time over undisturbed", "scaling", "killed_over_undisturbed", "<=", 1.3, ""),
    ("live frame to overlay: p95", "live_loop", "latency_p95_ms", "<=", 100, "ms"),
    ("acknowledged events lost in 1,000 kills", "journal_kills", "lost", "<=", 0, ""),
    ("MR, rigid: seen within 2.5 mm", "mr_registration", "all / success_percent", ">=", 90, "%"),
    ("MR, rigid: median", "mr_registration", "all / median_mrpd_mm", "<=", 1.5, "mm"),
    ("MR, vertebra that moved: seen within 2.5 mm", "mr_moved", "labelled vertebra / success_percent", ">=", 80, "%"),
    ("MR, vertebra that moved: median", "mr_moved", "labelled vertebra / median_mrpd_mm", "<=", 2.5, "mm"),
    ("MR, real lumbar spine: seen within 2.5 mm", "mr_lumbar", "right / success_percent", ">=", 90, "%"),
    ("MR, real lumbar spine: wrong ones not passed", "mr_lumbar", "all / failures_not_passed", ">=", 90, "%"),
    ("MR to CBCT: p95", "mr_cbct", "wide / p95_mm", "<=", 1, "mm"),
    ("the module's longest step", "module_workflow", "longest_step_ms", "<=", 100, "ms"),
)


def _at(figures: dict, path: str) -> object:
    for key in path.split(" / "):
        figures = figures.get(key) if isinstance(figures, dict) else None
    return figures


def value(figures: dict, path: str) -> float | None:
    """The figure at a path; shares and counts ("3 of 40") as percent, ratios of two; None where it is not there."""
    for word, factor in ((" percent of ", 100.0), (" ratio to ", 1.0)):
        if word in path:
            part, whole = (_at(figures, p) for p in path.split(word))
            return factor * part / whole if part is not None and whole else None
    found = _at(figures, path.removesuffix(" share"))
    if isinstance(found, str) and (counts := re.fullmatch(r"(\d+) of (\d+)", found)):
        return 100.0 * int(counts[1]) / max(1, int(counts[2]))
    if not isinstance(found, (int, float)):
        return None
    return 100.0 * found if path.endswith(" share") else float(found)


def table(folder: Path) -> str:
    """Markdown: every bar with what was measured."""
    lines = ["## Against what was asked for", "", "| what | asked for | measured | |", "|---|---|---|---|"]
    for what, part, path, sign, limit, unit in BARS:
        file = folder / f"{part}.json"
        measured = value(json.loads(file.read_text(encoding="utf-8"))["figures"], path) if file.is_file() else None
        if measured is None:
            told, met = "-", "not run"
        else:
            told, met = f"{measured:.4g} {unit}".strip(), "met" if (measured <= limit if sign == "<=" else measured >= limit) else "**missed**"
        lines.append(f"| {what} (`{part}`) | {'at most' if sign == '<=' else 'at least'} {limit:g} {unit}".rstrip() + f" | {told} | {met} |")
    return "\n".join([*lines, ""])
