#!/usr/bin/env python3
"""Long proofs: ``make verify PART=needle`` runs every case of a part and writes ``Docs/verification/needle.json``.

A part is a module ``FluoroGuide/Testing/Verification/NAME.py`` with

* ``SEEDS``: the seeds of the full proof (design seeds are below 1000, verification seeds start there),
* ``SLICE``: a few of them for CI (about two minutes for all parts together),
* ``case(seed) -> dict``: one independent case, plain numbers, deterministic for its seed,
* ``summarize(results: list[dict]) -> dict``: the figures that may be quoted.

Finished cases are kept in ``build/verify/NAME-KEY.jsonl`` (KEY: a digest of the library's code), so that a run that was killed goes on
where it was; the summary names seeds, commit, machine and date.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime as dt
import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for folder in ("FluoroGuide", "FluoroGuide/Testing/Verification", "tools"):
    sys.path.insert(0, str(ROOT / folder))


def code_key(part: str) -> str:
    """Digest of everything a result depends on: the library and the part's own file."""
    digest = hashlib.sha256()
    files = sorted((ROOT / "FluoroGuide" / "FluoroGuideLib").rglob("*.py"))
    for file in [*files, ROOT / "FluoroGuide/Testing/Verification" / f"{part}.py"]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def one_case(part: str, seed: int) -> dict:
    """One case in a worker process."""
    began = time.process_time()
    result = importlib.import_module(part).case(seed)
    return {"seed": seed, "cpu_seconds": round(time.process_time() - began, 3), **result}


def finished(path: Path) -> dict[int, dict]:
    """Cases done before; a line cut short by a kill is left out."""
    done = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue
        done[result["seed"]] = result
    return done


def run(part: str, seeds: list[int], workers: int, path: Path) -> list[dict]:
    """All cases, those of an earlier run included; each is on disk before the next is counted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = finished(path)
    missing = [s for s in seeds if s not in done]
    began = time.monotonic()
    with path.open("a") as file, concurrent.futures.ProcessPoolExecutor(max(1, workers)) as pool:
        jobs = {pool.submit(one_case, part, seed): seed for seed in missing}
        for number, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            result = job.result()
            done[result["seed"]] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
            os.fsync(file.fileno())
            left = (time.monotonic() - began) / number * (len(missing) - number)
            print(f"\r{part}: {number} of {len(missing)}, {left / 60:.1f} min left   ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [done[s] for s in seeds]


def commit() -> str:
    """The commit the figures belong to, with ``+changes`` when the tree differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "FluoroGuide/FluoroGuideLib", "FluoroGuide/Testing/Verification")
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")


def machine() -> dict:
    """What the figures were measured on; no names."""
    processor = platform.processor() or platform.machine()
    return {"processor": processor, "system": platform.system(), "cores": os.cpu_count(), "python": platform.python_version()}


def stale() -> list[str]:
    """Parts whose proof in Docs was made by other code."""
    found = []
    for path in sorted((ROOT / "Docs" / "verification").glob("*.json")):
        proof = json.loads(path.read_text(encoding="utf-8"))
        part = proof["part"]
        if (ROOT / "FluoroGuide/Testing/Verification" / f"{part}.py").is_file() and proof.get("code") != code_key(part):
            found.append(f"{part}: proved at commit {proof['commit']}")
    return found


def main() -> int:
    """Run a part, or its slice without writing the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?")
    parser.add_argument("--slice", action="store_true", help="only the part's CI slice; nothing is written to Docs")
    parser.add_argument("--slice-all", action="store_true", help="the CI slices of all parts, within --budget seconds")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for --slice-all (120)")
    parser.add_argument("--stale", action="store_true", help="list the proofs that belong to other code than this")
    parser.add_argument("--fresh", action="store_true", help="repeat finished cases")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.slice_all:
        from verify_slices import run_all

        return run_all(arguments.budget, min(2, max(1, arguments.workers)))
    if arguments.stale:
        print("\n".join(stale()) or "every proof belongs to this code")
        return 0
    if not arguments.part:
        parser.error("name a part")
    module = importlib.import_module(arguments.part)
    seeds = list(module.SLICE if arguments.slice else module.SEEDS)
    key = code_key(arguments.part)
    path = ROOT / "build" / "verify" / f"{arguments.part}-{key}{'-slice' if arguments.slice else ''}.jsonl"
    if arguments.fresh:
        path.unlink(missing_ok=True)
    if not arguments.slice:
        os.environ[importlib.import_module("rtk_clock").WANTED] = "1"  # CPU seconds are told in units of a known projection, too
    results = run(arguments.part, seeds, arguments.workers, path)
    summary = {
        "part": arguments.part, "seeds": [min(seeds), max(seeds)], "cases": len(seeds), "commit": commit(), "code": key, "machine": machine(),
        "date": dt.date.today().isoformat(), "figures": module.summarize(results),
    }
    text = json.dumps(summary, indent=1)
    print(text)
    if not arguments.slice:
        (ROOT / "Docs" / "verification" / f"{arguments.part}.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
