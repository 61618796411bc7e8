"""The engine: jobs and their answers, errors, cancelling."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import test_engine_fake_tasks as fake
from engine_case import HERE, LIBRARY, POSIX, make, same, until

from FluoroGuideLib.engine.client import EngineClient
from FluoroGuideLib.errors import CancelledError, FluoroGuideError


@pytest.fixture(scope="module")
def images():
    from FluoroGuideLib.imaging.xray import XrayImage

    view = fake.a_view()
    pixels = np.random.default_rng(1).random((view.rows, view.columns), np.float32)
    return [XrayImage(pixels, pixels > 0.1, view), XrayImage(1 - pixels, pixels > 0.2, view)]


# ---- results ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threaded", [False, True], ids=["polled", "threads"])
def test_result_is_that_of_the_call_in_this_process(engine_volume, images, threaded):
    initial = np.eye(4)
    initial[:3, 3] = 1 / 3, -2 / 7, 1e-13
    told = []
    direct = fake.register(
        volume=engine_volume, images=images, initial=initial, targets=None, options=None, progress=lambda *a: None, cancelled=lambda: False,
    )
    with make(threaded_pipes=threaded) as engine:
        result = engine.register(engine_volume, images, initial, options={"pause": 0.02}, progress=lambda f, t: told.append((f, t)), timeout=60)
    assert type(result) is type(direct)
    for name in ("pose", "verdict", "reasons", "similarity", "covariance", "center_mm", "history", "seconds", "projections_rendered", "facts"):
        assert same(getattr(direct, name), getattr(result, name)), name
    assert [v.to_dict() for v in result.views] == [v.to_dict() for v in direct.views]
    target = {"L1": np.array([10.0, -20.0, 30.0])}
    assert result.to_dict(target)["targets"] == direct.to_dict(target)["targets"]
    fractions = [f for f, _ in told]
    assert len(told) > 5
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert all(t == f"step {round(f * 20)}" for f, t in told[:-1])


def test_jobs_run_in_order_and_poll_tells_their_ends(shared_engine):
    jobs = [shared_engine.run("echo", value=n) for n in range(5)]
    ended = []
    end = time.monotonic() + 20
    while len(ended) < 5 and time.monotonic() < end:
        ended += shared_engine.poll()
    assert ended == jobs
    assert [j.result for j in jobs] == list(range(5))
    assert shared_engine.poll() == []
    assert not shared_engine.busy


def test_poll_and_submit_never_block(shared_engine):
    shared_engine.wait(shared_engine.run("echo", value=1))
    seconds, value = [], np.zeros(1 << 20, np.uint8)
    job = shared_engine.run("nap", seconds=0.4)
    shared_engine.run("echo", value=value)
    while not job.finished:
        start = time.perf_counter()
        shared_engine.poll()
        seconds.append(time.perf_counter() - start)
        time.sleep(0.005)
    assert len(seconds) > 10
    assert sorted(seconds)[-3] < 0.02  # a busy machine may take the processor away from two of them
    until(shared_engine, lambda: not shared_engine.busy)


def test_print_in_the_worker_does_not_break_the_protocol(shared_engine):
    assert shared_engine.wait(shared_engine.run("chatter"), timeout=20) == "said"
    assert "noise that must not reach the protocol" in shared_engine.stderr_tail
    assert len(shared_engine.stderr_tail) < 100_000
    assert shared_engine.wait(shared_engine.run("echo", value="next")) == "next"


def test_a_client_that_does_not_poll_does_not_hold_the_worker_up(shared_engine, monkeypatch):
    """20000 progress messages of 300 bytes fill a pipe 90 times; of those that wait only the last is kept."""
    received, original = [], shared_engine._handle_job
    monkeypatch.setattr(shared_engine, "_handle_job", lambda message, job: (received.append(message.kind), original(message, job)))
    job = shared_engine.run("many_steps")
    time.sleep(2.0)
    start = time.monotonic()
    until(shared_engine, lambda: job.finished)
    assert job.result == "counted"
    assert time.monotonic() - start < 5.0
    assert received[-1] == "done"
    assert 1 < len(received) < 2000


def test_real_registration_is_that_of_the_call_in_this_process():
    """Two Gaussian-like blobs as volume, its own projections as X-rays: it is the transport that is tested here."""
    sitk = pytest.importorskip("SimpleITK")
    from FluoroGuideLib.anatomy.attenuation import AttenuationVolume
    from FluoroGuideLib.geometry.carm import CArmView
    from FluoroGuideLib.imaging.xray import XrayImage
    from FluoroGuideLib.registration.register import LevelOptions, MovingVolume, Options, register

    k, j, i = np.mgrid[:32, :32, :32] - 15.5
    image = sitk.GetImageFromArray((0.02 * (i**2 + 2 * j**2 + k**2 < 150) + 0.02 * ((i - 4) ** 2 + (j + 2) ** 2 < 12)).astype(np.float32))
    image.SetSpacing([4.0] * 3)
    image.SetOrigin([-62.0] * 3)
    blobs = AttenuationVolume(image, "CT", "blobs")
    options = Options(levels=(LevelOptions(8.0, 3, 6, 2), LevelOptions(4.0, 3, 6, 1)), search=False, threads=1)
    projector, xrays = MovingVolume(blobs).projector(4.0), []
    for angle in (0.0, 80.0):
        view = CArmView.from_angles(angle, 0, sid_mm=1000, sod_mm=700, rows=64, columns=64, pixel_spacing_mm=(4.0, 4.0))
        pixels = projector.project(view, np.eye(4))
        xrays.append(XrayImage(pixels, np.ones(pixels.shape, bool), view, "simulated"))
    start = np.eye(4)
    start[:3, 3] = 3.0, -2.0, 2.5
    target = {"blob": np.array([1.0, 2.0, 3.0])}
    direct = register(blobs, xrays, start, targets=target, options=options)
    with EngineClient(threads=1) as engine:
        engine.warm_up(blobs, options)
        first = engine.register(blobs, xrays, start, targets=target, options=options, timeout=120)
        second = engine.register(blobs, xrays, start, targets=target, options=options, timeout=120)  # the kept resolutions
        if os.name == "posix":
            niceness = os.getpriority(os.PRIO_PROCESS, engine.worker_pid)
            assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5), "it gives way to the live view"
    for result in (first, second):
        assert np.linalg.norm(result.pose[:3, 3]) < 0.5 < np.linalg.norm(start[:3, 3])
        for name in ("pose", "verdict", "reasons", "similarity", "covariance", "center_mm", "projections_rendered"):
            assert same(getattr(direct, name), getattr(result, name)), name


# ---- errors -------------------------------------------------------------------------------------------------------
def test_bad_input_keeps_its_three_fields(shared_engine):
    with pytest.raises(FluoroGuideError) as caught:
        shared_engine.wait(shared_engine.run("bad_input"))
    error = caught.value
    assert (error.what, error.value, error.next_step) == ("The X-ray has no pixel spacing", 0.5, "Enter it in the C-arm card")


def test_unexpected_error_is_one_sentence_and_a_log_without_names(shared_engine):
    job = shared_engine.run("surprise")
    until(shared_engine, lambda: job.finished)
    assert job.state == "failed"
    assert "KeyError" in str(job.error)
    assert "Traceback" not in str(job.error)
    assert "test_engine_fake_tasks.py" in job.log
    assert "surprise" in job.log
    assert "MEIER" not in job.log + str(job.error)
    assert str(HERE) not in job.log
    assert "DOE" not in job.log


@pytest.mark.parametrize(("task", "arguments", "text"), [
    ("no_such_task", {}, "does not know this task"), ("unsendable", {}, "cannot be sent"), ("echo", {"value": object()}, "cannot be sent"),
    ("echo", {"nonsense": 1}, "TypeError"),
])
def test_what_does_not_work_is_said(shared_engine, task, arguments, text):
    with pytest.raises(FluoroGuideError, match=text):
        shared_engine.wait(shared_engine.run(task, **arguments))
    assert shared_engine.wait(shared_engine.run("echo", value=1)) == 1


def test_missing_module_and_wrong_version_fail_the_start(monkeypatch):
    with make(tasks="no_such_module_anywhere") as engine:
        jobs = [engine.run("echo", value=1), engine.run("echo", value=2)]
        until(engine, lambda: not engine.busy)
        assert [j.state for j in jobs] == ["failed"] * 2
        assert "could not start" in str(jobs[1].error)
        assert "no_such_module_anywhere" in jobs[0].log
    with make() as engine:
        monkeypatch.setattr("FluoroGuideLib.engine.process.__version__", "0.0.0")
        with pytest.raises(FluoroGuideError, match="another version"):
            engine.wait(engine.run("echo", value=1))


def test_no_second_slicer_is_started(tmp_path):
    from FluoroGuideLib.engine.process import interpreter

    application = tmp_path / "bin" / "SlicerApp-real"
    application.parent.mkdir()
    with pytest.raises(FluoroGuideError, match="No Python was found"):
        interpreter(str(application))
    (tmp_path / "bin" / "PythonSlicer").touch()
    assert interpreter(str(application)) == str(tmp_path / "bin" / "PythonSlicer")
    with make(executable=str(tmp_path / "python-that-is-not-there")) as engine, pytest.raises(FluoroGuideError, match="could not be started"):
        engine.wait(engine.run("echo", value=1))


@POSIX
def test_only_tasks_that_say_so_give_way(shared_engine):
    from FluoroGuideLib.engine import live_tasks

    shared_engine.wait(shared_engine.run("echo", value=1))
    assert os.getpriority(os.PRIO_PROCESS, shared_engine.worker_pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert not getattr(live_tasks, "GIVES_WAY", False)


def test_environment_of_the_worker(monkeypatch):
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere.py")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with make(threads=2) as engine:
        seen = engine.wait(engine.run("environment"))
    assert seen["OMP_NUM_THREADS"] == seen["NUMBA_NUM_THREADS"] == "2"
    assert seen["OPENBLAS_NUM_THREADS"] == "1"
    assert seen["PYTHONSTARTUP"] == ""
    assert seen["path0"] == str(LIBRARY)
    assert seen["stdin"] == ""


# ---- cancel -------------------------------------------------------------------------------------------------------
def test_cancel_a_running_and_a_queued_job(shared_engine):
    pid, took = shared_engine.worker_pid, []
    for _ in range(3):
        running, queued = shared_engine.run("nap", seconds=30), shared_engine.run("echo", value=1)
        until(shared_engine, lambda job=running: job.state == "running")
        time.sleep(0.1)
        shared_engine.cancel(queued)
        assert queued.state == "cancelled"
        start = time.monotonic()
        shared_engine.cancel(running)
        until(shared_engine, lambda job=running: job.finished)
        took.append(time.monotonic() - start)
        assert running.state == "cancelled"
        assert isinstance(running.error, CancelledError)
    assert min(took) < 0.2
    assert max(took) < 1.0
    assert shared_engine.wait(shared_engine.run("echo", value=2)) == 2
    assert shared_engine.worker_pid == pid  # not killed


def test_worker_that_ignores_a_cancel_is_replaced_and_keeps_the_volume(engine_volume):
    with make(cancel_grace_seconds=0.3) as engine:
        before = engine.wait(engine.run("volume_facts", volume=engine_volume))
        job = engine.run("stubborn")
        until(engine, lambda: job.text)
        start = time.monotonic()
        engine.cancel(job)
        until(engine, lambda: job.finished)
        assert job.state == "cancelled"
        assert time.monotonic() - start < 0.8
        until(engine, lambda: engine.ready)  # a new one comes up unasked
        after = engine.wait(engine.run("volume_facts", volume=engine_volume))
        assert after[1:] == before[1:] == ["pelvis.nrrd", [40, 30, 20], {3: "L1"}]
        assert after[0] != before[0]
        assert engine.starts == 2


def test_register_is_cancelled_by_its_callback_by_timeout_and_by_an_exception(engine_volume, images):
    with make() as engine:
        with pytest.raises(CancelledError):
            engine.register(engine_volume, images, options={"pause": 0.2}, cancelled=lambda: True)
        with pytest.raises(FluoroGuideError, match=r"longer than allowed \(0\.3 s\)"):
            engine.register(engine_volume, images, options={"pause": 0.2}, timeout=0.3)

        def interrupt(fraction, text):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.register(engine_volume, images, options={"pause": 0.2}, progress=interrupt)
        assert engine.wait(engine.run("echo", value=3)) == 3
        assert engine.starts == 1


def test_a_cancelled_job_is_over_for_its_owner_at_once_and_its_late_result_is_dropped(engine_volume):
    with make() as engine:
        engine.wait(engine.run("volume_facts", volume=engine_volume))
        pid, job = engine.worker_pid, engine.run("hold_interpreter", seconds=0.8)  # it answers nothing for so long
        until(engine, lambda: job.progress == 0.5)  # it began: a job cancelled before never runs
        start = time.monotonic()
        engine.cancel(job)
        until(engine, lambda: job.finished)
        assert time.monotonic() - start < 0.25
        assert job.state == "cancelled"
        assert engine.busy
        assert engine.wait(engine.run("volume_facts", volume=engine_volume))[0] == pid  # not killed: it came back in time
        assert (job.state, job.result) == ("cancelled", None)


def test_import_is_light():
    heavy = ("SimpleITK", "scipy", "numba", "pydicom", "vtk", "slicer", "qt", "multiprocessing")
    text = f"import FluoroGuideLib.engine.client, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": str(LIBRARY)}, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
