"""pytest fixtures for tests of the module: the stand-ins over one headless scene.  Use ``pytest_plugins = ["module_fixture"]``."""

import os
import shutil
import tempfile

import pytest

pytest.importorskip("PySide6", reason="the Qt stand-ins need PySide6")
pytest.importorskip("slicer", reason="the module's tests need slicer-core")

import slicer

import module_case
import qt
import slicer_app
from FluoroGuideLib.scene import host as host_module


def _run(main_window):
    host = host_module.start()
    host.scene.Clear(0)
    for left in slicer.util.getNodesByClass("vtkMRMLLayoutNode", host.scene):  # Clear keeps it; each test starts without
        host.scene.RemoveNode(left)
    app, messages, undo = slicer_app.install(host.scene, main_window=main_window, app_logic=host.app_logic)
    qt.slot_errors.clear()
    qt.QSettings.host_values.clear()
    app.host_messages = messages
    before, folder = os.environ.get("FLUOROGUIDE_DATA"), tempfile.mkdtemp(prefix="fluoroguide-journals-")
    os.environ["FLUOROGUIDE_DATA"] = folder  # journals of tests are not the user's
    yield app
    undo()
    host.scene.Clear(0)
    os.environ.pop("FLUOROGUIDE_DATA")
    os.environ.update({} if before is None else {"FLUOROGUIDE_DATA": before})
    shutil.rmtree(folder, ignore_errors=True)
    errors, qt.slot_errors[:] = list(qt.slot_errors), []
    assert not errors, f"exceptions in slots, which Slicer only prints: {errors}"


@pytest.fixture
def app():
    """``slicer.app`` without a main window (no layout manager), as in Slicer's generic module tests."""
    yield from _run(main_window=False)


@pytest.fixture
def app_with_window():
    """``slicer.app`` with a main window and a layout manager."""
    yield from _run(main_window=True)


@pytest.fixture
def module(app):
    """(the module's Python module, its metadata)."""
    return slicer_app.load_module(module_case.MODULE_FILE)


@pytest.fixture
def widget(module):
    """The module's widget, entered."""
    made = module_case.make(module)
    slicer_app.enter(made)
    yield made
    if made.panel is not None:
        made.cleanup()
