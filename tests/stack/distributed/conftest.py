"""The stack in its distributed profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.paths import REPOSITORY
from stack.profiles import Profile
from tests.support.applications import compile_less
from tests.support.whole_stack import IMPATIENT, IMPATIENT_DEFAULTS, RunningStack, whole_stack

SETTINGS = {
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}
"""A task whose worker was killed is missed sooner."""


@pytest.fixture(scope="session")
def distributed(state: Path) -> Iterator[RunningStack]:
    """The whole stack on two Celery workers, with the files where the shipped environment puts them."""
    shipped = (REPOSITORY / "configs" / "environments" / "distributed.yaml").read_text()
    defaults = f"{shipped}\n{IMPATIENT_DEFAULTS}\nqueues: [default, spark, old]\n"
    with whole_stack(state, Profile.DISTRIBUTED, IMPATIENT | SETTINGS, defaults) as running_stack:
        compile_less(running_stack)
        yield running_stack
