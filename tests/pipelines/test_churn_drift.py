"""churn_drift_monitor_w on the scheduler: a backfill of three weeks, a shift, and no history.

Features and history are laid where the training would leave them: Spark has no part in it.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stack.airflow_api import DagRun
from tasks.contract import Run
from tasks.files.history import keep_snapshot
from tasks.files.places import InFolder
from tests.support.pipeline import Pipeline
from tests.support.tracking_clients import client_of
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.stack

DAG, BUCKET = "churn_drift_monitor_w", "mlflow-artifacts"
WEEKS = [dt.date(2026, 3, 1) + dt.timedelta(weeks=week) for week in range(3)]
"""The Sundays that are backfilled."""
BEFORE = 7
"""Weeks of history before the first of them: a reference of one week less than the eight that count at most."""
SHIFTED = dt.date(2026, 5, 3)
CALM = {
    "build_current_snapshot": "success",
    "run_drift_report": "success",
    "log_drift_result": "success",
    "decide_alarm": "success",
    "notify_drift": "skipped",
    "carry_on": "success",
}
ALARMED = CALM | {"notify_drift": "success", "carry_on": "skipped"}
NUMBERS = (
    "payments", "payments_last_30d", "spent", "mean_spent", "discount", "discount_share", "distinct_sellers",
    "days_since_last_payment", "days_since_login", "age", "balance", "balance_change", "marketplace_spent",
    "days_since_purchase", "used_marketplace",
)  # fmt: skip
CATEGORIES = ("main_segment", "gender", "card_type", "city", "investment")


def features(seed: int, rows: int = 2000) -> pa.Table:
    """Return invented features with the columns that the monitor looks at."""
    chance = np.random.default_rng(seed)
    numbers = {name: chance.gamma(4, 10, rows) for name in NUMBERS}
    texts = {name: chance.choice(["one", "two", "three"], rows, p=[0.5, 0.3, 0.2]) for name in CATEGORIES}
    return pa.table({"user_id": np.arange(rows), **numbers, **texts, "churned": np.zeros(rows, np.int32)})


@pytest.fixture(scope="module")
def data(stack: RunningStack) -> Iterator[Path]:
    """The place of files, with features and weeks of history; what lay there before comes back."""
    place, aside = (stack.dags_folder.parent / name for name in ("data", "data-aside"))
    if place.exists():
        place.rename(aside)
    (place / "churn").mkdir(parents=True)
    pq.write_table(features(0), place / "churn" / "churn_features.parquet")
    run = Run(DAG, "laid", "keep", WEEKS[0])
    for week in range(BEFORE + len(WEEKS)):
        pq.write_table(features(100 + week), place / "week.parquet")
        date = WEEKS[0] + dt.timedelta(weeks=week - BEFORE)
        files = InFolder(folder=str(place))
        keep_snapshot("week.parquet", "churn/reference_history.parquet", 99, files, run=replace(run, date=date))
    yield place
    shutil.rmtree(place)
    if aside.exists():
        aside.rename(place)


@pytest.fixture(scope="module")
def monitor(stack: RunningStack, data: Path) -> Iterator[Pipeline]:
    """The pipeline as it is shipped; the run that its schedule owes is ended before it looks at anything."""
    pipeline = Pipeline(DAG, stack.api, stack.services.crypto)
    pipeline.api.await_dag(DAG, seconds=180)
    owed = pipeline.api.due(DAG)
    if owed:
        run = pipeline.api.trigger(DAG, logical_date=owed.isoformat())
        pipeline.api.request("PATCH", f"/dags/{DAG}/dagRuns/{run.run_id}", {"state": "failed"})
    pipeline.api.unpause(DAG)
    yield pipeline
    pipeline.end_all()
    pipeline.api.pause(DAG)


@pytest.fixture(scope="module")
def backfilled(monitor: Pipeline) -> dict[dt.date, DagRun]:
    """The runs of a backfill of three weeks, ended, by their dates."""
    body = {
        "dag_id": DAG,
        "from_date": f"{WEEKS[0]}T00:00:00Z",
        "to_date": f"{WEEKS[-1]}T12:00:00Z",
        "max_active_runs": len(WEEKS),
    }
    monitor.api.request("POST", "/backfills", dict(body))

    def ended() -> list[dict[str, Any]]:
        found = monitor.api.request("GET", f"/dags/{DAG}/dagRuns", run_type="backfill", limit=100)["dag_runs"]
        return [one for one in found if one["state"] in {"success", "failed"}]

    runs = eventually("the runs to end", ended, lambda found: len(found) == len(WEEKS), seconds=900)
    return {
        dt.date.fromisoformat(one["logical_date"][:10]): DagRun(DAG, one["dag_run_id"], one["state"]) for one in runs
    }


@pytest.fixture(scope="module")
def shifted(monitor: Pipeline, backfilled: dict[dt.date, DagRun]) -> DagRun:
    """A run whose snapshot was shifted, ended."""
    return monitor.run(SHIFTED, shift=2)


@dataclass(frozen=True, slots=True)
class Stored:
    """A page in the bucket."""

    kind: str
    body: str


def stored(stack: RunningStack, key: str) -> Stored:
    found = stack.services.store.client().get_object(Bucket=BUCKET, Key=key)
    return Stored(found["ContentType"], found["Body"].read().decode())


def line(stack: RunningStack) -> list[tuple[str, float]]:
    """Return the dates and values of the share as MLflow draws it."""
    client = client_of(stack.services.tracking)
    experiment = client.get_experiment_by_name("churn_drift")
    assert experiment is not None
    told = f"tags.`drift.kind` = 'line' and tags.`airflow.dag_id` = '{DAG}'"
    (only,) = client.search_runs([experiment.experiment_id], told)
    points = client.get_metric_history(only.info.run_id, "drift_share")
    return sorted((f"{dt.datetime.fromtimestamp(one.timestamp / 1000, dt.UTC).date()}", one.value) for one in points)


def test_backfill_gives_reports(
    stack: RunningStack, monitor: Pipeline, backfilled: dict[dt.date, DagRun], data: Path
) -> None:
    """Each week has a page of its own date on disk and in the bucket, and is a point of the line in MLflow."""
    assert sorted(backfilled) == WEEKS
    for date, run in backfilled.items():
        assert monitor.states(run) == CALM
        found = monitor.output(run, "run_drift_report")
        assert (found["drift_detected"], found["s3_key"]) == (False, f"drift-reports/{date}.html")
        page = stored(stack, found["s3_key"])
        assert page.kind == "text/html"
        assert f"Drift on {date}" in page.body
        assert (data / "drift_reports" / f"{date}.html").read_text(encoding="utf-8") == page.body
    weeks = [monitor.output(backfilled[date], "run_drift_report")["reference_rows"] for date in WEEKS]
    assert weeks == [2000 * min(BEFORE + before, 8) for before in range(len(WEEKS))]
    assert [date for date, _ in line(stack)] == [f"{date}" for date in WEEKS]


def test_shift_alarms(stack: RunningStack, monitor: Pipeline, shifted: DagRun) -> None:
    """A shift is found in the columns that were shifted; the branch notifies, which is an event for other pipelines."""
    assert monitor.states(shifted) == ALARMED
    found = monitor.output(shifted, "run_drift_report")
    assert found["drift_detected"]
    assert {"spent", "payments", "balance"} <= set(found["drifted_columns"])
    assert "age" not in found["drifted_columns"]
    told = monitor.api.task_log(DAG, shifted.run_id, "notify_drift")
    assert f"{DAG}, {SHIFTED}: drift: 8 of 20 columns drifted" in told
    assert f"see drift-reports/{SHIFTED}.html" in told
    events = monitor.api.request("GET", "/assets/events", source_dag_id=DAG)["asset_events"]
    assert [(one["name"], one["source_run_id"]) for one in events] == [("churn_drift", shifted.run_id)]
    assert line(stack)[-1] == (f"{SHIFTED}", 0.4)


def test_button_shows_report(stack: RunningStack, monitor: Pipeline, shifted: DagRun) -> None:
    """The task's button in Airflow's UI leads to the page, and another to the run in MLflow."""
    path = f"/dags/{DAG}/dagRuns/{shifted.run_id}/taskInstances/run_drift_report/links"
    links = monitor.api.request("GET", path)["extra_links"]
    assert links["Report"].startswith(f"/artifacts/{BUCKET}/drift-reports/runs/{SHIFTED}--")
    assert links["Run page"].startswith(f"{stack.services.tracking.address}/#/experiments/")
    monitor.api.request("GET", "/version")
    headers = {"Authorization": monitor.api._client.headers["Authorization"]}
    page = httpx.get(monitor.api.address + links["Report"], headers=headers, follow_redirects=True, timeout=30)
    assert page.headers["Content-Type"].startswith("text/html")
    assert f"Drift on {SHIFTED}" in page.text


def test_rerun_leaves_same_state(
    stack: RunningStack, monitor: Pipeline, backfilled: dict[dt.date, DagRun], shifted: DagRun
) -> None:
    """A report that is cleared and made again finds the same, on a line with as many points."""
    run = backfilled[WEEKS[1]]
    before, points = monitor.output(run, "run_drift_report"), line(stack)

    assert monitor.rerun(run, task_ids=["run_drift_report"]).state == "success"

    after = monitor.output(run, "run_drift_report")
    assert {**after, "run_page": None} == {**before, "run_page": None}
    assert line(stack) == points


def test_no_history_names_pipeline(stack: RunningStack, monitor: Pipeline, shifted: DagRun, data: Path) -> None:
    """Without history the run fails and says which pipeline to run first; the report of its date stays."""
    before = stored(stack, f"drift-reports/{SHIFTED}.html"), line(stack)
    history = data / "churn" / "reference_history.parquet"
    history.rename(data / "moved")
    try:
        run = monitor.run(SHIFTED, hour=1)
    finally:
        (data / "moved").rename(history)

    assert run.state == "failed"
    assert monitor.states(run)["run_drift_report"] == "failed"
    told = json.dumps(monitor.api.task_events(DAG, run.run_id, "run_drift_report"))
    assert "run churn_training_dag first" in told
    assert (stored(stack, f"drift-reports/{SHIFTED}.html"), line(stack)) == before
