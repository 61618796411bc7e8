"""What the tests of the engine share: an engine with the fake tasks, waiting, and its traces on disk."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.engine.client import EngineClient
from FluoroGuideLib.engine.exchange import Exchange, storage_roots

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parents[1]
sys.path.insert(0, str(HERE))

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
ENVIRONMENT = {"PYTHONPATH": str(HERE)}


def make(**options):
    return EngineClient(**{"tasks": "test_engine_fake_tasks", "environment": ENVIRONMENT} | options)


def small_volume():
    sitk = pytest.importorskip("SimpleITK")
    from FluoroGuideLib.anatomy.attenuation import AttenuationVolume

    image = sitk.GetImageFromArray(np.random.default_rng(0).random((20, 30, 40), np.float32))
    image.SetSpacing((0.7, 0.8, 1.1))
    return AttenuationVolume(image, "CT", "pelvis.nrrd", None, {3: "L1"})


def until(engine, condition, seconds=20.0):
    """Poll until a condition holds; what is waited for decides, not a fixed sleep."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        engine.poll()
        time.sleep(0.002)


def gone(pid, seconds=10.0):
    """True when the process has ended within the time (a zombie has ended)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


_made: list[Path] = []


def _noted(cls: type, create: Callable = Exchange.create.__func__) -> Exchange:
    exchange = create(cls)
    _made.extend(exchange.folders)
    return exchange


Exchange.create = classmethod(_noted)  # other test processes make such folders at the same time: only this one's count


def folders():
    """The exchange folders on disk that engines of this process made (a test's folder of dead ones is none of them)."""
    roots = storage_roots()
    return {folder for folder in _made if folder.parent in roots and folder.exists()}


def same(a, b):
    """Equal to the last bit, types included."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)
