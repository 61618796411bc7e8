"""Write X-Ray Angiographic images (DICOM PS3.3 A.14), multi-frame, uncompressed."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import PATIENT_POSITIONS

XA_STORAGE = "1.2.840.10008.5.1.4.1.1.12.1"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def write_xa(
    path: str | Path, frames: np.ndarray, *, primary_deg: float, secondary_deg: float, sid_mm: float, sod_mm: float,
    pixel_spacing_mm: tuple[float, float], kvp: float | None = None, frame_time_ms: float | None = None,
    photometric: str = "MONOCHROME2", intensity_relationship: str = "LIN", patient_position: str = "HFS",
    patient_orientation: tuple[str, str] | None = None, shutter: tuple[int, int, int, int] | None = None,
    dap_dgy_cm2: float | None = None, tube_current_ma: float | None = None, exposure_time_ms: float | None = None,
    bits_stored: int | None = None, patient_id: str = "ANONYMOUS", patient_name: str = "Anonymous", study_uid: str | None = None,
    series_uid: str | None = None, instance_number: int = 1, acquired: dt.datetime | None = None,
    primary_increments_deg: np.ndarray | None = None, secondary_increments_deg: np.ndarray | None = None,
) -> str:
    """Write a valid XA object; returns its SOP Instance UID.

    Parameters
    ----------
    frames
        uint8 or uint16, (frames, rows, columns) or (rows, columns), values as stored.
    primary_deg, secondary_deg
        Patient angles of the first frame, LAO and CRA positive.
    sid_mm, sod_mm
        Source to detector and source to isocentre.
    pixel_spacing_mm
        (row, column) at the detector.
    frame_time_ms
        Time between frames; 66.7 ms for runs when not given.
    photometric, intensity_relationship
        ``MONOCHROME1|2``; ``LIN|LOG|DISP``.  Neither changes the values: give them as they are to be stored.
    shutter
        Rectangular shutter (left, right, upper, lower): 1-based edges, outside of which nothing is shown.
    dap_dgy_cm2
        Dose area product of the run in dGy.cm2, the unit of (0018,115E).
    study_uid, series_uid
        To put several runs into one study; made anew when not given.
    acquired
        Local time; left empty when not given.

    Raises
    ------
    FluoroGuideError
        Frames of another type or shape, or impossible geometry.
    """
    import pydicom
    from pydicom.uid import generate_uid

    frames = _checked_frames(frames)
    _check_geometry(frames, sid_mm, sod_mm, pixel_spacing_mm, photometric, intensity_relationship, patient_position)
    dataset = pydicom.Dataset()
    uid = generate_uid()
    dataset.SOPClassUID, dataset.SOPInstanceUID = XA_STORAGE, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid or generate_uid(), series_uid or generate_uid()
    _identification(dataset, patient_id, patient_name, instance_number, acquired)
    dataset.PatientPosition = patient_position
    dataset.PatientOrientation = list(patient_orientation) if patient_orientation else None
    _acquisition(dataset, kvp, tube_current_ma, exposure_time_ms, dap_dgy_cm2)
    _positioner(dataset, primary_deg, secondary_deg, sid_mm, sod_mm, pixel_spacing_mm)
    _motion(dataset, len(frames), primary_increments_deg, secondary_increments_deg)
    if shutter is not None:
        _shutter(dataset, shutter)
    _pixels(dataset, frames, photometric, intensity_relationship, frame_time_ms, bits_stored)
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = XA_STORAGE, uid, _EXPLICIT_LITTLE_ENDIAN
    dataset.file_meta = meta
    try:
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    except OSError as error:
        raise FluoroGuideError("The DICOM file cannot be written", f"{Path(path).name}: {error.strerror}", "Check the folder and its space") from None
    return str(uid)


def _checked_frames(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    frames = frames[None] if frames.ndim == 2 else frames
    if frames.dtype not in (np.uint8, np.uint16) or frames.ndim != 3 or 0 in frames.shape:
        raise FluoroGuideError("The frames must be uint8 or uint16 (frames, rows, columns)", f"{frames.dtype}, shape {frames.shape}")
    return frames


def _check_geometry(frames, sid_mm, sod_mm, spacing, photometric, relationship, position) -> None:
    from ..geometry.carm import CArmView

    CArmView.from_angles(0, 0, sid_mm=sid_mm, sod_mm=sod_mm, rows=frames.shape[1], columns=frames.shape[2], pixel_spacing_mm=spacing)
    for name, value, allowed in (
        ("photometric interpretation", photometric, ("MONOCHROME1", "MONOCHROME2")),
        ("pixel intensity relationship", relationship, ("LIN", "LOG", "DISP")), ("patient position", position, PATIENT_POSITIONS),
    ):
        if value not in allowed:
            raise FluoroGuideError(f"The {name} is not possible", value, "Use one of " + ", ".join(allowed))


def decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters, as exact as they allow."""
    if not math.isfinite(value):
        raise FluoroGuideError("A number for the DICOM file is not finite", value)
    for digits in range(15, 0, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= 16:
            return text
    return text


def _identification(dataset, patient_id: str, patient_name: str, instance_number: int, acquired: dt.datetime | None) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
    dataset.Modality = "XA"
    dataset.PatientName, dataset.PatientID = patient_name, patient_id
    for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName", "StudyID"):
        setattr(dataset, keyword, "")
    dataset.Manufacturer, dataset.ManufacturerModelName = "FluoroGuide", "simulated or exported"
    day, clock = (acquired.strftime("%Y%m%d"), acquired.strftime("%H%M%S")) if acquired else ("", "")
    for name in ("Study", "Series", "Content", "Acquisition"):
        setattr(dataset, name + "Date", day)
        setattr(dataset, name + "Time", clock)
    dataset.SeriesNumber, dataset.InstanceNumber = 1, instance_number


def _acquisition(dataset, kvp, tube_current_ma, exposure_time_ms, dap_dgy_cm2) -> None:
    dataset.KVP = decimal(kvp) if kvp is not None else None
    dataset.RadiationSetting = "GR"
    # Type 2C: the tube current and exposure time may be empty, the exposure then too.
    dataset.XRayTubeCurrent = round(tube_current_ma) if tube_current_ma is not None else None
    dataset.ExposureTime = round(exposure_time_ms) if exposure_time_ms is not None else None
    known = tube_current_ma is not None and exposure_time_ms is not None
    dataset.Exposure = round(tube_current_ma * exposure_time_ms / 1000) if known else None
    if dap_dgy_cm2 is not None:
        dataset.ImageAndFluoroscopyAreaDoseProduct = decimal(dap_dgy_cm2)


def _positioner(dataset, primary_deg, secondary_deg, sid_mm, sod_mm, spacing) -> None:
    dataset.DistanceSourceToDetector, dataset.DistanceSourceToPatient = decimal(sid_mm), decimal(sod_mm)
    dataset.EstimatedRadiographicMagnificationFactor = decimal(sid_mm / sod_mm)
    dataset.ImagerPixelSpacing = [decimal(spacing[0]), decimal(spacing[1])]
    dataset.PositionerPrimaryAngle, dataset.PositionerSecondaryAngle = decimal(primary_deg), decimal(secondary_deg)


def _motion(dataset, count: int, primary_increments, secondary_increments) -> None:
    moving = primary_increments is not None or secondary_increments is not None
    dataset.PositionerMotion = "DYNAMIC" if moving else "STATIC"
    if moving:
        for keyword, increments in (("Primary", primary_increments), ("Secondary", secondary_increments)):
            values = np.zeros(count) if increments is None else np.asarray(increments, float)
            if values.shape != (count,):
                raise FluoroGuideError("The angle increments must be one per frame", f"{values.shape} for {count} frames")
            setattr(dataset, f"Positioner{keyword}AngleIncrement", [decimal(v) for v in values])


def _shutter(dataset, shutter: tuple[int, int, int, int]) -> None:
    dataset.ShutterShape = "RECTANGULAR"
    edges = ("ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge", "ShutterLowerHorizontalEdge")
    for keyword, value in zip(edges, shutter, strict=True):
        setattr(dataset, keyword, int(value))


def _pixels(dataset, frames: np.ndarray, photometric: str, relationship: str, frame_time_ms: float | None, bits_stored: int | None) -> None:
    allocated = 8 * frames.itemsize
    stored = bits_stored or allocated
    # PS3.3 C.8.7.1.1: XA stores 8, 10, 12 or 16 bits.
    if stored not in ((8,) if allocated == 8 else (10, 12, 16)) or int(frames.max()) >= 2**stored:
        raise FluoroGuideError("The frames do not fit the bits stored", f"{stored} bits, maximum {frames.max()}", "Use 8, 10, 12 or 16 bits")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = allocated, stored, stored - 1, 0
    dataset.PixelIntensityRelationship = relationship
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
        dataset.FrameTime = decimal(frame_time_ms if frame_time_ms is not None else 66.7)
        dataset.FrameIncrementPointer = 0x00181063
    elif frame_time_ms is not None:
        dataset.FrameTime = decimal(frame_time_ms)
    data = np.ascontiguousarray(frames, frames.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
