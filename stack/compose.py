"""The containers of `stack/compose.yaml`: `python -m stack.compose up [PROFILE…]`, `python -m stack.compose down`.

Writes the secrets, checks that there is an engine, and hands over to the user's own `docker compose`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stack import app_login, app_server, compose_env, objects, orchestrator, page_tokens, tracking_server

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = Path(__file__).with_name("compose.yaml")
PROFILES = ("churn", "pgadmin")
"""What can be left out: Spark, MLflow and the app, which crypto_events_dag does not need; pgAdmin."""
INSTEAD = "or run the same services without containers: `make up`"
WHERE = f"""\
Airflow  http://127.0.0.1:{orchestrator.PORTS[0].usual}   admin               AIRFLOW_ADMIN_PASSWORD
MLflow   http://127.0.0.1:{tracking_server.PORTS[0].usual}   {tracking_server.USER:19} MLFLOW_ADMIN_PASSWORD
Spark    http://127.0.0.1:{orchestrator.PORTS[0].usual}{page_tokens.PREFIX}/   as in Airflow
the app  http://127.0.0.1:{app_server.PORTS[0].usual}   {app_login.USER:19} APP_PASSWORD
MinIO    http://127.0.0.1:{objects.PORTS[1].usual}   taskflow            OBJECTS_SECRET
pgAdmin  http://127.0.0.1:5050   admin@example.com   PGADMIN_PASSWORD
"""


class NoEngine(Exception):
    """There is nothing on this machine that runs containers."""


def up(profiles: Sequence[str], secrets: Path) -> int:
    """Write missing secrets, build the image, start the containers and wait until they are healthy."""
    if unknown := sorted(set(profiles) - set(PROFILES)):
        raise ValueError(f"there is no profile {', '.join(unknown)}; there are {', '.join(PROFILES)}")
    if added := compose_env.complete(secrets):
        print(f"Made up {', '.join(added)} in {secrets}, which only you can read.")
    check_engine()
    start = _compose(secrets, profiles)
    code = _run((*start, "build"), (*start, "up", "--detach", "--wait"))
    if code == 0:
        print(f"The containers are up; the passwords are in {secrets}.\n{WHERE}")
    return code


def down(secrets: Path) -> int:
    """Stop and remove the containers, but keep their volumes."""
    if not secrets.exists():
        print(f"There is no {secrets}, so nothing was started: `make compose-up` does.")
        return 0
    check_engine()
    return _run((*_compose(secrets, PROFILES), "down"))


def check_engine() -> None:
    """Raise NoEngine unless `docker compose` is installed and an engine answers."""
    _ask(("docker", "compose", "version"), "there is no `docker compose`; install Docker with Compose 2.24 or later")
    _ask(("docker", "version"), "no container engine answers; start Docker")


def _ask(command: tuple[str, ...], problem: str) -> None:
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoEngine(f"{problem}, {INSTEAD}") from None
    if asked.returncode != 0:
        said = (asked.stderr or asked.stdout).strip().splitlines() or ["nothing"]
        raise NoEngine(f"{problem}, {INSTEAD}. `{' '.join(command)}` says: {said[0]}")


def _compose(secrets: Path, profiles: Sequence[str]) -> tuple[str, ...]:
    chosen = (word for profile in profiles for word in ("--profile", profile))
    return ("docker", "compose", "--env-file", str(secrets), "--file", str(FILE), *chosen)


def _run(*commands: tuple[str, ...]) -> int:
    return next((code for command in commands if (code := subprocess.run(command, check=False).returncode)), 0)


def main(arguments: Sequence[str], secrets: Path = compose_env.FILE) -> int:
    """Do what the arguments say, and return the exit code."""
    action, *profiles = arguments
    try:
        return up(profiles or PROFILES, secrets) if action == "up" else down(secrets)
    except (NoEngine, ValueError) as error:
        print(f"error   {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
