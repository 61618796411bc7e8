"""An OpenIGTLink server on this machine (pyigtl, 30 frames per second of 1024 x 1024 pixels, 16 bit), killed and started again in the middle.

Told: time and CPU work from sending to the normalised picture with its geometry, memory, dropped frames (the consumer
sleeps once on purpose), and that the source came back by itself.  ``make verify PART=live_stream`` takes two minutes.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from FluoroGuideLib.imaging.live_igtl import OpenIGTLinkSource

SEEDS = (1000,)
SLICE = (1,)
RATE_HZ, SIZE = 30, 1024
CARD = {
    "source_to_detector_mm": 1000, "source_to_isocenter_mm": 600, "primary_angle_deg": 0, "secondary_angle_deg": 0, "pixel_spacing_mm": [0.3, 0.3],
    "angle_reference": "patient",
}
SERVER = """
import sys, time, numpy as np, pyigtl
port, rate, size = (int(v) for v in sys.argv[1:4])
r, c = np.mgrid[:size, :size] / size - 0.5
thickness = 2.0 + 0.6 * np.cos(3 * r) + sum(0.9 * np.exp(-((c - x) / 0.05) ** 2) for x in (-0.24, 0.0, 0.24))
clear = np.where(r**2 + c**2 < 0.23, 20000 * np.exp(-thickness), 3)
rng = np.random.default_rng(0)
frames = []
for i in range(12):  # a needle moves in
    needle = (np.abs(r - 0.02 * i - 0.1) < 0.004) & (c < -0.2 + 0.03 * i)
    frames.append((np.where(needle, 0.3, 1.0) * clear + 20 * rng.standard_normal(clear.shape)).clip(0, 65535).astype(np.uint16)[None])

class Server(pyigtl.OpenIGTLinkServer):
    # pyigtl waits 10 ms for messages between two frames and gives up a connection that does not take 2 MB within 10 ms: too slow for 30 Hz.
    def _send_queued_message_from_socket(self, connection):
        connection.settimeout(5.0)
        with self.lock_outgoing_messages:
            if self.outgoing_messages:
                self.outgoing_messages[0].timestamp = time.time()  # the time of sending, not of queueing
        try:
            return super()._send_queued_message_from_socket(connection)
        finally:
            connection.settimeout(0.001)

server = Server(port=port, local_server=True)
while not server.is_connected():
    time.sleep(0.005)
start, number = time.monotonic(), 0
while True:
    time.sleep(max(0.0, start + number / rate - time.monotonic()))
    server.send_message(pyigtl.ImageMessage(frames[number % 12], device_name="Fluoro", timestamp=time.time()), wait=False)
    number += 1
"""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def resident_mb() -> float:
    """Memory of this process that lies in RAM; NaN where /proc is absent."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
    except OSError:
        return float("nan")


def case(seed: int) -> dict:
    """Two minutes (seeds below 1000: twelve seconds)."""
    seconds = 120.0 if seed >= 1000 else 12.0
    port = free_port()
    server = _serve(port)
    wall, work, memory, stalled, killed_at, back_at, reconnects = [], [], [], False, None, None, 0
    try:
        with OpenIGTLinkSource("127.0.0.1", port, geometry=CARD, queue_size=2) as source:
            began, cpu = time.monotonic(), time.process_time()
            while (now := time.monotonic() - began) < seconds:
                if killed_at is None and now > seconds / 2:
                    server.kill()
                    server.wait()
                    killed_at, reconnects = time.monotonic(), source.counters.reconnects
                if killed_at is not None and back_at is None and time.monotonic() - killed_at > 1.0 and server.poll() is not None:
                    server = _serve(port)
                frame = next(source.frames(timeout_s=0.1), None)
                if frame is None:
                    continue
                if killed_at is not None and back_at is None and source.counters.reconnects > reconnects:
                    back_at = time.monotonic()
                wall.append(time.time() - frame.sent_s)
                work.append(frame.processing_s)
                if int(now) > len(memory) - 1:
                    memory.append(resident_mb())
                if not stalled and now > seconds / 4:
                    stalled = True
                    time.sleep(1.0)  # a slow consumer: about 30 frames come, 2 may wait
            cpu = time.process_time() - cpu
            counters, waiting = source.snapshot()
    finally:
        server.kill()
        server.wait()
    settled = memory[len(memory) // 5:]
    accounted = counters.delivered + counters.dropped + counters.refused + waiting
    return {
        "seconds": seconds, **counters.to_dict(), "unaccounted": counters.received - accounted,
        "latency_wall_median_ms": 1000 * float(np.median(wall)), "latency_wall_p95_ms": 1000 * float(np.percentile(wall, 95)),
        "cpu_per_frame_ms": 1000 * cpu / max(1, counters.received), "processing_median_ms": 1000 * float(np.median(work)),
        "processing_worst_ms": 1000 * float(max(work)), "memory_start_mb": settled[0], "memory_end_mb": settled[-1],
        "memory_growth_mb": settled[-1] - settled[0], "back_after_s": None if back_at is None else back_at - killed_at - 1.0,
    }


def _serve(port: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(RATE_HZ), str(SIZE)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def summarize(results: list[dict]) -> dict:
    """The one run's figures, and whether they keep what is promised."""
    r = results[0]
    figures = {k: round(v, 2) if isinstance(v, float) else v for k, v in r.items() if k not in ("seed", "cpu_seconds")}
    kept = r["cpu_per_frame_ms"] < 50 and r["unaccounted"] == 0 and r["reconnects"] >= 1 and r["dropped"] >= 20 and r["memory_growth_mb"] < 20
    return {**figures, "frames_per_second": round(r["received"] / (r["seconds"] - 1.0), 1), "as_promised": bool(kept)}
