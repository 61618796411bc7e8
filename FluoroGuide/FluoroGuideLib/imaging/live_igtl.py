"""An OpenIGTLink client: IMAGE messages of Plus, Slicer or any other server as live frames, without SlicerOpenIGTLink.

``pyigtl`` takes the messages apart; the connection is kept here, because a client must notice that the server died,
come back by itself with growing pauses, and never read more than it was promised (protocol: openigtlink.org, version 3).
"""

from __future__ import annotations

import socket
import time

import numpy as np

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView
from .live import MAX_FRAME_BYTES, QueuedSource, grey

HEADER_BYTES = 58
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
DEFAULT_PORT = 18944


class OpenIGTLinkSource(QueuedSource):
    """IMAGE messages of an OpenIGTLink server.

    Parameters
    ----------
    host, port
        The server.
    device
        Only messages of this device; ``None``: the first device that sends an image.
    geometry
        C-arm card or view; the matrix in the message is not used, because servers fill it with anything.
    options
        As for :class:`~.live.QueuedSource`.

    Raises
    ------
    FluoroGuideError
        From :meth:`start`: ``pyigtl`` is not installed.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = DEFAULT_PORT, device: str | None = None, geometry: dict | CArmView | None = None, **options,
    ) -> None:
        super().__init__(f"OpenIGTLink {host}:{port}", geometry, **options)
        self.host, self.port, self.device = host, int(port), device
        self._messages = None
        self._buffer = bytearray()

    def _prepare(self) -> None:
        try:
            from pyigtl import messages
        except ImportError:
            raise FluoroGuideError("OpenIGTLink needs the package pyigtl", None, "Install it with: pip install pyigtl") from None
        self._messages = messages

    def _receive(self) -> None:
        pause, connected_before = FIRST_PAUSE_S, False
        while not self._stopping.is_set():
            try:
                with socket.create_connection((self.host, self.port), timeout=2.0) as connection:
                    if connected_before:
                        self.counters.reconnects += 1
                    connected_before = True
                    self.last_error = ""
                    before = self.counters.received
                    self._listen(connection)
                    if self.counters.received > before:
                        pause = FIRST_PAUSE_S
                self.last_error = "The server closed the connection. Trying again."
            except (OSError, FluoroGuideError) as error:
                reason = error.message if isinstance(error, FluoroGuideError) else error.strerror or type(error).__name__
                self.last_error = f"No connection to {self.host}:{self.port} ({reason}). Trying again."
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _listen(self, connection: socket.socket) -> None:
        """Messages until the connection ends."""
        connection.settimeout(0.5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        header = bytearray(HEADER_BYTES)
        while self._filled(connection, memoryview(header)):
            fields = self._messages.MessageBase.parse_header(bytes(header))
            size = int(fields["body_size"])
            if size > MAX_FRAME_BYTES:
                raise FluoroGuideError("An OpenIGTLink message is too large", f"{size} bytes", "Check the server")
            if len(self._buffer) < size:
                self._buffer = bytearray(size)
            body = memoryview(self._buffer)[:size]
            if not self._filled(connection, body):
                return
            if str(fields["message_type"]).strip("\0 ") == "IMAGE":
                self._take(fields, bytes(body))

    def _filled(self, connection: socket.socket, view: memoryview) -> bool:
        """Fill a buffer; False when the connection or the source ended before."""
        place, quiet_since = 0, time.monotonic()
        while place < len(view):
            if self._stopping.is_set():
                return False
            try:
                count = connection.recv_into(view[place:])
            except TimeoutError:
                if place and time.monotonic() - quiet_since > 5.0:  # half a message and then nothing: start anew
                    return False
                continue
            if count == 0:
                return False
            place, quiet_since = place + count, time.monotonic()
        return True

    def _take(self, fields: dict, body: bytes) -> None:
        message = self._messages.ImageMessage()
        try:
            message.unpack(fields, body)
            name = str(message.device_name)
            if self.device is None:
                self.device = name
            if name != self.device:
                return
            image = np.asarray(message.image)
            if image.ndim not in (3, 4) or image.shape[0] != 1 or image.size == 0:
                raise FluoroGuideError("An OpenIGTLink image is not one 2-D frame", f"shape {image.shape}", "Send single frames")
            pixels = grey(image[0])
        except FluoroGuideError as error:
            self._refuse(str(error))
            return
        except Exception as error:  # a damaged message: pyigtl raises many kinds
            self._refuse(f"An OpenIGTLink image could not be read ({type(error).__name__}).")
            return
        sent = float(message.timestamp) if message.timestamp else None
        self._put(pixels, sent_s=sent)
