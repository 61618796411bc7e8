"""The module's workflow through its widget, on the stand-ins: register, cancel, go back, guide, record; phantom and thorax CT.

Seed 0 is the phantom of the sample data.  Others are lumbar vertebrae of the thorax CT with X-rays that are its own projections
with noise: this proof is about the module, not about the registration's accuracy, which has proofs of its own.
Times are CPU of the main thread, between two looks at the window's events and per clicked button.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Host"))

SEEDS = (0, *range(1000, 1003))
SLICE = (0,)
VIEWS_DEG = ((-8.0, 3.0), (80.0, -2.0))


def thorax_case(seed: int) -> object:
    """A sample case on the thorax CT: target in the body of L1, needle from behind, the patient a little off."""
    import SimpleITK as sitk

    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
    from FluoroGuideLib.evaluation.sample import thorax_ct
    from FluoroGuideLib.geometry.carm import CArmView
    from FluoroGuideLib.geometry.frames import lps_from_ijk
    from FluoroGuideLib.geometry.rigid import motion
    from FluoroGuideLib.imaging.xray import XrayImage
    from FluoroGuideLib.registration.volume import MovingVolume
    from FluoroGuideLib.scene.sample_case import SampleCase

    rng = np.random.default_rng(seed)
    ct, labels, names = thorax_ct()
    value = next(v for v, name in names.items() if name == "vertebrae_L1")
    k, j, i = (a.mean() for a in np.nonzero(sitk.GetArrayViewFromImage(labels) == value))
    matrix = lps_from_ijk(labels)
    target = matrix[:3, :3] @ (i, j, k) + matrix[:3, 3] + (0.0, -12.0, 0.0)  # from the middle of the vertebra into its body
    axis = np.array([-0.35, -0.85, 0.4])  # out of the plane through both sources: else its direction could not be told
    axis /= np.linalg.norm(axis)
    centered = np.eye(4)
    centered[:3, 3] = -target
    pose = motion(np.r_[np.radians(rng.uniform(-4, 4, 3)), rng.uniform(-8, 8, 3)], np.zeros(3)) @ centered
    projector, images = MovingVolume(attenuation_from_hu(ct, name="thorax")).projector(1.0), []
    for n, (primary, secondary) in enumerate(VIEWS_DEG):
        view = CArmView.from_angles(primary, secondary, sid_mm=1100, sod_mm=720, rows=320, columns=320, pixel_spacing_mm=(0.9, 0.9))
        pixels = projector.project(view, pose) + np.random.default_rng([seed, n]).normal(0, 0.02, (320, 320))
        images.append(XrayImage(pixels.astype(np.float32), np.ones(pixels.shape, bool), view, "thorax CT", facts={"modality": "simulated"}))
    tip = target + (1.0, 1.2, -1.5)
    return SampleCase(ct, tuple(images), target - 70 * axis, target, tip, tip - 90 * axis, pose)


def case(seed: int) -> dict:
    """The whole workflow once; plain numbers."""
    os.environ["FLUOROGUIDE_DATA"] = tempfile.mkdtemp(prefix="fluoroguide-proof-")
    import module_case
    import qt
    import slicer_app
    from FluoroGuideLib.scene import host as host_module
    from FluoroGuideLib.scene import sample_case
    from FluoroGuideLib.ui.workflow_steps import Workflow

    host = host_module.start()
    host.scene.Clear(0)
    _app, _messages, undo = slicer_app.install(host.scene, main_window=False, app_logic=host.app_logic)
    module = slicer_app.load_module(module_case.MODULE_FILE)[0]
    widget = slicer_app.make_widget(module, "FluoroGuide")
    slicer_app.enter(widget)
    steps_ms: list[float] = []
    clicks_ms: dict[str, float] = {}

    def process() -> None:
        began = time.thread_time()  # this thread alone: what keeps the window from answering
        qt.application.processEvents()
        steps_ms.append(1000 * (time.thread_time() - began))

    try:
        if seed:
            made = thorax_case(seed)
            sample_case.make_sample_case = lambda: made
        loaded = widget.logic.loadSampleCase()
        steps = Workflow(widget, loaded, tempfile.mkdtemp(), process)
        click = steps.click

        def timed(name: str) -> None:
            began = time.thread_time()
            click(name)
            clicks_ms[name] = max(1000 * (time.thread_time() - began), clicks_ms.get(name, 0.0))

        steps.click = timed
        steps.run()
        registration = widget.logic.session.registrar.registration
        result = {
            "seed": seed, "verdict": registration.verdict, "error_mm": steps.error_mm(), "part": str(registration.facts.get("part", "")),
            "seconds": registration.seconds, "longest_step_ms": max(steps_ms), "clicks_ms": {name: round(ms, 1) for name, ms in clicks_ms.items()},
        }
    finally:
        slicer_app.leave(widget)
        widget.cleanup()
        undo()
    return {**result, "timers_left": len(qt.active_timers()), "slot_errors": len(qt.slot_errors)}


def summarize(results: list[dict]) -> dict:
    """What may be quoted."""
    return {
        "cases": len(results), "worst_error_mm": max(r["error_mm"] for r in results), "longest_step_ms": max(r["longest_step_ms"] for r in results),
        "longest_click_ms": max(max(r["clicks_ms"].values()) for r in results),
        "clicks_over_100_ms": sorted({name for r in results for name, ms in r["clicks_ms"].items() if ms > 100}),
        "timers_left": sum(r["timers_left"] for r in results), "slot_errors": sum(r["slot_errors"] for r in results),
    }
