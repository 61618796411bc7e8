"""What the worker can do.  A task is a function of keyword arguments that also takes ``progress`` and ``cancelled``.

``progress(fraction, text)`` tells how far it is (0..1); ``cancelled()`` is True once the user gave up, and the task
then raises :class:`~FluoroGuideLib.errors.CancelledError`.  Volumes arrive as :class:`AttenuationVolume` and label
images as :class:`BoneLabels`, the same object each time.  Heavy imports belong inside the functions: the worker answers
before they are done.  A new task is a function here and a line in ``TASKS``; ``EngineClient.run(name, **arguments)`` calls it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from . import guidance_tasks, planning_tasks, record_tasks, xray_tasks

GIVES_WAY = True
"""A registration waits for the live view where the cores do not suffice for both, not the other way round."""
KEPT_PARTS = 3
_prepared: list = []
"""The volume used last, with what the registration derived from it (its resolutions); none or one."""
_parts: dict = {}
"""Bones of that volume with their shells: what was asked for -> ``registration.parts.Part``."""
_refined: list = []
"""The MR refined last: (as it came, label image, refined by the labels); none or one."""


def _moving(volume: object, options: object) -> object:
    """The volume with its derived resolutions, which are kept for the next registration of the same volume."""
    from ..registration.mr import moving_of
    from ..registration.register import Options

    backend = (options or Options()).backend
    if not (_prepared and _prepared[0].volume is volume and _prepared[0].backend == backend):
        _forget_prepared()  # first free the old one: two may not fit
        _prepared[:] = [moving_of(volume, backend)]
    return _prepared[0]


def _forget_prepared() -> None:
    _prepared.clear()
    _parts.clear()


def forget(volume: object) -> None:
    """Called by the worker when a volume or label image is dropped."""
    planning_tasks.forget(volume)
    if _refined and any(kept is volume for kept in _refined[0][:2]):
        if _prepared and _prepared[0].volume is _refined[0][2]:
            _forget_prepared()
        _refined.clear()
    if _prepared and _prepared[0].volume is volume:
        _forget_prepared()
    for key in [k for k, (_, labels) in _parts.items() if labels is not None and labels is volume]:
        del _parts[key]


def _with_labels(volume: object, labels: object) -> object:
    """An MR refined by its bone labels: in MR they also say where bone is; a CT as it is."""
    from ..anatomy.mr import with_labels
    from ..registration.mr import is_mr

    if labels is None or not is_mr(volume):
        return volume
    if not (_refined and _refined[0][0] is volume and _refined[0][1] is labels):
        _refined[:] = [(volume, labels, with_labels(volume, labels.image, dict(labels.names)))]
    return _refined[0][2]


def _part(moving: object, part: object, labels: object, targets: dict | None) -> object:
    """What is registered: None, ``"auto"`` where no bone is found at the targets, or a bone that is kept for the next time."""
    import numpy as np

    from ..errors import FluoroGuideError
    from ..geometry.frames import center_lps_mm
    from ..registration import parts
    from ..registration.mr import is_mr

    if part is None or is_mr(moving.volume):  # what a part means in MR, the registration decides
        return part
    points = np.array([np.asarray(p, float) for p in (targets or {}).values()])
    point = points.mean(axis=0) if len(points) else center_lps_mm(moving.volume.image)
    asked = part if part == "auto" else tuple(int(v) for v in np.atleast_1d(part))
    key = (asked, id(labels) if asked != "auto" else None, tuple(np.round(point, 3)))
    if key not in _parts:
        if asked == "auto":
            try:
                made = parts.make_part(moving, "auto", point)
            except FluoroGuideError:
                return "auto"  # the registration says why, and takes the whole volume
        elif labels is None:
            made = parts.make_part(moving, list(asked), point)
        else:
            name = ", ".join(labels.names.get(v, f"label {v}") for v in asked)
            made = parts.Part(moving, parts.label_distance(labels.image, list(asked)), point, name)
        while len(_parts) >= KEPT_PARTS:
            del _parts[next(iter(_parts))]
        _parts[key] = (made, None if asked == "auto" else labels)
    return _parts[key][0]


def register(
    *, volume: object, images: list, initial: object = None, targets: dict | None = None, options: object = None, part: object = None,
    labels: object = None, landmarks: list | None = None, progress: Callable, cancelled: Callable,
) -> object:
    """``registration.register.register``; see ``EngineClient.submit``.  The start from landmarks is told in the result's ``facts``."""
    from ..errors import CancelledError
    from ..registration.register import register as run

    started = {}
    if landmarks:
        progress(0.0, "Start from landmarks")
        found = landmark_start(views=[i.view for i in images], pairs=landmarks, expected=initial, progress=progress, cancelled=cancelled)
        initial, started = found.pose, {"landmarks": {"rms_px": found.rms_px, "warnings": list(found.warnings)}}
    progress(0.01, "Preparing the volume")
    moving = _moving(_with_labels(volume, labels), options)
    if cancelled():
        raise CancelledError()
    bone = _part(moving, part, labels, targets)
    result = run(
        moving, images, initial, targets=targets, options=options, part=bone, progress=progress, cancelled=cancelled,
    )
    return dataclasses.replace(result, facts={**result.facts, **started}) if started else result


def landmark_start(*, views: list, pairs: list, expected: object = None, progress: Callable, cancelled: Callable) -> object:
    """``registration.landmarks.register_landmarks``."""
    from ..registration.landmarks import register_landmarks

    return register_landmarks(views, pairs, expected=expected)


def drr(*, volume: object, view: object, pose: object, longest_px: int = 512, spacing_mm: float = 1.5, options: object = None, progress: Callable,
        cancelled: Callable) -> dict:
    """The volume as the view sees it at a pose: ``view`` (perhaps of fewer pixels), ``drr`` (rows, columns) and its ``edges``."""
    from .preview import edges, smaller

    seen = smaller(view, longest_px)
    picture = _moving(volume, options).projector(spacing_mm).project(seen, pose)
    return {"view": seen, "drr": picture, "edges": edges(picture, picture > 0)}


def bone_drr(*, volume: object, views: list, pose: object, target_lps_mm: object, progress: Callable, cancelled: Callable) -> list:
    """``guidance.motion.bone_drr`` for each view: what the live views watch."""
    from ..anatomy.bones import bone_weight
    from ..guidance.motion import bone_drr as run

    weight = bone_weight(volume, target_lps_mm)
    return [run(volume, view, pose, target_lps_mm, weight) for view in views]


def warm_up(*, volume: object = None, options: object = None, progress: Callable, cancelled: Callable) -> float:
    """Import the registration, compile its kernels and, with a volume, derive its resolutions; seconds it took."""
    from ..errors import CancelledError
    from ..registration import register as module

    start = time.perf_counter()
    progress(0.0, "Preparing the registration")
    module.warm_up((options or module.Options()).backend)
    if volume is not None:
        levels = (options or module.Options()).levels
        moving = _moving(volume, options)
        for number, level in enumerate(levels):
            if cancelled():
                raise CancelledError()
            progress((1 + number) / (1 + len(levels)), "Preparing the volume")
            moving.projector(level.pixel_mm).prepare()
        moving.beyond()
    return time.perf_counter() - start


TASKS = {
    "register": register, "warm_up": warm_up, "landmarks": landmark_start, "drr": drr, "bone_drr": bone_drr,
    **planning_tasks.TASKS, **xray_tasks.TASKS, **guidance_tasks.TASKS,
    **record_tasks.TASKS,
}
