"""Runs of several dates that share a table or a file's name, cleared, repaired and backfilled through Airflow's API.

Whatever an operator clears, and however many runs go at once, prod has the rows of each date that passed its gate, and
each run its own files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stack.airflow_api import DagRun
from tests.support.pipeline import Pipeline
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

pytestmark = pytest.mark.stack

DAG = "overlapping_runs"
SPEC = """
dag_id: overlapping_runs
schedule: "@daily"
start_date: 2026-01-01
catchup: false
max_active_runs: 1
default_args: {retries: 0}
suites:
  prices:
    connection: crypto_postgres
    batch: {table: shared.staging}
    expectations:
      - expect_column_values_to_be_between: {column: price, min_value: 1}
steps:
  build:
    uses: postgres.rebuild_table
    with:
      connection: crypto_postgres
      source: shared.raw
      target: shared.staging
      columns: {id: id, day: day, price: price}
      where: day = {{ run.date }}
  gate: {uses: quality.validate, needs: build, with: {suite: prices}}
  load:
    uses: postgres.merge
    needs: gate
    with:
      connection: crypto_postgres
      source: shared.staging
      target: shared.prod
      keys: [id]
      deactivate: {window: "day = {{ run.date }}"}
"""
TABLES = """
    CREATE SCHEMA shared;
    CREATE TABLE shared.raw (id int, day date, price int);
    CREATE TABLE shared.staging (id int, day date, price int);
    CREATE TABLE shared.prod (id int PRIMARY KEY, day date, price int, is_active boolean NOT NULL DEFAULT true);
    INSERT INTO shared.raw
    SELECT 10 * day + n, DATE '2026-02-01' + day, CASE WHEN day = 1 AND n = 3 THEN -1 ELSE 1 END
    FROM generate_series(0, 9) AS day, generate_series(0, 4) AS n;
"""
GOOD, BAD, OTHER = (dt.date(2026, 2, day) for day in (1, 2, 3))
"""Days of the source: one row of the second breaks the suite."""
BACKFILLED = [dt.date(2026, 2, day) for day in (5, 6, 7)]


@pytest.fixture(scope="module")
def pipeline(stack: RunningStack) -> Iterator[Pipeline]:
    """The pipeline, unpaused, with its tables."""
    pipeline = Pipeline(DAG, stack.api, stack.services.crypto)
    pipeline.sql(TABLES)
    file = stack.dags_folder / f"{DAG}.yaml"
    file.write_text(SPEC)
    pipeline.api.await_dag(DAG, seconds=180)
    pipeline.api.unpause(DAG)
    yield pipeline
    pipeline.api.pause(DAG)
    pipeline.end_all()
    file.unlink()
    pipeline.sql("DROP SCHEMA shared CASCADE")


def in_prod(pipeline: Pipeline) -> dict[dt.date, int]:
    """Return how many active rows each day has in prod."""
    return dict(pipeline.sql("SELECT day, count(*) FROM shared.prod WHERE is_active GROUP BY day"))


def told(pipeline: Pipeline, run: DagRun, task_id: str, try_number: int) -> str:
    """Return the messages of the errors that one try of a task logged."""
    events = pipeline.events(run, task_id, try_number)
    return "\n".join(event["event"] for event in events if event.get("level") == "error")


def test_load_that_is_cleared_alone_takes_no_other_rows(pipeline: Pipeline) -> None:
    """After a bad run of another date, a good run's load is cleared: it fails, and says whose rows it found."""
    good = pipeline.run(GOOD)
    bad = pipeline.run(BAD)
    assert (good.state, bad.state) == ("success", "failed")
    assert in_prod(pipeline) == {GOOD: 5}

    again = pipeline.rerun(good, task_ids=["load"])

    assert again.state == "failed"
    assert in_prod(pipeline) == {GOOD: 5}
    log = told(pipeline, good, "load", 2)
    assert f"shared.staging holds the rows of {DAG}.build in run {bad.run_id}, for {BAD}, built at" in log
    assert "clear 'build' with its downstream" in log


def test_mended_source_is_repaired_from_the_step_that_builds(pipeline: Pipeline) -> None:
    """The failed gate says which step to clear; cleared itself, it judges nothing that another run has built since."""
    bad = pipeline.run(BAD, hour=1)
    assert "after mending the source, clear 'build' with its downstream" in told(pipeline, bad, "gate", 1)
    assert pipeline.run(OTHER).state == "success"
    pipeline.sql("UPDATE shared.raw SET price = 1")

    assert pipeline.rerun(bad, task_ids=["gate"]).state == "failed"
    assert f"for {OTHER}, built at" in told(pipeline, bad, "gate", 2)
    assert BAD not in in_prod(pipeline)

    assert pipeline.rerun(bad, task_ids=["build"]).state == "success"
    assert in_prod(pipeline)[BAD] == in_prod(pipeline)[OTHER] == 5


def test_backfill_of_several_dates_at_once_loads_each(pipeline: Pipeline) -> None:
    """Airflow's backfill does not keep to `max_active_runs`: the runs wait for each other, without a worker's slot."""
    pipeline.sql("UPDATE shared.raw SET price = 1")
    first, *_, last = (f"{day}T00:00:00Z" for day in BACKFILLED)
    backfill = {"dag_id": DAG, "from_date": first, "to_date": last, "max_active_runs": 3, "dag_run_conf": {}}
    with pipeline.database.connect() as session, session.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE shared.prod IN ACCESS EXCLUSIVE MODE")  # no run gets to its end
        pipeline.api.request("POST", "/backfills", backfill)
        waiting = eventually("two of three runs to wait", partial(deferred, pipeline), lambda seen: len(seen) == 2)
        logs = [pipeline.api.task_log(DAG, run["dag_run_id"], "build") for run in waiting]
        cursor.execute("COMMIT")

    for log in logs:
        assert f"waiting, without a worker's slot: shared.staging is claimed by {DAG}, run backfill__" in log
    ended = [
        pipeline.api.wait(DagRun(DAG, one["dag_run_id"], one["state"]), seconds=120) for one in backfills(pipeline)
    ]
    assert [run.state for run in ended] == ["success"] * 3
    assert {day: count for day, count in in_prod(pipeline).items() if day in BACKFILLED} == dict.fromkeys(BACKFILLED, 5)


def backfills(pipeline: Pipeline) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pipeline.api.request("GET", f"/dags/{DAG}/dagRuns", run_type="backfill")["dag_runs"]
    return found


def deferred(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return the runs whose build waits for another run."""
    path = f"/dags/{DAG}/dagRuns/~/taskInstances"
    found: list[dict[str, Any]] = pipeline.api.request("GET", path, state="deferred")["task_instances"]
    return [one for one in found if one["task_id"] == "build"]


FILES = """
dag_id: overlapping_files
schedule: null
start_date: 2026-01-01
default_args: {retries: 0}
steps:
  features:
    uses: drift.snapshot
    with: {source: overlapping/source.parquet, output: overlapping/features.parquet, noise: 0.5}
  keep:
    uses: files.keep_snapshot
    needs: features
    with: {source: overlapping/features.parquet, history: overlapping/history.parquet, keep: 8}
"""


@pytest.fixture
def of_files(stack: RunningStack) -> Iterator[Pipeline]:
    """A pipeline whose steps hand a file on: what it makes of the source differs by date."""
    pipeline = Pipeline("overlapping_files", stack.api, stack.services.crypto)
    folder = stack.dags_folder.parent / "data" / "overlapping"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"value": [float(number) for number in range(1, 50)]}), folder / "source.parquet")
    file = stack.dags_folder / f"{pipeline.dag_id}.yaml"
    file.write_text(FILES)
    pipeline.api.await_dag(pipeline.dag_id, seconds=180)
    pipeline.api.unpause(pipeline.dag_id)
    yield pipeline
    pipeline.api.pause(pipeline.dag_id)
    file.unlink()


def test_each_run_takes_its_own_files(stack: RunningStack, of_files: Pipeline) -> None:
    """A step that is cleared later takes its own run's file; the name that people know is of the last date."""
    folder = stack.dags_folder.parent / "data" / "overlapping"
    last = of_files.run(BACKFILLED[2])
    published = pq.read_table(folder / "features.parquet")
    kept = folder / "history.parquet" / f"snapshot_date={BACKFILLED[2]}.parquet"
    before = pq.read_table(kept)
    first, second = (of_files.start(date) for date in BACKFILLED[:2])  # two at a time, of dates before it
    ended = [of_files.api.wait(run, seconds=120) for run in (first, second)]
    assert [run.state for run in (last, *ended)] == ["success"] * 3

    assert of_files.rerun(last, task_ids=["keep"]).state == "success"

    assert pq.read_table(kept).equals(before)
    assert pq.read_table(folder / "features.parquet").equals(published)
    snapshots = [pq.read_table(path).column("value") for path in sorted((folder / "history.parquet").glob("*.parquet"))]
    assert len(snapshots) == 3
    assert not any(one.equals(other) for one, other in combinations(snapshots, 2))
