"""The stack in its distributed profile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.paths import REPOSITORY
from stack.profiles import Profile
from tests.support.whole_stack import IMPATIENT, IMPATIENT_DEFAULTS, RunningStack, whole_stack

SETTINGS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
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


def compile_less(stack: RunningStack) -> None:
    """Let executors compile their code once: they are new for each step, and the tables of the tests small."""
    extra = json.loads(stack.services.connections["spark_default"])["extra"]
    extra["conf"]["spark.executor.extraJavaOptions"] = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    changed = {"connection_id": "spark_default", "conn_type": "spark", "extra": json.dumps(extra)}
    stack.api.request("PATCH", "/connections/spark_default", changed, update_mask="extra")
