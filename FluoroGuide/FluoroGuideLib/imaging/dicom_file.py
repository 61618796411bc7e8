"""DICOM files opened with care: every length is checked against what the file holds before memory is taken for it.

Header: pydicom on a stream that refuses to read beyond the end of the file (:class:`_Bounded`), so that a lying length
at any depth ends in one sentence.  Pixels: values stored without compression are read by numpy, exactly as many bytes
as the header's size needs; compressed ones are taken out frame by frame, the size written in each codestream is
compared with the header, and SimpleITK's GDCM decodes them from a minimal file made here.  GDCM therefore never sees
the original header (nor who the patient is), and nothing but the codestreams.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .dicom_values import numbers, quiet_pydicom, text

MAX_DECODED_BYTES = 1_500_000_000
"""A run's pixels in memory; larger objects are refused before anything is read (about 700 frames of 1024 x 1024 x 16 bit)."""
MAX_HEADER_BYTES = 64_000_000
"""Of a deflated dataset, for those who want no pixels: headers and reports are far smaller."""
MAX_SIDE = 16384
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _DEFLATED, _BIG_ENDIAN}
_RLE = "1.2.840.10008.1.2.5"
_JPEG = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)}
_PIXEL_TAGS = {(0x7FE0, 0x0010)}


class _BeyondEnd(Exception):
    """More bytes promised than there are.  Not an ``EOFError``: pydicom takes that for the end of the object."""


class _Bounded(io.RawIOBase):
    """A stream that raises instead of promising more bytes than it holds (pydicom would allocate them first)."""

    def __init__(self, stream: io.BufferedIOBase, size: int) -> None:
        super().__init__()
        self._stream, self._size = stream, size

    def read(self, count: int = -1) -> bytes:
        left = self._size - self._stream.tell()
        if count is None or count < 0 or count > max(left, 64):
            raise _BeyondEnd(f"{count} bytes wanted, {left} left")
        return self._stream.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A parsed header and where its pixels lie.

    Attributes
    ----------
    path
        The file.
    dataset
        pydicom dataset without pixels.
    syntax
        Transfer syntax UID; empty when the file has no meta header (taken as implicit little endian).
    pixels_at
        Offset of the pixel data's **tag** in :attr:`body`, or -1.
    body
        ``None``: offsets count in the file; else the inflated bytes they count in.
    """

    path: Path
    dataset: object
    syntax: str
    pixels_at: int
    body: bytes | None = None

    def stream(self) -> io.BufferedIOBase:
        """The bytes that :attr:`pixels_at` counts in."""
        if self.body is not None:
            return io.BytesIO(self.body)
        with _still_there(self.path):
            return self.path.open("rb")

    def size(self) -> int:
        """How many bytes there are."""
        if self.body is not None:
            return len(self.body)
        with _still_there(self.path):
            return self.path.stat().st_size


@contextmanager
def _still_there(path: Path) -> Iterator[None]:
    """Files may go while they are read: a folder is cleaned up, a drive is pulled out."""
    try:
        yield
    except OSError as error:
        raise FluoroGuideError("The X-ray file can no longer be read", f"{path.name}: {error.strerror}", "Check where it went") from None


def open_dicom(path: str | Path, *, pixels: bool = True) -> DicomFile:
    """Parse a DICOM file up to its pixels; with ``pixels=False`` those cannot be read later, and little is unpacked to get there.

    Raises
    ------
    FluoroGuideError
        No file, not DICOM, or an element that promises more bytes than the file holds.
    """
    path = Path(path)
    if not path.is_file():
        raise FluoroGuideError("The X-ray file does not exist", path.name, "Check the path")
    with _still_there(path):
        size = path.stat().st_size
    try:
        with _still_there(path), path.open("rb") as stream, quiet_pydicom():
            return _parse(path, stream, size, pixels)
    except FluoroGuideError:
        raise
    except _BeyondEnd:
        raise FluoroGuideError("The DICOM file ends within its header", path.name, "Copy or export it again") from None
    except Exception:  # pydicom raises many kinds for damaged files; all mean the same to the user
        raise FluoroGuideError("The file is not DICOM", path.name, "Give a DICOM XA or RF file, or a picture with --geometry") from None


def _parse(path: Path, stream: io.BufferedIOBase, size: int, pixels: bool) -> DicomFile:
    import pydicom

    bounded = _Bounded(stream, size)
    start = _body_start(stream)
    if start is not None and start[1] == _DEFLATED:
        limit = MAX_DECODED_BYTES if pixels else MAX_HEADER_BYTES
        body, whole = _inflated(stream, start[0], limit)
        if pixels and not whole:
            raise _too_much(path)
        inner = _Bounded(io.BytesIO(body), len(body))
        try:
            dataset = pydicom.filereader.read_dataset(inner, False, True, stop_when=_at_pixels)
            found = _found(path, dataset, _DEFLATED, inner, body)
        except _BeyondEnd:
            raise (_BeyondEnd() if whole else _too_much(path)) from None
        if not whole and found.pixels_at < 0:  # cut between two elements, of which the second was never seen
            raise _too_much(path)
        return found
    stream.seek(0)
    dataset = pydicom.dcmread(bounded, stop_before_pixels=True)
    return _found(path, dataset, text(dataset.file_meta, "TransferSyntaxUID"), bounded, None)


def _found(path: Path, dataset: object, syntax: str, stream: _Bounded, body: bytes | None) -> DicomFile:
    place = stream.tell()
    tag = stream.read(4)
    order = ">" if syntax == _BIG_ENDIAN else "<"
    found = len(tag) == 4 and struct.unpack(order + "HH", tag) in _PIXEL_TAGS
    return DicomFile(path, dataset, syntax, place if found else -1, body)


def _at_pixels(tag: object, vr: str | None, length: int) -> bool:
    return int(tag) in (0x7FE00008, 0x7FE00009, 0x7FE00010)


def _body_start(stream: io.BufferedIOBase) -> tuple[int, str] | None:
    """Offset of the dataset after the meta header and its transfer syntax; ``None`` without a meta header."""
    from pydicom.filereader import read_dataset

    head = stream.read(144)
    if head[128:136] != b"DICM\x02\x00\x00\x00" or head[136:138] != b"UL":
        return None
    end = 144 + struct.unpack("<I", head[140:144])[0]
    meta = stream.read(min(end - 144, 1 << 20))
    return end, text(read_dataset(_Bounded(io.BytesIO(meta), len(meta)), False, True), "TransferSyntaxUID")


def _inflated(stream: io.BufferedIOBase, start: int, limit: int) -> tuple[bytes, bool]:
    """The deflated dataset, never more than ``limit`` bytes of it, and whether that is all."""
    stream.seek(start)
    unpacker, data = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while packed := stream.read(1 << 16):  # piece by piece: at once, zlib doubles what it has again and again
        while packed:
            data += unpacker.decompress(packed, 1 << 20)
            packed = unpacker.unconsumed_tail
            if len(data) > limit:
                return bytes(memoryview(data)[:limit]), False
    return bytes(data), True


def _too_much(path: Path) -> FluoroGuideError:
    return FluoroGuideError("The DICOM file unpacks to more than can be held", path.name, "Export it again, uncompressed")


# ---- pixels -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PixelLayout:
    """How the header says that the pixels lie, checked."""

    frames: int
    rows: int
    columns: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool

    @property
    def count(self) -> int:
        """Pixels of all frames."""
        return self.frames * self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Bytes of all frames without compression."""
        return self.count * self.allocated // 8


def pixel_layout(file: DicomFile) -> PixelLayout:
    """The checked layout of the pixels.

    Raises
    ------
    FluoroGuideError
        No picture, a size that is impossible, too large, or more than the file can hold.
    """
    d, name = file.dataset, file.path.name
    shape = [int(v) for k in ("Rows", "Columns") for v in numbers(d, k)[:1]]
    if len(shape) != 2 or min(shape) < 1:
        raise FluoroGuideError("The DICOM object holds no picture", f"{name}, {text(d, 'Modality') or 'no modality'}", "Give an XA or RF image")
    count = int((numbers(d, "NumberOfFrames") or (1.0,))[0])
    if count < 1 or max(shape) > MAX_SIDE:
        raise FluoroGuideError("The DICOM run has an impossible size", f"{name}, {count} frames of {shape[1]} x {shape[0]}", "Check the file")
    allocated = int((numbers(d, "BitsAllocated") or (0.0,))[0])
    stored = int((numbers(d, "BitsStored") or (allocated,))[0])
    high = int((numbers(d, "HighBit") or (stored - 1,))[0])
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        bits = f"{name}, {allocated} allocated, {stored} stored, high bit {high}"
        raise FluoroGuideError("The DICOM pixels have an unusual number of bits", bits, "Export the run with 8 or 16 bits allocated")
    layout = PixelLayout(count, *shape, allocated, stored, high, (numbers(d, "PixelRepresentation") or (0.0,))[0] == 1)
    told = f"{name}, {count} frames of {shape[1]} x {shape[0]}"
    # 1000 times is far beyond what JPEG reaches on a picture that shows anything.
    if layout.bytes > (1 if file.syntax in _NATIVE or not file.syntax else 1000) * file.size():
        raise FluoroGuideError("The DICOM header promises more pixels than the file can hold", told, "Copy or export it again")
    if layout.bytes > MAX_DECODED_BYTES:
        raise FluoroGuideError("The DICOM run is too large for memory", told, "Export fewer frames, for example one run per file")
    return layout


def read_stored(file: DicomFile, layout: PixelLayout) -> np.ndarray:
    """Stored values (frames, rows, columns), without overlay bits, before any rescale.

    Raises
    ------
    FluoroGuideError
        Pixels missing, cut short, of a kind that cannot be decoded, or contradicting the header.
    """
    if file.pixels_at < 0:
        raise FluoroGuideError("The DICOM object has no grey pixel data", file.path.name, "Export the image itself, not only its header")
    with _still_there(file.path), file.stream() as stream:
        vr, length = _element_header(file, stream)
        if file.syntax in _NATIVE or not file.syntax:
            return _native(file, layout, stream, vr, length)
        if file.syntax != _RLE and file.syntax not in _JPEG:
            raise FluoroGuideError("The pixels are compressed in a way that cannot be decoded", f"{file.path.name}, {file.syntax}",
                                   "Export the run uncompressed or as JPEG Lossless")
        if length != 0xFFFFFFFF:
            raise FluoroGuideError("The compressed pixels are damaged", file.path.name, "Export it again, uncompressed if possible")
        return _compressed(file, layout, stream.read())


def _element_header(file: DicomFile, stream: io.BufferedIOBase) -> tuple[str, int]:
    """VR and length of the pixel data; leaves the stream at its first byte."""
    stream.seek(file.pixels_at + 4)
    order = ">" if file.syntax == _BIG_ENDIAN else "<"
    head = stream.read(8)
    if len(head) < 8:
        raise FluoroGuideError("The pixels of the DICOM file are missing", file.path.name, "Copy or export it again")
    if head[:2] in (b"OB", b"OW", b"UN"):
        return head[:2].decode(), struct.unpack(order + "I", head[4:])[0]
    stream.seek(-4, io.SEEK_CUR)
    return "OW", struct.unpack(order + "I", head[:4])[0]


def _native(file: DicomFile, layout: PixelLayout, stream: io.BufferedIOBase, vr: str, length: int) -> np.ndarray:
    left = file.size() - stream.tell()
    if length == 0xFFFFFFFF or length < layout.bytes or length > left + 1:  # an odd file may lack its last padding byte
        told = f"{file.path.name}: {length} bytes promised, {layout.bytes} needed, {left} there"
        raise FluoroGuideError("The pixels of the DICOM file do not fit its header", told, "Copy or export it again")
    kind = np.dtype(f"{'>' if file.syntax == _BIG_ENDIAN else '<'}u{layout.allocated // 8}")
    data = np.empty(layout.count, kind)
    if stream.readinto(data.view(np.uint8)) != layout.bytes:
        raise FluoroGuideError("The pixels of the DICOM file are cut short", file.path.name, "Copy or export it again")
    if file.syntax == _BIG_ENDIAN and layout.allocated == 8 and vr == "OW" and layout.count % 2 == 0:
        data = data.view(np.uint16).byteswap().view(np.uint8)  # PS3.5 8.1.1: 8-bit pixels in 16-bit words
    return _bits(data.astype(kind.newbyteorder("="), copy=False), layout).reshape(layout.frames, layout.rows, layout.columns)


def _bits(data: np.ndarray, layout: PixelLayout) -> np.ndarray:
    """The stored bits alone: overlays of old objects lie in the others (PS3.5 8.1.1)."""
    shift = layout.high_bit + 1 - layout.stored
    if layout.stored == layout.allocated:
        return data.view(f"i{data.itemsize}") if layout.signed else data
    if shift:
        data = data >> shift
    data = data & data.dtype.type((1 << layout.stored) - 1)
    if not layout.signed:
        return data
    spare = layout.allocated - layout.stored
    return (data << spare).view(f"i{data.itemsize}") >> spare


def _compressed(file: DicomFile, layout: PixelLayout, data: bytes) -> np.ndarray:
    from pydicom.encaps import generate_frames

    name = file.path.name
    try:
        frames = []
        for frame in generate_frames(data, number_of_frames=layout.frames):
            frames.append(frame)
            if len(frames) > layout.frames:
                break
    except Exception:  # pydicom raises several kinds for damaged items
        frames = []
    if len(frames) != layout.frames:
        raise FluoroGuideError("The compressed pixels are damaged", f"{name}, {len(frames)} of {layout.frames} frames found", "Export it again")
    precision = layout.allocated
    for frame in frames:
        if file.syntax != _RLE:
            size = _codestream_size(frame)
            if size is None or size[:3] != (layout.rows, layout.columns, 1) or not 2 <= size[3] <= 16:
                raise FluoroGuideError("The compressed pixels contradict the DICOM header", f"{name}, {size} in the picture", "Export it again")
            precision = size[3]
    stored = precision if file.syntax != _RLE else layout.stored
    try:
        values = _decode_with_gdcm(file.syntax, layout, frames, stored)
    except (RuntimeError, MemoryError, OSError):
        raise FluoroGuideError("The pixels of the DICOM file cannot be decoded", name, "Export it again, uncompressed if possible") from None
    values = values[None] if values.ndim == 2 else values
    if values.shape != (layout.frames, layout.rows, layout.columns):
        raise FluoroGuideError("The pixels of the DICOM file do not fit its header", f"{name}, {values.shape}", "Export it again")
    return values


def _codestream_size(data: bytes) -> tuple[int, int, int, int] | None:
    """(rows, columns, components, bits) as a JPEG, JPEG-LS or JPEG 2000 codestream says; ``None`` when it is none.

    ISO/IEC 10918-1 B.2.2 (frame header), ISO/IEC 15444-1 A.5.1 (SIZ).
    """
    if data[:4] == b"\xff\x4f\xff\x51" and len(data) > 44:
        x1, y1, x0, y0 = struct.unpack(">4I", data[8:24])
        return y1 - y0, x1 - x0, struct.unpack(">H", data[40:42])[0], (data[42] & 0x7F) + 1
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 10 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            bits, rows, columns, components = struct.unpack(">BHHB", data[place + 4:place + 10])
            return rows, columns, components, bits
        place += 2 + struct.unpack(">H", data[place + 2:place + 4])[0]
    return None


def _decode_with_gdcm(syntax: str, layout: PixelLayout, frames: list[bytes], stored: int) -> np.ndarray:
    """Decode codestreams by SimpleITK's GDCM from a minimal object that holds nothing else."""
    import pydicom
    import SimpleITK as sitk
    from pydicom.encaps import encapsulate
    from pydicom.uid import generate_uid

    d = pydicom.Dataset()
    d.SOPClassUID, d.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.12.1", generate_uid()
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"  # GDCM would turn MONOCHROME1 values over
    d.Rows, d.Columns, d.NumberOfFrames = layout.rows, layout.columns, layout.frames
    allocated = layout.allocated if syntax == _RLE else 8 if stored <= 8 else 16
    stored = allocated if allocated == 8 or syntax == _RLE else stored  # GDCM refuses 8 bits allocated with fewer stored
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = allocated, stored, stored - 1, int(layout.signed)
    d.PixelData = encapsulate(frames)
    d["PixelData"].VR = "OB"
    d.file_meta = pydicom.dataset.FileMetaDataset()
    d.file_meta.TransferSyntaxUID, d.file_meta.MediaStorageSOPClassUID = syntax, d.SOPClassUID
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    with tempfile.TemporaryDirectory(prefix="fluoroguide-") as folder:
        copy = str(Path(folder) / "pixels.dcm")
        pydicom.dcmwrite(copy, d, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(copy)
        return sitk.GetArrayFromImage(reader.Execute())
