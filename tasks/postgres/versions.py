"""The version of a table that a step built, and whether its rows are still exactly those.

A build records, in its own transaction, who it is, how many rows the table holds and the transaction's id. Postgres
stores with each row the id of the transaction that wrote it (`xmin`), so a version stands as long as the table has that
many rows and each of them is the build's. Any other INSERT, UPDATE or DELETE changes that, and so does a TRUNCATE that
is followed by an equal refill; VACUUM, also FREEZE and FULL, does not. DDL can change what the rows mean and write none
of them, so the form of the table is recorded too.

Knows the records and the rows; knows nothing of suites or of what a load writes.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contract import PermanentError, Run
from tasks.postgres.relations import form_of
from tasks.postgres.sql import quoted_table, table_identifier
from tasks.postgres.statements import only_row, statement, value

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

SCHEMA = "taskflow"

_MAKE_RECORDS = """
    CREATE SCHEMA IF NOT EXISTS taskflow;
    CREATE TABLE IF NOT EXISTS taskflow.builds (
        id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        table_oid    oid NOT NULL,
        table_name   text NOT NULL,
        row_count    bigint NOT NULL,
        transaction  xid8 NOT NULL,
        deployment   text NOT NULL,
        dag_id       text NOT NULL,
        run_id       text NOT NULL,
        run_date     date NOT NULL,
        task_id      text NOT NULL,
        map_index    integer NOT NULL,
        attempt      text NOT NULL,
        built_at     timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    ALTER TABLE taskflow.builds ADD COLUMN IF NOT EXISTS form text;
    CREATE INDEX IF NOT EXISTS builds_by_table ON taskflow.builds (table_oid, id DESC);
    CREATE TABLE IF NOT EXISTS taskflow.passes (
        id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        table_oid    oid NOT NULL,
        table_name   text NOT NULL,
        build        bigint REFERENCES taskflow.builds (id),
        fingerprint  text,
        suite        text NOT NULL,
        digest       text NOT NULL,
        passed       boolean NOT NULL,
        deployment   text NOT NULL,
        dag_id       text NOT NULL,
        run_id       text NOT NULL,
        task_id      text NOT NULL,
        map_index    integer NOT NULL,
        attempt      text NOT NULL,
        judged_at    timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX IF NOT EXISTS passes_by_gate ON taskflow.passes (dag_id, run_id, task_id, map_index, id DESC);
    CREATE TABLE IF NOT EXISTS taskflow.claims (
        table_name   text PRIMARY KEY,
        deployment   text,
        dag_id       text,
        run_id       text,
        run_date     date,
        task_id      text,
        claimed_at   timestamptz,
        is_local     boolean,
        is_loaded    boolean
    );
    CREATE TABLE IF NOT EXISTS taskflow.waits (
        deployment   text NOT NULL,
        dag_id       text NOT NULL,
        run_id       text NOT NULL,
        task_id      text NOT NULL,
        map_index    integer NOT NULL,
        run_date     date NOT NULL,
        is_local     boolean NOT NULL,
        table_names  text[] NOT NULL,
        since        timestamptz NOT NULL,
        seen_at      timestamptz NOT NULL,
        until        timestamptz NOT NULL,
        PRIMARY KEY (deployment, dag_id, run_id, task_id, map_index)
    );
"""
_HAS_RECORDS = """
    SELECT bool_and(EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass('taskflow.' || one) AND attname = newest
    ))
    FROM (VALUES ('builds', 'form'), ('passes', 'fingerprint'), ('claims', 'is_loaded'),
                 ('waits', 'until')) AS made (one, newest)
"""
"""Whether there are all tables, each with the column that it got last."""


def make_records(cursor: Cursor) -> None:
    """Make the tables of builds, passes, claims and waits, and what they lack; raise PermanentError if it may not."""
    from psycopg2.errors import InsufficientPrivilege

    cursor.execute(_HAS_RECORDS)
    if only_row(cursor)[0]:
        return
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('taskflow.records'))")
    try:
        cursor.execute(_MAKE_RECORDS)
    except InsufficientPrivilege:
        raise PermanentError(
            "the schema taskflow, which records builds, passes, claims and waits, lacks a table or a column that this "
            "login may not make; GRANT CREATE ON DATABASE to it once; or let the schema's owner build a table once, "
            "and then GRANT USAGE, and INSERT, SELECT, UPDATE and DELETE on its tables"
        ) from None


@dataclass(frozen=True, slots=True)
class Build:
    """A recorded build of a table."""

    id: int
    table: str
    rows: int
    transaction: int
    deployment: str
    dag_id: str
    run_id: str
    date: dt.date
    task_id: str
    built_at: dt.datetime
    form: str | None
    """That of the table (`relations.form_of`); None for a build that was recorded before forms were."""

    def is_of(self, run: Run) -> bool:
        """Return whether a step of `run` made it."""
        return (self.deployment, self.dag_id, self.run_id) == (run.deployment, run.dag_id, run.run_id)

    def told_to(self, run: Run) -> str:
        """Return who built the rows, for which date and when; which Airflow, where that is not the one of `run`."""
        where = f" of {self.deployment}" if self.deployment != run.deployment else ""
        when = f"{self.built_at:%Y-%m-%d %H:%M:%S %Z}"
        return f"{self.dag_id}.{self.task_id} in run {self.run_id}{where}, for {self.date}, built at {when}"


_RECORD = """
    INSERT INTO taskflow.builds (table_oid, table_name, row_count, transaction, deployment, dag_id, run_id, run_date,
                                 task_id, map_index, attempt, form)
    VALUES (%(table)s::regclass, %(name)s, %(rows)s, pg_current_xact_id(), %(deployment)s, %(dag_id)s, %(run_id)s,
            %(date)s, %(task_id)s, %(map_index)s, %(attempt)s, %(form)s)
"""


def record_build(cursor: Cursor, table: str, run: Run) -> int:
    """Record that this transaction built `table`, whole, and return its rows; raise where it did not write them all.

    The rows must be of this very transaction: what a savepoint wrote has another id.
    """
    make_records(cursor)
    cursor.execute("SELECT pg_current_xact_id()::text::numeric % 4294967296")
    rows, foreign = count_rows(cursor, table, int(only_row(cursor)[0]))
    if foreign:
        problem = f"{foreign:,} of the {rows:,} rows of {table} were not written by {run.task_id}"
        remedy = "empty the table first (TRUNCATE), write it without savepoints, and leave no exception block around it"
        raise PermanentError(f"{problem}, so it did not build the table; {remedy}")
    what = {"table": quoted_table(table), "name": table, "rows": rows, "form": form_of(cursor, table)}
    identity = {"deployment": run.deployment, "dag_id": run.dag_id, "run_id": run.run_id, "date": run.date}
    who = {"task_id": run.task_id, "map_index": run.map_index, "attempt": run.attempt}
    cursor.execute(_RECORD, {**what, **identity, **who})
    return rows


def count_rows(cursor: Cursor, table: str, transaction: int) -> tuple[int, int]:
    """Return the rows of `table`, and how many of them another transaction wrote."""
    text = "SELECT count(*), {foreign} FROM {table}"
    cursor.execute(statement(text, foreign=foreign_rows(transaction), table=table_identifier(table)))
    rows, foreign = only_row(cursor)
    return int(rows), int(foreign)


def foreign_rows(transaction: int) -> Composable:
    """Return the SQL that counts the rows that another transaction than this one wrote."""
    wanted = value(str(transaction % 2**32))
    return statement("count(*) FILTER (WHERE xmin <> {wanted}::xid)", wanted=wanted)


_LATEST = """
    SELECT id, table_name, row_count, transaction::text, deployment, dag_id, run_id, run_date, task_id, built_at,
           form
    FROM taskflow.builds WHERE table_oid = %s::regclass ORDER BY id DESC LIMIT 1
"""


def latest_build(cursor: Cursor, table: str) -> Build | None:
    """Return the newest build of `table` that the transaction sees; the records have been made."""
    cursor.execute(_LATEST, [quoted_table(table)])
    row = cursor.fetchone()
    return None if row is None else Build(row[0], row[1], row[2], int(row[3]), *row[4:])


def standing_build(cursor: Cursor, table: str, run: Run) -> Build:
    """Return the build of `table` by `run`; raise PermanentError unless it is the newest and stands unchanged.

    Costs one scan of the table.
    """
    build = own_build(cursor, table, run)
    require_unchanged(build, *count_rows(cursor, table, build.transaction), run)
    return build


def own_build(cursor: Cursor, table: str, run: Run) -> Build:
    """Return the newest build of `table`; raise PermanentError where it is not of `run`, or DDL changed it since."""
    clear = f"clear {run.before.builds[table]!r} with its downstream"
    build = latest_build(cursor, table)
    if build is None:
        raise PermanentError(f"no step has recorded a build of {table}; {clear}")
    if not build.is_of(run):
        problem = f"{table} holds the rows of {build.told_to(run)}, not those of this run ({run.dag_id}, {run.run_id})"
        raise PermanentError(f"{problem}; {clear}")
    if build.table != table:
        raise PermanentError(f"{table} had another name, {build.table}, for {build.told_to(run)}; {clear}")
    if build.form is None:
        problem = f"an earlier version of taskflow recorded {build.told_to(run)}, without the columns of {table}"
        raise PermanentError(f"{problem}; {clear}")
    if build.form != form_of(cursor, table):
        problem = f"the columns of {table}, or one of their types, were changed after {build.told_to(run)}"
        raise PermanentError(f"{problem}; {clear}")
    return build


def require_unchanged(build: Build, rows: int, foreign: int, run: Run) -> None:
    """Raise PermanentError unless a table has the rows of its build, and no others."""
    if foreign or rows != build.rows:
        missing = build.rows - (rows - foreign)
        changes = ", ".join(
            f"{count:,} {what}"
            for count, what in ((missing, "of its rows are gone or changed"), (foreign, "are of somebody else"))
            if count
        )
        clear = run.before.builds[build.table]
        problem = f"{build.table} was changed after {build.told_to(run)}: of {build.rows:,} rows, {changes}"
        raise PermanentError(f"{problem}; clear {clear!r} with its downstream")
