"""The dose of a procedure from dose reports (RDSR) and X-ray image headers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import FluoroGuideError
from .dose_checks import check_totals, estimated_seconds, event_sums
from .dose_model import DAP_UNITS, KERMA_UNITS, TIME_UNITS, TOTAL_FIELDS, DoseEvent, DoseSummary, DoseTotals, add_known, factor_of
from .rdsr import is_dose_report, iso_time, read_report

__all__ = ["DoseEvent", "DoseSummary", "DoseTotals", "manual_dose", "read_dose"]

DGY_CM2 = 1e-5
"""dGy.cm2 (Image and Fluoroscopy Area Dose Product, DICOM PS3.3 C.8.7.2) in Gy.m2."""


def read_dose(paths: str | Path | Iterable[str | Path]) -> DoseSummary:
    """Dose summary of one procedure from its files.

    Dose reports come first: when there is one, images add nothing, since the report counts them already.  Several
    reports are merged by irradiation event UID.

    Parameters
    ----------
    paths
        One file or folder, or several: RDSR, XA, RF (also enhanced).

    Raises
    ------
    FluoroGuideError
        No file, no DICOM, files of several patients, a structured report of another kind, or no dose at all.
    """
    from ..imaging.dicom_values import quiet_pydicom

    files = _files([paths] if isinstance(paths, (str, Path)) else list(paths))
    with quiet_pydicom():
        try:
            return _dose_of(files)
        except FluoroGuideError:
            raise
        except Exception:  # pydicom decodes on access, and a damaged element may raise nearly anything there
            names = ", ".join(f.name for f in files[:3])
            raise FluoroGuideError("The dose file is damaged", names, "Export it again from the C-arm or PACS") from None


def _dose_of(files: list[Path]) -> DoseSummary:
    datasets = _distinct([(path.name, _read(path)) for path in files])
    if len({str(d.get("PatientID", "") or "") for _, d in datasets} - {""}) > 1:
        raise FluoroGuideError("The dose files belong to more than one patient", f"{len(datasets)} files", "Give the files of one procedure")
    reports, images = [], []
    for name, dataset in datasets:
        if dataset.get("Modality") == "SR" or "ContentSequence" in dataset or is_dose_report(dataset):
            reports.append(_report(dataset, name))
        elif str(dataset.get("Modality", "")) in ("XA", "RF"):
            images.append(dataset)
        else:
            raise FluoroGuideError(
                "The file is neither a dose report nor an XA or RF image", f"{name}: modality {dataset.get('Modality', 'none')}", "Leave it out",
            )
    if not reports:
        return _from_images(images)
    summary = reports[0] if len(reports) == 1 else _merge(reports)
    return _with_images(summary, images) if images else summary


def _report(dataset: object, name: str) -> DoseSummary:
    try:
        return read_report(dataset, name)
    except FluoroGuideError:
        raise
    except Exception:  # a damaged element shows only when it is asked for
        raise FluoroGuideError("The dose report is damaged", name, "Export it again from the C-arm or PACS") from None


def _files(paths: list[str | Path]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.is_file() and _looks_like_dicom(p))
        elif path.is_file():
            files.append(path)
        else:
            raise FluoroGuideError("The dose file does not exist", path, "Check the path")
    if not files:
        raise FluoroGuideError("There is no DICOM file", ", ".join(map(str, paths)) or None, "Give an RDSR, XA or RF file")
    return files


def _looks_like_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read(path: Path) -> object:
    from ..imaging.dicom_file import open_dicom

    try:
        dataset = open_dicom(path, pixels=False).dataset  # bounded: a deflated file may promise to unpack to anything
    except FluoroGuideError:
        raise FluoroGuideError("The file is not a readable DICOM file", path.name, "Give an RDSR, XA or RF file") from None
    if "SOPClassUID" not in dataset and "Modality" not in dataset:
        raise FluoroGuideError("The file is not a readable DICOM file", path.name, "Give an RDSR, XA or RF file")
    return dataset


def _distinct(datasets: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """The same instance given twice (by two paths) counts once."""
    seen: dict[str, tuple[str, object]] = {}
    for number, (name, dataset) in enumerate(datasets):
        seen.setdefault(str(dataset.get("SOPInstanceUID", "") or f"#{number}"), (name, dataset))
    return list(seen.values())


def _merge(reports: list[DoseSummary]) -> DoseSummary:
    """Reports of one procedure: added when their events differ, the larger one when it holds the other's, else recomputed."""
    def key(event: DoseEvent) -> tuple:
        # Both planes of a biplane system may share one event's UID.
        return (event.uid, event.plane) if event.uid else (event.started, event.dap_gy_m2, event.seconds)

    def keys(report: DoseSummary) -> set:
        return set(map(key, report.events))

    # Reports whose events are all in another one say nothing new (each run's report followed by the study's).
    kept: list[DoseSummary] = []
    for report in sorted(reports, key=lambda r: -len(r.events)):
        if not (keys(report) and any(keys(report) <= keys(k) for k in kept)):
            kept.append(report)
    events = {key(e): e for r in kept for e in r.events}
    warnings = [w for r in kept for w in r.warnings]
    if len(kept) < len(reports):
        warnings.append(f"{len(reports) - len(kept)} of {len(reports)} reports hold only events of another one and were not counted again.")
    overlapping = len(events) < sum(len(keys(r)) for r in kept)
    totals = {name: add_known([getattr(r, name) for r in kept]) for name in TOTAL_FIELDS}
    if overlapping:
        totals = dict.fromkeys(TOTAL_FIELDS) | event_sums(tuple(events.values()))
        warnings.append("The reports share some events; the totals were recomputed from the distinct events.")
    else:
        for name in ("dap_gy_m2", "reference_air_kerma_gy", "fluoroscopy_seconds"):
            if any(getattr(r, name) is None for r in kept) and totals[name] is not None:
                warnings.append(f"Not every report tells {name}; the total is of those that do.")
    if len(kept) == 1:
        return dataclasses.replace(kept[0], warnings=tuple(dict.fromkeys(warnings)))
    every = tuple(events.values())
    reported = all(r.fluoroscopy_time_source == "reported" for r in kept) and not overlapping
    time_source = None if totals["fluoroscopy_seconds"] is None else "reported" if reported else "added up from events"
    return DoseSummary(
        **totals, events=every, warnings=tuple(dict.fromkeys(warnings)), source="rdsr", device="; ".join(dict.fromkeys(r.device for r in kept)),
        fluoroscopy_time_source=time_source, estimated_fluoroscopy_seconds=estimated_seconds(every), checks=check_totals(totals, [], every),
    )


def _with_images(summary: DoseSummary, images: list) -> DoseSummary:
    known = {e.uid for e in summary.events}
    strange = [d for d in images if d.get("IrradiationEventUID") and not set(_uids(d)) & known]
    note = f"{len(images)} image file(s) were not counted: the dose report includes them."
    if strange:
        note = f"{len(strange)} image file(s) belong to irradiation events that the dose report does not list; their dose is not counted."
    return dataclasses.replace(summary, warnings=(*summary.warnings, note))


def _uids(dataset: object) -> list[str]:
    value = dataset.get("IrradiationEventUID")
    return [] if not value else ([str(value)] if isinstance(value, str) else [str(v) for v in value])


def _number(dataset: object, *keywords: str) -> float | None:
    """The first of the attributes that holds a finite number, or None."""
    for keyword in keywords:
        value = dataset.get(keyword)
        if value is None or value == "":
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if 0 <= number < float("inf"):
            return number
    return None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _image_event(dataset: object) -> DoseEvent:
    entrance = _scaled(_number(dataset, "EntranceDoseInmGy"), 1e-3)
    if entrance is None:
        entrance = _scaled(_number(dataset, "EntranceDose"), 0.1)  # dGy in (0040,0302)
    kind = {"SC": "fluoroscopy", "GR": "acquisition"}.get(str(dataset.get("RadiationSetting", "")), "unknown")
    frames = _number(dataset, "NumberOfFrames")
    started = "".join(str(dataset.get(tag, "") or "") for tag in ("AcquisitionDate", "AcquisitionTime"))
    return DoseEvent(
        uid=next(iter(_uids(dataset)), None), kind=kind, started=iso_time(started),
        dap_gy_m2=_scaled(_number(dataset, "ImageAndFluoroscopyAreaDoseProduct"), DGY_CM2), entrance_dose_gy=entrance,
        seconds=_scaled(_number(dataset, "ExposureTimeInms", "ExposureTime"), 1e-3), pulses=None if frames is None else int(frames),
        kvp=_number(dataset, "KVP"), tube_current_ma=_number(dataset, "XRayTubeCurrentInmA", "XRayTubeCurrent"),
    )


def _one_image_per_event(images: list) -> list:
    """Images without further ones of the same irradiation event (a processed copy, the other size), whose dose would count twice."""
    seen: dict[str, object] = {}
    for number, dataset in enumerate(images):
        seen.setdefault(" ".join(_uids(dataset)) or f"#{number}", dataset)
    return list(seen.values())


def _from_images(images: list) -> DoseSummary:
    given, images = len(images), _one_image_per_event(images)
    events = tuple(map(_image_event, images))
    dap = [e.dap_gy_m2 for e in events]
    fluoro = [t for d in images if (t := _number(d, "TotalTimeOfFluoroscopy")) is not None]
    warnings = ["Image headers do not count fluoroscopy that was not stored: the true dose may be higher."]
    if given > len(images):
        warnings.append(f"{given - len(images)} of {given} images show an irradiation event that another one counts already.")
    missing = dap.count(None)
    if missing == len(dap):
        warnings.append("No image tells its dose area product.")
    elif missing:
        warnings.append(f"{missing} of {len(dap)} images do not tell their dose area product; the total is of the others.")
    if any(e.dap_gy_m2 == 0 and (e.seconds or e.pulses) for e in events):
        warnings.append("An image with exposure tells a dose area product of exactly 0: perhaps the device does not measure it.")
    if any(e.entrance_dose_gy is not None for e in events):
        warnings.append("Image headers tell an entrance dose, which is not the reference air kerma.")
    if not fluoro:
        warnings.append("The fluoroscopy time is not in the image headers.")
    device = "; ".join(dict.fromkeys(" ".join(str(d.get(t, "") or "") for t in ("Manufacturer", "ManufacturerModelName")).strip() for d in images))
    return DoseSummary(
        dap_gy_m2=add_known(dap), fluoroscopy_seconds=max(fluoro) if fluoro else None, events=events, warnings=tuple(warnings),
        source="image headers", device=device, fluoroscopy_time_source="reported" if fluoro else None,
    )


# ---- by hand ----------------------------------------------------------------------------------------------------------
def manual_dose(
    dap: str | None = None, air_kerma: str | None = None, fluoroscopy: str | None = None, frames: int | None = None, device: str = "",
) -> DoseSummary:
    """Dose read off the C-arm's display: ``"1.2 Gy.cm2"``, ``"30 mGy"``, ``"1.5 min"`` (each with its unit), or None: not told.

    Raises
    ------
    FluoroGuideError
        Nothing is given, or a value is no number with a unit that this quantity can have.
    """
    if (dap, air_kerma, fluoroscopy, frames) == (None,) * 4:
        raise FluoroGuideError("No dose is given", None, "Give the dose area product, the air kerma or the fluoroscopy time")
    if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 0):
        raise FluoroGuideError("The number of frames is not a whole number from 0", frames)
    seconds = _typed(fluoroscopy, TIME_UNITS, "fluoroscopy time")
    return DoseSummary(
        dap_gy_m2=_typed(dap, DAP_UNITS, "dose area product"), reference_air_kerma_gy=_typed(air_kerma, KERMA_UNITS, "reference air kerma"),
        fluoroscopy_seconds=seconds, frames=frames, source="manual", device=device,
        fluoroscopy_time_source=None if seconds is None else "manual", warnings=("The dose was typed in by hand.",),
    )


def _typed(text: str | None, units: dict[str, float], label: str) -> float | None:
    """A value with its unit in the base unit; the unit is never guessed."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]+(?:[.,][0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([^0-9\s].*?)?\s*", str(text))
    factor = factor_of(found[2], units) if found and found[2] else None
    if factor is None:
        raise FluoroGuideError(
            f"The {label} is not a number from 0 with its unit", text, f"Write for example '1.5 {next(iter(units))}'; units: {', '.join(units)}"
        )
    return float(found[1].replace(",", ".")) * factor
