"""The live picture and its overlay in Slicer: one bounded step per timer tick; what is slow runs in the engine's process."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.live import LiveSession
from ..guidance.state import GOOD
from .host import Host
from .overlay_nodes import XrayOverlay
from .xray_view import show_upright


class LiveView:
    """Shows a :class:`LiveSession` in X-ray view ``index``.

    Parameters
    ----------
    volume
        The view's volume node (``xray_view.build_xray``); its voxels are overwritten in place, so memory stays flat.
    """

    def __init__(self, host: Host, session: LiveSession, volume: Any, index: int) -> None:
        self.host, self.session, self.volume = host, session, volume
        self.overlay = XrayOverlay(host, session.setup.view, index)
        self._drawn: tuple = ()
        show_upright(host, session.setup.view, volume, index)

    def show(self, pixels: np.ndarray) -> None:
        """A new frame (rows, columns): into the picture and to the engine.  Drawn with the overlay's state of this moment."""
        import slicer

        array = slicer.util.arrayFromVolume(self.volume)
        if array.shape[1:] != pixels.shape:
            slicer.util.updateVolumeFromArray(self.volume, np.asarray(pixels)[None])
        else:
            array[0] = pixels
            slicer.util.arrayFromVolumeModified(self.volume)
        self.session.push(pixels)
        self.tick()

    def tick(self) -> str:
        """One timer step: take a result, redraw when something changed; returns the state."""
        result = self.session.poll()
        status, note = self.session.status()
        key = (status, note, self.session.setup.view, None if self.session.result is None else self.session.result.number)
        if result is not None or key != self._drawn:
            self._drawn = key
            self.overlay.view = self.session.setup.view
            self.overlay.update(self.session.shapes())
            self.overlay.set_stale(status not in GOOD)
        return status

    def close(self) -> None:
        """End the session and show no overlay: a needle of the last patient must not stay."""
        self.session.close()
        self.overlay.clear()
