"""Reads a segmentation: a label image with the names of its labels."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError


def read_segmentation(path: str | Path, names_path: str | Path | None = None) -> tuple[object, dict[int, str]]:
    """(SimpleITK label image, label value -> name).

    Names come from a Slicer ``.seg.nrrd``'s own header, or from ``names_path``: JSON ``{"1": "sacrum", ...}`` or CSV with
    the columns ``structure`` and ``id`` (TotalSegmentator's list in the sample CT); otherwise ``"label 1"`` and so on.

    Raises
    ------
    FluoroGuideError
        Missing, no 3-D label image, overlapping segments (several layers), or names that cannot be read.
    """
    import SimpleITK as sitk

    from .volume_checks import check_file, check_promise

    path = Path(path)
    if not path.is_file():
        raise FluoroGuideError("The segmentation does not exist", path.name, "Check the path")
    check_file(path, "segmentation")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        check_promise(reader, path, "segmentation")
        image = reader.Execute()
    except (RuntimeError, MemoryError, UnicodeDecodeError):
        raise FluoroGuideError("The segmentation cannot be read as an image", path.name, "Give .seg.nrrd, .nrrd or .nii.gz") from None
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise FluoroGuideError("The segmentation has overlapping segments", path.name, "Export it as a label map")
    if image.GetDimension() != 3:
        raise FluoroGuideError("The segmentation is not three-dimensional", path.name)
    if np.issubdtype(sitk.GetArrayViewFromImage(image).dtype, np.floating):
        image = sitk.Cast(image, sitk.sitkInt32)
    values = [int(v) for v in np.unique(sitk.GetArrayViewFromImage(image)) if v > 0]
    if not values:
        raise FluoroGuideError("The segmentation is empty", path.name, "Give one with at least one segment")
    known = _names(Path(names_path)) if names_path else _header_names(image)
    return image, {v: known.get(v, f"label {v}") for v in values}


def _header_names(image: object) -> dict[int, str]:
    names = {}
    for key in image.GetMetaDataKeys():
        if match := re.fullmatch(r"(Segment\d+)_Name", key):
            value = f"{match.group(1)}_LabelValue"
            if image.HasMetaDataKey(value) and image.GetMetaData(value).strip().isdigit():
                names[int(image.GetMetaData(value))] = image.GetMetaData(key).strip()
    return names


def _names(path: Path) -> dict[int, str]:
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return {int(row["id"]): row["structure"] for row in csv.DictReader(file)}
        return {int(k): str(v) for k, v in json.loads(path.read_text(encoding="utf-8-sig")).items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        hint = 'Give JSON {"1": "sacrum"} or CSV with the columns structure and id'
        raise FluoroGuideError("The names of the segmentation's labels cannot be read", path.name, hint) from None
