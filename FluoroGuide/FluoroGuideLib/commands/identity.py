"""Whether the files of one command belong to one patient, one volume and one side; a mismatch stops it unless confirmed."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common


def add_confirmation(parser: argparse.ArgumentParser) -> None:
    """``--confirm-identity``, ``--confirmed-by``."""
    parser.add_argument(
        "--confirm-identity", metavar="REASON", help="go on although patient, volume or side differ; the reason goes into the result",
    )
    parser.add_argument("--confirmed-by", default="", metavar="NAME", help="who confirms it")


def stamp_of(path: str | Path, image: object) -> object:
    """:class:`~..imaging.identity.VolumeStamp` of a volume: its series UID where it is DICOM, and the hash of its voxels."""
    from ..imaging.identity import VolumeStamp, series_uid, volume_hash

    return VolumeStamp(series_uid(path), volume_hash(image))


def check_case(
    arguments: argparse.Namespace, volume_path: str | Path | None, xray_paths: list[str], plan: object, reports: list[str] = (),
) -> object:
    """The :class:`~..imaging.identity.IdentityCheck` of a command's files.

    Parameters
    ----------
    volume_path
        Read (and hashed) only when the plan says which volume it was made on.
    plan
        :class:`~..planning.plan.Plan` or ``None``.

    Raises
    ------
    FluoroGuideError
        Something does not fit together and no reason was given.
    """
    from ..anatomy.attenuation import read_volume
    from ..imaging.identity import VolumeStamp, compare, read_identity

    identities = [] if volume_path is None else [read_identity(volume_path, "volume")]
    identities += [read_identity(p, f"X-ray {letter}") for p, letter in zip(xray_paths, common.LETTERS, strict=False)]
    identities += [read_identity(p, "dose report") for p in reports]
    plan_stamp = None if plan is None else VolumeStamp.from_plan(plan.extra)
    volume_stamp = None if plan_stamp is None or volume_path is None else stamp_of(volume_path, read_volume(volume_path))
    side = None if plan is None else plan.laterality
    check = compare(identities, planned_side=side, plan_stamp=plan_stamp, volume_stamp=volume_stamp)
    if check.blocked and arguments.confirm_identity is not None:
        check = check.confirmed(arguments.confirm_identity, arguments.confirmed_by)
    if check.blocked:
        from ..errors import FluoroGuideError

        told = " ".join(f.sentence for f in check.blocking).rstrip(".")
        raise FluoroGuideError(told, None, "Check the files, or confirm with --confirm-identity \"the reason\"")
    return check


def lines(check: object) -> list[str]:
    """What a person should read: everything that is not plainly in order."""
    found = [f"Identity: {f.sentence}" for f in check.findings if f.level == "block"]
    found += [f"Identity confirmed: {c.reason}" for c in check.confirmations]
    silent = [f.item for f in check.findings if f.level == "warn" and "could not be compared" in f.sentence]
    found += [f"Identity: {f.sentence}" for f in check.findings if f.level == "warn" and f.item not in silent]
    if silent:
        found.append(f"Identity: {', '.join(silent)} could not be compared; check the patient yourself.")
    return found
