"""A small case in the module's widget, and stand-ins for the engine and for the user's answers: for the ``test_module_*`` files."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

MODULE_FILE = Path(__file__).resolve().parents[2] / "FluoroGuide.py"
POSE = np.array([[0, -1, 0, 5.0], [1, 0, 0, -3.0], [0, 0, 1, 7.0], [0, 0, 0, 1]])  # asymmetric on purpose
ENTRY, TARGET = np.array([10.0, 60.0, 5.0]), np.array([-4.0, 8.0, 2.0])
TIP_OFFSET = np.array([0.0, 0.0, 2.0])


class FakeJob:
    def __init__(self):
        self.state, self.progress, self.text, self.result, self.error, self.log, self.seconds = "running", 0.0, "", None, None, "", 1.0

    @property
    def finished(self):
        return self.state != "running"


class FakeEngine:
    """Does what it is told, at once."""

    busy = False

    def __init__(self):
        self.jobs, self.closed, self.warm, self.prepared, self.runs, self.kept = [], False, 0, [], [], None

    def warm_up(self, volume=None):
        self.warm += volume is None
        self.prepared += [volume] if volume is not None else []

    def forget_volume(self, volume):
        pass

    def submit(self, volume, images, initial=None, *, targets=None, **more):
        self.arguments, self.more = (volume, images, initial, targets), more
        self.jobs.append(FakeJob())
        return self.jobs[-1]

    def run(self, task, **arguments):
        """Other tasks are done at once; a DRR shows a square."""
        job = FakeJob()
        self.runs.append((task, arguments))
        job.state = "done"
        if task.startswith(("plan_", "xray_", "record_")):
            self._really(job, task, arguments)
        if task == "drr":
            view = arguments["view"]
            picture = np.zeros((view.rows, view.columns), np.float32)
            picture[view.rows // 3 : -view.rows // 3, view.columns // 3 : -view.columns // 3] = 1.0
            job.result = {"view": view, "drr": picture, "edges": picture > 0}
        return job

    def _really(self, job, task, arguments):
        """Planning and reading are done by the worker's own functions, here at once."""
        from FluoroGuideLib.engine.tasks import TASKS
        from FluoroGuideLib.errors import FluoroGuideError

        ready = {k: self._ready(v) if hasattr(v, "ready") else v for k, v in arguments.items()}
        try:
            job.result = TASKS[task](**ready, progress=lambda *_: None, cancelled=lambda: False)
        except FluoroGuideError as error:
            job.error, job.state = error, "failed"

    def _ready(self, raw):
        if self.kept is None or self.kept[0] is not raw:
            self.kept = raw, raw.ready()
        return self.kept[1]

    def poll(self):
        return []

    def cancel(self, job):
        job.state = "cancelled"

    def wait(self, job, timeout=None):
        return job.result

    def close(self):
        self.closed = True


class Files:
    """Answers of the file dialogs."""

    def __init__(self):
        self.answer = ""

    def open_file(self, title, kinds):
        return str(self.answer)

    def save_file(self, title, name, kinds):
        return str(self.answer)

    def open_folder(self, title):
        return str(self.answer)

    def open_page(self, path):
        self.opened = path

    def confirm(self, question):
        return bool(self.answer)

    def ask_text(self, title, question):
        return str(self.answer)


def make(module):
    import slicer_app
    from FluoroGuideLib.engine import client

    engine, real = FakeEngine(), client.EngineClient
    client.EngineClient = lambda: engine  # set-up may need it already, in a scene that holds a case
    try:
        widget = slicer_app.make_widget(module[0], "FluoroGuide")
    finally:
        client.EngineClient = real
    widget.engine = engine
    widget.logic.session._make_engine = lambda: engine
    widget.panel.dialogs = Files()
    return widget


def views():
    from FluoroGuideLib.geometry.carm import CArmView

    return [CArmView.from_angles(a, 5, sid_mm=1000, sod_mm=700, rows=64, columns=80, pixel_spacing_mm=(2.0, 2.0)) for a in (0, 80)]


def fill(widget, xrays=2):
    """A small case chosen in the panel: volume, planned line, X-rays."""
    import SimpleITK as sitk
    import slicer

    from FluoroGuideLib.imaging.xray import XrayImage
    from FluoroGuideLib.scene.nodes import set_volume
    from FluoroGuideLib.scene.plan_nodes import set_markups

    scene, p = slicer.mrmlScene, widget._parameterNode
    image = sitk.GetImageFromArray(np.random.default_rng(1).integers(-900, 900, (6, 7, 8)).astype(np.int16))
    image.SetSpacing((20, 20, 20))
    image.SetOrigin((-70, -40, -50))
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    set_volume(volume, image)
    line = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L4 left")
    set_markups(line, np.array([ENTRY, TARGET]), ["entry", "target"], (1, 1, 1))
    rng = np.random.default_rng(0)
    images = [XrayImage(rng.random((64, 80)), np.ones((64, 80), bool), view) for view in views()[:xrays]]
    nodes = [widget.logic.session.xrays.add(image, i) for i, image in enumerate(images)]
    p.volume, p.planLine, p.xrayA = volume, line, nodes[0]
    if xrays > 1:
        p.xrayB = nodes[1]
    p.procedureName = "biopsy"
    widget.panel.refresh()
    return volume, line, nodes


def registration(verdict="pass", reasons=()):
    from FluoroGuideLib.registration.result import Registration

    return Registration(POSE, verdict, reasons, (0.9, 0.8), np.diag([1e-6] * 3 + [0.04] * 3), np.zeros(3), tuple(views()), seconds=1.0)


def settle(seconds=20.0):
    """Let the module's timers run until none is left, so that everything that was put off has been done."""
    import qt

    end = time.monotonic() + seconds
    while True:
        qt.application.processEvents()
        if not qt.active_timers():
            return
        assert time.monotonic() < end, f"timers that do not end: {qt.active_timers()}"
        time.sleep(0.005)


def tick(seconds=0.0):
    """Let timers run: the panel's are 30 and 40 ms."""
    import qt

    end = time.monotonic() + seconds
    while True:
        qt.application.processEvents()
        if time.monotonic() >= end:
            return
        time.sleep(0.005)


def until(condition, seconds=10.0):
    """Let timers run until something holds: on a loaded machine a fixed time is too short."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        tick(0.01)


def register(widget, verdict="pass", reasons=()):
    widget.ui.fgRegisterButton.click()
    job = widget.engine.jobs[-1]
    job.result, job.state = registration(verdict, reasons), "done"
    until(lambda: not widget.panel.register.running)
    tick(0.1)


def tip_and_shaft():
    """Pixels of a needle 2 mm cranial of its target, parallel to the plan, in both views."""
    from FluoroGuideLib.geometry.rigid import apply

    axis = (ENTRY - TARGET) / np.linalg.norm(ENTRY - TARGET)
    points = apply(POSE, np.array([TARGET + TIP_OFFSET, TARGET + TIP_OFFSET + 30 * axis]))
    return [view.project(points) for view in views()]


def mark(widget, nodes):
    for index, button in enumerate((widget.ui.fgMarkAButton, widget.ui.fgMarkBButton)):
        button.click()
        assert widget.ui.fgMarkPlace.placeModeEnabled
        widget.logic.session.guidance.set_marks(index, nodes[index], tip_and_shaft()[index])
    tick(0.1)
