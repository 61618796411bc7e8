"""X-ray images as one-slice volumes on their detector planes, and the slice views that show them as acquired.

Geometry.  A Slicer volume's IJK axes must be right-handed, but (u, v, d) of a C-arm view is left-handed (u x v = -d,
the image is seen from the detector).  The volume's third axis is therefore ``u x v`` = **-d**, which keeps the pixels
exactly where they are: the image has one slice, so the sign of its third axis moves nothing.

The slice view gets ``SliceToRAS`` columns (u, -v, u x -v): column 0 at the left, row 0 on top.  Slicer's own
``RotateToVolumePlane`` may turn the image by 180 degrees, so it is never used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..geometry.frames import ras_from_lps
from ..imaging.xray import XrayImage
from .host import Host
from .nodes import array_of, find_all, obtain, plain, references, set_reference, text_node, vtk_matrix

LAYOUT_ID = 5701
VIEW_GROUPS = {"XRayA": 57, "XRayB": 58}
"""Each X-ray view in a group of its own: linked views then never drag one another (SLICER_FACTS 2.2)."""
VIEW_COLORS = {"XRayA": "#4A90D9", "XRayB": "#D98A4A"}
_SLICE = """<item{size}><view class="vtkMRMLSliceNode" singletontag="{tag}">
 <property name="orientation" action="default">{orientation}</property><property name="viewlabel" action="default">{label}</property>
 <property name="viewcolor" action="default">{color}</property>{group}</view></item>"""


def view_name(index: int) -> str:
    """Layout name of the slice view of X-ray 0, 1, ...: ``XRayA``, ``XRayB``, ..."""
    return "XRay" + chr(ord("A") + index)


def layout_xml() -> str:
    """Layout 5701: both X-ray views on top, 3-D and the CT's axial view below."""
    xrays = "".join(
        _SLICE.format(size="", tag=tag, orientation="Coronal", label=tag[-1], color=VIEW_COLORS[tag],
                      group=f'<property name="viewgroup" action="default">{group}</property>')
        for tag, group in VIEW_GROUPS.items()
    )
    three_d = ('<item><view class="vtkMRMLViewNode" singletontag="1"><property name="viewlabel" action="default">1</property></view></item>')
    red = _SLICE.format(size="", tag="Red", orientation="Axial", label="R", color="#F34A33", group="")
    row = '<item splitSize="{size}"><layout type="horizontal" split="true">{views}</layout></item>'
    return f'<layout type="vertical" split="true">{row.format(size=600, views=xrays)}{row.format(size=400, views=three_d + red)}</layout>'


def register_layout(host: Host) -> bool:
    """Make layout 5701 known; False when the scene has no layout node (headless, or no main window).

    Call it at start-up, not on first use: a scene saved in this layout switches to it while loading.
    """
    layout = host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is None:
        return False
    if not layout.IsLayoutDescription(LAYOUT_ID):
        layout.AddLayoutDescription(LAYOUT_ID, layout_xml())
    return True


# ---- geometry -----------------------------------------------------------------------------------------------------
def ijk_to_ras(view: CArmView) -> np.ndarray:
    """4x4 from (column, row, 0) to isocentre RAS mm; the third axis is -d, 1 mm long (see the module's text)."""
    u, v = ras_from_lps(view.column_step_mm), ras_from_lps(view.row_step_mm)
    across = np.cross(u, v)
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([u, v, across / np.linalg.norm(across), ras_from_lps(view.first_pixel_mm)])
    return matrix


def upright_slice_to_ras(view: CArmView) -> np.ndarray:
    """SliceToRAS (4x4) that shows the image as acquired, centred: columns to the right, rows downwards."""
    x = ras_from_lps(view.column_step_mm)
    x = x / np.linalg.norm(x)
    down = ras_from_lps(view.row_step_mm)
    down = down - (down @ x) * x  # a calibrated matrix may have axes that are not quite perpendicular
    y = -down / np.linalg.norm(down)
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([x, y, np.cross(x, y), ras_from_lps(view.detector_center_mm)])
    return matrix


def pixels_to_ras(view: CArmView, pixels: np.ndarray) -> np.ndarray:
    """Points (N, 3) on the detector, isocentre RAS mm, of pixels (N, 2) given as (column, row)."""
    return ras_from_lps(view.pixel_mm(pixels))


# ---- nodes --------------------------------------------------------------------------------------------------------
def build_xray(host: Host, image: XrayImage, index: int) -> Any:
    """The volume node of X-ray ``index``, with its geometry, mask and facts, shown upright in its slice view."""
    import slicer

    key = str(index)
    title = f"X-ray {view_name(index)[-1]} ({describe_angles(*image.view.angles_deg)})"
    node = obtain(host, "vtkMRMLScalarVolumeNode", "xray", title, key)
    low, high = window_of(image)
    slicer.util.updateVolumeFromArray(node, np.where(np.isfinite(image.pixels), image.pixels, np.float32(low))[None])
    node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras(image.view)))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)
    display.SetInterpolate(True)
    mask = obtain(host, "vtkMRMLLabelMapVolumeNode", "xray-mask", title + " mask", key)
    slicer.util.updateVolumeFromArray(mask, image.mask.astype(np.uint8)[None])
    mask.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras(image.view)))
    facts = {
        "view": image.view.to_dict(), "source": image.source, "frame": image.frame,
        "facts": plain(image.facts), "assumptions": list(image.assumptions),
    }
    set_reference(node, "mask", [mask])
    set_reference(node, "facts", [text_node(host, "xray-facts", title + " geometry", facts, key)])
    show_upright(host, image.view, node, index)
    return node


def window_of(image: XrayImage) -> tuple[float, float]:
    """Grey values shown black and white: the 0.5 and 99.5 percentiles inside the mask."""
    inside = image.pixels[image.mask]
    low, high = np.percentile(inside if inside.size else [0.0, 1.0], (0.5, 99.5))
    return float(low), float(high if high > low else low + 1.0)


def read_view(node: Any) -> CArmView:
    """The C-arm view of a volume node made by :func:`build_xray`, without its pixels."""
    import json

    return CArmView.from_dict(json.loads(references(node, "facts")[0].GetText())["view"])


def read_xray_node(node: Any) -> XrayImage:
    """The :class:`XrayImage` kept in a volume node made by :func:`build_xray`."""
    import json

    import slicer

    facts = json.loads(references(node, "facts")[0].GetText())
    pixels, masks, assumptions = slicer.util.arrayFromVolume(node)[0].copy(), references(node, "mask"), tuple(facts["assumptions"])
    mask = slicer.util.arrayFromVolume(masks[0])[0] > 0 if masks and masks[0].GetImageData() is not None else np.empty(0, bool)
    if mask.shape != pixels.shape:
        mask, assumptions = np.ones(pixels.shape, bool), (*assumptions, "The mask of the picture is gone: all of its pixels are used.")
    view = CArmView.from_dict(facts["view"])
    if pixels.shape != (view.rows, view.columns):
        told = f"{node.GetName()}: {pixels.shape[1]} x {pixels.shape[0]} for {view.columns} x {view.rows}"
        raise FluoroGuideError("The X-ray's pixels were replaced by others of another size", told, "Load its file again")
    return XrayImage(pixels, mask, view, facts["source"], facts["frame"], facts["facts"], assumptions)


def slice_nodes(host: Host, name: str) -> tuple[Any, Any]:
    """(slice node, composite node) of a layout name: Slicer's own when its view exists, else new singletons."""
    found = []
    for class_name in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
        node = host.scene.GetSingletonNode(name, class_name)
        if node is None:
            node = host.scene.CreateNodeByClass(class_name)
            node.UnRegister(None)
            node.SetName(name)
            node.SetLayoutName(name)
            node = host.scene.AddNode(node)
        found.append(node)
    return found[0], found[1]


def show_upright(host: Host, view: CArmView, volume: Any, index: int) -> Any:
    """Put a volume into its X-ray view, upright; to be repeated after scene close and load.  Returns the slice node."""
    name = view_name(index)
    node, composite = slice_nodes(host, name)
    composite.SetDoPropagateVolumeSelection(False)  # else every loaded volume would replace the X-ray
    composite.SetLinkedControl(False)
    composite.SetBackgroundVolumeID(volume.GetID())
    node.SetViewGroup(VIEW_GROUPS.get(name, 57 + index))
    node.GetSliceToRAS().DeepCopy(vtk_matrix(upright_slice_to_ras(view)))
    node.UpdateMatrices()
    logic = host.app_logic.GetSliceLogicByLayoutName(name) if host.app_logic.GetSliceLogics() else None
    if logic is not None:
        logic.FitSliceToBackground()
    return node


def show_all_upright(host: Host) -> None:
    """Make every X-ray view of the scene upright again (after a load)."""
    for node in find_all(host, "xray"):
        show_upright(host, read_xray_node(node).view, node, int(node.GetAttribute("FluoroGuide.key")))


class UprightLock:
    """Keeps a slice view on its X-ray plane, upright, whatever other modules do; zoom and pan go on working.

    Jumping to a markup, a new offset or another orientation would take the view off its one-slice image
    (SLICER_FACTS 2.2).  :meth:`release` it on exit and scene close.
    """

    def __init__(self, slice_node: Any, view: CArmView) -> None:
        import vtk

        self._node, self._matrix, self._busy = slice_node, upright_slice_to_ras(view), False
        self._tag = slice_node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._keep)
        self._keep()

    def _keep(self, caller: Any = None, event: str = "") -> None:
        if self._busy or np.allclose(array_of(self._node.GetSliceToRAS()), self._matrix, atol=1e-4):
            return
        self._busy = True
        try:
            self._node.GetSliceToRAS().DeepCopy(vtk_matrix(self._matrix))
            self._node.UpdateMatrices()
        finally:
            self._busy = False

    def release(self) -> None:
        """Stop watching; harmless when repeated."""
        if self._tag is not None:
            self._node.RemoveObserver(self._tag)
            self._tag = None
