"""Every reader but XA (which has a proof of its own, ``xa_fuzz``) with damaged files: it ends well or with one ``FluoroGuideError``.

Each seed gives 100 damaged inputs to one reader; 20 seeds (2,000 inputs) for each reader.  Besides exceptions, time and memory are
watched, and whether a file appeared outside the folder (hostile names in bundles).  ``make verify PART=fuzz_readers``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz_inputs import damaged_bundle, damaged_bytes, damaged_json, damaged_volume, deflated, volumes

from FluoroGuideLib.errors import FluoroGuideError

INPUTS = 100
LIMIT_S, LIMIT_MB = 5.0, 700.0
DEFLATED_SHARE = 0.08
"""Of the DICOM inputs: deflated, most of them bombs."""
LIBRARY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(LIBRARY / "Testing" / "Python"))


# ---- valid texts ----------------------------------------------------------------------------------------------------------
@functools.cache
def record_text() -> str:
    """A full record as JSON."""
    return json.dumps(importlib.import_module("record_cases").record_with(2).to_dict())


@functools.cache
def valid(kind: str) -> str:
    """A valid JSON file of a kind."""
    from FluoroGuideLib.resources import RESOURCES

    if kind == "plan":
        return json.dumps(importlib.import_module("record_cases").a_plan(2).to_dict())
    if kind in ("si_joint", "lumbar_facet"):
        return (RESOURCES / "Procedures" / f"{kind}.json").read_text(encoding="utf-8")
    if kind == "carm":
        return (RESOURCES / "CArms" / "innova_3100.json").read_text(encoding="utf-8")
    made = {
        "targets": [{"name": "a", "position_lps_mm": [1.0, 2, 3], "tolerance_mm": 2.0}, {"name": "b", "position_lps_mm": [4.0, 5, 6]}],
        "card": {
            "source_to_detector_mm": 1000, "source_to_isocenter_mm": 600, "primary_angle_deg": 20, "secondary_angle_deg": -10,
            "pixel_spacing_mm": [0.4, 0.4], "principal_point_px": [31.5, 31.5], "angle_reference": "gantry", "patient_position": "HFS",
            "image_rotation_deg": 90, "horizontal_flip": True, "table_offset_mm": [0, 1, 2],
        },
        "matrix": {"projection_matrix": [[1000.0, 0, 32, 500], [0, 1000, 32, 600], [0, 0, 1, 700]]},
        "truth": {"simulated": True, "pose_matrix": np.eye(4).tolist(), "views": [{"file": "a.dcm"}, {"file": "b.png", "geometry": "g.json"}]},
        "study": {"subjects": [{"name": "a", "volume": "v.nii", "targets": "t.json", "modality": "CT", "cases": []}]},
        "names": {"1": "sacrum", "2": "ilium"},
        "run": {"run": "a/000000/2v", "subject": "a", "scene": 0, "start": 0, "views": 2, "verdict": "pass", "success": True, "mtre_mm": 0.5},
    }
    return json.dumps(made[kind])


# ---- one input per reader: write the damaged file, read it ---------------------------------------------------------------
def _json_reader(kind: str, name: str, read: Callable[[Path], object]) -> Callable[[Path, np.random.Generator], None]:
    def one(folder: Path, rng: np.random.Generator) -> None:
        kinds = kind.split()
        path = folder / name
        path.write_bytes(damaged_json(valid(kinds[int(rng.integers(len(kinds)))]), rng))
        read(path)

    return one


def _plan(path: Path) -> None:
    from FluoroGuideLib.planning.plan import read_plan

    json.dumps(read_plan(path).to_dict(), allow_nan=False)


def _targets(path: Path) -> None:
    from FluoroGuideLib.planning.plan import read_targets

    [t.to_dict() for t in read_targets(path)]


def _card(path: Path) -> None:
    """A card with a picture, as users give it."""
    from PIL import Image

    from FluoroGuideLib.imaging.sources import open_xray

    Image.fromarray((np.hypot(*(np.mgrid[:64, :64] - 30)) * 5).astype(np.uint8)).save(path.parent / "x.png")
    run = open_xray(path.parent / "x.png", path)
    if not run.missing:
        run.view(0).project(np.zeros((1, 3)))


def _carm(path: Path) -> None:
    from FluoroGuideLib.planning.carms import read_carm

    read_carm(path)


def _procedure(path: Path) -> None:
    from FluoroGuideLib.planning.procedures import read_procedure

    key = json.loads(path.read_bytes()).get("key") if path.stat().st_size < 100_000 and path.read_bytes()[:1] == b"{" and _is_json(path) else None
    good = isinstance(key, str) and key.isidentifier() and key.isascii() and len(key) < 40
    target = path.rename(path.with_name(f"{key}.json")) if good else path
    read_procedure(target).explain() if hasattr(read_procedure(target), "explain") else read_procedure(target)


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (ValueError, RecursionError):
        return False


def _record(path: Path) -> None:
    from FluoroGuideLib.record.export import open_record
    from FluoroGuideLib.record.report import report_html

    record = open_record(path)
    json.dumps(record.to_dict(), allow_nan=False)
    report_html(record)


def _bundle(folder: Path, rng: np.random.Generator) -> None:
    path = folder / "case.mrb"
    path.write_bytes(damaged_bundle(record_text(), rng))
    _record(path)


def _record_json(folder: Path, rng: np.random.Generator) -> None:
    path = folder / "record.json"
    path.write_bytes(damaged_json(record_text(), rng))
    _record(path)


@functools.cache
def _journal_bytes() -> bytes:
    record = importlib.import_module("record_cases").record_with(2)
    from FluoroGuideLib.record.keeper import RecordKeeper

    with tempfile.TemporaryDirectory() as folder:
        keeper = RecordKeeper.start(record, folder)
        for k in range(6):
            record.log("note", f"event {k}")
            keeper.store(record)
        path = next(Path(folder).iterdir())
        return path.read_bytes()


def _journal(folder: Path, rng: np.random.Generator) -> None:
    """Damaged bytes, and lines whose content is wrong though their checksum fits."""
    from FluoroGuideLib.record.journal import read_journal
    from FluoroGuideLib.record.keeper import recover

    path, data = folder / "a.fgjournal", _journal_bytes()
    if rng.random() < 0.5:
        data = damaged_bytes(data, rng)
    else:
        lines = data.splitlines(keepends=True)
        at = int(rng.integers(len(lines)))
        content = damaged_json(lines[at][17:-1].decode(), rng)
        lines[at] = _line(content)
        data = b"".join(lines)
    path.write_bytes(data)
    _ = read_journal(path).warnings
    json.dumps(recover(path).record.to_dict(), allow_nan=False)


def _line(body: bytes) -> bytes:
    import hashlib

    body = body.replace(b"\n", b" ")
    return hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"


def _volume(folder: Path, rng: np.random.Generator) -> None:
    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu, read_volume

    name, data = damaged_volume(rng)
    (folder / name).write_bytes(data)
    attenuation_from_hu(read_volume(folder / name), name=name)


def _segmentation(folder: Path, rng: np.random.Generator) -> None:
    from FluoroGuideLib.anatomy.segments import read_segmentation

    if rng.random() < 0.5:
        (folder / "s.nrrd").write_bytes(volumes()["v.nrrd"])
        names = folder / ("n.json" if rng.random() < 0.5 else "n.csv")
        csv = b"id,structure\n1,sacrum\n2,ilium\n540,ball\n"
        names.write_bytes(damaged_json(valid("names"), rng) if names.suffix == ".json" else damaged_bytes(csv, rng))
        read_segmentation(folder / "s.nrrd", names)
    else:
        name, data = damaged_volume(rng)
        (folder / name).write_bytes(data)
        read_segmentation(folder / name)


@functools.cache
def _slices() -> tuple[bytes, ...]:
    """A CT series of six slices."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    found = []
    for n in range(6):
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n + 1}"
        d.SeriesInstanceUID, d.StudyInstanceUID, d.Modality = "1.2.9", "1.2.8", "CT"
        d.Rows, d.Columns, d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 16, 16, 15, 1
        d.SamplesPerPixel, d.PhotometricInterpretation, d.RescaleSlope, d.RescaleIntercept = 1, "MONOCHROME2", 1, 0
        d.PixelSpacing, d.ImageOrientationPatient, d.ImagePositionPatient, d.InstanceNumber = [1, 1], [1, 0, 0, 0, 1, 0], [0, 0, 2.0 * n], n + 1
        d.PixelData = np.random.default_rng(n).integers(-1000, 1000, (16, 16), np.int16).tobytes()
        buffer = io.BytesIO()
        d.save_as(buffer, enforce_file_format=True)
        found.append(buffer.getvalue())
    return tuple(found)


def _series(folder: Path, rng: np.random.Generator) -> None:
    from FluoroGuideLib.anatomy.attenuation import read_volume

    place = folder / "series"
    place.mkdir()
    hurt = set(rng.integers(0, 6, int(rng.integers(1, 4))).tolist())
    for n, data in enumerate(_slices()):
        hurt_data = deflated(data, rng) if rng.random() < DEFLATED_SHARE else damaged_bytes(data, rng)
        (place / f"{n}.dcm").write_bytes(hurt_data if n in hurt else data)
    read_volume(place)


def _truth(path: Path) -> None:
    from FluoroGuideLib.evaluation.truth import read_truth

    for name in ("a.dcm", "b.png", "g.json"):
        (path.parent / name).touch()
    found = read_truth(path)
    if any(p.parent != path.parent for p in (*found.xrays, *filter(None, found.geometries))):
        raise AssertionError("a gold standard left its folder")


def _study(path: Path) -> None:
    from FluoroGuideLib.evaluation.subjects import read_study_file

    (path.parent / "v.nii").write_bytes(volumes()["v.nii"])
    (path.parent / "t.json").write_text(valid("targets"))
    read_study_file(path)


def _runs(path: Path) -> None:
    from FluoroGuideLib.evaluation import runlog
    from FluoroGuideLib.evaluation.study import Settings
    from FluoroGuideLib.evaluation.study_report import study_figures

    runlog.write_csv(path.with_name("t.csv"), [])
    rows = runlog.read_rows(path)
    log = runlog.RunLog.__new__(runlog.RunLog)
    log.rows = rows
    study_figures(log.table(), Settings())


def _tfm(folder: Path, rng: np.random.Generator) -> None:
    from FluoroGuideLib.geometry.rigid import perturb, read_tfm, write_tfm

    path = folder / "p.tfm"
    write_tfm(path, perturb(np.eye(4), np.array([0.1, 0.2, 0.3, 1, 2, 3]), np.zeros(3)))
    path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    read_tfm(path)


def _damaged_dicom(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of the X-ray fuzz's mutations, or the deflated syntax with a bomb now and then."""
    import xa_fuzz

    if rng.random() < DEFLATED_SHARE:
        return deflated(data, rng)
    hurt = bytearray(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(int(rng.integers(1, 4))):
            if len(hurt) > 200:
                xa_fuzz.MUTATIONS[int(rng.integers(len(xa_fuzz.MUTATIONS)))](hurt, rng)
    return bytes(hurt)


@functools.cache
def _reports() -> tuple[bytes, ...]:
    rdsr = importlib.import_module("rdsr")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(12):
            procedure = rdsr.Procedure(seed)
            found.append(procedure.report(procedure.events[:6], Path(folder), str(seed)).read_bytes())
    return tuple(found)


def _rdsr(folder: Path, rng: np.random.Generator) -> None:
    from FluoroGuideLib.record.dose import read_dose

    path = folder / "dose.dcm"
    path.write_bytes(_damaged_dicom(_reports()[int(rng.integers(len(_reports())))], rng))
    json.dumps(read_dose(path).to_dict(), allow_nan=False)


@functools.cache
def _structured() -> bytes:
    from FluoroGuideLib.record.export import export_record

    record = importlib.import_module("record_cases").record_with(1)
    with tempfile.TemporaryDirectory() as folder:
        export_record(record, folder, ("dicom",))
        return (Path(folder) / "report.sr.dcm").read_bytes()


def _report(folder: Path, rng: np.random.Generator) -> None:
    path = folder / "report.sr.dcm"
    path.write_bytes(_damaged_dicom(_structured(), rng))
    _record(path)


def _picture(folder: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    from FluoroGuideLib.imaging.sources import open_xray, run_report

    suffix = ("png", "tif", "bmp", "jpg")[int(rng.integers(4))]
    buffer = io.BytesIO()
    picture = Image.fromarray((np.hypot(*(np.mgrid[:64, :72] - 30)) * 4).astype(np.uint8))
    picture.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    path = folder / f"x.{suffix}"
    path.write_bytes(damaged_bytes(buffer.getvalue(), rng))
    run_report(open_xray(path, json.loads(valid("card"))))


def _identity(folder: Path, rng: np.random.Generator) -> None:
    import xa_fuzz

    from FluoroGuideLib.imaging.identity import read_identity

    path = folder / "x.dcm"
    path.write_bytes(deflated(xa_fuzz.bases()[0], rng) if rng.random() < DEFLATED_SHARE else xa_fuzz.mutant(int(rng.integers(2**31))))
    read_identity(path, "X-ray")


READERS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "plan": _json_reader("plan", "plan.json", _plan), "targets": _json_reader("targets plan", "targets.json", _targets),
    "geometry card": _json_reader("card card matrix", "g.json", _card), "C-arm card": _json_reader("carm", "carm.json", _carm),
    "procedure": _json_reader("si_joint lumbar_facet", "procedure.json", _procedure), "record": _record_json, "scene bundle": _bundle,
    "structured report": _report, "journal": _journal, "dose report": _rdsr, "volume": _volume, "segmentation": _segmentation,
    "DICOM series": _series, "transform": _tfm, "picture": _picture, "identity": _identity,
    "gold standard": _json_reader("truth", "truth.json", _truth),
    "study file": _json_reader("study", "s.json", _study), "runs": _json_reader("run", "runs.jsonl", _runs),
}
SEEDS = range(70_001, 70_001 + 20 * len(READERS))  # earlier ranges (1000, 20000, ... 60001) were looked at while readers were repaired
SLICE = range(len(READERS))


def case(seed: int) -> dict:
    """100 inputs for one reader."""
    name = list(READERS)[seed % len(READERS)]
    counts = {"read": 0, "refused": 0}
    others: dict[str, int] = {}
    sentences, worst_s, one_line, escaped = set(), 0.0, True, 0
    before = _memory_mb()
    for k in range(INPUTS if seed >= 1000 else 12):
        rng = np.random.default_rng([seed, k])
        with tempfile.TemporaryDirectory() as outer:
            folder = Path(outer) / "a" / "b"
            folder.mkdir(parents=True)
            began = time.process_time()
            try:
                with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    READERS[name](folder, rng)
                counts["read"] += 1
            except FluoroGuideError as error:
                counts["refused"] += 1
                sentences.add(str(error).split("(")[0].strip())
                one_line &= "\n" not in str(error) and len(str(error)) < 1000
            except Exception as error:
                kind = f"{type(error).__name__} at {_where(error)} (seed {seed}, input {k})"
                others[kind] = others.get(kind, 0) + 1
            worst_s = max(worst_s, time.process_time() - began)
            escaped += sum(p.name.startswith("escaped") for p in Path(outer).rglob("*")) + Path("/escaped.txt").exists()
    return {
        "reader": name, **counts, "others": others, "sentences": sorted(sentences), "one_line": bool(one_line), "worst_s": round(worst_s, 3),
        "grown_mb": round(_memory_mb() - before, 1), "escaped": escaped,
    }


def _where(error: BaseException) -> str:
    trace, place = error.__traceback__, "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "FluoroGuideLib" in file:
            place = f"{Path(file).parent.name}/{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _memory_mb() -> float:
    """Peak of this process; 0 where it is not told."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def summarize(results: list[dict]) -> dict:
    """What came out, per reader."""
    table = {}
    for name in READERS:
        rows = [r for r in results if r["reader"] == name]
        if not rows:
            continue
        other = sum(sum(r["others"].values()) for r in rows)
        table[name] = {
            "inputs": sum(r["read"] + r["refused"] for r in rows) + other, "read": sum(r["read"] for r in rows),
            "refused": sum(r["refused"] for r in rows), "other_exceptions": other,
            "different_sentences": len({s for r in rows for s in r["sentences"]}),
            "sentences_of_one_line": all(r["one_line"] for r in rows), "files_outside": sum(r["escaped"] for r in rows),
            "cpu_seconds_worst": max(r["worst_s"] for r in rows), "memory_growth_worst_mb": max(r["grown_mb"] for r in rows),
        }
        table[name]["within_limits"] = bool(
            table[name]["cpu_seconds_worst"] < LIMIT_S and table[name]["memory_growth_worst_mb"] < LIMIT_MB and not other
            and not table[name]["files_outside"]
        )
    return table
