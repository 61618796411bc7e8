"""What the worker can do.  A task is a function of keyword arguments that also takes ``progress`` and ``cancelled``.

``progress(fraction, text)`` tells how far it is (0..1); ``cancelled()`` is True once the user gave up, and the task
then raises :class:`~FluoroGuideLib.errors.CancelledError`.  Volumes arrive as :class:`AttenuationVolume`, the same
object each time.  Heavy imports belong inside the functions: the worker answers before they are done.  A new task is
a function here and a line in ``TASKS``; ``EngineClient.run(name, **arguments)`` calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_prepared: list = []
"""The volume used last, with what the registration derived from it (its resolutions); none or one."""


def _moving(volume: object, options: object) -> object:
    """The volume with its derived resolutions, which are kept for the next registration of the same volume."""
    from ..registration.register import MovingVolume, Options

    backend = (options or Options()).backend
    if not (_prepared and _prepared[0].volume is volume and _prepared[0].backend == backend):
        _prepared[:] = []  # first free the old one: two may not fit
        _prepared[:] = [MovingVolume(volume, backend)]
    return _prepared[0]


def forget(volume: object) -> None:
    """Called by the worker when a volume is dropped."""
    if _prepared and _prepared[0].volume is volume:
        _prepared.clear()


def register(*, volume: object, images: list, options: object = None, progress: Callable, cancelled: Callable, **arguments: object) -> object:
    """``registration.register.register`` with the same arguments."""
    from ..registration.register import register as run

    return run(_moving(volume, options), images, options=options, progress=progress, cancelled=cancelled, **arguments)


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


TASKS = {"register": register, "warm_up": warm_up}
