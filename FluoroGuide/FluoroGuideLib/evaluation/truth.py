"""Gold standards: a folder with X-rays and a ``truth.json`` that says where the volume really was."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.rigid import check_rigid
from ..planning.jsonfile import read_json, take

MOST_VIEWS = 26


@dataclass(frozen=True, eq=False)
class GoldStandard:
    """What ``truth.json`` tells.

    Attributes
    ----------
    pose
        4x4, volume LPS -> isocentre LPS, mm.
    xrays
        Files of the views, inside the case's folder.
    geometries
        C-arm card per view, or None where the file has its own geometry.
    simulated
        What the file says of itself; False where it says nothing.
    """

    pose: np.ndarray
    xrays: tuple[Path, ...]
    geometries: tuple[Path | None, ...]
    simulated: bool = False


def read_truth(path: str | Path) -> GoldStandard:
    """Read ``truth.json`` (or the folder that holds it), as ``fluoroguide simulate`` writes it or by hand for real X-rays.

    Needed: ``pose_matrix`` (4x4, volume LPS mm to isocentre LPS mm) and ``views`` with ``file`` (and ``geometry`` where
    the file has none), names of files in the same folder.

    Raises
    ------
    FluoroGuideError
        Missing, no JSON, a pose that is not rigid, no views, or a view outside the folder.
    """
    path = Path(path)
    path = path / "truth.json" if path.is_dir() else path
    data = read_json(path, "gold standard")
    pose = _matrix(take(data, "pose_matrix", "gold standard"))
    views = take(data, "views", "gold standard")
    if not isinstance(views, list) or not 1 <= len(views) <= MOST_VIEWS:
        raise FluoroGuideError("The gold standard has no list of views", type(views).__name__, f"Name 1 to {MOST_VIEWS} views")
    xrays = tuple(_beside(path, take(view, "file", "gold standard's view")) for view in views)
    cards = tuple(_beside(path, view["geometry"]) if view.get("geometry") is not None else None for view in views)
    return GoldStandard(pose, xrays, cards, data.get("simulated") is True)


def _matrix(value: object) -> np.ndarray:
    rows = value if isinstance(value, list) else []
    good = len(rows) == 4 and all(isinstance(r, list) and len(r) == 4 for r in rows)
    if not good or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and _finite(v) for r in rows for v in r):
        raise FluoroGuideError("The gold standard's pose_matrix is not 4x4 finite numbers", None, "Write four rows of four numbers")
    return check_rigid(np.array(rows, float), "gold standard's pose")


def _finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _beside(truth: Path, name: object) -> Path:
    """A file in the same folder: a truth file from elsewhere must not make this program read other files."""
    plain = isinstance(name, str) and 0 < len(name) <= 200 and "\x00" not in name and name != ".."
    if not plain or {PurePosixPath(name).name, PureWindowsPath(name).name} != {name}:
        raise FluoroGuideError("A view of the gold standard is not the name of a file beside it", repr(name)[:80], "Give a name without folders")
    path = truth.parent / name
    if not path.is_file():
        raise FluoroGuideError("An X-ray of the gold standard does not exist", name, "Put it beside truth.json")
    return path
