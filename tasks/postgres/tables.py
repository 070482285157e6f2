"""Tables of Postgres: make them from a file of SQL, rebuild one from another, merge one into another, vacuum one.

Knows SQL and its locks; knows nothing of what the rows mean. One task is one transaction, so that it may be killed at
any point and run again.
"""

from __future__ import annotations

import datetime as dt
import re
from time import monotonic
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tasks.contract import (
    Column,
    ConnectionId,
    Output,
    PermanentError,
    Run,
    Sql,
    SqlFile,
    Table,
    reusable,
)
from tasks.postgres.merging import Deactivation, Merged, Terms, Timestamps, merge_tables
from tasks.postgres.sql import fragment, table_identifier
from tasks.postgres.statements import joined, names, only_row, statement
from tasks.services.postgres import postgres
from tasks.sql_files import sql_text

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

Bound = str | int | float | bool | dt.date | None
"""A value that is bound to a `%(name)s` of a SQL file."""


_PLACEHOLDER = re.compile(r"%(?P<form>%|\((?P<name>\w+)\)s|)")


class Executed(Output):
    """What a file of SQL did."""

    rows: int
    """Rows that the file's last statement wrote or returned; 0 for one that defines something."""


class Rebuilt(Output):
    """What a rebuild left."""

    rows: int
    """Rows of the table now."""


class Vacuumed(Output):
    """What a vacuum found and left, as the server's statistics count it."""

    table: str
    live_rows: int
    dead_rows_before: int
    dead_rows_after: int


@reusable("postgres.run_sql", role="maintenance")
def run_sql(connection: ConnectionId, file: SqlFile, values: dict[str, Bound] | None = None, *, run: Run) -> Executed:
    """Run a file of `configs/sql/` in one transaction: all of it happens, or nothing does.

    `file` is its path below `configs/sql/`; it may hold many statements, but none that ends the transaction. Each of
    `values` is bound to `%(name)s` in the file, where a plain `%` is then written `%%`. Two runs of one file wait for
    each other. Write it so that it may run again (`CREATE TABLE IF NOT EXISTS`).
    """
    text = sql_text(file, run)
    if values:
        check_placeholders(file, text, values)
    started = monotonic()
    with postgres(connection, run=run) as session, session.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('postgres.run_sql'), hashtext(%s))", (file,))
        cursor.execute(text, values or None)
        rows = max(cursor.rowcount, 0)
    run.log.info("%s: done in %.1f s, %s rows", file, monotonic() - started, f"{rows:,}")
    return Executed(rows=rows)


def check_placeholders(file: str, text: str, values: Collection[str]) -> None:
    """Raise PermanentError unless the file's `%(name)s` and the step's values are the same."""
    used = set()
    for found in _PLACEHOLDER.finditer(text):
        place = f"configs/sql/{file}, line {text.count(chr(10), 0, found.start()) + 1}"
        if not found["form"]:
            raise PermanentError(f"{place}: with `values` a plain % is written %%, and a value %(name)s")
        if found["name"] and found["name"] not in values:
            given = ", ".join(sorted(values))
            raise PermanentError(f"{place}: %({found['name']})s has no value; `values` of the step has {given}")
        used.add(found["name"])
    if unused := sorted(set(values) - used):
        raise PermanentError(f"configs/sql/{file} has no %({unused[0]})s; remove {unused[0]} from `values`, or use it")


@reusable("postgres.rebuild_table", role="transform")
def rebuild_table(
    connection: ConnectionId,
    target: Table,
    source: Table,
    columns: Annotated[dict[Column, Sql], Field(min_length=1)],
    where: Sql | None = None,
    *,
    run: Run,
) -> Rebuilt:
    """Empty `target` and refill it from `source`, in one transaction.

    `columns` gives each column of `target` as an expression over a row of `source`; `where` limits the rows. Readers
    of `target` wait until the new rows are there: they never see it empty or half full.
    """
    if source == target:
        raise PermanentError(f"{target} cannot be rebuilt from itself: it is emptied first; name another `source`")
    started = monotonic()
    with postgres(connection, run=run) as session, session.cursor() as cursor:
        # Not DELETE: it writes every old row once more, and leaves the table twice as long for all that scan it until
        # a vacuum comes by. TRUNCATE costs nothing, but takes the table from its readers until the commit, and a
        # REPEATABLE READ transaction that began before will find it empty. A staging table is read by its own run.
        cursor.execute(statement("TRUNCATE {target}", target=table_identifier(target)))
        cursor.execute(_refill(target, source, columns, where))
        rows = cursor.rowcount
        cursor.execute(statement("ANALYZE {target}", target=table_identifier(target)))  # what reads it next plans by it
    run.log.info("%s: %s rows from %s in %.1f s", target, f"{rows:,}", source, monotonic() - started)
    return Rebuilt(rows=rows)


def _refill(target: str, source: str, columns: dict[str, str], where: str | None) -> Composable:
    return statement(
        "INSERT INTO {target} ({columns}) SELECT {values} FROM {source} WHERE {where}",
        target=table_identifier(target),
        columns=names(columns),
        values=joined(", ", map(fragment, columns.values())),
        source=table_identifier(source),
        where=fragment(where or "TRUE"),
    )


@reusable("postgres.merge", role="load")
def merge(
    connection: ConnectionId,
    source: Table,
    target: Table,
    keys: Annotated[list[Column], Field(min_length=1)],
    columns: list[Column] | None = None,
    deactivate: Deactivation | None = None,
    timestamps: Timestamps | None = None,
    *,
    run: Run,
) -> Merged:
    """Bring `target` up to `source`: insert, update, bring back and switch off rows, in one transaction.

    Only rows that are new, changed or returning are written, nulls compared as equal: of the `timestamps`, `created`
    is set on new rows and `updated` moves on those that were written or switched off. `keys` must be the columns of a
    unique constraint of `target`, and no two rows of `source` may share them. `columns` are the values to carry, by
    default all columns that both tables have. With `deactivate`, active rows of `target` inside its `window` that are
    not in `source` get their flag set to false, and rows that come back get it set to true. Other writers of `target`
    wait meanwhile; readers do not.
    """
    terms = Terms(source, target, keys, columns, deactivate, timestamps or Timestamps())
    started = monotonic()
    with postgres(connection, run=run) as session, session.cursor() as cursor:
        _lock(cursor, source, target)
        done = merge_tables(cursor, terms)
    counts = ", ".join(f"{rows:,} {kind}" for kind, rows in done)
    run.log.info("%s: %s in %.1f s", target, counts, monotonic() - started)
    return done


def _lock(cursor: Cursor, source: str, target: str) -> None:
    """Take what the merge reads and writes, then one snapshot for all of its statements.

    The order matters: a snapshot older than the locks would miss what the run before committed, and would see a
    source that was truncated and refilled meanwhile as empty.
    """
    locks = "LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE; LOCK TABLE {source} IN ACCESS SHARE MODE"
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    cursor.execute(statement(locks, target=table_identifier(target), source=table_identifier(source)))


@reusable("postgres.vacuum", role="maintenance")
def vacuum(connection: ConnectionId, table: Table, *, run: Run) -> Vacuumed:
    """Vacuum `table` and gather its statistics, so that dead rows make room and later plans are good.

    Readers and writers go on meanwhile. The login must own the table, or have MAINTAIN on it.
    """
    started = monotonic()
    with postgres(connection, run=run, autocommit=True) as session, session.cursor() as cursor:
        counted = {"table": table_identifier(table).as_string(session)}
        cursor.execute(_COUNT_ROWS, counted)
        _, before = only_row(cursor)
        cursor.execute(statement("VACUUM (ANALYZE) {table}", table=table_identifier(table)))
        _refuse_skipped(table, session.notices)
        cursor.execute(_COUNT_ROWS, counted)
        live, after = only_row(cursor)
    run.log.info("%s: %s dead rows before, %s after, in %.1f s", table, before, after, monotonic() - started)
    return Vacuumed(table=table, live_rows=live, dead_rows_before=before, dead_rows_after=after)


_COUNT_ROWS = "SELECT pg_stat_get_live_tuples(%(table)s::regclass), pg_stat_get_dead_tuples(%(table)s::regclass)"


def _refuse_skipped(table: str, notices: list[str]) -> None:
    """Raise PermanentError where the server only warned: it skips a table that the login may not vacuum."""
    for notice in notices:
        if "skipping" in notice:
            raise PermanentError(
                f"{table} was not vacuumed ({notice.strip()}); let its owner run it, or GRANT MAINTAIN"
            )
