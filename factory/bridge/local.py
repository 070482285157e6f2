"""A run of one pipeline in this process: no scheduler, Airflow's own task runner, connections of the environment."""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from factory.planning.plan import Plan

_COLOURS = {"success": "green", "failed": "red", "upstream_failed": "dark_orange", "skipped": "magenta"}


def run_here(plan: Plan, file: Path, date: dt.datetime | None, params: dict[str, object], console: Console) -> bool:
    """Run `plan` step by step and show how each ended; return whether all went well."""
    with tempfile.TemporaryDirectory(prefix="taskflow-run-") as home:
        _configure(Path(home), file)
        dag_run = _run(plan, file, date or dt.datetime.now(dt.UTC), params, console)
        console.print(_outcome(plan, dag_run))
        return str(dag_run.state) == "success"


def _configure(home: Path, file: Path) -> None:
    """Give Airflow a metadata database that lives as long as this run; connections come from AIRFLOW_CONN_… variables.

    Airflow reads this when it is first imported, which is why nothing above imports it.
    """
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(file.absolute().parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    os.environ.update(settings)
    sys.warnoptions.append("ignore")  # Airflow turns its own deprecation warnings on unless options were given
    warnings.simplefilter("ignore")


def _run(plan: Plan, file: Path, date: dt.datetime, params: dict[str, object], console: Console) -> Any:
    from airflow.utils.db import initdb

    from factory.bridge.dag import build

    initdb()
    dag = build(plan)
    dag.fileloc, dag.relative_fileloc = str(file.absolute()), file.name
    _show_what_tasks_say(console)
    midnight = date.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=ZoneInfo(plan.timezone or "UTC"))
    return dag.test(logical_date=midnight, run_conf=params)


def _show_what_tasks_say(console: Console) -> None:
    logger = logging.getLogger("tasks")
    logger.handlers = [RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _outcome(plan: Plan, dag_run: Any) -> Table:
    table = Table(
        "step", "state", "seconds", title=f"{plan.dag_id} {dag_run.logical_date:%Y-%m-%d}", title_justify="left"
    )
    for ti in sorted(
        dag_run.get_task_instances(), key=lambda one: one.start_date or dt.datetime.max.replace(tzinfo=dt.UTC)
    ):
        state = str(ti.state)
        seconds = f"{ti.duration:.1f}" if ti.duration else ""
        step = ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
        table.add_row(Text(step), f"[{_COLOURS.get(state, 'default')}]{state}[/]", seconds)
    return table
