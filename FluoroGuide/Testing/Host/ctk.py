"""Stand-ins of the CTK widgets that FluoroGuide uses; any other ``ctk`` name fails, so that it is added knowingly."""

import weakref

from PySide6.QtCore import Property

import qt

_HEADER_PX = 26


class ctkCollapsibleButton(qt.PythonQtObject, qt.QtWidgets.QAbstractButton):
    """A titled section that folds away; its layout is set on the button itself, as in CTK."""

    HOST_SIGNALS = {"contentsCollapsed(bool)": "contentsCollapsed"}
    contentsCollapsed = qt.HostSignal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._host_collapsed = False
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER_PX, 0, 0)
        self.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Minimum)
        kept = weakref.ref(self)
        self.toggled.connect(lambda checked: kept()._host_toggled(checked) if kept() is not None else None)

    def _host_toggled(self, checked):
        self._host_collapsed = not checked
        for child in self.children():
            if child.isWidgetType():
                child.setVisible(checked)
        self.updateGeometry()
        self.contentsCollapsed.emit(not checked)

    def _set_collapsed(self, value):
        self.setChecked(not value)

    collapsed = Property(bool, lambda self: self._host_collapsed, _set_collapsed)

    @property
    def sizeHint(self):
        inner = self.layout().sizeHint() if self.layout() is not None and not self._host_collapsed else qt.QSize(60, _HEADER_PX)
        return qt.QSize(inner.width(), max(inner.height(), _HEADER_PX))

    def paintEvent(self, _event):
        painter = qt.QPainter(self)
        option = qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect = qt.QRect(0, 0, self.width, _HEADER_PX - 2)
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        painter.setPen(self.palette.color(qt.QPalette.ButtonText))
        mark = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}" if self._host_collapsed else "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"
        painter.drawText(option.rect.adjusted(8, 0, 0, 0), int(qt.Qt.AlignVCenter.value), mark + "  " + self.text)
        painter.end()

    def hitButton(self, position):
        return position.y() < _HEADER_PX


class ctkSliderWidget(qt.PythonQtObject, qt.QtWidgets.QWidget):
    """Slider and spin box.  No ``setRange``: CTK's has none."""

    HOST_SIGNALS = {"valueChanged(double)": "valueChanged"}
    valueChanged = qt.HostSignal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._host_state = {"value": 0.0, "minimum": 0.0, "maximum": 99.99, "singleStep": 1.0, "decimals": 2, "suffix": ""}
        row = qt.QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._host_slider, self._host_spin = qt.QtWidgets.QSlider(qt.Qt.Horizontal), qt.QtWidgets.QDoubleSpinBox()
        self._host_slider.setRange(0, 1000)
        row.addWidget(self._host_slider)
        row.addWidget(self._host_spin)
        self._host_show()

    def _host_show(self):
        s = self._host_state
        self._host_spin.setRange(s["minimum"], s["maximum"])
        self._host_spin.setDecimals(s["decimals"])
        self._host_spin.setSuffix(s["suffix"])
        self._host_spin.setValue(s["value"])
        self._host_slider.setValue(round(1000 * (s["value"] - s["minimum"]) / max(s["maximum"] - s["minimum"], 1e-9)))

    def setValue(self, value):
        s = self._host_state
        value = min(max(float(value), s["minimum"]), s["maximum"])
        if value != s["value"]:
            s["value"] = value
            self._host_show()
            self.valueChanged.emit(value)

    def _host_set(self, name, value):
        self._host_state[name] = value
        self.setValue(self._host_state["value"])
        self._host_show()

    value = Property(float, lambda self: self._host_state["value"], setValue)
    minimum = Property(float, lambda self: self._host_state["minimum"], lambda self, v: self._host_set("minimum", v))
    maximum = Property(float, lambda self: self._host_state["maximum"], lambda self, v: self._host_set("maximum", v))
    singleStep = Property(float, lambda self: self._host_state["singleStep"], lambda self, v: self._host_set("singleStep", v))
    decimals = Property(int, lambda self: self._host_state["decimals"], lambda self, v: self._host_set("decimals", v))
    suffix = Property(str, lambda self: self._host_state["suffix"], lambda self, v: self._host_set("suffix", v))
