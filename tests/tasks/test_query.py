"""postgres.query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stack.database import Database
from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.postgres.query import Queried, query
from tests.support.database import Sql

CONNECTION = "crypto_postgres"


def ask(run: Run, sql: str, **how: Any) -> Queried:
    return query(CONNECTION, sql, **how, run=run)


def test_value_row_and_list(run: Run, sql: Sql) -> None:
    """The first column of the first row, that row, and the first column of all rows."""
    sql("CREATE TABLE t AS SELECT n, 'site ' || n AS site FROM generate_series(1, 3) AS n")
    assert ask(run, "SELECT n, site FROM t ORDER BY n", returns={"n": "integer", "site": "text"}) == Queried(
        value=1,
        row={"n": 1, "site": "site 1"},
        values=[1, 2, 3],
        count=3,
    )


KINDS = {
    "9223372036854775807::bigint": 9223372036854775807,
    "sum(3::bigint)": 3,
    "0.1::float8": 0.1,
    "avg(n) FROM (VALUES (1), (2)) AS v (n)": 1.5,
    "true": True,
    "DATE '2026-01-05'": "2026-01-05",
    "TIMESTAMPTZ '2026-01-05 01:00+02'": "2026-01-04T23:00:00+00:00",
    "TIMESTAMP '2026-01-05 01:00:00.5'": "2026-01-05T01:00:00.500000+00:00",
    "''": "",
    """'{"a": 1.0}'::jsonb""": '{"a": 1.0}',
    "ARRAY[1, 2]": "{1,2}",
    "'00000000-0000-0000-0000-000000000001'::uuid": "00000000-0000-0000-0000-000000000001",
}


def test_kinds_of_values(run: Run, database: Database) -> None:
    """Each type of Postgres is the type of templates that holds it; any other is the server's own text."""
    assert {one: ask(run, f"SELECT {one}").value for one in KINDS} == KINDS


WRONG = {
    ("SELECT 'NaN'::float8", None): "row 1 has 'NaN' as float8, which is not a number that a template can have",
    ("SELECT 'infinity'::date AS d", None): "row 1 has 'infinity' as d, which is not a date",
    ("SELECT '4713-01-01 BC'::timestamp AS d", None): "which is not a datetime",
    ("SELECT 9223372036854775808 AS n", None): "which is not a number that a template can have",
    ("SELECT 'NaN'::numeric AS n", None): "which is not a number that a template can have",
    ("SELECT 1.5 AS n", "integer"): "row 1 has '1.5' as n, which is not an integer",
    ("SELECT 9223372036854775808 AS n", "integer"): "which is not an integer",
    ("SELECT 'x' AS n", "number"): "which is not a number",
    ("SELECT 1 AS n", "boolean"): "which is not true or false",
    ("SELECT 1 AS m", "integer"): "the query returns m, and the step declares n; correct `returns`",
    ("SELECT NULL AS n", None): "row 1 has null as n; use coalesce() in the query, or set `allow_null: true`",
    ("SELECT 1 AS n WHERE false", None): "the query returns no row; set `allow_null: true`",
    ("SELECT 1 AS n, 2 AS n", None): "two columns of one name (n, n)",
    ("SELECT generate_series(1, 101) AS n", None): "more than 100 rows; add a LIMIT or a condition, or raise `limit`",
    ("SELECT repeat('x', 70000) AS n", None): "and the maximum is 65,536",
}


def test_results_that_do_not_fit(run: Run, database: Database) -> None:
    """What has no exact value in a template, and what is not as declared, is an error with a remedy."""
    for (text, kind), message in WRONG.items():
        with pytest.raises(DataRejected) as error:
            ask(run, text, returns={"n": kind} if kind else None)
        assert message in str(error.value), text


def test_nulls_are_allowed(run: Run, database: Database) -> None:
    """With `allow_null`, no row is null too."""
    nothing = Queried(value=None, row=None, values=[], count=0)
    assert ask(run, "SELECT 1 AS n WHERE false", allow_null=True) == nothing
    assert ask(run, "SELECT NULL::int AS n", allow_null=True).row == {"n": None}


def test_query_only_reads(run: Run, sql: Sql) -> None:
    """A function of the database's owner that writes is refused by the server."""
    sql("CREATE TABLE t (n integer)")
    sql("CREATE FUNCTION adds() RETURNS integer LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING n'")
    with pytest.raises(PermanentError, match=r"calls public\.adds, a function of this database's own"):
        ask(run, "SELECT adds() AS n")
    with pytest.raises(PermanentError, match="would change something: cannot execute INSERT"):
        ask(replace(run, functions=frozenset({"adds"})), "SELECT adds() AS n")
    with pytest.raises(ValueError, match="not one SELECT"):
        ask(run, "DELETE FROM t")
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_missing_and_locked_table(run: Run, sql: Sql, database: Database) -> None:
    with pytest.raises(MissingResource, match=r"table 's\.t' does not exist"):
        ask(run, "SELECT n FROM s.t")
    sql("CREATE SCHEMA s")
    sql("CREATE TABLE s.t (n integer)")
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE s.t")
        with pytest.raises(TransientError, match=r"for a lock that the session with pid \d+ holds"):
            ask(run, "SELECT n FROM s.t", lock_timeout=0.2)
