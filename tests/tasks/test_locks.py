"""A lock of a person's session is waited for only so long, and its holder is named; one of a task is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from stack.database import Cluster, Database
from tasks.contract import DataRejected, Run, TransientError
from tasks.postgres.tables import rebuild_table, run_sql, vacuum
from tasks.quality.gate import validate
from tasks.quality.suites import Batch, Expectation, Suite
from tasks.services.postgres import postgres
from tests.support.database import Gate, Sql

CONNECTION = "crypto_postgres"
TABLES = """
    CREATE SCHEMA s;
    CREATE TABLE s.raw (id int);
    CREATE TABLE s.staging (id int);
    INSERT INTO s.raw SELECT generate_series(1, 10);
"""
SUITE = Suite(
    name="ids",
    connection=CONNECTION,
    batch=Batch(table="s.staging"),
    expectations=[Expectation(type="expect_table_row_count_to_be_between", arguments={"min_value": 0})],
)


@pytest.fixture
def tables(sql: Sql) -> None:
    sql(TABLES)


@contextmanager
def locked(database: Database, application: str) -> Iterator[int]:
    """Hold the strongest lock on the table for the block, in a session of that name; provide its pid."""
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("SELECT set_config('application_name', %s, false), pg_backend_pid()", [application])
        pid = cursor.fetchall()[0][1]
        cursor.execute("BEGIN; LOCK TABLE s.staging IN ACCESS EXCLUSIVE MODE")
        yield pid


def runs_file(run: Run, lock_timeout: float) -> object:
    folder = run.configs / "sql"
    folder.mkdir(parents=True)
    (folder / "fill.sql").write_text("INSERT INTO s.staging VALUES (1)")
    return run_sql(CONNECTION, "fill.sql", lock_timeout=lock_timeout, run=run)


WAITING: dict[str, Callable[[Run, float], object]] = {
    "build": lambda run, timeout: rebuild_table(
        CONNECTION, "s.staging", "s.raw", {"id": "id"}, lock_timeout=timeout, run=run
    ),
    "file": runs_file,
    "gate": lambda run, timeout: validate(SUITE, lock_timeout=timeout, run=run),
    "vacuum": lambda run, timeout: vacuum(CONNECTION, "s.staging", lock_timeout=timeout, run=run),
}


@pytest.mark.parametrize("step", WAITING)
def test_holder_is_named(tables: None, run: Run, database: Database, tmp_path: object, step: str) -> None:
    """Who forgot to commit in psql is named, with pid, application and time; the error is one that is retried."""
    own = run.__class__(run.dag_id, run.run_id, run.task_id, run.date, configs=run.configs.__class__(str(tmp_path)))
    since = r"in a transaction since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"

    with locked(database, "psql") as pid, pytest.raises(TransientError) as told:
        WAITING[step](own, 0.2)

    problem = rf"waited \d+ s for a lock that the session with pid {pid} holds \(application 'psql', {since}\); end it"
    assert told.match(problem)


def test_task_is_waited_for(tables: None, run: Run, sql: Sql, gate: Gate, database: Database) -> None:
    """A task that has the lock is let end, however long it takes."""
    with locked(database, f"taskflow {run.dag_id}.other"):
        waiting = gate.start(WAITING["build"], run, 0.05)
        (pid,) = gate.waiting()
        asked = "SELECT extract(epoch FROM now() - waitstart) > 1 FROM pg_locks WHERE pid = %s AND NOT granted"
        gate.seen("it to have waited a second", lambda: sql(asked, pid), [(True,)])

    assert waiting.result(30).rows == 10


def test_holder_of_another_login_is_named_without_details(
    tables: None, cluster: Cluster, run: Run, database: Database
) -> None:
    """Of another login's session the server may tell no times: the pid is told all the same."""
    with (
        locked(cluster.superuser.named(database.dbname), "psql") as pid,
        pytest.raises(TransientError, match=rf"a lock that the session with pid {pid} holds \(application 'psql'\)"),
    ):
        WAITING["build"](run, 0.2)


def test_slow_statement_is_not_cancelled(tables: None, run: Run) -> None:
    """A statement that works, and waits for nobody, takes as long as it takes."""
    with postgres(CONNECTION, run=run, lock_timeout=0.05) as session, session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM generate_series(1, 3000000)")
        assert cursor.fetchall() == [(3_000_000,)]


@pytest.mark.parametrize("batch", ["s.raw", "s.seen"], ids=["lookup of a rule", "view"])
def test_gate_sees_no_table_in_the_middle_of_a_build(
    tables: None, run: Run, sql: Sql, gate: Gate, database: Database, batch: str
) -> None:
    """A table that a rule reads, or a view, is locked before the snapshot: TRUNCATE would show it empty."""
    sql("CREATE VIEW s.seen AS SELECT * FROM s.staging; INSERT INTO s.staging VALUES (3)")
    query = "SELECT * FROM {batch} WHERE id IN (SELECT id FROM s.staging)"
    suite = Suite(
        name="banned",
        connection=CONNECTION,
        batch=Batch(table=batch),
        expectations=[Expectation(type="unexpected_rows_expectation", arguments={"unexpected_rows_query": query})],
    )
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("SELECT set_config('application_name', 'taskflow other.build', false)")
        cursor.execute("BEGIN; TRUNCATE s.staging")
        judging = gate.start(validate, suite, run=run)
        gate.waiting()
        cursor.execute("INSERT INTO s.staging VALUES (3); COMMIT")

    with pytest.raises(DataRejected, match="1 of 1 expectations failed"):
        judging.result(60)
