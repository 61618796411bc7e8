"""Bone labels of the pelvis test CT (Visible Human, female): sacrum, hips, L5, femora.

Made by :func:`..anatomy.parts.pelvis_parts` (threshold, distance, watershed along the bone) with a few seeds placed by eye in three
planes, because some joints of this specimen are bridged by osteophytes.  Preparation of one test CT, nothing for patients.
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

from ..anatomy import parts
from .sample import cache_folder

NAMES = parts.PELVIS_LABELS
SEEDS_LPS_MM = {
    "vertebrae_L5": [(230, 305, 1005), (262, 305, 1005), (230, 301, 1000), (265, 301, 1000)],
    "sacrum": [(222, 293, 1005), (272, 297, 1005), (220, 291, 1000), (275, 293, 1000), (264, 310, 987), (232, 310, 987), (208, 288, 960)],
    "hip_right": [(150, 268, 905), (160, 221, 905)],
    "hip_left": [(345, 268, 905), (338, 221, 905)],
}
"""Name -> points (N, 3), LPS mm of the file ``vhf_pelvis_1mm.nii.gz``, that surely belong to the bone."""


def pelvis_labels(ct: object, folder: Path | None = None) -> object:
    """Label image (SimpleITK uint8, the CT's grid; :data:`NAMES`) of the pelvis test CT.

    The first call takes about 20 s of one processor; the result is kept in ``folder`` (the cache when not given) under a name that
    changes with the method.

    Raises
    ------
    FluoroGuideError
        Another CT than the one the seeds were placed in (a seed is not on bone).
    """
    import SimpleITK as sitk

    key = hashlib.sha256((inspect.getsource(parts) + repr(SEEDS_LPS_MM)).encode()).hexdigest()[:16]
    kept = (folder or cache_folder()) / f"pelvis_labels_{key}.nrrd"
    if kept.is_file():
        return sitk.ReadImage(str(kept))
    labels = parts.pelvis_parts(ct, SEEDS_LPS_MM).labels
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_name(f"unfinished_{kept.name}")
    sitk.WriteImage(labels, str(unfinished), True)
    unfinished.replace(kept)
    return labels
