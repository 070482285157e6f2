"""`make compose-up` and `make compose-down`: what is told to the user's own Docker, and to a user who has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.compose import FILE, INSTEAD, WHERE, main
from stack.compose_env import SECRETS, complete

DOCKER = """\
#!/bin/sh
# A Docker that notes what it is told, and fails where the test wants it to.
echo "$*" >> "{folder}/told"
case "$*" in {failing}) echo "Cannot connect" >&2; exit 17;; esac
"""


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Where the secrets are to be."""
    return tmp_path / ".env"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a `docker` is found, once there is one."""
    monkeypatch.setenv("PATH", f"{tmp_path}")
    return tmp_path / "docker"


def install(program: Path, *, failing: str = "nothing") -> None:
    """Put a Docker there that fails at the commands that match."""
    program.write_text(DOCKER.format(folder=program.parent, failing=failing))
    program.chmod(0o755)


def told(program: Path) -> list[str]:
    """Return what Docker was told, without the questions whether it is there."""
    return (program.parent / "told").read_text().splitlines()[2:]


def test_up_builds_then_waits(program: Path, secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The secrets are made, the image is built, everything is started and awaited; then it says where to look."""
    install(program)
    assert main(["up"], secrets) == 0
    start = f"compose --env-file {secrets} --file {FILE} --profile churn --profile pgadmin"
    assert told(program) == [f"{start} build", f"{start} up --detach --wait"]
    assert capsys.readouterr().out == (
        f"Made up {', '.join(SECRETS)} in {secrets}, which only you can read.\n"
        f"The containers are up; the passwords are in {secrets}.\n{WHERE}\n"
    )


def test_up_takes_profiles(program: Path, secrets: Path) -> None:
    """Who needs neither Spark nor MLflow starts less."""
    install(program)
    assert main(["up", "pgadmin"], secrets) == 0
    assert told(program)[0] == f"compose --env-file {secrets} --file {FILE} --profile pgadmin build"


def test_failed_build_stops(program: Path, secrets: Path) -> None:
    """Where the image cannot be built, nothing is started, and the exit code is Docker's."""
    install(program, failing="*build")
    assert main(["up"], secrets) == 17
    assert [one.rsplit(" ", 1)[1] for one in told(program)] == ["build"]


def test_down_takes_all_profiles(program: Path, secrets: Path) -> None:
    """Whatever was started is stopped; the volumes stay."""
    install(program)
    complete(secrets)
    assert main(["down"], secrets) == 0
    assert told(program) == [f"compose --env-file {secrets} --file {FILE} --profile churn --profile pgadmin down"]


def test_down_before_up(program: Path, secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was ever started, there is nothing to do."""
    assert main(["down"], secrets) == 0
    assert capsys.readouterr().out == f"There is no {secrets}, so nothing was started: `make compose-up` does.\n"


def test_no_docker(program: Path, secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the program, the message says what is needed, and what does without."""
    assert main(["up"], secrets) == 1
    problem = "there is no `docker compose`; install Docker with Compose 2.24 or later"
    assert capsys.readouterr().err == f"error   {problem}, {INSTEAD}\n"


@pytest.mark.parametrize(
    ("failing", "problem", "asked"),
    [
        ("*compose*", "there is no `docker compose`; install Docker with Compose 2.24 or later", "compose version"),
        ("version", "no container engine answers; start Docker", "version"),
    ],
)
def test_no_engine(
    failing: str, problem: str, asked: str, program: Path, secrets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Docker cannot do it, the message has what it said."""
    install(program, failing=failing)
    assert main(["up"], secrets) == 1
    said = f"`docker {asked}` says: Cannot connect"
    assert capsys.readouterr().err == f"error   {problem}, {INSTEAD}. {said}\n"


def test_unknown_profile(program: Path, secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile that is none is told, with those that there are."""
    assert main(["up", "churm"], secrets) == 1
    assert capsys.readouterr().err == "error   there is no profile churm; there are churn, pgadmin\n"
