"""A pipeline on the running stack, and the content of its tables."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from stack.airflow_api import AirflowApi, DagRun
from stack.database import Database

Tables = dict[str, Counter[str]]
"""The rows of each table, however often each is there."""
RAW = "raw.bt_crypto_transaction_history"
STAGING = "staging.bt_crypto_events_candidate"
PROD = "prod.bt_crypto_events"
REJECTS = "dqm.bt_crypto_events_rejects"
RECORDS = "dqm.dq_runs"
VERDICTS = "dqm.dq_runs_latest"
OF_A_TRY = ("validation_id", "try_number", "version", "started_at", "ended_at")
"""The columns of records and rejects that each try has of its own."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline that Airflow knows, and the database in which it works."""

    dag_id: str
    api: AirflowApi
    database: Database

    def start(self, date: dt.date, hour: int = 0, **params: JsonValue) -> DagRun:
        """Trigger a run for `date`; runs of one date differ in their hour."""
        return self.api.trigger(self.dag_id, params, logical_date=f"{date}T{hour:02}:00:00Z")

    def run(self, date: dt.date, hour: int = 0, **params: JsonValue) -> DagRun:
        """Trigger a run for `date` and return it when it has ended."""
        return self.api.wait(self.start(date, hour, **params), seconds=240)

    def rerun(self, run: DagRun, *, task_ids: list[str] | None = None) -> DagRun:
        """Clear a run, or these tasks and all after them, and return it when it has ended again."""
        self.api.clear(self.dag_id, run.run_id, task_ids=task_ids)
        return self.api.wait(self.api.run(self.dag_id, run.run_id), seconds=240)

    def states(self, run: DagRun) -> dict[str, str]:
        """Return the state of each task."""
        return self.api.task_states(self.dag_id, run.run_id)

    def instance(self, run: DagRun, task_id: str) -> dict[str, Any]:
        """Return what Airflow tells of a task of a run."""
        found: dict[str, Any] = self.api.request(
            "GET", f"/dags/{self.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}"
        )
        return found

    def output(self, run: DagRun, task_id: str) -> dict[str, Any]:
        """Return what a task returned."""
        output = self.api.output(self.dag_id, run.run_id, task_id)
        assert isinstance(output, dict)
        return output

    def events(self, run: DagRun, task_id: str, try_number: int) -> list[dict[str, Any]]:
        """Return what one try of a task logged, with all that Airflow tells of each event."""
        return self.api.task_events(self.dag_id, run.run_id, task_id, try_number=try_number)

    def end_all(self) -> None:
        """Fail whatever runs of the pipeline an earlier test left unfinished: they would keep new ones waiting."""
        for state in ("queued", "running"):
            for run in self.api.request("GET", f"/dags/{self.dag_id}/dagRuns", state=state)["dag_runs"]:
                self.api.request("PATCH", f"/dags/{self.dag_id}/dagRuns/{run['dag_run_id']}", {"state": "failed"})

    def sql(self, text: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Run statements in the pipeline's database and return the rows of the last."""
        with self.database.connect() as session, session.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []


def content(pipeline: Pipeline, *volatile: str) -> Tables:
    """Return the rows of the pipeline's tables and the last verdicts, without their `volatile` columns."""
    text = "SELECT (to_jsonb(t) - %(volatile)s)::text FROM {} AS t"
    return {
        table: Counter(row for (row,) in pipeline.sql(text.format(table), {"volatile": list(volatile)}))
        for table in (RAW, STAGING, PROD, REJECTS, VERDICTS)
    }


def differences(expected: Tables, found: Tables) -> dict[str, list[str]]:
    """Return a few rows of each table that only one of the two has, marked with where it is."""
    told = {
        table: [f"lacks {row}" for row in list(rows - found[table])[:3]]
        + [f"has {row}" for row in list(found[table] - rows)[:3]]
        for table, rows in expected.items()
    }
    return {table: rows for table, rows in told.items() if rows}
