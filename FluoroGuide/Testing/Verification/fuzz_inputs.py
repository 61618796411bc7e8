"""Valid files of every kind FluoroGuide reads, and ways to damage them; used by the proof ``fuzz_readers`` (no proof itself)."""

from __future__ import annotations

import copy
import functools
import gzip
import io
import json
import sys
import tempfile
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

WRONG = [
    None, True, False, 0, -1, 1e308, -1e308, 1e-320, 10**400, 2**63, float("nan"), float("inf"), "", " ", "0", "NaN", "x" * 5000, "\x00", "\ud800",
    "../../x", "/etc/passwd", "\u202e", "<b>", [], {}, [[]], [None], [0] * 7, {"": ""}, [[1, 2], [3]], {"x": {"y": {"z": []}}},
    "2026-13-45T99:99:99Z", "nan\n",
]
"""Values that no field expects."""


# ---- JSON ---------------------------------------------------------------------------------------------------------------
def _places(value: object, path: tuple = ()) -> list[tuple]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


def _set(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    at = value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return value


def _get(value: object, path: tuple) -> object:
    for key in path:
        value = value[key]
    return value


def damaged_json(valid: str, rng: np.random.Generator) -> bytes:
    """A JSON text with one to four values replaced, deleted, doubled or exchanged; sometimes broken as text, or nested without end."""
    if rng.random() < 0.04:
        depth = int(rng.integers(50, 200_000))
        return (b"[" * depth) if rng.random() < 0.5 else (b'{"a":' * depth)
    if rng.random() < 0.2:
        return damaged_bytes(valid.encode(), rng)
    data = json.loads(valid)
    for _ in range(int(rng.integers(1, 5))):
        places = _places(data)
        path = places[int(rng.integers(len(places)))]
        choice = rng.random()
        if choice < 0.6:
            data = _set(data, path, copy.deepcopy(WRONG[int(rng.integers(len(WRONG)))]))
        elif choice < 0.75 and path:
            parent = _get(data, path[:-1])
            del parent[path[-1]]
        elif choice < 0.9:
            other = places[int(rng.integers(len(places)))]
            data = _set(data, path, json.loads(_text(_get(data, other))))
        elif path:
            parent = _get(data, path[:-1])
            if isinstance(parent, list):
                parent.extend(copy.deepcopy(parent[:50]) * int(rng.integers(1, 20)))
            else:
                parent["\x00new"] = copy.deepcopy(parent[path[-1]])
    return _text(data).encode("utf-8", "surrogatepass")


def _text(data: object) -> str:
    """JSON of ``data``; also of integers that Python refuses to print."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(data)
    finally:
        sys.set_int_max_str_digits(limit)


# ---- bytes --------------------------------------------------------------------------------------------------------------
def damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, pieces cut, repeated or inserted, numbers made extreme."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if len(out) < 4:
            break
        place, choice = int(rng.integers(len(out))), rng.random()
        head = int(rng.integers(min(len(out), 500)))
        if choice < 0.35:
            for at in rng.integers(0, len(out) if rng.random() < 0.5 else min(len(out), 400), int(rng.integers(1, 12))):
                out[int(at)] = int(rng.integers(256))
        elif choice < 0.5:
            del out[place:]
        elif choice < 0.6:
            out[place:place] = rng.bytes(int(rng.integers(1, 200)))
        elif choice < 0.7:
            out[place:place] = bytes(out[place : place + 300]) * int(rng.integers(1, 6))
        elif choice < 0.9:
            extreme = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)[int(rng.integers(9))]
            out[head : head + 4] = extreme.to_bytes(4, "little" if rng.random() < 0.7 else "big")
        else:
            digits = [i for i in range(min(len(out), 800)) if 48 <= out[i] <= 57]
            if digits:
                at = digits[int(rng.integers(len(digits)))]
                out[at : at + 1] = (b"999999999", b"-1", b"0", b"1e99", b"nan", b"")[int(rng.integers(6))]
    return bytes(out)


# ---- volumes ------------------------------------------------------------------------------------------------------------
@functools.cache
def volumes() -> dict[str, bytes]:
    """A small CT in every format, by file name."""
    import SimpleITK as sitk

    k, j, i = np.mgrid[:9, :10, :11]
    image = sitk.GetImageFromArray((40 + 500 * ((i - 5) ** 2 + (j - 5) ** 2 + (k - 4) ** 2 < 9) - 1000 * (i < 2)).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-3, 4, 5))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, packed in (("v.nii", False), ("v.nii.gz", True), ("v.nrrd", False), ("z.nrrd", True), ("v.mha", False), ("z.mha", True)):
            path = Path(folder) / name
            sitk.WriteImage(image, str(path), packed)
            found[name] = path.read_bytes()
    return found


def damaged_volume(rng: np.random.Generator) -> tuple[str, bytes]:
    """(file name, bytes); of compressed NIfTI half the time the header inside is damaged."""
    names = sorted(volumes())
    name = names[int(rng.integers(len(names)))]
    data = volumes()[name]
    if name.endswith(".gz") and rng.random() < 0.6:
        return name, gzip.compress(_damaged_nifti(gzip.decompress(data), rng), 1)
    if name == "v.nii" and rng.random() < 0.6:
        return name, _damaged_nifti(data, rng)
    return name, damaged_bytes(data, rng)


def _damaged_nifti(data: bytes, rng: np.random.Generator) -> bytes:
    """Fields of the 348-byte header: dimensions, type, spacing, offsets, codes, matrices."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        choice = rng.random()
        if choice < 0.35:
            at = 40 + 2 * int(rng.integers(8))  # dim[8], int16
            out[at : at + 2] = int(rng.choice([0, 1, 2, 3, 4, 7, 8, 100, 32767, -1, -32768])).to_bytes(2, "little", signed=True)
        elif choice < 0.5:
            at = 70 + 2 * int(rng.integers(2))  # datatype, bitpix
            out[at : at + 2] = int(rng.choice([0, 1, 2, 8, 16, 32, 64, 128, 256, 512, 1024, 1536, 2304, 30000])).to_bytes(2, "little")
        else:
            at = 76 + 4 * int(rng.integers(8)) if choice < 0.75 else int(rng.choice([108, 112, 116, 252, 254, *range(256, 328, 4)]))
            value = float(rng.choice([0, -1, 1e-30, 1e30, np.nan, np.inf, 5e8, 352, 1e9]))
            out[at : at + 4] = np.float32(value).tobytes()
    return bytes(out)


# ---- bundles ------------------------------------------------------------------------------------------------------------
def deflated(data: bytes, rng: np.random.Generator) -> bytes:
    """A DICOM file's dataset in the deflated transfer syntax, two thirds of them behind zeros that unpack to as much as 800 MB."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filewriter import write_file_meta_info

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.1.2.1.99", "1.2.3"
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    head = io.BytesIO()
    write_file_meta_info(head, meta)
    body = data[144 + int.from_bytes(data[140:144], "little"):]  # preamble, DICM, and the meta group by its length
    megabytes = int(rng.integers(1, 800)) if rng.random() < 2 / 3 else 0
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = b""
    if megabytes:  # private bytes before all else; a block behind a full flush can be repeated without packing it again
        zeros = b"\x09\x00\x10\x10OB\x00\x00" + (megabytes << 20).to_bytes(4, "little")
        packed = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
        packed += (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * megabytes
    packed += packer.compress(body) + packer.flush()
    return bytes(128) + b"DICM" + head.getvalue() + (packed if rng.random() < 0.7 else packed[: int(rng.integers(1, len(packed)))])


def damaged_bundle(record: str, rng: np.random.Generator) -> bytes:
    """A scene bundle (zip): hostile names, entities, lies about sizes, damaged members, a bomb now and then."""
    buffer, choice = io.BytesIO(), rng.random()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        if choice < 0.15:
            names = ("../../escaped.txt", "/escaped.txt", "..\\escaped.txt", "a/../../escaped.json", "C:\\escaped.mrml", "a\x00.txt")
            bundle.writestr(names[int(rng.integers(6))], record)
        elif choice < 0.22:
            bundle.writestr("bomb.txt", b"fluoroguide " * int(rng.integers(1, 3_000_000)))
        elif choice < 0.4:
            bundle.writestr("scene.mrml", _hostile_xml(record, rng))
        elif choice < 0.5:
            bundle.writestr("scene.mrml", damaged_bytes(f"<MRML><Text value='{record.encode().hex()}'/></MRML>".encode(), rng))
        else:
            bundle.writestr(("Data/record.txt", "r.json")[int(rng.integers(2))], damaged_json(record, rng))
    data = buffer.getvalue()
    return damaged_bytes(data, rng) if rng.random() < 0.5 else data


def _hostile_xml(record: str, rng: np.random.Generator) -> str:
    from xml.sax.saxutils import quoteattr

    head = (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>', '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://192.0.2.1/x"> %p;]>',
        '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY {c} "{("&" + p + ";") * 10}">' for p, c in pairwise("abcdefghij")) + "]>",
        "",
    )[int(rng.integers(4))]
    inner = "&x;" if "x SYSTEM" in head else "&j;" if "ENTITY j" in head else ""
    deep = "<n>" * int(rng.integers(0, 5000)) if rng.random() < 0.2 else ""
    return f"<?xml version='1.0'?>{head}<MRML>{deep}<T value={quoteattr(record)} other='fluoroguide'>{inner}</T></MRML>"
