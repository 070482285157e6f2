"""What is generated from the code is what the code says now."""

from functools import cache
from pathlib import Path

import pytest

from factory.command.reference import FILES, texts

ROOT = Path(__file__).parents[2]
current = cache(texts)


@pytest.mark.parametrize("name", FILES)
def test_generated_file_is_current(name: str) -> None:
    """`python -m factory.command.reference` has been run since the code changed."""
    assert (ROOT / name).read_text() == current()[name]
