"""``fluoroguide evaluate``."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shlex
import sys
import time
from pathlib import Path

from ..errors import FluoroGuideError
from ..planning.jsonfile import plain, write_json
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    data = parser.add_argument_group("data")
    data.add_argument("--volume", action="append", metavar="V", help="CT, CBCT or MR: file, DICOM folder, or 'thorax' (sample CT); once per subject")
    data.add_argument("--modality", action="append", choices=["ct", "cbct", "mr"], help="what it is, where not recognised rightly; once per volume")
    data.add_argument("--targets", action="append", type=Path, metavar="JSON", help="targets.json or plan.json; once per volume")
    data.add_argument("--labels", action="append", type=Path, metavar="NRRD", help="label image of bones; once per volume")
    data.add_argument("--simulate-from", action="append", metavar="CT", help="CT in the same space, to simulate X-rays of an MR; once per volume")
    data.add_argument("--case", action="append", metavar="DIR", help="X-rays with truth.json, of the one volume; default: X-rays are simulated")
    data.add_argument("--study", type=Path, metavar="JSON", help="study file instead of --volume: many subjects, each with its cases")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--starts", type=int, default=200, metavar="N", help="runs per volume (200)")
    what.add_argument("--starts-per-scene", type=int, default=10, metavar="N", help="runs that share one set of X-rays (10)")
    what.add_argument("--views", choices=["two", "one", "both"], default="two")
    what.add_argument("--moved", metavar="MM,MM", help="surroundings moved against the target's bone by these distances; needs labels")
    what.add_argument("--part", choices=["whole", "auto", "label"], help="what is registered; default whole, with --moved auto")
    what.add_argument("--no-search", action="store_true", help="only refine each start")
    what.add_argument("--largest-start", type=float, default=40.0, metavar="MM", help="initial mTRE of the outermost shell (40)")
    what.add_argument("--largest-rotation", type=float, default=20.0, metavar="DEG", help="rotation of the starts, at most (20)")
    what.add_argument("--shell", type=float, default=4.0, metavar="MM", help="width of the shells (4)")
    what.add_argument("--success", type=float, default=2.0, metavar="MM", help="limit of success (2)")
    what.add_argument("--noise", choices=["fluoroscopy", "clean"], default="fluoroscopy")
    what.add_argument("--projector", choices=["rtk", "march"], help="what simulates X-rays; default rtk where itk-rtk is installed, which is faster")
    what.add_argument("--size", type=int, default=384, metavar="PX", help="rows and columns of simulated X-rays (384)")
    what.add_argument("--seed", type=int, default=1000)
    where = parser.add_argument_group("where it runs")
    where.add_argument("--workers", type=int, metavar="N", help="processes on this machine; default one per core as memory allows; 1 needs no Dask")
    where.add_argument("--scheduler", metavar="URL", help="Dask scheduler, tls://host:port or tcp://host:port")
    for name, text in (("ca", "authority"), ("cert", "certificate"), ("key", "key")):
        where.add_argument(f"--tls-{name}", metavar="FILE", help=f"TLS: {text} (PEM)")
    where.add_argument("--send-unencrypted", action="store_true", help="send the volumes to a remote tcp:// scheduler without asking")
    where.add_argument("--chunk", type=int, default=5, metavar="N", help="starts per task (5)")
    out = parser.add_argument_group("results")
    out.add_argument("--gallery", type=int, default=12, metavar="N", help="pictures of failures (12)")
    out.add_argument("--fresh", action="store_true", help="throw away the runs in the folder; without it they are continued")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compute what is missing, then write table, figures, pictures and report."""
    from ..evaluation.runlog import RunLog
    from ..evaluation.study import chunks, code_digest, study_key

    settings = settings_of(arguments)
    _check(arguments)
    subjects = read_subjects(arguments)
    output = common.output_folder(arguments.output)
    names = [s.name for s in subjects]
    study = {
        "key": study_key(settings, subjects), "code": code_digest(), "settings": settings.to_dict(), "command": command_line(),
        "subjects": {s.name: s.digest for s in subjects}, "kinds": {s.name: kind_of(s) for s in subjects},
        "versions": versions(), "machine": machine(), "begun": now(), "date": now(),
        "simulated": not any(s.cases for s in subjects),
    }
    log = RunLog(output, study, arguments.fresh)
    try:
        todo = list(chunks(settings, len(subjects), arguments.chunk, set(log.rows), names))
        study["expected"] = settings.starts * len(subjects) * (2 if settings.views == "both" else 1)
        runner = start_runner(arguments, subjects, settings) if todo or arguments.gallery else None
        try:
            if todo:
                runner.run(todo, Progress(log, study["expected"]))
            return finish(arguments, log, settings, subjects, study, runner)
        finally:
            if runner is not None:
                runner.close()
    finally:
        log.close()


def kind_of(subject: object) -> str:
    """What a subject's volume is, for people."""
    contrast = subject.facts.get("mr_contrast")
    return subject.facts.get("modality", "CT") + (f" ({contrast})" if contrast else "")


def settings_of(arguments: argparse.Namespace) -> object:
    """Settings from the options."""
    from ..evaluation.study import Settings
    from ..evaluation.voxel_paths import rtk_available

    moved = ()
    if arguments.moved:
        moved = tuple(common.numbers(arguments.moved, arguments.moved.count(",") + 1, "--moved").tolist())
    return Settings(
        starts=arguments.starts, starts_per_scene=arguments.starts_per_scene, views=arguments.views, moved_mm=moved,
        part=arguments.part or ("auto" if moved else "whole"), largest_start_mm=arguments.largest_start, shell_mm=arguments.shell,
        largest_rotation_deg=arguments.largest_rotation,
        success_mm=arguments.success, pixels=arguments.size, noise=arguments.noise,
        projector=arguments.projector or ("rtk" if rtk_available() else "march"), search=not arguments.no_search, seed=arguments.seed,
    )


def _check(arguments: argparse.Namespace) -> None:
    """Options that do not go together are told before anything is read."""
    if bool(arguments.volume) == bool(arguments.study):
        raise FluoroGuideError("Either --volume or --study says what to evaluate", None, "Give one of them")
    for name in ("targets", "labels", "modality", "simulate_from"):
        given, option = getattr(arguments, name) or [], "--" + name.replace("_", "-")
        if arguments.study and given:
            raise FluoroGuideError(f"{option} does not go with --study", None, f"Write '{name}' into the study file")
        if given and len(given) != len(arguments.volume):
            raise FluoroGuideError(f"The number of {option} differs from that of --volume", f"{len(given)} and {len(arguments.volume)}")
    if arguments.case and (arguments.study or len(arguments.volume) != 1):
        raise FluoroGuideError("--case goes with exactly one --volume", None, "Write a study file for several")
    if arguments.moved and arguments.case:
        raise FluoroGuideError("--moved simulates, --case does not", None, "Give one of them")
    if arguments.chunk < 1 or (arguments.workers is not None and arguments.workers < 1) or arguments.gallery < 0:
        raise FluoroGuideError("--chunk and --workers are at least 1, --gallery at least 0", None)


def read_subjects(arguments: argparse.Namespace) -> list:
    """The subjects of the options or of the study file."""
    from ..evaluation.subjects import check_names, load_subject, read_study_file

    if arguments.study:
        return read_study_file(arguments.study)
    nothing = [None] * len(arguments.volume)
    given = {name: getattr(arguments, name) or nothing for name in ("targets", "labels", "simulate_from")}
    modalities = [m and m.upper() for m in arguments.modality or nothing]
    return check_names([
        load_subject(volume, modality=modality, cases=tuple(arguments.case or ()), **{name: values[n] for name, values in given.items()})
        for n, (volume, modality) in enumerate(zip(arguments.volume, modalities, strict=True))
    ])


def start_runner(arguments: argparse.Namespace, subjects: list, settings: object) -> object:
    """One child process, a local cluster, or a scheduler elsewhere after the user's word."""
    from ..evaluation import cluster
    from ..evaluation.runners import NEEDS_DASK, ChildRunner, default_workers

    files = [arguments.tls_ca, arguments.tls_cert, arguments.tls_key]
    if any(files) and not all(files):
        raise FluoroGuideError("--tls-ca, --tls-cert and --tls-key go together", None, "Give all three")
    if arguments.scheduler:
        if cluster.needs_word(arguments.scheduler) and not arguments.send_unencrypted:
            ask(arguments.scheduler, cluster.what_is_sent(subjects))
        certificates = cluster.Certificates(*files) if all(files) else None
        return cluster.DaskRunner(subjects, settings, scheduler=arguments.scheduler, certificates=certificates)
    workers = arguments.workers or default_workers()
    if workers > 1 and not cluster.available():
        print(f"fluoroguide: {NEEDS_DASK}.", file=sys.stderr)
        workers = 1
    return ChildRunner(subjects, settings) if workers == 1 else cluster.DaskRunner(subjects, settings, workers)


def ask(scheduler: str, what: str) -> None:
    """Ask before data leave the machine unencrypted; where nobody can answer, refuse."""
    text = f"Unencrypted to {scheduler}: {what}."
    hint = "Use a tls:// scheduler, or give --send-unencrypted"
    if not sys.stdin.isatty():
        raise FluoroGuideError("A remote scheduler without TLS needs your word", text, hint)
    print(text, file=sys.stderr)
    print("Anyone on the network can read it. Type 'yes' to send: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise FluoroGuideError("Nothing was sent", None, hint)


class Progress:
    """Puts each run on disk, then shows how far it is and how long it will take."""

    def __init__(self, log: object, expected: int) -> None:
        self.log, self.expected, self.began, self.bar = log, expected, time.monotonic(), common.Bar()

    def __call__(self, row: dict) -> None:
        if not self.log.add(row):
            return
        done = len(self.log.rows)
        new = done - self.log.resumed
        left = (time.monotonic() - self.began) / new * (self.expected - done)
        self.bar(done / self.expected, f"{done} of {self.expected} runs, {duration(left)} left")


def duration(seconds: float) -> str:
    """``"45 s"``, ``"12 min"``, ``"3.4 h"``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def finish(arguments: argparse.Namespace, log: object, settings: object, subjects: list, study: dict, runner: object) -> int:
    """``runs.csv``, ``runs.parquet``, ``figures.json``, pictures and ``report.html``."""
    from ..evaluation.figures import worst
    from ..evaluation.runlog import NEEDS_PYARROW, results_digest, write_csv, write_parquet
    from ..evaluation.study_report import study_figures, study_html

    table, output = log.table(), log.folder
    write_csv(output / "runs.csv", table)
    if not write_parquet(output / "runs.parquet", table, study):
        print(f"fluoroguide: {NEEDS_PYARROW}.", file=sys.stderr)
    number = {s.name: n for n, s in enumerate(subjects)}
    chosen = worst(table, arguments.gallery)
    drawn = runner.pictures([(number[r["subject"]], r) for r in chosen]) if chosen else []
    pictures = [(row, png) for row, png in zip(chosen, drawn, strict=True) if png]
    folder = common.output_folder(output / "gallery")
    for old in folder.glob("*.png"):
        old.unlink()
    for rank, (row, png) in enumerate(pictures, 1):
        word = "success" if row["success"] else "failure"
        (folder / f"{rank:02d}_{word}_{number[row['subject']]:03d}_{row['start']:06d}_{row['views']}v.png").write_bytes(png)
    figures = {
        "groups": study_figures(table, settings), "results_digest": results_digest(table), "runs": len(table), "expected": study["expected"],
        **{k: study[k] for k in ("command", "code", "versions", "machine", "date", "simulated", "subjects", "settings")},
    }
    write_json(output / "figures.json", plain(figures))
    (output / "report.html").write_text(study_html(table, settings, study, pictures), encoding="utf-8")
    common.show(arguments, figures, describe(figures, output))
    return 0


def describe(figures: dict, output: Path) -> str:
    """The result in words."""
    lines = [
        f"{name}: {f['runs']} runs, success {f['success_percent']} %, capture range {f['capture_range_mm']:g} mm, median {f['median_mm']} mm, "
        f"95 % below {f['p95_mm']} mm, predicted error holds in {f['predicted_95_holds_percent']} %, failures not passed {f['failures_not_passed']}"
        + (f", {f['errors']} errors" if f["errors"] else "") for name, f in figures["groups"].items()
    ]
    return "\n".join([*lines, f"Digest of the results {figures['results_digest']}. Report and tables in {output}"])


def command_line() -> str:
    """The command as typed; folders of this machine are left out, since reports travel."""
    words = [w if not w.startswith(("/", "~")) and ":\\" not in w else Path(w.replace("\\", "/")).name for w in sys.argv[1:]]
    return shlex.join(["fluoroguide", *words])


def versions() -> dict:
    """Versions of what decides the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    from .. import __version__

    found = {"fluoroguide": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "SimpleITK", "numba", "itk-rtk", "distributed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """What it ran on; no names."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def now() -> str:
    """UTC, to the second."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
