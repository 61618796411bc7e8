"""Guidance: CPU time of the overlay per view, of a live frame by stage, and of finding a needle anywhere."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Verification"))

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import motion


def overlay(rounds: int) -> list[list[object]]:
    """Three needles, three bones of the pelvis (both hips' joints and a vertebra), their levels and error ellipses, in one 1024 x 1024 view."""
    from frames import volume

    from FluoroGuideLib.anatomy.bones import bone_weight
    from FluoroGuideLib.geometry.frames import center_lps_mm
    from FluoroGuideLib.guidance.live_overlay import LiveOverlay, OverlayContent
    from FluoroGuideLib.guidance.overlay import status_shapes
    from FluoroGuideLib.guidance.silhouettes import surface_from_image
    from FluoroGuideLib.planning.plan import Plan, Target, Trajectory

    ct = volume("pelvis")
    center = center_lps_mm(ct.image)
    places = {"right": (-40.0, 30.0, 10.0), "left": (40.0, 30.0, 10.0), "vertebra": (0.0, 10.0, 55.0)}
    bones = tuple(surface_from_image(bone_weight(ct, center + p), 0.5, name) for name, p in places.items())
    targets = tuple(Target(f"t{k}", center + (20 * k - 20, 10, 10 * k), 3.0) for k in range(3))
    paths = tuple(Trajectory(f"n{k}", t.position_lps_mm + (60, 50, 10), t.position_lps_mm, 22) for k, t in enumerate(targets))
    content = OverlayContent(bones=bones, levels={f"L{k + 1}": center + (0, 0, 20 * k) for k in range(3)}, numbering_confirmed=True)
    view = CArmView.from_angles(20, 10, sid_mm=1050, sod_mm=700, rows=1024, columns=1024, pixel_spacing_mm=(0.3, 0.3))
    pose = np.eye(4)
    pose[:3, 3] = -center
    drawn = LiveOverlay(view, Plan("bench", targets, paths), content)
    drawn.shapes(pose)
    same, small, jump = [], [], []
    for k in range(rounds):
        nearby = motion([0, 0, 2e-4 * (k + 1), 0.03 * (k + 1), 0, 0], np.zeros(3)) @ pose
        far = motion([0.06 * (-1) ** k, 0.1 * (-1) ** k, 0, 5, 0, 0], np.zeros(3)) @ pose
        for times, where in ((same, pose), (same, pose), (jump, far), (jump, pose), (small, nearby)):
            began = time.process_time()
            drawn.shapes(where)
            times.append(1e3 * (time.process_time() - began))
        same.pop(-2)  # the first of the two was no repetition
    triangles = sum(len(b.triangles) for b in bones)
    assert status_shapes(view, None, "ok") == []
    return [
        ["the same pose again", statistics.median(same), max(same)],
        ["small change of pose (0.03 mm, 0.01 deg)", statistics.median(small), max(small)],
        [f"jump (3-6 deg; {triangles} triangles)", statistics.median(jump), max(jump)],
    ]


def live(frames: int) -> list[list[object]]:
    """The worker's CPU per 1024 x 1024 frame, by stage, with a 22 G needle that is followed, a motion watch and a bone outline."""
    from live_loop import setup_and_frames

    from FluoroGuideLib.guidance.live import LiveGuide

    setup, pictures, _ = setup_and_frames(np.random.default_rng(1))
    guide = LiveGuide(setup)
    stages: dict[str, list[float]] = {}
    total = []
    for k in range(frames):
        began = time.process_time()
        result = guide.process(pictures[k % len(pictures)], k, k / 15)
        total.append(1e3 * (time.process_time() - began))
        for name, value in result.milliseconds.items():
            stages.setdefault(name, []).append(value)
    rows = [[name, statistics.median(v), float(np.percentile(v, 95))] for name, v in stages.items()]
    return [*rows, ["all (CPU)", statistics.median(total), float(np.percentile(total, 95))]]


def needle(count: int) -> list[list[object]]:
    """CPU seconds of one search in 1024 x 1024 frames."""
    from frames import frame
    from needle import planned_px

    from FluoroGuideLib.guidance.needle import find_needle

    times: dict[str, list[float]] = {"near a plan": [], "anywhere": [], "anywhere, with a needle-free frame": []}
    for seed in range(count):
        f = frame(seed, free=True)
        mm = f.view.mm_per_pixel_at(np.zeros(3))
        for name, arguments in zip(times, ({"planned_px": planned_px(f, np.random.default_rng(seed))}, {}, {"free": f.free}), strict=True):
            began = time.process_time()
            find_needle(f.pixels, f.mask, mm, **arguments)
            times[name].append(1e3 * (time.process_time() - began))
    return [[name, statistics.median(v), max(v)] for name, v in times.items()]


def run(quick: bool) -> dict:
    """All figures, milliseconds of CPU."""
    return {"overlay": overlay(3 if quick else 30), "live": live(8 if quick else 150), "needle": needle(1 if quick else 10)}


def markdown(figures: dict) -> str:
    """The page's section."""
    lines = ["## Guidance", "", "CPU milliseconds, one thread. Overlay of one view: three needles, three bone outlines, labels."]
    for part, last in (("overlay", "worst"), ("live", "95 %"), ("needle", "worst")):
        lines += ["", f"| {part} | median | {last} |", "|---|---|---|"]
        lines += [f"| {name} | {median:.2f} | {other:.2f} |" for name, median, other in figures[part]]
    return "\n".join(lines)
