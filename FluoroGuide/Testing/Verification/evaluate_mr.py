"""``fluoroguide evaluate`` of MR, as a user starts it: a study file with an MR, its labelled bones, and the CT that X-rays are simulated from.

The MR is drawn from the thorax CT (T1, sagittal slices of 4 mm, shading, noise, distortion up to 1 mm); nothing of it is told but its side file.
Vertebrae that kept their place, and vertebrae whose surroundings moved 8 mm, registered on their own.  The distortion counts as error.
``make verify PART=evaluate_mr VERIFY_ARGS="--workers 1"``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mr_cases
import numpy as np
import SimpleITK as sitk

from FluoroGuideLib.evaluation.pseudo_mr import PseudoMrOptions, pseudo_mr

LIBRARY = Path(__file__).resolve().parents[2]
SEEDS = (1000,)
SLICE = (1,)
LABELS = {36: "T8", 35: "T9", 34: "T10", 33: "T11", 32: "T12", 31: "L1"}
"""Vertebrae that lie completely inside the scan."""
WAYS = {"rigid": ("--part", "whole"), "moved": ("--moved", "8", "--part", "label")}
FULL = ["--starts", "30"]
FEW = ["--starts", "2", "--starts-per-scene", "2", "--size", "128", "--noise", "clean"]


def study(folder: Path, seed: int) -> Path:
    """The study file with its MR (``mr.nii.gz``, ``mr.json``), bone labels, targets and CT."""
    ct, bones, _ = mr_cases.scan("thorax")
    options = PseudoMrOptions(contrast="T1", plane="sagittal", bias=0.25, noise=0.025)
    image, labels, _ = pseudo_mr(ct, options, np.random.default_rng([seed, 78]), bones)
    labels = mr_cases.vertebrae(labels)
    for name, made in (("mr", image), ("bones", labels), ("ct", ct)):
        sitk.WriteImage(made, str(folder / f"{name}.nii.gz"), useCompression=True, compressionLevel=1)
    tags = {"Modality": "MR", "ScanningSequence": "SE", "RepetitionTime": 0.5, "EchoTime": 0.012}
    (folder / "mr.json").write_text(json.dumps(tags))
    targets = [{"name": name, "position_lps_mm": deepest(labels == value).tolist()} for value, name in LABELS.items()]
    (folder / "targets.json").write_text(json.dumps(targets))
    entry = {"volume": "mr.nii.gz", "labels": "bones.nii.gz", "targets": "targets.json", "simulate_from": "ct.nii.gz"}
    (folder / "study.json").write_text(json.dumps({"subjects": [entry]}))
    return folder / "study.json"


def deepest(bone: object) -> np.ndarray:
    """The point (3,) farthest from a bone's surface, LPS mm: the middle of a vertebra's body."""
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(bone, insideIsPositive=True, squaredDistance=False, useImageSpacing=True))
    index = np.unravel_index(int(depth.argmax()), depth.shape)[::-1]
    return np.array(bone.TransformIndexToPhysicalPoint([int(n) for n in index]))


def case(seed: int) -> dict:
    """The command on one MR, both ways: its figures, and how its process ended."""
    out = {}
    with tempfile.TemporaryDirectory(prefix="fluoroguide-mr-") as name:
        folder = Path(name)
        file = study(folder, seed)
        for way, options in WAYS.items():
            if seed < 1000 and way == "moved":
                continue
            starts = FULL if seed >= 1000 else FEW
            command = [sys.executable, "-m", "FluoroGuideLib.cli", "evaluate", "--study", str(file), "--output", str(folder / way), "--workers", "1"]
            command += ["--largest-start", "20", "--largest-rotation", "10", "--success", "2.5", "--gallery", "0", "--json", *starts, *options]
            ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(LIBRARY)}, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise RuntimeError(ended.stderr[-500:])
            groups = json.loads(ended.stdout)["groups"]
            out[way] = next(iter(groups.values()))
            page = (folder / way / "report.html").read_text(encoding="utf-8")
            out[way]["report_says_mr"] = "1 of them MR" in page and "MR (T1)" in page
    return out


def summarize(results: list[dict]) -> dict:
    """Figures per MR and way."""
    keys = ("runs", "errors", "success_percent", "median_mm", "p95_mm", "worst_mm", "failures_not_passed", "successes_not_passed",
            "predicted_95_holds_percent", "median_cpu_seconds", "report_says_mr")
    return {f"MR {r['seed']}, {way}": {k: r[way][k] for k in keys if k in r[way]} for r in results for way in WAYS if way in r}
