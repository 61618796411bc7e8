"""Records for tests: a full one, one with long names, one with everything missing, one with many needles.  Ids and times are fixed."""

from __future__ import annotations

import dataclasses
import functools
from unittest import mock

import numpy as np

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.guidance.triangulation import NeedlePose
from FluoroGuideLib.planning.plan import Plan, Target, Trajectory
from FluoroGuideLib.record.dose_model import DoseCheck, DoseEvent, DoseSummary, DoseTotals
from FluoroGuideLib.record.key_images import KeyImage
from FluoroGuideLib.record.placement import placement_of
from FluoroGuideLib.record.record import ProcedureRecord
from FluoroGuideLib.registration.result import Registration

LONG = "Sacroiliac joint, posterior inferior third, beside the transitional vertebra (Castellvi IIb) " * 2
UNBROKEN = "Iliosakralgelenksinfiltrationsnadelzielpunktbeschreibung" * 3


LEGGAUSS = functools.lru_cache(np.polynomial.legendre.leggauss)
"""Gauss-Legendre nodes once, not once per row of an integral: half a second per needle."""


class Clock:
    """UTC and monotonic time that advance by a fixed step."""

    def __init__(self, step_s: float = 37.0) -> None:
        self.seconds, self.step = 0.0, step_s

    def utc(self) -> str:
        minutes, seconds = divmod(self.seconds, 60)
        return f"2026-03-04T09:{int(minutes):02d}:{seconds:06.3f}Z"

    def monotonic(self) -> float:
        self.seconds += self.step
        return self.seconds


def a_plan(count: int = 2, name: str = "needle", target: str = "joint") -> Plan:
    """``count`` paths side by side, 90 mm long, tilted."""
    targets, paths = [], []
    for k in range(count):
        point = np.array([20.0 * k - 10 * count, 5.0, -3.0 * k])
        entry = point + 90 * np.array([-0.3, 0.9, 0.1]) / np.linalg.norm([-0.3, 0.9, 0.1])
        targets.append(Target(f"{target} {k + 1}", point, 4.0))
        paths.append(Trajectory(f"{name} {k + 1}", entry, point, 22, 90))
    return Plan("si_joint", tuple(targets), tuple(paths), "left", "S1", "ct", {"joint line": [[0, 0, 0], [1 / 3, 2, 3]]}, ("AP",))


def a_picture(seed: int = 0, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Smooth shadows with a little noise, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    shadows = sum(np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 0.02) for r, c in rng.uniform(0.1, 0.8, (6, 2)))
    return np.clip(40 + 90 * shadows + rng.normal(0, 3, shape), 0, 255).astype(np.uint8)


def a_registration() -> Registration:
    shape = {"sid_mm": 1000, "sod_mm": 700, "rows": 256, "columns": 256, "pixel_spacing_mm": (0.4, 0.4)}
    views = (CArmView.from_angles(0, 0, **shape), CArmView.from_angles(80, 5, **shape))
    covariance = np.diag([1e-4, 2e-4, 1e-4, 0.2, 0.3, 0.1])
    return Registration(
        np.eye(4), "warn", ("the lateral view has little bone",), (0.82, 1 / 3), covariance, np.zeros(3), views, ({"cost": 1.5},), 4.2, 900,
    )


def a_dose() -> DoseSummary:
    events = tuple(DoseEvent(uid=f"1.2.826.0.{k}.12345.67", kind="fluoroscopy", plane="A", dap_gy_m2=1e-5 + k * 1e-7, seconds=3.3) for k in range(9))
    planes = (DoseTotals("A", 9.36e-5, 0.0125, 29.7), DoseTotals("B", 0.0, 0.0, 0.0))
    check = DoseCheck("dap_gy_m2", None, 9.36e-5, 9.36e-5, True, "The 9 events add up to the stated dose area product.")
    return DoseSummary(
        dap_gy_m2=9.36e-5, reference_air_kerma_gy=0.0125, fluoroscopy_seconds=29.7, planes=planes, events=events, source="rdsr", device="Maker Model",
        fluoroscopy_time_source="reported", warnings=("Plane B was not used: all its values are 0.",), checks=(check,), dap_correction=0.85,
    )


def record_with(count: int = 2, name: str = "needle", step_s: float = 37.0) -> ProcedureRecord:
    """A full record with ``count`` needles."""
    clock = Clock(step_s)
    ids = (f"00000000-0000-4000-8000-{k:012d}" for k in range(10_000))
    with (
        mock.patch("FluoroGuideLib.record.record.utc_now", clock.utc), mock.patch("FluoroGuideLib.record.record.time.monotonic", clock.monotonic),
        mock.patch("uuid.uuid4", side_effect=ids), mock.patch("numpy.polynomial.legendre.leggauss", LEGGAUSS),
    ):
        return _filled(a_plan(max(count, 1), name), count, name)


def _filled(plan: Plan, count: int, name: str) -> ProcedureRecord:
    record = ProcedureRecord.of_plan(plan)
    record.created_utc = record.timeline[0]["utc"]
    record.approach, record.equipment, record.patient_key = "posterior", "mobile C-arm", "FG-0123456789abcdef01234567"
    record.answer("Right patient, side and level", True, "R. Head")
    record.answer("Anticoagulation paused for (days)", 5)
    registration = a_registration()
    for k, view in enumerate(registration.views):
        record.add_view(f"view {k + 1}", view, ("source to detector distance typed by the user",))
    record.add_registration(registration)
    rng = np.random.default_rng(7)
    for k in range(count):
        path = plan.trajectories[k]
        tip = path.target_lps_mm + rng.normal(0, 1.6, 3)
        axis = path.axis + rng.normal(0, 0.02, 3)
        needle = NeedlePose(tip, axis / np.linalg.norm(axis), np.diag([0.2, 0.5, 0.1]) + 0.05, 0.4, 80.0, np.zeros(2), "volume", ("marks by hand",))
        placement = placement_of(plan, needle, path, views=("AP", "LAO 80.0 CRA 5.0"), registration_verdict="warn", utc=record.timeline[-1]["utc"])
        record.add_placement(dataclasses.replace(placement, method="automatic" if k % 2 else "manual"))
    if count:
        record.approve(record.placements[0].placement_id, "R. Head")
    record.add_contrast("iohexol 240", 0.3, "intra-articular", False)
    record.add_injectate("triamcinolone", "40 mg/ml", 1.0, "LOT-7", record.placements[0].placement_id if count else None)
    record.add_injectate("bupivacaine", "0.5 %", 1.5)
    record.add_key_image(
        KeyImage.of_pixels("AP with contrast", a_picture(), burned_in="no", caption="Contrast in the joint", view="AP", shows=("contrast",)),
    )
    record.add_key_image(KeyImage.of_pixels("lateral", a_picture(1), burned_in="no", view="LAO 80.0 CRA 5.0"))
    record.add_pain("before", 7)
    record.add_pain("after", 2, minutes_after=30, activity="walking")
    record.no_complications()
    record.add_aftercare("No driving today; call when the leg stays numb.")
    record.set_dose(a_dose())
    record.notes = f"Uneventful. {name}"
    return record


def empty_record() -> ProcedureRecord:
    """Nothing but a procedure."""
    return ProcedureRecord("free text", record_id="00000000-0000-4000-8000-00000000ffff", created_utc="2026-03-04T09:00:00.000Z")


def long_record() -> ProcedureRecord:
    """Names as long as people write them."""
    record = record_with(3, LONG)
    record.procedure = LONG + UNBROKEN
    record.approach = UNBROKEN
    record.notes = (LONG + "\n") * 3 + UNBROKEN
    record.add_contrast(LONG, 0.5, UNBROKEN, True, LONG)
    record.add_injectate(UNBROKEN, LONG, 2.25, UNBROKEN)
    record.add_complication(LONG, "minor", UNBROKEN)
    record.approve(record.placements[1].placement_id, UNBROKEN)
    record.log(UNBROKEN)
    record.timeline[-1].update(utc="2026-03-04T09:59:00.000Z", seconds=900.0)
    return record
