"""Rules of the house that no linter checks: sizes, light imports, import contracts, no traces of one machine."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
LIBRARY = PROJECT / "FluoroGuide" / "FluoroGuideLib"
SOURCES = sorted(LIBRARY.rglob("*.py"))
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 420, 55
MOST_LINES_OF_A_COMPILED_FUNCTION = 80  # a numba kernel keeps its loops in one piece
HEAVY = ("scipy", "SimpleITK", "pydicom", "numba", "vtk", "slicer", "highdicom", "itk", "PIL", "matplotlib")


def code_lines(node: ast.AST) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant) and isinstance(first.value.value, str)
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


def test_files_and_functions_stay_small() -> None:
    assert len(SOURCES) > 20
    too_long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(LIBRARY).as_posix()
        if (lines := text.count("\n")) > MOST_LINES_OF_A_FILE:
            too_long.append(f"{name}: {lines} lines")
        functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
        for f in functions:
            compiled = any("jit" in ast.unparse(d) for d in f.decorator_list)
            if code_lines(f) > (MOST_LINES_OF_A_COMPILED_FUNCTION if compiled else MOST_LINES_OF_A_FUNCTION):
                too_long.append(f"{name}: {f.name} has {code_lines(f)} lines")
    assert not too_long, "\n".join(too_long)


def test_every_module_and_public_function_is_documented() -> None:
    bare = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(LIBRARY).as_posix()
        if not ast.get_docstring(tree):
            bare.append(f"{name}: module")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{name}: {node.name}")
    assert not bare, "\n".join(bare)


def test_importing_the_packages_is_light() -> None:
    """Slicer starts with the module file: nothing heavy may come in with a package's ``__init__``."""
    packages = [".".join(p.parent.relative_to(LIBRARY.parent).parts) for p in SOURCES if p.name == "__init__.py"]
    program = f"import sys\nfor name in {packages!r}: __import__(name)\nprint([h for h in {HEAVY!r} if h in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_import_contracts_hold() -> None:
    pytest.importorskip("importlinter", reason="import-linter is not installed (extra 'lint')")
    program = shutil.which("lint-imports", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    done = subprocess.run(
        [program, "--no-cache"], cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(LIBRARY.parent), "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_no_trace_of_the_developers_machine() -> None:
    """Paths of one machine and home folders do not belong into a repository."""
    # Put together here, so that this file does not find itself.
    pattern = re.compile("|".join(["/" + "work/", "/" + "tmp/fg", r"/" + r"home/\w+", "/" + "root/", r"C:\\" + "Users"]))
    suffixes = {".py", ".md", ".toml", ".json", ".txt", ".sh", ".ui", ".yml", ""}
    folders = [PROJECT / name for name in ("FluoroGuide", "tools", "Docs", ".ci")]
    files = [*PROJECT.glob("*.*"), PROJECT / "Makefile", *(p for folder in folders for p in folder.rglob("*"))]
    found = []
    for path in files:
        if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts and ".egg-info" not in str(path):
            match = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
            if match:
                found.append(f"{path.relative_to(PROJECT)}: {match.group()}")
    assert not found, "\n".join(found)
