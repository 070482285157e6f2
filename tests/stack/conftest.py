"""What the tests of a running stack share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.tracking_server import Tracking


@pytest.fixture(scope="module")
def mlflow_login(mlflow_server: Tracking) -> Iterator[None]:
    """MLflow's login in the environment, where the app has it."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in mlflow_server.client_environment.items():
            environment.setenv(name, value)
        yield


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that does not exist yet; afterwards it does, so that no task waits for ever."""
    path = tmp_path / "gate"
    yield path
    path.touch()
