"""Distortion of image intensifiers (pincushion, S-shape) measured with a grid of dots and undone.

The grid is a regular pattern of radio-opaque dots taped to the intensifier.  Its dots are found, given their place in
the pattern by walking from neighbour to neighbour, and a polynomial from undistorted to distorted pixels is fitted
(order 5 by default: pincushion is of order 3, the S-shape of the earth's field of order 3 to 5).  The pattern's own
frame (where it lies, how it is turned, its pitch in pixels) is chosen so that the middle of the picture stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError


@dataclass(frozen=True, eq=False)
class Distortion:
    """A polynomial map from undistorted to distorted pixels.

    Attributes
    ----------
    rows, columns
        Size of the picture it holds for.
    order
        Of the polynomial.
    coefficients
        (2, M): distorted minus undistorted (column, row), in pixels, over the monomials of :func:`_monomials`.
    residual_px, worst_px
        Root mean square and largest distance between dots and the fit; ``left_out_px``: the same rms over dots left out
        of the fit (one in five), which an overfit would raise.
    before_px
        Largest distortion of a dot before the correction.
    """

    rows: int
    columns: int
    order: int
    coefficients: np.ndarray
    residual_px: float
    worst_px: float
    left_out_px: float
    before_px: float

    def distorted(self, pixels: np.ndarray) -> np.ndarray:
        """Where undistorted pixels (N, 2), (column, row), are seen."""
        pixels = np.atleast_2d(np.asarray(pixels, float))
        return pixels + _monomials(self._unit(pixels), self.order) @ self.coefficients.T

    def undistorted(self, pixels: np.ndarray) -> np.ndarray:
        """Where pixels (N, 2) of the distorted picture belong; the inverse of :meth:`distorted` by fixed point iteration."""
        pixels = np.atleast_2d(np.asarray(pixels, float))
        result = pixels.copy()
        for _ in range(50):
            change = pixels - self.distorted(result)
            result = result + change
            if np.abs(change).max(initial=0) < 1e-6:
                break
        return result

    def corrected(self, picture: np.ndarray) -> np.ndarray:
        """The picture (rows, columns) as it were without distortion, float32, linear interpolation; NaN where nothing was seen.

        Raises
        ------
        FluoroGuideError
            A picture of another size.
        """
        from scipy.ndimage import map_coordinates

        if np.shape(picture) != (self.rows, self.columns):
            raise FluoroGuideError("The distortion was measured for another size", f"{np.shape(picture)}, {(self.rows, self.columns)}")
        r, c = np.mgrid[:self.rows, :self.columns]
        where = self.distorted(np.column_stack([c.ravel(), r.ravel()]))
        values = map_coordinates(np.asarray(picture, np.float32), where[:, ::-1].T, order=1, cval=np.nan)
        return values.reshape(self.rows, self.columns)

    def nearest(self) -> np.ndarray:
        """Flat index (rows * columns,) of the distorted picture's pixel nearest to each pixel of the corrected one; clamped at the borders."""
        r, c = np.mgrid[:self.rows, :self.columns]
        where = np.rint(self.distorted(np.column_stack([c.ravel(), r.ravel()]))).astype(np.int64)
        columns, rows = np.clip(where[:, 0], 0, self.columns - 1), np.clip(where[:, 1], 0, self.rows - 1)
        return rows * self.columns + columns

    def _unit(self, pixels: np.ndarray) -> np.ndarray:
        half = max(self.rows, self.columns) / 2
        return (pixels - ((self.columns - 1) / 2, (self.rows - 1) / 2)) / half

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {**{k: getattr(self, k) for k in self.__dataclass_fields__}, "coefficients": self.coefficients.tolist()}

    @classmethod
    def from_dict(cls, data: dict) -> Distortion:
        """The distortion written by :meth:`to_dict`."""
        return cls(**{**data, "coefficients": np.array(data["coefficients"], float)})


def _monomials(unit: np.ndarray, order: int) -> np.ndarray:
    x, y = unit.T
    return np.column_stack([x**i * y ** (n - i) for n in range(order + 1) for i in range(n + 1)])


def distortion_from_grid(picture: np.ndarray, *, order: int = 5, dark: bool = True, least_dots: int = 60) -> Distortion:
    """Measure the distortion in a picture of a grid of dots.

    Parameters
    ----------
    picture
        (rows, columns).
    order
        Of the polynomial, 3 to 7.
    dark
        The dots are darker than what surrounds them.

    Raises
    ------
    FluoroGuideError
        No grid was found in it.
    """
    picture = np.asarray(picture, float)
    if picture.ndim != 2 or not 3 <= order <= 7:
        raise FluoroGuideError("The grid must be one picture, and the order 3 to 7", f"shape {picture.shape}, order {order}")
    dots = find_dots(-picture if dark else picture)
    if len(dots) < least_dots:
        raise FluoroGuideError("The picture shows too few dots of a grid", f"{len(dots)} found, {least_dots} needed", "Check its polarity and field")
    pattern = index_grid(dots, np.array(picture.shape[::-1]) / 2)
    known = ~np.isnan(pattern[:, 0])
    if known.sum() < least_dots:
        raise FluoroGuideError("The dots do not form a regular grid", f"{int(known.sum())} of {len(dots)} fit", "Use a grid of equal pitch")
    return distortion_from_points(dots[known], pattern[known], picture.shape, order=order)


def find_dots(picture: np.ndarray) -> np.ndarray:
    """Centres (N, 2), (column, row), of bright dots, by their centre of mass above the local background."""
    from scipy import ndimage

    size = max(picture.shape)
    smooth = ndimage.gaussian_filter(picture, max(1.0, size / 700))
    excess = smooth - ndimage.uniform_filter(smooth, max(15, int(size / 16)) | 1)
    threshold = 0.5 * float(np.percentile(excess, 99.7))
    if threshold <= 0:
        return np.empty((0, 2))
    labels, count = ndimage.label(excess > threshold)
    if count < 4:
        return np.empty((0, 2))
    index = np.arange(1, count + 1)
    area = ndimage.sum_labels(np.ones_like(excess), labels, index)
    typical = float(np.median(area))
    # Weighted by how far a pixel is above the threshold, so that the centre does not depend on single border pixels.
    centers = np.array(ndimage.center_of_mass(np.maximum(excess - threshold, 0), labels, index))[:, ::-1]
    boxes = ndimage.find_objects(labels)
    whole = np.array([b[0].start > 0 and b[1].start > 0 and b[0].stop < picture.shape[0] and b[1].stop < picture.shape[1] for b in boxes])
    return centers[(area > 0.4 * typical) & (area < 2.5 * typical) & whole]


def index_grid(dots: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Place (i, j) of each dot in a square grid, NaN where none was found; walks from the dot nearest to ``center`` to its neighbours."""
    from collections import deque

    from scipy.spatial import cKDTree

    tree = cKDTree(dots)
    start = int(tree.query(center)[1])
    near = dots[tree.query(dots[start], k=min(5, len(dots)))[1][1:]] - dots[start]
    first = near[0]
    step = np.array([first, [-first[1], first[0]]])  # a square grid: the other direction is perpendicular
    places = np.full((len(dots), 2), np.nan)
    places[start] = 0
    steps = {start: step}
    queue, taken = deque([start]), {(0, 0)}
    while queue:
        dot = queue.popleft()
        for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
            local = steps[dot]
            distance, other = tree.query(dots[dot] + sign * local[axis])
            place = places[dot] + (sign * (axis == 0), sign * (axis == 1))
            key = (int(place[0]), int(place[1]))
            if distance > 0.25 * np.linalg.norm(local[axis]) or not np.isnan(places[other, 0]) or key in taken:
                continue
            places[other] = place
            taken.add(key)
            # The pitch and direction change slowly from dot to dot: follow them.
            moved = local.copy()
            moved[axis] = sign * (dots[other] - dots[dot])
            steps[other] = moved
            queue.append(other)
    return places


def distortion_from_points(dots: np.ndarray, pattern: np.ndarray, shape: tuple[int, int], *, order: int = 5) -> Distortion:
    """The distortion from dots (N, 2; column, row) and their places (N, 2) in the pattern.

    The undistorted grid is a similarity of the pattern: its turn, pitch and place are those of the dots in the middle
    of the picture, where the distortion is least.
    """
    rows, columns = shape
    if len(dots) < 3 * (order + 1) * (order + 2) // 2 // 2:
        raise FluoroGuideError("Too few dots for a polynomial of this order", f"{len(dots)} dots, order {order}", "Use a lower order or a finer grid")
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
    ideal = _undistorted_grid(dots, pattern, middle, max(shape) / 2)
    half = max(shape) / 2
    base = _monomials((ideal - middle) / half, order)
    offset = dots - ideal
    coefficients = np.linalg.lstsq(base, offset, rcond=None)[0].T
    errors = np.linalg.norm(base @ coefficients.T - offset, axis=1)
    held = np.arange(len(dots)) % 5 == 2
    partly = np.linalg.lstsq(base[~held], offset[~held], rcond=None)[0]
    left_out = np.linalg.norm(base[held] @ partly - offset[held], axis=1)
    return Distortion(
        rows, columns, order, coefficients, float(np.sqrt((errors**2).mean())), float(errors.max()), float(np.sqrt((left_out**2).mean())),
        float(np.linalg.norm(offset, axis=1).max()),
    )


def _undistorted_grid(dots: np.ndarray, pattern: np.ndarray, middle: np.ndarray, half: float) -> np.ndarray:
    """The pattern as a similarity in pixels that agrees with the dots, to first order, at the middle of the picture.

    A cubic polynomial from pattern to pixels is fitted to all dots; its value and derivative at the middle of the picture give the similarity.
    """
    unit = pattern - pattern.mean(axis=0)
    scale = np.abs(unit).max()
    base = _monomials(unit / scale, 5)
    fit = np.linalg.lstsq(base, dots, rcond=None)[0]
    place = np.zeros(2)
    for _ in range(20):  # the place in the pattern that shows at the middle of the picture
        around = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * 1e-4
        here, right, left, up, down = _monomials(place + around, 5) @ fit
        slope = np.column_stack([right - left, up - down]) / 2e-4
        place = place + np.linalg.solve(slope, middle - here)
    # The nearest similarity to the slope; a mirrored pattern stays mirrored.
    mirror = np.diag([1.0, np.sign(np.linalg.det(slope))])
    plain = slope @ mirror
    a, b = (plain[0, 0] + plain[1, 1]) / 2, (plain[1, 0] - plain[0, 1]) / 2
    similarity = np.array([[a, -b], [b, a]]) @ mirror
    return middle + (unit / scale - place) @ similarity.T
