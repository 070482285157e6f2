"""postgres.copy_table."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from stack.database import Cluster, Database
from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.postgres.copy_table import Copied, copy_table
from tests.support.database import Gate, Sql

CONNECTION, ELSEWHERE = "crypto_postgres", "elsewhere"
COLUMNS = "i bigint, n numeric(12, 3), f double precision, t text, d date, z timestamptz, a text[], v interval, y bytea"
ROWS = """
    (1, 1.5, 0.1, E'a\\tb\\n\\\\N', '2026-01-05', '2026-01-05 01:00+02', '{a,NULL}', '1 mon -2 days', '\\x00'),
    (2, 'NaN', '-Infinity', '', 'infinity', '2026-01-06 00:00+00', NULL, NULL, NULL),
    (3, NULL, NULL, NULL, '0044-03-15 BC', '2026-01-05 23:59:59.999999+00', '{}', '0', '')
"""


@pytest.fixture
def there(cluster: Cluster, postgres: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sql]:
    """Another database, which writes dates in its own way, with a table; a function that runs statements in it."""
    other = postgres.named(f"test_{uuid.uuid4().hex[:12]}")
    cluster.create(other)
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", other.airflow_connection)

    def execute(text: str, *values: object) -> list[tuple[Any, ...]]:
        with other.connect() as session, session.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    execute(f"ALTER DATABASE {other.dbname} SET datestyle = 'SQL, DMY'")
    execute(f"ALTER DATABASE {other.dbname} SET extra_float_digits = 0")
    execute("ALTER ROLE CURRENT_USER SET intervalstyle = 'sql_standard'")
    execute(f"CREATE SCHEMA s; CREATE TABLE s.orders ({COLUMNS})")
    execute(f"SET datestyle = 'ISO'; INSERT INTO s.orders VALUES {ROWS}")
    yield execute
    execute("ALTER ROLE CURRENT_USER RESET intervalstyle")
    cluster.drop(other)


def copied(run: Run, **change: Any) -> Copied:
    given: dict[str, Any] = {"source": "s.orders", "target": "staging.orders", "run": run} | change
    return copy_table(ELSEWHERE, given.pop("source"), CONNECTION, given.pop("target"), **given)


ALL = "SELECT {table}::text FROM {table} ORDER BY i"
TEXTS = "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; SET timezone = 'UTC'; "


def test_rows_are_the_same(run: Run, sql: Sql, there: Sql) -> None:
    """Every value arrives as it is, whatever the servers' settings; the table is made, and replaced by a rerun."""
    sql("CREATE SCHEMA staging")
    for _ in range(2):
        assert copied(run) == Copied(rows=3)
    rows = "SELECT o::text FROM {} AS o ORDER BY i"
    assert sql(TEXTS + rows.format("staging.orders")) == there(TEXTS + rows.format("s.orders"))
    assert sql("SELECT row_count, run_id FROM taskflow.builds") == [(3, run.run_id)] * 2


def test_window_of_update_key(run: Run, sql: Sql, there: Sql, caplog: pytest.LogCaptureFixture) -> None:
    """The rows of one day are those from its midnight in UTC up to the next."""
    sql("CREATE SCHEMA staging")
    day = {"since": dt.date(2026, 1, 5), "until": dt.date(2026, 1, 6)}
    assert copied(run, update_key="z", **day).rows == 1
    assert sql("SELECT i FROM staging.orders") == [(3,)]
    assert copied(run, update_key="i", since=2).rows == 2
    assert copied(run, update_key="n", since="0").rows == 2
    assert "s.orders: 1 rows have no n, so they are in no window" in caplog.text
    with pytest.raises(DataRejected, match=r"s\.orders has no rows to copy, .* say `allow_empty: true`"):
        copied(run, update_key="i", since=4)
    assert copied(run, update_key="i", since=4, allow_empty=True).rows == 0
    with pytest.raises(MissingResource, match=r"column 'at' does not exist in table s\.orders"):
        copied(run, update_key="at", since=4)
    with pytest.raises(PermanentError, match='invalid input syntax for type bigint: "2026-01-05"'):
        copied(run, update_key="i", since=dt.date(2026, 1, 5))


def test_types_are_compared_first(run: Run, sql: Sql, there: Sql) -> None:
    """Columns that differ are named with both types, and nothing is moved; columns with a default may be more."""
    sql(f"CREATE SCHEMA staging; CREATE TABLE staging.orders ({COLUMNS}, at timestamptz DEFAULT now())")
    sql("INSERT INTO staging.orders (i) VALUES (0)")
    there("ALTER TABLE s.orders ALTER i TYPE numeric; ALTER TABLE s.orders RENAME t TO u")
    with pytest.raises(PermanentError) as error:
        copied(run)
    assert str(error.value) == (
        "staging.orders has other columns than s.orders: i (numeric, in the table bigint), u (text, in the table "
        "missing), t (missing, in the table text); let both have the same, or name a view that has"
    )
    assert sql("SELECT i FROM staging.orders") == [(0,)]
    there("CREATE VIEW s.same AS SELECT i::bigint AS i, n, f, u AS t, d, z, a, v, y FROM s.orders")
    assert copied(run, source="s.same").rows == 3
    assert sql("SELECT count(at) FROM staging.orders") == [(3,)]


def test_missing_names(run: Run, sql: Sql, there: Sql) -> None:
    with pytest.raises(
        MissingResource, match=r"table 's\.none' does not exist in the database of connection 'elsewhere'"
    ):
        copied(run, source="s.none")
    with pytest.raises(MissingResource, match="schema 'staging' does not exist"):
        copied(run)


def test_source_that_fails(run: Run, sql: Sql, there: Sql) -> None:
    """An error in the middle of either side names that side, and the table is as it was."""
    sql("CREATE SCHEMA staging; CREATE TABLE staging.orders (i bigint CHECK (i < 200000))")
    sql("INSERT INTO staging.orders VALUES (0)")
    there("CREATE VIEW s.broken AS SELECT 1 / (100000 - i) + i AS i FROM generate_series(1, 200000) AS i")
    there("CREATE VIEW s.broken_big AS SELECT i::bigint FROM s.broken")
    with pytest.raises(PermanentError, match=r"broken_big \(connection 'elsewhere'\): division by zero"):
        copied(run, source="s.broken_big")
    there("CREATE VIEW s.large AS SELECT i::bigint FROM generate_series(1, 300000) AS i")
    with pytest.raises(PermanentError, match=r"connection 'crypto_postgres'\): new row .* violates check constraint"):
        copied(run, source="s.large")
    assert sql("SELECT i FROM staging.orders") == [(0,)]


def test_locked_source(run: Run, sql: Sql, there: Sql, gate: Gate) -> None:
    """A lock on either side that no task holds is waited for so long, and named."""
    sql(f"CREATE SCHEMA staging; CREATE TABLE staging.orders ({COLUMNS})")
    with gate.threads:
        holding = gate.start(there, "BEGIN; LOCK TABLE s.orders; SELECT pg_sleep(600)")
        look = "SELECT count(*) FROM pg_locks WHERE relation = 's.orders'::regclass AND mode = 'AccessExclusiveLock'"
        gate.seen("the lock", lambda: there(look), [(1,)])
        with pytest.raises(TransientError, match=r"for a lock that the session with pid \d+ holds"):
            copied(run, lock_timeout=0.2)
        there("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 's.orders'::regclass")
        assert holding.exception(60)


def test_killed_copy_changes_nothing(run: Run, sql: Sql, there: Sql, gate: Gate, database: Database) -> None:
    """A copy whose session ends in the middle leaves the table as it was, and its retry is whole."""
    sql(f"CREATE SCHEMA staging; CREATE TABLE staging.orders ({COLUMNS})")
    sql("INSERT INTO staging.orders (i) VALUES (0)")
    gate.hold("staging.orders", "NEW.i = 2")
    with gate.closed(database):
        copying = gate.start(copied, run)
        (pid,) = gate.waiting()
        gate.terminate(pid)
    with pytest.raises(TransientError):
        copying.result(60)
    assert sql("SELECT i FROM staging.orders") == [(0,)]
    assert copied(run).rows == 3
