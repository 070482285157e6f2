"""`make demo`: from nothing to a pipeline that ran on the scheduler, then the same pipeline stopped by its gate.

Everything it says is read back from Airflow and Postgres; it decides nothing that the pipeline decides.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from stack import assembly, paths
from stack.airflow_api import AirflowApi, ApiError, DagRun
from stack.cli import up
from stack.screen import CONSOLE, addresses_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from stack.assembly import Stack

DAG = "crypto_events_dag"
PROD = ("prod", "bt_crypto_events")
REJECTS = ("dqm", "bt_crypto_events_rejects")
CLEAN_ROWS_PER_DAY = 4000
"""More than the schedule's default: the first run has something to insert, whichever of the two comes first."""
BAD_DAYS_AGO = 90
"""The spoilt run stands for a past day: its bad rows lie outside the windows of the runs to come."""

_COLOURS = {"success": "green", "failed": "red", "skipped": "magenta", "upstream_failed": "dark_orange"}
_QUIET = frozenset({"waiting", "scheduled", "queued"})


@dataclass(frozen=True, slots=True)
class Tally:
    """What a table holds: enough to see that nothing in it changed."""

    rows: int
    active: int
    fingerprint: str


def main() -> None:
    """Start the stack, run the pipeline twice, and show what came of it; exit with 1 unless all went as it should."""
    os.umask(0o077)
    up(None)
    stack = assembly.existing(paths.home())
    api = stack.api()
    api.await_dag(DAG, seconds=120)
    good = _run(api, "A run with clean data", {"rows_per_day": CLEAN_ROWS_PER_DAY})
    _show_counts(api, good)
    before = tally(stack, PROD)
    bad = _run(api, "A run for a past day with 5 % of bad rows", {"bad_share": 0.05}, days_ago=BAD_DAYS_AGO)
    after = tally(stack, PROD)
    _show_rejects(stack, bad)
    _show_prod(before, after)
    _show_addresses(stack, api, (good, bad))
    if good.state != "success" or bad.state != "failed" or before != after:
        CONSOLE.print("\n[red]error[/]   the demo did not go as it should; the pages above tell why")
        raise typer.Exit(1)


def _run(api: AirflowApi, title: str, conf: Mapping[str, JsonValue], days_ago: int = 0) -> DagRun:
    CONSOLE.print(f"\n[bold]{title}[/]")
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(days=days_ago)
    run = api.trigger(DAG, conf, logical_date=moment.isoformat() if days_ago else None)
    api.unpause(DAG)
    told: dict[str, str] = {}

    def tell(states: Mapping[str, str]) -> None:
        for task, state in states.items():
            if told.get(task) != state and state not in _QUIET:
                CONSOLE.print(f"  [{_COLOURS.get(state, 'cyan')}]{state:16}[/] {task}")
        told.update(states)

    ended = api.wait(run, seconds=900, told=tell)
    CONSOLE.print(f"  [bold {_COLOURS[ended.state]}]{ended.state}[/]  {api.run_page(run)}")
    return ended


def _show_counts(api: AirflowApi, run: DagRun) -> None:
    history, staged = (
        _output(api, run, "generate_fake_history_last_5_days"),
        _output(api, run, "build_events_candidate"),
    )
    merged, gate = _output(api, run, "merge_to_prod"), _output(api, run, "ge_validate_candidate")
    table = Table(title="rows", title_justify="left", title_style="bold")
    numbers = {
        "raw": history.get("rows"),
        "staged": staged.get("rows"),
        "inserted": merged.get("inserted"),
        "updated": merged.get("updated"),
        "deactivated": merged.get("deactivated"),
        "rejected": gate.get("rejected"),
    }
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_row(*("-" if number is None else f"{number:,}" for number in numbers.values()))
    CONSOLE.print(table)


def _output(api: AirflowApi, run: DagRun, task: str) -> dict[str, Any]:
    """Return what a task returned, or nothing when it did not get that far."""
    try:
        output = api.output(run.dag_id, run.run_id, task)
    except ApiError:
        return {}
    return output if isinstance(output, dict) else {}


def _show_rejects(stack: Stack, run: DagRun) -> None:
    from psycopg2 import sql

    table = Table("reason", title="rejected", title_justify="left", title_style="bold")
    table.add_column("rows", justify="right")
    query = sql.SQL("SELECT reason, count(*) FROM {} WHERE dag_id = %s AND run_id = %s GROUP BY reason ORDER BY reason")
    with stack.crypto.connect() as connection, connection.cursor() as cursor:
        cursor.execute(query.format(sql.Identifier(*REJECTS)), (run.dag_id, run.run_id))
        for reason, rows in cursor:
            table.add_row(escape(reason), f"{rows:,}")
    CONSOLE.print(table)


def tally(stack: Stack, table: tuple[str, str]) -> Tally:
    """Return the rows, the active rows and a fingerprint of every value of `table`."""
    from psycopg2 import sql

    query = sql.SQL(
        "SELECT count(*), count(*) FILTER (WHERE is_active), "
        "coalesce(sum(hashtextextended(t::text, 0))::text, '') FROM {} AS t"
    )
    with stack.crypto.connect() as connection, connection.cursor() as cursor:
        cursor.execute(query.format(sql.Identifier(*table)))
        found = cursor.fetchone()
    assert found is not None
    return Tally(*found)


def _show_prod(before: Tally, after: Tally) -> None:
    same = "[green]unchanged[/]" if before == after else "[red]changed[/]"
    CONSOLE.print(f"prod.bt_crypto_events: {after.rows:,} rows, {after.active:,} active, {same} by the second run")


def _show_addresses(stack: Stack, api: AirflowApi, runs: tuple[DagRun, DagRun]) -> None:
    CONSOLE.print("\n[bold]Where to look[/]")
    CONSOLE.print(addresses_table(stack.addresses(), stack.credentials))
    for run in runs:
        colour = _COLOURS[run.state]
        CONSOLE.print(f"  [{colour}]{run.state:8}[/] {api.run_page(run)}")
    CONSOLE.print(
        "\n`make status` tells how the services are, `make down` stops them, `make destroy` removes their data."
    )


if __name__ == "__main__":
    typer.run(main)
