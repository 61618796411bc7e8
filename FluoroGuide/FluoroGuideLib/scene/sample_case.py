"""A small case made on the spot: a lumbar phantom, two X-rays in closed form, a planned and a placed needle.  No Qt.

The X-rays share no code with the projector that registration uses, and the truth is known, so the same case serves as
sample data and as the module's own test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.phantom import LumbarPhantom
from ..geometry.carm import CArmView
from ..geometry.rigid import apply, motion
from ..imaging.xray import XrayImage
from .nodes import set_volume
from .plan_nodes import COLORS, set_markups
from .session import CaseSession

LANDMARK = "L4 body target left"
ENTRY_LANDMARK = "L4 pedicle entry left"
VIEWS_DEG = ((-10.0, 5.0), (75.0, -4.0))
DETECTOR_PX, PIXEL_MM = 320, 0.9
NEEDLE_OFF_LPS_MM = (1.5, -1.2, 1.6)
"""How far the needle's tip is from its plan: 2.5 mm."""


@dataclass(frozen=True, eq=False)
class SampleCase:
    """The case and its truth.

    Attributes
    ----------
    volume
        CT as SimpleITK image, HU.
    images
        X-rays A and B.
    entry_lps_mm, target_lps_mm
        Planned needle, volume LPS.
    tip_lps_mm, hub_lps_mm
        Placed needle, volume LPS.
    pose
        True pose, volume to isocentre.
    """

    volume: Any
    images: tuple[XrayImage, XrayImage]
    entry_lps_mm: np.ndarray
    target_lps_mm: np.ndarray
    tip_lps_mm: np.ndarray
    hub_lps_mm: np.ndarray
    pose: np.ndarray

    def marks(self, index: int) -> np.ndarray:
        """Pixels (2, 2) as (column, row) of the needle's tip and of a point 30 mm up its shaft, in X-ray ``index``."""
        axis = (self.hub_lps_mm - self.tip_lps_mm) / np.linalg.norm(self.hub_lps_mm - self.tip_lps_mm)
        return self.images[index].view.project(apply(self.pose, np.array([self.tip_lps_mm, self.tip_lps_mm + 30 * axis])))


def make_sample_case(spacing_mm: float = 1.5, seed: int = 0) -> SampleCase:
    """The sample case; takes a few seconds.

    The patient lies 12 mm and 6 degrees off the position that a registration starts from (target at the isocentre).
    """
    phantom = LumbarPhantom(seed)
    target, inner = phantom.landmarks[LANDMARK], phantom.landmarks[ENTRY_LANDMARK]
    axis = (target - inner) / np.linalg.norm(target - inner)
    entry = inner - 45 * axis
    centered = np.eye(4)
    centered[:3, 3] = -target
    pose = motion(np.r_[np.radians([3.0, -4.0, 3.5]), 6.0, -5.0, 9.0], np.zeros(3)) @ centered
    tip = target + NEEDLE_OFF_LPS_MM
    images = tuple(_image(phantom, angles, pose, seed + i) for i, angles in enumerate(VIEWS_DEG))
    return SampleCase(phantom.voxelize(spacing_mm, supersampling=2), images, entry, target, tip, tip - 90 * axis, pose)


def _image(phantom: LumbarPhantom, angles_deg: tuple[float, float], pose: np.ndarray, seed: int) -> XrayImage:
    view = CArmView.from_angles(
        *angles_deg, sid_mm=1100, sod_mm=720, rows=DETECTOR_PX, columns=DETECTOR_PX, pixel_spacing_mm=(PIXEL_MM, PIXEL_MM),
    )
    line = sum(phantom.line_integrals(view, pose).values())
    noise = np.random.default_rng(seed).normal(0, 0.01, line.shape)
    pixels = (line + noise).astype(np.float32)
    return XrayImage(pixels, np.ones(pixels.shape, bool), view, "phantom", facts={"modality": "simulated"})


def load_sample_case(session: CaseSession) -> dict[str, Any]:
    """Put the sample case into the session's scene; keys: ``case``, ``volume``, ``line``, ``xrays``."""
    case, host = make_sample_case(), session.host
    volume = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Lumbar phantom CT")
    set_volume(volume, case.volume)
    volume.CreateDefaultDisplayNodes()
    line = host.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L4 left")
    set_markups(line, np.array([case.entry_lps_mm, case.target_lps_mm]), ["entry", "target"], COLORS["plan"])
    return {"case": case, "volume": volume, "line": line, "xrays": [session.xrays.add(image, i) for i, image in enumerate(case.images)]}
