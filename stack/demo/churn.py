"""The demo of churn_training_dag: the first run promotes its model, the second, on the same data, skips.

Everything it says is read back from Airflow; it decides nothing that the pipeline decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from stack.demo.runs import follow, output
from stack.screen import CONSOLE

if TYPE_CHECKING:
    from stack.airflow_api import AirflowApi, DagRun
    from stack.assembly import Stack

DAG = "churn_training_dag"
SERVICES = ("postgres", "objects", "airflow", "spark", "mlflow", "app")
USERS = 20_000
METRICS = ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy")


def show(stack: Stack, api: AirflowApi) -> tuple[bool, list[DagRun]]:
    """Run the pipeline twice and show what came of it; return whether all went as it should, and the runs."""
    api.await_dag(DAG, seconds=120)
    first = follow(api, DAG, f"{DAG}: a first model of {USERS:,} users", {"users": USERS})
    second = follow(api, DAG, f"{DAG}: once more, with the same data", {"users": USERS})
    runs = [first, second]
    verdicts = [output(api, run, "evaluate_candidate") for run in runs]
    _show_rows(api, first)
    _show_models(api, runs, verdicts)
    CONSOLE.print(f"The app scores people with the Production model: {stack.app.address}")
    right = all(run.state == "success" for run in runs)
    return right and [verdict.get("promote") for verdict in verdicts] == [True, False], runs


def _show_rows(api: AirflowApi, run: DagRun) -> None:
    table = Table("source", title="cleaned", title_justify="left", title_style="bold")
    for name in ("read", "kept", "dropped"):
        table.add_column(name, justify="right")
    for source, counts in output(api, run, "clean_raw_sources").get("sources", {}).items():
        table.add_row(source, *(f"{counts[name]:,}" for name in ("read", "kept", "dropped")))
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
