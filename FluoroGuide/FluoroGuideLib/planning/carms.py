"""C-arm cards: what a C-arm can reach, how its images are made, and what its console shows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, beam_axes, describe_angles, patient_angles
from ..resources import RESOURCES
from .jsonfile import check_header, read_json, take

CARM_FORMAT, CARM_VERSION = "fluoroguide-carm", 1
CONSOLES = ("gantry", "patient")
CARM_FOLDER = RESOURCES / "CArms"
PRONE = ("HFP", "FFP")


def gantry_angles(primary_deg: float, secondary_deg: float, patient_position: str) -> tuple[float, float]:
    """Patient angles to gantry angles (degrees): the inverse of :func:`geometry.carm.patient_angles`.

    HFS (a, b); HFP (a - 180, b); FFS (-a, -b); FFP (180 - a, -b); the primary angle lies in [-180, 180).

    Raises
    ------
    FluoroGuideError
        An unknown patient position: it is never assumed.
    """
    a, b = primary_deg, secondary_deg
    if patient_position == "HFP":
        a = a - 180  # HFS, FFS and FFP are their own inverses
    else:
        a, b, _ = patient_angles(a, b, patient_position)
    return (a + 180) % 360 - 180, b


@dataclass(frozen=True)
class CArmCard:
    """What a C-arm can do.

    Attributes
    ----------
    name
        For people.
    sid_mm, sod_mm, rows, columns, pixel_spacing_mm
        Its image geometry, as :meth:`CArmView.from_angles` takes it.
    primary_range_deg, secondary_range_deg
        (lowest, highest) gantry angle that it reaches; 0, 0 is the detector straight above the table.
    table_range_mm
        Greatest table shift from where it stands now to either side: (lateral, vertical, longitudinal), or None: free.
    console
        ``gantry``: its display counts from the gantry, as if each patient lay supine head first; ``patient``: it
        knows the patient's position and shows patient angles.
    tube_over_table
        True for over-couch tubes; False keeps the tube under the table, which keeps scatter off the operator's head.
    source, status
        Where the numbers come from; ``cited`` or ``unverified``.
    """

    name: str
    sid_mm: float = 1000.0
    sod_mm: float = 600.0
    rows: int = 512
    columns: int = 512
    pixel_spacing_mm: tuple[float, float] = (0.58, 0.58)
    primary_range_deg: tuple[float, float] = (-90.0, 90.0)
    secondary_range_deg: tuple[float, float] = (-45.0, 45.0)
    table_range_mm: tuple[float, float, float] | None = None
    console: str = "gantry"
    tube_over_table: bool = False
    source: str | None = None
    status: str = "unverified"

    def __post_init__(self) -> None:
        if self.console not in CONSOLES:
            raise FluoroGuideError("The C-arm card's console is unknown", self.console, "Use one of " + ", ".join(CONSOLES))
        for name in ("primary_range_deg", "secondary_range_deg"):
            low, high = _numbers(getattr(self, name), 2, name)
            if not -180 <= low <= high <= 180:
                raise FluoroGuideError(f"The C-arm card's {name} is not (lowest, highest) in degrees", (low, high))
            object.__setattr__(self, name, (low, high))
        object.__setattr__(self, "pixel_spacing_mm", _numbers(self.pixel_spacing_mm, 2, "pixel_spacing_mm"))
        if self.table_range_mm is not None:
            object.__setattr__(self, "table_range_mm", _numbers(self.table_range_mm, 3, "table_range_mm"))
        self.view(0.0, 0.0)  # checks distances and spacing

    def view(self, primary_deg: float, secondary_deg: float, isocenter_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> CArmView:
        """The view at patient angles with the isocentre at a point of the frame wanted."""
        return CArmView.from_angles(
            primary_deg, secondary_deg, sid_mm=self.sid_mm, sod_mm=self.sod_mm, rows=self.rows, columns=self.columns,
            pixel_spacing_mm=self.pixel_spacing_mm, table_offset_mm=isocenter_mm)

    def reaches(self, primary_deg: float, secondary_deg: float, patient_position: str, slack_deg: float = 1e-9) -> bool:
        """Whether the gantry reaches these patient angles, with the tube on its side of the table."""
        a, b = gantry_angles(primary_deg, secondary_deg, patient_position)
        if np.cos(np.radians(a)) * np.cos(np.radians(b)) * (-1 if self.tube_over_table else 1) < -1e-9:
            return False
        (a0, a1), (b0, b1) = self.primary_range_deg, self.secondary_range_deg
        return a0 - slack_deg <= a <= a1 + slack_deg and b0 - slack_deg <= b <= b1 + slack_deg

    def describe(self, primary_deg: float, secondary_deg: float, patient_position: str) -> str:
        """Patient angles in words, with what the console shows and how to turn the C-arm where the two differ."""
        inside = describe_angles(primary_deg, secondary_deg)
        a, b = gantry_angles(primary_deg, secondary_deg, patient_position)
        if patient_position == "HFS":
            return f"{inside} (patient and console)"
        side = "left" if beam_axes(primary_deg, secondary_deg)[2][0] > 0 else "right"
        turn = f"detector {abs(a):.1f} deg from overhead to the patient's {side}" if abs(a) >= 0.05 else "detector straight overhead"
        shown = describe_angles(a, b) if self.console == "gantry" else inside
        return f"{inside} of the patient ({patient_position}); {turn}; console shows {shown}"

    @classmethod
    def from_dict(cls, data: dict) -> CArmCard:
        """A card as its JSON file says it; ``note`` is for people."""
        data = check_header(data, "C-arm card", CARM_FORMAT, CARM_VERSION)
        take(data, "name", "C-arm card")
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known - {"format", "version", "note"})
        if unknown:
            raise FluoroGuideError("The C-arm card has an unknown key", unknown[0], "Known: " + ", ".join(sorted(known)))
        try:
            return cls(**{k: v for k, v in data.items() if k in known})
        except TypeError as error:
            raise FluoroGuideError("The C-arm card has a value of the wrong kind", error) from None


def _numbers(values: object, count: int, name: str) -> tuple[float, ...]:
    try:
        result = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        result = ()
    if len(result) != count or not np.isfinite(result).all():
        raise FluoroGuideError(f"The C-arm card's {name} is not {count} numbers", values)
    return result


def read_carm(path: str | Path) -> CArmCard:
    """A C-arm card from its JSON file."""
    return CArmCard.from_dict(read_json(path, "C-arm card"))


def carm(name: str = "generic_mobile", folder: str | Path | None = None) -> CArmCard:
    """A card by its file's name: from the user's folder first, then the shipped ones; a path is read as it is.

    Raises
    ------
    FluoroGuideError
        There is none of that name (the known ones are listed).
    """
    if str(name).endswith(".json"):
        return read_carm(name)
    for place in ([Path(folder)] if folder else []) + [CARM_FOLDER]:
        if (place / f"{name}.json").is_file():
            return read_carm(place / f"{name}.json")
    raise FluoroGuideError("The C-arm is unknown", name, "Known: " + ", ".join(sorted(p.stem for p in CARM_FOLDER.glob("*.json"))))
