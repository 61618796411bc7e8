"""The MRML scene to work in: the running Slicer application's, or a headless one on the ``slicer-core`` wheel.

The wheel is the real MRML scene, logics and displayable managers of Slicer 5.13 without Qt.  What the application
does at start-up (logics, default colours, data readers) is done here once per process.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
from dataclasses import dataclass
from typing import Any

from ..errors import FluoroGuideError

RENDERING_HINT = "On Debian or Ubuntu run: apt-get install -y libegl1 libgl1-mesa-dri (elsewhere: Mesa's EGL and software OpenGL driver)"
_MODULE_LOGICS = {
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic", "Markups": "vtkSlicerMarkupsLogic", "Volumes": "vtkSlicerVolumesLogic",
    "Models": "vtkSlicerModelsLogic", "Tables": "vtkSlicerTablesLogic", "Texts": "vtkSlicerTextsLogic", "Units": "vtkSlicerUnitsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic", "Sequences": "vtkSlicerSequencesLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
}
_PROBE = """
import vtk
window = vtk.vtkRenderWindow()
window.SetOffScreenRendering(1); window.SetMultiSamples(0); window.SetSize(16, 16)
renderer = vtk.vtkRenderer(); renderer.SetBackground(1, 0, 0); window.AddRenderer(renderer)
window.Render()
grab = vtk.vtkWindowToImageFilter(); grab.SetInput(window); grab.ReadFrontBufferOff(); grab.Update()
print("rendered", int(grab.GetOutput().GetScalarComponentAsDouble(8, 8, 0, 0)), window.GetClassName())
"""
_headless: Host | None = None


@dataclass(frozen=True, eq=False)
class Host:
    """Where MRML lives.

    Attributes
    ----------
    scene
        The ``vtkMRMLScene``.
    app_logic
        The ``vtkMRMLApplicationLogic``.
    headless
        False inside the Slicer application.
    kept
        Logics that live as long as the host: the application logic itself keeps only weak pointers to them.
    """

    scene: Any
    app_logic: Any
    headless: bool = True
    kept: tuple = ()


def start() -> Host:
    """The scene and application logic of the running Slicer, else of a headless one (started once per process).

    Raises
    ------
    FluoroGuideError
        Neither Slicer nor the ``slicer-core`` wheel is there.
    """
    global _headless
    try:
        import slicer
    except ImportError as error:
        raise FluoroGuideError(
            "3D Slicer's scene library is not installed", error, 'Install it with: pip install "slicer-core==5.13.31053.0", or run inside 3D Slicer',
        ) from None
    if in_slicer_application():
        return Host(slicer.mrmlScene, slicer.app.applicationLogic(), headless=False)
    if _headless is None:
        _headless = _start_headless(slicer)
    return _headless


def in_slicer_application() -> bool:
    """True inside the real Slicer application (a stand-in for ``slicer.app`` in tests does not count)."""
    slicer = sys.modules.get("slicer")
    app = getattr(slicer, "app", None)
    try:
        return bool(app is not None and app.inherits("qSlicerCoreApplication"))
    except (AttributeError, TypeError):
        return False


def _start_headless(slicer: Any) -> Host:
    """Scene, application logic, the module logics that register their node classes, and the readers of ``.mrb``."""
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    app = slicer.vtkSlicerApplicationLogic()
    app.SetMRMLScene(scene)
    colors = app.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    app.SetModuleLogic("Colors", colors)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    logics = {}
    for name, class_name in _MODULE_LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(app)
        logic.SetMRMLScene(scene)
        app.SetModuleLogic(name, logic)
        logics[name.lower()] = types.SimpleNamespace(logic=lambda kept=logic: kept)
    if not hasattr(slicer, "modules"):  # slicer.util's helpers ask for slicer.modules.<name>.logic()
        slicer.modules = types.SimpleNamespace(**logics)
    kept = (*(module.logic() for module in logics.values()), *_readers(slicer, scene, app))
    return Host(scene, app, kept=kept)


def _readers(slicer: Any, scene: Any, app: Any) -> tuple[Any, Any]:
    """The data IO manager without which a scene file's nodes load empty."""
    cache = tempfile.mkdtemp(prefix="fluoroguide-cache-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLApplicationLogic(app)
    remote.SetMRMLScene(scene)
    remote.GetCacheManager().SetRemoteCacheDirectory(cache)
    manager = slicer.vtkDataIOManagerLogic()
    manager.SetMRMLApplicationLogic(app)
    manager.SetMRMLScene(scene)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return remote, manager


@functools.lru_cache(maxsize=1)
def _rendering_failure() -> str | None:
    """None when a child process drew a red picture offscreen, else the last thing it said."""
    try:
        run = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the trial picture did not end: {type(error).__name__}"
    drawn = re.search(r"rendered 255 (vtk\w+RenderWindow)", run.stdout)
    if run.returncode == 0 and drawn:
        # Straight to the window class that worked: VTK would try X first at every picture, and complain.
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", drawn[1])
        return None
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    return f"exit code {run.returncode}" + (f": {lines[-1].strip()}" if lines else "")


def rendering_available() -> bool:
    """Whether pictures can be drawn without a screen.

    Tried once, in a child process, because a broken OpenGL driver ends the process rather than raising.
    """
    return in_slicer_application() or _rendering_failure() is None


def rendering_problem() -> str | None:
    """One sentence on why pictures cannot be drawn and the line that helps; None when they can."""
    if rendering_available():
        return None
    return FluoroGuideError("Pictures cannot be drawn: offscreen OpenGL does not work here", _rendering_failure(), RENDERING_HINT).message
