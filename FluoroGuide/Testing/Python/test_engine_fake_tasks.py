"""Tasks for the engine's tests; imported by the worker process, holds no tests itself."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import numpy as np

from FluoroGuideLib.errors import CancelledError, FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.registration.result import Registration


def make_registration(volume_sum: float, images: list, initial: np.ndarray | None) -> Registration:
    """A registration made of its inputs by plain arithmetic, the same in any process."""
    rng = np.random.default_rng(7)
    pose = np.eye(4) if initial is None else initial.copy()
    pose[:3, 3] += np.array([1 / 3, np.pi, 1e-17]) * len(images)
    root = rng.normal(size=(6, 6))
    views = tuple(i.view for i in images)
    history = ({"level": 0, "cost": np.float64(volume_sum), "size": (3, 4)}, {"level": 1, "cost": float("nan")})
    return Registration(
        pose, "warn", ("in-plane only",), tuple(float(i.pixels.sum(dtype=float)) for i in images), root @ root.T, rng.normal(size=3), views, history,
        0.125, 42, {"parts": {3: "L1"}, "residuals": rng.normal(size=(64, 64)).astype(np.float32)},
    )


def register(*, volume, images, initial, targets, options, progress, cancelled):
    """Computes from its inputs, in twenty reported steps."""
    import SimpleITK as sitk

    for step in range(20):
        if cancelled():
            raise CancelledError()
        progress(step / 20, f"step {step}")
        time.sleep((options or {}).get("pause", 0.0))
    return make_registration(float(sitk.GetArrayViewFromImage(volume.image).sum(dtype=float)), images, initial)


def echo(*, value, progress, cancelled):
    return value


def volume_facts(*, volume, progress, cancelled):
    return [os.getpid(), volume.name, list(volume.image.GetSize()), dict(volume.part_names)]


def nap(*, seconds, progress, cancelled):
    """Sleeps, and notices a cancel within 10 ms."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if cancelled():
            raise CancelledError()
        time.sleep(0.01)
    return "rested"


def stubborn(*, progress, cancelled):
    """Ignores a cancel."""
    progress(0.5, "deaf from now on")
    while True:
        time.sleep(0.05)


def hold_interpreter(*, seconds, progress, cancelled):
    """Blocks all Python threads of the process, as a C function that hangs does; before that it says so."""
    progress(0.5, "holds the interpreter")
    time.sleep(0.05)  # a thread sends it
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def crash(*, code, progress, cancelled):
    os._exit(code)


def segfault(*, progress, cancelled):
    ctypes.string_at(1)


def chatter(*, progress, cancelled):
    """Prints to every stdout there is, more than a pipe holds."""
    for _ in range(2000):
        print("noise that must not reach the protocol " * 3)
    os.write(1, b"\x93FGENG\r\n" * 50)
    sys.__stdout__.write("more\n")
    sys.__stdout__.flush()
    return "said"


def many_steps(*, progress, cancelled):
    for step in range(20000):
        progress(step / 20000, "x" * 200)
    return "counted"


def bad_input(*, progress, cancelled):
    raise FluoroGuideError("The X-ray has no pixel spacing", 0.5, "Enter it in the C-arm card")


def surprise(*, progress, cancelled):
    secret = {"DOE^JANE": 1}
    return secret["MEIER^HANS"] + np.zeros(3)[7]


def unsendable(*, progress, cancelled):
    return object()


def environment(*, progress, cancelled):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "PYTHONSTARTUP", "PYTHONINSPECT")
    return {n: os.environ.get(n, "") for n in names} | {"path0": sys.path[0], "stdin": sys.stdin.read()}


def grandchild(*, seconds, progress, cancelled):
    """Leaves a process behind that must not keep the pipes open."""
    import subprocess

    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    os._exit(5)


def warm_up(*, progress, cancelled):
    return 0.0


def a_view() -> CArmView:
    """A view with numbers that are no round decimals."""
    return CArmView.from_angles(31.7, -12.3, sid_mm=1187.3, sod_mm=765.1, rows=48, columns=64, pixel_spacing_mm=(0.31, 0.29))


def label_facts(*, labels, progress, cancelled):
    import SimpleITK as sitk

    return [type(labels).__name__, dict(labels.names), np.unique(sitk.GetArrayFromImage(labels.image)).tolist(), list(labels.image.GetOrigin())]


def mean(*, volume, progress, cancelled):
    """Mean attenuation, and whether it was the same object as the last time."""
    import SimpleITK as sitk

    before = _seen[-1:] == [volume]
    _seen.append(volume)
    return [float(sitk.GetArrayViewFromImage(volume.image).mean()), before, list(volume.image.GetDirection())]


_seen: list = []
TASKS = {f.__name__: f for f in (
    register, echo, volume_facts, nap, stubborn, hold_interpreter, crash, segfault, chatter, many_steps, bad_input, surprise, unsendable, environment,
    grandchild, warm_up, label_facts, mean,
)}
