"""Postgres tables: create them from a SQL file, rebuild one from another, merge one into another, vacuum one.

Knows SQL and its locks, not what the rows mean. One task is one transaction, so it can be killed at any point and run
again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tasks.contract import (
    BuiltIn,
    BuiltTable,
    ClaimTimeout,
    Conflict,
    ConnectionId,
    LoadedTable,
    LockTimeout,
    Output,
    PermanentError,
    Run,
    Sql,
    StatementsFile,
    Table,
    TableColumn,
    reusable,
)
from tasks.postgres.blame import Parts, blamed
from tasks.postgres.claims import claim, note_loaded, require_claims
from tasks.postgres.file_text import functions_given_texts, statement_problems, unused
from tasks.postgres.merging import Deactivation, Merged, Terms, Timestamps, merge_tables
from tasks.postgres.passes import Judged, fingerprint, require_passes
from tasks.postgres.reached import require_known_calls
from tasks.postgres.relations import foreign_part, kind_of
from tasks.postgres.sql import fragment, table_identifier
from tasks.postgres.statements import joined, name, names, only_row, statement
from tasks.postgres.versions import make_records, own_build, record_build
from tasks.services.postgres import postgres
from tasks.sql_files import refuse, sql_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

Bound = str | int | float | bool | dt.date | None
"""A value bound to a `%(name)s` in a SQL file."""


class Executed(Output):
    """What a SQL file did."""

    rows: int
    """Rows that the file's last statement wrote or returned; 0 for a definition."""


class Rebuilt(Output):
    """The table after a rebuild."""

    rows: int
    """Rows in the table now."""


class Vacuumed(Output):
    """The rows before and after a vacuum, as counted by the server's statistics."""

    table: str
    live_rows: int
    dead_rows_before: int
    dead_rows_after: int


@reusable("postgres.run_sql", role="maintenance", kind="deferrable")
def run_sql(
    connection: ConnectionId,
    file: StatementsFile,
    values: dict[str, Bound] | None = None,
    builds: list[BuiltTable] | None = None,
    lock_timeout: LockTimeout = 60,
    claim_timeout: ClaimTimeout = 7200,
    *,
    run: Run,
) -> Executed:
    """Run a file of `configs/sql/` in one transaction: all of it happens, or none of it.

    `file` is its path below `configs/sql/`; it can have many statements, but none that ends the transaction. Each of
    `values` is bound to `%(name)s` in the file, outside of quotes and comments; a plain `%` is then written `%%`. Two
    runs of the same file wait for each other. Write it so that it can run again (`CREATE TABLE IF NOT EXISTS`).
    `builds` names the tables that the file empties and fills, so that gates and loads accept their rows as this run's.

    While another run has claimed one of the tables in `builds`, the step waits up to `claim_timeout` seconds, without a
    worker's slot. It waits up to `lock_timeout` seconds for a lock that no task holds.
    """
    text = sql_text(file, run)
    refuse(file, text, statement_problems(text, values or {}))
    check_values(file, text, values or {})
    if builds:
        claim((BuiltIn(connection, table) for table in builds), run, claim_timeout)
    started = monotonic()
    with postgres(connection, run=run, lock_timeout=lock_timeout) as session, session.cursor() as cursor:
        _require_values_are_not_run(cursor, file, text, values or {})
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('postgres.run_sql'), hashtext(%s))", (file,))
        cursor.execute(text, values or None)
        rows = max(cursor.rowcount, 0)
        for table in builds or ():
            record_build(cursor, table, run)
        require_claims(run)
    run.log.info("%s: done in %.1f s, %s rows", file, monotonic() - started, f"{rows:,}")
    return Executed(rows=rows)


def check_values(file: str, text: str, values: Mapping[str, object]) -> None:
    """Raise PermanentError for a value of the step that the file does not use."""
    for unknown in unused(text, values):
        raise PermanentError(f"configs/sql/{file} has no %({unknown})s; remove {unknown} from `values`, or use it")


_OTHER_NAMES = """
    SELECT DISTINCT proname::text FROM pg_catalog.pg_proc
    WHERE proname = ANY(%s) AND probin IN ('$libdir/dblink', '$libdir/pgxml', '$libdir/tablefunc')
    ORDER BY 1
"""
"""What is made of the libraries whose functions run a text, as the manual of crosstab shows."""


def _require_values_are_not_run(cursor: Cursor, file: str, text: str, values: Mapping[str, object]) -> None:
    if given := functions_given_texts(text, values) if values else ():
        cursor.execute(_OTHER_NAMES, (sorted(given),))
        for (function,) in cursor.fetchall():
            raise PermanentError(
                f"configs/sql/{file} gives a value of the step to {function}, which runs it, or takes it for a server; "
                "a value can only be part of an expression: write the statement out, or branch in the spec"
            )


def _rebuild_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    if given.get("source") == given.get("target"):
        yield ("source",), "a table cannot be rebuilt from itself: it is emptied first"


@reusable("postgres.rebuild_table", role="transform", kind="deferrable", conflicts=_rebuild_conflicts)
def rebuild_table(
    connection: ConnectionId,
    target: BuiltTable,
    source: Table,
    columns: Annotated[dict[TableColumn, Sql], Field(min_length=1)],
    where: Sql | None = None,
    lock_timeout: LockTimeout = 60,
    claim_timeout: ClaimTimeout = 7200,
    *,
    run: Run,
) -> Rebuilt:
    """Empty `target` and refill it from `source`, in one transaction.

    `columns` gives each column of `target` as an expression over a row of `source`; `where` limits the rows. Readers
    of `target` wait until the new rows are there: they never see it empty or half full.

    While another run has claimed `target`, the step waits up to `claim_timeout` seconds, without a worker's slot. It
    waits up to `lock_timeout` seconds for a lock that no task holds.
    """
    claim([BuiltIn(connection, target)], run, claim_timeout)
    started = monotonic()
    with postgres(connection, run=run, lock_timeout=lock_timeout) as session, session.cursor() as cursor:
        rows_of = table_identifier(source)
        require_known_calls(cursor, rows_of, {f"columns.{name}": text for name, text in columns.items()}, run)
        if where:
            require_known_calls(cursor, rows_of, {"where": where}, run)  # apart: the columns may be aggregates
        # Not DELETE: it writes every old row again, and leaves the table twice as long for every scan until the next
        # vacuum. TRUNCATE costs nothing, but blocks readers until the commit, and a REPEATABLE READ transaction that
        # began before will see an empty table. Only its own run reads a staging table.
        cursor.execute(statement("TRUNCATE {target}", target=table_identifier(target)))
        with blamed(cursor, lambda: _parts(target, source, columns, where)):
            cursor.execute(_refill(target, source, columns, where))
        rows = record_build(cursor, target, run)
        cursor.execute(statement("ANALYZE {target}", target=table_identifier(target)))  # for the next query's plan
        require_claims(run)
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


def _parts(target: str, source: str, columns: dict[str, str], where: str | None) -> Parts:
    """Return what computes the condition alone, and each column as the target stores it."""
    rows = {"source": table_identifier(source), "where": fragment(where or "TRUE")}
    condition = statement("SELECT count(*) FROM {source} WHERE {where}", **rows)
    return {("where",): condition} | {
        ("columns", column): statement(
            "CREATE TEMPORARY TABLE alone ON COMMIT DROP AS SELECT {column} FROM {target} WITH NO DATA;"
            " INSERT INTO alone SELECT {value} FROM {source} WHERE {where}",
            column=name(column),
            target=table_identifier(target),
            value=fragment(text),
            **rows,
        )
        for column, text in columns.items()
    }


def _merge_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """Yield tables and columns that are named twice."""
    if given.get("source") == given.get("target"):
        yield ("source",), "a table cannot be merged into itself"
    taken: dict[object, str] = {}
    for path, column, what in _named_columns(given):
        if not isinstance(column, str):
            continue  # it has a template in it, so what it will be is not known yet
        if column in taken:
            yield path, f'"{column}" is {taken[column]} already'
        taken[column] = what


def _named_columns(given: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], object, str]]:
    """Yield each column that the arguments of a merge name: where, its name, and what it is there."""
    deactivate, timestamps = given.get("deactivate"), given.get("timestamps")
    yield from _listed(given, "keys", "a key")
    if isinstance(deactivate, dict):
        named = "flag" in deactivate
        flag = deactivate["flag"] if named else Deactivation.model_fields["flag"].default
        yield ("deactivate", "flag") if named else ("deactivate",), flag, "the flag of deactivate"
    if isinstance(timestamps, dict):
        for name in ("created", "updated"):
            if isinstance(timestamps.get(name), str):
                yield ("timestamps", name), timestamps[name], f"the column of timestamps.{name}"
    yield from _listed(given, "columns", "in columns")


def _listed(given: Mapping[str, Any], name: str, what: str) -> Iterator[tuple[tuple[str | int, ...], object, str]]:
    columns = given.get(name)  # a template, where the run knows the list
    for place, column in enumerate(columns if isinstance(columns, list) else ()):
        yield (name, place), column, what


@reusable("postgres.merge", role="load", conflicts=_merge_conflicts)
def merge(
    connection: ConnectionId,
    source: LoadedTable,
    target: Table,
    keys: Annotated[list[TableColumn], Field(min_length=1)],
    columns: list[TableColumn] | None = None,
    deactivate: Deactivation | None = None,
    timestamps: Timestamps | None = None,
    external_source: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    allow_empty: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    every_column: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    lock_timeout: LockTimeout = 60,
    *,
    run: Run,
) -> Merged:
    """Bring `target` up to date with `source`: insert, update, reactivate and deactivate rows, in one transaction.

    Only rows that are new, changed or returning are written; two nulls count as equal. Of the `timestamps`, `created`
    is set on new rows, and `updated` on all that were written or deactivated. `keys` must be the columns of a unique
    constraint of `target`, and no two rows of `source` may share them. `columns` are the values to copy, by default
    all columns that both tables have; the log says which are carried and which are not. With `every_column`, a column
    that would not be carried is an error, and nothing is written; lint reports it where the SQL files of the pipeline
    define the tables. With `deactivate`, active rows of `target` inside its
    `window` that are not in `source` get their flag set to false, and rows that come back get it set to true; an empty
    `source` deactivates nothing unless `allow_empty`. Other writers of `target` wait meanwhile; readers do not.

    Only rows that a step of the same run built, and that the gates before the load passed, are loaded; if they have
    changed since, nothing is. Set `external_source` if another system fills `source`: then the rows must be the ones
    that the gates saw. The step waits up to `lock_timeout` seconds for a lock that no task holds.
    """
    started = monotonic()
    with postgres(connection, run=run, lock_timeout=lock_timeout) as session, session.cursor() as cursor:
        _lock(cursor, source, target)
        make_records(cursor)
        taken = _taken(cursor, source, run, is_external=external_source)
        require_passes(cursor, connection, run, taken)
        terms = Terms(
            source,
            target,
            keys,
            columns,
            deactivate,
            timestamps or Timestamps(),
            taken.build,
            allow_empty,
            every_column,
        )
        if deactivate:
            require_known_calls(cursor, table_identifier(target), {"deactivate.window": deactivate.window}, run)
        with blamed(cursor, lambda: _window_alone(target, deactivate)):
            done = merge_tables(cursor, terms, run)
        note_loaded(cursor, source, run)
        require_claims(run)
    counts = ", ".join(f"{rows:,} {kind}" for kind, rows in done)
    run.log.info("%s: %s in %.1f s", target, counts, monotonic() - started)
    return done


def _window_alone(target: str, deactivate: Deactivation | None) -> Parts:
    """Return what computes the window alone."""
    if deactivate is None:
        return {}
    text = "SELECT count(*) FROM {target} WHERE {window}"
    counted = statement(text, target=table_identifier(target), window=fragment(deactivate.window))
    return {("deactivate", "window"): counted}


def _taken(cursor: Cursor, source: str, run: Run, *, is_external: bool) -> Judged:
    """Return what identifies the rows that a load takes; raise PermanentError where they are not of its own run."""
    if is_external:
        return Judged(source, fingerprint=fingerprint(cursor, source) if run.before.gates else None)
    if source not in run.before.builds:
        remedy = "build it in this pipeline, or say `external_source: true`"
        raise PermanentError(f"no step before {run.task_id!r} builds {source}; {remedy}")
    return Judged(source, own_build(cursor, source, run))


def _lock(cursor: Cursor, source: str, target: str) -> None:
    """Lock what the merge reads and writes, then take one snapshot for all of its statements.

    The order matters: a snapshot older than the locks would miss what the previous run committed, and would see a
    source that was truncated and refilled in between as empty. A materialized view cannot be locked: what reads it
    keeps a REFRESH away.
    """
    if foreign := foreign_part(cursor, source):
        whole = source if foreign == source else f"{source}, of which {foreign} is a part,"
        problem = f"{whole} is a foreign table: nothing tells whether its rows are those that the gate saw"
        raise PermanentError(f"{problem}; copy it with postgres.rebuild_table, judge the copy, and load that")
    is_lockable = kind_of(cursor, source) != "m"
    cursor.execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ")  # the look above must not take the snapshot
    text = "LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE"
    cursor.execute(statement(text, target=table_identifier(target)))
    if is_lockable:
        cursor.execute(statement("LOCK TABLE {source} IN ACCESS SHARE MODE", source=table_identifier(source)))


@reusable("postgres.vacuum", role="maintenance")
def vacuum(connection: ConnectionId, table: Table, lock_timeout: LockTimeout = 60, *, run: Run) -> Vacuumed:
    """Vacuum `table` and update its statistics: dead rows free their space, and later plans are good.

    Readers and writers are not blocked. The login must own the table, or have MAINTAIN on it. The step
    waits up to `lock_timeout` seconds for a lock that no task holds.
    """
    started = monotonic()
    opened = postgres(connection, run=run, autocommit=True, lock_timeout=lock_timeout)
    with opened as session, session.cursor() as cursor:
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
    """Raise PermanentError if the server only warned: it skips a table that the login may not vacuum."""
    for notice in notices:
        if "skipping" in notice:
            raise PermanentError(
                f"{table} was not vacuumed ({notice.strip()}); let its owner run it, or GRANT MAINTAIN"
            )
