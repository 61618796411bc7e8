"""One case in one scene: what the panels and the logic do with it, step by step.  No Qt here.

The scene is the only memory: registration, needle and placements are read back from it, so closing, loading or
importing a scene needs no special care.  Kept aside are only what can be made again: the converted volume, the
overlays and the locks of the X-ray views.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .case import CASE_VERSION
from .case_identity import CaseIdentity
from .guiding import Guidance
from .host import Host
from .needle_list import NeedleList
from .nodes import ROLE, text_node
from .planner import Planner
from .record_nodes import FOLDER, build_folder
from .recorder import Recorder
from .registrar import Registrar
from .structures import Structures
from .xray_slots import XraySlots

MAIN_THREAD_IMPORTS = ("scipy.special", "scipy.spatial.transform", "scipy.ndimage", "PIL.PngImagePlugin")
"""What the panel needs in the middle of a procedure and takes 0.1 s or more to import the first time: taken when the module is opened."""


class CaseSession:
    """One case in one scene; each part of the work has a helper of its own.

    Parameters
    ----------
    host
        Gives the scene of now each time it is called (the application may change it).
    make_engine
        Makes the ``EngineClient`` when it is first needed.

    Attributes
    ----------
    planner, xrays, registrar, guidance, recorder
        What is done in the sections *Patient and plan*, *X-ray*, *Register*, *Guide* and *Record*.
    needles, identity
        The plan's needles as a list; whether volume, plan and X-rays belong together.
    """

    def __init__(self, host: Callable[[], Host], make_engine: Callable[[], Any]) -> None:
        self._host, self._make_engine, self._engine = host, make_engine, None
        self.planner, self.xrays, self.registrar = Planner(self), XraySlots(self), Registrar(self)
        self.needles, self.identity, self.structures = NeedleList(self), CaseIdentity(self), Structures()
        self.guidance, self.recorder = Guidance(self), Recorder(self)

    @property
    def host(self) -> Host:
        """The scene and its application logic."""
        return self._host()

    @property
    def engine(self) -> Any:
        """The registration process's client; made on first use."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def warm_up(self) -> None:
        """Let the registration process start and compile while the user plans; what would hold the window up later is imported now."""
        self.engine.warm_up()
        for name in MAIN_THREAD_IMPORTS:
            importlib.import_module(name)

    def close(self) -> None:
        """End the registration process and let go of the views."""
        self.forget()
        self.guidance.live.close()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def forget(self) -> None:
        """Drop what belongs to the nodes of the scene of now (before it is closed)."""
        for part in (self.xrays, self.planner, self.identity, self.structures, self.registrar, self.guidance, self.recorder):
            part.forget()

    def refresh_folder(self) -> None:
        """Keep every node of the case in one folder of the subject hierarchy."""
        text_node(self.host, "case", FOLDER, {"format": "fluoroguide-case", "version": CASE_VERSION, "name": FOLDER})
        scene = self.host.scene
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        build_folder(self.host, FOLDER, [n for n in nodes if n.GetAttribute(ROLE)])
