"""Volumes as they lie in the scene, for the worker: no copy is made of them, and their conversion is the worker's work.

A 512 x 512 x 400 CT takes a second to convert and to copy: in the process of the window that would be a frozen window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class RawVolume:
    """Voxels with their place in space; they must not be changed while the worker may still be given them.

    Attributes
    ----------
    voxels
        Array [k, j, i], HU (MR: any scale); usually a view of the scene's own memory.
    spacing, origin, direction
        LPS geometry as SimpleITK has it: mm (3,), mm (3,), cosines (9,) row by row.
    modality, name
        As in :class:`~FluoroGuideLib.anatomy.attenuation.AttenuationVolume`; an empty modality is told from the values.
    contrast, facts
        Of an MR, where tags tell them: see :mod:`~FluoroGuideLib.anatomy.mr_series`.
    """

    voxels: np.ndarray
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    modality: str = "CT"
    name: str = ""
    contrast: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    def image(self) -> object:
        """A SimpleITK image of the same."""
        import SimpleITK as sitk

        voxels = self.voxels.astype(np.uint8) if self.voxels.dtype == bool else self.voxels
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing([float(s) for s in self.spacing])
        image.SetOrigin([float(s) for s in self.origin])
        image.SetDirection([float(s) for s in self.direction])
        return image

    def ready(self) -> object:
        """What tasks work with: an :class:`AttenuationVolume`; of an MR its pseudo-attenuation.

        Raises
        ------
        FluoroGuideError
            It cannot be a CT, or the MR cannot be registered.
        """
        from ..anatomy.attenuation import attenuation_from_hu
        from ..anatomy.mr import attenuation_of_series
        from ..anatomy.mr_series import modality_from_values, series_of

        image, modality, note = self.image(), self.modality, ""
        if not modality:
            modality, note = modality_from_values(image)
        if modality != "MR":
            return attenuation_from_hu(image, modality, self.name)
        return attenuation_of_series(series_of(image, self.facts, self.contrast), self.name, note)


@dataclass(frozen=True, eq=False)
class RawLabels(RawVolume):
    """A label image of bones, on any grid; ``names``: label value -> name."""

    names: Mapping[int, str] = field(default_factory=dict)

    def ready(self) -> object:
        """A :class:`BoneLabels`."""
        return BoneLabels(self.image(), dict(self.names))


@dataclass(frozen=True, eq=False)
class BoneLabels:
    """A SimpleITK label image and the names of its values."""

    image: object
    names: Mapping[int, str] = field(default_factory=dict)
