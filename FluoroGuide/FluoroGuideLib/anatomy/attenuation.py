"""CT, CBCT (and later MR) as the linear attenuation that X-rays meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import FluoroGuideError

WATER_ATTENUATION_PER_MM = 0.02
"""Linear attenuation of water, 1/mm, at a typical effective energy of fluoroscopy (about 65-70 keV; DESIGN 3)."""
HU_RANGE = (-1024.0, 3000.0)
"""Below lies padding (-2000, -3024, ...), above metal and its streaks; both are clipped to the range."""
MAX_VOXELS = 2_000_000_000


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
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        hint = "Give NIfTI, NRRD, MetaImage or a folder of DICOM slices"
        raise FluoroGuideError("The file is not a volume that can be read", path.name, hint) from None
    if float(np.prod([float(n) for n in reader.GetSize()])) > MAX_VOXELS:
        raise FluoroGuideError("The volume is too large", f"{path.name}, {reader.GetSize()}", "Crop or resample it first")
    try:
        return reader.Execute()
    except (RuntimeError, MemoryError):
        raise FluoroGuideError("The volume is damaged or incomplete", path.name, "Export it again") from None


def _read_series(folder: Path) -> tuple[sitk.Image, str]:
    reader = sitk.ImageSeriesReader()
    series = {uid: reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))}
    if not series:
        raise FluoroGuideError("The folder holds no DICOM series", folder.name, "Give the folder that holds the slices themselves")
    files = max(series.values(), key=len)
    note = f"the folder holds {len(series)} series; the largest, of {len(files)} files, was read" if len(series) > 1 else ""
    if len(files) == 1:
        return _read_file(Path(files[0])), note
    _check_slices(files, folder.name)
    reader.SetFileNames(files)
    # ITK prints a warning for deviations of micrometres; real gaps were refused above.
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return reader.Execute(), note
    except (RuntimeError, MemoryError):
        hint = "Check that its slices have one size and none is missing"
        raise FluoroGuideError("The DICOM series cannot be read as one volume", folder.name, hint) from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _check_slices(files: tuple[str, ...], name: str) -> None:
    """Raise when the slices of a series are not evenly spaced along one line across the slices.

    SimpleITK would silently take the first distance for all, or ignore a gantry tilt.
    """
    import pydicom

    try:
        headers = [pydicom.dcmread(f, stop_before_pixels=True, specific_tags=["ImagePositionPatient", "ImageOrientationPatient"]) for f in files]
        positions = np.array([[float(v) for v in h.ImagePositionPatient] for h in headers])
        row, column = np.array([float(v) for v in headers[0].ImageOrientationPatient]).reshape(2, 3)
    except Exception:  # slices without positions: pydicom raises many kinds, and the answer is the same
        hint = "Export it as CT, CBCT or MR slices, or convert it to NIfTI"
        raise FluoroGuideError("The slices of the DICOM series have no positions", name, hint) from None
    steps = np.diff(positions, axis=0)
    along = steps @ np.cross(row, column)
    typical = float(np.median(np.abs(along)))
    uneven = int((np.abs(np.abs(along) - typical) > 0.1 * typical + 0.01).sum())
    if typical <= 0 or uneven:
        count = f"{name}, {uneven or len(along)} of {len(along)} gaps"
        raise FluoroGuideError("The slices of the DICOM series are not evenly spaced", count, "Export it completely, one acquisition per series")
    sideways = float(np.linalg.norm(steps - along[:, None] * np.cross(row, column), axis=1).max())
    if sideways > 0.02 * typical + 0.02:
        shift = f"{name}, {sideways:.2f} mm per slice"
        raise FluoroGuideError("The DICOM slices are shifted against each other (gantry tilt)", shift, "Resample it to a straight volume")


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
