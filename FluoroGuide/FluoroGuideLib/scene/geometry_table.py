"""The geometry report of an X-ray as a table node."""

from __future__ import annotations

from typing import Any

from ..imaging.geometry_report import GeometryReport, shown
from .host import Host
from .nodes import find, obtain, set_reference, text_node
from .xray_view import view_name

ROLE_TABLE = "geometry-report"
COLUMNS = ("quantity", "value", "from", "effect at the target", "if off by", "note")


def build_geometry_table(host: Host, report: GeometryReport, index: int) -> Any:
    """The table of X-ray ``index`` for people, with the whole report as JSON beside it; the X-ray's node points at both."""
    import vtk

    key = str(index)
    title = f"X-ray {view_name(index)[-1]} geometry report"
    node = obtain(host, "vtkMRMLTableNode", ROLE_TABLE, title, key)
    node.SetLocked(False)
    node.RemoveAllColumns()
    rows = [_row(entry) for entry in report.entries]
    rows += [("missing", text, "", "", "", "") for text in report.missing]
    rows += [("assumed", text, "", "", "", "") for text in report.assumptions]
    for i, name in enumerate(COLUMNS):
        column = vtk.vtkStringArray()
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(row[i])
        node.AddColumn(column)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    data = text_node(host, ROLE_TABLE + "-data", title + " data", report.to_dict(), key)
    xray = find(host, "xray", key)
    if xray is not None:
        set_reference(xray, "geometry", [node, data])
    return node


def _row(entry: object) -> tuple[str, ...]:
    effect = "" if entry.effect_mm is None else f"{entry.effect_mm:.2f} mm"
    return entry.label, shown(entry.value, entry.unit), entry.origin, effect, entry.step, entry.note
