"""A short slice of the monkey test; ``Testing/Verification/monkey.py`` is the long one (2,000 actions)."""

from __future__ import annotations

import pytest

pytest_plugins = ["module_fixture"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_user_who_does_anything_breaks_nothing(module, seed, tmp_path, monkeypatch):
    from monkey_user import Monkey

    monkeypatch.chdir(tmp_path)  # what it writes under odd names stays here
    monkey = Monkey(module, seed)
    try:
        for _ in range(60):
            monkey.step()
    finally:
        left = monkey.end()
    assert left == []
