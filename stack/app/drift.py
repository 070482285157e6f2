"""The drift reports that a monitor recorded in MLflow: one for each date, the newest if there are several.

Knows the tags, params and metrics that `drift.report` records; draws nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities import Run

    from stack.app.registered_models import Registry

_REPORTS = "attributes.status = 'FINISHED' and tags.`drift.kind` = 'report'"
_MOST = 200
_SCORE = "score/"


@dataclass(frozen=True, slots=True)
class Report:
    """What one report found."""

    date: dt.date
    share: float
    greatest: float
    """The maximum share of drifted columns; above it the data as a whole has drifted."""
    drifted: str
    """The columns that drifted, separated by commas."""
    scores: Mapping[str, float]
    """By column: a distance or a p-value."""
    page: str
    """Where the page is: s3://bucket/key, or a path on a disk."""

    @property
    def detected(self) -> bool:
        """Whether the data as a whole has drifted."""
        return self.share > self.greatest


def reports(registry: Registry, experiment: str) -> list[Report]:
    """Return an experiment's reports by date, or an empty list if there is no such experiment; raise Unusable."""
    with registry.answering():
        client = registry.client()
        monitored = client.get_experiment_by_name(experiment)
        if monitored is None:
            return []
        order = ["attributes.start_time DESC"]
        runs = client.search_runs([monitored.experiment_id], _REPORTS, max_results=_MOST, order_by=order)
    newest = {report.date: report for report in map(_report, reversed(runs))}
    return [newest[date] for date in sorted(newest)]


def _report(run: Run) -> Report:
    metrics, tags = run.data.metrics, run.data.tags
    return Report(
        date=dt.date.fromisoformat(tags["drift.date"]),
        share=metrics["drift_share"],
        greatest=float(run.data.params["max_drift_share"]),
        drifted=tags["drift.columns"],
        scores={name.removeprefix(_SCORE): value for name, value in metrics.items() if name.startswith(_SCORE)},
        page=tags["drift.report"],
    )


def address(page: str, airflow: str) -> str | None:
    """Return the report's address in Airflow, which needs a login there; None for a path on a disk."""
    scheme, _, rest = page.partition("://")
    return f"{airflow.rstrip('/')}/artifacts/{quote(rest)}" if airflow and scheme == "s3" else None
