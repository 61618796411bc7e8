"""The .ui file, the parameter node and the code fit together; no widget is made here."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest_plugins = ["module_fixture"]
MODULE = Path(__file__).resolve().parents[2]
UI_FILES = sorted((MODULE / "Resources" / "UI").glob("*.ui"))
PARAMETERS = MODULE / "FluoroGuideLib" / "scene" / "parameters.py"
CODE = [MODULE / "FluoroGuide.py", *sorted((MODULE / "FluoroGuideLib" / "ui").glob("*.py"))]
INNER_PARTS = {"PlaceButton", "DeleteButton", "ColorButton", "MoreButton", "Slider", "SpinBox", "MarkupsNodeComboBox"}


@pytest.fixture(scope="module")
def ui_root():
    """All files as one tree: ``iter`` finds the widgets and connections of all of them."""
    root = ET.Element("all")
    root.extend([ET.parse(path).getroot() for path in UI_FILES])
    return root


def _property(widget, name):
    found = widget.find(f"property[@name='{name}']")
    return None if found is None else "".join(found.itertext()).strip()


def _widgets(root):
    return {w.get("name"): w for w in root.iter("widget")}


def test_every_bound_parameter_exists_and_binds_to_its_widget(ui_root, app):
    import typing

    from slicer.parameterNodeWrapper import bindable

    from FluoroGuideLib.scene import parameters

    hints = parameters.FluoroGuideParameterNode.allParameters
    annotated = typing.get_type_hints(_source_class(parameters), include_extras=True)
    bound = {_property(w, "SlicerParameterName"): w for w in ui_root.iter("widget") if _property(w, "SlicerParameterName")}
    code = "\n".join(path.read_text() for path in CODE)
    by_code = {n for n in hints if re.search(rf'(choices|p)\.{n}(, self\.choices\.\w+)? = |choices\.\w+, self\.choices\.{n} = |_chosen\("{n}"', code)}
    assert set(bound) <= set(hints), "each name exists"
    assert set(hints) <= set(bound) | by_code, "each choice of the user has a widget"
    for name, widget in bound.items():
        assert bindable(annotated[name], widget.get("class")), name


def _source_class(module):
    """The annotations of the parameter node, evaluated where the module evaluates them."""
    tree = ast.parse(PARAMETERS.read_text())
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "FluoroGuideParameterNode"]
    annotations = {n.target.id: eval(ast.unparse(n.annotation), vars(module)) for n in found.body if isinstance(n, ast.AnnAssign)}
    return type("Annotations", (), {"__annotations__": annotations})


def test_spin_boxes_cover_the_range_of_their_parameter_in_sensible_steps(ui_root):
    spins = [w for w in ui_root.iter("widget") if w.get("class") == "QDoubleSpinBox"]
    assert len(spins) >= 10
    for spin in spins:
        assert float(_property(spin, "singleStep")) <= (float(_property(spin, "maximum")) - float(_property(spin, "minimum"))) / 100


def test_every_widget_named_in_the_code_is_in_the_ui_file(ui_root):
    names = set(_widgets(ui_root))
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "ui":
                assert node.attr in names, f"{path.name}: self.ui.{node.attr}"


def test_every_active_widget_of_the_ui_file_is_used_or_bound(ui_root):
    text = "\n".join(path.read_text() for path in CODE)
    for name, widget in _widgets(ui_root).items():
        if widget.get("class") not in ("QLabel", "QWidget", "QGroupBox", "qMRMLWidget", "ctkCollapsibleButton"):
            assert f"self.ui.{name}" in text or f"ui.{name}" in text or f'"{name}"' in text or _property(widget, "SlicerParameterName"), name


def test_names_cannot_collide_with_inner_parts_of_composite_widgets(ui_root):
    names = [w.get("name") for w in ui_root.iter("widget")]
    assert len(names) == len(set(names))
    assert all(n.startswith("fg") or n == "FluoroGuide" for n in names)
    assert not INNER_PARTS & set(names)


@pytest.mark.parametrize("path", UI_FILES, ids=lambda p: p.name)
def test_every_mrml_widget_gets_the_scene(path):
    root = ET.parse(path).getroot()
    top = root.find("widget")
    assert top.get("class") == "qMRMLWidget"
    ends = (top.get("name"), "mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)")
    connections = [[c.findtext(part) for part in ("receiver", "sender", "signal", "slot")] for c in root.iter("connection")]
    wired = {receiver for receiver, *others in connections if tuple(others) == ends}
    mrml = {n for n, w in _widgets(root).items() if w.get("class").startswith(("qMRML", "qSlicer")) and w is not top}
    assert wired == mrml


def test_there_is_a_page_for_every_section(ui_root):
    from FluoroGuideLib.scene.workflow import SECTIONS

    names = set(_widgets(ui_root))
    assert {path.stem for path in UI_FILES} == {"FluoroGuide", *(f"{key.capitalize()}Section" for key in SECTIONS)}
    assert {f"fg{key.capitalize()}{part}" for key in SECTIONS for part in ("Section", "Page", "Status")} <= names


def test_every_widget_has_a_tool_tip(ui_root):
    for name, widget in _widgets(ui_root).items():
        is_field_name = widget.get("class") == "QLabel" and _property(widget, "text")
        if not is_field_name and widget.get("class") != "qMRMLWidget":
            assert _property(widget, "toolTip"), name


def test_optional_nodes_may_be_none(ui_root):
    for name, widget in _widgets(ui_root).items():
        if widget.get("class") == "qMRMLNodeComboBox":
            assert _property(widget, "noneEnabled") == "true", f"{name} would choose a node by itself"


def test_every_custom_widget_class_is_declared(ui_root):
    declared = {c.findtext("class") for c in ui_root.iter("customwidget")}
    used = {w.get("class") for w in ui_root.iter("widget") if not w.get("class").startswith("Q")}
    assert used <= declared


@pytest.mark.parametrize("path", CODE, ids=lambda p: p.name)
def test_translated_texts_are_literals(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            assert len(node.args) == 1, path.name
            assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
            assert isinstance(node.args[0].value, str), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", [p for p in CODE if p.name not in ("self_test.py", "workflow_steps.py")], ids=lambda p: p.name)
def test_nothing_that_works_only_on_the_stand_ins(path):
    text = path.read_text()
    for pattern, why in {
        r"isinstance\([^)]*\bqt\.": "isinstance is False for PythonQt's other classes", r"\.sizeHint\(\)": "sizeHint is a property",
        r"qt\.(Signal|Slot|Property|QVariant)\b": "absent in PythonQt", r"\.singleShot\s*=": "use setSingleShot",
        r"if \w*[lL]ayout(\(\))?:": "an empty layout is False",
        r"\bslicer\.(arrayFrom|updateVolume|getNode|loadVolume)": "these are in slicer.util", r"\.setRange\(": "ctkSliderWidget has none",
        r"setSliceViewerLayers|resetSliceViews|RotateToVolumePlane|JumpSlicesToLocation|JumpAllSlices|PropagateVolumeSelection":
            "would turn the X-ray views",
        r"threading|concurrent\.futures": "worker threads starve in Slicer, and none may touch MRML", r"processEvents": "the window must not wait",
        r"functools\.partial": "connect a function or a lambda", r"\bexec_?\(\)": "no dialog of our own that blocks",
        r"\.singleShot\(": "a timer that cannot be stopped", r"\.deleteLater\(": "setParent(None), drop the reference",
    }.items():
        if path.name != "FluoroGuide.py" or pattern != "processEvents":  # its own test lets the application work
            assert not re.search(pattern, text), f"{path.name}: {why}"


SCENE_CODE = sorted((MODULE / "FluoroGuideLib" / "scene").glob("*.py"))


@pytest.mark.parametrize("path", SCENE_CODE, ids=lambda p: p.name)
def test_the_scene_code_keeps_to_what_was_seen_in_the_application(path):
    text = path.read_text()
    for pattern, why in {
        r"setSliceViewerLayers|resetSliceViews|RotateToVolumePlane\(|JumpSlicesToLocation|JumpAllSlices": "would turn the X-ray views",
        r"MarkupsCurveNode": "50 times slower than a model", r"threading": "MRML belongs to the main thread",
        r"\bslicer\.(arrayFrom|updateVolume|getNode|loadVolume)": "these are in slicer.util", r"SliceDisplayDistanceEncoded": "ignores the colours",
        r"cornerAnnotation": "Data Probe wipes it", r"from qt |import qt\b|import ctk": "no Qt here",
    }.items():
        assert not re.search(pattern, text), f"{path.name}: {why}"


@pytest.mark.parametrize("path", CODE, ids=lambda p: p.name)
def test_signals_are_named_with_their_types(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("connect", "disconnect"):
            for argument in node.args:
                if isinstance(argument, ast.Constant):
                    assert re.fullmatch(r"\w+\(.*\)", argument.value), f"{path.name}:{node.lineno}"


def test_every_key_belongs_to_one_widget():
    """Qt fires neither of two shortcuts with the same keys."""
    keys = [key for path in CODE for key in re.findall(r'"(Ctrl\+[^"]+)"\)', path.read_text())]
    assert len(keys) > 10
    assert len(set(keys)) == len(keys), sorted(k for k in set(keys) if keys.count(k) > 1)


def test_the_module_file_is_wiring_only():
    text = (MODULE / "FluoroGuide.py").read_text()
    assert len(text.splitlines()) < 300
    tree = ast.parse(text)
    names = [n.module for n in tree.body if isinstance(n, ast.ImportFrom)] + [a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names]
    assert {name.split(".")[0] for name in names} <= {"os", "sys", "typing", "qt", "slicer", "vtk"}, "nothing else is imported when Slicer starts"
    (tests,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "FluoroGuideTest"]
    for function in tests.body:
        if isinstance(function, ast.FunctionDef):
            assert "test" not in function.name or function.name.startswith("test_") or function.name == "runTest"


def test_icon_is_there_and_is_svg():
    assert ET.parse(MODULE / "Resources" / "Icons" / "FluoroGuide.svg").getroot().tag.endswith("svg")
    assert (MODULE / "Resources" / "Icons" / "FluoroGuide.png").read_bytes()[:4] == b"\x89PNG"
