"""What drift reports leave in MLflow: one run per report, and one whose metrics are lines over the dates.

Knows MLflow's runs; knows nothing about how drift is judged. A rerun replaces what it left before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.services.tracking import airflow_tags, delete_run, experiment_id, runs_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as TrackedRun

    from tasks.contract import Run

KIND, DATE, REPORT, DRIFTED = "drift.kind", "drift.date", "drift.report", "drift.columns"
"""Tags of a run: "report" or "line"; for a report also its date, where its page is, and the columns that drifted."""
SHARE = "drift_share"
_SHOWN_AS = ("mlflow.experimentKind", "custom_model_development")
"""Makes MLflow's page show runs and their metrics; without it, the page shows prompts and traces."""
_NAME = "mlflow.runName"
_OWN = ("airflow.dag_id", "airflow.task_id", "airflow.map_index")
"""Tags that all reports of one step share with its line."""
_AT_ONCE = 1000
"""Metrics that MLflow accepts in one request, and runs that it returns."""
_LONGEST = 400
"""Dates in a line: seven years of weeks, or a year of days."""
_COMMA = ", "


@dataclass(frozen=True, slots=True)
class Record:
    """The run of one report."""

    client: MlflowClient
    experiment: str
    """Its id."""
    run: Run
    run_id: str

    def log(self, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        """Log what was compared, and the result."""
        from mlflow.entities import Param

        self.client.log_batch(self.run_id, params=[Param(name, str(value)) for name, value in params.items()])
        _log_points(self.client, self.run_id, metrics, self.run.date)

    def finish(self, report: str, drifted: list[str]) -> None:
        """End the run as finished and extend the line; delete what this Airflow run left before."""
        self.client.set_tag(self.run_id, REPORT, report)
        self.client.set_tag(self.run_id, DRIFTED, _COMMA.join(drifted))
        self.client.set_terminated(self.run_id)
        for earlier in runs_of(self.client, self.experiment, self.run, {KIND: "report"}):
            if earlier.info.run_id != self.run_id:
                delete_run(self.client, self.experiment, earlier.info.run_id)
        self._draw_line()

    def discard(self) -> None:
        """Delete the run, if MLflow still answers; the next attempt deletes it either way."""
        from contextlib import suppress

        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            self.client.delete_run(self.run_id)

    def _draw_line(self) -> None:
        """Add this date to the line; if it is already there, or others are missing, draw the line again.

        MLflow cannot remove a point from a metric.
        """
        dated = {report.data.tags[DATE]: report.data.metrics for report in reversed(self._kept("report"))}
        dates, lines = sorted(dated)[-_LONGEST:], self._kept("line")
        own = f"{self.run.date}"
        others = [date for date in dates if date != own]
        line = next((known.info.run_id for known in lines if _dates(known) == others), None)
        new = [own] if line else dates
        line = line or _begin(self.client, self.experiment, self.run, "line", f"{self.run.dag_id} over time")
        for date in new:
            _log_points(self.client, line, dated[date], dt.date.fromisoformat(date))
        self.client.set_tag(line, DATE, _COMMA.join(dates))
        self.client.set_terminated(line)
        for known in lines:
            if known.info.run_id != line:
                self.client.delete_run(known.info.run_id)

    def _kept(self, kind: str) -> list[TrackedRun]:
        """Return the finished runs that this step made for any Airflow run, newest first."""
        tags = airflow_tags(self.run)
        wanted = {name: tags[name] for name in _OWN} | {KIND: kind}
        tagged = "".join(f" and tags.`{name}` = '{value}'" for name, value in wanted.items())
        order = ["attributes.start_time DESC"]
        condition = f"attributes.status = 'FINISHED'{tagged}"
        return list(self.client.search_runs([self.experiment], condition, max_results=_AT_ONCE, order_by=order))


def _dates(line: TrackedRun) -> list[str]:
    return [date for date in line.data.tags[DATE].split(_COMMA) if date]


def begin(client: MlflowClient, experiment: str, run: Run) -> Record:
    """Begin a report's run in the experiment with this name; delete what an unfinished attempt left."""
    known = experiment_id(client, experiment)
    client.set_experiment_tag(known, *_SHOWN_AS)
    for attempt in runs_of(client, known, run, {KIND: "report"}):
        if attempt.info.status != "FINISHED":
            client.delete_run(attempt.info.run_id)
    return Record(client, known, run, _begin(client, known, run, "report", f"{run.dag_id} {run.date}"))


def _begin(client: MlflowClient, experiment: str, run: Run, kind: str, name: str) -> str:
    tags = airflow_tags(run) | {KIND: kind, DATE: f"{run.date}", _NAME: name}
    return str(client.create_run(experiment, tags=tags).info.run_id)


def _log_points(client: MlflowClient, run_id: str, metrics: Mapping[str, float], date: dt.date) -> None:
    """Log metrics as of a date: the time axis shows the data's dates, not when they were compared."""
    from mlflow.entities import Metric

    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    when, step = int(midnight.timestamp() * 1000), (date - dt.date(1970, 1, 1)).days
    points = [Metric(name, value, when, step) for name, value in metrics.items()]
    for first in range(0, len(points), _AT_ONCE):
        client.log_batch(run_id, metrics=points[first : first + _AT_ONCE])
