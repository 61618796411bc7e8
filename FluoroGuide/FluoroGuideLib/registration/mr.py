"""Registration of MR: the engine of CT on pseudo-attenuation, with a narrower search, its own verdict, and what must be said.

MR does not show what the X-ray measures, so the picture never fits as well as with CT, and a good fit elsewhere is likelier: similarity
limits are other ones, rays through voxels of uncertain class do not vote, and the error keeps a floor for the distortion of MR.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..anatomy.mr import MrVolume
from ..geometry.carm import CArmView
from ..geometry.frames import lps_from_ijk
from ..projection.joseph import Projector
from .confidence import Limits
from .result import Registration
from .volume import MovingVolume, resampled

UNCERTAIN_SHARE = 0.97
"""Rays are left out when their summed uncertainty exceeds this quantile of all rays through the volume seen along its three axes."""
FLOOR_MM = 0.75
"""Standard deviation per axis added to the position: gradient distortion (up to 1 mm) and how little of bone MR shows (design cases)."""
SIMILARITY_FAIL, SIMILARITY_WARN = 0.25, 0.36
"""Local correlation of the worst view (few design cases: right poses 0.38 and more, wrong ones from 0.05 to 0.43: it does not tell them apart)."""
SEARCH = {"search_limit_deg": 15.0, "search_step_deg": 7.5, "search_reach_mm": 40.0}
"""Starts are expected within 20 mm and 10 degrees; farther off, wrong poses fit an MR nearly as well as the right one."""
PLANNED = "Planned on MR"
WHOLE_LOOK = "In MR a bone that moved against its surroundings since planning is not noticed: compare the overlay with the bone before use."
PART_LOOK = "A bone on its own is found in MR reliably only when its surroundings did not move: compare the overlay with the bone before use."
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


class MrMovingVolume(MovingVolume):
    """The moving volume of an MR: rays through uncertain voxels count as unknown."""

    def __init__(self, volume: MrVolume, backend: str = "auto") -> None:
        super().__init__(volume, backend)
        self._unknown: UnknownRays | None = None

    def beyond(self) -> UnknownRays:
        """What :class:`MovingVolume` calls the unknown body beyond the scan, and the uncertain rays."""
        import SimpleITK as sitk

        if self._unknown is None:
            spread = resampled(self.volume.uncertainty, 4.0)
            values = sitk.GetArrayViewFromImage(spread)
            sums = np.concatenate([values.sum(axis).ravel() * 4.0 for axis in range(3)])
            limit = float(np.quantile(sums[sums > 0], UNCERTAIN_SHARE)) if (sums > 0).any() else np.inf
            self._unknown = UnknownRays(super().beyond(), Projector(spread + 1e-9, self.backend), limit)
        return self._unknown


def mr_options(options: object) -> object:
    """The options of :func:`register.register` with the search of MR where the caller left those of CT."""
    standard = type(options)()
    same = {k: v for k, v in SEARCH.items() if getattr(options, k) == getattr(standard, k)}
    # the check by the bone at the target needs bone that was found for sure; in MR that is labelled bone, registered as a part
    return dataclasses.replace(options, check_part=False, **same)


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
    """The result with the verdict, the error and the words of a registration planned on MR."""
    covariance = result.covariance.copy()
    covariance[3:, 3:] += np.eye(3) * FLOOR_MM**2
    draft = dataclasses.replace(result, covariance=covariance)
    points = targets or {}
    errors = draft.target_error(points) if np.isfinite(covariance).all() else []
    worst = min(result.similarity, default=0.0)
    fails, warns = [], []
    # the engine's sentences about similarity speak with the limits of CT
    kept = [r for r in result.reasons if not r.startswith(("The X-ray and the volume", "The predicted error at the target"))]
    if worst < SIMILARITY_FAIL:
        fails.append(f"The X-ray and the MR do not look alike (similarity {worst:.2f}): wrong level, body part, side or geometry?")
    elif worst < SIMILARITY_WARN:
        warns.append(f"The X-ray and the MR look only partly alike (similarity {worst:.2f}).")
    in_plane = len(result.views) == 1
    error = max((max(e.in_plane_mm) if in_plane else e.predicted_error_mm for e in errors), default=0.0)
    if error > Limits().error_fail_mm:
        fails.append("The images do not determine the position of the target well enough.")
    elif error > 3.5:
        warns.append(f"The predicted error at the target is {error:.1f} mm.")
    hard = result.verdict == "fail" and any("mirror" in r or "determine" in r or "moved against" in r for r in kept)
    notes = [r for r in kept if r == "in-plane only" or r.startswith("The grey values")]
    soft = [r for r in kept if r not in notes]
    # bone that moved 8 mm against its surroundings was found 3 to 20 mm wrong in design cases, and similarity does not tell: all get a look
    moved = PART_LOOK if "part" in result.facts else WHOLE_LOOK
    verdict = "fail" if fails or hard else "warn"
    said = f"{PLANNED} ({volume.contrast or 'contrast unknown'})" + (f": predicted error {error:.1f} mm (95 %)." if errors else ".")
    facts = {
        **result.facts, "planned_on": "MR", "mr_contrast": volume.contrast, "mr_caveats": list(volume.caveats),
        "mr_error_floor_mm": FLOOR_MM,
    }
    return dataclasses.replace(draft, verdict=verdict, reasons=(*fails, *warns, *soft, moved, *notes, said, *volume.caveats), facts=facts)
