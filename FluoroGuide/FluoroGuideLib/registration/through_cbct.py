"""MR -> CBCT (or CT) -> X-ray: plan on MR, register in 3-D to the volume of the room, then to fluoroscopy.

The 3-D/3-D step maximises Mattes' mutual information (Mattes et al., IEEE TMI 22:120, 2003) of the whole volumes with SimpleITK: a grid of
starts on a coarse level, then ever finer ones.  The bone at the targets is then matched on its own (:mod:`.correlation_ratio`), because the
rest of the body may have moved between the scans; mutual information of so small a region has optima millimetres off (four of eight design
cases), the correlation ratio had none beyond 0.8 mm.  Where both ways agree, both are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM
from ..errors import CancelledError, FluoroGuideError
from ..geometry.frames import center_lps_mm
from ..geometry.rigid import apply, check_rigid, difference, inverse, perturb
from .correlation_ratio import AROUND_MM, Fit, Region, Sampler, refine, region
from .result import Registration, radius_95

COARSE_MM, MIDDLE_MM, FINE_MM = 6.0, 3.0, 1.5
LIKENESS_REACH_MM = 35.0
"""Half-side of the region around the targets whose mutual information is judged."""
BONE_HU = 180.0
"""What counts as bone in the CBCT."""


@dataclass(frozen=True)
class Around:
    """Where the last step looks: ``reach_mm`` around the targets, ending over ``fade_mm``; voxels nearer than ``near_mm`` to bone vote fully,
    over ``near_fade_mm`` ever less, others with the weight ``elsewhere``."""

    reach_mm: float
    fade_mm: float
    near_mm: float
    near_fade_mm: float
    elsewhere: float


WIDE, TIGHT = Around(55.0, 10.0, 8.0, 6.0, 0.1), Around(28.0, 6.0, 4.0, 4.0, 0.0)
"""Neighbouring bones help as long as they moved along; where the first says that the target's bone moved, it is looked at alone."""
ALONE_MM = 1.5
"""The target's bone and the whole volumes differ by more than this: it moved."""
LOCAL_LEVELS = (3.0, FINE_MM)
LOCAL_ITERATIONS = 25
RING_MM = 4.0
"""Border of the CBCT's field that is not compared: truncation makes it bright."""
AGREE_MM = 1.0
"""Where the bone and the whole volumes put the target this near to each other, a quarter of the answer is the whole volumes'."""
SPREAD_MM, LOCAL_FACTOR, MOVED_SHARE = 0.25, 3.0, 0.15
"""Standard deviation per axis that the 3-D/3-D step keeps even where both ways agree, the factor of what the bone's own equations say, and
the share of how far both ways are apart (design cases; gradient distortion of MR is extra)."""
DISTORTION_MM = 0.4
LEAST_MM3 = 6000.0
"""The last step's region must hold so much of the CBCT."""
MI_FAIL, MI_WARN = 0.08, 0.16
"""Mutual information (nats, Mattes, 32 bins) below which the volumes do not show the same anatomy."""
DISAGREE_WARN_MM, DISAGREE_FAIL_MM = 2.0, 6.0
TRIES_DEG = (-8.0, 0.0, 8.0)
MAX_SAMPLES = 200_000


@dataclass(frozen=True, eq=False)
class VolumeMatch:
    """Rigid transform between two volumes.

    Attributes
    ----------
    matrix
        4x4, MR LPS -> CBCT LPS, mm.
    covariance_mm2
        (3, 3) of a target's position after it, CBCT LPS axes.
    mutual_information
        In nats, over the region of the last step.
    moved_mm
        How far the targets lie apart by the whole volumes and by the bone around them.
    verdict, reasons
        As of a registration.
    """

    matrix: np.ndarray
    covariance_mm2: np.ndarray
    mutual_information: float
    moved_mm: float
    verdict: str
    reasons: tuple[str, ...]

    def target_error_mm(self) -> float:
        """Radius that holds a target's error with 95 % probability."""
        return radius_95(self.covariance_mm2)

    def points(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the MR in the CBCT."""
        return apply(self.matrix, points_lps_mm)


def register_volumes(
    mr: object, cbct: object, targets: Mapping[str, np.ndarray] | None = None, *, initial: np.ndarray | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> VolumeMatch:
    """Rigid registration of an MR to a CBCT or CT.

    Parameters
    ----------
    mr, cbct
        3-D SimpleITK images; the CBCT in HU.
    targets
        Named points (3,), MR LPS mm: the bone around them decides in the end.
    initial
        4x4, MR LPS -> CBCT LPS; without it the same patient coordinates are tried first, then the volumes' centres on each other.

    Raises
    ------
    FluoroGuideError
        The volumes do not overlap.
    CancelledError
        ``cancelled()`` returned True.
    """
    import SimpleITK as sitk

    mr, cbct = _compact(sitk.Cast(mr, sitk.sitkFloat32)), _compact(sitk.Clamp(cbct, sitk.sitkFloat32, -1000.0, 1500.0))
    points = np.array([np.asarray(p, float) for p in (targets or {}).values()]).reshape(-1, 3)
    center = points.mean(0) if len(points) else center_lps_mm(mr)
    stop = cancelled or (lambda: False)
    field = known_field(cbct)
    best = _coarse(mr, cbct, field, center, None if initial is None else check_rigid(initial, "initial transform"), stop)
    best = _optimised(_smoothed(mr, cbct, MIDDLE_MM, None), field, best, center, MIDDLE_MM, stop)
    whole = _optimised(_smoothed(mr, cbct, 2.0, None), field, best, center, 2.0, stop)
    points = points if len(points) else center[None]
    found = _both(mr, cbct, field, whole, points, WIDE, stop)
    if found is None:
        raise FluoroGuideError("Around the targets the CBCT shows nothing to match", None, "Check that both are of the same region")
    if _apart(found[0].matrix, whole, points) > ALONE_MM:
        found = _both(mr, cbct, field, found[0].matrix, points, TIGHT, stop) or found
    local, again = found
    pair = _smoothed(mr, cbct, FINE_MM, _region(apply(whole, points), LIKENESS_REACH_MM))
    return _match(pair, whole, local, again, points)


def _compact(image: object) -> object:
    """The image no finer than the finest level needs."""
    from .volume import resampled

    return resampled(image + 1000.0, FINE_MM) - 1000.0 if float(np.prod(image.GetSpacing())) < 0.5 * FINE_MM**3 else image


def known_field(cbct: object) -> object:
    """uint8 SimpleITK image of about 3 mm voxels: 1 where a CBCT (HU, -1000 outside) says something, without the border of a field that cut
    the body off.  Where air ends the body, the air is known."""
    import SimpleITK as sitk

    from .volume import is_cut_at_the_sides

    small = sitk.Shrink(cbct, [max(1, int(3.0 / s)) for s in cbct.GetSpacing()])
    outside = sitk.BinaryMorphologicalOpening(small <= -999.0, [1, 1, 1], sitk.sitkBall)
    if not (sitk.GetArrayViewFromImage(outside).any() and is_cut_at_the_sides(WATER_ATTENUATION_PER_MM * (1.0 + cbct / 1000.0))):
        return outside * 0 + 1
    framed = sitk.ConstantPad(outside, [1, 1, 0], [1, 1, 0], 1)  # the circle touches the square's sides
    distance = sitk.SignedMaurerDistanceMap(framed, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return sitk.Crop(sitk.Cast(distance > RING_MM, sitk.sitkUInt8), [1, 1, 0], [1, 1, 0])


def _both(
    mr: object, cbct: object, field: object, start: np.ndarray, points: np.ndarray, around: Around, stop: Callable[[], bool],
) -> tuple[Fit, Fit] | None:
    """The bone's own pose from a start and from another beside it, the better one first; ``points`` (N, 3) in the MR.  None: too little votes."""
    here = apply(start, points)
    levels = [(Sampler(_blurred(mr, spacing)), _voters(cbct, field, here, spacing, around)) for spacing in LOCAL_LEVELS]
    if min(spacing**3 * len(voxels.weight) for spacing, (_, voxels) in zip(LOCAL_LEVELS, levels, strict=True)) < LEAST_MM3:
        return None
    found = []
    for pose in (start, _nudged(start, points.mean(0))):
        for sampler, voxels in levels:
            fit = refine(sampler, voxels, pose, here.mean(0), LOCAL_ITERATIONS, stop)
            pose = fit.matrix
        found.append(fit)
    first, second = sorted(found, key=lambda fit: fit.unexplained)
    return first, second


def _apart(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> float:
    """Largest distance between where two poses put points (N, 3)."""
    return float(np.linalg.norm(apply(a, points) - apply(b, points), axis=1).max())


def _voters(cbct: object, field: object, points: np.ndarray, spacing_mm: float, around: Around) -> Region:
    """Voxels near the bone around the points, the others a little; none beyond the CBCT's field."""
    import SimpleITK as sitk

    def on(grid: object, image: object, beyond: float) -> object:
        return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, beyond, sitk.sitkFloat32)

    wide, grid = (_grid(points, around.reach_mm + more, spacing_mm) for more in (3 * AROUND_MM, 0.0))
    values = on(wide, _blurred(cbct, spacing_mm), -1000.0)
    bone = sitk.SmoothingRecursiveGaussian(values, 1.0) > BONE_HU
    away = sitk.SignedMaurerDistanceMap(bone, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    last = around.near_mm + around.near_fade_mm
    near = np.clip((last - sitk.GetArrayFromImage(on(grid, away, 1e3))) / around.near_fade_mm, around.elsewhere, 1.0)
    kji = np.indices(near.shape)
    places = np.stack([kji[2 - n] * spacing_mm + grid.GetOrigin()[n] for n in range(3)], -1)
    distance = np.min([np.linalg.norm(places - p, axis=-1) for p in points], axis=0)
    known = sitk.GetArrayFromImage(on(grid, field, 0.0)) > 0.5
    weight = sitk.GetImageFromArray((near * np.clip((around.reach_mm - distance) / around.fade_mm, 0, 1) * known).astype(np.float32))
    weight.CopyInformation(grid)
    return region(on(grid, values, -1000.0), on(grid, sitk.SmoothingRecursiveGaussian(values, AROUND_MM), -1000.0), weight)


def _grid(points: np.ndarray, reach_mm: float, spacing_mm: float) -> object:
    """Empty image along LPS around the points' box."""
    import SimpleITK as sitk

    low, high = points.min(0) - reach_mm, points.max(0) + reach_mm
    grid = sitk.Image([int(n) for n in np.ceil((high - low) / spacing_mm) + 1], sitk.sitkFloat32)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetOrigin(low.tolist())
    return grid


def _match(pair: tuple[object, object], whole: np.ndarray, local: Fit, again: Fit, points: np.ndarray) -> VolumeMatch:
    """Answer, verdict and error from how well two starts and two regions agree."""
    apart, moved = (_apart(local.matrix, m, points) for m in (again.matrix, whole))
    center = apply(local.matrix, points.mean(0))
    share = 0.5 / (1 + (moved / AGREE_MM) ** 2)
    answer = perturb(local.matrix, share * difference(local.matrix, whole, center), center)
    information = -_method(points.mean(0), answer, None)[0].MetricEvaluate(pair[1], pair[0])
    own = max((local.point_covariance(p, center) for p in apply(answer, points)), key=np.trace)
    covariance = LOCAL_FACTOR**2 * own + (SPREAD_MM**2 + DISTORTION_MM**2 / 3 + (0.5 * apart) ** 2 + (MOVED_SHARE * moved) ** 2) * np.eye(3)
    fails, warns = [], []
    if information < MI_FAIL:
        fails.append(f"The MR and the CBCT do not show the same anatomy (mutual information {information:.2f}): other level, other body part?")
    elif information < MI_WARN:
        warns.append(f"The MR and the CBCT agree only partly (mutual information {information:.2f}).")
    if apart > 1.0:
        warns.append(f"Two starts end {apart:.1f} mm apart.")
    if moved > DISAGREE_FAIL_MM:
        fails.append(f"The bone at the target and the whole volumes disagree by {moved:.1f} mm.")
    elif moved > DISAGREE_WARN_MM:
        warns.append(f"The bone at the target lies {moved:.1f} mm from where the whole volumes put it: posture changed; only this bone is matched.")
    verdict = "fail" if fails else "warn" if warns else "pass"
    return VolumeMatch(answer, covariance, information, moved, verdict, (*fails, *warns))


def _nudged(matrix: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Another start 2 mm and 1.5 degrees away."""
    return perturb(matrix, np.r_[np.radians([1.5, -1.0, 1.0]), 1.5, -1.0, 1.2], apply(matrix, center))


def _coarse(
    mr: object, cbct: object, field: object, center: np.ndarray, initial: np.ndarray | None, stop: Callable[[], bool],
) -> np.ndarray:
    """The best of a few rotations and both ways to begin, each optimised on the coarsest level."""
    starts = [initial] if initial is not None else [np.eye(4), _centred(mr, cbct)]
    pair, tried = _smoothed(mr, cbct, COARSE_MM, None), []
    for start in starts:
        for degrees in TRIES_DEG:
            for axis in ((0,) if degrees == 0 else (0, 1, 2)):
                turn = np.zeros(6)
                turn[axis] = np.radians(degrees)
                pose = perturb(start, turn, apply(start, center))
                try:
                    found, value = _run(pair, field, pose, center, COARSE_MM, 30, stop)
                except RuntimeError:  # ITK: all samples map outside; this start has no overlap
                    continue
                tried.append((value, len(tried), found))
    if not tried:
        raise FluoroGuideError("The MR and the CBCT do not overlap", None, "Give a rough alignment, or check that both are of the same region")
    return min(tried)[2]


def _centred(mr: object, cbct: object) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = center_lps_mm(cbct) - center_lps_mm(mr)
    return pose


def _region(points: np.ndarray, reach_mm: float) -> object:
    """uint8 image of 2 mm voxels along LPS axes: 1 within ``reach_mm`` of the points' box, along its axes."""
    import SimpleITK as sitk

    low, high = points.min(0) - reach_mm, points.max(0) + reach_mm
    size = np.maximum(4, np.ceil((high - low) / 2.0)).astype(int)
    mask = sitk.Image([int(n) for n in size], sitk.sitkUInt8) + 1
    mask.SetSpacing([2.0] * 3)
    mask.SetOrigin(low.tolist())
    return mask


def _smoothed(mr: object, cbct: object, spacing_mm: float, region: object | None) -> tuple[object, object]:
    """(MR, CBCT) at a resolution; the CBCT cut to the region."""
    import SimpleITK as sitk

    from .volume import resampled

    if region is not None:
        grid = sitk.Image([max(4, int(np.ceil(n * 2.0 / spacing_mm))) for n in region.GetSize()], sitk.sitkFloat32)
        grid.SetSpacing([spacing_mm] * 3)
        grid.SetOrigin(region.GetOrigin())
        fixed = sitk.Resample(_blurred(cbct, spacing_mm), grid, sitk.Transform(), sitk.sitkLinear, -1000.0, sitk.sitkFloat32)
        return _blurred(mr, spacing_mm), fixed
    return resampled(mr, spacing_mm), resampled(cbct + 1000.0, spacing_mm) - 1000.0


def _blurred(image: object, spacing_mm: float) -> object:
    import SimpleITK as sitk

    for axis, own in enumerate(image.GetSpacing()):
        if spacing_mm > 1.2 * own and image.GetSize()[axis] > 4:
            image = sitk.RecursiveGaussian(image, 0.42 * spacing_mm, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    return image


def _method(center: np.ndarray, start: np.ndarray, percentage: float | None) -> tuple[object, object]:
    """(registration method, its transform CBCT -> MR, centred on the targets)."""
    import SimpleITK as sitk

    back = inverse(start)
    middle = apply(start, center)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetMatrix(back[:3, :3].ravel().tolist(), 1e-5)
    transform.SetTranslation((apply(back, middle) - middle).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    if percentage is not None:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(percentage)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, True)
    return method, transform


def _run(
    pair: tuple[object, object], field: object, start: np.ndarray, center: np.ndarray, spacing_mm: float, iterations: int, stop: Callable[[], bool],
) -> tuple[np.ndarray, float]:
    """One optimisation on a pair (MR, CBCT) of :func:`_smoothed`: (4x4 MR -> CBCT, metric: lower is better)."""
    if stop():
        raise CancelledError()
    moving, fixed = pair
    count = float(np.prod([float(n) for n in fixed.GetSize()]))
    method, transform = _method(center, start, None if count < MAX_SAMPLES else MAX_SAMPLES / count)
    method.SetMetricFixedMask(field)
    method.SetOptimizerAsRegularStepGradientDescent(spacing_mm / 2, spacing_mm / 400, iterations, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.Execute(fixed, moving)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    middle = np.array(transform.GetCenter())
    matrix[:3, 3] = np.array(transform.GetTranslation()) + middle - matrix[:3, :3] @ middle
    return inverse(matrix), float(method.GetMetricValue())


def _optimised(
    pair: tuple[object, object], field: object, start: np.ndarray, center: np.ndarray, spacing_mm: float, stop: Callable[[], bool],
) -> np.ndarray:
    try:
        return _run(pair, field, start, center, spacing_mm, 60, stop)[0]
    except RuntimeError:  # ITK: all samples map outside the moving image
        raise FluoroGuideError("The MR and the CBCT do not overlap", None, "Check that both are of the same region") from None


# ---- carrying on to the X-ray ------------------------------------------------------------------------------------------
def carried(registration: Registration, match: VolumeMatch) -> Registration:
    """The registration CBCT -> X-ray as one of the MR: pose and covariance of both steps together, and the worse verdict.

    The 3-D/3-D error is added in the isocentre frame, so that ``target_error`` of MR points combines both.
    """
    covariance = registration.covariance.copy()
    turn = registration.pose[:3, :3]
    covariance[3:, 3:] += turn @ match.covariance_mm2 @ turn.T
    order = ("pass", "warn", "fail")
    verdict = max(registration.verdict, match.verdict, key=order.index)
    facts = {
        **registration.facts, "planned_on": "MR", "through": "CBCT", "volume_to_volume_matrix": match.matrix.tolist(),
        "volume_to_volume_error_mm": match.target_error_mm(), "volume_to_volume_verdict": match.verdict,
    }
    note = f"Planned on MR, carried through the CBCT: {match.target_error_mm():.1f} mm (95 %) of the error is from there."
    return dataclasses.replace(
        registration, pose=registration.pose @ match.matrix, covariance=covariance, verdict=verdict,
        reasons=(*match.reasons, *registration.reasons, note), facts=facts,
    )


def checkerboard(
    mr: object, cbct: object, match: VolumeMatch, point_lps_mm: np.ndarray, *, half_mm: float = 60.0, tile_mm: float = 15.0,
) -> np.ndarray:
    """uint8 picture (rows, 3 x columns) of both volumes in alternating tiles: axial, coronal and sagittal through an MR point (3,).

    Both are in the CBCT's LPS axes at 0.5 mm; coronal and sagittal have the head up.
    """
    import SimpleITK as sitk

    middle, count = match.points(np.asarray(point_lps_mm, float)), int(2 * half_mm / 0.5)
    back = inverse(match.matrix)
    transform = sitk.AffineTransform(back[:3, :3].ravel().tolist(), back[:3, 3].tolist())
    panels = []
    for axis in (2, 1, 0):
        size, spacing, origin = [count] * 3, [0.5] * 3, middle - half_mm
        size[axis], origin[axis] = 1, middle[axis]
        grid = (size, origin.tolist(), spacing, np.eye(3).ravel().tolist())
        planes = []
        for image, t in ((cbct, sitk.Transform()), (mr, transform)):
            plane = sitk.Resample(image, grid[0], t, sitk.sitkLinear, grid[1], grid[2], grid[3], 0.0, sitk.sitkFloat32)
            values = sitk.GetArrayFromImage(plane).squeeze(2 - axis)
            low, high = np.percentile(values, [2, 99])
            planes.append(np.clip((values - low) / max(high - low, 1e-6), 0, 1))
        rows, columns = np.indices(planes[0].shape)
        tiles = ((rows * 0.5 // tile_mm) + (columns * 0.5 // tile_mm)) % 2 == 0
        panel = np.where(tiles, *planes)
        panels.append(panel if axis == 2 else panel[::-1])
    return np.round(255 * np.hstack(panels)).astype(np.uint8)
