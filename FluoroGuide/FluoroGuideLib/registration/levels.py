"""Several bones at once, each with its own pose: a spine that bent since the CT is overlaid level by level.

Every bone is found as :mod:`.parts` finds one, but starts from its neighbour's pose and is held near it by a weak prior on how
neighbours move against each other at the point between them.  Sweeps up and down let all of them agree (each step lowers the one cost that
they share).  That also keeps a vertebra from being taken for the next one, which fits nearly as well on its own.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..anatomy.attenuation import AttenuationVolume
from ..errors import CancelledError, FluoroGuideError
from ..geometry.rigid import apply, difference, perturb
from ..imaging.xray import XrayImage
from .answer import STRETCH_SHARE
from .bodies import BodiesLevel, Poses, bodies_level
from .checks import bone_shares
from .confidence import judge, part_covariance
from .findings import told
from .parts import Part, PartOptions, label_distance, register_part
from .prior import PosePrior
from .refine import Refined, levenberg_marquardt
from .register import Options, Progress, bone_bright, register
from .result import Registration
from .similarity import Evaluation
from .volume import MovingVolume

NEXT_MM = (0.0, 4.0)
"""Shifts along each axis, both ways, at which a bone is sought around its neighbour's pose; the best two are refined."""
LEVEL_WEIGHT = 0.0005
"""Weight of the prior between neighbours against the mean cost per pixel (set on design cases)."""


@dataclass(frozen=True)
class Flexibility:
    """How neighbouring bones move against each other: standard deviations of the turn, and of the shift of the point between them."""

    rotation_deg: float = 4.0
    translation_mm: float = 2.0

    def __post_init__(self) -> None:
        if not (self.rotation_deg > 0 and self.translation_mm > 0):
            raise FluoroGuideError("The flexibility between levels must be positive", f"{self.rotation_deg} degrees, {self.translation_mm} mm")


@dataclass(frozen=True, eq=False)
class Levels:
    """Result of :func:`register_levels`.

    Attributes
    ----------
    whole
        Registration of the whole volume, where all started.
    levels
        Name -> that bone's own :class:`Registration`, in the order given.
    seconds
        Wall time of all of it.
    """

    whole: Registration
    levels: dict[str, Registration]
    seconds: float

    @property
    def verdict(self) -> str:
        """The worst of the levels' verdicts."""
        found = [r.verdict for r in self.levels.values()]
        return next((v for v in ("fail", "warn") if v in found), "pass")

    def to_dict(self, targets: dict[str, np.ndarray] | None = None) -> dict:
        """Plain numbers: per level its result and how far it turned (degrees) and moved (mm) against the level before."""
        rows, before = [], None
        for name, found in self.levels.items():
            row = {"name": name, **{k: v for k, v in found.to_dict(targets).items() if k not in ("views", "history", "version")}}
            if before is not None:
                way = difference(before.pose, found.pose, (before.center_mm + found.center_mm) / 2)
                row["against_level_before"] = {"turned_deg": float(np.degrees(np.linalg.norm(way[:3]))), "moved_mm": float(np.linalg.norm(way[3:]))}
            rows.append(row)
            before = found
        return {"verdict": self.verdict, "levels": rows, "seconds": self.seconds}


@dataclass(eq=False)
class _Bone:
    """One bone at work."""

    part: Part
    label: int
    poses: Poses | None = None
    evaluation: Evaluation | None = None
    rivals: list[tuple[Poses, Evaluation]] = dataclasses.field(default_factory=list)
    level: BodiesLevel | None = None


def register_levels(
    volume: AttenuationVolume | MovingVolume, images: Sequence[XrayImage], labels: Sequence[int], initial: np.ndarray | None = None, *,
    targets: dict[str, np.ndarray] | None = None, options: Options | None = None, flexibility: Flexibility | None = None, sweeps: int = 2,
    part_options: PartOptions | None = None, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None,
) -> Levels:
    """Every bone's own pose.

    Parameters
    ----------
    volume
        Volume with a label image (``parts``).
    images
        X-rays whose views share one isocentre frame.
    labels
        Bones in their anatomical order, neighbours next to each other.
    initial, targets, options, progress, cancelled
        As for :func:`~.register.register`.  Targets must lie in or near the bones; each is predicted with the bone nearest to it.
    flexibility
        Prior between neighbours.
    sweeps
        How often all bones are refined with their neighbours' poses, there and back.
    part_options
        Resolutions and search for each bone.

    Raises
    ------
    FluoroGuideError
        No label image, a label that is not there, or none of the bones in the pictures; and as ``register``.
    CancelledError
        ``cancelled()`` returned True.
    """
    options, part_options, began = options or Options(), part_options or PartOptions(), time.perf_counter()
    flexibility, progress, cancelled = flexibility or Flexibility(), progress or (lambda *_: None), cancelled or (lambda: False)
    moving = volume if isinstance(volume, MovingVolume) else MovingVolume(volume, options.backend)
    bones = _bones(moving, labels)
    middle = {b.part.name: b.part.center_lps_mm for b in bones}
    whole = register(
        moving, images, initial, targets=targets or middle, options=dataclasses.replace(options, check_part=False),
        progress=lambda f, text: progress(0.3 * f, text), cancelled=cancelled,
    )
    used = bone_bright(images, whole)
    order = _from_the_middle(bones, whole)
    for number, index in enumerate(order):
        progress(0.3 + 0.5 * number / len(order), f"registering {bones[index].part.name}")
        _find(bones, index, used, whole.pose, flexibility, part_options, cancelled)
    found = [b for b in bones if b.level is not None]
    if not found:
        raise FluoroGuideError("None of the bones is in the pictures", ", ".join(middle), "Check the labels and the start")
    for sweep in range(sweeps):
        progress(0.8 + 0.15 * sweep / max(1, sweeps), "letting neighbours agree")
        for index in range(len(found)) if sweep % 2 == 0 else reversed(range(len(found))):
            _again(found, index, flexibility, cancelled)
    nearest = _targets_of(found, targets)
    results = {b.part.name: _result(b, whole, nearest[b.part.name]) for b in found}
    progress(1.0, "done")
    return Levels(whole, results, time.perf_counter() - began)


def _bones(moving: MovingVolume, labels: Sequence[int]) -> list[_Bone]:
    import SimpleITK as sitk

    volume = moving.volume
    if volume.parts is None:
        raise FluoroGuideError("Levels need a label image of the bones", None, "Give the labels as well")
    if len(labels) == 0:
        raise FluoroGuideError("No bone was chosen", None, "Name the labels of at least one bone")
    statistics, bones = sitk.LabelShapeStatisticsImageFilter(), []
    statistics.Execute(sitk.Cast(volume.parts, sitk.sitkUInt16))
    for label in labels:
        if not statistics.HasLabel(int(label)):
            raise FluoroGuideError("The bone's label is not in the label image", int(label), "Check its number")
        center = np.array(statistics.GetCentroid(int(label)))
        name = volume.part_names.get(int(label), f"label {int(label)}")
        bones.append(_Bone(Part(moving, label_distance(volume.parts, [int(label)]), center, name), int(label)))
    return bones


def _from_the_middle(bones: list[_Bone], whole: Registration) -> list[int]:
    """Indices, the bone nearest to the pictures' middle first, then its neighbours outwards."""
    def off(bone: _Bone) -> float:
        place = apply(whole.pose, bone.part.center_lps_mm)
        return max(float(np.linalg.norm(v.project(place)[0] - ((v.columns - 1) / 2, (v.rows - 1) / 2)) / v.columns) for v in whole.views)

    first = int(np.argmin([off(b) for b in bones]))
    return sorted(range(len(bones)), key=lambda n: abs(n - first))


def _priors(bones: list[_Bone], index: int, flexibility: Flexibility) -> list[PosePrior]:
    """One prior for each neighbour that has a pose: no motion against it at the point between the two."""
    own, result = bones[index], []
    for other in (index - 1, index + 1):
        if 0 <= other < len(bones) and bones[other].poses is not None:
            pose = bones[other].poses[0]
            between = apply(pose, (own.part.center_lps_mm + bones[other].part.center_lps_mm) / 2)
            result.append(PosePrior.around(
                pose, between, rotation_deg=flexibility.rotation_deg, translation_mm=flexibility.translation_mm, weight=LEVEL_WEIGHT,
            ))
    return result


def _with_priors(evaluation: Evaluation, poses: Poses, center_mm: np.ndarray, priors: list[PosePrior]) -> Evaluation:
    """The evaluation of (bone, surroundings) with priors on the bone."""
    nothing = Evaluation(0.0, 0.0, np.zeros((6, 6)), np.zeros(6), ())
    for prior in priors:
        share = prior.add(poses[0], center_mm, nothing)
        changes = {"cost": evaluation.cost + share.cost, "rank": evaluation.rank + share.cost}
        if evaluation.gradient is not None:
            changes["gradient"], changes["hessian"] = evaluation.gradient.copy(), evaluation.hessian.copy()
            changes["gradient"][:6] += share.gradient
            changes["hessian"][:6, :6] += share.hessian
        evaluation = dataclasses.replace(evaluation, **changes)
    return evaluation


def _refined(level: BodiesLevel, poses: Poses, iterations: int, priors: list[PosePrior], cancelled: Callable[[], bool]) -> tuple[Poses, Evaluation]:
    own = level.own()

    def evaluate(state: Poses) -> Evaluation:
        return _with_priors(own.evaluate(state), state, own.center_mm, priors)

    poses, evaluation, _ = levenberg_marquardt(evaluate, own.move, poses, iterations, cancelled=cancelled)
    return poses, evaluation


def _find(
    bones: list[_Bone], index: int, images: list[XrayImage], whole: np.ndarray, flexibility: Flexibility, options: PartOptions,
    cancelled: Callable[[], bool],
) -> None:
    """A bone's pose, coarse to fine: the first one's from the whole volume's pose, the others' from their neighbour's."""
    bone, priors = bones[index], _priors(bones, index, flexibility)
    if not priors:
        found = register_part(bone.part, images, whole, options, cancelled=cancelled)
        if found is not None:
            bone.poses, bone.evaluation, bone.level = (found.best.pose, found.surroundings), found.best.evaluation, found.level
            bone.rivals = [((r.pose, found.surroundings), r.evaluation) for r in found.rivals]
        return
    start, pool = priors[0].mean, []
    center = apply(start, bone.part.center_lps_mm)
    for number, spec in enumerate(options.levels):
        if cancelled():
            raise CancelledError()
        level = bodies_level(bone.part, images, spec, pool[0][0][0] if pool else start, center)
        if not level.views:
            return
        pool = pool if number else _starts(level, start, priors)
        pool = sorted((_refined(level, p, spec.iterations, priors, cancelled) for p, _ in pool), key=lambda c: c[1].cost)
        bone.level = level
    (bone.poses, bone.evaluation), *bone.rivals = pool


def _starts(level: BodiesLevel, start: np.ndarray, priors: list[PosePrior]) -> list[tuple[Poses, Evaluation]]:
    """The best two of the neighbour's pose and shifts from it."""
    shifts = {tuple(sign * step * axis) for axis in np.eye(3) for step in NEXT_MM for sign in (-1, 1)}
    tried = []
    for shift in sorted(shifts):
        poses = (perturb(start, np.r_[0, 0, 0, shift], level.center_mm), start)
        tried.append((poses, _with_priors(level.evaluate(poses, derivatives=False), poses, level.center_mm, priors)))
    return sorted(tried, key=lambda c: c[1].cost)[:2]


def _again(bones: list[_Bone], index: int, flexibility: Flexibility, cancelled: Callable[[], bool]) -> None:
    """A bone refined once more with what its neighbours are now."""
    bone = bones[index]
    if cancelled():
        raise CancelledError()
    bone.poses, bone.evaluation = _refined(bone.level, bone.poses, 4, _priors(bones, index, flexibility), cancelled)


def _targets_of(bones: list[_Bone], targets: dict[str, np.ndarray] | None) -> dict[str, dict[str, np.ndarray]]:
    """Bone -> the targets that are nearest to its centre; its centre where there are none."""
    result: dict[str, dict[str, np.ndarray]] = {b.part.name: {} for b in bones}
    for name, point in (targets or {}).items():
        nearest = min(bones, key=lambda b: np.linalg.norm(b.part.center_lps_mm - point))
        result[nearest.part.name][name] = np.asarray(point, float)
    return {b.part.name: result[b.part.name] or {"centre": b.part.center_lps_mm} for b in bones}


def _result(bone: _Bone, whole: Registration, targets: dict[str, np.ndarray]) -> Registration:
    """One bone's registration with its verdict."""
    center, poses = bone.level.center_mm, bone.poses
    covariance = part_covariance(bone.level, poses, bone_shares(bone.level, poses) if bone.part.moving.shows_bone else ())
    moved = max(float(np.linalg.norm(apply(poses[0], p) - apply(whole.pose, p))) for p in targets.values())
    between = float(np.linalg.norm(difference(poses[0], poses[1], center)[3:]))
    covariance[3:, 3:] += np.eye(3) * (STRETCH_SHARE * between) ** 2
    draft = {
        "pose": poses[0], "similarity": bone.evaluation.similarity, "covariance": covariance, "center_mm": center, "views": whole.views,
        "carm": whole.carm,
    }
    errors = Registration(verdict="warn", reasons=(), **draft).target_error(targets) if np.isfinite(covariance).all() else []
    flat = len(whole.views) == 1 or bool(whole.facts.get("in_plane_only"))
    widths = [max(e.in_plane_mm) if flat else e.predicted_error_mm for e in errors] or [np.inf]
    rivals = [Refined(p[0], e, 0) for p, e in bone.rivals]
    findings = judge(Refined(poses[0], bone.evaluation, 0), rivals, widths, 1.0, 1 if flat else len(whole.views), center, part=True)
    facts = {
        "part": bone.part.name, "labels": [bone.label], "moved_against_surroundings_mm": moved, "in_plane_only": flat,
        "whole_pose_matrix": whole.pose.tolist(), "inverted_views": whole.facts.get("inverted_views", []),
    }
    return Registration(**draft, **told(findings), facts=facts)

