"""The procedure library: JSON files, shipped ones and the user's own.

A broken file is told in one sentence and left out; the others load.  The user's file of the same key wins.  Oblique and
tilt are given from the detector's side (posterior for a prone patient) and towards or away from the side to be treated,
as textbooks do; :meth:`Procedure.view_angles` turns them into patient angles, and a :class:`CArmCard` into what the
console shows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import beam_axes
from ..resources import RESOURCES
from .approach import Room, SolvedView, nearest_angles
from .jsonfile import check_header, read_json
from .plan import RequiredView
from .safety import Structure, structures_from_labels
from .schema import first_problem

PROCEDURE_FORMAT, PROCEDURE_VERSION = "fluoroguide-procedure", 1
POSITIONS = {"prone": "HFP", "supine": "HFS"}
BASE_PRIMARY_DEG = {"posterior": 180.0, "anterior": 0.0}


@dataclass(frozen=True)
class Procedure:
    """One procedure; ``data`` is its whole JSON file.

    Attributes
    ----------
    key, title
        File name and name for people.
    path
        Where it was read.
    """

    key: str
    title: str
    data: Mapping
    path: Path

    @property
    def patient_position(self) -> str | None:
        """``HFP`` or ``HFS`` (head first is assumed, prone or supine is the file's), or None where it is open."""
        return POSITIONS.get(self.data["patient_position"].get("value"))

    @property
    def bone_allowed(self) -> bool:
        """Whether the needle goes through bone."""
        return bool(self.data["bone_crossing"]["allowed"])

    @property
    def cone_deg(self) -> float:
        """How far from the usual direction entry points are sought."""
        return float(self.data.get("search_cone_deg", 40.0))

    def view_angles(self, view: Mapping, side: str | None) -> tuple[float, float]:
        """Patient angles (LAO, CRA positive) of a view of this procedure, at the middle of its ranges.

        Raises
        ------
        FluoroGuideError
            The view is oblique towards a side and ``side`` is neither ``left`` nor ``right``.
        """
        ipsi, contra = _middle(view.get("ipsilateral_oblique_deg")), _middle(view.get("contralateral_oblique_deg"))
        tilt = _middle(view.get("cephalad_deg")) or 0.0
        if view["detector_side"] == "lateral":
            return (-90.0 if side == "right" else 90.0), tilt
        toward = (ipsi or 0.0) - (contra or 0.0)
        if toward and side not in ("left", "right"):
            raise FluoroGuideError(f"The view '{view['name']}' is oblique to one side", side or "none given", "Say left or right")
        to_left = toward if side == "left" else -toward
        base = BASE_PRIMARY_DEG[view["detector_side"]]
        # Seen from behind (180) the detector goes to the patient's left with a falling angle: sin(180 - x) > 0.
        primary = base - to_left if base else to_left
        return (primary + 180) % 360 - 180, tilt

    def direction(self, side: str | None) -> np.ndarray:
        """Unit vector (3,), LPS, from the target to the detector of the first start view: where the needle usually comes from."""
        for view in self.data["views"]:
            if view["detector_side"] != "lateral":
                return beam_axes(*self.view_angles(view, side))[2]
        return np.array([0, 1.0, 0]) if self.patient_position == "HFP" else np.array([0, -1.0, 0])

    def start_views(self, side: str | None, room: Room, target_lps_mm: np.ndarray, which: str = "views") -> list[SolvedView]:
        """Start (``views``) or confirmation (``confirmation_views``) views as C-arm positions centred on the target."""
        center, shift = room.table(np.asarray(target_lps_mm, float))
        solved = []
        for item in self.data[which]:
            a, b = self.view_angles(item, side)
            wanted = beam_axes(a, b)[2]
            options = [(1, wanted)] if item["detector_side"] != "lateral" else [(1, wanted), (-1, wanted * [-1, -1, 1])]
            a, b, off = min((nearest_angles(room.pose[:3, :3].T @ d, room) for _, d in options), key=lambda o: round(o[2], 6))
            source = f"Source: {item['source']}." if item["source"] else "No source: unverified, a starting value."
            reasons = [item["text"][0].upper() + item["text"][1:] + ".", source]
            if off > 1e-6:
                reasons.append(f"The C-arm does not reach it: this is the nearest view, {off:.1f} deg off.")
            text = room.card.describe(a, b, room.patient_position)
            solved.append(SolvedView(item["name"], a, b, center, shift, room.view(a, b, center), off, None, text, tuple(reasons)))
        return solved

    def required_views(self, side: str | None) -> tuple[RequiredView, ...]:
        """The confirmation views as a plan stores them."""
        names: dict[str, RequiredView] = {}
        for view in self.data["confirmation_views"]:
            try:
                names[view["name"]] = RequiredView(view["name"], *self.view_angles(view, side))
            except FluoroGuideError:  # the side is not decided yet
                names[view["name"]] = RequiredView(view["name"])
        return tuple(names.values())

    def structures(self, labels: object, names: Mapping[int, str]) -> tuple[list[Structure], list[str]]:
        """(structures of a label image to keep away from, names of those the label image lacks)."""
        wanted = {s["name"]: float(s["clearance_mm"]) for s in self.data["safety_structures"]}
        found = structures_from_labels(labels, names, wanted)
        return found, sorted(set(wanted) - {s.name for s in found})

    def text(self) -> list[str]:
        """The procedure as lines for people; facts without a source are marked ``(unverified)``."""
        lines = [self.title, f"Anatomy: {self.data['anatomy']}"]
        lines += [_line("Position", self.data["patient_position"]), _line("Target", self.data["target"])]
        lines += [_line(f"View '{v['name']}'", v, _angles(v)) for v in self.data["views"]]
        lines += [_line(f"Confirm '{v['name']}'", v, _angles(v)) for v in self.data["confirmation_views"]]
        needle = self.data["needle"]
        size = f"{_join(needle['gauge'])} gauge, {_join(needle['length_mm'])} mm" if needle["gauge"] else "chosen by the user"
        lines += [_line("Needle", needle, size), _line("Contrast", self.data["contrast"])]
        volumes = {"contrast_ml": "Contrast volume", "injectate_ml": "Injectate volume", "joint_capacity_ml": "Joint capacity"}
        lines += [_line(name, self.data[key], f"{self.data[key]['range'][0]:g}-{self.data[key]['range'][1]:g} ml")
                  for key, name in volumes.items() if self.data.get(key)]
        lines += [_line("Typical dose", self.data["dose"])] if self.data.get("dose") else ["Typical dose: none found."]
        lines += [_line("Note", note) for note in self.data.get("notes", [])]
        care = self.data["after_care"]
        lines += ["Checklist:"] + [f"[ ] {item}" for item in self.data["checklist"]]
        return lines + ["After care:"] + [f"- {t}" for t in care["text"]] + ["Come back at once with:"] + [f"- {t}" for t in care["red_flags"]]


def _middle(limits: object) -> float | None:
    return None if limits is None else float(sum(limits)) / 2


def _join(values: list) -> str:
    return " or ".join(f"{v:g}" for v in values)


def _angles(view: Mapping) -> str:
    parts = []
    for word in ("ipsilateral oblique", "contralateral oblique", "cephalad"):
        if limits := view.get(word.replace(" ", "_") + "_deg"):
            low, high = limits
            parts.append(f"{word} {low:g} deg" if low == high else f"{word} {low:g}-{high:g} deg")
    return ", ".join(parts)


def _line(name: str, fact: Mapping, value: str = "") -> str:
    words = "; ".join(p for p in (value, fact.get("text", "")) if p)
    return f"{name}: {words} ({'source: ' + fact['source'] if fact['status'] == 'cited' else 'unverified'})"


@dataclass(frozen=True)
class Library:
    """Procedures by key, and one sentence per file that could not be read."""

    procedures: Mapping[str, Procedure]
    problems: tuple[str, ...] = field(default_factory=tuple)

    def get(self, key: str) -> Procedure:
        """The procedure of a key.

        Raises
        ------
        FluoroGuideError
            There is none (the known keys are listed), or its file is broken.
        """
        if key in self.procedures:
            return self.procedures[key]
        broken = [p for p in self.problems if f"({key}.json" in p]
        hint = broken[0] if broken else "Known: " + ", ".join(sorted(self.procedures))
        raise FluoroGuideError("The procedure is unknown", key, hint)


@functools.cache
def procedure_schema() -> dict:
    """The JSON Schema of a procedure file."""
    return read_json(RESOURCES / "procedure.schema.json", "procedure schema")


def read_procedure(path: str | Path) -> Procedure:
    """One procedure file.

    Raises
    ------
    FluoroGuideError
        Missing, no JSON, another format or version, or not what the schema asks: one sentence that names the place.
    """
    path = Path(path)
    data = check_header(read_json(path, "procedure file"), "procedure file", PROCEDURE_FORMAT, PROCEDURE_VERSION)
    problem = first_problem(data, procedure_schema())
    if problem:
        raise FluoroGuideError("The procedure file is invalid", f"{path.name}: {problem}", "Compare it with Resources/procedure.schema.json")
    if data["key"] != path.stem:
        raise FluoroGuideError("The procedure file's key is not its file name", f"{path.name}: {data['key']}", "Rename one of them")
    return Procedure(data["key"], data["title"], data, path)


def load_library(*folders: str | Path) -> Library:
    """All procedures: the shipped ones, then those of the user's folders, which replace shipped ones of the same key."""
    procedures, problems = {}, []
    for folder in (RESOURCES / "Procedures", *map(Path, folders)):
        if not folder.is_dir():
            problems.append(FluoroGuideError("The folder of procedures does not exist", folder, "Choose another folder").message)
        for path in sorted(folder.glob("*.json")):
            try:
                procedures[path.stem] = read_procedure(path)
            except FluoroGuideError as error:
                problems.append(error.message)
    return Library(procedures, tuple(problems))
