"""FluoroGuide: registration of CT to fluoroscopy, needle guidance and procedure record.  Wiring only (see FluoroGuideLib)."""

import os
import sys

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin

import qt


class FluoroGuide(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("FluoroGuide")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "IGT")]
        self.parent.dependencies = []
        self.parent.contributors = ["The FluoroGuide developers"]
        self.parent.helpText = _(
            "Plan a needle on CT, register the CT to one or two X-ray images, see the plan on the X-rays, locate the needle and record where it"
            " lies. <b>Research software, not a medical device: it must not be the only basis of a clinical decision.</b>"
        )
        self.parent.acknowledgementText = _("FluoroGuide builds on 3D Slicer, SimpleITK, NumPy, SciPy and pydicom, and thanks their communities.")
        slicer.app.connect("startupCompleted()", onStartupCompleted)


def onStartupCompleted():
    """Layouts (a saved scene may ask for them before the module is opened) and sample data."""
    from FluoroGuideLib.scene import guide_layout, host, sample_data, xray_view

    xray_view.register_layout(host.start())
    guide_layout.register_layout(host.start())
    sample_data.register(lambda: [FluoroGuideLogic().loadSampleCase()["volume"]], host.start, _("FluoroGuide"))


class FluoroGuideWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Connects the panel with the scene's life."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.panel = self._parameterNode = self._guiTag = self._userLayout = None
        self._entered = False

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from FluoroGuideLib.ui.pages import load_pages
        from FluoroGuideLib.ui.panel import Panel, QtDialogs

        uiWidget = load_pages(slicer.util.loadUI, lambda name: self.resourcePath(f"UI/{name}.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = FluoroGuideLogic()
        self.panel = Panel(self.ui, self.logic.session, QtDialogs(slicer.util.mainWindow()), slicer.util.mainWindow())
        events = {"StartCloseEvent": self.onSceneStartClose, "EndCloseEvent": self.onSceneReady, "StartImportEvent": self.onSceneStartClose,
                  "EndImportEvent": self.onSceneReady}
        for event, callback in events.items():
            self.addObserver(slicer.mrmlScene, getattr(slicer.vtkMRMLScene, event), callback)
        self.initializeParameterNode()

    def cleanup(self):
        """Reload, or the application quits."""
        self.setParameterNode(None)
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()
            self.logic.session.close()
            self.panel = None

    def enter(self):
        self._entered = True
        self.initializeParameterNode()
        self.logic.session.warm_up()
        self.showLayout()
        self.panel.enter()

    def exit(self):
        self._entered = False
        if self.panel is not None:
            self.panel.leave()
            self.setParameterNode(None)
            self.restoreLayout()

    def showLayout(self):
        """The layout with both X-ray views; the user's own comes back on exit."""
        from FluoroGuideLib.scene import host, xray_view

        layoutManager = slicer.app.layoutManager()
        if layoutManager is not None and xray_view.register_layout(host.start()):
            self._userLayout = layoutManager.layoutLogic().GetLayoutNode().GetViewArrangement()
            layoutManager.setLayout(xray_view.LAYOUT_ID)

    def restoreLayout(self):
        """The user's layout, unless they chose another one meanwhile."""
        from FluoroGuideLib.scene import xray_view

        layoutManager, previous, self._userLayout = slicer.app.layoutManager(), self._userLayout, None
        if layoutManager is None or previous in (None, xray_view.LAYOUT_ID):
            return
        if layoutManager.layoutLogic().GetLayoutNode().GetViewArrangement() == xray_view.LAYOUT_ID:
            layoutManager.setLayout(previous)

    def onReload(self):
        """Slicer reloads this file only; the library is forgotten so that it is read again too."""
        for name in [n for n in sys.modules if n.split(".")[0] == "FluoroGuideLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller=None, event=None):
        self.panel.scene_closes()
        self.setParameterNode(None)

    def onSceneReady(self, caller=None, event=None):
        # Not only while the module is entered: after a reload Slicer says it is not, and the panel would stay dead.
        self.initializeParameterNode()
        if self._entered:
            self.panel.enter()  # closing a scene turned the X-ray views

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        """Bind the widgets to a parameter node; None binds them to nothing."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        if self.panel is not None:
            self.panel.set_choices(parameterNode)

    def onParametersModified(self, caller=None, event=None):
        self.panel.refresh_later()


class FluoroGuideLogic(ScriptedLoadableModuleLogic):
    """The workflow for scripts; nodes in, plain results out.  Needs no widget and no main window."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from FluoroGuideLib.engine.client import EngineClient
        from FluoroGuideLib.scene import host
        from FluoroGuideLib.scene.session import CaseSession

        self.session = CaseSession(host.start, EngineClient)

    def getParameterNode(self):
        from FluoroGuideLib.scene.parameters import FluoroGuideParameterNode

        return FluoroGuideParameterNode(super().getParameterNode())

    def loadXray(self, path, index, geometry=None):
        """Read an X-ray file into slot 0 (A) or 1 (B); ``geometry``: C-arm card for files without it.  Returns its node."""
        return self.session.xrays.load(path, index, geometry)

    def registerCase(self, volumeNode, xrayNodes, planLineNode, procedure="", fromPresent=False):
        """Register, wait for the end and put the result into the scene.  Returns the ``Registration``."""
        from FluoroGuideLib.scene.registrar import Request

        plan = self.session.planner.plan(volumeNode, planLineNode, procedure)
        job, made = self.session.registrar.submit(volumeNode, xrayNodes, plan, Request("present" if fromPresent else "angles"))
        registration = self.session.engine.wait(job)
        self.session.registrar.accept(registration, made, plan)
        self.session.guidance.update_overlays(xrayNodes)
        return registration

    def locateNeedle(self, xrayNodes, marks=None):
        """Locate the needle from its marks: pixels (column, row) of tip and shaft per X-ray, or the marks in the scene."""
        for index, pixels in enumerate(marks or ()):
            self.session.guidance.set_marks(index, xrayNodes[index], pixels)
        needle = self.session.guidance.locate(xrayNodes)
        self.session.guidance.update_overlays(xrayNodes)
        return needle

    def recordPlacement(self, planLineNode, xrayNodes, procedure=""):
        """Add the located needle to the record in the scene.  Returns the ``Placement``."""
        return self.session.recorder.add_placement(planLineNode, xrayNodes, procedure)

    def saveRecord(self, path):
        """Write the record as JSON."""
        return self.session.recorder.save(path)

    def loadSampleCase(self):
        """Make the phantom case in the scene and choose its nodes.  Returns the nodes and the ``SampleCase``."""
        from FluoroGuideLib.scene.sample_case import load_sample_case

        loaded = load_sample_case(self.session)
        parameters = self.getParameterNode()
        parameters.procedureName = "transpedicular vertebroplasty"
        parameters.volume, parameters.planLine, (parameters.xrayA, parameters.xrayB) = loaded["volume"], loaded["line"], loaded["xrays"]
        return loaded


class FluoroGuideTest(ScriptedLoadableModuleTest):
    """The whole workflow on the phantom, through the logic and through the widget."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        for step in (self.test_PlanRegisterGuideRecord, self.test_PlanAndXrayPanels, self.test_WorkflowThroughTheWidget):
            self.setUp()
            step()

    def test_PlanAndXrayPanels(self):
        """The panel's sections Patient and plan, and X-ray, clicked through; no main window is needed."""
        from FluoroGuideLib.ui.self_test import PanelSteps

        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        parent.setMRMLScene(slicer.mrmlScene)
        widget = FluoroGuideWidget(parent)
        widget.setup()
        try:
            widget.enter()
            steps = PanelSteps(self, widget.panel, widget.logic.loadSampleCase(), slicer.app.processEvents)
            self.delayDisplay("Planning")
            steps.plan()
            self.delayDisplay("Loading an X-ray")
            steps.xray()
        finally:
            widget.exit()
            widget.cleanup()

    def test_WorkflowThroughTheWidget(self):
        """Register, cancel, go back, guide, record: buttons clicked in a widget of its own."""
        import tempfile

        from FluoroGuideLib.ui.workflow_steps import Workflow

        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        parent.setMRMLScene(slicer.mrmlScene)
        widget = FluoroGuideWidget(parent)
        widget.setup()
        widget.enter()
        try:
            with tempfile.TemporaryDirectory() as folder:
                Workflow(widget, widget.logic.loadSampleCase(), folder, slicer.app.processEvents).run(self.delayDisplay)
        finally:
            widget.exit()
            widget.cleanup()

    def test_PlanRegisterGuideRecord(self):
        """Plan, X-rays, registration, overlay, needle, record: each against the known truth."""
        import tempfile

        import numpy as np

        from FluoroGuideLib.geometry.rigid import apply

        logic, journals = FluoroGuideLogic(), tempfile.TemporaryDirectory()
        logic.session.recorder.folder = journals.name  # not among the user's own
        try:
            self.delayDisplay("Making the phantom")
            loaded = logic.loadSampleCase()
            case, xrays, line = loaded["case"], loaded["xrays"], loaded["line"]
            self.delayDisplay("Registering")
            registration = logic.registerCase(loaded["volume"], xrays, line)
            error = np.linalg.norm(apply(registration.pose, case.target_lps_mm) - apply(case.pose, case.target_lps_mm))
            self.assertNotEqual(registration.verdict, "fail", registration.reasons)
            self.assertLess(error, 1.0, "target registration error in mm")
            self.delayDisplay("Locating the needle")
            logic.locateNeedle(xrays, [case.marks(0), case.marks(1)])
            placement = logic.recordPlacement(line, xrays)
            planned = np.linalg.norm(case.tip_lps_mm - case.target_lps_mm)
            self.assertAlmostEqual(placement.deviation.tip_mm, planned, delta=1.0)
            with tempfile.TemporaryDirectory() as folder:
                self.assertTrue(os.path.getsize(logic.saveRecord(os.path.join(folder, "record.json"))) > 0)
        finally:
            logic.session.close()
            journals.cleanup()
        self.delayDisplay("FluoroGuide: passed")
