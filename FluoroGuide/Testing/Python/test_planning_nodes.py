"""Planning in MRML: procedure text, structures, suggestions and views, rebuilt and saved; surfaces by closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.anatomy.surfaces import structure_surface
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.planning.approach import Room, bulls_eye
from FluoroGuideLib.planning.carms import carm
from FluoroGuideLib.planning.plan import Trajectory
from FluoroGuideLib.planning.procedures import load_library
from FluoroGuideLib.planning.safety import Structure, check_trajectory
from FluoroGuideLib.planning.suggest import Candidate


def a_ball(direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> sitk.Image:
    """A ball of 8 mm radius about (11, 12, 13) in voxels of 1 x 0.8 x 1.25 mm."""
    image = sitk.Image([40, 50, 32], sitk.sitkUInt8)
    image.SetSpacing((1.0, 0.8, 1.25))
    image.SetDirection(direction)
    step = np.reshape(direction, (3, 3)) * [1.0, 0.8, 1.25]
    image.SetOrigin((np.array([11.0, 12, 13]) - step @ [20, 25, 16]).tolist())
    k, j, i = np.mgrid[:32, :50, :40]
    points = np.stack([i - 20, j - 25, k - 16], -1) @ step.T
    result = sitk.GetImageFromArray((np.linalg.norm(points, axis=-1) < 8).astype(np.uint8))
    result.CopyInformation(image)
    return result


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, 1, 0, 0, 0, 1), (0, -1, 0, 1, 0, 0, 0, 0, -1)])
def test_surface_of_a_ball(direction: tuple[float, ...]) -> None:
    points, faces = structure_surface(a_ball(direction))
    away = points - (11, 12, 13)
    assert np.linalg.norm(away, axis=1).mean() == pytest.approx(8, abs=0.4)
    a, b, c = (points[faces[:, n]] for n in range(3))
    volume = (a * np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.06)  # positive: normals face outward
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1].tolist()) == {2}  # closed
    assert len(structure_surface(a_ball(direction), triangles=300)[1]) <= 320
    with pytest.raises(FluoroGuideError, match="has no surface"):
        structure_surface(sitk.Image([4, 4, 4], sitk.sitkUInt8))


def test_planning_nodes(tmp_path: Path) -> None:
    pytest.importorskip("slicer")
    from FluoroGuideLib.scene import host as host_module
    from FluoroGuideLib.scene import nodes, planning_nodes

    host = host_module.start()
    host.scene.Clear(0)
    procedure = load_library().get("si_joint")
    text = planning_nodes.build_procedure(host, procedure)
    assert "Come back at once with:" in text.GetText()
    assert text.GetAttribute("FluoroGuide.procedure") == "si_joint"
    structures = [Structure("aorta", a_ball(), 3.0), Structure("cord", a_ball(), 2.0)]
    models = planning_nodes.build_structures(host, structures, None)
    bounds = models[0].GetPolyData().GetBounds()
    np.testing.assert_allclose(bounds, (-19, -3, -20, -4, 5, 21), atol=0.9)  # RAS of the ball about LPS (11, 12, 13)
    assert models[0].GetAttribute("FluoroGuide.clearance_mm") == "3.0"
    planning_nodes.build_structures(host, structures[1:], None)
    assert [n.GetName() for n in nodes.find_all(host, "structure")] == ["cord"]
    path, room = Trajectory("suggested 1", (10, 90, 30), (12, 40, 20)), Room(carm(), "HFP")
    view = bulls_eye(path, room)
    candidate = Candidate(path, 0.7, 12.0, 5.0, check_trajectory(path), view, ("Because.",))
    line = planning_nodes.build_suggestions(host, [candidate, candidate], None)[0]
    assert line.GetAttribute("FluoroGuide.reasons") == "Because."
    assert line.GetLocked()
    again = planning_nodes.accepted(line, "needle", 22)
    np.testing.assert_allclose((again.entry_lps_mm, again.target_lps_mm), ((10, 90, 30), (12, 40, 20)))
    planning_nodes.build_suggestions(host, [candidate], None)
    assert len(nodes.find_all(host, "suggestion")) == 1
    planning_nodes.build_views(host, [view])
    assert planning_nodes.read_views(host)[0]["text"] == view.text
    count = host.scene.GetNumberOfNodes()
    planning_nodes.build_procedure(host, procedure)
    planning_nodes.build_views(host, [view])
    assert host.scene.GetNumberOfNodes() == count
    host.scene.Clear(0)
    assert planning_nodes.read_views(host) == []
