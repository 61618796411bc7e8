"""One run of the evaluation: a scene (X-rays with known truth), a start, a registration, its errors.  This is what workers do."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, difference, inverse, perturb
from .protocol import mrpd, mtre, mtre_projected, perturbed_start
from .study import VIEWS, Chunk, Settings, Subject, generator, run_keys, start_distance

POINTS, RADIUS_MM = 20, 30.0
"""Errors are measured at this many points around the target (van de Kraats et al. use the region of interest)."""
_KEEP = 2
_LOCK = RLock()
_VOLUMES: OrderedDict[str, object] = OrderedDict()
_SCENES: OrderedDict[tuple, Scene] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Scene:
    """X-rays with their truth, shared by several starts."""

    images: tuple
    truth: np.ndarray
    target_name: str
    target_lps_mm: np.ndarray
    points_lps_mm: np.ndarray
    facts: dict
    part: object


def _cached(store: OrderedDict, key: object, make: Callable[[], object]) -> object:
    """The value of ``key``; the few used last are kept."""
    with _LOCK:
        if key not in store:
            while len(store) >= _KEEP:
                store.popitem(last=False)
            store[key] = make()
        store.move_to_end(key)
        return store[key]


def moving_volume(subject: Subject) -> object:
    """The subject's volume prepared for registration, made once per process."""
    from ..anatomy.attenuation import AttenuationVolume, attenuation_from_hu
    from ..registration.mr import moving_of

    def make() -> object:
        if isinstance(subject.volume, AttenuationVolume):
            return moving_of(subject.volume)
        return moving_of(attenuation_from_hu(subject.volume, subject.facts.get("modality", "CT"), subject.name))

    return _cached(_VOLUMES, f"{subject.name} {subject.digest}", make)


def scene_of(subject: Subject, settings: Settings, number: int) -> Scene:
    """The scene, from the cache or made."""
    key = (subject.name, subject.digest, settings, number)
    return _cached(_SCENES, key, lambda: make_scene(subject, settings, number))


def make_scene(subject: Subject, settings: Settings, number: int) -> Scene:
    """Choose the target, simulate (or take) the X-rays, prepare the part."""
    moving = moving_volume(subject)
    rng = generator(settings, subject.name, number)
    name, target, label = subject.targets[number % len(subject.targets)] if subject.targets else (*_bone_point(moving.volume, rng), None)
    direction = rng.normal(size=(POINTS, 3))
    points = target + direction / np.linalg.norm(direction, axis=1, keepdims=True) * rng.uniform(3, RADIUS_MM, (POINTS, 1))
    if subject.cases:
        case = subject.cases[number % len(subject.cases)]
        images, truth, facts = case.images, case.pose, {"case": case.name}
    else:
        images, truth, facts = _simulated(subject, settings, number, target, label, rng)
    return Scene(tuple(images), truth, name, target, points, facts, _part(subject, settings, moving, target, label))


def _bone_point(volume: object, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A random point of dense bone in the middle of the volume: name and (3,) volume LPS mm."""
    import SimpleITK as sitk

    from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM

    voxels = sitk.GetArrayViewFromImage(volume.image)
    low = [n // 5 for n in voxels.shape]
    middle = voxels[tuple(slice(a, n - a) for a, n in zip(low, voxels.shape, strict=True))]
    bone = np.argwhere(middle > 1.3 * WATER_ATTENUATION_PER_MM)
    if not len(bone):
        raise FluoroGuideError("The volume has no bone in its middle to take targets from", volume.name, "Give targets")
    index = (bone[rng.integers(len(bone))] + low)[::-1]
    return "bone", np.array(volume.image.TransformContinuousIndexToPhysicalPoint(index.astype(float).tolist()))


def _simulated(
    subject: Subject, settings: Settings, number: int, target: np.ndarray, label: int | None, rng: np.random.Generator,
) -> tuple[list, np.ndarray, dict]:
    """X-rays of the subject, rigid or with its surroundings moved, under a C-arm of its own."""
    import SimpleITK as sitk

    from ..registration.search import start_at_isocenter
    from .motion import move_surroundings

    truth = perturb(start_at_isocenter(target), np.r_[np.radians(rng.uniform(-10, 10, 3)), rng.uniform(-12, 12, 3)], np.zeros(3))
    source = subject.volume if subject.simulate_from is None else subject.simulate_from
    apart = settings.apart_deg[number % len(settings.apart_deg)]
    facts = {"apart_deg": apart, "moved_mm": 0.0}
    if settings.moved_mm:
        if subject.labels is None or label is None:
            raise FluoroGuideError("Moved anatomy needs the label of the bone at each target", subject.name, "Give labels, and targets inside them")
        facts["moved_mm"] = settings.moved_mm[number // len(settings.apart_deg) % len(settings.moved_mm)]
        bone = sitk.Cast(subject.labels == label, sitk.sitkUInt8)
        if subject.simulate_from is not None:
            bone = sitk.Resample(bone, source, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        source, _ = move_surroundings(source, bone, rng, facts["moved_mm"])
    return _xrays(source, truth, apart, settings, rng), truth, facts


def _xrays(source: object, pose: np.ndarray, apart_deg: float, settings: Settings, rng: np.random.Generator) -> list:
    """Two simulated views with their own C-arm distances, detector and grey scale."""
    from ..imaging.preprocess import normalize
    from ..imaging.xray import XrayImage
    from .physics import SimulationOptions
    from .simulate import prepare, simulate_view

    sod, sid, side = rng.uniform(640, 760), rng.uniform(1020, 1180), rng.uniform(290, 330)
    pixel = (side / settings.pixels, side / settings.pixels)
    first, gray, quanta, shutter = rng.uniform(-4, 4), str(rng.choice(["DISP", "LOG"])), float(rng.uniform(800, 3000)), tuple(rng.uniform(0, 0.08, 4))
    changes = {} if settings.noise == "clean" else {
        "gray": gray, "bits": 12, "soft_mismatch": 0.08, "quanta_per_mm2": quanta, "collimation": shutter, "circular_field": 1.0,
    }
    options = SimulationOptions.preset(settings.noise, projector=settings.projector, **changes)
    relationship = options.gray if options.gray in ("LOG", "LIN") else "DISP"
    carm = {"sid_mm": sid, "sod_mm": sod, "rows": settings.pixels, "columns": settings.pixels, "pixel_spacing_mm": pixel}
    views = [CArmView.from_angles(a, rng.uniform(-4, 4), **carm) for a in (first, first + apart_deg)]
    paths, images = prepare(source, views, pose, options, rng), []
    for view in views:
        made = simulate_view(paths, view, pose, options=options, rng=rng)
        normal = normalize(made.frames[0], polarity="bone dark", relationship=relationship, mask=made.mask, field=False)
        images.append(XrayImage(normal.pixels, normal.mask, view, "simulated"))
    return images


def _part(subject: Subject, settings: Settings, moving: object, target: np.ndarray, label: int | None) -> object:
    """What :func:`register` is told to register; a bone's shells are shared by the scene's starts."""
    from ..registration.mr import is_mr, mr_part
    from ..registration.parts import Part, label_distance, make_part

    if settings.part == "whole":
        return None
    if settings.part == "label":
        if subject.labels is None or label is None:
            raise FluoroGuideError("Registering a labelled bone needs labels, and targets inside them", subject.name, "Give labels, or choose 'auto'")
        labels = moving.volume.parts if is_mr(moving.volume) else subject.labels  # those of MR lie on the grid of its classes
        return Part(moving, label_distance(labels, [label]), target, f"label {label}")
    if is_mr(moving.volume):
        bone = mr_part(moving.volume, "auto", target)
        return None if bone is None else make_part(moving, bone, target)
    try:
        return make_part(moving, "auto", target)
    except FluoroGuideError:
        return "auto"  # no bone there: register() then says so in each result


def run_chunk(
    subject: Subject, settings: Settings, chunk: Chunk, report: Callable[[dict], None] | None = None, done: frozenset = frozenset(),
) -> list[dict]:
    """All runs of a chunk; ``report`` gets each as soon as it is finished.  Nothing raises: errors become rows."""
    rows = []
    for start in chunk.starts:
        for key, count in zip(run_keys(settings, subject.name, start), VIEWS[settings.views], strict=True):
            if key in done:
                continue
            began, cpu = time.perf_counter(), time.process_time()
            row = {"run": key, "subject": subject.name, "scene": chunk.scene, "start": start, "views": count}
            try:
                moving = moving_volume(subject)
                scene = scene_of(subject, settings, chunk.scene)
                began, cpu = time.perf_counter(), time.process_time()
                row |= one_run(moving, scene, settings, subject.name, chunk.scene, start, count)
            except FluoroGuideError as error:
                row |= {"verdict": "error", "reasons": str(error)}
            except Exception as error:  # one broken case must not end ten thousand
                row |= {"verdict": "error", "reasons": f"{type(error).__name__}: {error}"[:500], "unexpected": True}
            row |= {"seconds": round(time.perf_counter() - began, 3), "cpu_seconds": round(time.process_time() - cpu, 3)}
            rows.append(row)
            if report:
                report(row)
    return rows


def start_of(scene: Scene, settings: Settings, name: str, number: int, start: int) -> np.ndarray:
    """The pose a run starts from."""
    rng = generator(settings, name, number, 1 + start)
    distance = start_distance(settings, start, rng)
    return perturbed_start(
        scene.truth, apply(scene.truth, scene.target_lps_mm), rng, mtre_mm=distance, points_lps_mm=scene.points_lps_mm,
        max_rotation_deg=settings.largest_rotation_deg,
    )


def one_run(moving: object, scene: Scene, settings: Settings, name: str, number: int, start: int, count: int) -> dict:
    """Register from one start; the row's measured part."""
    from ..registration.register import Options, register

    if len(scene.images) < count:
        raise FluoroGuideError("The case has fewer views than asked for", f"{len(scene.images)} of {count}", "Choose --views one")
    images = scene.images[:2] if count == 2 else scene.images[:1]
    pose = start_of(scene, settings, name, number, start)
    options = Options(threads=1, check_part=False, search=settings.search)
    result = register(moving, images, pose, targets={"target": scene.target_lps_mm}, options=options, part=scene.part)
    return {**_facts(scene, pose), **_errors(scene, result, settings, count)}


def _facts(scene: Scene, start: np.ndarray) -> dict:
    center = apply(scene.truth, scene.target_lps_mm)
    turned = float(np.degrees(np.linalg.norm(difference(scene.truth, start, center)[:3])))
    return {
        "target": scene.target_name, **scene.facts, "start_mtre_mm": _rounded(mtre(start, scene.truth, scene.points_lps_mm)),
        "start_rotation_deg": _rounded(turned),
    }


def _errors(scene: Scene, result: object, settings: Settings, count: int) -> dict:
    truth, points, pose = scene.truth, scene.points_lps_mm, result.pose
    predicted = result.target_error({"target": scene.target_lps_mm})[0]
    error = apply(pose, scene.target_lps_mm) - apply(truth, scene.target_lps_mm)
    shift = apply(pose, points) - apply(truth, points)
    depth = float(np.mean([np.abs(shift @ view.beam).mean() for view in result.views]))
    row = {
        "mtre_mm": mtre(pose, truth, points), "mrpd_mm": mrpd(pose, truth, points, result.views),
        "mtreproj_mm": float(np.mean([mtre_projected(pose, truth, points, v) for v in result.views])), "depth_mm": depth,
        "target_error_mm": float(np.linalg.norm(error)), "predicted_error_mm": predicted.predicted_error_mm,
        "probability": probability_within(float(np.linalg.norm(error)), predicted.covariance_mm2), "similarity": min(result.similarity),
    }
    row = {k: _rounded(v) for k, v in row.items()}
    measure = row["mtre_mm"] if count == 2 else row["mrpd_mm"]
    turn = inverse(truth) @ pose
    return {
        **row, "success": measure is not None and measure < settings.success_mm, "verdict": result.verdict, "reasons": " ".join(result.reasons),
        "pose_error": " ".join(f"{v:.7g}" for v in turn[:3].ravel()),
    }


def _rounded(value: float) -> float | None:
    """Micrometres are enough; NaN and infinity are no numbers of a table."""
    return round(float(value), 6) if np.isfinite(value) else None


def probability_within(radius_mm: float, covariance_mm2: np.ndarray) -> float:
    """Probability that an error of N(0, covariance) is at most ``radius_mm`` (the approximation of :func:`radius_95`)."""
    from scipy.stats import chi2

    weights = np.clip(np.linalg.eigvalsh(covariance_mm2), 0, None)
    c1, c2, c3 = (float((weights**k).sum()) for k in (1, 2, 3))
    if not c2 > 0 or not np.isfinite(c3):
        return float("nan")
    dof = c2**3 / c3**2
    return float(chi2.cdf((radius_mm**2 - c1) / np.sqrt(c2 / dof) + dof, dof))
