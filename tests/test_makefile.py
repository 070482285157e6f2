"""The Makefile runs every test: what needs the whole stack by the folders in which it lies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stack.paths import REPOSITORY

FOLDERS = dict(re.findall(r'testpaths="?([^"]+?)"? -m (stack|distributed)', (REPOSITORY / "Makefile").read_text()))


@pytest.mark.parametrize(("folders", "mark"), FOLDERS.items())
def test_marked_tests_are_found(folders: str, mark: str) -> None:
    """A test that is marked lies in a folder that the Makefile names for its mark."""
    marked = [path for path in Path(__file__).parent.rglob("*.py") if f"pytest.mark.{mark}\n" in path.read_text()]
    places = [REPOSITORY / folder for folder in folders.split()]
    assert marked
    assert [path for path in marked if not any(path.is_relative_to(place) for place in places)] == []
