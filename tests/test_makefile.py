"""The Makefile runs every test: what needs the whole stack by the folders in which it lies."""

from __future__ import annotations

import re
import subprocess
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


@pytest.mark.parametrize("name", ["SQL", "CONF"])
def test_dollars_are_the_users_own(name: str) -> None:
    """What a person gives make reaches the command with its dollars."""
    shown = f"include Makefile\nshow:\n\t@printenv {name}\n"
    command = ["make", "-f", "-", "show", f"{name}=DO $$ BEGIN $x END $$"]
    done = subprocess.run(command, cwd=REPOSITORY, input=shown, capture_output=True, text=True, check=True)
    assert done.stdout == "DO $$ BEGIN $x END $$\n"
