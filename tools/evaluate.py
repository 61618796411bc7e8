#!/usr/bin/env python3
"""``make evaluate``: the standardised evaluation on the sample CT and, where the test data are, on the pelvis CT.

Finished runs in ``build/evaluate`` are kept and continued; the figures go to ``Docs/verification/evaluate.json``.  Further arguments go
to ``fluoroguide evaluate`` (``EVALUATE_ARGS="--starts 20 --workers 1"``); then nothing is written to Docs.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("FluoroGuide", "FluoroGuide/Testing/Verification", "tools")]
DATA = Path(os.environ.get("FLUOROGUIDE_TEST_DATA", ROOT.parent / "shared" / "data"))
PELVIS = DATA / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz"
LEFT_OUT = ("shells", "verdicts", "calibration")


def proof(figures: dict, unit_ms: list[float]) -> dict:
    """``figures.json`` as ``Docs/verification`` wants it; ``unit_ms``: itk-rtk's projections before and after (see ``rtk_clock``)."""
    import rtk_clock
    from verify import commit, machine

    groups = {name: {k: v for k, v in group.items() if k not in LEFT_OUT} for name, group in figures["groups"].items()}
    for group in groups.values() if unit_ms else ():
        group["median_scaled_cpu_seconds"] = round(rtk_clock.scaled(group["median_cpu_seconds"], unit_ms), 3)
    verdicts = {f"{name}: {word}": group["verdicts"][word] for name, group in figures["groups"].items() for word in group["verdicts"]}
    return {
        "part": "evaluate", "command": "make evaluate", "seeds": [figures["settings"]["seed"]] * 2, "cases": figures["runs"], "commit": commit(),
        "code": figures["code"], "machine": machine(), "date": dt.date.today().isoformat(), "results_digest": figures["results_digest"],
        "figures": groups, "verdicts": verdicts,
    }


def main(arguments: list[str]) -> int:
    """Evaluate; write the proof when it is the standard one."""
    from FluoroGuideLib.cli import main as fluoroguide

    volumes = ["--volume", "thorax"]
    if PELVIS.is_file():
        volumes += ["--volume", str(PELVIS)]
    else:
        print("The pelvis CT is absent (set FLUOROGUIDE_TEST_DATA): the thorax alone is evaluated, and Docs are not written.", file=sys.stderr)
    output = ROOT / "build" / "evaluate"
    import rtk_clock

    os.environ[rtk_clock.WANTED] = "1"
    unit = rtk_clock.samples(15)
    code = fluoroguide(["evaluate", *volumes, "--output", str(output), *arguments])
    if code or arguments or not PELVIS.is_file():
        return code
    written = proof(json.loads((output / "figures.json").read_text(encoding="utf-8")), unit + rtk_clock.samples(15))
    (ROOT / "Docs" / "verification" / "evaluate.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
