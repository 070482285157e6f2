"""The demo of churn_training_dag: the first run promotes its model, the second, on the same data, skips it.

If an earlier demo left a Production model, the first run has to beat it.

Everything shown is read back from Airflow; the decisions are the pipeline's.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from rich.table import Table

from stack.demo.runs import LOGIN, follow, output
from stack.screen import CONSOLE

if TYPE_CHECKING:
    from stack.airflow_api import AirflowApi, DagRun
    from stack.assembly import Stack

DAG = "churn_training_dag"
SERVICES = ("postgres", "objects", "airflow", "spark", "mlflow", "app")
NAMES = ("read", "kept", "dropped")
METRICS = ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy")


def show(stack: Stack, api: AirflowApi) -> tuple[bool, list[DagRun]]:
    """Run the pipeline twice and show the results; return whether all went as expected, and the runs."""
    api.await_dag(DAG, seconds=120)
    dates = _dates(api)
    runs = [
        follow(api, DAG, f"{DAG}: a first model", {}, dates[0]),
        follow(api, DAG, f"{DAG}: once more, on the same data", {}, dates[1]),
    ]
    first, second = (output(api, run, "evaluate_candidate") for run in runs)
    _show_rows(api, runs[0])
    _show_models(api, runs, [first, second])
    CONSOLE.print(f"The app scores people with the Production model: {stack.app.address}; {LOGIN}")
    has_production = first.get("promote") or first.get("production_version")
    return all(run.state == "success" for run in runs) and bool(has_production) and second.get("promote") is False, runs


def _dates(api: AirflowApi) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the logical dates of two runs of the same day, replacing the run that the schedule is due, if any.

    Otherwise that run would come first and promote its model.
    """
    due = api.due(DAG)
    return (due, due + dt.timedelta(minutes=1)) if due else (None, None)


def _show_rows(api: AirflowApi, run: DagRun) -> None:
    table = Table("source", title="cleaned", title_justify="left", title_style="bold")
    for name in NAMES:
        table.add_column(name, justify="right")
    cleaned = output(api, run, "clean_raw_sources")
    for source in cleaned.get("rows_read", {}):
        table.add_row(source, *(f"{cleaned[f'rows_{name}'][source]:,}" for name in NAMES))
    CONSOLE.print(table)


def _show_models(api: AirflowApi, runs: list[DagRun], verdicts: list[dict[str, Any]]) -> None:
    table = Table("candidate", title="models", title_justify="left", title_style="bold")
    for name in METRICS:
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    for run, verdict in zip(runs, verdicts, strict=True):
        trained = output(api, run, "train_spark_model")
        numbers = [f"{trained[name]:.4f}" if name in trained else "-" for name in METRICS]
        table.add_row(f"version {verdict.get('candidate_version', '-')}", *numbers, verdict.get("verdict", "-"))
    CONSOLE.print(table)
