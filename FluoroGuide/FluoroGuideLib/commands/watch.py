"""``fluoroguide watch``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("source", metavar="SOURCE", help="igtl://HOST[:PORT][/DEVICE], a folder, or a DICOM run (replayed at its own rate)")
    parser.add_argument("--geometry", metavar="JSON", help="C-arm card for pictures without usable tags")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after so long (default: until Ctrl+C or the source's end)")
    parser.add_argument("--frames", type=int, metavar="N", help="stop after so many frames")
    parser.add_argument("--existing", action="store_true", help="folder: also the files that are there already")
    parser.add_argument("--polling", action="store_true", help="folder: look five times a second instead of using watchdog (network shares)")
    parser.add_argument("--speed", type=float, default=1.0, help="replay: 2 is twice as fast")
    parser.add_argument("--repeat", action="store_true", help="replay: again and again")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the last normalised picture there as live.png")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show rate, latency and drops of a live source, once a second."""
    for name in ("seconds", "frames"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < 1e9:
            raise FluoroGuideError(f"--{name} must be a positive number", value)
    source = open_source(arguments)
    meter = _Meter()
    live = sys.stderr.isatty() and not arguments.json
    began = shown = time.monotonic()
    frame = None
    with source:
        try:
            while not _done(arguments, meter, began):
                frame_ = next(source.frames(timeout_s=0.25), None)
                if frame_ is not None:
                    frame = frame_
                    meter.add(frame)
                elif source.ended:
                    break
                if time.monotonic() - shown >= 1.0:
                    shown = time.monotonic()
                    _tell(meter.line(source), live, arguments.json)
        except KeyboardInterrupt:
            pass
        counters, _ = source.snapshot()
        status = source.status()
    if live:
        print(file=sys.stderr)
    assumptions = list(frame.image.assumptions) if frame is not None else []
    result = {"source": source.name, "seconds": time.monotonic() - began, **counters.to_dict(), **meter.figures()}
    result |= {"status": status, "assumptions": assumptions}
    if arguments.save is not None and frame is not None:
        from ..imaging.sources import write_preview

        result["picture"] = str(common.output_folder(arguments.save) / "live.png")
        write_preview(result["picture"], frame.image)
    common.show(arguments, result, "" if meter.count == 0 else "\n  assumed: ".join([meter.line(source, whole=True), *assumptions]))
    if meter.count == 0:
        raise FluoroGuideError("No frame arrived", status.rstrip("."), "Check that the source is sending, and its geometry")
    return 0


def open_source(arguments: argparse.Namespace) -> object:
    """The live source of the command's arguments."""
    from ..imaging.geometry_card import read_geometry_card

    card = read_geometry_card(arguments.geometry) if arguments.geometry else {}
    text = arguments.source
    if text.lower().startswith("igtl://"):
        from ..imaging.live_igtl import OpenIGTLinkSource

        return OpenIGTLinkSource(*parse_igtl(text), geometry=card, pictures_only=True)
    path = Path(text)
    if path.is_dir():
        from ..imaging.live_folder import FolderSource

        return FolderSource(path, card, existing=arguments.existing, polling=arguments.polling, pictures_only=True)
    if path.is_file():
        from ..imaging.live_replay import ReplaySource

        return ReplaySource(path, card, speed=arguments.speed, repeat=arguments.repeat, pictures_only=True)
    raise FluoroGuideError("There is no such live source", text, "Give igtl://HOST:PORT, a folder, or a DICOM run")


def parse_igtl(address: str) -> tuple[str, int, str | None]:
    """(host, port, device) of ``igtl://HOST[:PORT][/DEVICE]``."""
    from urllib.parse import unquote, urlsplit

    from ..imaging.live_igtl import DEFAULT_PORT

    hint = f"Write igtl://HOST:{DEFAULT_PORT}"
    try:
        parts = urlsplit(address)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise FluoroGuideError("The port of the OpenIGTLink address is not a number below 65536", address, hint) from None
    if not parts.hostname:
        raise FluoroGuideError("The OpenIGTLink address has no host", address, hint)
    return parts.hostname, port, unquote(parts.path.strip("/")) or None


def _done(arguments: argparse.Namespace, meter: _Meter, began: float) -> bool:
    late = arguments.seconds is not None and time.monotonic() - began >= arguments.seconds
    return late or (arguments.frames is not None and meter.count >= arguments.frames)


def _tell(line: str, live: bool, quiet: bool) -> None:
    if live:
        print(f"\r{line:<110}", end="", file=sys.stderr, flush=True)
    elif not quiet:
        print(line, flush=True)


class _Meter:
    """Rate, latency and work of the frames seen."""

    def __init__(self) -> None:
        self.count = 0
        self._arrived: list[float] = []
        self._latency: list[float] = []
        self._sent: list[float] = []
        self._work: list[float] = []

    def add(self, frame: object) -> None:
        """Count a frame."""
        self.count += 1
        self._arrived.append(frame.arrived_s)
        self._latency.append(time.monotonic() - frame.arrived_s)
        self._work.append(frame.processing_s)
        if frame.sent_s is not None:
            self._sent.append(time.time() - frame.sent_s)
        for kept in (self._arrived, self._latency, self._work, self._sent):
            del kept[:-3000]

    def figures(self) -> dict:
        """Rate in frames per second; medians in ms; ``None`` where nothing is known."""
        span = self._arrived[-1] - self._arrived[0] if self.count > 1 else 0.0

        def median_ms(values: list[float]) -> float | None:
            return 1000 * float(np.median(values)) if values else None

        return {
            "frames": self.count, "rate_hz": (len(self._arrived) - 1) / span if span > 0 else None,
            "arrival_to_picture_ms": median_ms(self._latency), "sent_to_picture_ms": median_ms(self._sent), "work_ms": median_ms(self._work),
        }

    def line(self, source: object, whole: bool = False) -> str:
        """One line for people; ``whole``: over the whole time."""
        figures = self.figures()
        parts = [source.status()]
        for key, text, unit in (("rate_hz", "rate", "/s"), ("arrival_to_picture_ms", "arrival to picture", "ms"),
                                ("sent_to_picture_ms", "sending to picture", "ms"), ("work_ms", "work", "ms")):
            if figures[key] is not None:
                parts.append(f"{text} {figures[key]:.1f} {unit}")
        return ", ".join(parts) + (" (all)" if whole else "")
