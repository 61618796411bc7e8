"""C-arm cards to start from, for pictures without tags.

A preset is a first guess to be edited: every number of it is an assumption until it was read off the machine or
calibrated (:mod:`~.calibration`).  Machines are named only where a public source gives their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import FluoroGuideError
from .geometry_card import check_card


@dataclass(frozen=True)
class Preset:
    """Starting values.

    Attributes
    ----------
    name
        For people.
    card
        The C-arm card without angles.
    field_mm
        Side or diameter of the detector's field; gives the pixel spacing of a frame-grabber picture.
    note
        What has to be checked.
    source
        Where the numbers are from; ``"generic"`` for round numbers of a class of machines.
    """

    name: str
    card: dict
    field_mm: float | None
    note: str
    source: str = "generic"
    rows: int | None = field(default=None)

    def card_for(self, rows: int, columns: int, **changes: object) -> dict:
        """A checked card for a picture of this size, with changes (angles, patient position, ...).

        Raises
        ------
        FluoroGuideError
            The preset cannot say the spacing of such a picture, or a value is not possible.
        """
        card = dict(self.card)
        if "pixel_spacing_mm" not in changes and "pixel_spacing_mm" not in card:
            if self.field_mm is None or rows != columns:
                hint = "Crop the picture to the detector's square field, or give pixel_spacing_mm"
                raise FluoroGuideError("The preset cannot tell the pixel spacing of a picture that is not square", f"{columns} x {rows}", hint)
            card["pixel_spacing_mm"] = [self.field_mm / rows] * 2
        elif self.rows and "pixel_spacing_mm" not in changes:
            card["pixel_spacing_mm"] = [v * self.rows / rows for v in card["pixel_spacing_mm"]]
        return check_card({**card, **changes})


_CHECK = "starting values: read SID, SOD and field size off the machine, or calibrate with a ball or a plate"
PRESETS = (
    Preset("Mobile C-arm, 23 cm (9 inch) intensifier", {"source_to_detector_mm": 1000.0, "source_to_isocenter_mm": 600.0}, 230.0,
           _CHECK + "; intensifiers distort: correct with a grid"),
    Preset("Mobile C-arm, 31 cm (12 inch) intensifier", {"source_to_detector_mm": 1000.0, "source_to_isocenter_mm": 600.0}, 310.0,
           _CHECK + "; intensifiers distort: correct with a grid"),
    Preset("Mobile C-arm, 30 cm flat detector", {"source_to_detector_mm": 1000.0, "source_to_isocenter_mm": 600.0}, 300.0, _CHECK),
    Preset("Fixed angiography system, 30 cm square field", {"source_to_detector_mm": 1100.0, "source_to_isocenter_mm": 750.0}, 300.0,
           _CHECK + "; the SID changes from run to run"),
    Preset("Siemens Cios Fusion, 30 cm flat detector", {"source_to_detector_mm": 1020.0, "pixel_spacing_mm": [0.194, 0.194]}, 298.0,
           "SID and spacing (at 1536 x 1536 pixels) from the source; the SOD is not in it: measure it",
           "github.com/rg2/xreg, xregCIOSFusionDICOM.cpp", 1536),
)


def preset(name: str) -> Preset:
    """The preset of a name (any unambiguous part of it, upper or lower case).

    Raises
    ------
    FluoroGuideError
        No such preset, or several.
    """
    found = [p for p in PRESETS if name.casefold() in p.name.casefold()]
    if len(found) != 1:
        raise FluoroGuideError("There is no single C-arm preset of this name", name, "Names: " + "; ".join(p.name for p in PRESETS))
    return found[0]
