"""The demo of churn_drift_monitor_w: the features as they are, then the same with a shift.

Everything it says is read back from Airflow; it decides nothing that the pipeline decides.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from rich.table import Table

from stack.demo.runs import follow, output
from stack.screen import CONSOLE

if TYPE_CHECKING:
    from stack.airflow_api import AirflowApi, DagRun
    from stack.assembly import Stack

DAG = "churn_drift_monitor_w"
SERVICES = ("postgres", "objects", "airflow", "mlflow", "app")
SHIFT = 2
"""Standard deviations by which the second run moves what people pay and hold."""
FIRST_WEEK = {"reference_dates": "any"}
"""The demo's training is of the same week: its snapshot is the only one there is."""

VERDICTS = {"True": "[red]drift[/]", "False": "[green]no drift[/]"}


def show(stack: Stack, api: AirflowApi) -> tuple[bool, list[DagRun]]:
    """Run the pipeline twice and show what came of it; return whether all went as it should, and the runs."""
    api.await_dag(DAG, seconds=120)
    first, second = _dates(api)
    runs = [
        follow(api, DAG, f"{DAG}: the features as they are", FIRST_WEEK, first),
        follow(api, DAG, f"{DAG}: with a shift of {SHIFT} deviations", {**FIRST_WEEK, "shift": SHIFT}, second),
    ]
    found = [output(api, run, "run_drift_report") for run in runs]
    table = Table("verdict", title="drift", title_justify="left", title_style="bold")
    for name in ("share", "rows used", "key"):
        table.add_column(name, justify="left" if name == "key" else "right", overflow="fold")
    for one in found:
        verdict = VERDICTS.get(str(one.get("drift_detected")), "-")
        used = f"{one.get('current_rows_used', 0):,} of {one.get('current_rows', 0):,}"
        table.add_row(verdict, f"{one.get('drift_share', float('nan')):.2f}", used, one.get("s3_key") or "-")
    CONSOLE.print(table)
    for one in found:
        CONSOLE.print(f"  {one.get('summary', 'no report')}")
    CONSOLE.print(f"The app draws the weeks as a line: {stack.app.address}, tab Drift")
    verdicts = [one.get("drift_detected") for one in found]
    return all(run.state == "success" for run in runs) and verdicts == [False, True], runs


def _dates(api: AirflowApi) -> tuple[dt.datetime, dt.datetime]:
    """Return the logical dates of the runs, on two days: a report is kept under its date.

    The first takes the place of the run that the schedule owes, if there is one; no run is of the future.
    """
    now, day, due = dt.datetime.now(dt.UTC), dt.timedelta(days=1), api.due(DAG)
    if due is None:
        return now - day, now
    return due, now if due.date() < now.date() else due - day
