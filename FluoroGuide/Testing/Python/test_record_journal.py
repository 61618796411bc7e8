"""The journal: nothing acknowledged is lost, nothing torn is taken for an event, one writer at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from record_cases import record_with

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.record import journal as journal_module
from FluoroGuideLib.record.journal import SUFFIX, Journal, locked, parse_journal, read_journal
from FluoroGuideLib.record.keeper import RecordKeeper, apply_changes, changes, journals, keep_safe, recover, saved_in
from FluoroGuideLib.record.record import ProcedureRecord, write_record
from FluoroGuideLib.record.report import write_report

LIBRARY = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX only")


def numbers(path: Path) -> list[int]:
    return [e["n"] for e in read_journal(path).events]


def run_child(program: str, *arguments: object, **options: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True, **options,
    )


def test_lines_are_written_out_by_hand(tmp_path: Path) -> None:
    import hashlib

    journal = Journal.create(tmp_path, "rec")
    assert journal.append("started", {"text": "ä\nb"}).durable
    raw = journal.path.read_bytes()
    digits, body = raw.rstrip(b"\n").split(b" ", 1)
    assert digits.decode() == hashlib.sha256(body).hexdigest()[:16]
    assert raw.count(b"\n") == 1
    event = json.loads(body)
    assert (event["record"], event["n"], event["event"], event["data"]) == ("rec", 0, "started", {"text": "ä\nb"})
    assert event["utc"].endswith("Z")
    assert event["mono"] > 0
    if os.name != "nt":
        assert journal.path.stat().st_mode & 0o777 == 0o600
    journal.close()


def test_cut_anywhere_keeps_exactly_the_whole_lines(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "rec")
    ends = []
    for k in range(4):
        journal.append("event", {"k": k})
        ends.append(journal.path.stat().st_size)
    journal.close()
    raw = journal.path.read_bytes()
    for cut in range(len(raw) + 1):
        content = parse_journal(raw[:cut])
        assert [e["n"] for e in content.events] == list(range(sum(end <= cut for end in ends))), cut
        assert content.torn == (cut not in (0, *ends))
    # Each cut file also goes on: what was whole stays, new events follow without a gap.
    for cut in range(ends[1], ends[2], 7):
        path = tmp_path / f"cut{cut}{SUFFIX}"
        path.write_bytes(raw[:cut])
        again = Journal.open(path)
        again.append("event", {"k": "new"})
        again.close()
        content = read_journal(path)
        assert ([e["n"] for e in content.events], content.torn, content.damaged) == ([0, 1, 2], False, 0)


def test_one_damaged_byte_costs_one_event_and_is_told(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "rec")
    for k in range(5):
        journal.append("event", {"k": k})
    journal.close()
    raw = bytearray(journal.path.read_bytes())
    raw[raw.index(b'"k":2') + 4] = ord("7")
    content = parse_journal(bytes(raw))
    assert [e["n"] for e in content.events] == [0, 1, 3, 4]
    assert (content.missing, content.damaged) == ((2,), 1)
    assert "1 events of the journal are damaged or missing (numbers 2)" in content.warnings[0]
    # A line of another journal, and the same line twice, add nothing.
    other = Journal.create(tmp_path / "other", "another")
    other.append("event", {"k": 9})
    line = journal.path.read_bytes().split(b"\n")[1] + b"\n"
    doubled = parse_journal(journal.path.read_bytes() + line + other.path.read_bytes())
    assert [e["n"] for e in doubled.events] == [0, 1, 2, 3, 4]
    other.close()


@posix
def test_full_disk_loses_nothing_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes fail half way, then fsync fails, then the disk is free again."""
    journal = Journal.create(tmp_path, "rec")
    assert journal.append("a", {}).durable
    real_write, real_sync, failing = os.write, os.fsync, {"write": True, "sync": False}

    calls = iter(range(1_000_000))

    def short_write(handle, data):
        if not failing["write"]:
            return real_write(handle, data)
        if next(calls) % 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(handle, bytes(data)[:10])

    def sync(handle):
        if failing["sync"]:
            raise OSError(errno.EIO, "Input/output error")
        return real_sync(handle)

    monkeypatch.setattr(journal_module.os, "write", short_write)
    monkeypatch.setattr(journal_module.os, "fsync", sync)
    answer = journal.append("b", {"x": 1})
    assert not answer.durable
    assert "disk is full" in answer.problem
    assert "1 events are kept in memory only" in answer.problem
    assert numbers(journal.path) == [0]
    failing.update(write=False, sync=True)
    answer = journal.append("c", {"x": 2})
    assert not answer.durable
    assert "Input/output error" in answer.problem
    assert journal.pending == 2
    failing.update(sync=False)
    assert journal.append("d", {}).durable
    assert (journal.pending, journal.problem) == (0, None)
    content = read_journal(journal.path)
    assert [(e["n"], e["event"]) for e in content.events] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    assert (content.damaged, content.torn) == (0, False)
    journal.close()


FILL = """
    import json, resource, signal, sys
    from FluoroGuideLib.record.journal import Journal
    if len(sys.argv) > 2:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    journal = Journal.create(sys.argv[1], "rec")
    answers = [journal.append("event", {"k": k, "text": "x" * 900}) for k in range(100)]
    print(json.dumps([[a.number for a in answers if a.durable], journal.problem, journal.pending]))
"""


@posix
def test_quota_of_the_operating_system(tmp_path: Path) -> None:
    """A real limit on the file's size (RLIMIT_FSIZE): the kernel cuts the write short and refuses the next."""
    child = run_child(FILL, tmp_path, 20_000)
    durable, problem, pending = json.loads(child.communicate(timeout=60)[0])
    (path,) = journals(tmp_path)
    assert 10 < len(durable) < 25
    assert pending == 100 - len(durable)
    assert "disk is full" in problem
    assert numbers(path) == durable == list(range(len(durable)))


@posix
def test_small_disk(tmp_path: Path) -> None:
    """A real full file system of 64 kB; events in memory follow as soon as there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 40_000)
        journal = Journal.create(disk, "rec")
        answers = [journal.append("event", {"k": k, "text": "x" * 900}) for k in range(30)]
        durable = [a.number for a in answers if a.durable]
        assert 0 < len(durable) < 30
        assert "disk is full" in journal.problem
        assert numbers(journal.path) == durable
        ballast.unlink()
        assert journal.retry()
        assert numbers(journal.path) == list(range(30))
        journal.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_only_one_slicer_writes(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "rec")
    journal.append("a", {})
    program = """
        import sys
        from FluoroGuideLib.errors import FluoroGuideError
        from FluoroGuideLib.record.journal import Journal
        try:
            Journal.open(sys.argv[1])
            print("opened")
        except FluoroGuideError as error:
            print(error)
    """
    assert "Another Slicer writes to this journal" in run_child(program, journal.path).communicate(timeout=60)[0]
    assert locked(journal.path)
    journal.close()
    assert not locked(journal.path)
    assert run_child(program, journal.path).communicate(timeout=60)[0].strip() == "opened"


@posix
def test_kill_while_a_record_is_written(tmp_path: Path) -> None:
    """A whole record, not bare events: killed in the middle, every acknowledged needle comes back."""
    program = """
        import sys
        sys.path.insert(0, sys.argv[2])
        from record_cases import record_with
        from FluoroGuideLib.record.keeper import RecordKeeper
        record = record_with(1)
        RecordKeeper.start(record, sys.argv[1])
        placement = record.placements[0]
        for k in range(10_000):
            record.add_placement(placement)
            print(k, flush=True)
    """
    child = run_child(program, tmp_path, Path(__file__).parent)
    told = [int(child.stdout.readline()) for _ in range(15)]
    child.kill()
    told += [int(line) for line in child.communicate(timeout=60)[0].split("\n")[:-1]]
    found = recover(journals(tmp_path)[0])
    assert len(told) <= len(found.record.placements) - 1 <= len(told) + 1
    assert not found.in_use
    shutil.rmtree(tmp_path)


# ---- records ------------------------------------------------------------------------------------------------------------
def test_changes_and_back() -> None:
    old = {"a": 1, "l": [1, 2], "same": {"x": 1}, "gone": 3, "flag": True, "n": None}
    new = {"a": 2, "l": [1, 2, 3], "same": {"x": 1}, "flag": 1, "n": [], "new": "y"}
    steps = changes(old, new)
    assert ["add", "l", [3]] in steps
    assert not any(s[1] == "same" for s in steps)
    state = dict(old)
    apply_changes(state, steps)
    assert state == new
    assert state["flag"] is not True
    with pytest.raises(FluoroGuideError, match="does not know"):
        apply_changes({}, [["swap", "a", 1]])


def test_record_comes_back_from_its_journal(tmp_path: Path) -> None:
    record = record_with(3)
    keeper = RecordKeeper.start(record, tmp_path)
    record.add_contrast("iohexol", 0.3, "epidural", True)
    record.approve(record.placements[2].placement_id, "R. Head")
    record.add_complication("dizziness", "minor")
    record.notes = "set directly"
    record.changed()
    record.no_complications()  # there is one: nothing changes
    lines = len(read_journal(keeper.journal.path).events)
    assert lines == 5  # start, contrast, approved, complication, notes
    found = recover(keeper.journal.path)
    assert found.record.to_dict() == record.to_dict()
    assert found.in_use
    keeper.journal.close()
    again, resumed = RecordKeeper.resume(keeper.journal.path)
    resumed.add_aftercare("rest")
    assert recover(again.journal.path).record.to_dict() == resumed.to_dict()
    assert again.store(resumed) is None  # nothing new: nothing written
    again.journal.close()


def test_a_journal_goes_only_when_saved_and_agreed(tmp_path: Path) -> None:
    record = record_with(1)
    keeper = RecordKeeper.start(record, tmp_path / "journals")
    saved, page = tmp_path / "record.json", tmp_path / "report.html"
    with pytest.raises(FluoroGuideError, match="journal stays"):
        keeper.discard(saved, agreed=True)  # no such file
    write_record(saved, record)
    with pytest.raises(FluoroGuideError, match="only when the user agrees"):
        keeper.discard(saved, agreed=False)
    record.add_pain("after", 3)
    with pytest.raises(FluoroGuideError, match="does not hold the record as it is now"):
        keeper.discard(saved, agreed=True)
    write_report(page, record)
    assert saved_in(page, record.to_dict())
    assert keeper.journal.path.exists()
    keeper.discard(page, agreed=True)
    assert not keeper.journal.path.exists()


def test_a_folder_that_cannot_be_made_is_told_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    record = record_with(1)
    assert "not journalled" in keep_safe(record, tmp_path / "file" / "journals")
    record.add_pain("after", 3)
    assert keep_safe(record, tmp_path / "journals") is None  # the next try begins with everything
    assert keep_safe(record) is None
    assert recover(record.keeper.journal.path).record.to_dict() == record.to_dict()
    record.keeper.journal.close()


@posix
def test_a_removed_journal_begins_again(tmp_path: Path) -> None:
    record = record_with(1)
    keeper = RecordKeeper.start(record, tmp_path)
    keeper.journal.path.unlink()  # somebody tidied up
    record.add_pain("after", 3)
    (path,) = journals(tmp_path)
    assert recover(path).record.to_dict() == record.to_dict()
    keeper.journal.close()


def test_what_is_no_journal(tmp_path: Path) -> None:
    empty, text = tmp_path / f"x{SUFFIX}", tmp_path / "x.txt"
    empty.touch()
    text.write_text("hello\n", encoding="utf-8")
    for path, words in ((empty, "holds no whole event"), (text, "not a FluoroGuide journal"), (tmp_path / "absent", "cannot be read")):
        with pytest.raises(FluoroGuideError, match=words):
            recover(path)
    closed = Journal.create(tmp_path, "rec")
    closed.close()
    with pytest.raises(FluoroGuideError, match="journal is closed"):
        closed.append("a", {})
    assert isinstance(ProcedureRecord("x").keeper, type(None))


@posix
def test_a_slice_of_the_kill_proof() -> None:
    """Some of the kills of ``make verify PART=journal_kills``."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Verification"))
    import journal_kills

    figures = journal_kills.summarize([journal_kills.case(seed) for seed in range(15)])
    assert (figures["lost"], figures["duplicates"], figures["wrong"], figures["continued"]) == (0, 0, 0, 15)
    assert figures["acknowledged"] > 20
