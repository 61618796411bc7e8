"""What the worker can do.  A task is a function of keyword arguments that also takes ``progress`` and ``cancelled``.

``progress(fraction, text)`` tells how far it is (0..1); ``cancelled()`` is True once the user gave up, and the task
then raises :class:`~FluoroGuideLib.errors.CancelledError`.  Volumes arrive as :class:`AttenuationVolume`.
Heavy imports belong inside the functions: the worker answers before they are done.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def register(*, volume: object, images: list, progress: Callable, cancelled: Callable, **arguments: object) -> object:
    """``registration.register.register`` with the same arguments."""
    from ..registration.register import register as run

    return run(volume, images, progress=progress, cancelled=cancelled, **arguments)


def warm_up(*, progress: Callable, cancelled: Callable) -> float:
    """Import the registration and compile its kernels, if it offers ``warm_up()``; seconds it took."""
    from ..registration import register as module

    start = time.perf_counter()
    progress(0.1, "Preparing the registration")
    if hasattr(module, "warm_up"):
        module.warm_up()
    return time.perf_counter() - start


TASKS = {"register": register, "warm_up": warm_up}
