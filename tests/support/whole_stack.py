"""The whole stack in a folder of its own, and its command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack.airflow_api import AirflowApi
from stack.assembly import Stack, existing, wishes
from stack.paths import REPOSITORY, Home
from stack.profiles import Profile
from tests.support.ports import free_ports

IMPATIENT = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
}
"""Steps follow each other sooner, and the tasks of a killed scheduler are taken up within seconds: tests kill many."""
IMPATIENT_DEFAULTS = "default_args: {retry_delay: 1s}"
"""An environment of its own: a retry follows at once."""
USERS = 2_000
"""A tenth of what the churn training invents by default, with the same steps."""


@dataclass(frozen=True, slots=True)
class RunningStack:
    """The whole stack, up, on a copy of the repository's specs."""

    services: Stack
    environment: dict[str, str]
    """What `python -m stack` needs in its environment to mean this stack."""

    @property
    def home(self) -> Home:
        """The state folder."""
        return self.services.home

    @property
    def dags_folder(self) -> Path:
        """The folder of the specs; a test may add some."""
        return self.services.pipelines

    @property
    def api(self) -> AirflowApi:
        """Airflow's API, as the admin."""
        return self.services.api()


@contextmanager
def whole_stack(
    state: Path, profile: Profile, settings: Mapping[str, str], defaults: str, *services: str
) -> Iterator[RunningStack]:
    """Bring the stack, or some services, up for the block; `defaults` is the YAML of an environment of its own."""
    workspace = state / "workspace"
    for folder in ("pipelines", "configs"):
        shutil.copytree(REPOSITORY / folder, workspace / folder)
    churn = workspace / "pipelines" / "churn_training.yaml"
    churn.write_text(churn.read_text().replace("default: 20000", f"default: {USERS}"))
    home, environment = Home(state / "stack"), stack_environment(state / "stack", workspace / "pipelines")
    environment |= {**settings, "TASKFLOW_ENVIRONMENT": "tests"}
    (workspace / "configs" / "environments" / "tests.yaml").write_text(defaults)
    try:
        command_line(environment, "up", "--profile", profile, *services)
        with pytest.MonkeyPatch.context() as variables:
            variables.setenv("TASKFLOW_PIPELINES", environment["TASKFLOW_PIPELINES"])
            services = existing(home)
        yield RunningStack(services, environment)
    finally:
        command_line(environment, "destroy")


def stack_environment(home: Path, pipelines: Path) -> dict[str, str]:
    """Return an environment in which `python -m stack` works in `home`, on ports that nobody uses now."""
    pins = ",".join(f"{name}={port}" for name, port in free_ports(wishes(Profile.DISTRIBUTED)).items())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return kept | {"TASKFLOW_HOME": str(home), "TASKFLOW_PIPELINES": str(pipelines), "TASKFLOW_PORTS": pins}


def command_line(environment: dict[str, str], *arguments: str, code: int = 0, module: str = "stack") -> str:
    """Run `python -m stack`, or another module, expect it to exit with `code`, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == code, printed
    return printed
