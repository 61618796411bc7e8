"""A user who does anything in any order, from a seed: clicks, values, markups, scene close and load, frames, answers of every kind.

After each action no slot may have raised, no action may have ended in an unexpected error, and what is told must be a sentence.
"""

from __future__ import annotations

import logging
import random
import re
import tempfile
from pathlib import Path

import numpy as np

import module_case

MRML_EVENTS = ("PointEndInteractionEvent", "PointPositionDefinedEvent", "PointModifiedEvent")
SKIPPED = {"fgLinePlace", "fgTargetPlace", "fgMarkPlace"}


class Unexpected(logging.Handler):
    """Collects what was logged as an error."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.records = []

    def emit(self, record):
        self.records.append(self.format(record))


class Monkey:
    """Drives the module's widget at random.

    Parameters
    ----------
    module
        As ``slicer_app.load_module`` gives it.
    seed
        Everything follows from it.
    """

    def __init__(self, module, seed):
        import slicer

        import slicer_app
        from FluoroGuideLib.scene import host as host_module
        from FluoroGuideLib.scene.xray_view import slice_nodes

        self.random, self.rng, self.module = random.Random(seed), np.random.default_rng(seed), module
        self.scene, self.folder = slicer.mrmlScene, Path(tempfile.mkdtemp(prefix="fg-monkey-"))
        self.log, self.done = Unexpected(), []
        self.log.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger().addHandler(self.log)
        for name in ("XRayA", "XRayB"):  # Slicer's own logics observe them once they are there
            slice_nodes(host_module.start(), name)
        self.observers = slicer_app.observer_count(self.scene)
        self.files = self._files()
        self.widget = None
        self.open_module()

    # ---- life -------------------------------------------------------------------------------------------------------
    def open_module(self):
        """A new widget, entered."""
        import slicer_app

        self.widget = module_case.make(self.module)
        self.widget.engine.run = self._answered(self.widget.engine.run)
        dialogs = self.widget.panel.dialogs
        dialogs.save_file = lambda title, name, kinds: str(self.folder / Path(dialogs.answer).name) if dialogs.answer else ""
        slicer_app.enter(self.widget)

    @staticmethod
    def _answered(run):
        """Tasks that the stand-in has no answer for fail, as a worker that stopped would make them."""
        from FluoroGuideLib.errors import FluoroGuideError

        def answered(task, **arguments):
            job = run(task, **arguments)
            if job.state == "done" and job.result is None:
                job.error, job.state = FluoroGuideError("The registration process stopped unexpectedly", "signal SIGKILL", "Start it again"), "failed"
            return job

        return answered

    def end(self):
        """Close everything; returns what was left behind, as sentences."""
        import gc

        import slicer

        import qt
        import slicer_app

        ui, engine, used = self.widget.ui, self.widget.engine, self.widget.logic.session._engine is not None
        self.widget.cleanup()
        left = [f"timer {t}" for t in qt.active_timers()]
        left += [f"connection of {w.name}: {qt.connections(w)}" for w in vars(ui).values() if qt.connections(w)]
        left += [] if engine.closed or not used else ["the engine is still open"]
        self.widget.parent.setMRMLScene(None)
        for child in vars(ui).values():
            if hasattr(child, "setMRMLScene"):
                child.setMRMLScene(None)
        self.widget = None
        gc.collect()
        self.scene.Clear(0)
        now = slicer_app.observer_count(slicer.mrmlScene)
        left += [f"{now - self.observers} observers"] if now > self.observers else []
        logging.getLogger().removeHandler(self.log)
        return left

    def _files(self):
        """Good, bad and unreadable files to answer dialogs with."""
        import SimpleITK as sitk

        from FluoroGuideLib.imaging.xa_writer import write_xa

        made = ["", "", str(self.folder), str(self.folder / "absent.dcm"), str(self.folder / "out.json"), str(self.folder / "case.mrb")]
        (self.folder / "text.png").write_text("no picture")
        ramp = (np.add.outer(np.arange(60), np.arange(70)) * 300 % 60000).astype(np.uint16)
        write_xa(self.folder / "a.dcm", np.stack([ramp, ramp[::-1]]), primary_deg=20, secondary_deg=-5, sid_mm=1000, sod_mm=700,
                 pixel_spacing_mm=(1.0, 1.0), frame_time_ms=66)
        sitk.WriteImage(sitk.GetImageFromArray((ramp % 256).astype(np.uint8)), str(self.folder / "p.png"))
        return [*made, *(str(self.folder / n) for n in ("text.png", "a.dcm", "p.png")), "a reason in words"]

    # ---- one action -------------------------------------------------------------------------------------------------
    def step(self):
        """One random action and its checks."""
        actions = [
            (30, self.press), (14, self.value), (6, self.node_choice), (6, self.table), (5, self.fold), (10, self.markup), (3, self.remove_node),
            (6, self.fill), (2, self.close_scene), (1, self.save_and_load), (8, self.job), (5, self.frame), (2, self.leave_and_enter),
            (1, self.reopen), (4, self.change_pixels), (8, self.wait),
        ]
        action = self.random.choices([a for _, a in actions], [w for w, _ in actions])[0]
        self.widget.panel.dialogs.answer = self.random.choice(self.files)
        told = action()
        self.done.append(f"{action.__name__} {told or ''}".strip())
        module_case.tick()
        self.check()

    def check(self):
        """Nothing raised, nothing unexpected, sentences only."""
        import qt

        assert not qt.slot_errors, f"{self.done[-6:]}: {qt.slot_errors}"
        assert not self.log.records, f"{self.done[-6:]}: {self.log.records}"
        text = re.sub(r"<[^>]+>", "", self.widget.ui.fgStatus.text).replace("&nbsp;", " ").strip()
        assert "Unexpected error" not in text, f"{self.done[-6:]}: {text}"
        assert "Traceback" not in text, text
        assert not text or text.rstrip()[-1] in ".:!?", f"{self.done[-6:]}: not a sentence: {text!r}"

    def _widgets(self, *classes):
        ui = vars(self.widget.ui)
        return [w for n, w in sorted(ui.items()) if n.startswith("fg") and n not in SKIPPED and w.className() in classes]

    def press(self):
        """Click a button or box, enabled or not."""
        button = self.random.choice(self._widgets("QPushButton", "QToolButton", "QCheckBox", "QRadioButton"))
        button.click()
        return f"{button.name}{'' if button.enabled else ' (disabled)'}"

    def value(self):
        """Another value in a box, slider or line."""
        kinds = ("QComboBox", "QSpinBox", "QDoubleSpinBox", "ctkSliderWidget", "QLineEdit", "QListWidget", "QSlider", "QTextEdit", "QPlainTextEdit")
        widget = self.random.choice(self._widgets(*kinds))
        if not widget.enabled:
            return f"{widget.name} (disabled)"
        kind = widget.className()
        if kind == "QComboBox":
            if widget.editable and self.random.random() < 0.3:
                widget.setEditText(self.random.choice(["", "own words", "hip"]))
            elif widget.count:
                widget.setCurrentIndex(self.random.randrange(widget.count))
        elif kind in ("QSpinBox", "QSlider"):
            widget.setValue(self.random.randint(int(widget.minimum), int(widget.maximum)))
        elif kind in ("QDoubleSpinBox", "ctkSliderWidget"):
            widget.setValue(self.random.uniform(widget.minimum, widget.maximum))
        elif kind == "QLineEdit":
            widget.text = self.random.choice(["", "L4", "5", "-3.5", "1e400", "localhost", str(self.folder), "\u00e4 'x' <b>"])
        elif kind == "QListWidget" and widget.count:
            import qt

            item = widget.item(self.random.randrange(widget.count))
            item.setCheckState(self.random.choice([qt.Qt.Checked, qt.Qt.Unchecked]))
        elif kind in ("QTextEdit", "QPlainTextEdit"):
            widget.setPlainText(self.random.choice(["", "two\nlines"]))
        return widget.name

    def node_choice(self):
        """Choose any node, or none."""
        box = self.random.choice(self._widgets("qMRMLNodeComboBox"))
        if box.enabled:
            box.setCurrentNode(self.random.choice([None, *box.nodes()]))
        return box.name

    def table(self):
        """Choose a row, or type into an editable cell."""
        table = self.random.choice(self._widgets("QTableWidget"))
        if not table.rowCount or not table.enabled:
            return f"{table.name} (empty)"
        row, column = self.random.randrange(table.rowCount), self.random.randrange(table.columnCount)
        table.setCurrentCell(row, column)
        item = table.item(row, column)
        import qt

        if item is not None and item.flags() & qt.Qt.ItemIsEditable and self.random.random() < 0.5:
            item.setText(self.random.choice(["", "x", "900", "0.4 x 0.4", "L4 left", "yes", "1e9"]))
        return table.name

    def fold(self):
        """Open or close a section."""
        button = self.random.choice(self._widgets("ctkCollapsibleButton"))
        button.collapsed = not button.collapsed
        return button.name

    def _markups(self):
        import slicer

        return slicer.util.getNodesByClass("vtkMRMLMarkupsNode", self.scene)

    def markup(self):
        """Place, drag or remove a point of any markup, also where it does not belong."""
        nodes = self._markups()
        if not nodes:
            return ""
        node = self.random.choice(nodes)
        count, point = node.GetNumberOfControlPoints(), (self.rng.normal(0, 60, 3)).tolist()
        if count < 2 or (node.IsA("vtkMRMLMarkupsFiducialNode") and count < 6 and self.random.random() < 0.3):
            node.AddControlPointWorld(*point)
        elif self.random.random() < 0.15:
            node.RemoveNthControlPoint(self.random.randrange(count))
        else:
            node.SetNthControlPointPosition(self.random.randrange(count), *point)
        node.InvokeEvent(getattr(node, self.random.choice(MRML_EVENTS)))
        return node.GetName()

    def remove_node(self):
        """Delete any node that a user sees in the Data module."""
        nodes = [n for n in self.scene.GetNodes() if n.IsA("vtkMRMLDisplayableNode") and not n.GetSingletonTag()]
        if nodes:
            node = self.random.choice(nodes)
            name = node.GetName()
            self.scene.RemoveNode(node)
            return name
        return ""

    def fill(self):
        """Another case, on top of what is there."""
        if self.widget._parameterNode is not None:
            module_case.fill(self.widget, self.random.choice([1, 2]))

    def close_scene(self):
        """Close the scene."""
        self.scene.Clear(0)

    def save_and_load(self):
        """Save the case, close, load it again, perhaps on top of another one."""
        import slicer

        from FluoroGuideLib.errors import FluoroGuideError
        from FluoroGuideLib.scene import case, host

        case.save_mrb(host.start(), self.folder / "kept.mrb")
        if self.random.random() < 0.3:  # import: the scene is not cleared
            self.scene.ReadFromMRB(str(self.folder / "kept.mrb"), False, slicer.vtkMRMLMessageCollection())
            return "imported"
        try:
            case.load_mrb(host.start(), self.folder / "kept.mrb")
        except FluoroGuideError:  # the scene holds no case: a sentence, as it should be
            return "no case"
        return "loaded"

    def job(self):
        """The engine's job goes on, ends well, fails, or is cancelled."""
        from FluoroGuideLib.errors import FluoroGuideError

        running = [j for j in self.widget.engine.jobs if not j.finished]
        if not running:
            return ""
        job = self.random.choice(running)
        outcome = self.random.choice(["goes on", "pass", "pass", "warn", "fail", "crash"])
        if outcome == "goes on":
            job.progress, job.text = self.random.random(), "refine"
        elif outcome == "crash":
            job.error, job.state = FluoroGuideError("The registration process stopped unexpectedly", "signal SIGKILL", "Start it again"), "failed"
        else:
            job.result, job.state = module_case.registration(outcome, ("A reason.",)), "done"
        return outcome

    def frame(self):
        """A frame arrives: the pixels of a volume that may be a live source change."""
        import slicer

        p = self.widget._parameterNode
        if p is None:
            return ""
        if p.sourceVolume is None:
            p.sourceVolume = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "stream")
            p.sourceKind = "volume"
        slicer.util.updateVolumeFromArray(p.sourceVolume, self.rng.integers(0, 4000, (1, 64, 80)).astype(np.uint16))
        module_case.tick(0.07)
        return "arrives"

    def change_pixels(self):
        """The chosen volume or X-ray changes under the panel's feet."""
        import slicer

        p = self.widget._parameterNode
        nodes = [] if p is None else [n for n in (p.volume, p.xrayA, p.xrayB) if n is not None and n.GetImageData() is not None]
        if nodes:
            node = self.random.choice(nodes)
            slicer.util.arrayFromVolume(node)[:] = slicer.util.arrayFromVolume(node)[::-1].copy()
            slicer.util.arrayFromVolumeModified(node)

    def leave_and_enter(self):
        """Another module and back, sometimes with a scene closed meanwhile."""
        import slicer_app

        slicer_app.leave(self.widget)
        module_case.tick(0.05)
        if self.random.random() < 0.3:
            self.scene.Clear(0)
        slicer_app.enter(self.widget)

    def reopen(self):
        """As a reload: the old widget is cleaned up, a new one made."""
        self.widget.cleanup()
        self.widget.parent.setMRMLScene(None)
        for child in vars(self.widget.ui).values():
            if hasattr(child, "setMRMLScene"):
                child.setMRMLScene(None)
        self.open_module()

    def wait(self):
        """Let the timers do what was put off."""
        module_case.tick(self.random.choice([0.02, 0.1, 0.2]))
