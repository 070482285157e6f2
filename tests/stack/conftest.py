"""What the tests of a running stack share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that does not exist yet; afterwards it does, so that no task waits for ever."""
    path = tmp_path / "gate"
    yield path
    path.touch()
