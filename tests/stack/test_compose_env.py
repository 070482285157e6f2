"""The file of the secrets that Compose reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.compose_env import SECRETS, complete, read
from stack.paths import REPOSITORY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file is to be."""
    return tmp_path / ".env"


def test_secrets_are_made(file: Path) -> None:
    """Each variable gets a secret of its own, in a file that only its owner reads."""
    assert complete(file) == list(SECRETS)
    made = read(file.read_text())
    assert list(made) == list(SECRETS)
    assert len(set(made.values())) == len(SECRETS)
    assert file.stat().st_mode & 0o777 == 0o600


def test_secrets_stay(file: Path) -> None:
    """What is there is kept: the data of the volumes hangs on it."""
    complete(file)
    before = file.read_text()
    assert complete(file) == []
    assert file.read_text() == before


def test_missing_is_added(file: Path) -> None:
    """A release that needs one secret more adds it; the user's own lines stay."""
    complete(file)
    lines = file.read_text().replace("SPARK_SECRET=", "# SPARK_SECRET=")
    file.write_text(f"# mine\nCELERY_WORKERS=3\n{lines}")
    assert complete(file) == ["SPARK_SECRET"]
    assert file.read_text().startswith("# mine\nCELERY_WORKERS=3\n")


def test_example_can_be_filled(file: Path) -> None:
    """A copy of the example is filled where it is empty; its mode is corrected."""
    file.write_text((REPOSITORY / "stack" / ".env.example").read_text())
    file.chmod(0o644)
    assert complete(file) == list(SECRETS)
    assert file.read_text().startswith("# What stack/compose.yaml needs.")
    assert all(read(file.read_text()).values())
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "value", ["short", "p@ssword/word", 'quoted"quoted', "with space", "'in quotes'", "dollar$dollar"]
)
def test_unfit_values_are_refused(value: str, file: Path) -> None:
    """A password that would break an address is refused, by the name of its variable only."""
    file.write_text(f"REDIS_PASSWORD={value}\n")
    with pytest.raises(ValueError, match="REDIS_PASSWORD") as caught:
        complete(file)
    assert str(caught.value) == (
        f"{file} gives REDIS_PASSWORD a value that does not fit into the addresses of the services; "
        "it needs 8 or more letters and digits. Remove the line to get a generated value"
    )
