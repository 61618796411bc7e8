"""Planning in the worker: entries for a target, checks and C-arm views of needles, virtual fluoroscopy.

The volume arrives as :class:`AttenuationVolume`, structures as :class:`BoneLabels`.  What is derived of the volume used
last (its HU, body and bone masks, projectors) is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

_derived: dict = {}
"""Of one volume: ``volume``, and as they are needed ``hu``, ``body``, ``bone``, ``fluoroscopy``, ``labels`` and ``structures``."""
BONE_STEP_MM = 3.0
PROFILE_STEP_MM = 2.0


def forget(volume: object) -> None:
    """Called by the worker when a volume or label image is dropped."""
    if _derived.get("volume") is volume or _derived.get("labels") is volume:
        _clear()


def _clear() -> None:
    if "fluoroscopy" in _derived:
        _derived["fluoroscopy"].close()
    _derived.clear()


def _of(volume: object) -> dict:
    if _derived.get("volume") is not volume:
        _clear()
        _derived["volume"] = volume
    return _derived


def _hu(volume: object) -> object:
    """The volume in HU again; below -1000 it was clipped, which planning does not need."""
    import SimpleITK as sitk

    from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM

    kept = _of(volume)
    if "hu" not in kept:
        kept["hu"] = sitk.Cast(volume.image * (1000.0 / WATER_ATTENUATION_PER_MM) - 1000.0, sitk.sitkInt16)
    return kept["hu"]


def _body(volume: object) -> tuple[object | None, str]:
    """(body mask or None, why there is none)."""
    from ..anatomy.skin import body_mask
    from ..errors import FluoroGuideError

    kept = _of(volume)
    if "body" not in kept:
        try:
            kept["body"] = body_mask(_hu(volume)), ""
        except FluoroGuideError as error:
            kept["body"] = None, error.message
    return kept["body"]


def _bone(volume: object) -> object:
    from ..anatomy.skin import coarser
    from ..planning.safety import BONE_HU

    kept = _of(volume)
    if "bone" not in kept:
        kept["bone"] = coarser(_hu(volume), BONE_STEP_MM) > BONE_HU
    return kept["bone"]


def _structures(volume: object, labels: object | None, procedure: object) -> tuple[list, list[str]]:
    """(structures of the procedure that the labels have, what cannot be checked as sentences)."""
    wanted = {s["name"] for s in procedure.data["safety_structures"]}
    if labels is None:
        return [], ["No segmentation is chosen: clearance of structures is not checked."] if wanted else []
    kept = _of(volume)
    if kept.get("labels") is not labels or kept.get("procedure") != procedure.key:
        kept["labels"], kept["procedure"] = labels, procedure.key
        kept["structures"] = procedure.structures(labels.image, labels.names)
    found, missing = kept["structures"]
    return found, [f"The segmentation lacks {', '.join(missing)}: their clearance is not checked."] if missing else []


def _room(carm: str, patient_position: str) -> object:
    from ..planning.approach import Room
    from ..planning.carms import carm as card

    return Room(card(carm), patient_position)


def _procedure(procedure: Mapping) -> object:
    from pathlib import Path

    from ..planning.procedures import Procedure

    return Procedure(procedure["key"], procedure["title"], procedure, Path(f"{procedure['key']}.json"))


def suggest(*, volume: object, target_lps_mm: object, procedure: dict, side: str | None, carm: str, patient_position: str, labels: object = None,
            gauge: float | None = None, needle_length_mm: float | None = None, count: int = 5, progress: Callable, cancelled: Callable) -> dict:
    """Entry candidates: ``candidates`` (``planning.suggest.Candidate``) and ``warnings`` (sentences)."""
    from ..errors import FluoroGuideError
    from ..planning.suggest import Rules
    from ..planning.suggest import suggest as run

    progress(0.1, "Finding the skin")
    made = _procedure(procedure)
    body, why = _body(volume)
    if body is None:
        raise FluoroGuideError("No skin was found, so no entry can be suggested", why, "Place the entry by hand")
    structures, warnings = _structures(volume, labels, made)
    rules = Rules(made.direction(side), made.cone_deg, made.bone_allowed, gauge=gauge, needle_length_mm=needle_length_mm)
    if made.data["target_kind"] == "pedicle":
        rules = _through_pedicle(rules, target_lps_mm, labels, side, warnings)
    progress(0.4, "Trying entries")
    found = run(target_lps_mm, _hu(volume), body, structures, _room(carm, patient_position), rules, count=count,
                step_deg=1.0 if rules.bone_allowed else 2.0)
    return {"candidates": found, "warnings": warnings}


def _through_pedicle(rules: object, target_lps_mm: object, labels: object | None, side: str | None, warnings: list[str]) -> object:
    """The rules with the pedicle's middle as a point to pass, where the vertebra at the target is labelled."""
    import numpy as np

    from ..errors import FluoroGuideError
    from ..planning.landmarks import pedicle
    from ..planning.plan import inside

    if labels is None:
        warnings.append("The way through the pedicle is not checked: no segmentation is chosen.")
        return rules
    target, image = np.asarray(target_lps_mm, float), labels.image
    value = int(image[image.TransformPhysicalPointToIndex(target.tolist())]) if inside(image, target[None])[0] else 0
    try:
        found = pedicle(image, labels.names, labels.names.get(value, "a vertebra at the target"), side)
    except FluoroGuideError as error:
        warnings.append(f"The way through the pedicle is not checked. {error.message}")
        return rules
    warnings.append(found.text)
    return dataclasses.replace(rules, direction_lps=found.outline_lps_mm[1] - target, through_lps_mm=found.outline_lps_mm[1])


def check(*, volume: object, trajectories: Sequence, procedure: dict, side: str | None, carm: str, patient_position: str, labels: object = None,
          progress: Callable, cancelled: Callable) -> dict:
    """Safety and C-arm views of needles.

    Returns
    -------
    dict
        ``paths``: name -> ``{"safety": SafetyReport or None, "error": sentence, "views": list of SolvedView, "pair": sentence,
        "profile": (N, 2) or None}``;
        ``starts``: the procedure's start views for the first needle; ``warnings``: sentences.
    """
    from ..errors import CancelledError, FluoroGuideError

    made = _procedure(procedure)
    structures, warnings = _structures(volume, labels, made)
    body, why = _body(volume)
    warnings += [why] if why else []
    room, paths, starts = _room(carm, patient_position), {}, []
    for n, path in enumerate(trajectories):
        if cancelled():
            raise CancelledError()
        progress(n / len(trajectories), f"Checking {path.name}")
        try:
            paths[path.name] = _checked(path, volume, structures, body, room, made.bone_allowed)
        except FluoroGuideError as error:
            paths[path.name] = {"safety": None, "error": error.message, "views": [], "pair": "", "profile": None}
    if trajectories:
        try:
            starts = made.start_views(side, room, trajectories[0].target_lps_mm)
        except FluoroGuideError as error:
            warnings.append(error.message)
    return {"paths": paths, "starts": starts, "warnings": warnings}


def _checked(path: object, volume: object, structures: list, body: object | None, room: object, bone_allowed: bool) -> dict:
    from ..planning.approach import best_pair, bulls_eye, progress_views
    from ..planning.safety import check_trajectory

    report = check_trajectory(path, _hu(volume), structures, body, bone_allowed=bone_allowed)
    views = [bulls_eye(path, room), *progress_views(path, room, _bone(volume))]
    pair = best_pair(path.target_lps_mm, room, views[:1], views[1:])
    told = f"Confirm with {pair.first.name} and {pair.second.name}: {pair.error_mm:.1f} mm per pixel of marking error."
    return {"safety": report, "error": "", "views": views, "pair": told, "profile": _profile(path, structures)}


def _profile(path: object, structures: list) -> object:
    """(N, 2): depth from the entry, and distance beyond the wanted clearance of the nearest structure, mm, to voxel centres; empty without any."""
    import numpy as np

    from ..planning.safety import needle_radius_mm

    trees = [s for s in structures if s.tree is not None]
    if not trees:
        return np.empty((0, 2))
    depth = np.linspace(0, path.length_mm, max(2, int(path.length_mm / PROFILE_STEP_MM) + 1))
    points = path.entry_lps_mm + depth[:, None] * path.axis
    spare = np.min([np.where(s.contains(points), 0.0, s.tree.query(points)[0]) - s.clearance_mm for s in trees], axis=0)
    return np.column_stack([depth, spare - needle_radius_mm(path.gauge)])


def fluoroscopy(*, volume: object, view: object, quality: str = "still", progress: Callable, cancelled: Callable) -> object:
    """uint8 picture (rows, columns) of a view in the volume's frame, bone dark."""
    from ..projection.drr import VirtualFluoroscopy, displayed

    kept = _of(volume)
    if "fluoroscopy" not in kept:
        progress(0.1, "Preparing virtual fluoroscopy")
        kept["fluoroscopy"] = VirtualFluoroscopy(volume.image)
    return displayed(kept["fluoroscopy"].image(view, quality=quality))


TASKS = {"plan_suggest": suggest, "plan_check": check, "plan_fluoroscopy": fluoroscopy}
