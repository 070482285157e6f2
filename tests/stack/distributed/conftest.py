"""The stack in its distributed profile, and who did what on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack.airflow_api import DagRun
from stack.paths import REPOSITORY
from stack.profiles import Profile
from stack.workers import Workers
from tests.conftest import IMPATIENT, IMPATIENT_DEFAULTS, RunningStack, whole_stack
from tests.stack.conftest import await_that, kill, lives, pid

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


def workers(stack: RunningStack) -> Workers:
    """Return the workers of a distributed stack."""
    found = stack.services.workers
    assert found is not None
    return found


def tries(stack: RunningStack, run: DagRun) -> dict[str, tuple[str, int]]:
    """Return for each task of a run that was begun the worker that had it last, and the number of that try."""
    path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances"
    found = stack.api.request("GET", path)["task_instances"]
    return {one["task_id"]: (one["hostname"], one["try_number"]) for one in found if one["hostname"]}


def await_running(stack: RunningStack, run: DagRun, task: str, *, seconds: float = 240) -> str:
    """Wait until a task of a run is at work, and return the worker that has it."""

    def is_running() -> bool:
        states = stack.api.task_states(run.dag_id, run.run_id)
        assert states.get(task) not in {"failed", "upstream_failed"}, states
        return states.get(task) == "running" and task in tries(stack, run)

    await_that(is_running, seconds=seconds)
    return tries(stack, run)[task][0]


def kill_worker(stack: RunningStack, name: str) -> None:
    """Kill a worker with -9, and wait until another has taken its place and nothing that it ran is left."""
    below = psutil.Process(pid(stack, name)).children(recursive=True)
    kill(stack, name)
    await_that(lambda: not any(lives(one) for one in below))
