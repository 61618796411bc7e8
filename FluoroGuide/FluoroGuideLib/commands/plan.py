"""``fluoroguide plan``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from . import common
from .identity import stamp_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--volume", required=True, metavar="V", help="CT or CBCT: a file that SimpleITK reads, or a DICOM folder")
    parser.add_argument("--procedure", required=True, metavar="NAME", help="key of the procedure library; 'free' for none of them")
    parser.add_argument("--target", required=True, metavar="X,Y,Z", help="LPS mm of the volume")
    parser.add_argument("--entry", metavar="X,Y,Z", help="LPS mm of the volume; without it entry points are suggested")
    parser.add_argument("--structures", metavar="SEG", help="segmentation: .seg.nrrd, or a label image with --structure-names")
    parser.add_argument("--structure-names", metavar="FILE", help='JSON {"1": "sacrum", ...} or CSV with the columns structure and id')
    parser.add_argument("--tolerance", type=float, metavar="MM", help="radius around the target that counts as reached")
    parser.add_argument("--gauge", type=float, metavar="G", help="needle gauge")
    parser.add_argument("--needle-length", type=float, metavar="MM")
    parser.add_argument("--laterality", choices=["left", "right", "bilateral", "midline"])
    parser.add_argument("--level", metavar="NAME", help="for example L4/L5")
    parser.add_argument("--carm", default="generic_mobile", metavar="NAME", help="C-arm card: its name or its JSON file")
    parser.add_argument("--patient-position", choices=["HFS", "HFP", "FFS", "FFP"], help="on the table; by default the procedure's, head first")
    parser.add_argument("--procedures", action="append", default=[], metavar="DIR", help="a folder of your own procedures")
    parser.add_argument("--suggestions", type=int, default=3, metavar="N", help="how many entry points to suggest (0: none)")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check or suggest trajectories, solve the C-arm's angles, write ``plan.json`` and ``planning.json``."""
    from ..anatomy.attenuation import read_volume
    from ..imaging.identity import PLAN_KEY
    from ..planning.jsonfile import plain, write_json
    from ..planning.plan import Plan, Target, check_plan_against_volume, write_plan
    from ..planning.procedures import load_library

    target = common.numbers(arguments.target, 3, "--target")
    library = load_library(*arguments.procedures)
    procedure = library.get(arguments.procedure)
    image = read_volume(arguments.volume)
    plan = Plan(
        procedure.key, (Target("target", target, arguments.tolerance),), (), arguments.laterality, arguments.level, Path(arguments.volume).name,
        required_views=procedure.required_views(arguments.laterality), extra={PLAN_KEY: stamp_of(arguments.volume, image).to_dict()})
    warnings = [*library.problems, *check_plan_against_volume(plan, image)]
    paths, details = _trajectories(arguments, procedure, image, target, warnings)
    plan = dataclasses.replace(plan, trajectories=tuple(paths))
    warnings += [w for w in check_plan_against_volume(plan, image) if w not in warnings]
    output = common.output_folder(arguments.output)
    write_plan(output / "plan.json", plan)
    write_json(output / "planning.json", plain({**details, "warnings": warnings}))
    text = [f"{output / 'plan.json'}", procedure.title]
    text += [line for item in details["trajectories"] for line in _lines(item)] + [f"Warning: {w}" for w in warnings]
    common.show(arguments, {**plan.to_dict(), **details, "warnings": warnings}, "\n".join(text))
    return 0


def _trajectories(arguments: argparse.Namespace, procedure: object, image: object, target: np.ndarray, warnings: list[str]) -> tuple[list, dict]:
    """The trajectories, and what is known of each as plain data."""
    from ..anatomy.segments import read_segmentation
    from ..anatomy.skin import body_mask
    from ..planning.approach import Room
    from ..planning.carms import carm
    from ..planning.plan import Trajectory
    from ..planning.suggest import Rules, suggest

    structures, labelled = [], None
    if arguments.structures:
        labelled = read_segmentation(arguments.structures, arguments.structure_names)
        structures, missing = procedure.structures(*labelled)
        warnings += [f"The segmentation lacks {', '.join(missing)}: their clearance is not checked."] if missing else []
    elif procedure.data["safety_structures"]:
        warnings.append("No segmentation was given: clearance of structures is not checked.")
    position = arguments.patient_position or procedure.patient_position
    if position is None:
        position = "HFS"
        warnings.append("The patient's position was not given: supine, head first is assumed.")
    room = Room(carm(arguments.carm), position)
    body = _body(image, warnings, body_mask)
    paths = []
    if arguments.entry:
        entry = common.numbers(arguments.entry, 3, "--entry")
        paths = [Trajectory("needle", entry, target, arguments.gauge, arguments.needle_length)]
        if arguments.needle_length is not None and arguments.needle_length < paths[0].length_mm:
            lengths = f"{arguments.needle_length:g} mm for {paths[0].length_mm:.1f} mm"
            raise FluoroGuideError("The needle is shorter than the path", lengths, "Choose a longer needle or another entry")
    elif arguments.suggestions > 0:
        if body is None:
            raise FluoroGuideError("No skin was found, so no entry can be suggested", None, "Give the entry with --entry")
        rules = Rules(procedure.direction(_side(arguments)), procedure.cone_deg, procedure.bone_allowed, gauge=arguments.gauge,
                      needle_length_mm=arguments.needle_length)
        if procedure.data["target_kind"] == "pedicle":
            rules = _through_pedicle(rules, target, labelled, _side(arguments), warnings)
        found = suggest(target, image, body, structures, room, rules, count=arguments.suggestions, step_deg=1.0 if rules.bone_allowed else 2.0)
        paths = [c.trajectory for c in found]
    details = [_one(path, procedure, image, structures, body, room) for path in paths]
    if not arguments.entry:
        for item, candidate in zip(details, found if paths else [], strict=True):
            item.update(score=candidate.score, reasons=list(candidate.reasons))
    return paths, {"procedure_text": procedure.text(), "patient_position": position, "carm": room.card.name, "trajectories": details}


def _through_pedicle(rules: object, target: np.ndarray, labelled: tuple | None, side: str | None, warnings: list[str]) -> object:
    """The rules with the middle of the pedicle as a point to pass, where the vertebra at the target is labelled."""
    from ..planning.landmarks import pedicle
    from ..planning.plan import inside

    if labelled is None:
        warnings.append("The way through the pedicle is not checked: no segmentation was given.")
        return rules
    labels, names = labelled
    value = int(labels[labels.TransformPhysicalPointToIndex(target.tolist())]) if inside(labels, target[None])[0] else 0
    try:
        found = pedicle(labels, names, names.get(value, "a vertebra at the target"), side)
    except FluoroGuideError as error:
        warnings.append(f"The way through the pedicle is not checked. {error.message}")
        return rules
    warnings.append(found.text)
    return dataclasses.replace(rules, direction_lps=found.outline_lps_mm[1] - target, through_lps_mm=found.outline_lps_mm[1])


def _side(arguments: argparse.Namespace) -> str | None:
    """The side for oblique start views; they need one."""
    return arguments.laterality if arguments.laterality in ("left", "right") else None


def _body(image: object, warnings: list[str], body_mask: object) -> object | None:
    try:
        return body_mask(image)
    except FluoroGuideError as error:
        warnings.append(error.message)
        return None


def _one(path: object, procedure: object, image: object, structures: list, body: object | None, room: object) -> dict:
    """Safety and C-arm angles of one trajectory, as plain data."""
    from ..anatomy.skin import coarser
    from ..planning.approach import best_pair, bulls_eye, progress_views
    from ..planning.safety import BONE_HU, check_trajectory

    report = check_trajectory(path, image, structures, body, bone_allowed=procedure.bone_allowed)
    views = [bulls_eye(path, room), *progress_views(path, room, coarser(image, 3.0) > BONE_HU)]
    pair = best_pair(path.target_lps_mm, room, views[:1], views[1:])
    return {**path.to_dict(), "safety": report.to_dict(), "views": [v.to_dict() for v in views],
            "best_pair": {"first": pair.first.name, "second": pair.second.name, "error_mm": pair.error_mm, "angle_deg": pair.angle_deg}}


def _lines(item: dict) -> list[str]:
    safety = item["safety"]
    lines = [f"{item['name']}: {item['length_mm']:.1f} mm, {item['angle_to_axial_deg']:+.1f} deg to the axial plane, "
             f"entry {', '.join(f'{v:.1f}' for v in item['entry_lps_mm'])} LPS mm"]
    if safety["clearances"]:
        near = safety["clearances"][0]
        lines.append(f"  nearest structure: {near['name']}, {near['distance_mm']:.1f} mm")
    for view in item["views"]:
        off = "" if view["reachable"] else f" ({view['off_deg']:.1f} deg off)"
        lines.append(f"  {view['name']}: {view['text']}{off}")
    pair = item["best_pair"]
    lines.append(f"  confirm with {pair['first']} and {pair['second']}: {pair['error_mm']:.1f} mm per pixel of marking error")
    lines += [f"  Problem: {p}" for p in safety["problems"]] + [f"  Warning: {w}" for w in safety["warnings"]]
    return lines + [f"  {n}" for n in safety["notes"]]
