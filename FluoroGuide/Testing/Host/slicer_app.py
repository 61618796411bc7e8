"""Make ``slicer`` (the slicer-core wheel) look enough like the application for a scripted module's widget.

``install(scene)`` puts ``slicer.app`` and the missing sub-modules in place and gives a function that takes them away
again.  It proves wiring, not looks; the module's own ``FluoroGuideTest`` runs in the real application.
"""

import importlib.util
import sys
import types
import weakref
import xml.etree.ElementTree as ET
from pathlib import Path

import shiboken6
import slicer
import slicer.util
import vtk
from PySide6.QtCore import Property
from PySide6.QtUiTools import QUiLoader

import ctk
import qt

_HERE = Path(__file__).resolve().parent


class qMRMLWidget(qt.PythonQtObject, qt.QtWidgets.QWidget):
    """Passes its scene on along the connections of the .ui file."""

    HOST_SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    mrmlSceneChanged = qt.HostSignal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._host_scene, self._host_entered = None, False

    def setMRMLScene(self, scene):
        self._host_scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._host_scene

    isEntered = property(lambda self: self._host_entered)


def _flag(name, kind, default):
    key = "_host_flag_" + name
    return Property(kind, lambda self: getattr(self, key, default) if key in vars(self) else default, lambda self, v: vars(self).__setitem__(key, v))


def _while_alive(widget, method):
    """An observer that neither keeps a widget alive nor calls it after its end (in Slicer the destructor disconnects)."""
    kept = weakref.ref(widget)

    def call(*_):
        found = kept()
        if found is not None and shiboken6.isValid(found):
            getattr(found, method)()

    return call


class qMRMLNodeComboBox(qt.PythonQtObject, qt.QtWidgets.QWidget):
    """Chooses a node of the scene; chooses the first one by itself when *None* is not allowed."""

    HOST_SIGNALS = {"currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged", "currentNodeChanged(bool)": "currentNodeSet"}
    currentNodeChanged = qt.HostSignal(object)
    currentNodeSet = qt.HostSignal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._host_types, self._host_node, self._host_scene, self._host_tags = [], None, None, []
        row = qt.QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._host_box = qt.QtWidgets.QComboBox()
        self._host_box.setMinimumContentsLength(10)
        row.addWidget(self._host_box)
        self.currentNodeChanged.connect(lambda node: self.currentNodeSet.emit(node is not None))

    noneEnabled = _flag("noneEnabled", bool, False)
    addEnabled = _flag("addEnabled", bool, True)
    removeEnabled = _flag("removeEnabled", bool, True)
    renameEnabled = _flag("renameEnabled", bool, False)
    editEnabled = _flag("editEnabled", bool, False)
    showHidden = _flag("showHidden", bool, False)
    showChildNodeTypes = _flag("showChildNodeTypes", bool, True)
    selectNodeUponCreation = _flag("selectNodeUponCreation", bool, True)
    noneDisplay = _flag("noneDisplay", str, "None")
    baseName = _flag("baseName", str, "")

    def _set_types(self, types_):
        self._host_types = list(types_)
        self._host_refresh()

    nodeTypes = Property("QStringList", lambda self: self._host_types, _set_types)

    def setMRMLScene(self, scene):
        for observed, tag in self._host_tags:
            observed.RemoveObserver(tag)
        self._host_scene, self._host_tags = scene, []
        if scene is not None:
            events = (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent, slicer.vtkMRMLScene.EndCloseEvent)
            refresh = _while_alive(self, "_host_refresh")
            self._host_tags = [(scene, scene.AddObserver(e, refresh)) for e in events]
        self._host_refresh()

    def mrmlScene(self):
        return self._host_scene

    def nodes(self):
        """The nodes offered."""
        if self._host_scene is None:
            return []
        found = []
        for kind in self._host_types:
            for i in range(self._host_scene.GetNumberOfNodesByClass(kind)):
                node = self._host_scene.GetNthNodeByClass(i, kind)
                exact = node.GetClassName() == kind or self.showChildNodeTypes
                if exact and (self.showHidden or not node.GetHideFromEditors()):
                    found.append(node)
        return found

    def _host_refresh(self):
        nodes = self.nodes()
        if self._host_node is not None and self._host_node not in nodes:
            self.setCurrentNode(None)
        if self._host_node is None and not self.noneEnabled and nodes:
            self.setCurrentNode(nodes[0])
        self._host_box.clear()
        self._host_box.addItem(self._host_node.GetName() if self._host_node else self.noneDisplay)

    def currentNode(self):
        return self._host_node

    def setCurrentNode(self, node):
        if node is not None and self._host_scene is None:
            raise RuntimeError(f"{self.name}: no MRML scene was set; is its mrmlSceneChanged connection in the .ui file?")
        if node is not None and node not in self.nodes():
            node = None
        if node is not self._host_node:
            self._host_node = node
            self._host_refresh()
            self.currentNodeChanged.emit(node)

    currentNodeID = property(lambda self: self._host_node.GetID() if self._host_node else "")


class qSlicerMarkupsPlaceWidget(qt.PythonQtObject, qt.QtWidgets.QWidget):
    """The place button: in Slicer a click in a view then adds a point; tests add it to the node themselves."""

    HOST_SIGNALS = {"activeMarkupsPlaceModeChanged(bool)": "activeMarkupsPlaceModeChanged"}
    activeMarkupsPlaceModeChanged = qt.HostSignal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._host_scene, self._host_node, self._host_placing = None, None, False
        row = qt.QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for name in ("PlaceButton", "DeleteButton"):  # inner parts that childWidgetVariables also returns
            button = qt.QToolButton()
            button.setObjectName(name)
            button.setText("+" if name == "PlaceButton" else "x")
            row.addWidget(button)

    buttonsVisible = _flag("buttonsVisible", bool, True)
    deleteAllControlPointsOptionVisible = _flag("deleteAllControlPointsOptionVisible", bool, True)

    def setMRMLScene(self, scene):
        self._host_scene = scene
        if scene is None:
            self.setCurrentNode(None)

    def currentNode(self):
        return self._host_node

    def setCurrentNode(self, node):
        if node is not None and self._host_scene is None:
            raise RuntimeError(f"{self.name}: no MRML scene was set; is its mrmlSceneChanged connection in the .ui file?")
        if node is None:
            self.setPlaceModeEnabled(False)
        self._host_node = node

    def setPlaceModeEnabled(self, on):
        on = bool(on) and self._host_node is not None
        if on != self._host_placing:
            self._host_placing = on
            self.activeMarkupsPlaceModeChanged.emit(on)

    placeModeEnabled = property(lambda self: self._host_placing, setPlaceModeEnabled)


MRML_WIDGETS = {c.__name__: c for c in (qMRMLWidget, qMRMLNodeComboBox, qSlicerMarkupsPlaceWidget)}


class _Loader(QUiLoader):
    def createWidget(self, class_name, parent=None, name=""):
        qt.loading_ui = False
        try:
            return self._made(class_name, parent, name)
        finally:
            qt.loading_ui = True

    @staticmethod
    def _made(class_name, parent, name):
        made = MRML_WIDGETS.get(class_name) or getattr(ctk if class_name.startswith("ctk") else qt, class_name)
        widget = made(parent)
        widget.setObjectName(name)
        return widget


def loadUI(path):
    """The widget of a .ui file, with the connections made as Slicer's loader makes them."""
    root = ET.parse(path).getroot()
    connections = [{part: c.findtext(part) for part in ("sender", "signal", "receiver", "slot")} for c in root.iter("connection")]
    for element in root.findall("connections"):
        root.remove(element)
    buffer = qt.QBuffer()
    buffer.open(qt.QIODevice.ReadWrite)
    buffer.write(ET.tostring(root))
    buffer.seek(0)
    try:
        top = _Loader().load(buffer)
    finally:
        qt.loading_ui = False
    if top is None:
        raise RuntimeError(f"Could not load UI file: {path}")
    named = {top.name: top, **{w.objectName: w for w in top.findChildren(qt.QtWidgets.QWidget) if w.objectName}}
    for c in connections:
        slot = getattr(named[c["receiver"]], c["slot"].partition("(")[0])
        qt.connect_quietly(named[c["sender"]], c["signal"], slot)
    return top


class _LayoutManager:
    """A layout manager without views: it remembers the arrangement."""

    def __init__(self, scene):
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)

    def layoutLogic(self):
        return self._logic

    def setLayout(self, number):
        self._logic.GetLayoutNode().SetViewArrangement(number)

    def sliceWidget(self, _name):
        return None

    def sliceViewNames(self):
        return ()


class _ModuleManager(qt.PythonQtObject, qt.QtCore.QObject):
    HOST_SIGNALS = {"moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded"}
    moduleAboutToBeUnloaded = qt.HostSignal(str)


class Application(qt.PythonQtObject, qt.QtCore.QObject):
    """``slicer.app``."""

    host_messages = property(lambda self: self._host_messages, lambda self, v: setattr(self, "_host_messages", v))
    HOST_SIGNALS = {"startupCompleted()": "startupCompleted"}
    startupCompleted = qt.HostSignal()

    def __init__(self, layout_manager=None, app_logic=None):
        super().__init__()
        self._host_modules, self._host_layout, self._host_logic = _ModuleManager(), layout_manager, app_logic
        self.host_messages = None

    applicationName = property(lambda self: "Slicer")

    def moduleManager(self):
        return self._host_modules

    def layoutManager(self):
        return self._host_layout

    def applicationLogic(self):
        return self._host_logic

    def testingEnabled(self):
        return True

    def commandOptions(self):
        return types.SimpleNamespace(noMainWindow=self._host_layout is None)

    def processEvents(self):
        qt.application.processEvents()

    def setOverrideCursor(self, cursor):
        qt.QtWidgets.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self):
        qt.QtWidgets.QApplication.restoreOverrideCursor()


class Messages(list):
    """What ``slicer.util``'s display functions would have shown, as (kind, text)."""


def install(scene, *, main_window=False, app_logic=None):
    """Put the stand-ins in place; returns (application, messages, undo)."""
    for name in ("ScriptedLoadableModule", "parameterNodeWrapper", "i18n"):
        spec = importlib.util.spec_from_file_location(f"slicer.{name}", _HERE / "slicer_parts" / f"{name}.py")
        if spec.name not in sys.modules:
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            setattr(slicer, name, module)
    messages = Messages()
    layout = _LayoutManager(scene) if main_window else None
    window = qt.QMainWindow() if main_window else None
    app = Application(layout, app_logic)
    util = {
        "loadUI": loadUI, "mainWindow": lambda: window, "settingsValue": lambda key, default, converter=None, settings=None: default,
        "modulePath": lambda name: str(MODULES[name]), "showStatusMessage": lambda text, duration=0: messages.append(("status", text)),
        "confirmOkCancelDisplay": lambda text, *a, **k: messages.append(("confirm", text)) or False,
        "confirmYesNoDisplay": lambda text, *a, **k: messages.append(("confirm", text)) or False,
        **{f"{kind}Display": (lambda text, *a, kind=kind, **k: messages.append((kind, text))) for kind in ("error", "warning", "info")},
    }
    parts = {"app": app, "mrmlScene": scene, **MRML_WIDGETS}
    # slicer-core's wheel star-imports slicer.util into slicer; in the application slicer.arrayFromVolume does not exist.
    starred = {n: v for n, v in vars(slicer).items() if callable(v) and not isinstance(v, type) and vars(slicer.util).get(n) is v}
    for name in starred:
        delattr(slicer, name)
    before = [(owner, name, vars(owner).get(name)) for owner, names in ((slicer.util, util), (slicer, parts)) for name in names]
    for owner, values in ((slicer.util, util), (slicer, parts)):
        for name, value in values.items():
            setattr(owner, name, value)

    def undo():
        for owner, name, value in before:
            delattr(owner, name) if value is None else setattr(owner, name, value)
        for name, value in starred.items():
            setattr(slicer, name, value)

    return app, messages, undo


MODULES: dict[str, Path] = {}
"""Module name -> its .py file."""


def load_module(path):
    """Import a scripted module's file afresh and make its module object: (python module, parent with the metadata)."""
    path = Path(path)
    MODULES[path.stem] = path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    empty = {"title": "", "helpText": "", "acknowledgementText": "", "icon": None}
    parent = types.SimpleNamespace(path=str(path), categories=[], dependencies=[], contributors=[], **empty)
    getattr(module, path.stem)(parent)
    return module, parent


def make_widget(module, name):
    """The module's widget after ``setup()``; shown with ``show`` and hidden with ``hide``."""
    parent = qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    parent.setMRMLScene(slicer.mrmlScene)
    widget = getattr(module, name + "Widget")(parent)
    widget.setup()
    return widget


def enter(widget):
    """The user opens the module."""
    widget.parent._host_entered = True
    widget.enter()


def leave(widget):
    """The user opens another module."""
    widget.exit()
    widget.parent._host_entered = False


def observer_count(scene):
    """Observers of the events that modules watch, on the scene and all its nodes."""
    events = (
        "ModifiedEvent", "StartCloseEvent", "EndCloseEvent", "StartImportEvent", "EndImportEvent", "NodeAddedEvent", "NodeRemovedEvent",
        "PointModifiedEvent", "PointPositionDefinedEvent", "PointEndInteractionEvent",
    )
    total = 0
    for watched in (scene, *(scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes()))):
        for event in events:
            number = getattr(slicer.vtkMRMLScene, event, None) or getattr(slicer.vtkMRMLMarkupsNode, event, None) or getattr(vtk.vtkCommand, event)
            total += bool(watched.HasObserver(number))
    return total
