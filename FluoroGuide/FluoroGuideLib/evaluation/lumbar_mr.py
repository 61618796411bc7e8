"""A CT-like volume for a lumbar MR whose vertebral bodies are labelled: what an X-ray of that patient might show.

Bodies are the labels, with a cortical shell, and the skin is the MR's own in its slab, rounded off beside it.  What the labels do not give
(posterior elements, sacrum, ilia) comes from the lumbar phantom's shapes, put on the frames of the labelled bodies; muscle, fat and bowel gas
are made up, and gas lies elsewhere than in the MR, as on another day.  Plausible, not the patient's: an independent truth for the bodies alone.
"""

from __future__ import annotations

import numpy as np

from ..errors import FluoroGuideError
from .lumbar import LEVELS, Builder, _Frame
from .shapes import Grid, Shape, occupancy, voxelize

CANCELLOUS_HU, SHELL_HU, SHELL_MM = 180.0, 550.0, 1.2
DISC_HU, DISC_MM = 80.0, 8.5
S1_BELOW_MM, S1_TILT = 36.0, 40.0
HALF_WIDTH_MM = (150.0, 175.0)
"""Half width of the trunk, drawn evenly from this range."""
FAT_MM, FAT_HU, ORGAN_HU, ORGAN_SPREAD_HU, ORGAN_SCALE_MM = 15.0, -100.0, 40.0, 25.0, 30.0
GAS_COUNT, GAS_HU = 10, -950.0
ROUND = 2.5
"""Exponent of the ellipse by which the trunk is rounded off beside the scan."""


class _FittedBuilder(Builder):
    """The phantom's bones on the frames of labelled bodies; the bodies themselves and the discs are left out."""

    def __init__(self, rng: np.random.Generator, frames: dict[str, _Frame]) -> None:
        self._given = frames
        super().__init__(rng)

    def _spine_frames(self) -> dict[str, _Frame]:
        return self._given

    def _disc(self, upper: str, lower: str) -> None:
        pass

    def _hollow(self, kind: str, center: np.ndarray, axes: np.ndarray, semi: tuple, name: str, part: str, wall: float = 1.4) -> None:
        if part not in {f"{level} body" for level in LEVELS}:
            super()._hollow(kind, center, axes, semi, name, part, wall)


def ct_like(mr: object, labels: object, rng: np.random.Generator, spacing_mm: float = 1.5) -> tuple[object, dict[str, int], dict[str, np.ndarray]]:
    """CT of a trunk around labelled lumbar bodies.

    Parameters
    ----------
    mr, labels
        SimpleITK images of one grid with LPS axes, the first index from side to side: the MR, whose skin is taken, and the bodies, the
        lowest L5; at least the six of T12 to L5.
    rng
        Decides gas, tissue, width and small asymmetries.

    Returns
    -------
    (SimpleITK float32 image in HU; level -> label value; level -> centre of its body (3,), LPS mm).

    Raises
    ------
    FluoroGuideError
        Fewer than six bodies.
    """
    import SimpleITK as sitk

    labels = sitk.Cast(labels, sitk.sitkUInt8)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(labels)
    rising = sorted(statistics.GetLabels(), key=lambda v: statistics.GetCentroid(v)[2])
    if len(rising) < len(LEVELS):
        raise FluoroGuideError("Too few vertebral bodies are labelled", len(rising), f"Label {', '.join(LEVELS)}")
    values = dict(zip(reversed(LEVELS), rising, strict=False))
    centers = {level: np.array(statistics.GetCentroid(value)) for level, value in values.items()}
    frames = {level: _Frame(center, _axes(centers, level)) for level, center in centers.items()}
    frames["S1"] = _sacral(frames["L5"])
    grid, front, back = _trunk(mr, float(rng.uniform(*HALF_WIDTH_MM)), spacing_mm)
    hu = _soft_tissue(grid, front, back, rng)
    for where, share in _gas(grid, centers, front, rng):
        hu[where] += share * (GAS_HU - hu[where])
    hu += _between(labels, grid) * (DISC_HU - hu)
    bones = voxelize(_FittedBuilder(rng, frames).build().shapes, grid, 2)
    hu += np.where(hu > -500, 1000.0 * bones, 0.0).astype(np.float32)
    depth = _depth_in_bodies(labels, grid.image(hu))
    shell = np.clip((SHELL_MM - depth) / spacing_mm + 0.5, 0, 1)
    hu += np.clip(depth + 0.5, 0, 1) * (CANCELLOUS_HU + shell * (SHELL_HU - CANCELLOUS_HU) - hu)
    return grid.image(np.clip(hu, -1000.0, 2000.0).astype(np.float32)), values, centers


def _trunk(mr: object, half_width_mm: float, spacing_mm: float) -> tuple[Grid, np.ndarray, np.ndarray]:
    """(grid of the trunk, y of its front and of its back, mm (z, x)): the MR's skin, rounded off beside the scan, going on above and below."""
    from scipy.ndimage import gaussian_filter

    from ..anatomy.mr_tissue import body_mask, isotropic

    coarse = isotropic(mr, 3.0)
    body, origin = body_mask(coarse), np.array(coarse.GetOrigin())
    y = origin[1] + 3.0 * np.arange(body.shape[1])
    first, last = (gaussian_filter(f, 3.0, mode="nearest") for f in (
        y[np.argmax(body, 1)], y[body.shape[1] - 1 - np.argmax(body[:, ::-1], 1)]))
    size = 3.0 * (np.array(coarse.GetSize()) - 1)
    middle = origin + size / 2
    low = np.array([middle[0] - half_width_mm, first.min(), origin[2]]) - 6
    high = np.array([middle[0] + half_width_mm, last.max(), origin[2] + size[2]]) + 6
    grid = Grid.around(low, high, spacing_mm)
    x, z = grid.axis(0), grid.axis(2)
    i = np.clip(np.rint((x - origin[0]) / 3.0).astype(int), 0, body.shape[2] - 1)
    k = np.clip(np.rint((z - origin[2]) / 3.0).astype(int), 0, body.shape[0] - 1)
    near, far = (gaussian_filter(f[np.ix_(k, i)], 3.0 / spacing_mm, mode="nearest") for f in (first, last))
    beside = np.clip((np.abs(x - middle[0]) - size[0] / 2) / (half_width_mm - size[0] / 2), 0, 1)
    share = (1 - beside**ROUND) ** (1 / ROUND)
    center, half = (near + far) / 2, (far - near) / 2 * share
    return grid, center - half, center + half


def _soft_tissue(grid: Grid, front: np.ndarray, back: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """HU of air, fat below the skin, and what is within, [k, j, i]."""
    import SimpleITK as sitk
    from scipy.ndimage import gaussian_filter, zoom

    y, spacing = grid.axis(1)[None, :, None], float(grid.spacing_mm[0])
    inside = np.clip(np.minimum(y - front[:, None], back[:, None] - y) / spacing + 0.5, 0, 1)
    body = grid.image((inside > 0.5).astype(np.uint8))
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(body, insideIsPositive=True, squaredDistance=False, useImageSpacing=True))
    coarse = rng.standard_normal([max(4, int(n * spacing / ORGAN_SCALE_MM) + 2) for n in inside.shape])
    texture = zoom(coarse, np.array(inside.shape) / coarse.shape, order=1)
    organ = ORGAN_HU + ORGAN_SPREAD_HU * gaussian_filter(texture, 2)
    tissue = np.where(distance < FAT_MM, FAT_HU, organ)
    return (-1000.0 + inside * (gaussian_filter(tissue, 0.7) + 1000.0)).astype(np.float32)


def _gas(grid: Grid, centers: dict[str, np.ndarray], front: np.ndarray, rng: np.random.Generator) -> list:
    """Where bowel gas lies: (slices, share) of ellipsoids in front of the spine."""
    found, low, high = [], centers["L5"], centers["T12"]
    for _ in range(GAS_COUNT):
        z = rng.uniform(low[2] - 40, high[2])
        x = low[0] + rng.uniform(-95, 95)
        spine = np.interp(z, [low[2], high[2]], [low[1], high[1]]) - 22
        skin = front[np.argmin(np.abs(grid.axis(2) - z)), np.argmin(np.abs(grid.axis(0) - x))] + FAT_MM + 8
        semi = np.minimum(rng.uniform(7, 19, 3), max(4.0, (spine - skin) / 2))
        center = np.array([x, rng.uniform(skin + semi[1], max(spine - semi[1], skin + semi[1] + 1)), z])
        found += list(occupancy(Shape("ellipsoid", center, np.eye(3), semi), grid, 2))
    return found


def _axes(centers: dict[str, np.ndarray], level: str) -> np.ndarray:
    """3x3: left, posterior, up along the spine, from the neighbouring bodies' centres."""
    number = LEVELS.index(level)
    up = centers[LEVELS[max(0, number - 1)]] - centers[LEVELS[min(len(LEVELS) - 1, number + 1)]]
    up /= np.linalg.norm(up)
    left = np.array([1.0, 0, 0]) - up[0] * up
    left /= np.linalg.norm(left)
    return np.column_stack([left, np.cross(up, left), up])


def _sacral(l5: _Frame) -> _Frame:
    from ..geometry.rigid import rotation_from_vector

    return _Frame(l5.origin - S1_BELOW_MM * l5.axes[:, 2], rotation_from_vector(np.array([np.radians(S1_TILT), 0, 0])))


def _between(labels: object, grid: Grid) -> np.ndarray:
    """How far each voxel lies between two bodies (0..1), [k, j, i]: nearer than :data:`DISC_MM` to both."""
    import SimpleITK as sitk

    statistics, empty = sitk.LabelShapeStatisticsImageFilter(), grid.image(np.zeros(grid.size[::-1], np.uint8))
    statistics.Execute(labels)
    shares = []
    for value in statistics.GetLabels():
        distance = sitk.SignedMaurerDistanceMap(labels == int(value), insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
        own = sitk.GetArrayFromImage(sitk.Resample(distance, empty, sitk.Transform(), sitk.sitkLinear, -99.0, sitk.sitkFloat32))
        shares.append(np.clip(own + DISC_MM, 0, 1))
    return np.clip(np.sum(shares, 0) - 1, 0, 1).astype(np.float32)


def _depth_in_bodies(labels: object, grid: object) -> np.ndarray:
    """Depth below the surface of the nearest body, mm (negative outside), on another grid, [k, j, i]; each body keeps its own surface."""
    import SimpleITK as sitk

    deepest = None
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(labels)
    for value in statistics.GetLabels():
        distance = sitk.SignedMaurerDistanceMap(labels == int(value), insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
        own = sitk.GetArrayFromImage(sitk.Resample(distance, grid, sitk.Transform(), sitk.sitkLinear, -99.0, sitk.sitkFloat32))
        deepest = own if deepest is None else np.maximum(deepest, own)
    return deepest
