"""Merges of generated tables, compared with plain SQL: the same rows, or refused where that is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg2
import pytest

from tasks.contract import PermanentError, Run
from tests.support.made_tables import TYPES, Made, made, plain_merge, quoted
from tests.support.merging import merged

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case

    from stack.database import Database

COPY = """
    CREATE TABLE s.plain (LIKE s.target INCLUDING ALL);
    INSERT INTO s.plain OVERRIDING SYSTEM VALUE TABLE s.target;
"""


def set_up(cursor: Cursor, tables: Made) -> None:
    """Make the tables, with the rows that the server takes; s.plain is a copy of s.target."""
    cursor.execute(f"DROP TABLE IF EXISTS s.source, s.target, s.plain; {tables.tables}")
    for row in tables.rows:
        with suppress(psycopg2.Error):
            cursor.execute(row)
    cursor.execute(COPY)


def rows(cursor: Cursor, table: str, tables: Made) -> list[tuple[object, ...]]:
    """Return the carried columns of a table, as the server writes them."""
    listed = ", ".join(f"t.{quoted(name)}" for name in (*tables.keys, *tables.columns))
    cursor.execute(f"SELECT ROW ({listed})::text FROM {table} AS t ORDER BY 1")
    return cursor.fetchall()


def refusal(cursor: Cursor, statements: str) -> str | None:
    """Run plain SQL in one transaction; return why it is refused."""
    try:
        cursor.execute(f"BEGIN; {statements} COMMIT")
    except psycopg2.Error as refused:
        cursor.execute("ROLLBACK")
        return str(refused)
    return None


def test_merge_does_what_plain_sql_does(run: Run, database: Database, request: pytest.FixtureRequest) -> None:
    """The rows of an INSERT … ON CONFLICT DO UPDATE, or none where that is refused; a second merge changes nothing."""
    first, count = request.config.getoption("--seed"), request.config.getoption("--tables")
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute(f"SET timezone = 'UTC'; CREATE SCHEMA s; {TYPES}")
        outcomes = {is_taken(cursor, run, seed) for seed in range(first, first + count)}
    assert outcomes == {True, False}


def is_taken(cursor: Cursor, run: Run, seed: int) -> bool:
    """Merge the tables of one seed; return whether plain SQL takes the source."""
    tables, ours = made(seed), None
    set_up(cursor, tables)
    terms = {"source": "s.source", "target": "s.target", "keys": tables.keys, "deactivate": None, "timestamps": None}
    plain = refusal(cursor, plain_merge(tables))

    try:
        ours = merged(run, **terms)
        said = str(ours)
    except PermanentError as refused:
        said = str(refused)

    about = f"seed {seed}: {tables.tables};\n{tables.rows}\nplain SQL: {plain or 'taken'}\nthe merge: {said}"
    assert (plain is None) == (ours is not None), about
    assert rows(cursor, "s.target", tables) == rows(cursor, "s.plain", tables), about
    if ours is not None:
        again = merged(run, **terms)
        assert (again.inserted, again.updated) == (0, 0), about
        assert again.unchanged == ours.inserted + ours.updated + ours.unchanged, about
    assert rows(cursor, "s.target", tables) == rows(cursor, "s.plain", tables), about
    return ours is not None
