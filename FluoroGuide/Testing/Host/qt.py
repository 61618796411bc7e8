"""Stand-in of PythonQt's ``qt`` on PySide6: the names Slicer's module code uses, and the same surprises.

It proves wiring, not looks.  Where PythonQt silently does nothing (a misspelt signal, ``None`` as a text, a new
attribute on a C++ widget) this stand-in raises, so that such code fails in a test before it fails in Slicer.
"""

import ctypes
import inspect
import os
import re
import sys
import traceback
import weakref

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
from PySide6 import QtCore, QtGui, QtWidgets

if sys.version_info < (3, 12):
    # PySide6 6.12 is built for a Python whose None is immortal: before 3.12 every call that returns nothing takes one
    # reference from None (or True, False), and the process aborts when none is left.  Give them as many as no test can use up.
    for _immortal in (None, True, False):
        ctypes.c_ssize_t.from_address(id(_immortal)).value += 1 << 40

_ABSENT = {"Signal", "Slot", "Property", "QVariant"}  # not usable, or absent, in PythonQt
for _module in (QtCore, QtGui, QtWidgets):
    globals().update({n: getattr(_module, n) for n in dir(_module) if not n.startswith("_") and n not in _ABSENT})

slot_errors: list[BaseException] = []
"""Exceptions raised in slots: printed, never passed on to the one who emitted (as in Slicer).  Tests look here."""
loading_ui = False
_live_timers: weakref.WeakSet = weakref.WeakSet()
_connected: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def active_timers() -> list:
    """The QTimers of module code that are running now."""
    return [t for t in _live_timers if t.isActive()]


def connections(obj: object) -> list[tuple[str, object]]:
    """(signal, slot) of every connection made with ``obj.connect`` that still stands."""
    return [(signal, slot) for signal, slot, _ in _connected.get(obj, ())]


# ---- properties are attributes -----------------------------------------------------------------------------------------
_NOT_A_PROPERTY = {("QTimer", "singleShot")}  # a static function in PythonQt; the property is hidden by it


def _plain(value):
    """A numpy scalar as a Python number: PythonQt's setters take both."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _attribute(name, type_name, read=None):
    """A Python property; ``read`` is the C++ getter, called directly because some (sizeHint, spacing) are virtual and
    would find this property as their own override."""

    def write(self, value):
        if type_name == "QString" and not isinstance(value, str):
            raise TypeError(f"{type(self).__name__}.{name} = {value!r}: PythonQt would show the text {str(value)!r}; give a str")
        if not self.setProperty(name, _plain(value)):
            raise TypeError(f"{type(self).__name__}.{name} cannot be set to {value!r}")

    return property(lambda self: _listless(read(self) if read else QtCore.QObject.property(self, name)), write)


def _listless(value):
    return tuple(value) if isinstance(value, list) else value


def _make_attributes(cls):
    meta = cls.staticMetaObject
    own = range(meta.propertyOffset(), meta.propertyCount())
    for i in range(meta.propertyCount()):
        name = meta.property(i).name()
        if (i in own or name in vars(cls)) and (cls.__name__, name) not in _NOT_A_PROPERTY:
            setattr(cls, name, _attribute(name, meta.property(i).typeName(), vars(cls).get(name)))


_qobjects = {n: c for n, c in globals().items() if isinstance(c, type) and issubclass(c, QtCore.QObject)}
for _class in _qobjects.values():
    _make_attributes(_class)
QtCore.QObject.name = _attribute("objectName", "QString")
QtCore.QObject.className = lambda self: self.metaObject().className()
QtWidgets.QLayout.__bool__ = lambda self: self.count() > 0


class _Emitter:
    """One signal of one object."""

    def __init__(self):
        self._slots = []

    def connect(self, slot):
        self._slots.append(slot)

    def disconnect(self, slot):
        self._slots.remove(slot)

    def emit(self, *arguments):
        for slot in list(self._slots):
            slot(*arguments)


_HELD = [[value] * 1_000_000 for value in (None, True, False)] if sys.version_info < (3, 12) else []
"""PySide 6.12 loses references to None and to bools, one at a time; without spare ones a long test run ends in "deallocating None"."""


class HostSignal:
    """A signal of a stand-in, in plain Python: PySide 6.12 loses a reference to every bool that it emits, which ends in a crash."""

    def __init__(self, *_types):
        self._key = ""

    def __set_name__(self, _owner, name):
        self._key = "_host_signal_" + name

    def __get__(self, instance, _owner=None):
        if instance is None:
            return self
        return instance.__dict__.setdefault(self._key, _Emitter())


# ---- connect("signal(types)", slot) ------------------------------------------------------------------------------------
def _check_signal(obj, signal):
    if not re.fullmatch(r"\w+\(.*\)", signal):
        raise AttributeError(f"connect({signal!r}): without its parentheses and types the slot would never be called")
    if signal in getattr(type(obj), "HOST_SIGNALS", {}):
        return type(obj).HOST_SIGNALS[signal]
    if obj.metaObject().indexOfSignal(bytes(QtCore.QMetaObject.normalizedSignature(signal).data()).decode()) < 0:
        raise AttributeError(f"{type(obj).__name__} has no signal {signal!r}; in Slicer connect() would return False and never fire")
    return None


def _taken_arguments(slot) -> int | None:
    """How many arguments a slot takes; None when it takes any number."""
    try:
        parameters = inspect.signature(slot).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _guarded(slot):
    taken = _taken_arguments(slot)

    def run(*arguments):
        try:
            slot(*(arguments if taken is None else arguments[:taken]))
        except Exception as error:  # PythonQt prints it and goes on
            slot_errors.append(error)
            traceback.print_exc(file=sys.stderr)

    return run


def _connect(self, signal, slot, member=None):
    attribute = _check_signal(self, signal)
    if member is not None:  # connect(signal, receiver, "slot(types)"): a connection inside Qt
        connect_quietly(self, signal, getattr(slot, member.partition("(")[0]))
        return True
    run = _guarded(slot)
    if attribute:
        getattr(self, attribute).connect(run)
    else:
        QtCore.QObject.connect(self, QtCore.SIGNAL(signal), run)
    _connected.setdefault(self, []).append((signal, slot, run))
    return True


def connect_quietly(sender, signal, slot):
    """A connection made inside Qt (by a .ui file): checked like any other, but not the module's to undo."""
    attribute = _check_signal(sender, signal)
    getattr(sender, attribute or signal.partition("(")[0]).connect(lambda *arguments: slot(*arguments))


def _disconnect(self, signal, slot=None):
    attribute = _check_signal(self, signal)
    mine = [c for c in _connected.get(self, ()) if c[0] == signal and (slot is None or c[1] == slot)]
    for entry in mine:
        if attribute:
            getattr(self, attribute).disconnect(entry[2])
        else:
            QtCore.QObject.disconnect(self, QtCore.SIGNAL(signal), entry[2])
        _connected[self].remove(entry)
    return bool(mine)


# ---- the classes that module code makes --------------------------------------------------------------------------------
def _find_children(self, kind=QtCore.QObject, name=None):
    def fits(child):
        matches = child.inherits(kind) if isinstance(kind, str) else isinstance(child, kind)
        return matches and (not name or child.property("objectName") == name)

    return tuple(c for c in QtCore.QObject.findChildren(self, QtCore.QObject) if fits(c))


def _find_child(self, kind=QtCore.QObject, name=None):
    return next(iter(_find_children(self, kind, name)), None)


def _dynamic_names(obj):
    return [bytes(n.data()).decode() for n in QtCore.QObject.dynamicPropertyNames(obj)]


def _property(self, name):
    return _listless(QtCore.QObject.property(self, name))


class PythonQtObject:
    """Mixin of every wrapped class.

    PySide6 answers ``instance.connect`` itself unless the dictionary of *that very class* has it; so it is put into
    every subclass.  A C++ object takes no new attributes; Python subclasses of module code do.
    """

    HOST_CPP = True

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        cls.connect, cls.disconnect = _connect, _disconnect
        cls.findChild, cls.findChildren, cls.property = _find_child, _find_children, _property
        if not cls.__module__.startswith(("qt", "ctk", "slicer_app")):
            cls.HOST_CPP = False

    def __setattr__(self, name, value):
        known = inspect.getattr_static(type(self), name, None)
        if loading_ui and not name.startswith("_host_"):
            return  # PySide's loader puts children on their parent; PythonQt's does not
        is_property = hasattr(known, "__set__") or isinstance(known, QtCore.Property)
        if self.HOST_CPP and not name.startswith("_host_") and not is_property:
            if name not in _dynamic_names(self):
                raise AttributeError(f"attribute {name!r} does not exist on {type(self).__name__}")
            self.setProperty(name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name):
        if not name.startswith("_") and name in _dynamic_names(self):
            return _listless(QtCore.QObject.property(self, name))
        raise AttributeError(f"attribute {name!r} does not exist on {type(self).__name__}")


_MADE = (QtWidgets.QWidget, QtWidgets.QLayout, QtCore.QTimer, QtGui.QShortcut, QtGui.QAction)
for _name, _class in _qobjects.items():
    if _class is QtCore.QObject or issubclass(_class, _MADE):
        try:
            globals()[_name] = type(_name, (PythonQtObject, _class), {"__module__": "qt"})
        except TypeError:  # abstract, or closed to subclasses
            pass


class QTimer(PythonQtObject, QtCore.QTimer):
    """A timer that tests can find while it runs."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        _live_timers.add(self)

    singleShot = staticmethod(QtCore.QTimer.singleShot)


class QTableWidget(PythonQtObject, QtWidgets.QTableWidget):
    """Lists come back as tuples."""

    def selectedItems(self):
        return tuple(QtWidgets.QTableWidget.selectedItems(self))


class QListWidget(PythonQtObject, QtWidgets.QListWidget):
    """Lists come back as tuples."""

    def selectedItems(self):
        return tuple(QtWidgets.QListWidget.selectedItems(self))


class QImage(QtGui.QImage):
    """PythonQt has no constructor from bytes."""

    def __init__(self, *arguments):
        if arguments and isinstance(arguments[0], (bytes, bytearray, memoryview)):
            raise ValueError("Could not find matching overload: fill QImage.bits(), or QPixmap.loadFromData a PGM")
        super().__init__(*arguments)


class QSettings:
    """``value`` has no type argument; lists come back as tuples.  Kept in memory, emptied for every test."""

    host_values: dict = {}

    def value(self, key, default=None):
        return _listless(self.host_values.get(key, default))

    def setValue(self, key, value):
        self.host_values[key] = str(value).lower() if isinstance(value, bool) else value  # as an INI file gives it back

    def remove(self, key):
        self.host_values.pop(key, None)

    def contains(self, key):
        return key in self.host_values


application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["FluoroGuide stand-in"])
