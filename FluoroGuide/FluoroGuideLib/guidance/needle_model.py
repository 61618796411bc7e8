"""The judgement whether a measured line is a needle with its tip at a given end: two logistic models, trained on simulated
frames (design seeds only, ``Testing/Verification/needle.py``)."""

from __future__ import annotations

import numpy as np

from ..planning.safety import NEEDLE_DIAMETER_MM

NAMES = (
    "log snr", "log length", "filled", "steadiness", "wander", "centred", "bow", "width", "step", "rms", "log tip sigma", "log line snr",
    "log weakest quarter", "drop at the tip", "other end cut", "plan mm", "plan deg", "no plan", "subtracted",
)
WEIGHTS = np.array([
    -4.9287, -0.4049, 2.1793, 3.1244, -2.0389, -0.0197, 1.5500, -1.8453, -1.2466, -0.6848,
    -8.7965, -1.2111, 1.2182, 1.2629, 0.4806, -0.1702, 0.1716, -1.8010, -2.9562, 0.5820,
])
"""Constant first, then as :data:`NAMES`; logistic regression (ridge 1): is it a needle whose tip is within 1 mm of this end?"""
HUB_WEIGHT, AWAY_WEIGHT = 0.4115, 0.07911
"""Log odds that an end is the tip, per sigma of hub and per mm of distance from the picture's middle that the other end has more."""
THRESHOLD = 0.6
"""Chosen on the same frames (cross-validated): about 3 % of the claims' tips beyond 1 mm there."""
USUAL_WIDTH_MM = 0.85


def width_of_gauge(gauge: float | None) -> float | None:
    """Outer diameter in mm of a needle of 8 to 27 G; None without a gauge or for another."""
    return None if gauge is None else ({8: 4.2, 9: 3.8} | NEEDLE_DIAMETER_MM).get(round(gauge))


def vector(
    features: dict, which: int, tip_sigma_px: float, other_cut: bool, mm_per_px: float, prior: tuple[float, float] | None, *,
    subtracted: bool = False, width_mm: float = USUAL_WIDTH_MM,
) -> np.ndarray:
    """The model's input (n,): ``needle_evidence`` features of a line with its tip at end ``which``, and its distance (mm, degrees) from the plan."""
    f = features

    def log(value: float, least: float = 1e-2) -> float:
        return float(np.log(max(value, least)))

    return np.array([
        log(f["snr"]), log(f["length_mm"] / 30.0), f["filled"], min(f["steadiness"], 2.0), min(f["wander_px"], 4.0), f["centred"],
        min(f["bow_px"], 4.0), abs(log(f["width_mm"] / width_mm)), float(np.log1p(min(f["step"], 6.0))), min(f.get("rms_px", 1.0), 4.0),
        log(min(tip_sigma_px, 12.0) * mm_per_px), log(f["line_snr"]), log(f["weakest"], 0.1), float(np.clip(f["drop"][which], -2.0, 8.0)),
        float(other_cut), *((0.0, 0.0, 1.0) if prior is None else (prior[0] / 10.0, prior[1] / 10.0, 0.0)), float(subtracted),
    ])


def confidence(x: np.ndarray) -> float:
    """Probability 0..1 of the line model for an input (n,)."""
    return _sigmoid(float(WEIGHTS[0] + WEIGHTS[1:] @ x))


def side_confidence(hub: tuple[float, float], away_mm: tuple[float, float], which: int) -> float:
    """Probability 0..1 that end ``which`` is the tip, both ends seen: the other end carries the hub, and people keep the tip in the middle."""
    other = 1 - which
    h, away = np.clip(hub, -6.0, 8.0), np.clip(away_mm[other] - away_mm[which], -60.0, 60.0)
    return _sigmoid(float(HUB_WEIGHT * (h[other] - h[which]) + AWAY_WEIGHT * away))


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(value, -30, 30))))
