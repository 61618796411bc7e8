"""200 files that arrive in a watched folder while they are being written: none lost, none read half; giants are refused.

Four writers at once write DICOM and PNG files in pieces with pauses, some under a temporary name that is then changed,
some by overwriting; every file's content says which it is, so that a half-read one would show.
"""

from __future__ import annotations

import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from FluoroGuideLib.imaging.live_folder import FolderSource
from FluoroGuideLib.imaging.xa_writer import write_xa

SEEDS = range(1000, 1003)
SLICE = (1,)
CARD = {
    "source_to_detector_mm": 1000, "source_to_isocenter_mm": 600, "primary_angle_deg": 0, "secondary_angle_deg": 0, "pixel_spacing_mm": [0.5, 0.5],
    "angle_reference": "patient",
}


def picture(number: int, size: int) -> np.ndarray:
    """uint16 with its number in the last row, which arrives last."""
    r, c = np.mgrid[:size, :size]
    values = (3000 + 2000 * np.sin(r / 19 + number) * np.cos(c / 23) - 1500 * (np.abs(c - size // 2) < 5)).astype(np.uint16)
    values[-1] = 10_000 + number
    return values


def _content(number: int, size: int, folder: Path) -> bytes:
    path = folder / ("x.png" if number % 3 == 0 else "x.dcm")
    if number % 3 == 0:
        sitk.WriteImage(sitk.GetImageFromArray(picture(number, size)), str(path))
    else:
        write_xa(path, picture(number, size), primary_deg=0, secondary_deg=0, sid_mm=1000, sod_mm=600, pixel_spacing_mm=(0.5, 0.5))
    return path.read_bytes()


def _write(contents: dict[int, bytes], inbox: Path, seed: int) -> None:
    """Write files in pieces; one in four under another name first."""
    rng = np.random.default_rng(seed)
    for number, data in contents.items():
        name = f"{number:04d}.{'png' if number % 3 == 0 else 'dcm'}"
        path = inbox / (name + ".part" if number % 4 == 0 else name)
        cuts = np.sort(rng.integers(1, len(data), int(rng.integers(1, 6))))
        with path.open("wb") as stream:
            for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
                stream.write(data[start:stop])
                stream.flush()
                time.sleep(float(rng.choice([0.0, 0.01, 0.05, 0.3], p=[0.4, 0.3, 0.2, 0.1])))
        if number % 4 == 0:
            path.rename(inbox / name)


def case(seed: int) -> dict:
    """200 files (seeds below 1000: 40) from four writers, and two giants."""
    count, size = (200, 256) if seed >= 1000 else (40, 128)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        inbox, outside = Path(first), Path(second)
        contents = {i: _content(i, size, outside) for i in range(count)}
        writers = [threading.Thread(target=_write, args=({i: contents[i] for i in range(k, count, 4)}, inbox, seed + k)) for k in range(4)]
        # The raw pictures are looked at, so that the number in the last row is seen as it was read.
        seen: list[int] = []

        class Counting(FolderSource):
            def _image(self, raw):
                seen.append(int(raw.pixels[-1, 0]) - 10_000 if (raw.pixels[-1] == raw.pixels[-1, 0]).all() else -1)
                return super()._image(raw)

        began = time.monotonic()
        with Counting(inbox, CARD, settle_s=0.1) as source:
            for writer in writers:
                writer.start()
            delivered = sum(1 for _ in source.frames(timeout_s=4.0))
            for writer in writers:
                writer.join()
            seconds = time.monotonic() - began - 4.0
            giants = _giants(inbox, contents, source)
        counters = source.counters.to_dict()
    return {
        "files": count, "delivered": delivered, "lost": len(set(range(count)) - set(seen)), "half_read": sum(v < 0 or v >= count for v in seen),
        "twice": len(seen) - len(set(seen)), "refused_before_giants": giants["refused_before"], "giants_refused": giants["refused"],
        "giants_memory_mb": giants["memory_mb"], "giants_seconds": giants["seconds"], "seconds": seconds, "counters": counters,
    }


def _giants(inbox: Path, contents: dict[int, bytes], source: FolderSource) -> dict:
    """A 2 GB file, and a small one whose header promises 60 GB of pixels."""
    before, memory, began = source.counters.refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    source._give_up = 0.5
    data = contents[1]
    with (inbox / "giant.dcm").open("wb") as stream:  # sparse: takes no disk
        stream.write(data)
        stream.truncate(2_000_000_000)
    lying = data.replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00US\x02\x00", 1)
    place = lying.index(b"\x28\x00\x10\x00US\x02\x00") + 8
    lying = lying[:place] + b"\xff\x3f" + lying[place + 2:]  # 16383 rows
    length = lying.index(b"\xe0\x7f\x10\x00OW\x00\x00") + 8
    (inbox / "lying.dcm").write_bytes(lying[:length] + b"\xf0\xff\xff\xff" + lying[length + 4:])
    until = time.monotonic() + 15
    while source.counters.refused < before + 2 and time.monotonic() < until:
        time.sleep(0.05)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    return {"refused_before": before, "refused": source.counters.refused - before, "memory_mb": round(grown, 1), "seconds": time.monotonic() - began}


def summarize(results: list[dict]) -> dict:
    """Sums over the runs."""
    total = {k: sum(r[k] for r in results) for k in ("files", "delivered", "lost", "half_read", "twice", "refused_before_giants", "giants_refused")}
    kept = total["delivered"] == total["files"] and not (total["lost"] or total["half_read"] or total["twice"] or total["refused_before_giants"])
    return {**total, "giants": 2 * len(results), "giants_memory_worst_mb": max(r["giants_memory_mb"] for r in results),
            "as_promised": bool(kept and total["giants_refused"] == 2 * len(results))}
