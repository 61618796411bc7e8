"""Motion watch: 2 mm shifts of the target bone must be seen within 3 frames while soft tissue breathes 3 mm, without false alarms.

Each case is one minute at 7.5 frames/s over a real CT: what is denser than soft tissue and the rest are projected
apart, so that the rest breathes by 3 mm (peak to peak, 4 s) while bone stays; a needle advances for 20 s and
contrast agent spreads for 20 s.  Then the bone jumps by 2 mm in a random direction, three times: in quiet, while the
needle moves, and while contrast is injected.

Targets lie in solid bone.  (Design runs with targets anywhere near the sacrum taught that a fleck of bone cannot be
watched against breathing: the watch now says so, ``MotionReading.watched``.)  Design seeds were 0 to 11.
"""

from __future__ import annotations

import numpy as np
from frames import detector, draw_needle, random_needle, volume

from FluoroGuideLib.geometry.carm import CArmView

SEEDS = range(1000, 1010)
SLICE = (0,)
FRAMES, RATE = 450, 7.5
JUMP_MM = 2.0


def bone_target(ct: object, rng: np.random.Generator) -> np.ndarray:
    """A point (3,), LPS mm, in solid bone (six tenths of a 9 mm cube) of the sacrum, the hips or the lowest vertebra."""
    import SimpleITK as sitk
    from scipy.ndimage import uniform_filter

    from FluoroGuideLib.geometry.frames import center_lps_mm, lps_from_ijk

    dense = uniform_filter((sitk.GetArrayViewFromImage(ct.image) > 0.024).astype(np.float32), 9) > 0.6
    matrix = lps_from_ijk(ct.image)
    places = np.argwhere(dense)[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
    near = places[(np.abs(places - center_lps_mm(ct.image)) < (80, 200, 45)).all(1)]
    return near[rng.integers(len(near))]


def scene(rng: np.random.Generator) -> dict:
    """Bones and soft tissue of a pelvis, projected apart, 512 x 512."""
    import SimpleITK as sitk

    from FluoroGuideLib.anatomy.bones import SOFT_PER_MM, bone_weight, part_volume
    from FluoroGuideLib.projection.joseph import Projector

    ct = volume("pelvis")
    target = bone_target(ct, rng)
    soft = sitk.Minimum(ct.image, SOFT_PER_MM)
    bones = sitk.Maximum(ct.image - SOFT_PER_MM, 0.0)
    view = CArmView.from_angles(
        rng.uniform(-30, 30), rng.uniform(-15, 15), sid_mm=1050, sod_mm=700, rows=512, columns=512, pixel_spacing_mm=(0.45, 0.45))
    pose = np.eye(4)
    pose[:3, 3] = -target
    more = [0, 0, 120]
    bone, other = (Projector(sitk.ZeroFluxNeumannPad(image, more, more)).project(view, pose).astype(float) for image in (bones, soft))
    watched = Projector(part_volume(ct, bone_weight(ct, target)).image).project(view, pose)
    return {"view": view, "pose": pose, "target": target, "bone": bone, "rest": other, "watched": watched}


def moved(image: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
    """The picture shifted by (column, row) pixels."""
    from scipy.ndimage import shift

    return shift(image, shift_px[::-1], order=1, mode="nearest")


def frames(parts: dict, rng: np.random.Generator, count: int, jump: tuple[int, np.ndarray] | None, needle_on: tuple, contrast_on: tuple):
    """Yield simulated frames; ``jump`` = (frame, mm (column, row)) of the bone."""
    view = parts["view"]
    mm = view.mm_per_pixel_at(np.zeros(3))
    direction = rng.normal(size=2)
    direction /= np.linalg.norm(direction)
    needle = random_needle(rng, view, 22)
    bolus_at = view.project(rng.uniform(-1, 1, 3) * 8)[0]
    rows, columns = np.mgrid[: view.rows, : view.columns]
    mask = np.ones((view.rows, view.columns), bool)
    photons = float(rng.uniform(150, 500))
    for k in range(count):
        breath = 1.5 * np.sin(2 * np.pi * k / RATE / 4.0 + 0.3)
        line = moved(parts["rest"], direction * breath / mm)
        bone = parts["bone"] if jump is None or k < jump[0] else moved(parts["bone"], jump[1] / mm)
        line = line + bone
        if needle_on[0] <= k < needle_on[1]:
            import dataclasses

            advanced = dataclasses.replace(needle, tip_mm=needle.tip_mm - needle.axis * (needle_on[1] - k) * 0.3)
            draw_needle(view, advanced, line)
        if contrast_on[0] <= k < contrast_on[1]:
            radius = 3.0 + 12.0 * (k - contrast_on[0]) / (contrast_on[1] - contrast_on[0])
            away = np.hypot(columns - bolus_at[0], rows - bolus_at[1]) * mm
            line = line + 0.6 * np.clip((radius - away) / 2.0, 0, 1)
        yield detector(line, rng, photons, 0.4, 0.8, mask)[0]


def case(seed: int) -> dict:
    """One minute without motion (false alarms), and three jumps."""
    from FluoroGuideLib.guidance.motion import MotionWatch

    rng = np.random.default_rng(seed)
    parts = scene(rng)

    def new_watch() -> MotionWatch:
        return MotionWatch(parts["view"], parts["pose"], parts["target"], parts["watched"])

    watch, alarms, worst, cpu, watched = new_watch(), 0, 0.0, [], 0
    import time

    before = "ok"
    for k, frame in enumerate(frames(parts, rng, FRAMES, None, (100, 250), (250, 400))):
        began = time.process_time()
        reading = watch.check(frame, k / RATE)
        cpu.append(time.process_time() - began)
        worst = max(worst, reading.distance_mm)
        watched += reading.watched
        alarms += reading.state != "ok" and before == "ok"
        before = reading.state
    result = {
        "false_alarms": int(alarms), "minutes": FRAMES / RATE / 60, "watched_share": watched / FRAMES,
        "largest_quiet_shift_mm": worst, "cpu_ms": 1e3 * float(np.median(cpu)),
    }
    for name, needle_on, contrast_on in (("quiet", (0, 0), (0, 0)), ("needle", (0, 40), (0, 0)), ("contrast", (0, 0), (10, 40))):
        angle = rng.uniform(0, 2 * np.pi)
        jump = JUMP_MM * np.array([np.cos(angle), np.sin(angle)])
        watch, delay, seen = new_watch(), None, np.zeros(2)
        for k, frame in enumerate(frames(parts, rng, 32, (25, jump), needle_on, contrast_on)):
            reading = watch.check(frame, k / RATE)
            if k >= 25 and reading.state != "ok" and delay is None:
                delay, seen = k - 25 + 1, np.array(reading.shift_mm)
        result[f"frames_to_alarm_{name}"] = delay
        result[f"shift_error_mm_{name}"] = float(np.linalg.norm(seen - jump))
    return result


def summarize(results: list[dict]) -> dict:
    """Detection within three frames, false alarms per ten minutes."""
    minutes = sum(r["minutes"] for r in results)
    delays = [r[f"frames_to_alarm_{n}"] for r in results for n in ("quiet", "needle", "contrast")]
    return {
        "jumps": len(delays), "seen_within_3_frames": sum(d is not None and d <= 3 for d in delays), "missed": sum(d is None for d in delays),
        "minutes_watched": minutes, "false_alarms": sum(r["false_alarms"] for r in results),
        "false_alarms_per_10_minutes": 10 * sum(r["false_alarms"] for r in results) / minutes,
        "bone_seen_well_enough_percent": 100 * float(np.mean([r["watched_share"] for r in results])),
        "largest_quiet_shift_mm": max(r["largest_quiet_shift_mm"] for r in results),
        "median_cpu_ms": float(np.median([r["cpu_ms"] for r in results])),
        "median_shift_error_mm": float(np.median([r[f"shift_error_mm_{n}"] for r in results for n in ("quiet", "needle", "contrast")])),
    }
