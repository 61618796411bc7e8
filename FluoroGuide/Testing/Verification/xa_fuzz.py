"""Mutated XA objects: reading, normalising and reporting them ends well or with one ``FluoroGuideError``, in bounded time and memory.

Each seed takes one of ten valid objects (classic and Enhanced; explicit, implicit, big endian, deflated; RLE, JPEG,
JPEG 2000; LUT, shutter, increments) and damages it in one to four ways: bytes, lengths, whole elements, values,
sequences, pixels, truncation, insertion.  ``make verify PART=xa_fuzz`` runs 2,000 of them.
"""

from __future__ import annotations

import functools
import io
import resource
import struct
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging.sources import open_xray, run_report
from FluoroGuideLib.imaging.xa_writer import write_xa

SEEDS = range(1000, 3000)
SLICE = range(1000, 1060)
GEOMETRY = {"primary_deg": 20, "secondary_deg": -10, "sid_mm": 1000, "sod_mm": 600, "pixel_spacing_mm": (0.4, 0.4)}
LIMIT_S, LIMIT_MB = 5.0, 600.0


def _frames(count: int, dtype: type, size: int = 64) -> np.ndarray:
    r, c = np.mgrid[:size, :size]
    base = 0.5 + 0.3 * np.sin(r / 9) * np.cos(c / 7) - 0.25 * (np.abs(c - 30) < 4)
    top = 250 if dtype is np.uint8 else 4000
    return np.stack([(top * np.clip(base + 0.02 * np.random.default_rng(i).standard_normal(base.shape), 0, 1)).astype(dtype) for i in range(count)])


@functools.cache
def bases() -> list[bytes]:
    """The valid objects as bytes."""
    import pydicom

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dcm"

        def written(frames: np.ndarray, **more) -> bytes:
            write_xa(path, frames, **{**GEOMETRY, **more})
            return path.read_bytes()

        plain = written(_frames(3, np.uint16), shutter=(3, 60, 3, 60), primary_increments_deg=[0, 1, 2], frame_time_ms=66, kvp=80, bits_stored=12)
        small = written(_frames(1, np.uint8), photometric="MONOCHROME1", patient_orientation=("L", "F"))
        found = [plain, small, written(_frames(2, np.uint16), intensity_relationship="LOG", patient_position="HFP")]
        found += [_encoded(plain, syntax) for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")]
        found += [_compressed(small, kind) for kind in ("RLE", "JPEG", "JPEG2000")]
        found.append(_enhanced(plain))
        for data in found:
            pydicom.dcmread(io.BytesIO(data))
        return found


def _saved(dataset: object) -> bytes:
    import pydicom

    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _encoded(data: bytes, syntax: str) -> bytes:
    import pydicom

    d = pydicom.dcmread(io.BytesIO(data))
    d.file_meta.TransferSyntaxUID = syntax
    if syntax == "1.2.840.10008.1.2.2":
        d.PixelData = np.frombuffer(d.PixelData, "<u2").astype(">u2").tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, d, implicit_vr=syntax == "1.2.840.10008.1.2", little_endian=syntax != "1.2.840.10008.1.2.2", enforce_file_format=True)
    return buffer.getvalue()


def _compressed(data: bytes, kind: str) -> bytes:
    import pydicom
    from PIL import Image
    from pydicom.encaps import encapsulate

    d = pydicom.dcmread(io.BytesIO(data))
    if kind == "RLE":
        d.compress("1.2.840.10008.1.2.5")
        return _saved(d)
    picture, buffer = Image.fromarray(d.pixel_array), io.BytesIO()
    picture.save(buffer, **({"format": "JPEG", "quality": 90} if kind == "JPEG" else {"format": "JPEG2000", "no_jp2": True}))
    d.PixelData = encapsulate([buffer.getvalue()])
    d["PixelData"].is_undefined_length = True
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50" if kind == "JPEG" else "1.2.840.10008.1.2.4.90"
    return _saved(d)


def _enhanced(data: bytes) -> bytes:
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def item(**elements) -> Dataset:
        d = Dataset()
        for keyword, value in elements.items():
            setattr(d, keyword, value)
        return d

    d = pydicom.dcmread(io.BytesIO(data))
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.12.1.1"
    for keyword in ("PositionerPrimaryAngle", "PositionerSecondaryAngle", "DistanceSourceToDetector", "DistanceSourceToPatient", "ImagerPixelSpacing",
                    "PositionerPrimaryAngleIncrement", "PositionerSecondaryAngleIncrement"):
        delattr(d, keyword)
    d.SharedFunctionalGroupsSequence = Sequence([item(
        FramePixelDataPropertiesSequence=Sequence([item(ImagerPixelSpacing=[0.4, 0.4], PixelIntensityRelationship="LIN")]),
        FieldOfViewSequence=Sequence([item(FieldOfViewRotation="90", FieldOfViewHorizontalFlip="YES", FieldOfViewOrigin=[4.0, 4.0])]),
    )])
    d.PerFrameFunctionalGroupsSequence = Sequence([item(
        XRayGeometrySequence=Sequence([item(DistanceSourceToDetector=1000.0 + i, DistanceSourceToIsocenter=600.0)]),
        IsocenterReferenceSystemSequence=Sequence([item(PositionerIsocenterPrimaryAngle=10.0 * i, PositionerIsocenterSecondaryAngle=0.0)]),
    ) for i in range(3)])
    return _saved(d)


# ---- mutations --------------------------------------------------------------------------------------------------
def _flip(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(132, len(data), int(rng.integers(1, 20))):
        data[place] = int(rng.integers(0, 256))


def _flip_header(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(132, min(len(data), 2200), int(rng.integers(1, 8))):
        data[place] = int(rng.integers(0, 256))


def _lie_about_a_length(data: bytearray, rng: np.random.Generator) -> None:
    """Overwrite what looks like an explicit length, or any four bytes, by an extreme number."""
    values = [0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000, 0x10000000, 0x00FFFFFF, 0, 1, len(data)]
    places = [i for i in range(132, min(len(data) - 12, 4000)) if data[i + 4:i + 6] in (b"OW", b"OB", b"SQ", b"UN", b"UT", b"OF")]
    place = int(rng.choice(places)) + 8 if places and rng.random() < 0.6 else int(rng.integers(132, len(data) - 4))
    data[place:place + 4] = struct.pack("<I", values[int(rng.integers(len(values)))])


def _truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(100, len(data))):]


def _insert(data: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(132, len(data)))
    data[place:place] = rng.bytes(int(rng.integers(1, 400)))


def _repeat(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(132, len(data)))
    part = bytes(data[start:start + int(rng.integers(4, 600))])
    data[start:start] = part * int(rng.integers(1, 5))


def _change_elements(data: bytearray, rng: np.random.Generator) -> None:
    """Values of elements, types and all: through pydicom, so that the structure stays whole."""
    import pydicom

    try:
        d = pydicom.dcmread(io.BytesIO(bytes(data)), force=True)
        tags = [t for t in d.keys() if int(t) != 0x7FE00010]  # noqa: SIM118 - iterating a Dataset decodes its values
        for tag in rng.choice(len(tags), min(len(tags), int(rng.integers(1, 5))), replace=False):
            _change(d, tags[int(tag)], rng)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, d)
        data[:] = buffer.getvalue()
    except Exception:  # damaged beyond rewriting by an earlier mutation
        _flip(data, rng)


_NUMBERS = [0, -1, 1, 2, 3, 7, 255, 4096, 65535, 1e-30, 1e30, -1e9, 0.5]
_TEXTS = ["", "0", "-1", "1E400", "NaN", "inf", "\\", "1\\2\\3", "-1e5\\1e5", "HFS", "FFP", "MONOCHROME1", "RGB", "x" * 400, "1.2.3", "\x00\x01"]


def _change(dataset: object, tag: object, rng: np.random.Generator) -> None:
    element = dataset[tag]
    choice = rng.random()
    if choice < 0.2:
        del dataset[tag]
    elif element.VR == "SQ":
        if choice < 0.6 and element.value:
            inner = element.value[int(rng.integers(len(element.value)))]
            tags = list(inner.keys())
            if tags:
                _change(inner, tags[int(rng.integers(len(tags)))], rng)
        elif choice < 0.8:
            element.value.extend(list(element.value) * int(rng.integers(1, 40)))
        else:
            del element.value[:]
    elif element.VR in ("US", "SS", "UL", "SL"):
        value = int(_NUMBERS[int(rng.integers(8))]) % (1 << (15 if element.VR in ("US", "SS") else 31))
        element.value = [value] * int(rng.integers(1, 5)) if choice < 0.4 else value
    elif element.VR in ("FL", "FD"):
        element.value = float(_NUMBERS[int(rng.integers(len(_NUMBERS)))])
    else:
        # Set raw, so that pydicom's own checks do not get in the way.
        word = str(_NUMBERS[int(rng.integers(len(_NUMBERS)))]) if rng.random() < 0.5 else _TEXTS[int(rng.integers(len(_TEXTS)))]
        element._value = word.split("\\") if "\\" in word and rng.random() < 0.5 else word


def _nest(data: bytearray, rng: np.random.Generator) -> None:
    """A sequence in a sequence in a sequence, hundreds deep, before the pixels."""
    depth = int(rng.integers(50, 3000))
    opening = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    place = bytes(data).find(b"\xe0\x7f\x10\x00")
    place = len(data) if place < 0 else place
    data[place:place] = opening * depth


def _damage_pixels(data: bytearray, rng: np.random.Generator) -> None:
    start = bytes(data).find(b"\xe0\x7f\x10\x00")
    if start < 0 or len(data) - start < 40:
        _flip(data, rng)
        return
    for place in rng.integers(start, min(len(data), start + (600 if rng.random() < 0.7 else len(data))), int(rng.integers(1, 30))):
        data[min(int(place), len(data) - 1)] = int(rng.integers(0, 256))


MUTATIONS = (
    _flip, _flip_header, _flip_header, _lie_about_a_length, _lie_about_a_length, _truncate, _insert, _repeat, _change_elements, _change_elements,
    _change_elements, _nest, _damage_pixels, _damage_pixels,
)


def mutant(seed: int) -> bytes:
    """The damaged object of a seed."""
    rng = np.random.default_rng(seed)
    data = bytearray(bases()[int(rng.integers(len(bases())))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(int(rng.integers(1, 5))):
            if len(data) > 200:
                MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)
    return bytes(data)


def case(seed: int) -> dict:
    """Read, report and normalise one mutant."""
    data = mutant(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dcm"
        path.write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, sentence, outcome = time.process_time(), "", "read"
        try:
            run = open_xray(path)
            run_report(run)
            run.image(len(run.frames) - 1)
        except FluoroGuideError as error:
            outcome, sentence = "refused", str(error)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    one_line = "\n" not in sentence and len(sentence) < 1000
    kind = sentence.split("(")[0].strip()
    return {"outcome": outcome, "one_line": one_line, "seconds": round(seconds, 3), "grown_mb": round(grown, 1), "sentence": kind}


def summarize(results: list[dict]) -> dict:
    """What came out."""
    seconds = [r["seconds"] for r in results]
    others = sorted({r["outcome"] for r in results} - {"read", "refused"})
    sentences = {r["sentence"] for r in results if r["sentence"]}
    grown = max(r["grown_mb"] for r in results)
    return {
        "mutants": len(results), "refused": sum(r["outcome"] == "refused" for r in results), "read": sum(r["outcome"] == "read" for r in results),
        "other_exceptions": len([r for r in results if r["outcome"] not in ("read", "refused")]), "other_exception_kinds": others,
        "sentences_of_one_line": all(r["one_line"] for r in results), "different_sentences": len(sentences),
        "cpu_seconds_median": float(np.median(seconds)), "cpu_seconds_worst": max(seconds), "peak_memory_growth_worst_mb": grown,
        "within_limits": bool(max(seconds) < LIMIT_S and grown < LIMIT_MB and not others),
    }
