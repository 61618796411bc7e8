"""X-ray images from files: DICOM XA/RF, or any picture SimpleITK reads with a C-arm card."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.metaimage import check_metaimage
from .dicom_xa import XrayRun, picture_run, read_run
from .geometry_card import check_card, read_geometry_card
from .geometry_report import GeometryReport, ReportEntry, geometry_report, report_text
from .preprocess import Normalized
from .xray import XrayImage

MAX_PICTURE_PIXELS = 400_000_000
MOST_PIXELS_PER_BYTE = 1100
"""Deflate packs 1032 to 1 at best, JPEG less: a file that promises more is damaged, and would be filled up with grey."""

__all__ = ["check_card", "inspect_report", "inspect_text", "open_xray", "read_geometry_card", "read_xray", "run_report", "write_preview"]


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

    check_metaimage(path, "picture")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if float(np.prod([float(n) for n in size])) > MAX_PICTURE_PIXELS:
            raise FluoroGuideError("The picture is too large", f"{path.name}, {size}", "Check the file")
        if float(np.prod([float(n) for n in size])) > MOST_PIXELS_PER_BYTE * path.stat().st_size:
            raise FluoroGuideError("The picture is damaged or incomplete", f"{path.name} promises {size} pixels", "Export it again")
        image = reader.Execute()
    except (RuntimeError, MemoryError, UnicodeDecodeError):
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
def inspect_report(path: str | Path, geometry: dict | str | Path | None = None, frame: int | None = None, **options: object) -> dict:
    """What is known of an X-ray file, as plain values for JSON (command ``inspect``).

    Keys: ``file``, ``frames``, ``rows``, ``columns``, ``facts``, ``quantities`` (list of ``name, label, value, unit,
    origin, note, step, effect_mm``), ``target_mm``, ``target_note``, ``missing``, ``assumptions``, ``warnings``,
    ``normalization`` (polarity, confidence, relationship, masked share, share of each part, notes) of ``frame``, the
    middle one by default.  ``options`` go to :func:`~.preprocess.normalize`.
    """
    return run_report(open_xray(path, geometry), frame, **options)[0]


def run_report(run: XrayRun, frame: int | None = None, **options: object) -> tuple[dict, Normalized]:
    """As :func:`inspect_report` for a run that is open already, with the normalised picture."""
    frame = len(run.frames) // 2 if frame is None else frame
    picture = run.normalized(frame, **options)
    geometry = geometry_report(run, frame).to_dict()
    return {
        "file": run.source, "frames": len(run.frames), "rows": run.frames.shape[1], "columns": run.frames.shape[2], "facts": run.facts,
        "quantities": geometry["entries"], "target_mm": geometry["target_mm"], "target_note": geometry["target_note"],
        "missing": list(run.missing), "assumptions": list(run.assumptions), "warnings": list(run.warnings), "normalization": {
            "frame": frame, "polarity": picture.polarity, "confidence": picture.confidence, "relationship": picture.relationship,
            "masked_share": float(1 - picture.mask.mean()), "parts": {k: float(v.mean()) for k, v in picture.parts.items()},
            "notes": list(picture.notes),
        },
    }, picture


def inspect_text(report: dict) -> str:
    """The report of :func:`inspect_report` as lines for people."""
    lines = [f"{report['file']}: {report['frames']} frame(s) of {report['columns']} x {report['rows']}"]
    facts = {k: v for k, v in report["facts"].items() if k != "frame_times_ms"}
    lines.append("  " + ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items()))
    entries = tuple(ReportEntry(**q) for q in report["quantities"])
    geometry = GeometryReport(
        report["file"], report["normalization"]["frame"], entries, tuple(report["missing"]), tuple(report["assumptions"]),
        report["target_mm"], report["target_note"],
    )
    lines.append(report_text(geometry))
    lines += [f"  picture, frame {report['normalization']['frame']}: {note}" for note in report["normalization"]["notes"]]
    return "\n".join(lines)


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


STEP_COLORS = {"outside field": (40, 60, 160), "saturated": (230, 200, 0), "text": (0, 200, 80), "metal": (230, 40, 40)}


def write_steps(path_png: str | Path, picture: Normalized) -> None:
    """Write the normalised picture with what each step masked in colour (:data:`STEP_COLORS`).

    Raises
    ------
    FluoroGuideError
        The file cannot be written.
    """
    import SimpleITK as sitk

    grey = np.clip(picture.pixels, 0, 1) * 255
    colour = np.repeat(grey[..., None], 3, axis=2)
    for name, rgb in STEP_COLORS.items():
        part = picture.parts.get(name)
        if part is not None:
            colour[part] = 0.5 * colour[part] + 0.5 * np.array(rgb)
    try:
        sitk.WriteImage(sitk.GetImageFromArray(np.rint(colour).astype(np.uint8), isVector=True), str(path_png))
    except RuntimeError:
        hint = "Give a file name ending in .png in an existing folder"
        raise FluoroGuideError("The picture cannot be written", Path(path_png).name, hint) from None
