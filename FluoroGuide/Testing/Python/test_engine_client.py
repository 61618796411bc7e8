"""The engine: worker process, cancel, crash, restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.engine import client as client_module
from FluoroGuideLib.engine.client import EngineClient
from FluoroGuideLib.engine.exchange import PREFIX, storage_roots
from FluoroGuideLib.errors import CancelledError, FluoroGuideError

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parents[1]
sys.path.insert(0, str(HERE))
import test_engine_fake_tasks as fake  # noqa: E402

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
ENVIRONMENT = {"PYTHONPATH": str(HERE)}


def make(**options):
    return EngineClient(**{"tasks": "test_engine_fake_tasks", "environment": ENVIRONMENT} | options)


@pytest.fixture(scope="module")
def shared():
    """One engine for the tests that do no harm to it."""
    with make() as engine:
        yield engine


@pytest.fixture(scope="module")
def volume():
    sitk = pytest.importorskip("SimpleITK")
    from FluoroGuideLib.anatomy.attenuation import AttenuationVolume

    image = sitk.GetImageFromArray(np.random.default_rng(0).random((20, 30, 40), np.float32))
    image.SetSpacing((0.7, 0.8, 1.1))
    return AttenuationVolume(image, "CT", "pelvis.nrrd", None, {3: "L1"})


@pytest.fixture(scope="module")
def images():
    from FluoroGuideLib.imaging.xray import XrayImage

    view = fake.a_view()
    pixels = np.random.default_rng(1).random((view.rows, view.columns), np.float32)
    return [XrayImage(pixels, pixels > 0.1, view), XrayImage(1 - pixels, pixels > 0.2, view)]


def until(engine, condition, seconds=20.0):
    """Poll until a condition holds; what is waited for decides, not a fixed sleep."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        engine.poll()
        time.sleep(0.002)


def gone(pid, seconds=10.0):
    """True when the process has ended within the time (a zombie has ended)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def folders():
    return {p for root in storage_roots() for p in root.glob(PREFIX + "*")}


def same(a, b):
    """Equal to the last bit, types included."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


# ---- results ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threaded", [False, True], ids=["polled", "threads"])
def test_result_is_that_of_the_call_in_this_process(volume, images, threaded):
    initial = np.eye(4)
    initial[:3, 3] = 1 / 3, -2 / 7, 1e-13
    told = []
    direct = fake.register(
        volume=volume, images=images, initial=initial, targets=None, options=None, progress=lambda *a: None, cancelled=lambda: False,
    )
    with make(threaded_pipes=threaded) as engine:
        result = engine.register(volume, images, initial, options={"pause": 0.02}, progress=lambda f, t: told.append((f, t)), timeout=60)
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


def test_jobs_run_in_order_and_poll_tells_their_ends(shared):
    jobs = [shared.run("echo", value=n) for n in range(5)]
    ended = []
    end = time.monotonic() + 20
    while len(ended) < 5 and time.monotonic() < end:
        ended += shared.poll()
    assert ended == jobs
    assert [j.result for j in jobs] == list(range(5))
    assert shared.poll() == []
    assert not shared.busy


def test_poll_and_submit_never_block(shared):
    shared.wait(shared.run("echo", value=1))
    seconds, value = [], np.zeros(1 << 20, np.uint8)
    job = shared.run("nap", seconds=0.4)
    shared.run("echo", value=value)
    while not job.finished:
        start = time.perf_counter()
        shared.poll()
        seconds.append(time.perf_counter() - start)
        time.sleep(0.005)
    assert len(seconds) > 10
    assert sorted(seconds)[-3] < 0.02  # a busy machine may take the processor away from two of them
    until(shared, lambda: not shared.busy)


def test_print_in_the_worker_does_not_break_the_protocol(shared):
    assert shared.wait(shared.run("chatter"), timeout=20) == "said"
    assert "noise that must not reach the protocol" in shared.stderr_tail
    assert len(shared.stderr_tail) < 100_000
    assert shared.wait(shared.run("echo", value="next")) == "next"


def test_a_client_that_does_not_poll_does_not_hold_the_worker_up(shared, monkeypatch):
    """20000 progress messages of 300 bytes fill a pipe 90 times; of those that wait only the last is kept."""
    received, original = [], shared._handle_job
    monkeypatch.setattr(shared, "_handle_job", lambda message, job: (received.append(message.kind), original(message, job)))
    job = shared.run("many_steps")
    time.sleep(2.0)
    start = time.monotonic()
    until(shared, lambda: job.finished)
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
def test_bad_input_keeps_its_three_fields(shared):
    with pytest.raises(FluoroGuideError) as caught:
        shared.wait(shared.run("bad_input"))
    error = caught.value
    assert (error.what, error.value, error.next_step) == ("The X-ray has no pixel spacing", 0.5, "Enter it in the C-arm card")


def test_unexpected_error_is_one_sentence_and_a_log_without_names(shared):
    job = shared.run("surprise")
    until(shared, lambda: job.finished)
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
def test_what_does_not_work_is_said(shared, task, arguments, text):
    with pytest.raises(FluoroGuideError, match=text):
        shared.wait(shared.run(task, **arguments))
    assert shared.wait(shared.run("echo", value=1)) == 1


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
def test_only_tasks_that_say_so_give_way(shared):
    from FluoroGuideLib.engine import live_tasks

    shared.wait(shared.run("echo", value=1))
    assert os.getpriority(os.PRIO_PROCESS, shared.worker_pid) == os.getpriority(os.PRIO_PROCESS, 0)
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
def test_cancel_a_running_and_a_queued_job(shared):
    pid, took = shared.worker_pid, []
    for _ in range(3):
        running, queued = shared.run("nap", seconds=30), shared.run("echo", value=1)
        until(shared, lambda job=running: job.state == "running")
        time.sleep(0.1)
        shared.cancel(queued)
        assert queued.state == "cancelled"
        start = time.monotonic()
        shared.cancel(running)
        until(shared, lambda job=running: job.finished)
        took.append(time.monotonic() - start)
        assert running.state == "cancelled"
        assert isinstance(running.error, CancelledError)
    assert min(took) < 0.2
    assert max(took) < 1.0
    assert shared.wait(shared.run("echo", value=2)) == 2
    assert shared.worker_pid == pid  # not killed


def test_worker_that_ignores_a_cancel_is_replaced_and_keeps_the_volume(volume):
    with make(cancel_grace_seconds=0.3) as engine:
        before = engine.wait(engine.run("volume_facts", volume=volume))
        job = engine.run("stubborn")
        until(engine, lambda: job.text)
        start = time.monotonic()
        engine.cancel(job)
        until(engine, lambda: job.finished)
        assert job.state == "cancelled"
        assert time.monotonic() - start < 0.8
        until(engine, lambda: engine.ready)  # a new one comes up unasked
        after = engine.wait(engine.run("volume_facts", volume=volume))
        assert after[1:] == before[1:] == ["pelvis.nrrd", [40, 30, 20], {3: "L1"}]
        assert after[0] != before[0]
        assert engine.starts == 2


def test_register_is_cancelled_by_its_callback_by_timeout_and_by_an_exception(volume, images):
    with make() as engine:
        with pytest.raises(CancelledError):
            engine.register(volume, images, options={"pause": 0.2}, cancelled=lambda: True)
        with pytest.raises(FluoroGuideError, match=r"longer than allowed \(0\.3 s\)"):
            engine.register(volume, images, options={"pause": 0.2}, timeout=0.3)

        def interrupt(fraction, text):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.register(volume, images, options={"pause": 0.2}, progress=interrupt)
        assert engine.wait(engine.run("echo", value=3)) == 3
        assert engine.starts == 1


# ---- crash --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threaded", [False, True], ids=["polled", "threads"])
def test_crash_fails_one_job_and_the_next_one_works(volume, threaded):
    before = folders()
    with make(threaded_pipes=threaded) as engine:
        engine.wait(engine.run("volume_facts", volume=volume))
        broken, after = engine.run("crash", code=9), engine.run("volume_facts", volume=volume)
        until(engine, lambda: after.finished)
        assert broken.state == "failed"
        assert "stopped unexpectedly (exit code 9)" in str(broken.error)
        assert after.state == "done"
        assert after.result[1] == "pelvis.nrrd"
        assert len(folders() - before) == len(storage_roots())  # those of the first worker are gone
    assert folders() == before


@POSIX
def test_segmentation_fault_is_named_and_located():
    with make() as engine:
        job = engine.run("segfault")
        until(engine, lambda: job.finished)
    assert "signal SIGSEGV" in str(job.error)
    assert "Segmentation fault" in job.log
    assert "in segfault" in job.log
    assert str(HERE) not in job.log


@POSIX
def test_killed_worker():
    with make() as engine:
        job = engine.run("nap", seconds=30)
        until(engine, lambda: job.state == "running")
        os.kill(engine.worker_pid, signal.SIGKILL)
        until(engine, lambda: job.finished)
        assert job.state == "failed"
        assert "signal SIGKILL" in str(job.error)
        assert not engine.alive
        assert engine.wait(engine.run("echo", value=4)) == 4
        assert engine.alive
        os.kill(engine.worker_pid, signal.SIGKILL)  # while idle: noticed, and no job suffers
        until(engine, lambda: not engine.ready)
        assert engine.wait(engine.run("echo", value=5)) == 5


@POSIX
def test_worker_that_hangs_with_the_interpreter_held():
    with make(heartbeat_seconds=0.05, hang_seconds=0.5) as engine:
        engine.wait(engine.run("hold_interpreter", seconds=0.2))  # short: nothing happens
        job = engine.run("hold_interpreter", seconds=60)
        until(engine, lambda: job.state == "running")
        start = time.monotonic()
        until(engine, lambda: not engine.alive)
        until(engine, lambda: job.finished)
        assert job.state == "failed"
        assert "does not answer" in str(job.error)
        assert time.monotonic() - start < 2.0


@POSIX
def test_a_process_left_behind_by_the_worker_does_not_hide_its_end():
    with make() as engine:
        job = engine.run("grandchild", seconds=5)
        start = time.monotonic()
        until(engine, lambda: job.finished)
        assert job.state == "failed"
        assert "exit code 5" in str(job.error)
        assert time.monotonic() - start < 4.0


@pytest.mark.parametrize("launcher_prints", [b"Setting library path\n", b""])
def test_garbage_from_the_worker(tmp_path, launcher_prints):
    """A worker whose stream turns to garbage: with noise before its greeting it starts, with garbage after it the job fails."""
    if os.name != "posix":
        pytest.skip("needs a shell script as interpreter")
    script = tmp_path / "python-noisy"
    inner = (
        f"import os, sys; os.write(1, {launcher_prints!r}); sys.argv = ['w', '--tasks', 'test_engine_fake_tasks']\n"
        "from FluoroGuideLib.engine import worker, exchange\n"
        "def garbage(*, progress, cancelled):\n    os.write(target, b'garbage' * 1000); import time; time.sleep(60)\n"
        "import test_engine_fake_tasks as f; f.TASKS['garbage'] = garbage\n"
        "take = worker._take_over_stdio\n"
        "def remember():\n    global target; source, target = take(); return source, target\n"
        "worker._take_over_stdio = remember; os._exit(worker.main())\n"
    )
    (tmp_path / "inner.py").write_text(inner)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/inner.py"\n')
    script.chmod(0o755)
    with make(executable=str(script)) as engine:
        assert engine.wait(engine.run("echo", value=1), timeout=20) == 1
        assert launcher_prints.decode() in engine.stderr_tail
        job = engine.run("garbage")
        until(engine, lambda: job.finished)
        assert job.state == "failed"
        assert "no longer understand each other" in str(job.error)
        assert engine.wait(engine.run("echo", value=2)) == 2


def test_garbage_to_the_worker_ends_it_even_while_it_computes():
    with make() as engine:
        engine.wait(engine.run("echo", value=1))
        job = engine.run("stubborn")
        until(engine, lambda: job.text)
        engine._worker._pipes.send(b"garbage" * 1000)
        until(engine, lambda: job.finished, 5)
        assert job.state == "failed"
        assert "no longer understand each other" in str(job.error)
        assert engine.wait(engine.run("echo", value=2)) == 2


@POSIX
def test_launcher_between_client_and_worker(tmp_path):
    """Slicer's PythonSlicer starts the real Python as its child: both end, whichever way the engine stops."""
    launcher = tmp_path / "python-launcher"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@" <&0\nexit $?\n')
    launcher.chmod(0o755)
    with make(executable=str(launcher)) as engine:
        pid = engine.wait(engine.run("echo", value=1)) and engine._worker._pids[0]
        assert pid != engine.worker_pid
        job = engine.run("stubborn")
        until(engine, lambda: job.state == "running")
    assert gone(pid)
    assert job.state == "cancelled"
    with make(executable=str(launcher)) as engine:
        engine.wait(engine.run("echo", value=1))
        pid = engine._worker._pids[0]
        os.kill(engine.worker_pid, signal.SIGKILL)
        until(engine, lambda: not engine.ready)
        assert gone(pid)


# ---- life and death -------------------------------------------------------------------------------------------------
PARENT = """
import sys, time
sys.path[:0] = [{library!r}, {here!r}]
from FluoroGuideLib.engine.client import EngineClient
engine = EngineClient(tasks="test_engine_fake_tasks", environment={{"PYTHONPATH": {here!r}}})
engine.wait(engine.run("echo", value=1))
job = engine.run({task!r})
while not job.text:
    engine.poll()
print(engine.worker_pid, *engine._worker.exchange.folders, flush=True)
{end}
"""


def parent(task, end):
    text = PARENT.format(library=str(LIBRARY), here=str(HERE), task=task, end=end)
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pid, *used = process.stdout.readline().split()
    return process, int(pid), [Path(f) for f in used]


@POSIX
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM] if os.name == "posix" else [])
def test_death_of_the_parent_ends_the_worker_and_removes_the_files(end):
    process, pid, used = parent("stubborn", "time.sleep(60)")
    assert used
    assert all(f.is_dir() for f in used)
    process.send_signal(end)
    process.communicate()
    assert gone(pid)
    assert not any(f.exists() for f in used)


@POSIX
def test_forgotten_close_ends_the_worker_at_exit_without_a_word():
    process, pid, used = parent("stubborn", "")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""
    assert gone(pid)
    assert not any(f.exists() for f in used)


@POSIX
def test_writing_to_a_dead_worker_where_sigpipe_is_not_ignored():
    """Slicer embeds Python; there the default action of SIGPIPE would end the application."""
    end = "import os, signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.kill(engine.worker_pid, 9); time.sleep(0.3)\n" \
          "engine._worker.send('ping'); print(engine.wait(engine.run('echo', value='survived')))"
    process, _, _ = parent("stubborn", end)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.strip() == "survived"
    assert err == ""


def test_close_is_quick_final_and_leaves_nothing(volume):
    before = folders()
    engine = make()
    engine.set_volume(volume)
    until(engine, lambda: engine.ready)
    pid, job = engine.worker_pid, engine.run("nap", seconds=30)
    start = time.monotonic()
    engine.close()
    engine.close()
    assert time.monotonic() - start < 1.0
    assert job.state == "cancelled"
    assert folders() == before
    assert gone(pid)
    assert engine.poll() == [job]
    assert engine.poll() == []
    with pytest.raises(FluoroGuideError, match="closed"):
        engine.run("echo", value=1)


def test_warm_up_runs_again_after_a_restart_unseen(monkeypatch):
    sent = []
    original = client_module.WorkerProcess.send
    monkeypatch.setattr(client_module.WorkerProcess, "send", lambda self, kind, **f: (sent.append(f.get("task")), original(self, kind, **f))[1])
    ended = []
    with make() as engine:
        engine.wait(engine.warm_up())
        crash, after = engine.run("crash", code=1), engine.run("echo", value=1)
        while not after.finished:
            ended += engine.poll()
        ended += engine.poll()
    assert [t for t in sent if t] == ["warm_up", "crash", "warm_up", "echo"]
    assert ended == [crash, after]
    assert after.result == 1


# ---- volumes --------------------------------------------------------------------------------------------------------
def test_a_volume_is_sent_once_and_the_oldest_goes_when_there_are_too_many(volume, monkeypatch):
    import dataclasses

    sent = []
    original = client_module.WorkerProcess.send
    monkeypatch.setattr(client_module.WorkerProcess, "send", lambda self, kind, **f: (sent.append((kind, f.get("id"))), original(self, kind, **f))[1])
    others = [dataclasses.replace(volume, name=f"v{n}") for n in range(3)]
    with make(max_volumes=2) as engine:
        for item in (volume, volume, others[0], volume, others[1], volume, others[0]):
            assert engine.wait(engine.run("volume_facts", volume=item))[1] == item.name
        engine.forget_volume(volume)
        assert engine.wait(engine.run("volume_facts", volume=volume))[1] == volume.name
    kinds = [k for k, _ in sent if k.endswith("volume")]
    # volume, others[0], others[1] (others[0] leaves), others[0] again (others[1] leaves), volume after it was forgotten
    assert kinds == ["set_volume", "set_volume", "drop_volume", "set_volume", "drop_volume", "set_volume", "drop_volume", "set_volume"]


def test_64_mb_volume(shared):
    sitk = pytest.importorskip("SimpleITK")
    from FluoroGuideLib.anatomy.attenuation import AttenuationVolume

    before = folders()
    big = AttenuationVolume(sitk.GetImageFromArray(np.zeros((256, 256, 256), np.float32)), "CT", "big")
    shared.wait(shared.run("echo", value=0))
    start = time.perf_counter()
    shared.set_volume(big)
    handed = time.perf_counter() - start
    facts = shared.wait(shared.run("volume_facts", volume=big), timeout=30)
    total = time.perf_counter() - start
    print(f"64 MB volume: handed over in {handed * 1e3:.0f} ms, usable in the worker after {total * 1e3:.0f} ms")
    assert facts[2] == [256, 256, 256]
    assert handed < 1.0
    assert total < 5.0
    array = np.random.default_rng(0).random((256, 256), np.float32)
    back = shared.wait(shared.run("echo", value=array))
    assert same(array, back)
    assert folders() == before
    assert not [p for f in before for p in f.glob("*.bin")]


def test_a_scene_volume_goes_over_in_pieces_and_is_converted_there(shared, monkeypatch):
    from FluoroGuideLib.engine import shelf
    from FluoroGuideLib.engine.volumes import RawVolume

    monkeypatch.setattr(shelf, "PIECE_BYTES", 1 << 16)
    hu = np.zeros((40, 64, 128), np.int16)  # 640 kB: ten pieces
    hu[20:] = 500
    volume = RawVolume(hu, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    until(shared, lambda: not shared.busy)
    steps, step = [], shelf.Shelf._send_piece
    monkeypatch.setattr(shelf.Shelf, "_send_piece", lambda self, worker, number: (steps.append(1), step(self, worker, number))[1])
    job = shared.run("mean", volume=volume)
    until(shared, lambda: job.finished)
    assert len(steps) == 11
    # half water (0.02 per mm), half 1.5 times as dense
    assert job.result == [pytest.approx(0.025, rel=1e-6), False, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    assert shared.wait(shared.run("mean", volume=volume))[1] is True
    air = RawVolume(np.full((4, 4, 4), -1000, np.int16), (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), name="air")
    with pytest.raises(FluoroGuideError, match="same value"):
        shared.wait(shared.run("mean", volume=air))


def test_a_volume_that_is_forgotten_half_way_leaves_no_file(monkeypatch):
    from FluoroGuideLib.engine import shelf
    from FluoroGuideLib.engine.volumes import RawLabels

    monkeypatch.setattr(shelf, "PIECE_BYTES", 1 << 12)
    voxels, axes = np.tile(np.arange(4, dtype=np.uint8), (16, 64, 16)), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    labels = RawLabels(voxels, (1.0,) * 3, (7.0, 8.0, 9.0), axes, names={3: "L4"})
    with make() as engine:
        engine.wait(engine.run("echo", value=1))
        engine.set_volume(labels)
        engine.forget_volume(labels)
        assert not [p for f in engine._worker.exchange.folders for p in f.glob("*.bin")]
        assert engine.wait(engine.run("label_facts", labels=labels)) == ["BoneLabels", {3: "L4"}, [0, 1, 2, 3], [7.0, 8.0, 9.0]]


def test_a_cancelled_job_is_over_for_its_owner_at_once_and_its_late_result_is_dropped(volume):
    with make() as engine:
        engine.wait(engine.run("volume_facts", volume=volume))
        pid, job = engine.worker_pid, engine.run("hold_interpreter", seconds=0.8)  # it answers nothing for so long
        until(engine, lambda: job.progress == 0.5)  # it began: a job cancelled before never runs
        start = time.monotonic()
        engine.cancel(job)
        until(engine, lambda: job.finished)
        assert time.monotonic() - start < 0.25
        assert job.state == "cancelled"
        assert engine.busy
        assert engine.wait(engine.run("volume_facts", volume=volume))[0] == pid  # not killed: it came back in time
        assert (job.state, job.result) == ("cancelled", None)


def test_the_bone_is_prepared_once():
    """The task of the worker, called here: a part is made anew only for another bone, target or volume."""
    sitk = pytest.importorskip("SimpleITK")
    from FluoroGuideLib.anatomy.attenuation import AttenuationVolume
    from FluoroGuideLib.engine import tasks
    from FluoroGuideLib.engine.volumes import BoneLabels

    k, j, i = np.mgrid[:40, :40, :40] - 20
    bone = k**2 + j**2 + i**2 < 60
    image = sitk.GetImageFromArray(np.where(bone, 0.035, 0.02).astype(np.float32))
    labels = BoneLabels(sitk.GetImageFromArray(3 * bone.astype(np.uint8)), {3: "L4"})
    moving, at = tasks._moving(AttenuationVolume(image), None), {"a": np.array([20.0, 20, 20])}
    assert tasks._part(moving, None, labels, at) is None
    named, auto = tasks._part(moving, 3, labels, at), tasks._part(moving, "auto", None, at)
    assert (named.name, auto.name) == ("L4", "bone at the target")
    assert tasks._part(moving, [3], labels, at) is named
    assert tasks._part(moving, "auto", None, at) is auto
    assert tasks._part(moving, "auto", None, {"b": np.array([20.0, 20, 22])}) is not auto
    assert tasks._part(moving, "auto", None, {"far": np.array([200.0, 20, 20])}) == "auto"
    tasks.forget(labels)
    assert tasks._part(moving, 3, labels, at) is not named
    tasks.forget(moving.volume)
    assert not tasks._parts


def test_import_is_light():
    heavy = ("SimpleITK", "scipy", "numba", "pydicom", "vtk", "slicer", "qt", "multiprocessing")
    text = f"import FluoroGuideLib.engine.client, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": str(LIBRARY)}, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
