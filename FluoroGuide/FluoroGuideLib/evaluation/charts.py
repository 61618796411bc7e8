"""Plots of the evaluation's report as inline SVG: success per shell, error against start, predicted error against the error, reliability.

Colours are those of Okabe and Ito; verdicts differ in shape too.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

from ..record.report_plots import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, RED, nice_step

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 420.0, 300.0, 52.0, 42.0, 12.0, 14.0
VERDICT_STYLE = {"pass": (GREEN, "circle"), "warn": (ORANGE, "square"), "fail": (RED, "cross"), "error": (GREY, "cross")}
MOST_POINTS = 4000
"""More points make a page slow and show nothing more; then every n-th is drawn, and the caption says so."""


class Axis:
    """Maps values to a length of pixels, linear or logarithmic."""

    def __init__(self, low: float, high: float, start: float, stop: float, log: bool = False) -> None:
        self.low, self.high, self.start, self.stop, self.log = low, high, start, stop, log

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low)) if self.log else (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        if self.log:
            return [10.0**k for k in range(ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9) + 1)]
        step = nice_step(self.high - self.low, 5)
        first = ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, floor(self.high / step + 1e-9) + 1)]


class Chart:
    """Axes with labels; marks are added and :meth:`svg` gives the picture."""

    def __init__(
        self, title: str, x: tuple[float, float], y: tuple[float, float], x_name: str, y_name: str, log: bool = False, log_y: bool = False,
    ) -> None:
        self.x = Axis(*x, LEFT, WIDTH - RIGHT, log)
        self.y = Axis(*y, HEIGHT - BOTTOM, TOP, log or log_y)
        self.title, self.body = title, []
        for value in self.x.ticks():
            self.line(value, self.y.low, value, self.y.high, LIGHT)
            self._text(self.x(value), HEIGHT - BOTTOM + 15, f"{value:g}", "middle")
        for value in self.y.ticks():
            self.line(self.x.low, value, self.x.high, value, LIGHT)
            self._text(LEFT - 6, self.y(value) + 4, f"{value:g}", "end")
        self._text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name, "middle", 12)
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.body.append(
            f'<text x="13" y="{middle:.1f}" text-anchor="middle" font-size="12" fill="{INK}" '
            f'transform="rotate(-90 13 {middle:.1f})">{escape(y_name)}</text>'
        )

    def _text(self, x: float, y: float, text: str, anchor: str = "start", size: float = 10.5, color: str = INK) -> None:
        self.body.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{color}">{escape(text)}</text>')

    def note(self, x: float, y: float, text: str, anchor: str = "start", color: str = INK) -> None:
        """Text at a point of the plot."""
        self._text(self.x(x), self.y(y), text, anchor, color=color)

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str = INK, width: float = 1, dash: str = "") -> None:
        """A straight line between two points of the plot."""
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        ends = f'x1="{self.x(x1):.1f}" y1="{self.y(y1):.1f}" x2="{self.x(x2):.1f}" y2="{self.y(y2):.1f}"'
        self.body.append(f'<line {ends} stroke="{color}" stroke-width="{width:g}"{extra}/>')

    def bar(self, x1: float, x2: float, y: float, color: str) -> None:
        """A bar from the lower edge."""
        left, right, top, base = self.x(x1) + 1, self.x(x2) - 1, self.y(y), self.y(self.y.low)
        self.body.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{base - top:.1f}" fill="{color}"/>')

    def mark(self, x: float, y: float, color: str, shape: str = "circle") -> None:
        """A point."""
        a, b = self.x(x), self.y(y)
        if shape == "circle":
            self.body.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{color}" fill-opacity="0.75"/>')
        elif shape == "square":
            self.body.append(f'<rect x="{a - 2.4:.1f}" y="{b - 2.4:.1f}" width="4.8" height="4.8" fill="{color}"/>')
        else:
            self.body.append(f'<path d="M{a - 3:.1f} {b - 3:.1f}l6 6m0 -6l-6 6" stroke="{color}" stroke-width="1.6"/>')

    def svg(self) -> str:
        """The picture."""
        return (
            f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(self.title)}" xmlns="http://www.w3.org/2000/svg" '
            f'font-family="inherit">{"".join(self.body)}</svg>'
        )


def success_per_shell(by_shell: Sequence[dict], capture_mm: float) -> str:
    """Bars of success in percent; the capture range as a dashed line."""
    end = by_shell[-1]["to_mm"]
    chart = Chart("Success per shell of initial mTRE", (0, end), (0, 105), "initial mTRE (mm)", "success (%)")
    for shell in by_shell:
        if shell["runs"]:
            share = 100 * shell["successes"] / shell["runs"]
            chart.bar(shell["from_mm"], shell["to_mm"], max(share, 0.8), BLUE if share >= 95 else ORANGE)
    chart.line(0, 95, end, 95, GREY, 1, "3 3")
    if capture_mm > 0:
        chart.line(capture_mm, 0, capture_mm, 104, INK, 1.4, "5 3")
        inside = capture_mm > end / 3
        chart.note(capture_mm, 8, f" capture range {capture_mm:g} mm ", "end" if inside else "start", "#ffffff" if inside else INK)
    return chart.svg()


def thinned(rows: Sequence[dict]) -> tuple[Sequence[dict], int]:
    """At most ``MOST_POINTS`` rows, and every how manieth that is."""
    every = max(1, ceil(len(rows) / MOST_POINTS))
    return rows[::every], every


def _powers(values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """A logarithmic range that holds the values, whole powers of ten."""
    low, high = min([low, *values]), max([high, *values])
    return 10.0 ** floor(log10(low)), 10.0 ** ceil(log10(high))


def error_against_start(rows: Sequence[dict], measure: str, success_mm: float, largest_mm: float) -> str:
    """Final error (logarithmic) over initial mTRE, by verdict."""
    shown = [(r["start_mtre_mm"], max(r[measure], 1e-3), r["verdict"]) for r in rows if r.get(measure) is not None and r["start_mtre_mm"] is not None]
    errors = _powers([y for _, y, _ in shown], 0.01, 10)
    chart = Chart("Error against start", (0, largest_mm), errors, "initial mTRE (mm)", _name(measure), log_y=True)
    chart.line(0, success_mm, largest_mm, success_mm, GREY, 1, "3 3")
    for x, y, verdict in shown:
        chart.mark(x, y, *VERDICT_STYLE[verdict])
    return chart.svg()


def predicted_against_actual(rows: Sequence[dict]) -> str:
    """Predicted 95 % radius against the error at the target, both logarithmic; dots above the diagonal were predicted too small."""
    shown = [
        (max(r["predicted_error_mm"], 1e-3), max(r["target_error_mm"], 1e-3), r["verdict"]) for r in rows
        if r.get("predicted_error_mm") is not None and r.get("target_error_mm") is not None
    ]
    low, high = _powers([v for x, y, _ in shown for v in (x, y)], 0.01, 10)
    chart = Chart("Predicted and actual error", (low, high), (low, high), "predicted error, 95 % (mm)", "error at the target (mm)", log=True)
    chart.line(low, low, high, high, INK, 1, "4 3")
    for x, y, verdict in shown:
        chart.mark(x, y, *VERDICT_STYLE[verdict])
    return chart.svg()


def reliability(levels: Sequence[dict]) -> str:
    """Share of errors within the radius predicted for a probability; below the diagonal means too confident."""
    chart = Chart("Reliability of the predicted error", (0, 100), (0, 100), "predicted probability (%)", "runs within it (%)")
    chart.line(0, 0, 100, 100, INK, 1, "4 3")
    known = [(100 * r["predicted"], 100 * r["observed"]) for r in levels if r["observed"] is not None]
    for (x1, y1), (x2, y2) in pairwise(known):
        chart.line(x1, y1, x2, y2, BLUE, 1.6)
    for x, y in known:
        chart.mark(x, y, BLUE)
    return chart.svg()


def _name(measure: str) -> str:
    return {"mtre_mm": "final mTRE (mm)", "mrpd_mm": "final mRPD (mm)"}.get(measure, measure)
