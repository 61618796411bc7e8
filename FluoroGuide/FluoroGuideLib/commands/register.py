"""``fluoroguide register``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..planning.jsonfile import plain, write_json
from . import common, identity
from .landmarks import start_from
from .through import register_through


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--volume", required=True, metavar="V", help="CT, CBCT or MR: a file that SimpleITK reads, or a DICOM folder")
    parser.add_argument("--modality", choices=["ct", "mr"], help="what the volume is, where it is not recognised rightly")
    parser.add_argument("--through", metavar="CBCT", help="the volume is MR: register it to this CBCT or CT first, and that to the X-rays")
    common.add_xrays(parser)
    parser.add_argument("--initial", type=Path, metavar="TFM", help="rough pose, volume to isocentre (LPS, mm)")
    parser.add_argument("--landmarks", type=Path, metavar="JSON", help="points marked in volume and X-rays: the start, instead of --initial")
    parser.add_argument("--targets", type=Path, metavar="JSON", help="targets.json or plan.json: where the error is predicted")
    parser.add_argument("--plan", type=Path, metavar="JSON", help="plan to draw on the overlays; its targets are used when --targets is not given")
    parser.add_argument("--bones", type=Path, metavar="NRRD", help="label image of bones, on the volume's grid")
    parser.add_argument("--bone", action="append", type=int, metavar="LABEL", help="label(s) of the bone to register on its own (needs --bones)")
    parser.add_argument(
        "--part", choices=["auto", "whole"], help="the bone found around the targets (default when there are targets), or the whole volume",
    )
    parser.add_argument("--levels", metavar="L,L,...", help="labels of neighbouring bones in order: each gets its own pose (needs --bones)")
    parser.add_argument(
        "--carm", choices=["fixed", "refine", "mobile"],
        help="the C-arm's geometry is right (default), is right within tolerances and estimated, or was read by hand on a mobile C-arm",
    )
    parser.add_argument(
        "--carm-tolerance", metavar="NAME=LIMIT,...",
        help="largest errors for --carm: angle and roll (degrees), shift (mm between views), sid (percent), point (principal point, pixels)",
    )
    parser.add_argument("--no-search", action="store_true", help="only refine the initial pose")
    parser.add_argument("--threads", type=int, default=2)
    identity.add_confirmation(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Register, write ``pose.tfm``, ``result.json`` and one overlay per view."""
    from ..geometry.rigid import write_tfm
    from ..planning.plan import Plan, read_plan, read_targets
    from ..registration.register import Options, bone_bright, register, warm_up

    initial = common.read_pose(arguments.initial)
    plan = read_plan(arguments.plan) if arguments.plan else None
    targets = read_targets(arguments.targets) if arguments.targets else []
    plan = plan or (Plan("registration", tuple(targets)) if targets else None)
    points = {t.name: t.position_lps_mm for t in targets} or (plan.target_points() if plan else None)
    images = common.read_xrays(arguments.xray, arguments.geometry, arguments.frame)
    lines: list[str] = []
    if arguments.landmarks:
        if initial is not None:
            raise FluoroGuideError("--landmarks and --initial exclude each other", None, "Give one start")
        initial, marks, lines = start_from(arguments.landmarks, [image.view for image in images])
    check = identity.check_case(arguments, arguments.volume, arguments.xray, plan)
    options = Options(search=not arguments.no_search, threads=arguments.threads, carm=choose_carm(arguments))
    facts = {}
    if arguments.through:
        output = common.output_folder(arguments.output)
        warm_up()
        through = register_through(arguments, images, initial, points, options, output)
        volume, registration, facts, drawn = through.volume, through.registration, through.facts, through.pose
    else:
        volume = common.read_attenuation(arguments.volume, arguments.modality)
        output = common.output_folder(arguments.output)
        warm_up()
        volume, part = choose_part(arguments, volume, points)
        if arguments.levels:
            return run_levels(arguments, volume, images, initial, points, plan, options, output)
        registration = register(volume, images, initial, targets=points, options=options, progress=common.Bar(), part=part)
        drawn = registration.pose
    result = {**registration.to_dict(points), **facts}
    result["xrays"] = [Path(p).name for p in arguments.xray]
    result["assumptions"] = [a for image in images for a in image.assumptions]
    result["identity"] = check.to_dict()
    if arguments.landmarks:
        result["landmarks"] = marks
    write_tfm(output / "pose.tfm", registration.pose)
    write_json(output / "result.json", plain(result))
    result["overlays"] = draw_overlays(volume, bone_bright(images, registration), registration, plan, output, pose=drawn)
    common.show(arguments, result, "\n".join([*identity.lines(check), *lines, describe(registration, result, output)]))
    return 1 if registration.verdict == "fail" else 0


def choose_part(arguments: argparse.Namespace, volume: object, points: dict | None) -> tuple[object, object]:
    """The volume (with its labels) and what to register: label values, ``"auto"`` or None."""
    import dataclasses

    from ..anatomy.attenuation import read_volume
    from ..anatomy.mr import with_labels
    from ..geometry.frames import lps_from_ijk

    if bool(arguments.bone or arguments.levels) != bool(arguments.bones):
        raise FluoroGuideError("--bones and --bone (or --levels) go together", None, "Give the label image and the label of the bone")
    if arguments.bone and arguments.levels:
        raise FluoroGuideError("--bone and --levels exclude each other", None, "Use --levels for several bones, each with its own pose")
    if arguments.bones:
        labels = read_volume(arguments.bones)
        if volume.modality == "MR":  # its classes lie on a grid of their own
            return with_labels(volume, labels), arguments.bone
        if labels.GetSize() != volume.image.GetSize() or not np.allclose(lps_from_ijk(labels), lps_from_ijk(volume.image), atol=1e-3):
            raise FluoroGuideError("The label image lies on another grid than the volume", arguments.bones.name, "Export it on the volume's grid")
        return dataclasses.replace(volume, parts=labels), arguments.bone
    if arguments.part == "auto" and not points:
        raise FluoroGuideError("--part auto needs a target to find the bone around", None, "Give --targets or --plan")
    return volume, "auto" if points and arguments.part != "whole" else None


TOLERANCES = {"angle": "angle_deg", "roll": "roll_deg", "shift": "shift_mm", "sid": "sid_percent", "point": "principal_point_px"}


def choose_carm(arguments: argparse.Namespace) -> object:
    """The C-arm's tolerance (None: its geometry is taken as given), from the options or the C-arm cards."""
    import dataclasses

    from ..imaging.geometry_card import read_geometry_card
    from ..registration.geometry_error import CArmTolerance

    cards = {read_geometry_card(path).get("carm") for path in arguments.geometry or []} - {None}
    if arguments.carm is None and len(cards) > 1:
        raise FluoroGuideError("The C-arm cards disagree on the kind of C-arm", ", ".join(sorted(cards)), "Say it with --carm")
    kind = arguments.carm or (cards.pop() if cards else "fixed")
    if kind == "fixed":
        if arguments.carm_tolerance:
            raise FluoroGuideError("--carm-tolerance needs --carm refine or mobile", arguments.carm_tolerance)
        return None
    limits = {}
    for entry in (arguments.carm_tolerance or "").split(",") if arguments.carm_tolerance else []:
        name, _, value = entry.partition("=")
        if name.strip() not in TOLERANCES:
            raise FluoroGuideError("Unknown C-arm tolerance", name or entry, "Use " + ", ".join(TOLERANCES))
        limits[TOLERANCES[name.strip()]] = float(common.numbers(value, 1, f"The C-arm tolerance {name.strip()}")[0])
    return dataclasses.replace(CArmTolerance.mobile() if kind == "mobile" else CArmTolerance(), **limits)


def run_levels(
    arguments: argparse.Namespace, volume: object, images: list, initial: object, points: dict | None, plan: object, options: object, output: Path,
) -> int:
    """Every bone's own pose: ``pose.tfm`` (whole volume), ``pose_LABEL.tfm``, ``result.json``, overlays ``overlay_A_LABEL.png``."""
    from ..geometry.rigid import write_tfm
    from ..registration.levels import register_levels
    from ..registration.register import bone_bright

    try:
        labels = [int(v) for v in arguments.levels.split(",")]
    except ValueError:
        raise FluoroGuideError("--levels is not a list of label numbers", arguments.levels, "Write for example 33,34,35") from None
    found = register_levels(volume, images, labels, initial, targets=points, options=options, progress=common.Bar())
    result = found.to_dict(points)
    result["xrays"] = [Path(p).name for p in arguments.xray]
    write_tfm(output / "pose.tfm", found.whole.pose)
    used, lines = bone_bright(images, found.whole), [f"Verdict: {found.verdict}"]
    for row, (name, level) in zip(result["levels"], found.levels.items(), strict=True):
        label = row["label"] = level.facts["labels"][0]
        write_tfm(output / f"pose_{label}.tfm", level.pose)
        row["overlays"] = draw_overlays(volume, used, level, plan, output, f"_{label}")
        turned = f", turned {row['against_level_before']['turned_deg']:.1f} degrees against the level before" if "against_level_before" in row else ""
        lines.append(f"{name}: {level.verdict}, similarity {min(level.similarity):.2f}{turned}" + "".join(f"\n  - {r}" for r in level.reasons))
    write_json(output / "result.json", plain(result))
    common.show(arguments, result, "\n".join([*lines, f"{found.seconds:.1f} s. Results in {output}"]))
    return 1 if found.verdict == "fail" else 0


def draw_overlays(
    volume: object, images: list, registration: object, plan: object, output: Path, ending: str = "", pose: np.ndarray | None = None,
) -> list[str]:
    """``overlay_A.png``, ... (with ``ending`` after the letter): DRR edges, targets with error ellipses and the plan on each X-ray.

    ``pose``: that of the volume, where the registration is of another one carried along with it.
    """
    from ..guidance.overlay import draw_overlay_png, plan_overlay
    from ..planning.plan import Plan
    from ..registration.mr import moving_of

    names, pose = [], registration.pose if pose is None else pose
    moving = moving_of(volume)
    projector, beyond = moving.projector(1.0), moving.beyond()
    for letter, image in zip(common.LETTERS, images, strict=False):
        shapes = plan_overlay(image.view, registration.pose, plan or Plan("registration"), registration)
        path = output / f"overlay_{letter}{ending}.png"
        mask = image.mask if beyond is None else image.mask & (beyond.project(image.view, pose) <= 0)
        draw_overlay_png(image, shapes, path, drr_edges=edges(projector.project(image.view, pose), mask))
        names.append(path.name)
    return names


def edges(drr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bool (rows, columns): the strongest edges of a DRR, thinned by Canny."""
    import SimpleITK as sitk

    gradient = sitk.GetArrayFromImage(sitk.GradientMagnitudeRecursiveGaussian(sitk.GetImageFromArray(drr), 2.0))
    strong = float(np.percentile(gradient[mask], 94)) if mask.any() else 1.0
    canny = sitk.CannyEdgeDetection(sitk.GetImageFromArray(drr), 0.4 * strong, strong, [4.0, 4.0])
    return (sitk.GetArrayFromImage(canny) > 0) & mask


def describe(registration: object, result: dict, output: Path) -> str:
    """The result in words."""
    lines = [f"Verdict: {registration.verdict}" + "".join(f"\n  - {r}" for r in registration.reasons)]
    lines.append("Similarity per view: " + ", ".join(f"{s:.2f}" for s in registration.similarity))
    for target in result["targets"]:
        if result.get("in_plane_only", len(registration.views) == 1):
            across, depth = max(target["in_plane_mm"]), max(target["depth_mm"])
            lines.append(f"{target['name']}: in-plane error below {across:.1f} mm; depth unknown +- {depth:.1f} mm (95 %)")
        else:
            lines.append(f"{target['name']}: predicted error below {target['predicted_error_mm']:.1f} mm (95 %)")
    for number, view in enumerate(result.get("carm", {}).get("views", []), 1):
        column, row = view["principal_point_px"]
        lines.append(
            f"C-arm, view {number}: angles {view['primary_deg']:+.2f}, {view['secondary_deg']:+.2f} degrees, SID {view['sid_percent']:+.2f} %, "
            f"principal point {column:+.1f}, {row:+.1f} pixels, isocentre " + ", ".join(f"{v:+.1f}" for v in view["shift_mm"]) + " mm"
        )
    lines.append(f"{registration.seconds:.1f} s, {registration.projections_rendered} projections. Results in {output}")
    return "\n".join(lines)
