"""Slicer's own slice and 3-D views without a screen: windows that exist for one picture and leave nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FluoroGuideError
from .host import Host, rendering_problem
from .nodes import vtk_matrix

SLICE_MANAGERS = ("vtkMRMLModelSliceDisplayableManager", "vtkMRMLMarkupsDisplayableManager")
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager", "vtkMRMLViewDisplayableManager", "vtkMRMLModelDisplayableManager", "vtkMRMLMarkupsDisplayableManager",
)


class _Window:
    """An offscreen render window with Slicer's displayable managers."""

    def __init__(self, host: Host, factory: Any, managers: tuple[str, ...], size: tuple[int, int]) -> None:
        import slicer
        import vtk

        self.host, self.size = host, size
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.renderer = vtk.vtkRenderer()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        self.window.SetSize(*size)  # after Initialize, which sets a size of its own
        instance = factory.GetInstance()
        instance.SetMRMLApplicationLogic(host.app_logic)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        for name in managers:
            if not instance.IsDisplayableManagerRegistered(name):
                instance.RegisterDisplayableManager(name)
        self.group.Initialize(instance, self.renderer)

    def image(self) -> np.ndarray:
        """The picture (rows, columns, 3) uint8, row 0 on top."""
        import vtk
        from vtk.util.numpy_support import vtk_to_numpy

        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        output = grab.GetOutput()
        columns, rows, _ = output.GetDimensions()
        return vtk_to_numpy(output.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1, :, :3].copy()

    def close(self) -> None:
        """Let go of the scene before the window."""
        self.group.SetMRMLDisplayableNode(None)
        self.window.Finalize()


@contextlib.contextmanager
def slice_window(host: Host, size: tuple[int, int], volume: Any, slice_to_ras: np.ndarray, roles: tuple[str, ...]) -> Iterator[_Window]:
    """A slice window with a volume, where the nodes of ``roles`` that are bound to certain views show as well."""
    import slicer
    import vtk

    check_rendering()
    window = _Window(host, slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS, size)
    window.renderer.GetActiveCamera().ParallelProjectionOn()
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(host.app_logic)
    logic.SetMRMLScene(host.scene)
    node = _temporary(host, "vtkMRMLSliceNode", "FluoroGuidePicture")
    node.SetViewGroup(99)  # linked views of the user's do not follow
    logic.SetSliceNode(node)
    composite = logic.GetSliceCompositeNode()
    composite.SetSaveWithScene(False)
    composite.SetDoPropagateVolumeSelection(False)
    composite.SetBackgroundVolumeID(volume.GetID())
    window.group.SetMRMLDisplayableNode(node)
    logics = _listed(host.app_logic, logic)
    with _shown_in(host, roles, node):
        node.GetSliceToRAS().DeepCopy(vtk_matrix(slice_to_ras))
        node.UpdateMatrices()
        logic.ResizeSliceNode(*size)
        window.slice_logic, window.node = logic, node
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        window.renderer.AddViewProp(actor)
        try:
            yield window
        finally:
            window.close()
            logics.RemoveItem(logic)
            logic.DeleteSliceModel()
            logic.SetMRMLScene(None)
            host.scene.RemoveNode(composite)
            host.scene.RemoveNode(node)


@contextlib.contextmanager
def three_d_window(host: Host, size: tuple[int, int], roles: tuple[str, ...]) -> Iterator[_Window]:
    """A 3-D window that shows the nodes of ``roles`` and no others of the scene."""
    import slicer

    check_rendering()
    window = _Window(host, slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS, size)
    node = _temporary(host, "vtkMRMLViewNode", "FluoroGuidePicture3D")
    node.SetBoxVisible(False)
    node.SetAxisLabelsVisible(False)
    node.SetBackgroundColor(0.06, 0.07, 0.10)
    node.SetBackgroundColor2(0.16, 0.18, 0.24)
    window.group.SetMRMLDisplayableNode(node)
    try:
        with _shown_in(host, roles, node):
            yield window
    finally:
        window.close()
        for extra in filter(None, (_camera_of(host, node), node)):
            host.scene.RemoveNode(extra)


def _camera_of(host: Host, view_node: Any) -> Any | None:
    """The camera node that the displayable manager made for a 3-D view node, or None."""
    cameras = (host.scene.GetNthNodeByClass(i, "vtkMRMLCameraNode") for i in range(host.scene.GetNumberOfNodesByClass("vtkMRMLCameraNode")))
    return next((c for c in cameras if c.GetLayoutName() == view_node.GetLayoutName()), None)


def _temporary(host: Host, class_name: str, name: str) -> Any:
    """A view node that is never saved."""
    node = host.scene.CreateNodeByClass(class_name)
    node.UnRegister(None)
    node.SetName(name)
    node.SetLayoutName(name)
    node.SetSaveWithScene(False)
    return host.scene.AddNode(node)


def _listed(app_logic: Any, logic: Any) -> Any:
    """Put a slice logic into the application logic's list, where displayable managers look for it; returns the list."""
    import vtk

    if app_logic.GetSliceLogics() is None:
        app_logic.SetSliceLogics(vtk.vtkCollection())
    app_logic.GetSliceLogics().AddItem(logic)
    return app_logic.GetSliceLogics()


@contextlib.contextmanager
def _shown_in(host: Host, roles: tuple[str, ...], view: Any) -> Iterator[None]:
    """Show view-bound nodes of ``roles`` in ``view``, and nothing else of the scene; all as before afterwards."""
    bound, hidden = [], []
    for i in range(host.scene.GetNumberOfNodesByClass("vtkMRMLDisplayNode")):
        display = host.scene.GetNthNodeByClass(i, "vtkMRMLDisplayNode")
        owner = display.GetDisplayableNode()
        if owner is None or not (owner.IsA("vtkMRMLModelNode") or owner.IsA("vtkMRMLMarkupsNode")):
            continue
        if _matches(owner, roles):
            if display.GetNumberOfViewNodeIDs():
                bound.append(display)
        elif display.GetVisibility() and not owner.GetAttribute("FluoroGuide.picture"):
            hidden.append(display)
    for display in bound:
        display.AddViewNodeID(view.GetID())
    for display in hidden:
        display.SetVisibility(False)
    try:
        yield
    finally:
        for display in bound:
            display.RemoveViewNodeID(view.GetID())
        for display in hidden:
            display.SetVisibility(True)


def _matches(node: Any, roles: tuple[str, ...]) -> bool:
    """Whether a node has one of the roles; ``role:key`` asks for the key up to its first slash as well."""
    role, key = node.GetAttribute("FluoroGuide.role"), (node.GetAttribute("FluoroGuide.key") or "").split("/")[0]
    return role is not None and (role in roles or f"{role}:{key}" in roles)


def check_rendering() -> None:
    """Raise a :class:`FluoroGuideError` that says what to install where off-screen OpenGL does not work."""
    problem = rendering_problem()
    if problem is not None:
        raise FluoroGuideError("Pictures cannot be drawn", None, problem)


def write_png(path: str | Path, picture: np.ndarray) -> Path:
    """Write (rows, columns, 3) uint8 as PNG.

    Raises
    ------
    FluoroGuideError
        The folder does not exist or is not writable.
    """
    import SimpleITK as sitk

    path = Path(path)
    try:
        sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(path))
    except RuntimeError:
        raise FluoroGuideError("The picture cannot be written", path, "Choose a folder that exists and has space") from None
    return path
