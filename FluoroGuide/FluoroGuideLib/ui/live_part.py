"""X-ray, live source: frames in an X-ray view, and reference images stored from them."""

from __future__ import annotations

import time
from typing import Any

import qt

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..scene.live_source import LiveXray, view_of
from ..scene.source_choice import SourceChoice, open_source
from .section import Section
from .style import allow, choose_data, fill_box, fill_table, prepare_table, show_text
from .text import translator

_ = translator(__name__)
TICK_MS = 66
"""15 frames a second: rendering two X-ray views takes longer than 33 ms (SLICER_FACTS 4)."""
GIL_MS, GIL_SECONDS = 10, 0.005
"""The source's own thread starves while Slicer idles, unless the main thread sleeps now and then (SLICER_FACTS 5)."""


class LivePart(Section):
    """Shows one live source; the frames' work is one bounded step of a timer."""

    key = "xray"

    def setup(self) -> None:
        """Boxes, buttons and timers."""
        ui = self.ui
        self.live: LiveXray | None = None
        self._timer, self._gil = qt.QTimer(), qt.QTimer()
        self._timer.setTimerType(qt.Qt.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._gil.setInterval(GIL_MS)
        self._skip = False
        self.on(self._timer, "timeout()", self._tick)
        self.on(self._gil, "timeout()", lambda: time.sleep(GIL_SECONDS))
        kinds = {"volume": _("volume of the scene"), "igtl": _("OpenIGTLink server"), "folder": _("folder"), "replay": _("multi-frame file, played"),
                 "sequence": _("Sequence, played")}
        fill_box(ui.fgSourceKindBox, [(text, kind) for kind, text in kinds.items()], "volume")
        fill_box(ui.fgSourceSlotBox, [(_("X-ray A"), "0"), (_("X-ray B"), "1")], "0")
        prepare_table(ui.fgReferenceTable)
        self.on(ui.fgSourceKindBox, "currentIndexChanged(int)", self._kind_chosen)
        self.button(ui.fgSourcePathButton, self._choose_path)
        self.button(ui.fgLiveStartButton, self._start)
        self.button(ui.fgLiveStopButton, self.stop)
        self.button(ui.fgKeepButton, self._keep, "Ctrl+Shift+S")

    def leave(self) -> None:
        """Stop the frames."""
        self.stop()

    # ---- choices ------------------------------------------------------------------------------------------------------
    @property
    def slot(self) -> int:
        """The slot that the frames go into."""
        return max(self.ui.fgSourceSlotBox.currentIndex, 0)

    def _kind_chosen(self, index: int) -> None:
        kind = self.ui.fgSourceKindBox.itemData(index)
        if self.choices is not None and kind and kind != self.choices.sourceKind:
            self.choices.sourceKind = kind

    def _choose_path(self) -> None:
        if self.choices.sourceKind == "folder":
            path = self.panel.dialogs.open_folder(_("Folder that images come into"))
        else:
            path = self.panel.dialogs.open_file(_("Multi-frame file to play"), _("DICOM files (*.dcm *.ima);;All files (*)"))
        if path:
            self.choices.sourcePath = path

    def choice(self) -> SourceChoice:
        """What the user chose."""
        p = self.choices
        node = p.sourceSequence if p.sourceKind == "sequence" else p.sourceVolume
        return SourceChoice(p.sourceKind, node, p.sourcePath.strip(), p.sourceHost.strip(), p.sourcePort)

    def geometry(self) -> dict | CArmView | None:
        """Geometry for frames that do not tell theirs: entered values, else that of the slot's X-ray."""
        entered = self.panel.xrays_section.geometry.card(self.slot)
        if entered is not None:
            return entered
        choice, node = self.choice(), self.panel.xray(self.slot)
        if choice.kind == "volume" and view_of(choice.node) is not None:
            return None
        return self.session.xrays.view(node) if node is not None and self.session.xrays.has_geometry(node) else None

    # ---- running ------------------------------------------------------------------------------------------------------
    def _missing(self) -> str:
        if self.choices is None:
            return _("The module is not ready yet.")
        return _("The live source runs.") if self.live is not None else self.choice().missing()

    def _start(self) -> None:
        source = open_source(self.choice(), self.geometry())
        self.live = LiveXray(self.session.host, source, self.slot)
        source.start()
        self._timer.start()
        self._gil.start()
        self.panel.tell("idle", _("Live."), _("Frames are shown in X-ray view {side}.").format(side="AB"[self.slot]))

    def stop(self) -> None:
        """End the source; the last frame stays."""
        self._timer.stop()
        self._gil.stop()
        live, self.live = self.live, None
        if live is not None:
            live.source.stop()

    def _tick(self) -> None:
        live = self.live
        if live is None:
            return
        if self._skip:  # the last step took longer than the interval: let the window breathe
            self._skip = False
            return
        began = time.perf_counter()
        self.attempt_step(live)
        self._skip = 1000 * (time.perf_counter() - began) > TICK_MS
        if live is self.live:
            show_text(self.ui.fgLiveResult, live.status())

    def attempt_step(self, live: LiveXray) -> None:
        """Show the newest frame; an error stops the source and is told."""
        try:
            before, frame = live.node, live.take()
        except FluoroGuideError as error:
            self.stop()
            self.panel.tell("fail", _("The live source stopped."), error.message)
            return
        if frame is not None and live.node is not before:
            side = "AB"[self.slot]
            self.session.refresh_folder()
            self.choices.setValue("xray" + side, live.node)
            self.panel.show_xrays()

    def _keep(self) -> None:
        node = self.panel.xray(self.slot)
        if node is None:
            raise FluoroGuideError("There is no X-ray in this view", None, "Load one first")
        kept = self.session.xrays.keep(node, "")
        self.panel.tell("idle", _("Stored."), kept.GetName() + ".")

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Fields of the chosen kind, buttons, reference images."""
        ui, p = self.ui, self.choices
        kind = p.sourceKind if p is not None else "volume"
        choose_data(ui.fgSourceKindBox, kind)
        fields: dict[str, tuple[Any, ...]] = {
            "volume": (ui.fgSourceVolumeLabel, ui.fgSourceVolumeSelector), "sequence": (ui.fgSourceSequenceLabel, ui.fgSourceSequenceSelector),
            "igtl": (ui.fgSourceHostLabel, ui.fgSourceHostEdit, ui.fgSourcePortSpin),
            "folder": (ui.fgSourcePathLabel, ui.fgSourcePathEdit, ui.fgSourcePathButton),
        }
        fields["replay"] = fields["folder"]
        for widgets in fields.values():
            for widget in widgets:
                widget.setVisible(widget in fields[kind])
        allow(ui.fgLiveStartButton, self._missing(), self.tool_tip(ui.fgLiveStartButton))
        allow(ui.fgLiveStopButton, "" if self.live is not None else _("No live source runs."), self.tool_tip(ui.fgLiveStopButton))
        allow(ui.fgSourcePathButton, "" if p is not None else _("The module is not ready yet."), self.tool_tip(ui.fgSourcePathButton))
        node = self.panel.xray(self.slot)
        usable = node is not None and self.session.xrays.has_geometry(node)
        allow(ui.fgKeepButton, "" if usable else _("There is no X-ray with geometry in this view."), self.tool_tip(ui.fgKeepButton))
        if self.live is None:
            show_text(ui.fgLiveResult, "")
        stored = self.session.xrays.references() if p is not None else []
        fill_table(ui.fgReferenceTable, [[n.GetName(), describe_angles(*view_of(n).angles_deg)] for n in stored])
