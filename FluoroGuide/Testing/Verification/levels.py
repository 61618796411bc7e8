"""A spine that bent since the CT: three neighbouring vertebrae of the thorax CT, each turned up to 5 degrees against the next.

The axis of the bend lies anywhere in the axial plane, the middle one of the three stays with the patient, tissue between follows the bones.
Two views, 90 degrees apart (even seeds) or 35 (odd ones).  Errors are means over points within 20 mm of each vertebra's centre, with the
whole volume's pose and with each level's own.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import registration_rigid as rigid_part
import SimpleITK as sitk

from FluoroGuideLib.evaluation.bending import bend_spine
from FluoroGuideLib.evaluation.protocol import mtre
from FluoroGuideLib.registration.levels import register_levels
from FluoroGuideLib.registration.register import Options
from FluoroGuideLib.registration.volume import MovingVolume

SEEDS = range(1010, 1020)  # 1000-1009 were run on designs before
SLICE = range(1)
LEAST_DEG, MOST_DEG = 1.0, 5.0


def case(seed: int) -> dict:
    """One bent spine."""
    rng = np.random.default_rng([seed, 17])
    ct, labels, _ = rigid_part.volume("thorax")
    first = int(rng.integers(0, len(rigid_part.LABELS) - 2))
    order = rigid_part.LABELS[first : first + 3]
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(labels)
    centers = [np.array(shapes.GetCentroid(int(n))) for n in order]
    angle, degrees = rng.uniform(0, 2 * np.pi), rng.uniform(LEAST_DEG, MOST_DEG, 2)
    bent, motions = bend_spine(ct, labels, order, degrees, (np.cos(angle), np.sin(angle), 0.0), fixed=1)
    truth = rigid_part.true_pose(centers[1], rng)
    images = rigid_part.xrays(bent, truth, 90.0 if seed % 2 == 0 else 35.0, rng)
    points = [rigid_part.points_around(c, rng) * (2 / 3) + c / 3 for c in centers]
    start = rigid_part.start_pose(truth, centers[1], points[1], rng)
    volume = dataclasses.replace(rigid_part.volume("thorax")[2].volume, parts=labels)
    found = register_levels(MovingVolume(volume), images, order, start, options=Options(threads=1))
    rows = []
    for label, center, around, level in zip(order, centers, points, found.levels.values(), strict=True):
        error = level.target_error({"centre": center})[0]
        true = truth @ motions[label]
        rows.append({
            "level_mtre_mm": mtre(level.pose, true, around), "whole_mtre_mm": mtre(found.whole.pose, true, around), "verdict": level.verdict,
            "target_error_mm": mtre(level.pose, true, center[None]), "predicted_error_mm": error.predicted_error_mm,
        })
    return {"degrees": degrees.tolist(), "apart_deg": 90 if seed % 2 == 0 else 35, "levels": rows, "seconds": found.seconds}


def summarize(results: list[dict]) -> dict:
    """Per level: success (< 2 mm) and medians, whole volume against own pose; coverage of the predicted error."""
    rows = [row for r in results for row in r["levels"]]
    out: dict = {"cases": len(results), "levels": len(rows)}
    for way in ("whole", "level"):
        errors = np.array([r[f"{way}_mtre_mm"] for r in rows])
        out[way] = {
            "success_percent": round(100 * float((errors < 2).mean()), 1),
            "success_wilson_95_percent": rigid_part.wilson(int((errors < 2).sum()), len(rows)),
            "median_mm": round(float(np.median(errors)), 3), "p95_mm": round(float(np.percentile(errors, 95)), 3),
            "worst_mm": round(float(errors.max()), 2),
        }
    out["predicted_95_holds_percent"] = round(100 * float(np.mean([r["target_error_mm"] <= r["predicted_error_mm"] for r in rows])), 1)
    out["wrong_and_passed"] = sum(r["level_mtre_mm"] >= 2 and r["verdict"] == "pass" for r in rows)
    out["median_seconds"] = round(float(np.median([r["seconds"] for r in results])), 2)
    return out
