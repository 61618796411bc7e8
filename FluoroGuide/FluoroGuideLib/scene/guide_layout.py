"""Layout 5702 for guidance: both X-rays on top; bull's-eye, 3-D and the CT along the needle below."""

from __future__ import annotations

from .guide_views import BULLSEYE, PROGRESS
from .host import Host
from .xray_view import VIEW_COLORS, VIEW_GROUPS

LAYOUT_ID = 5702
GUIDE_GROUPS = {BULLSEYE: 59, PROGRESS: 60}
"""Each in a group of its own, as the X-ray views: linked views of the CT never turn them."""
LABELS = {BULLSEYE: ("E", "#56B4E9"), PROGRESS: ("P", "#009E73")}
_SLICE = """<item><view class="vtkMRMLSliceNode" singletontag="{tag}">
 <property name="orientation" action="default">{orientation}</property><property name="viewlabel" action="default">{label}</property>
 <property name="viewcolor" action="default">{color}</property><property name="viewgroup" action="default">{group}</property></view></item>"""
_ROW = '<item splitSize="{size}"><layout type="horizontal" split="true">{views}</layout></item>'


def layout_xml() -> str:
    """The description that Slicer's layout manager reads."""
    xrays = "".join(
        _SLICE.format(tag=tag, orientation="Coronal", label=tag[-1], color=VIEW_COLORS[tag], group=group) for tag, group in VIEW_GROUPS.items()
    )
    eye, way = (
        _SLICE.format(tag=tag, orientation="Axial", label=label, color=color, group=GUIDE_GROUPS[tag]) for tag, (label, color) in LABELS.items()
    )
    three_d = '<item><view class="vtkMRMLViewNode" singletontag="1"><property name="viewlabel" action="default">1</property></view></item>'
    return f'<layout type="vertical" split="true">{_ROW.format(size=560, views=xrays)}{_ROW.format(size=440, views=eye + three_d + way)}</layout>'


def register_layout(host: Host) -> bool:
    """Make layout 5702 known; False when the scene has no layout node.  Call it at start-up (see ``xray_view.register_layout``)."""
    layout = host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is None:
        return False
    if not layout.IsLayoutDescription(LAYOUT_ID):
        layout.AddLayoutDescription(LAYOUT_ID, layout_xml())
    return True


def show_layout(host: Host, wanted: bool, otherwise: int) -> bool:
    """Switch to the guide layout, or from it to another one; a layout that the user chose stays.  False without a layout node."""
    layout = host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is None:
        return False
    if wanted:
        register_layout(host)
        layout.SetViewArrangement(LAYOUT_ID)
    elif layout.GetViewArrangement() == LAYOUT_ID:
        layout.SetViewArrangement(otherwise)
    return True
