"""Tips in 3-D from two views 30 to 90 degrees apart, both found by the detector: no mark by hand, plan known to 3 mm and 3 degrees.

Design seeds were 0 to 29.
"""

from __future__ import annotations

import numpy as np
from frames import Frame, background, detector, draw_needle, random_needle, random_place, random_view, turned
from needle import planned_px

SEEDS = range(1000, 1040)
SLICE = (0,)


def case(seed: int) -> dict:
    """One pair."""
    from FluoroGuideLib.errors import FluoroGuideError
    from FluoroGuideLib.guidance.needle import find_needle
    from FluoroGuideLib.guidance.triangulation import locate_needle

    rng = np.random.default_rng(seed)
    first, place = random_view(rng), random_place("pelvis", rng)
    angle = rng.uniform(30, 90)
    views = [first, turned(first, angle)]
    needle = next(n for n in iter(lambda: random_needle(rng, first), None) if abs(n.axis @ views[1].beam) < 0.9)
    photons, found = float(rng.uniform(150, 600)), []
    for view in views:
        line = background("pelvis", view, place)
        draw_needle(view, needle, line)
        mask = np.ones(line.shape, bool)
        frame = Frame(detector(line, rng, photons, 0.5, 0.8, mask)[0], mask, view, needle)
        plan = planned_px(frame, np.random.default_rng(seed + 10**6))
        found.append(find_needle(frame.pixels, None, view.mm_per_pixel_at(np.zeros(3)), planned_px=plan))
    result = {"angle_deg": angle, "gauge": needle.gauge, "both_found": all(f.found for f in found)}
    if result["both_found"]:
        try:
            tips, shafts = (np.array([getattr(f, name) for f in found]) for name in ("tip_px", "shaft_px"))
            pose = locate_needle(views, tips, shafts, [max(f.tip_sigma_px, 0.5) for f in found])
        except FluoroGuideError as error:
            return result | {"refused": error.what}
        turn = float(np.degrees(np.arccos(np.clip(pose.axis @ needle.axis, -1, 1))))
        result |= {"tip_mm": float(np.linalg.norm(pose.tip_mm - needle.tip_mm)), "axis_deg": turn, "warned": bool(pose.warnings)}
    return result


def summarize(results: list[dict]) -> dict:
    """Means over the pairs in which both views found the needle."""
    good = [r for r in results if "tip_mm" in r]
    return {
        "pairs": len(results), "both_found": sum(r["both_found"] for r in results), "refused": sum("refused" in r for r in results),
        "tip_mean_mm": float(np.mean([r["tip_mm"] for r in good])), "tip_median_mm": float(np.median([r["tip_mm"] for r in good])),
        "tip_p95_mm": float(np.percentile([r["tip_mm"] for r in good], 95)), "axis_median_deg": float(np.median([r["axis_deg"] for r in good])),
        "warned": sum(r["warned"] for r in good),
    }
