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


TASKS = {"xray_read": read}
