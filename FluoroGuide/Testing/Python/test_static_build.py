"""The build files say what is on the disk."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
SCHEMA_KEYS = {
    # Extension catalogue entry, schema 1.0.2: name -> type; no other keys are allowed.
    "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str, "build_dependencies": list,
    "build_subdirectory": str, "enabled": bool, "tier": int, "dicom_support_rule": str,
}


def load_tool(name: str):
    """A script of ``tools/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, PROJECT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cmake_lists_every_file() -> None:
    tool = load_tool("cmake_lists")
    text = (PROJECT / "FluoroGuide" / "CMakeLists.txt").read_text(encoding="utf-8")
    for name, on_disk in tool.files_on_disk().items():
        listed = tool.files_in_list(text, name)
        assert sorted(set(listed)) == listed, f"{name} is not sorted: run 'make cmake-lists'"
        missing, stale = sorted(set(on_disk) - set(listed)), sorted(set(listed) - set(on_disk))
        assert not missing, f"{name} lacks {missing}: run 'make cmake-lists'"
        assert not stale, f"{name} lists files that do not exist, {stale}: run 'make cmake-lists'"


def test_cmake_lists_are_rewritten(tmp_path: Path) -> None:
    tool = load_tool("cmake_lists")
    for file in ("M.py", "FluoroGuideLib/a/b.py", "FluoroGuideLib/__init__.py", "FluoroGuideLib/a/__pycache__/b.pyc",
                 "Resources/UI/m.ui", "Resources/.hidden", "Testing/t.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    before = "set(MODULE_PYTHON_SCRIPTS\n  Old.py\n  )\nset(MODULE_PYTHON_RESOURCES\n  )\nset(OTHER x)\n"
    after = tool.rewritten(before, tool.files_on_disk(tmp_path))
    assert tool.files_in_list(after, "MODULE_PYTHON_SCRIPTS") == ["FluoroGuideLib/__init__.py", "FluoroGuideLib/a/b.py", "M.py"]
    assert tool.files_in_list(after, "MODULE_PYTHON_RESOURCES") == ["Resources/UI/m.ui"]
    assert after.endswith("set(OTHER x)\n")


def test_extension_index_entry() -> None:
    entry = json.loads((PROJECT / "FluoroGuide.json").read_text(encoding="utf-8"))
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(SCHEMA_KEYS)
    assert all(isinstance(value, SCHEMA_KEYS[key]) for key, value in entry.items())
    assert entry["tier"] in range(1, 6)
    # The index wants the repository, not the extension, to begin with "Slicer".
    assert re.search(r"/SlicerFluoroGuide(\.git)?$", entry["scm_url"])


def test_extension_metadata() -> None:
    text = (PROJECT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "cmake_minimum_required(VERSION 3.28.0" in text
    assert re.search(r"project\((\w+)\)", text).group(1) == "FluoroGuide"  # the .json file's name
    for name in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert re.search(rf'set\(EXTENSION_{name} "[^"]+"\)', text), name
    assert text.index("find_package(Slicer") < text.index("add_subdirectory(FluoroGuide)") < text.index("EXTENSION_CPACK")


def test_version_and_licence_agree() -> None:
    import FluoroGuideLib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (PROJECT / "LICENSE").read_text(encoding="utf-8")
    assert re.fullmatch(r"\d+\.\d+\.\d+", FluoroGuideLib.__version__)
    assert "## [Unreleased]" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_slicer_installs_what_the_package_asks_for() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (PROJECT / "FluoroGuide" / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert wanted == project["optional-dependencies"]["fast"] + project["optional-dependencies"]["live"]


@pytest.mark.parametrize(
    ("result", "expected"),
    [({"pose_error_mm": 0.4, "tip_error_mm": 0.6}, []), ({"pose_error_mm": 1.0, "tip_error_mm": 0.6}, ["pose_error_mm"]),
     ({"pose_error_mm": float("nan"), "tip_error_mm": None}, ["pose_error_mm", "tip_error_mm"]), (None, ["result.json"])],
)
def test_the_demo_check_can_fail(tmp_path: Path, result, expected) -> None:
    if result is not None:
        (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    for name in ("case.mrb", "record.json", "summary.txt", "overlay_1.png", "views_1.png"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    found = load_tool("check_demo").problems(tmp_path)
    assert len(found) == len(expected)
    assert all(word in sentence for word, sentence in zip(expected, found, strict=True))
    (tmp_path / "case.mrb").write_text("", encoding="utf-8")
    if result is not None:
        assert len(load_tool("check_demo").problems(tmp_path)) == len(expected) + 1


def test_slicers_own_check_of_the_library_passes() -> None:
    """What Slicer's ctest runs, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "FluoroGuideImportTest"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "FluoroGuide")}, check=False)
    assert done.returncode == 0, done.stderr
