"""postgres.copy_table: rows of a table from one database into another, by COPY on both sides.

Knows how two sessions are joined by a pipe; no row is held in Python.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import IO, TYPE_CHECKING, Any

from tasks.contract import (
    ArrivingTable,
    BuiltIn,
    ClaimTimeout,
    Column,
    Conflict,
    ConnectionId,
    DataRejected,
    LockTimeout,
    MissingResource,
    Output,
    PermanentError,
    Run,
    Table,
    reusable,
)
from tasks.postgres.blame import blamed_text
from tasks.postgres.claims import claim
from tasks.postgres.loading.targets import differences, fields_of, make_table
from tasks.postgres.relations import columns_alone, columns_of, kind_of, require_columns
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import EXACT_TEXTS, joined, name, names, only_row, statement, value
from tasks.postgres.versions import record_build
from tasks.services.postgres import postgres, statement_errors

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

Limit = dt.datetime | dt.date | int | str
"""A value of the update key."""
_BLOCK = 1 << 18


class Copied(Output):
    """The table after the copy."""

    rows: int
    """Rows in the table now."""


def _conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    same_database = given.get("source_connection") == given.get("connection")
    if same_database and given.get("source") is not None and given.get("source") == given.get("target"):
        yield ("source",), "a table cannot be copied into itself: it is emptied first"
    limits = [one for one in ("since", "until") if given.get(one) is not None]
    if given.get("update_key") is not None and not limits:
        yield ("update_key",), "update_key needs `since`, `until` or both: the rows are those in between"
    if given.get("update_key") is None and limits:
        yield (limits[0],), f"{limits[0]} is a value of `update_key`, and there is none"


@reusable("postgres.copy_table", role="transform", kind="deferrable", conflicts=_conflicts)
def copy_table(
    source_connection: ConnectionId,
    source: Table,
    connection: ConnectionId,
    target: ArrivingTable,
    update_key: Column | None = None,
    since: Limit | None = None,
    until: Limit | None = None,
    allow_empty: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    lock_timeout: LockTimeout = 60,
    claim_timeout: ClaimTimeout = 7200,
    *,
    run: Run,
) -> Copied:
    """Empty `target` and fill it with the rows of `source` from another connection, in one transaction of each.

    `source` is a table or a view, and is read at one moment. All of its rows are copied or, with `update_key`, those
    for which it is not before `since` and before `until`: with `since: {{ run.date }}` and
    `until: {{ run.date | add_days(1) }}`, those that changed on that day, also if the step runs again next week.
    Postgres reads both as literals of the column's type; moments without a zone are in UTC. Rows without an
    `update_key` are in no window, and the log counts them.

    Both must have the same columns with the same types, in any order, apart from columns of `target` with a default:
    otherwise nothing is copied, and the error names both types. A `target` that does not exist is made with the columns
    of `source`, without its constraints. The rows stream from COPY to COPY; both sides count them.

    A gate after the step must judge the whole table, and postgres.merge brings the rows on from there. Raises
    DataRejected if there are no rows, unless `allow_empty`. While another run has claimed `target`, the step waits up
    to `claim_timeout` seconds, without a worker's slot. It waits up to `lock_timeout` seconds for a lock that no task
    holds.
    """
    claim([BuiltIn(connection, target)], run, claim_timeout)
    started = monotonic()
    with postgres(source_connection, run=run, lock_timeout=lock_timeout) as reading, reading.cursor() as there:
        reading.set_session(isolation_level="REPEATABLE READ", readonly=True)
        there.execute(EXACT_TEXTS)
        types = _types_of(there, source, source_connection)
        where = _window(there, source, update_key, since, until, run)
        with postgres(connection, run=run, lock_timeout=lock_timeout) as session, session.cursor() as cursor:
            cursor.execute(EXACT_TEXTS)
            columns = _prepared(cursor, source, target, types)
            cursor.execute(statement("TRUNCATE {target}", target=table_identifier(target)))
            moved = _Pipe(there, source, source_connection, _out(source, columns, where)).into(
                cursor, _into(target, columns)
            )
            rows = record_build(cursor, target, run)
            _require_rows(rows, moved, source, target, allow_empty=allow_empty)
            cursor.execute(statement("ANALYZE {target}", target=table_identifier(target)))  # for the next query's plan
    run.log.info("%s: %s rows from %s in %.1f s", target, f"{rows:,}", source, monotonic() - started)
    return Copied(rows=rows)


def _types_of(cursor: Cursor, source: str, connection: str) -> dict[str, str]:
    if kind_of(cursor, source) is None:
        remedy = "correct the name in the step, or create it"
        raise MissingResource("table", source, f"the database of connection {connection!r}", remedy)
    return {column: facts.type for column, facts in columns_of(cursor, source).items()}


def _prepared(cursor: Cursor, source: str, target: str, types: Mapping[str, str]) -> list[str]:
    """Return the columns to copy; make the table if it is missing, and raise PermanentError if it has others."""
    if kind_of(cursor, target) is None:
        make_table(cursor, target, types)
    fields = fields_of(cursor, target)
    there = {one.name: one.type for one in fields if one.name in types or not one.may_be_absent}
    if there != dict(types):
        shown = ", ".join(differences(types, "missing", there, "missing"))
        remedy = "let both have the same, or name a view that has"
        raise PermanentError(f"{target} has other columns than {source}: {shown}; {remedy}")
    return list(types)


def _window(
    cursor: Cursor, source: str, key: str | None, since: Limit | None, until: Limit | None, run: Run
) -> Composable:
    if key is None:
        return statement("TRUE")
    columns = columns_of(cursor, source)
    require_columns(source, columns, [key])
    if not columns[key].not_null:
        _tell_without_key(cursor, source, key, run)
    limits = ((">=", since), ("<", until))
    return joined(
        " AND ",
        (
            statement(f"{{key}} {operator} {{limit}}", key=name(key), limit=value(str(limit)))
            for operator, limit in limits
            if limit is not None
        ),
    )


def _tell_without_key(cursor: Cursor, source: str, key: str, run: Run) -> None:
    text = "SELECT count(*) FROM {source} WHERE {key} IS NULL"
    cursor.execute(statement(text, source=table_identifier(source), key=name(key)))
    if lacking := only_row(cursor)[0]:
        run.log.warning("%s: %s rows have no %s, so they are in no window", source, f"{lacking:,}", key)


def _out(source: str, columns: list[str], where: Composable) -> Composable:
    text = "COPY (SELECT {columns} FROM {source} WHERE {where}) TO STDOUT WITH (FORMAT text, ENCODING 'UTF8')"
    return statement(text, columns=names(columns), source=table_identifier(source), where=where)


def _into(target: str, columns: list[str]) -> Composable:
    text = "COPY {target} ({columns}) FROM STDIN WITH (FORMAT text, ENCODING 'UTF8')"
    return statement(text, target=table_identifier(target), columns=names(columns))


def _require_rows(rows: int, moved: int, source: str, target: str, *, allow_empty: bool) -> None:
    if rows != moved:
        problem = f"{target} has {rows:,} of the {moved:,} rows of {source}"
        raise PermanentError(f"{problem}: one of its triggers or rules holds rows back")
    if not rows and not allow_empty:
        problem = f"{source} has no rows to copy, so {target} would be empty"
        raise DataRejected(f"{problem}; say `allow_empty: true` where that is right")


class _Pipe:
    """One session's COPY TO that another session's COPY FROM reads."""

    def __init__(self, cursor: Cursor, source: str, connection: str, copying: Composable) -> None:
        self._cursor = cursor
        self._source = source
        self._connection = connection
        self._copying = copying
        self._problem: Exception | None = None

    def into(self, cursor: Cursor, copying: Composable) -> int:
        """Move all rows, and return how many were read; raise the error of the side that failed first."""
        out, into = os.pipe()
        writer = Thread(target=self._write, args=(os.fdopen(into, "wb"),), daemon=True)
        writer.start()
        failed: Exception | None = None
        with os.fdopen(out, "rb", _BLOCK) as rows:
            try:
                cursor.copy_expert(copying, rows, _BLOCK)
            except Exception as problem:  # noqa: BLE001  # half a row, where the other side has failed
                failed = problem
        writer.join()
        if self._problem is not None:
            with statement_errors(self._connection), blamed_text(self._cursor, self._alone):
                raise self._problem
        if failed is not None:
            raise failed
        return int(self._cursor.rowcount)

    def _alone(self) -> dict[str, Composable]:
        """Return what computes each column of the source alone."""
        parts = columns_alone(self._cursor, self._source)
        return {f"{column} (connection {self._connection!r})": part for column, part in parts.items()}

    def _write(self, rows: IO[bytes]) -> None:
        try:
            with suppress(BrokenPipeError), rows:
                self._cursor.copy_expert(self._copying, rows, _BLOCK)
        except Exception as problem:  # noqa: BLE001  # raised again by the thread that waits for it
            self._problem = problem
