"""CT, CBCT (and later MR) as the linear attenuation that X-rays meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import FluoroGuideError
from .volume_checks import MOST_PACKED, BoundedFile, check_file, check_kinds, check_promise, read_header

WATER_ATTENUATION_PER_MM = 0.02
"""Linear attenuation of water, 1/mm, at a typical effective energy of fluoroscopy (about 65-70 keV; DESIGN 3)."""
HU_RANGE = (-1024.0, 3000.0)
"""Below lies padding (-2000, -3024, ...), above metal and its streaks; both are clipped to the range."""


@dataclass(frozen=True, eq=False)
class AttenuationVolume:
    """A volume of linear attenuation.

    Attributes
    ----------
    image
        3-D SimpleITK float32 image, 1/mm, with its LPS geometry.
    modality
        ``"CT"``, ``"CBCT"`` or ``"MR"``: what it was made from.
    name
        A name for people (file name without folders); no patient identifiers.
    parts
        SimpleITK label image on the same grid with bone parts, or None.
    part_names
        Label value -> name.
    """

    image: object
    modality: str = "CT"
    name: str = ""
    parts: object | None = None
    part_names: dict[int, str] = field(default_factory=dict)


def attenuation_from_hu(image: sitk.Image, modality: str = "CT", name: str = "") -> AttenuationVolume:
    """Hounsfield units to linear attenuation: ``mu = 0.02 (1 + HU / 1000)`` per mm, never below 0.

    This is the definition of HU with the attenuation of water at one effective energy.  Bone attenuates somewhat more
    at fluoroscopic than at CT energies (photoelectric effect in calcium), so its line integrals come out a little
    low; the local correlation used for registration is blind to such a smooth scale.  CBCT is treated alike: its HU
    may be tens to hundreds off, which shifts the background, not where edges are.

    Parameters
    ----------
    image
        3-D image in HU.  Values outside :data:`HU_RANGE` are clipped to it.

    Raises
    ------
    FluoroGuideError
        The image fails :func:`check_volume`, or the modality is neither CT nor CBCT.
    """
    if modality not in ("CT", "CBCT"):
        raise FluoroGuideError("Hounsfield units need a CT or CBCT volume", modality, "Say which of the two it is")
    check_volume(image, name or "volume")
    statistics = sitk.MinimumMaximumImageFilter()
    statistics.Execute(image)
    if statistics.GetMaximum() < -500:
        what = f"{name} maximum {statistics.GetMaximum():g} HU"
        raise FluoroGuideError("The volume holds nothing denser than air", what, "Check its units: HU are expected")
    # in place, one float copy: a 512 x 512 x 400 CT is 420 MB as float
    result = sitk.Clamp(image, sitk.sitkFloat32, -1000.0, HU_RANGE[1])
    result += 1000.0
    result *= WATER_ATTENUATION_PER_MM / 1000.0
    return AttenuationVolume(result, modality, name)


def read_volume(path: str | Path) -> sitk.Image:
    """Read a 3-D volume: any file SimpleITK reads, or a folder with a DICOM series.

    In a folder with several series the one with most slices is taken; its metadata key ``FluoroGuide.note`` says so.

    Returns
    -------
    sitk.Image
        3-D scalar image, int16 where the file holds integers that fit, else float32; HU as stored.

    Raises
    ------
    FluoroGuideError
        No such file, not an image, or an image that fails :func:`check_volume`.
    """
    path = Path(path)
    if path.is_dir():
        image, note = _read_series(path)
    elif path.is_file():
        image, note = _read_file(path), ""
    else:
        raise FluoroGuideError("The volume does not exist", path.name, "Check the path")
    check_volume(image, path.name)
    image = _compact(image)
    if note:
        image.SetMetaData("FluoroGuide.note", note)
    return image


def _read_file(path: Path) -> sitk.Image:
    check_file(path, "volume")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except (RuntimeError, UnicodeDecodeError):  # the latter: ITK's message quotes the file
        hint = "Give NIfTI, NRRD, MetaImage or a folder of DICOM slices"
        raise FluoroGuideError("The file is not a volume that can be read", path.name, hint) from None
    check_promise(reader, path, "volume")
    try:
        return reader.Execute()
    except (RuntimeError, MemoryError, UnicodeDecodeError):
        raise FluoroGuideError("The volume is damaged or incomplete", path.name, "Export it again") from None


def _read_series(folder: Path) -> tuple[sitk.Image, str]:
    series = _headers(folder)
    if not series:
        raise FluoroGuideError("The folder holds no DICOM series", folder.name, "Give the folder that holds the slices themselves")
    slices = max(series.values(), key=len)
    note = f"the folder holds {len(series)} series; the largest, of {len(slices)} files, was read" if len(series) > 1 else ""
    if len(slices) == 1:
        return _read_file(slices[0][0]), note
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(f) for f in _in_order(slices, folder.name)])
    # ITK prints a warning for deviations of micrometres; real gaps were refused above.
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return reader.Execute(), note
    except (RuntimeError, MemoryError, UnicodeDecodeError):
        hint = "Check that its slices have one size and none is missing"
        raise FluoroGuideError("The DICOM series cannot be read as one volume", folder.name, hint) from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


_SLICE_TAGS = (
    "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "SamplesPerPixel",
)


def _headers(folder: Path) -> dict[str, list[tuple[Path, object]]]:
    """(file, header) of each series in a folder.

    Read with pydicom: GDCM's own scan believes every length in a file and takes gigabytes and minutes over a damaged one.
    """
    series: dict[str, list[tuple[Path, object]]] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            with path.open("rb") as file:
                if file.read(132)[128:] != b"DICM":
                    continue
                file.seek(0)
                bounded = BoundedFile(file, path.stat().st_size)
                header = read_header(bounded)
                check_kinds(header)
                if "Rows" in header:
                    bounded.check_pixels()
            uid = str(header.get("SeriesInstanceUID", ""))
            bytes_promised = float(np.prod([float(header.get(tag) or 1) for tag in _SLICE_TAGS[3:]])) / 8
        except Exception:  # pydicom raises many kinds for damaged files; all mean the same to the user
            raise FluoroGuideError("A DICOM file of the folder is damaged", path.name, "Copy or export the series again") from None
        if "Rows" in header:
            if not 0 < bytes_promised <= MOST_PACKED * path.stat().st_size:
                raise FluoroGuideError("A DICOM file promises more voxels than it can hold", path.name, "Copy or export the series again")
            series.setdefault(uid, []).append((path, header))
    return series


def _in_order(slices: list[tuple[Path, object]], name: str) -> list[Path]:
    """Files along the line across the slices.

    Raises
    ------
    FluoroGuideError
        The slices are not evenly spaced along one line: SimpleITK would silently take the first distance for all, or ignore a gantry tilt.
    """
    try:
        positions = np.array([[float(v) for v in h.ImagePositionPatient] for _, h in slices])
        row, column = np.array([float(v) for v in slices[0][1].ImageOrientationPatient]).reshape(2, 3)
        across = positions @ np.cross(row, column)
        if not np.isfinite(across).all():
            raise ValueError
    except Exception:  # slices without positions: pydicom raises many kinds, and the answer is the same
        hint = "Export it as CT, CBCT or MR slices, or convert it to NIfTI"
        raise FluoroGuideError("The slices of the DICOM series have no positions", name, hint) from None
    order = np.argsort(across, kind="stable")
    steps = np.diff(positions[order], axis=0)
    along = np.diff(across[order])
    typical = float(np.median(np.abs(along)))
    uneven = int((np.abs(np.abs(along) - typical) > 0.1 * typical + 0.01).sum())
    if typical <= 0 or uneven:
        count = f"{name}, {uneven or len(along)} of {len(along)} gaps"
        raise FluoroGuideError("The slices of the DICOM series are not evenly spaced", count, "Export it completely, one acquisition per series")
    sideways = float(np.linalg.norm(steps - along[:, None] * np.cross(row, column), axis=1).max())
    if sideways > 0.02 * typical + 0.02:
        shift = f"{name}, {sideways:.2f} mm per slice"
        raise FluoroGuideError("The DICOM slices are shifted against each other (gantry tilt)", shift, "Resample it to a straight volume")
    return [slices[n][0] for n in order]


def check_volume(image: sitk.Image, name: str) -> None:
    """Raise when an image cannot serve as a volume.

    Raises
    ------
    FluoroGuideError
        Not 3-D, several channels, fewer than two voxels along an axis, NaN or infinite voxels, all voxels equal, or
        an impossible spacing.
    """
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise FluoroGuideError("The volume has several values per voxel (colour or vectors)", name, "Give a scalar CT, CBCT or MR volume")
    if image.GetDimension() != 3:
        raise FluoroGuideError("The volume is not three-dimensional", f"{name}, {image.GetDimension()} dimensions", "Give one 3-D volume")
    if min(image.GetSize()) < 2:
        raise FluoroGuideError("The volume has only one slice", f"{name}, {image.GetSize()}", "Give the whole series, for example its folder")
    if not all(np.isfinite(s) and s > 0 for s in image.GetSpacing()):
        raise FluoroGuideError("The volume's voxel spacing is not positive", f"{name}, {image.GetSpacing()}", "Correct its header")
    voxels = sitk.GetArrayViewFromImage(image)
    low, high = float(voxels.min()), float(voxels.max())  # NaN anywhere makes both NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        raise FluoroGuideError("The volume has voxels that are not numbers (NaN or infinite)", name, "Replace them, for example by -1000 HU")
    if low == high:
        raise FluoroGuideError("All voxels of the volume have the same value", f"{name}, {low:g}", "Check the export")


def _compact(image: sitk.Image) -> sitk.Image:
    """int16 where integers fit, else float32: half the memory of double, and HU without loss."""
    voxels = sitk.GetArrayViewFromImage(image)
    integer = np.issubdtype(voxels.dtype, np.integer)
    wanted = sitk.sitkInt16 if integer and voxels.min() >= -32768 and voxels.max() <= 32767 else sitk.sitkFloat32
    return image if image.GetPixelID() == wanted else sitk.Cast(image, wanted)
