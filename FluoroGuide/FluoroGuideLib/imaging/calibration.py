"""C-arm geometry from one picture of a known object: a ball, or a plate (or cage) of fiducials.

* :func:`ball_calibration`: a ball of known diameter gives the magnification where it lies, hence one distance.
* :func:`plate_calibration`: fiducials with known 3-D positions give the whole 3x4 projection matrix, by the direct
  linear transformation with normalised coordinates (Hartley, Zisserman: Multiple View Geometry, 2nd ed., 4.1 and 7.1)
  and Levenberg-Marquardt on the reprojection error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView


# ---- ball -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class BallCalibration:
    """What a ball says.

    Attributes
    ----------
    magnification
        SID over the distance from the source to the ball's centre.
    source_to_detector_mm, source_to_object_mm
        The distance that was given and the one that follows from it.
    center_px, diameter_px
        The ball's centre (column, row), and its shadow's diameter once the cone beam's stretch is undone.
    sigma
        Standard deviation of the magnification, from that of the edge.
    """

    magnification: float
    source_to_detector_mm: float
    source_to_object_mm: float
    center_px: tuple[float, float]
    diameter_px: float
    sigma: float

    def to_card(self) -> dict:
        """The part of a C-arm card that follows when the ball lies at the isocentre."""
        return {"source_to_detector_mm": self.source_to_detector_mm, "source_to_isocenter_mm": self.source_to_object_mm}


def ball_calibration(
    edge_px: np.ndarray, diameter_mm: float, pixel_spacing_mm: tuple[float, float], *, sid_mm: float | None = None,
    source_to_object_mm: float | None = None, image_size: tuple[int, int] | None = None, edge_sigma_px: float = 0.3,
) -> BallCalibration:
    """Magnification from a ball's outline, exact for the cone beam.

    A ball of radius r whose centre is D from the source (along the beam) and s off the axis shows as an ellipse; its
    half axis across the radial direction is ``SID r / sqrt(D**2 - r**2)``, whatever s is.  That one is used.

    Parameters
    ----------
    edge_px
        (N, 2) points (column, row) on the shadow's outline, N >= 8.
    diameter_mm
        Of the ball.
    pixel_spacing_mm
        (row, column) at the detector.
    sid_mm, source_to_object_mm
        One of the two must be known; the other follows.
    image_size
        (rows, columns): says where the beam's axis meets the picture (its centre); without it the ball is taken to lie near the axis.

    Raises
    ------
    FluoroGuideError
        Too few points, points that are on no ellipse, or distances that are not possible.
    """
    edge = np.asarray(edge_px, float)
    if edge.ndim != 2 or edge.shape[1] != 2 or len(edge) < 8 or not np.isfinite(edge).all():
        raise FluoroGuideError("The ball's outline needs at least 8 points (column, row)", f"shape {edge.shape}")
    if (sid_mm is None) == (source_to_object_mm is None):
        raise FluoroGuideError("A ball gives one distance: exactly one of SID and source to object distance must be known", None)
    if not diameter_mm > 0 or not min(pixel_spacing_mm) > 0 or not (sid_mm or source_to_object_mm) > 0:
        raise FluoroGuideError("The ball's diameter, the pixel spacing and the distance must be positive", f"{diameter_mm} mm")
    spacing = np.array([pixel_spacing_mm[1], pixel_spacing_mm[0]])
    center, axes, directions, residual = _ellipse(edge * spacing)
    across = _across(center, axes, directions, image_size, spacing)
    radius = diameter_mm / 2
    if sid_mm is not None:
        distance = float(np.sqrt((sid_mm * radius / across) ** 2 + radius**2))
        sid = float(sid_mm)
    else:
        distance = float(source_to_object_mm)
        if distance <= radius:
            raise FluoroGuideError("The source would lie inside the ball", f"{distance} mm", "Check the distance")
        sid = across * float(np.sqrt(distance**2 - radius**2)) / radius
    if distance >= sid:
        told = f"source to ball {distance:.0f} mm, SID {sid:.0f} mm"
        raise FluoroGuideError("The ball would lie behind the detector", told, "Check its diameter and the pixel spacing")
    # The half axis is a mean over N edge points, of which about half carry it.
    sigma = sid / distance * max(edge_sigma_px * float(spacing.mean()), residual) / (across * np.sqrt(len(edge) / 2))
    middle = center / spacing
    mean_diameter = 2 * across / float(spacing.mean())
    return BallCalibration(sid / distance, sid, distance, (float(middle[0]), float(middle[1])), mean_diameter, float(sigma))


def _ellipse(points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Centre (2,), half axes (2,) and their directions (2, 2; rows) of the ellipse through points, and the rms distance to it.

    Direct least squares with the ellipse constraint (Fitzgibbon, Pilu, Fisher 1999; Halir, Flusser 1998), on
    coordinates centred and scaled.
    """
    origin = points_mm.mean(axis=0)
    scale = float(np.abs(points_mm - origin).max()) or 1.0
    x, y = ((points_mm - origin) / scale).T
    quadratic, linear = np.column_stack([x * x, x * y, y * y]), np.column_stack([x, y, np.ones_like(x)])
    try:
        transfer = -np.linalg.solve(linear.T @ linear, linear.T @ quadratic)
        reduced = quadratic.T @ quadratic + quadratic.T @ linear @ transfer
        values, vectors = np.linalg.eig(np.vstack([reduced[2] / 2, -reduced[1], reduced[0] / 2]))
    except np.linalg.LinAlgError:
        raise FluoroGuideError("The points of the outline lie on a line", None, "Mark points all around the ball") from None
    vectors = np.real(vectors)
    inside = 4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0
    if not inside.any():
        raise FluoroGuideError("The points of the outline are not on an ellipse", None, "Mark points all around the ball")
    a, b, c = vectors[:, inside][:, 0]
    d, e, f = transfer @ (a, b, c)
    form = np.array([[a, b / 2], [b / 2, c]])
    center = -np.linalg.solve(form, [d, e]) / 2
    level = center @ form @ center - f
    eigenvalues, directions = np.linalg.eigh(form)
    if (level / eigenvalues <= 0).any():
        raise FluoroGuideError("The points of the outline are not on an ellipse", None, "Mark points all around the ball")
    axes = np.sqrt(level / eigenvalues)
    local = (np.column_stack([x, y]) - center) @ directions
    ratio = np.linalg.norm(local / axes, axis=1)
    residual = float(np.sqrt(np.mean(((ratio - 1) * np.linalg.norm(local, axis=1) / ratio) ** 2)))
    return center * scale + origin, axes * scale, directions.T, residual * scale


def _across(center: np.ndarray, axes: np.ndarray, directions: np.ndarray, image_size: tuple[int, int] | None, spacing: np.ndarray) -> float:
    """The half axis of the ellipse across the radial direction, mm on the detector."""
    if image_size is None:
        return float(axes.min())
    radial = center - (np.array(image_size[::-1]) - 1) / 2 * spacing
    if np.linalg.norm(radial) < 0.05 * max(image_size) * spacing.mean():
        return float(axes.mean())  # near the axis: a circle
    radial = radial / np.linalg.norm(radial)
    # Half width of the ellipse along the direction perpendicular to the radial one.
    across = np.array([-radial[1], radial[0]])
    return float(np.sqrt(((directions @ across * axes) ** 2).sum()))


# ---- plate ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class PlateCalibration:
    """A calibrated view.

    Attributes
    ----------
    matrix
        3x4, object mm to homogeneous (column, row); positive depth in front of the source.
    reprojection_rms_px, residuals_px
        Root mean square distance, and (N, 2) found minus projected.
    source_mm, source_sigma_mm
        (3,) in the object's frame, and its standard deviation along each axis, from the residuals.
    sid_mm, principal_point_px
        With the pixel spacing given: the distance from source to detector; where the beam's axis meets the picture.
    """

    matrix: np.ndarray
    reprojection_rms_px: float
    residuals_px: np.ndarray
    source_mm: np.ndarray
    source_sigma_mm: np.ndarray
    sid_mm: float | None
    principal_point_px: tuple[float, float]

    def view(self, rows: int, columns: int) -> CArmView:
        """The view in the object's frame."""
        return CArmView.from_projection_matrix(self.matrix, rows, columns, plane_distance_mm=self.sid_mm or 1000.0)

    def to_card(self) -> dict:
        """A C-arm card with the matrix (object frame taken as isocentre frame)."""
        return {"projection_matrix": self.matrix.tolist()}


def plate_calibration(
    points_mm: np.ndarray, pixels: np.ndarray, *, pixel_spacing_mm: tuple[float, float] | None = None, square_pixels: bool = True,
) -> PlateCalibration:
    """The 3x4 matrix from fiducials with known positions.

    Parameters
    ----------
    points_mm
        (N, 3) positions in the object's frame, N >= 6, not all in one plane (two plates, a cage, a plate with tall posts).
    pixels
        (N, 2) where they were found, (column, row), distortion removed.
    pixel_spacing_mm
        (row, column) at the detector: turns the focal length into the SID and fixes the pixels' shape.
    square_pixels
        Pixels are as the spacing says and the axes perpendicular (a flat detector): 10 unknowns instead of 11.

    Raises
    ------
    FluoroGuideError
        Too few points, points in one plane, or no solution.
    """
    points, found = np.asarray(points_mm, float), np.asarray(pixels, float)
    fits = points.ndim == 2 and points.shape[1:] == (3,) and found.shape == (len(points), 2)
    if not fits or not np.isfinite(points).all() or not np.isfinite(found).all():
        raise FluoroGuideError("Fiducials need matching positions (N, 3) and pixels (N, 2)", f"{points.shape}, {found.shape}")
    if len(points) < 6:
        raise FluoroGuideError("A projection matrix needs at least six fiducials", len(points), "Find more of them")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[2] < 0.01 * spread[0]:
        hint = "Use a cage, two plates, or posts of different height"
        raise FluoroGuideError("The fiducials lie in one plane, which leaves the distances open", f"{spread[2]:.1f} mm thick", hint)
    matrix = direct_linear_transform(points, found)
    aspect = 1.0 if pixel_spacing_mm is None else pixel_spacing_mm[1] / pixel_spacing_mm[0]
    return _refined(matrix, points, found, pixel_spacing_mm, aspect if square_pixels else None)


def direct_linear_transform(points_mm: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """3x4 matrix (unit third row, positive depths) that minimises the algebraic error on normalised coordinates."""
    to_unit3, points = _normalised(points_mm)
    to_unit2, found = _normalised(pixels)
    homogeneous = np.column_stack([points, np.ones(len(points))])
    zero = np.zeros_like(homogeneous)
    rows = np.vstack([
        np.hstack([homogeneous, zero, -found[:, :1] * homogeneous]), np.hstack([zero, homogeneous, -found[:, 1:] * homogeneous]),
    ])
    matrix = np.linalg.inv(to_unit2) @ np.linalg.svd(rows)[2][-1].reshape(3, 4) @ to_unit3
    length = np.linalg.norm(matrix[2, :3])
    if not np.isfinite(matrix).all() or length < 1e-12:
        raise FluoroGuideError("The fiducials allow no projection", None, "Check that each pixel belongs to its fiducial")
    matrix = matrix / length
    depth = points_mm @ matrix[2, :3] + matrix[2, 3]
    return -matrix if np.median(depth) < 0 else matrix


def _normalised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarity to mean 0 and mean distance sqrt(dimension), as a matrix and applied."""
    size = values.shape[1]
    mean = values.mean(axis=0)
    scale = np.sqrt(size) / np.linalg.norm(values - mean, axis=1).mean()
    matrix = np.diag([scale] * size + [1.0])
    matrix[:size, size] = -scale * mean
    return matrix, (values - mean) * scale


def _refined(
    matrix: np.ndarray, points: np.ndarray, found: np.ndarray, spacing: tuple[float, float] | None, aspect: float | None,
) -> PlateCalibration:
    """Levenberg-Marquardt on the reprojection error over camera parameters: focal lengths, skew, principal point, rotation, source."""
    from scipy.linalg import rq
    from scipy.optimize import least_squares

    from ..geometry.rigid import rotation_from_vector

    inner, rotation = rq(matrix[:, :3])
    signs = np.diag(np.sign(np.diag(inner)))
    inner, rotation = inner @ signs, signs @ rotation
    mirror = np.linalg.det(rotation)  # a picture seen from the detector is a reflection: kept apart from the rotation
    flip = np.diag([np.sign(mirror), 1.0, 1.0])
    inner = inner / inner[2, 2]
    source = -np.linalg.solve(matrix[:, :3], matrix[:, 3])

    def camera(x: np.ndarray) -> np.ndarray:
        # aspect: column spacing / row spacing = row focal length / column focal length, both in pixels
        fy = x[9] if aspect is None else x[0] * aspect
        k = np.array([[x[0], x[10] if aspect is None else 0.0, x[1]], [0.0, fy, x[2]], [0, 0, 1]])
        turned = rotation_from_vector(x[3:6]) @ (flip @ rotation)
        return k @ flip @ turned @ np.column_stack([np.eye(3), -(source + x[6:9])])

    def residuals(x: np.ndarray) -> np.ndarray:
        projected = np.column_stack([points, np.ones(len(points))]) @ camera(x).T
        return (projected[:, :2] / projected[:, 2:] - found).ravel()

    start = [inner[0, 0], inner[0, 2], inner[1, 2], 0, 0, 0, 0, 0, 0] + ([inner[1, 1], inner[0, 1]] if aspect is None else [])
    fit = least_squares(residuals, start, method="lm", x_scale=[1000, 100, 100, 0.1, 0.1, 0.1, 100, 100, 100] + [1000, 1][:len(start) - 9])
    if not np.isfinite(fit.x).all():
        raise FluoroGuideError("The calibration did not converge", None, "Check that each pixel belongs to its fiducial")
    result = fit.fun.reshape(-1, 2)
    freedom = max(1, 2 * len(points) - len(start))
    try:
        covariance = np.linalg.inv(fit.jac.T @ fit.jac) * float(fit.fun @ fit.fun) / freedom
    except np.linalg.LinAlgError:
        raise FluoroGuideError("The fiducials do not fix the geometry", None, "Use more fiducials, spread over all three dimensions") from None
    final = camera(fit.x)
    sid = None if spacing is None else float(abs(fit.x[0]) * spacing[1])
    return PlateCalibration(
        final, float(np.sqrt((result**2).sum(axis=1).mean())), -result, source + fit.x[6:9], np.sqrt(np.diag(covariance)[6:9]), sid,
        (float(fit.x[1]), float(fit.x[2])),
    )
