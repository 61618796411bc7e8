"""numpy pictures as pixmaps, in the way that PythonQt takes them."""

from __future__ import annotations

import numpy as np

import qt


def pixmap(picture: np.ndarray) -> object:
    """A ``QPixmap`` of a uint8 picture (rows, columns) or (rows, columns, 3)."""
    kind = b"P6" if picture.ndim == 3 else b"P5"
    head = b"%s %d %d 255\n" % (kind, picture.shape[1], picture.shape[0])
    result = qt.QPixmap()
    result.loadFromData(qt.QByteArray(head + np.ascontiguousarray(picture, np.uint8).tobytes()))
    return result


def show_picture(label: object, picture: np.ndarray | None, side_px: int) -> None:
    """Show a picture in a label, fitted into a square of ``side_px``; None clears it."""
    if picture is None:
        label.clear()
        return
    made = pixmap(picture)
    label.setPixmap(made.scaled(side_px, side_px, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation))
