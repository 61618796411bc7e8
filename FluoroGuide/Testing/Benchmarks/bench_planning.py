"""Planning: rate of virtual fluoroscopy while dragging and at rest, and the time of a full search for entry points."""

from __future__ import annotations

import statistics
import time

import harness
import numpy as np

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
from FluoroGuideLib.anatomy.skin import body_mask
from FluoroGuideLib.evaluation.sample import thorax_ct
from FluoroGuideLib.planning.approach import Room, bulls_eye, progress_views
from FluoroGuideLib.planning.carms import carm
from FluoroGuideLib.planning.landmarks import pedicle
from FluoroGuideLib.planning.procedures import load_library
from FluoroGuideLib.planning.suggest import Rules, suggest
from FluoroGuideLib.projection.drr import VirtualFluoroscopy, displayed
from FluoroGuideLib.projection.reference import line_integrals

SIZE, SPACING_MM = 256, 1.16
THREADS = (1, 2)


def _views(room: Room, point: np.ndarray, count: int) -> list:
    """A drag: views from 60 deg on one side to 60 deg on the other."""
    card = room.card
    turned = [room.view(a, 10.0, point) for a in np.linspace(-150, 150, count + 4)[2:-2]]
    return [v.resampled(SIZE, SIZE) for v in turned] if (card.rows, card.columns) != (SIZE, SIZE) else turned


def fluoroscopy(image: object, room: Room, point: np.ndarray, frames: int) -> dict:
    """CPU and wall time per frame (picture included) by quality and threads, and the error against the slow reference."""
    attenuation = attenuation_from_hu(image).image
    result: dict[str, object] = {"rows": []}
    machines = {threads: VirtualFluoroscopy(attenuation, threads) for threads in THREADS}
    for machine in machines.values():
        machine.prepare()
        for quality in ("drag", "still"):
            machine.image(_views(room, point, 2)[0], quality=quality)
    wall: dict[tuple[str, int], list[float]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    for view in _views(room, point, frames):
        for quality in ("drag", "still"):
            for threads, machine in machines.items():  # in turn, so that a busy machine slows all alike
                began, used = time.perf_counter(), time.process_time()
                displayed(machine.image(view, quality=quality))
                cpu.setdefault((quality, threads), []).append(time.process_time() - used)
                wall.setdefault((quality, threads), []).append(time.perf_counter() - began)
    for (quality, threads), values in wall.items():
        used = statistics.median(cpu[quality, threads])
        result["rows"].append([quality, threads, used * 1e3, 1 / used, min(values) * 1e3, statistics.median(values) * 1e3])
    view = _views(room, point, 2)[0].resampled(64, 64)
    truth = line_integrals(attenuation, view, np.eye(4), 0.5)
    result["drag_error_percent"] = 100 * float(np.abs(machines[1].image(view, quality="drag") - truth).mean() / truth.max())
    result["still_error_percent"] = 100 * float(np.abs(machines[1].image(view) - truth).mean() / truth.max())
    for machine in machines.values():
        machine.close()
    return result


def search(image: object, labels: object, names: dict[int, str], room: Room, rounds: int) -> list[list[object]]:
    """CPU seconds of everything between a target and ranked entry points, and of the C-arm solver."""
    began = time.process_time()
    body = body_mask(image)
    rows: list[list[object]] = [["skin of the whole CT (once)", time.process_time() - began]]
    procedure, target = load_library().get("vertebroplasty_transpedicular"), pedicle(labels, names, "vertebrae_L1", "right")
    first, later = [], []
    for _ in range(rounds):
        structures, _ = procedure.structures(labels, names)
        rules = Rules(target.outward_lps, 35, True, gauge=13, needle_length_mm=150)
        for seconds in (first, later):  # the second time the structures' surfaces are known
            began = time.process_time()
            found = suggest(target.position_lps_mm, image, body, structures, room, rules)
            seconds.append(time.process_time() - began)
    rows.append(["entry points, 35 deg cone, 10 structures, first time", statistics.median(first)])
    rows.append(["the same again (target dragged)", statistics.median(later)])
    path = found[0].trajectory
    began = time.process_time()
    bulls_eye(path, room)
    progress_views(path, room, image > 250)
    rows.append(["bull's-eye and progress views with bone", time.process_time() - began])
    return rows


def run(quick: bool = False) -> dict:
    """All figures."""
    image, labels, names = thorax_ct()
    room = Room(carm(), "HFP")
    point = pedicle(labels, names, "vertebrae_L1", "right").position_lps_mm
    return {"fluoroscopy": fluoroscopy(image, room, point, 6 if quick else 40), "search": search(image, labels, names, room, 1 if quick else 5)}


def markdown(figures: dict) -> str:
    """The page's section."""
    drr = figures["fluoroscopy"]
    text = ["## Planning", f"Virtual fluoroscopy at {SIZE} x {SIZE} on the sample CT (512 x 512 x 133), with picture, over a drag.",
            harness.table(["quality", "threads", "CPU ms (median)", "frames per CPU second", "wall ms (best)", "wall ms (median)"], drr["rows"]),
            f"Mean error against trilinear sampling every 0.5 mm, of the largest line integral: dragging {drr['drag_error_percent']:.2f} %, "
            f"at rest {drr['still_error_percent']:.2f} %.",
            "CPU seconds of the search for entry points (goal: below 2).", harness.table(["what", "s"], figures["search"])]
    return "\n\n".join(text)
