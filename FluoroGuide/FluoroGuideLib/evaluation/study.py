"""What is evaluated: settings, subjects, and the list of runs that follows from them, the same wherever they run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError

PARTS = ("whole", "auto", "label")
VIEWS = {"two": (2,), "one": (1,), "both": (2, 1)}


@dataclass(frozen=True)
class Settings:
    """How to evaluate.

    Attributes
    ----------
    starts, starts_per_scene
        Runs per subject (and number of views), and how many of them share one set of X-rays.
    views
        ``"two"``, ``"one"`` (the first view alone) or ``"both"``.
    moved_mm
        Displacements of the surroundings against the labelled bone, taken in turn; empty for rigid anatomy.
    part
        What is registered: ``"whole"`` volume, ``"auto"`` (the bone at the target) or ``"label"`` (the target's label).
    largest_start_mm, shell_mm, largest_rotation_deg
        Starts lie evenly over shells of initial mTRE from 0 to the largest.
    success_mm
        A run succeeds below this mTRE (two views) or mRPD (one view: its depth cannot be seen).
    apart_deg
        Angles between the two simulated views, taken in turn.
    pixels
        Rows and columns of simulated X-rays.
    noise
        Preset of the simulation, ``"fluoroscopy"`` or ``"clean"``.
    projector
        ``"rtk"`` or ``"march"``: what simulates; never left to each worker to choose, since they differ in the last digits.
    search
        Search globally from each start (True, as users do) or only refine it.
    seed
        Decides everything random.
    """

    starts: int = 200
    starts_per_scene: int = 10
    views: str = "two"
    moved_mm: tuple[float, ...] = ()
    part: str = "whole"
    largest_start_mm: float = 40.0
    shell_mm: float = 4.0
    largest_rotation_deg: float = 20.0
    success_mm: float = 2.0
    apart_deg: tuple[float, ...] = (90.0, 35.0)
    pixels: int = 384
    noise: str = "fluoroscopy"
    projector: str = "march"
    search: bool = True
    seed: int = 1000

    def __post_init__(self) -> None:
        checks = (
            ("number of starts", self.starts, 1 <= self.starts <= 10_000_000, "1 or more"),
            ("number of starts per scene", self.starts_per_scene, self.starts_per_scene >= 1, "1 or more"),
            ("number of views", self.views, self.views in VIEWS, ", ".join(VIEWS)),
            ("part", self.part, self.part in PARTS, ", ".join(PARTS)),
            ("displacement", self.moved_mm, all(0 < m <= 24 for m in self.moved_mm), "millimetres above 0, at most 24"),
            ("largest start", self.largest_start_mm, 0 < self.largest_start_mm <= 200, "above 0, at most 200 mm"),
            ("shell width", self.shell_mm, 0 < self.shell_mm <= self.largest_start_mm, "above 0, at most the largest start"),
            ("largest rotation", self.largest_rotation_deg, 0 <= self.largest_rotation_deg <= 90, "0 to 90 degrees"),
            ("limit of success", self.success_mm, 0 < self.success_mm <= 50, "above 0 mm"),
            ("angle between the views", self.apart_deg, bool(self.apart_deg) and all(5 <= a <= 175 for a in self.apart_deg), "5 to 175 degrees"),
            ("image size", self.pixels, 32 <= self.pixels <= 2048, "32 to 2048 pixels"),
            ("noise", self.noise, self.noise in ("fluoroscopy", "clean"), "fluoroscopy or clean"),
            ("projector", self.projector, self.projector in ("rtk", "march"), "rtk or march"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, allowed in checks:
            if not good:
                raise FluoroGuideError(f"The evaluation's {name} is not possible", value, f"Use {allowed}")

    @property
    def shells(self) -> np.ndarray:
        """Edges of the shells of initial mTRE, mm; the last may be narrower."""
        count = int(np.ceil(self.largest_start_mm / self.shell_mm - 1e-9))
        return np.minimum(np.arange(count + 1) * self.shell_mm, self.largest_start_mm)

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class XrayCase:
    """Real or simulated X-rays with their gold standard: images and the true pose, 4x4, volume LPS -> isocentre."""

    name: str
    images: tuple
    pose: np.ndarray


@dataclass(frozen=True, eq=False)
class Subject:
    """One volume and what belongs to it; this is what a worker gets.

    Attributes
    ----------
    name
        For people; no patient identifiers.
    volume
        SimpleITK image: HU for CT and CBCT, or an :class:`~FluoroGuideLib.anatomy.attenuation.AttenuationVolume`.
    targets
        (name, point (3,) in volume LPS mm, label or None) each.
    labels
        SimpleITK label image or None.
    cases
        X-rays with gold standard; empty: X-rays are simulated.
    simulate_from
        SimpleITK image in HU to simulate from, in the same space; None: from ``volume``.
    digest
        SHA-256 of the files it came from.
    """

    name: str
    volume: object
    targets: tuple[tuple[str, np.ndarray, int | None], ...]
    labels: object | None = None
    cases: tuple[XrayCase, ...] = ()
    simulate_from: object | None = None
    digest: str = ""
    facts: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """Consecutive starts of one scene: what one task does.  ``subject`` is its number."""

    subject: int
    scene: int
    starts: tuple[int, ...]


def chunks(settings: Settings, subjects: int, size: int, done: set[str] | frozenset = frozenset(), names: list[str] | None = None) -> Iterator[Chunk]:
    """All runs in order, in pieces of at most ``size`` starts of one scene; runs in ``done`` are left out."""
    for scene in range(-(-settings.starts // settings.starts_per_scene)):
        first = scene * settings.starts_per_scene
        wanted = range(first, min(first + settings.starts_per_scene, settings.starts))
        for subject in range(subjects):  # subjects in turn: whoever stops early has some of each
            missing = [n for n in wanted if not names or any(key not in done for key in run_keys(settings, names[subject], n))]
            for k in range(0, len(missing), size):
                yield Chunk(subject, scene, tuple(missing[k : k + size]))


def run_keys(settings: Settings, name: str, start: int) -> list[str]:
    """Names of the runs of one start: one per number of views."""
    return [f"{name}/{start:06d}/{count}v" for count in VIEWS[settings.views]]


def generator(settings: Settings, name: str, *numbers: int) -> np.random.Generator:
    """Random numbers that depend on seed, subject's name, scene and start alone, not on who computes them or in what order."""
    return np.random.default_rng([settings.seed, zlib.crc32(name.encode()), *numbers])


def start_distance(settings: Settings, start: int, rng: np.random.Generator) -> float:
    """Initial mTRE in mm: shells in turn, uniform within each."""
    edges = settings.shells
    shell = start % (len(edges) - 1)
    return float(rng.uniform(edges[shell], edges[shell + 1]))


def code_digest() -> str:
    """Digest of the library's code: runs of different code do not belong into one table."""
    library = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in ("geometry", "imaging", "anatomy", "projection", "registration", "evaluation"):
        for path in sorted((library / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def study_key(settings: Settings, subjects: list[Subject]) -> str:
    """Digest of what decides the results: settings, data and code."""
    text = json.dumps([settings.to_dict(), [(s.name, s.digest) for s in subjects], code_digest()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
