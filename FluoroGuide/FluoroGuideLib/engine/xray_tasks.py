"""X-ray files in the worker: read, geometry report, normalised picture.  The files opened last are kept, so that a changed value is quick."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

KEPT = 2
_runs: OrderedDict = OrderedDict()
"""(path, size, time of change, card) -> ``imaging.dicom_xa.XrayRun``."""


def _run(path: str, card: Mapping) -> object:
    from ..imaging.sources import open_xray

    state = Path(path).stat() if Path(path).is_file() else None
    key = (path, None if state is None else (state.st_size, state.st_mtime_ns), repr(sorted(card.items())))
    if key not in _runs:
        _runs[key] = open_xray(path, dict(card))
    _runs.move_to_end(key)
    while len(_runs) > KEPT:
        _runs.popitem(last=False)
    return _runs[key]


def read(*, path: str, card: Mapping | None = None, frame: int | None = None, options: Mapping | None = None, progress: Callable,
         cancelled: Callable) -> dict:
    """One frame of an X-ray file.

    Returns
    -------
    dict
        ``image`` (:class:`XrayImage`, or None while geometry is missing), ``error`` (why, one sentence), ``report``
        (:class:`GeometryReport`), ``frame``, ``frames``, ``picture`` (:class:`Normalized`), ``warnings``.
    """
    from ..errors import FluoroGuideError
    from ..imaging.geometry_report import geometry_report

    progress(0.1, "Reading the X-ray")
    run = _run(path, {k: v for k, v in (card or {}).items() if v is not None})
    frame = len(run.frames) // 2 if frame is None else min(max(int(frame), 0), len(run.frames) - 1)
    progress(0.5, "Normalising the picture")
    options, image, error = dict(options or {}), None, ""
    picture = run.normalized(frame, **options)
    try:
        image = run.image(frame, **options)
    except FluoroGuideError as found:
        error = found.message
    return {"image": image, "error": error, "report": geometry_report(run, frame), "frame": frame, "frames": len(run.frames), "picture": picture,
            "warnings": list(run.warnings)}


def run_frames(*, path: str, card: Mapping | None = None, progress: Callable, cancelled: Callable) -> dict:
    """All frames of an X-ray file as the scene shows them.

    Returns
    -------
    dict
        ``pixels`` (frames, rows, columns) uint16, normalised 0..1 times 65535, ``views``, ``times_s``.

    Raises
    ------
    FluoroGuideError
        The file cannot be read, or its geometry is incomplete.
    """
    import numpy as np

    from ..errors import CancelledError
    from ..imaging.live_normalize import StreamNormalizer

    progress(0.02, "Reading the run")
    run = _run(path, {k: v for k, v in (card or {}).items() if v is not None})
    views = [run.view(frame) for frame in range(len(run.frames))]
    mask = run.mask[0] if len(run.mask) == 1 else None
    normalizer = StreamNormalizer(polarity=run.facts.get("told_polarity"), relationship=run.facts.get("intensity_relationship"), mask=mask)
    pixels = np.empty((len(run.frames), *np.shape(run.frames[0])), np.uint16)
    for frame in range(len(pixels)):
        if cancelled():
            raise CancelledError()
        progress(0.1 + 0.9 * frame / len(pixels), "Normalising the run")
        pixels[frame] = np.rint(np.clip(np.nan_to_num(normalizer(run.frames[frame]).pixels), 0, 1) * 65535)
    return {"pixels": pixels, "views": views, "times_s": run_times_s(run)}


def run_times_s(run: object) -> object:
    """Time of each frame of a run after its first (N,), seconds; 15 frames a second when it does not say."""
    import numpy as np

    from ..imaging.live_replay import DEFAULT_FRAME_TIME_MS

    vector = run.facts.get("frame_times_ms")
    if vector is not None:
        return np.asarray(vector, float) / 1000
    return np.arange(len(run.frames)) * run.facts.get("frame_time_ms", DEFAULT_FRAME_TIME_MS) / 1000


TASKS = {"xray_read": read, "xray_run": run_frames}
