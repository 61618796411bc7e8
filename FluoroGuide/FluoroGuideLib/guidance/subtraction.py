"""Contrast check: motion-corrected subtraction of a mask frame, maximum opacity over a run, outline of the spread.

The image shows, the user decides: vascular yes, no or unsure, and the pattern.  Both are stored with the image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import FluoroGuideError
from .align2d import Alignment, Template

VASCULAR = ("yes", "no", "unsure")
PATTERNS = ("intra-articular", "epidural", "perineural", "intradiscal", "intraosseous", "myelographic", "intravascular", "intramuscular", "other")
NOISE_SIGMAS = 4.0
LEAST_SPREAD_MM2 = 4.0


def subtract(pixels: np.ndarray, mask_frame: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, Alignment]:
    """A frame minus the mask frame after shifting and turning it into place.

    Parameters
    ----------
    pixels, mask_frame
        (rows, columns), metal and contrast agent bright (line integrals, so that a difference is the agent alone).
    valid
        bool: pixels that show the patient.

    Returns
    -------
    difference float32 (rows, columns), bool where both frames are known, and the motion found.
    """
    from scipy.ndimage import map_coordinates

    pixels, mask_frame = np.asarray(pixels, np.float32), np.asarray(mask_frame, np.float32)
    if pixels.shape != mask_frame.shape or pixels.ndim != 2:
        raise FluoroGuideError("The mask frame and the frame differ in size", f"{mask_frame.shape}, {pixels.shape}", "Use frames of one run")
    valid = np.ones(pixels.shape, bool) if valid is None else np.asarray(valid, bool)
    found = Template(mask_frame, valid.astype(np.float32), mask=valid, levels=(8, 4, 2)).find(pixels, mask=valid)
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    c, s = np.cos(found.rotation_rad), np.sin(found.rotation_rad)
    x, y = columns - found.center_px[0] - found.shift_px[0], rows - found.center_px[1] - found.shift_px[1]
    at = [found.center_px[1] - s * x + c * y, found.center_px[0] + c * x + s * y]
    back = map_coordinates(mask_frame, at, order=1, mode="nearest", prefilter=False)
    known = map_coordinates(valid.astype(np.float32), at, order=1, mode="constant", cval=0.0, prefilter=False) > 0.99
    difference = np.where(known & valid, pixels - back, 0)
    if (known & valid).any():  # exposure differs from frame to frame: most pixels have no agent
        difference -= np.median(difference[known & valid])
    return np.where(known & valid, difference, 0).astype(np.float32), known & valid, found


class OpacityRun:
    """Maximum opacity over a run, frame by frame; ``image`` is (rows, columns) float32, brightest difference so far."""

    def __init__(self, mask_frame: np.ndarray, valid: np.ndarray | None = None) -> None:
        self.mask_frame, self.valid = np.asarray(mask_frame, np.float32), valid
        self.image = np.zeros(self.mask_frame.shape, np.float32)
        self.known = np.zeros(self.mask_frame.shape, bool)
        self.frames = 0
        self.motion: list[Alignment] = []

    def add(self, pixels: np.ndarray) -> np.ndarray:
        """One more frame; returns its difference image."""
        from scipy.ndimage import gaussian_filter

        difference, known, found = subtract(pixels, self.mask_frame, self.valid)
        # A maximum over many frames of single-pixel noise would rise with their number: smooth by a pixel first.
        self.image = np.where(known, np.maximum(self.image, gaussian_filter(difference, 1.0)), self.image)
        self.known |= known
        self.frames += 1
        self.motion.append(found)
        return difference


@dataclass(frozen=True, eq=False)
class Spread:
    """Where contrast agent is seen: a mask (rows, columns), outlines (N, 2) in pixels, and its area in the object plane."""

    mask: np.ndarray
    outlines: tuple[np.ndarray, ...]
    area_mm2: float


def spread(difference: np.ndarray, known: np.ndarray, mm_per_px: float) -> Spread:
    """Outline what stands out of the noise by four sigmas, in one piece of 4 mm^2 or more."""
    from scipy.ndimage import binary_closing, binary_opening, gaussian_filter, label

    if not known.any():
        return Spread(np.zeros(known.shape, bool), (), 0.0)
    smooth = gaussian_filter(np.where(known, difference, 0), max(1.0, 0.4 / mm_per_px))
    values = smooth[known]
    middle = np.median(values)
    # The lower half holds no agent: its spread is the noise's.
    sigma = 1.4826 * np.median(np.abs(values[values <= middle] - middle))
    mask = _to_half_height(known & (smooth > middle + NOISE_SIGMAS * max(float(sigma), 1e-6)), smooth - middle)
    mask = binary_closing(binary_opening(mask, iterations=1), iterations=max(1, round(0.5 / mm_per_px)))
    labels, _ = label(mask)
    sizes = np.bincount(labels.ravel()) * mm_per_px**2
    sizes[0] = 0
    mask = (sizes >= LEAST_SPREAD_MM2)[labels]
    return Spread(mask, tuple(mask_outlines(mask)), float(mask.sum() * mm_per_px**2))


def _to_half_height(mask: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Each piece without its blurred skirt: what is at least half as dense as the median of its dense half."""
    from scipy.ndimage import find_objects, label

    labels, _ = label(mask)
    result = np.zeros_like(mask)
    for number, box in enumerate(find_objects(labels), 1):
        piece = labels[box] == number
        values = height[box][piece]
        level = 0.5 * float(np.median(values[values >= np.median(values)]))
        result[box] |= piece & (height[box] >= level)
    return result


def mask_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed outlines (N, 2), (column, row), along the pixel borders of a mask."""
    from .silhouettes import _loops

    padded = np.pad(mask, 1).astype(np.int8)
    width = padded.shape[1] + 1
    starts, ends = [], []
    # Borders run with the mask on their left (seen with rows downwards), so every corner has as many in as out.
    for rows, columns, a, b in (
        (*np.nonzero(padded[:, 1:] > padded[:, :-1]), (0, 1), (1, 1)), (*np.nonzero(padded[:, 1:] < padded[:, :-1]), (1, 1), (0, 1)),
        (*np.nonzero(padded[1:] > padded[:-1]), (1, 1), (1, 0)), (*np.nonzero(padded[1:] < padded[:-1]), (1, 0), (1, 1)),
    ):
        starts.append((rows + a[0]) * width + columns + a[1])
        ends.append((rows + b[0]) * width + columns + b[1])
    loops = _loops(np.concatenate(starts), np.concatenate(ends))
    return [np.column_stack([loop % width - 1.5, loop // width - 1.5]) for loop in loops]


@dataclass(frozen=True)
class ContrastAnswer:
    """What the user saw.

    Attributes
    ----------
    vascular
        ``yes``, ``no`` or ``unsure``.
    patterns
        Of :data:`PATTERNS`, or free words.
    image
        Name of the stored picture the answer belongs to.
    frames, mask_frame
        How many frames were looked at, and which was the mask.
    largest_shift_mm
        Largest motion that was corrected.
    notes
        Free text.
    """

    vascular: str
    patterns: tuple[str, ...] = ()
    image: str = ""
    frames: int = 0
    mask_frame: int = 0
    largest_shift_mm: float = 0.0
    notes: str = ""
    extra: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vascular not in VASCULAR:
            raise FluoroGuideError("The answer to 'vascular uptake?' is unknown", self.vascular, "Use one of " + ", ".join(VASCULAR))
        patterns = (self.patterns,) if isinstance(self.patterns, str) else tuple(self.patterns)
        if not all(isinstance(p, str) and p.strip() for p in patterns):
            raise FluoroGuideError("A contrast pattern is empty", patterns, "Use words such as " + ", ".join(PATTERNS[:3]))
        if self.vascular == "no" and "intravascular" in patterns:
            raise FluoroGuideError("The contrast check says both 'not vascular' and 'intravascular'", None, "Decide for one, or answer unsure")
        object.__setattr__(self, "patterns", patterns)

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            **self.extra, "vascular": self.vascular, "patterns": list(self.patterns), "image": self.image, "frames": self.frames,
            "mask_frame": self.mask_frame, "largest_shift_mm": self.largest_shift_mm, "notes": self.notes,
        }

    @classmethod
    def from_dict(cls, data: dict) -> ContrastAnswer:
        """The answer written by :meth:`to_dict`; keys not known are kept."""
        known = {"vascular", "patterns", "image", "frames", "mask_frame", "largest_shift_mm", "notes"}
        return cls(**{k: v for k, v in data.items() if k in known}, extra={k: v for k, v in data.items() if k not in known})
