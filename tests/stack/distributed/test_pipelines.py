"""The three pipelines on two workers that share no folder, from end to end, with a worker killed in each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import JsonValue

from stack.airflow_api import DagRun
from stack.workers import CONCURRENCY
from tests.support.processes import pid
from tests.support.tracking_clients import client_of
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack
from tests.support.workers import await_running, kill_worker, tries, workers

pytestmark = pytest.mark.distributed

CRYPTO, CHURN, DRIFT = "crypto_events_dag", "churn_training_dag", "churn_drift_monitor_w"
CONF: dict[str, dict[str, JsonValue]] = {
    CRYPTO: {"rows_per_day": 200},
    CHURN: {"users": 2_000},
    DRIFT: {"reference_dates": "any"},
}
OWN = {"airflow.cfg", "airflow-worker.pid"}
CACHES = (".cache", ".config")


def trigger(stack: RunningStack, dag: str) -> DagRun:
    """Start a run in the place of the one that the schedule owes, so that no other comes between."""
    stack.api.await_dag(dag, seconds=180)
    due = stack.api.due(dag)
    assert due is not None
    run = stack.api.trigger(dag, CONF[dag], logical_date=due.isoformat())
    stack.api.unpause(dag)
    return run


def succeeded(stack: RunningStack, run: DagRun) -> DagRun:
    """Wait for a run, which must end well."""
    ended = stack.api.wait(run, seconds=600)
    assert ended.state == "success", {
        task: stack.api.task_log(run.dag_id, run.run_id, task, try_number=tries(stack, run)[task][1])[-2000:]
        for task, state in stack.api.task_states(run.dag_id, run.run_id).items()
        if state == "failed"
    }
    return ended


@pytest.fixture(scope="module")
def runs(distributed: RunningStack) -> dict[str, DagRun]:
    """A run of each pipeline that came to its end although a worker was killed in it; the first two side by side."""
    crypto = trigger(distributed, CRYPTO)
    kill_in_merge(distributed, crypto)
    churn = trigger(distributed, CHURN)
    kill_in_training(distributed, churn)
    both = {run.dag_id: succeeded(distributed, run) for run in (crypto, churn)}
    drift = trigger(distributed, DRIFT)
    worker = await_running(distributed, drift, "run_drift_report")
    await_logs(distributed, drift)
    kill_worker(distributed, worker)
    return {**both, DRIFT: succeeded(distributed, drift)}


def kill_in_merge(stack: RunningStack, run: DagRun) -> None:
    """Kill the worker of the merge while the merge waits for a lock."""
    await_running(stack, run, "ge_validate_candidate")  # those before create tables, and would wait for the lock
    with locked(stack, "prod.bt_crypto_events") as is_waited_for:
        worker = await_running(stack, run, "merge_to_prod")
        eventually("the merge to wait for the lock", is_waited_for)
        await_logs(stack, run)
        kill_worker(stack, worker)


def kill_in_training(stack: RunningStack, run: DagRun) -> None:
    """Kill the worker of the training while candidates are fitted."""
    worker = await_running(stack, run, "train_spark_model")
    eventually("a training that runs", partial(trainings, stack, run), lambda seen: seen == ["RUNNING"], seconds=180)
    await_logs(stack, run)
    kill_worker(stack, worker)


def trainings(stack: RunningStack, run: DagRun) -> list[str]:
    """Return the states of the runs in MLflow that a run of the pipeline made."""
    client = client_of(stack.services.tracking)
    found = client.get_experiment_by_name("churn_retention")
    if found is None:
        return []
    tags = f"tags.`airflow.run_id` = '{run.run_id}' AND tags.`airflow.task_id` = 'train_spark_model'"
    listed = client.search_runs([found.experiment_id], tags)
    return [one.info.status for one in listed if "mlflow.parentRunId" not in one.data.tags]


def keys(stack: RunningStack, bucket: str, prefix: str = "") -> set[str]:
    """Return what lies in a bucket."""
    found = stack.services.store.client().list_objects_v2(Bucket=bucket, Prefix=prefix)
    return {one["Key"] for one in found.get("Contents", [])}


def test_both_workers_work(distributed: RunningStack, runs: dict[str, DagRun]) -> None:
    """Steps that hand files to each other ran on both workers, Spark's on the one that takes their queue."""
    done = {dag: tries(distributed, run) for dag, run in runs.items()}
    assert {worker for made in done.values() for worker, _ in made.values()} == {"worker-1", "worker-2"}
    spark = ("clean_raw_sources", "feature_engineering", "train_spark_model")
    assert {done[CHURN][task][0] for task in spark} == {"worker-2"}


def test_workers_have_what_tasks_import(distributed: RunningStack) -> None:
    """The processes that a worker forks for its tasks have the heavy libraries, whatever has run on them."""
    for name in ("worker-1", "worker-2"):
        eventually(f"{CONCURRENCY} processes of {name} with the libraries", partial(with_libraries, distributed, name))


def with_libraries(stack: RunningStack, worker: str) -> bool:
    """Return whether as many processes as run tasks are below a worker, and have a library of a report in memory."""
    below = psutil.Process(pid(stack, worker)).children()
    return sum(any("libarrow" in mapped.path for mapped in one.memory_maps()) for one in below) == CONCURRENCY


def test_files_lie_in_the_bucket(distributed: RunningStack, runs: dict[str, DagRun]) -> None:
    """What steps hand to each other is in the bucket, and so is what they logged."""
    files = {
        "churn/raw/PAYMENTS.csv",
        "churn/payments_clean.parquet",
        "churn/user_base.parquet",
        "churn/churn_features.parquet",
    }
    found = keys(distributed, "pipeline-files")
    assert files <= found
    assert [key for key in found if key.startswith("churn/reference_history.parquet/")] != []
    for run in runs.values():
        for task, (_, number) in tries(distributed, run).items():
            look = partial(is_logged, distributed, run, task, number)  # the log is sent when all else is done
            eventually(f"the log of {task}", look)


def await_logs(stack: RunningStack, run: DagRun) -> None:
    """Wait until the steps that have ended have sent their logs: a worker that is killed before takes them with it."""
    states = stack.api.task_states(run.dag_id, run.run_id)
    for task, (_, number) in tries(stack, run).items():
        if states[task] == "success":
            eventually(f"the log of {task}", partial(is_logged, stack, run, task, number))


def is_logged(stack: RunningStack, run: DagRun, task: str, number: int) -> bool:
    """Return whether the log of a try of a task can be read, and comes from the bucket."""
    told = stack.api.task_log(run.dag_id, run.run_id, task, try_number=number)
    return f"s3://airflow-logs/dag_id={run.dag_id}/" in told and "Done. Returned value was" in told


def test_nothing_on_disk(distributed: RunningStack, runs: dict[str, DagRun]) -> None:
    """No step left a file where another could find it: in the project, in a worker's directory, or in Airflow's own."""
    project = distributed.dags_folder.parent
    assert {path.name for path in project.iterdir()} == {"pipelines", "configs"}
    for name in ("worker-1", "worker-2"):
        assert left(workers(distributed).directory(name)) == []
    assert left(distributed.home.scratch) == []


def left(folder: Path) -> list[str]:
    """Return the files below a folder of a worker's, but for its settings, caches of libraries, and logs that are read.

    The log of a try whose worker was killed stays there.
    """
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if path.parts[0] not in {*OWN, *CACHES, "logs"}]


@contextmanager
def locked(stack: RunningStack, table: str) -> Iterator[Any]:
    """Let nobody else touch a table for the block; yield a function that tells whether somebody waits for it."""
    with stack.services.crypto.connect() as session, session.cursor() as cursor:
        cursor.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

        def is_waited_for() -> bool:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted", (table,))
            return bool(cursor.fetchone()[0])

        yield is_waited_for
        cursor.execute("ROLLBACK")


def first_rows(stack: RunningStack) -> int:
    """Return how many rows the first load has left: at midnight the schedule starts a run, too."""
    with stack.services.crypto.connect() as session, session.cursor() as cursor:
        cursor.execute("""
            SELECT count(*) FROM prod.bt_crypto_events
            WHERE created_at = (SELECT min(created_at) FROM prod.bt_crypto_events)
        """)
        return int(cursor.fetchone()[0])


def test_crypto_survives(distributed: RunningStack, runs: dict[str, DagRun]) -> None:
    """A worker killed in the middle of the merge: its transaction leaves nothing, and the next try does it once."""
    assert tries(distributed, runs[CRYPTO])["merge_to_prod"][1] == 2
    merged: Any = distributed.api.output(CRYPTO, runs[CRYPTO].run_id, "merge_to_prod")
    assert first_rows(distributed) == merged["inserted"] > 0


def test_churn_survives(distributed: RunningStack, runs: dict[str, DagRun]) -> None:
    """A worker killed while candidates are fitted: the next try trains anew, and one run and one version stand."""
    assert tries(distributed, runs[CHURN])["train_spark_model"][1] == 2
    assert trainings(distributed, runs[CHURN]) == ["FINISHED"]
    client = client_of(distributed.services.tracking)
    assert len(client.search_model_versions("name = 'churn-model'")) == 1


def test_drift_survives(distributed: RunningStack, runs: dict[str, DagRun]) -> None:
    """A worker killed while the report is made: the next try makes it, and there is one."""
    assert tries(distributed, runs[DRIFT])["run_drift_report"][1] == 2
    report: Any = distributed.api.output(DRIFT, runs[DRIFT].run_id, "run_drift_report")
    own = report["report"].removeprefix("s3://mlflow-artifacts/")
    assert keys(distributed, "mlflow-artifacts", "drift-reports/") == {report["s3_key"], own}
