"""Stand-ins of Slicer's scripted-module base classes (own text; what a module relies on)."""

import os
import unittest

import slicer

import qt


class ScriptedLoadableModule:
    """Holds the ``qSlicerScriptedLoadableModule`` (``parent``) that carries the metadata."""

    def __init__(self, parent):
        self.parent, self.moduleName = parent, type(self).__name__

    def resourcePath(self, filename):
        """Path of a file in the module's Resources folder."""
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)


class ScriptedLoadableModuleWidget:
    """The widget's life: ``setup`` once, ``enter``/``exit`` when shown and hidden, ``cleanup`` on reload and quit."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        if parent is None:
            parent = slicer.qMRMLWidget()
            parent.setLayout(qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent, self.layout = parent, parent.layout()
        if self.layout is None:
            raise RuntimeError("the parent of a module widget needs a layout")

    def resourcePath(self, filename):
        """Path of a file in the module's Resources folder."""
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self):
        """Overridden by modules."""

    def cleanup(self):
        """Overridden by modules."""

    def enter(self):
        """Overridden by modules."""

    def exit(self):
        """Overridden by modules."""

    def onReload(self):
        """The *Reload* button: old ``cleanup``, new ``setup``; no ``enter``."""
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """Gives the singleton parameter node."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        """The module's ``vtkMRMLScriptedModuleNode``; made when missing."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """``runTest`` calls every callable whose name *contains* "test", as Slicer's does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args or ("runTest",), **kwargs)

    def delayDisplay(self, message, *_args, **_kwargs):
        """Slicer shows the message for a while."""

    def runTest(self):
        """Each method in alphabetic order with its own ``setUp``."""
        for name in [m for m in dir(type(self)) if "test" in m and callable(getattr(self, m))]:
            self.setUp()
            getattr(self, name)()
            self.tearDown()


__all__ = ["ScriptedLoadableModule", "ScriptedLoadableModuleLogic", "ScriptedLoadableModuleTest", "ScriptedLoadableModuleWidget"]
