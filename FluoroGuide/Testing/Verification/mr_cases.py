"""Cases of the MR proofs: pseudo-MR of the thorax and pelvis CT with simulated fluoroscopy of the CT itself.

One MR (contrast, plane, shading, noise, distortion) per ``group``; several targets, X-rays and starts share it, because making it takes
longer than registering it.
"""

from __future__ import annotations

import functools

import numpy as np
import registration_rigid as rigid_part
import SimpleITK as sitk

from FluoroGuideLib.anatomy.mr import MrVolume, attenuation_from_mr, with_labels
from FluoroGuideLib.evaluation.protocol import perturbed_start
from FluoroGuideLib.evaluation.pseudo_mr import PseudoMrOptions, pseudo_mr
from FluoroGuideLib.evaluation.sample import thorax_ct
from FluoroGuideLib.geometry.rigid import apply

CONTRAST_NAMES = {"DIXON_W": "Dixon water"}
BONE_WORDS = ("vertebrae", "rib", "stern", "scapula", "clavic", "humerus")
PIXELS = 256
SUCCESS_MM = 2.5


@functools.cache
def scan(name: str) -> tuple[object, object, object]:
    """(CT in HU at about 1.5 mm, bone labels for the pseudo-MR or None, vertebra labels or None), one grid."""
    if name == "pelvis":
        ct, labels, _ = rigid_part.volume("pelvis")
        return ct, None, None
    ct, labels, names = thorax_ct()
    bones = [k for k, v in names.items() if any(word in v for word in BONE_WORDS)]
    size = [n // 2 if a < 2 else n for a, n in enumerate(ct.GetSize())]
    ct = sitk.BinShrink(ct, [2, 2, 1])
    labels = sitk.Resample(labels, ct, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    assert list(ct.GetSize()) == size
    array = sitk.GetArrayFromImage(labels)
    bone = sitk.GetImageFromArray((array * np.isin(array, bones)).astype(np.uint8))
    bone.CopyInformation(labels)
    return sitk.Cast(ct, sitk.sitkFloat32), bone, labels


@functools.lru_cache(maxsize=2)
def planned(name: str, contrast: str, plane: str, group: int) -> tuple[MrVolume, object, object]:
    """(pseudo-attenuation of a pseudo-MR, bone labels on the MR's own grid, transform of points from the MR to the CT)."""
    ct, bones, _ = scan(name)
    options = PseudoMrOptions(contrast=contrast, plane=plane, bias=0.25, noise=0.025)
    image, labels, distortion = pseudo_mr(ct, options, np.random.default_rng([group, 77]), bones)
    return attenuation_from_mr(image, CONTRAST_NAMES.get(contrast, contrast), f"{name} {contrast}"), labels, distortion


def refined(name: str, volume: MrVolume, labels: object) -> MrVolume:
    """The MR as a user would have it: of the pelvis with its bones segmented, of the thorax without."""
    return with_labels(volume, labels) if name == "pelvis" else volume


def vertebrae(labels: object) -> object:
    """The vertebrae alone of the thorax CT's bone labels."""
    return labels * sitk.Cast((labels >= 25) & (labels <= 50), labels.GetPixelID())


def target_of(name: str, rng: np.random.Generator) -> tuple[np.ndarray, int | None]:
    """Target (3,) in bone, LPS mm, and its label in the thorax."""
    return rigid_part.target_of(name, rng)


def start_pose(truth: np.ndarray, target: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Start with an mTRE of 0 to 20 mm and up to 10 degrees."""
    return perturbed_start(truth, apply(truth, target), rng, mtre_mm=float(rng.uniform(0, 20)), points_lps_mm=points, max_rotation_deg=10.0)


def measured(result: object, truth: np.ndarray, target: np.ndarray, distortion: object) -> dict:
    """What is reported of one registration; ``target`` (3,) is a point of the MR, its true place is where the MR was distorted from."""
    true = apply(truth, np.array(distortion.TransformPoint(target.tolist())))
    found = apply(result.pose, target)
    rays = [(true - v.source_mm) / np.linalg.norm(true - v.source_mm) for v in result.views]
    across = [float(np.linalg.norm(np.cross(found - v.source_mm, ray))) for v, ray in zip(result.views, rays, strict=True)]
    error = result.target_error({"target": target})[0]
    return {
        "mrpd_mm": float(np.mean(across)), "target_error_mm": float(np.linalg.norm(found - true)), "predicted_error_mm": error.predicted_error_mm,
        "verdict": result.verdict, "similarity": min(result.similarity), "seconds": result.seconds, "reasons": list(result.reasons),
    }
