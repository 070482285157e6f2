"""How many short tasks a second Airflow runs on this machine: LocalExecutor against Celery with two workers.

One pipeline of steps that only log, at most four at a time in either profile, on a stack of its own each; counted from
the start of the first to the end of the last.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from stack.profiles import Profile
from tests.support.whole_stack import whole_stack

DAG = "many"
HEAD = f"dag_id: {DAG}\nschedule: null\nstart_date: 2026-01-01\nmax_active_tasks: 1000\nsteps:\n"


def main(argv: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    asked = parser.parse_args(argv)
    table = Table(title=f"{asked.tasks} steps that log a line ({dt.date.today()})")  # noqa: DTZ011
    for heading in ("profile", "executor", "seconds", "tasks a second", "median of a task, s"):
        table.add_column(heading, justify="left" if heading in {"profile", "executor"} else "right")
    for profile, executor in ((Profile.LOCAL, "LocalExecutor"), (Profile.DISTRIBUTED, "Celery, two workers of two")):
        with tempfile.TemporaryDirectory(prefix="tf-") as folder:
            seconds, median = measured(Path(folder), profile, asked.tasks)
        table.add_row(profile, executor, f"{seconds:.1f}", f"{asked.tasks / seconds:.2f}", f"{median:.2f}")
    Console().print(table)


def measured(state: Path, profile: Profile, tasks: int) -> tuple[float, float]:
    """Return the seconds that the run's tasks took together, and the median of one."""
    steps = "".join(f"  step_{n}: {{uses: messages.log, with: {{message: hello}}}}\n" for n in range(tasks))
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("TASKFLOW_ENVIRONMENT", raising=False)
        with whole_stack(state, profile, {}, "", "airflow") as stack:
            (stack.dags_folder / f"{DAG}.yaml").write_text(HEAD + steps)
            stack.api.await_dag(DAG, seconds=120)
            stack.api.unpause(DAG)
            run = stack.api.wait(stack.api.trigger(DAG), seconds=1800)
            if run.state != "success":
                raise RuntimeError(f"the run on {profile} is {run.state}")
            path = f"/dags/{DAG}/dagRuns/{run.run_id}/taskInstances"
            found = [
                one
                for page in range(0, tasks, 100)
                for one in stack.api.request("GET", path, limit=100, offset=page)["task_instances"]
            ]
    starts, ends = ([dt.datetime.fromisoformat(one[name]) for one in found] for name in ("start_date", "end_date"))
    return (max(ends) - min(starts)).total_seconds(), sorted(one["duration"] for one in found)[len(found) // 2]


if __name__ == "__main__":
    main()
