#!/usr/bin/env python3
"""Build wheel and sdist, install the wheel into a fresh environment and run it there: ``make package``.

The installed program must not depend on this checkout: it runs in an empty folder, lists procedures and C-arms, and plans.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("Procedures/lumbar_facet.json", "CArms/generic_mobile.json", "procedure_record.schema.json", "procedure.schema.json", "dose_reference.json")
CHECK = """
import json, FluoroGuideLib
from FluoroGuideLib.planning.carms import carm
from FluoroGuideLib.planning.procedures import load_library
from FluoroGuideLib.record.schema import SCHEMA_PATH
library = load_library()
print(json.dumps({"where": FluoroGuideLib.__file__, "procedures": sorted(library.procedures), "problems": list(library.problems),
                  "carm": carm("generic_mobile").name, "schema": SCHEMA_PATH.is_file()}))
"""


def build(output: Path) -> tuple[Path, Path]:
    """(wheel, sdist) in ``output``, from the tracked files alone, so that leftovers of a checkout cannot help."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
        for name in tracked.stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes((ROOT / name).read_bytes())
        builder = make_environment(Path(folder) / "builder")
        run(builder, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "build>=1.2")
        run(builder, "-m", "build", "--outdir", str(output), str(source))
    return max(output.glob("*.whl"), key=lambda p: p.stat().st_mtime), max(output.glob("*.tar.gz"), key=lambda p: p.stat().st_mtime)


def make_environment(folder: Path) -> Path:
    """A fresh virtual environment; its Python."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def run(python: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Standard output of a command; its errors end this program."""
    done = subprocess.run([str(python), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)[:200]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def problems(wheel: Path, sdist: Path) -> list[str]:
    """What is missing from the archives, or does not belong into them."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = archive.namelist()
    with tarfile.open(sdist) as archive:
        in_sdist = [name.split("/", 1)[-1] for name in archive.getnames()]
    found = [f"the wheel lacks {name}" for name in NEEDED if f"FluoroGuideLib/Resources/{name}" not in in_wheel]
    found += [f"the sdist lacks {name}" for name in ("setup.py", "LICENSE", *(f"FluoroGuide/Resources/{n}" for n in NEEDED)) if name not in in_sdist]
    found += [f"the wheel holds {name}" for name in in_wheel if name.startswith(("Testing", "FluoroGuide/")) or name.endswith((".pyc", ".ui"))]
    return found


def try_wheel(wheel: Path) -> dict:
    """Install into a fresh environment and run there."""
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder) / "venv")
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
        program, empty = python.parent / ("fluoroguide.exe" if sys.platform == "win32" else "fluoroguide"), Path(folder) / "empty"
        empty.mkdir()
        done = subprocess.run([str(program), "--help"], cwd=empty, capture_output=True, text=True, check=False)
        if done.returncode or "evaluate" not in done.stdout:
            raise SystemExit(f"fluoroguide --help failed: {done.stderr[-2000:]}")
        facts = json.loads(run(python, "-I", "-c", CHECK, cwd=empty))
        plan = [str(program), "plan", "--procedure", "nonsense", "--volume", "none.nrrd", "--target", "0,0,0", "--output", "out"]
        told = subprocess.run(plan, cwd=empty, capture_output=True, text=True, check=False)
        if told.returncode != 2 or told.stderr.count("\n") != 1:
            raise SystemExit(f"bad input was not told in one line: {told.stderr[-2000:]}")
    if str(ROOT) in facts["where"]:
        raise SystemExit("the installed program is this checkout, not the wheel")
    shipped = sorted(p.stem for p in (ROOT / "FluoroGuide/Resources/Procedures").glob("*.json"))
    if facts["procedures"] != shipped or facts["problems"] or not facts["schema"]:
        raise SystemExit(f"the installed program does not find its resources: {facts}")
    return facts


def main() -> int:
    """Build, check, install, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    wheel, sdist = build(output)
    if found := problems(wheel, sdist):
        print("\n".join(found), file=sys.stderr)
        return 1
    facts = try_wheel(wheel)
    print(f"{wheel.name} ({wheel.stat().st_size // 1024} kB), {sdist.name}: installed and run, {len(facts['procedures'])} procedures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
