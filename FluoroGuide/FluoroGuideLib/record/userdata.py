"""Where FluoroGuide keeps what must outlive a crash: journals and the installation's secret, in the user's data folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import FluoroGuideError

VARIABLE = "FLUOROGUIDE_DATA"
"""Environment variable that names another folder."""


def user_folder() -> Path:
    """The user's FluoroGuide folder, by the rules of the platform; not made here."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "FluoroGuide"


def private_folder(path: Path) -> Path:
    """The folder, made when missing and then readable by its owner alone.

    Raises
    ------
    FluoroGuideError
        It cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FluoroGuideError("The user's data folder cannot be made", error.strerror, f"Choose another with the variable {VARIABLE}") from None
    return path


def journal_folder() -> Path:
    """Folder of the journals; not made here."""
    return user_folder() / "journals"
