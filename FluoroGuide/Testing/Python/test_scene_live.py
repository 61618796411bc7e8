"""Live frames and runs in the real MRML scene: in place, on the detector plane, upright; the geometry report as a table."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer")

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.dicom_xa import read_run
from FluoroGuideLib.imaging.geometry_report import geometry_report
from FluoroGuideLib.imaging.live_replay import ReplaySource
from FluoroGuideLib.imaging.preprocess import normalize
from FluoroGuideLib.imaging.xa_writer import write_xa
from FluoroGuideLib.scene import host as host_module
from FluoroGuideLib.scene.geometry_table import COLUMNS, build_geometry_table
from FluoroGuideLib.scene.live_source import LiveXray, NodeSource, build_run, find_run, recorded_run
from FluoroGuideLib.scene.nodes import array_of, references
from FluoroGuideLib.scene.xray_view import build_xray, slice_nodes, upright_slice_to_ras


def frames(count: int = 4, shape=(48, 64)) -> np.ndarray:
    r, c = np.mgrid[:shape[0], :shape[1]]
    return np.stack([
        (3000 + 2000 * np.sin(r / 9 + i) * np.cos(c / 7) - 1500 * (np.abs(c - 10 - 5 * i) < 2)).astype(np.uint16) for i in range(count)
    ])


@pytest.fixture
def host():
    found = host_module.start()
    found.scene.Clear(0)
    yield found
    found.scene.Clear(0)


@pytest.fixture
def run(tmp_path):
    write_xa(tmp_path / "x.dcm", frames(), primary_deg=0, secondary_deg=0, sid_mm=1000, sod_mm=600, pixel_spacing_mm=(0.5, 0.5), frame_time_ms=50,
             primary_increments_deg=[0, 10, 20, 30])
    return read_run(tmp_path / "x.dcm")


VIEW = CArmView.from_angles(20, -10, sid_mm=1000, sod_mm=600, rows=48, columns=64, pixel_spacing_mm=(0.5, 0.5))


def ras_of_pixel(node, column: int, row: int) -> np.ndarray:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return (array_of(matrix) @ (column, row, 0, 1))[:3]


# ---- a run ------------------------------------------------------------------------------------------------------
def test_a_run_is_a_sequence_on_its_detector_planes(host, run):
    shown = build_run(host, run, 0)
    assert shown.sequence.GetNumberOfDataNodes() == 4
    assert [float(shown.sequence.GetNthIndexValue(i)) for i in range(4)] == pytest.approx([0, 0.05, 0.1, 0.15])
    assert shown.browser.GetPlaybackRateFps() == pytest.approx(20)
    for i in (0, 2):
        view = shown.select(i)
        assert view.angles_deg[0] == pytest.approx(10 * i)
        # LPS to RAS by hand: x and y change sign.  Pixel (5, 7) is where the view says, row 7 of the numpy array.
        np.testing.assert_allclose(ras_of_pixel(shown.node, 5, 7), run.view(i).pixel_mm((5, 7))[0] * (-1, -1, 1), atol=1e-3)
        import slicer

        np.testing.assert_allclose(slicer.util.arrayFromVolume(shown.node)[0].shape, (48, 64))
        slice_node, composite = slice_nodes(host, "XRayA")
        np.testing.assert_allclose(array_of(slice_node.GetSliceToRAS())[:3, :3], upright_slice_to_ras(run.view(i))[:3, :3], atol=1e-6)
        assert composite.GetBackgroundVolumeID() == shown.node.GetID()
    with pytest.raises(FluoroGuideError, match="no such frame"):
        shown.select(4)


def test_the_view_stays_upright_while_the_browser_plays(host, run):
    shown = build_run(host, run, 0)
    shown.follow()
    shown.browser.SetSelectedItemNumber(3)  # as the browser's own timer does
    slice_node, _ = slice_nodes(host, "XRayA")
    np.testing.assert_allclose(array_of(slice_node.GetSliceToRAS())[:3, :3], upright_slice_to_ras(run.view(3))[:3, :3], atol=1e-6)
    assert "LAO 30.0" in shown.node.GetName()
    shown.release()
    shown.release()


def test_building_again_replaces_and_a_loaded_run_is_found(host, run, tmp_path):
    import slicer

    build_run(host, run, 0)
    build_run(host, run, 0, frames=range(2))
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 1
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") == 1
    assert host.scene.WriteToMRB(str(tmp_path / "x.mrb"), None, slicer.vtkMRMLMessageCollection())
    host.scene.Clear(0)
    assert find_run(host, 0) is None
    assert host.scene.ReadFromMRB(str(tmp_path / "x.mrb"), True, slicer.vtkMRMLMessageCollection())
    found = find_run(host, 0)
    assert found.sequence.GetNumberOfDataNodes() == 2
    assert found.select(1).angles_deg[0] == pytest.approx(10)
    np.testing.assert_allclose(ras_of_pixel(found.node, 0, 0), run.view(1).pixel_mm((0, 0))[0] * (-1, -1, 1), atol=1e-3)


def test_a_sequence_is_replayed_at_its_own_rate(host, run):
    shown = build_run(host, run, 0)
    recorded = recorded_run(shown.sequence)
    assert recorded.missing == ()
    source = ReplaySource(recorded, speed=2.0, queue_size=8)
    np.testing.assert_allclose(source.times_s(), [0, 0.05, 0.1, 0.15], atol=1e-9)
    with source:
        got = list(source.frames(2.0))
    assert [f.image.frame for f in got] == [0, 1, 2, 3]
    assert got[3].image.view.angles_deg[0] == pytest.approx(30)
    assert got[0].image.facts["polarity"] == "bone bright"


# ---- live -------------------------------------------------------------------------------------------------------
def test_a_node_that_changes_is_a_live_source(host):
    import slicer

    node = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Image_Reference")
    pictures = frames()
    slicer.util.updateVolumeFromArray(node, pictures[0][None])
    source = NodeSource(node, VIEW, polarity="bone dark")
    target = None
    with source:
        live = LiveXray(host, source, 1)
        assert live.take() is None
        for picture in pictures:
            slicer.util.arrayFromVolume(node)[0] = picture
            slicer.util.arrayFromVolumeModified(node)
            frame = live.take()
            assert frame is not None
            target = live.node if target is None else target
            assert live.node is target  # in place
            np.testing.assert_allclose(slicer.util.arrayFromVolume(live.node)[0], frame.image.pixels)
        np.testing.assert_allclose(frame.image.pixels, normalize(pictures[-1], polarity="bone dark").pixels, atol=0.2)
        np.testing.assert_allclose(ras_of_pixel(live.node, 63, 47), VIEW.pixel_mm((63, 47))[0] * (-1, -1, 1), atol=1e-3)
        assert source.counters.received == 4
        before = live.node.GetID()
        source.set_geometry(CArmView.from_angles(0, 0, sid_mm=1000, sod_mm=600, rows=48, columns=64, pixel_spacing_mm=(0.5, 0.5)))
        slicer.util.arrayFromVolumeModified(node)
        live.take()
        assert live.node.GetID() == before
        np.testing.assert_allclose(ras_of_pixel(live.node, 31, 23)[1], 400, atol=1e-3)  # the detector is 400 mm anterior
    slicer.util.arrayFromVolumeModified(node)
    assert source.counters.received == 5


def test_what_is_no_live_volume(host):
    with pytest.raises(FluoroGuideError, match="not a volume"):
        NodeSource(None)
    with pytest.raises(FluoroGuideError, match="not a volume"):
        NodeSource(host.scene.AddNewNodeByClass("vtkMRMLModelNode", "x"))
    import slicer

    node = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "three slices")
    slicer.util.updateVolumeFromArray(node, np.zeros((3, 9, 9), np.uint8))
    with NodeSource(node, VIEW) as source:
        slicer.util.arrayFromVolumeModified(node)
        assert source.counters.refused >= 1


# ---- report -----------------------------------------------------------------------------------------------------
def test_the_report_is_a_table(host, run):
    xray = build_xray(host, run.image(0), 0)
    table = build_geometry_table(host, geometry_report(run), 0)
    assert [table.GetTable().GetColumnName(i) for i in range(len(COLUMNS))] == list(COLUMNS)
    cells = {table.GetCellText(i, 0): [table.GetCellText(i, j) for j in range(len(COLUMNS))] for i in range(table.GetNumberOfRows())}
    row = cells["SID (0018,1110)"]
    assert row[1:3] == ["1000 mm", "tag"]
    assert row[4] == "1 % (10.0 mm)"
    assert row[3].endswith("mm")
    assert table in references(xray, "geometry")
    assert build_geometry_table(host, geometry_report(run), 0) is table
