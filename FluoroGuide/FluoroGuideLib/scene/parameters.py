"""The user's choices, kept in the module's parameter node.  Results never go here: they have nodes of their own.

No ``from __future__ import annotations``: the wrapper evaluates the types.  Defaults apply where a scene lacks a value,
so parameters may be added; a name that scenes have is never given another meaning.
"""

from typing import Annotated

from slicer import (
    vtkMRMLDisplayableNode,
    vtkMRMLMarkupsLineNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSequenceNode,
    vtkMRMLVolumeNode,
)
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

Degrees = Annotated[float, WithinRange(-180, 180)]
Tilt = Annotated[float, WithinRange(-90, 90)]
Millimeters = Annotated[float, WithinRange(0, 2500)]
Spacing = Annotated[float, WithinRange(0, 5)]


@parameterNodeWrapper
class FluoroGuideParameterNode:
    """The user's choices."""

    # ---- patient and plan
    volume: vtkMRMLScalarVolumeNode | None
    planLine: vtkMRMLMarkupsLineNode | None
    structures: vtkMRMLSegmentationNode | None
    procedureName: str = ""
    laterality: str = "not told"
    level: str = ""
    confirmedLevel: str = ""
    carm: str = "generic_mobile"
    patientPosition: str = ""
    fluoroscopyPrimary: Degrees = 0.0
    fluoroscopySecondary: Tilt = 0.0
    # ---- X-ray
    xrayA: vtkMRMLScalarVolumeNode | None
    xrayB: vtkMRMLScalarVolumeNode | None
    useEnteredGeometry: bool = False
    primaryA: Degrees = 0.0
    primaryB: Degrees = 0.0
    secondaryA: Tilt = 0.0
    secondaryB: Tilt = 0.0
    sidA: Millimeters = 0.0
    sidB: Millimeters = 0.0
    sodA: Millimeters = 0.0
    sodB: Millimeters = 0.0
    spacingA: Spacing = 0.0
    spacingB: Spacing = 0.0
    sourceKind: str = "volume"
    sourceVolume: vtkMRMLVolumeNode | None
    sourceSequence: vtkMRMLSequenceNode | None
    sourceHost: str = "localhost"
    sourcePort: Annotated[int, WithinRange(1, 65535)] = 18944
    sourcePath: str = ""
    secondKind: str = "none"
    secondVolume: vtkMRMLVolumeNode | None
    secondSequence: vtkMRMLSequenceNode | None
    secondHost: str = "localhost"
    secondPort: Annotated[int, WithinRange(1, 65535)] = 18945
    secondPath: str = ""
    # ---- register
    searchAround: bool = True
    bones: vtkMRMLDisplayableNode | None
    # ---- guide
    # ---- record
