"""Sample data as Slicer's module of that name offers them: a phantom made on the spot, and a real CT that is downloaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .host import Host
from .nodes import set_volume

CATEGORY = "FluoroGuide"
ICONS = Path(__file__).resolve().parents[2] / "Resources" / "Icons"


def register(load_phantom: Callable[[], list[Any]], host: Callable[[], Host], title: str) -> bool:
    """Tell the Sample Data module; False where there is none.

    Parameters
    ----------
    load_phantom
        Puts the phantom case into the scene and returns its nodes.
    host
        Gives the scene of now.
    title
        The category's name for people.
    """
    try:
        from SampleData import SampleDataLogic
    except ImportError:
        return False
    if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):  # newer Slicer: titles can be translated
        SampleDataLogic.registerCustomSampleDataCategory(category=CATEGORY, title=title)
    for name, picture, load in (
        ("FluoroGuideLumbarPhantom", "SampleLumbarPhantom.png", lambda source: load_phantom()),
        ("FluoroGuideThoraxCT", "SampleThoraxCT.png", lambda source: load_thorax(host())),
    ):
        SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY, sampleName=name, nodeNames=name, fileNames=name, uris="made-on-this-computer", customDownloader=load,
            thumbnailFileName=str(ICONS / picture),
        )
    return True


def load_thorax(host: Host) -> list[Any]:
    """The chest CT of the demo with its structures as a segmentation; downloaded at the first time (35 MB).

    Raises
    ------
    FluoroGuideError
        No network, or a download that is not the expected file.
    """
    import slicer

    from ..evaluation.sample import thorax_ct

    image, labels, names = thorax_ct()
    scene = host.scene
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Thorax CT")
    set_volume(volume, image)
    volume.CreateDefaultDisplayNodes()
    label_node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "structures")
    set_volume(label_node, labels)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Thorax structures")
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    logic.ImportLabelmapToSegmentationNode(label_node, segmentation)
    held = segmentation.GetSegmentation()
    for n in range(held.GetNumberOfSegments()):
        segment = held.GetNthSegment(n)
        segment.SetName(names.get(segment.GetLabelValue(), segment.GetName()))
    segmentation.CreateDefaultDisplayNodes()
    segmentation.GetDisplayNode().SetVisibility(False)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    scene.RemoveNode(label_node)
    logic.SetMRMLScene(None)
    return [volume, segmentation]
