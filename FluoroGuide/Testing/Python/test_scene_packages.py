"""Asking for optional packages: once, at the point of use, and fine when declined."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from FluoroGuideLib.scene import packages


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> list:
    """A Slicer without numba whose user is asked through ``slicer.packaging``; the list holds what was asked."""
    asked: list = []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "numba" else real(name, *a))
    monkeypatch.setattr(packages, "_asked", set())

    def declined(requirements: list[str], requester: str) -> None:
        asked.append((requirements, requester))
        raise RuntimeError("the user declined")

    monkeypatch.setitem(sys.modules, "slicer.packaging", types.SimpleNamespace(pip_ensure=declined))
    return asked


def test_asked_once_and_declining_is_fine(without_numba: list) -> None:
    assert packages.offer_numba() is False
    assert packages.offer_numba() is False
    assert without_numba == [([packages.NUMBA], "FluoroGuide")]


def test_not_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, without_numba: list) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object())
    assert packages.offer_numba() is True
    assert without_numba == []


def test_requirement_is_that_of_the_requirements_file() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "Resources" / "requirements.txt").read_text()
    assert packages.NUMBA in text.splitlines()
