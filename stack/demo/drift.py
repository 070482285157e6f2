"""The demo of churn_drift_monitor_w: a run on the features as they are, then one with a shift.

Everything shown is read back from Airflow; the decisions are the pipeline's.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from rich.table import Table

from stack.demo.runs import LOGIN, follow, output
from stack.screen import CONSOLE

if TYPE_CHECKING:
    from stack.airflow_api import AirflowApi, DagRun
    from stack.assembly import Stack

DAG = "churn_drift_monitor_w"
SERVICES = ("postgres", "objects", "airflow", "mlflow", "app")
SHIFT = 2
"""How many standard deviations the second run adds to what people pay and hold."""
FIRST_WEEK = {"reference_dates": "any"}
"""The demo trains in the same week, and its snapshot is the only one."""

VERDICTS = {"True": "[red]drift[/]", "False": "[green]no drift[/]"}


def show(stack: Stack, api: AirflowApi) -> tuple[bool, list[DagRun]]:
    """Run the pipeline twice and show the results; return whether all went as expected, and the runs."""
    api.await_dag(DAG, seconds=120)
    first, second = _dates(api)
    runs = [
        follow(api, DAG, f"{DAG}: the features as they are", FIRST_WEEK, first),
        follow(api, DAG, f"{DAG}: with a shift of {SHIFT} deviations", {**FIRST_WEEK, "shift": SHIFT}, second),
    ]
    reports = [output(api, run, "run_drift_report") for run in runs]
    table = Table("verdict", title="drift", title_justify="left", title_style="bold")
    for name in ("share", "rows used", "key"):
        table.add_column(name, justify="left" if name == "key" else "right", overflow="fold")
    for report in reports:
        verdict = VERDICTS.get(str(report.get("drift_detected")), "-")
        used = f"{report.get('current_rows_used', 0):,} of {report.get('current_rows', 0):,}"
        table.add_row(verdict, f"{report.get('drift_share', float('nan')):.2f}", used, report.get("s3_key") or "-")
    CONSOLE.print(table)
    for report in reports:
        CONSOLE.print(f"  {report.get('summary', 'no report')}")
    CONSOLE.print(f"The app plots the weeks: {stack.app.address}, tab Drift; {LOGIN}")
    verdicts = [report.get("drift_detected") for report in reports]
    return all(run.state == "success" for run in runs) and verdicts == [False, True], runs


def _dates(api: AirflowApi) -> tuple[dt.datetime, dt.datetime]:
    """Return the logical dates of the runs, on two days: each date keeps one report.

    The first replaces the run that the schedule is due, if any; no date is in the future.
    """
    now, day, due = dt.datetime.now(dt.UTC), dt.timedelta(days=1), api.due(DAG)
    if due is None:
        return now - day, now
    return due, now if due.date() < now.date() else due - day
