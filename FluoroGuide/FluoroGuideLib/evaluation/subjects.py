"""Reading the subjects of an evaluation: volumes, targets, labels, X-rays with gold standard."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.frames import lps_from_ijk
from ..planning.jsonfile import read_json, take
from .study import Subject, XrayCase
from .truth import read_truth

MODALITIES = ("CT", "CBCT", "MR")
SAMPLE = "thorax"


def load_subject(
    volume: str, *, name: str | None = None, modality: str | None = None, targets: str | Path | None = None, labels: str | Path | None = None,
    names: str | Path | None = None, cases: tuple[str, ...] = (), simulate_from: str | Path | None = None,
) -> Subject:
    """One subject from its files.

    Parameters
    ----------
    volume
        A file that SimpleITK reads, a DICOM folder, or ``"thorax"``: the sample CT with its labels.
    modality
        One of :data:`MODALITIES`; None: recognised.
    targets
        ``targets.json`` or ``plan.json``.  Without: the middles of the labels; without labels: random points of bone.
    labels, names
        Label image on the volume's grid, and the names of its labels.  In MR they refine the bones that the X-ray sees.
    cases
        Folders with X-rays and ``truth.json``.
    simulate_from
        CT in HU in the same space, to simulate X-rays of an MR volume.

    Raises
    ------
    FluoroGuideError
        A file that cannot be read or does not fit the volume.
    """
    from ..anatomy.attenuation import read_volume
    from ..anatomy.segments import read_segmentation

    if modality is not None and modality not in MODALITIES:
        raise FluoroGuideError("The modality is not known", modality, "Use " + ", ".join(MODALITIES))
    digest = hashlib.sha256()
    label_image, label_names, series, note = None, {}, None, ""
    if volume == SAMPLE:
        from .sample import WHEEL_SHA256, thorax_ct

        image, label_image, label_names = thorax_ct()
        label_names = {k: v for k, v in label_names.items() if v.startswith("vertebrae_") and v.split("_")[1] in SAMPLE_LEVELS}
        digest.update(WHEEL_SHA256.encode())
        modality = "CT"
    else:
        image, modality, series, note = _read(volume, modality)
        _add_file(digest, Path(volume))
    if labels is not None:
        label_image, label_names = read_segmentation(labels, names)
        _add_file(digest, Path(labels))
    if label_image is not None and not _same_grid(label_image, image):
        raise FluoroGuideError("The label image lies on another grid than the volume", Path(str(labels)).name, "Export it on the volume's grid")
    ct = None
    if simulate_from is not None:
        ct = read_volume(simulate_from)
        _add_file(digest, Path(simulate_from))
    if modality == "MR" and ct is None and not cases:
        hint = "Give X-rays with --case, or a CT in the same space with --simulate-from (in a study file: simulate_from)"
        raise FluoroGuideError("X-rays cannot be simulated from MR", Path(volume).name, hint)
    points = _targets(targets, label_image, label_names, digest)
    name = name or Path(volume).name.split(".")[0]
    facts = {"modality": modality, "size": list(image.GetSize())} | ({"mr_contrast": series.contrast} if series else {})
    if series is not None:  # a sidecar or tags beside the voxels decide it
        digest.update(series.contrast.encode())
    moving = image if series is None else _attenuation(series, name, note, label_image, label_names)
    return Subject(name, moving, points, label_image, tuple(_case(Path(folder), digest) for folder in cases), ct, digest.hexdigest(), facts)


def _read(volume: str, modality: str | None) -> tuple[object, str, object | None, str]:
    """(image, modality, MR series or None, how it was recognised)."""
    from ..anatomy.attenuation import read_volume
    from ..anatomy.mr_series import read_facts, read_mr, recognise

    image = None if modality or read_facts(volume).get("modality") else read_volume(volume)
    found, note = (modality, "") if modality else recognise(volume, image)
    if found != "MR":
        return read_volume(volume) if image is None else image, found, None, note
    series = read_mr(volume, check_modality=modality is None)
    return series.image, found, series, note


def _attenuation(series: object, name: str, note: str, labels: object | None, names: dict[int, str]) -> object:
    """MR becomes attenuation here, once; HU are sent to workers as they are, at half the size."""
    from ..anatomy.mr import attenuation_of_series, with_labels

    made = attenuation_of_series(series, name, note)
    return made if labels is None else with_labels(made, labels, names)


def _same_grid(a: object, b: object) -> bool:
    return a.GetSize() == b.GetSize() and np.allclose(lps_from_ijk(a), lps_from_ijk(b), atol=1e-3)


SAMPLE_LEVELS = ("T8", "T9", "T10", "T11", "T12", "L1")
"""Vertebrae of the sample CT that lie completely inside the scan, with what surrounds them."""


def _targets(path: str | Path | None, labels: object | None, names: dict[int, str], digest: object) -> tuple:
    from ..planning.plan import read_targets

    if path is not None:
        found = [(t.name, np.asarray(t.position_lps_mm, float)) for t in read_targets(path)]
        _add_file(digest, Path(path))
        return tuple((name, point, _label_at(labels, point)) for name, point in found)
    if labels is None:
        return ()
    import SimpleITK as sitk

    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.Cast(labels, sitk.sitkUInt16))
    return tuple((word, np.array(shapes.GetCentroid(value)), value) for value, word in sorted(names.items()) if shapes.HasLabel(value))


def _label_at(labels: object | None, point: np.ndarray) -> int | None:
    if labels is None:
        return None
    try:
        return int(labels.GetPixel(labels.TransformPhysicalPointToIndex(point.tolist()))) or None
    except (RuntimeError, IndexError, OverflowError):
        return None


def _case(folder: Path, digest: object) -> XrayCase:
    from ..imaging.sources import read_xray

    truth = read_truth(folder)
    _add_file(digest, folder / "truth.json" if folder.is_dir() else folder)
    for path in truth.xrays:
        _add_file(digest, path)
    images = tuple(read_xray(x, card) for x, card in zip(truth.xrays, truth.geometries, strict=True))
    return XrayCase(folder.name if folder.is_dir() else folder.parent.name, images, truth.pose)


def _add_file(digest: object, path: Path) -> None:
    """Files by content; of folders (DICOM series) every file in order."""
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())


def read_study_file(path: str | Path) -> list[Subject]:
    """Subjects of a study file: ``{"subjects": [{"volume", "name", "modality", "targets", "labels", "names", "cases", "simulate_from"}]}``.

    Paths are relative to the file.

    Raises
    ------
    FluoroGuideError
        No such file, an unknown key, two subjects of one name, or a subject that cannot be read.
    """
    path = Path(path)
    subjects = take(read_json(path, "study file"), "subjects", "study file")
    if not isinstance(subjects, list) or not subjects or not all(isinstance(s, dict) for s in subjects):
        raise FluoroGuideError("The study file has no list of subjects", path.name, 'Write {"subjects": [{"volume": "ct.nii.gz"}]}')
    return check_names([_from_entry(entry, path.parent) for entry in subjects])


def _from_entry(entry: dict, folder: Path) -> Subject:
    known = {"volume", "name", "modality", "targets", "labels", "names", "cases", "simulate_from"}
    if unknown := sorted(set(entry) - known):
        raise FluoroGuideError("A subject of the study file has an unknown key", unknown[0], "Known are " + ", ".join(sorted(known)))
    volume, cases = take(entry, "volume", "study file's subject"), entry.get("cases", [])
    texts = [v for k, v in entry.items() if k != "cases" and v is not None]
    if not isinstance(cases, list) or not all(isinstance(v, str) and "\x00" not in v and len(v) < 200 for v in [*texts, *cases]):
        raise FluoroGuideError("A subject of the study file has a value that is no file name", entry.get("name"), "Write file names as text")
    files = {k: folder / entry[k] for k in ("targets", "labels", "names", "simulate_from") if entry.get(k)}
    if not isinstance(volume, str):
        raise FluoroGuideError("A subject of the study file names no volume", entry.get("name"), "Give the name of its file")
    return load_subject(
        volume if volume == SAMPLE else str(folder / volume), name=entry.get("name"), modality=entry.get("modality") or None,
        cases=tuple(str(folder / c) for c in cases), **files,
    )


def check_names(subjects: list[Subject]) -> list[Subject]:
    """The subjects, after checking that no two have one name: it is part of the names of runs."""
    names = [s.name for s in subjects]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise FluoroGuideError("Two subjects have the same name", twice, "Rename a file, or give names in a study file")
    return subjects
