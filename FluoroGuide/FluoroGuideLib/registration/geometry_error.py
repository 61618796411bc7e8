"""C-arm geometry that is not quite what the file says: estimated together with the pose, within stated tolerances.

Every view may be turned and shifted about the isocentre, and its source distance and principal point may differ.  All of
it follows from the projector's 6-dof pose derivative, without another projection:

* turning or shifting the C-arm is turning or shifting the volume the other way;
* a change of SID or principal point changes each pixel's ray ``d`` by some ``e``; that turns the ray about the source by
  ``d x e / |d|^2``, and a ray that turns sees what a volume turned the other way about the source would show.

Much of it cannot be seen in the pictures (all views turned alike; the principal point against a shift of the patient, but
for the perspective), so every parameter has a normal prior from its tolerance, and what stays open is reported and goes
into the predicted error.

A position in space hardly gains by it: principal points each 3 px off show a patient who is elsewhere, but for the perspective.  The best
linear estimate there is would bring the median error in space from 1.04 to 0.99 mm where the true geometry gives 0.11 mm
(``Testing/Verification/carm_error.py``, ``best_possible``); what is gained is how well pose and pictures agree.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, difference, inverse, left_jacobian, motion, perturb, point_jacobian
from ..projection.joseph import pixel_distances
from .confidence import BLOCK_PX, _block_sums
from .findings import Finding
from .refine import LEVER_MM, Refined, levenberg_marquardt
from .similarity import Evaluation, FixedView, Level, summed

SANDWICH_SCALE = 3.0
"""Factor of the block sandwich's sigmas: a C-arm's parameters are not looked at in other ways (see ``confidence.Looks``)."""
PARAMETERS = ("turn_columns", "turn_rows", "roll", "shift_columns", "shift_rows", "shift_beam", "log_sid", "principal_column", "principal_row")
"""Per view: rotation vector (rad) along image columns, rows and beam, about the isocentre; shift (mm) along the same three;
logarithm of the SID; principal point in mm on the detector."""
COUNT = len(PARAMETERS)
_SCALE = np.array([1 / LEVER_MM] * 3 + [1.0] * 3 + [1 / LEVER_MM] + [1.5] * 2)
"""What moves the picture of something 60 mm off the centre by about 1 mm: commensurate steps."""
CARM_WEIGHT = 1e-4
"""Weight of the C-arm's prior against the mean cost per pixel: much less than a pose prior's, since tolerances are limits and the pictures
show what they show (set on 12 design cases)."""
BEYOND_WARN, BEYOND_FAIL = 1.2, 2.0
"""What a correction may be of its tolerance, a limit.  Twice is no such C-arm: its geometry or the pose is wrong (124 right poses of design
cases have at most 1.04, 3 wrong ones that nothing else tells at least 2.6)."""
State = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class CArmTolerance:
    """How far the C-arm may be from what it says, as limits +-; 0 fixes a parameter.

    A limit ``t`` becomes a normal prior with standard deviation ``t / sqrt(3)``, that of a uniform error within it.

    Attributes
    ----------
    angle_deg
        Positioner angles of each view.
    roll_deg
        Rotation of the picture in its plane.
    shift_mm
        Motion of the isocentre between views, each axis (the first view is the reference).
    sid_percent
        Source to image distance; the source keeps its distance from the isocentre.
    principal_point_px
        Principal point, columns and rows.
    """

    angle_deg: float = 0.7
    roll_deg: float = 0.2
    shift_mm: float = 0.0
    sid_percent: float = 1.0
    principal_point_px: float = 3.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not np.isfinite(value) or value < 0:
                raise FluoroGuideError(f"The C-arm tolerance {field.name} must be zero or positive", value, "Give the largest error expected")

    @classmethod
    def mobile(cls) -> CArmTolerance:
        """A mobile C-arm moved by hand: angles read from a scale, isocentre anywhere near, SID by tape."""
        return cls(angle_deg=5.0, roll_deg=2.0, shift_mm=30.0, sid_percent=2.0, principal_point_px=3.0)

    def sigma(self, view: CArmView, first: bool) -> np.ndarray:
        """Standard deviations (9,) of :data:`PARAMETERS` for one view."""
        row_mm, column_mm = view.pixel_spacing_mm
        angle, roll, shift = np.radians(self.angle_deg), np.radians(self.roll_deg), 0.0 if first else self.shift_mm
        point = self.principal_point_px
        return np.array([angle, angle, roll, shift, shift, shift, self.sid_percent / 100, point * column_mm, point * row_mm]) / np.sqrt(3)


def view_axes(view: CArmView) -> np.ndarray:
    """(3, 3): unit vectors of image columns, rows (made perpendicular) and the beam, in columns of the matrix."""
    u = view.column_step_mm / np.linalg.norm(view.column_step_mm)
    v = view.row_step_mm - (view.row_step_mm @ u) * u
    return np.column_stack([u, v / np.linalg.norm(v), view.beam])


def corrected(view: CArmView, theta: np.ndarray) -> CArmView:
    """The view with other parameters: ``theta`` (9,) as in :data:`PARAMETERS`, all 0 for the view itself."""
    axes = view_axes(view)
    depth = ((view.first_pixel_mm - view.source_mm) @ view.beam) * view.beam
    first = view.first_pixel_mm + np.expm1(theta[6]) * depth - axes[:, 0] * theta[7] - axes[:, 1] * theta[8]
    changed = dataclasses.replace(view, first_pixel_mm=first)
    return changed.moved(motion(np.r_[axes @ theta[:3], axes @ theta[3:6]], np.zeros(3)))


def carm_jacobian(pose_jacobian: np.ndarray, rays_mm: np.ndarray, nominal: CArmView, theta: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """Derivatives by the nine parameters of whatever the pose derivative is of.

    Parameters
    ----------
    pose_jacobian
        (6, ...): derivative by a left perturbation of the pose about ``center_mm``.
    rays_mm
        (..., 3): from the source of the corrected view to the detector, isocentre frame.
    nominal, theta
        The view before correction and the correction (9,).

    Returns
    -------
    (9, ...), in the type of ``pose_jacobian``.
    """
    axes, changed = view_axes(nominal), corrected(nominal, theta)
    turned, moved = axes @ theta[:3], axes @ theta[3:6]
    turn, shift = pose_jacobian[:3], pose_jacobian[3:]

    def about(point_mm: np.ndarray) -> np.ndarray:
        # turning by w about p is turning about the centre and shifting by w x (centre - p)
        return turn + np.tensordot(np.cross(np.eye(3), center_mm - point_mm).astype(turn.dtype), shift, 1)

    world = (left_jacobian(turned) @ axes).T.astype(turn.dtype)
    result = np.empty((COUNT, *pose_jacobian.shape[1:]), pose_jacobian.dtype)
    result[:3] = -np.tensordot(world, about(moved), 1)
    result[3:6] = -np.tensordot(axes.T.astype(turn.dtype), shift, 1)
    at_source = about(changed.source_mm)
    weight = 1 / (rays_mm * rays_mm).sum(-1)
    u, v, _ = view_axes(changed).T
    for n, change in ((6, changed.sid_mm * changed.beam), (7, -u), (8, -v)):
        # (d x e) . J = d . (e x J), without the cross product of every ray
        x, y, z = change
        crossed = (y * at_source[2] - z * at_source[1], z * at_source[0] - x * at_source[2], x * at_source[1] - y * at_source[0])
        result[n] = -weight * sum(rays_mm[..., k] * crossed[k] for k in range(3))
    return result


def pixel_rays(view: CArmView) -> np.ndarray:
    """From the source to every pixel (rows, columns, 3), float32."""
    rows, columns = np.arange(view.rows)[:, None, None], np.arange(view.columns)[None, :, None]
    return (view.first_pixel_mm - view.source_mm + columns * view.column_step_mm + rows * view.row_step_mm).astype(np.float32)


class CArmLevel:
    """One level of the pyramid with the views' parameters free; a state is (pose, theta (views, 9)).

    Parameters
    ----------
    level
        X-rays with their nominal views.
    sigma
        (views, 9) prior standard deviations; 0 fixes a parameter.
    center_mm
        Centre of the pose's perturbation.
    weight
        Weight of the prior (see :class:`~.prior.PosePrior`).
    pose_prior
        Optional :class:`~.prior.PosePrior`.
    """

    def __init__(
        self, level: Level, sigma: np.ndarray, center_mm: np.ndarray, weight: float = CARM_WEIGHT, pose_prior: object | None = None,
    ) -> None:
        self.level, self.sigma, self.center_mm, self.weight, self.pose_prior = level, np.asarray(sigma, float), center_mm, weight, pose_prior
        self.free = self.sigma > 0
        self.size = 6 + int(self.free.sum())
        ends = 6 + np.cumsum(self.free.sum(1))
        self.places = [np.r_[0:6, end - n : end] for end, n in zip(ends, self.free.sum(1), strict=True)]
        self.scale = np.r_[[1 / LEVER_MM] * 3, [1.0] * 3, np.tile(_SCALE, (len(self.sigma), 1))[self.free]]

    def view(self, number: int, theta: np.ndarray) -> FixedView:
        """A view's pixels with its parameters changed; shares the pixels."""
        fixed = self.level.views[number]
        other = copy.copy(fixed)
        other.view = corrected(fixed.view, theta[number])
        other.distances = pixel_distances(other.view)
        return other

    def with_jacobian(self, number: int, state: State) -> tuple[FixedView, np.ndarray, np.ndarray]:
        """The view, its normalised DRR (rows, columns), and the derivative (6 + free, rows, columns)."""
        pose, theta = state
        fixed, projector = self.view(number, theta), self.level.projector
        image, jacobian = projector.project_with_jacobian(fixed.view, pose, self.center_mm, fixed.rays, fixed.distances)
        carm = carm_jacobian(jacobian, pixel_rays(fixed.view), self.level.views[number].view, theta[number], self.center_mm)
        jacobian = np.concatenate([jacobian, carm[self.free[number]]])
        moving, inverse_std, mean = fixed.normalize(image)
        fixed.kernels.local_normalize_jacobian(jacobian, fixed.mask, fixed.inverse_count, fixed.radius, moving, inverse_std, mean)
        return fixed, *fixed.fitted(moving, jacobian)

    def evaluate(self, state: State) -> Evaluation:
        """Cost and equations with the priors."""
        hessian, gradient, sums, similarity = np.zeros((self.size, self.size)), np.zeros(self.size), np.zeros(5), []
        for number, place in enumerate(self.places):
            fixed, moving, jacobian = self.with_jacobian(number, state)
            h, g, before = np.zeros((len(place), len(place))), np.zeros(len(place)), sums.copy()
            self.level.projector.kernels.normal_equations(jacobian, moving, fixed.fixed, fixed.weight, self.level.cauchy2, h, g, sums)
            hessian[np.ix_(place, place)] += h
            gradient[place] += g
            _, mf, mm, ff, _ = sums - before
            similarity.append(float(mf / np.sqrt(mm * ff + 1e-12)))
        found = self.level.of_a_part(summed(self.level.views, sums, hessian, gradient, tuple(similarity)))
        return self._with_priors(found, state)

    def _with_priors(self, found: Evaluation, state: State) -> Evaluation:
        pull = self.weight * state[1][self.free] / self.sigma[self.free] ** 2
        cost = float(pull @ state[1][self.free])
        gradient, hessian = found.gradient.copy(), found.hessian.copy()
        gradient[6:] += pull
        hessian[6:, 6:] += np.diag(self.weight / self.sigma[self.free] ** 2)
        if self.pose_prior is not None:
            nothing = Evaluation(0.0, 0.0, np.zeros((6, 6)), np.zeros(6), ())
            prior = self.pose_prior.add(state[0], self.center_mm, nothing)
            cost += prior.cost
            gradient[:6] += prior.gradient
            hessian[:6, :6] += prior.hessian
        return dataclasses.replace(found, cost=found.cost + cost, rank=found.rank + cost, hessian=hessian, gradient=gradient)

    def move(self, state: State, xi: np.ndarray) -> State:
        """State after a step (6 + free,)."""
        theta = state[1].copy()
        theta[self.free] += xi[6:]
        return perturb(state[0], xi[:6], self.center_mm), theta

    def spread(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Covariance (free, free) of the parameters, and how the pose answers to them (6, free).

        Scaled block sandwich (:mod:`.confidence`) with the priors: what the pictures do not determine keeps its prior.
        """
        bread, meat, votes = np.zeros((self.size, self.size)), np.zeros((self.size, self.size)), 0.0
        for number, place in enumerate(self.places):
            fixed, moving, jacobian = self.with_jacobian(number, state)
            residual, rows = moving - fixed.fixed, jacobian.astype(float)
            weight = fixed.weight / (1 + residual * residual / self.level.cauchy2)
            scores = _block_sums(rows * (weight * residual)[None], BLOCK_PX)
            bread[np.ix_(place, place)] += np.einsum("pij,qij,ij->pq", rows, rows, weight, optimize=True)
            meat[np.ix_(place, place)] += scores @ scores.T
            votes += float(fixed.weight.sum())
        precision = np.zeros(self.size)
        precision[6:] = self.weight * votes / self.sigma[self.free] ** 2
        variance = np.r_[np.zeros(6), self.sigma[self.free] ** 2]
        back = np.linalg.inv(bread + np.diag(precision))
        joint = back @ (SANDWICH_SCALE**2 * meat + np.diag(precision**2 * variance)) @ back
        return joint[6:, 6:], -np.linalg.solve(bread[:6, :6], bread[:6, 6:])


@dataclass(frozen=True, eq=False)
class CArmEstimate:
    """What a joint estimate found about the C-arm.

    Attributes
    ----------
    nominal, views
        Views as given and as corrected.
    theta, sigma
        (views, 9): the corrections (:data:`PARAMETERS`), and the standard deviations that they still have.
    tolerance
        What was allowed.
    free
        (views, 9): the parameters that were free.
    covariance, response
        Covariance (free, free) of the free parameters, and how the pose answers to them (6, free), about ``center_mm``.
    center_mm
        (3,), isocentre frame.
    """

    nominal: tuple[CArmView, ...]
    views: tuple[CArmView, ...]
    theta: np.ndarray
    sigma: np.ndarray
    tolerance: CArmTolerance
    free: np.ndarray
    covariance: np.ndarray
    response: np.ndarray
    center_mm: np.ndarray

    def pose_covariance(self) -> np.ndarray:
        """What the C-arm's open parameters add to the pose's covariance (6, 6), about ``center_mm``."""
        return self.response @ self.covariance @ self.response.T

    def seen_covariance(self, number: int, point_mm: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Covariance (3, 3), mm^2, of where a point (3,) appears in a view, as a displacement in space (meaningful across its ray).

        ``given`` (6, 6) is the pose's covariance about ``center_mm`` with the C-arm known.  An error of the pose that an
        error of the C-arm caused is not seen in the picture: they cancel there.
        """
        of_pose = point_jacobian(point_mm, self.center_mm)[0]
        view, ray = self.views[number], point_mm - self.views[number].source_mm
        ray = ray * (view.sid_mm / (ray @ view.beam))
        of_carm = carm_jacobian(of_pose.T, ray, self.nominal[number], self.theta[number], self.center_mm).T
        total = of_pose @ self.response
        place = np.flatnonzero(np.repeat(np.arange(len(self.views)), COUNT).reshape(self.free.shape)[self.free] == number)
        total[:, place] += of_carm[:, self.free[number]]
        return of_pose @ given @ of_pose.T + total @ self.covariance @ total.T

    def corrections(self) -> list[dict]:
        """Per view: how far each quantity was moved from what was given, and its standard deviation afterwards."""
        result = []
        for nominal, view, theta, sigma in zip(self.nominal, self.views, self.theta, self.sigma, strict=True):
            change = np.subtract(view.angles_deg, nominal.angles_deg)
            row_mm, column_mm = nominal.pixel_spacing_mm
            result.append({
                "primary_deg": float((change[0] + 180) % 360 - 180), "secondary_deg": float(change[1]), "roll_deg": float(np.degrees(theta[2])),
                "angle_sigma_deg": [float(x) for x in np.degrees(sigma[:3])], "shift_mm": (view_axes(nominal) @ theta[3:6]).tolist(),
                "shift_sigma_columns_rows_beam_mm": sigma[3:6].tolist(), "sid_percent": float(100 * np.expm1(theta[6])),
                "sid_sigma_percent": float(100 * sigma[6]), "principal_point_px": [float(theta[7] / column_mm), float(theta[8] / row_mm)],
                "principal_point_sigma_px": [float(sigma[7] / column_mm), float(sigma[8] / row_mm)],
            })
        return result

    def findings(self) -> tuple[Finding, ...]:
        """Corrections that exceed what was stated."""
        found = []
        for number, (nominal, theta) in enumerate(zip(self.nominal, self.theta, strict=True)):
            limit = self.tolerance.sigma(nominal, number == 0) * np.sqrt(3)
            share = np.where(limit > 0, np.abs(theta) / np.where(limit > 0, limit, 1.0), 0.0)
            names = ", ".join(p.replace("_", " ") for p, s in zip(PARAMETERS, share, strict=True) if s > BEYOND_WARN)
            if names:
                level, much = ("fail", "much further") if share.max() > BEYOND_FAIL else ("warn", "further")
                sentence = f"View {number + 1} fits only with a C-arm {much} off than stated ({names}): check its geometry."
                found.append(Finding("C-arm", level, sentence))
        return tuple(found)

    def to_dict(self) -> dict:
        """Plain numbers for ``result.json``."""
        return {"tolerance": dataclasses.asdict(self.tolerance), "views": self.corrections()}


Found = tuple[Refined, list[Refined]]


def estimate_carm(
    level: Level, views: Sequence[CArmView], found: Sequence[Found], center_mm: np.ndarray, tolerance: CArmTolerance, *, iterations: int = 20,
    weight: float = CARM_WEIGHT, prior: object | None = None, cancelled: Callable[[], bool] | None = None,
) -> tuple[Refined, CArmEstimate, list[Refined]]:
    """Pose and C-arm together, from poses found with the nominal views.

    Parameters
    ----------
    level
        Finest level, made of the X-rays with their nominal views.
    views
        The X-rays' own (full resolution) nominal views.
    found
        Per view: the pose that it has with its nominal geometry, and the rivals of that pose; the same for all views when they were
        registered together.
    center_mm
        Centre of rotation, isocentre frame of the first view.
    prior
        Optional :class:`~.prior.PosePrior`.
    iterations
        0 keeps pose and views, and only says what the tolerance leaves open.

    Returns
    -------
    The refined pose in the frame of the first view, the estimate, and the rivals in terms of that pose.

    Raises
    ------
    CancelledError
        ``cancelled()`` returned True.
    """
    sigma = np.array([tolerance.sigma(v, n == 0) for n, v in enumerate(views)])
    joint = CArmLevel(level, sigma, center_mm, weight, prior)
    pose, theta = found[0][0].pose, np.zeros(sigma.shape)
    for number, (best, _) in enumerate(found):
        # a view that saw the volume at its own pose stands elsewhere: where that pose becomes the common one
        moved = difference(np.eye(4), pose @ inverse(best.pose), np.zeros(3))
        theta[number, :6] = np.r_[view_axes(views[number]).T @ moved[:3], view_axes(views[number]).T @ moved[3:]]
    theta[~joint.free] = 0.0
    state, evaluation, used = levenberg_marquardt(joint.evaluate, joint.move, (pose, theta), iterations, cancelled=cancelled, scale=joint.scale)
    (pose, theta), after = state, np.zeros(sigma.shape)
    covariance, response = joint.spread(state)
    if iterations == 0:  # nothing was learned about the C-arm
        covariance = np.diag(sigma[joint.free] ** 2)
    after[joint.free] = np.sqrt(np.diag(covariance))
    changed = tuple(corrected(v, t) for v, t in zip(views, theta, strict=True))
    estimate = CArmEstimate(tuple(views), changed, theta, after, tolerance, joint.free, covariance, response, np.asarray(center_mm, float))
    return Refined(pose, evaluation, used), estimate, _rivals(found, pose, evaluation)


def _rivals(found: Sequence[Found], pose: np.ndarray, evaluation: Evaluation) -> list[Refined]:
    """Rivals of the views' poses, as far from the common pose and as much worse as they were from their own."""
    result = []
    for number, (best, others) in enumerate(found):
        if number == 0 or best is not found[0][0]:
            for rival in others:
                rank = evaluation.rank * rival.evaluation.rank / best.evaluation.rank
                result.append(Refined(pose @ inverse(best.pose) @ rival.pose, dataclasses.replace(rival.evaluation, rank=rank), rival.iterations))
    return result


def seen_distance_mm(
    pose: np.ndarray, view: CArmView, true_pose: np.ndarray, true_view: CArmView, points_lps_mm: np.ndarray,
) -> float:
    """Mean reprojection distance (mm at the points) when view and pose may both differ: between the two *pictures* of the points."""
    there = apply(true_pose, np.atleast_2d(points_lps_mm))
    pixels = view.project(apply(pose, np.atleast_2d(points_lps_mm))) - true_view.project(there)
    row_mm, column_mm = true_view.pixel_spacing_mm
    scale = true_view.depth_mm(there) / true_view.sid_mm
    return float(np.mean(np.hypot(pixels[:, 0] * column_mm, pixels[:, 1] * row_mm) * scale))
