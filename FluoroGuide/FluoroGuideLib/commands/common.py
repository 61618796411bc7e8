"""What several commands share: reading arguments and files, showing progress, writing results."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..planning.jsonfile import plain

LETTERS = "ABCDEFGH"
"""Names of the views, in the order of ``--xray``."""


def numbers(text: str, count: int, what: str) -> np.ndarray:
    """``"x,y,z"`` as ``count`` finite numbers.

    Raises
    ------
    FluoroGuideError
        Wrong count or not numbers.
    """
    try:
        values = np.array([float(v) for v in text.split(",")])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise FluoroGuideError(f"{what} is not {count} numbers separated by commas", text, f"Write for example {','.join('0' * count)}")
    return values


def add_output(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """``--output`` and ``--json``."""
    parser.add_argument("--output", type=Path, required=required, metavar="DIR", help="folder for the results (made when missing)")
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")


def output_folder(path: Path) -> Path:
    """The folder, made when missing."""
    if path.exists() and not path.is_dir():
        raise FluoroGuideError("The output is a file, not a folder", path, "Choose another folder with --output")
    path.mkdir(parents=True, exist_ok=True)
    return path


def show(arguments: argparse.Namespace, data: dict, text: str) -> None:
    """Print the result object (``--json``) or its text."""
    print(json.dumps(plain(data)) if arguments.json else text)


class Bar:
    """A progress bar on standard error; nothing where that is no terminal."""

    def __init__(self, width: int = 30) -> None:
        self.width, self.live = width, sys.stderr.isatty()

    def __call__(self, fraction: float, text: str) -> None:
        if self.live:
            full = round(self.width * min(max(fraction, 0), 1))
            end = "\n" if fraction >= 1 else ""
            print(f"\r[{'#' * full}{'.' * (self.width - full)}] {text:<40}", end=end, file=sys.stderr, flush=True)


def read_pose(path: Path | None) -> np.ndarray | None:
    """Pose (4x4) of a ``.tfm`` file (volume to isocentre), or None."""
    from ..geometry.rigid import read_tfm

    return None if path is None else read_tfm(path)


def read_attenuation(path: str, modality: str | None = None) -> object:
    """A CT or MR (file or DICOM folder) as :class:`AttenuationVolume`; the modality is recognised unless given (``"ct"``, ``"mr"``)."""
    from ..anatomy.attenuation import attenuation_from_hu, read_volume
    from ..anatomy.mr import attenuation_of_series
    from ..anatomy.mr_series import read_facts, read_mr, recognise

    tagged = modality or read_facts(path).get("modality")
    image = None if tagged else read_volume(path)
    found, note = (modality.upper(), "") if modality else recognise(path, image)
    if found != "MR":
        return attenuation_from_hu(read_volume(path) if image is None else image, name=Path(path).name)
    return attenuation_of_series(read_mr(path, check_modality=modality is None), Path(path).name, note)


def read_xrays(paths: list[str], geometries: list[str] | None, frame: int = 0) -> list:
    """X-ray images; one geometry file for all, or one for each."""
    from ..imaging.sources import read_xray

    geometries = geometries or []
    if len(geometries) not in (0, 1, len(paths)):
        raise FluoroGuideError(
            "The number of --geometry files fits neither one for all nor one for each X-ray", f"{len(geometries)} for {len(paths)}",
        )
    cards = geometries * len(paths) if len(geometries) == 1 else geometries or [None] * len(paths)
    return [read_xray(path, card, frame) for path, card in zip(paths, cards, strict=True)]


def add_xrays(parser: argparse.ArgumentParser) -> None:
    """``--xray``, ``--geometry``, ``--frame``."""
    parser.add_argument("--xray", action="append", required=True, metavar="FILE", help="DICOM XA/RF or picture; once per view")
    parser.add_argument("--geometry", action="append", metavar="JSON", help="C-arm card for X-rays without usable tags; one for all or one per X-ray")
    parser.add_argument("--frame", type=int, default=0, help="frame of a run, from 0")
