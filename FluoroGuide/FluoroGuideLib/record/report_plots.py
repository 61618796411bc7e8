"""The report's plots as inline SVG: deviations in bull's-eye coordinates, depth, timeline, dose against published values.

Colours are those of Okabe and Ito; every mark also differs in shape or carries text, since reports get printed in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, cos, dist, floor, hypot, log10, pi, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .dose_reference import Comparison
    from .placement import Placement

BLUE, ORANGE, GREEN, RED, GREY, LIGHT, INK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8a8f98", "#d9dde3", "#1d2430"
MOST_MM, MOST_SECONDS = 1e6, 1e9
"""Where axes end whatever a damaged record says."""
MOST_ELLIPSES = 6
"""With more needles their ellipses of uncertainty would only hide each other."""


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="inherit" font-size="12">{"".join(body)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", size: float = 12, color: str = INK, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{color}" font-weight="{weight}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str = LIGHT, width: float = 1, dash: str = "") -> str:
    extra = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width:g}"{extra}/>'


def nice_step(largest: float, parts: int) -> float:
    """1, 2 or 5 times a power of ten, so that about ``parts`` steps reach ``largest``."""
    raw = max(largest, 1e-9) / parts
    power = 10.0 ** floor(log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


# ---- bull's eye -------------------------------------------------------------------------------------------------------
def bulls_eye_axes(axis_lps: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Right and up (unit vectors, LPS) of the picture seen along a planned path, and what is up: ``"head"`` or ``"anterior"``.

    Up is the patient's head, or anterior for paths within 25 degrees of the body's long axis.
    """
    axis = np.asarray(axis_lps, float) / np.linalg.norm(axis_lps)
    name, up = ("head", np.array([0.0, 0, 1])) if abs(axis[2]) < 0.906 else ("anterior", np.array([0.0, -1, 0]))
    up = up - (up @ axis) * axis
    up /= np.linalg.norm(up)
    return np.cross(axis, up), up, name


def bulls_eye_point(placement: Placement) -> tuple[float, float, np.ndarray | None, str]:
    """Offset of the tip seen along the planned path: right, up (mm), the covariance (2, 2) there or None, and what is up."""
    right, up, name = bulls_eye_axes(placement.trajectory.axis)
    offset = np.asarray(placement.deviation.offset_lps_mm, float)
    basis = np.vstack([right, up])
    covariance = None if placement.tip_covariance_mm2 is None else basis @ placement.tip_covariance_mm2 @ basis.T
    x, y = basis @ offset
    return float(x), float(y), covariance, name


def bulls_eye(placements: Sequence[Placement], tolerances: Sequence[float | None] = ()) -> str:
    """All tips seen along their planned paths; ellipses hold the true tip with 95 % probability."""
    size, middle = 360.0, 180.0
    points = [bulls_eye_point(p) for p in placements]
    reach = min(MOST_MM, max([1.0, *(hypot(x, y) for x, y, _, _ in points), *(t for t in tolerances if t)])) * 1.12
    step = nice_step(reach, 4)
    rings = ceil(reach / step - 1e-9)
    scale = 150.0 / (rings * step)
    body = [_line(middle - 156, middle, middle + 156, middle), _line(middle, middle - 156, middle, middle + 156)]
    for k in range(1, rings + 1):
        body.append(f'<circle cx="{middle}" cy="{middle}" r="{k * step * scale:.1f}" fill="none" stroke="{LIGHT}"/>')
        body.append(_text(middle + 3, middle - k * step * scale + 11, f"{k * step:g} mm", size=9.5, color=GREY))
    for tolerance in sorted({t for t in tolerances if t}):
        circle = f'<circle cx="{middle}" cy="{middle}" r="{tolerance * scale:.1f}" fill="none" stroke="{GREEN}"'
        body.append(circle + ' stroke-dasharray="5 4" stroke-width="1.4"/>')
    if len(placements) <= MOST_ELLIPSES:
        body += [_ellipse(middle + x * scale, middle - y * scale, c, scale) for x, y, c, _ in points if c is not None]
    body += _needles([(middle + x * scale, middle - y * scale) for x, y, _, _ in points], placements)
    ups = {name for *_, name in points} or {"head"}
    body.append(_text(middle, 14, " or ".join(sorted(ups)), "middle", 11, GREY, "600"))
    body.append(_text(middle, size - 2, "seen along the planned path", "middle", 11, GREY))
    return _svg(size, size, "Tips seen along the planned path", body)


def _ellipse(x: float, y: float, covariance: np.ndarray, scale: float) -> str:
    """95 % of a 2-D normal distribution: radius sqrt(5.991) sigma along each of its axes."""
    values, vectors = np.linalg.eigh(covariance)
    a, b = (sqrt(5.991 * max(v, 0.0)) * scale for v in values)
    angle = float(np.degrees(np.arctan2(-vectors[1, 0], vectors[0, 0])))  # rows run downwards in SVG
    return (
        f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{a:.2f}" ry="{b:.2f}" transform="rotate({angle:.2f} {x:.1f} {y:.1f})" '
        f'fill="{BLUE}" fill-opacity="0.10" stroke="{BLUE}" stroke-opacity="0.5"/>'
    )


def _needles(points: list[tuple[float, float]], placements: Sequence[Placement]) -> list[str]:
    """Dots (in target: filled circle; outside: cross; not decided: ring) with their numbers, moved apart where they would collide."""
    body, taken = [], list(points)
    for k, ((x, y), placement) in enumerate(zip(points, placements, strict=True), 1):
        inside = placement.deviation.in_target
        if inside is False:
            body.append(f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{RED}" stroke-width="2.4"/>')
        else:
            fill, edge = (GREEN, GREEN) if inside else ("white", BLUE)
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{edge}" stroke-width="1.8"/>')
        label = _free_place(x, y, taken)
        taken.append(label)
        if dist(label, (x, y)) > 18:
            body.append(_line(x, y, label[0], label[1], GREY, 0.7))
        body.append(f'<circle cx="{label[0]:.1f}" cy="{label[1]:.1f}" r="7" fill="white" fill-opacity="0.8"/>')
        body.append(_text(label[0], label[1] + 4, str(k), "middle", 11, INK, "600"))
    return body


def _free_place(x: float, y: float, taken: list[tuple[float, float]]) -> tuple[float, float]:
    """A place for a label near (x, y), away from dots and other labels and inside the picture."""
    places = [(x + r * cos(a), y - r * sin(a)) for r in (13, 22, 32, 44) for a in (pi / 4 + k * pi / 6 for k in range(12))]
    inside = [p for p in places if 10 < p[0] < 350 and 10 < p[1] < 340] or places
    return next((p for p in inside if all(dist(p, q) > 13.5 for q in taken)), inside[-1])


def depths(placements: Sequence[Placement]) -> str:
    """How far each tip lies short of (left) or past (right) its target along the path."""
    row, left, width = 17.0, 30.0, 300.0
    height = 46 + row * len(placements)
    reach = min(MOST_MM, max([1.0, *(abs(p.deviation.along_mm) for p in placements)])) * 1.08
    step = nice_step(reach, 3)
    reach = ceil(reach / step) * step
    middle, scale = left + width / 2, width / 2 / reach
    body = []
    for k in range(-round(reach / step), round(reach / step) + 1):
        x = middle + k * step * scale
        body += [_line(x, 20, x, height - 22, INK if k == 0 else LIGHT), _text(x, height - 8, f"{k * step:g}", "middle", 9.5, GREY)]
    body += [_text(middle - 6, 12, "short of the target", "end", 11, GREY), _text(middle + 6, 12, "past it (mm)", "start", 11, GREY)]
    for k, placement in enumerate(placements, 1):
        y = 20 + row * (k - 0.5)
        x = middle + placement.deviation.along_mm * scale
        body += [_line(middle, y, x, y, BLUE, 5), _text(left - 8, y + 4, str(k), "end", 11, INK, "600")]
    return _svg(left + width + 12, height, "Depth of the tips", body)


# ---- timeline -----------------------------------------------------------------------------------------------------------
def timeline(events: Sequence[dict]) -> str:
    """One row per kind of event, time from the record's start to the right; several of one kind at nearly one time as a count."""
    kinds = list(dict.fromkeys(e["event"] for e in events))
    left, width, row = 120.0, 560.0, 20.0
    height = 34 + row * max(1, len(kinds))
    last = min(MOST_SECONDS, max([1.0, *(e.get("seconds") or 0.0 for e in events)]))
    unit, name = (1.0, "s") if last < 120 else (60.0, "min") if last < 3 * 3600 else (3600.0, "h")
    step = nice_step(last / unit, 6)
    scale = width / (last / unit)
    body = []
    for k in range(floor(last / unit / step + 1e-9) + 1):
        x = left + k * step * scale
        body += [_line(x, 6, x, height - 22), _text(x, height - 8, f"{k * step:g} {name}" if k else "0", "middle", 10, GREY)]
    for r, kind in enumerate(kinds):
        y = 16 + row * r
        body += [_text(left - 10, y + 4, kind if len(kind) <= 17 else kind[:16] + "…", "end", 11.5), _line(left, y, left + width, y, LIGHT, 0.6)]
        groups: list[list[float]] = []
        for x in sorted(left + (e.get("seconds") or 0.0) / unit * scale for e in events if e["event"] == kind):
            if groups and x - groups[-1][-1] < 7:
                groups[-1].append(x)
            else:
                groups.append([x])
        for group in groups:
            x = sum(group) / len(group)
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.4" fill="{BLUE}"/>')
            if len(group) > 1:
                body.append(_text(x + 7, y + 4, f"×{len(group)}", size=9.5, color=GREY))
    return _svg(left + width + 34, height, "Timeline", body)


# ---- dose -----------------------------------------------------------------------------------------------------------------
def dose_bars(comparisons: Sequence[Comparison], factor: float, unit: str) -> str:
    """This procedure's value as a bar above published ones of the same quantity."""
    rows = [("this procedure", comparisons[0].value * factor, ORANGE)]
    rows += [(c.group or "published", c.reference * factor, GREY) for c in comparisons if c.reference]
    left, width, row = 120.0, 400.0, 22.0
    largest = max(v for _, v, _ in rows) or 1.0
    body = []
    for k, (name, value, color) in enumerate(rows):
        y, length = 4 + row * k, max(1.0, width * value / largest)
        body.append(_text(left - 8, y + 13, name if len(name) <= 17 else name[:16] + "…", "end", 11.5))
        body.append(f'<rect x="{left}" y="{y:.1f}" width="{length:.1f}" height="15" fill="{color}"/>')
        body.append(_text(left + length + 6, y + 12, f"{value:.3g} {unit}", size=11))
    return _svg(left + width + 90, 6 + row * len(rows), "Dose against published values", body)
