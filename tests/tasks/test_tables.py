"""postgres.run_sql, postgres.rebuild_table and postgres.vacuum."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest

from stack.database import Cluster, Database
from tasks.contract import ArgumentRefused, MissingResource, PermanentError, Run, TransientError
from tasks.postgres.tables import Bound, Executed, Rebuilt, rebuild_table, run_sql, vacuum
from tests.support.database import Gate, Sql

CONNECTION = "crypto_postgres"


@pytest.fixture
def scripts(run: Run, tmp_path: Path) -> Run:
    """A run whose `configs/sql/` holds some files."""
    folder = tmp_path / "sql" / "some"
    folder.mkdir(parents=True)
    files = {
        "many.sql": "CREATE TABLE t (a integer);\nINSERT INTO t VALUES (1), (2);\nINSERT INTO t VALUES (100 % 7);\n",
        "broken.sql": "CREATE TABLE t (a integer);\nINSERT INTO t VALUES ('x');",
        "bound.sql": "INSERT INTO t SELECT %(a)s, %(day)s WHERE 5 %% 2 = 1",
        "percent.sql": "INSERT INTO t\nSELECT %(a)s WHERE 5 % 2 = 1",
        "empty.sql": "\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return replace(run, configs=tmp_path)


def test_file_runs_whole(scripts: Run, sql: Sql) -> None:
    """Every statement of a file runs, and a percent sign stands for itself; the rows of the last are counted."""
    assert run_sql(CONNECTION, "some/many.sql", run=scripts) == Executed(rows=1)
    assert sql("SELECT a FROM t") == [(1,), (2,), (2,)]


def test_broken_file_changes_nothing(scripts: Run, sql: Sql) -> None:
    """A file that fails in the middle leaves no trace, and the error shows the place."""
    with pytest.raises(PermanentError, match=r'invalid input syntax for type integer: "x" \(near "\'x\'\);"\)$'):
        run_sql(CONNECTION, "some/broken.sql", run=scripts)
    assert sql("SELECT to_regclass('t')") == [(None,)]


def test_values_are_bound(scripts: Run, sql: Sql) -> None:
    """Values reach the statement as values."""
    sql("CREATE TABLE t (a text, d date)")
    values: dict[str, Bound] = {"a": "'); DROP TABLE t; --", "day": dt.date(2026, 1, 5)}
    assert run_sql(CONNECTION, "some/bound.sql", values, run=scripts) == Executed(rows=1)
    assert sql("SELECT a, d FROM t") == [("'); DROP TABLE t; --", dt.date(2026, 1, 5))]


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (
            "some/bound.sql",
            "configs/sql/some/bound.sql, line 1: %(day)s has no value; `values` of the step has a",
        ),
        (
            "some/percent.sql",
            (
                "configs/sql/some/percent.sql, line 2: with `values`, a plain % is written %%, "
                "and a value %(name)s; double it"
            ),
        ),
        (
            "some/many.sql",
            (
                "configs/sql/some/many.sql, line 3: with `values`, a plain % is written %%, "
                "and a value %(name)s; double it"
            ),
        ),
        ("some/broken.sql", "configs/sql/some/broken.sql has no %(a)s; remove a from `values`, or use it"),
        ("some/empty.sql", "configs/sql/some/empty.sql is empty; write the statements to run"),
        (
            "some/mnay.sql",
            (
                "file 'some/mnay.sql' does not exist in {folder}; it has some/bound.sql, some/broken.sql, "
                "some/empty.sql, some/many.sql, some/percent.sql; correct `file` in the step"
            ),
        ),
    ],
)
def test_unusable_file_says_why(scripts: Run, database: Database, file: str, problem: str) -> None:
    """A file that cannot be run says what is wrong with it."""
    with pytest.raises(PermanentError) as raised:
        run_sql(CONNECTION, file, {"a": 1}, run=scripts)
    assert str(raised.value) == problem.format(folder=scripts.configs / "sql")


def test_crypto_tables_run_twice(run: Run, sql: Sql) -> None:
    """The tables of the crypto pipeline can be made again, over what is there."""
    run_sql(CONNECTION, "crypto/tables.sql", run=run)
    sql("INSERT INTO prod.bt_crypto_events VALUES ('BRASIL', 1, '2026-01-05', 'BTC', 1)")
    run_sql(CONNECTION, "crypto/tables.sql", run=run)
    tables = "SELECT schemaname || '.' || relname FROM pg_stat_user_tables ORDER BY 1"
    assert [name for (name,) in sql(tables)] == [
        "dqm.bt_crypto_events_rejects",
        "dqm.dq_runs",
        "prod.bt_crypto_events",
        "raw.bt_crypto_transaction_history",
        "staging.bt_crypto_events_candidate",
    ]
    assert sql("SELECT count(*), bool_and(is_active) FROM prod.bt_crypto_events") == [(1, True)]


def test_same_file_takes_turns(scripts: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """Two runs of one file never define the same thing at the same moment."""
    sql("CREATE TABLE t (a text, d date)")
    gate.hold("t", "TRUE")
    values: dict[str, Bound] = {"a": "x", "day": dt.date(2026, 1, 5)}
    with gate.closed(database):
        runs = [gate.start(run_sql, CONNECTION, "some/bound.sql", values, run=scripts) for _ in range(2)]
        gate.waiting(2)
        assert sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid <> 4711") == [
            (1,)
        ]
    assert [run.result() for run in runs] == [Executed(rows=1)] * 2


@pytest.fixture
def source(sql: Sql) -> None:
    """A source with three rows, and a target that holds an old one."""
    sql("""
        CREATE SCHEMA s;
        CREATE TABLE s.source (name text, price numeric, units numeric);
        INSERT INTO s.source VALUES ('a', 2, 1.5), ('b', 3, 2), ('c', NULL, 1);
        CREATE TABLE s.target (name text, worth numeric NOT NULL);
        INSERT INTO s.target VALUES ('old', 1);
    """)


TARGET = ("s.target", "s.source", {"name": "upper(name)", "worth": "price * units"}, "price IS NOT NULL AND 7 % 4 = 3")


def test_target_is_refilled(source: None, run: Run, sql: Sql) -> None:
    """The target holds what the expressions make of the source's rows, and nothing else; again and again."""
    for _ in range(2):
        assert rebuild_table(CONNECTION, *TARGET, run=run) == Rebuilt(rows=2)
        assert sql("SELECT name, worth FROM s.target ORDER BY name") == [("A", 3), ("B", 6)]


def test_target_is_analyzed(source: None, run: Run, sql: Sql) -> None:
    """What reads the target next can plan by its statistics."""
    rebuild_table(CONNECTION, *TARGET, run=run)
    assert sql("SELECT reltuples FROM pg_class WHERE oid = 's.target'::regclass") == [(2.0,)]


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"source": "s.nope"}, MissingResource, r"^table 's.nope' does not exist in Postgres at "),
        ({"target": "s.nope"}, MissingResource, r"^table 's.nope' does not exist in Postgres at "),
        ({"columns": {"nope": "1"}}, MissingResource, r"^column 'nope' does not exist in table 'target' of Postgres "),
        ({"columns": {"name": "nope"}}, MissingResource, r"^column 'nope' does not exist in Postgres at "),
        ({"columns": {"name": "name"}}, PermanentError, r'null value in column "worth" .*table s.target; column worth'),
        ({"columns": {"worth": "name::numeric"}}, ArgumentRefused, r'invalid input syntax for type numeric: "a"'),
    ],
)
def test_failed_rebuild_keeps_old(
    source: None, run: Run, sql: Sql, change: dict[str, object], error: type[Exception], problem: str
) -> None:
    """A rebuild that cannot be done says why, and leaves the rows that were there."""
    asked = {"target": "s.target", "source": "s.source", "columns": {"name": "name", "worth": "1"}, **change}
    with pytest.raises(error, match=problem) as raised:
        rebuild_table(CONNECTION, **asked, run=run)  # type: ignore[arg-type]  # one argument is wrong on purpose
    assert type(raised.value) is error
    assert sql("SELECT name FROM s.target") == [("old",)]


def test_killed_rebuild_keeps_old(source: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """A rebuild that is killed after it emptied the target leaves the old rows; the retry makes it whole."""
    gate.hold("s.target", "NEW.name = 'B'")
    with gate.closed(database):
        killed = gate.start(rebuild_table, CONNECTION, *TARGET, run=run)
        (session,) = gate.waiting()
        gate.terminate(session)
        assert isinstance(killed.exception(), TransientError)
    assert sql("SELECT name FROM s.target") == [("old",)]
    assert rebuild_table(CONNECTION, *TARGET, run=run) == Rebuilt(rows=2)


def test_readers_see_whole_tables(source: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """Who reads during a rebuild waits for the new rows: it sees neither an empty table nor half of one."""
    gate.hold("s.target", "NEW.name = 'B'")
    with gate.closed(database):
        rebuilt = gate.start(rebuild_table, CONNECTION, *TARGET, run=run)
        gate.waiting()
        seen = gate.start(sql, "SELECT name FROM s.target ORDER BY name")
        gate.blocked("s.target")
    assert rebuilt.result() == Rebuilt(rows=2)
    assert seen.result() == [("A",), ("B",)]


def test_vacuum_removes_dead(source: None, run: Run, sql: Sql) -> None:
    """Dead rows are gone, and the statistics know how many rows live."""
    sql("UPDATE s.source SET units = units + 1")
    done = vacuum(CONNECTION, "s.source", run=run)
    assert (done.table, done.live_rows, done.dead_rows_after) == ("s.source", 3, 0)
    assert sql("SELECT reltuples FROM pg_class WHERE oid = 's.source'::regclass") == [(3.0,)]


def test_missing_table_is_named(run: Run, database: Database) -> None:
    """A table that does not exist cannot be vacuumed."""
    with pytest.raises(MissingResource, match=r"^table 'raw.nope' does not exist in Postgres at "):
        vacuum(CONNECTION, "raw.nope", run=run)


def test_skipped_vacuum_fails(
    source: None, run: Run, database: Database, cluster: Cluster, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that may not vacuum the table is told so, where the server only warns."""
    guest = cluster.account("guest", "guest-password")
    cluster.create(guest)
    sql(f'GRANT CONNECT ON DATABASE "{database.dbname}" TO guest; GRANT USAGE ON SCHEMA s TO guest')
    opened = json.loads(guest.airflow_connection) | {"schema": database.dbname}
    monkeypatch.setenv("AIRFLOW_CONN_GUEST", json.dumps(opened))
    with pytest.raises(PermanentError) as raised:
        vacuum("guest", "s.source", run=run)
    assert str(raised.value) == (
        's.source was not vacuumed (WARNING:  permission denied to vacuum "source", skipping it); let its owner run '
        "it, or GRANT MAINTAIN"
    )
