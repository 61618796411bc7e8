"""Stand-in of ``slicer.parameterNodeWrapper`` (own text).

Typed values live in a ``vtkMRMLScriptedModuleNode`` as text and node references, so that scenes save and reload them.
Which type binds to which widget is what the real wrapper was seen to do; an unknown attribute, which the real one
accepts silently, raises here.
"""

import enum
import pathlib
import types
import typing
from typing import Annotated  # noqa: F401  (module code may take it from here)

import slicer
import vtk


class Validator:
    """Checks a value before it is stored."""

    def validate(self, value):
        """Raise ValueError when the value is not allowed."""
        raise NotImplementedError


class WithinRange(Validator):
    """A number in a closed range; it also sets the limits of bound widgets."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Minimum(Validator):
    """A number not below a limit."""

    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


class Choice(Validator):
    """One of some values."""

    def __init__(self, choices):
        self.choices = list(choices)

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, is {value!r}")


_RANGED = {"ctkSliderWidget", "qMRMLSliderWidget"}  # refuse an unbounded number
_FLOAT = _RANGED | {"QDoubleSpinBox", "ctkDoubleSpinBox", "ctkDoubleSlider", "qMRMLSpinBox"}
_INT = {"QSpinBox", "QDoubleSpinBox", "ctkDoubleSpinBox", "ctkDoubleSlider", "qMRMLSpinBox", "QSlider", "ctkSliderWidget"}
_BOOL = {"QCheckBox", "ctkCheckBox", "QPushButton", "ctkCheckablePushButton"}
_TEXT = {"QLineEdit", "QLabel", "QTextEdit"}
_NODE = {"qMRMLNodeComboBox", "qMRMLSubjectHierarchyComboBox"}
_SIGNALS = {
    "QDoubleSpinBox": "valueChanged(double)", "QSpinBox": "valueChanged(int)", "QSlider": "valueChanged(int)",
    "ctkSliderWidget": "valueChanged(double)", "QCheckBox": "toggled(bool)", "QPushButton": "toggled(bool)",
    "QLineEdit": "textChanged(QString)", "QTextEdit": "textChanged()", "QComboBox": "currentTextChanged(QString)",
    "qMRMLNodeComboBox": "currentNodeChanged(vtkMRMLNode*)", "ctkPathLineEdit": "currentPathChanged(QString)",
}
RESERVED = {
    "default", "isCached", "dataType", "getValue", "setValue", "connectGui", "disconnectGui", "StartModify", "EndModify", "AddObserver", "Modified",
}


def bindable(hint, widget_class):
    """Whether the real wrapper binds a value of this type (``Annotated`` and ``| None`` included) to a widget class."""
    return not _why_not(Parameter("x", hint, None, check=False), widget_class)


class Parameter:
    """One typed value of the node."""

    def __init__(self, name, hint, default, check=True):
        self.name, self.validators, self.optional = name, [], False
        if typing.get_origin(hint) is typing.Annotated:
            hint, *notes = typing.get_args(hint)
            self.validators = [n for n in notes if isinstance(n, Validator)]
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            self.optional = True
            (hint,) = [a for a in typing.get_args(hint) if a is not type(None)]
        self.type, self.is_node = hint, isinstance(hint, type) and issubclass(hint, slicer.vtkMRMLNode)
        self.default = default
        if default is None and not self.is_node and isinstance(hint, type):
            self.default = next(iter(hint)) if issubclass(hint, enum.Enum) else hint()
        if check and not self.is_node:
            if name in RESERVED:
                raise ValueError(f"{name} is a reserved name")
            self.text(self.default)  # an implicit default outside the range fails at once

    @property
    def range(self):
        return next((v for v in self.validators if isinstance(v, WithinRange)), None)

    def text(self, value):
        """The stored text; TypeError or ValueError for what the real wrapper refuses."""
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type and not (isinstance(value, self.type) and self.type in (pathlib.Path,)):
            raise TypeError(f"{self.name}: {value!r} is a {type(value).__name__}, not {self.type.__name__}")
        for v in self.validators:
            v.validate(value)
        return value.name if isinstance(value, enum.Enum) else repr(value) if self.type is float else str(value)

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.type is bool:
            return text == "True"
        return self.type[text] if issubclass(self.type, enum.Enum) else self.type(text)

    def write(self, node, value):
        if self.is_node:
            if value is None and not self.optional:
                raise TypeError(f"{self.name} may not be None")
            if value is not None and not isinstance(value, self.type):
                raise TypeError(f"{self.name}: {type(value).__name__} is not a {self.type.__name__}")
            node.SetNodeReferenceID(self.name, value.GetID() if value else None)
        else:
            node.SetParameter(self.name, self.text(value))


def _why_not(p, kind):
    """None when a parameter binds to a widget class, else the reason."""
    if p.is_node:
        allowed = _NODE
    elif p.type is float:
        allowed = _FLOAT if p.range else _FLOAT - _RANGED
    elif p.type is int:
        allowed = _INT if p.range else _INT - {"QSlider", "ctkSliderWidget"}
    elif p.type is bool:
        allowed = _BOOL
    elif p.type is str:
        allowed = _TEXT | ({"QComboBox"} if any(isinstance(v, Choice) for v in p.validators) else set())
    elif isinstance(p.type, type) and issubclass(p.type, enum.Enum):
        allowed = {"QComboBox", "ctkComboBox"}
    elif p.type is pathlib.Path:
        allowed = {"ctkPathLineEdit", "ctkDirectoryButton"}
    else:
        allowed = set()
    return None if kind in allowed else f"Unable to create GUI connector from datatype '{p.type}' to widget type '{kind}'"


def _accessors(p, widget):
    kind = type(widget).__name__
    if p.is_node:
        return widget.currentNode, widget.setCurrentNode
    if kind == "QComboBox":
        choices = next((v.choices for v in p.validators if isinstance(v, Choice)), None) or [m.name for m in p.type]
        if widget.count == 0:
            widget.addItems(choices)
        as_text = (lambda v: v) if p.type is str else (lambda v: v.name)
        return lambda: widget.currentText if p.type is str else p.type[widget.currentText], lambda v: widget.setCurrentText(as_text(v))
    if p.type is bool:
        return lambda: widget.checked, widget.setChecked
    if p.type is str:
        return lambda: widget.text, lambda v: setattr(widget, "text", v)
    if p.range:
        widget.minimum, widget.maximum = p.range.minimum, p.range.maximum
    return lambda: p.type(widget.value), widget.setValue


class _Link:
    """One widget bound to one parameter."""

    def __init__(self, owner, p, widget):
        kind = type(widget).__name__
        reason = _why_not(p, kind)
        if reason:
            raise RuntimeError(reason)
        self.owner, self.p, self.widget, self.signal = owner, p, widget, _SIGNALS.get(kind)
        self.get, self.put = _accessors(p, widget)
        self.put(p.read(owner.parameterNode))
        if self.signal:
            widget.connect(self.signal, self.from_gui)

    def from_gui(self):
        if not self.owner._updating:
            setattr(self.owner, self.p.name, self.get())

    def close(self):
        if self.signal:
            self.widget.disconnect(self.signal, self.from_gui)


class _Wrapper:
    """What ``@parameterNodeWrapper`` adds to a class."""

    def __init__(self, parameterNode):
        object.__setattr__(self, "parameterNode", parameterNode)
        object.__setattr__(self, "_links", {})
        object.__setattr__(self, "_updating", False)
        for p in self.allParameters.values():
            if not p.is_node and p.name not in parameterNode.GetParameterNames():
                p.write(parameterNode, p.default)

    def __setattr__(self, name, value):
        if name not in self.allParameters and name != "_updating":
            raise AttributeError(f"{name!r} is no parameter; the real wrapper would take it and forget it")
        object.__setattr__(self, name, value)

    def connectGui(self, ui):
        """Bind every widget of ``ui`` that has a ``SlicerParameterName``; gives the tag for ``disconnectGui``."""
        named = [(w.property("SlicerParameterName"), w) for w in vars(ui).values() if hasattr(w, "property")]
        return self.connectParametersToGui([(name, w) for name, w in named if name])

    def connectParametersToGui(self, widgets):
        """Bind {parameter name: widget}."""
        pairs = widgets.items() if isinstance(widgets, dict) else widgets
        unknown = [name for name, _ in pairs if name not in self.allParameters]
        if unknown:
            raise ValueError(f"Cannot find a param with the given name: {unknown[0]}")
        links = [_Link(self, self.allParameters[name], w) for name, w in pairs]

        def to_gui(*_):
            if self._updating:
                return
            self._updating = True
            try:
                for link in links:
                    link.put(link.p.read(self.parameterNode))
            finally:
                self._updating = False

        tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, to_gui)
        self._links[tag] = links
        return tag

    def disconnectGui(self, tag):
        """Undo a binding; harmless when done twice."""
        for link in self._links.pop(tag, ()):
            link.close()
        if tag is not None:
            self.parameterNode.RemoveObserver(tag)

    def getValue(self, name):
        return self.allParameters[name].read(self.parameterNode)

    def setValue(self, name, value):
        setattr(self, name, value)


def parameterNodeWrapper(cls):
    """Class decorator: annotated names become typed properties stored in the parameter node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {n: Parameter(n, h, cls.__dict__.get(n)) for n, h in hints.items()}
    body = {n: v for n, v in vars(cls).items() if n not in parameters and n not in ("__dict__", "__weakref__")}
    for n, p in parameters.items():
        body[n] = property(lambda self, p=p: p.read(self.parameterNode), lambda self, v, p=p: p.write(self.parameterNode, v))
    for name in ("AddObserver", "RemoveObserver", "StartModify", "EndModify", "Modified", "GetID", "GetClassName"):
        body[name] = lambda self, *a, name=name: getattr(self.parameterNode, name)(*a)
    return type(cls.__name__, (_Wrapper,), {**body, "allParameters": parameters})
