"""An Airflow with the shipped specs, one that greets, its twin and a broken one; it needs no service of the project."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from stack.paths import REPOSITORY
from tests.support.airflow import BROKEN, HELLO, TWIN, Airflow


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """One whose dag-processor has read every spec."""
    made = Airflow(tmp_path_factory.mktemp("airflow"))
    shutil.copytree(REPOSITORY / "configs", made.root / "configs")
    shutil.copytree(REPOSITORY / "pipelines", made.specs)
    (made.specs / "hello.yaml").write_text(HELLO)
    (made.specs / "hello.test.yaml").write_text("run: {}\n")
    (made.specs / "broken.yaml").write_text(BROKEN)
    (made.specs / "twin.yaml").write_text(TWIN)
    made.run("db", "migrate")
    made.run("dag-processor", "--num-runs", "1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.settings.items():
            patch.setenv(name, value)
        yield made
