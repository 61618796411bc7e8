"""Cases for the proofs of registration: real CTs, simulated fluoroscopy, one thing made difficult at a time.

Every case has its own noise, grey values, soft-tissue mismatch, C-arm distances and angles, pose, start and target.  A *stratum* is what
is made difficult; ``clean`` is the reference.  ``thirty_percent_collimated`` shutters 30 % of the width and of the height away.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rtk_clock
import SimpleITK as sitk

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu, read_volume
from FluoroGuideLib.evaluation.cbct import cbct_from_ct, cropped, with_contrast
from FluoroGuideLib.evaluation.pelvis_labels import pelvis_labels
from FluoroGuideLib.evaluation.protocol import mrpd, mtre, perturbed_start
from FluoroGuideLib.evaluation.sample import thorax_ct
from FluoroGuideLib.evaluation.simulate import Needle, SimulationOptions, Wire, move_surroundings, prepare, simulate_view
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import apply, perturb
from FluoroGuideLib.imaging.preprocess import normalize
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.parts import Part, label_distance
from FluoroGuideLib.registration.register import MovingVolume, Options, register
from FluoroGuideLib.registration.search import start_at_isocenter

DATA = Path(os.environ.get("FLUOROGUIDE_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
BONES = {"thorax": (36, 35, 34, 33, 32, 31), "pelvis": (1, 2, 3)}
"""Labels: T8 ... L1 in the sample CT's mask; sacrum, left and right hip."""
PICTURE = ("needle_and_wires", "contrast", "thirty_percent_collimated", "truncated_ct", "half_dose", "gamma_8_bit")
STRATA = ("clean", "cbct", *PICTURE)
PIXELS = 384


@dataclass(eq=False)
class Case:
    """One case; ``images`` are two views, ``truth`` the bone's pose, ``points`` (20, 3) where errors are measured."""

    body: str
    label: int
    apart_deg: float
    moving: MovingVolume
    labels: object
    target: np.ndarray
    truth: np.ndarray
    points: np.ndarray
    images: list[XrayImage]
    start: np.ndarray
    source: object

    def part(self) -> Part:
        """The labelled bone of the target; its shells are made once per bone."""
        kept = _part(self.body, self.label)
        part = copy.copy(kept)
        part.center_lps_mm = self.target
        return part


@functools.cache
def body(name: str) -> tuple[object, object, MovingVolume]:
    """CT in HU, label image and its prepared resolutions."""
    if name == "thorax":
        ct, labels, _ = thorax_ct()
    else:
        ct = sitk.DICOMOrient(read_volume(DATA / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz"), "LPS")
        labels = pelvis_labels(ct)
    return ct, labels, MovingVolume(attenuation_from_hu(ct, name=name))


@functools.cache
def _bone(name: str, label: int) -> np.ndarray:
    """Voxels (N, 3), k j i, of a labelled bone that are hard and not at the scan's ends."""
    ct, labels, _ = body(name)
    inside = np.argwhere(sitk.GetArrayViewFromImage(labels) == label)
    if name == "thorax":
        return inside
    hard = sitk.GetArrayViewFromImage(ct)[tuple(inside.T)] > 250
    return inside[hard & (inside[:, 0] >= 45) & (inside[:, 0] < 105)]  # the scan is only 150 mm high


@functools.lru_cache(maxsize=2)
def _part(name: str, label: int) -> Part:
    return Part(body(name)[2], label_distance(body(name)[1], [label]), np.zeros(3), "label")


def target_of(name: str, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A target (3,), LPS mm, and its label: the middle of a vertebra, or a hard voxel of sacrum or hip."""
    label = int(rng.choice(BONES[name]))
    inside = _bone(name, label)
    index = inside.mean(0) if name == "thorax" else inside[rng.integers(len(inside))].astype(float)
    return np.array(body(name)[0].TransformContinuousIndexToPhysicalPoint(index[::-1].tolist())), label


def make(
    stratum: str, name: str, apart_deg: float, rng: np.random.Generator, moved_mm: float = 0.0, shown: tuple | None = None, pixels: int = PIXELS,
) -> Case:
    """A case of a stratum, on the thorax or the pelvis; ``moved_mm``: how far the surroundings of the target's bone moved.

    ``shown``: CT and label image that the X-rays are simulated from (those that are registered by default), on ``pixels`` a side.
    """
    ct, labels, moving = body(name)
    target, label = target_of(name, rng)
    truth = perturb(start_at_isocenter(target), np.r_[np.radians(rng.uniform(-10, 10, 3)), rng.uniform(-12, 12, 3)], np.zeros(3))
    direction = rng.normal(size=(20, 3))
    points = target + direction / np.linalg.norm(direction, axis=1, keepdims=True) * rng.uniform(3, 30, (20, 1))
    (source, source_labels), things = shown or (ct, labels), []
    if moved_mm > 0:
        source, _ = move_surroundings(source, sitk.Cast(source_labels == label, sitk.sitkUInt8), rng, moved_mm)
    if stratum == "cbct":
        offset = float(rng.choice([-200.0, 200.0]))
        moving = MovingVolume(attenuation_from_hu(cbct_from_ct(ct, target + rng.uniform(-15, 15, 3), rng, offset_hu=offset), "CBCT"))
    elif stratum == "truncated_ct":
        moving = MovingVolume(attenuation_from_hu(cropped(ct, target + [0, 0, rng.uniform(-10, 10)], [np.inf, np.inf, float(rng.uniform(45, 65))])))
    elif stratum == "contrast":
        source = with_contrast(source, target, rng)
    elif stratum == "needle_and_wires":
        things = metal_near(target, rng)
    images = xrays(source, truth, apart_deg, rng, simulation(stratum, rng), things, pixels)
    start = perturbed_start(truth, apply(truth, target), rng, mtre_mm=float(rng.uniform(0, 40)), points_lps_mm=points, max_rotation_deg=20.0)
    return Case(name, label, apart_deg, moving, labels, target, truth, points, images, start, source)


def metal_near(target: np.ndarray, rng: np.random.Generator) -> list:
    """One to three needles towards the target, a guide wire and two ECG leads across the picture."""
    things: list = []
    for _ in range(rng.integers(1, 4)):
        direction = rng.normal(size=3) * [1, 0.4, 0.6] + [0, 1.2, 0]  # from behind
        tip = target + rng.uniform(-8, 8, 3)
        things.append(Needle(tip, tip + 110 * direction / np.linalg.norm(direction), int(rng.integers(17, 23))))
    for diameter, spread in ((0.9, 25), (1.5, 70), (1.5, 70)):
        path = np.linspace(-1, 1, 12)[:, None] * rng.normal(0, 90, 3) + rng.normal(0, spread, 3) + np.cumsum(rng.normal(0, 6, (12, 3)), axis=0)
        things.append(Wire(target + path, diameter))
    return things


def simulation(stratum: str, rng: np.random.Generator) -> SimulationOptions:
    """The fluoroscope of a stratum."""
    shutter = rng.uniform(0, 0.08, 4)
    if stratum == "thirty_percent_collimated":
        share = rng.uniform(0.3, 0.7, 2)
        shutter = 0.3 * np.array([share[0], 1 - share[0], share[1], 1 - share[1]])
    quanta = float(rng.uniform(800, 3000)) * (0.5 if stratum == "half_dose" else 1.0)
    options = SimulationOptions.preset(
        "fluoroscopy", gray=str(rng.choice(["DISP", "LOG"])), bits=12, soft_mismatch=0.08, quanta_per_mm2=quanta, collimation=tuple(shutter),
        circular_field=1.0,
    )
    if stratum == "gamma_8_bit":
        gamma, compression = rng.uniform(0.4, 1.6), rng.uniform(0.3, 0.9)
        options = dataclasses.replace(options, gray="DISP", bits=8, gamma=float(gamma), range_compression=float(compression))
    return options


def xrays(
    source: object, pose: np.ndarray, apart_deg: float, rng: np.random.Generator, options: SimulationOptions, things: list, pixels: int = PIXELS,
) -> list[XrayImage]:
    """Two simulated views with their own C-arm distances and detector."""
    sod, sid, field = rng.uniform(640, 760), rng.uniform(1020, 1180), rng.uniform(290, 330)
    first = rng.uniform(-4, 4)
    spacing = (field / pixels, field / pixels)
    views = [
        CArmView.from_angles(angle, rng.uniform(-4, 4), sid_mm=sid, sod_mm=sod, rows=pixels, columns=pixels, pixel_spacing_mm=spacing)
        for angle in (first, first + apart_deg)
    ]
    prepared = prepare(source, views, pose, options, rng)
    images = []
    for n, view in enumerate(views):
        made = simulate_view(prepared, view, pose, things, options, rng)
        normal = normalize(made.frames[0], polarity="bone dark", relationship=options.gray, mask=made.mask, field=False)
        images.append(XrayImage(normal.pixels, normal.mask, view, f"view {'AB'[n]}"))
    return images


def run(case: Case, way: str = "whole", views: int = 2, **changes: object) -> dict:
    """Register a case and measure: ``way`` is whole (the bone is checked), rigid (it is not), label or auto."""
    moving, start = changes.pop("moving", case.moving), changes.pop("start", case.start)
    images = changes.pop("images", case.images)[:views]
    options = Options(threads=1, check_part=way == "whole", **changes)
    wanted = {"label": case.part, "auto": lambda: "auto"}.get(way, lambda: None)()
    unit = rtk_clock.samples()
    began = time.process_time()
    found = register(moving, images, start, targets={"target": case.target}, options=options, part=wanted)
    taken = found.facts["processor_seconds"]
    times = {"cpu": round(taken, 3), "setup_cpu": round(time.process_time() - began - taken, 3)}
    return measured(found, case) | times | {"unit_ms": unit + rtk_clock.samples()}


def measured(found: object, case: Case) -> dict:
    """What is kept of one registration."""
    error = found.target_error({"target": case.target})[0]
    gap = apply(found.pose, case.target) - apply(case.truth, case.target)
    facts = {k: v for k, v in found.facts.items() if isinstance(v, (int, float, str, dict))}
    return {
        "mtre_mm": mtre(found.pose, case.truth, case.points), "mrpd_mm": mrpd(found.pose, case.truth, case.points, found.views),
        "verdict": found.verdict, "reasons": list(found.reasons), "target_error_mm": float(np.linalg.norm(gap)),
        "predicted_error_mm": error.predicted_error_mm, "in_plane_mm": list(error.in_plane_mm), "depth_mm": list(error.depth_mm),
        "covariance_mm2": error.covariance_mm2.tolist(), "gap_mm": gap.tolist(), "similarity": list(found.similarity), "facts": facts,
    }


def figures(rows: list[dict], metric: str = "mtre_mm") -> dict:
    """Success with its Wilson interval, median and 95th percentile, coverage of the predicted error, verdicts, seconds of CPU."""
    errors = np.array([r[metric] for r in rows])
    good = errors < 2.0
    ratio = [r["predicted_error_mm"] / max(r["target_error_mm"], 1e-3) for r in rows]
    inside = sum(r["target_error_mm"] <= r["predicted_error_mm"] for r in rows)
    doubted = [[r["verdict"] != "pass" for r, g in zip(rows, good, strict=True) if g == wanted] for wanted in (False, True)]
    return {
        "cases": len(rows), "success_percent": round(100 * float(good.mean()), 1), "success_wilson_95_percent": wilson(int(good.sum()), len(rows)),
        "median_mm": round(float(np.median(errors)), 3),
        "p95_mm": round(float(np.percentile(errors, 95)), 3), "worst_mm": round(float(errors.max()), 2),
        "predicted_95_holds_percent": round(100 * inside / len(rows), 1), "holds_wilson_95_percent": wilson(inside, len(rows)),
        "median_predicted_over_actual": round(float(np.median(ratio)), 2), "failures_not_passed": f"{sum(doubted[0])} of {len(doubted[0])}",
        "successes_not_passed": f"{sum(doubted[1])} of {len(doubted[1])}", "median_cpu_s": round(float(np.median([r["cpu"] for r in rows])), 2),
        **_scaled(rows),
    }


def _scaled(rows: list[dict]) -> dict:
    """The median of CPU seconds in units of itk-rtk's projection (see ``rtk_clock``), where that was measured beside."""
    if not all(r.get("unit_ms") for r in rows):
        return {}
    seconds = [rtk_clock.scaled(r["cpu"], r["unit_ms"]) for r in rows]
    unit = np.median([u for r in rows for u in r["unit_ms"]])
    return {"median_scaled_cpu_s": round(float(np.median(seconds)), 2), "unit_ms": round(float(unit), 1)}


def wilson(successes: int, total: int) -> list[float]:
    """95 % interval of a proportion in percent (Wilson 1927)."""
    if total == 0:
        return [0.0, 100.0]
    p, z = successes / total, 1.959964
    middle, half = (p + z * z / (2 * total)), z * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return [round(100 * float((middle - half) / scale), 1), round(100 * float((middle + half) / scale), 1)]


# ---- things that go wrong -----------------------------------------------------------------------------------------------
KINDS = ("one_level_off", "one_level_off_bone", "mirrored", "mirrored_both", "other_patient", "too_far", "wrong_angle", "starved")
ALWAYS_WRONG = ("mirrored", "mirrored_both", "other_patient")
"""Whatever pose is found, it is wrong."""
LEVEL_MM = 26.0


def failure(case: Case, kind: str, rng: np.random.Generator) -> dict:
    """Register a good case after something went wrong; whether the pose is wrong is judged by the truth, except for :data:`ALWAYS_WRONG`."""
    images, changes, way = list(case.images), {}, "rigid"
    if kind.startswith("one_level_off"):  # stuck at the next vertebra: coarse levels and search, which would leave it, are off
        step = rng.choice([-1.0, 1.0]) * rng.uniform(0.85, 1.15) * LEVEL_MM * case.truth[:3, 2]
        beside = perturb(case.truth, np.r_[np.radians(rng.uniform(-2, 2, 3)), step], apply(case.truth, case.target))
        changes = {"start": beside, "search": False, "levels": Options().levels[-1:]}
        way = "label" if kind.endswith("bone") else "rigid"
    elif kind.startswith("mirrored"):
        which = (0, 1) if kind.endswith("both") else (int(rng.integers(2)),)
        for n in which:
            images[n] = dataclasses.replace(images[n], pixels=images[n].pixels[:, ::-1], mask=images[n].mask[:, ::-1])
    elif kind == "other_patient":
        ct, _, other = body("pelvis" if case.body == "thorax" else "thorax")
        target, _ = target_of("pelvis" if case.body == "thorax" else "thorax", rng)
        return _other_patient(case, other, target)
    elif kind == "too_far":
        far = np.r_[np.radians(rng.uniform(30, 60)) * _unit(rng), rng.uniform(60, 120) * _unit(rng)]
        changes = {"start": perturb(case.truth, far, apply(case.truth, case.target)), "search": bool(rng.integers(2))}
    elif kind == "wrong_angle":
        images[1] = images[1].with_view(_turned(images[1].view, float(rng.choice([-1, 1]) * rng.uniform(6, 20))))
    elif kind == "starved":
        images = [_starved(x, rng) for x in images]
    return run(case, way, images=images, **changes)


def _unit(rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=3)
    return direction / np.linalg.norm(direction)


def _turned(view: CArmView, degrees: float) -> CArmView:
    """The view as it would be told with a wrong primary angle."""
    turn = np.eye(4)
    a = np.radians(degrees)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return view.moved(turn)


def _starved(image: XrayImage, rng: np.random.Generator) -> XrayImage:
    """Next to nothing left: noise as large as the picture's contrast, and a small field."""
    rows, columns = image.pixels.shape
    half, middle = rng.uniform(0.08, 0.14) * rows, np.array([rows, columns]) / 2 + rng.uniform(-0.2, 0.2, 2) * rows
    r, c = np.ogrid[:rows, :columns]
    field = (np.abs(r - middle[0]) < half) & (np.abs(c - middle[1]) < half)
    noise = rng.normal(0, rng.uniform(1.0, 3.0) * image.pixels[image.mask].std(), image.pixels.shape).astype(np.float32)
    return dataclasses.replace(image, pixels=image.pixels + noise, mask=image.mask & field)


def _other_patient(case: Case, other: MovingVolume, target: np.ndarray) -> dict:
    found = register(
        other, case.images, start_at_isocenter(target), targets={"target": target}, options=Options(threads=1, check_part=False),
    )
    wrong = dataclasses.replace(case, target=target, points=case.points - case.target + target)
    return measured(found, wrong) | {"cpu": round(found.facts["processor_seconds"], 3), "setup_cpu": 0.0}
