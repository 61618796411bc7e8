"""Long proof: 2,000 random but seeded user actions on the module's widget, with no exception, no leaked observer or timer, sentences only.

Each case is one session of 100 actions on the Qt stand-ins over the real MRML scene (``Testing/Host/monkey.py``); registrations are
answered at random (pass, warn, fail, crash, cancelled), planning, X-ray files and the record's
files are worked on by the worker's own functions.  Seeds 1000-1019 were spent on the module before its entries could be withdrawn.
"""

from __future__ import annotations

import collections
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Host"))

SEEDS = range(1020, 1040)
SLICE = range(2)
ACTIONS = 100


def case(seed: int) -> dict:
    """One session."""
    import module_case
    import qt
    import slicer_app
    from FluoroGuideLib.scene import host as host_module
    from monkey_user import Monkey

    os.environ["FLUOROGUIDE_DATA"] = tempfile.mkdtemp(prefix="fluoroguide-monkey-")  # journals of the test are not the user's
    host = host_module.start()
    host.scene.Clear(0)
    _app, _messages, undo = slicer_app.install(host.scene, main_window=False, app_logic=host.app_logic)
    qt.slot_errors.clear()
    qt.QSettings.host_values.clear()
    monkey, problem = Monkey(slicer_app.load_module(module_case.MODULE_FILE), seed), ""
    try:
        for _ in range(ACTIONS):
            monkey.step()
    except AssertionError as error:
        problem = str(error)[:2000]
    except Exception as error:
        problem = f"{type(error).__name__}: {error} after {monkey.done[-6:]}"[:2000]
    left = monkey.end()
    undo()
    return {"actions": len(monkey.done), "problem": problem, "left": left, "kinds": dict(collections.Counter(d.split()[0] for d in monkey.done))}


def summarize(results: list[dict]) -> dict:
    """Actions done, sessions with a problem, sessions that left something behind."""
    return {
        "actions": sum(r["actions"] for r in results), "sessions_with_a_problem": sum(bool(r["problem"]) for r in results),
        "sessions_that_left_something": sum(bool(r["left"]) for r in results),
    }
