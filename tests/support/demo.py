"""`make demo`, with the second of its trainings killed in the middle of each step on Spark."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from stack.airflow_api import DagRun
from stack.paths import REPOSITORY
from tests.support.applications import compile_less
from tests.support.pipeline import Pipeline
from tests.support.processes import below_worker, words
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

DAG = "churn_training_dag"
SPARK_STEPS = ("clean_raw_sources", "feature_engineering", "train_spark_model")
Tables = dict[str, bytes]
"""What lies in each file that steps hand on, by its path."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo as it ended."""

    printed: str
    tables: Tables
    """As the first training left them."""


def made(stack: RunningStack) -> Demo:
    """Run `make demo`, as the README has it, and disturb its second training; it must end well all the same."""
    compile_less(stack)
    with ThreadPoolExecutor() as threads:
        done = threads.submit(make_demo, stack)
        tables = disturb(stack, partial(trainings, stack, done))
    ended = done.result()
    assert ended.returncode == 0, ended.stdout
    return Demo(ended.stdout, tables)


def make_demo(stack: RunningStack) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "demo"],
        cwd=REPOSITORY,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def trainings(stack: RunningStack, demo: Future[subprocess.CompletedProcess[str]] | None = None) -> list[DagRun]:
    """Return the runs of the training, the first one first; `demo` must still be on its way."""
    assert demo is None or not demo.done(), demo.result().stdout
    found = stack.api.request("GET", f"/dags/{DAG}/dagRuns", order_by="logical_date")["dag_runs"]
    return [DagRun(DAG, one["dag_run_id"], one["state"]) for one in found]


def disturb(stack: RunningStack, runs: Callable[[], list[DagRun]]) -> Tables:
    """Kill the second training in the middle of each of its steps on Spark; return the tables of the first.

    One of the attempts loses its executors instead, which Spark replaces.
    """
    eventually("the first training to end", runs, lambda seen: seen and seen[0].is_finished, seconds=600)
    left = tables(stack)
    _, second = eventually("a second training", runs, lambda seen: len(seen) == 2)
    for step in SPARK_STEPS:
        look = partial(at_work, stack, second, step)
        first = eventually(f"{step} on Spark", look, seconds=240)
        psutil.Process(first.instance["pid"]).kill()
        if step == "feature_engineering":
            for executor in eventually(f"{step} on Spark again", partial(look, other_than=first.application)).executors:
                executor.kill()
    return left


def tables(stack: RunningStack) -> Tables:
    """Return every table that the pipeline's steps hand on."""
    folder = data(stack)
    files = [path for path in folder.rglob("*.parquet") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def data(stack: RunningStack) -> Path:
    """Return the folder in which the pipeline's files lie."""
    return stack.dags_folder.parent / "data" / "churn"


@dataclass(frozen=True, slots=True)
class AtWork:
    """An attempt of a step that has the cluster work for it."""

    instance: dict[str, Any]
    application: str
    executors: list[psutil.Process]


def at_work(stack: RunningStack, run: DagRun, step: str, other_than: str = "") -> AtWork | None:
    """Return the attempt of a step for which executors are at work now, in an application `other_than` this one."""
    page = stack.services.spark.told_by(stack.services.spark.master_page)
    own = {one["id"] for one in page["activeapps"] if one["name"] == f"{DAG}.{step}"} - {other_than}
    application = own.pop() if own else ""
    told = {one: words(one) for one in below_worker(stack)}
    executors = [one for one, line in told.items() if application in line and line[0].endswith("/java")]
    instance = Pipeline(DAG, stack.api, stack.services.crypto).instance(run, step)
    return AtWork(instance, application, executors) if executors and instance["state"] == "running" else None
