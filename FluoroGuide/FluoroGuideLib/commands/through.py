"""``fluoroguide register --through``: planned on MR, registered to the CBCT of the room, and through it to fluoroscopy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from . import common


@dataclass(frozen=True, eq=False)
class Through:
    """The CBCT's attenuation and its pose (for the overlays' edges), the MR's registration, and what ``result.json`` says of it."""

    volume: object
    pose: np.ndarray
    registration: object
    match: object
    facts: dict


def register_through(
    arguments: argparse.Namespace, images: list, initial: np.ndarray | None, points: dict | None, options: object, output: object,
) -> Through:
    """Register the MR of ``--volume`` to the CBCT of ``--through`` and that to the X-rays; ``volume_to_volume.tfm`` and ``checkerboard.png``.

    Raises
    ------
    FluoroGuideError
        Options that do not go together, a volume that is not MR, or volumes that do not overlap.
    """
    import SimpleITK as sitk

    from ..anatomy.attenuation import attenuation_from_hu, read_volume
    from ..anatomy.mr_series import read_mr, recognise
    from ..geometry.frames import center_lps_mm
    from ..geometry.rigid import inverse, write_tfm
    from ..registration.register import register
    from ..registration.through_cbct import carried, checkerboard, register_volumes

    if arguments.bones or arguments.levels:
        raise FluoroGuideError("--through and --bones exclude each other", None, "The bone at the targets is found in the CBCT by itself")
    if arguments.modality != "mr" and recognise(arguments.volume)[0] != "MR":
        raise FluoroGuideError("--through is for MR, and the volume is not MR", None, "Register the CT itself, or say --modality mr")
    series, hu = read_mr(arguments.volume, check_modality=arguments.modality is None), read_volume(arguments.through)
    match = register_volumes(series.image, hu, points)
    carried_points = {name: match.points(np.asarray(p, float)) for name, p in (points or {}).items()} or None
    volume = attenuation_from_hu(hu, "CBCT", "CBCT")
    found = register(
        volume, images, None if initial is None else initial @ inverse(match.matrix), targets=carried_points, options=options,
        progress=common.Bar(), part="auto" if points and arguments.part != "whole" else None,
    )
    middle = np.mean(list(points.values()), axis=0) if points else center_lps_mm(series.image)
    write_tfm(output / "volume_to_volume.tfm", match.matrix)
    sitk.WriteImage(sitk.GetImageFromArray(checkerboard(series.image, hu, match, middle)), str(output / "checkerboard.png"))
    facts = {"mr_contrast": series.contrast, "mr_caveats": list(series.caveats), "checkerboard": "checkerboard.png"}
    return Through(volume, found.pose, carried(found, match), match, facts)
