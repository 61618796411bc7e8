"""The stand-ins refuse what Slicer refuses, or silently ignores (seen in the running application).

They prove wiring, not looks: the module's own FluoroGuideTest runs the same workflow in the real application.
"""

from __future__ import annotations

import enum
from typing import Annotated

import numpy as np
import pytest

pytest_plugins = ["module_fixture"]


# ---- signals -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("signal", ["clicked", "cliked(bool)", "clicked(int)", "currentIndexChanged(QString)"])
def test_a_signal_that_would_never_fire_is_refused(app, signal):
    import qt

    with pytest.raises(AttributeError):
        qt.QPushButton().connect(signal, lambda: None)


def test_exact_signatures_fire_and_slots_may_take_fewer_arguments(app):
    import qt

    button, heard = qt.QPushButton(), []
    assert button.connect("clicked(bool)", lambda: heard.append("none"))
    assert button.connect("clicked(bool)", heard.append)
    button.click()
    assert heard == ["none", False]
    assert button.disconnect("clicked(bool)", heard.append)
    assert not button.disconnect("clicked(bool)", heard.append)
    button.click()
    assert heard == ["none", False, "none"]


def test_a_slot_that_needs_more_arguments_fails_at_the_click_only(app):
    import qt

    button = qt.QPushButton()
    button.connect("clicked(bool)", lambda a, b: None)
    button.click()
    assert isinstance(qt.slot_errors.pop(), TypeError)


def test_connections_are_listed_until_they_are_undone(app):
    import qt

    button = qt.QPushButton()
    button.connect("clicked(bool)", print)
    assert qt.connections(button) == [("clicked(bool)", print)]
    button.disconnect("clicked(bool)", print)
    assert qt.connections(button) == []


# ---- PythonQt objects ------------------------------------------------------------------------------------------------
def test_properties_are_attributes_and_not_callable(app):
    import qt

    label = qt.QLabel("three")
    assert (label.text, label.enabled, label.sizeHint.height() > 0) == ("three", True, True)
    for name in ("text", "sizeHint", "minimumSizeHint", "width", "size"):
        with pytest.raises(TypeError):
            getattr(label, name)()
    layout = qt.QVBoxLayout()
    layout.setSpacing(3)
    assert layout.spacing == 3
    box = qt.QComboBox()
    box.addItems(["a", "b"])
    assert (box.count, box.currentText) == (2, "a")


def test_no_new_attribute_on_a_cpp_object_but_on_a_python_subclass(app):
    import qt

    with pytest.raises(AttributeError):
        qt.QPushButton().state = 3
    button = qt.QPushButton()
    button.setProperty("state", 3)
    button.state = 4
    assert button.property("state") == button.state == 4

    class Own(qt.QLabel):
        pass

    own = Own()
    own.state = 3
    assert own.state == 3


@pytest.mark.parametrize("value", [None, 5])
def test_a_text_that_is_no_text_is_refused(app, value):
    import qt

    with pytest.raises(TypeError):
        qt.QLabel().text = value


def test_isinstance_of_qwidget_is_false_for_other_classes(app):
    import qt

    assert not isinstance(qt.QPushButton(), qt.QWidget)
    assert qt.QPushButton().inherits("QWidget")
    assert qt.QPushButton().className() == "QPushButton"


def test_an_empty_layout_is_false(app):
    import qt

    layout = qt.QVBoxLayout()
    assert not layout
    layout.addWidget(qt.QLabel())
    assert layout


def test_lists_come_as_tuples(app):
    import qt

    parent = qt.QWidget()
    child = qt.QLabel(parent)
    child.setObjectName("own")
    child.setProperty("kept", ["a", "b"])
    for found in (parent.findChildren("QLabel"), qt.QTableWidget(2, 2).selectedItems(), child.property("kept"), child.kept):
        assert type(found) is tuple
    assert parent.findChildren("QLabel") == (child,)
    assert parent.findChild("QLabel", "own") is parent.findChild(qt.QLabel, "own") is child
    assert parent.findChild(qt.QLabel, "other") is None


def test_qt_names_that_pythonqt_lacks_are_absent(app):
    import qt

    for name in ("Signal", "Slot", "Property", "QVariant"):
        assert not hasattr(qt, name)


def test_qimage_from_bytes_settings_with_type_and_single_shot_attribute_are_refused(app):
    import qt

    with pytest.raises(ValueError):
        qt.QImage(b"\0" * 16, 4, 4, 4, qt.QImage.Format_Grayscale8)
    with pytest.raises(TypeError):
        qt.QSettings().value("key", False, bool)
    timer = qt.QTimer()
    with pytest.raises(AttributeError):
        timer.singleShot = True
    timer.setSingleShot(True)
    timer.start(1000)
    assert qt.active_timers() == [timer]
    timer.stop()
    assert qt.active_timers() == []


def test_ctk_slider_has_no_set_range_and_ends_at_99_99(app):
    import ctk

    slider = ctk.ctkSliderWidget()
    assert slider.maximum == 99.99
    with pytest.raises(AttributeError):
        slider.setRange(0, 1)
    heard = []
    slider.connect("valueChanged(double)", heard.append)
    slider.minimum, slider.maximum = -5.0, 5.0
    slider.value = 100.0
    assert heard == [5.0]


def test_numpy_scalars_are_taken_by_setters(app):
    import qt

    spin = qt.QDoubleSpinBox()
    spin.value = np.float32(0.5)
    assert spin.value == 0.5


# ---- Slicer ----------------------------------------------------------------------------------------------------------
def test_a_node_selector_without_a_scene_is_found_out(app):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    with pytest.raises(RuntimeError):
        box.setCurrentNode(node)


@pytest.mark.parametrize("none_enabled", [True, False])
def test_a_node_selector_chooses_by_itself_only_when_none_is_not_allowed(app, none_enabled):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.noneEnabled = none_enabled
    box.setMRMLScene(slicer.mrmlScene)
    assert box.currentNode() is (None if none_enabled else node)
    box.setCurrentNode(node)
    slicer.mrmlScene.RemoveNode(node)
    assert box.currentNode() is None
    box.setMRMLScene(None)


def test_an_ui_file_with_a_wrong_connection_does_not_load(app, tmp_path):
    import slicer

    text = """<ui version="4.0"><class>W</class><widget class="qMRMLWidget" name="W"><layout class="QVBoxLayout" name="l"><item>
      <widget class="qMRMLNodeComboBox" name="box"/></item></layout></widget><connections><connection><sender>W</sender>
      <signal>{}</signal><receiver>box</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""
    path = tmp_path / "w.ui"
    path.write_text(text.format("mrmlSceneChange(vtkMRMLScene*)"))
    with pytest.raises(AttributeError):
        slicer.util.loadUI(str(path))
    path.write_text(text.format("mrmlSceneChanged(vtkMRMLScene*)"))
    widget = slicer.util.loadUI(str(path))
    widget.setMRMLScene(slicer.mrmlScene)
    assert slicer.util.childWidgetVariables(widget).box.mrmlScene() is slicer.mrmlScene
    widget.setMRMLScene(None)


def test_child_widget_variables_also_give_inner_parts(app):
    import slicer

    place = slicer.qSlicerMarkupsPlaceWidget()
    place.setObjectName("own")
    assert hasattr(slicer.util.childWidgetVariables(place), "DeleteButton")


def test_without_a_main_window_there_is_no_layout_manager(app):
    import slicer

    assert slicer.app.layoutManager() is None
    assert slicer.util.mainWindow() is None


def test_functions_of_slicer_util_are_not_in_slicer_itself(app):
    import slicer

    for name in ("arrayFromVolume", "getNode", "updateVolumeFromArray", "loadVolume"):
        assert not hasattr(slicer, name), f"slicer.{name} fails in the application"
    assert slicer.util.arrayFromVolume


def test_a_connection_to_a_slot_of_another_widget(app):
    import slicer

    first, second = slicer.qMRMLWidget(), slicer.qMRMLWidget()
    assert first.connect("mrmlSceneChanged(vtkMRMLScene*)", second, "setMRMLScene(vtkMRMLScene*)")
    first.setMRMLScene(slicer.mrmlScene)
    assert second.mrmlScene() is slicer.mrmlScene
    first.setMRMLScene(None)


def test_what_is_hidden_in_a_folded_section_stays_hidden_when_it_opens(app):
    """In CTK a folded button hides its children and shows them again; a page between keeps each widget's own state."""
    import ctk
    import qt

    button = ctk.ctkCollapsibleButton()
    layout = qt.QVBoxLayout(button)
    page = qt.QWidget()
    layout.addWidget(page)
    inner = qt.QVBoxLayout(page)
    label = qt.QLabel("hidden")
    inner.addWidget(label)
    label.setVisible(False)
    button.show()
    button.collapsed = True
    assert not page.visible
    button.collapsed = False
    assert page.visible
    assert not label.visible


def test_settings_come_back_as_text(app):
    import qt

    qt.QSettings().setValue("FluoroGuide/x", True)
    assert qt.QSettings().value("FluoroGuide/x") == "true"
    qt.QSettings().remove("FluoroGuide/x")
    assert qt.QSettings().value("FluoroGuide/x", "default") == "default"


def test_emitting_flags_many_times_loses_no_reference(app):
    """PySide's own signals lose one to each bool: after some thousand refreshes the interpreter would crash."""
    import sys

    import ctk

    button = ctk.ctkCollapsibleButton()
    before = sys.getrefcount(True)
    for _ in range(500):
        button.collapsed = not button.collapsed
    assert abs(sys.getrefcount(True) - before) < 100


def test_run_test_takes_every_name_with_test_in_it(app):
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

    called = []

    class Trap(ScriptedLoadableModuleTest):
        def _latestFrame(self):
            called.append("helper")

        def test_a(self):
            called.append("a")

    Trap().runTest()
    assert sorted(called) == ["a", "helper"]


# ---- parameter node ----------------------------------------------------------------------------------------------------
class _Side(enum.Enum):
    LEFT = 1
    RIGHT = 2


def _wrapped(**annotated):
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    hints = {n: h for n, (h, _) in annotated.items()}
    body = {n: d for n, (_, d) in annotated.items() if d is not None}
    return parameterNodeWrapper(type("Parameters", (), {"__annotations__": hints, "__module__": __name__, **body}))


def _node():
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")


def test_values_are_typed(app):
    import slicer
    from slicer.parameterNodeWrapper import WithinRange

    volume = slicer.vtkMRMLScalarVolumeNode | None
    p = _wrapped(f=(Annotated[float, WithinRange(0, 1)], 0.5), n=(int, 2), b=(bool, True), s=(str, ""), e=(_Side, None), v=(volume, None))(_node())
    p.f = 1
    assert (p.f, type(p.f), p.n, p.b, p.s, p.e, p.v) == (1.0, float, 2, True, "", _Side.LEFT, None)
    for name, value, error in (
        ("f", np.float32(0.5), TypeError), ("f", 1.5, ValueError), ("n", np.int64(5), TypeError), ("n", 2.5, TypeError), ("s", None, TypeError),
        ("b", 1, TypeError), ("v", _node(), TypeError), ("nosuch", 3, AttributeError),
    ):
        with pytest.raises(error):
            setattr(p, name, value)


def test_an_implicit_default_outside_the_range_fails_at_construction(app):
    from slicer.parameterNodeWrapper import WithinRange

    with pytest.raises(ValueError):
        _wrapped(f=(Annotated[float, WithinRange(5, 10)], None))


def test_values_and_nodes_survive_another_wrapper_of_the_same_node(app):
    import slicer

    node, cls = _node(), _wrapped(f=(float, 0.0), v=(slicer.vtkMRMLScalarVolumeNode | None, None))
    first = cls(node)
    first.f, first.v = 0.1 + 0.2, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert cls(node).f == 0.1 + 0.2
    assert cls(node).v is first.v


@pytest.mark.parametrize(("kind", "hint", "widget", "binds"), [
    ("float in a range", "ranged", "ctkSliderWidget", True), ("float", float, "ctkSliderWidget", False), ("float", float, "QDoubleSpinBox", True),
    ("float", float, "QSpinBox", False), ("int", int, "QSpinBox", True), ("int", int, "QSlider", False), ("bool", bool, "QCheckBox", True),
    ("bool", bool, "QPushButton", True), ("bool", bool, "QToolButton", False), ("bool", bool, "QRadioButton", False),
    ("bool", bool, "ctkCollapsibleButton", False), ("str", str, "QLineEdit", True), ("str", str, "QPlainTextEdit", False),
    ("str", str, "QComboBox", False), ("enum", _Side, "QComboBox", True), ("node", "node", "qMRMLNodeComboBox", True),
    ("list", list[str], "QLineEdit", False),
])
def test_what_binds_to_what(app, kind, hint, widget, binds):
    import slicer
    from slicer.parameterNodeWrapper import WithinRange, bindable

    if hint == "ranged":
        hint = Annotated[float, WithinRange(0, 1)]
    if hint == "node":
        hint = slicer.vtkMRMLScalarVolumeNode | None
    assert bindable(hint, widget) is binds


def test_binding_is_two_way_sets_limits_and_ends(app):
    from slicer.parameterNodeWrapper import WithinRange

    import qt

    p = _wrapped(f=(Annotated[float, WithinRange(2, 8)], 4.0), e=(_Side, None))(_node())
    spin, box = qt.QDoubleSpinBox(), qt.QComboBox()
    tag = p.connectParametersToGui({"f": spin, "e": box})
    assert (spin.minimum, spin.maximum, spin.value, box.currentText) == (2, 8, 4, "LEFT")
    spin.value = 7
    box.setCurrentText("RIGHT")
    assert (p.f, p.e) == (7.0, _Side.RIGHT)
    p.f = 3.0
    assert spin.value == 3
    p.disconnectGui(tag)
    p.disconnectGui(tag)
    spin.value = 5
    assert p.f == 3.0
    assert qt.connections(spin) == []


def test_an_unknown_parameter_name_in_an_ui_file_is_refused(app):
    import types

    import qt

    edit = qt.QLineEdit()
    edit.setProperty("SlicerParameterName", "misspelt")
    with pytest.raises(ValueError):
        _wrapped(f=(float, 0.0))(_node()).connectGui(types.SimpleNamespace(edit=edit))


def test_the_stand_ins_leave_no_trace():
    """Other test files use slicer-core as it is: what an installation puts into ``slicer`` is gone afterwards."""
    import slicer

    import slicer_app
    from FluoroGuideLib.scene import host as host_module

    host = host_module.start()
    before = {name: getattr(slicer, name, None) for name in ("app", "qMRMLWidget", "qMRMLNodeComboBox", "modules")}
    _app, _messages, undo = slicer_app.install(host.scene, main_window=False, app_logic=host.app_logic)
    assert getattr(slicer, "app", None) is not before["app"]
    undo()
    assert {name: getattr(slicer, name, None) for name in before} == before
