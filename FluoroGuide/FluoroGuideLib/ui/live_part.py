"""X-ray, live sources: frames in one or both X-ray views, and reference images stored from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import qt

from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..scene.live_source import LiveXray, view_of
from ..scene.source_choice import NONE, SourceChoice
from .opening import GIL_MS, GIL_SECONDS, Opening
from .section import Section
from .style import allow, choose_data, fill_box, fill_table, prepare_table, show_text
from .text import translator

_ = translator(__name__)
TICK_MS = 66
"""15 frames a second: rendering two X-ray views takes longer than 33 ms (SLICER_FACTS 4)."""


NAMES = ("Source", "Second")
"""How the widgets of the two sources are called: ``fgSourceKindBox``, ``fgSecondKindBox``; their choices: ``sourceKind``, ``secondKind``."""


class LivePart(Section):
    """Shows one or two live sources; the frames' work is one bounded step of a timer."""

    key = "xray"

    def setup(self) -> None:
        """Boxes, buttons and timers."""
        ui = self.ui
        self.lives: dict[int, LiveXray] = {}
        self.opening = Opening(self.attempt)
        self._timer, self._gil = qt.QTimer(), qt.QTimer()
        self._timer.setTimerType(qt.Qt.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._gil.setInterval(GIL_MS)
        self._skip = False
        self.on(self._timer, "timeout()", self._tick)
        self.on(self._gil, "timeout()", lambda: time.sleep(GIL_SECONDS))
        kinds = {"volume": _("volume of the scene"), "igtl": _("OpenIGTLink server"), "folder": _("folder"), "replay": _("multi-frame file, played"),
                 "sequence": _("Sequence, played")}
        entries = [(text, kind) for kind, text in kinds.items()]
        fill_box(ui.fgSourceKindBox, entries, "volume")
        fill_box(ui.fgSecondKindBox, [(_("none"), NONE), *entries], NONE)
        fill_box(ui.fgSourceSlotBox, [(_("X-ray A"), "0"), (_("X-ray B"), "1")], "0")
        prepare_table(ui.fgReferenceTable)
        for which in (0, 1):
            self.button(self._widget(which, "PathButton"), lambda which=which: self._choose_path(which))
        self.on(ui.fgSourceKindBox, "currentIndexChanged(int)", lambda: self._kind_chosen("sourceKind", ui.fgSourceKindBox))
        self.on(ui.fgSecondKindBox, "currentIndexChanged(int)", lambda: self._kind_chosen("secondKind", ui.fgSecondKindBox))
        self.button(ui.fgLiveStartButton, self._start)
        self.button(ui.fgLiveStopButton, self.stop)
        self.button(ui.fgKeepButton, self._keep, "Ctrl+Shift+S")

    def leave(self) -> None:
        """Stop the frames."""
        self.stop()

    def close(self) -> None:
        """Undo every connection."""
        super().close()
        self.opening.close()

    # ---- choices ------------------------------------------------------------------------------------------------------
    def _widget(self, which: int, name: str) -> Any:
        return getattr(self.ui, f"fg{NAMES[which]}{name}")

    def _value(self, which: int, name: str) -> Any:
        return self.choices.getValue(NAMES[which].lower() + name)

    @property
    def live(self) -> LiveXray | None:
        """A source that runs here, or None."""
        return next(iter(self.lives.values()), None)

    @property
    def slot(self) -> int:
        """The slot that the frames of the first source go into; those of the second go into the other."""
        return max(self.ui.fgSourceSlotBox.currentIndex, 0)

    def slot_of(self, which: int) -> int:
        """The slot of the first (0) or second (1) source."""
        return self.slot if which == 0 else 1 - self.slot

    def _kind_chosen(self, name: str, box: Any) -> None:
        kind = box.itemData(box.currentIndex)
        if self.choices is not None and kind and kind != self.choices.getValue(name):
            self.choices.setValue(name, kind)

    def _choose_path(self, which: int) -> None:
        if self._value(which, "Kind") == "folder":
            path = self.panel.dialogs.open_folder(_("Folder that images come into"))
        else:
            path = self.panel.dialogs.open_file(_("Multi-frame file to play"), _("DICOM files (*.dcm *.ima);;All files (*)"))
        if path:
            self.choices.setValue(NAMES[which].lower() + "Path", path)

    def choice(self, which: int = 0) -> SourceChoice:
        """What the user chose for the first (0) or second (1) source."""
        kind = self._value(which, "Kind")
        node = self._value(which, "Sequence" if kind == "sequence" else "Volume")
        return SourceChoice(kind, node, self._value(which, "Path").strip(), self._value(which, "Host").strip(), self._value(which, "Port"))

    def geometry(self, which: int = 0) -> dict | CArmView | None:
        """Geometry for frames that do not tell theirs: entered values, else that of the slot's X-ray."""
        slot = self.slot_of(which)
        entered = self.panel.xrays_section.geometry.card(slot)
        if entered is not None:
            return entered
        choice, node = self.choice(which), self.panel.xray(slot)
        if choice.kind == "volume" and view_of(choice.node) is not None:
            return None
        return self.session.xrays.view(node) if node is not None and self.session.xrays.has_geometry(node) else None

    def used(self) -> list[int]:
        """The sources in use: the first, and the second unless it is none."""
        return [0] if self.choices is None or self._value(1, "Kind") == NONE else [0, 1]

    def missing_source(self) -> str:
        """What has still to be chosen, one sentence; empty when all sources may be opened."""
        told = [self.choice(which).missing() for which in self.used()]
        if len(told) > 1 and not any(told) and self.choice(0).feeds == self.choice(1).feeds:
            return _("Both sources are the same: choose two.")
        return next((text for text in told if text), "")

    # ---- running ------------------------------------------------------------------------------------------------------
    def _missing(self) -> str:
        if self.choices is None:
            return _("The module is not ready yet.")
        if self.opening.running:
            return _("The live source is being opened.")
        return _("The live source runs.") if self.lives else self.missing_source()

    def open(self, done: Callable[[dict[int, Any]], None]) -> None:
        """Open the chosen sources, files off the main thread; ``done`` gets slot -> source, none of them started."""
        self.opening.start([(self.slot_of(which), self.choice(which), self.geometry(which)) for which in self.used()], done)
        self.panel.refresh_later()

    def _start(self) -> None:
        self.open(self._started)

    def _started(self, sources: dict[int, Any]) -> None:
        for slot, source in sources.items():
            self.panel.xrays_section.remember(slot)
            self.lives[slot] = LiveXray(self.session.host, source, slot)
            source.start()
        self._timer.start()
        self._gil.start()
        sides = " and ".join("AB"[slot] for slot in sorted(sources))
        self.panel.tell("idle", _("Live."), _("Frames are shown in X-ray view {side}.").format(side=sides))

    def stop(self) -> None:
        """End the sources; the last frames stay."""
        self._timer.stop()
        self._gil.stop()
        self.opening.stop()
        lives, self.lives = self.lives, {}
        for live in lives.values():
            live.source.stop()

    def _tick(self) -> None:
        if not self.lives:
            return
        if self._skip:  # the last step took longer than the interval: let the window breathe
            self._skip = False
            return
        began = time.perf_counter()
        for slot, live in list(self.lives.items()):
            if self.lives.get(slot) is live:
                self.attempt_step(slot, live)
        self._skip = 1000 * (time.perf_counter() - began) > TICK_MS
        if self.lives:
            show_text(self.ui.fgLiveResult, " ".join(live.status() for live in self.lives.values()))

    def attempt_step(self, slot: int, live: LiveXray) -> None:
        """Show the newest frame; an error stops the sources and is told."""
        try:
            before, frame = live.node, live.take()
        except FluoroGuideError as error:
            self.stop()
            self.panel.tell("fail", _("The live source stopped."), error.message)
            return
        if frame is not None and live.node is not before:
            self.session.refresh_folder()
            self.choices.setValue("xray" + "AB"[slot], live.node)
            self.panel.show_xrays()

    def _keep(self) -> None:
        node = self.panel.xray(self.slot)
        if node is None:
            raise FluoroGuideError("There is no X-ray in this view", None, "Load one first")
        kept = self.session.xrays.keep(node, "")
        self.session.xrays.history.stored(self.slot, kept)
        self.panel.tell("idle", _("Stored."), kept.GetName() + ".")

    # ---- showing ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Fields of the chosen kind, buttons, reference images."""
        ui, p = self.ui, self.choices
        for which in (0, 1):
            self._show_fields(which)
        allow(ui.fgLiveStartButton, self._missing(), self.tool_tip(ui.fgLiveStartButton))
        allow(ui.fgLiveStopButton, "" if self.lives or self.opening.running else _("No live source runs."), self.tool_tip(ui.fgLiveStopButton))
        for button in (ui.fgSourcePathButton, ui.fgSecondPathButton):
            allow(button, "" if p is not None else _("The module is not ready yet."), self.tool_tip(button))
        node = self.panel.xray(self.slot)
        usable = node is not None and self.session.xrays.has_geometry(node)
        allow(ui.fgKeepButton, "" if usable else _("There is no X-ray with geometry in this view."), self.tool_tip(ui.fgKeepButton))
        if not self.lives:
            show_text(ui.fgLiveResult, "")
        stored = self.session.xrays.references() if p is not None else []
        fill_table(ui.fgReferenceTable, [[n.GetName(), describe_angles(*view_of(n).angles_deg)] for n in stored])

    def _show_fields(self, which: int) -> None:
        """The kind that is chosen, and the fields it needs."""
        kind = self._value(which, "Kind") if self.choices is not None else ("volume", NONE)[which]
        choose_data(self._widget(which, "KindBox"), kind)
        fields = {"volume": ("VolumeLabel", "VolumeSelector"), "sequence": ("SequenceLabel", "SequenceSelector"),
                  "igtl": ("HostLabel", "HostEdit", "PortSpin"), "folder": ("PathLabel", "PathEdit", "PathButton")}
        fields["replay"] = fields["folder"]
        for name in dict.fromkeys(name for names in fields.values() for name in names):
            self._widget(which, name).setVisible(name in fields.get(kind, ()))
