"""2D/3D registration: from a volume and one or more X-rays to a pose with its error and a verdict."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..anatomy.attenuation import AttenuationVolume
from ..errors import CancelledError, FluoroGuideError
from ..geometry.frames import center_lps_mm, corners_lps_mm
from ..geometry.rigid import apply, check_rigid
from ..imaging.xray import XrayImage
from .answer import checked_answer, part_answer, whole_answer
from .coarse_to_fine import coarse_to_fine, make_level
from .findings import Finding
from .geometry_error import CArmEstimate, CArmTolerance
from .mr import is_mr, judged_as_mr, moving_of, mr_options, mr_part, mr_prior
from .mr_search import mr_coarse_to_fine
from .narrow_field import for_narrow_fields
from .parts import Part, PartOptions, make_part
from .prior import PosePrior
from .result import Registration
from .search import start_at_isocenter
from .second_look import WEAK_SIMILARITY, is_weak, look_again
from .volume import MovingVolume
from .with_carm import register_with_carm

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class LevelOptions:
    """One level: voxel (and pixel) size, window half-width in pixels, iterations, poses kept afterwards."""

    pixel_mm: float
    radius: int
    iterations: int
    keep: int


@dataclass(frozen=True)
class Options:
    """How to register.

    Attributes
    ----------
    levels
        From coarse to fine.
    search
        Search globally around the start (True) or only refine it.
    search_limit_deg, search_step_deg, search_reach_mm
        Rotations and translations that the search covers.
    threads
        Views and starts run in parallel threads; results do not depend on it.
    backend
        Projector backend: auto, numba or numpy.
    check_part
        When the whole volume is registered and there are targets: also register the bone around them, and do not pass a
        pose from which that bone differs (costs about as much again; posture changes are else invisible).
    checks
        Look at each view alone, at mirror images and one vertebra up and down (:mod:`.checks`) for the verdict.
    weak_similarity
        An answer whose worst view is less similar than this is looked at again (:mod:`.second_look`).
    carm
        How far the C-arm's geometry may be from what the X-rays say: it is then estimated with the pose (two or more views).  With a
        tolerance for the isocentre's motion every view is first registered on its own.
    """

    levels: tuple[LevelOptions, ...] = (LevelOptions(6.0, 4, 10, 4), LevelOptions(3.0, 5, 8, 2), LevelOptions(1.5, 8, 8, 1))
    search: bool = True
    search_limit_deg: float = 20.0
    search_step_deg: float = 10.0
    search_reach_mm: float = 70.0
    search_keep: int = 6
    threads: int = 2
    backend: str = "auto"
    check_part: bool = True
    checks: bool = True
    weak_similarity: float = WEAK_SIMILARITY
    carm: CArmTolerance | None = None


@dataclass(eq=False)
class _Task:
    """Everything one registration carries along."""

    moving: MovingVolume
    images: list[XrayImage]
    point_lps_mm: np.ndarray
    options: Options
    progress: Progress
    cancelled: Callable[[], bool]
    history: list[dict] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    inverted: set[int] = field(default_factory=set)
    mirrored_starts: list[list[np.ndarray]] = field(default_factory=list)
    carm: CArmEstimate | None = None
    prior: PosePrior | None = None

    def note(self, kind: str, sentence: str) -> None:
        """Say something with the result that changes nothing of its verdict."""
        self.notes.append(Finding(kind, "note", sentence))


def register(
    volume: AttenuationVolume | MovingVolume, images: Sequence[XrayImage], initial: np.ndarray | None = None, *,
    targets: dict[str, np.ndarray] | None = None, options: Options | None = None, progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None, part: object = None, prior: PosePrior | None = None,
) -> Registration:
    """Find the pose of a volume in one or more X-rays.

    Parameters
    ----------
    volume
        The volume, or a :class:`MovingVolume` made from it before (its pyramid is then reused).
    images
        X-rays whose views share one isocentre frame.
    initial
        Rough pose (4x4, volume LPS -> isocentre LPS). Without it the targets' mean (else the volume's centre) is put at
        the isocentre with axes aligned.
    targets
        Named points (3,) in volume LPS mm; the error is predicted there and the pose turns about their mean.
    options, progress, cancelled
        See :class:`Options`; ``progress(fraction, text)``; ``cancelled()`` is asked between iterations.
    part
        Volume of interest: None for the whole volume; ``"auto"`` for the bone around the targets; label value(s) of
        ``volume.parts``; or a :class:`parts.Part`.  The result is then the pose of that bone, and how far it moved
        against its surroundings is told.
    prior
        What is known of the pose beforehand, with its weight: from landmarks, an earlier registration, the patient's position.

    Raises
    ------
    FluoroGuideError
        No image, a pose that is not rigid, targets outside the volume, or a pose that puts the volume behind a source.
    CancelledError
        When ``cancelled()`` returned True.
    """
    options = options or Options()
    moving = moving_of(volume, options.backend)
    options = for_narrow_fields(options, moving.shows_a_part) if moving.cut_at_the_sides else options
    point, on_mr = _reference_point(moving.volume, targets), is_mr(moving.volume)
    if on_mr:
        options, part = mr_options(options), mr_part(moving.volume, part, point)
    start = start_at_isocenter(point) if initial is None else check_rigid(initial, "initial pose")
    if on_mr:
        prior = mr_prior(prior, initial, point)
    _check(moving.volume, list(images), start, point)
    task = _Task(moving, list(images), point, options, progress or (lambda *_: None), cancelled or (lambda: False), prior=prior)
    for level in options.levels:  # set-up is not part of the registration's time
        _prepare(moving.projector(level.pixel_mm), task.images, start)
        if task.cancelled():
            raise CancelledError()
    moving.beyond()
    checking = part is None and bool(targets) and options.check_part
    bone = _part(task, "auto" if checking else part)
    if bone is not None:
        for spec in PartOptions().levels:
            for projector in bone.projectors(spec.pixel_mm):
                _prepare(projector, task.images, start)
    rendered, began, processor = moving.projections, time.perf_counter(), time.process_time()
    if options.carm is None:
        find = mr_coarse_to_fine if on_mr and moving.volume.parts is not None and len(options.levels) == 3 else coarse_to_fine
        best, others, level = find(task, start)
        if options.search and is_weak(best, options.weak_similarity):
            best, others, level = look_again(task, start, (best, others, level))
    else:
        best, others, level = register_with_carm(task, start, coarse_to_fine, make_level)
    if bone is None:
        result = whole_answer(task, best, others, level, targets)
    elif checking:
        result = checked_answer(task, bone, best, others, level, targets)
    else:
        result = part_answer(task, bone, best, level, targets)
    task.progress(1.0, result["verdict"])
    result["facts"] = {**result["facts"], "processor_seconds": time.process_time() - processor}
    answer = Registration(
        **result, history=tuple(task.history), seconds=time.perf_counter() - began, projections_rendered=moving.projections - rendered,
    )
    return judged_as_mr(answer, moving.volume, targets) if on_mr else answer


def _prepare(projector: object, images: list[XrayImage], pose: np.ndarray) -> None:
    """Make the copies for the axes that the views march along, or may after a turn of the search; others are made when they are needed."""
    axes = set()
    for image in images:
        along = np.abs(projector._matrix @ pose[:3, :3].T @ image.view.beam)
        axes |= set(np.flatnonzero(along > 0.6 * along.max()).tolist())
    projector.prepare(tuple(sorted(axes)))


def _part(task: _Task, wanted: object) -> Part | None:
    """The part to register; where ``"auto"`` finds no bone the whole volume is used, and the result says so."""
    if wanted is None:
        return None
    try:
        return make_part(task.moving, wanted, task.point_lps_mm)
    except FluoroGuideError as error:
        if wanted != "auto":
            raise
        task.note("whole", f"{error.what}: this is the pose of the whole volume, which its surroundings may have changed.")
        return None


def _reference_point(volume: AttenuationVolume, targets: dict[str, np.ndarray] | None) -> np.ndarray:
    """Mean target, else the volume's centre (3,), volume LPS mm."""
    if not targets:
        return center_lps_mm(volume.image)
    points = np.array([np.asarray(p, float) for p in targets.values()])
    corners = corners_lps_mm(volume.image)
    for name, p in targets.items():
        if not np.isfinite(p).all() or (p < corners.min(0) - 50).any() or (p > corners.max(0) + 50).any():
            raise FluoroGuideError(
                f"The target {name} lies outside the volume", np.round(np.asarray(p, float), 1).tolist(),
                "Give target points in LPS mm of the volume.",
            )
    return points.mean(axis=0)


def _check(volume: AttenuationVolume, images: list[XrayImage], start: np.ndarray, point: np.ndarray) -> None:
    if not images:
        raise FluoroGuideError("There is no X-ray to register to", None, "Give one or two X-ray images.")
    for image in images:
        name = image.source or "X-ray"
        if (image.view.depth_mm(apply(start, np.vstack([point, center_lps_mm(volume.image)]))) <= 0).any():
            raise FluoroGuideError(
                "The initial pose puts the volume behind the X-ray source", name,
                "Check the initial transform's direction (volume to isocentre) and the SOD.",
            )
        if image.mask.mean() < 0.02:
            raise FluoroGuideError("Almost the whole X-ray is masked", name, "Check its collimation and polarity.")
        if np.ptp(image.pixels[image.mask]) <= 0:
            raise FluoroGuideError("The X-ray shows nothing: all its pixels are equal", name, "Choose another frame.")


def bone_bright(images: Sequence[XrayImage], registration: Registration) -> list[XrayImage]:
    """The X-rays as the registration saw them, for pictures and later steps: found inverted they are turned over, their C-arm views corrected."""
    inverted = registration.facts.get("inverted_views", ())
    return [
        dataclasses.replace(x, pixels=-x.pixels if i in inverted else x.pixels, view=registration.views[i]) for i, x in enumerate(images)
    ]


def warm_up(backend: str = "auto") -> None:
    """Compile (or load from the cache) everything that :func:`register` runs, on a tiny case; seconds at the first call."""
    import SimpleITK as sitk

    from ..geometry.carm import CArmView

    k, j, i = np.mgrid[:24, :24, :24] - 12
    image = sitk.GetImageFromArray((0.02 * (i**2 + 2 * j**2 + k**2 < 90) + 0.02 * ((i - 3) ** 2 + j**2 < 9)).astype(np.float32))
    image.SetSpacing([4.0] * 3)
    image.SetOrigin([-48.0] * 3)
    volume = AttenuationVolume(image, "CT", "warm-up")
    view = CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=700, rows=48, columns=48, pixel_spacing_mm=(4.0, 4.0))
    moving = MovingVolume(volume, backend)
    pixels = moving.projector(6.0).project(view, np.eye(4))
    xray = XrayImage(pixels, np.ones(pixels.shape, bool), view, "warm-up")
    spec = (LevelOptions(6.0, 2, 2, 1),)
    register(moving, [xray], np.eye(4), options=Options(levels=spec, search_limit_deg=0.0, threads=1, backend=backend))
