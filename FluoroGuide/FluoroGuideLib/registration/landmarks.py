"""A start from landmarks: points of the volume and where they are seen in one or more X-rays (perspective-n-point).

Least squares on the image with Cauchy weights, from many rotations at once: a single view of few points has up to four
exact solutions (Fischler & Bolles, Comm. ACM 24:381, 1981), and the wrong one looks as good as the right one.  All that
fit equally are reported; the one nearest to the orientation expected is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, check_rigid, difference, motion, point_jacobian, vector_from_rotation

CAUCHY_SIGMAS = 2.0
"""Residual, in sigmas, at which a pair's pull begins to fade."""
OUTLIER_SIGMAS = 4.0
EQUAL_FIT = 6.0
"""Two poses whose squared residuals (in sigmas) differ by less than this cannot be told apart: likelihood ratio 20."""
MIRROR_GAIN = 20.0
"""Gain in squared residuals (sigmas) from which a mirrored picture or exchanged labels are worth a warning."""
TURNED_DEG = 60.0


@dataclass(frozen=True, eq=False)
class LandmarkPair:
    """A point (3,) of the volume, LPS mm, and its pixel (column, row) in view number ``view``."""

    name: str
    position_lps_mm: np.ndarray
    pixel: np.ndarray
    view: int = 0


@dataclass(frozen=True)
class PairError:
    """How far one pair is off: on the detector in pixels, and in mm at the landmark's own depth; ``outlier`` pairs had no say."""

    name: str
    view: int
    error_px: float
    error_mm: float
    outlier: bool


@dataclass(frozen=True, eq=False)
class LandmarkRegistration:
    """The answer.

    Attributes
    ----------
    pose
        4x4, volume LPS -> isocentre LPS.
    errors
        One per pair, in the order given.
    covariance, center_mm
        6x6 of (rx, ry, rz in rad, tx, ty, tz in mm), left perturbation in isocentre axes about ``center_mm`` (the landmarks' mean).
        From the marks' scatter alone: marks that are all off in the same way are not in it.
    warnings
        Sentences for the user.
    alternatives
        Other poses (4x4) that fit as well.
    """

    pose: np.ndarray
    errors: tuple[PairError, ...]
    covariance: np.ndarray
    center_mm: np.ndarray
    warnings: tuple[str, ...]
    alternatives: tuple[np.ndarray, ...] = ()

    @property
    def rms_px(self) -> float:
        """Root mean squared distance of the pairs that were used."""
        return float(np.sqrt(np.mean([e.error_px**2 for e in self.errors if not e.outlier])))


@dataclass(frozen=True, eq=False)
class _Problem:
    """All pairs as arrays, in sigmas of the marks."""

    views: list[CArmView]
    names: list[str]
    points: np.ndarray  # (N, 3) volume LPS
    pixels: np.ndarray  # (N, 2)
    view_of: np.ndarray  # (N,)
    sigma_px: np.ndarray  # (N,)

    def without(self, left_out: np.ndarray) -> _Problem:
        keep = ~left_out
        names = [n for n, k in zip(self.names, keep, strict=True) if k]
        return _Problem(self.views, names, self.points[keep], self.pixels[keep], self.view_of[keep], self.sigma_px[keep])

    def with_pixels(self, pixels: np.ndarray) -> _Problem:
        return _Problem(self.views, self.names, self.points, pixels, self.view_of, self.sigma_px)

    def per_view(self) -> list[tuple[CArmView, np.ndarray]]:
        return [(view, np.flatnonzero(self.view_of == i)) for i, view in enumerate(self.views)]

    def depths(self, pose: np.ndarray) -> np.ndarray:
        moved, result = apply(pose, self.points), np.empty(len(self.points))
        for view, index in self.per_view():
            result[index] = view.depth_mm(moved[index])
        return result

    def offsets(self, pose: np.ndarray) -> np.ndarray:
        """(N, 2) projected minus marked, pixels; also for points behind the source, where the lines still meet the plane."""
        moved, result = apply(pose, self.points), np.empty((len(self.points), 2))
        for view, index in self.per_view():
            homogeneous = moved[index] @ view.projection_matrix[:, :3].T + view.projection_matrix[:, 3]
            result[index] = homogeneous[:, :2] / homogeneous[:, 2:] - self.pixels[index]
        return result

    def jacobian(self, pose: np.ndarray, center: np.ndarray, xi: np.ndarray) -> np.ndarray:
        """(N, 2, 6) derivative of the offsets at ``motion(xi, center) @ pose``."""
        before = apply(pose, self.points)
        after, turn, result = apply(motion(xi, center), before), point_jacobian(before, center, xi), np.empty((len(before), 2, 6))
        for view, index in self.per_view():
            result[index] = view.project_jacobian(after[index]) @ turn[index]
        return result


@dataclass(frozen=True, eq=False)
class _Fit:
    pose: np.ndarray
    cost: float  # twice the robust cost: a chi square for small residuals


def register_landmarks(
    views: Sequence[CArmView], pairs: Sequence[LandmarkPair], *, sigma_px: float | Sequence[float] = 2.0, expected: np.ndarray | None = None,
) -> LandmarkRegistration:
    """Pose from at least three pairs; three or more in each view make it unique.

    Parameters
    ----------
    views
        Views of one isocentre frame.
    pairs
        Marked landmarks; the same landmark may be marked in several views.
    sigma_px
        How well a mark is placed, standard deviation in pixels; one number or one per view.
    expected
        Rough pose (4x4) that says which of several equal solutions is meant, and which orientation is surprising; only its
        rotation is used. Without it volume and isocentre axes are taken to be roughly aligned.

    Raises
    ------
    FluoroGuideError
        Fewer than three pairs or different points, numbers that are not finite, a view that does not exist, or no pose that puts
        the landmarks in front of the source.
    """
    problem = _checked(list(views), list(pairs), sigma_px)
    rotation = np.eye(3) if expected is None else check_rigid(expected, "expected pose")[:3, :3]
    fits = _all_fits(problem, rotation)
    if not fits:
        raise FluoroGuideError(
            "No pose puts the landmarks in front of the X-ray source", None, "Check the geometry and that marks and landmarks belong together",
        )
    best = _nearest(fits, rotation)
    warnings = _line_warnings(problem)
    outliers, told = _outliers(problem, best)
    warnings += told + _exchange_warnings(problem, best, rotation)
    if outliers.any():
        used = problem.without(outliers)
        fits = [f for f in [_fit(used, best.pose), *_all_fits(used, rotation)] if f is not None]
        best = _nearest(fits, rotation)
    else:
        used = problem
    others = _alternatives(used, fits, best)
    warnings += _orientation_warnings(used, best, others, rotation)
    center = apply(best.pose, used.points).mean(axis=0)
    errors = _pair_errors(problem, best.pose, outliers)
    return LandmarkRegistration(best.pose, errors, _covariance(used, best.pose, center), center, tuple(warnings), tuple(f.pose for f in others))


def _checked(views: list[CArmView], pairs: list[LandmarkPair], sigma_px: float | Sequence[float]) -> _Problem:
    points = np.array([np.asarray(p.position_lps_mm, float) for p in pairs]).reshape(-1, 3)
    different = len(np.unique(np.round(points, 3), axis=0)) if len(points) else 0
    if different < 3:
        raise FluoroGuideError(
            "A start from landmarks needs at least three different landmarks", f"{different} given", "Mark further landmarks in volume and X-ray",
        )
    pixels, view_of = np.array([np.asarray(p.pixel, float) for p in pairs]), np.array([p.view for p in pairs])
    if not (np.isfinite(points).all() and np.isfinite(pixels).all()):
        raise FluoroGuideError("A landmark has a coordinate that is not a finite number", None, "Mark it again")
    if view_of.min() < 0 or view_of.max() >= len(views):
        raise FluoroGuideError("A landmark names a view that does not exist", int(view_of.max()), f"There are {len(views)} views, from 0")
    sigma = np.broadcast_to(np.asarray(sigma_px, float), (len(views),))
    if not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise FluoroGuideError("The precision of the marks must be a positive number of pixels", sigma_px)
    return _Problem(views, [p.name for p in pairs], points, pixels, view_of, sigma[view_of])


# ---- solving ----------------------------------------------------------------------------------------------------------
def _all_fits(problem: _Problem, rotation: np.ndarray) -> list[_Fit]:
    """Distinct local minima from 60 evenly spread rotations, best first.

    Two views that show three or more landmarks each leave one solution, so a good fit from the expected rotation ends the search.
    """
    from scipy.spatial.transform import Rotation

    if sum(len(index) >= 3 for _, index in problem.per_view()) >= 2:
        start = _placed(problem, rotation)
        fit = _fit(problem, start) if start is not None else None
        if fit is not None and fit.cost <= 4 * len(problem.points):  # twice what marks as good as stated leave over
            return [fit]
    starts = [_placed(problem, r @ rotation) for r in Rotation.create_group("I").as_matrix()]
    ranked = sorted((s for s in starts if s is not None), key=lambda pose: _robust_cost(problem, pose))
    near: list[_Fit] = []
    for start in ranked[:24]:  # a few steps tell which of them lead to the same solution
        fit = _fit(problem, start, 8)
        if fit is not None and not any(_same(problem, fit.pose, f.pose) for f in near):
            near.append(fit)
    found: list[_Fit] = []
    for rough in sorted(near, key=lambda f: f.cost)[:12]:
        fit = _fit(problem, rough.pose)
        if fit is not None and not any(_same(problem, fit.pose, f.pose) for f in found):
            found.append(fit)
    return sorted(found, key=lambda f: f.cost)


def _placed(problem: _Problem, rotation: np.ndarray) -> np.ndarray | None:
    """The pose with this rotation whose points lie nearest to the rays of their marks; None when behind a source."""
    equations, right, turned = np.zeros((3, 3)), np.zeros(3), problem.points @ rotation.T
    for view, index in problem.per_view():
        if len(index) == 0:
            continue
        rays = view.ray_directions(problem.pixels[index])
        for ray, point in zip(rays, turned[index], strict=True):
            across = np.eye(3) - np.outer(ray, ray)
            equations += across
            right += across @ (view.source_mm - point)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, np.linalg.lstsq(equations, right, rcond=None)[0]
    return pose if (problem.depths(pose) > 0).all() else None


def _robust_cost(problem: _Problem, pose: np.ndarray) -> float:
    squares = (problem.offsets(pose) / problem.sigma_px[:, None]) ** 2
    return float((CAUCHY_SIGMAS**2 * np.log1p(squares / CAUCHY_SIGMAS**2)).sum())


def _fit(problem: _Problem, start: np.ndarray, evaluations: int = 100) -> _Fit | None:
    """Robust least squares from one start; None where it ends behind a source."""
    from scipy.optimize import least_squares

    center, scale = apply(start, problem.points).mean(axis=0), problem.sigma_px[:, None]
    # steps in units that move the landmarks alike: mm, and radians times their spread
    lever = max(1.0, float(np.sqrt(((problem.points - problem.points.mean(0)) ** 2).sum(1).mean())))
    unit = np.r_[np.full(3, 1 / lever), np.ones(3)]

    def residuals(x: np.ndarray) -> np.ndarray:
        return (problem.offsets(motion(x * unit, center) @ start) / scale).ravel()

    def jacobian(x: np.ndarray) -> np.ndarray:
        return (problem.jacobian(start, center, x * unit) / scale[:, :, None]).reshape(-1, 6) * unit

    result = least_squares(
        residuals, np.zeros(6), jacobian, loss="cauchy", f_scale=CAUCHY_SIGMAS, max_nfev=evaluations, xtol=1e-8, ftol=1e-10, gtol=1e-8,
    )
    pose = motion(result.x * unit, center) @ start
    if not np.isfinite(pose).all() or (problem.depths(pose) <= 0).any():
        return None
    return _Fit(pose, float(2 * result.cost))


def _same(problem: _Problem, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two poses are one solution: their landmarks differ by less than a tenth of their spread (at most 3 mm)."""
    spread = float(np.linalg.norm(problem.points - problem.points.mean(0), axis=1).max())
    return bool(np.linalg.norm(apply(a, problem.points) - apply(b, problem.points), axis=1).max() < min(3.0, 0.1 * spread))


def _turned_deg(pose: np.ndarray, rotation: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(vector_from_rotation(pose[:3, :3] @ rotation.T))))


def _nearest(fits: list[_Fit], rotation: np.ndarray) -> _Fit:
    """Of the fits as good as the best, the one turned least from what is expected."""
    limit = min(f.cost for f in fits) + EQUAL_FIT
    return min((f for f in fits if f.cost <= limit), key=lambda f: _turned_deg(f.pose, rotation))


def _alternatives(problem: _Problem, fits: list[_Fit], best: _Fit) -> list[_Fit]:
    limit = min(f.cost for f in fits) + EQUAL_FIT
    return [f for f in fits if f.cost <= limit and not _same(problem, f.pose, best.pose)]


def _covariance(problem: _Problem, pose: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Inverse information of the marks, widened by their actual scatter; what they leave open stays at pi rad and 1000 mm."""
    rows = (problem.jacobian(pose, center, np.zeros(6)) / problem.sigma_px[:, None, None]).reshape(-1, 6)
    residuals = (problem.offsets(pose) / problem.sigma_px[:, None]).ravel()
    free = len(residuals) - 6
    widened = max(1.0, float(residuals @ residuals) / free) if free > 0 else 1.0
    weak = np.diag([1 / np.pi**2] * 3 + [1e-6] * 3)
    return np.linalg.inv(rows.T @ rows / widened + weak)


# ---- telling ----------------------------------------------------------------------------------------------------------
def _pair_errors(problem: _Problem, pose: np.ndarray, outliers: np.ndarray) -> tuple[PairError, ...]:
    moved, offsets, result = apply(pose, problem.points), problem.offsets(pose), []
    for i, name in enumerate(problem.names):
        view = problem.views[problem.view_of[i]]
        ray = view.ray_directions(problem.pixels[i])[0]
        aside = float(np.linalg.norm(np.cross(moved[i] - view.source_mm, ray)))
        result.append(PairError(name, int(problem.view_of[i]), float(np.hypot(*offsets[i])), aside, bool(outliers[i])))
    return tuple(result)


def _label(problem: _Problem, i: int) -> str:
    return f"{problem.names[i]} (view {problem.view_of[i] + 1})" if len(problem.views) > 1 else problem.names[i]


def _outliers(problem: _Problem, best: _Fit) -> tuple[np.ndarray, list[str]]:
    """Which pairs to leave out (bool (N,)) and what to tell; none when too few would be left to say which pair is wrong."""
    sigmas = np.linalg.norm(problem.offsets(best.pose) / problem.sigma_px[:, None], axis=1)
    # 1.18 = median of a Rayleigh distribution; marks that scatter more than stated raise the bar, one bad mark does not
    bad = sigmas > OUTLIER_SIGMAS * max(1.0, float(np.median(sigmas)) / 1.18)
    nothing = np.zeros(len(sigmas), bool)
    if not bad.any():
        if float(np.median(sigmas)) > OUTLIER_SIGMAS:
            text = f"The landmarks do not fit together: half of them are {np.median(sigmas * problem.sigma_px):.0f} pixels off or more."
            return nothing, [text + " Check labels, volume and geometry."]
        return nothing, []
    left = problem.without(bad)
    # 4 further pairs give two equations more than a pose needs: only then can they out-vote the one that is wrong
    if bad.sum() > len(bad) // 3 or len(left.points) < 4 or len(np.unique(np.round(left.points, 3), axis=0)) < 3:
        worst = ", ".join(_label(problem, i) for i in np.argsort(-sigmas)[: bad.sum()])
        return nothing, [f"The landmarks contradict each other (furthest off: {worst}), and there are too few to tell which is wrong."]
    told = [
        f"Landmark {_label(problem, i)} does not fit the others ({sigmas[i] * problem.sigma_px[i]:.0f} pixels off) and was left out."
        for i in np.flatnonzero(bad)
    ]
    return bad, told


def _exchange_warnings(problem: _Problem, best: _Fit, rotation: np.ndarray) -> list[str]:
    """Two labels exchanged, or a mirrored picture: told only when that explains much of what does not fit."""
    if best.cost < MIRROR_GAIN:
        return []
    sigmas = np.linalg.norm(problem.offsets(best.pose) / problem.sigma_px[:, None], axis=1)
    suspects, gains = np.argsort(-sigmas)[:6], []
    for a, i in enumerate(suspects):
        for j in suspects[a + 1 :]:
            if problem.view_of[i] == problem.view_of[j]:
                pixels = problem.pixels.copy()
                pixels[[i, j]] = pixels[[j, i]]
                gains.append((_best_cost(problem.with_pixels(pixels), best, rotation), int(i), int(j)))
    mirrored = problem.pixels.copy()
    mirrored[:, 0] = np.array([problem.views[v].columns - 1 for v in problem.view_of]) - mirrored[:, 0]
    flipped = _best_cost(problem.with_pixels(mirrored), best, rotation)
    swapped, i, j = min(gains, default=(np.inf, 0, 0))
    if min(swapped, flipped) > best.cost / 3 or min(swapped, flipped) > best.cost - MIRROR_GAIN:
        return []
    if swapped <= flipped:
        return [f"The landmarks {_label(problem, i)} and {_label(problem, j)} look exchanged in the X-ray."]
    return ["The landmarks would fit a mirrored X-ray: check its left and right, or whether left and right labels are exchanged."]


def _best_cost(problem: _Problem, best: _Fit, rotation: np.ndarray) -> float:
    """Lowest cost from the present answer and from the expected orientation: enough to recognise a better explanation."""
    starts = [best.pose, _placed(problem, rotation), _placed(problem, best.pose[:3, :3])]
    return min((f.cost for f in (_fit(problem, s) for s in starts if s is not None) if f is not None), default=np.inf)


def _line_warnings(problem: _Problem) -> list[str]:
    """Warn when the points lie almost on a line: then the rotation about it is open."""
    spread = np.linalg.svd(problem.points - problem.points.mean(0), compute_uv=False)
    return ["The landmarks lie almost on one line: the rotation about it is not determined."] if spread[1] < 0.05 * spread[0] else []


def _orientation_warnings(problem: _Problem, best: _Fit, others: list[_Fit], rotation: np.ndarray) -> list[str]:
    result = []
    if others:
        apart = max(float(np.linalg.norm(difference(best.pose, f.pose, np.zeros(3))[:3])) for f in others)
        number = "Another pose fits" if len(others) == 1 else f"{len(others)} other poses fit"
        hint = "more landmarks or a second view would decide"
        result.append(f"{number} the landmarks equally well, up to {np.degrees(apart):.0f} degrees away; {hint}.")
    turned = _turned_deg(best.pose, rotation)
    if turned > TURNED_DEG:
        result.append(f"The pose is turned by {turned:.0f} degrees from the expected orientation: are left and right labels exchanged?")
    nearest = min(problem.depths(best.pose))
    if nearest < 100.0:
        result.append(f"A landmark would lie {nearest:.0f} mm in front of the X-ray source: check the geometry.")
    return result
