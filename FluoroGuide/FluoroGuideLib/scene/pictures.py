"""Pictures from Slicer's own slice and 3-D views, drawn offscreen, headless or in the application.

Each picture uses views of its own, removed afterwards: the user's views, their zoom and their layout stay as they are.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.frames import ras_from_lps
from .case import CaseNodes
from .host import Host
from .models import build_bone, polylines, set_model
from .nodes import find_all, remove
from .offscreen import slice_window, three_d_window, write_png
from .plan_nodes import COLORS
from .record_nodes import NEEDLE_COLOR
from .xray_view import read_xray_node, upright_slice_to_ras

PLANES = ("axial", "sagittal", "coronal")
BONE_WINDOW_HU = (-300.0, 1300.0)
NEEDLE_ROLES = ("trajectory", "needle")
IN_PLANE_ROLES = ("picture", "outline")
THREE_D_ROLES = ("trajectory", "needle", "outline", "carm", "bone")
MARGIN_MM = 25.0


# ---- X-ray --------------------------------------------------------------------------------------------------------
def xray_view_picture(host: Host, nodes: CaseNodes, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """X-ray ``index`` with its overlay, upright as acquired, filling the window; see :func:`xray_view_png`."""
    volume = nodes.xrays[index]
    view = read_xray_node(volume).view
    size = size or fitting_size(view.columns, view.rows)
    with slice_window(host, size, volume, upright_slice_to_ras(view), (f"overlay:{index}", f"overlay-labels:{index}")) as window:
        window.slice_logic.FitSliceToBackground()
        return window.image()


def xray_view_png(host: Host, nodes: CaseNodes, index: int, path: str | Path, size: tuple[int, int] | None = None) -> Path:
    """Write a picture of X-ray ``index`` with its overlay: column 0 at the left, row 0 on top.

    Parameters
    ----------
    size
        (width, height) of the picture in pixels; by default the image's proportions, 1024 pixels on the longer side.

    Raises
    ------
    FluoroGuideError
        Offscreen OpenGL does not work (the message says what to install), or the file cannot be written.
    """
    return write_png(path, xray_view_picture(host, nodes, index, size))


def fitting_size(columns: int, rows: int, longest: int = 1024) -> tuple[int, int]:
    """(width, height) in whole pixels, at most ``longest``, with exactly the proportions of ``columns`` x ``rows`` where that is possible."""
    common = math.gcd(columns, rows)
    wide, high = columns // common, rows // common
    times = longest // max(wide, high)
    if times:
        return wide * times, high * times
    scale = longest / max(columns, rows)
    return max(16, round(columns * scale)), max(16, round(rows * scale))


# ---- CT -----------------------------------------------------------------------------------------------------------
def slice_axes_ras(plane: str) -> np.ndarray:
    """Columns (3, 3) right, up and normal of a radiological slice, RAS: Slicer's presets, whose handedness differs.

    Axial seen from the feet, coronal from the front, both with the patient's right at the left; sagittal with anterior at the left.
    """
    axes = {
        "axial": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]], "coronal": [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], "sagittal": [[0, -1, 0], [0, 0, 1], [-1, 0, 0]],
    }
    if plane not in axes:
        raise FluoroGuideError("There is no such slice plane", plane, "Use one of " + ", ".join(PLANES))
    return np.array(axes[plane], float).T


def needle_slice_to_ras(plane: str, entry_ras_mm: np.ndarray, target_ras_mm: np.ndarray) -> np.ndarray:
    """SliceToRAS (4x4) of a plane that holds the whole needle and is as near to ``plane`` as that allows.

    The plane's normal is that of ``plane`` without its part along the needle; a needle within 10 degrees of the normal
    cannot lie in such a plane, and the plane is then kept, through the target.
    """
    axes = slice_axes_ras(plane)
    needle = np.asarray(target_ras_mm, float) - np.asarray(entry_ras_mm, float)
    needle /= np.linalg.norm(needle)
    normal = axes[:, 2] - (axes[:, 2] @ needle) * needle
    if np.linalg.norm(normal) > np.sin(np.radians(10)):
        normal /= np.linalg.norm(normal)
        up = axes[:, 1] - (axes[:, 1] @ normal) * normal
        up /= np.linalg.norm(up)
        handedness = np.sign(np.linalg.det(axes))
        axes = np.column_stack([handedness * np.cross(up, normal), up, normal])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, 0.5 * (np.asarray(entry_ras_mm) + np.asarray(target_ras_mm))
    return matrix


def ct_slice_picture(host: Host, nodes: CaseNodes, plane: str = "axial", size: tuple[int, int] = (900, 900), trajectory: int = 0) -> np.ndarray:
    """CT cut along a planned needle with planned and achieved lines; see :func:`ct_slice_png`."""
    if nodes.volume is None or not nodes.trajectories:
        raise FluoroGuideError("A slice along the needle needs a volume and a planned trajectory")
    line = nodes.trajectories[trajectory]
    ends = world_points(line)
    matrix = needle_slice_to_ras(plane, *ends)
    with _windowed(nodes.volume), _projected_lines(host), slice_window(host, size, nodes.volume, matrix, IN_PLANE_ROLES) as window:
        field = max(2 * MARGIN_MM + np.linalg.norm(ends[1] - ends[0]) * 1.3, 120.0)
        window.node.SetFieldOfView(*(field * np.array(size) / min(size)), 1.0)
        window.node.UpdateMatrices()
        _annotate(window.renderer, matrix, nodes.needle is not None)
        return window.image()


def ct_slice_png(
    host: Host, nodes: CaseNodes, path: str | Path, plane: str = "axial", size: tuple[int, int] = (900, 900), trajectory: int = 0,
) -> Path:
    """Write the CT cut along a planned needle (see :func:`needle_slice_to_ras`) with planned and achieved lines.

    Lines out of the plane are projected onto it, so the picture shows the deviation within this plane only.

    Raises
    ------
    FluoroGuideError
        No volume, no trajectory, an unknown plane, no OpenGL, or a file that cannot be written.
    """
    return write_png(path, ct_slice_picture(host, nodes, plane, size, trajectory))


def side_letter(direction_ras: np.ndarray) -> str:
    """The letter of the patient side that a direction (3,), RAS, points to most: R L A P H F."""
    axis = int(np.argmax(np.abs(direction_ras)))
    return ("RL", "AP", "HF")[axis][0 if direction_ras[axis] > 0 else 1]


def _annotate(renderer: Any, slice_to_ras: np.ndarray, achieved: bool) -> None:
    """Orientation letters at the borders and a legend of the lines."""
    right, up = slice_to_ras[:3, 0], slice_to_ras[:3, 1]
    white = (1.0, 1.0, 1.0)
    texts = [
        (side_letter(-right), 0.015, 0.49, white), (side_letter(right), 0.965, 0.49, white), (side_letter(up), 0.49, 0.955, white),
        (side_letter(-up), 0.49, 0.015, white), ("planned", 0.02, 0.06, COLORS["plan"]),
    ]
    if achieved:
        texts.append(("achieved", 0.02, 0.02, NEEDLE_COLOR))
    for text, x, y, color in texts:
        renderer.AddViewProp(_text(text, x, y, color))


def _text(text: str, x: float, y: float, color: tuple[float, float, float]) -> Any:
    """A text at a place given in parts of the picture's width and height from below left."""
    import vtk

    actor = vtk.vtkTextActor()
    actor.SetInput(text)
    actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    actor.SetPosition(x, y)
    actor.GetTextProperty().SetFontSize(18)
    actor.GetTextProperty().SetShadow(True)
    actor.GetTextProperty().SetColor(*color)
    return actor


def world_points(markups: Any) -> np.ndarray:
    """Points (N, 3) of a markups node in world (isocentre) RAS mm, its transforms applied."""
    points = []
    for i in range(markups.GetNumberOfControlPoints()):
        point = [0.0, 0.0, 0.0]
        markups.GetNthControlPointPositionWorld(i, point)
        points.append(point)
    return np.array(points)


@contextlib.contextmanager
def _windowed(volume: Any) -> Iterator[None]:
    """The volume at the bone window while a picture is taken."""
    display = volume.GetDisplayNode()
    auto, window, level = display.GetAutoWindowLevel(), display.GetWindow(), display.GetLevel()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(*BONE_WINDOW_HU)
    try:
        yield
    finally:
        display.SetWindowLevel(window, level)
        display.SetAutoWindowLevel(auto)


@contextlib.contextmanager
def _projected_lines(host: Host) -> Iterator[None]:
    """Needles as projected models while a picture is taken: a markups line shows only where it crosses the slice."""
    made = []
    for node in [n for role in NEEDLE_ROLES for n in find_all(host, role)]:
        points = world_points(node)
        if len(points) != 2:
            continue
        model = set_model(host, "picture", str(len(made)), "Needle", polylines([points]), node.GetDisplayNode().GetSelectedColor())
        model.SetSaveWithScene(False)
        display = model.GetDisplayNode()
        display.SetVisibility2D(True)
        display.SetSliceDisplayMode(display.SliceDisplayProjection)
        display.SetSliceIntersectionThickness(3)
        made.append(model)
    try:
        yield
    finally:
        remove(host, "picture")


# ---- 3-D ----------------------------------------------------------------------------------------------------------
def three_d_picture(
    host: Host, nodes: CaseNodes, size: tuple[int, int] = (1000, 800), *,
    image: Any | None = None, direction_lps: Any | None = None, radius_mm: float | None = None,
) -> np.ndarray:
    """Bones, needles, C-arms and X-rays on their detectors in 3-D; see :func:`three_d_png`."""
    if image is not None:
        build_bone(host, image, nodes.pose)
    with three_d_window(host, size, THREE_D_ROLES) as window:
        views = [read_xray_node(volume).view for volume in nodes.xrays]
        for volume, view in zip(nodes.xrays, views):
            window.renderer.AddViewProp(_image_plane(volume, view))
        _aim(window.renderer, free_direction_lps(views) if direction_lps is None else direction_lps)
        if radius_mm is not None:
            _close_up(window.renderer, _middle(nodes), radius_mm)
        elif views:
            corners = [v.pixel_mm([(0, 0), (v.columns, 0), (0, v.rows), (v.columns, v.rows)]) for v in views]
            _fit(window.renderer, ras_from_lps(np.vstack([*corners, [v.source_mm for v in views]])), size)
        return window.image()


def three_d_png(
    host: Host, nodes: CaseNodes, path: str | Path, size: tuple[int, int] = (1000, 800), *,
    image: Any | None = None, direction_lps: Any | None = None, radius_mm: float | None = None,
) -> Path:
    """Write the 3-D scene: bone surface, needles, C-arm source and beam, X-rays on their detectors.

    Parameters
    ----------
    image
        The CT as SimpleITK image; when given, its bone surface is made (kept as the case's node) and shown.
    direction_lps
        From what is shown to the viewer (3,), patient LPS; by default :func:`free_direction_lps`.
    radius_mm
        Show only what lies this near to the first planned target (without a plan: the isocentre); everything by default.

    Raises
    ------
    FluoroGuideError
        No OpenGL, or a file that cannot be written.
    """
    return write_png(path, three_d_picture(host, nodes, size, image=image, direction_lps=direction_lps, radius_mm=radius_mm))


def free_direction_lps(views: Sequence[CArmView]) -> np.ndarray:
    """A direction (3,) to look from, a little from above, where no detector hides the patient or is seen edge on."""
    angles = np.radians(np.arange(0, 360, 5))
    tilt = np.radians(20)
    candidates = np.column_stack([np.sin(angles) * np.cos(tilt), -np.cos(angles) * np.cos(tilt), np.full(len(angles), np.sin(tilt))])
    if not views:
        return candidates[6]
    facing = candidates @ np.array([v.beam for v in views]).T
    # Detectors behind the patient, but not flat on: the beam's edges would fall on one another.
    cost = facing.max(axis=1) + 10 * np.clip(np.abs(facing).max(axis=1) - 0.85, 0, None) + 2 * np.clip(0.25 - np.abs(facing).min(axis=1), 0, None)
    return candidates[np.argmin(cost)]


def _image_plane(volume: Any, view: CArmView) -> Any:
    """An actor with the X-ray's pixels as texture on its detector plane, isocentre RAS."""
    import vtk

    corners = ras_from_lps(view.pixel_mm([(-0.5, view.rows - 0.5), (view.columns - 0.5, view.rows - 0.5), (-0.5, -0.5)]))
    plane = vtk.vtkPlaneSource()  # texture (0, 0) at the origin, s to point 1, t to point 2
    plane.SetOrigin(*corners[0])
    plane.SetPoint1(*corners[1])
    plane.SetPoint2(*corners[2])
    display = volume.GetDisplayNode()
    colors = vtk.vtkImageMapToWindowLevelColors()
    colors.SetInputData(volume.GetImageData())
    colors.SetWindow(display.GetWindow())
    colors.SetLevel(display.GetLevel())
    flip = vtk.vtkImageFlip()  # row 0 is on top, texture row 0 below
    flip.SetFilteredAxis(1)
    flip.SetInputConnection(colors.GetOutputPort())
    texture = vtk.vtkTexture()
    texture.SetInputConnection(flip.GetOutputPort())
    texture.InterpolateOn()
    mapper = vtk.vtkPolyDataMapper()
    mapper.SetInputConnection(plane.GetOutputPort())
    actor = vtk.vtkActor()
    actor.SetMapper(mapper)
    actor.SetTexture(texture)
    actor.GetProperty().LightingOff()
    return actor


def _aim(renderer: Any, direction_lps: Any) -> None:
    """Look at everything from ``direction_lps``, head up."""
    camera = renderer.GetActiveCamera()
    direction = ras_from_lps(np.asarray(direction_lps, float) / np.linalg.norm(direction_lps))
    camera.SetFocalPoint(0, 0, 0)
    camera.SetPosition(*(direction * 1000))
    camera.SetViewUp(0, 0, 1)
    camera.SetViewAngle(30)
    renderer.ResetCamera()
    renderer.ResetCameraClippingRange()


def _fit(renderer: Any, points_ras_mm: np.ndarray, size: tuple[int, int], margin: float = 0.92) -> None:
    """Move the camera, keeping its direction, so that all points (N, 3) just fit; a bounding sphere would leave half of it empty."""
    camera = renderer.GetActiveCamera()
    ahead, up = np.array(camera.GetDirectionOfProjection()), np.array(camera.GetViewUp())
    across = np.cross(ahead, up)
    across /= np.linalg.norm(across)
    up = np.cross(across, ahead)
    slope = margin * np.tan(np.radians(camera.GetViewAngle() / 2))
    position = points_ras_mm.mean(axis=0)
    distances = []
    for axis, limit in ((across, slope * size[0] / size[1]), (up, slope)):
        side, depth = (points_ras_mm - position) @ axis, (points_ras_mm - position) @ ahead
        # |side - shift| <= limit * (depth + distance) for all points, with the least distance
        high, low = (side - limit * depth).max(), (-side - limit * depth).max()
        position = position + axis * (high - low) / 2
        distances.append((high + low) / 2 / limit)
    camera.SetFocalPoint(*position)
    camera.SetPosition(*(position - max(distances) * ahead))
    renderer.ResetCameraClippingRange()


def _middle(nodes: CaseNodes) -> np.ndarray:
    """The first planned target, world RAS (3,); the isocentre without a plan."""
    return world_points(nodes.trajectories[0])[-1] if nodes.trajectories else np.zeros(3)


def _close_up(renderer: Any, center_ras_mm: np.ndarray, radius_mm: float) -> None:
    """Move the camera along its line of sight so that a sphere fills the picture."""
    camera = renderer.GetActiveCamera()
    direction = -np.array(camera.GetDirectionOfProjection())
    camera.SetFocalPoint(*center_ras_mm)
    camera.SetPosition(*(center_ras_mm + direction * radius_mm / np.sin(np.radians(camera.GetViewAngle() / 2))))
    renderer.ResetCameraClippingRange()
