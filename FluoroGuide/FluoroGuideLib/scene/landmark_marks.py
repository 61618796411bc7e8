"""Landmark pairs in the scene: points clicked in the CT, and the same points clicked in the X-rays, in the same order.

The CT's points lie in the volume's own frame and move with it.  An X-ray's points lie on its detector plane and can be
placed in its own view alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from ..geometry.frames import lps_from_ras
from ..registration.landmarks import LandmarkPair
from .host import Host
from .nodes import find, obtain, remove
from .xray_view import slice_nodes, view_name

ROLE_CT, ROLE_XRAY = "landmarks-ct", "landmarks-xray"
COLOR = (0.84, 0.37, 0.0)
"""Vermilion of Okabe and Ito's palette."""
OFF_PLANE_MM = 1.0
LEAST_PAIRS = 3


class LandmarkMarks:
    """The landmarks of a scene; ``host`` gives the scene of now."""

    def __init__(self, host: Any) -> None:
        self._host = host

    @property
    def host(self) -> Host:
        """The scene of now."""
        return self._host()

    def ct_node(self, volume: Any) -> Any:
        """The node of the CT's points; made when missing, under the volume's transform, and shown in the CT's views."""
        node = self._node(ROLE_CT, "", "Landmarks in the CT")
        parent = volume.GetParentTransformNode()
        node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
        display = node.GetDisplayNode()
        if display.GetNumberOfViewNodeIDs() == 0:
            for view in ("vtkMRMLSliceNodeRed", "vtkMRMLSliceNodeGreen", "vtkMRMLSliceNodeYellow", "vtkMRMLViewNode1"):
                display.AddViewNodeID(view)
        return node

    def xray_node(self, index: int) -> Any:
        """The node of the points in X-ray 0 (A) or 1 (B); made when missing."""
        node = self._node(ROLE_XRAY, str(index), f"Landmarks in X-ray {view_name(index)[-1]}")
        display, view_id = node.GetDisplayNode(), slice_nodes(self.host, view_name(index))[0].GetID()
        if display.GetNumberOfViewNodeIDs() != 1 or not display.IsDisplayableInView(view_id):
            display.RemoveAllViewNodeIDs()
            display.AddViewNodeID(view_id)
        return node

    def existing(self) -> list[Any]:
        """The nodes that are there: CT, X-ray A, X-ray B."""
        found = [find(self.host, ROLE_CT), *(find(self.host, ROLE_XRAY, str(i)) for i in (0, 1))]
        return [node for node in found if node is not None]

    def counts(self) -> tuple[int, int, int]:
        """How many points are placed in the CT, in X-ray A and in X-ray B."""
        nodes = [find(self.host, ROLE_CT), *(find(self.host, ROLE_XRAY, str(i)) for i in (0, 1))]
        return tuple(0 if node is None else node.GetNumberOfDefinedControlPoints() for node in nodes)

    def pairs(self, volume: Any, views: list[CArmView]) -> list[LandmarkPair]:
        """The n-th point of the CT with the n-th point of each X-ray; points without a partner are left out.

        Raises
        ------
        FluoroGuideError
            A point marked in an X-ray does not lie on it.
        """
        ct = find(self.host, ROLE_CT)
        if ct is None:
            return []
        points = []
        for i in range(ct.GetNumberOfDefinedControlPoints()):
            local = [0.0, 0.0, 0.0]
            volume.TransformPointFromWorld(list(ct.GetNthControlPointPositionWorld(i)), local)
            points.append(lps_from_ras(np.array(local)))
        made = []
        for index, view in enumerate(views):
            for i, pixel in enumerate(self._pixels(index, view)[: len(points)]):
                made.append(LandmarkPair(ct.GetNthControlPointLabel(i), points[i], pixel, index))
        return made

    def _pixels(self, index: int, view: CArmView) -> np.ndarray:
        node = find(self.host, ROLE_XRAY, str(index))
        count = 0 if node is None else node.GetNumberOfDefinedControlPoints()
        if not count:
            return np.empty((0, 2))
        points = lps_from_ras(np.array([node.GetNthControlPointPositionWorld(i) for i in range(count)], float))
        if np.abs((points - view.detector_center_mm) @ view.beam).max() > OFF_PLANE_MM:
            raise FluoroGuideError("A landmark does not lie on the X-ray", node.GetName(), "Clear it and mark it in the X-ray view")
        return view.project(points)

    def missing(self) -> str:
        """What is missing for a start, in plain words for messages; empty when there is enough."""
        ct, a, b = self.counts()
        if ct < LEAST_PAIRS:
            return "ct"
        return "" if max(min(ct, a), min(ct, b)) >= LEAST_PAIRS else "xray"

    def take_back(self) -> None:
        """Remove the point that was placed last: of the list that is furthest ahead."""
        nodes = [n for n in self.existing() if n.GetNumberOfControlPoints()]
        if nodes:
            last = max(nodes, key=lambda n: (n.GetNumberOfControlPoints(), self.existing().index(n)))
            last.RemoveNthControlPoint(last.GetNumberOfControlPoints() - 1)

    def clear(self) -> None:
        """Remove all landmarks."""
        remove(self.host, ROLE_CT)
        remove(self.host, ROLE_XRAY)

    def _node(self, role: str, key: str, name: str) -> Any:
        new = find(self.host, role, key) is None
        node = obtain(self.host, "vtkMRMLMarkupsFiducialNode", role, name, key)
        if new:
            node.SetHideFromEditors(True)
            node.SetControlPointLabelFormat("L%d")
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetColor(*COLOR)
            display.SetSelectedColor(*COLOR)
            display.SetTextScale(2.5)
            display.SetSnapMode(display.SnapModeUnconstrained)
        return node
