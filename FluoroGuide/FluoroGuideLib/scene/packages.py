"""Optional Python packages inside Slicer: asked for where they are first used, never at import."""

from __future__ import annotations

import importlib.util
import logging

NUMBA = "numba>=0.61,<0.70"
_asked: set[str] = set()


def offer_numba() -> bool:
    """Ask once per session to install numba, which makes projections about ten times faster; True where it is installed.

    Declining is fine: registration then runs on its numpy kernels.  Outside the application, and where this Slicer has
    no ``slicer.packaging`` (before 5.11), nothing is asked.
    """
    if importlib.util.find_spec("numba") is not None:
        return True
    if NUMBA in _asked:
        return False
    _asked.add(NUMBA)
    try:
        from slicer.packaging import pip_ensure
    except ImportError:
        return False
    try:
        pip_ensure([NUMBA], requester="FluoroGuide")
    except Exception as error:  # declined (RuntimeError) or pip failed: the slow kernels do the same
        logging.info("FluoroGuide goes on without numba: %s", type(error).__name__)
    return importlib.util.find_spec("numba") is not None
