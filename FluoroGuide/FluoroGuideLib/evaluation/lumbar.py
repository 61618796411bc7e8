"""The bones of the lumbar phantom: how vertebrae, sacrum and ilia are put together from ellipsoids and cylinders.

Sizes follow adult lumbar morphometry (body width about 41-50 mm, depth 33-36 mm, height 27-28 mm, pedicle width
7-16 mm from L1 to L5; Panjabi et al., Spine 17:299, 1992; facet angles to the sagittal plane about 25-50 degrees,
Panjabi et al., Spine 18:1298, 1993), rounded: a plausible spine, not a statistical one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..geometry.rigid import rotation_from_vector
from .shapes import Shape

LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5")
FACET_GAP_MM = 2.0
SI_GAP_MM = 2.5
CORTEX, CANCELLOUS = 0.60, 0.22
"""Bone added to soft tissue, relative to water: cortical bone about HU 640, cancellous about HU 260."""

# level: tilt about x in degrees (anterior side down positive), body width, depth, height, pedicle half width,
# pedicle distance from the midline, facet angle to the sagittal plane with the vertebra below
_SIZES = {
    "T12": (-13, 40, 32, 26, 3.6, 11.5, 20), "L1": (-11, 41, 33, 27, 3.8, 12.0, 25), "L2": (-7, 42, 34, 27, 4.2, 12.5, 30),
    "L3": (0, 44, 35, 28, 4.8, 13.5, 36), "L4": (10, 47, 35.5, 28, 6.0, 15.0, 44), "L5": (22, 50, 36, 28, 7.8, 18.0, 50),
}
_DISC_MM = 11.0
_SACRAL_TILT = 40.0


@dataclass
class Skeleton:
    """What the builder collects: shapes, named points (3,) and closed outlines (N, 3), LPS mm."""

    shapes: list[Shape] = field(default_factory=list)
    landmarks: dict[str, np.ndarray] = field(default_factory=dict)
    outlines: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Frame:
    """A bone's own axes: x left, y posterior, z up along the bone."""

    origin: np.ndarray
    axes: np.ndarray

    def __call__(self, *point: float) -> np.ndarray:
        return self.origin + self.axes @ np.asarray(point, float)


class Builder:
    """Puts a spine together; small random asymmetries come from ``rng``."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.bones = rng, Skeleton()
        self.frames = self._spine_frames()

    def build(self) -> Skeleton:
        """All bones, landmarks and joint outlines."""
        for level in LEVELS:
            self._vertebra(level)
        self._sacrum()
        for upper, lower in zip(LEVELS, (*LEVELS[1:], "S1")):
            self._disc(upper, lower)
            for side in (1, -1):
                self._facet_joint(upper, lower, side)
        for side in (1, -1):
            self._ilium(side)
        return self.bones

    # ---- helpers ------------------------------------------------------------------------------------------------
    def _spine_frames(self) -> dict[str, _Frame]:
        """Frames of the bodies, L3 at the origin, stacked along each body's own axis, plus S1."""
        frames, origin = {}, np.zeros(3)
        tilts = {**{k: v[0] for k, v in _SIZES.items()}, "S1": _SACRAL_TILT}
        heights = {**{k: v[3] for k, v in _SIZES.items()}, "S1": 28.0}
        previous = None
        for level in ("S1", *reversed(LEVELS)):
            small = np.radians(self.rng.normal(0, (0.8, 1.5, 1.5)))
            axes = rotation_from_vector(np.array([np.radians(tilts[level]), 0, 0])) @ rotation_from_vector(small)
            if previous is not None:
                below = frames[previous]
                reach = (heights[previous] + _DISC_MM) / 2, (heights[level] + _DISC_MM) / 2
                origin = below.origin + below.axes[:, 2] * reach[0] + axes[:, 2] * reach[1] + np.array([self.rng.normal(0, 0.8), 0, 0])
            frames[level], previous = _Frame(origin, axes), level
        shift = frames["L3"].origin
        return {k: _Frame(f.origin - shift, f.axes) for k, f in frames.items()}

    def _add(self, kind: str, center: np.ndarray, axes: np.ndarray, semi: tuple, bone: float, name: str, part: str, soft: float = 0.0) -> None:
        self.bones.shapes.append(Shape(kind, np.asarray(center, float), axes, np.asarray(semi, float), soft, bone, name, part))

    def _hollow(self, kind: str, center: np.ndarray, axes: np.ndarray, semi: tuple, name: str, part: str, wall: float = 1.4) -> None:
        """A cortical shell around cancellous bone; both increments add up to the cancellous value inside."""
        semi = np.asarray(semi, float) * self.rng.normal(1, 0.02)
        self._add(kind, center, axes, semi, CORTEX, name, part)
        if semi.min() > 2 * wall:
            self._add(kind, center, axes, semi - wall, CANCELLOUS - CORTEX, name, "")

    def _rod(self, start: np.ndarray, end: np.ndarray, half_width: float, half_height: float, up: np.ndarray, name: str, part: str) -> None:
        """An elliptic cylinder from point to point; its second semi-axis lies along ``up`` as far as it can."""
        axis = end - start
        length = np.linalg.norm(axis)
        axis = axis / length
        second = up - axis * (up @ axis)
        second /= np.linalg.norm(second)
        axes = np.column_stack([np.cross(second, axis), second, axis])
        self._hollow("cylinder", (start + end) / 2, axes, (half_width, half_height, length / 2), name, part)

    # ---- bones --------------------------------------------------------------------------------------------------
    def _vertebra(self, level: str) -> None:
        _, width, depth, height, pedicle, offset, _ = _SIZES[level]
        f, back = self.frames[level], depth / 2
        self._hollow("cylinder", f.origin, f.axes, (width / 2, depth / 2, height / 2), level, f"{level} body")
        for side, word in ((1, "left"), (-1, "right")):
            front, rear = f(side * offset, back - 3, 5), f(side * (offset + 1.5), back + 12, 5)
            self._rod(front, rear, pedicle, 7.5, f.axes[:, 2], level, f"{level} pedicle {word}")
            self.bones.landmarks[f"{level} pedicle {word}"] = (front + rear) / 2
            self.bones.landmarks[f"{level} pedicle entry {word}"] = f(side * (offset + 2.2), back + 17, 5.5)
            self.bones.landmarks[f"{level} body target {word}"] = f(side * offset * 0.55, -depth * 0.2, 2.5)
            tip = side * (width / 2 + 19 * self.rng.normal(1, 0.08))
            self._rod(f(side * (offset + 2), back + 11, 5), f(tip, back + 14, 6), 2.8, 4.5, f.axes[:, 2], level, f"{level} transverse process {word}")
            self._rod(f(side * (offset - 1), back + 14, 0), f(0, back + 24, -6), 3.0, 9.0, f.axes[:, 2], level, f"{level} lamina {word}")
            self.bones.landmarks[f"{level} transverse process tip {word}"] = f(tip, back + 14, 6)
        lean = self.rng.normal(0, 1.5)
        self._rod(f(lean / 3, back + 23, -6), f(lean, back + 44, -11), 3.2, 9.5, f.axes[:, 2], level, f"{level} spinous process")
        self.bones.landmarks[f"{level} body"] = f.origin
        self.bones.landmarks[f"{level} spinous process tip"] = f(lean, back + 44, -11)

    def _disc(self, upper: str, lower: str) -> None:
        a, b = self.frames[upper], self.frames[lower]
        top, bottom = a(0, 0, -_SIZES[upper][3] / 2), b(0, 0, (28.0 if lower == "S1" else _SIZES[lower][3]) / 2)
        center, axis = (top + bottom) / 2, a.axes[:, 2] + b.axes[:, 2]
        axis /= np.linalg.norm(axis)
        x = a.axes[:, 0] - axis * (a.axes[:, 0] @ axis)
        x /= np.linalg.norm(x)
        axes = np.column_stack([x, np.cross(axis, x), axis])
        self._add("ellipsoid", center, axes, (_SIZES[upper][1] / 2, _SIZES[upper][2] / 2, 5.0), 0.0, "", "", soft=0.04)
        self.bones.landmarks[f"{upper}/{lower} disc"] = center

    def _facet_joint(self, upper: str, lower: str, side: int) -> None:
        """Two plates with parallel faces, ``FACET_GAP_MM`` apart: the process of the lower vertebra lies antero-lateral."""
        word, f, u = "left" if side > 0 else "right", self.frames[lower], self.frames[upper]
        depth = 36.0 if lower == "S1" else _SIZES[lower][2]
        height = 28.0 if lower == "S1" else _SIZES[lower][3]
        offset = _SIZES[upper][5] + 3.5
        angle = np.radians(_SIZES[upper][6] + self.rng.normal(0, 3))
        center = f(side * offset, depth / 2 + 16.5, height / 2 + 3)
        normal = f.axes @ np.array([side * np.cos(angle), -np.sin(angle), 0.0])
        z = f.axes[:, 2]
        axes = np.column_stack([np.cross(z, normal), z, normal])
        semi = np.array([7.0, 8.5])
        bone = "sacrum" if lower == "S1" else lower
        thick = 5.0
        for name, part, sign in ((bone, "superior", 1), (upper, "inferior", -1)):
            middle = center + sign * normal * (FACET_GAP_MM + thick) / 2
            self._add("cylinder", middle, axes, (*semi, thick / 2), CORTEX, name, f"{lower if sign > 0 else upper} {part} articular process {word}")
        superior = center + normal * (FACET_GAP_MM + thick) / 2
        inferior = center - normal * (FACET_GAP_MM + thick) / 2
        base = f(side * (offset + 1), depth / 2 + 11, height / 2 - 9)
        self._rod(base, superior - z * 5, 4.0, 4.5, normal, bone, f"{lower} superior articular process {word}")
        pars = u(side * (_SIZES[upper][5] - 1), _SIZES[upper][2] / 2 + 16, -4)
        self._rod(pars, inferior + z * 4, 3.5, 4.5, normal, upper, f"{upper} inferior articular process {word}")
        name = f"{upper}/{lower} facet joint {word}"
        self.bones.landmarks[name] = center
        self.bones.outlines[name] = _ellipse(center, axes, semi)

    def _sacrum(self) -> None:
        f = self.frames["S1"]
        self._hollow("cylinder", f.origin, f.axes, (25, 17, 14), "sacrum", "S1 body")
        self.bones.landmarks["S1 body"] = f.origin
        for n, (width, depth, drop, turn) in enumerate(((20, 13, 27, 6), (16, 10, 49, 16), (12, 8, 68, 30)), start=2):
            axes = f.axes @ rotation_from_vector(np.array([-np.radians(turn), 0, 0]))
            center = f(0, 1 - 0.004 * drop**2, -drop)  # the sacrum is concave in front
            self._hollow("cylinder", center, axes, (width, depth, 10.5), "sacrum", f"S{n} body")
            self._rod(center + f.axes @ [0, depth, 0.0], center + f.axes @ [0, depth + 14, -4.0], 3, 8, f.axes[:, 2], "sacrum", "median sacral crest")
        for side, word in ((1, "left"), (-1, "right")):
            turn = rotation_from_vector(f.axes[:, 1] * np.radians(side * self.rng.normal(8, 2)))
            self._hollow("ellipsoid", f(side * 30, 7, -14), turn @ f.axes, (20, 14, 25), "sacrum", f"sacral ala {word}", wall=1.8)

    def _ilium(self, side: int) -> None:
        """The SI joint as two parallel plates, and the wing of the ilium as a thin shell that flares forwards."""
        word, f = "left" if side > 0 else "right", self.frames["S1"]
        name = f"ilium {word}"
        center = f(side * 48, 12, -16)
        angle = np.radians(22 + self.rng.normal(0, 3))
        normal = f.axes @ np.array([side * np.cos(angle), np.sin(angle), 0.0])
        z = f.axes[:, 2]
        axes = np.column_stack([np.cross(z, normal), z, normal])
        semi, thick = np.array([17.0, 24.0]), 6.0
        for bone, surface, sign in (("sacrum", "sacral", -1), (name, "iliac", 1)):
            middle = center + sign * normal * (SI_GAP_MM + thick) / 2
            self._add("cylinder", middle, axes, (*semi, thick / 2), 0.45, bone, f"SI joint {surface} surface {word}")
        joint = f"SI joint {word}"
        self.bones.landmarks[joint] = center + axes @ np.array([0.0, -0.55 * semi[1], 0.0])
        self.bones.outlines[joint] = _ellipse(center, axes, semi)
        flare = np.radians(38 + self.rng.normal(0, 2))
        thin = np.array([side * np.cos(flare), np.sin(flare), -0.25])
        thin /= np.linalg.norm(thin)
        along = np.cross(np.array([0.0, 0.0, 1.0]), thin)
        along /= np.linalg.norm(along)
        wing = np.column_stack([thin, along, np.cross(thin, along)])
        middle = center + np.array([side * 36.0, -34.0, 8.0])
        self._hollow("ellipsoid", middle, wing, (7, 58, 62), name, f"iliac wing {word}", wall=2.0)


def _ellipse(center: np.ndarray, axes: np.ndarray, semi: np.ndarray, count: int = 48) -> np.ndarray:
    """Closed polyline (count + 1, 3) around the first two local axes."""
    t = np.linspace(0, 2 * np.pi, count + 1)
    return center + np.outer(np.cos(t) * semi[0], axes[:, 0]) + np.outer(np.sin(t) * semi[1], axes[:, 1])
