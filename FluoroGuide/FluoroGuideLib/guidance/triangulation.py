"""Points and needles in 3-D from marks in two or more views (isocentre frame, LPS mm).

One view never gives a depth, and two views with nearly parallel rays give almost none: both are refused or told.
Least squares on the image (reprojection) with Gauss-Newton: R. Hartley, A. Zisserman, "Multiple View Geometry in
Computer Vision", 2nd ed., chapter 12; covariance by backward propagation, ibid. 5.2.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, check_rigid, inverse
from ..registration.result import Registration

WARN_ANGLE_DEG = 30.0
"""Below this angle between the rays the depth error is more than twice the in-plane error."""
MIN_ANGLE_DEG = 2.0
"""Below this angle half a pixel moves the point by centimetres: no answer."""
MIN_PLANE_ANGLE_DEG = 2.0
WARN_PLANE_ANGLE_DEG = 10.0
BULLSEYE_SIGMAS = 5.0
"""A mark on the shaft nearer to the tip than this many sigmas gives no direction in that view: it looks along the needle."""


@dataclass(frozen=True, eq=False)
class TriangulatedPoint:
    """A point seen in several views.

    Attributes
    ----------
    position_mm
        (3,), isocentre LPS.
    covariance_mm2
        (3, 3) from the pixel noise alone.
    residual_px
        Per view: distance between the mark and the projected point.
    ray_angle_deg
        Largest angle between two rays through the point, 0-90 degrees (150 counts as 30).
    warnings
        Sentences for the user.
    """

    position_mm: np.ndarray
    covariance_mm2: np.ndarray
    residual_px: np.ndarray
    ray_angle_deg: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class NeedlePose:
    """A straight needle.

    Attributes
    ----------
    tip_mm
        (3,), in the frame :attr:`frame`.
    axis
        Unit vector (3,) from hub to tip.
    tip_covariance_mm2
        (3, 3): from the pixel noise, and from the registration when :func:`needle_in_volume` was given it.
    axis_sigma_deg
        Standard deviation of the direction in its worst plane.
    ray_angle_deg
        Angle between the rays through the tip.
    residual_px
        Per view, at the tip.
    frame
        ``"isocentre"`` or ``"volume"``; always LPS.
    warnings
        Sentences for the user.
    """

    tip_mm: np.ndarray
    axis: np.ndarray
    tip_covariance_mm2: np.ndarray
    axis_sigma_deg: float
    ray_angle_deg: float
    residual_px: np.ndarray
    frame: str = "isocentre"
    warnings: tuple[str, ...] = ()

    @property
    def tip_sigma_mm(self) -> float:
        """Root of the covariance's trace: the rms 3-D error expected."""
        return float(np.sqrt(max(0.0, np.trace(self.tip_covariance_mm2))))

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {f.name: v.tolist() if isinstance(v := getattr(self, f.name), np.ndarray) else v for f in dataclasses.fields(self)} | {
            "warnings": list(self.warnings)
        }


def triangulate(views: Sequence[CArmView], pixels: np.ndarray, sigma_px: float | Sequence[float] = 0.5) -> TriangulatedPoint:
    """The 3-D point whose projections fit the marks best.

    Parameters
    ----------
    views
        Two or more views in one isocentre frame.
    pixels
        (M, 2) as (column, row), one mark per view.
    sigma_px
        Standard deviation of a mark in each direction, for all views or per view.

    Raises
    ------
    FluoroGuideError
        One view only, parallel rays (below 2 degrees), marks that are not finite, or a point behind a source.
    """
    pixels, sigma = _checked(views, pixels, sigma_px)
    rays = np.array([v.ray_directions(p)[0] for v, p in zip(views, pixels, strict=True)])
    sources = np.array([v.source_mm for v in views])
    angle = _largest_angle_deg(rays)
    if angle < MIN_ANGLE_DEG:
        raise FluoroGuideError(
            "The rays of the views are nearly parallel, so depth is not known", f"{angle:.1f} degrees apart",
            "Take a second view at least 30 degrees away",
        )
    point = _nearest_to_rays(sources, rays)
    if any(v.depth_mm(point)[0] <= 0 for v in views):
        raise FluoroGuideError("The marks meet behind an X-ray source", None, "Check that the marks and the geometry belong to these views")
    for _ in range(20):
        jacobian = np.concatenate([v.project_jacobian(point)[0] / s for v, s in zip(views, sigma, strict=True)])
        error = np.concatenate([(p - v.project(point)[0]) / s for v, p, s in zip(views, pixels, sigma, strict=True)])
        step = np.linalg.lstsq(jacobian, error, rcond=None)[0]
        point = point + step
        if np.linalg.norm(step) < 1e-9:
            break
    residual = np.array([np.linalg.norm(p - v.project(point)[0]) for v, p in zip(views, pixels, strict=True)])
    if not np.isfinite(residual).all():
        raise FluoroGuideError("The marks do not meet in a point", None, "Check that the marks and the geometry belong to these views")
    warnings = _angle_warnings(angle) + _mismatch_warnings(residual, sigma, views, point)
    return TriangulatedPoint(point, np.linalg.inv(jacobian.T @ jacobian), residual, angle, warnings)


def locate_needle(
    views: Sequence[CArmView], tip_pixels: np.ndarray, shaft_pixels: np.ndarray, sigma_px: float | Sequence[float] = 0.5,
) -> NeedlePose:
    """Tip and direction of a straight needle from two marks per view: its tip, and any other point of its shaft.

    The shaft marks of the views need not be the same physical point: each gives, with the tip and the source, a
    plane that holds the needle.  A view along the needle (shaft mark on the tip) gives no plane; there every point
    of the shaft shows at that pixel, so the other view's shaft mark is triangulated with it instead.

    Parameters
    ----------
    views
        Two or more views in one isocentre frame.
    tip_pixels, shaft_pixels
        (M, 2) as (column, row).
    sigma_px
        Standard deviation of a mark in each direction.

    Raises
    ------
    FluoroGuideError
        As :func:`triangulate`; or the direction cannot be known (needle in the plane of both sources, shaft marks on
        the tip in all views), or the shaft marks lie on opposite sides of the tip.
    """
    tip = triangulate(views, tip_pixels, sigma_px)
    tips, sigma = _checked(views, tip_pixels, sigma_px)
    shafts, _ = _checked(views, shaft_pixels, sigma_px)
    visible = np.linalg.norm(shafts - tips, axis=1) >= BULLSEYE_SIGMAS * sigma
    warnings = list(tip.warnings)
    if np.count_nonzero(visible) == 0:
        raise FluoroGuideError(
            "The shaft marks lie on the tip in every view, so the needle's direction is not known", None, "Mark the shaft farther from the tip",
        )
    if np.count_nonzero(visible) == 1:
        shaft = triangulate(views, shafts, sigma_px)
        axis = (tip.position_mm - shaft.position_mm) / np.linalg.norm(tip.position_mm - shaft.position_mm)
        spread = tip.covariance_mm2 + shaft.covariance_mm2
        sigma_axis = _axis_sigma_deg(axis, spread / np.sum((tip.position_mm - shaft.position_mm) ** 2))
        number = int(np.flatnonzero(~visible)[0]) + 1
        warnings.append(f"View {number} looks along the needle; its direction is that view's beam within the marks' error.")
        return NeedlePose(tip.position_mm, axis, tip.covariance_mm2, sigma_axis, tip.ray_angle_deg, tip.residual_px, "isocentre", tuple(warnings))
    axis, plane_angle = _axis_from_planes([v for v, keep in zip(views, visible, strict=True) if keep], tips[visible], shafts[visible])
    if plane_angle < MIN_PLANE_ANGLE_DEG:
        raise FluoroGuideError(
            "The needle lies in the plane through the X-ray sources, so its direction is not known",
            f"{plane_angle:.1f} degrees between the needle's planes", "Add a view tilted to the head or feet",
        )
    if plane_angle < WARN_PLANE_ANGLE_DEG:
        warnings.append(f"The needle lies almost in the plane through the X-ray sources ({plane_angle:.0f} degrees): its direction is uncertain.")
    axis = axis * _side(views, tips, shafts, visible, tip.position_mm, axis)
    position, axis, covariance, sigma_axis = _refine(views, tips, shafts, visible, sigma, tip.position_mm, axis)
    residual = np.array([np.linalg.norm(p - v.project(position)[0]) for v, p in zip(views, tips, strict=True)])
    return NeedlePose(position, axis, covariance, sigma_axis, tip.ray_angle_deg, residual, "isocentre", tuple(warnings))


def needle_in_volume(needle: NeedlePose, pose: np.ndarray, registration: Registration | None = None) -> NeedlePose:
    """The needle in the volume's LPS frame, for a pose volume -> isocentre (4x4).

    With a registration its pose error is added to the tip's covariance (assumed independent of the marks).
    """
    back = inverse(check_rigid(pose))
    tip, rotation = apply(back, needle.tip_mm), back[:3, :3]
    covariance = needle.tip_covariance_mm2
    if registration is not None:
        covariance = covariance + registration.point_covariance(tip)
    return dataclasses.replace(
        needle, tip_mm=tip, axis=rotation @ needle.axis, tip_covariance_mm2=rotation @ covariance @ rotation.T, frame="volume",
    )


# ---- parts ------------------------------------------------------------------------------------------------------
def _checked(views: Sequence[CArmView], pixels: np.ndarray, sigma_px: float | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(views) < 2:
        raise FluoroGuideError("Depth is not known from one view", f"{len(views)} view", "Mark the needle in a second view at least 30 degrees away")
    pixels = np.asarray(pixels, float)
    if pixels.shape != (len(views), 2) or not np.isfinite(pixels).all():
        raise FluoroGuideError("The marks are not one finite (column, row) per view", f"{pixels.shape} for {len(views)} views")
    sigma = np.broadcast_to(np.asarray(sigma_px, float), len(views)) if np.ndim(sigma_px) == 0 else np.asarray(sigma_px, float)
    if sigma.shape != (len(views),) or not (sigma > 0).all() or not np.isfinite(sigma).all():
        raise FluoroGuideError("The marks' error is not a positive number of pixels", sigma_px)
    return pixels, sigma


def _largest_angle_deg(rays: np.ndarray) -> float:
    sine = [np.linalg.norm(np.cross(a, b)) for i, a in enumerate(rays) for b in rays[i + 1:]]
    return float(np.degrees(np.arcsin(np.clip(max(sine), 0, 1))))


def _nearest_to_rays(sources: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Point (3,) with the least sum of squared distances to the rays."""
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    return np.linalg.solve(across.sum(axis=0), np.einsum("mij,mj->i", across, sources))


def _angle_warnings(angle: float) -> tuple[str, ...]:
    if angle >= WARN_ANGLE_DEG:
        return ()
    return (f"The views are only {angle:.0f} degrees apart: depth is uncertain; use views at least {WARN_ANGLE_DEG:.0f} degrees apart.",)


def _mismatch_warnings(residual: np.ndarray, sigma: np.ndarray, views: Sequence[CArmView], point: np.ndarray) -> tuple[str, ...]:
    from scipy.special import chdtri

    # 2 M measured numbers, 3 unknowns; one point in a thousand of honest marks is flagged.
    if float(((residual / sigma) ** 2).sum()) <= chdtri(2 * len(views) - 3, 0.001):
        return ()
    worst = int(np.argmax(residual))
    mm = residual[worst] * views[worst].mm_per_pixel_at(point)
    return (
        f"The marks do not fit together: view {worst + 1} misses by {residual[worst]:.1f} px ({mm:.1f} mm). "
        "The needle or the patient moved, or a mark is wrong.",
    )


def _axis_from_planes(views: Sequence[CArmView], tips: np.ndarray, shafts: np.ndarray) -> tuple[np.ndarray, float]:
    """Direction (3,) common to the planes source-tip-shaft, sign open, and the largest angle between two planes in degrees."""
    normals = np.array([np.cross(v.ray_directions(t)[0], v.ray_directions(s)[0]) for v, t, s in zip(views, tips, shafts, strict=True)])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.linalg.svd(normals)[2][2], _largest_angle_deg(normals)


def _image_direction(view: CArmView, tip_mm: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Direction (2,), pixels per mm, in which the needle runs at its tip, from hub to tip."""
    return view.project_jacobian(tip_mm)[0] @ axis


def _side(views: Sequence[CArmView], tips: np.ndarray, shafts: np.ndarray, visible: np.ndarray, tip_mm: np.ndarray, axis: np.ndarray) -> float:
    signs = {
        float(np.sign(_image_direction(v, tip_mm, axis) @ (t - s)))
        for v, t, s, keep in zip(views, tips, shafts, visible, strict=True) if keep
    }
    if len(signs) != 1 or 0.0 in signs:
        raise FluoroGuideError(
            "The shaft marks of the views lie on opposite sides of the tip", None, "Check which end was marked as the tip in each view",
        )
    return signs.pop()


def _refine(
    views: Sequence[CArmView], tips: np.ndarray, shafts: np.ndarray, visible: np.ndarray, sigma: np.ndarray, tip_mm: np.ndarray, axis: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Least squares over tip (3) and direction (2): tip marks, and distances of the shaft marks from the projected line."""
    def moved(x: np.ndarray, base: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        direction = base[1] + base[2] @ x[3:]
        return base[0] + x[:3], direction / np.linalg.norm(direction)

    def residuals(x: np.ndarray, base: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        point, direction = moved(x, base)
        result = []
        for view, t, s, keep, noise in zip(views, tips, shafts, visible, sigma, strict=True):
            here = view.project(point)[0]
            result += list((here - t) / noise)
            if keep:
                along = _image_direction(view, point, direction)
                across = np.array([-along[1], along[0]]) / np.linalg.norm(along)
                result.append(float(across @ (s - here)) / noise)
        return np.array(result)

    for _ in range(20):
        base = (tip_mm, axis, np.linalg.svd(axis[None])[2][1:].T)
        # Central differences: 5 unknowns and 3 numbers a view; lengths in mm and radians are both well scaled at 1e-4.
        steps = np.eye(5) * 1e-4
        jacobian = np.column_stack([(residuals(h, base) - residuals(-h, base)) / 2e-4 for h in steps])
        step = np.linalg.lstsq(jacobian, -residuals(np.zeros(5), base), rcond=None)[0]
        tip_mm, axis = moved(step, base)
        if np.linalg.norm(step) < 1e-9:
            break
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    return tip_mm, axis, covariance[:3, :3], float(np.degrees(np.sqrt(np.linalg.eigvalsh(covariance[3:, 3:])[-1])))


def _axis_sigma_deg(axis: np.ndarray, covariance: np.ndarray) -> float:
    across = np.eye(3) - np.outer(axis, axis)
    return float(np.degrees(np.sqrt(np.linalg.eigvalsh(across @ covariance @ across)[-1])))
