"""CT, CBCT (and later MR) as the linear attenuation that X-rays meet."""

from __future__ import annotations

from dataclasses import dataclass, field

WATER_ATTENUATION_PER_MM = 0.02
"""Linear attenuation of water, 1/mm, at a typical effective energy of fluoroscopy (about 65-70 keV; DESIGN 3)."""


@dataclass(frozen=True, eq=False)
class AttenuationVolume:
    """A volume of linear attenuation.

    Attributes
    ----------
    image
        3-D SimpleITK float32 image, 1/mm, with its LPS geometry.
    modality
        ``"CT"``, ``"CBCT"`` or ``"MR"``: what it was made from.
    name
        A name for people (file name without folders); no patient identifiers.
    parts
        SimpleITK label image on the same grid with bone parts, or None.
    part_names
        Label value -> name.
    """

    image: object
    modality: str = "CT"
    name: str = ""
    parts: object | None = None
    part_names: dict[int, str] = field(default_factory=dict)
