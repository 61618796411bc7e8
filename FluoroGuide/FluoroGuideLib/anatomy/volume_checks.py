"""Checks of volume files before ITK reads them: damaged headers make it take gigabytes, or loop for ever."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.metaimage import check_metaimage

MAX_VOXELS = 2_000_000_000
MOST_PACKED = 1100
"""No file holds more than this many times its size: deflate packs 1032 to 1 at best."""
MOST_UNPACKED = 256_000_000
"""Bytes that a deflated DICOM file may unpack to: pydicom and GDCM unpack it in memory, before anything else can be asked of it."""
_DEFLATED = "1.2.840.10008.1.2.1.99"
_LARGEST = 1e7
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs with a length of four bytes (DICOM PS3.5, 7.1.2)."""
_NEXT = "Export it again"


def check_file(path: Path, what: str) -> None:
    """Raise for a damaged ``.gz`` file and for a NIfTI or MetaImage header with geometry that is no number; ``what`` names the file's role.

    ITK's NIfTI reader loops for ever over an infinite element of the sform matrix (found by the proof
    ``fuzz_readers``).
    """
    name = path.name.lower()
    packed = name.endswith(".gz")
    if packed:
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                return  # no such file at all: ITK says so
        _check_gzip(path, what)
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img")):
        _check_nifti(_start(path), path.name, what)
    if name.endswith((".mha", ".mhd")):
        check_metaimage(path, what)
    if _is_dicom(path):
        try:
            with path.open("rb") as file:
                _check_deflated(BoundedFile(file, path.stat().st_size))
        except Exception:  # pydicom and zlib raise many kinds for damaged files
            raise FluoroGuideError(f"The {what} is damaged, or unpacks to more than can be held", path.name, _NEXT) from None


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False  # no such file at all: ITK says so


def _check_gzip(path: Path, what: str) -> None:
    import gzip

    try:
        with gzip.open(path, "rb") as file:
            while file.read(1 << 22):
                pass
    except Exception:  # gzip and zlib raise several kinds
        raise FluoroGuideError(f"The {what} is damaged or incomplete", path.name, _NEXT) from None


def _start(path: Path) -> bytes:
    import gzip

    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        return file.read(540)


def _check_nifti(header: bytes, name: str, what: str) -> None:
    """pixdim, quaternion and sform of NIfTI-1 (348 bytes) and NIfTI-2 (540 bytes), either byte order."""
    for order in "<>":
        size = struct.unpack(order + "i", header[:4])[0] if len(header) >= 4 else 0
        if size == 348 and len(header) >= 348:
            values = struct.unpack(order + "8f", header[76:108]) + struct.unpack(order + "18f", header[256:328])
        elif size == 540 and len(header) >= 540:
            values = struct.unpack(order + "8d", header[104:168]) + struct.unpack(order + "18d", header[352:496])
        else:
            continue
        if not all(abs(v) < _LARGEST for v in values):  # also refuses NaN
            raise FluoroGuideError(f"The {what}'s header holds a geometry that is no number", name, _NEXT)


class BoundedFile:
    """A binary file that refuses to be read or skipped beyond its end: damaged DICOM elements promise gigabytes, and GDCM believes them."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size

    def read(self, count: int = -1) -> bytes:
        """As a file's; raises EOFError for more than the whole file."""
        if count > self.size:
            raise EOFError
        return self._file.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's; raises EOFError beyond the end."""
        if whence == 0 and offset > self.size:
            raise EOFError
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()

    def check_pixels(self) -> None:
        """Raise EOFError unless the present place holds the pixels, no longer than the file, with nothing strange behind them (little endian)."""
        place, head = self.tell(), self._file.read(12)
        if not head or head[:4] == b"\x7f\xe0\x00\x10":  # a deflated or big endian dataset
            return
        if head[:4] != b"\xe0\x7f\x10\x00" or len(head) < 12:
            raise EOFError
        long = head[4:6] in (b"OB", b"OW", b"UN")
        (length,) = struct.unpack("<I", head[8:12] if long else head[4:8])
        if length == 0xFFFFFFFF:  # compressed frames
            return
        self._check_rest(place + (12 if long else 8) + length)

    def _check_rest(self, place: int) -> None:
        """Raise EOFError unless what follows the pixels (private groups, signatures, padding) ends with the file."""
        while True:
            if place > self.size:
                raise EOFError
            self._file.seek(place)
            head = self._file.read(12)
            if len(head) < 8:
                return
            if struct.unpack("<H", head[:2])[0] <= 0x7FE0:
                raise EOFError
            size, length = 8, struct.unpack("<I", head[4:8])[0]  # implicit VR
            if head[4:6].isalpha() and head[4:6].isupper():
                long = head[4:6] in _LONG
                size, length = (12, struct.unpack("<I", head[8:12].ljust(4, b"\0"))[0]) if long else (8, struct.unpack("<H", head[6:8])[0])
            if length == 0xFFFFFFFF:  # a sequence that ends with a mark
                return
            place += size + length


def read_header(file: BoundedFile, **options: object) -> object:
    """A DICOM file's pydicom dataset up to its pixels, where the file then stands; ``options`` go to ``pydicom.dcmread``.

    Raises many kinds (pydicom's, zlib's) for damaged files, and EOFError for one that promises more than it holds, or that unpacks to more
    than :data:`MOST_UNPACKED`.
    """
    import warnings

    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with a file is told in one sentence by the caller
        _check_deflated(file)
        return pydicom.dcmread(file, stop_before_pixels=True, **options)


def _check_deflated(file: BoundedFile) -> None:
    """Raise EOFError where a deflated dataset unpacks to too much; its bytes are counted and thrown away."""
    import zlib

    from pydicom.filereader import read_dataset

    file.seek(128)
    if file.read(4) != b"DICM":
        raise EOFError
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
        unpacker, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while packed := file.read(min(1 << 16, file.size)):
            while packed:
                found += len(unpacker.decompress(packed, 1 << 20))
                packed = unpacker.unconsumed_tail
                if found > MOST_UNPACKED:
                    raise EOFError
    file.seek(0)


def check_kinds(header: object) -> None:
    """Raise ValueError when an element of a pydicom dataset, or of its file meta information, is of a kind (VR) that DICOM does not know.

    GDCM takes the next four bytes for its length and asks for that much memory.
    """
    from pydicom.valuerep import STANDARD_VR

    known = {None, *(str(vr.value) for vr in STANDARD_VR)}
    for dataset in (header, header.file_meta):
        kinds = {dataset.get_item(tag).VR for tag in dataset.keys()}  # noqa: SIM118 - elements stay as they are in the file
        if unknown := {None if kind is None else str(getattr(kind, "value", kind)) for kind in kinds} - known:
            raise ValueError(str(unknown))


def check_promise(reader: object, path: Path, what: str) -> None:
    """Raise when a file's header promises more than it can hold: memory is taken before the file turns out short.

    ``reader`` is a SimpleITK ImageFileReader that has read the header; ``what`` names the file's role in the error.
    """
    voxels = float(np.prod([float(n) for n in reader.GetSize()])) * max(1, reader.GetNumberOfComponents())
    if voxels > MAX_VOXELS:
        raise FluoroGuideError(f"The {what} is too large", f"{path.name}, {reader.GetSize()}", "Crop or resample it first")
    if voxels > MOST_PACKED * _bytes_beside(path):
        raise FluoroGuideError(f"The {what} is damaged or incomplete", f"{path.name} promises {reader.GetSize()} voxels", _NEXT)


def _bytes_beside(path: Path) -> int:
    """Size of a file; of headers that name a file with the voxels (.mhd, .nhdr, .hdr), of all files in the folder."""
    detached = path.suffix.lower() in (".mhd", ".nhdr", ".hdr")
    return sum(p.stat().st_size for p in path.parent.iterdir() if p.is_file()) if detached else path.stat().st_size
