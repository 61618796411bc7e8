"""Proof of memory and of stopping: the peak of a process that registers a 512 x 512 x 400 CT to two X-rays, and what each step adds; and how
long ``Execute`` takes to return after a stop at some moment of set-up or registration of the same CT.

Every case runs in a process of its own, because the peak (resident set) never falls.  The CT is made up (a body with dense balls);
nothing here depends on what it shows.  Design seeds take half the size along each axis, for CI.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

SEEDS = range(1000, 1001)
SLICE = range(1)
BAR_MB = 1500
STOP_AFTER_S, STOP_BAR_MS = (0.02, 0.3, 1.0, 2.5, 5.0, 8.0), 200
LIBRARY = Path(__file__).resolve().parents[2]


def peak_mb() -> float:
    """Peak resident set of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def made_up_ct(size: tuple[int, int, int], seed: int) -> object:
    """int16 HU, (columns, rows, slices): an elliptic body with 60 dense balls, 410 x 410 x 400 mm."""
    import SimpleITK as sitk

    rng, (columns, rows, slices) = np.random.default_rng(seed), size
    hu = np.full((slices, rows, columns), -1000, np.int16)
    y, x = np.ogrid[:rows, :columns]
    hu[:, ((x / columns - 0.5) / 0.47) ** 2 + ((y / rows - 0.5) / 0.33) ** 2 < 1] = 40
    for _ in range(60):
        r = int(rng.integers(5, 16) * slices / 400)
        k, j, i = (int(rng.uniform(low, high) * n) for (low, high), n in zip(((0.1, 0.9), (0.3, 0.7), (0.2, 0.8)), hu.shape, strict=True))
        ball = np.add.outer(np.add.outer(np.arange(-r, r) ** 2, np.arange(-r, r) ** 2), np.arange(-r, r) ** 2) < r * r
        hu[k - r : k + r, j - r : j + r, i - r : i + r][ball] = 700
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((410 / columns, 410 / rows, 400 / slices))
    return image


def measure(size: tuple[int, int, int], seed: int) -> dict:
    """Peak in MB after each step, in this process."""
    import SimpleITK as sitk

    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
    from FluoroGuideLib.geometry import rigid
    from FluoroGuideLib.geometry.carm import CArmView
    from FluoroGuideLib.geometry.frames import center_lps_mm
    from FluoroGuideLib.imaging.xray import XrayImage
    from FluoroGuideLib.registration.register import Options, register, warm_up
    from FluoroGuideLib.registration.volume import MovingVolume

    warm_up()
    peaks = {"libraries": peak_mb()}
    ct = made_up_ct(size, seed)
    peaks["ct"] = peak_mb()
    column, row, k = (n // 2 for n in ct.GetSize())
    dense = np.argwhere(sitk.GetArrayViewFromImage(ct)[k] > 600)
    j, i = dense[np.argmin(np.linalg.norm(dense - (row, column), axis=1))]
    target = np.array(ct.TransformIndexToPhysicalPoint((int(i), int(j), k)))
    volume = attenuation_from_hu(ct)
    del ct  # as the command line does
    peaks["attenuation"] = peak_mb()
    moving, truth = MovingVolume(volume), np.eye(4)
    truth[:3, 3] = -center_lps_mm(volume.image)
    for level in Options().levels:
        moving.projector(level.pixel_mm)
    moving.beyond()
    peaks["pyramid"] = peak_mb()
    images = []
    for angle in (0, 90):
        view = CArmView.from_angles(angle, 0, sid_mm=1050, sod_mm=700, rows=512, columns=512, pixel_spacing_mm=(0.6, 0.6))
        images.append(XrayImage(moving.projector(1.5).project(view, truth), np.ones((512, 512), bool), view, "made up"))
    start = rigid.perturb(truth, [0.05, 0.03, 0, 8, 5, -6], np.zeros(3))
    result = register(moving, images, start)
    peaks["registration"] = peak_mb()
    register(moving, images, start, targets={"ball": target})
    peaks["with the bone at a target"] = peak_mb()
    off = float(np.linalg.norm(result.pose[:3, 3] - truth[:3, 3]))
    return {"size": list(size), "peaks_mb": {k: round(v) for k, v in peaks.items()}, "peak_mb": round(peak_mb()), "pose_error_mm": round(off, 3)}


def measure_stops(size: tuple[int, int, int], seed: int) -> dict:
    """Milliseconds from ``StopRegistration`` to the return of ``Execute``, for each moment, from the image in HU on."""
    import threading
    import time

    from FluoroGuideLib.errors import CancelledError
    from FluoroGuideLib.geometry.carm import CArmView
    from FluoroGuideLib.imaging.xray import XrayImage
    from FluoroGuideLib.registration.method import ImageRegistrationMethod2D3D
    from FluoroGuideLib.registration.register import warm_up

    warm_up()
    ct, noise, images, took = made_up_ct(size, seed), np.random.default_rng(seed), [], {}
    for angle in (0, 90):
        view = CArmView.from_angles(angle, 0, sid_mm=1050, sod_mm=700, rows=512, columns=512, pixel_spacing_mm=(0.6, 0.6))
        images.append(XrayImage(noise.normal(size=(512, 512)).astype(np.float32), np.ones((512, 512), bool), view, "made up"))
    for moment in STOP_AFTER_S:
        method, told = ImageRegistrationMethod2D3D(), []

        def stop(method: ImageRegistrationMethod2D3D = method, told: list = told) -> None:
            told.append(time.perf_counter())
            method.StopRegistration()

        timer = threading.Timer(moment, stop)
        timer.start()
        try:
            method.Execute(images, ct)
            took[f"{moment:g} s"] = None  # done before it was stopped
        except CancelledError:
            took[f"{moment:g} s"] = round(1000 * (time.perf_counter() - told[0]), 1)
        timer.cancel()
        for worker in [t for t in threading.enumerate() if t.name == "2D/3D registration"]:
            worker.join()  # it ends at its next check, unseen; the next moment is measured without it
    return {"stop_ms": took, "stop_worst_ms": max(t for t in took.values() if t is not None)}


def case(seed: int) -> dict:
    """Both measurements, each in a fresh process."""
    size = (512, 512, 400) if seed >= 1000 else (256, 256, 200)
    folders, found = [str(LIBRARY), str(Path(__file__).parent)], {}
    for name in ("measure", "measure_stops"):
        code = f"import sys, json; sys.path[:0] = {folders!r}; import memory; print(json.dumps(memory.{name}({size}, {seed})))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found |= json.loads(done.stdout.splitlines()[-1])
    return found


def summarize(results: list[dict]) -> dict:
    """The largest peak, the peaks after each step of that case, and the longest time to stop."""
    worst = max(results, key=lambda r: r["peak_mb"])
    stop = max(r["stop_worst_ms"] for r in results)
    return {"bar_mb": BAR_MB, "met": worst["peak_mb"] < BAR_MB, "stop_bar_ms": STOP_BAR_MS, "stop_met": stop <= STOP_BAR_MS, **worst}
