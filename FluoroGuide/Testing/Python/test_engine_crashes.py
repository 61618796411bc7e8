"""The engine: crashes, hangs, restarts, and the end of worker and parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_case import HERE, LIBRARY, POSIX, folders, gone, make, until

from FluoroGuideLib.engine import client as client_module
from FluoroGuideLib.engine.exchange import storage_roots
from FluoroGuideLib.errors import FluoroGuideError


# ---- crash --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threaded", [False, True], ids=["polled", "threads"])
def test_crash_fails_one_job_and_the_next_one_works(engine_volume, threaded):
    before = folders()
    with make(threaded_pipes=threaded) as engine:
        engine.wait(engine.run("volume_facts", volume=engine_volume))
        broken, after = engine.run("crash", code=9), engine.run("volume_facts", volume=engine_volume)
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


def test_close_is_quick_final_and_leaves_nothing(engine_volume):
    before = folders()
    engine = make()
    engine.set_volume(engine_volume)
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
