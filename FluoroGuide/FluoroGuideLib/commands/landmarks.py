"""Start of a registration from landmarks that were marked in the volume and in the X-rays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError

_FORM = 'Write [{"name": "...", "position_lps_mm": [x, y, z], "pixel": [column, row], "view": 1}], views counted from 1'


def read_landmarks(path: str | Path, views: int) -> list:
    """Landmark pairs of a JSON file: a list of ``{"name", "position_lps_mm", "pixel", "view"}``; the first view is 1 and may be left out.

    Raises
    ------
    FluoroGuideError
        Missing file, no such list, or a view that is not there.
    """
    from ..planning.jsonfile import read_json
    from ..registration.landmarks import LandmarkPair

    data = read_json(path, "landmarks file")
    if not isinstance(data, list) or not data:
        raise FluoroGuideError("The landmarks file is not a list of landmarks", Path(path).name, _FORM)
    pairs = []
    for number, entry in enumerate(data, 1):
        try:
            position, pixel = (np.array(entry[key], float) for key in ("position_lps_mm", "pixel"))
            name, view = str(entry.get("name", f"landmark {number}")), entry.get("view", 1)
        except (TypeError, KeyError, ValueError, AttributeError):
            raise FluoroGuideError(f"Landmark {number} of the landmarks file cannot be read", Path(path).name, _FORM) from None
        if position.shape != (3,) or pixel.shape != (2,):
            raise FluoroGuideError(f"Landmark {number} needs three coordinates and two of its pixel", Path(path).name, _FORM)
        if isinstance(view, bool) or not isinstance(view, int) or not 1 <= view <= views:
            raise FluoroGuideError(f"Landmark {name} is in a view that was not given", view, f"Count the X-rays from 1 to {views}")
        pairs.append(LandmarkPair(name, position, pixel, view - 1))
    return pairs


def start_from(path: str | Path, views: list) -> tuple[np.ndarray, dict, list[str]]:
    """Pose (4x4), its facts for ``result.json``, and lines for people: every pair's distance and the warnings."""
    from ..registration.landmarks import register_landmarks

    found = register_landmarks(views, read_landmarks(path, len(views)))
    lines = [f"Landmarks: {found.rms_px:.1f} pixels off (root mean square)"]
    for error in found.errors:
        left_out = ", left out" if error.outlier else ""
        lines.append(f"  - {error.name}, view {error.view + 1}: {error.error_px:.1f} pixels, {error.error_mm:.1f} mm{left_out}")
    facts = {
        "rms_px": found.rms_px, "warnings": list(found.warnings), "pose_matrix": found.pose.tolist(),
        "errors": [{"name": e.name, "view": e.view + 1, "px": e.error_px, "mm": e.error_mm, "left_out": e.outlier} for e in found.errors],
    }
    return found.pose, facts, [*lines, *(f"  - {w}" for w in found.warnings)]
