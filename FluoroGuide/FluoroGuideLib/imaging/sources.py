"""X-ray images from files: DICOM XA/RF, or any picture SimpleITK reads with a C-arm card."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .dicom_values import Quantity
from .dicom_xa import XrayRun, picture_run, read_run
from .geometry_card import check_card, read_geometry_card
from .xray import XrayImage

MAX_PICTURE_PIXELS = 400_000_000

__all__ = ["check_card", "inspect_report", "inspect_text", "open_xray", "read_geometry_card", "read_xray", "write_preview"]


def read_xray(path: str | Path, geometry: dict | str | Path | None = None, frame: int = 0) -> XrayImage:
    """One X-ray frame with its geometry, normalised: bone bright.

    Parameters
    ----------
    path
        DICOM XA or RF, or a 2-D picture (PNG, TIFF, one-slice NRRD, ...) when a card gives its geometry.
    geometry
        C-arm card: a dictionary, the path of a ``geometry.json``, or ``None``.  Its values win over DICOM tags.
    frame
        Index from 0.

    Raises
    ------
    FluoroGuideError
        Bad files, impossible values, or missing geometry, all of it named.
    """
    return open_xray(path, geometry).image(frame)


def open_xray(path: str | Path, geometry: dict | str | Path | None = None) -> XrayRun:
    """All frames of an X-ray file with what is known of their geometry; see :func:`read_xray`."""
    path = Path(path)
    if not path.is_file():
        raise FluoroGuideError("The X-ray file does not exist", path.name, "Check the path")
    card = read_geometry_card(geometry) if isinstance(geometry, (str, os.PathLike)) else check_card({} if geometry is None else geometry)
    if is_dicom(path):
        return read_run(path, card)
    return picture_run(_read_picture(path), card, path.name)


def is_dicom(path: str | Path) -> bool:
    """Whether a file says it is DICOM: by its preamble, or by its extension."""
    path = Path(path)
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as error:
        raise FluoroGuideError("The X-ray file cannot be read", f"{path.name}: {error.strerror}", "Check its permissions") from None


def _read_picture(path: Path) -> np.ndarray:
    """(frames, rows, columns) of a picture file; a picture without third dimension is one frame."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if float(np.prod([float(n) for n in size])) > MAX_PICTURE_PIXELS:
            raise FluoroGuideError("The picture is too large", f"{path.name}, {size}", "Check the file")
        image = reader.Execute()
    except (RuntimeError, MemoryError):
        raise FluoroGuideError("The file is not a picture that can be read", path.name, "Give DICOM XA/RF, PNG, TIFF or NRRD") from None
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise FluoroGuideError("The picture is in colour", path.name, "Give a grey picture: convert it first, without text or drawings in it")
    pixels = sitk.GetArrayFromImage(image)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or len(pixels) != 1:
        raise FluoroGuideError("The file is not one 2-D picture", f"{path.name}, {image.GetSize()}", "Give one frame, or a DICOM run")
    if np.iscomplexobj(pixels):
        raise FluoroGuideError("The picture has complex values", path.name, "Give a grey picture")
    return pixels


# ---- reports ----------------------------------------------------------------------------------------------------
def inspect_report(path: str | Path, geometry: dict | str | Path | None = None) -> dict:
    """What is known of an X-ray file, as plain values for JSON (command ``inspect``).

    Keys: ``file``, ``frames``, ``rows``, ``columns``, ``facts``, ``quantities`` (list of ``name, label, value, unit,
    origin, note``), ``missing``, ``assumptions``, ``warnings``, ``normalization`` (polarity, confidence,
    relationship, masked share, notes) of the middle frame.
    """
    run = open_xray(path, geometry)
    frame = len(run.frames) // 2
    picture = run.normalized(frame)
    return {
        "file": run.source, "frames": len(run.frames), "rows": run.frames.shape[1], "columns": run.frames.shape[2], "facts": run.facts,
        "quantities": [_plain(q) for q in run.quantities], "missing": list(run.missing), "assumptions": list(run.assumptions),
        "warnings": list(run.warnings), "normalization": {
            "frame": frame, "polarity": picture.polarity, "confidence": picture.confidence, "relationship": picture.relationship,
            "masked_share": float(1 - picture.mask.mean()), "notes": list(picture.notes),
        },
    }


def _plain(quantity: Quantity) -> dict:
    value = quantity.value
    value = np.asarray(value).tolist() if isinstance(value, (tuple, np.ndarray)) else value
    return {"name": quantity.name, "label": quantity.label, "value": value, "unit": quantity.unit, "origin": quantity.origin, "note": quantity.note}


def inspect_text(report: dict) -> str:
    """The report of :func:`inspect_report` as lines for people."""
    lines = [f"{report['file']}: {report['frames']} frame(s) of {report['columns']} x {report['rows']}"]
    lines.append("  " + ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in report["facts"].items()))
    for q in report["quantities"]:
        note = f"  ({q['note']})" if q["note"] else ""
        lines.append(f"  {q['label']:<62} {_shown(q['value'], q['unit']):<22} {q['origin']}{note}")
    for key in ("missing", "assumptions"):
        lines += [f"  {key}: " + (text if text else "none") for text in report[key] or [""]]
    normal = report["normalization"]
    lines += [f"  picture, frame {normal['frame']}: {note}" for note in normal["notes"]]
    return "\n".join(lines)


def _shown(value: object, unit: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and len(value) > 3:
        return f"{np.min(value):g} .. {np.max(value):g} {unit}"
    if isinstance(value, list):
        return " x ".join(f"{v:g}" for v in value) + f" {unit}"
    return f"{value:g} {unit}".rstrip() if isinstance(value, (int, float)) else f"{value} {unit}".rstrip()


def write_preview(path_png: str | Path, image: object) -> None:
    """Write a normalised picture (:class:`XrayImage` or :class:`~.preprocess.Normalized`) as an 8-bit PNG; masked pixels are black.

    Raises
    ------
    FluoroGuideError
        The file cannot be written.
    """
    import SimpleITK as sitk

    pixels = np.where(image.mask, np.clip(image.pixels, 0, 1), 0)
    try:
        sitk.WriteImage(sitk.GetImageFromArray(np.rint(pixels * 255).astype(np.uint8)), str(path_png))
    except RuntimeError:
        hint = "Give a file name ending in .png in an existing folder"
        raise FluoroGuideError("The picture cannot be written", Path(path_png).name, hint) from None
