"""The Celery workers of a distributed stack, and who did what on it."""

from __future__ import annotations

from functools import partial

import psutil

from stack.airflow_api import DagRun
from stack.workers import Workers
from tests.support.processes import alive, kill, pid
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack


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

    def is_running(states: dict[str, str]) -> bool:
        assert states.get(task) not in {"failed", "upstream_failed"}, states
        return states.get(task) == "running" and task in tries(stack, run)

    look = partial(stack.api.task_states, run.dag_id, run.run_id)
    eventually(f"{task} to be at work", look, is_running, seconds=seconds)
    return tries(stack, run)[task][0]


def kill_worker(stack: RunningStack, name: str) -> None:
    """Kill a worker with -9, and wait until another has taken its place and nothing that it ran is left."""
    below = psutil.Process(pid(stack, name)).children(recursive=True)
    kill(stack, name)
    eventually(f"what {name} ran to end", lambda: alive(below), lambda left: left == [])
