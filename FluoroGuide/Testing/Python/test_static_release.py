"""What a release needs: resources inside the wheel, the Extensions Index's own rules, one address, quoted figures that were measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from test_static_build import PROJECT, load_tool

TEXTS = [p for p in (*PROJECT.glob("*.md"), *PROJECT.glob("*.cff"), PROJECT / "CMakeLists.txt", PROJECT / "FluoroGuide.json") if p.is_file()]


@pytest.fixture(scope="module")
def address() -> str:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Homepage"]


def test_every_file_names_the_same_repository(address: str) -> None:
    owner, name = address.removeprefix("https://github.com/").split("/")
    found = [(p.name, m) for p in TEXTS for m in re.findall(r"github(?:usercontent)?\.com/([\w.-]+/\w*FluoroGuide)\b", p.read_text(encoding="utf-8"))]
    assert {p for p, _ in found} >= {"CMakeLists.txt", "FluoroGuide.json", "CITATION.cff"}
    assert {m for _, m in found} == {f"{owner}/{name}"}


def test_rules_of_the_extensions_index(address: str) -> None:
    """``scripts/check_description_files.py`` of Slicer/ExtensionsIndex, as far as it needs no network."""
    entry = json.loads((PROJECT / "FluoroGuide.json").read_text(encoding="utf-8"))
    assert entry["scm_url"] == address + ".git"
    assert not "FluoroGuide".startswith("Slicer")
    assert address.rsplit("/", 1)[1].startswith("Slicer")  # the repository must
    text = (PROJECT / "CMakeLists.txt").read_text(encoding="utf-8")
    raw = address.replace("github.com", "raw.githubusercontent.com") + "/main/"
    icon = re.search(r'set\(EXTENSION_ICONURL "([^"]+)"\)', text).group(1)
    pictures = re.search(r'set\(EXTENSION_SCREENSHOTURLS "([^"]+)"\)', text).group(1).split()
    assert pictures
    for url in (icon, *pictures):
        assert url.startswith(raw)
        assert (PROJECT / url.removeprefix(raw)).read_bytes()[:4] == b"\x89PNG"
    assert (PROJECT / "LICENSE").is_file()
    tracked = subprocess.run(["git", "count-objects", "-v"], cwd=PROJECT, capture_output=True, text=True, check=False).stdout
    sizes = dict(line.split(": ") for line in tracked.splitlines() if ": " in line)
    if sizes:  # a checkout, not an unpacked archive
        assert (int(sizes["size"]) + int(sizes["size-pack"])) / 1024 < 100, "the index takes at most 100 MB including history"


def test_citation_and_licences_agree_with_the_package(address: str) -> None:
    import FluoroGuideLib

    citation = (PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {FluoroGuideLib.__version__}\n" in citation
    assert f"repository-code: {address}\n" in citation
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = (PROJECT / "THIRD_PARTY.md").read_text(encoding="utf-8").lower()
    extras = project["optional-dependencies"]
    used = [*project["dependencies"], *(r for name in ("fast", "headless", "simulate", "record", "live", "scale") for r in extras[name])]
    names = [re.match(r"[\w.-]+", r).group().lower() for r in used]
    assert [n for n in names if n not in listed] == []


def test_workflow_runs_what_ci_runs() -> None:
    workflow = (PROJECT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert "bash .ci/run" in workflow
    assert all(word in workflow for word in ("ubuntu-latest", "macos-latest", "windows-latest", "slicer/slicer-test", "UNTESTED"))
    for script in re.findall(r"(?:bash|python) ((?:tools|\.ci)/[\w./]+)", workflow):
        assert (PROJECT / script).is_file(), script


def test_resources_are_found_beside_and_inside_the_library(tmp_path: Path) -> None:
    """The layout of a wheel: a copy of the library with the resources inside it and nothing beside it."""
    code = "from FluoroGuideLib.resources import RESOURCES; print(RESOURCES)"
    library = tmp_path / "FluoroGuideLib"
    library.mkdir()
    for name in ("__init__.py", "resources.py"):
        (library / name).write_bytes((PROJECT / "FluoroGuide/FluoroGuideLib" / name).read_bytes())
    (library / "Resources" / "Procedures").mkdir(parents=True)

    def found() -> str:
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    assert found() == str(library / "Resources")
    (tmp_path / "Resources").mkdir()  # some other package's folder of this name in site-packages
    assert found() == str(library / "Resources")
    (tmp_path / "Resources" / "Procedures").mkdir()
    assert found() == str(tmp_path / "Resources")


# ---- quoted figures -----------------------------------------------------------------------------------------------------
def test_quoted_figures_are_checked(tmp_path: Path) -> None:
    tool = load_tool("quotes")
    (tmp_path / "p.json").write_text(json.dumps({"figures": {"a": {"b": 0.1537}, "n": 1200, "share": 0.949, "flag": True}}))

    def wrong(text: str, strict: bool = True) -> int:
        return len(tool.problems("x.md", text, tmp_path, strict))

    assert wrong("median 0.15 mm<!-- p: a / b --> in 1,200<!-- p: n --> cases, 94.9 %<!-- p: share percent -->") == 0
    assert wrong("median 0.16 mm<!-- p: a / b -->") == 1
    assert wrong("median 0.15 mm<!-- p: a / c -->") == 1
    assert wrong("median 0.15 mm<!-- q: a / b -->") == 1
    assert wrong("1 mm<!-- p: flag -->") == 1
    assert wrong("median 0.15 mm") == 1
    assert wrong("median 0.15 mm", strict=False) == 0
    assert wrong("a needle of 90 mm<!-- no result -->, 3.5 inches") == 0
    assert wrong("code `5 mm` and\n```\n7 mm\n```\n") == 0
    assert wrong("version 3.11, 2 views, FluoroGuide 12") == 0


def test_quoted_figures_are_renewed_as_exactly_as_they_were(tmp_path: Path) -> None:
    tool = load_tool("quotes")
    (tmp_path / "p.json").write_text(json.dumps({"figures": {"mm": 0.1537, "n": 12345, "m": 999, "share": 0.949}}))
    old = "9.99 mm<!-- p: mm --> and 7,000<!-- p: n --> of 1,000<!-- p: m -->, 3.1 %<!-- p: share percent -->, 5<!-- p: gone --> or 8 mm"
    new = "0.15 mm<!-- p: mm --> and 12,345<!-- p: n --> of 999<!-- p: m -->, 94.9 %<!-- p: share percent -->, 5<!-- p: gone --> or 8 mm"
    assert tool.renewed(old, tmp_path) == new


def test_readme_and_docs_quote_what_was_measured() -> None:
    assert load_tool("quotes").main([]) == 0


def test_slices_fail_for_broken_invariants() -> None:
    tool = load_tool("verify_slices")
    assert tool.broken({"lost": 0, "x": {"other_exceptions": 0, "as_promised": True, "median_mm": 99.0}}, "p") == []
    assert len(tool.broken({"lost": 2, "x": {"other_exceptions": 1, "as_promised": False}}, "p")) == 3
    assert tool.broken({"as_promised": False}, "live_stream") == []
    assert {"xa_fuzz", "journal_kills", "registration_moved"} <= set(tool.parts())
    assert "frames" not in tool.parts()  # a helper, not a proof


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_slice_that_is_late_ends_with_all_its_processes(tmp_path: Path) -> None:
    tool = load_tool("verify_slices")
    told = tmp_path / "child"
    child = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    seconds = 1.0
    while not told.exists() or not told.read_text():  # a busy machine may need longer to start two processes
        assert seconds < 60
        assert tool.run_for([sys.executable, "-c", code], seconds, dict(os.environ)) is None
        seconds *= 2
    until = time.monotonic() + 30
    while alive(int(told.read_text())):
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
