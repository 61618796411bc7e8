#!/usr/bin/env python3
"""Write ``Docs/scaling.md`` from ``Docs/verification/scaling.json``: ``make accuracy``; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from generated_page import write_or_check

ROOT = Path(__file__).resolve().parents[1]
PAGE, PROOF = ROOT / "Docs" / "scaling.md", ROOT / "Docs" / "verification" / "scaling.json"
HEAD = """# Evaluating on many machines

Written by `make accuracy` from `Docs/verification/scaling.json`; do not edit. `fluoroguide evaluate` runs on [Dask](https://distributed.dask.org):

```sh
fluoroguide evaluate --study study.json --output out                                # all cores of this machine
fluoroguide evaluate --study study.json --output out --workers 1                    # one process, no Dask
dask scheduler --protocol tls --tls-ca-file ca.pem --tls-cert s.pem --tls-key s.key # elsewhere: a scheduler, and on each machine
dask worker tls://host:8786 --nthreads 1 --nworkers auto --tls-ca-file ca.pem --tls-cert w.pem --tls-key w.key
fluoroguide evaluate --study study.json --output out --scheduler tls://host:8786 --tls-ca ca.pem --tls-cert c.pem --tls-key c.key
```

* **The same numbers everywhere.** A run depends on seed, subject's name, scene and start alone, and every process computes with one thread. The
  command prints a digest of the results; serial, resumed and distributed runs of one code on one kind of processor give the same. Other
  processors may differ in the last digits. Workers with other code are refused.
* **Nothing finished is lost.** Each run is on this machine's disk (`runs.jsonl`) as soon as it is done, reported through the scheduler before its
  task ends. A lost worker costs the run it was computing; its chunk goes to another, and runs known already are dropped. After a kill the
  same command goes on.
* **What leaves the machine.** Voxels, labels, targets and X-ray pixels; no DICOM headers. Without TLS a remote scheduler asks first, or refuses where
  nobody can answer (`--send-unencrypted` is the word for scripts). Workers run what the scheduler sends them: see [SECURITY.md](../SECURITY.md).
* **Volumes** are scattered once; with up to four subjects to every worker, with more to where they are needed. All subjects of one study
  must fit into the memory of this machine and of a worker. Thousands go into study files of some 20 subjects each, one after the other on the same
  scheduler, each with its own output folder; their `runs.parquet` are one table: `pyarrow.dataset.dataset("out", format="parquet")`.
"""


def page() -> str:
    """The whole page."""
    if not PROOF.is_file():
        return HEAD + "\n## Measured\n\nNot measured yet: `make verify PART=scaling VERIFY_ARGS=\"--workers 1\"` on an idle machine with two cores.\n"
    proof = json.loads(PROOF.read_text(encoding="utf-8"))
    f, machine = proof["figures"], proof["machine"]
    rows = [
        ("runs", f["runs"]), ("one worker, seconds", f["one_worker_seconds"]), ("two workers, seconds", f["two_workers_seconds"]),
        ("efficiency of two workers", f["efficiency_two_workers"]), ("two workers, one killed half-way, seconds", f["killed_seconds"]),
        ("killed over undisturbed", f["killed_over_undisturbed"]), ("start of the cluster, seconds", f["cluster_start_seconds"]),
        ("peak memory of a worker, MB", f["worker_memory_mb"]), ("seconds per run, one worker", f["seconds_per_run_one_worker"]),
        ("seconds per run, two workers", f["seconds_per_run_two_workers"]), ("the three gave the same numbers", f["same_numbers"]),
    ]
    table = "\n".join(f"| {name} | {value:.3g} |" if isinstance(value, float) else f"| {name} | {value} |" for name, value in rows)
    return f"""{HEAD}
## Measured

`make verify PART=scaling`, commit `{proof['commit']}`, {proof['date']}, {machine['cores']} cores ({machine['system']}, Python {machine['python']}): the sample
CT, {f['voxels'] / 1e6:.0f} million voxels, two views, 384 pixels. A killed worker also costs its preparation (libraries, volume, scene) once more.

| | |
|---|---|
{table}

{arithmetic(f)}"""


def arithmetic(f: dict) -> str:
    """What the figures mean for 100 workers and 10 000 cases."""
    workers, cases, starts, group = 100, 10_000, 20, 20
    per_case = f["one_worker_seconds"] / f["runs"] * starts
    volume_mb = f["voxels"] * 3 / 1e6
    hours = cases * per_case / workers / 3600
    send_s = group * volume_mb * 8 / 1000
    return f"""## 100 workers, 10 000 cases (arithmetic, not measured)

A case is one CT with {starts} starts on two sets of X-rays. Of the figures above, {f['one_worker_seconds'] / f['runs']:.2f} s of one worker per start, scenes included:

* computing: 10 000 x {starts} x {f['one_worker_seconds'] / f['runs']:.2f} s / 100 workers = **{hours:.1f} hours** if all workers were always busy;
* sending: a CT of {f['voxels'] / 1e6:.0f} million voxels is {volume_mb:.0f} MB (2 bytes per voxel, 1 for labels); {group} of them leave this machine in {send_s:.0f} s at
  1 Gbit/s. Over all cases that is {cases * volume_mb / 1e6:.2f} TB and {cases * volume_mb * 8 / 1000 / 3600:.1f} hours: the network of the machine that reads the volumes is
  then as large as the computing, and the first thing to make faster (10 Gbit/s, or two clients on one scheduler);
* memory: {f['worker_memory_mb'] / 1000:.1f} GB per worker, {workers * f['worker_memory_mb'] / 1000:.0f} GB in all, and {group * volume_mb / 1000:.1f} GB on this machine for {group} subjects;
* scheduler: {cases * starts // 5:,} tasks of 5 starts, at most {3 * workers} of them at the scheduler at a time; Dask's overhead of about a millisecond per task is
  {cases * starts // 5 / 1000 / 60:.1f} minutes in all;
* results: about 700 bytes per run, {cases * starts * 700 / 1e6:.0f} MB of `runs.jsonl`.
"""


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), sys.argv[1:]))
