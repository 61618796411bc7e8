"""The panel on the Qt stand-ins: what a click costs the main thread, and how fast virtual fluoroscopy follows its sliders through the worker."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Host"))
PICTURES = 20
DRAG_STEPS = 60
BAR_MS = 100.0


def run(quick: bool = False) -> dict:
    """Main-thread CPU ms of entries and files, and the rate of virtual fluoroscopy."""
    import module_case
    import slicer_app
    from FluoroGuideLib.scene import host as host_module

    os.environ["FLUOROGUIDE_DATA"] = tempfile.mkdtemp(prefix="fluoroguide-bench-")
    host = host_module.start()
    host.scene.Clear(0)
    _app, _messages, undo = slicer_app.install(host.scene, main_window=False, app_logic=host.app_logic)
    widget = slicer_app.make_widget(slicer_app.load_module(module_case.MODULE_FILE)[0], "FluoroGuide")
    slicer_app.enter(widget)
    try:
        loaded = widget.logic.loadSampleCase()
        found = {"fluoroscopy": fluoroscopy(widget, 10 if quick else DRAG_STEPS)}
        found |= record(widget, loaded["xrays"][0], 3 if quick else PICTURES)
    finally:
        slicer_app.leave(widget)
        widget.cleanup()
        undo()
    return found


def fluoroscopy(widget: object, steps: int) -> dict:
    """Dragging the angle for some seconds: pictures a second, and main-thread CPU of the longest look at the window's events."""
    import qt

    panel, ui = widget.panel, widget.ui
    part, p = panel.plan.carm, panel.choices
    panel.mode.open("Plan")
    ui.fgCarmPart.collapsed = False
    panel.refresh()
    end = time.monotonic() + 60
    while (part._picture is None or widget.logic.session.engine.busy) and time.monotonic() < end:  # the first one prepares the volume
        qt.application.processEvents()
        time.sleep(0.005)
    shown, longest, last = 0, 0.0, part._picture
    began, until = time.perf_counter(), time.perf_counter() + steps / 10
    while time.perf_counter() < until:
        p.fluoroscopyPrimary = float(30 * np.sin(time.perf_counter() - began))
        before = time.thread_time()
        qt.application.processEvents()
        longest = max(longest, time.thread_time() - before)
        if part._picture is not last:
            shown, last = shown + 1, part._picture
        time.sleep(0.002)
    rows, columns = last[0].shape[:2]
    return {"per_second": shown / (time.perf_counter() - began), "longest_ms": 1000 * longest, "rows": rows, "columns": columns}


def record(widget: object, xray: object, pictures: int) -> dict:
    """Entries into a record without and with pictures, and what giving files to the worker costs."""
    recorder = widget.logic.session.recorder
    rng = np.random.default_rng(0)
    shape = widget.logic.session.xrays.image(xray).pixels.shape

    def entry() -> float:
        before = time.thread_time()
        recorder.change(lambda r: r.add_pain("before", 3), "biopsy")
        return 1000 * (time.thread_time() - before)

    empty = float(np.median([entry() for _ in range(5)]))
    kept = []
    for number in range(pictures):
        before = time.thread_time()
        recorder.capture(xray, 0, f"View {number}", pixels=rng.random(shape, np.float32))
        kept.append(1000 * (time.thread_time() - before))
    full = float(np.median([entry() for _ in range(5)]))
    jobs = {}
    for kind in ("report", "record", "all"):
        before = time.thread_time()
        folder = tempfile.mkdtemp()
        job = recorder.write_job(kind, folder if kind == "all" else f"{folder}/out.{'html' if kind == 'report' else 'json'}")
        jobs[kind] = 1000 * (time.thread_time() - before)
        widget.logic.session.engine.wait(job)
        jobs[f"{kind}_seconds"] = job.seconds
    return {"entry_ms": empty, "entry_with_pictures_ms": full, "pictures": pictures, "picture_px": list(shape), "keep_ms": float(np.median(kept)),
            "write": jobs}


def markdown(result: dict) -> str:
    """The section of ``Docs/benchmarks.md``."""
    seen, write = result["fluoroscopy"], result["write"]
    size = " x ".join(str(n) for n in result["picture_px"])
    rows = [
        ["an entry of the record, no picture kept", f"{result['entry_ms']:.0f}"],
        [f"an entry, {result['pictures']} pictures of {size} kept", f"{result['entry_with_pictures_ms']:.0f}"],
        [f"keeping a picture of {size}", f"{result['keep_ms']:.0f}"],
        ["asking for the report; the worker takes " + f"{write['report_seconds']:.1f} s", f"{write['report']:.0f}"],
        ["asking for all files; the worker takes " + f"{write['all_seconds']:.1f} s", f"{write['all']:.0f}"],
        ["longest step while the angle is dragged", f"{seen['longest_ms']:.0f}"],
    ]
    told = f"Virtual fluoroscopy of {seen['columns']} x {seen['rows']} pixels through the worker, while its angle is dragged: " \
           f"{seen['per_second']:.0f} pictures a second."
    return "\n\n".join(["## The panel", f"CPU ms of the main thread on the Qt stand-ins, phantom case; nothing may take more than {BAR_MS:.0f}.",
                        harness.table(["step", "ms"], rows), told])
