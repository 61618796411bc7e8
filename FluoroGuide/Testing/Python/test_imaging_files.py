"""DICOM files of every encoding, and files that lie: sizes, lengths, bombs.  Presentation, presets."""

from __future__ import annotations

import io
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging import dicom_file
from FluoroGuideLib.imaging.dicom_xa import read_run
from FluoroGuideLib.imaging.presentation import presented
from FluoroGuideLib.imaging.presets import PRESETS, preset
from FluoroGuideLib.imaging.sources import open_xray
from FluoroGuideLib.imaging.xa_writer import write_xa

GEOMETRY = {"primary_deg": 0, "secondary_deg": 0, "sid_mm": 1000, "sod_mm": 500, "pixel_spacing_mm": (1.0, 1.0)}


def values(dtype=np.uint16, top: int = 4095, frames: int = 2) -> np.ndarray:
    return np.random.default_rng(5).integers(0, top + 1, (frames, 22, 31)).astype(dtype)


def rewritten(path, dataset, **options) -> None:
    with path.open("wb") as stream:
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True, **options)


# ---- encodings --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("syntax", "implicit", "little"), [
    ("1.2.840.10008.1.2", True, True), ("1.2.840.10008.1.2.1", False, True), ("1.2.840.10008.1.2.2", False, False),
    ("1.2.840.10008.1.2.1.99", False, True),
])
def test_uncompressed_encodings(tmp_path, syntax, implicit, little):
    frames = values()
    write_xa(tmp_path / "x.dcm", frames, **GEOMETRY, bits_stored=12)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.file_meta.TransferSyntaxUID = syntax
    if not little:
        d.PixelData = frames.astype(">u2").tobytes()
    rewritten(tmp_path / "y.dcm", d, implicit_vr=implicit, little_endian=little)
    run = read_run(tmp_path / "y.dcm")
    np.testing.assert_array_equal(run.frames, frames)
    assert run.view().sid_mm == 1000


def test_overlay_bits_and_shifted_values_are_ignored(tmp_path):
    # 10 bits stored, high bit 11: the value lies in bits 2..11; bits 0, 1 and 12..15 are something else's.
    stored = values(top=1023)
    packed = (stored << 2) | 0b11 | (0b1010 << 12)
    write_xa(tmp_path / "x.dcm", packed.astype(np.uint16), **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.BitsStored, d.HighBit = 10, 11
    rewritten(tmp_path / "x.dcm", d)
    np.testing.assert_array_equal(read_run(tmp_path / "x.dcm").frames, stored)


def test_eight_bits_allocated_with_fewer_stored(tmp_path):
    frames = values(np.uint8, 63)
    write_xa(tmp_path / "x.dcm", frames, **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.BitsStored, d.HighBit = 6, 5
    rewritten(tmp_path / "x.dcm", d)
    np.testing.assert_array_equal(read_run(tmp_path / "x.dcm").frames, frames)


def test_signed_values_and_rescale(tmp_path):
    # 12 bits signed: -2048..2047 in two's complement, upper bits zero.  Rescale 2 x - 100.
    signed = np.random.default_rng(2).integers(-2048, 2048, (1, 22, 31))
    write_xa(tmp_path / "x.dcm", (signed & 0xFFF).astype(np.uint16), **GEOMETRY, bits_stored=12)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.PixelRepresentation, d.RescaleSlope, d.RescaleIntercept = 1, "2", "-100"
    rewritten(tmp_path / "x.dcm", d)
    run = read_run(tmp_path / "x.dcm")
    np.testing.assert_array_equal(run.frames, 2 * signed - 100)
    assert run.frames.dtype == np.int16


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind", ["RLE8", "RLE16", "JPEG2000", "JPEG"])
def test_compressed_encodings_give_values_as_stored(tmp_path, kind, photometric):
    r, c = np.mgrid[:64, :48]
    smooth = 120 + 80 * np.sin(r / 9) * np.cos(c / 7)
    frame = (smooth * 16 if kind == "RLE16" else smooth).astype(np.uint16 if kind == "RLE16" else np.uint8)
    write_xa(tmp_path / "x.dcm", frame, **GEOMETRY, photometric=photometric)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    if kind.startswith("RLE"):
        d.compress("1.2.840.10008.1.2.5")
    else:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, **({"format": "JPEG", "quality": 100} if kind == "JPEG" else {"format": "JPEG2000", "no_jp2": True}))
        d.PixelData = encapsulate([buffer.getvalue()])
        d["PixelData"].is_undefined_length = True
        d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50" if kind == "JPEG" else "1.2.840.10008.1.2.4.90"
    rewritten(tmp_path / "x.dcm", d)
    found = read_run(tmp_path / "x.dcm").frames[0]
    if kind == "JPEG":
        assert np.abs(found.astype(int) - frame).max() <= 3
    else:
        np.testing.assert_array_equal(found, frame)


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    write_xa(tmp_path / "x.dcm", np.zeros((22, 31), np.uint8), **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((3000, 3000), np.uint8)).save(buffer, format="JPEG")
    d.PixelData = encapsulate([buffer.getvalue()])
    d["PixelData"].is_undefined_length = True
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    rewritten(tmp_path / "x.dcm", d)
    monkeypatch.setattr(dicom_file, "_decode_with_gdcm", lambda *_: pytest.fail("decoded"))
    with pytest.raises(FluoroGuideError, match="contradict the DICOM header"):
        read_run(tmp_path / "x.dcm")


# ---- lies -------------------------------------------------------------------------------------------------------
def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_lying_lengths_take_no_memory(tmp_path):
    write_xa(tmp_path / "x.dcm", values(), **GEOMETRY)
    whole = (tmp_path / "x.dcm").read_bytes()
    place = whole.index(b"\xe0\x7f\x10\x00OW") + 8
    before, began = peak_mb(), time.monotonic()
    for length in (0xFFFFFFFE, 0xFFFFFFFF, 0x7FFFFFFF, 10):
        (tmp_path / "y.dcm").write_bytes(whole[:place] + struct.pack("<I", length) + whole[place + 4:])
        with pytest.raises(FluoroGuideError, match="do not fit its header"):
            read_run(tmp_path / "y.dcm")
    # An element of the header that promises 4 GB: at the top, and nested in a sequence of undefined length.
    element = b"\x09\x00\x10\x10UN\x00\x00\xf0\xff\xff\xff" + b"x" * 20
    nested = b"\x09\x00\x10\x10SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" + element
    for lie in (element, nested):
        middle = whole.index(b"\x10\x00\x10\x00PN")
        (tmp_path / "y.dcm").write_bytes(whole[:middle] + lie + whole[middle:])
        with pytest.raises(FluoroGuideError, match="ends within its header"):
            read_run(tmp_path / "y.dcm")
    assert peak_mb() - before < 50
    assert time.monotonic() - began < 5


def test_huge_objects_are_refused_unread(tmp_path):
    write_xa(tmp_path / "x.dcm", values(), **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.Rows, d.Columns, d.NumberOfFrames = 1024, 1024, 1000  # 2 GB, and the file is as long: sparse, it takes no disk
    rewritten(tmp_path / "y.dcm", d)
    with (tmp_path / "y.dcm").open("r+b") as stream:
        stream.truncate(2_200_000_000)
    before, began = peak_mb(), time.monotonic()
    with pytest.raises(FluoroGuideError, match="too large for memory"):
        open_xray(tmp_path / "y.dcm")
    assert peak_mb() - before < 50
    assert time.monotonic() - began < 2


def test_a_deflate_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_file, "MAX_DECODED_BYTES", 20_000_000)
    write_xa(tmp_path / "x.dcm", values(), **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    rewritten(tmp_path / "y.dcm", d)
    whole = (tmp_path / "y.dcm").read_bytes()
    end = 144 + struct.unpack("<I", whole[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(10_000_000)) for _ in range(10)) + packer.flush()  # 100 MB of nothing in 100 kB
    (tmp_path / "y.dcm").write_bytes(whole[:end] + bomb)
    before = peak_mb()
    with pytest.raises(FluoroGuideError, match="unpacks to more"):
        open_xray(tmp_path / "y.dcm")
    assert peak_mb() - before < 80


def test_a_file_that_goes_while_it_is_read_is_one_sentence(tmp_path, monkeypatch):
    write_xa(tmp_path / "x.dcm", values(), **GEOMETRY)
    file = dicom_file.open_dicom(tmp_path / "x.dcm")
    (tmp_path / "x.dcm").unlink()  # after its header was read
    for wanted in (file.stream, file.size):
        with pytest.raises(FluoroGuideError, match="no longer be read"):
            wanted()
    monkeypatch.setattr(Path, "is_file", lambda self: True)  # between the look whether it is there and the next
    with pytest.raises(FluoroGuideError, match="no longer be read"):
        dicom_file.open_dicom(tmp_path / "x.dcm")


def test_the_header_of_a_deflated_run_needs_little_of_it(tmp_path, monkeypatch):
    write_xa(tmp_path / "x.dcm", values(), **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    rewritten(tmp_path / "y.dcm", d)
    header = len(dicom_file.open_dicom(tmp_path / "y.dcm").body) - len(d.PixelData)
    monkeypatch.setattr(dicom_file, "MAX_HEADER_BYTES", header + 100)  # ends within the pixels
    file = dicom_file.open_dicom(tmp_path / "y.dcm", pixels=False)
    assert len(file.body) == header + 100
    assert file.dataset.Rows == d.Rows
    assert "PixelData" not in file.dataset
    for limit in (header // 2, header - 12):  # within the header; between the last element and the pixels' tag
        monkeypatch.setattr(dicom_file, "MAX_HEADER_BYTES", limit)
        with pytest.raises(FluoroGuideError, match="unpacks to more"):
            dicom_file.open_dicom(tmp_path / "y.dcm", pixels=False)


def test_deep_nesting_ends_in_one_sentence(tmp_path):
    write_xa(tmp_path / "x.dcm", values(), **GEOMETRY)
    whole = (tmp_path / "x.dcm").read_bytes()
    place = whole.index(b"\x10\x00\x10\x00PN")
    opening = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (tmp_path / "y.dcm").write_bytes(whole[:place] + opening * 5000 + whole[place:])
    with pytest.raises(FluoroGuideError) as caught:
        open_xray(tmp_path / "y.dcm")
    assert "\n" not in str(caught.value)


def test_temporary_files_are_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    import tempfile

    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    write_xa(tmp_path / "x.dcm", np.zeros((22, 31), np.uint8), **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    d.compress("1.2.840.10008.1.2.5")
    rewritten(tmp_path / "x.dcm", d)
    read_run(tmp_path / "x.dcm")
    assert list((tmp_path / "t").iterdir()) == []


# ---- fuzz, a slice ----------------------------------------------------------------------------------------------
def test_mutants_give_one_sentence_or_a_picture():
    import sys
    from pathlib import Path

    folder = str(Path(__file__).resolve().parents[1] / "Verification")
    sys.path.insert(0, folder)
    try:
        import xa_fuzz
    finally:
        sys.path.remove(folder)
    results = [xa_fuzz.case(seed) for seed in range(80)]
    figures = xa_fuzz.summarize(results)
    assert figures["within_limits"], figures
    assert figures["sentences_of_one_line"]
    assert figures["refused"] > 30
    assert figures["read"] > 10


# ---- presentation -----------------------------------------------------------------------------------------------
def ramp(tmp_path, **elements):
    frame = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    write_xa(tmp_path / "x.dcm", frame, **GEOMETRY)
    d = pydicom.dcmread(tmp_path / "x.dcm")
    for keyword, value in elements.items():
        setattr(d, keyword, value)
    rewritten(tmp_path / "x.dcm", d)
    return presented(tmp_path / "x.dcm")[0].astype(int)


def test_windows_as_the_standard_defines_them(tmp_path):
    # C.11.2.1.2.1: center 128, width 101: <= 77.5 black, > 177.5 white, 127.5 is half.
    line = ramp(tmp_path, WindowCenter="128", WindowWidth="101")
    assert line[77] == 0
    assert line[178] == 255
    assert line[127] == round(255 * ((127 - 127.5) / 100 + 0.5))
    exact = ramp(tmp_path, WindowCenter="128", WindowWidth="100", VOILUTFunction="LINEAR_EXACT")
    assert (exact[78], exact[128], exact[178]) == (0, 128, 255)
    sigmoid = ramp(tmp_path, WindowCenter="128", WindowWidth="64", VOILUTFunction="SIGMOID")
    assert sigmoid[128] == 128
    assert sigmoid[144] == round(255 / (1 + np.exp(-1)))  # 4 * 16 / 64 = 1
    turned = ramp(tmp_path, WindowCenter="128", WindowWidth="101", PhotometricInterpretation="MONOCHROME1")
    assert turned[0] == 255
    item = pydicom.Dataset()
    item.LUTDescriptor = [3, 100, 8]
    item.add_new("LUTData", "US", [0, 255, 51])
    table = ramp(tmp_path, VOILUTSequence=pydicom.Sequence([item]))
    assert table[[0, 100, 101, 102, 255]].tolist() == [0, 0, 255, 51, 51]
    with pytest.raises(FluoroGuideError, match="no such frame"):
        presented(tmp_path / "x.dcm", 3)


# ---- presets ----------------------------------------------------------------------------------------------------
def test_presets_are_starting_values_for_a_card():
    # 230 mm over 1000 pixels.
    card = preset("23 cm").card_for(1000, 1000, primary_angle_deg=0, secondary_angle_deg=0, angle_reference="gantry", patient_position="HFS")
    assert card["pixel_spacing_mm"] == (0.23, 0.23)
    # 0.194 mm at 1536 pixels is 0.388 mm at 768.
    assert preset("cios").card_for(768, 768)["pixel_spacing_mm"] == pytest.approx((0.388, 0.388))
    assert "source_to_isocenter_mm" not in preset("cios").card_for(768, 768)
    with pytest.raises(FluoroGuideError, match="not square"):
        preset("23 cm").card_for(480, 640)
    with pytest.raises(FluoroGuideError, match="no single"):
        preset("mobile")
    for p in PRESETS:
        assert p.source == "generic" or "github.com" in p.source
        assert p.note
