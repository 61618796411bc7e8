"""A drawing of a C-arm view: the body from its feet with the turn of the detector, and from the side with the tilt."""

from __future__ import annotations

import math

import qt

from ..geometry.carm import describe_angles

SIZE_PX, HALF_PX = (112, 172), 86
REACH_PX = 33


def sketch(primary_deg: float, secondary_deg: float, prone: bool, palette: object) -> object:
    """A ``QPixmap`` of :data:`SIZE_PX`.  Above: seen from the feet, the table below; under it: from the side, head on the left."""
    picture = qt.QPixmap(*SIZE_PX)
    picture.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(picture)
    painter.setRenderHint(qt.QPainter.Antialiasing, True)
    ink = palette.color(qt.QPalette.WindowText)
    # Seen from the feet the patient's left is on the right; anterior is up when supine.  Prone turns the patient over.
    angle = math.radians(primary_deg)
    x, y = math.sin(angle), -math.cos(angle)  # towards the patient's left; posterior is +y on the screen of a supine patient
    if prone:
        x, y = -x, -y
    _half(painter, ink, 0, x, y, 30, 18, _words(primary_deg, 0))
    tilt = math.radians(secondary_deg)
    up = 1.0 if math.cos(angle) >= 0 else -1.0  # the detector is anterior (up when supine) or posterior
    z, y = math.sin(tilt), -up * math.cos(tilt)
    if prone:
        y = -y
    _half(painter, ink, HALF_PX, -z, y, 40, 14, _words(0, secondary_deg))  # head to the left
    painter.end()
    return picture


def _half(painter: object, ink: object, top: int, x: float, y: float, wide: int, high: int, text: str) -> None:
    """One drawing: table, body, beam from the tube's dot to the detector's bar in direction (x, y)."""
    beam = qt.QColor(0, 114, 178)
    cx, cy = SIZE_PX[0] / 2, top + HALF_PX / 2 - 2
    painter.setPen(qt.QPen(qt.QBrush(ink), 2))
    painter.drawLine(qt.QPointF(cx - 46, cy + high + 3), qt.QPointF(cx + 46, cy + high + 3))
    painter.setPen(qt.QPen(qt.QBrush(ink), 1))
    painter.setBrush(qt.QBrush(qt.QColor(231, 196, 160)))
    painter.drawEllipse(qt.QRectF(cx - wide, cy - high, 2 * wide, 2 * high))
    painter.setPen(qt.QPen(qt.QBrush(beam), 2, qt.Qt.DashLine))
    painter.drawLine(qt.QPointF(cx - x * REACH_PX, cy - y * REACH_PX), qt.QPointF(cx + x * REACH_PX, cy + y * REACH_PX))
    painter.setPen(qt.QPen(qt.QBrush(beam), 5))
    across = 14
    painter.drawLine(qt.QPointF(cx + x * REACH_PX - y * across, cy + y * REACH_PX + x * across),
                     qt.QPointF(cx + x * REACH_PX + y * across, cy + y * REACH_PX - x * across))
    painter.setBrush(qt.QBrush(qt.QColor(213, 94, 0)))
    painter.setPen(qt.QPen(qt.QBrush(qt.QColor(213, 94, 0)), 1))
    painter.drawEllipse(qt.QPointF(cx - x * REACH_PX, cy - y * REACH_PX), 4.0, 4.0)
    painter.setPen(qt.QPen(qt.QBrush(ink), 1))
    painter.drawText(qt.QPointF(2, top + HALF_PX - 4), text)


def _words(primary_deg: float, secondary_deg: float) -> str:
    """``LAO 158``, ``CRA 12``; a tilt of 0 needs no words."""
    told = describe_angles(round(primary_deg), round(secondary_deg)).removesuffix(".0")
    return told.removeprefix("AP ") if secondary_deg else "" if told == "AP" and not primary_deg else told
