"""Registration of MR: the engine of CT on pseudo-attenuation, with a narrower search, its own verdict, and what must be said.

MR does not show what the X-ray measures, so the picture never fits as well as with CT, and a good fit elsewhere is likelier: similarity
limits are other ones, rays through voxels of uncertain class do not vote, and the error keeps a floor for the distortion of MR.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM
from ..anatomy.mr import MrVolume
from ..geometry.carm import CArmView
from ..geometry.frames import lps_from_ijk
from ..geometry.rigid import apply
from ..projection.joseph import Projector
from .checks import Evidence
from .confidence import Limits
from .findings import Finding, told, worst_first
from .mr_search import BONE_SEEN, SEARCHED
from .prior import PosePrior
from .result import Registration
from .volume import BODY_PER_MM, MovingVolume, resampled, unknown_beyond

UNCERTAIN_SHARE = 0.97
"""Rays are left out when their summed uncertainty exceeds this quantile of all rays through the volume seen along its three axes."""
FLOOR_MM = 0.65
"""Standard deviation per axis added to the position: gradient distortion (up to 1 mm) and how little of bone MR shows (design cases)."""
STRETCH_SHARE = 0.1
"""The same as a share of how far a labelled bone moved against its surroundings, whose stretched tissue the classes show only roughly."""
SIMILARITY_FAIL, SIMILARITY_WARN = 0.30, 0.40
"""Local correlation of the worst view, whole volume (18 design cases: right poses 0.44 and more, a wrong one 0.27)."""
PART_SIMILARITY_FAIL, PART_SIMILARITY_WARN = 0.08, BONE_SEEN
"""The same of a labelled bone's outline in small windows (11 design cases: 0.15 to 0.29; another body part 0.04)."""
AGREE_MM = 2.0
"""A labelled bone found within this of where the whole volume puts it: two ways with one answer."""
ALONE_FAIL_MM = 3.5
"""Views that pull the target farther apart than this contradict each other (design cases: right poses to 1.7 mm, a wrong one 3.7)."""
SEARCH = {"search_limit_deg": 15.0, "search_step_deg": 7.5, "search_reach_mm": 40.0, "search_keep": SEARCHED, "weak_similarity": -1.0}
"""Starts are expected within 20 mm and 10 degrees; farther off, wrong poses fit an MR nearly as well as the right one.  So there is no second look,
which searches farther: what is weak for CT (0.5) is usual for MR, and where it was taken it led from right poses to wrong ones."""
START_MM, START_DEG = 15.0, 7.5
"""Standard deviation of a given start.  Labelled bodies alone look the same one vertebra up and down (the cost differs by 1 %): between such
poses the start decides, and the check of levels says so."""
PLANNED = "Planned on MR"
WHOLE_LOOK = (
    "Without its segmentation, a bone that moved against its surroundings since planning is not noticed in MR: segment it, "
    "or compare the overlay with the bone before use."
)
UNSEEN_LOOK = (
    "The bone's outline is hardly seen in the X-ray (similarity {:.2f}): this is the pose of all labelled bone; if this bone moved against the "
    "others since planning, that is not noticed. Compare the overlay with the bone before use."
)
SLAB_MM, BESIDE_MM, SLAB_SHARE = 150.0, 90.0, 0.15
"""A scan narrower than the first that is cut on both sides is a slab of a wider body, taken to go on for the second on each side; rays with
less than the third of their way in the slab do not vote."""
SOFT_MOST = 1.1 * WATER_ATTENUATION_PER_MM
ERROR_WARN_MM = 3.5
"""Predicted error from which on the overlay is to be compared with the bone."""
OWN_KINDS = ("similarity", "error", "views apart", "level", "bone")
"""Findings of the engine that MR judges anew with limits of its own."""
HARMLESS_NOTES = ("in-plane", "polarity", "moved")
"""Notes that change nothing for MR either (of motion it has a finding of its own); without a position in space, or a bone, it warns."""
NEAR_MM = 25.0
"""A label farther from the target than this is not the target's bone."""


class UnknownRays:
    """Rays that must not vote: beyond the scan, or through voxels whose class is uncertain.  Stands in for the projector of the body beyond."""

    def __init__(self, beyond: Projector | None, uncertain: Projector, limit: float) -> None:
        self.beyond, self.uncertain, self.limit = beyond, uncertain, limit

    @property
    def count(self) -> int:
        """Projections made."""
        return self.uncertain.count + (self.beyond.count if self.beyond is not None else 0)

    def project(self, view: CArmView, pose: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None) -> np.ndarray:
        """Above 0 where the ray must not vote, float32 (rows, columns)."""
        image = np.maximum(self.uncertain.project(view, pose, mask, distances) - np.float32(self.limit), 0)
        return image if self.beyond is None else image + self.beyond.project(view, pose, mask, distances)


class SlabRays:
    """Rays of which too small a part runs through a scan that is narrower than the body: those beside it say nothing.

    Rays across the slab stay known: the tissue beside it is smooth, and local normalisation takes that away.
    """

    def __init__(self, scanned: Projector, all_body: Projector, ends: Projector | None) -> None:
        self.scanned, self.all_body, self.ends = scanned, all_body, ends

    @property
    def count(self) -> int:
        """Projections made."""
        return sum(p.count for p in (self.scanned, self.all_body, self.ends) if p is not None)

    def project(self, view: CArmView, pose: np.ndarray, mask: np.ndarray | None = None, distances: np.ndarray | None = None) -> np.ndarray:
        """Above 0 where the ray must not vote, float32 (rows, columns)."""
        everything = self.all_body.project(view, pose, mask, distances)
        beside = np.maximum(SLAB_SHARE * everything - self.scanned.project(view, pose, mask, distances), 0)
        return beside if self.ends is None else beside + self.ends.project(view, pose, mask, distances)


class MrMovingVolume(MovingVolume):
    """The moving volume of an MR: rays through uncertain voxels count as unknown; a slab narrower than the body goes on in soft tissue."""

    shows_bone = False  # right poses of a bone look no more alike than 0.15 to 0.29; MR's own limits judge them

    def __init__(self, volume: MrVolume, backend: str = "auto") -> None:
        super().__init__(volume, backend)
        self._unknown: UnknownRays | None = None
        self.slab_axis = None if self.cut_at_the_sides else slab_axis(volume.image)
        if self.slab_axis is not None:
            self.image = continued_slab(volume.image, self.slab_axis)

    def beyond(self) -> UnknownRays:
        """What :class:`MovingVolume` calls the unknown body beyond the scan, and the uncertain rays."""
        import SimpleITK as sitk

        if self._unknown is None:
            spread = resampled(self.volume.uncertainty, 4.0)
            values = sitk.GetArrayViewFromImage(spread)
            sums = np.concatenate([values.sum(axis).ravel() * 4.0 for axis in range(3)])
            limit = float(np.quantile(sums[sums > 0], UNCERTAIN_SHARE)) if (sums > 0).any() else np.inf
            beyond = super().beyond() if self.slab_axis is None else self._beside()
            self._unknown = UnknownRays(beyond, Projector(spread + 1e-9, self.backend), limit)
        return self._unknown

    def _beside(self) -> SlabRays:
        """The rays beside a slab and beyond its ends."""
        import SimpleITK as sitk

        ends = unknown_beyond(self.image)
        body = [sitk.Cast(resampled(image, 4.0) > BODY_PER_MM, sitk.sitkFloat32) for image in (self.volume.image, self.image)]
        return SlabRays(*(Projector(image, self.backend) for image in body), None if ends is None else Projector(ends, self.backend))


def slab_axis(image: object) -> int | None:
    """The image axis across which a scan is a slab narrower than the body: not the long axis, cut on both sides; None where there is none."""
    import SimpleITK as sitk

    size = np.asarray(image.GetSize()) * np.asarray(image.GetSpacing())
    along = np.abs(np.reshape(image.GetDirection(), (3, 3))[2])  # how far each axis runs along the patient
    values = sitk.GetArrayViewFromImage(image)
    for axis in np.argsort(size):
        across = values.shape[2 - axis]
        ends = [float((np.take(values, n, 2 - axis) > BODY_PER_MM).mean()) for n in (0, across - 1)]
        middle = float((np.take(values, across // 2, 2 - axis) > BODY_PER_MM).mean())
        if along[axis] < 0.7 and size[axis] < SLAB_MM and min(ends) > 0.7 * middle > 0.1:
            return int(axis)
    return None


def continued_slab(image: object, axis: int) -> object:
    """The image with soft tissue as at its two borders going on for :data:`BESIDE_MM` along an axis, then nothing."""
    import SimpleITK as sitk

    count, values = int(BESIDE_MM / image.GetSpacing()[axis]), sitk.GetArrayViewFromImage(image)
    place, pieces = 2 - axis, []
    for border in (0, -1):
        plane = sitk.GetImageFromArray(np.minimum(np.take(values, border, place), SOFT_MOST).astype(np.float32))
        smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(plane, 4.0))
        pieces.append(np.repeat(np.expand_dims(smooth, place), count, place))
    pieces[0][tuple(slice(0, 1) if a == place else slice(None) for a in range(3))] = 0.0  # the body ends there
    pieces[1][tuple(slice(-1, None) if a == place else slice(None) for a in range(3))] = 0.0
    result = sitk.GetImageFromArray(np.concatenate([pieces[0], values, pieces[1]], place))
    result.SetSpacing(image.GetSpacing())
    result.SetDirection(image.GetDirection())
    result.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([-float(count) if a == axis else 0.0 for a in range(3)]))
    return result


def mr_options(options: object) -> object:
    """The options of :func:`register.register` with the search of MR where the caller left those of CT."""
    standard = type(options)()
    same = {k: v for k, v in SEARCH.items() if getattr(options, k) == getattr(standard, k)}
    # the check by the bone at the target needs bone that was found for sure; in MR that is labelled bone, registered as a part
    return dataclasses.replace(options, check_part=False, **same)


def mr_prior(prior: PosePrior | None, initial: np.ndarray | None, point_lps_mm: np.ndarray) -> PosePrior | None:
    """What is known of the pose: what the caller said, else that a given start (4x4) is rough, not arbitrary."""
    if prior is not None or initial is None:
        return prior
    return PosePrior.around(initial, apply(initial, point_lps_mm), rotation_deg=START_DEG, translation_mm=START_MM)


def moving_of(volume: object, backend: str = "auto") -> MovingVolume:
    """The moving volume that fits the volume's kind."""
    if isinstance(volume, MovingVolume):
        return volume
    return MrMovingVolume(volume, backend) if isinstance(volume, MrVolume) else MovingVolume(volume, backend)


def is_mr(volume: object) -> bool:
    """Whether a volume is pseudo-attenuation of an MR."""
    return isinstance(volume, MrVolume)


def mr_part(volume: MrVolume, wanted: object, point_lps_mm: np.ndarray) -> object:
    """What ``part`` means for MR: ``"auto"`` is the labelled bone at the point, or the whole volume where nothing is labelled there."""
    if not (isinstance(wanted, str) and wanted == "auto"):
        return wanted
    if volume.parts is None:
        return None
    import SimpleITK as sitk

    labels = volume.parts
    matrix = lps_from_ijk(labels)
    array = sitk.GetArrayViewFromImage(labels)
    ijk = np.argwhere(array > 0)
    values = array[tuple(ijk.T)]
    distance = np.linalg.norm(ijk[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3] - point_lps_mm, axis=1)
    nearest = int(np.argmin(distance))
    return int(values[nearest]) if distance[nearest] <= NEAR_MM else None


def judged_as_mr(result: Registration, volume: MrVolume, targets: dict[str, np.ndarray] | None) -> Registration:
    """The result with the verdict, the error and the words of a registration planned on MR.

    Only a labelled bone that is found where the whole volume puts it can pass: without it, bone that moved since planning is not noticed.
    """
    covariance, moved = result.covariance.copy(), float(result.facts.get("moved_against_surroundings_mm", 0.0))
    covariance[3:, 3:] += np.eye(3) * (FLOOR_MM**2 + (STRETCH_SHARE * moved) ** 2)
    draft = dataclasses.replace(result, covariance=covariance)
    errors = draft.target_error(targets or {}) if np.isfinite(covariance).all() else []
    error = max((max(e.in_plane_mm) if len(result.views) == 1 else e.predicted_error_mm for e in errors), default=0.0)
    findings = worst_first([*_own_findings(draft, error), *_engine_findings(result)])
    said = f"{PLANNED} ({volume.contrast or 'contrast unknown'})" + (f": predicted error {error:.1f} mm (95 %)." if errors else ".")
    facts = {
        **result.facts, "planned_on": "MR", "mr_contrast": volume.contrast, "mr_caveats": list(volume.caveats),
        "mr_error_floor_mm": FLOOR_MM, "mr_findings": [f"{f.level}: {f.kind}" for f in findings],
    }
    findings = (*findings, *(Finding("planned on MR", "note", sentence) for sentence in (said, *volume.caveats)))
    return dataclasses.replace(draft, **told(findings), facts=facts)


def _own_findings(result: Registration, error_mm: float) -> list[Finding]:
    """What MR's own limits say."""
    found, part, whole, worst = [], "part" in result.facts, _whole_similarity(result), min(result.similarity, default=0.0)
    unseen = result.facts.get("part_not_seen")
    if unseen is not None:
        level = "fail" if unseen < PART_SIMILARITY_FAIL else "warn"
        found.append(Finding("bone not seen" if level == "fail" else "bone hardly seen", level, UNSEEN_LOOK.format(unseen)))
    if part and worst < PART_SIMILARITY_FAIL:
        found.append(Finding("bone not seen", "fail", f"The bone's outline is not seen in the X-ray (similarity {worst:.2f})."))
    elif part and worst < PART_SIMILARITY_WARN:
        found.append(Finding("bone hardly seen", "warn", f"The bone's outline is seen only partly in the X-ray (similarity {worst:.2f})."))
    if whole < SIMILARITY_FAIL:
        sentence = f"The X-ray and the MR do not look alike (similarity {whole:.2f}): wrong level, body part, side or geometry?"
        found.append(Finding("not alike", "fail", sentence))
    elif whole < SIMILARITY_WARN:
        found.append(Finding("partly alike", "warn", f"The X-ray and the MR look only partly alike (similarity {whole:.2f})."))
    seen = _evidence(result)
    apart = max(seen.alone_mm, default=0.0)
    if apart > ALONE_FAIL_MM:
        found.append(Finding("views apart", "fail", f"The views contradict each other by {apart:.1f} mm at the target."))
    if seen.level_ratio < Limits().level_warn:
        sentence = f"A pose {seen.level_mm:.0f} mm along the spine fits as well: is it the right vertebra?"
        found.append(Finding("level", "fail" if seen.level_ratio < Limits().level_fail else "warn", sentence))
    if error_mm > Limits().error_fail_mm or not np.isfinite(result.covariance).all():
        found.append(Finding("undetermined", "fail", "The images do not determine the position of the target well enough."))
    elif error_mm > ERROR_WARN_MM:
        found.append(Finding("error", "warn", f"The predicted error at the target is {error_mm:.1f} mm."))
    if not part and unseen is None:
        found.append(Finding("whole", "warn", WHOLE_LOOK))
    elif float(result.facts.get("moved_against_surroundings_mm", 0.0)) > AGREE_MM:
        sentence = "The bone moved against its surroundings since planning: compare the overlay with the bone before use."
        found.append(Finding("moved", "warn", sentence))
    return found


def _engine_findings(result: Registration) -> list[Finding]:
    """What the engine found besides what MR judges anew."""
    rest = [f for f in result.findings if f.kind not in OWN_KINDS]
    return [dataclasses.replace(f, level="warn") if f.level == "note" and f.kind not in HARMLESS_NOTES else f for f in rest]


def _evidence(result: Registration) -> Evidence:
    return Evidence(**(result.facts.get("checks") or {}))


def _whole_similarity(result: Registration) -> float:
    """Worst view's similarity of the whole volume at its finest level."""
    found = [h["similarity"] for h in result.history if "similarity" in h and h.get("stage") != "part"]
    return min(found[-1] if found else result.similarity, default=0.0)
