"""Live sources: queue and counters, OpenIGTLink over a real socket, a watched folder, replay, and the stream's normalisation."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.imaging.dicom_xa import read_run
from FluoroGuideLib.imaging.live import LiveSource, QueuedSource, grey
from FluoroGuideLib.imaging.live_folder import FolderSource
from FluoroGuideLib.imaging.live_igtl import OpenIGTLinkSource
from FluoroGuideLib.imaging.live_normalize import StreamNormalizer
from FluoroGuideLib.imaging.live_replay import ReplaySource
from FluoroGuideLib.imaging.preprocess import normalize
from FluoroGuideLib.imaging.xa_writer import write_xa

GEOMETRY = {"primary_deg": 0, "secondary_deg": 0, "sid_mm": 1000, "sod_mm": 500, "pixel_spacing_mm": (0.5, 0.5)}
CARD = {
    "source_to_detector_mm": 1000, "source_to_isocenter_mm": 500, "primary_angle_deg": 0, "secondary_angle_deg": 0, "pixel_spacing_mm": [0.5, 0.5],
    "angle_reference": "patient",
}


def scene(shape=(128, 128), seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """uint16 intensities: a round field, a body with three dark bars (bone)."""
    rng = np.random.default_rng(seed)
    r, c = np.mgrid[:shape[0], :shape[1]] / shape[0] - 0.5
    thickness = 2.0 + 0.6 * np.cos(3 * r) + sum(0.9 * np.exp(-((c - x) / 0.05) ** 2) for x in (-0.24, 0.0, 0.24))
    counts = 40000 * scale * np.exp(-thickness) * (1 + 0.01 * rng.standard_normal(shape))
    counts[r**2 + c**2 > 0.46**2] = 5
    return counts.clip(0, 65535).astype(np.uint16)


class Pushed(QueuedSource):
    """Frames pushed by the test."""

    def _receive(self) -> None:
        self._stopping.wait()

    def push(self, pixels, **more) -> None:
        self._put(pixels, **more)


def waited(condition, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


# ---- the stream's normalisation ---------------------------------------------------------------------------------
def test_a_stream_frame_equals_the_single_picture():
    pixels = scene()
    single = normalize(pixels, relationship="LIN")
    stream = StreamNormalizer(relationship="LIN")
    for _ in range(3):
        result = stream(pixels)
        np.testing.assert_allclose(result.pixels[result.mask], single.pixels[single.mask], atol=1e-6)
        np.testing.assert_array_equal(result.mask, single.mask)
    assert stream.looks == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_types_of_a_stream(dtype):
    pixels = (scene() / 200).astype(dtype)
    stream = StreamNormalizer()
    first, second = stream(pixels), stream(pixels)
    np.testing.assert_allclose(second.pixels, first.pixels, atol=1e-6)
    assert first.polarity == "bone dark"
    assert first.pixels.max() == 1


def test_more_dose_and_an_opened_collimator_get_a_new_look():
    now = [0.0]
    stream = StreamNormalizer(relationship="LIN", clock=lambda: now[0])
    stream(scene())
    bright = scene(scale=1.5)
    # Within the first second only the window is stretched, so that nothing clips: 1.5 times the dose is brighter by
    # log(1.5) = 0.41, the field stays.
    repaired = stream(bright)
    assert stream.looks == 1
    assert (repaired.pixels[repaired.mask] == 0).mean() < 0.02
    now[0] = 1.5
    np.testing.assert_allclose(stream(bright).pixels, normalize(bright, relationship="LIN", polarity="bone dark").pixels, atol=1e-6)
    assert stream.looks == 2
    now[0] = 3.0
    collimated = scene()
    collimated[:50] = 5
    found = stream(collimated)
    assert stream.looks == 3
    assert not found.mask[:50].any()
    now[0] = 4.5
    assert stream(scene()).mask[30:50, 60:70].all()  # opened again


def test_a_black_frame_keeps_the_look():
    stream = StreamNormalizer()
    stream(scene())
    stream(np.zeros((128, 128), np.uint16))
    assert stream.looks == 1
    assert stream(scene()).polarity == "bone dark"


def test_all_frames_of_a_run_at_once(tmp_path):
    frames = np.stack([scene(seed=i) for i in range(4)])
    write_xa(tmp_path / "x.dcm", frames, **GEOMETRY, primary_increments_deg=[0, 1, 2, 3])
    run = read_run(tmp_path / "x.dcm")
    images = list(run.images())
    assert [round(i.view.angles_deg[0], 6) for i in images] == [0, 1, 2, 3]
    first = run.normalized(0, mask_metal=False)
    np.testing.assert_allclose(images[0].pixels[first.mask], first.pixels[first.mask], atol=1e-6)
    assert [i.frame for i in run.images(range(2, 4))] == [2, 3]


# ---- queue ------------------------------------------------------------------------------------------------------
def test_the_oldest_frame_is_dropped_and_counted():
    with Pushed("test", CARD, queue_size=3) as source:
        assert isinstance(source, LiveSource)
        for i in range(10):
            source.push(scene(seed=i))
        taken = []
        for frame in source.frames(timeout_s=0.05):
            taken.append(frame)
        # 10 frames, 3 places: 7 dropped, numbers 7, 8, 9 left, in order.
        assert [f.number for f in taken] == [7, 8, 9]
        assert source.counters.to_dict() == {"received": 10, "delivered": 3, "dropped": 7, "refused": 0, "reconnects": 0}
        for i in range(3):
            source.push(scene(seed=i))
        assert source.poll().number == 12  # the newest
        assert source.counters.dropped == 9
        assert source.poll() is None


def test_frames_carry_geometry_and_go_through_the_card():
    with Pushed("test", {**CARD, "horizontal_flip": True}) as source:
        source.push(scene())
        image = next(source.frames(1.0)).image
    np.testing.assert_allclose(image.view.project([[0, 0, 0]]), [[63.5, 63.5]], atol=1e-9)
    np.testing.assert_allclose(image.pixels, normalize(scene()[:, ::-1]).pixels, atol=1e-6)
    assert any("turned upright" in text for text in image.assumptions)


def test_incomplete_geometry_is_named_and_the_frame_refused():
    with Pushed("test", {"source_to_detector_mm": 1000}) as source:
        source.push(scene())
        assert source.poll() is None
        assert source.counters.refused == 1
        assert "missing SOD" in source.last_error


def test_silence_is_told():
    now = [100.0]
    source = Pushed("test", CARD, clock=lambda: now[0])
    assert "not started" in source.status()
    with source:
        now[0] = 107.4
        assert "no frame for 7 s" in source.status()
        source.push(scene())
        assert "no frame" not in source.status()
        now[0] = 111.0
        assert "no frame for 4 s" in source.status()


def test_colour_of_a_frame_grabber():
    picture = scene((16, 16)) // 200
    np.testing.assert_array_equal(grey(np.stack([picture] * 3, -1)), picture)
    with pytest.raises(FluoroGuideError, match="2-D"):
        grey(np.zeros((4, 4, 2)))


# ---- OpenIGTLink ------------------------------------------------------------------------------------------------
SERVER = """
import sys, time, numpy as np, pyigtl
port, count = int(sys.argv[1]), int(sys.argv[2])
server = pyigtl.OpenIGTLinkServer(port=port, local_server=True)
r, c = np.mgrid[:128, :128]
picture = (3000 + 2000 * np.sin(r / 9) * np.cos(c / 7) - 1500 * (abs(c - 64) < 3)).astype(np.uint16)
while not server.is_connected():
    time.sleep(0.01)
for i in range(count):
    picture[0, 0] = i
    server.send_message(pyigtl.ImageMessage(picture[None].copy(), device_name="Fluoro"), wait=True)
    time.sleep(0.01)
print("sent", flush=True)
time.sleep(60)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve(port: int, count: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(count)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_openigtlink_frames_and_reconnection():
    pytest.importorskip("pyigtl")
    port = free_port()
    first = serve(port, 20)
    try:
        with OpenIGTLinkSource("127.0.0.1", port, geometry=CARD, queue_size=64) as source:
            assert waited(lambda: source.counters.received >= 20, 20)
            frames = [source._waiting[i].pixels[0, 0] for i in range(3)]
            assert frames == [0, 1, 2]
            counters, waiting = source.snapshot()
            assert (counters.received, counters.dropped, waiting) == (20, 0, 20)
            first.kill()
            first.wait()
            assert waited(lambda: "Trying again" in source.last_error, 5)
            second = serve(port, 5)
            try:
                assert waited(lambda: source.counters.received >= 25, 20)
            finally:
                second.kill()
                second.wait()
            assert source.counters.reconnects == 1
            image = source.poll().image
            assert image.pixels.shape == (128, 128)
    finally:
        first.kill()
        first.wait()


def test_openigtlink_garbage_is_refused_without_filling_memory():
    pytest.importorskip("pyigtl")
    from pyigtl.messages import ImageMessage

    good = ImageMessage(scene()[None], device_name="F")
    good.timestamp = 1.0
    good = good.pack()
    huge = bytearray(good[:58])
    huge[42:50] = struct.pack(">Q", 1 << 40)  # body size: a terabyte
    bad = bytearray(good)
    extended = 12 if struct.unpack(">H", good[:2])[0] > 1 else 0
    bad[58 + extended + 3] = 99  # after version and components: an unknown scalar type
    listener = socket.create_server(("127.0.0.1", 0))
    parts = [bytes(good), bytes(bad), bytes(huge)], [bytes(good)]

    def talk() -> None:
        for messages in parts:
            connection, _ = listener.accept()
            for message in messages:
                connection.sendall(message)
            time.sleep(0.2)
            connection.close()

    threading.Thread(target=talk, daemon=True).start()
    with OpenIGTLinkSource("127.0.0.1", listener.getsockname()[1], geometry=CARD) as source:
        assert waited(lambda: source.counters.received >= 2 and source.counters.reconnects >= 1, 10)
        assert source.counters.refused >= 1
    listener.close()


def test_stopping_while_frames_stream_in_is_immediate():
    pytest.importorskip("pyigtl")
    port = free_port()
    server = serve(port, 100_000)
    try:
        source = OpenIGTLinkSource("127.0.0.1", port, geometry=CARD)
        source.start()
        assert waited(lambda: source.counters.received >= 3, 20)
        began = time.monotonic()
        source.stop()
        assert time.monotonic() - began < 2.0
        received = source.counters.received
        time.sleep(0.1)
        assert source.counters.received == received
    finally:
        server.kill()
        server.wait()


def test_a_missing_package_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyigtl", None)
    with pytest.raises(FluoroGuideError, match="pip install pyigtl"):
        OpenIGTLinkSource(geometry=CARD).start()
    monkeypatch.setitem(sys.modules, "watchdog", None)
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    with pytest.raises(FluoroGuideError, match="pip install watchdog"):
        FolderSource(tmp_path).start()


# ---- folder -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("polling", [False, True])
def test_files_written_in_pieces_are_read_once_and_whole(tmp_path, polling):
    if not polling:
        pytest.importorskip("watchdog")
    inbox, outside = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    outside.mkdir()
    write_xa(outside / "a.dcm", np.stack([scene(seed=1), scene(seed=2)]), **GEOMETRY)
    sitk.WriteImage(sitk.GetImageFromArray(scene(seed=3)), str(outside / "b.png"))
    write_xa(inbox / "old.dcm", scene(), **GEOMETRY)
    with FolderSource(inbox, CARD, polling=polling, settle_s=0.05) as source:
        time.sleep(0.1)
        for name in ("a.dcm", "b.png"):
            data = (outside / name).read_bytes()
            with (inbox / name).open("wb") as stream:
                for part in (data[: len(data) // 3], data[len(data) // 3: -40], data[-40:]):
                    stream.write(part)
                    stream.flush()
                    time.sleep(0.15)  # longer than the settling time: only the structure tells
        (inbox / "half.dcm.tmp").write_bytes(b"x")
        got = list(source.frames(timeout_s=0.9))
        assert [(f.image.facts["file"], f.image.frame) for f in got] == [("a.dcm", 0), ("a.dcm", 1), ("b.png", 0)]
        assert source.counters.refused == 0
        np.testing.assert_allclose(got[0].image.pixels, normalize(scene(seed=1), relationship="LIN").pixels, atol=1e-6)
        (outside / "c.dcm").write_bytes((outside / "a.dcm").read_bytes())
        (outside / "c.dcm").rename(inbox / "c.dcm")  # moved in
        assert [f.image.facts["file"] for f in source.frames(timeout_s=0.9)] == ["c.dcm", "c.dcm"]


def test_a_file_that_is_never_finished_or_too_large_is_refused(tmp_path):
    write_xa(tmp_path / "a.tmp", scene(), **GEOMETRY)
    data = (tmp_path / "a.tmp").read_bytes()
    with FolderSource(tmp_path, CARD, polling=True, settle_s=0.02, give_up_s=0.3) as source:
        (tmp_path / "cut.dcm").write_bytes(data[:-100])
        with (tmp_path / "huge.dcm").open("wb") as stream:  # sparse: 3 GB that take no disk
            stream.write(data[:2000])
            stream.truncate(3 << 30)
        assert waited(lambda: source.counters.refused == 2, 5)
        assert source.poll() is None


def test_a_missing_folder(tmp_path):
    with pytest.raises(FluoroGuideError, match="folder to watch"):
        FolderSource(tmp_path / "none", polling=True).start()


# ---- replay -----------------------------------------------------------------------------------------------------
def test_replay_in_its_own_time(tmp_path):
    frames = np.stack([scene(seed=i) for i in range(6)])
    write_xa(tmp_path / "x.dcm", frames, **GEOMETRY, frame_time_ms=100, primary_increments_deg=[0, 5, 10, 15, 20, 25])
    source = ReplaySource(tmp_path / "x.dcm", speed=2.0, queue_size=10)
    np.testing.assert_allclose(source.times_s(), [0, 0.1, 0.2, 0.3, 0.4, 0.5])
    with source:
        got = list(source.frames(2.0))
    assert [f.image.frame for f in got] == [0, 1, 2, 3, 4, 5]
    assert got[3].image.view.angles_deg[0] == pytest.approx(15)
    # At double speed 50 ms apart, 250 ms in all.
    assert 0.22 < got[-1].arrived_s - got[0].arrived_s < 1.0
    assert source.assumptions == ()


def test_replay_repeats_until_stopped_and_names_missing_geometry(tmp_path, data_dir):
    write_xa(tmp_path / "x.dcm", np.stack([scene(seed=i) for i in range(3)]), **GEOMETRY, frame_time_ms=10)
    with ReplaySource(tmp_path / "x.dcm", repeat=True) as source:
        got = [next(source.frames(2.0)) for _ in range(7)]
    assert len(got) == 7
    with pytest.raises(FluoroGuideError, match="missing SID"):
        ReplaySource(data_dir / "xa_rubo_coronary_96f" / "0002.dcm")
    with pytest.raises(FluoroGuideError, match="speed"):
        ReplaySource(tmp_path / "x.dcm", speed=0)
