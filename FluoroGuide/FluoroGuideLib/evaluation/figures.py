"""What the runs of a study say: success, capture range, coverage of the predicted error, verdicts (van de Kraats et al., IEEE TMI 24:1177, 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import numpy as np

from .study import Settings

CAPTURE = 0.95
VERDICTS = ("pass", "warn", "fail", "error")
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    p, z = successes / total, 1.959964
    middle, half = p + z * z / (2 * total), z * sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, (middle - half) / (1 + z * z / total)), min(1.0, (middle + half) / (1 + z * z / total))


def measure(views: int) -> str:
    """The error that decides success: in 3-D with two views, as seen with one."""
    return "mtre_mm" if views > 1 else "mrpd_mm"


def groups(table: Sequence[dict]) -> dict[str, list[dict]]:
    """Runs by subject, number of views and displacement."""
    found: dict[str, list[dict]] = {}
    for row in table:
        moved = f", surroundings moved {row['moved_mm']:g} mm" if row.get("moved_mm") else ""
        found.setdefault(f"{row['subject']}, {'two views' if row['views'] > 1 else 'one view'}{moved}", []).append(row)
    return found


def shells(rows: Sequence[dict], settings: Settings) -> list[dict]:
    """Per shell of initial mTRE: its edges, runs and successes.  Runs that ended in an error count as failures."""
    edges = settings.shells
    result = []
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = [r for r in rows if r["start"] % (len(edges) - 1) == number]
        good = sum(bool(r["success"]) for r in inside)
        result.append({"from_mm": float(low), "to_mm": float(high), "runs": len(inside), "successes": good})
    return result


def capture_range_mm(by_shell: Sequence[dict]) -> float:
    """Upper edge of the last shell with at least 95 % success before the first with less; 0 when that is the first shell.

    Shells without runs end it too: what was not tried is not claimed.
    """
    reached = 0.0
    for shell in by_shell:
        if not shell["runs"] or shell["successes"] < CAPTURE * shell["runs"]:
            break
        reached = shell["to_mm"]
    return reached


def confusion(rows: Sequence[dict]) -> dict[str, dict[str, int]]:
    """Verdicts of runs that succeeded and of those that did not."""
    return {
        word: {v: sum(r["verdict"] == v and bool(r["success"]) == good for r in rows) for v in VERDICTS}
        for word, good in (("success", True), ("failure", False))
    }


def calibration(rows: Sequence[dict]) -> list[dict]:
    """Share of runs whose error lies within what was predicted with a probability, for several probabilities."""
    known = np.array([r["probability"] for r in rows if r["probability"] is not None])
    return [{"predicted": level, "observed": float(np.mean(known <= level)) if len(known) else None, "runs": len(known)} for level in LEVELS]


def summary(rows: Sequence[dict], settings: Settings) -> dict:
    """The figures of one group."""
    name = measure(rows[0]["views"])
    finished = [r for r in rows if r.get(name) is not None]
    good = [r for r in rows if r["success"]]
    errors = np.array([r[name] for r in finished]) if finished else np.array([np.nan])
    held = [r["target_error_mm"] <= r["predicted_error_mm"] for r in finished if r["predicted_error_mm"] is not None]
    counted = confusion(rows)
    low, high = wilson(len(good), len(rows))
    return {
        "runs": len(rows), "measure": name, "success_percent": _percent(len(good), len(rows)),
        "success_wilson_95_percent": [round(100 * low, 1), round(100 * high, 1)], "capture_range_mm": capture_range_mm(shells(rows, settings)),
        "median_mm": _quantile(errors, 50), "p95_mm": _quantile(errors, 95), "worst_mm": _quantile(errors, 100),
        **{f"median_{k}_of_successes": _quantile([r[k] for r in good], 50) for k in ("mtre_mm", "mrpd_mm", "mtreproj_mm", "depth_mm")},
        "predicted_95_holds_percent": _percent(sum(held), len(held)),
        "failures_not_passed": f"{sum(v for k, v in counted['failure'].items() if k != 'pass')} of {sum(counted['failure'].values())}",
        "successes_not_passed": f"{sum(v for k, v in counted['success'].items() if k != 'pass')} of {sum(counted['success'].values())}",
        "errors": sum(r["verdict"] == "error" for r in rows), "median_cpu_seconds": _quantile([r["cpu_seconds"] for r in rows], 50),
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def _quantile(values: Sequence[float], percent: float) -> float | None:
    values = np.array([v for v in values if v is not None and np.isfinite(v)])
    return round(float(np.percentile(values, percent)), 3) if len(values) else None


def worst(table: Sequence[dict], count: int) -> list[dict]:
    """Runs for the gallery: failures that were passed first, then the other failures, largest error first; then the worst successes."""
    shown = [r for r in table if r.get("pose_error")]
    return sorted(shown, key=lambda r: (bool(r["success"]), r["verdict"] != "pass", -(r[measure(r["views"])] or np.inf), r["run"]))[:count]
