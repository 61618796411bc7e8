"""One registration: CPU time and accuracy of the whole, of its stages, without numba, and of ITK's own method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import harness
import numpy as np
import peers
from bench_projectors import detector, phantom, volume
from cases import Case
from itk_two_projection import ItkTwoProjection

from FluoroGuideLib.evaluation.protocol import perturbed_start
from FluoroGuideLib.geometry.rigid import apply
from FluoroGuideLib.registration.register import LevelOptions, MovingVolume, Options, register, warm_up

SEEDS = range(6)
START_MM, START_DEG = 15.0, 8.0
NUMPY_CASES = 2
"""The numpy path is slow and deterministic: two cases say what it costs."""
WHOLE = Options(threads=1)
PLAIN = Options(threads=1, check_part=False, checks=False)
COARSE = WHOLE.levels[0]
STAGES = {
    "FluoroGuide": PLAIN,
    "its search alone (6 mm)": dataclasses.replace(PLAIN, levels=(LevelOptions(COARSE.pixel_mm, COARSE.radius, 0, 1),)),
    "its refinement alone": dataclasses.replace(PLAIN, search=False),
    "FluoroGuide with all checks of its verdict": WHOLE,
    "FluoroGuide without numba": dataclasses.replace(PLAIN, backend="numpy"),
}
ITK = "ITK TwoProjectionRegistration"
ITK_AT_TRUTH = "the same, started at the truth"


def methods(case: Case, moving: dict[str, MovingVolume], number: int) -> dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]]:
    """Name -> function from a start to (pose, number of DRRs or 0)."""
    def of(options: Options) -> Callable[[np.ndarray], tuple[np.ndarray, int]]:
        def run(start: np.ndarray) -> tuple[np.ndarray, int]:
            result = register(moving[options.backend], case.images, start, targets={"target": case.target}, options=options)
            return result.pose, result.projections_rendered

        return run

    made = {name: of(options) for name, options in STAGES.items() if options.backend != "numpy" or number < NUMPY_CASES}
    try:
        itk = ItkTwoProjection(case.volume.image, case.images, case.target)
        made[ITK] = lambda start: (itk.register(start), 0)
        made[ITK_AT_TRUTH] = lambda start: (itk.register(case.truth), 0)
    except ImportError:
        pass
    return made


def run(quick: bool = False) -> dict:
    """All cases; each method of a case once, with itk-rtk's projection before and after each."""
    warm_up()
    unit = peers.available(volume(phantom(), 1.5), detector(128), tuple(n for n in peers.PEERS if n != peers.REFERENCE))[0].get(peers.REFERENCE)
    rows: dict[str, list[tuple[float, float, int]]] = {}
    units: list[float] = []
    moving: dict[str, MovingVolume] = {}
    for number, seed in enumerate(list(SEEDS)[:1] if quick else SEEDS):
        case = Case(seed)
        center, rng = apply(case.truth, case.target), np.random.default_rng(seed)
        start = perturbed_start(case.truth, center, rng, mtre_mm=START_MM, points_lps_mm=case.points, rotation_deg=START_DEG)
        for backend in ("auto", "numpy"):
            moving.setdefault(backend, MovingVolume(case.volume, backend))
        for options in (WHOLE, STAGES["FluoroGuide without numba"]):  # pyramids are set-up, not registration
            for level in options.levels:
                moving[options.backend].projector(level.pixel_mm).prepare()
            moving[options.backend].beyond()
        for name, function in methods(case, moving, number).items():
            units += [harness.timed(unit) for _ in range(2)] if unit else []
            began = harness.cpu_seconds()
            pose, projections = function(start)
            rows.setdefault(name, []).append((harness.cpu_seconds() - began, case.error_mm(pose), projections))
            print(f"case {seed} {name}: {rows[name][-1][0]:.2f} s CPU, {rows[name][-1][1]:.2f} mm", flush=True)
    return {"rows": rows, "unit_ms": harness.median_ms(np.array(units)) if units else float("nan")}


def markdown(result: dict) -> str:
    """The section of ``Docs/benchmarks.md``."""
    scale = result["unit_ms"] / harness.NORMAL_MS
    scale = scale if np.isfinite(scale) else 1.0
    rows = []
    for name in [*STAGES, ITK, ITK_AT_TRUTH]:
        if name not in result["rows"]:
            rows.append([name, "not installed", *["-"] * 6])
            continue
        seconds, errors, projections = (np.array(x) for x in zip(*result["rows"][name], strict=True))
        rows.append([
            name, len(errors), float(np.median(seconds) / scale), float(seconds.max() / scale), int(np.median(projections)) or "-",
            float(np.median(errors)), float(errors.max()), f"{int((errors < 2).sum())} of {len(errors)}",
        ])
    header = ["method", "cases", "median s", "max s", "DRRs", "median mm", "max mm", "below 2 mm"]
    return "\n\n".join([
        "## One registration",
        "Two simulated views (AP and lateral, 8-bit display values, scatter, noise) of a vertebra in the thorax CT, anatomy rigid, from "
        f"{START_MM:g} mm mTRE and {START_DEG:g} degrees. CPU seconds on one thread, scaled with itk-rtk at 128² in the same run (it took "
        f"{result['unit_ms']:.1f} ms, {harness.NORMAL_MS:g} ms counts as 1); reading, pyramids and compilation are not counted. Error: mTRE over the "
        "vertebra. *search alone* scores its 6 mm grid and does not refine; *refinement alone* starts at the given pose. "
        "*all checks*: also the bone at the target on its own, mirror images, each view alone and the next vertebrae. ITK's method has "
        "normalised correlation, Powell's optimiser and one resolution (64², 3 mm), as in its own example. The accuracy proofs are in "
        "`Docs/verification`; these cases are too few for one.",
        harness.table(header, rows),
        "Without numba the numpy kernels run: the same formulas, the same result. A SimpleITK projector (*SimpleITK frustum* above) was measured "
        "as the alternative: it has no derivative, and seven of its DRRs, as differences would need, cost far more than one numpy DRR with the "
        "exact Jacobian.",
    ])
