"""The demo of crypto_events_dag: a run that loads, then one whose bad rows are stopped by the gate.

Everything shown is read back from Airflow and Postgres; the decisions are the pipeline's.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from stack.demo.runs import follow, output
from stack.screen import CONSOLE

if TYPE_CHECKING:
    from stack.airflow_api import AirflowApi, DagRun
    from stack.assembly import Stack

DAG = "crypto_events_dag"
SERVICES = ("postgres", "objects", "airflow")
PROD = ("prod", "bt_crypto_events")
REJECTS = ("dqm", "bt_crypto_events_rejects_latest")
CLEAN_ROWS_PER_DAY = 4000
"""More than the default: the demo's first run has rows to insert even if a scheduled run comes first."""
BAD_DAYS_AGO = 90
"""The run with bad rows is for a past day, to keep them outside the windows of later runs."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A summary of a table: enough to see that nothing in it changed."""

    rows: int
    active: int
    fingerprint: str


def show(stack: Stack, api: AirflowApi) -> tuple[bool, list[DagRun]]:
    """Run the pipeline twice and show the results; return whether all went as expected, and the runs."""
    api.await_dag(DAG, seconds=120)
    good = follow(api, DAG, f"{DAG}: a run with clean data", {"rows_per_day": CLEAN_ROWS_PER_DAY})
    _show_counts(api, good)
    before = tally(stack, PROD)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=BAD_DAYS_AGO)
    bad = follow(api, DAG, f"{DAG}: a run for a past day with 5 % bad rows", {"bad_share": 0.05}, past)
    after = tally(stack, PROD)
    _show_rejects(stack, bad)
    _show_prod(before, after)
    return (good.state, bad.state) == ("success", "failed") and before == after, [good, bad]


def _show_counts(api: AirflowApi, run: DagRun) -> None:
    history, staged = (
        output(api, run, "generate_fake_history_last_5_days"),
        output(api, run, "build_events_candidate"),
    )
    merged, gate = output(api, run, "merge_to_prod"), output(api, run, "ge_validate_candidate")
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
        row = cursor.fetchone()
    assert row is not None
    return Tally(*row)


def _show_prod(before: Tally, after: Tally) -> None:
    same = "[green]unchanged[/]" if before == after else "[red]changed[/]"
    CONSOLE.print(f"prod.bt_crypto_events: {after.rows:,} rows, {after.active:,} active, {same} by the second run")
