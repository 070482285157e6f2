"""A pipeline run in this process: no scheduler, Airflow's own task runner, connections from the environment."""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from factory.bridge.deployment import be_local
from factory.compiler import Compiled
from factory.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended, in Airflow's words; a mapped step is one outcome for each item."""

    name: str
    state: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended, with its steps in the order they began."""

    date: dt.date
    state: str
    steps: tuple[StepOutcome, ...]


def run_here(
    compiled: Compiled, file: Path, date: dt.date, params: Mapping[str, object], *, log: logging.Handler
) -> RunOutcome:
    """Run the plan of the spec `file` step by step; the tasks' log goes to `log`.

    Raises SpecError if Airflow's providers refuse it.
    """
    with tempfile.TemporaryDirectory(prefix="taskflow-run-") as home:
        _configure(Path(home), file)
        return _outcome(_run(compiled, file, date, params, log))


def _configure(home: Path, file: Path) -> None:
    """Give Airflow a metadata database for this run only; connections come from AIRFLOW_CONN_… variables.

    Airflow reads this when it is first imported, so nothing above imports it.
    """
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(file.absolute()),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    os.environ.update(settings)
    be_local()
    sys.warnoptions.append("ignore")  # without any option, Airflow turns on its own deprecation warnings
    warnings.simplefilter("ignore")


def _run(compiled: Compiled, file: Path, date: dt.date, params: Mapping[str, object], log: logging.Handler) -> Any:
    from airflow.utils.db import initdb

    from factory.bridge.asset_rules import report_refused_assets
    from factory.bridge.dag import build

    report_refused_assets(compiled)
    compiled.report.require_no_errors()
    plan = compiled.plan
    assert plan is not None
    initdb()
    dag = build(_silent(plan))
    dag.fileloc, dag.relative_fileloc = str(file.absolute()), file.name
    _show_what_tasks_say(log)
    logging.getLogger("airflow.sdk.definitions.dag").setLevel(logging.ERROR)  # it warns of the steps after a failed one
    midnight = dt.datetime.combine(date, dt.time(), ZoneInfo(plan.timezone or "UTC"))
    return dag.test(logical_date=midnight, run_conf=dict(params))


def _silent(plan: Plan) -> Plan:
    """Return `plan` without its notices: whoever runs it here sees how it ends, and nobody is called for a trial."""
    return replace(plan, notify={}, nodes=tuple(replace(node, notify={}) for node in plan.nodes))


def _show_what_tasks_say(log: logging.Handler) -> None:
    logger = logging.getLogger("tasks")
    logger.handlers = [log]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _outcome(dag_run: Any) -> RunOutcome:
    never = dt.datetime.max.replace(tzinfo=dt.UTC)
    in_order = sorted(dag_run.get_task_instances(), key=lambda ti: ti.start_date or never)
    steps = tuple(StepOutcome(_step_name(ti), str(ti.state), ti.duration) for ti in in_order)
    return RunOutcome(dag_run.logical_date.date(), str(dag_run.state), steps)


def _step_name(ti: Any) -> str:
    return str(ti.task_id) if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
