"""The engine: volumes and labels that are handed to the worker."""

from __future__ import annotations

import time

import numpy as np
import pytest
from engine_case import folders, make, same, until

from FluoroGuideLib.engine import client as client_module
from FluoroGuideLib.errors import FluoroGuideError


# ---- volumes --------------------------------------------------------------------------------------------------------
def test_a_volume_is_sent_once_and_the_oldest_goes_when_there_are_too_many(engine_volume, monkeypatch):
    import dataclasses

    sent = []
    original = client_module.WorkerProcess.send
    monkeypatch.setattr(client_module.WorkerProcess, "send", lambda self, kind, **f: (sent.append((kind, f.get("id"))), original(self, kind, **f))[1])
    others = [dataclasses.replace(engine_volume, name=f"v{n}") for n in range(3)]
    with make(max_volumes=2) as engine:
        for item in (engine_volume, engine_volume, others[0], engine_volume, others[1], engine_volume, others[0]):
            assert engine.wait(engine.run("volume_facts", volume=item))[1] == item.name
        engine.forget_volume(engine_volume)
        assert engine.wait(engine.run("volume_facts", volume=engine_volume))[1] == engine_volume.name
    kinds = [k for k, _ in sent if k.endswith("volume")]
    # the volume, others[0], others[1] (others[0] leaves), others[0] again (others[1] leaves), the volume after it was forgotten
    assert kinds == ["set_volume", "set_volume", "drop_volume", "set_volume", "drop_volume", "set_volume", "drop_volume", "set_volume"]


def test_64_mb_volume(shared_engine):
    sitk = pytest.importorskip("SimpleITK")
    from FluoroGuideLib.anatomy.attenuation import AttenuationVolume

    big = AttenuationVolume(sitk.GetImageFromArray(np.zeros((256, 256, 256), np.float32)), "CT", "big")
    shared_engine.wait(shared_engine.run("echo", value=0))
    before = folders()  # the worker is there, and its folders
    start = time.perf_counter()
    shared_engine.set_volume(big)
    handed = time.perf_counter() - start
    facts = shared_engine.wait(shared_engine.run("volume_facts", volume=big), timeout=30)
    total = time.perf_counter() - start
    print(f"64 MB volume: handed over in {handed * 1e3:.0f} ms, usable in the worker after {total * 1e3:.0f} ms")
    assert facts[2] == [256, 256, 256]
    assert handed < 1.0
    assert total < 5.0
    array = np.random.default_rng(0).random((256, 256), np.float32)
    back = shared_engine.wait(shared_engine.run("echo", value=array))
    assert same(array, back)
    assert folders() == before
    assert not [p for f in before for p in f.glob("*.bin")]


def test_a_scene_volume_goes_over_in_pieces_and_is_converted_there(shared_engine, monkeypatch):
    from FluoroGuideLib.engine import shelf
    from FluoroGuideLib.engine.volumes import RawVolume

    monkeypatch.setattr(shelf, "PIECE_BYTES", 1 << 16)
    hu = np.zeros((40, 64, 128), np.int16)  # 640 kB: ten pieces
    hu[20:] = 500
    volume = RawVolume(hu, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    until(shared_engine, lambda: not shared_engine.busy)
    steps, step = [], shelf.Shelf._send_piece
    monkeypatch.setattr(shelf.Shelf, "_send_piece", lambda self, worker, number: (steps.append(1), step(self, worker, number))[1])
    job = shared_engine.run("mean", volume=volume)
    until(shared_engine, lambda: job.finished)
    assert len(steps) == 11
    # half water (0.02 per mm), half 1.5 times as dense
    assert job.result == [pytest.approx(0.025, rel=1e-6), False, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    assert shared_engine.wait(shared_engine.run("mean", volume=volume))[1] is True
    air = RawVolume(np.full((4, 4, 4), -1000, np.int16), (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), name="air")
    with pytest.raises(FluoroGuideError, match="same value"):
        shared_engine.wait(shared_engine.run("mean", volume=air))


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
