"""Framing and values of the engine's protocol."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.engine.exchange import Exchange, sweep
from FluoroGuideLib.engine.messages import MAGIC, Framer, Message, ProtocolError, VolumeReference, encode
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.xray import XrayImage


@pytest.fixture
def exchange():
    both = Exchange.create()
    yield both
    both.close()


def through(value, exchange=None):
    (message,) = Framer().feed(encode("test", {"value": value}, exchange))
    return message.read(exchange)["value"]


def files(exchange):
    return [p for f in exchange.folders for p in f.glob("*.bin")]


@pytest.mark.parametrize("value", [
    None, True, 3, -(2**70), 0.1, 5e-324, float("inf"), "Füße \ud800 \x00", [1, [2.5]], (1, (2, "x")), {"a": {"b": ()}}, {1: "L1", (2, 3): None},
    {"__array__": 0}, {"__data__": ["errors", "FluoroGuideError", {}]}, b"\x00\xff", Path("a") / "b", VolumeReference(4),
])
def test_plain_values_come_back_with_their_types(value):
    back = through(value)
    assert back == value
    assert type(back) is type(value)


def test_nan_and_numpy_scalars():
    assert np.isnan(through(float("nan")))
    for scalar in (np.float32(0.1), np.int16(-3), np.bool_(True), np.float64(1 / 3)):
        back = through(scalar)
        assert back == scalar
        assert back.dtype == scalar.dtype
        assert isinstance(back, np.generic)


@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i2", "<f4", ">f8", "c16", "U5"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)])
def test_arrays_come_back_bit_for_bit(dtype, shape):
    rng = np.random.default_rng(1)
    array = rng.integers(0, 100, shape).astype(dtype) if shape else np.array(7).astype(dtype)
    back = through(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_views_that_are_not_contiguous():
    base = np.arange(4000.0).reshape(40, 100)
    for view in (base[::3, ::-2], base.T, np.asfortranarray(base), np.broadcast_to(base[0], (5, 100))):
        assert np.array_equal(through(view), view)


def test_big_arrays_go_through_a_file_that_is_then_gone(exchange):
    small, big = np.arange(7, dtype=np.int16), np.random.default_rng(2).random((100, 200, 3))
    frame = encode("test", {"value": {"a": small, "b": [big]}}, exchange)
    assert len(frame) < 1000
    assert len(files(exchange)) == 1
    back = Framer().feed(frame)[0].read(exchange)["value"]
    assert np.array_equal(back["a"], small)
    assert np.array_equal(back["b"][0], big)
    assert files(exchange) == []


def test_no_room_in_memory_falls_back_to_the_temporary_folder(exchange, monkeypatch):
    import shutil

    if len(exchange.folders) < 2:
        pytest.skip("this system has one kind of temporary folder")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    encode("test", {"value": np.zeros(100000)}, exchange)
    assert [p.parent for p in files(exchange)] == [exchange.folders[-1]]


def test_view_image_and_sitk_values():
    sitk = pytest.importorskip("SimpleITK")
    view = CArmView.from_angles(31.7, -12.3, sid_mm=1187.3, sod_mm=765.1, rows=4, columns=6, pixel_spacing_mm=(0.31, 0.29))
    xray = XrayImage(np.random.default_rng(3).random((4, 6)), np.eye(4, 6) > 0, view, "a.dcm", 2, {"kvp": 70.5}, ("SID assumed",))
    back = through(xray)
    assert np.array_equal(back.pixels, xray.pixels)
    assert np.array_equal(back.mask, xray.mask)
    assert back.mask.dtype == bool
    assert back.view.to_dict() == view.to_dict()
    assert (back.source, back.frame, back.facts, back.assumptions) == ("a.dcm", 2, {"kvp": 70.5}, ("SID assumed",))

    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    image.SetOrigin((1 / 3, -2, 1e-9)), image.SetSpacing((0.7, 0.8, 1.1)), image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    image.SetMetaData("0010|0010", "DOE^JANE")
    back = through(image)
    assert back.GetPixelID() == image.GetPixelID()
    assert (sitk.GetArrayFromImage(back) == sitk.GetArrayFromImage(image)).all()
    assert (back.GetOrigin(), back.GetSpacing(), back.GetDirection()) == (image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    assert back.GetMetaDataKeys() == ()  # a patient's name stays behind

    transform = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, -0.2, 0.3, (4.0, 5.0, 6.0))
    assert through(transform).TransformPoint((7.0, 8.0, 9.0)) == transform.TransformPoint((7.0, 8.0, 9.0))


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.array(["2020"], "M8[Y]"), lambda: 0, ValueError])
def test_what_cannot_be_sent_is_said(value):
    with pytest.raises(FluoroGuideError, match="cannot be sent"):
        encode("test", {"value": value})


def forged(value, arrays=(), body=b"", file=None):
    header = json.dumps({"kind": "test", "fields": {"value": value}, "arrays": list(arrays), "file": file}).encode()
    return struct.pack("<8sIQ", MAGIC, len(header), len(body)) + header + body


@pytest.mark.parametrize("frame", [
    forged({"__data__": ["..subprocess", "Popen", {"args": "true"}]}), forged({"__data__": ["errors", "FluoroGuideError", {"what": "x"}]}),
    forged({"__data__": ["engine.messages", "Path", {}]}),
    forged({"__data__": ["engine.worker", "main", {}]}), forged({"__enum__": ["engine.job", "Job", "id"]}),
    forged({"__array__": 0}), forged({"__array__": 0}, [["O", [1]]], bytes(8)),
    forged({"__array__": 0}, [["<f8", [-1]]], bytes(8)),
    forged({"__array__": 0}, [["<f8", [2]]], bytes(8)), forged({"__array__": 0}, [["<f8", [1]]], bytes(9)),
    forged({"__array__": 0}, [["<f8", [10**18]]]),
    forged({"__array__": 0}, [["<f8", [1]]], file="../../etc/passwd"), forged({"__array__": 0}, [["<f8", [1]]], file="0-c99.bin"),
    forged({"__transform__": ["ReadTransform", 3, [], []]}), forged({"__nonsense__": 1}), forged({"__map__": 3}),
])
def test_forged_values_are_refused(frame, exchange):
    (message,) = Framer().feed(frame)
    with pytest.raises(ProtocolError):
        message.read(exchange)


def test_frames_cut_anywhere():
    frames = b"".join(encode("test", {"n": n, "a": np.arange(n)}) for n in range(30))
    for step in (1, 7, 1000):
        framer, got = Framer(), []
        for start in range(0, len(frames), step):
            got += framer.feed(frames[start : start + step])
        assert [m.peek("n") for m in got] == list(range(30))
        assert all(m.read()["a"].tolist() == list(range(m.peek("n"))) for m in got)


def test_noise_before_the_first_frame_is_put_aside():
    framer = Framer(skip_noise=True)
    frame = encode("test", {"n": 1})
    got = [m for part in (b"Setting path\n\x93FG", b"oops ", frame[:5], frame[5:]) for m in framer.feed(part)]
    assert [m.peek("n") for m in got] == [1]
    assert framer.noise == b"Setting path\n\x93FGoops "
    with pytest.raises(ProtocolError):  # only before the first
        framer.feed(b"Setting path, again and again\n")


def test_random_damage_gives_protocol_errors_only():
    """Whatever the bytes, the outcome is messages or a ProtocolError (or a dataclass's own refusal), nothing else."""
    rng = np.random.default_rng(5)
    good = encode("run", {"job": 3, "arguments": {"v": VolumeReference(1), "t": (1, 2), "a": np.arange(5.0), "m": {1: "x"}}})
    refused = 0
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            bad[rng.integers(0, len(bad))] = rng.integers(0, 256)
        try:
            for message in Framer().feed(bytes(bad)):
                assert isinstance(message, Message)
                message.read()
        except FluoroGuideError:
            refused += 1
    assert refused > 1000
    with pytest.raises(ProtocolError):
        Framer().feed(rng.bytes(100000))
    with pytest.raises(ProtocolError):  # a length that would fill the memory is refused before it is waited for
        Framer().feed(struct.pack("<8sIQ", MAGIC, 10, 2**60))
    deep = b'{"kind":"x","fields":' + b"[" * 200000
    with pytest.raises(ProtocolError):
        Framer().feed(struct.pack("<8sIQ", MAGIC, len(deep), 0) + deep)


def test_sweep_removes_dead_folders_only(monkeypatch, tmp_path):
    import os

    monkeypatch.setattr("FluoroGuideLib.engine.exchange.storage_roots", lambda: [tmp_path])
    living, dead, young, other = Exchange.create(), Exchange.create(), Exchange.create(), tmp_path / "somebody-else"
    other.mkdir()
    for exchange in (dead, young):
        (exchange.folders[0] / "0-c1.bin").write_bytes(b"left over")
        for lock in exchange._locks:
            lock.close()  # as when its process was killed
    for exchange in (living, dead):
        os.utime(exchange.folders[0], (0, 0))
    assert sweep() == 1
    assert living.folders[0].is_dir()
    assert young.folders[0].is_dir()
    assert other.is_dir()
    assert not dead.folders[0].exists()
    living.close()
    assert not living.folders[0].exists()


def test_folders_are_private(exchange):
    import os

    if os.name != "posix":
        pytest.skip("file modes are a POSIX matter")
    assert all(f.stat().st_mode & 0o077 == 0 for f in exchange.folders)
