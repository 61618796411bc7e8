"""The facade that SimpleITK users know: same answer as register(), events, stopping, and one-sentence errors."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
from FluoroGuideLib.errors import CancelledError, FluoroGuideError
from FluoroGuideLib.evaluation.phantom import LumbarPhantom
from FluoroGuideLib.evaluation.protocol import mtre
from FluoroGuideLib.geometry import rigid
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.geometry_error import CArmTolerance
from FluoroGuideLib.registration.method import ImageRegistrationMethod2D3D
from FluoroGuideLib.registration.prior import PosePrior
from FluoroGuideLib.registration.register import LevelOptions, Options, register
from FluoroGuideLib.registration.search import start_at_isocenter
from FluoroGuideLib.registration.volume import MovingVolume

QUICK = Options(levels=(LevelOptions(6.0, 4, 6, 1), LevelOptions(3.0, 5, 6, 1)), search=False, threads=1, check_part=False)


class Case:
    """A phantom in HU, its pose and two small X-rays."""

    def __init__(self) -> None:
        phantom = LumbarPhantom(seed=4)
        self.ct = phantom.voxelize(2.0)
        self.moving = MovingVolume(attenuation_from_hu(self.ct))
        self.target = phantom.landmarks["L4/L5 facet joint left"]
        self.truth = rigid.perturb(start_at_isocenter(self.target), [0.06, -0.04, 0.08, 4.0, -6.0, 3.0], np.zeros(3))
        self.start = rigid.perturb(self.truth, [0.03, 0.02, -0.03, 3.0, 4.0, -2.0], rigid.apply(self.truth, self.target))
        self.images = []
        for angles in ((0.0, 0.0), (80.0, 5.0)):
            view = CArmView.from_angles(*angles, sid_mm=1050, sod_mm=700, rows=128, columns=128, pixel_spacing_mm=(2.4, 2.4))
            lines = phantom.line_integrals(view, self.truth)
            pixels = (0.9 * lines["soft"] + 1.4 * lines["bone"]).astype(np.float32)
            self.images.append(XrayImage(pixels, np.ones(pixels.shape, bool), view, "phantom"))
        self.points = self.target + np.random.default_rng(0).normal(0, 15, (20, 3))

    def method(self, options: Options = QUICK) -> ImageRegistrationMethod2D3D:
        method = ImageRegistrationMethod2D3D()
        method.SetInitialTransform(rigid.to_sitk(self.start, self.target))
        method.SetTargets({"facet": self.target})
        method.SetOptions(options)
        return method


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_the_answer_is_register_s_own_as_a_point_map(case: Case) -> None:
    method = case.method()
    transform = method.Execute(case.images, case.moving)
    assert isinstance(transform, sitk.Euler3DTransform)
    np.testing.assert_allclose(transform.GetCenter(), case.target)
    expected = register(case.moving, case.images, case.start, targets={"facet": case.target}, options=QUICK)
    np.testing.assert_allclose(rigid.from_sitk(transform), expected.pose, atol=1e-9)
    # a point map, volume -> isocentre: the target lands where the truth puts it
    moved = np.array(transform.TransformPoint(case.target.tolist()))
    assert np.linalg.norm(moved - rigid.apply(case.truth, case.target)) < 0.7
    assert mtre(expected.pose, case.truth, case.points) < 0.7
    assert method.GetResult().verdict in ("pass", "warn")
    assert method.GetMetricValue() == pytest.approx(-np.mean(expected.similarity))
    assert method.GetProgress() == 1.0
    assert "converged at 3 mm" in method.GetOptimizerStopConditionDescription()


def test_takes_an_image_in_hu_and_is_deterministic(case: Case) -> None:
    volumes = (case.ct, case.moving, attenuation_from_hu(case.ct))
    poses = [rigid.from_sitk(case.method().Execute(case.images, v)) for v in volumes]
    for pose in poses[1:]:
        np.testing.assert_array_equal(pose, poses[0])


def test_events_come_in_order_in_the_caller_s_thread(case: Case) -> None:
    method, seen, threads = case.method(), [], set()

    def note(name: str) -> None:
        seen.append((name, method.GetCurrentLevel(), method.GetOptimizerIteration(), method.GetProgress()))
        threads.add(threading.current_thread())

    for name, event in {
        "start": sitk.sitkStartEvent, "level": sitk.sitkMultiResolutionIterationEvent, "step": sitk.sitkIterationEvent, "end": sitk.sitkEndEvent,
    }.items():
        method.AddCommand(event, lambda name=name: note(name))
    assert method.HasCommand(sitk.sitkIterationEvent)
    method.Execute(case.images, case.moving)
    names = [s[0] for s in seen]
    assert names[0] == "start"
    assert names[-1] == "end"
    assert names.count("level") == 2
    steps = [s for s in seen if s[0] == "step"]
    assert [s[2] for s in steps] == list(range(1, len(steps) + 1))
    assert {s[1] for s in steps} == {0, 1}
    assert [s[3] for s in seen] == sorted(s[3] for s in seen)
    assert threads == {threading.current_thread()}
    method.RemoveAllCommands()
    assert not method.HasCommand(sitk.sitkStartEvent)


def test_the_metric_is_there_during_iterations_and_improves(case: Case) -> None:
    method, values = case.method(), []
    assert np.isnan(method.GetMetricValue())
    method.AddCommand(sitk.sitkIterationEvent, lambda: values.append((method.GetCurrentLevel(), method.GetMetricValue())))
    method.Execute(case.images, case.moving)
    assert all(-1 <= v < 0 for _, v in values)
    for number in (0, 1):
        own = [v for level, v in values if level == number]
        assert own[-1] < own[0]
    assert method.GetMetricValue() <= values[-1][1] + 1e-3


def test_prior_part_and_carm_are_passed_on(case: Case) -> None:
    """A prior that is all but certain keeps the pose where it is; a bone that is not there is named."""
    method = case.method()
    center = rigid.apply(case.start, case.target)
    method.SetPosePrior(PosePrior.around(case.start, center, rotation_deg=0.01, translation_mm=0.01, weight=1.0))
    pose = rigid.from_sitk(method.Execute(case.images, case.moving))
    assert np.linalg.norm(rigid.apply(pose, case.target) - center) < 0.2
    method.SetPosePrior(None)
    method.SetCArmTolerance(CArmTolerance())
    method.Execute(case.images, case.moving)
    assert len(method.GetResult().carm.corrections()) == 2
    method.SetPart(3)
    with pytest.raises(FluoroGuideError, match="no label image"):
        method.Execute(case.images, case.moving)


def test_stopping_from_a_command_and_then_going_on(case: Case) -> None:
    method, aborted = case.method(), []
    method.AddCommand(sitk.sitkIterationEvent, lambda: method.StopRegistration() if method.GetOptimizerIteration() == 3 else None)
    method.AddCommand(sitk.sitkAbortEvent, lambda: aborted.append(method.GetOptimizerIteration()))
    with pytest.raises(CancelledError):
        method.Execute(case.images, case.moving)
    assert aborted == [3]
    assert "stopped on request after 3" in method.GetOptimizerStopConditionDescription()
    with pytest.raises(FluoroGuideError, match="Nothing has been registered"):
        method.GetResult()
    method.RemoveAllCommands()
    assert isinstance(method.Execute(case.images, case.moving), sitk.Euler3DTransform)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.3])
def test_stopping_from_another_thread_takes_at_most_200_ms(case: Case, after_s: float) -> None:
    """Also while the pyramid of a new volume is made, which cannot be interrupted itself."""
    method, began = case.method(Options()), threading.Event()
    method.SetGlobalSearch(True)
    method.AddCommand(sitk.sitkStartEvent, began.set)
    told = []

    def stop() -> None:
        began.wait()
        time.sleep(after_s)
        told.append(time.perf_counter())
        method.StopRegistration()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(CancelledError):
        method.Execute(case.images, case.ct)
    took = time.perf_counter() - told[0]
    thread.join()
    assert took < 0.2


def test_an_error_in_a_command_reaches_the_caller(case: Case) -> None:
    method = case.method()
    method.AddCommand(sitk.sitkIterationEvent, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        method.Execute(case.images, case.moving)
    assert method.GetOptimizerStopConditionDescription().startswith("failed")


def test_bad_input_is_one_sentence(case: Case) -> None:
    method = case.method()
    with pytest.raises(FluoroGuideError, match="no X-ray"):
        method.Execute([], case.moving)
    with pytest.raises(FluoroGuideError, match="not a rigid motion"):
        method.SetInitialTransform(sitk.Euler2DTransform())
    with pytest.raises(FluoroGuideError, match="scales"):
        method.SetInitialTransform(sitk.ScaleTransform(3, [1.1, 1, 1]))
    with pytest.raises(FluoroGuideError, match="can be called"):
        method.AddCommand(sitk.sitkStartEvent, None)
    with pytest.raises(FluoroGuideError, match="1 or more"):
        method.SetNumberOfThreads(0)
    method.SetMovingModality("MR")
    with pytest.raises(FluoroGuideError, match="CT or CBCT"):
        method.Execute(case.images, case.ct)
