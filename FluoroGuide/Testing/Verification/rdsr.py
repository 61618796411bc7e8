"""Long proof: dose reports with known totals, written as vendors write them, and the same reports damaged.

Each case makes one procedure: 1 or 2 planes (perhaps an unused one), 1 to 400 events, random units and spellings, nested containers,
private items, empty items, several values, reports split, repeated and cumulative.  The totals must come back; damaged files must
give a dose or one sentence.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.record.dose import read_dose

SEEDS = range(1000, 1100)
SLICE = range(20)
# Unit codes, and how many of them make one Gy.m2, Gy, s: written out again here, not taken from the product.
DAP = {
    "Gy.m2": 1, "Gym2": 1, "Gy.cm2": 1e4, "dGy.cm2": 1e5, "dGycm2": 1e5, "cGy.cm2": 1e6, "mGy.cm2": 1e7, "uGy.m2": 1e6, "uGym2": 1e6, "µGy.m2": 1e6,
}
KERMA = {"Gy": 1, "mGy": 1e3, "cGy": 1e2, "uGy": 1e6}
TIME = {"s": 1, "ms": 1e3, "min": 1 / 60}
PLANES = {"A": "113620", "B": "113621", "single": "113622"}


def code(value: str, scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "x"
    return item


def item(kind: str, name: str, scheme: str = "DCM", **values: object) -> Dataset:
    result = Dataset()
    result.RelationshipType, result.ValueType, result.ConceptNameCodeSequence = "CONTAINS", kind, [code(name, scheme)]
    for key, value in values.items():
        setattr(result, key, value)
    return result


def number(name: str, value: float | list | None, unit: str, scheme: str = "DCM") -> Dataset:
    """A NUM item, empty for None."""
    if value is None:
        return item("NUM", name, scheme, MeasuredValueSequence=[])
    one = Dataset()
    values = [f"{v:.9g}"[:16] for v in (value if isinstance(value, list) else [value])]
    one.NumericValue = values if len(values) > 1 else values[0]
    one.MeasurementUnitsCodeSequence = [code(unit, "UCUM")]
    return item("NUM", name, scheme, MeasuredValueSequence=[one])


class Procedure:
    """One procedure with its true totals."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.planes = rng.choice([["single"], ["A"], ["A", "B"]])
        self.unused = "B" if "B" in self.planes and rng.random() < 0.4 else None
        self.events = []
        for k in range(rng.choice([1, 3, 10, 40, 300, 400]) if rng.random() < 0.3 else rng.randint(1, 12)):
            plane = rng.choice([p for p in self.planes if p != self.unused])
            fluoro = rng.random() < 0.7
            self.events.append((f"1.2.826.0.1.{seed}.{k}", plane, fluoro, rng.uniform(1e-7, 1e-5), rng.uniform(1e-5, 1e-3), rng.uniform(0.2, 20)))

    def totals(self, events: list, plane: str | None = None) -> tuple[float, float, float]:
        own = [e for e in events if plane in (None, e[1])]
        return sum(e[3] for e in own), sum(e[4] for e in own), sum(e[5] for e in own if e[2])

    def report(self, events: list, folder: Path, name: str) -> Path:
        """A report of some of the events, in units of its own."""
        rng = self.rng
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = rng.choice([ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        data.SOPClassUID, data.SOPInstanceUID = rng.choice(["1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.22"]), f"1.2.3.{name}"
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
        data.SpecificCharacterSet = "ISO_IR 192"
        data.Modality, data.PatientID, data.ValueType = "SR", "p", "CONTAINER"
        data.ConceptNameCodeSequence = [code("113701")]
        data.ContentSequence = [self.accumulated(events, p) for p in self.planes] + [self.event(e) for e in events]
        path = folder / f"{name}.dcm"
        data.save_as(path, enforce_file_format=True)
        return path

    def accumulated(self, events: list, plane: str) -> Dataset:
        rng, (dap, kerma, seconds) = self.rng, self.totals(events, plane)
        units = [rng.choice(list(table)) for table in (DAP, KERMA, TIME)]
        values = [dap * DAP[units[0]], kerma * KERMA[units[1]], seconds * TIME[units[2]]]
        items = [number(c, v, u) for c, v, u in zip(("113722", "113725", "113730"), values, units, strict=True)]
        if rng.random() < 0.3:
            items = [item("CONTAINER", "113999", ContentSequence=items)]
        if rng.random() < 0.3:
            items.append(number("113722", 12345.0, "Gy.m2", "99VENDOR"))
        if rng.random() < 0.3:
            items.append(number("113731", None, "1"))
        return item("CONTAINER", "113702", ContentSequence=[item("CODE", "113764", ConceptCodeSequence=[code(PLANES[plane])]), *items])

    def event(self, event: tuple) -> Dataset:
        rng, (uid, plane, fluoro, dap, kerma, seconds) = self.rng, event
        units = [rng.choice(list(table)) for table in (DAP, KERMA, TIME)]
        dap_value = dap * DAP[units[0]]
        kind = rng.choice([("P5-06000", "SRT"), ("44491008", "SCT")]) if fluoro else (rng.choice(["113611", "113612", "113613"]), "DCM")
        return item("CONTAINER", "113706", ContentSequence=[
            item("CODE", "113764", ConceptCodeSequence=[code(PLANES[plane])]), item("CODE", "113721", ConceptCodeSequence=[code(*kind)]),
            item("UIDREF", "113769", UID=uid), number("122130", [dap_value / 4] * 4 if rng.random() < 0.1 else dap_value, units[0]),
            number("113738", kerma * KERMA[units[1]], units[1]), number("113742", seconds * TIME[units[2]], units[2]), number("112011", None, "deg"),
        ])


def wrong_share(found: object, truth: tuple[float, float, float]) -> float:
    """The largest relative error of the three totals; no time is right when no event is fluoroscopy."""
    values = (found.dap_gy_m2, found.reference_air_kerma_gy, found.fluoroscopy_seconds)
    return max(abs(v - t) / t if t else abs(v or 0.0) for v, t in zip(values, truth, strict=True))


def case(seed: int) -> dict:
    """One procedure: one report, then split, repeated and cumulative ones, then damaged ones."""
    folder = Path(tempfile.mkdtemp(prefix="fluoroguide-rdsr-"))
    try:
        procedure = Procedure(seed)
        rng, events = procedure.rng, procedure.events
        truth = procedure.totals(events)
        whole = procedure.report(events, folder, "1")
        errors = {"single": wrong_share(read_dose(whole), truth)}
        cut = rng.randint(0, len(events))
        parts = [p for p in (events[:cut], events[cut:]) if p]
        paths = [procedure.report(part, folder, str(k + 2)) for k, part in enumerate(parts)]
        errors["split"] = wrong_share(read_dose(paths), truth)
        errors["cumulative"] = wrong_share(read_dose([*paths, whole, whole]), truth)
        sentences = sum(damaged(whole, folder, rng) for _ in range(6))
        return {"events": len(events), "unused_plane": bool(procedure.unused), "errors": errors, "damaged": 6, "refused_in_one_sentence": sentences}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def damaged(whole: Path, folder: Path, rng: random.Random) -> int:
    """Read a damaged copy: 1 when it was refused in one sentence, 0 when a dose was found; anything else raises."""
    raw = bytearray(whole.read_bytes())
    if rng.random() < 0.5:
        del raw[rng.randrange(len(raw)):]
    for _ in range(rng.randint(0, 20)):
        if raw:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    path = folder / "damaged.dcm"
    path.write_bytes(raw)
    try:
        read_dose(path).to_dict()
    except FluoroGuideError as error:
        if "\n" in str(error):
            raise AssertionError("more than one line") from error
        return 1
    return 0


def summarize(results: list[dict]) -> dict:
    """Figures that may be quoted."""
    kinds = ("single", "split", "cumulative")
    return {
        "procedures": len(results), "events": sum(r["events"] for r in results), "with_unused_plane": sum(r["unused_plane"] for r in results),
        **{f"largest_error_{k}": max(r["errors"][k] for r in results) for k in kinds},
        **{f"wrong_{k}": sum(r["errors"][k] > 1e-6 for r in results) for k in kinds},
        "damaged_files": sum(r["damaged"] for r in results), "refused_in_one_sentence": sum(r["refused_in_one_sentence"] for r in results),
    }
